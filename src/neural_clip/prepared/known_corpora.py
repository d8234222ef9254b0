"""The corpora that this package knows by name."""

from __future__ import annotations

# Seconds from one onset to the next, on average, by corpus.
TRIAL_SECONDS = {
    # 50 images of 0.5 s and 10 s of black screen a class: 1,400 s for 2,000 images (Spampinato et al. 2017, CVPR,
    # doi:10.1109/CVPR.2017.479, table 1)
    "imagenet_eeg": 0.5 + 10.0 / 50,
    # 0.5 s of image and 1 s, give or take 0.2 s, between two of them (Hebart et al. 2023, doi:10.7554/eLife.82580,
    # methods)
    "things_meg": 0.5 + 1.0,
    # 3 s of image and 1 s between two of them (Allen et al. 2022, doi:10.1038/s41593-021-00962-x, methods)
    "nsd": 3.0 + 1.0,
}
