"""From what users have (arrays, `mne.Epochs`, NIfTI images, rows of data sets) to what the model takes."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin

from .configuration_neural_clip import AVERAGE_NAME, AVERAGE_SUBJECT, NeuralClipConfig
from .errors import check_option

try:  # resizing by Pillow gives the same pixels with and without torchvision
    from transformers import CLIPImageProcessorPil as ClipPixels
except ImportError:  # before transformers had two backends
    from transformers import CLIPImageProcessor as ClipPixels  # type: ignore[assignment]
SENSOR_KEYS = ("ch_names", "n_chans", "n_times", "sfreq", "tmin", "subjects")
# Two rates or times are the same when they differ by less than this share of a sample: files store rounded values.
SAMPLE_TOLERANCE = 0.01


class NeuralClipProcessor(ProcessorMixin):
    """Checks recordings and turns them into tensors; images go through the CLIP image processor.

    Args:
        recordings (`dict`): What each modality's input must look like: `ch_names`, `n_chans`, `n_times`, `sfreq`
            (Hz), `tmin` (s) and `subjects` for `eeg` and `meg`; `n_voxels` and `subjects` for `fmri`.
        image_settings (`dict`, *optional*): Settings of the CLIP image processor; absent for models of ready-made
            image embeddings.
    """

    _auto_class: Any = "AutoProcessor"  # so that the code travels with what is saved
    # `Trainer` asks the tokenizer of every processor for these; ours has no text.
    tokenizer: Any = SimpleNamespace(eos_token_id=None, bos_token_id=None, pad_token_id=None)

    def __init__(self, recordings: dict | None = None, image_settings: dict | None = None) -> None:
        super().__init__()
        self.recordings = recordings or {}
        self.image_settings = image_settings
        self._image_processor: Any = None

    @classmethod
    def from_config(cls, config: NeuralClipConfig, image_processor: Any = None) -> "NeuralClipProcessor":
        """Make the processor that belongs to a model's configuration."""
        recordings: dict[str, dict] = {}
        for modality in config.modalities:
            settings = getattr(config, f"{modality}_config")
            keys = ("n_voxels", "subjects") if modality == "fmri" else SENSOR_KEYS
            recordings[modality] = {key: getattr(settings, key) for key in keys}
        return cls(recordings, None if image_processor is None else image_processor.to_dict())

    @property
    def image_processor(self) -> Any:
        """The CLIP image processor, or `None` for models of ready-made image embeddings."""
        if self._image_processor is None and self.image_settings is not None:
            self._image_processor = ClipPixels(**self.image_settings)
        return self._image_processor

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that this processor can make."""
        names = [f"{modality}_values" for modality in self.recordings] + ["subject_ids"]
        return names + (["pixel_values"] if self.image_settings is not None else [])

    def __call__(
        self,
        images: Any = None,
        *,
        eeg: Any = None,
        meg: Any = None,
        fmri: Any = None,
        subject: str | Sequence[str] | None = None,
        mask: Any = None,
        ch_names: Sequence[str] | None = None,
        sfreq: float | None = None,
        tmin: float | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Prepare recordings of one modality, or images, or both.

        Args:
            images (`PIL.Image`, array or list of them, *optional*): For the image processor.
            eeg, meg (`mne.Epochs`, array or tensor `(n_chans, n_times)` or `(batch_size, n_chans, n_times)`, a row
                or a list of rows of a prepared data set, *optional*): In the unit of the data set that the model was
                trained on. Epochs are picked by channel name, cropped to the model's window and brought to its
                rate when theirs is higher; an array must fit as it is.
            fmri (nibabel image, array or tensor `(n_voxels,)` or `(batch_size, n_voxels)`, list of arrays of
                different lengths, row or list of rows, *optional*): z-scored responses. An image needs `mask`;
                voxels are taken in C order.
            subject (`str` or list of `str`): Whose recordings these are; rows of a data set say so themselves.
                `"average"` (EEG, MEG) takes the mean of all subjects' alignment layers, for subjects that the model
                does not know.
            mask (nibabel image or array, *optional*): Region of interest; values above 0 are inside.
            ch_names (`list[str]`, *optional*): Channel names of an array, checked against the model's, order included.
            sfreq (`float`, *optional*): Sampling rate of an array in Hz, checked against the model's.
            tmin (`float`, *optional*): First sample of an array in s from image onset, checked against the model's.
            return_tensors (`str`, defaults to `"pt"`): Only torch tensors are made.

        Returns:
            [`BatchFeature`]: `eeg_values`, `meg_values` or `fmri_values` (float32) with `subject_ids` (int64), and
            `pixel_values`.

        Raises:
            ValueError: If channels, rate, window, voxels or subject are not the model's, or a value is not finite.
        """
        check_option("return_tensors", return_tensors, ["pt"])
        given = {"eeg": eeg, "meg": meg, "fmri": fmri}
        modalities = [name for name, value in given.items() if value is not None]
        if len(modalities) > 1 or (not modalities and images is None):
            raise ValueError(
                f"Give recordings of exactly one of 'eeg', 'meg' and 'fmri', or 'images'; got {modalities}."
            )
        data: dict[str, torch.Tensor] = {}
        for modality in modalities:
            spec = self.specification(modality)
            recordings, subject = unpack_rows(given[modality], modality, subject)
            rows: Any
            if modality == "fmri":
                rows = voxel_rows(recordings, mask)
            else:
                check_declared(spec, ch_names, sfreq, tmin)
                rows = sensor_rows(recordings, spec, modality)
            names = subject_names(subject, len(rows), spec["subjects"], modality)
            if modality == "fmri":
                check_voxel_counts(rows, names, spec["n_voxels"])
            data[f"{modality}_values"] = torch.from_numpy(stack_rows(rows, modality))
            data["subject_ids"] = torch.tensor(subject_indices(names, spec["subjects"]), dtype=torch.long)
        if images is not None:
            if self.image_settings is None:
                raise ValueError(
                    "This processor has no image processor: its model was trained on ready-made embeddings."
                )
            data["pixel_values"] = self.image_processor(images=images, return_tensors="pt")["pixel_values"]
        return BatchFeature(data)

    def specification(self, modality: str) -> dict:
        """What an input of one modality must look like."""
        if modality not in self.recordings:
            raise ValueError(f"This model takes no {modality!r} recordings; it takes {sorted(self.recordings)}.")
        return self.recordings[modality]


