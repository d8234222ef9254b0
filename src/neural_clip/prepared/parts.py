"""Pieces of a data set that are written, and kept after an interruption, on their own.

A finished piece leaves a mark beside the data, with what it counted and the size and time of the raw files it was made
from. A rerun with the same parameters, on the same raw files, takes finished pieces over and goes on with the others.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from neural_clip.errors import DataError
from neural_clip.files.reading import read_json
from neural_clip.files.whole import only_writer, write_whole
from neural_clip.parallel import n_processes, run_units

MARKS_DIR = ".parts"
FOLDERS = {"images": "images", "recordings": "data"}
SEEN_S = 60  # within which a file system shared by machines shows what another one wrote
PART_NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Part:
    """A piece of a data set that is written, and kept after an interruption, on its own.

    Args:
        name (`str`): Unique among the parts; letters, digits, `-` and `_`.
        rows (`Callable`): Gives the rows. Must be picklable, because it may be called in another process, and must
            not depend on other parts.
        files (sequence of `Path`): Raw files on which the rows depend, tables included; a finished part is made anew
            when the size or the time of one of them has changed.
        n_rows (`int`, *optional*): How many rows, for the progress bar.
    """

    name: str
    rows: Callable[[], Iterable[Any]]
    files: Sequence[Path] = ()
    n_rows: int | None = None


class Writer(Protocol):
    """Writes the rows of one part and tells what it counted."""

    def __call__(self, folder: Path, rows: Iterable[Any], label: str, tick: Callable[[int], object]) -> dict:
        """Write into `folder`, with `label` in the file names, and call `tick(1)` for each row."""


def run_parts(
    folder: Path,
    kind: str,
    source: Iterable[Any] | Sequence[Part],
    write: Writer,
    *,
    key: dict | None = None,
    num_proc: int = 1,
) -> list[dict]:
    """Write all parts that are not finished yet.

    Args:
        folder (`Path`): Where files and marks go.
        kind (`str`): `"images"` or `"recordings"`.
        source (iterable of `dict`, or sequence of [`Part`]): Rows, which are written in one go, or parts.
        write (`Callable`): Must be picklable if `num_proc` is above 1; returns what JSON can hold.
        key (`dict`, *optional*): What decides the files beside the parts themselves.
        num_proc (`int`, *optional*, defaults to 1): Processes that write at the same time.

    Returns:
        `list[dict]`: What `write` returned for each part, in the order of the parts.

    Raises:
        DataError: If a part cannot be written, its name is taken or not allowed, or a process was killed.
    """
    from tqdm import tqdm

    root = folder / FOLDERS[kind]
    parts = [part for part in source if isinstance(part, Part)] if isinstance(source, Sequence) else []
    if not parts:
        shutil.rmtree(root, ignore_errors=True)  # of a run that was killed
        with tqdm(desc=kind, unit="row") as progress:
            return [write(folder, source, "", progress.update)]
    _check_names(parts)
    (folder / MARKS_DIR).mkdir(exist_ok=True)
    jobs = [_Job(folder, kind, number, part, write, key or {}) for number, part in enumerate(parts)]
    results: dict[int, dict] = {}
    total = sum(part.n_rows or 0 for part in parts) or None
    with tqdm(total=total, desc=kind, unit="row") as progress:
        for job in jobs:
            kept = job.kept()
            if kept is not None:
                results[job.number] = kept
                progress.update(job.part.n_rows or 0)
        todo = {job.part.name: job for job in jobs if job.number not in results}
        if n_processes(num_proc) == 1:
            results |= {job.number: job.run(progress.update) for job in todo.values()}
        else:
            for name, summary in run_units(_Job.run, todo, num_proc=num_proc):
                job = todo[name]
                _await(job)
                results[job.number] = summary
                progress.update(job.part.n_rows or 0)
    _remove_strangers(root, jobs)
    return [results[job.number] for job in jobs]


def keep_parts(folder: Path) -> int:
    """Remove metadata and extra files, which are made anew; tell how many finished parts there are."""
    finished = len(list((folder / MARKS_DIR).glob("*.json")))
    for path in folder.iterdir() if finished else ():
        if path.is_file():
            path.unlink()
        elif path.name not in (*FOLDERS.values(), MARKS_DIR):  # parts lie in these, extra files in others
            shutil.rmtree(path)
    return finished


def remove_marks(folder: Path) -> None:
    """Remove the marks of finished parts, when the whole is finished."""
    shutil.rmtree(folder / MARKS_DIR, ignore_errors=True)


def _await(job: _Job) -> None:
    """Wait until what a process wrote, perhaps on another machine, is seen by this one."""
    until = time.monotonic() + SEEN_S
    while job.kept() is None:
        if time.monotonic() > until:
            raise DataError(
                f"The part {job.part.name!r} was written by another process, but is not in '{job.folder}' as this one "
                "sees it. All machines need the same folders under the same names, and the same version of "
                "neural_clip."
            )
        time.sleep(0.1)


@dataclass(frozen=True)
class _Job:
    """One part on its way to files."""

    folder: Path
    kind: str
    number: int
    part: Part
    write: Writer
    key: dict

    @property
    def label(self) -> str:
        """What the names of this part's files end in; sorts like the parts."""
        return f"-{self.number:04d}"

    @property
    def mark(self) -> Path:
        return self.folder / MARKS_DIR / f"{self.kind}{self.label}.json"

    def identity(self) -> dict:
        """Everything that decides the part's files."""
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer)
        pickler.fast = True  # writes equal values alike, whether or not they are one object in memory
        pickler.dump((self.part.name, self.part.rows, self.key, self.number, version("neural_clip")))
        raw = [[str(path), stat.st_size, stat.st_mtime_ns] for path in self.part.files for stat in [_stat(path)]]
        return {"content": hashlib.sha256(buffer.getvalue()).hexdigest(), "raw": raw}

    def kept(self) -> dict | None:
        """What a finished part counted, `None` if it is not finished or was made of something else."""
        try:
            mark = read_json(self.mark, finite=False)
            sizes = {name: (self.folder / name).stat().st_size for name in mark["files"]}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return mark["summary"] if mark["identity"] == self.identity() and sizes == mark["files"] else None

    def run(self, tick: Callable[[int], object] = lambda rows: None) -> dict:
        """Write the part and its mark."""
        with only_writer(self.mark):  # a worker of a cluster goes on with its unit when the command was killed
            self.mark.unlink(missing_ok=True)
            for path in self.files():
                path.unlink()  # of a run that was killed, or of other parameters
            identity = self.identity()
            summary = self.write(self.folder, self.part.rows(), self.label, tick)
            if identity != self.identity():
                raise DataError(
                    f"Raw files of '{self.part.name}' changed while they were read. Run the command again."
                )
            files = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in self.files()}
            write_whole(self.mark, json.dumps({"identity": identity, "files": files, "summary": summary}))
            return summary

    def files(self) -> list[Path]:
        """Parquet files of this part."""
        return sorted((self.folder / FOLDERS[self.kind]).rglob(f"*{self.label}-?????.parquet"))


def _remove_strangers(root: Path, jobs: Sequence[_Job]) -> None:
    """Remove what a killed run with other parts left behind."""
    own = {path for job in jobs for path in job.files()}
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_file() and path not in own:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _check_names(parts: Sequence[Part]) -> None:
    """Require names that are allowed and differ."""
    names = [part.name for part in parts]
    wrong = next((name for name in names if not PART_NAME.fullmatch(name) or names.count(name) > 1), None)
    if wrong is not None:
        raise DataError(f"Parts need different names of letters, digits, '-' and '_', but one is {wrong!r}.")


def _stat(path: Path) -> os.stat_result:
    """Size and times of a raw file; a `DataError` where it is not there any more, or a link to nothing."""
    try:
        return os.stat(path)
    except OSError as error:
        raise DataError(f"The raw file '{path}' cannot be read: {(error.strerror or str(error)).lower()}.") from error
