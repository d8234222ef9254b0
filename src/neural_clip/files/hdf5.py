"""HDF5 files of the Natural Scenes Dataset: opened, and their storage checked before a number is believed.

HDF5 gives zeros for chunks that it does not find, and what stands there for chunks whose address is wrong. So all
chunks must be listed once, lie in the file and overlap no other, and those that are read must be found. Uncompressed
values carry no checksum: a flipped bit among them cannot be noticed, nor can an address that was flipped onto bytes
which belong to no chunk.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError


@contextmanager
def open_dataset(path: Path, name: str) -> Iterator:
    """Open a data set (`h5py.Dataset`) of an HDF5 file for reading.

    Raises:
        DataError: If the file or the data set is absent, or reading fails within the block.
    """
    import h5py

    if not path.is_file():
        raise DataError(f"'{path}' does not exist. See https://naturalscenesdataset.org for access to NSD.")
    try:
        with h5py.File(path, "r") as file:
            dataset = file[name]
            if not isinstance(dataset, h5py.Dataset):
                raise KeyError(f"'{name}' is no data set")
            yield dataset
    except DataError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        raise DataError(f"'{path}' cannot be read; the copy may be incomplete or damaged: {error}") from error


def check_storage(path: Path, dataset) -> None:
    """Require that the file holds every value of a data set, each in its own place.

    Raises:
        DataError: If chunks are absent, listed twice, overlap or lie beyond the end of the file.
    """
    starts, sizes = _chunked(path, dataset) if dataset.chunks else _contiguous(path, dataset)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], (starts + sizes)[order]
    if (starts < 0).any() or (sizes <= 0).any() or (ends[:-1] > starts[1:]).any() or ends[-1] > path.stat().st_size:
        raise DataError(
            f"'{path}' is damaged: pieces of '{dataset.name}' overlap or lie beyond the end of the file. Copy it "
            "again."
        )


def read_slab(dataset, *spans: tuple[int, int]) -> np.ndarray:
    """Values of a data set between a first and a last index (exclusive) on each axis.

    Raises:
        RuntimeError, OSError: If a chunk is not found, for which HDF5 alone would give zeros.
    """
    if dataset.chunks:
        corners = [range(first - first % n, last, n) for (first, last), n in zip(spans, dataset.chunks, strict=True)]
        for corner in itertools.product(*corners):
            dataset.id.read_direct_chunk(corner)
    return dataset[tuple(slice(int(first), int(last)) for first, last in spans)]


def _contiguous(path: Path, dataset) -> tuple[np.ndarray, np.ndarray]:
    """Place and size of a data set in one piece."""
    place, size = dataset.id.get_offset(), dataset.id.get_storage_size()
    if place is None or size != dataset.size * dataset.dtype.itemsize:
        raise DataError(f"'{path}' is incomplete: {size} bytes of '{dataset.name}' are stored. Copy it again.")
    return np.array([place]), np.array([size])


def _chunked(path: Path, dataset) -> tuple[np.ndarray, np.ndarray]:
    """Places and sizes of all chunks, once every chunk is known to be listed once."""
    corners, places = array("q"), array("q")

    def note(chunk) -> None:
        corners.extend(chunk.chunk_offset)
        places.extend((chunk.byte_offset, chunk.size, chunk.filter_mask))

    dataset.id.chunk_iter(note)
    counts = [-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    cells, rest = np.divmod(np.array(corners).reshape(-1, len(counts)), dataset.chunks)
    inside = not rest.any() and (cells >= 0).all() and (cells < counts).all()
    complete = inside and len(cells) == np.prod(counts)
    if not complete or np.unique(np.ravel_multi_index(cells.T, counts)).size != len(cells):
        raise DataError(
            f"'{path}' is incomplete: '{dataset.name}' should have {np.prod(counts)} different chunks, but "
            f"{len(cells)} are listed, or some of them twice or in wrong places. Copy it again."
        )
    starts, sizes, skipped = np.array(places).reshape(-1, 3).T
    filtered = dataset.id.get_create_plist().get_nfilters() > 0
    expected = np.prod(dataset.chunks) * dataset.dtype.itemsize
    if skipped.any() or (not filtered and (sizes != expected).any()):
        raise DataError(f"'{path}' is damaged: chunks of '{dataset.name}' have wrong sizes. Copy it again.")
    return starts, sizes
