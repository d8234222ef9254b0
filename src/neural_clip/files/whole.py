"""Files and folders that appear whole and are written by one process at a time, and their SHA-256.

A folder is written as `<path>.partial`. Where it replaces an older one, that one is renamed to `<path>.replaced`, the
new one to `path`, and the older one is removed. A run that is killed between the two renames leaves the older one in
`<path>.replaced`, and the next that writes puts it back.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from neural_clip.errors import DataError

NO_SPACE = "no space is left on the device"
REFUSALS = {
    errno.ENOSPC: NO_SPACE,
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EFBIG: "the file would be larger than is allowed",
}
DATA_FILES = ("neural_clip.json", "SIMULATED.json")  # of prepared and simulated data sets, which hold no other folder
FULL = 2**16  # bytes; with fewer left, whatever a library says of a file that it could not write, the disk is full
SETTLED_NS = 2 * 10**9  # after which a change has other times, on file systems that count them in 10 ms to 2 s
PATIENCE = 0.2  # s that are waited for a process that is just about to finish
_DIGESTS: dict[tuple, str] = {}  # of files that were read


@contextmanager
def only_writer(path: str | Path) -> Iterator[None]:
    """Be the only process that writes a file or folder; what this process does within the block may ask again.

    The lock is an empty file `.<name>.writing` beside it, which vanishes at the end. When its process dies, the lock
    is free, whether or not the file is still there.

    Raises:
        DataError: If another process writes it, or nothing can be written there.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    _check_name(path)
    parent, mark = path.parent, path.with_name(f".{path.name}.writing")
    with told(path, of_any_kind=True):
        made = not parent.exists()
        parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(mark, timeout=PATIENCE, is_singleton=True)
        try:
            lock.acquire()
        except Timeout as error:
            if not mark.exists():
                raise DataError(f"'{path}' cannot be written: no file can be made in '{parent}'.") from error
            raise DataError(
                f"Another process is writing '{path}'. Wait until it has finished, or choose another name."
            ) from error
    try:
        yield
    finally:
        if lock.lock_counter == 1:  # removed while it is held: another process that has it open sees that it is gone
            with suppress(OSError):
                mark.unlink()
        lock.release()
        if made:
            with suppress(OSError):
                parent.rmdir()  # nothing was written


@contextmanager
def told(path: str | Path, *, of_any_kind: bool = False) -> Iterator[None]:
    """Turn the refusal of the system to write at `path` into a `DataError` that names it.

    Args:
        path (`str` or `Path`): What is written.
        of_any_kind (`bool`, *optional*, defaults to `False`): Take every `OSError` for such a refusal, which nothing
            but writing can have raised; otherwise those that reading never gives.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # NumPy, torch and safetensors have errors of their own for a full disk
        number = error.errno if isinstance(error, OSError) else None
        reason = REFUSALS.get(number or 0)
        if reason is None and of_any_kind and isinstance(error, OSError):
            where = f" ('{error.filename}')" if error.filename not in (None, str(path)) else ""
            reason = (error.strerror or str(error)).lower() + where
        if reason is None and _is_full(Path(path)):
            reason = NO_SPACE
        if reason is None:
            raise
        raise DataError(f"'{path}' cannot be written: {reason}. What was there before is unchanged.") from error


def _is_full(path: Path) -> bool:
    """Whether the device of a file or folder, which need not be there, has no space left."""
    there = next((place for place in (path, *path.absolute().parents) if place.exists()), None)
    return there is not None and shutil.disk_usage(there).free < FULL


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give `<path>.partial` to write; it becomes `path` if the block ends without an error, and vanishes otherwise.

    Raises:
        DataError: If another process writes it, the disk is full or read-only, or it may not be written.
    """
    partial = path.with_name(path.name + ".partial")
    with only_writer(path):
        try:
            with told(path):
                yield partial
            with told(path, of_any_kind=True):
                os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(
    path: str | Path,
    *,
    holds: str,
    what: str,
    overwrite: bool = False,
    keep: Callable[[Path], int] | None = None,
    again: str = "the same command",
) -> Iterator[Path]:
    """Give `<path>.partial` to fill; it becomes `path` if the block ends without an error, and vanishes otherwise.

    Args:
        path (`str` or `Path`): The folder, or a link to one; an empty one may be there.
        holds (`str`): Name of a file that every such folder holds; a folder without it is never overwritten.
        what (`str`): What such a folder is, for messages.
        overwrite (`bool`, *optional*, defaults to `False`): Replace an older such folder.
        keep (`Callable`, *optional*): Removes all but finished parts of the partial folder and tells how many there
            are. Parts of an earlier run are then there to go on from, and parts stay after an error.
        again (`str`, *optional*): What goes on from there, for messages.

    Raises:
        DataError: If `path` is taken, another process writes it, the disk is full or read-only, or it may not be
            written.
    """
    path = place_of(path)
    partial, old = (path.with_name(path.name + suffix) for suffix in (".partial", ".replaced"))
    with only_writer(path):
        restore(path, holds)
        check_free(path, holds=holds, what=what, overwrite=overwrite)
        with told(path, of_any_kind=True):
            if not (keep and partial.is_dir() and keep(partial)):
                _remove(partial, holds)  # of a run that was killed
            partial.mkdir(exist_ok=True)
        try:
            with told(path):
                yield partial
            if not (partial / holds).is_file():
                raise RuntimeError(f"'{partial}' was to become a {what}, but has no {holds}.")
            with told(path, of_any_kind=True):
                _remove(old, holds)
                if path.exists():
                    os.rename(path, old)
                os.rename(partial, path)
            _remove(old, holds)
        finally:
            restore(path, holds)
            if kept := keep(partial) if keep and partial.is_dir() else 0:
                stay = "finished part stays" if kept == 1 else "finished parts stay"
                print(f"{kept} {stay} in '{partial}'; {again} goes on from there.", file=sys.stderr)
            else:
                _remove(partial, holds)


