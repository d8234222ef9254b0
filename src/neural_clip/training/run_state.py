"""The states of a run that `Trainer` saves, `checkpoint-STEP`: which are there, and whether a run can go on from one.

`files.json` lists the digests of a state's files. It is empty while the state is written, so that what an interruption
leaves half is told apart from what is whole, and what changed on the disk from what was written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from neural_clip.errors import DataError
from neural_clip.files.numbers import is_count
from neural_clip.files.reading import read_json
from neural_clip.files.record import record_files
from neural_clip.files.whole import write_whole

BATCHES_FILE = "batches.json"  # what decides the batches that come next
FILES_FILE = "files.json"


def step_of(state: Path) -> int:
    """Steps that a state was saved after; -1 for a folder of another name."""
    number = state.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
    return int(number) if is_count(number) else -1


def states_of(folder: Path) -> list[Path]:
    """The states in a folder by their steps, half ones too."""
    found = folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if folder.is_dir() else ()
    return sorted((path for path in found if step_of(path) >= 0 and path.is_dir()), key=step_of)


def is_finished(state: Path) -> bool:
    """Whether a state was written to its end; what happened to it later is not looked at."""
    return (state / TRAINER_STATE_NAME).is_file() and object_in(state / FILES_FILE) != {}


def mark_unfinished(state: Path) -> None:
    """Say that a state is about to be written."""
    state.mkdir(parents=True, exist_ok=True)
    write_whole(state / FILES_FILE, "{}\n")


def mark_finished(state: Path) -> None:
    """Say that a state is whole, and what is in it."""
    names = [path.name for path in state.iterdir() if path.name != FILES_FILE]
    write_whole(state / FILES_FILE, json.dumps(record_files(state, names), indent=2) + "\n")


def object_in(path: Path) -> dict[str, Any] | None:
    """What a file of a state holds, or nothing where that is no JSON object."""
    try:
        found = read_json(path, finite=False)  # gradients that overflowed are logged as NaN
    except DataError:
        return None
    return found if isinstance(found, dict) else None


def damage(state: Path) -> str | None:
    """What keeps a run from going on from a state, as the end of a sentence; `None` for a whole one."""
    if not is_finished(state):
        return "it is half written"
    if (state / FILES_FILE).exists():
        recorded = object_in(state / FILES_FILE)
        if recorded is None:
            return f"its {FILES_FILE} is damaged"
        for name, digest in recorded.items():
            if not (state / name).is_file():
                return f"it lacks {name}"
            if record_files(state, [name])[name] != digest:
                return f"its {name} is not the file that was written"
    for name in (OPTIMIZER_NAME, SCHEDULER_NAME):
        if not (state / name).is_file():
            return f"it lacks {name} (was 'training.save_only_model' true?)"
    # of before the files were listed
    batches = object_in(state / BATCHES_FILE) or {}
    if len(list(state.glob("rng_state*.pth"))) < batches.get("num_processes", 1):
        return "it lacks the random state of a process"
    if not (state / "config.json").is_file():
        return "it has no config.json"
    if type((object_in(state / TRAINER_STATE_NAME) or {}).get("global_step")) is not int:
        return f"its {TRAINER_STATE_NAME} is damaged"
    return None


def damage_of_best(state: Path) -> str | None:
    """What is wrong with the best state so far of the run that saved a state, which its end would choose."""
    progress = object_in(state / TRAINER_STATE_NAME) or {}
    if not (step := progress.get("best_global_step")):
        return None
    best = state.with_name(f"{PREFIX_CHECKPOINT_DIR}-{step}")
    found = "it is missing" if not best.is_dir() else None if best == state else damage(best)
    if found is None:
        return None
    return (
        f"'{best}' is the best so far, with a score of {progress.get('best_metric')}, and {found}. Copy it there, or "
        "give 'training.load_best_model_at_end' as false and lose it"
    )
