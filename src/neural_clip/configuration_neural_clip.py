"""Configurations of the encoders and of the model that aligns them with CLIP.

A configuration holds what rebuilds the weights, what an input must look like and what the weights learnt from, nothing
of devices or paths.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, ClassVar

from transformers import CLIPVisionConfig, PreTrainedConfig

from .closed_form_settings import ClosedFormSettings
from .corpus_inputs import CorpusInputs, check_corpora, corpus_of
from .errors import check_option, check_value, did_you_mean
from .pushing import PushedByTerms
from .target_space import TargetSpace
from .terms import check_trained_on, terms_of

# What the processor calls a subject without an alignment layer of their own, and the entry of `subject_ids` for them:
# the mean of all subjects' layers (EEG and MEG).
AVERAGE_NAME = "average"
AVERAGE_SUBJECT = -1
# What a network of braindecode is told of the recordings, so that 'braindecode_kwargs' may not.
BRAINDECODE_INPUTS = ("chs_info", "input_window_seconds", "n_chans", "n_outputs", "n_times", "sfreq")
# Keys of configurations that transformers reads or writes without a field for them.
TRANSFORMERS_KEYS = {
    "auto_map",
    "custom_pipelines",
    "gradient_checkpointing",
    "model_type",
    "per_layer_config",
    "quantization_config",
    "tie_word_embeddings",
    "use_cache",
}
MAX_PARTS = 10_000  # layers or networks of a model
MISSPELT = 0.75  # likeness from which an unknown key in a file of transformers counts as one of ours, misspelt


def is_of_transformers(key: str) -> bool:
    """Whether a key is what transformers itself, in the version at hand, may set in any configuration."""
    plain = PreTrainedConfig()
    names = {*vars(plain), *plain.to_dict(), *(field.name for field in fields(PreTrainedConfig))}
    names |= {name for name in dir(PreTrainedConfig) if not callable(getattr(PreTrainedConfig, name))}
    return key.startswith("_") or key in TRANSFORMERS_KEYS | {name.lstrip("_") for name in names}


def is_number(value: Any) -> bool:
    """Whether a value of a file is a number; JSON's true and false are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_kinds(config: PreTrainedConfig, names: Iterable[str]) -> None:
    """Raise a `ValueError` naming the first of `names` whose value is no number of the kind that its field has."""
    kinds = {field.name: str(getattr(field.type, "__name__", field.type)) for field in fields(config)}
    for name in sorted(names):
        value, (kind, *others) = getattr(config, name), kinds[name].split(" | ")
        if value is None and "None" in others:
            continue
        if kind == "int":
            check_value(name, value, isinstance(value, Integral) and not isinstance(value, bool), "a whole number")
        elif kind == "float":
            check_value(name, value, is_number(value) and math.isfinite(value), "a number")


def check_positive(config: PreTrainedConfig, *names: str) -> None:
    """Raise a `ValueError` naming the first of `names` whose value is not above zero."""
    for name in names:
        value = getattr(config, name)
        check_value(name, value, is_number(value) and value > 0, "a number above 0")


def check_few(config: PreTrainedConfig, *names: str) -> None:
    """Raise a `ValueError` naming the first of `names` of which a model would never be finished."""
    for name in names:
        value = getattr(config, name)
        check_value(name, value, is_number(value) and value <= MAX_PARTS, f"at most {MAX_PARTS}")


def check_not_negative(config: PreTrainedConfig, *names: str) -> None:
    """Raise a `ValueError` naming the first of `names` whose value is below zero."""
    for name in names:
        value = getattr(config, name)
        check_value(name, value, is_number(value) and value >= 0, "0 and more")


def check_shares(config: PreTrainedConfig, *names: str) -> None:
    """Raise a `ValueError` naming the first of `names` whose value is no share."""
    for name in names:
        value = getattr(config, name)
        check_value(name, value, is_number(value) and 0 <= value <= 1, "0 to 1")


