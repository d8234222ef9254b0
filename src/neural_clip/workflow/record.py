"""The record of a run, `run.json`: what the outputs in its folder were made from.

An output that stands there was made from what the record says. Where something differs, outputs are moved aside before
the record is written anew, the last first, so that this holds at any moment.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.files.numbers import is_count
from neural_clip.files.reading import read_json
from neural_clip.files.record import sealed
from neural_clip.files.whole import place_of, told, write_whole
from neural_clip.prepared.facts import METADATA_FILE

RUN_FILE = "run.json"
OUTPUTS = ("data", "checkpoint", "evaluation")  # each is made from those before it
REPLACED = "replaced"
N_NAMED = 5  # differences in a message
DIGEST = 64  # characters of a SHA-256
ANEW = "`--overwrite` begins anew."
MadeFrom = dict[str, dict[str, str | int | float | bool | None]]  # of each output, by what it is called in messages


def begin(output_dir: Path, made_from: MadeFrom, *, overwrite: bool) -> None:
    """Make a folder ready for outputs that are made from something; those that were made from it stay.

    Args:
        output_dir (`Path`): Folder of the run.
        made_from (`MadeFrom`): Of each of `OUTPUTS`; `None` stands for what is not known yet, and agrees with all.
        overwrite (`bool`): Move outputs aside that were made from something else; all where there is none.

    Raises:
        DataError: If other files lie there, the record is damaged, or outputs would have to be moved and are not to.
    """
    before = _read(output_dir, overwrite)
    changed = {name: _changes(before.get(name, {}), made_from[name]) for name in OUTPUTS} if before is not None else {}
    first = next((number for number, name in enumerate(OUTPUTS) if changed.get(name)), None)
    made = [name for name in OUTPUTS[first or 0 :] if _is_made(output_dir, name)]
    if first is not None and made and not overwrite:
        found = [sentence for name in OUTPUTS for sentence in changed[name]]
        told_changes = "; ".join(found[:N_NAMED]) + f"; {len(found) - N_NAMED} more" * (len(found) > N_NAMED)
        raise DataError(
            f"'{output_dir}' holds a run that was made from something else: {told_changes}. It concerns "
            f"{' and '.join(made)}. Give what it was, choose another folder, or pass `--overwrite` to make these anew."
        )
    if overwrite and before is not None:
        _move_aside(output_dir, OUTPUTS[first or 0 :])
    write_record(output_dir, made_from)


def write_record(output_dir: Path, made_from: MadeFrom) -> None:
    """Write what the outputs are made from."""
    write_whole(output_dir / RUN_FILE, json.dumps(sealed({"made_from": made_from}), indent=2) + "\n")


def remove_replaced(output_dir: Path) -> None:
    """Remove what was moved aside."""
    for path in output_dir.glob(f"{REPLACED}-*"):
        if is_count(path.name.removeprefix(f"{REPLACED}-")):
            shutil.rmtree(path)


def check_folder(output_dir: Path) -> None:
    """Raise a `DataError` where a run cannot lie in a folder: a file, or one that holds something else."""
    place = place_of(output_dir)
    with told(place, of_any_kind=True):
        if place.exists() and not place.is_dir():
            raise DataError(f"'{output_dir}' is a file; name a folder.")
        taken = place.exists() and bool(_entries(place))
    if taken and not (place / RUN_FILE).is_file():
        raise DataError(
            f"'{output_dir}' is not empty and holds no run of `neural-clip run` (no {RUN_FILE}). Choose another "
            "folder."
        )


def _read(output_dir: Path, overwrite: bool) -> MadeFrom | None:
    """What the outputs were made from, `None` where there is no record; nothing is known of a damaged one."""
    path = output_dir / RUN_FILE
    if not path.exists():
        return None
    try:
        record = read_json(path, "record of a run")
        found = record.get("made_from") if isinstance(record, dict) and record == sealed(record) else None
        if isinstance(found, dict) and all(isinstance(part, dict) for part in found.values()):
            return found
        raise DataError(f"'{path}' was changed since it was written, or is damaged.")
    except DataError as error:
        if overwrite:
            return {}
        raise DataError(f"{error} {ANEW}") from error


def _changes(before: Mapping, now: Mapping) -> list[str]:
    """What differs, a part of a sentence each."""
    sentences = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if old == new or (name in before and old is None):
            continue
        if isinstance(old, str) and isinstance(new, str) and len(old) == len(new) == DIGEST:
            sentences.append(f"{name} has changed")
        else:
            sentences.append(f"{name} was {_value(name, before)} and is {_value(name, now)}")
    return sentences


def _value(name: str, values: Mapping) -> str:
    """A value in words."""
    value = values.get(name, "not given")
    return "there" if isinstance(value, str) and len(value) == DIGEST else str(value)


def _is_made(output_dir: Path, name: str) -> bool:
    """Whether an output is there, or an unfinished one that does not say by itself what it was made from."""
    if name == "data":
        return any(output_dir.glob(f"data/*/{METADATA_FILE}"))
    return any(path.name.partition(".")[0] == name for path in _entries(output_dir))


def _move_aside(output_dir: Path, names: tuple[str, ...]) -> None:
    """Move outputs, and what is left of unfinished ones, into a new folder."""
    aside = next(path for number in count(1) if not (path := output_dir / f"{REPLACED}-{number}").exists())
    for name in reversed(names):
        for path in _entries(output_dir):
            if path.name.partition(".")[0] == name:
                with told(path, of_any_kind=True):
                    aside.mkdir(exist_ok=True)
                    os.rename(path, aside / path.name)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, but for hidden files and a record that was being written when its run was killed."""
    return sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and path.name != f"{RUN_FILE}.partial"
    )
