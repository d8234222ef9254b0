"""THINGS-MEG (OpenNeuro ds004212) as a prepared data set.

Two routes. `raw` reads the CTF recordings through MNE with the paper's preprocessing (or the published one);
`derivative` reads the published epochs `derivatives/preprocessed/preprocessed_P{k}-epo*.fif`. Both give the same
trials.

Three split protocols. `paper`: training images against the 200 test images, whose concepts also occur in training.
`zero_shot`: the same test images, but no training image of their concepts. `large`: that training set against the
2,400 training images of the test concepts. Validation images are taken from the training images, the same for all
subjects. Catch trials are dropped.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.corpora.meg_preprocessing import PREPROCESSINGS, PUBLISHED, SCALINGS, MegPreprocessing
from neural_clip.corpora.prepared import validation_split, write_prepared
from neural_clip.corpora.stamp import read_stamp
from neural_clip.corpora.things_meg_files import (
    BROKEN_SENSOR,
    RAW_SFREQ,
    Stimuli,
    check_downloaded,
    check_version,
    find_runs,
    run_trials,
)
from neural_clip.corpora.things_meg_sources import DerivativeSource, RawSource, Source
from neural_clip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["assign_splits", "main", "prepare"]

ROUTES = ("raw", "derivative")
SPLIT_PROTOCOLS = {
    "paper": "paper: THINGS-MEG training images against its test images; test concepts also occur in training",
    "zero_shot": "zero_shot: training images without the test concepts, against the test images",
    "large": "large: training images without the test concepts, against the training images of the test concepts",
}
SCALING_FACTS = {  # description, scope of the fit
    "baseline_zscore": (
        "per epoch and channel: minus mean, by standard deviation, of the samples up to onset", "per epoch baseline"
    ),
    "train_std": (
        "minus mean of the samples up to onset, per epoch and channel; by root mean square of the training epochs, "
        "per subject and channel", "train"
    ),
    "none": ("per epoch and channel: minus mean of the samples up to onset", "per epoch baseline"),
}  # fmt: skip
LICENCE = "CC0-1.0"
CITATION = (
    "Hebart, M. N., Contier, O., Teichmann, L., Rockter, A. H., Zheng, C. Y., Kidder, A., Corriveau, A., "
    "Vaziri-Pashkam, M., Baker, C. I. (2023). THINGS-data, a multimodal collection of large-scale datasets for "
    "investigating object representations in human brain and behavior. eLife 12:e82580. doi:10.7554/eLife.82580"
)
SOURCE = "OpenNeuro ds004212 (doi:10.18112/openneuro.ds004212)"
IMAGE_TERMS = (
    "The recordings are CC0. The images are from the THINGS database (osf.io/jum2f) and under its own terms, which "
    "one accepts to extract them; this folder holds images, so it may not be published."
)
KNOWN_DEFECTS = [
    "MRO11-1609 malfunctions and is left out.",
    "channels.tsv types all gradiometers as OTHER and good; sensors are chosen by name.",
    "The projector's delay is corrected by the optical sensor (events since version 2.0.0); triggers are not used.",
    "The test concepts also occur in the training images; use the split zero_shot to keep them apart.",
    "No head motion compensation between runs and sessions.",
]
REAL_DEFECTS = [  # not simulated
    IMAGE_TERMS,
    "P1 ses-11 run-05 and P2 ses-10 run-03 lost 0.2 s of signal; it is filled with each channel's median.",
    "559 of 1,854 concepts have no category (here: none), 302 have several.",
    "coordsystem.json states cm but holds m; sensor positions are not used here.",
]


def prepare(
    raw_dir: str | Path, output_dir: str | Path, *, images_dir: str | Path | None = None, route: str = "raw",
    preprocessing: str | None = None, split: str = "paper", scaling: str = "baseline_zscore",
    average_repeats: bool = False, subjects: Sequence[int] | None = None, sessions: Sequence[int] | None = None,
    validation_fraction: float = 0.1, seed: int = 0, overwrite: bool = False,
) -> Path:  # fmt: skip
    """Read a raw THINGS-MEG folder, real or simulated, and write a prepared data set.

    Args:
        raw_dir (`str` or `Path`): BIDS root of ds004212, version 2.0.0 or later.
        output_dir (`str` or `Path`): Folder to make.
        images_dir (`str` or `Path`, *optional*): Extracted THINGS images, by default `<raw_dir>/images`.
        route (`str`): `"raw"` or `"derivative"`.
        preprocessing (`str`, *optional*): `"paper"` (default of the raw route: low-pass 48 Hz, -0.5 to 1.0 s, 120 Hz,
            181 samples as both ends count) or `"published"` (the only one of the derivative: 0.1 to 40 Hz, -0.1 to
            1.3 s, 200 Hz, 281 samples).
        split (`str`): `"paper"`, `"zero_shot"` or `"large"`.
        scaling (`str`): `"baseline_zscore"` centres and scales each epoch and channel by its own samples up to onset,
            so nothing is fitted; `"train_std"` subtracts that mean and divides by the root mean square of the training
            epochs, by subject and channel; `"none"` subtracts the mean and keeps T.
        average_repeats (`bool`): One row per subject and image, the mean of all its presentations.
        subjects, sessions (`Sequence[int]`, *optional*): Numbers to read, all by default.
        validation_fraction (`float`): Share of the training images, the same for all subjects.
        seed (`int`): Of the choice of validation images.
        overwrite (`bool`): Replace an older prepared data set.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If a parameter is unknown, or a file is missing, not downloaded, truncated or contradicts another.
    """
    raw_dir = Path(raw_dir)
    recipe = _recipe(route, preprocessing, split, scaling)
    simulated = read_stamp(raw_dir)
    version = check_version(raw_dir, required=route == "raw")
    source, trials = _open(raw_dir, route, recipe, scaling, subjects, sessions, simulated)
    images = _describe(raw_dir, images_dir, trials, simulated)
    assign_splits(trials, split, validation_fraction, seed)
    used = [images[image_id] for image_id in sorted(trials.image_id[trials.split != ""].unique())]
    for image in used:
        check_downloaded(image["image"])
    source.check()
    metadata = _metadata(source, recipe, scaling, simulated, version) | {
        "split_protocol": SPLIT_PROTOCOLS[split], "average_repeats": average_repeats,
    }  # fmt: skip
    metadata["preprocessing"] |= {"route": route, "validation_fraction": validation_fraction, "seed": seed}
    with contextlib.ExitStack() as stack:
        rows = _rows(source, trials)
        if scaling == "train_std":
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=_parent(output_dir), prefix=".things_meg-"))
            rows = _scaled(rows, trials, Path(folder) / "epochs.npy")
        if average_repeats:
            rows = _averaged(rows, trials)
        return write_prepared(output_dir, metadata, rows, used, overwrite=overwrite)


def _recipe(route: str, preprocessing: str | None, split: str, scaling: str) -> MegPreprocessing:
    """Preprocessing to apply, after checking that the parameters go together."""
    choices = {"route": (route, ROUTES), "split": (split, SPLIT_PROTOCOLS), "scaling": (scaling, SCALINGS)}
    choices["preprocessing"] = (preprocessing or "paper", PREPROCESSINGS)
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            listed = ", ".join(f"'{option}'" for option in allowed)
            raise DataError(
                f"Invalid value for the '{name}' parameter. Allowed values are {listed}, but got '{value}'."
            )
    if route == "raw":
        return PREPROCESSINGS[preprocessing or "paper"]
    if preprocessing not in (None, "published") or scaling != "baseline_zscore":
        raise DataError(
            "Route 'derivative' allows only preprocessing 'published' and scaling 'baseline_zscore', which were "
            f"applied before publication, but got '{preprocessing or 'published'}' and '{scaling}'."
        )
    return PUBLISHED


def _open(
    raw_dir: Path, route: str, recipe: MegPreprocessing, scaling: str, subjects: Sequence[int] | None,
    sessions: Sequence[int] | None, simulated: dict | None,
) -> tuple[Source, pd.DataFrame]:  # fmt: skip
    """Source of the epochs and all its trials."""
    if route == "derivative":
        derivative = DerivativeSource(raw_dir, subjects, sessions, simulated)
        return derivative, derivative.trials
    runs = find_runs(raw_dir, subjects, sessions, simulated=simulated is not None)
    sfreq = simulated["sizes"]["sfreq"] if simulated else RAW_SFREQ
    trials = run_trials(runs, sfreq=sfreq, simulated=simulated is not None)
    return RawSource(runs, recipe, scaling, sfreq, simulated), trials


def _parent(output_dir: str | Path) -> Path:
    """Folder of the output, where room for a temporary copy of one subject is most likely."""
    parent = Path(output_dir).absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    return parent


def _describe(
    raw_dir: Path, images_dir: str | Path | None, trials: pd.DataFrame, simulated: dict | None
) -> dict[str, dict]:
    """Add `image_id` and `concept` to the trials; return the image rows by id."""
    subjects = sorted(int(subject) for subject in trials.subject.unique())
    images = Path(images_dir) if images_dir else None
    stimuli = Stimuli.read(raw_dir, images, subjects, simulated=simulated is not None)
    shown = trials[trials.trial_type != "catch"].drop_duplicates(["value", "category"])
    described: dict[int, dict] = {}
    numbers: dict[str, int] = {}
    for value, category in zip(shown.value.tolist(), shown.category.tolist(), strict=True):
        if value in described:
            raise DataError(f"THINGS image number {value} comes with two concept numbers, one of them {category}.")
        row = described[value] = stimuli.describe(value, category)
        if numbers.setdefault(row["concept"], category) != category:
            raise DataError(
                f"Concept '{row['concept']}' has the THINGS numbers {numbers[row['concept']]} and {category}; the "
                "list of image names and the events do not belong together."
            )
    for name in ("image_id", "concept"):
        trials[name] = [described[value][name] if value in described else "" for value in trials.value]
    return {row["image_id"]: row for row in described.values()}


def assign_splits(trials: pd.DataFrame, split: str, validation_fraction: float, seed: int) -> None:
    """Add the column `split`; the empty string marks trials that are not used.

    Args:
        trials (`pandas.DataFrame`): With `trial_type`, `image_id` and `concept`; changed in place.
        split (`str`): `"paper"`, `"zero_shot"` or `"large"`.
        validation_fraction (`float`): Share of the training images.
        seed (`int`): Of the choice of validation images.

    Raises:
        DataError: If an image is both training and test image, or nothing is left to train on.
    """
    exp, test = trials.trial_type == "exp", trials.trial_type == "test"
    common = set(trials.image_id[exp]) & set(trials.image_id[test])
    if common:
        raise DataError(f"{len(common)} images are both training and test images, such as '{min(common)}'.")
    of_test_concept = trials.concept.isin(set(trials.concept[test]))
    trials["split"] = ""
    trials.loc[exp if split == "paper" else exp & ~of_test_concept, "split"] = "train"
    trials.loc[exp & of_test_concept if split == "large" else test, "split"] = "test"
    train = trials.split == "train"
    if not train.any():
        raise DataError(f"Split '{split}' leaves no training images: every concept is a test concept.")
    chosen = validation_split(trials.image_id[train], validation_fraction, seed)
    trials.loc[train & trials.image_id.isin(chosen), "split"] = "validation"


def _rows(source: Source, trials: pd.DataFrame) -> Iterator[dict]:
    """Recording rows, one presentation each."""
    facts = trials.to_dict("index")
    for label, epoch in source.epochs(trials):
        trial = facts[label]
        yield {
            "subject": f"sub-{trial['subject']:02d}", "session": f"ses-{trial['session']:02d}",
            "run": f"run-{trial['run']:02d}", "trial": trial["trial"], "image_id": trial["image_id"],
            "concept": trial["concept"], "n_repeats": 1, "split": trial["split"], "meg": epoch,
        }  # fmt: skip


def _used(trials: pd.DataFrame, subject: str) -> pd.DataFrame:
    """Trials with a split of the subject named like `sub-01`."""
    return trials[(trials.subject == int(subject.removeprefix("sub-"))) & (trials.split != "")]


def _scaled(rows: Iterator[dict], trials: pd.DataFrame, path: Path) -> Iterator[dict]:
    """Divide by the root mean square of the subject's training epochs, by channel; epochs wait in a file meanwhile."""
    for subject, group in groupby(rows, key=lambda row: row["subject"]):
        first = next(group)
        shape = (len(_used(trials, subject)), *first["meg"].shape)
        store = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        facts, power = [], []
        for number, row in enumerate(chain([first], group)):
            epoch = store[number] = row.pop("meg")
            facts.append(row)
            if row["split"] == "train":
                power.append(np.square(epoch, dtype=np.float64).mean(axis=1))  # the baseline mean is the zero
        scale = np.sqrt(np.mean(power, axis=0)).astype(np.float32)[:, None]  # (n_chans, 1)
        if not (scale > 0).all():
            raise DataError(f"{subject}: channel {int(scale.argmin())} is flat in all training epochs.")
        for number, row in enumerate(facts):
            yield row | {"meg": store[number] / scale}


