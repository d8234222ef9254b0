"""ImageNet's training images by name, wherever they lie: in folders, or in archives that are never unpacked.

Known are the usual tree (`ILSVRC/Data/CLS-LOC/train/<synset>/<name>.JPEG`, also `train/<synset>` or the synset folders
alone), a flat folder, `ILSVRC2012_img_train.tar` (a tar with one tar a class), tars of single classes
(`<synset>.tar`), and zip files with the images at any depth. Of an archive only headers and wanted images are read:
nothing is extracted, and of the paths in it only the last part counts, so no name can lead anywhere.
"""

from __future__ import annotations

import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from neural_clip.corpora.imagenet_eeg.options import IMAGE_DIR
from neural_clip.errors import DataError

IMAGE_NAME = re.compile(r"n[0-9]{8}_[0-9]+")
"""Name of a training image without its suffix, `<synset>_<number>`."""
_FOLDERS = (IMAGE_DIR, "train", "")
_SUFFIXES = (".JPEG", ".jpeg", ".jpg", ".JPG")
# in a folder only such files are taken for archives of images; other zip files may be anything
_ARCHIVE = re.compile(r"(?:ilsvrc|imagenet).*\.(?:tar|zip)|n[0-9]{8}\.tar", re.IGNORECASE)
_TAR_END = bytes(tarfile.BLOCKSIZE)  # a block of zeros ends a tar
_ZIP_MAGIC = b"PK\x03\x04"
_ZIP_HEADER = struct.Struct("<4s22xHH")  # of a member: magic, ..., length of its name, length of its extra field


@dataclass(frozen=True)
class ImageFile:
    """Where one image lies; holds no open file, so it can be handed to another process.

    Args:
        path (`Path`): The image file, or the archive that holds it.
        offset (`int`, *optional*): First byte in the archive; `None` for a file of its own.
        packed_size (`int`): Bytes in the archive.
        size (`int`): Bytes of the image.
        deflated (`bool`): Whether it is compressed in the archive.
        crc (`int`, *optional*): CRC-32 of the image; zip files tell it, tars do not.
    """

    path: Path
    offset: int | None = None
    packed_size: int = 0
    size: int = 0
    deflated: bool = False
    crc: int | None = None

    def read(self) -> bytes:
        """Bytes of the image file.

        Raises:
            DataError: If the file cannot be read, or the archive is truncated or damaged at this place.
        """
        try:
            with self.path.open("rb") as file:
                if self.offset is None:
                    return file.read()
                file.seek(self.offset)
                content = file.read(self.packed_size)
            if self.deflated:  # one byte more than there should be shows that there are too many
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size + 1)
        except (OSError, zlib.error) as error:
            raise DataError(f"An image in '{self.path}' cannot be read: {error}.") from error
        if len(content) != self.size or (self.crc is not None and zlib.crc32(content) != self.crc):
            raise DataError(f"Archive '{self.path}' is truncated or damaged: the image at byte {self.offset} differs.")
        return content


def find_images(place: str | Path, names: Iterable[str]) -> dict[str, ImageFile]:
    """Find ImageNet training images in a folder and the archives that lie in it, or in an archive.

    Args:
        place (`str` or `Path`): Folder, tar or zip file. Of the archives in a folder those are read whose name is
            `<synset>.tar`, or begins with ILSVRC or imagenet and ends in .tar or .zip. Files go before archives.
        names (`Iterable[str]`): Names without suffix, such as `n02951358_31190`.

    Returns:
        `dict[str, ImageFile]`: Place of each image that was found; others are left out.

    Raises:
        DataError: If `place` does not exist, or an archive is truncated or damaged.
    """
    place, names = Path(place), set(names)
    if place.is_dir():
        found = {name: file for name in names if (file := _in_folder(place, name))}
        archives = sorted(path for path in place.iterdir() if _ARCHIVE.fullmatch(path.name) and path.is_file())
    elif place.is_file():
        found, archives = {}, [place]
    else:
        raise DataError(f"'{place}', which should hold ImageNet images, does not exist.")
    for archive in archives:
        wanted = names - found.keys()
        if IMAGE_NAME.fullmatch(f"{archive.stem}_0"):
            wanted = {name for name in wanted if _synset(name) == archive.stem}
        if wanted:
            found |= _in_archive(archive, wanted)
    return found


