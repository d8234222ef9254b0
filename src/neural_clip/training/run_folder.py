"""The folder of a run: it appears whole, an interrupted run is gone on with, and what stands there stays until then.

A run of `out` writes into `out.partial`: the states that `Trainer` saves, and at its end model, processor, record and
card. Then the folder is renamed to `out`, in place of an older run there. What an interruption leaves in `out.partial`
is what `--resume` goes on from; a run that is to replace it moves it to `out.interrupted` until it has a state itself.
The finished folds of cross-validation lie in `out.folds` until the run is over.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.files.record import LOADED, RECORD_FILE
from neural_clip.files.whole import (
    check_apart,
    check_free,
    link_or_copy,
    moved_aside,
    only_writer,
    place_of,
    told,
    whole_folder,
)
from neural_clip.prepared.facts import METADATA_FILE
from neural_clip.training.run_state import damage, damage_of_best, is_finished, object_in, states_of, step_of

OWN = (*LOADED, RECORD_FILE, "README.md", "training_args.bin")  # files of a checkpoint, and the code that it lists


class RunFolder:
    """Where a run writes and goes on from.

    Args:
        output_dir (`str` or `Path`): What becomes the checkpoint.

    `notes` holds what is to be said of states that [`RunFolder.start`] passed over.

    Raises:
        DataError: If it can be no folder.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.notes: list[str] = []
        self.path = place_of(output_dir)
        self.partial, self.aside, self.folds = (
            self.path.with_name(f"{self.path.name}.{what}") for what in ("partial", "interrupted", "folds")
        )
        with told(self.path, of_any_kind=True):
            self.aside.is_dir()  # raises where the name is too long

    def start(self, *, resume: bool, overwrite: bool, needs_best: bool) -> Path | None:
        """The state to go on from, or nothing for a new run; nothing is changed.

        Args:
            resume (`bool`): Go on from the last whole state.
            overwrite (`bool`): Replace an earlier run.
            needs_best (`bool`): Whether the run ends by choosing the best of its states.

        Raises:
            DataError: If the folder is taken by something else, or by a run that is not to be replaced, or there is
                nothing to go on from.
        """
        found = self._last_whole(needs_best) if resume else None
        left = self.interrupted()
        if is_unfinished_run(self.path):
            if left:
                raise DataError(f"Both '{self.path}' and '{left[0]}' hold an interrupted run. Move one of them away.")
        else:
            check_free(self.path, holds=RECORD_FILE, what="checkpoint", overwrite=True)
        earlier = moved_aside(self.path, RECORD_FILE) or (any(_entries(self.path)) and self.path)
        if (left or earlier) and not (resume or overwrite):
            taken = f"{left[0]}' holds an interrupted" if left else f"{earlier}' holds an earlier"
            raise DataError(f"'{taken} run. Pass `--resume` to go on or `--overwrite` to replace it.")
        return found

    def interrupted(self) -> list[Path]:
        """Folders in which an interrupted run has left states."""
        return [folder for folder in (self.partial, self.aside) if _n_finished(folder)]

    def _last_whole(self, needs_best: bool) -> Path:
        """The last state that a run can go on from."""
        passed: list[str] = []
        for state in [state for folder in (self.partial, self.aside, self.path) for state in states_of(folder)[::-1]]:
            found = damage(state) or (damage_of_best(state) if needs_best else None)
            if found is None:
                self.notes += passed
                return state
            passed.append(f"'{state}' cannot be resumed from: {found}.")
        if not passed:
            again = f" Without it, the run goes on from the folds in '{self.folds}'." if self.folds.is_dir() else ""
            raise DataError(f"'resume' is true, but '{self.path}' holds no checkpoint to resume from.{again}")
        raise DataError(" ".join(passed))

    @contextmanager
    def opened(self, start: Path | None, *, replaces: bool) -> Iterator[Path]:
        """Give `<output_dir>.partial` with the states up to `start`; it becomes `output_dir` at the end.

        Args:
            start (`Path`, *optional*): What [`RunFolder.start`] found.
            replaces (`bool`): Whether an older run there is replaced or gone on with.
        """
        with only_writer(self.path):
            self._put_back(bool(start and start.parent == self.aside))
            if is_unfinished_run(self.path):
                shutil.rmtree(self.partial, ignore_errors=True)  # has no state
                os.rename(self.path, self.partial)
            if start is None and _n_finished(self.partial):
                os.rename(self.partial, self.aside)
            try:
                with whole_folder(
                    self.path, holds=RECORD_FILE, what="checkpoint", overwrite=replaces, keep=_keep_states,
                    again="a training with `--resume`",
                ) as partial:  # fmt: skip
                    self._begin_with(start)
                    yield partial
                    carry_over(self.path, partial)
                    shutil.rmtree(self.aside, ignore_errors=True)
            finally:
                self._put_back()

    def _begin_with(self, start: Path | None) -> None:
        """Have the states up to `start` in the partial folder, and none later."""
        if start is None:
            return
        from_finished = start.parent == self.path and start.is_dir()
        for state in states_of(self.partial):
            if from_finished or step_of(state) > step_of(start):
                shutil.rmtree(state)
        for state in states_of(self.path) if from_finished else ():
            if step_of(state) <= step_of(start):
                half = self.partial / f"{state.name}.half"
                shutil.copytree(state, half, copy_function=link_or_copy)
                os.rename(half, self.partial / state.name)
        print(f"going on from step {step_of(start)}, which was saved in '{start}'", file=sys.stderr)

    def _put_back(self, wanted: bool = False) -> None:
        """Let an interrupted run come back that was moved aside, unless what was to replace it has a state itself."""
        if self.aside.is_dir():
            if _n_finished(self.partial) and not wanted:
                shutil.rmtree(self.aside)
            else:
                shutil.rmtree(self.partial, ignore_errors=True)
                os.rename(self.aside, self.partial)


