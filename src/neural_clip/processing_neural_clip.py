"""From what users have (arrays, `mne.Epochs`, NIfTI images, rows of data sets) to what the model takes."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import isfinite
from numbers import Real
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers import BatchFeature, ProcessorMixin
from transformers.utils import cached_file

from .configuration_neural_clip import AVERAGE_NAME, AVERAGE_SUBJECT, NeuralClipConfig
from .corpus_inputs import SEPARATOR, corpus_of
from .errors import check_option, loading
from .image_pixels import rgb_images
from .modalities import MODALITIES
from .montage import HINT, Interpolation, Montage, check_modality, check_montage, interpolation
from .preparation import (
    CHANNEL_UNITS,
    SAMPLE_TOLERANCE,
    STATISTICS_FILE,
    UNKNOWN,
    WAY_OUT,
    Preparation,
    Recorded,
    channel_differences,
    check_keeps_places,
    check_prepared_spread,
    facts_of_info,
    places_of_voxels,
    prepared_sensors,
    scale_rows,
    tensor_name,
    to_unit,
)
from .pushing import PushedByTerms
from .terms import check_trained_on, terms_of

try:  # resizing by Pillow gives the same pixels with and without torchvision
    from transformers import CLIPImageProcessorPil as ClipPixels
except ImportError:  # before transformers had two backends
    from transformers import CLIPImageProcessor as ClipPixels  # type: ignore[assignment]
SENSOR_KEYS = ("ch_names", "n_chans", "n_times", "sfreq", "tmin", "subjects")
KINDS: dict[str, tuple[type, ...]] = {
    "subjects": (list,), "n_voxels": (dict,), "ch_names": (list, type(None)), "n_chans": (int,), "n_times": (int,),
    "sfreq": (int, float), "tmin": (int, float),
}  # fmt: skip
OWN_KEYS = {"subjects", "n_voxels"}  # of one group; the others say what its recordings look like
PREPARED = "prepared"
LARGEST_EDGE = 4096  # of pictures that a vision tower takes, in pixels; those of CLIP have 224 to 448


class NeuralClipProcessor(PushedByTerms, ProcessorMixin):
    """Brings recordings to what the model was trained on, or refuses them; images go through the CLIP image processor.

    Args:
        recordings (`dict`): By modality, a list of groups of subjects with what their recordings look like:
            `subjects`, `preparation` (see [`Preparation`]; absent in older checkpoints), `ch_positions` of EEG where
            they are known (m, head frame), and
            `ch_names`, `n_chans`, `n_times`, `sfreq` (Hz) and `tmin` (s) for `eeg` and `meg`, `n_voxels` for `fmri`.
            Where people of several corpora share a network, there is a group for each `corpus`. One group may stand
            without a list.
        image_settings (`dict`, *optional*): Settings of the CLIP image processor; absent for models of ready-made
            image embeddings.
        trained_on (`dict`, *optional*): By modality, the data sets that settings and statistics are of, as
            `trained_on` of [`SensorConfig`] holds them.

    Beside its JSON file lies `scaling.safetensors` with the statistics that recordings are scaled by.
    """

    _auto_class: Any = "AutoProcessor"  # so that the code travels with what is saved
    # `Trainer` asks the tokenizer of every processor for these; ours has no text.
    tokenizer: Any = SimpleNamespace(eos_token_id=None, bos_token_id=None, pad_token_id=None)

    def __init__(
        self, recordings: dict | None = None, image_settings: dict | None = None, trained_on: dict | None = None
    ) -> None:
        super().__init__()
        for modality, groups in (recordings or {}).items():
            if not isinstance(groups, Mapping | list | tuple):
                raise ValueError(f"'recordings' of {modality!r} should be a list of settings, but is {groups!r:.80}.")
        self.recordings: dict[str, list[dict]] = {
            modality: [dict(groups)] if isinstance(groups, Mapping) else list(groups)
            for modality, groups in (recordings or {}).items()
        }
        self.image_settings = image_settings
        self.trained_on: dict[str, list[dict] | None] = dict(trained_on or {})
        for entries in self.trained_on.values():
            check_trained_on(entries)
        self._statistics: dict[str, np.ndarray] = {}
        self._image_processor: Any = None

    @classmethod
    def from_config(
        cls, config: NeuralClipConfig, image_processor: Any = None, preparations: Mapping[str, Any] | None = None,
        statistics: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    ) -> "NeuralClipProcessor":  # fmt: skip
        """Make the processor that belongs to a model's configuration.

        Args:
            config ([`NeuralClipConfig`]): Of the model.
            image_processor (*optional*): Of its image encoder.
            preparations (`Mapping[str, Preparation]`, *optional*): What the rows of each modality went through; those
                of several corpora of one modality by `modality.corpus`.
            statistics (`Mapping[str, Mapping]`, *optional*): By the same names, what is in `scaling.safetensors` of
                each set.
        """
        processor = cls(None, None if image_processor is None else image_processor.to_dict())
        preparations, statistics = preparations or {}, statistics or {}
        for modality in config.modalities:
            settings = getattr(config, f"{modality}_config")
            own: dict[str, list[str]] = {}
            for name in settings.subjects:
                key = f"{modality}.{corpus_of(name)}"
                several = key in preparations or getattr(settings, "corpora", None) is not None
                own.setdefault(key if several else modality, []).append(name)
            for key, subjects in (own or {modality: []}).items():
                processor.add_subjects(
                    settings, modality, subjects, preparations.get(key), statistics.get(key, {}),
                    key.partition(".")[2] or None,
                )  # fmt: skip
        return processor

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load the processor of a checkpoint with the statistics of its scaling; see `ProcessorMixin`."""
        with loading(pretrained_model_name_or_path, kwargs, may_be_file=True):
            loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        processor = loaded[0] if isinstance(loaded, tuple) else loaded
        where = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
        place = {key: kwargs[key] for key in where if kwargs.get(key) is not None}
        if os.path.isfile(pretrained_model_name_or_path):  # processor_config.json itself
            pretrained_model_name_or_path = os.path.dirname(os.path.abspath(pretrained_model_name_or_path))
        path = cached_file(
            pretrained_model_name_or_path, STATISTICS_FILE, _raise_exceptions_for_missing_entries=False, **place
        )
        if path is not None:
            try:
                processor._statistics = load_file(path)
            except SafetensorError as error:
                raise ValueError(f"'{path}' is damaged: {error}. Fetch or copy the checkpoint again.") from error
        return loaded

    def to_json_file(self, json_file_path: Any) -> None:
        """Write the settings, and the statistics beside them; `save_pretrained` calls it before a push."""
        super().to_json_file(json_file_path)
        path = os.path.join(os.path.dirname(json_file_path), STATISTICS_FILE)
        if self._statistics:
            save_file(self._statistics, path)
        elif os.path.exists(path):
            os.remove(path)  # of a processor that was saved here before

    def add_subjects(
        self, config: Any, modality: str, subjects: Sequence[str], preparation: Preparation | None,
        statistics: Mapping[str, np.ndarray], corpus: str | None = None,
    ) -> None:  # fmt: skip
        """Take subjects over, behind those that are there; they join the last group if theirs went through the same.

        Args:
            config (`EegConfig`, `MegConfig` or `FmriConfig`): Of the encoder, these subjects included.
            modality (`str`): Of the recordings.
            subjects (sequence of `str`): In the order of the configuration.
            preparation ([`Preparation`], *optional*): What their rows went through.
            statistics (`Mapping[str, np.ndarray]`): By [`tensor_name`]; those of other subjects are left out.
            corpus (`str`, *optional*): Of these subjects, where people of several share the network.
        """
        keys = SENSOR_KEYS if MODALITIES[modality].sensors else ("n_voxels", "subjects")
        group = {key: getattr(config, key) for key in keys} | {"subjects": list(subjects)}
        if modality == "eeg" and config.ch_positions is not None and config.corpora is None:
            group["ch_positions"] = config.ch_positions
        if not MODALITIES[modality].sensors:
            group["n_voxels"] = {name: config.n_voxels[name] for name in subjects}
        elif subjects and config.corpora is not None:
            group |= config.inputs_of(subjects[0]).as_dict()
        if corpus is not None:
            group["corpus"] = corpus
        if preparation is not None:
            group["preparation"] = preparation.as_dict()
        self.trained_on[modality] = config.trained_on
        groups = self.recordings.setdefault(modality, [])
        shared = [key for key in (*keys, "preparation", "corpus") if key not in OWN_KEYS]
        if groups and all(groups[-1].get(key) == group.get(key) for key in shared):
            for key in OWN_KEYS & groups[-1].keys():
                merged = groups[-1][key] + group[key] if key == "subjects" else groups[-1][key] | group[key]
                groups[-1] = groups[-1] | {key: merged}
        else:
            groups.append(group)
        kept = tuple(f"{tensor_name(subject, '', '')}/" for subject in subjects)
        own = {name: array for name, array in statistics.items() if name.startswith(kept)}
        self._statistics |= {f"{modality}/{name}": array for name, array in own.items()}

    def data_terms(self) -> dict[str, str | None]:
        """Whether the data that this is of may be redistributed, by data set; see [`terms_of`]."""
        return terms_of({modality: self.trained_on.get(modality) for modality in self.recordings})

    def statistics_of(self, modality: str) -> dict[str, np.ndarray]:
        """Statistics of a modality by [`tensor_name`]."""
        start = f"{modality}/"
        return {name.removeprefix(start): array for name, array in self._statistics.items() if name.startswith(start)}

    @property
    def image_processor(self) -> Any:
        """The CLIP image processor, or `None` for models of ready-made image embeddings."""
        if self._image_processor is None and self.image_settings is not None:
            self._image_processor = image_processor_of(self.image_settings)
        return self._image_processor

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that this processor can make."""
        names = [f"{modality}_values" for modality in self.recordings] + ["subject_ids"]
        return names + (["pixel_values"] if self.image_settings is not None else [])

    def __call__(
        self,
        images: Any = None,
        *others: Any,
        eeg: Any = None,
        meg: Any = None,
        fmri: Any = None,
        subject: str | Sequence[str] | None = None,
        session: str | Sequence[str] | None = None,
        unit: str | None = None,
        scaling: str | None = None,
        mask: Any = None,
        ch_names: Sequence[str] | None = None,
        sfreq: float | None = None,
        tmin: float | None = None,
        montage: str | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Prepare recordings of one modality, or images, or both.

        Args:
            images (`PIL.Image`, array or list of them, *optional*): For the image processor.
            eeg, meg (`mne.Epochs` or `Evoked`, array or tensor `(n_chans, n_times)` or `(batch_size, n_chans,
                n_times)`, `datasets.Dataset`, slice, row or list of rows of a prepared data set, *optional*): Epochs
                are recordings as they were recorded, in V, T or T/m: they go through what the model's recordings went
                through, and are refused where they cannot. Arrays and rows are taken as prepared unless `unit` is
                given.
            fmri (nibabel image, array or tensor `(n_voxels,)` or `(batch_size, n_voxels)`, list of arrays of
                different lengths, `datasets.Dataset`, slice, row or list of rows, *optional*): Responses to images.
                An image holds them in the unit that the data set states, and needs `mask`; voxels are taken in C
                order.
            subject (`str` or list of `str`): Whose recordings these are; rows of a data set say so themselves.
                `"average"` (EEG, MEG) takes the mean of all subjects' alignment layers, for subjects that the model
                does not know.
            session (`str` or list of `str`, *optional*): Where recordings are scaled session by session.
            unit (`str`, *optional*): Of arrays as they were recorded, such as `"V"` or `"uV"`; `"prepared"` for
                anything that is prepared already.
            scaling (`str`, *optional*): `"fit"` takes the statistics of the scaling from the recordings that are
                given, 20 of a subject (or session) at least; by default they are those of the training recordings.
            mask (nibabel image or array, *optional*): Region of interest; values above 0 are inside. They must be the
                voxels of the training recordings, in their order.
            ch_names (`list[str]`, *optional*): Channel names of an array, checked against the model's, order included;
                with `montage`, they say which channels there are.
            sfreq (`float`, *optional*): Sampling rate of an array in Hz.
            tmin (`float`, *optional*): First sample of an array in s from image onset.
            montage (`str`, *optional*): `"interpolate"` makes channels of the model that the recordings lack or have
                marked as bad of the channels around them, see [`~NeuralClipProcessor.interpolation`]; by default such
                recordings are refused.
            return_tensors (`str`, defaults to `"pt"`): Only torch tensors are made.

        Returns:
            [`BatchFeature`]: `eeg_values`, `meg_values` or `fmri_values` (float32) with `subject_ids` (int64), and
            `pixel_values`.

        Raises:
            ValueError: If channels, rate, window, voxels, subject, unit, band, baseline, reference, projectors or
                spatial filters are not the model's, statistics are lacking, or a value is not finite.
        """
        check_option("return_tensors", return_tensors, ["pt"])
        check_option("scaling", scaling, [None, "fit"])
        check_montage(montage)
        given = {"eeg": eeg, "meg": meg, "fmri": fmri}
        modalities = [name for name, value in given.items() if value is not None]
        if others or is_recording(images):
            *first, last = (f"{name}=..." for name in given)
            raise ValueError(
                f"Recordings are given by name: {', '.join(first)} or {last}; only 'images' may come first."
            )
        if len(modalities) > 1 or (not modalities and images is None):
            *first, last = map(repr, given)
            raise ValueError(
                f"Give recordings of exactly one of {', '.join(first)} and {last}, or 'images'; got {modalities}."
            )
        data: dict[str, torch.Tensor] = {}
        for modality in modalities:
            groups = self.groups(modality)
            known = [name for group in groups for name in group["subjects"]]
            wanted, session = names_of(subject, "subject", known), names_of(session, "session")
            recordings, subject = unpack_rows(given[modality], modality, wanted)
            if is_mne(recordings):
                recordings = loaded_epochs(recordings)
            count = number_of(recordings, modality)
            names = subject_names(subject, count, known, modality, several=any(map(is_of_corpus, groups)))
            spec = group_of(groups, names)
            sessions = session_names(session, count)
            if montage is not None:
                check_modality(modality)
            if not MODALITIES[modality].sensors:
                rows: Any = self._voxels(recordings, modality, spec, mask, unit, scaling, names, sessions)
            else:
                made = None if montage is None else interpolation_for(spec, recordings, modality, ch_names)
                if made is None:
                    check_declared(spec, ch_names)
                rows = self._sensors(
                    recordings, modality, spec, unit, scaling, names, sessions, sfreq, tmin, made, ch_names
                )
            data[f"{modality}_values"] = torch.from_numpy(stack_rows(rows, modality))
            data["subject_ids"] = torch.tensor(subject_indices(names, known), dtype=torch.long)
        if images is not None:
            if self.image_settings is None:
                raise ValueError(
                    "This processor has no image processor: its model was trained on ready-made embeddings."
                )
            data["pixel_values"] = self.image_processor(images=rgb_images(images), return_tensors="pt")["pixel_values"]
        return BatchFeature(data)

    def interpolation(
        self, modality: str, recordings: Any = None, *, ch_names: Sequence[str] | None = None,
        subject: str = AVERAGE_NAME,
    ) -> Interpolation:  # fmt: skip
        """What `montage="interpolate"` does to recordings: which channels are made of which, by what weights.

        Args:
            modality (`str`): `"eeg"` or `"meg"`.
            recordings (`mne.Epochs`, `Evoked` or `Raw`, *optional*): Whose channels are meant.
            ch_names (`list[str]`, *optional*): Of an array, instead.
            subject (`str`, *optional*): Whose recordings these are, where subjects of the model differ in channels.

        Returns:
            [`Interpolation`]: Its `said` is a sentence, its `as_dict()` what reports hold.

        Raises:
            ValueError: If a channel that is lacking has no known place, or too few are there.
        """
        groups = self.groups(modality)
        known = [name for group in groups for name in group["subjects"]]
        names = subject_names(subject, 1, known, modality, several=any(map(is_of_corpus, groups)))
        return interpolation_for(group_of(groups, names), recordings, modality, ch_names)

    def groups(self, modality: str) -> list[dict]:
        """What inputs of one modality must look like, by groups of subjects."""
        if not self.recordings and self.image_settings is None:
            raise ValueError("This processor has no settings: 'processor_config.json' of the checkpoint is missing.")
        if modality not in self.recordings:
            raise ValueError(f"This model takes no {modality!r} recordings; it takes {sorted(self.recordings)}.")
        for group in self.recordings[modality]:
            check_group(group, modality)
        return self.recordings[modality]

    def _sensors(
        self, recordings: Any, modality: str, spec: dict, unit: str | None, scaling: str | None, names: list[str],
        sessions: list[str], sfreq: float | None, tmin: float | None, made: Interpolation | None,
        ch_names: Sequence[str] | None,
    ) -> Any:  # fmt: skip
        """EEG or MEG of one group, `(batch_size, n_chans, n_times)`; `made` says how its channels are made."""
        from_mne = is_mne(recordings)
        preparation = Preparation.of(spec.get("preparation"))
        check_number("sfreq", sfreq, positive=True)
        check_number("tmin", tmin)
        recorded = recorded_epochs(recordings, spec, made) if from_mne else None
        if recorded is None:
            values = to_array(recordings, modality, np.float64 if raw_unit(unit) else np.float32)
            values = values[None] if values.ndim == 2 else values
            values = values if made is None else interpolated(values, made, ch_names or (), modality)
            recorded = Recorded(
                values, str(unit), float(sfreq or spec["sfreq"]), float(spec["tmin"] if tmin is None else tmin)
            )
        elif raw_unit(unit):
            raise ValueError(f"'unit' is {unit!r}, but mne holds V, T and T/m; leave it out, or say 'prepared'.")
        if (from_mne and unit is None) or raw_unit(unit):
            preparation = repeatable(preparation)
            recorded.values = np.asarray(recorded.values, dtype=np.float64)
            whole = from_mne or not (sfreq is None and tmin is None)  # its window may be longer than the model's
            check_channels(recorded.values, spec["n_chans"], None if whole else spec["n_times"], modality)
            values = prepared_sensors(recorded, spec, preparation)
            return scale_rows(
                values, preparation, list(zip(names, sessions, strict=True)), self.statistics_of(modality),
                fit=scaling == "fit",
            )  # fmt: skip
        refuse_fit(scaling)
        if from_mne:  # prepared epochs: window and rate alone
            return prepared_sensors(recorded, spec, Preparation(unit=recorded.unit))
        check_grid(spec, sfreq, tmin)
        if recorded.values.shape[1:] != (spec["n_chans"], spec["n_times"]):
            raise ValueError(
                f"{modality!r} must have shape (batch_size, {spec['n_chans']}, {spec['n_times']}) (sensors, samples), "
                f"but got {recorded.values.shape}."
            )
        if preparation is not None and unit is None:
            check_prepared_spread(recorded.values, preparation)
        return recorded.values

    def _voxels(
        self, recordings: Any, modality: str, spec: dict, mask: Any, unit: str | None, scaling: str | None,
        names: list[str], sessions: list[str],
    ) -> list[np.ndarray]:  # fmt: skip
        """FMRI of one group, a list of `(n_voxels,)`."""
        preparation = Preparation.of(spec.get("preparation"))
        image = is_image(recordings)
        rows = voxel_rows(recordings, mask, modality)
        check_voxel_counts(rows, names, spec["n_voxels"])
        if image:
            check_places(mask_array(mask), names, self.statistics_of(modality))
        if (image and unit is None) or raw_unit(unit):
            preparation = repeatable(preparation)
            factor = 1.0 if unit is None else to_unit(unit, preparation.unit)
            rows = [np.asarray(row, dtype=np.float64) * factor for row in rows]
            return scale_rows(
                rows, preparation, list(zip(names, sessions, strict=True)), self.statistics_of(modality),
                fit=scaling == "fit",
            )  # fmt: skip
        refuse_fit(scaling)
        if preparation is not None and unit is None:
            check_prepared_spread(rows, preparation)
        return rows


