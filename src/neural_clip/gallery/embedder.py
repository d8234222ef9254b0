"""A model and its processor as what makes vectors of recordings and images, and the identity of a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from neural_clip.errors import DataError, check_option, check_value
from neural_clip.files.record import check_record
from neural_clip.gallery.embedding import embed_split
from neural_clip.gallery.fit import check_preparation, interpolation_of
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.targets.identity import EncoderIdentity

if TYPE_CHECKING:
    import torch

    from neural_clip.modeling_neural_clip import NeuralClipModel
    from neural_clip.montage import Interpolation
    from neural_clip.processing_neural_clip import NeuralClipProcessor

BATCH = 64  # recordings or images a forward pass; another size changes the last bits
# A tokenizer is set anew for each call, and refuses two threads at once.
TOKENIZING = Lock()
# Arguments of the processor that say what recordings are.
SAID = ("session", "unit", "scaling", "mask", "ch_names", "sfreq", "tmin", "montage")


@dataclass(frozen=True)
class CheckpointIdentity:
    """What embedded recordings.

    Args:
        name (`str`): Of the checkpoint, as it was given.
        sha256 (`str`): Of its weights, without those of an image tower.
    """

    name: str
    sha256: str

    @classmethod
    def of(cls, model: NeuralClipModel) -> CheckpointIdentity:
        """Weights as they are saved, in order of their names, with type and shape."""
        digest, halves = hashlib.sha256(), model.maps_in_half()
        for name, tensor in sorted(model.state_dict().items()):
            if not name.startswith("vision_model."):
                tensor = (tensor.half() if name in halves else tensor).detach().cpu().contiguous()
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.flatten().view(_bytes()).numpy().data)
        return cls(Path(model.name_or_path or "a model in memory").name, digest.hexdigest())

    def require(self, other: CheckpointIdentity, by: str, where: str) -> None:
        """Raise a `DataError` unless another checkpoint has the same weights."""
        if self.sha256 != other.sha256:
            raise DataError(
                f"{by} has the recordings of the checkpoint '{self.name}' (weights {self.sha256[:12]}), but {where} "
                f"is '{other.name}' (weights {other.sha256[:12]}). Recordings of two checkpoints are not comparable; "
                "embed them with one."
            )


def _bytes() -> Any:
    import torch

    return torch.uint8


@dataclass(frozen=True, eq=False)
class PreparedQuery:
    """Recordings of one modality as the processor makes them.

    Args:
        modality (`str`): `"eeg"`, `"meg"` or `"fmri"`.
        values (`torch.FloatTensor` of shape `(n, ...)`), subject_ids (`torch.LongTensor` of shape `(n,)`): For the
            model.
    """

    modality: str
    values: torch.Tensor
    subject_ids: torch.Tensor


@contextmanager
def telling(modality: str) -> Iterator[None]:
    """Turn what processor and model say of recordings into a [`DataError`]."""
    try:
        yield
    except ValueError as error:
        raise DataError(f"The {MODALITIES[modality].title} recordings cannot be embedded: {error}") from error


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Recordings one after the other; zeros follow voxels, channels and samples where others have more."""
    import torch

    if len(parts) == 1:
        return parts[0]
    most = np.max([part.shape[1:] for part in parts], axis=0)
    missing = [[n for lack in (most - part.shape[1:])[::-1] for n in (0, int(lack))] for part in parts]
    return torch.cat([torch.nn.functional.pad(part, lack) for part, lack in zip(parts, missing, strict=True)])


