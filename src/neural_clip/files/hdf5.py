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
from neural_clip.files.reading import NSD_ADVICE, begins_like, existing, head_of, reading

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NEWEST_SUPERBLOCK = 3  # of HDF5 1.10 to 2.0


@contextmanager
def open_dataset(path: Path, name: str) -> Iterator:
    """Open a data set (`h5py.Dataset`) of an HDF5 file for reading.

    Raises:
        DataError: If the file or the data set is absent, or reading fails within the block.
    """
    import h5py

    existing(path, "HDF5 file", NSD_ADVICE)
    if not h5py.is_hdf5(path):
        raise DataError(f"'{path}' is no HDF5 file: {begins_like(head_of(path))}.")
    if (head := head_of(path)).startswith(SIGNATURE) and head[8] > NEWEST_SUPERBLOCK:
        raise DataError(
            f"'{path}' is of a newer version of HDF5 (superblock {head[8]}); known are 0 to {NEWEST_SUPERBLOCK}."
        )
    with reading(path), h5py.File(path, "r") as file:
        if name not in file:
            held = ", ".join(map(repr, sorted(file))) or "nothing"
            raise DataError(f"'{path}' has no data set '{name}'; it holds {held}.")
        dataset = file[name]
        if not isinstance(dataset, h5py.Dataset):
            raise DataError(f"'{path}': '{name}' is a group, no data set.")
        yield dataset


def text_of(path: Path, dataset) -> np.ndarray | None:
    """Text of a data set as `str` or bytes, `None` where it holds numbers.

    Text is stored as bytes of a fixed or of any length, and by MATLAB 7.3 as the numbers of its characters: a matrix
    has a line a row, a cell array refers to a data set a cell. MATLAB's text has one dimension, in MATLAB's order.

    Raises:
        DataError: If the data set holds strings, objects or cells of other things than lines of text.
    """
    import h5py

    matlab = dataset.attrs.get("MATLAB_class", b"")
    kind = matlab.decode() if isinstance(matlab, bytes) else str(matlab)
    where = f"'{path}': array '{dataset.name.removeprefix('/')}'"
    if dataset.dtype.kind == "S":  # many programs call their UTF-8 ASCII
        return np.asarray(dataset[()])
    if h5py.check_string_dtype(dataset.dtype):
        return np.array(dataset.asstr("utf-8")[()], dtype=str)
    if kind == "char":
        return np.array(_lines(dataset), dtype=str)
    if kind == "cell":
        cells = [dataset.file[reference] for reference in np.ravel(dataset[()])]
        lines = [_lines(cell) for cell in cells if cell.attrs.get("MATLAB_class", b"") in (b"char", "char")]
        if len(lines) < len(cells) or any(len(line) > 1 for line in lines):
            raise DataError(f"{where} is a cell array of other things than lines of text.")
        return np.array(["".join(line) for line in lines], dtype=str)
    if kind == "string" or dataset.attrs.get("MATLAB_object_decode", 0):
        raise DataError(
            f"{where} is a {kind or 'MATLAB'} object of MATLAB, which no other program reads; save text as "
            "`cellstr(names)` or `char(names)`."
        )
    return None


def _lines(dataset) -> list[str]:
    """Lines of a matrix of characters of MATLAB, which counts dimensions from the other end."""
    if dataset.attrs.get("MATLAB_empty", 0):
        return []
    rows = np.atleast_2d(dataset[()].T).astype("<u2")
    return [row.tobytes().decode("utf-16-le") for row in rows]


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
    if dataset.is_virtual or dataset.external:
        raise DataError(f"'{path}': the values of '{dataset.name}' lie in other files; copy them into one.")
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