def raw_unit(unit: str | None) -> bool:
    """Whether recordings are as they were recorded."""
    return unit is not None and unit != PREPARED


def refuse_fit(scaling: str | None) -> None:
    """There is nothing to fit for rows that are prepared."""
    if scaling is not None:
        raise ValueError("scaling='fit' is for recordings as they were recorded; say their 'unit'.")


def repeatable(preparation: Preparation | None) -> Preparation:
    """The preparation, or a `ValueError` where recordings cannot be brought to what the model was trained on."""
    obstacle = (
        "the checkpoint does not say what its recordings went through (unit, band, baseline, reference, scaling); an "
        "older version wrote it or its data set"
        if preparation is None
        else preparation.obstacle
    )
    if preparation is None or obstacle is not None:
        raise ValueError(
            f"Recordings as they were recorded cannot be used: {obstacle}. Rows of a data set prepared alike can, and "
            "whatever you prepared alike yourself with unit='prepared'."
            + (f" {WAY_OUT}" if preparation is not None and preparation.scaling == UNKNOWN else "")
        )
    return preparation


def is_of_corpus(group: Mapping) -> bool:
    """Whether people of several corpora share the network."""
    return group.get("corpus") is not None


def check_group(group: Any, modality: str) -> None:
    """Raise unless the settings of a group of subjects are of the types that they are written with."""
    for key in SENSOR_KEYS if MODALITIES[modality].sensors else ("n_voxels", "subjects"):
        value = group.get(key) if isinstance(group, Mapping) else group
        fits = isinstance(value, KINDS[key]) and not isinstance(value, bool)
        if not fits or (key in ("n_chans", "n_times", "sfreq") and not 0 < group[key] < math.inf):
            raise ValueError(
                f"'processor_config.json' of the checkpoint is damaged: {key!r} of {modality!r} recordings is "
                f"{value!r:.80}. Fetch or copy the checkpoint again."
            )
    for key, expected, fits in (
        ("subjects", "names", all(isinstance(name, str) for name in group["subjects"])),
        ("ch_names", "names", all(isinstance(name, str) for name in group.get("ch_names") or ())),
        ("n_voxels", "a count of each subject", MODALITIES[modality].sensors or all(
            isinstance(name, str) and is_count(group["n_voxels"].get(name)) for name in group["subjects"])),
        ("corpus", "a name", isinstance(group.get("corpus"), str | None)),
        ("preparation", "what recordings went through", is_preparation(group.get("preparation"))),
        ("ch_positions", f"three numbers of each of {group.get('n_chans')} channels",
         group.get("ch_positions") is None or are_places(group["ch_positions"], group.get("n_chans"))),
    ):  # fmt: skip
        if not fits:
            raise ValueError(
                f"'processor_config.json' of the checkpoint is damaged: {key!r} of {modality!r} recordings should be "
                f"{expected}, but is {group[key]!r:.80}. Fetch or copy the checkpoint again."
            )


