"""Recordings of one's own: `neural-clip prepare custom MANIFEST --output-dir FOLDER`.

A manifest (`manifest.py` documents every key) names files of recordings: `mne.Epochs` with metadata that names
the images, continuous EEG or MEG with a table of onsets, alone or in a BIDS data set, fMRI time series with a mask and
a table of onsets, or patterns with an image index; and the images, or embeddings made elsewhere. The result is a
prepared data set like those of the public corpora.

Where only a category is known per trial (`category_level: true`), the target is the mean embedding of the category's
images, runs or recordings are split instead of images, and every output says "category level".
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.corpora.custom.manifest import KIND_KEYS, Manifest, read_manifest
from neural_clip.corpora.custom.options import CustomOptions
from neural_clip.corpora.custom.parts import design_hash, images_of, recording_parts
from neural_clip.corpora.custom.places import voxel_places
from neural_clip.corpora.custom.recordings import read_trials
from neural_clip.corpora.custom.scaling import fit_scaling, scaling_facts, statistics_of, unseen_subjects
from neural_clip.corpora.custom.splits import assign_splits, check_splits, shared_windows
from neural_clip.corpora.custom.stimuli import Stimuli, read_stimuli
from neural_clip.corpora.custom.trials import Trials, preparation_of, unit_of
from neural_clip.corpora.declared import check_facts
from neural_clip.errors import DataError
from neural_clip.files.reading import told_where
from neural_clip.files.volumes import read_mask
from neural_clip.preparation import channel_differences, places_of_voxels
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.writer import check_output, write_prepared

# What was done to the recordings, told in the card.
SETTINGS = {
    "series": ("window", "block_step", "detrend", "standardise"),
    "continuous": ("high_pass", "low_pass", "notch", "tmin", "tmax", "baseline", "decimate_to", "resample",
                   "bad_segments"),
}  # fmt: skip
SETTINGS["bids"] = SETTINGS["continuous"]


def prepare(
    manifest_path: str | Path, output_dir: str | Path, options: CustomOptions | None = None, **changes: Any
) -> Path:
    """Turn the recordings of a manifest into a prepared data set.

    Args:
        manifest_path (`str` or `Path`): The manifest, a YAML file.
        output_dir (`str` or `Path`): Folder to make.
        options (`CustomOptions`, *optional*): What to take.
        **changes: Options by name, in place of those of `options`.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If the manifest, a recording or an image cannot be used; the message names it.
    """
    options = replace(options or CustomOptions(), **changes)
    manifest, place = read_manifest(manifest_path), Path(manifest_path)
    root = place.parent if options.raw_dir is None else Path(options.raw_dir)
    with told_where(place, "manifest", [root / name for name in manifest.named_files]):
        return _prepared(manifest, root, place, Path(output_dir), options)


def _prepared(manifest: Manifest, root: Path, manifest_path: Path, output_dir: Path, options: CustomOptions) -> Path:
    """Read and write what was chosen of a manifest."""
    chosen = _of_subjects(manifest, options.subjects, manifest_path)
    check_splits(chosen, str(manifest_path))
    check_output(output_dir, [manifest_path, *(root / name for name in manifest.named_files)], options.overwrite)
    stimuli = read_stimuli(chosen, root)
    trials = [read_trials(entry, chosen, root) for entry in chosen.recordings]
    facts = _common_facts(trials, chosen)
    voxels, places = _voxels(chosen, root), voxel_places(chosen, root, trials)
    image_ids = [_shown_ids(trial, stimuli, chosen.category_level) for trial in trials]
    runs = [trial.runs for trial in trials]
    splits = assign_splits(chosen.recordings, image_ids, runs, chosen.splits, category_level=chosen.category_level)
    partial = check_facts(
        manifest_path, _declared(chosen), _found(trials, image_ids, facts, chosen),
        allow_partial=options.allow_partial,
    )  # fmt: skip
    if len(chosen.recordings) < len(manifest.recordings):
        partial = (partial or {}) | {"subjects": {"found": _subjects(chosen), "declared": _subjects(manifest)}}
    scaling = fit_scaling(trials, splits, unit_of(chosen, trials)) if chosen.scaling == "train" else None
    fits: dict[str, np.ndarray] = {}
    extra_files = {}
    if chosen.embeddings and chosen.embeddings.centre == "train":
        trained = _train_images(image_ids, splits)
        if not trained:
            raise DataError(
                f"'{manifest_path}': 'centre: train' needs training images, but no recording is trained on."
            )
        fits["mean"] = stimuli.centre(trained)
        extra_files["embedding_mean.npz"] = _npz(fits)
    metadata = _metadata(chosen, stimuli, trials) | facts | {"partial": partial, "declared": _declared(chosen) or None}
    metadata["places_space"] = chosen.places.space if chosen.places and places else None
    if scaling:
        metadata["scaling"] = scaling_facts(scaling)
        if unseen := unseen_subjects(trials, splits):
            metadata["scaling"]["fitted_on_own_rows"] = unseen
    if shared := shared_windows(trials, splits):
        metadata["shared_windows"] = shared
        metadata["known_defects"].append(
            f"The windows of {shared['rows']} of {shared['held_out']} test and validation rows overlap windows of "
            "another split in the same recording: they share samples with what was trained on or chosen by."
        )
    for subject, moments in (scaling or {}).items():
        fits |= statistics_of(subject, moments).arrays()
    metadata["design_sha256"] = design_hash(chosen, image_ids, splits, fits)
    return write_prepared(
        output_dir,
        metadata,
        recording_parts(trials, image_ids, splits, chosen, scaling),
        images_of(stimuli.rows),
        overwrite=options.overwrite,
        extra_files=extra_files,
        voxels=voxels,
        places=places,
        num_proc=options.num_proc,
        made_from=manifest_path,
    )


def _voxels(manifest: Manifest, root: Path) -> dict[str, np.ndarray]:
    """Places of the voxels within the masks; a `DataError` if a subject has two masks of other voxels."""
    places: dict[str, np.ndarray] = {}
    masks = {(entry.subject, entry.mask): entry.file for entry in manifest.recordings if entry.mask is not None}
    for (subject, mask), file in masks.items():
        for name, found in places_of_voxels(subject, read_mask(root / str(mask))[0]).items():
            if not np.array_equal(places.setdefault(name, found), found):
                raise DataError(
                    f"'{file}': its mask '{mask}' marks other voxels than an earlier one of {subject}: the same "
                    "column would be another voxel from file to file."
                )
    return places


def _subjects(manifest: Manifest) -> list[str]:
    return sorted({entry.subject for entry in manifest.recordings})


def _of_subjects(manifest: Manifest, subjects: Sequence[str] | None, where: str | Path) -> Manifest:
    """The manifest with the recordings of some subjects."""
    if subjects is None:
        return manifest
    known = _subjects(manifest)
    unknown = [subject for subject in subjects if subject not in known]
    if unknown or not subjects:
        got = repr(unknown[0]) if unknown else "none"
        raise DataError(f"'{where}' has recordings of {', '.join(known)}, but the 'subjects' parameter names {got}.")
    return replace(manifest, recordings=[entry for entry in manifest.recordings if entry.subject in subjects])


def _shown_ids(trials: Trials, stimuli: Stimuli, category_level: bool) -> list[str]:
    """Image id of each row."""
    prefix = "category:" if category_level else ""
    return [
        stimuli.find(f"{prefix}{shown}" if prefix else shown, f"'{trials.name}', row {number}")
        for shown, number in zip(trials.shown, trials.numbers, strict=True)
    ]


def _common_facts(trials: list[Trials], manifest: Manifest) -> dict:
    """Channels, rate and window, which all files must share."""
    first = trials[0]
    for other in trials[1:]:
        for key, value in first.facts.items():
            if (found := other.facts.get(key)) != value:
                differs = f"has {key} {found}, but '{first.name}' has {value}"
                if key == "ch_names" and found and value:
                    differs = f"has other channels than '{first.name}': {channel_differences(found, value)}"
                raise DataError(f"'{other.name}' {differs}. Files of one data set must agree, in order as well.")
    facts = dict(first.facts)
    if not MODALITIES[manifest.modality].sensors:
        return facts
    facts.setdefault("ch_names", manifest.ch_names)
    for key in ("ch_names", "sfreq", "tmin"):
        stated = getattr(manifest, key)
        same = stated == facts[key] if key == "ch_names" else np.isclose(stated or 0, facts[key], rtol=0, atol=1e-6)
        if stated is not None and not same:
            if key == "ch_names" and facts[key]:
                differs = channel_differences(facts[key], stated)
                raise DataError(f"'{first.name}' has other channels than 'ch_names' of the manifest: {differs}.")
            raise DataError(f"The manifest says {key} is {stated}, but '{first.name}' has {facts[key]}.")
    if facts["ch_names"] is not None:
        facts["n_chans"] = len(facts["ch_names"])
    return facts


def _declared(manifest: Manifest) -> dict:
    """Facts that the manifest expects."""
    return {} if manifest.expect is None else {k: v for k, v in asdict(manifest.expect).items() if v is not None}


def _found(trials: list[Trials], image_ids: list[list[str]], facts: dict, manifest: Manifest) -> dict:
    """The same facts as they are; files are loaded only where nothing else tells a fact that is expected."""
    runs = {(t.entry.subject, t.entry.session, run) for t in trials for run in t.runs}
    found = {
        "n_recordings": len(trials), "n_rows": sum(map(len, image_ids)), "n_subjects": len(_subjects(manifest)),
        "n_sessions": len({run[:2] for run in runs}), "n_runs": len(runs),
        "n_images": len({image_id for ids in image_ids for image_id in ids}),
    } | {key: facts.get(key) for key in ("n_chans", "n_times", "sfreq")}  # fmt: skip
    expected = _declared(manifest)
    sensors = MODALITIES[manifest.modality].sensors
    if "n_voxels" in expected and not sensors:
        firsts = {trial.entry.subject: trial for trial in reversed(trials)}
        found["n_voxels"] = {subject: trial.load().shape[1] for subject, trial in sorted(firsts.items())}
    if sensors and any(found[key] is None for key in ("n_chans", "n_times") if key in expected):
        found["n_chans"], found["n_times"] = trials[0].load().shape[1:]
    return found


def _npz(arrays: dict[str, Any]) -> bytes:
    """Bytes of an `.npz` file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _train_images(image_ids: list[list[str]], splits: list[list[str]]) -> set[str]:
    """Images of the training rows."""
    pairs = (pair for ids, rows in zip(image_ids, splits, strict=True) for pair in zip(ids, rows, strict=True))
    return {image_id for image_id, split in pairs if split == "train"}


