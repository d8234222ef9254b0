"""What is searched: images or recordings as vectors, and what stands behind each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.prepared.reader import Split
from neural_clip.retrieval.scores import nearest_rows
from neural_clip.targets.identity import EncoderIdentity, identity_of, in_space_of

if TYPE_CHECKING:
    from neural_clip.modeling_neural_clip import NeuralClipModel

# Embeddings of one picture by one encoder differ by rounding alone, those of different pictures by far more.
SAME_IMAGE_COSINE = 1 - 1e-5
HITS = 5  # images shown beside a query, as in the figures of arXiv 2411.09723
NEAREST_KEPT = 50  # vectors looked through for five different images: several recordings show the same one


@dataclass(frozen=True, eq=False)
class NeuralGallery:
    """Vectors of images or recordings in one space. Decoding searches images, encoding and conversion recordings.

    Args:
        modality (`str`): `"image"`, or `"eeg"`, `"meg"` or `"fmri"` for recordings.
        vectors (`np.ndarray` of shape `(n, projection_dim)`): Of any length; cosines are compared.
        image_ids (`np.ndarray` of shape `(n,)`, str): The image, or the image that a recording answered to.
        concepts (`np.ndarray` of shape `(n,)`, str): Its concept; may be empty.
        categories (`list[list[str]]`): Its categories; may be empty.
        subjects (`np.ndarray` of shape `(n,)`, str, *optional*): Who was recorded; `None` for images.
        encoder ([`EncoderIdentity`], *optional*): What embedded the images of this space.
        checkpoint (`str`, *optional*): What embedded the recordings.
    """

    modality: str
    vectors: np.ndarray
    image_ids: np.ndarray
    concepts: np.ndarray
    categories: list[list[str]]
    subjects: np.ndarray | None = None
    encoder: EncoderIdentity | None = None
    checkpoint: str | None = None

    @classmethod
    def of_images(cls, part: Split, model: NeuralClipModel | None = None) -> NeuralGallery:
        """The images in which those of a split are looked for, each once; where a model is given, in its space.

        Raises:
            DataError: If another encoder made the images' embeddings than those that the model learnt.
        """
        part = _in_space_of(model, part)
        return cls(
            "image", part.gallery_embeds, part.gallery_ids, np.array(part.gallery_concepts, dtype=str),
            part.gallery_categories, encoder=_encoder_of(part),
        )  # fmt: skip

    @classmethod
    def of_recordings(
        cls, part: Split, vectors: np.ndarray, checkpoint: str | None = None, model: NeuralClipModel | None = None
    ) -> NeuralGallery:
        """The recordings of a split, embedded by a checkpoint as `vectors`, `(n, projection_dim)`.

        Where its `model` is given, the images behind them are checked as in [`of_images`].
        """
        part = _in_space_of(model, part)
        categories = part.gallery_categories
        return cls(
            part.modality, vectors, part.image_ids, np.array(part.gallery_concepts, dtype=str)[part.columns],
            [categories[column] for column in part.columns], part.subjects, _encoder_of(part), checkpoint,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def labels(self) -> set[str]:
        """All concepts and categories."""
        return {str(concept) for concept in self.concepts}.union(*self.categories) - {""}

    def nearest(self, queries: np.ndarray | NeuralGallery, k: int = 1) -> np.ndarray:
        """Rows most alike to queries by cosine, best first.

        Args:
            queries (`np.ndarray` of shape `(n_queries, projection_dim)` or [`NeuralGallery`]): Vectors of this space,
                or another gallery, whose encoder is then compared with this one's.
            k (`int`): Rows wanted of each.

        Returns:
            `np.ndarray` of shape `(n_queries, k)`, int64.

        Raises:
            DataError: If the two galleries lie in different spaces.
        """
        if isinstance(queries, NeuralGallery):
            if self.encoder is not None and queries.encoder is not None:
                self.encoder.require(queries.encoder, "The gallery", "the queries")
            queries = queries.vectors
        return nearest_rows(queries, self.vectors, k)

    def hits(self, queries: np.ndarray | NeuralGallery, count: int = HITS) -> np.ndarray:
        """Nearest rows, the first of each image, `(n_queries, count)`; -1 where there are not so many."""
        hits = np.full((len(queries), count), -1)
        for query, rows in enumerate(self.nearest(queries, NEAREST_KEPT)):
            _, first = np.unique(self.image_ids[rows], return_index=True)
            kept = rows[np.sort(first)][:count]
            hits[query, : len(kept)] = kept
        return hits


def _in_space_of(model: NeuralClipModel | None, part: Split) -> Split:
    """A split with its images in the space of a model."""
    return part if model is None else replace(part, data=in_space_of(model.config, part.data, "The model"))


def _encoder_of(part: Split) -> EncoderIdentity | None:
    """What embedded the images of a split; `None` where its data set does not say."""
    return identity_of(part.facts) if part.facts.image_encoder else None