def load_model(checkpoint: str | Path) -> NeuralClipModel:
    """Model of a checkpoint, in evaluation mode.

    Args:
        checkpoint (`str` or `Path`): Folder or Hub name.

    Raises:
        DataError: If there is no such checkpoint, its files are damaged or not those of its record, or its weights
            are not finite.
    """
    from neural_clip.modeling_neural_clip import NeuralClipModel

    if Path(checkpoint).is_dir():
        check_record(checkpoint)
    try:
        model = NeuralClipModel.from_pretrained(str(checkpoint)).eval()
    except (ImportError, OSError, ValueError) as error:
        raise DataError(f"'{checkpoint}' is no readable checkpoint of a NeuralClipModel: {error}") from error
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not _is_finite(tensor):
            raise DataError(f"The weights of '{checkpoint}' are not finite: '{name}' holds NaN or infinite values.")
    return model


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether no weight is NaN or infinite: a finite sum shows it in one pass; one that is not may have overflowed."""
    import torch

    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())


@dataclass(frozen=True, eq=False)
class Embedder:
    """A model with its processor.

    Args:
        model ([`NeuralClipModel`]): In `eval()` mode.
        processor ([`NeuralClipProcessor`]): What brings recordings and images to the model, or refuses them.
    """

    model: NeuralClipModel
    processor: NeuralClipProcessor

    @classmethod
    def of(cls, model: Any, processor: NeuralClipProcessor | None = None) -> Embedder:
        """Of a model, or the folder or Hub name of a checkpoint, whose processor lies beside it.

        A model that was never saved gets the processor of its configuration, which knows no units.

        Raises:
            DataError: If the checkpoint or its processor cannot be read; see [`load_model`].
        """
        from neural_clip.configuration_neural_clip import NeuralClipConfig
        from neural_clip.processing_neural_clip import NeuralClipProcessor

        if isinstance(model, Embedder):
            return model
        kind = getattr(getattr(model, "config", None), "model_type", None)  # a remote copy has a class of its own
        if not isinstance(model, str | Path) and kind != NeuralClipConfig.model_type:
            found = f"a {type(model).__name__}" if hasattr(model, "config") else f"{model!r:.80}"
            raise DataError(f"A gallery needs a NeuralClipModel or the folder of a checkpoint, but got {found}.")
        place = str(model) if isinstance(model, str | Path) else getattr(model, "name_or_path", "")
        if isinstance(model, str | Path):
            model = load_model(model)
        try:
            if processor is None:
                known = NeuralClipProcessor.from_pretrained(place) if place else None
                processor = known or NeuralClipProcessor.from_config(model.config)
        except (OSError, ValueError) as error:
            raise DataError(f"'{place}' is no readable checkpoint with its processor: {error}") from error
        return cls(model.eval(), processor)

    @cached_property
    def identity(self) -> CheckpointIdentity:
        """Of the checkpoint."""
        return CheckpointIdentity.of(self.model)

    @property
    def encoder(self) -> EncoderIdentity | None:
        """What embedded the images that the model learnt; `None` where its configuration names nothing."""
        return EncoderIdentity.of_config(self.model.config)

    @property
    def modalities(self) -> list[str]:
        """That the model has."""
        return list(self.model.config.modalities)

    def known(self, modality: str) -> list[str]:
        """Whom the model knows of a modality."""
        config = getattr(self.model.config, f"{modality}_config", None)
        return [] if config is None else list(config.subjects)

    def embed_images(self, images: Sequence[Any]) -> np.ndarray:
        """Vectors of images of Pillow or arrays, `(n_images, projection_dim)` float32, not normalised."""
        import torch

        found = []
        for start in range(0, len(images), BATCH):
            try:
                pixels = self.processor(images=list(images[start : start + BATCH]))["pixel_values"]
                self._check_size(tuple(pixels.shape[2:]))
                with torch.no_grad():
                    found.append(self.model.get_image_features(pixels.to(self.model.device)).float().cpu().numpy())
            except (OSError, ValueError) as error:
                raise DataError(f"The images cannot be embedded by '{self.identity.name}': {error}") from error
        return np.concatenate(found)

    def _check_size(self, size: tuple[int, ...]) -> None:
        """Raise unless pictures of the processor are as large as the image tower takes them."""
        edge = self.model.vision_tower().config.image_size
        if size != (edge, edge):
            raise ValueError(
                f"'processor_config.json' of the checkpoint makes pictures of {size[0]} x {size[1]} pixels, but its "
                f"image tower takes {edge} x {edge}. Fetch or copy the checkpoint again."
            )

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts, `(n_texts, projection_dim)` float32, not normalised.

        Raises:
            DataError: If a text is empty or too long, or the model's image encoder has no text tower.
        """
        import torch

        for text in texts:
            check_value("text", text, isinstance(text, str) and bool(text.strip()), "a text that is not empty")
        try:
            with TOKENIZING:
                tokens = self.model.tokenizer(list(texts), padding=True, return_tensors="pt")
            longest = self.model.text_tower()[0].config.max_position_embeddings
            if tokens["input_ids"].shape[1] > longest:
                raise DataError(f"A text has {tokens['input_ids'].shape[1]} tokens; the text tower takes {longest}.")
            with torch.no_grad():
                found = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
        except (OSError, ValueError) as error:
            raise DataError(f"The text cannot be embedded by '{self.identity.name}': {error}") from error
        return found.float().cpu().numpy()

    def embed_recordings(
        self, recordings: Any, subject: Any = None, modality: str | None = None, **said: Any
    ) -> tuple[str, np.ndarray]:
        """Modality and vectors of recordings; see [`NeuralGallery.decode`].

        Returns:
            `tuple` of `str` and `np.ndarray` `(n, projection_dim)`, float32: Unit vectors.
        """
        return self.embed_with_layers(recordings, subject, modality, **said)[:2]

    def embed_with_layers(
        self, recordings: Any, subject: Any = None, modality: str | None = None, **said: Any
    ) -> tuple[str, np.ndarray, list[str]]:
        """As [`embed_recordings`], and whose layer each recording went through, `"average"` for the mean of all."""
        if isinstance(recordings, Split):
            check_option("modality", modality or recordings.modality, [recordings.modality])
            recordings = recordings.named_for(self.known(recordings.modality))
            vectors = self.embed_split(recordings, subject, montage=said.get("montage"))
            return recordings.modality, vectors, layers_of_split(recordings, subject)
        query = self.prepared(recordings, subject, modality, **said)
        return query.modality, self.embed([query])[0], self.layers_of(query)

    def layers_of(self, query: PreparedQuery) -> list[str]:
        """Whose layer each recording of a query goes through, `"average"` for the mean of all."""
        from neural_clip.configuration_neural_clip import AVERAGE_NAME

        layers = [*getattr(self.model.config, f"{query.modality}_config").subjects, AVERAGE_NAME]  # -1 is the average
        return [layers[number] for number in query.subject_ids.tolist()]

    def prepared(
        self, recordings: Any, subject: Any = None, modality: str | None = None, **said: Any
    ) -> PreparedQuery:
        """Recordings as tensors, brought to what the model takes; see [`NeuralGallery.decode`]."""
        for name in said:
            check_option("recordings'", name, SAID)
        modality = modality_of(recordings, self) if modality is None else modality
        check_option("modality", modality, self.modalities)
        with telling(modality):
            inputs = self.processor(**{modality: recordings}, subject=subject, **said)
        return PreparedQuery(modality, inputs[f"{modality}_values"], inputs["subject_ids"])

    def embed(self, queries: Sequence[PreparedQuery]) -> list[np.ndarray]:
        """Unit vectors of each query, `(n, projection_dim)` float32; those of one modality are embedded together."""
        found: list[Any] = [None] * len(queries)
        for modality in dict.fromkeys(query.modality for query in queries):
            places = [place for place, query in enumerate(queries) if query.modality == modality]
            vectors = self._embedded(modality, [queries[place] for place in places])
            ends = np.cumsum([len(queries[place].values) for place in places])
            for place, own in zip(places, np.split(vectors, ends[:-1]), strict=True):
                found[place] = own
        return found

    def _embedded(self, modality: str, queries: Sequence[PreparedQuery]) -> np.ndarray:
        """Unit vectors of all recordings of some queries, 64 at a time."""
        import torch

        from neural_clip.retrieval.tiles import unit_vectors

        values, found = _joined([query.values for query in queries]), []
        subject_ids = torch.cat([query.subject_ids for query in queries])
        with telling(modality):
            for start in range(0, len(values), BATCH):
                rows = slice(start, start + BATCH)
                inputs = values[rows].to(self.model.device), subject_ids[rows].to(self.model.device)
                with torch.no_grad():
                    found.append(self.model.features(modality, *inputs).float().cpu().numpy())
            return unit_vectors(np.concatenate(found), f"{modality} embeddings").astype(np.float32)

    def interpolation(self, data: PreparedSet, montage: str | None) -> Interpolation | None:
        """What `montage` does to the recordings of a data set; `None` where it does nothing."""
        return interpolation_of(self.model.config, data, montage)

    def embed_split(
        self, part: Split, subject: str | None = None, *, montage: str | None = None, progress: bool = True
    ) -> np.ndarray:
        """Vectors of the rows of a split, as `evaluate` makes them."""
        from neural_clip.configuration_neural_clip import AVERAGE_NAME

        if not len(part):
            raise DataError(
                f"The {part.name} split of '{part.data.name}' has no rows here; there is nothing to embed."
            )
        if subject not in (None, AVERAGE_NAME) and {subject} != set(part.subjects):
            raise DataError(f"'subject' is {subject!r}, but the rows are of {sorted(set(part.subjects.tolist()))}.")
        part = part.named_for(self.known(part.modality))
        check_preparation(self.processor, part.data, "The model")
        device = str(self.model.device)
        average = subject if subject == AVERAGE_NAME else None
        return embed_split(
            self.model, part, batch_size=BATCH, device=device, subject=average, montage=montage, progress=progress
        ).embeds