class StrictConfig(PushedByTerms, PreTrainedConfig):
    """A configuration that refuses keys it does not know, naming the nearest known one.

    What transformers itself sets passes. In a file that it wrote (which has its version) so does any other key that
    is not near one of ours: it may be of a later version, or of a library beside it.
    """

    def __post_init__(self, **kwargs: Any) -> None:
        if kwargs.setdefault("model_type", self.model_type) != self.model_type:
            raise ValueError(
                f"{type(self).__name__} is for models of type {self.model_type!r}, but the configuration says "
                f"{kwargs['model_type']!r}."
            )
        del kwargs["model_type"]
        self.check_keys(kwargs, written=self.transformers_version is not None)
        super().__post_init__(**kwargs)
        check_kinds(self, self.own_keys())

    @classmethod
    def own_keys(cls) -> set[str]:
        """Keys of this class that no other configuration has."""
        return {field.name for field in fields(cls)} - {field.name for field in fields(PreTrainedConfig)}

    @classmethod
    def check_keys(cls, keys: Iterable[str], written: bool) -> None:
        """Raise a `ValueError` for keys that are misspelt or, unless transformers has `written` them, unknown."""
        known = cls.own_keys()
        for key in keys:
            if key in known or is_of_transformers(key):
                continue
            hint = did_you_mean(key, known, MISSPELT if written else 0.5)
            if hint or not written:
                hint = hint or f" Known keys are {sorted(known)}."
                raise ValueError(f"Unknown configuration key {key!r} for {cls.__name__}.{hint}")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Make a configuration; keywords replace its entries before they are checked."""
        cls.check_keys(kwargs, written=True)
        single = {key for key in kwargs.keys() & cls.own_keys() if not isinstance(kwargs[key], dict)}
        return super().from_dict(config_dict | {key: kwargs.pop(key) for key in single}, **kwargs)

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> Any:
        """The configuration of a checkpoint as it stands; a `ValueError` where a joint one lacks this branch."""
        found, unused = super().get_config_dict(*args, **kwargs)
        if cls.base_config_key in found and found[cls.base_config_key] is None:
            there = [name for name in MODALITY_CONFIGS if found.get(f"{name}_config") is not None]
            missing = cls.base_config_key.removesuffix("_config")
            raise ValueError(f"The checkpoint {args[0]!s} has no {missing} encoder; it has {there}.")
        return found, unused

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Save, unless an attribute was set by a misspelt name, which would make the file unreadable."""
        for part in (self, *vars(self).values()):
            if isinstance(part, StrictConfig):
                part.check_keys(vars(part), written=True)
        super().save_pretrained(*args, **kwargs)

    def data_terms(self) -> dict[str, str | None]:
        """Whether the data that the weights learnt from may be redistributed, by data set; see [`terms_of`]."""
        name = self.base_config_key.removesuffix("_config")
        return terms_of({name: getattr(self, "trained_on", None)})

    def check_subjects(self, subjects: Sequence[str]) -> None:
        """Raise a `ValueError` for a name that is no string, is listed twice, or stands for the average subject."""
        # A string alone would be taken for a list of its letters.
        listed = isinstance(subjects, Sequence) and not isinstance(subjects, str)
        strings = listed and all(isinstance(name, str) for name in subjects)
        check_value("subjects", subjects, strings, "a list of strings")
        if AVERAGE_NAME in subjects:
            raise ValueError(
                f"Invalid value for the 'subjects' parameter. {AVERAGE_NAME!r} stands for the mean of all subjects, "
                "so no subject can have this name."
            )
        check_value("subjects", subjects, len(set(subjects)) == len(subjects), "each name once")

    def check_confidence_temperature(self, found: dict | None) -> None:
        """Raise a `ValueError` unless each temperature is a number of 0 and more, of a subject or of the average."""
        named = found is None or (isinstance(found, dict) and set(found) <= {*self.subjects, AVERAGE_NAME})
        check_value("confidence_temperature", found, named, f"numbers by subject, of {[*self.subjects, AVERAGE_NAME]}")
        for name, value in (found or {}).items():
            fits = is_number(value) and math.isfinite(value) and value >= 0
            check_value(f"confidence_temperature.{name}", value, fits, "a number, 0 and more")


