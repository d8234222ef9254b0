"""The images of a prepared data set as a table: ids, embeddings and labels, without pixels."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from neural_clip.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The images of a prepared data set, one row each, without pixels.

    Args:
        image_ids (`list[str]`): Unique names.
        embeds (`np.ndarray` of shape `(n_images, projection_dim)`): float32, as the image encoder gave them.
        concepts (`list[str]`): One concept an image.
        categories (`list[list[str]]`): Categories of each image; may be empty.
    """

    image_ids: list[str]
    embeds: np.ndarray
    concepts: list[str]
    categories: list[list[str]]

    COLUMNS: ClassVar[list[str]] = ["image_id", "image_embeds", "concept", "categories"]

    @classmethod
    def of_columns(cls, columns: pa.Table) -> ImageTable:
        """Read `COLUMNS` of the `images` config.

        Raises:
            DataError: If there are no images, one has no name, embedding or labels, or two have one name.
        """
        import pyarrow as pa

        for name in cls.COLUMNS:
            if columns[name].null_count or not len(columns):
                raise DataError(f"{columns[name].null_count} of {len(columns)} rows have no {name!r}.")
        kind = columns["image_embeds"].type
        if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
            raise DataError(f"Column 'image_embeds' holds {kind}, no vectors of one width.")
        embeds = columns["image_embeds"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        found = cls(
            image_ids=columns["image_id"].to_pylist(),
            embeds=embeds.astype(np.float32).reshape(len(columns), -1),
            concepts=columns["concept"].to_pylist(),
            categories=columns["categories"].to_pylist(),
        )
        if len(found._index) < len(columns):
            twice = next(name for name, count in Counter(found.image_ids).items() if count > 1)
            raise DataError(f"Image {twice!r} occurs twice.")
        bad = ~(np.isfinite(found.embeds).all(axis=1) & found.embeds.any(axis=1))
        if bad.any():
            name = found.image_ids[int(np.argmax(bad))]
            raise DataError(
                f"{int(bad.sum())} embeddings are not finite or all zeros, such as that of image {name!r}."
            )
        return found

    @cached_property
    def sha256(self) -> str:
        """Of ids and embeddings, in order."""
        digest = hashlib.sha256(json.dumps(self.image_ids).encode())
        digest.update(np.ascontiguousarray(self.embeds, dtype="<f4").data)
        return digest.hexdigest()

    @cached_property
    def _index(self) -> dict[str, int]:
        """Row of each image."""
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    def rows_of(self, image_ids: Sequence[str] | np.ndarray) -> np.ndarray:
        """Row of each image id, `(len(image_ids),)` int64; a `DataError` if one is not there."""
        if unknown := sorted({str(image_id) for image_id in image_ids if image_id not in self._index}):
            raise DataError(
                f"{len(unknown)} images are not among the {len(self._index)} images, such as {unknown[0]!r}."
            )
        return np.array([self._index[image_id] for image_id in image_ids], dtype=np.int64)

    def of(self, image_ids: Sequence[str] | np.ndarray) -> ImageTable:
        """These images alone, in this order."""
        rows = self.rows_of(image_ids)
        return ImageTable(
            [self.image_ids[row] for row in rows], self.embeds[rows], [self.concepts[row] for row in rows],
            [self.categories[row] for row in rows],
        )  # fmt: skip