def _averaged(rows: Iterator[dict], trials: pd.DataFrame) -> Iterator[dict]:
    """Mean of the presentations of an image to a subject; only images with several are held in memory."""
    for subject, group in groupby(rows, key=lambda row: row["subject"]):
        expected = _used(trials, subject).image_id.value_counts().to_dict()
        sums: dict[str, dict] = {}
        for row in group:
            count = expected[row["image_id"]]
            if count > 1:
                held = sums.setdefault(row["image_id"], row | {"meg": 0.0, "n_repeats": 0, "session": "", "run": ""})
                held["meg"] = held["meg"] + row["meg"].astype(np.float64)
                held["n_repeats"] += 1
                if held["n_repeats"] < count:
                    continue
                row = held | {"meg": (held["meg"] / count).astype(np.float32)}
                del sums[row["image_id"]]
            yield row


def _metadata(
    source: Source, recipe: MegPreprocessing, scaling: str, simulated: dict | None, version: str | None
) -> dict:
    """Facts of `neural_clip.json`."""
    description, scope = SCALING_FACTS[scaling]
    preprocessing = {
        "recipe": recipe.name, "high_pass_hz": recipe.high_pass, "low_pass_hz": recipe.low_pass,
        "filter": "zero-phase FIR, Hamming window, MNE's default lengths; the low-pass edge is the anti-alias filter",
        "raw_sfreq_hz": simulated["sizes"]["sfreq"] if simulated else RAW_SFREQ,
        "decimation": "every n-th sample from the exact onset", "tmin_s": recipe.tmin, "tmax_s": recipe.tmax,
        "onset": "optical sensor (events.tsv, column sample)", "catch_trials": "dropped", "left_out": [BROKEN_SENSOR],
    }  # fmt: skip
    return {
        "corpus": "things_meg", "pretty_name": "THINGS-MEG prepared for neural_clip", "modality": "meg",
        "simulated": simulated, "ch_names": source.ch_names, "n_chans": len(source.ch_names),
        "n_times": recipe.n_times, "sfreq": recipe.sfreq, "tmin": recipe.tmin,
        "unit": "T" if scaling == "none" else "z", "split_unit": "image",
        "scaling": {"method": scaling, "fit_scope": scope, "description": description},
        "preprocessing": preprocessing, "licence": LICENCE,
        "terms": "Simulated recordings and images; no person was recorded." if simulated else IMAGE_TERMS,
        "redistribution": "allowed" if simulated else "forbidden", "citation": CITATION,
        "source": f"{SOURCE}, version {version or 'not stated'}" + (", SIMULATED twin" if simulated else ""),
        "known_defects": KNOWN_DEFECTS + ([] if simulated else REAL_DEFECTS),
    }  # fmt: skip


