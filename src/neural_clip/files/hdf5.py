"""HDF5 files: opened, and their storage checked before a number is believed.

HDF5 gives zeros for chunks that it does not find, and what stands there for chunks whose address is wrong. So all
chunks must be listed once, lie in the file and overlap no other, and those that are read must be found. Uncompressed
values carry no checksum: a flipped bit among them cannot be noticed, nor can an address that was flipped onto bytes
which belong to no chunk.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.names import text_array
from neural_clip.files.reading import ABSENT_ADVICE, begins_like, check_unpacked, existing, head_of, reading

SIGNATURE = b"\x89HDF\r\n\x1a\n"
ROWS_READ = 1024  # texts that are read at once
NEWEST_SUPERBLOCK = 3  # of HDF5 1.10 to 2.0


@contextmanager
def open_hdf5(path: Path, advice: str = "") -> Iterator:
    """Open an HDF5 file (`h5py.File`) for reading; `advice` follows where there is none.

    Raises:
        DataError: If the file is absent or none of HDF5, or reading fails within the block.
    """
    import h5py

    existing(path, "HDF5 file", advice)
    if not h5py.is_hdf5(path):
        raise DataError(f"'{path}' is no HDF5 file: {begins_like(head_of(path))}.")
    if (head := head_of(path)).startswith(SIGNATURE) and head[8] > NEWEST_SUPERBLOCK:
        raise DataError(
            f"'{path}' is of a newer version of HDF5 (superblock {head[8]}); known are 0 to {NEWEST_SUPERBLOCK}."
        )
    with reading(path), h5py.File(path, "r") as file:
        yield file


@contextmanager
def open_dataset(path: Path, name: str) -> Iterator:
    """Open a data set (`h5py.Dataset`) of an HDF5 file for reading.

    Raises:
        DataError: If the file or the data set is absent, or reading fails within the block.
    """
    with open_hdf5(path, ABSENT_ADVICE) as file:
        yield dataset_of(path, file, name)


def dataset_of(path: Path, file, name: str):
    """A data set of an open file; a `DataError` where there is none, it lies in another file or needs a plugin."""
    import h5py

    if name not in file:
        held = ", ".join(map(repr, sorted(file))) or "nothing"
        raise DataError(f"'{path}' has no data set '{name}'; it holds {held}.")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(f"'{path}': '{name}' is a group, no data set.")
    if dataset.file.filename != file.file.filename:
        raise DataError(f"'{path}': '{name}' is a link to the file '{dataset.file.filename}'; copy it into this one.")
    _check_filters(path, dataset)
    return dataset


def _check_filters(path: Path, dataset) -> None:
    """Refuse values that were compressed in a way that HDF5 cannot undo without a plugin."""
    import h5py

    filters = dataset.id.get_create_plist()
    for code, _, _, name in map(filters.get_filter, range(filters.get_nfilters())):
        if not h5py.h5z.filter_avail(code):
            called = f" ({name.decode('latin-1')})" if name else ""
            raise DataError(
                f"'{path}': '{dataset.name}' is compressed by filter {code} of HDF5{called}, which only a plugin can "
                "read. Save it anew without compression or with gzip, which pandas calls `complib='zlib'`."
            )


def stored(path: Path, dataset) -> np.ndarray:
    """All values of a data set, once [`check_storage`] has found them."""
    check_storage(path, dataset)
    return np.asarray(dataset[()])


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
        return stored(path, dataset)
    if h5py.check_string_dtype(dataset.dtype):
        return _names(path, dataset)
    if kind == "char":
        return text_array(_lines(path, dataset))
    if kind == "cell":
        cells = [dataset.file[reference] for reference in np.ravel(stored(path, dataset))]
        lines = [_lines(path, cell) for cell in cells if cell.attrs.get("MATLAB_class", b"") in (b"char", "char")]
        if len(lines) < len(cells) or any(len(line) > 1 for line in lines):
            raise DataError(f"{where} is a cell array of other things than lines of text.")
        return text_array(["".join(line) for line in lines])
    if kind == "string" or dataset.attrs.get("MATLAB_object_decode", 0):
        raise DataError(
            f"{where} is a {kind or 'MATLAB'} object of MATLAB, which no other program reads; save text as "
            "`cellstr(names)` or `char(names)`."
        )
    return None


def _names(path: Path, dataset) -> np.ndarray:
    """Text of any length; many places of a data set may point to one text."""
    check_storage(path, dataset)
    if not dataset.shape:
        return np.array(dataset.asstr("utf-8")[()], dtype=str)
    names: list[str] = []
    size = 0
    for start in range(0, len(dataset), ROWS_READ):
        block = np.ravel(dataset.asstr("utf-8")[start : start + ROWS_READ]).tolist()
        size += sum(map(len, block))
        check_unpacked(path, size)
        names += block
    return text_array(names).reshape(dataset.shape)


def _lines(path: Path, dataset) -> list[str]:
    """Lines of a matrix of characters of MATLAB, which counts dimensions from the other end."""
    if dataset.attrs.get("MATLAB_empty", 0):
        return []
    rows = np.atleast_2d(stored(path, dataset).T).astype("<u2")
    return [row.tobytes().decode("utf-16-le") for row in rows if row.size]


def check_storage(path: Path, dataset) -> None:
    """Require that the file holds every value of a data set, each in its own place, and can hold so many.

    Raises:
        DataError: If chunks are absent, listed twice, overlap or lie beyond the end of the file, or would become far
            larger than it.
    """
    import h5py

    check_unpacked(path, (dataset.size or 0) * _width(dataset))
    if not dataset.size or dataset.id.get_create_plist().get_layout() == h5py.h5d.COMPACT:  # these lie in the header
        return
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


def _width(dataset) -> int:
    """Bytes of a value in the file: those of its address where another object or text of any length is meant."""
    import h5py

    address = dataset.file.id.get_create_plist().get_sizes()[0]
    if h5py.check_ref_dtype(dataset.dtype) is not None:
        return address
    return (
        8 + address if h5py.check_string_dtype(dataset.dtype) and dataset.dtype.hasobject else dataset.dtype.itemsize
    )


def _contiguous(path: Path, dataset) -> tuple[np.ndarray, np.ndarray]:
    """Place and size of a data set in one piece."""
    if dataset.is_virtual or dataset.external:
        raise DataError(f"'{path}': the values of '{dataset.name}' lie in other files; copy them into one.")
    place, size = dataset.id.get_offset(), dataset.id.get_storage_size()
    if place is None or size != dataset.size * _width(dataset):
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
    expected = math.prod(dataset.chunks) * _width(dataset)
    most = expected + expected // 64 + 1024 if filtered else expected  # what cannot be compressed grows a little
    if skipped.any() or (sizes > most).any() or (not filtered and (sizes != expected).any()):
        raise DataError(f"'{path}' is damaged: chunks of '{dataset.name}' have wrong sizes. Copy it again.")
    return starts, sizes
