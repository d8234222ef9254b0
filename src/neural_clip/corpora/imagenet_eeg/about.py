"""What a prepared ImageNetEEG tells of itself: scaling, preprocessing, known defects, terms and citation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from neural_clip.corpora.imagenet_eeg.layout import Trials
from neural_clip.corpora.imagenet_eeg.options import RAW_FILE
from neural_clip.corpora.imagenet_eeg.signals import FILTER_ORDER, NOTCH_HALF_WIDTH, SFREQ, Signals
from neural_clip.preparation import Preparation

MISSING_IMAGES_FILE = "missing_images.txt"


def describe(
    data: Trials,
    rows: Sequence[int],
    split_of: Mapping[int, str],
    signals: Signals,
    standardize: str,
    stamp: Mapping | None,
    lacking: Mapping[str, Mapping],
    absent: Sequence[str],
) -> dict:
    """Metadata for `write_prepared`, but for subjects, channel names, split protocol and declared facts.

    Args:
        data (`Trials`): The file.
        rows (`Sequence[int]`): Trials that are prepared.
        split_of (`Mapping[int, str]`): Their splits.
        signals (`Signals`): Window and filters.
        standardize (`str`): `"train"`, `"none"` or `"released"`.
        stamp (`Mapping`, *optional*): Content of the stamp of a simulated corpus.
        lacking (`Mapping`): Declared facts that differ, as `check_facts` gives them.
        absent (`Sequence[str]`): Names of missing images whose trials are left out.
    """
    is_raw = data.path.name == RAW_FILE
    # only a simulation that says so is free of the confound: its trials follow each other in random order
    dials = (stamp or {}).get("dials")
    in_blocks = not (isinstance(dials, Mapping) and dials.get("block_drift") == 0)
    defects = ["block design: class and block coincide, see Li et al. 2021"] if in_blocks else []
    return {
        "corpus": "imagenet_eeg", "modality": "eeg", "simulated": stamp, "n_chans": data.n_chans,
        "n_times": signals.window[1] - signals.window[0], "sfreq": SFREQ, "tmin": signals.window[0] / SFREQ,
        "unit": "V" if is_raw and standardize == "none" else "z", "n_voxels": None, "roi": None, "split_unit": "image",
        "scaling": _scaling(is_raw, standardize, [i for i in rows if split_of[i] == "train"]),
        "preparation": _preparation(is_raw, standardize, signals).as_dict(),
        "preprocessing": _preprocessing(standardize, signals), "category_level": False,
        "block_confounded": in_blocks, "average_repeats": False, "image_encoder": None,
        "licence": "Research use; ImageNet's terms of access hold for the images. "
        "The licence of the recordings could not be established.",
        "redistribution": "forbidden",
        "terms": "Research and teaching without commercial aims, as ImageNet's terms of access say. Keep the folder "
        "private; ask the authors before passing recordings on.",
        "citation": "Spampinato et al. 2017, Deep Learning Human Mind for Automated Visual Classification, CVPR; "
        "Palazzo et al. 2020, Decoding Brain Representations by Multimodal Learning of Neural Activity and Visual "
        "Features, doi:10.1109/TPAMI.2020.2995909",
        "source": "https://github.com/perceivelab/eeg_visual_classification",
        "known_defects": defects + _defects(stamp, lacking, absent, signals),
    }  # fmt: skip


def _scaling(is_raw: bool, standardize: str, train: Sequence[int]) -> dict:
    """What the values were divided by, and on which trials that was fitted."""
    if standardize == "train":
        digest = hashlib.sha256(np.asarray(train, dtype="<i8").tobytes()).hexdigest()
        return {
            "method": "z-score per subject and channel", "fit_scope": "train", "fit_trials": len(train),
            "fit_trials_sha256": digest,
        }  # fmt: skip
    if standardize == "none" and is_raw:
        return {"method": "microvolts to volts", "fit_scope": "none"}
    made = "z-score per channel by the means and stddevs of the raw file"
    return {
        "method": made if standardize == "released" else "as released: standardised by the releasers",
        "fit_scope": "unknown",
        "description": "the releasers do not state over which trials; those of the test split may be among them",
    }


def _preparation(is_raw: bool, standardize: str, signals: Signals) -> Preparation:
    """What can be done alike to recordings in V; where the releasers scaled them before, nothing can."""
    band = None if signals.band_pass is None else [list(signals.band_pass)]
    if not is_raw:
        obstacle = "ImageNetEEG's filtered files were scaled before their release, by statistics that nobody stated"
        return Preparation(unit="z", scaling="unknown", obstacle=obstacle)
    scaling, scope = ("none", None) if standardize == "none" else ("z-score", "subject")
    return Preparation(unit="V", scaling=scaling, scope=scope, bands=band, baseline=None)


def _preprocessing(standardize: str, signals: Signals) -> dict:
    """Every parameter that changes the values."""
    design = {
        "design": f"Butterworth of order {FILTER_ORDER}, forwards and backwards (zero phase), by mne",
        "extent": "whole recording in float64, continued at its ends by odd reflection, before the window is cut",
        "notch_half_width_hz": NOTCH_HALF_WIDTH,
    }
    return {
        "window_samples": list(signals.window), "standardize": standardize,
        "band_pass_hz": list(signals.band_pass) if signals.band_pass else None, "notch_hz": signals.notch,
        "filter": design if signals.filtered else None,
    }  # fmt: skip


def _defects(
    stamp: Mapping | None, lacking: Mapping[str, Mapping], absent: Sequence[str], signals: Signals
) -> list[str]:
    """What a user must know of the corpus and of this copy of it."""
    defects = []
    if lacking:
        listed = ", ".join(f"{both['found']} {name} instead of {both['declared']}" for name, both in lacking.items())
        defects.append(f"part of the corpus: {listed}")
    elif not stamp:
        defects.append("11 of 11,976 trials are missing; the upstream README tells 11,964 trials")
    if absent:
        defects.append(f"{len(absent)} images were absent ({MISSING_IMAGES_FILE}); their trials are left out")
    if signals.filtered:
        defects.append(
            "filtered half-second recordings: near both ends, for about one period of the lowest frequency passed, "
            "values are shaped by the continuation of the recording, and a part of a line that was taken out remains"
        )
    return defects