def check_place(output_dir: str | Path, inputs: Iterable[Path]) -> None:
    """Raise a `DataError` where a run would write among what it reads, or into a prepared data set."""
    check_apart(output_dir, inputs)
    place = RunFolder(output_dir).path
    for folder in (place, *place.parents):
        if (folder / METADATA_FILE).is_file():
            raise DataError(f"'{output_dir}' lies in the data set '{folder}'. Choose another folder to write to.")


def is_unfinished_run(folder: Path) -> bool:
    """Whether a folder is what an interruption left of a run that wrote into its output folder itself."""
    states = states_of(folder)
    if not states or (folder / RECORD_FILE).exists():
        return False
    ours = all(
        path in states or path.name == "runs" or path.suffix == ".py" or _is_own(path.name)
        for path in _entries(folder)
    )
    return ours and any(
        (object_in(state / "config.json") or {}).get("model_type") == "neural_clip" for state in states
    )


def carry_over(old: Path, new: Path) -> None:
    """Link into a new checkpoint what lies in the folder of the old one and is no part of that."""
    files = (object_in(old / RECORD_FILE) or {}).get("files")
    listed = files if files and isinstance(files, dict) else [path.name for path in old.glob("*.py")]
    states = states_of(old)
    for path in _entries(old):
        if path.name in listed or path in states or _is_own(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new / path.name, symlinks=True, copy_function=_link_new, dirs_exist_ok=True)
        else:
            _link_new(str(path), str(new / path.name))


def _link_new(source: str, target: str) -> str:
    """[`link_or_copy`] where nothing lies yet."""
    return target if os.path.lexists(target) else link_or_copy(source, target)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, if there is one."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_own(name: str) -> bool:
    """Whether a file of a checkpoint is called so."""
    return any(fnmatch(name, pattern) for pattern in OWN)


def _n_finished(folder: Path) -> int:
    """How many states of a run were written to their end."""
    return sum(map(is_finished, states_of(folder)))


def _keep_states(partial: Path) -> int:
    """Remove what is half written; tell how many states stay."""
    finished = [state for state in states_of(partial) if is_finished(state)]
    for path in _entries(partial):
        if path.is_dir() and path not in finished and path.name != "runs":
            shutil.rmtree(path)
        elif not path.is_dir():
            path.unlink()
    return len(finished)
