"""NIfTI-1 files of the Natural Scenes Dataset as streams, so that a file of a gigabyte needs the memory of a volume.

A file must end where its header says and, if gzipped, carry the right checksums: every flipped or lost byte of the
data is noticed. Of the header, what decides about the values is checked; the rest has no influence on them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from neural_clip.errors import DataError

__all__ = ["NiftiStream", "open_nifti", "read_all"]


_CHUNK = 2**17  # compressed bytes that are inflated at a time; larger ones gain nothing
_HEADER_SIZE = 348


class NiftiStream:
    """An open NIfTI-1 file.

    Args:
        read (`Callable`): Gives as many bytes as asked for, fewer at the end of the file.

    Attributes:
        shape (`tuple[int, ...]`): Size of the axes.
        dtype (`numpy.dtype`): As stored, byte order included.
        scaling (`tuple`): Slope and intercept of the header; 1 or None, and 0 or None, stand for plain numbers.
    """

    def __init__(self, read):
        import nibabel

        self._read = read
        try:
            header = nibabel.Nifti1Header(read(_HEADER_SIZE), check=False)  # its checks repair and print
            if header["magic"] != b"n+1":
                raise ValueError("no NIfTI-1 file in one piece")
            self.shape = tuple(int(size) for size in header.get_data_shape())
            self.dtype, self.scaling = header.get_data_dtype(), header.get_slope_inter()
            begin = int(header.get_data_offset())
        except (
            nibabel.wrapstruct.WrapStructError, nibabel.spatialimages.HeaderDataError, KeyError, OverflowError
        ) as error:  # fmt: skip
            raise ValueError(f"no NIfTI-1 header: {error}") from error
        read(begin - _HEADER_SIZE)  # extensions

    @property
    def scaled(self) -> bool:
        """Whether the header wants the stored numbers to be multiplied or shifted."""
        slope, intercept = self.scaling
        return slope not in (None, 1) or intercept not in (None, 0)

    def values(self, count: int) -> np.ndarray:
        """The next numbers of the file, which lie in Fortran order.

        Raises:
            EOFError: If the file ends before.
        """
        content = self._read(count * self.dtype.itemsize)
        if len(content) != count * self.dtype.itemsize:
            raise EOFError("it ends before all values that its header announces")
        return np.frombuffer(content, self.dtype)


@contextmanager
def open_nifti(path: Path) -> Iterator[NiftiStream]:
    """Open a `.nii` or `.nii.gz` file; the block must read all values.

    Raises:
        DataError: If the file is absent or damaged, or is longer than the block has read.
    """
    if not path.is_file():
        raise DataError(f"'{path}' does not exist. See https://naturalscenesdataset.org for access to NSD.")
    try:
        with path.open("rb") as file:
            read = _Inflated(file).read if path.suffix == ".gz" else file.read
            yield NiftiStream(read)
            if read(1):  # also makes zlib verify the checksum
                raise DataError(f"'{path}' is longer than its header says.")
    except DataError:
        raise
    except (OSError, EOFError, ValueError, TypeError, OverflowError, MemoryError, zlib.error) as error:
        raise DataError(f"'{path}' cannot be read; the copy may be incomplete or damaged: {error}") from error


def read_all(stream: NiftiStream) -> np.ndarray:
    """All values of a small file, in the shape of its header."""
    if any(size < 1 for size in stream.shape):
        raise ValueError(f"its header says shape {stream.shape}")
    return stream.values(math.prod(stream.shape)).reshape(stream.shape, order="F")


class _Inflated:
    """Decompressed bytes of a gzip file in order; zlib verifies checksum and length of every member."""

    def __init__(self, file: BinaryIO):
        self._file, self._compressed = file, b""
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)  # 16: a gzip header, not zlib's

    def read(self, size: int) -> bytes:
        """So many bytes, fewer at the end."""
        blocks = []
        while size > 0:
            if self._member.eof:  # zeros may pad the end of a file, and another member may follow
                self._compressed = (self._compressed or self._member.unused_data).lstrip(b"\0")
                self._compressed = self._compressed or self._file.read(_CHUNK).lstrip(b"\0")
                if not self._compressed:
                    break
                self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            self._compressed = self._compressed or self._file.read(_CHUNK)
            if not self._compressed:
                raise EOFError("the compressed data end early")
            block = self._member.decompress(self._compressed, size)
            self._compressed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            size -= len(block)
            blocks.append(block)
        return b"".join(blocks)
