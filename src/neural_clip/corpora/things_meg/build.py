"""THINGS-MEG (OpenNeuro ds004212) as a prepared data set.

Two routes. `raw` reads the CTF recordings through MNE with the paper's preprocessing (or the published one);
`derivative` reads the published epochs `derivatives/preprocessed/preprocessed_P{k}-epo*.fif`. Both give the same
trials.

Three split protocols. `paper`: training images against the 200 test images, whose concepts also occur in training.
`zero_shot`: the same test images, but no training image of their concepts. `large`: that training set against the
2,400 training images of the test concepts. Validation images are taken from the training images, the same for all
subjects. Catch trials are dropped.

Counts are compared with those of the published corpus. Events are compared with the triggers of each recording and
with the tables of attributes, so that a swapped or reordered file is refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from neural_clip.corpora.declared import check_facts
from neural_clip.corpora.stamp import read_stamp
from neural_clip.corpora.things_meg.derivative_route import derivative_trials, open_derivative
from neural_clip.corpora.things_meg.facts import (
    BROKEN_SENSOR,
    CorpusFacts,
    check_repeats,
    corpus_facts,
    declared_splits,
    declared_trials,
    found_splits,
    found_trials,
)
from neural_clip.corpora.things_meg.layout import check_agreement, check_version, find_runs, run_trials
from neural_clip.corpora.things_meg.preprocessing import PREPROCESSINGS, PUBLISHED, SCALINGS, MegPreprocessing
from neural_clip.corpora.things_meg.raw_route import RawReader, open_raw
from neural_clip.corpora.things_meg.reader import Reader
from neural_clip.corpora.things_meg.rows import image_parts, recording_parts, trials_digest
from neural_clip.corpora.things_meg.stimuli import CATEGORIES, Stimuli, check_images
from neural_clip.errors import DataError
from neural_clip.prepared.splits import validation_split
from neural_clip.prepared.writer import write_prepared

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["assign_splits", "prepare"]


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
CATEGORY_FACTS = {
    "27": "27 categories: 559 of 1,854 concepts have none (here: none), 302 have several.",
    "53": "53 categories, joined by row: 406 of 1,854 concepts have none (here: none), 664 have several.",
}
NOT_DOWNLOADED = "not_downloaded.txt"
SOURCE = "OpenNeuro ds004212 (doi:10.18112/openneuro.ds004212)"
IMAGE_TERMS = (
    "The recordings are CC0. The images are from the THINGS database (osf.io/jum2f) and under its own terms, which "
    "one accepts to extract them; this folder holds images, so it may not be published."
)
KNOWN_DEFECTS = [
    "MRO11-1609 malfunctions and is left out.",
    "channels.tsv types all gradiometers as OTHER and good; sensors are chosen by name.",
    "Onsets are those of the optical sensor (events since version 2.0.0); triggers lag and only check the events.",
    "The test concepts also occur in the training images; use the split zero_shot to keep them apart.",
    "No head motion compensation between runs and sessions.",
]
REAL_DEFECTS = [  # not simulated
    IMAGE_TERMS,
    "P1 ses-11 run-05 and P2 ses-10 run-03 lost 0.2 s of signal; it is filled with each channel's median.",
    "coordsystem.json states cm but holds m; sensor positions are not used here.",
]


def prepare(
    raw_dir: str | Path, output_dir: str | Path, *, images_dir: str | Path | None = None, route: str = "raw",
    preprocessing: str | None = None, split: str = "paper", scaling: str = "baseline_zscore",
    average_repeats: bool = False, categories: str = "27", categories_file: str | Path | None = None,
    subjects: Sequence[int] | None = None, sessions: Sequence[int] | None = None, validation_fraction: float = 0.1,
    seed: int = 0, triggers: str = "compare", allow_partial: bool = False, num_proc: int = 1, overwrite: bool = False,
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
        categories (`str`): `"27"`, the matrix of the raw folder, or `"53"`; several or none (`"none"`) a concept.
        categories_file (`str` or `Path`, *optional*): `Categories_final_20200131.tsv` of the public repository
            ViCCo-Group/THINGS-data (MRI/data), for `"53"`. It is joined by row: its words are not unique.
        subjects, sessions (`Sequence[int]`, *optional*): Numbers to read, all by default.
        validation_fraction (`float`): Share of the training images, the same for all subjects.
        seed (`int`): Of the choice of validation images.
        triggers (`str`): `"compare"` refuses recordings whose triggers (UPPT001) contradict their events; `"ignore"`
            leaves them out, which the metadata tell. Only the raw route has triggers.
        allow_partial (`bool`): Use the runs that are downloaded (of the derivative: the subjects); what is lacking is
            listed in `not_downloaded.txt` and in the metadata. Damaged files are refused all the same.
        num_proc (`int`): Processes that read at the same time. Each holds one run (2 GB at real size) in memory; with
            `"train_std"` each also needs room for a subject's epochs (5 GB) beside `output_dir`.
        overwrite (`bool`): Replace an older prepared data set.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If a parameter is unknown, or a file is missing, not downloaded, truncated or contradicts another.
    """
    raw_dir = Path(raw_dir)
    recipe = _recipe(route, preprocessing, split, scaling, categories, categories_file, triggers)
    simulated = read_stamp(raw_dir)
    facts = corpus_facts(simulated)
    version = check_version(raw_dir, required=route == "raw")
    subjects = _chosen("subjects", subjects, facts.subjects)
    sessions = _chosen("sessions", sessions, range(1, facts.n_sessions + 1))
    reader, trials, lacking = _open(raw_dir, route, recipe, scaling, subjects, sessions, facts, allow_partial)
    if triggers == "ignore" and isinstance(reader, RawReader):
        reader = replace(reader, compare_triggers=False)
    declared = declared_trials(facts, subjects, sessions)
    partial = check_facts(raw_dir, declared, found_trials(trials), allow_partial=allow_partial) or {}
    folder, table = (Path(path) if path else None for path in (images_dir, categories_file))
    stimuli = Stimuli.read(raw_dir, folder, sorted(set(trials.subject.tolist())), facts, categories, table)
    images = _describe(stimuli, trials)
    assign_splits(trials, split, validation_fraction, seed)
    sizes = declared_splits(facts, subjects, sessions, split)
    partial |= check_facts(raw_dir, sizes, found_splits(trials, split), allow_partial=allow_partial) or {}
    used = [images[image_id] for image_id in sorted(trials.image_id[trials.split != ""].unique())]
    check_images(image["image"] for image in used)
    metadata = _metadata(reader, recipe, scaling, simulated, facts, version) | {
        "split_protocol": SPLIT_PROTOCOLS[split], "average_repeats": average_repeats, "partial": partial or None,
        "presentation_order": not average_repeats,
        "declared": declared | sizes | {"channels": facts.n_chans, "sfreq of the recordings in Hz": facts.sfreq},
    }  # fmt: skip
    metadata["preprocessing"] |= {
        "route": route, "validation_fraction": validation_fraction, "seed": seed, "categories": categories,
        "subjects": subjects, "sessions": sessions, "trials_sha256": trials_digest(trials),
    }  # fmt: skip
    if route == "raw":
        metadata["preprocessing"]["triggers"] = triggers
        metadata["known_defects"] += ["Events were not compared with triggers."] if triggers == "ignore" else []
    if scaling == "train_std":
        metadata["scaling"]["fit_rows_sha256"] = trials_digest(trials[trials.split == "train"])
    metadata["known_defects"] += [] if simulated else [CATEGORY_FACTS[categories]]
    if lacking:
        metadata["known_defects"].append(f"{len(lacking)} files are lacking; {NOT_DOWNLOADED} lists them.")
    recordings = recording_parts(
        reader, trials, stimuli.tables, train_std=scaling == "train_std", average=average_repeats,
        workspace=_parent(output_dir),
    )  # fmt: skip
    return write_prepared(
        output_dir, metadata, recordings, image_parts(used, stimuli.tables), overwrite=overwrite, num_proc=num_proc,
        extra_files=_listed(raw_dir, lacking),
    )  # fmt: skip