class SensorConfig(StrictConfig):
    """What EEG and MEG encoders share: the window they read and the layers they are made of.

    Args:
        n_chans (`int`): Sensors in each recording.
        n_times (`int`): Samples in each recording.
        sfreq (`float`): Sampling rate, in Hz.
        tmin (`float`): First sample, in seconds from image onset.
        ch_names (`list[str]`, *optional*): Sensor names in the order of the rows of a recording.
        crop_tmin (`float`, *optional*): Samples before this time, in seconds from image onset, are left out. Samples
            before onset tell nothing of the image, and a small corpus is quickly learnt by heart from them.
        decimation (`int`): Consecutive samples that are averaged into one, after the crop; what remains is left out.
            The mean dampens a quarter of the remaining rate by a tenth and folds what lies above half of it, so it is
            for recordings that are band-limited already.
        ch_positions (`list[list[float]]`, *optional*): Place of each sensor as x, y and z in metres, all in one frame
            of coordinates. Networks of `"braindecode"` that need places are told these.
        subjects (`list[str]`): Subjects with an alignment layer of their own, in the order of `subject_ids`.
        encoder_type (`str`): The shared network g. `"temporal_spatial"` (linear and log-power branch behind learned
            spatial and temporal filters) for both; `"spectrogram_cnn"` for EEG and `"temporal_cnn"` for MEG are the
            networks of arXiv 2411.09723. `"linear"` has none: the alignment layer a is then a linear map of each
            subject's whole recording to `hidden_size` values, started as torch's linear layer is. `"braindecode"` is
            a network of that package (`pip install 'neural_clip[braindecode]'`).
        alignment_kernel_size (`int`): Samples seen by the alignment layer a, a convolution over time per subject; 1
            mixes sensors only. Not for `"linear"`.
        alignment_init (`str`): `"identity"` starts each subject's layer as a copy of its input, `"random"` as
            torch's convolution does (the paper's code). Not for `"linear"`.
        subject_dropout (`float`): Share of recordings that pass through the mean of all subjects' alignment layers
            instead of their own subject's while training. It prepares the network for subjects without a layer, whose
            `subject_ids` are -1, where layers start at random; docs/studies/choices.md measures it where they start
            as identities. The fMRI encoder has no such mean: voxels of two subjects do not correspond.
        time_shift (`float`): In training each recording is moved in time by up to this many seconds either way, at
            random, its first or last sample repeated. Responses come earlier or later from trial to trial, and a
            small corpus does not show all of it.
        hidden_size (`int`): Width of the first layer of the network; features that a `"braindecode"` network returns.
        temporal_kernel_size (`int`): Samples of a temporal filter of `"temporal_spatial"`.
        n_windows (`int`): Time windows over which `"temporal_spatial"` pools.
        n_fine_windows (`int`): Shorter windows over which its linear branch pools as well; 0 is none. Averages over
            long windows lose what oscillates faster, averages over short ones are noisy.
        readout_size (`int`): Units of a hidden layer of `"temporal_spatial"` that stands beside its features, so that
            the projection adds a linear and a nonlinear readout; 0 is none.
        stft_nperseg (`int`): Samples of a window of the short-time Fourier transform of `"spectrogram_cnn"`.
        braindecode_model (`str`, *optional*): Name of the network of `"braindecode"`, such as `"ShallowFBCSPNet"`.
        braindecode_kwargs (`dict`, *optional*): What else that network is made with, as JSON knows it.
        num_networks (`int`): Networks in parallel, each with a projection and a loss of its own; the embedding is the
            mean of theirs. The alignment layer has outputs for each.
        dropout (`float`): Share of features dropped before the projection while training.
        closed_form (`dict`, *optional*): What the closed form beside the network is made of, as
            [`ClosedFormSettings`] holds it; written by `neural-clip train`.
        confidence_temperature (`dict[str, float]`, *optional*): By subject (or `"average"`), what cosines with images
            are multiplied by so that their softmax over a gallery is the probability of each image; 0 and more. Fitted
            by `neural-clip train` and `adapt` on recordings that the model had not learnt from. Subjects without one
            have no confidence.
        trained_on (`list[dict]`, *optional*): Data sets that the weights learnt from, written by `neural-clip train`:
            `corpus`, `subjects`, `simulated`, `licence`, `redistribution` (`"allowed"` or `"forbidden"`) and `terms`.
            They decide who may see the model on the Hub. `None` where nobody knows.
        corpora (`dict[str, dict]`, *optional*): Where people of several corpora share the network: by corpus
            `n_chans`, `n_times`, `sfreq`, `tmin` and `ch_names` of its recordings, as [`CorpusInputs`] holds them. A
            subject `things_eeg2/sub-01` is of the corpus `things_eeg2`. Recordings are brought to the window and rate
            above by a fixed linear map ([`resampling`]), and to `n_chans` channels by the alignment layer. Nobody is
            the mean of people whose channels differ, so there is no average subject.
    """

    n_chans: int = 128
    n_times: int = 440
    sfreq: float = 1000.0
    tmin: float = 0.0
    ch_names: list[str] | None = None
    crop_tmin: float | None = None
    decimation: int = 1
    ch_positions: list[list[float]] | None = None
    subjects: list[str] | tuple[str, ...] = ()
    encoder_type: str = "temporal_spatial"
    alignment_kernel_size: int = 1
    alignment_init: str = "identity"
    subject_dropout: float = 0.0
    time_shift: float = 0.0
    hidden_size: int = 192
    temporal_kernel_size: int = 25
    n_windows: int = 12
    n_fine_windows: int = 0
    readout_size: int = 0
    stft_nperseg: int = 40
    braindecode_model: str | None = None
    braindecode_kwargs: dict | None = None
    num_networks: int = 1
    dropout: float = 0.5
    closed_form: dict | None = None
    confidence_temperature: dict | None = None
    trained_on: list[dict] | None = None
    corpora: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.check_subjects(self.subjects)
        self.subjects = list(self.subjects)
        self.check_confidence_temperature(self.confidence_temperature)
        check_trained_on(self.trained_on)
        check_positive(
            self, "n_chans", "n_times", "sfreq", "decimation", "hidden_size", "temporal_kernel_size", "n_windows",
            "stft_nperseg", "num_networks",
        )  # fmt: skip
        check_few(self, "num_networks")
        check_option("alignment_init", self.alignment_init, ("identity", "random"))
        check_shares(self, "subject_dropout", "dropout")
        size = self.alignment_kernel_size
        check_value("alignment_kernel_size", size, size >= 1 and size % 2 == 1, "an odd number, 1 and more")
        if self.ch_names is not None and len(self.ch_names) != self.n_chans:
            raise ValueError(f"'ch_names' lists {len(self.ch_names)} sensors but 'n_chans' is {self.n_chans}.")
        check_not_negative(self, "n_fine_windows", "readout_size", "time_shift")
        seconds = self.n_times / self.sfreq
        fits = self.time_shift * self.sfreq < self.n_times
        check_value("time_shift", self.time_shift, fits, f"less than a recording ({seconds:g} s)")
        if self.n_network_times < 1:
            raise ValueError(
                f"'crop_tmin' ({self.crop_tmin} s) and 'decimation' ({self.decimation}) leave nothing of "
                f"{self.n_times} samples from {self.tmin} s at {self.sfreq} Hz."
            )
        if self.ch_positions is not None and [len(place) for place in self.ch_positions] != [3] * self.n_chans:
            raise ValueError(
                f"'ch_positions' must list x, y and z of each of the {self.n_chans} sensors, but lists "
                f"{len(self.ch_positions)} of {sorted({len(place) for place in self.ch_positions})} numbers."
            )
        self.check_braindecode()
        found = ClosedFormSettings.of(self.closed_form, self.subjects)
        left = self.n_times if found is None else (self.n_times - found.first_sample) // found.decimation
        check_value("closed_form", self.closed_form, left > 0, f"what leaves some of {self.n_times} samples")
        self.check_corpora(found)

    def check_corpora(self, closed_form: ClosedFormSettings | None) -> None:
        """Raise a `ValueError` where inputs by corpus are damaged, or something needs people of equal channels."""
        corpora = [] if closed_form is None else closed_form.corpora
        if check_corpora(self.corpora, self.subjects, self.inputs) is None:
            check_value("closed_form.corpora", corpora, not corpora, "none where the model has one corpus")
            return
        why = "0 where people of several corpora share the network: they have no average subject"
        check_value("subject_dropout", self.subject_dropout, self.subject_dropout == 0, why)
        apart = closed_form is None or not (closed_form.shared or (closed_form.mixed and not corpora))
        check_value("closed_form", self.closed_form, apart, "maps of subjects or corpora where there are several")

    @property
    def inputs(self) -> CorpusInputs:
        """What the network reads."""
        return CorpusInputs.of(self)

    def inputs_of(self, subject: str) -> CorpusInputs:
        """What a recording of a subject looks like."""
        if self.corpora is None or subject not in self.subjects:
            return self.inputs
        return CorpusInputs.of(self.corpora[corpus_of(subject)])

    def to_dict(self) -> dict[str, Any]:
        """As `config.json` holds it; without `corpora` where there is one."""
        found = super().to_dict()
        return found if self.corpora is not None else {name: found[name] for name in found if name != "corpora"}

    def check_braindecode(self) -> None:
        """Raise a `ValueError` when the settings of a braindecode network are missing, unused or not JSON."""
        if self.encoder_type != "braindecode":
            if self.braindecode_model is not None or self.braindecode_kwargs is not None:
                raise ValueError(
                    "'braindecode_model' and 'braindecode_kwargs' are for 'encoder_type' 'braindecode', but it is "
                    f"{self.encoder_type!r}."
                )
            return
        if self.braindecode_model is None:
            raise ValueError("'braindecode_model' is missing; name the network for 'encoder_type' 'braindecode'.")
        kwargs = self.braindecode_kwargs or {}
        if given := sorted(set(kwargs) & set(BRAINDECODE_INPUTS)):
            raise ValueError(
                f"'braindecode_kwargs' may not hold {given}: the other settings say what a recording looks like and "
                "'hidden_size' how many features are returned."
            )
        try:
            json.dumps(kwargs, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"'braindecode_kwargs' must be JSON, but: {error}.") from error

    @property
    def first_sample(self) -> int:
        """Samples before `crop_tmin`."""
        if self.crop_tmin is None:
            return 0
        return max(math.ceil((self.crop_tmin - self.tmin) * self.sfreq - 1e-6), 0)  # 1e-6: 0.5 * 120 may be 59.99...

    @property
    def n_network_times(self) -> int:
        """Samples left by `crop_tmin` and `decimation`."""
        return (self.n_times - self.first_sample) // self.decimation


