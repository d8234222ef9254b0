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

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neural_clip.corpora.declared import check_facts, chosen, listed, told_lacking
from neural_clip.corpora.image_parts import check_images, image_parts
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
from neural_clip.corpora.things_meg.layout import (
    check_agreement,
    check_downloaded,
    check_version,
    find_runs,
    run_trials,
)
from neural_clip.corpora.things_meg.options import SPLIT_PROTOCOLS, ThingsMegOptions
from neural_clip.corpora.things_meg.preprocessing import PREPROCESSINGS
from neural_clip.corpora.things_meg.raw_route import open_raw
from neural_clip.corpora.things_meg.reader import Reader
from neural_clip.corpora.things_meg.rows import recording_parts, trials_digest
from neural_clip.corpora.things_meg.stimuli import IMAGE_SOURCE, Stimuli
from neural_clip.errors import DataError
from neural_clip.preparation import Preparation
from neural_clip.prepared.splits import validation_split
from neural_clip.prepared.writer import check_output, write_prepared

if TYPE_CHECKING:
    import pandas as pd


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

PREPARED_SCALINGS = {"baseline_zscore": "baseline z-score", "train_std": "rms", "none": "none"}


def prepare(
    raw_dir: str | Path, output_dir: str | Path, options: ThingsMegOptions | None = None, **changes: Any
) -> Path:
    """Read a raw THINGS-MEG folder, real or simulated, and write a prepared data set.

    Args:
        raw_dir (`str` or `Path`): BIDS root of ds004212, version 2.0.0 or later.
        output_dir (`str` or `Path`): Folder to make.
        options (`ThingsMegOptions`, *optional*): What to prepare, and how.
        **changes: Options by name, in place of those of `options`.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If a parameter is unknown, or a file is missing, not downloaded, truncated or contradicts another.
    """
    options = replace(options or ThingsMegOptions(), **changes)
    check_output(output_dir, [raw_dir, *options.places], options.overwrite)
    raw_dir = Path(raw_dir)
    simulated = read_stamp(raw_dir)
    facts = corpus_facts(raw_dir, simulated)
    version = check_version(raw_dir, required=options.route == "raw")
    subjects = chosen("subjects", options.subjects, facts.subjects)
    sessions = chosen("sessions", options.sessions, range(1, facts.n_sessions + 1))
    reader, trials, lacking = _open(raw_dir, options, subjects, sessions, facts)
    declared = declared_trials(facts, subjects, sessions)
    partial = check_facts(raw_dir, declared, found_trials(trials), allow_partial=options.allow_partial) or {}
    folder, table = (Path(path) if path else None for path in (options.images_dir, options.categories_file))
    present = sorted(set(trials.subject.tolist()))
    stimuli = Stimuli.read(raw_dir, folder, present, facts, options.categories, table)
    images = _describe(stimuli, trials)
    assign_splits(trials, options.split, options.validation_fraction, options.seed)
    sizes = declared_splits(facts, subjects, sessions, options.split)
    found = found_splits(trials, options.split)
    partial |= check_facts(raw_dir, sizes, found, allow_partial=options.allow_partial) or {}
    used = [images[image_id] for image_id in sorted(trials.image_id[trials.split != ""].unique())]
    check_images((image["image"] for image in used), lambda path: check_downloaded(path, IMAGE_SOURCE))
    metadata = _metadata(reader, options, simulated, facts, version, trials, lacking) | {
        "partial": partial or None,
        "declared": declared | sizes | {"channels": facts.n_chans, "sfreq of the recordings in Hz": facts.sfreq},
    }
    metadata["preprocessing"] |= {"subjects": subjects, "sessions": sessions}
    recordings = recording_parts(
        reader, trials, stimuli.tables, train_std=options.scaling == "train_std", average=options.average_repeats,
        workspace=_parent(output_dir),
    )  # fmt: skip
    parts = image_parts(used, iter, lambda rows: [*(row["image"] for row in rows), *stimuli.tables])
    return write_prepared(
        output_dir, metadata, recordings, parts, overwrite=options.overwrite,
        num_proc=options.num_proc, made_from=raw_dir, extra_files=listed(raw_dir, lacking),
    )  # fmt: skip