def _recipe(
    route: str, preprocessing: str | None, split: str, scaling: str, categories: str, categories_file: object,
    triggers: str,
) -> MegPreprocessing:  # fmt: skip
    """Preprocessing to apply, after checking that the parameters go together."""
    choices = {"route": (route, ROUTES), "split": (split, SPLIT_PROTOCOLS), "scaling": (scaling, SCALINGS)}
    choices |= {"preprocessing": (preprocessing or "paper", PREPROCESSINGS), "categories": (categories, CATEGORIES)}
    choices["triggers"] = (triggers, ("compare", "ignore"))
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            listed = ", ".join(f"'{option}'" for option in allowed)
            raise DataError(
                f"Invalid value for the '{name}' parameter. Allowed values are {listed}, but got '{value}'."
            )
    if categories_file and categories != "53":
        raise DataError("'categories_file' is the table of 53 categories; give categories '53' with it.")
    if route == "raw":
        return PREPROCESSINGS[preprocessing or "paper"]
    if preprocessing not in (None, "published") or scaling != "baseline_zscore":
        raise DataError(
            "Route 'derivative' allows only preprocessing 'published' and scaling 'baseline_zscore', which were "
            f"applied before publication, but got '{preprocessing or 'published'}' and '{scaling}'."
        )
    return PUBLISHED