class EegConfig(SensorConfig):
    """Configuration of [`EegEncoder`]; the arguments are those of [`SensorConfig`]."""

    model_type = "neural_clip_eeg"
    _auto_class = "AutoConfig"  # so that the code travels with what is saved
    base_config_key = "eeg_config"

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        check_option(
            "encoder_type", self.encoder_type, ("braindecode", "linear", "spectrogram_cnn", "temporal_spatial")
        )


class MegConfig(SensorConfig):
    """Configuration of [`MegEncoder`]; the arguments are those of [`SensorConfig`]."""

    model_type = "neural_clip_meg"
    _auto_class = "AutoConfig"  # so that the code travels with what is saved
    base_config_key = "meg_config"

    n_chans: int = 271
    n_times: int = 181
    sfreq: float = 120.0
    tmin: float = -0.5
    alignment_kernel_size: int = 11

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        check_option("encoder_type", self.encoder_type, ("braindecode", "linear", "temporal_cnn", "temporal_spatial"))


class FmriConfig(StrictConfig):
    """Configuration of [`FmriEncoder`].

    Args:
        subjects (`list[str]`): Subjects with an alignment layer of their own, in the order of `subject_ids`.
        n_voxels (`dict[str, int]`): Voxels of each subject's region of interest; they differ between subjects.
        alignment_size (`int`): Width to which each subject's linear layer a maps the voxels (paper's code: 1024), for
            each network.
        hidden_size (`int`): Width of the shared network's layers (paper's code: 768).
        num_hidden_layers (`int`): Layers of the shared network g, each followed by a ReLU; 0 leaves a linear model.
        linear_path (`bool`): Whether the projection sees the alignment layer's output beside the network's, so that
            the network only has to learn what a linear map misses.
        num_networks (`int`): Networks in parallel, each with a projection and a loss of its own; the embedding is the
            mean of theirs. Each reads `alignment_size` outputs of its own of the alignment layer.
        input_dropout (`float`): Share of voxels dropped before the alignment layer while training.
        dropout (`float`): Share of features dropped after each layer while training.
        closed_form (`dict`, *optional*): What the closed form beside the network is made of, as
            [`ClosedFormSettings`] holds it; written by `neural-clip train`.
        confidence_temperature (`dict[str, float]`, *optional*): See [`SensorConfig`].
        trained_on (`list[dict]`, *optional*): See [`SensorConfig`].
    """

    model_type = "neural_clip_fmri"
    _auto_class = "AutoConfig"  # so that the code travels with what is saved
    base_config_key = "fmri_config"

    subjects: list[str] | tuple[str, ...] = ()
    n_voxels: dict[str, int] | None = None
    alignment_size: int = 1024
    hidden_size: int = 768
    num_hidden_layers: int = 1
    linear_path: bool = False
    num_networks: int = 1
    input_dropout: float = 0.0
    dropout: float = 0.5
    closed_form: dict | None = None
    confidence_temperature: dict | None = None
    trained_on: list[dict] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.check_subjects(self.subjects)
        self.subjects = list(self.subjects)
        self.check_confidence_temperature(self.confidence_temperature)
        check_trained_on(self.trained_on)
        self.n_voxels = dict(self.n_voxels or {})
        check_positive(self, "alignment_size", "hidden_size", "num_networks")
        check_few(self, "num_networks", "num_hidden_layers")
        check_shares(self, "input_dropout", "dropout")
        if set(self.n_voxels) != set(self.subjects):
            raise ValueError(
                f"'n_voxels' must give a count for each of 'subjects' {self.subjects}, "
                f"but names {sorted(self.n_voxels)}."
            )
        found = ClosedFormSettings.of(self.closed_form, self.subjects)
        plain: tuple[Any, ...] = (0, 1, False, False, [])
        fits = found is None or plain == (
            found.first_sample, found.decimation, found.shared, found.mixed, found.corpora
        )  # fmt: skip
        check_value("closed_form", self.closed_form, fits, "a map of each subject's own, from all voxels")


