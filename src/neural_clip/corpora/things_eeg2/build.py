"""THINGS-EEG2 (Gifford et al. 2022) as a prepared data set.

Ten people, four sessions each: 16,540 training images of 1,654 concepts, each shown four times, and 200 test images of
other concepts, each shown 80 times, five images a second. Two routes read the recordings (`raw`, `bids`), four read
what others preprocessed of them (`releases.py`).

Validation images are those of whole training concepts, the same for all people and all routes: there is no official
validation split, and images of a concept that is trained on would tell little of unseen concepts. What recordings are
scaled by is fitted on training epochs alone.

Codes of images, channels, times and counts are compared with what is published; files that were exchanged between
people, sessions or parts are refused as far as anything in them tells it. Nothing in them tells whether sessions 1 and
2, or 3 and 4, of one person were exchanged; in BIDS, nor whether signals alone, or events alone, of two runs or people
were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from neural_clip.corpora.declared import check_facts, chosen
from neural_clip.corpora.image_parts import check_images, image_parts
from neural_clip.corpora.sensor_scaling import scaling_facts
from neural_clip.corpora.stamp import read_stamp
from neural_clip.corpora.things_eeg2.facts import (
    PARTS,
    CorpusFacts,
    check_codes,
    check_sessions,
    corpus_facts,
    found_session,
)
from neural_clip.corpora.things_eeg2.options import ThingsEeg2Options
from neural_clip.corpora.things_eeg2.recordings import (
    RECIPES,
    Recording,
    bids_recordings,
    forget_signals,
    raw_recordings,
)
from neural_clip.corpora.things_eeg2.releases import RELEASES, ReleaseFile, find_release, forget_releases
from neural_clip.corpora.things_eeg2.rows import Session, Shown, image_counts, recorded_parts, released_parts
from neural_clip.corpora.things_eeg2.stimuli import Image, Stimuli
from neural_clip.errors import DataError
from neural_clip.files.reading import existing
from neural_clip.preparation import Preparation
from neural_clip.prepared.parts import Part
from neural_clip.prepared.splits import validation_split
from neural_clip.prepared.writer import check_output, write_prepared

LICENCE = "CC-BY-4.0"
CITATION = (
    "Gifford, A. T., Dwivedi, K., Roig, G., Cichy, R. M. (2022). A large and rich EEG dataset for modeling human "
    "visual object recognition. NeuroImage 264:119754. doi:10.1016/j.neuroimage.2022.119754"
)
SOURCE = "THINGS-EEG2 (osf.io/3jk45)"
IMAGE_TERMS = (
    "The recordings are CC BY 4.0. The images are from the THINGS database (osf.io/jum2f) and under its own terms; "
    "this folder holds images, so it may not be published."
)
SPLIT_PROTOCOL = (
    "zero-shot: the 200 test images, of concepts without training images; validation images are all images of some "
    "training concepts, the same for all people"
)
KNOWN_DEFECTS = [
    "Images follow each other every 0.2 s, so a recording holds the responses to the images before and after it.",
    "Headers of the recordings tell a high-pass of 0.1 Hz, the published files 0.01 Hz.",
]
REAL_DEFECTS = [  # not simulated
    IMAGE_TERMS,
    "178 of the 200 test images are training images of THINGS-EEG1, and 77 of THINGS-fMRI.",
]


def prepare(
    raw_dir: str | Path, output_dir: str | Path, options: ThingsEeg2Options | None = None, **changes: Any
) -> Path:
    """Read a THINGS-EEG2 folder, real or simulated, and write a prepared data set.

    Args:
        raw_dir (`str` or `Path`): Folder of what `route` reads, with a folder `sub-01` and so on for each person.
        output_dir (`str` or `Path`): Folder to make.
        options (`ThingsEeg2Options`, *optional*): What to prepare, and how.
        **changes: Options by name, in place of those of `options`.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If a file is missing, not downloaded, truncated, of another person, session, part or release, or
            contradicts another or the published counts.
    """
    options = replace(options or ThingsEeg2Options(), **changes)
    check_output(output_dir, [raw_dir, *options.places], options.overwrite)
    raw_dir = Path(raw_dir)
    simulated = read_stamp(raw_dir)
    facts = corpus_facts(raw_dir, simulated)
    subjects = chosen("subjects", options.subjects, facts.subjects)
    sessions = chosen("sessions", options.sessions, range(1, facts.n_sessions + 1))
    stimuli = Stimuli.read(raw_dir, Path(options.images_dir) if options.images_dir else None, facts)
    shown = _shown(stimuli, options)
    forget_signals()
    forget_releases()
    declared: dict = {"subjects": subjects, "sessions": sessions}
    if options.recorded:
        found = _open_recordings(raw_dir, options.route, subjects, sessions, facts, stimuli)
        counts, partial_ = _compared(raw_dir, found, facts, allow_partial=options.allow_partial)
        declared |= counts
        recordings = recorded_parts(
            found, shown, RECIPES[options.recipe], facts, options.scaled_by, [stimuli.table],
            average=options.average_repeats,
        )  # fmt: skip
    else:
        partial_ = None
        recordings = _released(raw_dir, options, subjects, facts, stimuli, shown)
    used = [*stimuli.training, *stimuli.test]
    if options.recorded and len(sessions) < facts.n_sessions:
        seen = image_counts(found, shown)
        used = [image for image in used if image.image_id in seen]
    check_images((image.path for image in used), lambda path: existing(path, "image"))
    about = _metadata(options, simulated, subjects, sessions) | {"declared": declared, "partial": partial_}
    images = image_parts(used, _image_rows, lambda some: [*(image.path for image in some), stimuli.table])
    try:
        return write_prepared(
            output_dir,
            about,
            recordings,
            images,
            overwrite=options.overwrite,
            num_proc=options.num_proc,
            made_from=raw_dir,
        )
    finally:
        forget_signals()
        forget_releases()


def _shown(stimuli: Stimuli, options: ThingsEeg2Options) -> Shown:
    """Image, concept and split of each code; validation concepts depend on the table of images alone."""
    concepts = [image.concept for image in stimuli.training]
    held_out = validation_split(concepts, options.validation_fraction, options.seed)

    def split(image: Image) -> str:
        return "validation" if image.concept in held_out else "train"

    return {
        "training": [(image.image_id, image.concept, split(image)) for image in stimuli.training],
        "test": [(image.image_id, image.concept, "test") for image in stimuli.test],
    }


def _open_recordings(
    raw_dir: Path, route: str, subjects: Sequence[int], sessions: Sequence[int], facts: CorpusFacts, stimuli: Stimuli
) -> list[Session]:
    """Sessions of all people, whose events can be those of this corpus."""
    images = {part: stimuli.of(part) for part in PARTS}
    open_session = partial(bids_recordings, images=images) if route == "bids" else raw_recordings
    found: list[Session] = []
    marks: dict[str, Path] = {}
    for subject in subjects:
        first_trial, codes = 0, {}
        for number in sessions:
            recordings = open_session(raw_dir, subject, number, facts)
            _check_marks(recordings, marks)
            session = Session.of(recordings, facts, first_trial)
            for part in PARTS:
                path = next(recording.path for recording in recordings if recording.part == part)
                check_codes(path, part, session.codes(part), facts)
            codes[number] = session.codes("training")
            found.append(session)
            first_trial += sum(len(recording.codes) for recording in recordings)
        check_sessions(subject, codes, facts)
    return found


def _check_marks(files: Sequence[Recording] | Sequence[ReleaseFile], marks: dict[str, Path]) -> None:
    """Refuse a file that holds the recording of another one."""
    for file in files:
        if file.mark in marks:
            raise DataError(
                f"'{marks[file.mark]}' and '{file.path}' hold the same recording. One of them is of another person, "
                "session or part."
            )
        marks[file.mark] = file.path


def _compared(
    raw_dir: Path, sessions: Sequence[Session], facts: CorpusFacts, *, allow_partial: bool
) -> tuple[dict, dict | None]:
    """What each part of each session must show, and where it differs."""
    declared, found = {}, {}
    for session in sessions:
        for part in PARTS:
            name = f"{part} part of sub-{session.subject:02d}, {session.name}"
            declared[name], found[name] = facts.session(part), found_session(session.codes(part), part, facts)
    return declared, check_facts(raw_dir, declared, found, allow_partial=allow_partial)


def _released(
    raw_dir: Path, options: ThingsEeg2Options, subjects: Sequence[int], facts: CorpusFacts, stimuli: Stimuli,
    shown: Shown,
) -> list[Part]:  # fmt: skip
    """Parts of what others preprocessed."""
    marks: dict[str, Path] = {}
    found = []
    for subject in subjects:
        for part in PARTS:
            file = find_release(raw_dir, options.route, subject, part, facts, stimuli.of(part))
            _check_marks([file], marks)
            found.append(file)
    return released_parts(found, options.route, shown, facts, [stimuli.table], average=options.average_repeats)


def _image_rows(images: Sequence[Image]) -> list[dict]:
    """Rows of images for `write_prepared`."""
    return [
        {"image_id": image.image_id, "image": image.path, "concept": image.concept, "categories": []}
        for image in images
    ]  # fmt: skip


def _metadata(
    options: ThingsEeg2Options, simulated: dict | None, subjects: Sequence[int], sessions: Sequence[int]
) -> dict:
    """Facts of `neural_clip.json`, but for counts."""
    return {
        "corpus": "things_eeg2", "pretty_name": "THINGS-EEG2 prepared for neural_clip", "modality": "eeg",
        "simulated": simulated, "subjects": [f"sub-{subject:02d}" for subject in subjects],
        "split_unit": "image", "split_protocol": SPLIT_PROTOCOL, "licence": LICENCE,
        "terms": "Simulated recordings and images; no subject was recorded." if simulated else IMAGE_TERMS,
        "redistribution": "allowed" if simulated else "forbidden", "citation": CITATION,
        "average_repeats": options.average_repeats,
        "presentation_order": options.recorded and not options.average_repeats,
        **(_of_recordings(options, sessions) if options.recorded else _of_release(options)),
        "known_defects": KNOWN_DEFECTS + ([] if simulated else REAL_DEFECTS) + _defects(options),
        "source": (SOURCE if options.recorded else f"{SOURCE}, as {RELEASES[options.route].title} preprocessed it "
                   f"({RELEASES[options.route].source})") + (", SIMULATED twin" if simulated else ""),
    }  # fmt: skip


def _of_recordings(options: ThingsEeg2Options, sessions: Sequence[int]) -> dict:
    """What epochs of recordings are, and went through."""
    recipe = RECIPES[options.recipe]
    return {
        "ch_names": recipe.ch_names, "n_chans": len(recipe.ch_names), "n_times": recipe.n_times,
        "sfreq": recipe.sfreq, "tmin": recipe.tmin,
        **scaling_facts(options.scaled_by, recipe.preparation, "session"),
        "preprocessing": _choices(options) | {
            "recipe": recipe.name, "baseline_s": [-0.2, 0.0], "rate": recipe.rate, "sessions": list(sessions),
            "surplus": "the first presentations of each image in a session, of all images as many; no targets",
        },
    }  # fmt: skip


def _of_release(options: ThingsEeg2Options) -> dict:
    """What the values of a release are, and went through as far as anybody says."""
    release = RELEASES[options.route]
    return {
        "ch_names": release.ch_names, "n_chans": len(release.ch_names), "n_times": release.n_times,
        "sfreq": release.sfreq, "tmin": release.tmin, "unit": "z",
        "scaling": {"method": "as released", "fit_scope": release.fit_scope, "description": release.scaling},
        "preparation": Preparation(
            unit="z", scaling="unknown", obstacle=f"{release.title} scaled each session by statistics of its own"
        ).as_dict(),
        "preprocessing": _choices(options) | {"values_of_the_release": release.kind},
    }  # fmt: skip


def _choices(options: ThingsEeg2Options) -> dict:
    """Options that decide rows of every route."""
    return {"route": options.route, "validation_fraction": options.validation_fraction, "seed": options.seed}


def _defects(options: ThingsEeg2Options) -> list[str]:
    """What a reader must know of a release."""
    return {
        "official": ["The whitening of this release was fitted on test epochs too, so they are not unseen."],
        "nice": ["Versions of NICE's script differ in whether the whitening was fitted on test epochs too."],
        "ubp": ["The values of this release were rounded to half precision (float16)."],
    }.get(options.route, [])
