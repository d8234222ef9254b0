"""How much recordings of a unit vary."""

from __future__ import annotations

# Least and largest deviation of the median channel, from far below to far above what heads give. EEG is about 1e-5 V:
# above 10 mV values are in microvolt or counts, below 1 nV they were scaled twice. MEG is 1e-13 to 1e-12 T, less in a
# narrow band or an average of many trials: above 1 nT it is in femtotesla or counts. Betas are a few percent; z-scores
# 1, a little less or more when averaged or scaled by a baseline.
PLAUSIBLE_SPREAD = {"V": (1e-9, 1e-2), "T": (1e-17, 1e-9), "z": (0.1, 10.0), "percent signal change": (1e-2, 100.0)}
