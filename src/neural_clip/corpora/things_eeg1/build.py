"""THINGS-EEG1 (Grootswagers et al. 2022) as a prepared data set.

Fifty people, one session each: 22,248 training images of 1,854 concepts, each shown once, and 200 other images of 200
of these concepts, each shown 12 times, ten images a second. The 200 are the test split. All their concepts recur in
training, so training images of these concepts are left out unless the split protocol is `all_concepts`.

Splits go by image: the same for all people, validation by whole concepts that are no test concepts. Epochs of 1 s
overlap those of the next nine images; test images were shown in sequences of their own.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.corpora.declared import check_facts, chosen, path_inside
from neural_clip.corpora.image_parts import check_images, image_parts
from neural_clip.corpora.repeats import mean_of_repeats
from neural_clip.corpora.sensor_epochs import cut_epochs
from neural_clip.corpora.sensor_scaling import fitted_scale, scaling_facts
from neural_clip.corpora.stamp import read_stamp
from neural_clip.corpora.things_eeg1.events import Events, check_people, concept_of, read_events
from neural_clip.corpora.things_eeg1.facts import CorpusFacts, corpus_facts
from neural_clip.corpora.things_eeg1.options import ThingsEeg1Options
from neural_clip.corpora.things_eeg1.recordings import (
    SPEC,
    WINDOW,
    Recording,
    check_recordings,
    find_recording,
    preparation,
    signals_of,
)
from neural_clip.errors import DataError
from neural_clip.files.reading import existing
from neural_clip.files.tables import read_columns
from neural_clip.preparation import Preparation, Statistics
from neural_clip.prepared.parts import Part
from neural_clip.prepared.splits import validation_split
from neural_clip.prepared.writer import check_output, write_prepared

LICENCE = "CC0-1.0"
CITATION = (
    "Grootswagers, T., Zhou, I., Robinson, A. K., Hebart, M. N., Carlson, T. A. (2022). Human EEG recordings for "
    "1,854 concepts presented in rapid serial visual presentation streams. Scientific Data 9:3. "
    "doi:10.1038/s41597-021-01102-7"
)
SOURCE = "THINGS-EEG1 (OpenNeuro ds003825)"
IMAGE_TERMS = (
    "The recordings are CC0. The images are from the THINGS database (osf.io/jum2f) and under its own terms; this "
    "folder holds images, so it may not be published."
)
PLACES = ("images", "stimuli")  # of the images in the raw folder
ZERO_SHOT = (
    "zero-shot: the 200 test images; training images of the test concepts are left out, and validation images are all "
    "images of some training concepts, the same for all people"
)
KEPT = (
    "by image: the 200 test images, whose concepts also occur in training; validation images are all images of some "
    "training concepts that are no test concepts, the same for all people"
)
KNOWN_DEFECTS = [
    "Images follow each other every 0.1 s, so a recording of 1 s holds the responses to the images before it and to "
    "the nine after it. Training and validation images alternate; test images have sequences of their own.",
    "The epochs are referred to the 0.2 s before onset, in which two other images appeared.",
]
REAL_DEFECTS = [  # not simulated
    IMAGE_TERMS,
    "Subjects 38 to 42 saw images partly every 0.094 s.",
    "178 of the 200 test images of THINGS-EEG2 are training images here, and the 100 of THINGS-fMRI are test images.",
]
Shown = Mapping[str, str]  # split by image; images that are left out are not in it


def prepare(
    raw_dir: str | Path, output_dir: str | Path, options: ThingsEeg1Options | None = None, **changes: Any
) -> Path:
    """Read a THINGS-EEG1 folder, real or simulated, and write a prepared data set.

    Args:
        raw_dir (`str` or `Path`): BIDS root of ds003825, version 1.1.0 or 1.2.0.
        output_dir (`str` or `Path`): Folder to make.
        options (`ThingsEeg1Options`, *optional*): What to prepare, and how.
        **changes: Options by name, in place of those of `options`.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If a file is missing, not downloaded, truncated, of another subject or version, or contradicts
            another or the published counts.
    """
    options = replace(options or ThingsEeg1Options(), **changes)
    check_output(output_dir, [raw_dir, *options.places], options.overwrite)
    raw_dir = Path(raw_dir)
    simulated = read_stamp(raw_dir)
    facts = corpus_facts(raw_dir, simulated)
    subjects, left_out = _subjects(raw_dir, facts, options)
    people = [read_events(raw_dir, subject, facts) for subject in subjects]
    check_people(people)
    declared = {f"sub-{one.subject:02d}": facts.shown(one.subject) for one in people}
    found = {f"sub-{one.subject:02d}": one.counts(facts) for one in people}
    partial_ = check_facts(raw_dir, declared, found, allow_partial=options.allow_partial)
    recordings = [find_recording(raw_dir, one, facts, markers=options.markers == "compare") for one in people]
    check_recordings(recordings)
    shown = _shown(people, options)
    images = _images(raw_dir, options.images_dir, people, shown)
    about = _metadata(options, simulated, recordings, left_out) | {"declared": declared, "partial": partial_}
    tables = [one.table for one in people]
    signals_of.cache_clear()
    try:
        return write_prepared(
            output_dir,
            about,
            _parts(recordings, shown, options, preparation(recordings), tables),
            image_parts(images, _image_rows, lambda some: [*(path for _, path in some), *tables]),
            overwrite=options.overwrite,
            num_proc=options.num_proc,
            made_from=raw_dir,
        )
    finally:
        signals_of.cache_clear()


def _subjects(raw_dir: Path, facts: CorpusFacts, options: ThingsEeg1Options) -> tuple[list[int], str]:
    """Whom to read, and a sentence on those who are left out because nobody asked for them."""
    table = raw_dir / "participants.tsv"
    listed, excluded = set(), []
    for line, (name, flag) in read_columns(table, ("participant_id", "exclude"), "\t"):
        if flag not in ("0", "1"):
            raise DataError(f"'{table}': line {line} has {flag!r} as exclude; allowed are 0 and 1.")
        listed.add(name)
        excluded += [name] if flag == "1" else []
    wanted = chosen("subjects", options.subjects, facts.subjects)
    marked = [] if options.include_excluded else [one for one in wanted if f"sub-{one:02d}" in excluded]
    other = [one for one in wanted if one in facts.other_setup]
    reasons = {
        "whom participants.tsv marks as excluded (--include-excluded reads them)": marked,
        "who wore another cap of 128 electrodes, of which half was connected: no file says which": other,
    }
    told = "; ".join(f"{', '.join(f'sub-{one:02d}' for one in some)}, {why}" for why, some in reasons.items() if some)
    if told and options.subjects is not None:
        raise DataError(f"Invalid value for the 'subjects' parameter. Among them are {told}.")
    read = [one for one in wanted if one not in (*marked, *other)]
    if not read:
        raise DataError(f"'{raw_dir}' has nobody to read: left out are {told}.")
    names = [f"sub-{one:02d}" for one in read]
    if not options.include_excluded and (absent := [name for name in names if name not in listed]):
        raise DataError(
            f"'{table}' does not list {', '.join(absent)}, so whether they are excluded is not known. Is it cut?"
        )
    if told:
        print(f"Left out are {told}.", file=sys.stderr)
    return read, f"Left out are {told}." if told else ""


def _shown(people: Sequence[Events], options: ThingsEeg1Options) -> Shown:
    """Split of each image that is used. It depends on what was shown, which is the same for all people."""
    test = set().union(*(one.test_images for one in people))
    training = set().union(*(one.training_images for one in people))
    unseen = {concept_of(image_id) for image_id in test}
    concepts = [concept_of(image_id) for image_id in training if concept_of(image_id) not in unseen]
    held_out = validation_split(concepts, options.validation_fraction, options.seed)
    shown = dict.fromkeys(sorted(test), "test")
    for image_id in sorted(training):
        concept = concept_of(image_id)
        if concept not in unseen or options.split == "all_concepts":
            shown[image_id] = "validation" if concept in held_out else "train"
    return shown


def _images(
    raw_dir: Path, images_dir: str | Path | None, people: Sequence[Events], shown: Shown
) -> list[tuple[str, Path]]:
    """Images that are used, with their files, all of which must be there."""
    usual = [Path(images_dir)] if images_dir else [raw_dir / name for name in PLACES]
    base = next((place for place in usual if place.is_dir()), None)
    if base is None:
        raise DataError(
            f"'{usual[0]}' is no folder. Give the folder of the unpacked images of THINGS, with a folder for each "
            "concept, with --images-dir; the archive and its terms are at osf.io/jum2f."
        )
    folder = base / "object_images" if (base / "object_images").is_dir() else base
    files = {image_id: (file, one.table) for one in people for image_id, file in one.files.items()}
    images = [(image_id, path_inside(folder, *files[image_id])) for image_id in shown]
    check_images((path for _, path in images), lambda path: existing(path, "image"))
    return images


def _image_rows(images: Sequence[tuple[str, Path]]) -> list[dict]:
    """Rows of images for `write_prepared`."""
    return [
        {"image_id": image_id, "image": path, "concept": concept_of(image_id), "categories": []}
        for image_id, path in images
    ]


def _parts(
    recordings: Sequence[Recording], shown: Shown, options: ThingsEeg1Options, prepared: Preparation,
    tables: Sequence[Path],
) -> list[Part]:  # fmt: skip
    """A part for each subject. Splits depend on the tables of all."""
    parts = []
    for one in recordings:
        counts = Counter(image_id for image_id in one.events.image_ids if image_id in shown)
        rows = partial(_rows, one, shown, options.scaling, prepared)
        if options.average_repeats:
            rows = partial(_averaged, rows, counts)
        n_rows = len(counts) if options.average_repeats else counts.total()
        parts.append(Part(one.subject, rows, (*one.files, *tables), n_rows))
    return parts


def _averaged(rows: partial, counts: Counter) -> Iterator[dict | Statistics]:
    """One row an image."""
    return mean_of_repeats(rows(), "eeg", counts, np.float64)


def _rows(recording: Recording, shown: Shown, scaling: str, prepared: Preparation) -> Iterator[dict | Statistics]:
    """Rows of a subject in order of presentation, scaled by the subject's training epochs."""
    events = recording.events
    splits = [shown.get(image_id) for image_id in events.image_ids]
    signals = signals_of(recording.header, tuple(recording.ch_names))

    def epochs(some: np.ndarray) -> Iterator[np.ndarray]:
        return cut_epochs(signals, events.samples[some], WINDOW, SPEC, prepared)

    training = np.array([event for event, split in enumerate(splits) if split == "train"], dtype=int)
    scale = fitted_scale(scaling, lambda: epochs(training), recording.ch_names, f"'{recording.header}'")
    if scale.rms is not None:
        yield Statistics(recording.subject, "", np.zeros_like(scale.rms), scale.rms)
    used = np.array([event for event, split in enumerate(splits) if split is not None], dtype=int)
    for event, epoch in zip(used.tolist(), epochs(used), strict=True):
        image_id = events.image_ids[event]
        yield {
            "subject": recording.subject, "session": "", "run": f"sequence-{events.sequences[event]:02d}",
            "trial": event, "image_id": image_id, "concept": concept_of(image_id), "n_repeats": 1,
            "split": splits[event], "eeg": scale.of(epoch),
        }  # fmt: skip