def is_preparation(content: Any) -> bool:
    """Whether this is what a [`Preparation`] is written as; steps of later versions are told where they matter."""
    if not isinstance(content, Mapping):
        return content is None
    known = {entry.name for entry in fields(Preparation)}
    try:
        Preparation(**{key: content[key] for key in content if key in known})
    except (TypeError, ValueError):
        return False
    return True


def is_count(value: Any) -> bool:
    """Whether this is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def are_places(places: Any, n_chans: int | None) -> bool:
    """Whether these are the places of so many channels."""
    try:
        return np.array(places).dtype.kind in "if" and np.shape(places) == (n_chans, 3)
    except ValueError:
        return False


def image_processor_of(settings: Any) -> Any:
    """The CLIP image processor of `image_settings`, which come from a file and may be damaged."""
    try:
        made = ClipPixels(**settings)
        check_image_processor(made)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            "'processor_config.json' of the checkpoint is damaged: no image can be prepared by its 'image_settings' "
            f"({error}). Fetch or copy the checkpoint again."
        ) from error
    return made


def check_image_processor(processor: Any) -> tuple[int, ...]:
    """The shape of what an image processor makes of a picture, `(3, height, width)`; an error where it makes none."""
    for key in ("size", "crop_size"):
        edges = [edge for edge in dict(getattr(processor, key, None) or {}).values() if edge is not None]
        if not all(isinstance(edge, int) and 0 < edge <= LARGEST_EDGE for edge in edges):
            raise ValueError(f"{key!r} should be edges from 1 to {LARGEST_EDGE} pixels, but is {edges}")
    pixels = processor(images=np.full((8, 8, 3), 128, dtype=np.uint8), return_tensors="pt")["pixel_values"]
    if not torch.isfinite(pixels).all():
        raise ValueError("pixels become NaN or infinite")
    return tuple(pixels.shape[1:])


def is_mne(recordings: Any) -> bool:
    """Whether these are `mne.Epochs`, `Evoked` or `Raw`."""
    return hasattr(recordings, "info") and hasattr(recordings, "get_data")


def is_image(recordings: Any) -> bool:
    """Whether this is an image as nibabel reads it."""
    return hasattr(recordings, "affine") and hasattr(recordings, "dataobj")


def is_recording(images: Any) -> bool:
    """Whether what was given as images are recordings."""
    rows = isinstance(images, Mapping) or (isinstance(images, list) and images and isinstance(images[0], Mapping))
    return is_mne(images) or is_image(images) or bool(rows)


def unpack_rows(recordings: Any, modality: str, subject: Any) -> tuple[Any, Any]:
    """Take recordings and subjects out of rows of a prepared data set; leave anything else as it is."""
    if isinstance(recordings, str | bytes | os.PathLike):
        raise ValueError(f"{modality!r} is the path or name {os.fspath(recordings)!r}; read the file first.")
    if hasattr(recordings, "column_names") and hasattr(recordings, "select_columns"):  # a datasets.Dataset
        if not hasattr(recordings, "__len__"):
            raise ValueError(f"{modality!r} is an iterable data set; give some of its rows: list(dataset.take(8)).")
        if isinstance(recordings.column_names, Mapping):
            raise ValueError(f"{modality!r} is a data set of the splits {sorted(recordings)}; choose one of them.")
        wanted = [name for name in (modality, "subject") if name in recordings.column_names]
        recordings = (
            recordings.select_columns(wanted).with_format("numpy")[:]
            if len(wanted) == 2
            else dict.fromkeys(recordings.column_names)
        )
    if isinstance(recordings, Mapping):
        recordings = [recordings] if isinstance(recordings.get("subject"), str) else split_batch(recordings, modality)
    if isinstance(recordings, Sequence) and len(recordings) and isinstance(recordings[0], Mapping):
        for row in recordings:
            if modality not in row or "subject" not in row:
                raise ValueError(f"A row must have the columns {modality!r} and 'subject', but has {sorted(row)}.")
        names = [row["subject"] for row in recordings]
        if subject == AVERAGE_NAME:
            names = [AVERAGE_NAME] * len(names)
        elif subject is not None and subject not in (names, names[0]):
            said = [subject] * len(names) if isinstance(subject, str) else list(subject)
            if [name.partition(SEPARATOR)[2] for name in said] != names:  # rows do not name their corpus
                raise ValueError(f"'subject' is {subject!r}, but the rows are of {sorted(set(names))}.")
            names = said
        return [to_array(row[modality], modality) for row in recordings], names
    if isinstance(recordings, Sequence) or (isinstance(recordings, np.ndarray) and recordings.dtype.kind == "O"):
        recordings = list(recordings[:])  # arrays of different lengths, tuples, columns of a data set
    return recordings, subject


def split_batch(batch: Mapping, modality: str) -> list[dict]:
    """Turn a batch of columns (`dataset[:8]`) into rows."""
    if modality not in batch or "subject" not in batch:
        raise ValueError(f"A batch must have the columns {modality!r} and 'subject', but has {sorted(batch)}.")
    pairs = zip(batch[modality], batch["subject"], strict=True)
    return [{modality: values, "subject": name} for values, name in pairs]


def names_of(given: Any, what: str, known: Sequence[str] | None = None) -> Any:
    """A name, a list of names, or `None`, from whatever holds them."""
    names = given.tolist() if hasattr(given, "tolist") else given  # arrays and series
    if names is None or isinstance(names, str):
        return names
    names = list(names) if hasattr(names, "__iter__") else [names]
    if not all(isinstance(name, str) for name in names):
        allowed = "" if known is None else f"; allowed are {known}"
        raise ValueError(f"{what!r} is a name or a list of names, but got {given!r}{allowed}.")
    return names


def check_number(what: str, value: Any, *, positive: bool = False) -> None:
    """A stated rate or time must be one."""
    if value is None:
        return
    if not isinstance(value, Real) or not isfinite(value) or (positive and value <= 0):
        raise ValueError(f"{what!r} is a {'positive ' if positive else ''}number, but got {value!r}.")


def loaded_epochs(epochs: Any) -> Any:
    """Epochs in memory, the rejected ones dropped; anything else that mne makes is refused."""
    name = type(epochs).__name__
    if hasattr(epochs, "freqs") or not hasattr(epochs, "times"):
        raise ValueError(f"mne.Epochs or Evoked are needed, but got {name}: frequencies, not samples in time.")
    if not hasattr(epochs, "tmin") or hasattr(epochs, "first_samp"):
        raise ValueError(
            f"These are continuous recordings ({name}); cut them at the image onsets: "
            "mne.Epochs(raw, events, tmin=..., tmax=...)."
        )
    if getattr(epochs, "kind", "average") != "average":
        raise ValueError(f"mne.Epochs or averages of them are needed, but got {name} of the kind {epochs.kind!r}.")
    return epochs if getattr(epochs, "preload", True) else epochs.copy().load_data()


def number_of(recordings: Any, modality: str) -> int:
    """How many recordings there are."""
    if is_mne(recordings):
        if not (count := len(recordings) if hasattr(recordings, "events") else 1):
            raise ValueError("There are no epochs; were all of them rejected?")
        return count
    if is_image(recordings):
        return 1 if len(recordings.shape) < 4 else int(recordings.shape[3])
    voxels = not MODALITIES[modality].sensors
    if voxels and isinstance(recordings, list) and recordings and np.ndim(recordings[0]) == 1:
        return len(recordings)
    values = to_array(recordings, modality)
    if not values.size:
        raise ValueError(f"{modality!r} is empty: shape {values.shape}.")
    return 1 if values.ndim == (1 if voxels else 2) else len(values)


def group_of(groups: list[dict], names: list[str]) -> dict:
    """The group of all these subjects; the average subject is of the first."""
    found = [groups[0] if name == AVERAGE_NAME else next(g for g in groups if name in g["subjects"]) for name in names]
    if any(group is not found[0] for group in found):
        raise ValueError(
            f"The recordings of {sorted(set(names))} go through different steps; give each group by itself."
        )
    return found[0]


def session_names(session: Any, count: int) -> list[str]:
    """One session a recording, `""` where none is stated."""
    names = [session or ""] * count if session is None or isinstance(session, str) else list(session)
    if len(names) != count:
        raise ValueError(f"'session' names {len(names)} sessions, but there are {count} recordings.")
    return names


def interpolation_for(
    spec: dict, recordings: Any, modality: str, ch_names: Sequence[str] | None
) -> Interpolation:  # fmt: skip
    """How the channels of a group of subjects are made of those of recordings."""
    check_modality(modality)
    if spec["ch_names"] is None:
        raise ValueError("Channels cannot be interpolated: the checkpoint does not say what the model's are called.")
    if is_mne(recordings):
        montage = Montage.of_info(recordings.info, modality)
    elif ch_names is None:
        raise ValueError("'montage' needs to know the channels of an array: give their names by 'ch_names'.")
    else:
        montage = Montage.of_names(ch_names, modality)
    places = spec.get("ch_positions")
    made = interpolation(montage, tuple(spec["ch_names"]), None if places is None else tuple(map(tuple, places)))
    if made.interpolated or made.left_out:
        check_keeps_places(Preparation.of(spec.get("preparation")), "the recordings that the model was trained on")
    return made


def interpolated(values: np.ndarray, made: Interpolation, ch_names: Sequence[str], modality: str) -> np.ndarray:
    """An array with the model's channels."""
    if values.ndim != 3 or values.shape[1] != len(ch_names):
        raise ValueError(
            f"{modality!r} must have shape (batch_size, {len(ch_names)}, n_times), because 'ch_names' names "
            f"{len(ch_names)} channels, but got {values.shape}."
        )
    return made.applied(values[:, [list(ch_names).index(name) for name in made.recorded]])


