"""How much recordings of a unit vary."""

from __future__ import annotations

from neural_clip.preparation import RAW_SPREAD

# Least and largest deviation of the median channel. Z-scores vary by 1, a little less or more when averaged or scaled
# by a baseline.
PLAUSIBLE_SPREAD = RAW_SPREAD | {"z": (0.1, 10.0)}