def _metadata(manifest: Manifest, stimuli: Stimuli, trials: list[Trials]) -> dict:
    """Facts for `neural_clip.json`."""
    preprocessing = dict(manifest.preprocessing) | _settings(manifest)
    if "category_images" in stimuli.facts:
        preprocessing["images per category target"] = stimuli.facts["category_images"]
    if any(trial.dropped for trial in trials):
        preprocessing["events left out, in segments marked bad"] = sum(trial.dropped for trial in trials)
    unit = unit_of(manifest, trials)
    stated = ("roi", "category_level", "licence", "redistribution", "citation", "source", "terms")
    return {
        "corpus": manifest.name, "modality": manifest.modality,
        "unit": unit if manifest.scaling != "train" else f"z ({unit or 'unit not stated'} before scaling)",
        "split_protocol": _protocol(manifest), "split_unit": manifest.splits.by,
        "scaling": {"method": "none" if manifest.scaling == "none" else "before preparation",
                    "fit_scope": manifest.scaling}, "preprocessing": preprocessing,
        "preparation": preparation_of(manifest, trials).as_dict(),
        "block_confounded": manifest.block_design,
        # files of recordings hold trials in order of time, tables of patterns may not
        "presentation_order": all(entry.kind != "patterns" for entry in manifest.recordings),
        "image_encoder": stimuli.facts.get("image_encoder"),
        "targets": {"space": stimuli.space.as_dict()} if stimuli.space else None,
        "known_defects": list(manifest.known_defects),
    } | {key: getattr(manifest, key) for key in stated} | trials[0].places  # fmt: skip


