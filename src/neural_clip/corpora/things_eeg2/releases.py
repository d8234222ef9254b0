"""What others preprocessed of THINGS-EEG2: four releases, each in containers of its own.

`official`: `preprocessed_eeg_{training,test}.npy`, a `.npy` file of a pickled dict; float64 of 17 channels, 100 Hz.
`nice`, which ATM publishes too: a pickle by itself under the same name; float64 of 63 channels, 250 Hz.
`ubp`: `train.pt` and `test.pt`, files of torch with arrays of NumPy in them; float16 of 63 channels, 250 Hz.
`neurobridge`: `train.npy` and `test.npy`, arrays or pickles by themselves; float32 of 63 channels, 250 Hz.

Arrays are mapped, so that one image after the other is read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.corpora.things_eeg2.facts import ALL_CHANNELS, PARTS, POSTERIOR, CorpusFacts, check_channels
from neural_clip.corpora.things_eeg2.stimuli import Image
from neural_clip.errors import DataError
from neural_clip.files.arrays import read_array
from neural_clip.files.pickled import NPY, PICKLE, ZIP, read_pickled
from neural_clip.files.reading import existing, head_of, read_json
from neural_clip.prepared.units import check_unit

SURPLUS_TIMES = 50  # times before onset that are told of the releases at 250 Hz, but not kept of the values
INFO = "info.json"  # of NeuroBridge, for all subjects
UNIT_CHECKED = 20  # images of each file, for their unit
WHITENED = "multivariate noise normalisation of each session by its {}, before the release"


@dataclass(frozen=True)
class Release:
    """What others preprocessed.

    Args:
        title (`str`): Its name.
        files (`dict[str, str]`): Name of the file of each part.
        containers (`tuple[bytes, ...]`): What files may begin with.
        places (`tuple[str, ...]`): Where the subjects' folders may lie in the raw folder.
        kind (`str`): Type of the values.
        ch_names (`list[str]`), tmin, sfreq (`float`), n_times (`int`): Of the values.
        fit_scope, scaling (`str`): For the metadata: what the values were scaled by.
        source (`str`): Where it is published.
        key (`str`): Entry of the values.
        by_concept (`bool`): Whether images are in two dimensions, by concept.
    """

    title: str
    files: dict[str, str]
    containers: tuple[bytes, ...]
    places: tuple[str, ...]
    kind: str
    ch_names: list[str]
    tmin: float
    sfreq: float
    n_times: int
    fit_scope: str
    scaling: str
    source: str
    key: str = "preprocessed_eeg_data"
    by_concept: bool = False

    def shape(self, part: str, facts: CorpusFacts) -> tuple[int, ...]:
        """Of the values of a part."""
        n_images, n_exemplars = facts.n_images(part), facts.n_exemplars(part)
        images = (n_images // n_exemplars, n_exemplars) if self.by_concept else (n_images,)
        return (*images, facts.all_repeats(part), len(self.ch_names), self.n_times)


NAMES = {"training": "preprocessed_eeg_training.npy", "test": "preprocessed_eeg_test.npy"}
RELEASES = {
    "official": Release(
        "official", NAMES, (NPY,), ("", "preprocessed_data", "Preprocessed_data", "derivatives/preprocessed_eeg"),
        "float64", POSTERIOR, -0.2, 100.0, 100, "train and test", WHITENED.format("training and test epochs"),
        "osf.io/3jk45",
    ),
    "nice": Release(
        "NICE and ATM", NAMES, (PICKLE,), ("", "Preprocessed_data_250Hz", "Preprocessed_data"), "float64",
        ALL_CHANNELS, 0.0, 250.0, 250, "unknown",
        WHITENED.format("training epochs, or by training and test epochs: versions of the script differ"),
        "huggingface.co/datasets/LidongYang/EEG_Image_decode and github.com/eeyhsong/NICE-EEG",
    ),
    "ubp": Release(
        "UBP", {"training": "train.pt", "test": "test.pt"}, (ZIP,), ("", "Preprocessed_data_250Hz_whiten"), "float16",
        ALL_CHANNELS, 0.0, 250.0, 250, "train", WHITENED.format("training epochs"),
        "huggingface.co/datasets/Haitao999/things-eeg", key="eeg",
    ),
    "neurobridge": Release(
        "NeuroBridge", {"training": "train.npy", "test": "test.npy"}, (NPY, PICKLE), ("", "preprocessed_eeg"),
        "float32", ALL_CHANNELS, 0.0, 250.0, 250, "train",
        "multivariate noise normalisation or z-score of each session by its training epochs, before the release",
        "huggingface.co/datasets/Feronl/NeuroBridge", key="data", by_concept=True,
    ),
}  # fmt: skip
ROUTE_OF = {NPY: "official", PICKLE: "nice"}  # of files of the same name, by what they begin with


@dataclass(frozen=True)
class ReleaseFile:
    """A file of a release; it is opened where it is read.

    Args:
        path (`Path`): The file.
        subject (`int`): Number.
        part (`str`): `"training"` or `"test"`.
        files (`tuple[Path, ...]`): All files that were read.
        mark (`str`): Digest of the values of the first image, which no two files have in common.
    """

    path: Path
    subject: int
    part: str
    files: tuple[Path, ...]
    mark: str


def find_release(
    raw_dir: Path, route: str, subject: int, part: str, facts: CorpusFacts, images: Sequence[Image]
) -> ReleaseFile:
    """Find and check a file.

    Raises:
        DataError: If it is missing, damaged, of another release, of the other part, or has other channels, times or
            images than it should have.
    """
    release, folder = RELEASES[route], f"sub-{subject:02d}"
    places = [raw_dir / place / folder for place in release.places]
    paths = [place / release.files[part] for place in places]
    path = existing(
        next((path for path in paths if path.is_file() and head_of(path).startswith(release.containers)), None)
        or next((path for path in paths if path.is_file() or path.is_symlink()), paths[0]),
        "preprocessed file",
        f" {release.title} publishes it at {release.source}; choose who is there by the 'subjects' parameter.",
    )
    values, sessions, shown, info = opened_release(path, route, part, facts)
    if shown is not None:
        _check_shown(path, shown, images)
    if sessions is not None:
        _check_sessions(path, part, sessions, facts)
    some = np.asarray(values[:: max(len(values) // UNIT_CHECKED, 1), 0], dtype=np.float64)
    if np.isfinite(some).all():  # others are named with their image, when rows are made
        check_unit(some, "z", f"'{path}'", release.ch_names, " Get the file again.")
    mark = hashlib.sha256(np.ascontiguousarray(values[0, 0]).tobytes()).hexdigest()
    return ReleaseFile(path, subject, part, (path, *info), mark)


@lru_cache(maxsize=2)
def opened_release(path: Path, route: str, part: str, facts: CorpusFacts) -> tuple[np.ndarray, Any, Any, list[Path]]:
    """Values of a file `(n_images, n_repeats, n_chans, n_times)`, mapped, and where the release tells them sessions
    (from 0) and names of images, both `(n_images, n_repeats)`; and the further files that were read.

    Raises:
        DataError: If it is damaged, of another release, of the other part, or has other channels or times.
    """
    release, head = RELEASES[route], head_of(path)
    begin = next((known for known in (NPY, ZIP, PICKLE) if head.startswith(known)), b"")
    if begin not in release.containers:
        other = ROUTE_OF.get(begin) if release.files == NAMES else None
        told = f"It is of the release {other!r}: read it by --route {other}." if other else "Is it another release?"
        raise DataError(f"'{path}' is no file as {release.title} publishes them. {told}")
    info: list[Path] = []
    if route == "neurobridge" and begin == NPY:
        info = [next((place for place in _info_places(path) if place.is_file()), path.parent / INFO)]
        told = read_json(info[0], "description of the preprocessed files", f" {INFO} is a part of NeuroBridge.")
        content: dict = (told if isinstance(told, dict) else {}) | {release.key: read_array(path, mapped=True)}
    else:
        content = read_pickled(path)
    absent = [name for name in (release.key, "ch_names", "times") if name not in content]
    if absent:
        raise DataError(f"'{path}' has no entry {absent[0]!r} of {release.title}; it has {sorted(content)}.")
    values = _checked_values(path, content[release.key], release, part, facts)
    names = content["ch_names"]
    check_channels(path, names if isinstance(names, list) else np.ravel(names).tolist(), release.ch_names)
    _check_times(path, content["times"], release)
    tables = [_table(path, content, name, values.shape[:2]) if route == "ubp" else None for name in ("session", "img")]
    return values, tables[0], tables[1], info


def forget_releases() -> None:
    """Let go of what was opened."""
    opened_release.cache_clear()


def _info_places(path: Path) -> list[Path]:
    return [path.parent.parent / INFO, path.parent / INFO]


def _checked_values(path: Path, values: object, release: Release, part: str, facts: CorpusFacts) -> np.ndarray:
    """Values `(n_images, n_repeats, n_chans, n_times)`, of the type and number that the release has."""
    if not isinstance(values, np.ndarray) or values.dtype != release.kind:
        found = getattr(values, "dtype", type(values).__name__)
        raise DataError(f"'{path}' holds values of type {found}; those of {release.title} are {release.kind}.")
    expected, other = release.shape(part, facts), PARTS[part == "training"]
    if values.shape != expected:
        is_other = values.shape == release.shape(other, facts)
        swapped = f" It is that of the {other} file: were the two swapped?" if is_other else ""
        raise DataError(
            f"'{path}' holds values of shape {values.shape}; those of the {part} part of {release.title} have "
            f"{expected}.{swapped}"
        )
    return values.reshape(facts.n_images(part), *values.shape[-3:])


def _check_times(path: Path, times: object, release: Release) -> None:
    """Times must be those of the values; of the releases at 250 Hz, those before onset are told besides."""
    try:
        found = np.ravel(np.asarray(times, dtype=np.float64))
    except (TypeError, ValueError):
        raise DataError(f"'{path}': 'times' should be numbers, in s.") from None
    expected = release.tmin + np.arange(release.n_times) / release.sfreq
    fits = len(found) in (release.n_times, release.n_times + SURPLUS_TIMES * (release.sfreq == 250))
    if not fits or not (np.abs(found[-release.n_times :] - expected) < 0.25 / release.sfreq).all():
        raise DataError(
            f"'{path}' tells {len(found)} times from {found[:1]} to {found[-1:]} s; those of {release.title} end with "
            f"{release.n_times} from {expected[0]:g} to {expected[-1]:g} s."
        )


def _table(path: Path, content: dict, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A table of UBP, with an entry for each recording."""
    found = content.get(name)
    if not isinstance(found, np.ndarray) or found.shape != shape:
        raise DataError(
            f"'{path}' should have {name!r} of shape {shape}, but has {getattr(found, 'shape', type(found).__name__)}."
        )
    return found