def _subject_number(text: str) -> int:
    """`"1"`, `"sub-01"`, `"BIGMEG1"` and `"sub-BIGMEG1"` are subject 1."""
    digits = text.removeprefix("sub-").removeprefix("BIGMEG")
    if not digits.isdigit():
        raise argparse.ArgumentTypeError(f"subjects are given like 1, sub-01 or sub-BIGMEG1, but got '{text}'")
    return int(digits)


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare THINGS-MEG: `neural-clip prepare things_meg --raw-dir ds004212 --images-dir THINGS --output-dir out`."""
    description = "THINGS-MEG (OpenNeuro ds004212), real or simulated, as a folder that load_dataset reads."
    parser = argparse.ArgumentParser(prog="neural-clip prepare things_meg", description=description)
    add = parser.add_argument
    add("--raw-dir", required=True, help="BIDS root of OpenNeuro ds004212, version 2.0.0 or later")
    add("--images-dir", help="extracted THINGS images (default: <raw-dir>/images)")
    add("--output-dir", required=True, help="folder to make")
    add("--route", choices=ROUTES, default="raw", help="CTF recordings or published epochs (default: raw)")
    add("--preprocessing", choices=tuple(PREPROCESSINGS), help="default: paper for raw, published for derivative")
    add("--split", choices=tuple(SPLIT_PROTOCOLS), default="paper", help="default: paper")
    add("--scaling", choices=SCALINGS, default="baseline_zscore", help="default: baseline_zscore")
    add("--average-repeats", action="store_true", help="one row per subject and image")
    add("--subjects", nargs="+", type=_subject_number, help="numbers, such as 1 2 (default: all)")
    add("--sessions", nargs="+", type=int, help="numbers, such as 1 2 (default: all)")
    add("--validation-fraction", type=float, default=0.1, help="share of the training images (default: 0.1)")
    add("--seed", type=int, default=0, help="of the choice of validation images (default: 0)")
    add("--overwrite", action="store_true", help="replace an older prepared data set")
    arguments = vars(parser.parse_args(argv))
    folder = prepare(arguments.pop("raw_dir"), arguments.pop("output_dir"), **arguments)
    print(f"THINGS-MEG is in {folder}")
