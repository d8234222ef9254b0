"""What tells two spaces of image embeddings apart where their names agree, and the mean that was subtracted in them.

A prepared data set states its [`TargetSpace`] in `neural_clip.json`, a checkpoint in `config.json`: rows of numbers in
base64, because JSON would need a line for each of thousands.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

MIN_COSINE = 0.9999  # of the same image by the same weights: processors and batch sizes change the last bits only
SAME_MEAN = 1e-4  # of the largest value of a mean
N_SAMPLED = 128  # images of a ready-made table that are kept; of two tables that share a tenth, about a dozen of them
STORED = {"probes": "<f2", "sample": "<u8", "mean": "<f4"}  # 16 bits give cosines to 1e-6


@dataclass(frozen=True, eq=False)
class TargetSpace:
    """Image embeddings as vectors rather than by name.

    Args:
        probes (`np.ndarray` of shape `(n_probes, projection_dim)`, *optional*): What the encoder makes of the images
            that the package draws itself (`targets/probes.py`), as unit vectors.
        sample (`np.ndarray` of shape `(2, n)`, uint64, *optional*): Of ready-made embeddings: digests of image ids and
            of these images' vectors (see [`sample_of`]).
        mean (`np.ndarray` of shape `(projection_dim,)`, *optional*): What was subtracted from all embeddings; `None`
            for nothing.
    """

    probes: np.ndarray | None = None
    sample: np.ndarray | None = None
    mean: np.ndarray | None = None

    @classmethod
    def of(cls, content: Mapping | None) -> "TargetSpace | None":
        """What JSON holds; `None` for data sets and checkpoints that do not know it.

        Raises:
            ValueError: If it is damaged.
        """
        if content is None:
            return None
        try:
            arrays = {name: _array(content.get(name), dtype) for name, dtype in STORED.items()}
        except (AttributeError, TypeError, ValueError, binascii.Error) as error:
            raise ValueError(f"The target space cannot be read: {error}.") from error
        mean = arrays.pop("mean")
        return cls(**arrays, mean=None if mean is None else mean[0])

    def as_dict(self) -> dict[str, list[str] | None]:
        """As JSON holds it."""
        return {entry.name: _text(getattr(self, entry.name), STORED[entry.name]) for entry in fields(self)}

    @property
    def width(self) -> int | None:
        """`projection_dim`, where vectors are kept."""
        return next((array.shape[-1] for array in (self.probes, self.mean) if array is not None), None)

    def differences(self, other: "TargetSpace") -> list[str] | None:
        """What shows that two spaces are not the same, in words; `None` where there is nothing to compare.

        The means are not compared: embeddings of one mean can be moved to another.
        """
        if self.probes is not None and other.probes is not None:
            return _different_probes(self.probes, other.probes)
        if self.sample is not None and other.sample is not None:
            return _different_samples(self.sample, other.sample)
        return None

    def same_mean(self, other: "TargetSpace") -> bool:
        """Whether the same was subtracted."""
        if self.mean is None or other.mean is None:
            return self.mean is other.mean
        return bool(np.abs(self.mean - other.mean).max() <= SAME_MEAN * np.abs(self.mean).max())

    def moved(self, embeds: np.ndarray, other: "TargetSpace") -> np.ndarray:
        """Embeddings `(n, projection_dim)` of this space with the mean of the other one subtracted, float32."""
        means = [np.float64(0) if space.mean is None else space.mean.astype(np.float64) for space in (self, other)]
        return (embeds + (means[0] - means[1])).astype(np.float32)


def sample_of(image_ids: Sequence[str], vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Digests of a table of embeddings by which another one of the same images is recognised.

    Those images are kept whose ids have the smallest digests, so that two tables keep the same of what they share.

    Args:
        image_ids (sequence of `str`): One an image.
        vectors (sequence of `np.ndarray` of shape `(projection_dim,)`): Theirs, compared bit for bit, as float32.

    Returns:
        `np.ndarray` of shape `(2, n)`, uint64: Digests of ids, ascending, and of vectors; `n` is at most `N_SAMPLED`.
    """
    ids = np.array([_digest(image_id.encode()) for image_id in image_ids], dtype=np.uint64)
    kept = np.argsort(ids, kind="stable")[:N_SAMPLED]
    rows = [np.ascontiguousarray(vectors[row], dtype="<f4").tobytes() for row in kept]
    return np.stack([ids[kept], np.array([_digest(row) for row in rows], dtype=np.uint64)])


def _digest(content: bytes) -> int:
    """The first 8 bytes of a SHA-256."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")


def _different_probes(mine: np.ndarray, theirs: np.ndarray) -> list[str]:
    """Probe images whose vectors differ."""
    if mine.shape != theirs.shape:
        return [f"their probe images have vectors of shape {mine.shape} and {theirs.shape}"]
    mine, theirs = (array.astype(np.float64) for array in (mine, theirs))
    lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (mine * theirs).sum(axis=1) / lengths
    worst = int(np.argmin(cosines))
    if cosines[worst] >= MIN_COSINE:
        return []
    return [f"probe image {worst} has a cosine of {cosines[worst]:.5f} between them, the same encoder {MIN_COSINE}"]


def _different_samples(mine: np.ndarray, theirs: np.ndarray) -> list[str]:
    """Images of two tables that have other vectors, or that there is none in both."""
    common, rows, others = np.intersect1d(mine[0], theirs[0], return_indices=True)
    if not len(common):
        return [f"of the {mine.shape[1]} and {theirs.shape[1]} images kept of their tables, none is in both"]
    count = int((mine[1][rows] != theirs[1][others]).sum())
    return [f"{count} of {len(common)} images kept of both tables have other vectors"] if count else []


def _text(array: np.ndarray | None, dtype: str) -> list[str] | None:
    """Each row as base64."""
    if array is None:
        return None
    return [base64.b64encode(row.astype(dtype).tobytes()).decode() for row in np.atleast_2d(array)]


def _array(rows: Any, dtype: str) -> np.ndarray | None:
    """What [`_text`] made of an array, with a row for each line."""
    if rows is None:
        return None
    array = np.stack([np.frombuffer(base64.b64decode(row, validate=True), dtype) for row in rows])
    return array if dtype == STORED["sample"] else array.astype(np.float32)
