"""Recordings of one's own: `neural-clip prepare custom MANIFEST --output-dir FOLDER`.

A manifest (`custom_manifest.py` documents every key) names files of recordings: `mne.Epochs` with metadata that names
the images, fMRI time series with a mask and a table of onsets, or patterns with an image index; and the images, or
embeddings made elsewhere. The result is a prepared data set like those of the public corpora.

Where only a category is known per trial (`category_level: true`), the target is the mean embedding of the category's
images, runs or recordings are split instead of images, and every output says "category level".
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.corpora.custom_manifest import Manifest, read_manifest
from neural_clip.corpora.custom_recordings import UNITS, Trials, read_trials
from neural_clip.corpora.custom_splits import assign_splits
from neural_clip.corpora.custom_stimuli import Stimuli, read_stimuli
from neural_clip.corpora.prepared import write_prepared
from neural_clip.errors import DataError


def prepare(
    manifest_path: str | Path, output_dir: str | Path, *, raw_dir: str | Path | None = None, overwrite: bool = False
) -> Path:
    """Turn the recordings of a manifest into a prepared data set.

    Args:
        manifest_path (`str` or `Path`): The manifest, a YAML file.
        output_dir (`str` or `Path`): Folder to make.
        raw_dir (`str` or `Path`, *optional*): Where the manifest's relative paths begin; by default its own folder.
        overwrite (`bool`, *optional*, defaults to `False`): Replace an older prepared data set.

    Returns:
        `Path`: The folder.

    Raises:
        DataError: If the manifest, a recording or an image cannot be used; the message names it.
    """
    manifest = read_manifest(manifest_path)
    root = Path(raw_dir) if raw_dir is not None else Path(manifest_path).parent
    stimuli = read_stimuli(manifest, root)
    trials = [read_trials(entry, manifest, root) for entry in manifest.recordings]
    facts = _common_facts(trials, manifest)
    image_ids = [_shown_ids(trial, stimuli, manifest.category_level) for trial in trials]
    splits = assign_splits(manifest.recordings, image_ids, [trial.runs for trial in trials], manifest.splits)
    scaling = _Scaling(trials, splits) if manifest.scaling == "train" else None
    extra_files = {"scaling.npz": _npz(scaling.arrays())} if scaling else {}
    if manifest.embeddings and manifest.embeddings.centre == "train":
        mean = stimuli.centre(_train_images(image_ids, splits))
        extra_files["embedding_mean.npz"] = _npz({"mean": mean})
    return write_prepared(
        output_dir,
        _metadata(manifest, stimuli, facts, scaling),
        _rows(trials, image_ids, splits, manifest.modality, scaling),
        ({"image_id": image_id, **row} for image_id, row in stimuli.rows.items()),
        overwrite=overwrite,
        extra_files=extra_files,
    )


def _shown_ids(trials: Trials, stimuli: Stimuli, category_level: bool) -> list[str]:
    """Image id of each row."""
    file = trials.entry.file
    if category_level:
        return [stimuli.find(f"category:{shown}", f"'{file}', row {i}") for i, shown in enumerate(trials.shown)]
    return [stimuli.find(shown, f"'{file}', row {i}") for i, shown in enumerate(trials.shown)]


def _common_facts(trials: list[Trials], manifest: Manifest) -> dict:
    """Channels, rate and window, which all files must share."""
    first = trials[0]
    for other in trials[1:]:
        for key, value in first.facts.items():
            if other.facts.get(key) != value:
                raise DataError(
                    f"'{other.entry.file}' has {key} {other.facts.get(key)}, but '{first.entry.file}' has {value}. "
                    "Files of one data set must agree, in order as well."
                )
    facts = dict(first.facts)
    if manifest.modality != "fmri":
        facts.setdefault("ch_names", manifest.ch_names)
        for key in ("ch_names", "sfreq", "tmin"):
            stated = getattr(manifest, key)
            if stated is not None and stated != facts[key]:
                raise DataError(f"The manifest says {key} is {stated}, but '{first.entry.file}' has {facts[key]}.")
    return facts


class _Scaling:
    """Mean and deviation of each channel or voxel over the training rows of each subject.

    Files are merged one by one with the update of Chan, Golub & LeVeque 1979 ("Updating formulae and a pairwise
    algorithm for computing sample variances"), which stays exact where the offset is large beside the deviation.
    """

    def __init__(self, trials: list[Trials], splits: list[list[str]]):
        self.moments: dict[str, tuple[int, np.ndarray, np.ndarray]] = {}
        for trial, split in zip(trials, splits, strict=True):
            rows = np.array(split) == "train"
            if rows.any():
                self._add(trial, _finite(trial)[rows].astype(np.float64))

    def _add(self, trial: Trials, values: np.ndarray) -> None:
        axes = (0,) if values.ndim == 2 else (0, 2)
        count, mean = values.size // values.shape[1], values.mean(axis=axes)
        squares = ((values - _column(mean, values)) ** 2).sum(axis=axes)
        old = self.moments.get(trial.entry.subject)
        if old is not None:
            if old[1].shape != mean.shape:
                raise DataError(
                    f"'{trial.entry.file}' has {mean.size} channels or voxels, other files of "
                    f"{trial.entry.subject} have {old[1].size}."
                )
            total, difference = old[0] + count, mean - old[1]
            squares = old[2] + squares + difference**2 * old[0] * count / total
            mean = old[1] + difference * count / total
            count = total
        self.moments[trial.entry.subject] = (count, mean, squares)

    def deviation(self, subject: str) -> np.ndarray:
        """Deviation (ddof 0); 1 where a channel or voxel is constant, which then becomes 0."""
        count, _, squares = self.moments[subject]
        deviation = np.sqrt(squares / count)
        return np.where(deviation > 0, deviation, 1.0)

    def apply(self, trial: Trials, values: np.ndarray) -> np.ndarray:
        """Values as z-scores of the training split."""
        subject = trial.entry.subject
        if subject not in self.moments:
            raise DataError(f"{subject} has no training rows, so 'scaling: train' has nothing to be fitted on.")
        mean, deviation = self.moments[subject][1], self.deviation(subject)
        if mean.size != values.shape[1]:
            raise DataError(
                f"'{trial.entry.file}' has {values.shape[1]} channels or voxels, other files of {subject} "
                f"have {mean.size}."
            )
        return ((values - _column(mean, values)) / _column(deviation, values)).astype(np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """Contents of `scaling.npz`: `<subject>_mean` and `<subject>_std`, in the recordings' own unit."""
        means = {f"{subject}_mean": moments[1] for subject, moments in sorted(self.moments.items())}
        return means | {f"{subject}_std": self.deviation(subject) for subject in sorted(self.moments)}

    def facts(self) -> dict:
        """What the metadata tells of the scaling."""
        constant = {subject: int((moments[2] == 0).sum()) for subject, moments in sorted(self.moments.items())}
        return {
            "method": "z-score of each channel or voxel",
            "fit_scope": "train",
            "file": "scaling.npz",
            "constant": constant,
        }


def _npz(arrays: dict[str, Any]) -> bytes:
    """Bytes of an `.npz` file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _train_images(image_ids: list[list[str]], splits: list[list[str]]) -> set[str]:
    """Images of the training rows."""
    pairs = (pair for ids, rows in zip(image_ids, splits, strict=True) for pair in zip(ids, rows, strict=True))
    return {image_id for image_id, split in pairs if split == "train"}


def _column(vector: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A value per channel or voxel, shaped to be broadcast over `values`."""
    return vector if values.ndim == 2 else vector[:, np.newaxis]


def _finite(trial: Trials) -> np.ndarray:
    """The values of a file, checked."""
    values = trial.load()
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if bad.size:
        raise DataError(
            f"'{trial.entry.file}': {bad.size} rows hold values that are not finite, the first is row {bad[0]}."
        )
    return values


def _rows(
    trials: list[Trials], image_ids: list[list[str]], splits: list[list[str]], modality: str, scaling: _Scaling | None
) -> Iterator[dict]:
    """Rows for `write_prepared`, file by file."""
    from tqdm import tqdm

    for trial, ids, split in zip(tqdm(trials, desc="preparing", unit="file"), image_ids, splits, strict=True):
        values = _finite(trial)
        if scaling is not None:
            values = scaling.apply(trial, values)
        for i, image_id in enumerate(ids):
            yield {
                "subject": trial.entry.subject, "session": trial.entry.session, "run": trial.runs[i],
                "trial": int(trial.numbers[i]), "image_id": image_id, "split": split[i], modality: values[i],
            }  # fmt: skip


def _metadata(manifest: Manifest, stimuli: Stimuli, facts: dict, scaling: _Scaling | None) -> dict:
    """Facts for `neural_clip.json`."""
    preprocessing = dict(manifest.preprocessing)
    defaults = manifest.recordings[0]
    if defaults.kind == "series":
        keys = ("window", "block_step", "detrend", "standardise")
        preprocessing |= {key: getattr(defaults, key) for key in keys}
    if "category_images" in stimuli.facts:
        preprocessing["images per category target"] = stimuli.facts["category_images"]
    unit = manifest.unit or UNITS.get(manifest.modality)
    metadata = {
        "corpus": manifest.name, "modality": manifest.modality, "roi": manifest.roi,
        "unit": unit if scaling is None else f"z ({unit or 'unit not stated'} before scaling)",
        "split_protocol": _protocol(manifest), "split_unit": manifest.splits.by,
        "scaling": {"method": "none", "fit_scope": "none"} if scaling is None else scaling.facts(),
        "preprocessing": preprocessing, "category_level": manifest.category_level,
        "image_encoder": stimuli.facts.get("image_encoder"), "known_defects": list(manifest.known_defects),
    }  # fmt: skip
    stated = {key: getattr(manifest, key) for key in ("licence", "redistribution", "citation", "source")}
    return metadata | facts | stated


def _protocol(manifest: Manifest) -> str:
    """The splits in words."""
    parts = []
    for split in ("test", "validation"):
        value = asdict(manifest.splits)[split]
        if isinstance(value, list):
            parts.append(f"{split}: {len(value)} named {manifest.splits.by}s")
        elif value is not None:
            parts.append(f"{split}: a share of {value}")
    fixed = sum(entry.split is not None for entry in manifest.recordings)
    parts += [f"{fixed} of {len(manifest.recordings)} files have a split of their own"] if fixed else []
    return f"by {manifest.splits.by}, seed {manifest.splits.seed}: {'; '.join(parts) or 'every file as stated'}"


def main(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip prepare custom`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="YAML file that lists recordings, images and splits")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to make")
    parser.add_argument("--raw-dir", type=Path, help="where relative paths begin (default: the manifest's folder)")
    parser.add_argument("--overwrite", action="store_true", help="replace an older prepared data set")
    arguments = parser.parse_args(argv)
    folder = prepare(
        arguments.manifest, arguments.output_dir, raw_dir=arguments.raw_dir, overwrite=arguments.overwrite
    )
    print(f"{folder}: ready for load_dataset")
    return folder
