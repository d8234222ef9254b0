"""THINGS-fMRI (Hebart et al. 2023) as a prepared data set.

Three people, twelve sessions each: 8,640 training images of 720 concepts, each shown once, and 100 test images, each
shown in every session. The concepts of all test images are among the 720, so that training on all of them is no
zero-shot protocol: by default their training images are left out. The concept of an image is what its file name says;
the published folders of three test images are wrong.

Betas come as tables or as volumes; the recordings themselves are not read. Validation images are those of whole
training concepts, the same for all people and both routes. Counts, orders, labels and noise ceilings are compared with
each other and with what is published, so that files which were exchanged or cut are refused.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from neural_clip.corpora.declared import check_facts, chosen, listed, told_lacking
from neural_clip.corpora.image_parts import check_images, image_parts
from neural_clip.corpora.nsd.betas import mask_file
from neural_clip.corpora.stamp import read_stamp
from neural_clip.corpora.things_fmri.betas import TableBetas, VolumeBetas
from neural_clip.corpora.things_fmri.downloaded import downloaded_sessions
from neural_clip.corpora.things_fmri.facts import CorpusFacts, Trial, corpus_facts, declared_trials
from neural_clip.corpora.things_fmri.layout import brain_mask_file, find_table_file, name_of, table_file
from neural_clip.corpora.things_fmri.options import ThingsFmriOptions
from neural_clip.corpora.things_fmri.rows import SubjectPlan, recording_parts
from neural_clip.corpora.things_fmri.trials import table_trials, volume_trials
from neural_clip.corpora.things_fmri.voxels import (
    CEILINGS,
    N_COMPARED,
    Voxels,
    check_against_ceilings,
    read_voxels,
)
from neural_clip.corpora.things_meg.stimuli import ARCHIVE_ADVICE
from neural_clip.errors import DataError
from neural_clip.files.nifti import check_same_place, read_affine, read_first
from neural_clip.files.reading import existing
from neural_clip.preparation import Preparation, places_of_voxels, tensor_name
from neural_clip.prepared.splits import validation_split
from neural_clip.prepared.writer import check_output, write_prepared

CEILINGS_FILE = "noise_ceilings.safetensors"
LICENCE = "CC0-1.0"
CITATION = (
    "Hebart, M. N., Contier, O., Teichmann, L., Rockter, A. H., Zheng, C. Y., Kidder, A., Corriveau, A., "
    "Vaziri-Pashkam, M., Baker, C. I. (2023). THINGS-data, a multimodal collection of large-scale datasets for "
    "investigating object representations in human brain and behavior. eLife 12:e82580. doi:10.7554/eLife.82580"
)
SOURCE = "THINGS-fMRI (single-trial betas, doi.org/10.25452/figshare.plus.20492835; recordings: OpenNeuro ds004192)"
IMAGE_TERMS = (
    "The images are from the THINGS database (osf.io/jum2f) and under its own terms; this folder holds images, so it "
    "may not be published."
)
KNOWN_DEFECTS = [
    "Each run was z-scored before the betas were estimated, and the response function of a voxel was chosen on all "
    "runs, those of test trials included.",
    "The share of ridge regularisation of a voxel was chosen by how well the responses to the test images repeat, so "
    "betas are not blind to the test images.",
]
REAL_DEFECTS = [  # not simulated
    IMAGE_TERMS,
    "All 100 test images are validation images of THINGS-EEG1, and 77 of the 200 test images of THINGS-EEG2 are "
    "training images here.",
]
ADVICE = (
    " Choose other sessions (--sessions), or take what is there with the 'allow_partial' parameter (--allow-partial)."
)
UNIT = "arbitrary (runs z-scored)"


def prepare(
    raw_dir: str | Path, output_dir: str | Path, options: ThingsFmriOptions | None = None, **changes: Any
) -> Path:
    """Read a THINGS-fMRI folder, real or simulated, and write a prepared data set.

    Args:
        raw_dir (`str` or `Path`): Folder with `betas_csv` (route `"table"`) or `betas_vol` and `brainmasks` (route
            `"volume"`), or OpenNeuro's copy of the tables.
        output_dir (`str` or `Path`): Folder to make.
        options (`ThingsFmriOptions`, *optional*): What to prepare, and how.
        **changes: Options by name, in place of those of `options`.

    Returns:
        `Path`: The folder. Recordings are float32, as long as the subject's regions, in C order of the volume; places
        in the volume are beside the statistics, the mask is in `masks/<subject>.nii.gz` where the brain mask is there,
        and noise ceilings are in `noise_ceilings.safetensors`.

    Raises:
        DataError: If a file is missing, not downloaded, truncated, of another person or in another order, or
            contradicts another or the published counts.
    """
    options = replace(options or ThingsFmriOptions(), **changes)
    check_output(output_dir, [raw_dir, *options.places], options.overwrite)
    raw_dir = Path(raw_dir)
    simulated = read_stamp(raw_dir)
    facts = corpus_facts(raw_dir, simulated)
    subjects = chosen("subjects", options.subjects, facts.subjects)
    sessions = chosen("sessions", options.sessions, range(1, facts.n_sessions + 1))
    there, lacking = dict.fromkeys(subjects, sessions), list[Path]()
    if options.allow_partial:
        there, lacking = downloaded_sessions(raw_dir, subjects, sessions, facts, options)
    plans = _plans(raw_dir, there, facts, options)
    shown = {trial.image_id: trial for plan in plans for trial in plan.used(plan.sessions)}
    images = _with_paths(raw_dir, options.images_dir, [shown[image_id] for image_id in sorted(shown)])
    voxels: dict[str, np.ndarray] = {}
    for plan in plans:
        voxels |= places_of_voxels(name_of(plan.subject), plan.voxels.mask)
    for sentence in _lacking(plans):
        print(sentence, file=sys.stderr)
    about = _metadata(options, facts, plans, simulated)
    about["known_defects"] += told_lacking(lacking)
    wanted = {f"sessions of {name_of(subject)}": len(sessions) for subject in subjects}
    found = {f"sessions of {name_of(subject)}": len(own) for subject, own in there.items()}
    about["partial"] = check_facts(raw_dir, wanted, found, allow_partial=options.allow_partial)
    return write_prepared(
        output_dir, about, recording_parts(plans, options.session_zscore, average=options.average_repeats),
        image_parts(images, _image_rows, lambda some: [path for _, path in some]), overwrite=options.overwrite,
        extra_files=_extra_files(plans) | listed(raw_dir, lacking), voxels=voxels, num_proc=options.num_proc,
        made_from=raw_dir,
    )  # fmt: skip


def _plans(
    raw_dir: Path, sessions_of: Mapping[int, Sequence[int]], facts: CorpusFacts, options: ThingsFmriOptions
) -> list[SubjectPlan]:
    """What becomes of the trials of each subject; all tables are read and compared."""
    plans: list[SubjectPlan] = []
    for subject, sessions in sessions_of.items():
        read = _table_source if options.route == "table" else _volume_source
        trials, tables, voxels, betas = read(raw_dir, subject, sessions, facts, options)
        splits = _splits(trials, options)
        if plans and {(t.image_id, t.kind) for t in trials} != {(t.image_id, t.kind) for t in plans[0].trials}:
            raise DataError(
                f"'{tables[0]}' and '{plans[0].tables[0]}' show different images; in THINGS-fMRI all people saw the "
                "same. One of them is of another corpus, or was changed."
            )
        plans.append(SubjectPlan(subject, trials, splits, voxels, betas, sessions, tables))
    _check_apart(plans)
    return plans


def _splits(trials: Sequence[Trial], options: ThingsFmriOptions) -> dict[str, str]:
    """Split by image; images that take no part are absent. Validation does not depend on the protocol."""
    tested = {trial.concept for trial in trials if trial.kind == "test"}
    untested = [trial.concept for trial in trials if trial.kind == "train" and trial.concept not in tested]
    held_out = validation_split(untested, options.validation_fraction, options.seed)
    splits = {}
    for trial in trials:
        if trial.kind == "test":
            splits[trial.image_id] = "test"
        elif options.split == "all_concepts" or trial.concept not in tested:
            splits[trial.image_id] = "validation" if trial.concept in held_out else "train"
    return splits


def _table_source(
    raw_dir: Path, subject: int, sessions: Sequence[int], facts: CorpusFacts, options: ThingsFmriOptions
) -> tuple[list[Trial], list[Path], Voxels, TableBetas]:
    """Trials, tables, voxels and betas of the tables of a subject."""
    responses, table = (table_file(raw_dir, subject, kind) for kind in ("responses", "voxels"))
    trials, stimuli = table_trials(raw_dir, subject, facts)
    mask_path = brain_mask_file(raw_dir, subject)
    voxels = read_voxels(table, mask_path, subject, facts, options.roi, options.min_noise_ceiling)
    betas = TableBetas.open(responses, voxels.n_brain, len(trials))
    compared = _compare_ceilings(f"'{responses}', '{stimuli}' and '{table}'", betas, trials, voxels)
    voxels = replace(voxels, compared=compared)
    return trials, [stimuli, table, *([mask_path] if mask_path else [])], voxels, betas


def _compare_ceilings(where: str, betas: TableBetas, trials: Sequence[Trial], voxels: Voxels) -> bool:
    """Compute the noise ceilings of the best voxels anew, which only works with the trials in their order.

    Returns:
        `bool`: Whether they are high enough to tell.
    """
    told = voxels.ceilings
    places: dict[str, list[int]] = {}
    for number, trial in enumerate(trials):
        if trial.kind == "test":
            places.setdefault(trial.image_id, []).append(number)
    order = np.array(list(places.values())).T  # (n_repeats, n_images)
    if told is None or len(order) < 2:
        return False
    n_compared = min(N_COMPARED, -(-told.shape[1] // 2))
    best = np.sort(np.argsort(-np.nan_to_num(told[0]), kind="stable")[:n_compared])
    values = betas.read(voxels.rows[best], 0, betas.n_trials).astype(np.float64)
    return check_against_ceilings(where, values[order], told[0, best])


def _volume_source(
    raw_dir: Path, subject: int, sessions: Sequence[int], facts: CorpusFacts, options: ThingsFmriOptions
) -> tuple[list[Trial], list[Path], Voxels, VolumeBetas]:
    """Trials, tables, voxels and betas of the volumes of a subject."""
    trials, runs, conditions = volume_trials(raw_dir, subject, facts)
    mask_path = brain_mask_file(raw_dir, subject)
    if mask_path is None:
        raise DataError(
            f"'{raw_dir / 'brainmasks'}' has no {name_of(subject)}_space-T1w_brainmask.nii.gz. Volumes need it; it is "
            "at doi.org/10.25452/figshare.plus.20492757."
        )
    table = find_table_file(raw_dir, subject, "voxels")
    table = existing(table, "table of voxels") if table else None
    voxels = read_voxels(table, mask_path, subject, facts, options.roi, options.min_noise_ceiling)
    assert voxels.brain is not None
    betas = VolumeBetas(runs, voxels.brain)
    place = read_affine(mask_path)
    known: dict[bytes, Path] = {}
    for session in sessions:
        for path in betas.files(session):
            check_same_place(existing(path, "file of betas", ADVICE), read_affine(path), mask_path, place)
            digest = hashlib.sha256(read_first(path, voxels.brain.size).tobytes()).digest()
            if (other := known.setdefault(digest, path)) != path:
                raise DataError(f"'{other}' and '{path}' hold the same betas. One of them is of another run.")
    return trials, [*conditions, *([table] if table else []), mask_path], voxels, betas


def _check_apart(plans: Sequence[SubjectPlan]) -> None:
    """Refuse trials of one person under the names of two: no two people saw the images in one order."""
    orders: dict[tuple, SubjectPlan] = {}
    for plan in plans:
        other = orders.setdefault(tuple(trial.image_id for trial in plan.trials), plan)
        if other is not plan:
            raise DataError(
                f"'{other.tables[0]}' and '{plan.tables[0]}' show the images in the same order. Is one of them the "
                "other person's?"
            )


def _with_paths(raw_dir: Path, images_dir: str | Path | None, trials: Sequence[Trial]) -> list[tuple[Trial, Path]]:
    """Files of images: in the folder of their concept, or in the wrong one that was published."""
    base = Path(images_dir) if images_dir else raw_dir / "images"
    folder = base / "object_images" if (base / "object_images").is_dir() else base
    if not folder.is_dir():
        raise DataError(
            f"'{base}' does not exist. Give the folder of the extracted THINGS images (object_images/<concept>/"
            f"<file>.jpg) with --images-dir. {ARCHIVE_ADVICE}"
        )

    def path_of(trial: Trial) -> Path:
        path, other = folder / trial.concept / trial.file, folder / trial.folder / trial.file
        return other if other.exists() and not path.exists() else path

    found = [(trial, path_of(trial)) for trial in trials]
    check_images((path for _, path in found), lambda path: existing(path, "image"))
    return found


def _image_rows(images: Sequence[tuple[Trial, Path]]) -> list[dict]:
    """Rows of images for `write_prepared`."""
    return [
        {"image_id": trial.image_id, "image": path, "concept": trial.concept, "categories": []}
        for trial, path in images
    ]  # fmt: skip


def _extra_files(plans: Sequence[SubjectPlan]) -> dict[str, bytes]:
    """Masks of the voxels, and their noise ceilings."""
    files, ceilings = {}, {}
    for plan in plans:
        name, voxels = name_of(plan.subject), plan.voxels
        if voxels.mask_path is not None:
            files[f"masks/{name}.nii.gz"] = mask_file(voxels.mask_path, voxels.mask)
        for kind, values in zip(CEILINGS, () if voxels.ceilings is None else voxels.ceilings, strict=False):
            ceilings[tensor_name(name, "", kind)] = np.ascontiguousarray(values, dtype=np.float32)
    return files | ({CEILINGS_FILE: save(ceilings)} if ceilings else {})


def _metadata(
    options: ThingsFmriOptions, facts: CorpusFacts, plans: Sequence[SubjectPlan], simulated: dict | None
) -> dict:
    """Facts of `neural_clip.json`, but for counts."""
    zscored, averaged = options.session_zscore == "train_only", options.average_repeats
    scaling, scope = ("z-score", "session") if zscored else ("none", None)
    names = [name_of(plan.subject) for plan in plans]
    return {
        "corpus": "things_fmri", "pretty_name": "THINGS-fMRI prepared for neural_clip", "modality": "fmri",
        "simulated": simulated, "subjects": names, "ch_names": None, "n_chans": None, "n_times": None, "sfreq": None,
        "tmin": None, "unit": "z" if zscored else UNIT, "roi": " ".join(options.roi),
        "n_voxels": {name: len(plan.voxels.rows) for name, plan in zip(names, plans, strict=True)},
        "grid_shapes": {
            name: list(plan.voxels.brain.shape)
            for name, plan in zip(names, plans, strict=True) if plan.voxels.brain is not None
        },
        "voxel_order": "C order of the volume, as in VoxelMetadata.csv",
        "split_unit": "image", "split_protocol": _protocol(options, plans),
        "scaling": {"method": "z-score per voxel and session", "fit_scope": "train"} if zscored
        else {"method": "none", "fit_scope": "none"},
        "preparation": Preparation(unit=UNIT, scaling=scaling, scope=scope).as_dict(),
        "preprocessing": {
            "route": options.route, "roi": list(options.roi), "min_noise_ceiling": options.min_noise_ceiling,
            "split_protocol": options.split, "session_zscore": options.session_zscore, "average_repeats": averaged,
            "sessions": _sessions_used(plans), "validation_fraction": options.validation_fraction,
            "validation_seed": options.seed,
        },
        "average_repeats": averaged, "presentation_order": not averaged, "licence": LICENCE,
        "terms": "Simulated recordings and images; no subject was recorded." if simulated else IMAGE_TERMS,
        "redistribution": "allowed" if simulated else "forbidden", "citation": CITATION,
        "source": SOURCE + (", SIMULATED twin" if simulated else ""),
        "known_defects": KNOWN_DEFECTS + ([] if simulated else REAL_DEFECTS) + _defects(options, plans),
        "declared": {"subjects": [plan.subject for plan in plans], "each subject": declared_trials(facts)},
    }  # fmt: skip


def _sessions_used(plans: Sequence[SubjectPlan]) -> list[int] | dict[str, list[int]]:
    """Sessions that were read: of all, or of each person where they differ."""
    own = {name_of(plan.subject): list(plan.sessions) for plan in plans}
    (first, *others) = own.values()
    return own if any(other != first for other in others) else first


def _protocol(options: ThingsFmriOptions, plans: Sequence[SubjectPlan]) -> str:
    """How images were split, and what was left out."""
    trials = plans[0].trials
    dropped = [trial for trial in trials if trial.image_id not in plans[0].splits]
    concepts = {trial.concept for trial in trials if trial.kind == "train"}
    told = f"test: {len({t.image_id for t in trials if t.kind == 'test'})} images, shown in every session; "
    told += "validation: all images of some concepts that are not tested, the same for all people; "
    if options.split == "all_concepts":
        return f"all_concepts: {told}training images of the tested concepts are kept, so test concepts are not unseen"
    kept = len(concepts) - len({trial.concept for trial in dropped})
    n_train = sum(trial.kind == "train" for trial in trials) - len(dropped)
    return (
        f"zero_shot: {told}no other image is of a tested concept: {len(dropped)} training trials of "
        f"{len(concepts) - kept} concepts of each person are left out, and {n_train} of {kept} concepts are kept"
    )


def _defects(options: ThingsFmriOptions, plans: Sequence[SubjectPlan]) -> list[str]:
    """What a reader must know of the voxels and images of this data set."""
    found = []
    if options.min_noise_ceiling > 0:
        found.append(
            f"Voxels with a noise ceiling below {options.min_noise_ceiling:g} % were left out; it was estimated from "
            "the test trials."
        )
    folders = {trial.image_id: trial.folder for trial in plans[0].trials if trial.folder != trial.concept}
    if folders:
        found.append(
            f"The published folder of {len(folders)} images is wrong, such as {next(iter(folders.values()))!r} of "
            f"{next(iter(folders))!r}; concepts are those of the file names."
        )
    for plan in plans:
        if not plan.voxels.compared:
            found.append(
                f"Whether the betas of {name_of(plan.subject)} are in the order of the tables was not checked: the "
                "noise ceilings of the voxels that were taken are too low to tell."
            )
        if plan.voxels.contradicting:
            found.append(
                f"The two noise ceilings of {plan.voxels.contradicting} voxels of {name_of(plan.subject)} do not "
                "follow from each other."
            )
    return found + _lacking(plans)


def _lacking(plans: Sequence[SubjectPlan]) -> list[str]:
    """A sentence on each person whose table has not all regions of `visual`."""
    return [
        f"The table of voxels of {name_of(plan.subject)} lacks {', '.join(plan.voxels.absent)}, which 'visual' would "
        "have taken too."
        for plan in plans if plan.voxels.absent
    ]  # fmt: skip