def check_declared(spec: dict, ch_names: Sequence[str] | None) -> None:
    """Compare the channels that an array is said to have with the model's."""
    if ch_names is not None and spec["ch_names"] is not None and list(ch_names) != list(spec["ch_names"]):
        raise ValueError(
            f"'ch_names' must be the model's {len(spec['ch_names'])} channels in its order {spec['ch_names'][:4]}..., "
            f"but {channel_differences(ch_names, spec['ch_names'])}. {HINT}"
        )


def check_grid(spec: dict, sfreq: float | None, tmin: float | None) -> None:
    """Compare rate and first sample of prepared rows with the model's."""
    if sfreq is not None and abs(sfreq - spec["sfreq"]) * spec["n_times"] > SAMPLE_TOLERANCE * spec["sfreq"]:
        raise ValueError(f"'sfreq' must be {spec['sfreq']} Hz for an array, but got {sfreq} Hz; resample it first.")
    if tmin is not None and abs(tmin - spec["tmin"]) * spec["sfreq"] > 0.5:
        raise ValueError(f"'tmin' must be {spec['tmin']} s for an array, but got {tmin} s; cut the window first.")


def check_channels(values: np.ndarray, n_chans: int, n_times: int | None, modality: str) -> None:
    """An array as recorded must have the model's channels, and its window unless rate or first sample are stated."""
    if values.ndim != 3 or values.shape[1] != n_chans or n_times not in (None, values.shape[2]):
        samples = "n_times" if n_times is None else f"{n_times}"
        hint = "" if n_times is None else " Other windows need 'sfreq' and 'tmin'."
        raise ValueError(
            f"{modality!r} must have shape (batch_size, {n_chans}, {samples}), but got {values.shape}.{hint}"
        )


