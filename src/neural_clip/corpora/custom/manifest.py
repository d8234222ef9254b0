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
scaling: train                    # the default; or none
licence: CC0-1.0
redistribution: allowed           # or forbidden
source: where the recordings come from
citation: what to cite
```

Paths are relative to the manifest, or to `--raw-dir`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from neural_clip.corpora.custom.sections import built, check_interval, check_plain, check_unique, checked
from neural_clip.errors import DataError, did_you_mean
from neural_clip.files.reading import read_yaml
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.places import SPACES
from neural_clip.prepared.recording_rows import SUBJECT_PATTERN

SENSORS = {name: kind.title for name, kind in MODALITIES.items() if kind.sensors}
# What cuts epochs out of a continuous recording.
CONTINUOUS_KEYS = {
    "image_column", "run_column", "keep", "picks", "tmin", "tmax", "high_pass", "low_pass", "notch", "baseline",
    "decimate_to", "resample", "bad_segments",
}  # fmt: skip
# Keys of a recording that only some kinds read; anything else would be ignored in silence.
KIND_KEYS = {
    "epochs": {"image_column", "run_column", "keep", "picks", "tmin", "tmax"},
    "continuous": CONTINUOUS_KEYS | {"events"},
    "bids": CONTINUOUS_KEYS | {"bids_subject", "bids_session", "task", "bids_run", "datatype"},
    "series": {
        "image_column", "keep", "events", "data_key", "mask", "t_r", "window", "block_step", "detrend", "standardise",
    },
    "patterns": {
        "image_column", "run_column", "keep", "events", "data_key", "image_key", "index_base", "first_image", "mask",
    },
}  # fmt: skip
# Keys without which a recording of that kind cannot be read.
KIND_NEEDS = {
    "continuous": ("events", "tmin", "tmax"), "bids": ("task", "tmin", "tmax"), "series": ("events",),
}  # fmt: skip
CHOICES = {
    "modality": tuple(MODALITIES),
    "kind": tuple(KIND_KEYS),
    "split": ("train", "validation", "test"),
    "detrend": ("none", "linear"),
    "standardise": ("none", "run"),
    "bad_segments": ("refuse", "drop"),
    "datatype": tuple(SENSORS),
    "by": ("image", "run", "recording", "subject"),
    "scaling": ("none", "train", "unknown"),
    "redistribution": ("allowed", "forbidden"),
    "concept": ("none", "folder"),
    "order": ("C", "F"),
    "centre": ("none", "train"),
    "space": SPACES,
}


@dataclass(frozen=True)
class Recording:
    """One file of recordings.

    Args:
        file (`str`): `-epo.fif` for `epochs`; what `mne.io.read_raw` reads for `continuous`; the root of the data set
            for `bids`; `.nii`, `.nii.gz`, `.npy`, `.npz` or `.mat` for the others.
        kind (`str`): `"epochs"` (an `mne.Epochs` file whose metadata names the images), `"continuous"` (an EEG or MEG
            recording with a table of onsets), `"bids"` (the same, found in a BIDS data set), `"series"` (fMRI time
            series with a table of onsets) or `"patterns"` (each trial is an array row or a NIfTI volume).
        subject (`str`): Like `sub-01`.
        session, run (`str`): Labels, such as `ses-01` and `run-01`. Files that share subject, session and run must
            share a split.
        split (`str`, *optional*): Puts the whole file into this split, whatever `splits` says.
        events (`str`, *optional*): Table (`.tsv` or `.csv`) with `image_column` and, but for `patterns`, `onset` (s
            from the first sample or volume).
        image_column (`str`): Column of the table or of the Epochs' metadata that names image or category.
        run_column (`str`, *optional*): Column that names the run of each trial.
        keep (`dict`): Column name to the list of values whose rows are kept. A number stands for all ways to write it
            (`1`, `1.0`); text in quotes for itself.
        picks (`list[str]`, *optional*): Channels, in this order; by default all of the modality.
        tmin, tmax (`float`, *optional*): Window in s from onset, both ends included.
        high_pass, low_pass (`float`, *optional*): Band in Hz, by mne's zero-phase FIR filter on the continuous
            recording.
        notch (`float` or `list[float]`, *optional*): Mains frequency and its multiples in Hz, removed before the
            band-pass.
        baseline (`list`, *optional*): `[first, last]` in s, null for an end of the window: the mean of these samples
            is subtracted from each channel of each epoch.
        decimate_to (`float`, *optional*): New rate in Hz: every n-th sample is kept, counted from the sample of the
            onset. The rate must divide the recording's, and the stop band of `low_pass` must begin below half of it:
            what lies above would come back as false slow waves.
        resample (`float`, *optional*): Rate in Hz to bring epochs to by a polyphase filter, which takes out what lies
            above half of it; any rate up to the recording's.
        bad_segments (`str`): `"drop"` leaves out events whose window overlaps a segment marked bad or a pause of the
            recording; `"refuse"` stops.
        bids_subject, bids_session, bids_run (`str`, *optional*): Entities of the BIDS file without their prefix; by
            default those of `subject`, `session` and `run`.
        task (`str`, *optional*): Entity of the BIDS file.
        datatype (`str`, *optional*): `"eeg"` or `"meg"`; by default the modality.
        data_key (`str`, *optional*): Array in an `.npz` or `.mat` file.
        image_key (`str`, *optional*): Array of image names or numbers in the same file.
        index_base (`int`, *optional*): 0 or 1: number of the first image where `image_key` holds numbers.
        first_image (`int`, *optional*): Row `r` shows image `first_image + r` (counted from 0).
        mask (`str`, *optional*): NIfTI or `.npy`; voxels above 0 are taken in C order.
        t_r (`float`, *optional*): Repetition time in s; by default the NIfTI header's.
        window (`list[float]`): Volumes that start in `[onset + window[0], onset + window[1])` s are averaged; the
            default of 4 to 8 s covers the peak of the haemodynamic response.
        block_step (`float`, *optional*): Events are blocks of their `duration`; there is one row every `block_step` s.
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
    high_pass: float | None = None
    low_pass: float | None = None
    notch: float | list | None = None
    baseline: list | None = None
    decimate_to: float | None = None
    resample: float | None = None
    bad_segments: str = "refuse"
    bids_subject: str | None = None
    bids_session: str | None = None
    task: str | None = None
    bids_run: str | None = None
    datatype: str | None = None
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
        by (`str`): `"image"` (all rows of an image in one split, over all subjects), `"run"`, `"recording"` (file) or
            `"subject"` (all rows of a test subject, who is not trained on).
        validation, test (`float` or `list[str]`, *optional*): A share, or names: image ids, `sub-01/ses-01/run-01`,
            or `sub-01`. By run or recording, a share is taken of each subject's runs or files: at least one, first
            for `test`, as long as one is left for training. By subject, a share for `validation` is taken of the
            other subjects' images (of their runs, where only categories are known). `validation: null` makes no
            validation split.
        seed (`int`): Seed of the choice.
    """

    by: str = "image"
    validation: float | list | None = 0.1
    test: float | list | None = None
    seed: int = 0


@dataclass(frozen=True)
class Places:
    """Where voxels lie in a space that people share, in mm, so that what is known of one person can serve another.

    Args:
        space (`str`): `"MNI152"` or `"fsaverage"`.
        files (`dict`, *optional*): Subject to a file of places in that space: an array `(n_voxels, 3)` (`.npy`, or the
            only array of an `.npz` or `.mat` file), one row a voxel in the order of the columns; or a NIfTI volume
            `(x, y, z, 3)` on the grid of the mask. A subject who is not named has no places. Without `files`, the
            masks themselves lie in MNI152, and their affine gives the places.
    """

    space: str
    files: dict | None = None


@dataclass(frozen=True)
class Expect:
    """What the recordings must hold; anything else stops, or with `--allow-partial` marks the data set as partial.

    Args:
        n_recordings, n_rows, n_subjects (`int`, *optional*): Files, rows and subjects.
        n_sessions, n_runs (`int`, *optional*): Of all subjects together.
        n_images (`int`, *optional*): Different images (or categories) that rows show.
        n_chans, n_times (`int`), sfreq (`float`, *optional*): Of each epoch as it is stored; Hz.
        n_voxels (`dict`, *optional*): Subject to its number of voxels.
    """

    n_recordings: int | None = None
    n_rows: int | None = None
    n_subjects: int | None = None
    n_sessions: int | None = None
    n_runs: int | None = None
    n_images: int | None = None
    n_chans: int | None = None
    n_times: int | None = None
    sfreq: float | None = None
    n_voxels: dict | None = None


@dataclass(frozen=True)
class Manifest:
    """The whole manifest; see the module's docstring for an example and the sections' own for their keys.

    Args:
        name (`str`): Of the data set.
        modality (`str`): `"eeg"`, `"meg"` or `"fmri"`.
        recordings (`list`): One [`Recording`] for each file.
        defaults (`dict`): Keys that all recordings share unless they say otherwise.
        splits ([`Splits`]), images ([`Images`]), embeddings ([`Embeddings`]), expect ([`Expect`]): Sections.
        places ([`Places`]): Section of fMRI: where its voxels lie.
        source, licence, redistribution, citation (`str`): Where the recordings come from and what may be done.
        terms (`str`, *optional*): What else their users must know, such as the limits of consent.
        category_level (`bool`): Recordings name categories, not images; the target of a category is the mean of the
            embeddings of its images.
        scaling (`str`): `"train"` (default) z-scores each channel or voxel with mean and deviation of the training
            split of that subject; `"none"` leaves values as they are; so does `"unknown"`, which says that they were
            scaled before by statistics that may have seen the test split.
        block_design (`bool`): Images of a category were shown one after the other, so slow drifts tell categories.
        unit (`str`, *optional*): Of the values; by default V for EEG and T for MEG.
        roi (`str`, *optional*): Where the voxels lie, in words.
        sfreq, tmin (`float`), ch_names (`list[str]`): Of EEG and MEG given as arrays: Hz, s from onset, names. For
            other kinds they are compared with the files.
        preprocessing (`dict`), known_defects (`list`): What was done before, and what is wrong; shown in the card.
    """

    name: str
    modality: str
    recordings: list
    splits: Splits
    source: str
    licence: str
    redistribution: str
    citation: str
    terms: str | None = None
    images: Images | None = None
    embeddings: Embeddings | None = None
    places: Places | None = None
    expect: Expect | None = None
    category_level: bool = False
    block_design: bool = False
    scaling: str = "train"
    unit: str | None = None
    roi: str | None = None
    sfreq: float | None = None
    tmin: float | None = None
    ch_names: list | None = None
    preprocessing: dict = field(default_factory=dict)
    known_defects: list = field(default_factory=list)
    defaults: dict = field(default_factory=dict)

    @property
    def place_files(self) -> list[str]:
        """Files of places of voxels."""
        return list(self.places.files.values()) if self.places and self.places.files else []

    @property
    def named_files(self) -> list[str]:
        """All files and folders that it names."""
        named = [name for entry in self.recordings for name in (entry.file, entry.events, entry.mask)]
        named += [self.images.folder, self.images.file] if self.images else []
        named += [self.embeddings.file] if self.embeddings else []
        return [name for name in (*named, *self.place_files) if name]


SECTIONS = {"splits": Splits, "images": Images, "embeddings": Embeddings, "places": Places, "expect": Expect}


def read_manifest(path: str | Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        DataError: If the file is no YAML mapping, a key is unknown or missing, or a value is not allowed.
    """
    return parse_manifest(read_yaml(Path(path), "manifest"), str(path))


def parse_manifest(content: object, where: str = "manifest") -> Manifest:
    """Check the contents of a manifest, as YAML gives them.

    Raises:
        DataError: If a key is unknown or missing, or a value is not allowed.
    """
    fields = checked(content, Manifest, where, CHOICES)
    for key, kind in SECTIONS.items():
        if fields.get(key) is not None:
            fields[key] = built(fields[key], kind, f"{where}, '{key}'", CHOICES)
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
        raise DataError(f"{where}: a category-level set cannot be split by image; use 'run' or another 'by'.")
    if manifest.splits.seed < 0:
        raise DataError(f"{where}, 'splits': 'seed' must be 0 or more, but got {manifest.splits.seed}.")
    _check_each_once(manifest.recordings, where)
    for key in ("preprocessing", "known_defects"):
        check_plain(getattr(manifest, key), f"{where}, {key!r}")
    kinds, sensors = {entry.kind for entry in manifest.recordings}, MODALITIES[manifest.modality].sensors
    for kind in sorted(kinds & {"epochs", "continuous", "bids"}):
        if not sensors:
            raise DataError(
                f"{where}: recordings of kind {kind!r} are {' or '.join(SENSORS.values())}, but the modality is "
                f"{manifest.modality!r}."
            )
    if sensors and "series" in kinds:
        raise DataError(f"{where}: recordings of kind 'series' are fMRI, but the modality is {manifest.modality!r}.")
    if sensors and "patterns" in kinds and None in (manifest.sfreq, manifest.tmin):
        raise DataError(f"{where}: {' and '.join(SENSORS.values())} given as arrays need 'sfreq' (Hz) and 'tmin' (s).")
    check_unique(manifest.ch_names, "ch_names", where)
    if manifest.places is not None:
        _check_places(manifest, manifest.places, where)


def _check_places(manifest: Manifest, places: Places, where: str) -> None:
    """Check that places can be had for those who are named, or for everybody from their masks."""
    if MODALITIES[manifest.modality].sensors:
        raise DataError(f"{where}: 'places' are those of voxels, but the modality is {manifest.modality!r}.")
    subjects = sorted({entry.subject for entry in manifest.recordings})
    if places.files is None:
        if places.space != "MNI152":
            raise DataError(f"{where}: 'places' in {places.space} need 'files'; masks are volumes in MNI152.")
        if bare := next((entry.file for entry in manifest.recordings if entry.mask is None), None):
            raise DataError(f"{where}: 'places' without 'files' are those of the masks, but '{bare}' has no 'mask'.")
        return
    if not places.files:
        raise DataError(f"{where}: 'files' of 'places' is empty; name a file for each subject.")
    for subject, file in places.files.items():
        if subject not in subjects:
            near = did_you_mean(str(subject), subjects)
            raise DataError(f"{where}: 'places' names {subject!r}, but recordings are of {', '.join(subjects)}.{near}")
        if not isinstance(file, str):
            raise DataError(f"{where}: 'places' of {subject} must be the name of a file, but got {file!r}.")


def _check_each_once(recordings: list[Recording], where: str) -> None:
    """Raise where the same recording is listed twice: its rows would count twice."""
    seen: dict[str, int] = {}
    for number, entry in enumerate(recordings):
        first = seen.setdefault(repr(entry), number)
        if first != number:
            raise DataError(f"{where}: recording {number} is recording {first} once more ({entry.file!r}).")


def _recording(entry: object, shared: dict, where: str) -> Recording:
    given = {**shared, **entry} if isinstance(entry, dict) else entry
    recording = built(given, Recording, where, CHOICES)
    common = {"file", "kind", "subject", "session", "run", "split"}
    unused = sorted(set(given if isinstance(given, dict) else ()) - common - KIND_KEYS[recording.kind])
    if unused:
        raise DataError(f"{where}: recordings of kind {recording.kind!r} do not use {', '.join(map(repr, unused))}.")
    lacking = [key for key in KIND_NEEDS.get(recording.kind, ()) if getattr(recording, key) is None]
    if lacking:
        raise DataError(f"{where}: recordings of kind {recording.kind!r} need {', '.join(map(repr, lacking))}.")
    if not SUBJECT_PATTERN.fullmatch(recording.subject):
        raise DataError(f"{where}: subjects are named like 'sub-01', but got {recording.subject!r} instead.")
    if recording.index_base not in (None, 0, 1):
        raise DataError(f"{where}: allowed values for 'index_base' are 0 and 1, but got {recording.index_base}.")
    check_interval(recording.window, "window", where)
    check_interval(recording.baseline, "baseline", where, open_ends=True)
    check_unique(recording.picks, "picks", where)
    _check_positive(recording, where)
    return recording


def _check_positive(recording: Recording, where: str) -> None:
    """Check that rates, frequencies and durations are above 0, and the window's end after its beginning."""
    notch = recording.notch if isinstance(recording.notch, list) else [recording.notch]
    named = [("notch", value) for value in notch]
    positive = ("high_pass", "low_pass", "decimate_to", "resample", "t_r", "block_step")
    named += [(key, getattr(recording, key)) for key in positive]
    for key, value in named:
        if value is not None and not (isinstance(value, int | float) and value > 0):
            raise DataError(f"{where}: Invalid value for {key!r}. Allowed are numbers above 0, but got {value!r}.")
    if recording.decimate_to is not None and recording.resample is not None:
        raise DataError(f"{where}: give one of 'decimate_to' and 'resample'.")
    if recording.tmin is not None and recording.tmax is not None and recording.tmin > recording.tmax:
        raise DataError(f"{where}: 'tmin' ({recording.tmin} s) lies after 'tmax' ({recording.tmax} s).")
