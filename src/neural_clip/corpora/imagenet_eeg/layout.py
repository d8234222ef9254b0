"""Files of the ImageNetEEG release: reading them without running what they may carry, and checking what they say.

What damage can be seen depends on the format. Files of torch 1.6 and later are zip files, whose checksums are
compared before anything is used: a flipped bit anywhere ends in an error or changes nothing. Older files have no
checksums: what does not parse, or contradicts the rest or the declared facts, is refused, but a flipped bit within a
sample passes unless the sample is no longer finite, and so may one in the number of an image name if the other image
exists. Tables can only be held against each other, the splits and the declared facts. That two whole subjects were
exchanged (but for subject 4, who comes first), or images of one class and one split within a subject, is told by
nothing in the release.
"""

from __future__ import annotations

import operator
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.corpora.imagenet_eeg.images import IMAGE_NAME
from neural_clip.corpora.imagenet_eeg.options import SPLITS_FILE
from neural_clip.corpora.stamp import STAMP_FILE, stamped
from neural_clip.errors import DataError
from neural_clip.files.reading import begins_like, check_unpacked, existing, head_of

if TYPE_CHECKING:
    import torch


FACTS = {
    "trials": 11965, "images": 1996, "classes": 40, "subjects": 6, "n_chans": 128,
    # trials lie grouped by subject, so a subject number that was changed here and there interrupts a group
    "groups_of_subjects": 6, "first_trial": "image 0, label 10, subject 4",
}  # fmt: skip
"""What the complete corpus holds, read from the released files."""
SPLIT_FACTS = {"train_trials": 7970, "validation_trials": 1998, "test_trials": 1997}
"""Trials in the parts of split 0 of `SPLITS_FILE`."""
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
ZIP = b"PK\x03\x04"  # what torch takes for a file in the zip format begins like this
_FIELDS = ("eeg", "image", "label", "subject")
_SYNSET = re.compile(r"n[0-9]{8}")
_EXAMPLES = {"labels": "'n02951358'", "images": "'n02951358_31190'"}
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
        means, stddevs (*optional*): What the raw file holds under these names, unchecked; see `released_scale`.
    """

    path: Path
    eeg: list[torch.Tensor]
    image: np.ndarray
    label: np.ndarray
    subject: np.ndarray
    labels: list[str]
    images: list[str]
    means: Any = None
    stddevs: Any = None

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

    import torch

    head = head_of(existing(path, "file of torch"))
    is_zip = head.startswith(ZIP)
    if not is_zip and not head.startswith(b"\x80"):
        raise DataError(f"'{path}' is no file of torch, or is damaged: {begins_like(head)}.")
    if is_zip:
        _verify_checksums(path)
    try:
        with torch.serialization.safe_globals(_numpy_values()):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise DataError(
            f"'{path}' is damaged or holds more than tensors and plain values"
            f"{f', namely {found[1]},' if found else ','} and was not loaded, because that could run code."
        ) from error
    except Exception as error:  # on a damaged file torch raises nearly anything, AssertionError included
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"'{path}' cannot be read; the copy may be incomplete or damaged: {reason}") from error
    if not isinstance(content, dict):
        raise DataError(f"'{path}' should hold a dict, but holds a {type(content).__name__}.")
    return content


def _verify_checksums(path: Path) -> None:
    """Compare the contents of a file in the zip format with its CRC-32, at which torch does not look when it maps."""
    try:
        with zipfile.ZipFile(path) as file:
            check_unpacked(path, sum(info.file_size for info in file.infolist()))
            damaged = file.testzip()
    except DataError:
        raise
    except Exception as error:  # damaged directories make zipfile raise many types
        raise DataError(f"'{path}' cannot be read; the copy may be incomplete or damaged: {error}") from error
    if damaged is not None:
        raise DataError(f"'{path}' is damaged: the checksum of '{damaged}' in it differs. Get the file again.")


def _numpy_values() -> list:
    """What torch must be told is harmless, so that files with NumPy numbers and arrays among the tensors load too."""
    from numpy._core.multiarray import _reconstruct, scalar

    functions = [_reconstruct, scalar]
    old_names = [(function, f"numpy.core.multiarray.{function.__name__}") for function in functions]
    types = [type(np.dtype(name)) for name in ("float32", "float64", "int32", "int64", "uint8")]
    return [*functions, *old_names, np.ndarray, np.dtype, *types]


def read_recordings(path: Path) -> Trials:
    """Read and check a file with recordings; those in the zip format stay on disk until they are used.

    Args:
        path (`Path`): The `.pth` file; the checksums of one in the zip format are compared, which reads all of it.

    Raises:
        DataError: If it is damaged, another corpus, or contradicts itself.
    """
    content = _load_pth(path)
    absent = [key for key in ("dataset", "labels", "images") if key not in content]
    if absent:
        raise DataError(
            f"'{path}' has no entry '{absent[0]}'; is it a file of ImageNetEEG? It has "
            f"{sorted(key for key in content if isinstance(key, str))}."
        )
    trials = content["dataset"]
    if not isinstance(trials, list) or not trials:
        raise DataError(f"'{path}' holds no trials.")
    numbers = np.array([_numbers(path, i, trial) for i, trial in enumerate(trials)], dtype=np.int64)
    data = Trials(
        path,
        [trial["eeg"].detach() for trial in trials],
        **dict(zip(_FIELDS[1:], numbers.T, strict=True)),
        labels=_checked_names(path, "labels", content["labels"]),
        images=_checked_names(path, "images", content["images"]),
        means=content.get("means"),
        stddevs=content.get("stddevs"),
    )
    _check_shapes(path, data)
    _check_indices(path, data)
    if not head_of(path).startswith(ZIP):
        _check_layout(path, data)
    return data


def opened_recordings(path: Path) -> Trials:
    """The trials of a file, kept for the next call on the unchanged file until `forget_recordings`.

    Opening takes seconds for the many tensors of the full corpus, and the whole file for one of old torch.
    """
    stat = path.stat()
    return _opened(path, stat.st_size, stat.st_mtime_ns)


def forget_recordings() -> None:
    """Let go of what `opened_recordings` keeps."""
    _opened.cache_clear()


@lru_cache(maxsize=1)
def _opened(path: Path, size: int, mtime_ns: int) -> Trials:
    """The trials of a file of this size and time."""
    return read_recordings(path)


def _numbers(path: Path, i: int, trial: object) -> tuple[int, int, int]:
    """Image, label and subject of a trial."""
    import torch

    if not isinstance(trial, dict) or set(_FIELDS) - set(trial) or not isinstance(trial["eeg"], torch.Tensor):
        found = [str(key) for key in trial] if isinstance(trial, dict) else type(trial).__name__
        raise DataError(
            f"Trial {i} of '{path}' should be a dict with {', '.join(_FIELDS)}, eeg a tensor, but has {found}. "
            "EEG-ImageNet (Tsinghua University) is a different corpus."
        )
    try:
        image, label, subject = (operator.index(trial[name]) for name in _FIELDS[1:])
    except TypeError as error:
        raise DataError(f"Trial {i} of '{path}' should have whole numbers as image, label and subject.") from error
    # numbers beyond 32 bits would not fit an array, and are out of any range here
    return tuple(min(max(number, -1), 2**31) for number in (image, label, subject))  # type: ignore[return-value]


def _checked_names(path: Path, key: str, names: object) -> list[str]:
    """Synsets, or image names of ImageNet: they become parts of paths, so nothing else may stand there."""
    pattern = IMAGE_NAME if key == "images" else _SYNSET
    if not isinstance(names, list | tuple):
        raise DataError(f"'{path}' should have a list of names under '{key}', but has a {type(names).__name__}.")
    for name in names:
        if not isinstance(name, str) or not pattern.fullmatch(name):
            raise DataError(f"'{path}' has {name!r} under '{key}'; allowed are names like {_EXAMPLES[key]}.")
    repeated = [name for name, n in Counter(names).items() if n > 1]
    if repeated:
        raise DataError(f"'{path}' lists '{repeated[0]}' more than once under '{key}'.")
    unknown = sorted({name.rsplit("_", 1)[0] for name in names} - set(SYNSETS))
    if unknown:
        raise DataError(f"'{path}' has class '{unknown[0]}', which is none of the 40 classes of ImageNetEEG.")
    return list(names)


def _check_shapes(path: Path, data: Trials) -> None:
    """Require (n_chans, length) with one n_chans and real numbers; 1-D or ragged channels cannot be stacked."""
    import torch

    for i, eeg in enumerate(data.eeg):
        if eeg.ndim != 2 or eeg.dtype not in (torch.float32, torch.float64) or eeg.layout != torch.strided:
            raise DataError(
                f"Trial {i} of '{path}' should be 2-D, float32 or float64, but is {eeg.dtype} of shape "
                f"{tuple(eeg.shape)}."
            )
        if eeg.nbytes > eeg.untyped_storage().nbytes():
            raise DataError(f"Trial {i} of '{path}' has shape {tuple(eeg.shape)}, but fewer values are stored.")
    counts = Counter(eeg.shape[0] for eeg in data.eeg)
    n_chans = counts.most_common(1)[0][0]
    wrong = next((i for i, eeg in enumerate(data.eeg) if eeg.shape[0] != n_chans), None)
    if wrong is not None:
        raise DataError(f"Trial {wrong} of '{path}' has {data.eeg[wrong].shape[0]} channels, the others {n_chans}.")


def _check_layout(path: Path, data: Trials) -> None:
    """Require that trials lie in memory alike; without checksums a damaged size or stride would shear one."""
    fills = [eeg.is_contiguous() and eeg.nbytes == eeg.untyped_storage().nbytes() for eeg in data.eeg]
    if any(fills) and not all(fills):
        odd = fills.index(sum(fills) * 2 < len(fills))
        raise DataError(f"'{path}' is damaged: trial {odd} does not fill its memory as other trials do.")


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


def declared_facts(raw_dir: Path, stamp: Mapping | None) -> dict:
    """What a corpus must hold: the published facts, or the counts that a simulated one tells of itself.

    Raises:
        DataError: If the stamp of a simulated corpus lacks the counts.
    """
    if stamp is None:
        return dict(FACTS)
    counts = stamped(raw_dir, stamp, "counts", dict)
    facts = {name: counts[name] for name in FACTS if name in counts}
    return facts | {"groups_of_subjects": counts.get("subjects")}


def readable_names(data: Trials, raw_dir: Path, stamp: Mapping | None) -> dict[str, str]:
    """Names of the classes by synset: ImageNet's, or what a simulated corpus shows in their place.

    Raises:
        DataError: If the stamp of a simulated corpus does not name all classes.
    """
    if stamp is None:
        return SYNSETS
    names = stamped(raw_dir, stamp, "category_names", dict)
    if set(data.labels) - set(names):
        raise DataError(f"'{raw_dir / STAMP_FILE}' is damaged: 'category_names' lacks classes of '{data.path}'.")
    return names


def found_facts(data: Trials) -> dict:
    """The facts of `FACTS`, as a file has them."""
    return {
        "trials": len(data.eeg), "images": len(data.images), "classes": len(data.labels),
        "subjects": len(set(data.subject.tolist())), "n_chans": data.n_chans,
        "groups_of_subjects": 1 + int(np.count_nonzero(np.diff(data.subject))),
        "first_trial": f"image {data.image[0]}, label {data.label[0]}, subject {data.subject[0]}",
    }  # fmt: skip


def read_splits(path: Path, data: Trials, allow_partial: bool) -> dict[int, str]:
    """Split name of every trial, from split 0; image-disjoint and complete or refused."""
    content = _load_pth(path)
    try:
        first = content["splits"][0]
        parts = {ours: [operator.index(i) for i in first[theirs]] for theirs, ours in _SPLIT_NAMES.items()}
    except (KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"'{path}' should hold 'splits', a list of dicts with train, val and test, lists of trial numbers."
        ) from error
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


def split_sizes(split_of: Mapping[int, str]) -> dict:
    """The facts of `SPLIT_FACTS`, as a file has them."""
    counts = Counter(split_of.values())
    return {f"{name}_trials": counts[name] for name in _SPLIT_NAMES.values()}
