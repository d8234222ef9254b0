"""NIfTI files, read strictly: whole with place and time, or as streams that need the memory of a volume.

A file must end where its header says and, if gzipped, carry the right checksums: every flipped or lost byte of the
data is noticed. Of the header of a stream, what decides about the values is checked; the rest does not matter to them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from neural_clip.errors import DataError
from neural_clip.files.reading import ABSENT_ADVICE, CHUNK, begins_like, check_unpacked, existing, head_of, reading

NIFTI_SUFFIXES = (".nii", ".nii.gz")
_CHUNK = 2**17  # compressed bytes that are inflated at a time; larger ones gain nothing
_HEADER_SIZE, _HEADER_2_SIZE = 348, 540
_TIME_UNITS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}  # a header of unknown unit does not tell the repetition time


def is_nifti(path: Path) -> bool:
    """Whether the name is a NIfTI file's."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Values of a NIfTI-1 or NIfTI-2 file.

    Returns:
        `tuple[numpy.ndarray, numpy.ndarray, float | None]`: Values, scaled as the header says, float32; affine to mm,
        `(4, 4)`; repetition time in s, if the header tells it with a unit.

    Raises:
        DataError: If the file is absent or damaged, or does not end where its header says.
    """
    import nibabel

    existing(path, "NIfTI file")
    with reading(path):
        with path.open("rb") as file:
            stream = NiftiStream(path, read := _reader(path, file))
            content = stream.head + read(max(stream.end - len(stream.head), 0) + 1)  # reading on verifies the checksum
        if len(content) != stream.end:
            found = f"{len(content)} bytes" if len(content) < stream.end else "more"
            raise ValueError(f"its header announces {stream.end} bytes, but it has {found}")
        kind = nibabel.Nifti2Image if stream.version == 2 else nibabel.Nifti1Image
        image: Any = kind.from_bytes(content)
        header = image.header
        data = np.asarray(image.dataobj, dtype=np.float32)
        zooms, factor = header.get_zooms(), _TIME_UNITS.get(header.get_xyzt_units()[1])
    if factor is None or len(zooms) < 4 or not zooms[3] > 0:
        return data, image.affine, None
    return data, image.affine, float(str(zooms[3])) * factor  # the decimal that was stored with 24 bits


class NiftiStream:
    """An open NIfTI file.

    Args:
        path (`Path`): Of the file, for messages.
        read (`Callable`): Gives as many bytes as asked for, fewer at the end of the file.

    Attributes:
        shape (`tuple[int, ...]`): Size of the axes.
        dtype (`numpy.dtype`): As stored, byte order included.
        scaling (`tuple`): Slope and intercept of the header; 1 or None, and 0 or None, stand for plain numbers.
        affine (`numpy.ndarray` of shape `(4, 4)`, *optional*): To mm; `None` where the header does not tell it.
        version (`int`): 1 or 2.
        head (`bytes`): Header and extensions, which are read already.
        end (`int`): Bytes that the header announces, itself included.

    Raises:
        DataError: If that is more than the file can hold.
    """

    def __init__(self, path: Path, read: Callable[[int], bytes]):
        import nibabel

        self._read = read
        content = read(_HEADER_SIZE)
        self.version, size = _version(path, content)
        content += read(size - _HEADER_SIZE)
        kind = nibabel.Nifti2Header if self.version == 2 else nibabel.Nifti1Header
        try:
            header = kind(content, check=False)  # its checks repair and print
            self.shape = tuple(int(size) for size in header.get_data_shape())
            self.dtype, self.scaling = header.get_data_dtype(), header.get_slope_inter()
            begin = int(header.get_data_offset())
            self.affine = header.get_best_affine() if header["sform_code"] > 0 or header["qform_code"] > 0 else None
        except (
            nibabel.wrapstruct.WrapStructError, nibabel.spatialimages.HeaderDataError, KeyError, OverflowError
        ) as error:  # fmt: skip
            raise ValueError(f"no NIfTI header: {error}") from error
        if begin < size or min(self.shape, default=1) < 0:
            raise ValueError(f"its header says shape {self.shape}, from byte {begin} on")
        self.end = begin + math.prod(self.shape) * self.dtype.itemsize
        _check_end(path, self.end)
        self.head = content + read(begin - size)  # with extensions

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
    existing(path, "NIfTI file", ABSENT_ADVICE)
    with reading(path), path.open("rb") as file:
        read = _reader(path, file)
        yield NiftiStream(path, read)
        if read(1):  # also makes zlib verify the checksum
            raise DataError(f"'{path}' is longer than its header says. Is it damaged?")


def check_nifti(path: Path) -> None:
    """Read a `.nii` or `.nii.gz` file to its end, some at a time.

    Raises:
        DataError: If it is absent or damaged, does not end where its header says, or its checksum differs.
    """
    existing(path, "NIfTI file")
    with open_nifti(path) as stream:
        left, step = math.prod(stream.shape), max(CHUNK // stream.dtype.itemsize, 1)
        while left > 0:
            left -= len(stream.values(min(left, step)))


def read_affine(path: Path) -> np.ndarray | None:
    """Affine to mm, `(4, 4)`, by the header of a `.nii` or `.nii.gz` file; `None` where it tells no place.

    Raises:
        DataError: If the file is absent, or its header damaged.
    """
    existing(path, "NIfTI file", ABSENT_ADVICE)
    with reading(path), path.open("rb") as file:
        return NiftiStream(path, _reader(path, file)).affine


def read_first(path: Path, count: int) -> np.ndarray:
    """The first numbers of a `.nii` or `.nii.gz` file, as they are stored; the rest is not looked at.

    Raises:
        DataError: If the file is absent or damaged, or ends before.
    """
    existing(path, "NIfTI file", ABSENT_ADVICE)
    with reading(path), path.open("rb") as file:
        return NiftiStream(path, _reader(path, file)).values(count)


def check_same_place(path: Path, affine: np.ndarray | None, mask_path: Path, mask_affine: np.ndarray | None) -> None:
    """Refuse a mask whose voxels lie elsewhere in space than those it is put on, where both files tell.

    Raises:
        DataError: If their affines differ by more than a thousandth of a millimetre.
    """
    if affine is None or mask_affine is None or np.allclose(affine, mask_affine, rtol=0, atol=1e-3):
        return
    corner = np.abs(affine[:3, 3] - mask_affine[:3, 3]).max()
    raise DataError(
        f"The mask '{mask_path}' lies elsewhere in space than '{path}': their affines differ (voxels of "
        f"{_sizes(mask_affine)} and {_sizes(affine)} mm, first corners up to {corner:.3g} mm apart). Resample one to "
        "the other."
    )


def _sizes(affine: np.ndarray) -> str:
    """Sizes of a voxel."""
    return " x ".join(f"{size:.4g}" for size in np.linalg.norm(affine[:3, :3], axis=0))


def read_all(stream: NiftiStream) -> np.ndarray:
    """All values of a small file, in the shape of its header."""
    if any(size < 1 for size in stream.shape):
        raise ValueError(f"its header says shape {stream.shape}")
    return stream.values(math.prod(stream.shape)).reshape(stream.shape, order="F")


def _version(path: Path, head: bytes) -> tuple[int, int]:
    """NIfTI-1 or -2 in one file, and the bytes of its header.

    Raises:
        DataError: If it is neither.
    """
    if len(head) < _HEADER_SIZE:
        raise EOFError("it ends within its header")
    sizes = [int.from_bytes(head[:4], order) for order in ("little", "big")]
    magics = {_HEADER_SIZE: head[344:347], _HEADER_2_SIZE: head[4:7]}
    found = next(((size, magics[size]) for size in sizes if size in magics), (0, b""))
    if found == (_HEADER_SIZE, b"n+1"):
        return 1, _HEADER_SIZE
    if found == (_HEADER_2_SIZE, b"n+2"):
        return 2, _HEADER_2_SIZE
    if found[1] in (b"ni1", b"ni2"):
        raise DataError(f"'{path}' is the header of a pair of files (.hdr and .img); save both in one .nii file.")
    if found[0] == _HEADER_SIZE and not head[344:348].strip(b"\0"):
        raise DataError(f"'{path}' is a file of ANALYZE 7.5, no NIfTI file; it does not tell left from right.")
    raise DataError(f"'{path}' is no NIfTI file, or its header is damaged: {begins_like(head)}.")


def _check_end(path: Path, end: int) -> None:
    """Compare what a header announces with the size of the file, before anything of that size is read."""
    if path.suffix.lower() == ".gz":
        check_unpacked(path, end)
    elif end > path.stat().st_size:
        raise ValueError(f"its header announces {end} bytes, but it has {path.stat().st_size}")


def _reader(path: Path, file: BinaryIO) -> Callable[[int], bytes]:
    """What gives the next bytes of a file, decompressed if its name says so.

    Raises:
        DataError: If its name and its content disagree on that.
    """
    packed, named = head_of(path).startswith(b"\x1f\x8b"), path.suffix.lower() == ".gz"
    if packed != named:
        raise DataError(
            f"'{path}' is {'compressed by gzip' if packed else 'not compressed'}, but its name says otherwise; "
            f"rename it to end in {'.nii.gz' if packed else '.nii'}."
        )
    return _Inflated(file).read if named else file.read


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