def recorded_epochs(epochs: Any, spec: dict, made: Interpolation | None = None) -> Recorded:
    """The model's channels of `mne.Epochs` or `Evoked`, with what their `info` says."""
    names = own_names(epochs, spec) if made is None else list(made.recorded)
    types = dict(zip(epochs.ch_names, epochs.get_channel_types(), strict=True))
    kinds = {types[name] for name in names} if made is None else made.kinds
    units = {str(CHANNEL_UNITS.get(kind, kind)) for kind in kinds}
    if len(units) > 1 or not units <= set(CHANNEL_UNITS.values()):
        raise ValueError(f"The model's channels are of the types {sorted(kinds)}.")
    values = to_array(epochs.get_data(picks=names), "epochs", np.float64)
    values = values if made is None else made.applied(values)
    return Recorded(
        values if values.ndim == 3 else values[None], units.pop(), float(epochs.info["sfreq"]), float(epochs.times[0]),
        baseline=None if epochs.baseline is None else tuple(epochs.baseline), **facts_of_info(epochs.info, names),
    )  # fmt: skip


def own_names(epochs: Any, spec: dict) -> list[str]:
    """Names of the model's channels, all of which must be there and good."""
    names = list(epochs.ch_names if spec["ch_names"] is None else spec["ch_names"])
    missing = [name for name in names if name not in epochs.ch_names]
    if missing:
        raise ValueError(
            f"The epochs lack {len(missing)} of the model's {len(names)} channels: {_some(missing)}. They have "
            f"{_some(epochs.ch_names)}. {HINT}"
        )
    if len(names) != spec["n_chans"]:
        raise ValueError(f"The epochs have {len(names)} channels; the model takes {spec['n_chans']}.")
    bads = [name for name in names if name in epochs.info["bads"]]
    if bads:
        raise ValueError(f"Channels that the model needs are marked bad: {bads[:5]}. {HINT} Or take the mark away.")
    return names