def place_of(path: str | Path) -> Path:
    """Absolute path of a folder that is to be written, without links.

    Raises:
        DataError: If it is the root of the file system, a link to nothing, or lies in a data set.
    """
    place = Path(os.path.realpath(path))
    if os.path.islink(path) and not place.exists():
        raise DataError(f"'{path}' is a link to '{os.readlink(path)}', which is not there. Remove the link.")
    _check_name(place)
    for parent in place.parents:
        if found := next((name for name in DATA_FILES if (parent / name).is_file()), None):
            raise DataError(f"'{path}' lies in the data set '{parent}' ({found}). Choose a folder outside it.")
    return place


def _check_name(path: Path) -> None:
    if not path.name:
        raise DataError(f"'{path}' is the root of the file system; choose a folder in it.")


def check_free(path: Path, *, holds: str, what: str, overwrite: bool) -> None:
    """Raise a `DataError` unless a folder may be written: there is none, an empty one, or one that may be replaced."""
    if os.path.ismount(path):
        raise DataError(
            f"'{path}' is where a file system is mounted, so it cannot be replaced; choose a folder in it."
        )
    with told(path, of_any_kind=True):
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if taken and not (path / holds).is_file():
        raise DataError(f"'{path}' exists and is no {what}, so it is not overwritten; choose another name.")
    if taken and not overwrite:
        raise DataError(f"'{path}' is not empty. Pass `--overwrite` to replace the {what}, or choose another.")


def check_apart(path: str | Path, inputs: Iterable[str | Path]) -> None:
    """Raise a `DataError` where a folder would be written into one that is read, or in place of what is read."""
    place = place_of(path)
    for given in inputs:
        read = Path(os.path.realpath(given))
        if place == read or read in place.parents:
            raise DataError(f"'{path}' lies in '{given}', which is read. Choose a folder outside it.")
        if place in read.parents:
            raise DataError(f"'{path}' holds '{given}', which is read. Choose another folder.")


def moved_aside(path: str | Path, holds: str) -> Path | None:
    """Where a folder lies that a killed run was about to replace; `None` where nothing of that kind happened."""
    path = Path(os.path.realpath(path))
    old = path.with_name(path.name + ".replaced")
    return old if not path.exists() and (old / holds).is_file() else None


def restore(path: str | Path, holds: str) -> None:
    """Put a folder back that a killed run had moved aside; only within [`only_writer`]."""
    if old := moved_aside(path, holds):
        os.rename(old, Path(os.path.realpath(path)))
        print(f"'{path}' was put back from '{old}', where a run had moved it that was interrupted.", file=sys.stderr)


def _remove(folder: Path, holds: str) -> None:
    """Remove a folder, and before all else the file that marks it as whole."""
    if folder.is_dir():
        (folder / holds).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def link_or_copy(source: str, target: str) -> str:
    """Share a file's bytes where the file system can, copy them where it cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file by [`whole_file`]; text becomes UTF-8."""
    with whole_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256_of(paths: Iterable[Path]) -> str | None:
    """SHA-256 over the contents of files in order of their names, of one file that of `sha256sum`; `None` of none.

    A process reads a file once for this, until its inode, size or one of its times is another; a file that changed in
    the last seconds is read each time, since the next change could have the same times.
    """
    files = sorted(paths)
    marks = tuple(map(_mark, files))
    if marks not in _DIGESTS:
        digest, began = hashlib.sha256(), time.time_ns()
        for path in files:
            with path.open("rb") as file:
                while chunk := file.read(2**20):
                    digest.update(chunk)
        if marks != tuple(map(_mark, files)) or any(began - max(times) < SETTLED_NS for *_, times in marks):
            return digest.hexdigest() if files else None
        _DIGESTS[marks] = digest.hexdigest()
    return _DIGESTS[marks] if files else None


def _mark(path: Path) -> tuple[int, int, int, tuple[int, int]]:
    """What tells contents of a file apart without reading them; no program can set the last of the times."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, (stat.st_mtime_ns, stat.st_ctime_ns)


def replace_marked(path: Path, name: str, content: str) -> None:
    """Put text between `<!-- results: name -->` and `<!-- end -->`."""
    text = path.read_text(encoding="utf-8")
    begin = f"<!-- results: {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?<!-- end -->", re.DOTALL)
    if not pattern.search(text):
        raise DataError(f"'{path}' has no place marked {begin} ... <!-- end -->.")
    write_whole(path, pattern.sub(lambda _: f"{begin}\n\n{content}\n\n<!-- end -->", text))