def unpack_rows(recordings: Any, modality: str, subject: Any) -> tuple[Any, Any]:
    """Take recordings and subjects out of rows of a prepared data set; leave anything else as it is."""
    if isinstance(recordings, Mapping):
        recordings = [recordings] if isinstance(recordings.get("subject"), str) else split_batch(recordings, modality)
    if isinstance(recordings, Sequence) and recordings and isinstance(recordings[0], Mapping):
        for row in recordings:
            if modality not in row or "subject" not in row:
                raise ValueError(f"A row must have the columns {modality!r} and 'subject', but has {sorted(row)}.")
        names = [row["subject"] for row in recordings]
        if subject == AVERAGE_NAME:
            names = [AVERAGE_NAME] * len(names)
        elif subject is not None and subject not in (names, names[0]):
            raise ValueError(f"'subject' is {subject!r}, but the rows are of {sorted(set(names))}.")
        return [np.asarray(row[modality], dtype=np.float32) for row in recordings], names
    return recordings, subject


def split_batch(batch: Mapping, modality: str) -> list[dict]:
    """Turn a batch of columns (`dataset[:8]`) into rows."""
    if modality not in batch or "subject" not in batch:
        raise ValueError(f"A batch must have the columns {modality!r} and 'subject', but has {sorted(batch)}.")
    pairs = zip(batch[modality], batch["subject"], strict=True)
    return [{modality: values, "subject": name} for values, name in pairs]


def check_declared(spec: dict, ch_names: Sequence[str] | None, sfreq: float | None, tmin: float | None) -> None:
    """Compare what is said of an array with what the model expects."""
    if ch_names is not None and spec["ch_names"] is not None and list(ch_names) != list(spec["ch_names"]):
        pairs = enumerate(zip(ch_names, spec["ch_names"], strict=False))
        index = next((i for i, (found, wanted) in pairs if found != wanted), min(len(ch_names), len(spec["ch_names"])))
        raise ValueError(
            f"'ch_names' must be the model's {len(spec['ch_names'])} channels in its order {spec['ch_names'][:4]}..., "
            f"but differs from position {index} on: got {list(ch_names)[index : index + 3]}."
        )
    if sfreq is not None and abs(sfreq - spec["sfreq"]) * spec["n_times"] > SAMPLE_TOLERANCE * spec["sfreq"]:
        raise ValueError(f"'sfreq' must be {spec['sfreq']} Hz for an array, but got {sfreq} Hz; resample it first.")
    if tmin is not None and abs(tmin - spec["tmin"]) * spec["sfreq"] > 0.5:
        raise ValueError(f"'tmin' must be {spec['tmin']} s for an array, but got {tmin} s; cut the window first.")


def sensor_rows(recordings: Any, spec: dict, modality: str) -> np.ndarray:
    """Bring EEG or MEG recordings to `(batch_size, n_chans, n_times)`."""
    if hasattr(recordings, "info") and hasattr(recordings, "get_data"):
        values = epochs_array(recordings, spec)
    else:
        values = to_array(recordings)
        if values.ndim == 2:
            values = values[None]
    expected = (spec["n_chans"], spec["n_times"])
    if values.ndim != 3 or values.shape[1:] != expected:
        raise ValueError(
            f"{modality!r} must have shape (batch_size, {expected[0]}, {expected[1]}) (sensors, samples), "
            f"but got {values.shape}."
        )
    return values


