"""The manifest of `neural-clip prepare custom`: what it may hold, and its checks.

```yaml
name: faces_and_houses            # name of the data set
modality: eeg                     # eeg, meg or fmri
recordings:                       # one entry a file; `defaults` holds what all share
  - {file: rec-1-epo.fif, kind: epochs, subject: sub-01, session: ses-01, run: run-01}
  - {file: rec-2-epo.fif, kind: epochs, subject: sub-01, session: ses-01, run: run-02, split: test}
defaults: {image_column: stimulus}
images: {folder: stimuli}         # and/or embeddings: {file: vectors.npz, name: MobileNetV2}
splits: {by: image, validation: 0.1, test: 0.1, seed: 0}
scaling: train                    # or none
licence: CC0-1.0
redistribution: allowed           # or forbidden
source: where the recordings come from
citation: what to cite
```

Paths are relative to the manifest, or to `--raw-dir`.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

from neural_clip.errors import DataError

# Keys of a recording that only some kinds read; anything else would be ignored in silence.
KIND_KEYS = {
    "epochs": {"image_column", "run_column", "keep", "picks", "tmin", "tmax"},
    "series": {
        "image_column", "keep", "events", "data_key", "mask", "t_r", "window", "block_step", "detrend", "standardise",
    },
    "patterns": {
        "image_column", "run_column", "keep", "events", "data_key", "image_key", "index_base", "first_image", "mask",
    },
}  # fmt: skip
CHOICES = {
    "modality": ("eeg", "meg", "fmri"),
    "kind": tuple(KIND_KEYS),
    "split": ("train", "validation", "test"),
    "detrend": ("none", "linear"),
    "standardise": ("none", "run"),
    "by": ("image", "run", "recording"),
    "scaling": ("none", "train"),
    "redistribution": ("allowed", "forbidden"),
    "concept": ("none", "folder"),
    "order": ("C", "F"),
    "centre": ("none", "train"),
}


@dataclass(frozen=True)
class Recording:
    """One file of recordings.

    Args:
        file (`str`): `-epo.fif` for `epochs`; `.nii`, `.nii.gz`, `.npy`, `.npz` or `.mat` for the others.
        kind (`str`): `"epochs"` (an `mne.Epochs` file whose metadata names the images), `"series"` (fMRI time series
            with a table of onsets) or `"patterns"` (one array row, or one NIfTI volume, a trial).
        subject (`str`): Like `sub-01`.
        session, run (`str`): Labels; runs that share subject, session and run must share a split.
        split (`str`, *optional*): Puts the whole file into this split, whatever `splits` says.
        events (`str`, *optional*): Table (`.tsv` or `.csv`) with `image_column` and, for `series`, `onset` (s).
        image_column (`str`): Column of the table or of the Epochs' metadata that names image or category.
        run_column (`str`, *optional*): Column that names the run of each trial.
        keep (`dict`): Column name to the list of values whose rows are kept.
        picks (`list[str]`, *optional*): Channels, in this order; by default all of the modality.
        tmin, tmax (`float`, *optional*): Window in s from onset, both ends included.
        data_key (`str`, *optional*): Array in an `.npz` or `.mat` file.
        image_key (`str`, *optional*): Array of image names or numbers in the same file.
        index_base (`int`, *optional*): 0 or 1: number of the first image where `image_key` holds numbers.
        first_image (`int`, *optional*): Row `r` shows image `first_image + r` (counted from 0).
        mask (`str`, *optional*): NIfTI or `.npy`; voxels above 0 are taken in C order.
        t_r (`float`, *optional*): Repetition time in s; by default the NIfTI header's.
        window (`list[float]`): Volumes that start in `[onset + window[0], onset + window[1])` s are averaged; the
            default of 4 to 8 s covers the peak of the haemodynamic response.
        block_step (`float`, *optional*): Events are blocks of their `duration`; one row each so many s.
        detrend (`str`): `"linear"` removes each voxel's line over the run.
        standardise (`str`): `"run"` z-scores each voxel with mean and deviation of all volumes of that run alone.
    """

    file: str
    kind: str
    subject: str
    session: str = ""
    run: str = ""
    split: str | None = None
    events: str | None = None
    image_column: str = "image_id"
    run_column: str | None = None
    keep: dict = field(default_factory=dict)
    picks: list | None = None
    tmin: float | None = None
    tmax: float | None = None
    data_key: str | None = None
    image_key: str | None = None
    index_base: int | None = None
    first_image: int | None = None
    mask: str | None = None
    t_r: float | None = None
    window: list = field(default_factory=lambda: [4.0, 8.0])
    block_step: float | None = None
    detrend: str = "none"
    standardise: str = "none"


@dataclass(frozen=True)
class Images:
    """The pictures shown: a folder of image files, or arrays `(n, height, width[, 3])` of uint8.

    Args:
        folder (`str`, *optional*): Image ids are paths below it, like `faces/Annie_1.jpg`.
        file (`str`, *optional*): `.npz`, `.npy` or `.mat`; image ids are `image-00000` and so on, or from `ids_key`.
        keys (`list[str]`, *optional*): Arrays in the file, joined in this order.
        ids_key (`str`, *optional*): Array of names in the file.
        shape (`list[int]`, *optional*): Height, width (and 3) of flattened images.
        order (`str`): `"F"` where images were flattened by column, as MATLAB does.
        concept (`str`): `"folder"`: the folder that holds an image names its concept.
        concept_keys (`list[str]`, *optional*): Arrays of labels in the file, joined like `keys`.
        concept_names (`dict`): What to call folders or labels.
    """

    folder: str | None = None
    file: str | None = None
    keys: list | None = None
    ids_key: str | None = None
    shape: list | None = None
    order: str = "C"
    concept: str = "none"
    concept_keys: list | None = None
    concept_names: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Embeddings:
    """Ready-made image embeddings.

    Args:
        file (`str`): `.npz` or `.mat`.
        name (`str`): Name of the encoder that made them.
        ids_key (`str`, *optional*): Array of image ids; without it row i belongs to image i.
        vectors_key (`str`): Array `(n, projection_dim)`.
        revision, pooling (`str`, *optional*): Recorded as they are.
        concept (`str`): `"folder"`: the folder in an id names its concept.
        concept_names (`dict`): What to call folders.
        centre (`str`): `"train"` subtracts the mean over the images of the training split. Embeddings that share a
            large common part (pixels, activations after a ReLU) are told apart badly by their angles without it.
    """

    file: str
    name: str
    ids_key: str | None = "ids"
    vectors_key: str = "embeds"
    revision: str | None = None
    pooling: str | None = None
    concept: str = "none"
    concept_names: dict = field(default_factory=dict)
    centre: str = "none"


@dataclass(frozen=True)
class Splits:
    """How rows are divided.

    Args:
        by (`str`): `"image"` (all rows of an image in one split, over all subjects), `"run"`, or `"recording"` (file).
        validation, test (`float` or `list[str]`, *optional*): A share, or the names: image ids, or
            `sub-01/ses-01/run-01`. By run or recording a share is taken of each subject's, at least one while one
            is left to train on: test before validation.
        seed (`int`): Seed of the choice.
    """

    by: str = "image"
    validation: float | list | None = 0.1
    test: float | list | None = None
    seed: int = 0


@dataclass(frozen=True)
class Manifest:
    """The whole manifest; see the module's docstring for an example and the sections' own for their keys.

    Args:
        category_level (`bool`): Recordings name categories, not images; the target of a category is the mean of the
            embeddings of its images.
        scaling (`str`): `"train"` z-scores each channel or voxel with mean and deviation of the training split of
            that subject.
        sfreq, tmin (`float`), ch_names (`list[str]`): Of EEG and MEG given as arrays: Hz, s from onset, names.
    """

    name: str
    modality: str
    recordings: list
    splits: Splits
    source: str
    licence: str
    redistribution: str
    citation: str
    images: Images | None = None
    embeddings: Embeddings | None = None
    category_level: bool = False
    scaling: str = "none"
    unit: str | None = None
    roi: str | None = None
    sfreq: float | None = None
    tmin: float | None = None
    ch_names: list | None = None
    preprocessing: dict = field(default_factory=dict)
    known_defects: list = field(default_factory=list)
    defaults: dict = field(default_factory=dict)


def read_manifest(path: str | Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        DataError: If the file is no YAML mapping, a key is unknown or missing, or a value is not allowed.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no manifest '{path}'.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is no YAML file: {error}") from error
    return parse_manifest(content, str(path))


def parse_manifest(content: object, where: str = "manifest") -> Manifest:
    """Check the contents of a manifest, as YAML gives them."""
    fields = _checked(content, Manifest, where)
    for key, kind in (("images", Images), ("embeddings", Embeddings), ("splits", Splits)):
        if fields.get(key) is not None:
            fields[key] = _built(fields[key], kind, f"{where}, '{key}'")
    shared = fields.get("defaults") or {}
    if not isinstance(shared, dict):
        raise DataError(f"{where}: 'defaults' must be a mapping.")
    fields["recordings"] = [
        _recording(entry, shared, f"{where}, recording {i}") for i, entry in enumerate(fields["recordings"])
    ]
    manifest = Manifest(**fields)
    _check_whole(manifest, where)
    return manifest


def _check_whole(manifest: Manifest, where: str) -> None:
    """Check what concerns several keys."""
    if not manifest.recordings:
        raise DataError(f"{where}: 'recordings' is empty.")
    if manifest.images is None and manifest.embeddings is None:
        raise DataError(f"{where}: give 'images', 'embeddings' or both.")
    if manifest.images is not None and (manifest.images.folder is None) == (manifest.images.file is None):
        raise DataError(f"{where}: 'images' needs either 'folder' or 'file'.")
    if manifest.category_level and manifest.embeddings is None:
        raise DataError(f"{where}: 'category_level' needs 'embeddings', whose means become the targets.")
    if manifest.category_level and manifest.splits.by == "image":
        raise DataError(f"{where}: a category-level set cannot be split by image; use 'run' or 'recording'.")
    kinds = {entry.kind for entry in manifest.recordings}
    if manifest.modality == "fmri" and "epochs" in kinds:
        raise DataError(f"{where}: recordings of kind 'epochs' are EEG or MEG, but the modality is 'fmri'.")
    if manifest.modality != "fmri" and "series" in kinds:
        raise DataError(f"{where}: recordings of kind 'series' are fMRI, but the modality is {manifest.modality!r}.")
    if manifest.modality != "fmri" and "patterns" in kinds and None in (manifest.sfreq, manifest.tmin):
        raise DataError(f"{where}: EEG and MEG given as arrays need 'sfreq' (Hz) and 'tmin' (s).")


def _recording(entry: object, shared: dict, where: str) -> Recording:
    given = {**shared, **entry} if isinstance(entry, dict) else entry
    recording = typing.cast(Recording, _built(given, Recording, where))
    common = {"file", "kind", "subject", "session", "run", "split"}
    unused = sorted(set(typing.cast(dict, given)) - common - KIND_KEYS[recording.kind])
    if unused:
        raise DataError(f"{where}: recordings of kind {recording.kind!r} do not use {', '.join(map(repr, unused))}.")
    if len(recording.window) != 2 or not recording.window[0] < recording.window[1]:
        raise DataError(f"{where}: 'window' is [first, last] in s, but got {recording.window}.")
    if recording.index_base not in (None, 0, 1):
        raise DataError(f"{where}: allowed values for 'index_base' are 0 and 1, but got {recording.index_base}.")
    return recording


def _built(content: object, kind: type, where: str) -> object:
    return kind(**_checked(content, kind, where))


def _checked(content: object, kind: type, where: str) -> dict:
    """Keys and values of a mapping that are fields of the dataclass `kind`."""
    if not isinstance(content, dict):
        raise DataError(f"{where} must be a mapping of keys to values, but is {type(content).__name__}.")
    hints = typing.get_type_hints(kind)
    for key, value in content.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0)
            raise DataError(f"{where}: unknown key {key!r}; the nearest known one is {near[0]!r}.")
        choices = CHOICES.get(key)
        if choices and value is not None and value not in choices:
            names = ", ".join(repr(choice) for choice in choices)
            raise DataError(
                f"{where}: Invalid value for {key!r}. Allowed values are {names}, but got {value!r} instead."
            )
        if not _fits(value, hints[key]):
            raise DataError(f"{where}: {key!r} must be {_type_name(hints[key])}, but got {value!r}.")
    required = [
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and f.name not in content
    ]
    if required:
        raise DataError(f"{where} lacks {', '.join(map(repr, required))}.")
    return dict(content)


def _allowed_types(hint: object) -> tuple:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _fits(value: object, hint: object) -> bool:
    for kind in _allowed_types(hint):
        if dataclasses.is_dataclass(kind):
            return True  # checked as a section of its own
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return True
        if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
            return True
    return False


def _type_name(hint: object) -> str:
    names = {"str": "text", "float": "a number", "int": "a whole number", "dict": "a mapping", "list": "a list"}
    kinds = [kind for kind in _allowed_types(hint) if kind is not type(None)]
    return " or ".join(names.get(kind.__name__, kind.__name__) for kind in kinds)