def layers_of_split(part: Split, subject: str | None) -> list[str]:
    """Whose layer each row of a split goes through: that of its own subject, or `"average"` where that is asked."""
    from neural_clip.configuration_neural_clip import AVERAGE_NAME

    return [AVERAGE_NAME] * len(part) if subject == AVERAGE_NAME else part.subjects.tolist()


def modality_of(recordings: Any, embedder: Embedder) -> str:
    """The modality of recordings, by what they are, or by the one shape that fits.

    Raises:
        DataError: If several modalities of the model could be meant.
    """
    known = embedder.modalities
    if isinstance(recordings, str | Path):
        raise DataError(f"The recordings are the path '{recordings}'; read the file first.")
    if len(known) == 1:
        return known[0]
    found = [name for name in known if _may_be(recordings, name, embedder.model.config)]
    if len(found) != 1:
        raise DataError(
            f"The model takes {known}, and these recordings could be "
            f"{' or '.join(found) if found else 'none of them by their shape'}. Say which by 'modality'."
        )
    return found[0]


def _may_be(recordings: Any, modality: str, config: Any) -> bool:
    """Whether recordings may be of a modality."""
    if hasattr(recordings, "info") and hasattr(recordings, "get_channel_types"):  # of mne
        return bool(set(MODALITIES[modality].channel_types) & set(recordings.get_channel_types()))
    if hasattr(recordings, "affine"):
        return not MODALITIES[modality].sensors
    if hasattr(recordings, "column_names"):  # a datasets.Dataset
        return modality in recordings.column_names
    first = recordings[0] if isinstance(recordings, Sequence) and len(recordings) else recordings
    if isinstance(first, Mapping):
        return modality in first
    shape = np.shape(first) if first is recordings else (len(recordings), *np.shape(first))
    settings = getattr(config, f"{modality}_config")
    if not MODALITIES[modality].sensors:
        return len(shape) in (1, 2) and shape[-1] in settings.n_voxels.values()
    inputs = [settings.inputs_of(name) for name in settings.subjects] or [settings]
    return len(shape) in (2, 3) and any(shape[-2:] == (each.n_chans, each.n_times) for each in inputs)
