"""`pipeline("neural-decoding" | "neural-encoding" | "neural-conversion", ...)` of transformers.

They embed what they are given, some at a time, and search a gallery by the verbs of [`NeuralGallery`], which are the
one definition of a search. `registration.py` names them to transformers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader
from transformers import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from neural_clip.errors import DataError, check_value, did_you_mean
from neural_clip.gallery.columns import IMAGE, table_of
from neural_clip.gallery.embedder import BATCH, SAID, Embedder
from neural_clip.gallery.hits import Ranked
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.gallery.opening import opened_place
from neural_clip.gallery.sources import Source, images_in, opened
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import Split
from neural_clip.pushing import PushedByTerms

SAID_OF_EACH = ("subject", "session")  # may be lists beside a list of recordings


def open_gallery(embedder: Embedder, given: Any, *, images: bool) -> NeuralGallery:
    """A gallery for the queries of a model, from what users have.

    Args:
        embedder ([`Embedder`]): The model.
        given: A [`NeuralGallery`], the folder or Hub name of a saved one, or whatever [`NeuralGallery.from_images`] or
            [`NeuralGallery.from_recordings`] takes.
        images (`bool`): Whether images are searched, or recordings.

    Raises:
        DataError: If it is none, or one of another model.
    """
    if isinstance(given, str | Path):
        given = opened_place(given, embedder) or given
    if isinstance(given, NeuralGallery):
        return given.for_model(embedder)
    make = NeuralGallery.from_images if images else NeuralGallery.from_recordings
    return make(embedder, given)


@dataclass(frozen=True)
class Told:
    """One of a list of recordings, with its own subject or session."""

    recording: Any
    said: Mapping[str, str]


class NeuralPipeline(PushedByTerms, Pipeline):
    """What the three pipelines share: queries to ranked rows of a gallery, as plain dicts.

    One query gives a list of dicts, best first. What holds several queries gives such a list for each: a list,
    `mne.Epochs`, an array with a first axis of recordings, a split, a folder of images, a `datasets.Dataset`.
    Generators, streamed data sets and data sets of torch give an iterator.

    Results are those of [`NeuralGallery`]. Like it, a pipeline embeds 64 queries at a time; another `batch_size`
    changes the last bits of the scores.

    Threads may share a pipeline: one of them computes at a time, so that memory does not grow with their number.

    Args:
        model ([`NeuralClipModel`]): As `pipeline` loads it.
        processor ([`NeuralClipProcessor`], *optional*): By default the one that lies beside the model.
        gallery (*optional*): What is searched, as [`open_gallery`] takes it; here, or with each call.
        top_k (`int`, *optional*): Rows found for each query; all, best first, where there are fewer.
    """

    processor: Any
    model: Any
    _load_processor = None  # that of a model in memory is found by its name
    _load_tokenizer: Any = False
    _load_image_processor: Any = False
    _load_feature_extractor: Any = False
    _load_video_processor: Any = False
    searches_images = False
    asks: tuple[str, ...] = ("subject", "modality", *SAID)  # what `preprocess` may be told
    options: tuple[str, ...] = ("gallery", "top_k")  # of the search

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._computing = threading.Lock()
        super().__init__(*args, **{"batch_size": BATCH} | kwargs)
        self.processor = self.embedder.processor

    @cached_property
    def embedder(self) -> Embedder:
        """The model with its processor."""
        return Embedder.of(self.model, self.processor)

    def data_terms(self) -> dict[str, str | None]:
        """Of the model."""
        return self.model.data_terms()

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save model and processor, as each of them is saved."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(self, **given: Any) -> tuple[dict, dict, dict]:
        """What `preprocess` is told, and what the search is; a gallery is opened here."""
        known = (*self.options, *self.asks)
        for name in given:
            if name not in known:
                listed = ", ".join(map(repr, known))
                raise DataError(
                    f"The pipeline '{self.task}' takes no {name!r}; it takes {listed}.{did_you_mean(name, known)}"
                )
        search = {name: given[name] for name in self.options if name in given}
        for name, images in (("gallery", self.searches_images), ("bank", True)):
            if search.get(name) is not None:
                search[name] = open_gallery(self.embedder, search[name], images=images)
        return {name: given[name] for name in self.asks if name in given}, search, {}

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Search for one query or for several; see [`NeuralPipeline`]."""
        if isinstance(inputs, list | tuple):
            check_value("inputs", inputs, bool(len(inputs)), "one query or more")
            return super().__call__(self._told(list(inputs), kwargs), *args, **kwargs)
        several = self._each_of(inputs)
        if several is None:
            return super().__call__(inputs, *args, **kwargs)
        found = super().__call__((query for query in several), *args, **kwargs)
        return found if hasattr(inputs, "column_names") and not isinstance(inputs, Sized) else list(found)

    def _told(self, inputs: list, kwargs: dict[str, Any]) -> list:
        """A list of recordings with the subject and session of each, where these are lists too."""
        said = {n: kwargs.pop(n) for n in SAID_OF_EACH if n in self.asks and isinstance(kwargs.get(n), list | tuple)}
        for name, values in said.items():
            fits = len(values) == len(inputs)
            check_value(name, values, fits, f"one name, or one for each of the {len(inputs)} recordings")
        return [Told(one, {name: said[name][n] for name in said}) for n, one in enumerate(inputs)] if said else inputs

    def _each_of(self, inputs: Any) -> Iterable[Any] | None:
        """The queries of a data set, read when they are needed; `None` for what is read already."""
        if not hasattr(inputs, "column_names"):
            return None
        if isinstance(inputs.column_names, Mapping):
            raise DataError(f"This is a data set of the splits {sorted(inputs.column_names)}; choose one of them.")
        if names := [name for name in inputs.column_names or [] if name in (*self.embedder.modalities, "subject")]:
            inputs = inputs.select_columns(names)
        return inputs.with_format("numpy")

    def get_iterator(
        self, inputs: Any, num_workers: int, batch_size: int, preprocess_params: dict, forward_params: dict,
        postprocess_params: dict,
    ) -> Iterator[Any]:  # fmt: skip
        """Results in the order of the inputs, which are read and embedded some at a time."""
        if isinstance(inputs, Sized):
            items: Any = PipelineDataset(inputs, self.preprocess, preprocess_params)
        else:  # of which each worker would read all
            items, num_workers = PipelineIterator(inputs, self.preprocess, preprocess_params), min(num_workers, 1)
        for some in DataLoader(items, num_workers=num_workers, batch_size=batch_size, collate_fn=list):
            for found in self.forward({"items": some}, **forward_params):
                yield self.postprocess(found, **postprocess_params)

    def run_single(self, inputs: Any, preprocess_params: dict, forward_params: dict, postprocess_params: dict) -> Any:
        """The result of one input."""
        (found,) = self.get_iterator([inputs], 0, 1, preprocess_params, forward_params, postprocess_params)
        return found

    def preprocess(self, input_: Any, **said: Any) -> dict[str, Any]:
        """The query of one input as tensors, and whether it is one; a split is read when it is embedded."""
        if isinstance(input_, Told):
            input_, said = input_.recording, {**said, **input_.said}
        if isinstance(input_, Split):
            return {"query": input_, "said": said, "one": False}
        query = self.embedder.prepared(input_, **said)
        return {"query": query, "said": said, "one": is_one(input_, query.modality)}

    def forward(self, model_inputs: Any, **forward_params: Any) -> Any:
        """As transformers does, one thread at a time."""
        with self._computing:
            return super().forward(model_inputs, **forward_params)

    def _forward(  # type: ignore[override]
        self, input_tensors: dict[str, Any], gallery: NeuralGallery | None = None, **search: Any
    ) -> list:
        """Hits of each item: [`Ranked`] for one query, a list of them for several."""
        if gallery is None:
            example = "FOLDER_OF_IMAGES" if self.searches_images else "PREPARED_DATA_SET"
            raise DataError(f"The pipeline '{self.task}' has no gallery to search; say gallery={example}.")
        items = input_tensors["items"]
        embedded = self._embedded(items)
        columns: dict[str, Any] = {"modality": [kind for kind, vectors, _ in embedded for _ in range(len(vectors))]}
        columns["layer"] = [name for _, _, layers in embedded for name in layers]
        made_by = None if IMAGE in columns["modality"] else self.embedder.identity
        vectors = np.concatenate([vectors for _, vectors, _ in embedded])
        queries = NeuralGallery(table_of(vectors, **columns), None, made_by, self.embedder)
        hits = iter(self._search(gallery, queries, **search))
        found = [list(islice(hits, len(vectors))) for _, vectors, _ in embedded]
        return [own[0] if item["one"] else own for item, own in zip(items, found, strict=True)]

    def _embedded(self, items: list[dict]) -> list[tuple[str, np.ndarray, list[str]]]:
        """Modality, vectors, and whose layers they went through, of each item."""
        apart = {
            place: self.embedder.embed_with_layers(item["query"], **item["said"])
            for place, item in enumerate(items)
            if isinstance(item["query"], Split)
        }
        rest = [item["query"] for place, item in enumerate(items) if place not in apart]
        found = zip(rest, self.embedder.embed(rest), strict=True)
        new = ((query.modality, vectors, self.embedder.layers_of(query)) for query, vectors in found)
        return [apart[place] if place in apart else next(new) for place in range(len(items))]

    def _search(self, gallery: NeuralGallery, queries: NeuralGallery, **search: Any) -> Iterable[Ranked]:
        """By a verb of the gallery."""
        raise NotImplementedError

    def postprocess(self, model_outputs: Any, **postprocess_parameters: Any) -> list:
        """Plain dicts."""
        if isinstance(model_outputs, Ranked):
            return [hit.as_dict() for hit in model_outputs]
        return [self.postprocess(ranked) for ranked in model_outputs]