def _chosen(name: str, wanted: Sequence[int] | None, known: Sequence[int]) -> list[int]:
    """Numbers to read, in order, each once."""
    if wanted is not None and (not wanted or set(wanted) - set(known)):
        raise DataError(
            f"Invalid value for the '{name}' parameter. Allowed are numbers of {list(known)}, but got {list(wanted)}."
        )
    return sorted(set(wanted or known))


def _open(
    raw_dir: Path, route: str, recipe: MegPreprocessing, scaling: str, subjects: list[int], sessions: list[int],
    facts: CorpusFacts, allow_partial: bool,
) -> tuple[Reader, pd.DataFrame, list[Path]]:  # fmt: skip
    """Reader of the epochs, all trials, and the files that are not downloaded."""
    if route == "derivative":
        trials, lacking = derivative_trials(raw_dir, subjects, sessions, facts, allow_partial=allow_partial)
    else:
        runs, lacking = find_runs(raw_dir, subjects, sessions, facts, allow_partial=allow_partial)
        trials = run_trials(runs, facts)
    present = sorted(set(trials.subject.tolist()))
    check_agreement(raw_dir, present, sessions, facts)
    check_repeats(trials)
    if route == "derivative":
        return open_derivative(raw_dir, present, facts), trials, lacking
    return open_raw(runs, recipe, scaling, facts), trials, lacking


def _parent(output_dir: str | Path) -> Path:
    """Folder of the output, where room for a temporary copy of one subject is most likely."""
    parent = Path(output_dir).absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    return parent


def _listed(raw_dir: Path, lacking: Sequence[Path]) -> dict[str, bytes]:
    """File that lists what is not downloaded, relative to the raw folder."""
    lines = [f"{path.relative_to(raw_dir).as_posix()}\n" for path in lacking]
    return {NOT_DOWNLOADED: "".join(lines).encode()} if lines else {}


def _describe(stimuli: Stimuli, trials: pd.DataFrame) -> dict[str, dict]:
    """Add `image_id` and `concept` to the trials; return the image rows by id."""
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
    if len(set(numbers.values())) != len(numbers):
        raise DataError(
            f"{len(numbers)} concepts share {len(set(numbers.values()))} THINGS numbers; the list of image names and "
            "the events do not belong together."
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


def _metadata(
    reader: Reader, recipe: MegPreprocessing, scaling: str, simulated: dict | None, facts: CorpusFacts,
    version: str | None,
) -> dict:  # fmt: skip
    """Facts of `neural_clip.json`."""
    description, scope = SCALING_FACTS[scaling]
    preprocessing = {
        "recipe": recipe.name, "high_pass_hz": recipe.high_pass, "low_pass_hz": recipe.low_pass,
        "filter": "zero-phase FIR, Hamming window, MNE's default lengths; the low-pass edge is the anti-alias filter",
        "raw_sfreq_hz": facts.sfreq,
        "decimation": "every n-th sample from the exact onset", "tmin_s": recipe.tmin, "tmax_s": recipe.tmax,
        "onset": "optical sensor (events.tsv, column sample)", "catch_trials": "dropped", "left_out": [BROKEN_SENSOR],
    }  # fmt: skip
    return {
        "corpus": "things_meg", "pretty_name": "THINGS-MEG prepared for neural_clip", "modality": "meg",
        "simulated": simulated, "ch_names": reader.ch_names, "n_chans": len(reader.ch_names),
        **reader.places,
        "n_times": recipe.n_times, "sfreq": recipe.sfreq, "tmin": recipe.tmin,
        "unit": "T" if scaling == "none" else "z", "split_unit": "image",
        "scaling": {"method": scaling, "fit_scope": scope, "description": description},
        "preprocessing": preprocessing, "licence": LICENCE,
        "terms": "Simulated recordings and images; no person was recorded." if simulated else IMAGE_TERMS,
        "redistribution": "allowed" if simulated else "forbidden", "citation": CITATION,
        "source": f"{SOURCE}, version {version or 'not stated'}" + (", SIMULATED twin" if simulated else ""),
        "known_defects": KNOWN_DEFECTS + ([] if simulated else REAL_DEFECTS),
    }  # fmt: skip


def subject_number(text: str) -> int:
    """`"1"`, `"sub-01"`, `"BIGMEG1"` and `"sub-BIGMEG1"` are subject 1."""
    digits = text.removeprefix("sub-").removeprefix("BIGMEG")
    if not digits.isdigit():
        raise argparse.ArgumentTypeError(f"subjects are given like 1, sub-01 or sub-BIGMEG1, but got '{text}'")
    return int(digits)