def _some(names: list[str]) -> list[str]:
    """The first five names."""
    return [*names[:5], "..."] if len(names) > 5 else list(names)


def voxel_rows(recordings: Any, mask: Any, modality: str) -> list[np.ndarray]:
    """Bring fMRI responses to a list of `(n_voxels,)` arrays."""
    if is_image(recordings):
        if mask is None:
            raise ValueError("An fMRI image needs 'mask': an image or array whose values above 0 are the region.")
        if len(recordings.shape) not in (3, 4):
            raise ValueError(
                f"An fMRI image has 3 axes, or 4 for several volumes, but this has shape {recordings.shape}."
            )
        inside = mask_array(mask)
        if recordings.shape[:3] != inside.shape:
            raise ValueError(f"'mask' has shape {inside.shape}, but the image's volumes have {recordings.shape[:3]}.")
        if hasattr(mask, "affine") and not np.allclose(mask.affine, recordings.affine, atol=1e-3):
            raise ValueError("'mask' and the image lie in different spaces: their affines differ.")
        return list(np.atleast_2d(to_array(np.asanyarray(recordings.dataobj)[inside].T, modality)))
    if isinstance(recordings, list) and recordings and np.ndim(recordings[0]) == 1:
        return [to_array(row, modality) for row in recordings]
    values = to_array(recordings, modality)
    if values.ndim not in (1, 2):
        raise ValueError(
            f"{modality!r} must have shape (n_voxels,) or (batch_size, n_voxels), but got {values.shape}."
        )
    return list(np.atleast_2d(values))


