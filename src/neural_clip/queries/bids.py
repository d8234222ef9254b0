"""A recording in a BIDS data set, named by its file or by the entities of the name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.queries.options import RecordingOptions

DESCRIPTION = "dataset_description.json"  # at the root of each BIDS data set
ENTITY = re.compile(r"(sub|ses|task|run)-([a-zA-Z0-9]+)_")
PREFIX = re.compile(r"^(sub|ses|task|run)-")
SUFFIX = re.compile(r"_(eeg|meg)\.[\w.]+\Z")


@dataclass(frozen=True)
class BidsPlace:
    """Where a recording lies.

    Args:
        root (`Path`): Of the data set.
        datatype (`str`, *optional*): `"eeg"` or `"meg"`, where the name of a file says so.
        subject, session, task, run (`str`, *optional*): Entities without their prefix.
    """

    root: Path
    datatype: str | None
    subject: str
    session: str | None
    task: str | None
    run: str | None


def bids_place(path: Path, options: RecordingOptions) -> BidsPlace | None:
    """The recording that a file or a root stands for; `None` where it lies in no BIDS data set.

    Raises:
        DataError: If the root of a data set is given without a subject and a task.
    """
    if (path / DESCRIPTION).is_file():
        if options.subject in (None, "average") or options.task is None:
            names = (ENTITY.findall(file.name) for file in path.glob("sub-*/**/*_task-*"))
            tasks = sorted({value for found in names for name, value in found if name == "task"})
            raise DataError(
                f"'{path}' is a BIDS data set. Say which recording by --subject, --task and, where it has them, "
                f"--session and --run; or name its file. Its tasks are {', '.join(map(repr, tasks)) or 'not named'}."
            )
        named = (options.subject, options.session, options.task, options.run)
        subject, session, task, run = (name and PREFIX.sub("", name) for name in named)
        return BidsPlace(path, options.modality, str(subject), session, task, run)
    found, kind = dict(ENTITY.findall(path.name)), SUFFIX.search(path.name)
    root = next((folder for folder in path.absolute().parents if (folder / DESCRIPTION).is_file()), None)
    if root is None or kind is None or not {"sub", "task"} <= found.keys():
        return None
    return BidsPlace(root, kind[1], found["sub"], found.get("ses"), found["task"], found.get("run"))
