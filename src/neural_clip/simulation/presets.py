"""Sizes and dials of the simulated twins.

A preset says how large the simulated corpora are (`EegPreset`, `MegPreset`, `FmriPreset`, `ThingsEeg2Preset` and
`ThingsFmriPreset`) and how hard (`Dials`). `full` repeats the counts of the real corpora, `demo` fits two CPU cores
and two minutes, `tiny` is a test fixture of seconds. Encoders are compared on two presets of the demo's size:
`realistic`, whose dials come from the literature, and `linear`, on which every phenomenon beyond a linear map is off;
docs/twins.md gives every value's source. The noise level is not a dial: it is calibrated (`calibration.json`), see
`calibration.noise_scale`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

from neural_clip.corpora.things_eeg2.facts import RAW_ORDER, CorpusFacts
from neural_clip.corpora.things_fmri.facts import CorpusFacts as ThingsFmriFacts
from neural_clip.errors import DataError, check_option, check_value

PRESETS = ("tiny", "demo", "full", "realistic", "linear")
DEMO_SIZED = ("demo", "realistic", "linear")
"""Presets of the demo's size, each with a noise level of its own; `tiny` and `full` take the demo's."""
# 24 principal components carry nearly all that the embedding tells of procedural images.
N_LATENTS = 24


@dataclass(frozen=True)
class Dials:
    """What makes a simulated recording hard, one number per phenomenon; 0 switches the phenomenon off.

    Args:
        evoked (`float`): Strength of responses locked to image onset, unitless factor on the signal.
        induced (`float`): Strength of oscillations whose power, not phase, follows the image, unitless factor.
            Gamma and beta power follow image content in recordings of visual cortex; averaging removes it.
        latency_jitter_s (`float`): Standard deviation of the response delay over trials, in seconds. 5 to
            10 ms is the order of single-trial visual responses; it blurs fast components for linear decoders.
        gain_jitter (`float`): Standard deviation of the natural logarithm of the response size over trials.
        nonstationarity (`float`): Standard deviation of the natural logarithm of the noise amplitude, which wanders
            over tens of seconds (sensors) or trials (voxels).
        artefact_rate (`float`): Blinks, and half as many sensor jumps, per minute. Subjects blink 5 to 20 times a
            minute, less often under instruction.
        subject_deviation (`float`): Own part of a subject's maps, from 0 (all alike) to 1 (nothing shared):
            map = sqrt(1 - deviation^2) * shared + deviation * own.
        voxel_saturation (`float`): Share of voxels whose response saturates (compressive summation), 0 to 1.
        voxel_energy (`float`): Share of voxels that answer to the energy of a pair of features, blind to their
            sign (complex-cell-like), 0 to 1.
        block_drift (`float`): Amplitude of a constant offset plus slow drift that every trial of one class block
            shares, in units of the noise amplitude: the confound of block designs. 0 in all presets.
        tuning_dimension (`float`): Effective dimensions of the tuning of voxels, 1 to 24: the participation ratio of
            the second moments of their tuning directions, over many people. With 0 the latents weigh what they do in
            the embedding (`LATENT_GAIN`), which makes about 20.
    """

    evoked: float = 1.0
    induced: float = 1.0
    latency_jitter_s: float = 0.005
    gain_jitter: float = 0.25
    nonstationarity: float = 0.25
    artefact_rate: float = 4.0
    subject_deviation: float = 0.6
    voxel_saturation: float = 0.3
    voxel_energy: float = 0.2
    block_drift: float = 0.0
    tuning_dimension: float = 0.0

    def __post_init__(self):
        for name, value in self.__dict__.items():
            check_value(name, value, value >= 0, "0 and more")
        fits = self.tuning_dimension == 0 or 1 <= self.tuning_dimension <= N_LATENTS
        check_value("tuning_dimension", self.tuning_dimension, fits, f"0 and 1 to {N_LATENTS}")
        for name in ("subject_deviation", "voxel_saturation", "voxel_energy"):
            check_value(name, getattr(self, name), getattr(self, name) <= 1, "0 to 1")
        if self.voxel_saturation + self.voxel_energy > 1:
            raise DataError(
                "Invalid values for the 'voxel_saturation' and 'voxel_energy' dials. Their sum may be at most 1, but "
                f"is {self.voxel_saturation + self.voxel_energy} instead."
            )

    def as_dict(self) -> dict[str, float]:
        """Dials by name; the newest is left out where it is off, so that older twins are still known by theirs."""
        return {name: value for name, value in asdict(self).items() if value or name != "tuning_dimension"}


class _Subjects:
    """What presets of all modalities have in common."""

    subjects: tuple[int, ...]

    @property
    def n_subjects(self) -> int:
        """Number of subjects."""
        return len(self.subjects)


@dataclass(frozen=True)
class EegPreset(_Subjects):
    """Size of the simulated ImageNetEEG corpus: images of one class in one block, every subject sees every image.

    Args:
        subjects (`tuple[int, ...]`): Subject numbers as in the raw files.
        n_classes (`int`): Classes; at most 40.
        images_per_class (`int`): Images of a class before `n_missing_images` are taken away.
        n_missing_images (`int`): Images that no subject saw (the real corpus has 1,996 of 2,000).
        n_missing_trials (`int`): Trials dropped at random after recording (the real corpus has 11,965 of 11,976).
        n_chans (`int`): Electrodes.
        sfreq (`float`): Sampling rate, in Hz.
        n_times_range (`tuple[int, int]`): Shortest and longest trial, in samples from image onset, both inclusive.
        image_duration_s (`float`): Time an image stays on, in seconds.
        train_share, validation_share (`float`): Shares of images of each class; the rest is the test split.
        image_size (`int`): Width and height of the images, in pixels.
        dials (`Dials`): Difficulty.
        noise_of (`str`): Preset whose calibrated noise level counts.
    """

    subjects: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    n_classes: int = 40
    images_per_class: int = 50
    n_missing_images: int = 4
    n_missing_trials: int = 11
    n_chans: int = 128
    sfreq: float = 1000.0
    n_times_range: tuple[int, int] = (491, 530)
    image_duration_s: float = 0.5
    train_share: float = 2 / 3
    validation_share: float = 1 / 6
    image_size: int = 64
    dials: Dials = field(default_factory=Dials)
    noise_of: str = "demo"
    modality: str = field(default="eeg", init=False)

    @property
    def n_images(self) -> int:
        """Number of images that were shown."""
        return self.n_classes * self.images_per_class - self.n_missing_images

    @property
    def n_trials(self) -> int:
        """Number of trials over all subjects."""
        return self.n_subjects * self.n_images - self.n_missing_trials


@dataclass(frozen=True)
class MegPreset(_Subjects):
    """Size of the simulated THINGS-MEG corpus: a session shows one image a concept, all test images, and catch trials.

    Args:
        subjects (`tuple[int, ...]`): Subject numbers as in the raw files (BIGMEG1 is 1).
        n_concepts (`int`): Concepts with training ("exp") images; one new image of each in every session.
        n_test_images (`int`): Test images, of that many of the concepts; each is shown once in every session.
        n_catch_per_session (`int`): Catch trials (artificial images) in a session.
        n_sessions (`int`): Sessions of each subject.
        n_runs (`int`): Runs in a session; trials are spread over them as evenly as possible.
        n_chans (`int`): MEG sensors, the malfunctioning MRO11 among them.
        n_ref_chans (`int`): Reference sensors.
        sfreq (`float`): Sampling rate, in Hz.
        soa_s (`tuple[float, float]`): Shortest and longest time between image onsets, in seconds.
        image_duration_s (`float`): Time an image stays on, in seconds.
        lead_s (`float`): Recording before the first onset and after the last trial of a run, in seconds.
        image_size (`int`): Width and height of the images, in pixels.
        dials (`Dials`): Difficulty.
        noise_of (`str`): Preset whose calibrated noise level counts.
    """

    subjects: tuple[int, ...] = (1, 2, 3, 4)
    n_concepts: int = 1854
    n_test_images: int = 200
    n_catch_per_session: int = 200
    n_sessions: int = 12
    n_runs: int = 10
    n_chans: int = 272
    n_ref_chans: int = 28
    sfreq: float = 1200.0
    soa_s: tuple[float, float] = (1.25, 1.70)
    image_duration_s: float = 0.5
    lead_s: float = 2.0
    image_size: int = 64
    dials: Dials = field(default_factory=lambda: Dials(artefact_rate=6.0))
    noise_of: str = "demo"
    modality: str = field(default="meg", init=False)

    @property
    def n_exp_images(self) -> int:
        """Number of training images, each shown once to every subject."""
        return self.n_concepts * self.n_sessions


@dataclass(frozen=True)
class ThingsEeg2Preset(_Subjects, CorpusFacts):
    """Size of the simulated THINGS-EEG2 corpus: images in quick sequences, training concepts in halves of sessions.

    Counts are those of [`CorpusFacts`]; `n_sessions` and `n_concepts` are even, and `n_train_runs` are the pieces in
    which the training part is recorded.

    Args:
        ch_names (`tuple[str, ...]`): Electrodes, in the order of the raw files.
        image_size (`int`): Width and height of the images, in pixels.
        dials (`Dials`): Difficulty.
        noise_of (`str`): Preset whose calibrated noise level counts.
    """

    ch_names: tuple[str, ...] = tuple(RAW_ORDER)
    image_size: int = 64
    dials: Dials = field(default_factory=Dials)
    noise_of: str = "demo"
    modality: str = field(default="eeg", init=False)

    @property
    def n_chans(self) -> int:
        """Number of electrodes."""
        return len(self.ch_names)


@dataclass(frozen=True)
class FmriPreset(_Subjects):
    """Size of the simulated NSD corpus: images for all subjects, others for one subject, each up to 3 times.

    Args:
        subjects (`tuple[int, ...]`): Subject numbers as in the raw files (subj05 is 5).
        n_shared (`int`): Images that every subject sees; they are the test split.
        n_unshared (`int`): Images of each subject alone.
        max_repeats (`int`): Times an image occurs in the planned order of all sessions.
        n_sessions (`int`): Sessions that were recorded.
        trials_per_session (`int`): Trials of a session, single-trial betas on disk.
        grid_shapes (`tuple[tuple[int, int, int], ...]`): Size of each subject's volume, in voxels.
        n_voxels (`tuple[int, ...]`): Voxels of each subject inside the nsdgeneral mask.
        image_size (`int`): Width and height of the images, in pixels (425 in the real corpus).
        dials (`Dials`): Difficulty.
        noise_of (`str`): Preset whose calibrated noise level counts.
    """

    subjects: tuple[int, ...] = (1, 2, 5, 7)
    n_shared: int = 1000
    n_unshared: int = 9000
    max_repeats: int = 3
    n_sessions: int = 40
    trials_per_session: int = 750
    grid_shapes: tuple[tuple[int, int, int], ...] = ((81, 104, 83), (82, 106, 84), (79, 97, 78), (78, 95, 81))
    n_voxels: tuple[int, ...] = (15724, 14278, 13039, 12682)
    image_size: int = 425
    dials: Dials = field(default_factory=Dials)
    noise_of: str = "demo"
    modality: str = field(default="fmri", init=False)

    def __post_init__(self):
        _check_lengths(self.subjects, self.grid_shapes, self.n_voxels)
        if self.n_sessions * self.trials_per_session > self.max_repeats * self.n_images:
            raise DataError(
                f"Invalid value for the 'n_sessions' parameter. {self.n_images} images shown {self.max_repeats} "
                f"times fill at most {self.max_repeats * self.n_images} trials, but got "
                f"{self.n_sessions * self.trials_per_session} instead."
            )

    @property
    def n_images(self) -> int:
        """Number of images in the plan of one subject."""
        return self.n_shared + self.n_unshared

    @property
    def n_trials(self) -> int:
        """Number of recorded trials of one subject."""
        return self.n_sessions * self.trials_per_session


@dataclass(frozen=True)
class ThingsFmriPreset(_Subjects, ThingsFmriFacts):
    """Size of the simulated THINGS-fMRI corpus: a session shows one image of each concept, and all test images.

    Counts are those of its `CorpusFacts`.

    Args:
        grid_shapes (`tuple[tuple[int, int, int], ...]`): Size of each subject's volume, in voxels; assumed.
        n_voxels (`tuple[int, ...]`): Voxels of each subject in all regions.
        image_size (`int`): Width and height of the images, in pixels.
        dials (`Dials`): Difficulty.
        noise_of (`str`): Preset whose calibrated noise level counts.
    """

    grid_shapes: tuple[tuple[int, int, int], ...] = ((72, 91, 75),) * 3
    n_voxels: tuple[int, ...] = (17_444, 16_000, 15_000)
    image_size: int = 64
    dials: Dials = field(default_factory=Dials)
    noise_of: str = "demo"
    modality: str = field(default="fmri", init=False)

    def __post_init__(self):
        _check_lengths(self.subjects, self.grid_shapes, self.n_voxels)


def _check_lengths(subjects: Sequence, grid_shapes: Sequence, n_voxels: Sequence) -> None:
    """Require a volume and a number of voxels for each subject."""
    if not len(subjects) == len(grid_shapes) == len(n_voxels):
        raise DataError(
            "Invalid values for the 'subjects', 'grid_shapes' and 'n_voxels' parameters. Their lengths must be equal, "
            f"but are {len(subjects)}, {len(grid_shapes)} and {len(n_voxels)} instead."
        )


@dataclass(frozen=True)
class TwinPreset:
    """The corpora of one preset.

    Args:
        name (`str`): One of `PRESETS`.
        eeg (`EegPreset`), meg (`MegPreset`), fmri (`FmriPreset`), things_eeg2 (`ThingsEeg2Preset`), things_fmri
            (`ThingsFmriPreset`): The parts.
    """

    name: str
    eeg: EegPreset
    meg: MegPreset
    fmri: FmriPreset
    things_eeg2: ThingsEeg2Preset = field(default_factory=ThingsEeg2Preset)
    things_fmri: ThingsFmriPreset = field(default_factory=ThingsFmriPreset)

    def other_counts(self, name: str) -> dict[str, dict[str, int]]:
        """Counts of other parts that decide which images a part shows (`things_images.py`); of most there are none."""
        others = {"things_eeg2": ("meg", "things_fmri"), "things_fmri": ("meg", "things_eeg2")}
        counted = ("n_concepts", "n_test_images", "n_sessions")
        return {other: {key: getattr(getattr(self, other), key) for key in counted} for other in others.get(name, ())}


def _tiny() -> TwinPreset:
    """Fixture of the tests: written in seconds, too small to learn from."""
    return TwinPreset(
        name="tiny",
        eeg=EegPreset(
            subjects=(1, 2), n_classes=4, images_per_class=12, n_missing_images=0, n_missing_trials=1, n_chans=16
        ),
        meg=MegPreset(
            subjects=(1, 2),
            n_concepts=20,
            n_test_images=6,
            n_catch_per_session=2,
            n_sessions=2,
            n_runs=2,
            n_chans=16,
            n_ref_chans=2,
            soa_s=(1.25, 1.30),
        ),
        fmri=FmriPreset(
            subjects=(1, 2),
            n_shared=12,
            n_unshared=40,
            n_sessions=2,
            trials_per_session=40,
            grid_shapes=((9, 8, 7), (8, 9, 7)),
            n_voxels=(80, 64),
            image_size=64,
        ),
        things_eeg2=ThingsEeg2Preset(
            subjects=(1, 2),
            n_concepts=16,
            images_per_concept=2,
            n_test_images=4,
            test_repeats=3,
            train_shown=34,
            train_targets=2,
            test_shown=13,
            test_targets=1,
            n_train_runs=2,
        ),
        things_fmri=ThingsFmriPreset(
            subjects=(1, 2),
            n_sessions=3,
            n_runs=2,
            n_concepts=20,
            n_test_images=4,
            n_catch=2,
            grid_shapes=((9, 8, 7), (8, 9, 7)),
            n_voxels=(80, 64),
        ),
    )


def _demo() -> TwinPreset:
    """What two CPU cores simulate, prepare and train on within minutes; ridge is calibrated here."""
    return TwinPreset(
        name="demo",
        eeg=EegPreset(images_per_class=10, n_missing_images=0, n_missing_trials=3, n_chans=32),
        # 8 runs of 80 trials; short pauses keep the raw files near 1 GB
        meg=MegPreset(
            n_concepts=240,
            n_test_images=60,
            n_catch_per_session=20,
            n_sessions=2,
            n_runs=4,
            n_chans=64,
            n_ref_chans=4,
            soa_s=(1.25, 1.30),
        ),
        fmri=FmriPreset(
            n_shared=80,
            n_unshared=600,
            n_sessions=4,
            trials_per_session=240,
            grid_shapes=((22, 26, 20), (21, 25, 20), (22, 24, 19), (20, 25, 21)),
            n_voxels=(1500, 1250, 1000, 800),
            image_size=64,
        ),
        # 2 GB of raw and preprocessed files
        things_eeg2=ThingsEeg2Preset(
            subjects=(1, 2),
            n_concepts=120,
            images_per_concept=4,
            n_test_images=60,
            test_repeats=5,
            train_shown=490,
            train_targets=10,
            test_shown=306,
            test_targets=14,
            n_train_runs=2,
        ),
        # 0.3 GB of tables and volumes
        things_fmri=ThingsFmriPreset(
            n_sessions=4,
            n_runs=4,
            n_concepts=200,
            n_test_images=40,
            n_catch=20,
            grid_shapes=((22, 26, 20), (21, 25, 20), (22, 24, 19)),
            n_voxels=(1500, 1250, 1000),
        ),
    )


# What no model of the modality reads is 0; sources and certainty of every number: docs/twins.md.
_NO_VOXELS = {"voxel_saturation": 0.0, "voxel_energy": 0.0}
_NO_SENSORS = {"induced": 0.0, "latency_jitter_s": 0.0, "artefact_rate": 0.0}
_STEADY = {"gain_jitter": 0.0, "nonstationarity": 0.0}
_DEVIATION = {"eeg": 0.75, "meg": 0.85, "fmri": 0.75}
_REALISTIC = {
    "eeg": Dials(
        induced=0.25, latency_jitter_s=0.008, gain_jitter=0.35, nonstationarity=0.3, artefact_rate=8.0,
        subject_deviation=_DEVIATION["eeg"], **_NO_VOXELS,
    ),
    "meg": Dials(
        induced=1.1, latency_jitter_s=0.008, gain_jitter=0.35, nonstationarity=0.3, artefact_rate=8.0,
        subject_deviation=_DEVIATION["meg"], **_NO_VOXELS,
    ),
    "fmri": Dials(
        gain_jitter=0.25, nonstationarity=0.2, subject_deviation=_DEVIATION["fmri"],
        voxel_saturation=0.6, voxel_energy=0.2, **_NO_SENSORS,
    ),
}  # fmt: skip
_LINEAR = {
    modality: Dials(subject_deviation=deviation, **_NO_SENSORS, **_NO_VOXELS, **_STEADY)
    for modality, deviation in _DEVIATION.items()
}


def _of_demo_size(name: str, dials: dict[str, Dials]) -> TwinPreset:
    """The demo's sizes with other dials, one set a modality, and a noise level of its own."""
    demo = _demo()
    return TwinPreset(
        name=name,
        eeg=replace(demo.eeg, dials=dials["eeg"], noise_of=name),
        meg=replace(demo.meg, dials=dials["meg"], noise_of=name),
        fmri=replace(demo.fmri, dials=dials["fmri"], noise_of=name),
        things_eeg2=replace(demo.things_eeg2, dials=dials["eeg"], noise_of=name),
        things_fmri=replace(demo.things_fmri, dials=dials["fmri"], noise_of=name),
    )


def get_preset(name: str) -> TwinPreset:
    """Sizes and dials under a name.

    Args:
        name (`str`): `"tiny"` (seconds), `"demo"` (about two minutes), `"full"` (the counts of the real corpora), or
            at the demo's size `"realistic"` (dials from the literature) or `"linear"` (nothing beyond a linear map).

    Returns:
        `TwinPreset`: The preset; change parts of it with `dataclasses.replace`.

    Raises:
        DataError: If there is no preset of that name.
    """
    check_option("preset", name, PRESETS)
    if name in ("tiny", "demo"):
        return _tiny() if name == "tiny" else _demo()
    if name == "full":
        return TwinPreset(name="full", eeg=EegPreset(), meg=MegPreset(), fmri=FmriPreset())
    return _of_demo_size(name, _REALISTIC if name == "realistic" else _LINEAR)