MODALITY_CONFIGS: dict[str, Any] = {"eeg": EegConfig, "meg": MegConfig, "fmri": FmriConfig}


class NeuralClipConfig(StrictConfig):
    """Configuration of [`NeuralClipModel`].

    Args:
        eeg_config, meg_config, fmri_config (`dict` or configuration, *optional*): One encoder each; absent ones are
            `None`, and at least one is needed to build a model.
        projection_dim (`int`): Width of the space shared by images and recordings.
        vision_config (`dict` or `CLIPVisionConfig`, *optional*): Architecture of the frozen image tower.
        vision_model_name (`str`, *optional*): Hub name or folder of the image encoder that made the targets.
        vision_revision (`str`, *optional*): Its revision (or the SHA-256 of its weights, for a folder).
        target_space (`dict`, *optional*): Vectors that tell this encoder from others of its name, and the mean that
            was subtracted from the targets; as [`TargetSpace`] holds them.
        image_pooling (`str`): `"projected"` (CLIP's image embedding), `"cls"`, or `"precomputed"` for ready-made
            vectors of another encoder.
        include_vision_tower (`bool`): Whether the tower's weights are part of the checkpoint.
        logit_scale_init_value (`float`): Logarithm of the inverse temperature; 0 is the paper's temperature 1,
            ln(1 / 0.07) = 2.6592 is CLIP's (Radford et al. 2021, arXiv:2103.00020, section 2.5).
        learn_logit_scale (`bool`): Whether the temperature is trained.
        freeze_alignment (`bool`): Leave the alignment layers of every modality as they were initialised: not trained,
            but saved. The control for what training them buys; in the authors' code they never train.
        objective (`str`): `"infonce"` (contrastive; repeats of an image are positives) or `"mse"`: squared distance of
            the normalised embeddings, the control for what contrast buys. It leaves the temperature as it started.
        contrastive_direction (`str`): Of `"infonce"`: `"both"` (symmetric), `"neural_to_image"` (arXiv 2411.09723,
            eq. 1).
        category_level (`bool`): Whether the model learnt categories rather than single images.
    """

    model_type = "neural_clip"
    _auto_class = "AutoConfig"  # so that the code travels with what is saved
    # A `dtype` or an attention implementation that is asked for reaches these too.
    sub_configs: ClassVar[Any] = {
        **{f"{name}_config": kind for name, kind in MODALITY_CONFIGS.items()},
        "vision_config": CLIPVisionConfig,
    }
    # What `Trainer` leaves out of the predictions that it gathers.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["neural_model_output", "vision_model_output"]

    eeg_config: dict | EegConfig | None = None
    meg_config: dict | MegConfig | None = None
    fmri_config: dict | FmriConfig | None = None
    vision_config: dict | CLIPVisionConfig | None = None
    projection_dim: int = 768
    vision_model_name: str | None = None
    vision_revision: str | None = None
    target_space: dict | None = None
    image_pooling: str = "projected"
    include_vision_tower: bool = False
    logit_scale_init_value: float = 2.6592
    learn_logit_scale: bool = True
    freeze_alignment: bool = False
    objective: str = "infonce"
    contrastive_direction: str = "both"
    category_level: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        for name, config_class in MODALITY_CONFIGS.items():
            key = f"{name}_config"
            if isinstance(getattr(self, key), dict):
                written = {"transformers_version": self.transformers_version}
                setattr(self, key, config_class(**(written | getattr(self, key))))
        if isinstance(self.vision_config, dict):
            self.vision_config = CLIPVisionConfig(**self.vision_config)
        super().__post_init__(**kwargs)
        check_positive(self, "projection_dim")
        check_option("image_pooling", self.image_pooling, ("projected", "cls", "precomputed"))
        space = TargetSpace.of(self.target_space)
        if space is not None and space.width not in (None, self.projection_dim):
            raise ValueError(f"'target_space' is {space.width} wide, but 'projection_dim' is {self.projection_dim}.")
        check_option("objective", self.objective, ("infonce", "mse"))
        check_option("contrastive_direction", self.contrastive_direction, ("both", "neural_to_image"))
        if self.include_vision_tower and self.vision_config is None:
            raise ValueError(
                "'include_vision_tower' is True but 'vision_config' is None; give the tower's architecture."
            )

    def data_terms(self) -> dict[str, str | None]:
        """Whether the data that the weights learnt from may be redistributed, by data set; see [`terms_of`]."""
        return terms_of({name: getattr(self, f"{name}_config").trained_on for name in self.modalities})

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities that have an encoder, in the order of `MODALITY_CONFIGS`."""
        return [name for name in MODALITY_CONFIGS if getattr(self, f"{name}_config") is not None]


__all__ = [*(kind.__name__ for kind in MODALITY_CONFIGS.values()), "NeuralClipConfig"]
