"""Files of the ImageNetEEG release: reading them without running what they may carry, and checking what they say."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.errors import DataError

if TYPE_CHECKING:
    import torch

__all__ = [
    "FACTS", "SPLITS_FILE", "SYNSETS", "Trials", "check_counts", "find_recordings", "find_splits", "read_recordings",
    "read_splits",
]  # fmt: skip

SPLITS_FILE = "block_splits_by_image_all.pth"
FACTS = {"trials": 11965, "images": 1996, "classes": 40, "subjects": 6, "n_chans": 128}
"""Counts of the complete corpus, read from the released files."""
SYNSETS = {
    "n02106662": "German shepherd", "n02124075": "Egyptian cat", "n02281787": "lycaenid", "n02389026": "sorrel",
    "n02492035": "capuchin", "n02504458": "African elephant", "n02510455": "giant panda", "n02607072": "anemone fish",
    "n02690373": "airliner", "n02906734": "broom", "n02951358": "canoe", "n02992529": "cellular telephone",
    "n03063599": "coffee mug", "n03100240": "convertible", "n03180011": "desktop computer",
    "n03197337": "digital watch", "n03272010": "electric guitar", "n03272562": "electric locomotive",
    "n03297495": "espresso maker", "n03376595": "folding chair", "n03445777": "golf ball", "n03452741": "grand piano",
    "n03584829": "iron", "n03590841": "jack-o'-lantern", "n03709823": "mailbag", "n03773504": "missile",
    "n03775071": "mitten", "n03792782": "mountain bike", "n03792972": "mountain tent", "n03877472": "pajama",
    "n03888257": "parachute", "n03982430": "pool table", "n04044716": "radio telescope", "n04069434": "reflex camera",
    "n04086273": "revolver", "n04120489": "running shoe", "n07753592": "banana", "n07873807": "pizza",
    "n11939491": "daisy", "n13054560": "bolete",
}  # fmt: skip
"""The 40 ImageNet classes of the corpus and their names."""
_FIELDS = ("eeg", "image", "label", "subject")
_SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Trials:
    """All trials of a file, in its order.

    Args:
        path (`Path`): The file.
        eeg (`list[torch.Tensor]`): One tensor of shape `(n_chans, length)` a trial.
        image, label, subject (`numpy.ndarray` of shape `(n_trials,)`): Index into `images`, index into `labels`, and
            number from 1 to 6.
        labels (`list[str]`): Synsets.
        images (`list[str]`): Image names without extension, `<synset>_<number>`.
    """

    path: Path
    eeg: list[torch.Tensor]
    image: np.ndarray
    label: np.ndarray
    subject: np.ndarray
    labels: list[str]
    images: list[str]

    @property
    def n_chans(self) -> int:
        """Number of channels."""
        return int(self.eeg[0].shape[0])

    @cached_property
    def length(self) -> np.ndarray:
        """Samples of every trial, int array of shape `(n_trials,)`."""
        return np.array([eeg.shape[1] for eeg in self.eeg])


def _places(raw_dir: Path, name: str) -> list[Path]:
    """Where a file of the release may lie: the folder itself, or the folders of the released archive."""
    return [folder / name for folder in (raw_dir, raw_dir / "block", raw_dir / "data" / "block")]


def find_recordings(raw_dir: Path, name: str) -> Path:
    """Path of the file with the recordings."""
    for path in _places(raw_dir, name):
        if path.is_file():
            return path
    other = sorted(file.name for file in raw_dir.glob("EEG-ImageNet*.pth"))
    if other:
        raise DataError(
            f"'{raw_dir / other[0]}' belongs to EEG-ImageNet (16 subjects, Tsinghua University), a different corpus. "
            f"ImageNetEEG has a file '{name}'."
        )
    present = ", ".join(sorted(file.name for file in raw_dir.glob("*.pth"))) or "no .pth file"
    raise DataError(
        f"'{name}' was not found in '{raw_dir}' (there: {present}). Request it from the authors: "
        "https://github.com/perceivelab/eeg_visual_classification"
    )


def find_splits(raw_dir: Path, splits_file: str | Path | None) -> Path:
    """Path of the file with the splits; the one of a single subject is refused."""
    path = Path(splits_file) if splits_file else None
    if path is None:
        path = next((place for place in _places(raw_dir, SPLITS_FILE) if place.is_file()), None)
        if path is None:
            raise DataError(f"'{SPLITS_FILE}' was not found in '{raw_dir}'; it is part of the release.")
    if "single" in path.name:
        raise DataError(
            f"'{path}' covers the first 1,000 trials only, half of one subject, for reasons nobody could tell. "
            f"Use '{SPLITS_FILE}' and select subjects with the 'subjects' parameter."
        )
    return path


def _load_pth(path: Path) -> dict:
    """Load a file that may hold tensors, numbers, strings, lists and dicts and nothing that runs code.

    Files in the zip format are mapped, so the full corpus (3 GB) needs no such memory; those of older torch are read.
    """
    import pickle
    import zipfile

    import torch

    if not path.is_file():
        raise DataError(f"File '{path}' does not exist.")
    try:
        with torch.serialization.safe_globals(_numpy_values()):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise DataError(
            f"'{path}' is damaged or holds more than tensors and plain values"
            f"{f', namely {found[1]},' if found else ','} and was not loaded, because that could run code."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"'{path}' cannot be read; the copy may be incomplete: {reason}") from error
    if not isinstance(content, dict):
        raise DataError(f"'{path}' should hold a dict, but holds a {type(content).__name__}.")
    return content


def _numpy_values() -> list:
    """What torch must be told is harmless, so that files with NumPy numbers and arrays among the tensors load too."""
    from numpy._core.multiarray import _reconstruct, scalar

    functions = [_reconstruct, scalar]
    old_names = [(function, f"numpy.core.multiarray.{function.__name__}") for function in functions]
    types = [type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64", "uint8")]
    return [*functions, *old_names, np.ndarray, np.dtype, *types]


def read_recordings(path: Path) -> Trials:
    """Read and check a file with recordings; those in the zip format stay on disk until they are used.

    Raises:
        DataError: If it is damaged, another corpus, or contradicts itself.
    """
    import torch

    content = _load_pth(path)
    absent = [key for key in ("dataset", "labels", "images") if key not in content]
    if absent:
        raise DataError(f"'{path}' has no entry '{absent[0]}'; is it a file of ImageNetEEG? It has {sorted(content)}.")
    trials = content["dataset"]
    if not trials:
        raise DataError(f"'{path}' holds no trials.")
    for i, trial in enumerate(trials):
        if not isinstance(trial, dict) or set(_FIELDS) - set(trial) or not isinstance(trial["eeg"], torch.Tensor):
            found = sorted(trial) if isinstance(trial, dict) else type(trial).__name__
            raise DataError(
                f"Trial {i} of '{path}' should be a dict with {', '.join(_FIELDS)}, eeg a tensor, but has {found}. "
                "EEG-ImageNet (Tsinghua University) is a different corpus."
            )
    data = Trials(
        path,
        [trial["eeg"] for trial in trials],
        **{name: np.array([int(trial[name]) for trial in trials]) for name in _FIELDS[1:]},
        labels=[str(name) for name in content["labels"]],
        images=[str(name) for name in content["images"]],
    )
    _check_shapes(path, data)
    _check_indices(path, data)
    return data


def _check_shapes(path: Path, data: Trials) -> None:
    """Require (n_chans, length) with one n_chans; 1-D or ragged channels cannot be stacked."""
    wrong = next((i for i, eeg in enumerate(data.eeg) if eeg.ndim != 2), None)
    if wrong is not None:
        raise DataError(f"Trial {wrong} of '{path}' should be 2-D, but has shape {tuple(data.eeg[wrong].shape)}.")
    counts = Counter(eeg.shape[0] for eeg in data.eeg)
    n_chans = counts.most_common(1)[0][0]
    wrong = next((i for i, eeg in enumerate(data.eeg) if eeg.shape[0] != n_chans), None)
    if wrong is not None:
        raise DataError(f"Trial {wrong} of '{path}' has {data.eeg[wrong].shape[0]} channels, the others {n_chans}.")


def _check_indices(path: Path, data: Trials) -> None:
    """Require that image, label and subject of every trial agree with each other."""
    for name, low, high in (("image", 0, len(data.images) - 1), ("label", 0, len(data.labels) - 1)):
        bad = np.flatnonzero((getattr(data, name) < low) | (getattr(data, name) > high))
        if bad.size:
            value = getattr(data, name)[bad[0]]
            raise DataError(f"Trial {bad[0]} of '{path}' has {name} {value}; allowed values are {low} to {high}.")
    bad = np.flatnonzero((data.subject < 1) | (data.subject > FACTS["subjects"]))
    if bad.size:
        found = data.subject[bad[0]]
        raise DataError(
            f"Trial {bad[0]} of '{path}' has subject {found}; allowed values are 1 to {FACTS['subjects']}."
        )
    synset = [name.rsplit("_", 1)[0] for name in data.images]
    for i, (image, label) in enumerate(zip(data.image, data.label, strict=True)):
        if synset[image] != data.labels[label]:
            raise DataError(
                f"Trial {i} of '{path}' shows image '{data.images[image]}', but its label says '{data.labels[label]}'."
            )
    repeated = [pair for pair, n in Counter(zip(data.subject, data.image, strict=True)).items() if n > 1]
    if repeated:
        subject, image = repeated[0]
        raise DataError(
            f"'{path}' shows image '{data.images[image]}' to subject {subject} more than once; in ImageNetEEG each "
            "subject sees each image once. Were subjects mixed up?"
        )


def check_counts(data: Trials, facts: dict | None, official: bool) -> list[str]:
    """Compare the counts with the published (or the simulated corpus' own) ones; return what to tell about defects."""
    found = {
        "trials": len(data.eeg), "images": len(data.images), "classes": len(data.labels),
        "subjects": len(set(data.subject.tolist())), "n_chans": data.n_chans,
    }  # fmt: skip
    for name, value in found.items():
        if facts is not None and value != facts[name]:
            raise DataError(
                f"'{data.path}' has {value} {name}, but the corpus has {facts[name]}. "
                "If you want to use a part of it, say so: allow_partial (--allow-partial)."
            )
    unknown = sorted(set(data.labels) - set(SYNSETS))
    if unknown:
        raise DataError(f"'{data.path}' has class '{unknown[0]}', which is none of the 40 classes of ImageNetEEG.")
    if facts is None:
        return ["part of the corpus: " + ", ".join(f"{value} {name}" for name, value in found.items())]
    return ["11 of 11,976 trials are missing; the upstream README tells 11,964 trials"] if official else []


def read_splits(path: Path, data: Trials, allow_partial: bool) -> dict[int, str]:
    """Split name of every trial, from split 0; image-disjoint and complete or refused."""
    content = _load_pth(path)
    try:
        parts = {ours: [int(i) for i in content["splits"][0][theirs]] for theirs, ours in _SPLIT_NAMES.items()}
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(f"'{path}' should hold 'splits', a list of dicts with train, val and test.") from error
    n_trials = len(data.eeg)
    split_of: dict[int, str] = {}
    for name, indices in parts.items():
        for i in indices:
            if not 0 <= i < n_trials:
                raise DataError(f"'{path}' names trial {i}, but '{data.path}' has trials 0 to {n_trials - 1}.")
            if i in split_of:
                raise DataError(f"'{path}' has trial {i} in '{split_of[i]}' and again in '{name}'.")
            split_of[i] = name
    if len(split_of) != n_trials and not allow_partial:
        raise DataError(
            f"Split 0 of '{path}' covers {len(split_of)} of the {n_trials} trials of '{data.path}'; it belongs to "
            "another file or another release."
        )
    split_of_image: dict[int, str] = {}
    for i, name in split_of.items():
        image = int(data.image[i])
        if split_of_image.setdefault(image, name) != name:
            raise DataError(
                f"Split 0 of '{path}' has image '{data.images[image]}' in both '{split_of_image[image]}' and "
                f"'{name}'; images must not cross splits."
            )
    return split_of
