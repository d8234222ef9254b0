"""A module of sentence-transformers: `SentenceTransformer.encode` takes recordings, images and texts.

```python
from sentence_transformers import SentenceTransformer
from neural_clip.gallery.sentence_transformer import NeuralClipModule

model = SentenceTransformer(modules=[NeuralClipModule("outputs/checkpoint")])
model.similarity(model.encode(recordings), model.encode(images))
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from neural_clip.errors import DataError
from neural_clip.gallery.embedder import Embedder, PreparedQuery
from neural_clip.retrieval.tiles import unit_vectors

try:
    from sentence_transformers.base.modules import InputModule
except ImportError as error:
    raise ImportError("This needs sentence-transformers: pip install 'neural_clip[sentence-transformers]'.") from error

EMBEDS = "sentence_embedding"  # where sentence-transformers looks for what a module returns


class NeuralClipModule(InputModule):
    """A checkpoint as the one module of a `SentenceTransformer`; all vectors are of unit length.

    Inputs of one call are of one kind: rows of a prepared data set, recordings as arrays or tensors, images of Pillow,
    or texts. Rows say whose recordings they are; of arrays it is said once, here.

    Args:
        model ([`NeuralClipModel`], `str` or `Path`): A model, or its folder or Hub name.
        processor ([`NeuralClipProcessor`], *optional*): By default the one that lies beside the model.
        subject, modality, unit (`str`, *optional*): Of recordings that are arrays, as [`NeuralGallery.decode`] takes
            them.
    """

    config_file_name = "neural_clip_module.json"
    config_keys = ["subject", "modality", "unit"]  # noqa: RUF012  # the base class declares it so

    def __init__(
        self, model: Any, processor: Any = None, *, subject: str | None = None, modality: str | None = None,
        unit: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        embedder = Embedder.of(model, processor)
        self.model, self.processor = embedder.model, embedder.processor
        self.subject, self.modality, self.unit = subject, modality, unit

    @property
    def embedder(self) -> Embedder:
        """The model, wherever it was moved, with its processor."""
        return Embedder(self.model, self.processor)

    @property
    def modalities(self) -> list[Any]:
        """As sentence-transformers calls them: its audio is an array of channels and times."""
        return ["text", "image", "audio"]

    def get_embedding_dimension(self) -> int:
        """Of all vectors."""
        return int(self.model.config.projection_dim)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """What `forward` embeds; recordings go through the processor."""
        kinds = {_kind_of(one) for one in inputs}
        if len(kinds) > 1:
            raise DataError(f"Inputs of one call are of one kind, but these are {sorted(kinds)}.")
        (kind,) = kinds
        if kind != "recordings":
            return {kind: list(inputs)}
        query = self.embedder.prepared(list(inputs), self.subject, self.modality, unit=self.unit)
        return {"modality": query.modality, "values": query.values, "subject_ids": query.subject_ids}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Unit vectors, `(n, projection_dim)` float32."""
        if "texts" in features:
            vectors = unit_vectors(self.embedder.embed_texts(features["texts"]))
        elif "images" in features:
            vectors = unit_vectors(self.embedder.embed_images(features["images"]))
        else:
            query = PreparedQuery(*(features[name] for name in ("modality", "values", "subject_ids")))
            (vectors,) = self.embedder.embed([query])
        return {**features, EMBEDS: torch.from_numpy(vectors.astype(np.float32)).to(self.model.device)}

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Save a whole checkpoint, and what was said of recordings."""
        self.model.save_pretrained(output_path)
        self.processor.save_pretrained(output_path)
        self.save_config(output_path)

    @classmethod
    def load(  # type: ignore[override]  # others load by themselves, this is a checkpoint
        cls, model_name_or_path: str, subfolder: str = "", token: bool | str | None = None,
        cache_folder: str | None = None, revision: str | None = None, local_files_only: bool = False, **kwargs: Any,
    ) -> NeuralClipModule:  # fmt: skip
        """Load what [`save`] wrote, from a folder or the Hub."""
        hub: dict[str, Any] = {
            "token": token,
            "cache_folder": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        folder = cls.load_dir_path(model_name_or_path, subfolder=subfolder, **hub)
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **hub)
        return cls(folder, **config)


def _kind_of(one: Any) -> str:
    """Whether an input is a text, an image or a recording."""
    if isinstance(one, str):
        return "texts"
    return "images" if isinstance(one, Image) else "recordings"
