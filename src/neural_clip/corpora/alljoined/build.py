"""Alljoined-1.6M (Xu et al. 2025) and Alljoined1 (Xu et al. 2024) as prepared data sets.

Alljoined-1.6M: twenty people with a headset of 32 electrodes, four sessions each, in the design and with the images of
THINGS-EEG2. It is read from the recordings (`raw`) or from what was preprocessed of them (`flat`). The 200 test images
are the test split, validation holds out whole training concepts, the same for all people.

Alljoined1: eight people with 64 electrodes, who saw the same 960 images of NSD (`alljoined1`). Test images are those
of its test files; validation images are some of the others.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.corpora.alljoined import alljoined1
from neural_clip.corpora.alljoined.facts import CHANNELS, CorpusFacts, corpus_facts
from neural_clip.corpora.alljoined.flat import FlatFile, find_flat, opened_flat
from neural_clip.corpora.alljoined.options import AlljoinedOptions
from neural_clip.corpora.alljoined.recordings import PREPARATION, SPEC, WINDOW, Block, check_marks, find_session
from neural_clip.corpora.alljoined.rows import first_parts, flat_parts, recorded_parts, shown
from neural_clip.corpora.alljoined.stimuli import Image, read_images
from neural_clip.corpora.declared import check_facts, chosen
from neural_clip.corpora.image_parts import check_images, image_parts
from neural_clip.corpora.nsd.rows import image_rows
from neural_clip.corpora.sensor_scaling import scaling_facts
from neural_clip.corpora.stamp import read_stamp
from neural_clip.errors import DataError
from neural_clip.files.reading import existing
from neural_clip.preparation import Preparation
from neural_clip.prepared.parts import Part
from neural_clip.prepared.splits import validation_split
from neural_clip.prepared.writer import check_output, write_prepared

LICENCE = "CC-BY-NC-ND-4.0"
CITATION = (
    "Xu, J. et al. (2025). Alljoined-1.6M: a million-trial EEG-image dataset for evaluating affordable brain-computer "
    "interfaces. arXiv:2508.18571"
)
FIRST_CITATION = (
    "Xu, J. et al. (2024). Alljoined1: a dataset for EEG-to-image decoding. arXiv:2404.05553. Images: Allen, E. J. et "
    "al. (2022). Nature Neuroscience 25:116-126. doi:10.1038/s41593-021-00962-x"
)
SOURCE = "Alljoined-1.6M (huggingface.co/datasets/Alljoined/Alljoined-1.6M)"
FIRST_SOURCE = "Alljoined1 (huggingface.co/datasets/Alljoined/05_125)"
TERMS = (
    "The licence is uncertain: sources name CC BY-NC-SA 4.0 and CC BY-NC-ND 4.0, of which the stricter one is given "
    "here. Do not publish this folder before the authors have settled it. Its images have terms of their own (THINGS, "
    "osf.io/jum2f; of Alljoined1, NSD and COCO)."
)
ZERO_SHOT = (
    "zero-shot: the 200 test images, of concepts without training images; validation images are all images of some "
    "training concepts, the same for all people"
)
BY_IMAGE = "by image: the test images of the published test files; validation images are some of the others"
DEFECTS = [
    "Images follow each other every 0.2 s, so a recording holds the responses to the images before and after it.",
    "The images are those of THINGS-EEG2.",
]
UNNAMED = (
    "Images are called by their numbers, not by the names that other corpora of THINGS use, so nothing notices that "
    "an image or concept is in another corpus too. It is not trained together with another of these corpora "
    "(--image-metadata gives the names)."
)
FIRST_DEFECTS = [
    "The files name no channels; the order of BioSemi's cap of 64 is assumed.",
    "All images are of NSD, are called as there, and are among its test images. Trained together with NSD, a set is "
    "left with those that NSD does not test, which are few.",
]


def prepare(
    raw_dir: str | Path, output_dir: str | Path, options: AlljoinedOptions | None = None, **changes: Any
) -> Path:
    """Read a folder of Alljoined-1.6M or Alljoined1, real or simulated, and write a prepared data set.

    Args:
        raw_dir (`str` or `Path`): Folder of what `route` reads.
        output_dir (`str` or `Path`): Folder to make.
        options (`AlljoinedOptions`, *optional*): What to prepare, and how.
        **changes: Options by name, in place of those of `options`.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If a file is missing, not downloaded, truncated, of another subject, session, block or part, or
            contradicts another or the published counts.
    """
    options = replace(options or AlljoinedOptions(), **changes)
    check_output(output_dir, [raw_dir, *options.places], options.overwrite)
    raw_dir = Path(raw_dir)
    simulated = read_stamp(raw_dir)
    facts = corpus_facts(raw_dir, simulated)
    opened_flat.cache_clear()
    read = {"raw": _recorded, "flat": _flat, "alljoined1": _first}[options.route]
    try:
        about, recordings, images = read(raw_dir, options, facts)
        return write_prepared(
            output_dir,
            _metadata(options, simulated) | about,
            recordings,
            images,
            overwrite=options.overwrite,
            num_proc=options.num_proc,
            made_from=raw_dir,
        )
    finally:
        opened_flat.cache_clear()


Read = tuple[dict, list[Part], list[Part]]  # facts, recordings and images


def _recorded(raw_dir: Path, options: AlljoinedOptions, facts: CorpusFacts) -> Read:
    """Of the EDF files."""
    subjects = chosen("subjects", options.subjects, facts.subjects)
    sessions = chosen("sessions", options.sessions, range(1, facts.n_sessions + 1))
    images = _images(raw_dir, options, facts)
    found: list[tuple[Block, ...]] = []
    told: list[str] = []
    marks: dict[str, Path] = {}
    declared, counted = {}, {}
    for subject in subjects:
        own: list[tuple[Block, ...]] = []
        for session in sessions:
            blocks, ignored = find_session(raw_dir, subject, session, facts)
            check_marks(blocks, marks)
            name = f"sub-{subject:02d}, session {session}"
            declared[name] = {"blocks": facts.test_blocks + facts.train_blocks}
            counted[name] = {"blocks": len(blocks)}
            if blocks:
                own.append(tuple(blocks))
        told += [f"sub-{subject:02d}: the folder '{folder}' is ignored." for folder in ignored]
        every = [block for blocks in own for block in blocks]
        if len(sessions) == facts.n_sessions:
            name = f"sub-{subject:02d}"
            declared[name] = {"test trials": facts.test_trials(subject)}
            counted[name] = {"test trials": sum(len(b.ids) for b in every if b.number <= facts.test_blocks)}
        if lost := sum(int((~block.inside).sum()) for block in every):
            told.append(f"sub-{subject:02d}: {lost} trials are left out, because their epochs reach beyond the file.")
        found += own
    partial_ = check_facts(raw_dir, declared, counted, allow_partial=options.allow_partial)
    _tell(told)
    tables = _tables(options)
    recordings = recorded_parts(found, images, facts, options.scaled_by, tables, average=options.average_repeats)
    about = {
        "subjects": [f"sub-{subject:02d}" for subject in subjects], "declared": declared, "partial": partial_,
        "known_defects": DEFECTS + ([] if options.image_metadata else [UNNAMED]) + told,
        **scaling_facts(options.scaled_by, PREPARATION, "session"),
    }  # fmt: skip
    seen = {number for blocks in found for number in shown(blocks).tolist()}
    return about, recordings, _image_parts([images[number] for number in sorted(seen)], tables)


def _flat(raw_dir: Path, options: AlljoinedOptions, facts: CorpusFacts) -> Read:
    """Of the preprocessed files."""
    subjects = chosen("subjects", options.subjects, facts.subjects)
    images = _images(raw_dir, options, facts)
    files: list[FlatFile] = []
    marks: dict[str, Path] = {}
    for subject in subjects:
        for one in find_flat(raw_dir, subject, facts, images):
            if one.mark in marks:
                raise DataError(
                    f"'{marks[one.mark]}' and '{one.path}' hold the same trials. One is of another subject."
                )
            marks[one.mark] = one.path
            files.append(one)
    declared, counted = {}, {}
    for one in files:
        name = f"sub-{one.subject:02d}, {one.part}"
        declared[name] = {"sessions": facts.n_sessions}
        counted[name] = {"sessions": len(np.unique(one.sessions))}
        if one.part == "test":
            declared[name]["test images"] = facts.n_test_images
            counted[name]["test images"] = len(np.unique(one.ids))
    partial_ = check_facts(raw_dir, declared, counted, allow_partial=options.allow_partial)
    tables = _tables(options)
    about = {
        "subjects": [f"sub-{subject:02d}" for subject in subjects], "declared": declared, "partial": partial_,
        "unit": "z", "known_defects": DEFECTS + ([] if options.image_metadata else [UNNAMED]),
        "scaling": {
            "method": "as released", "fit_scope": "train",
            "description": "multivariate noise normalisation of each session by its training epochs, as released",
        },
        "preparation": Preparation(
            unit="z", scaling="unknown", obstacle="the release whitened each session by a matrix of its own"
        ).as_dict(),
    }  # fmt: skip
    recordings = flat_parts(files, images, tables, average=options.average_repeats)
    seen = {number for one in files for number in one.ids.tolist()}
    return about, recordings, _image_parts([images[number] for number in sorted(seen)], tables)


def _first(raw_dir: Path, options: AlljoinedOptions, facts: CorpusFacts) -> Read:
    """Of Alljoined1."""
    subjects = chosen("subjects", options.subjects, facts.first_subjects)
    shards = alljoined1.Shards.read(raw_dir, facts.first_subjects)
    names = [f"sub-{subject:02d}" for subject in subjects]
    declared = dict.fromkeys(names, alljoined1.declared(facts))
    counted = {name: alljoined1.counts(shards, subject) for name, subject in zip(names, subjects, strict=True)}
    absent = [name for name, found in counted.items() if not found["images"]]
    if absent:
        raise DataError(f"The files of '{raw_dir}' have no rows of {', '.join(absent)}.")
    partial_ = check_facts(raw_dir, declared, counted, allow_partial=options.allow_partial)
    ids = shards.numbers["73k_id"]
    test, others = set(ids[shards.test].tolist()), set(ids[~shards.test].tolist())
    held_out = validation_split([f"{number:05d}" for number in others], options.validation_fraction, options.seed)
    splits = dict.fromkeys(test, "test") | {
        number: "validation" if f"{number:05d}" in held_out else "train" for number in others
    }
    seen = sorted({number for subject in subjects for number in ids[shards.of(subject)].tolist()})
    stimuli = alljoined1.stimuli_file(raw_dir, Path(options.images_dir) if options.images_dir else None, seen)
    prepared = Preparation(unit="V", rate=None)
    about = {
        "subjects": names, "declared": declared, "partial": partial_, "split_protocol": BY_IMAGE,
        "citation": FIRST_CITATION, "ch_names": alljoined1.CHANNELS, "n_chans": alljoined1.N_CHANS,
        "n_times": alljoined1.N_TIMES, "sfreq": alljoined1.SFREQ, "tmin": alljoined1.TMIN,
        "known_defects": FIRST_DEFECTS, **scaling_facts(options.scaled_by, prepared, "session"),
    }  # fmt: skip
    recordings = first_parts(shards, subjects, splits, options.scaled_by, average=options.average_repeats)
    chunks: list[tuple[int, list[str]]] = [(number, []) for number in seen]
    return about, recordings, image_parts(chunks, partial(image_rows, path=stimuli), lambda some: [stimuli])


def _tell(sentences: Sequence[str]) -> None:
    """At the shell; the card has the same."""
    for sentence in sentences:
        print(sentence, file=sys.stderr)


def _tables(options: AlljoinedOptions) -> list[Path]:
    """Tables on which all rows depend."""
    return [Path(options.image_metadata)] if options.image_metadata else []


def _images(raw_dir: Path, options: AlljoinedOptions, facts: CorpusFacts) -> list[Image]:
    """All images, by their id."""
    folder, table = (Path(place) if place else None for place in (options.images_dir, options.image_metadata))
    return read_images(raw_dir, folder, table, facts, options.validation_fraction, options.seed)


def _image_parts(images: Sequence[Image], tables: Sequence[Path]) -> list[Part]:
    """Parts of images that are shown, all of which must be there."""
    check_images((image.path for image in images), lambda path: existing(path, "image"))
    return image_parts(images, _image_rows, lambda some: [*(image.path for image in some), *tables])


def _image_rows(images: Sequence[Image]) -> list[dict]:
    """Rows of images for `write_prepared`."""
    return [
        {"image_id": image.image_id, "image": image.path, "concept": image.concept, "categories": []}
        for image in images
    ]  # fmt: skip


def _metadata(options: AlljoinedOptions, simulated: dict | None) -> dict:
    """Facts of `neural_clip.json` that all routes have, but for counts; those of Alljoined-1.6M where they differ."""
    first = options.route == "alljoined1"
    return {
        "corpus": "alljoined1" if first else "alljoined", "modality": "eeg", "simulated": simulated,
        "pretty_name": f"{'Alljoined1' if first else 'Alljoined-1.6M'} prepared for neural_clip",
        "split_unit": "image", "split_protocol": ZERO_SHOT, "licence": LICENCE,
        "terms": "Simulated recordings and images; no subject was recorded." if simulated else TERMS,
        "redistribution": "allowed" if simulated else "forbidden", "citation": CITATION,
        "average_repeats": options.average_repeats,
        "presentation_order": not options.average_repeats and options.route != "flat",
        "ch_names": CHANNELS, "n_chans": len(CHANNELS), **SPEC,
        "preprocessing": {
            "route": options.route, "validation_fraction": options.validation_fraction, "seed": options.seed,
            **({"baseline_s": [WINDOW[0], 0.0], "rate": "resampled"} if options.route == "raw" else {}),
        },
        "source": (FIRST_SOURCE if first else SOURCE) + (", SIMULATED" if simulated else ""),
    }  # fmt: skip