def epochs_array(epochs: Any, spec: dict) -> np.ndarray:
    """Pick channels, lower the rate and cut the window of `mne.Epochs`, where no information is invented."""
    if spec["ch_names"] is not None:
        missing = [name for name in spec["ch_names"] if name not in epochs.ch_names]
        if missing:
            raise ValueError(
                f"The epochs lack {len(missing)} of the model's {len(spec['ch_names'])} channels: {missing[:5]}."
            )
    elif len(epochs.ch_names) != spec["n_chans"]:
        raise ValueError(f"The epochs have {len(epochs.ch_names)} channels; the model takes {spec['n_chans']}.")
    found, wanted = float(epochs.info["sfreq"]), float(spec["sfreq"])
    last = spec["tmin"] + (spec["n_times"] - 1) / wanted
    slack = 1.0 / found
    if epochs.tmin > spec["tmin"] + slack or epochs.tmax < last - slack:
        raise ValueError(
            f"The epochs span {epochs.tmin:.3f} to {epochs.tmax:.3f} s; "
            f"the model needs {spec['tmin']:.3f} to {last:.3f} s."
        )
    if found < wanted * (1 - SAMPLE_TOLERANCE / spec["n_times"]):
        raise ValueError(
            f"The epochs have {found} Hz; the model needs {wanted} Hz, and a higher rate cannot be invented."
        )
    epochs = epochs.copy().load_data()
    if spec["ch_names"] is not None:
        epochs = epochs.pick(list(spec["ch_names"])).reorder_channels(list(spec["ch_names"]))
    if abs(found - wanted) * spec["n_times"] > SAMPLE_TOLERANCE * wanted:
        epochs = epochs.resample(wanted, verbose="error")  # low-pass filters at the new Nyquist frequency
    start = int(np.argmin(np.abs(epochs.times - spec["tmin"])))
    return np.asarray(epochs.get_data(copy=False)[:, :, start : start + spec["n_times"]], dtype=np.float32)


def voxel_rows(recordings: Any, mask: Any) -> list[np.ndarray]:
    """Bring fMRI responses to a list of `(n_voxels,)` arrays."""
    if hasattr(recordings, "affine") and hasattr(recordings, "dataobj"):
        if mask is None:
            raise ValueError("An fMRI image needs 'mask': an image or array whose values above 0 are the region.")
        volume = np.asanyarray(recordings.dataobj)
        inside = np.asanyarray(mask.dataobj if hasattr(mask, "dataobj") else mask) > 0
        if volume.shape[:3] != inside.shape:
            raise ValueError(f"'mask' has shape {inside.shape}, but the image's volumes have {volume.shape[:3]}.")
        if hasattr(mask, "affine") and not np.allclose(mask.affine, recordings.affine, atol=1e-3):
            raise ValueError("'mask' and the image lie in different spaces: their affines differ.")
        return list(np.atleast_2d(volume[inside].T).astype(np.float32))
    if isinstance(recordings, list) and recordings and np.ndim(recordings[0]) == 1:
        return [to_array(row) for row in recordings]
    values = to_array(recordings)
    if values.ndim not in (1, 2):
        raise ValueError(f"'fmri' must have shape (n_voxels,) or (batch_size, n_voxels), but got {values.shape}.")
    return list(np.atleast_2d(values))


def to_array(values: Any) -> np.ndarray:
    """Turn a tensor, array or list into a float32 array."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float32)


def subject_names(subject: str | Sequence[str] | None, count: int, known: list[str], modality: str) -> list[str]:
    """One known subject name a recording, or that of the average subject."""
    if subject is None:
        raise ValueError(f"'subject' is missing; say whose recordings these are: one of {known}.")
    names = [subject] * count if isinstance(subject, str) else list(subject)
    if len(names) != count:
        raise ValueError(f"'subject' names {len(names)} subjects, but there are {count} recordings.")
    unknown = sorted(set(names) - {*known, AVERAGE_NAME})
    if modality == "fmri" and AVERAGE_NAME in names:
        raise ValueError(
            "'subject' is 'average', but there is no average subject for fMRI: voxels of two subjects do not "
            f"correspond. Allowed values are {known}; `neural-clip adapt` fits an alignment layer for a new subject."
        )
    if unknown:
        average = "" if modality == "fmri" else "'average' takes the mean of all subjects' alignment layers, and "
        raise ValueError(
            f"Invalid value for the 'subject' parameter. Allowed values are {known}, but got {unknown}. For subjects "
            f"whom the model has not seen: {average}`neural-clip adapt` fits an alignment layer of their own."
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


def stack_rows(rows: Sequence[np.ndarray], modality: str) -> np.ndarray:
    """Stack recordings, rows of different length followed by zeros; refuse values that are not finite."""
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