def _check_shown(path: Path, shown: np.ndarray, images: Sequence[Image]) -> None:
    """The names of images must be those that the table of images has in this order."""
    for row, (names, image) in enumerate(zip(shown.tolist(), images, strict=True)):
        stems = {str(name).replace("\\", "/").rsplit("/", 1)[-1].rpartition(".")[0] for name in names}
        if stems != {image.image_id}:
            raise DataError(
                f"'{path}': its image {row + 1} is {sorted(stems)[0]!r}, but that of the table of images is "
                f"{image.image_id!r}. Its images are in another order, or of another copy."
            )


def _check_sessions(path: Path, part: str, sessions: np.ndarray, facts: CorpusFacts) -> None:
    """Each session must show each test image as often; one session of each pair shows a training image."""
    if sessions.dtype.kind not in "biuf":
        raise DataError(f"'{path}': 'session' should be numbers, but has values of type {sessions.dtype}.")
    a_session, of_pair = facts.repeats(part), 1 if part == "test" else 2
    for number, row in enumerate(sessions.tolist()):
        counts = Counter(row)
        groups = sorted(session // of_pair for session in counts)
        if groups != list(range(facts.n_sessions // of_pair)) or set(counts.values()) != {a_session}:
            raise DataError(
                f"'{path}': image {number + 1} was shown in sessions {sorted(row)} (counted from 0), which cannot be: "
                f"{a_session} recordings are of {'each session' if part == 'test' else 'one session of each pair'}."
            )