def _open(
    raw_dir: Path, options: ThingsMegOptions, subjects: list[int], sessions: list[int], facts: CorpusFacts
) -> tuple[Reader, pd.DataFrame, list[Path]]:
    """Reader of the epochs, all trials, and the files that are not downloaded."""
    allow_partial = options.allow_partial
    if options.route == "derivative":
        trials, lacking = derivative_trials(raw_dir, subjects, sessions, facts, allow_partial=allow_partial)
    else:
        runs, lacking = find_runs(raw_dir, subjects, sessions, facts, allow_partial=allow_partial)
        trials = run_trials(runs, facts)
    present = sorted(set(trials.subject.tolist()))
    check_agreement(raw_dir, present, sessions, facts)
    check_repeats(trials)
    if options.route == "derivative":
        return open_derivative(raw_dir, present, facts), trials, lacking
    reader = open_raw(runs, PREPROCESSINGS[options.recipe], options.scaling, facts)
    return replace(reader, compare_triggers=options.triggers == "compare"), trials, lacking


def _parent(output_dir: str | Path) -> Path:
    """Folder of the output, where room for a temporary copy of one subject is most likely."""
    parent = Path(output_dir).absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    return parent


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
    reader: Reader, options: ThingsMegOptions, simulated: dict | None, facts: CorpusFacts, version: str | None,
    trials: pd.DataFrame, lacking: Sequence[Path],
) -> dict:  # fmt: skip
    """Facts of `neural_clip.json`, but for counts and for who was read."""
    recipe, scaling = PREPROCESSINGS[options.recipe], options.scaling
    description, scope = SCALING_FACTS[scaling]
    fitted = {"fit_rows_sha256": trials_digest(trials[trials.split == "train"])} if scaling == "train_std" else {}
    preprocessing = {
        "recipe": recipe.name, "high_pass_hz": recipe.high_pass, "low_pass_hz": recipe.low_pass,
        "filter": "zero-phase FIR, Hamming window, MNE's default lengths, of each run less the mean of each channel; "
        "the low-pass edge is the anti-alias filter",
        "raw_sfreq_hz": facts.sfreq,
        "decimation": "every n-th sample from the exact onset", "tmin_s": recipe.tmin, "tmax_s": recipe.tmax,
        "onset": "optical sensor (events.tsv, column sample)", "catch_trials": "dropped", "left_out": [BROKEN_SENSOR],
        "route": options.route, "validation_fraction": options.validation_fraction, "seed": options.seed,
        "categories": options.categories, "trials_sha256": trials_digest(trials),
    } | ({"triggers": options.triggers} if options.route == "raw" else {})  # fmt: skip
    return {
        "corpus": "things_meg", "pretty_name": "THINGS-MEG prepared for neural_clip", "modality": "meg",
        "simulated": simulated, "ch_names": reader.ch_names, "n_chans": len(reader.ch_names),
        **reader.places,
        "n_times": recipe.n_times, "sfreq": recipe.sfreq, "tmin": recipe.tmin,
        "unit": "T" if scaling == "none" else "z", "split_unit": "image",
        "scaling": {"method": scaling, "fit_scope": scope, "description": description} | fitted,
        "preparation": Preparation(
            unit="T", scaling=PREPARED_SCALINGS[scaling], scope="subject" if scaling == "train_std" else None,
            bands=[[recipe.high_pass or 0.0, recipe.low_pass]], baseline=[recipe.tmin, 0.0], rate="decimated",
            reference="as recorded", projectors=[],
            spatial_filters=reader.spatial_filters,
        ).as_dict(),
        "preprocessing": preprocessing, "licence": LICENCE,
        "terms": "Simulated recordings and images; no subject was recorded." if simulated else IMAGE_TERMS,
        "redistribution": "allowed" if simulated else "forbidden", "citation": CITATION,
        "source": f"{SOURCE}, version {version or 'not stated'}" + (", SIMULATED twin" if simulated else ""),
        "known_defects": _defects(options, simulated, lacking), "split_protocol": SPLIT_PROTOCOLS[options.split],
        "average_repeats": options.average_repeats, "presentation_order": not options.average_repeats,
    }  # fmt: skip


def _defects(options: ThingsMegOptions, simulated: dict | None, lacking: Sequence[Path]) -> list[str]:
    """What a reader must know of the corpus, and of this copy of it."""
    defects = KNOWN_DEFECTS + ([] if simulated else REAL_DEFECTS)
    if options.route == "raw" and options.triggers == "ignore":
        defects.append("Events were not compared with triggers.")
    defects += [] if simulated else [CATEGORY_FACTS[options.categories]]
    return defects + told_lacking(lacking)