def mask_array(mask: Any) -> np.ndarray:
    """Which voxels are inside, bool `(x, y, z)`."""
    if isinstance(mask, str | os.PathLike):
        raise ValueError(f"'mask' is the path {os.fspath(mask)!r}; read the file first.")
    values = np.asanyarray(mask.dataobj if hasattr(mask, "dataobj") else mask)
    return (values[..., 0] if values.ndim == 4 and values.shape[3] == 1 else values) > 0


def to_array(values: Any, modality: str, dtype: Any = np.float32) -> np.ndarray:
    """Turn a tensor, array or list of real numbers into an array."""
    kind = type(values).__name__
    try:
        if isinstance(values, torch.Tensor):
            values = (values.float() if values.dtype == torch.bfloat16 else values).numpy(force=True)
        if np.ma.is_masked(values):
            raise ValueError(f"{np.ma.count_masked(values)} of its values are masked")
        array = np.asarray(values)
        if array.dtype.kind not in "biufO" or not array.ndim:
            raise ValueError(f"it holds {array.dtype} of shape {array.shape}")
        return array.astype(dtype, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{modality!r} must be numbers of one shape, but got {kind}: {error}.") from error


def subject_names(
    subject: str | Sequence[str] | None, count: int, known: list[str], modality: str, several: bool = False
) -> list[str]:
    """One known subject name a recording, or that of the average subject, whom people of several corpora have not."""
    if subject is None:
        raise ValueError(f"'subject' is missing; say whose recordings these are: one of {known}.")
    names = [subject] * count if isinstance(subject, str) else list(subject)
    if len(names) != count:
        raise ValueError(f"'subject' names {len(names)} subjects, but there are {count} recordings.")
    unknown = sorted(set(names) - {*known, AVERAGE_NAME})
    sensors = MODALITIES[modality].sensors
    if not sensors and AVERAGE_NAME in names:
        raise ValueError(
            "'subject' is 'average', but there is no average subject for fMRI: voxels of two subjects do not "
            f"correspond. Allowed values are {known}; `neural-clip adapt` fits an alignment layer for a new subject."
        )
    if several and AVERAGE_NAME in names:
        raise ValueError(
            "'subject' is 'average', but people of several corpora have no average subject: their recordings differ. "
            f"Allowed values are {known}."
        )
    if unknown:
        average = "" if not sensors else "'average' takes the mean of all subjects' alignment layers, and "
        unseen = (
            f" For subjects whom the model has not seen: {average}`neural-clip adapt` fits an alignment layer of "
            "their own."
        )
        raise ValueError(
            f"Invalid value for the 'subject' parameter. Allowed values are {known}, but got {unknown}."
            f"{'' if several else unseen}"
        )
    return names


def subject_indices(names: list[str], known: list[str]) -> list[int]:
    """Entries of `subject_ids`."""
    return [AVERAGE_SUBJECT if name == AVERAGE_NAME else known.index(name) for name in names]


def check_voxel_counts(rows: Sequence[np.ndarray], names: list[str], n_voxels: dict[str, int]) -> None:
    """Each row must be as long as its subject's region."""
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        if len(row) != n_voxels[name]:
            raise ValueError(f"Recording {index} of {name!r} must hold {n_voxels[name]} voxels, but holds {len(row)}.")


def check_places(inside: np.ndarray, names: list[str], known: Mapping[str, np.ndarray]) -> None:
    """The mask must mark the voxels that each subject's training recordings had, where the checkpoint knows them."""
    for subject in dict.fromkeys(names):
        for name, places in places_of_voxels(subject, inside).items():
            if name in known and not np.array_equal(known[name], places):
                raise ValueError(
                    f"'mask' marks other voxels than those of {subject!r} that the model was trained on, or the same "
                    "in another order. Give image and mask as the files hold them, not reoriented or resampled."
                )


def stack_rows(rows: Sequence[np.ndarray], modality: str) -> np.ndarray:
    """Stack recordings, rows of different length followed by zeros; refuse values that are not finite."""
    if not len(rows):
        raise ValueError(f"{modality!r} is empty: there are no recordings.")
    length = max(row.shape[-1] for row in rows)
    stacked = np.zeros((len(rows), *rows[0].shape[:-1], length), dtype=np.float32)
    for index, row in enumerate(rows):
        if not np.isfinite(row).all():
            raise ValueError(
                f"Recording {index} in {modality!r} holds {int((~np.isfinite(row)).sum())} values that are not finite "
                "(NaN or infinite); all must be finite."
            )
        stacked[index, ..., : row.shape[-1]] = row
    return stacked


__all__ = ["NeuralClipProcessor"]