def _synset(name: str) -> str:
    """Class of an image, the part of its name before the number."""
    return name.rsplit("_", 1)[0]


def _in_folder(folder: Path, name: str) -> ImageFile | None:
    """The file of an image in a tree or a flat folder."""
    for parent in (*(folder / part / _synset(name) for part in _FOLDERS), folder):
        for suffix in _SUFFIXES:
            path = parent / f"{name}{suffix}"
            if path.is_file():
                return ImageFile(path)
    return None


def _in_archive(archive: Path, names: set[str]) -> dict[str, ImageFile]:
    """Places of images in a tar or zip file."""
    try:
        with archive.open("rb") as file:
            is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
            return (_in_zip if is_zip else _in_tar)(archive, file, names)
    except DataError:
        raise
    except (
        tarfile.TarError, zipfile.BadZipFile, struct.error, OSError, EOFError, ValueError, OverflowError, RuntimeError,
    ) as error:  # fmt: skip
        raise DataError(
            f"Archive '{archive}' is truncated or damaged, or neither a zip file nor an uncompressed tar: {error}."
        ) from error


def _in_tar(archive: Path, file: IO[bytes], names: set[str], base: int = 0) -> dict[str, ImageFile]:
    """Places of images in a tar that begins at byte `base`, or in the tars of their classes in it."""
    found: dict[str, ImageFile] = {}
    end, size = 0, file.seek(0, os.SEEK_END)
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as tar:  # steps from header to header
        for member in tar:
            if member.offset < end or member.size < 0 or member.offset_data + member.size > size:
                raise DataError(f"Archive '{archive}' is truncated or damaged at '{member.name}'.")
            end = member.offset_data + member.size
            if not member.isreg() or member.issparse():
                continue
            if (name := _wanted(member.name, names)) is not None:
                found[name] = ImageFile(archive, base + member.offset_data, member.size, member.size)
            elif base == 0 and (of_class := _class_tar(member.name, names)):
                inner = tar.extractfile(member)
                found |= _in_tar(archive, inner, of_class, member.offset_data) if inner else {}
            if found.keys() >= names:
                return found
        # tarfile takes a damaged header for the end
        file.seek(tar.offset)
        if file.read(len(_TAR_END)) != _TAR_END:
            raise DataError(f"Archive '{archive}' is truncated or damaged at byte {base + tar.offset}.")
    return found


def _wanted(path: str, names: set[str]) -> str | None:
    """Name of the image if a path in an archive is that of a wanted one."""
    last = PurePosixPath(path)
    return last.stem if last.suffix in _SUFFIXES and last.stem in names else None


def _class_tar(path: str, names: set[str]) -> set[str]:
    """Those of the names that belong into the tar of a class with this path."""
    last = PurePosixPath(path)
    return {name for name in names if last.suffix == ".tar" and _synset(name) == last.stem}


def _in_zip(archive: Path, file: IO[bytes], names: set[str]) -> dict[str, ImageFile]:
    """Places of images in a zip file, from its directory."""
    with zipfile.ZipFile(file) as content:
        members = {name: info for info in content.infolist() if (name := _wanted(info.filename, names)) is not None}
    return {name: _zip_member(archive, file, info) for name, info in members.items()}


def _zip_member(archive: Path, file: IO[bytes], info: zipfile.ZipInfo) -> ImageFile:
    """Place of a member's content, behind its own header."""
    if info.flag_bits & 0x1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"'{info.filename}' in '{archive}' is encrypted or compressed otherwise than by deflate.")
    file.seek(info.header_offset)
    magic, name_length, extra_length = _ZIP_HEADER.unpack(file.read(_ZIP_HEADER.size))
    name = file.read(name_length).decode("utf-8" if info.flag_bits & 0x800 else "cp437")  # bit 11 tells the encoding
    offset = info.header_offset + _ZIP_HEADER.size + name_length + extra_length
    if magic != _ZIP_MAGIC or name != info.orig_filename or offset + info.compress_size > file.seek(0, os.SEEK_END):
        raise DataError(f"Archive '{archive}' is truncated or damaged at '{info.filename}'.")
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    return ImageFile(archive, offset, info.compress_size, info.file_size, deflated, info.CRC)