class NeuralDecodingPipeline(NeuralPipeline):
    """Recordings to images: [`NeuralGallery.decode`]; calls take its `subject`, `modality`, `session`, `unit` ..."""

    searches_images = True

    def _search(self, gallery: NeuralGallery, queries: NeuralGallery, **search: Any) -> Iterable[Ranked]:
        return gallery.decode(queries, **search)


class NeuralEncodingPipeline(NeuralPipeline):
    """Images to recordings: [`NeuralGallery.encode`]; `modality` says which recordings are searched."""

    asks = ()
    options = (*NeuralPipeline.options, "modality")

    def _each_of(self, inputs: Any) -> Iterable[Any] | None:
        """The images of a data set or a folder, read when they are needed."""
        is_folder = isinstance(inputs, str | Path) and Path(inputs).is_dir()
        return images_in(inputs) if is_folder or hasattr(inputs, "column_names") else None

    def preprocess(self, input_: Any, **said: Any) -> dict[str, Any]:
        """An image in RGB."""
        sources = [input_] if isinstance(input_, Source) else list(images_in([input_]))
        return {"query": opened(sources[0]), "one": True}

    def _embedded(self, items: list[dict]) -> list[tuple[str, np.ndarray, list[str]]]:
        """Vectors of each image."""
        vectors = self.embedder.embed_images([item["query"] for item in items])
        return [(IMAGE, vector[None], [""]) for vector in vectors]

    def _search(self, gallery: NeuralGallery, queries: NeuralGallery, **search: Any) -> Iterable[Ranked]:
        return gallery.encode(queries, **search)


class NeuralConversionPipeline(NeuralPipeline):
    """Recordings to those of another modality: [`NeuralGallery.convert`], with its `to`, `via` and `bank`."""

    options = (*NeuralPipeline.options, "to", "via", "bank")

    def _search(self, gallery: NeuralGallery, queries: NeuralGallery, **search: Any) -> Iterable[Ranked]:
        if "to" not in search:
            raise DataError(f"'{self.task}' needs 'to', the modality that is searched: one of {gallery.modalities}.")
        return gallery.convert(queries, **search)


def is_one(recordings: Any, modality: str) -> bool:
    """Whether this is one recording, rather than several."""
    if isinstance(recordings, Mapping):  # a row of a data set, or columns
        return isinstance(recordings.get("subject"), str)
    if hasattr(recordings, "info"):  # of mne
        return not hasattr(recordings, "events")
    if hasattr(recordings, "affine"):
        return len(recordings.shape) == 3
    return np.ndim(recordings) == (2 if MODALITIES[modality].sensors else 1)