def _settings(manifest: Manifest) -> dict:
    """Settings of the recordings; a list where files differ."""
    settings: dict[str, Any] = {}
    for key in dict.fromkeys(key for entry in manifest.recordings for key in SETTINGS.get(entry.kind, ())):
        values = [getattr(entry, key) for entry in manifest.recordings if key in KIND_KEYS[entry.kind]]
        distinct = [value for i, value in enumerate(values) if value not in values[:i]]
        settings[key] = distinct[0] if len(distinct) == 1 else distinct
    return settings


def _protocol(manifest: Manifest) -> str:
    """The splits in words."""
    parts = []
    for split in ("test", "validation"):
        value = asdict(manifest.splits)[split]
        if isinstance(value, list):
            parts.append(f"{split}: {len(value)} named {manifest.splits.by}s")
        elif value is not None:
            of = " of the other subjects' rows" if (manifest.splits.by, split) == ("subject", "validation") else ""
            parts.append(f"{split}: a share of {value}{of}")
    fixed = sum(entry.split is not None for entry in manifest.recordings)
    parts += [f"{fixed} of {len(manifest.recordings)} files have a split of their own"] if fixed else []
    return f"by {manifest.splits.by}, seed {manifest.splits.seed}: {'; '.join(parts) or 'every file as stated'}"