def _metadata(
    options: ThingsEeg1Options, simulated: dict | None, recordings: Sequence[Recording], left_out: str
) -> dict:
    """Facts of `neural_clip.json`, but for counts."""
    ch_names = recordings[0].ch_names
    return {
        "corpus": "things_eeg1", "pretty_name": "THINGS-EEG1 prepared for neural_clip", "modality": "eeg",
        "simulated": simulated, "subjects": [one.subject for one in recordings], "split_unit": "image",
        "split_protocol": ZERO_SHOT if options.split == "zero_shot" else KEPT, "licence": LICENCE,
        "terms": "Simulated recordings and images; no subject was recorded." if simulated else IMAGE_TERMS,
        "redistribution": "allowed" if simulated else "forbidden", "citation": CITATION,
        "average_repeats": options.average_repeats, "presentation_order": not options.average_repeats,
        "ch_names": ch_names, "n_chans": len(ch_names), **SPEC,
        **scaling_facts(options.scaling, preparation(recordings), "subject"),
        "preprocessing": {
            "validation_fraction": options.validation_fraction, "seed": options.seed, "markers": options.markers,
            "split_protocol": options.split, "baseline_s": [WINDOW[0], 0.0], "rate": "resampled",
            "reference": "Cz, as recorded",
        },
        "known_defects": KNOWN_DEFECTS + ([] if simulated else REAL_DEFECTS) + ([left_out] if left_out else []),
        "source": SOURCE + (", SIMULATED" if simulated else ""),
    }  # fmt: skip
