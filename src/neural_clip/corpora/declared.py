"""What a corpus must hold, against what was found and what was asked for; names in tables against their folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from neural_clip.errors import DataError, check_value

NOT_DOWNLOADED = "not_downloaded.txt"


def check_facts(where: str | Path, declared: Mapping, found: Mapping, *, allow_partial: bool) -> dict | None:
    """Compare what a corpus must hold with what was found.

    Args:
        where (`str` or `Path`): The file or folder that was read.
        declared (`Mapping`): Published facts by name, such as `{"trials": 11965}`.
        found (`Mapping`): The same facts as found.
        allow_partial (`bool`): Accept differences; they are returned and belong into the metadata as `partial`.

    Returns:
        `dict`, *optional*: `{name: {"found": ..., "declared": ...}}` of the facts that differ, `None` if none does.

    Raises:
        DataError: If facts differ and `allow_partial` is false; all differences are listed.
    """
    different = {
        name: {"found": found.get(name), "declared": value}
        for name, value in declared.items()
        if found.get(name) != value
    }
    if different and not allow_partial:
        listed = "; ".join(
            f"{name}: {facts['found']} instead of {facts['declared']}" for name, facts in different.items()
        )
        raise DataError(
            f"'{where}' is not the corpus as published: {listed}. If you have a part of it, say so with the "
            "'allow_partial' parameter (--allow-partial); the data set is then marked as partial."
        )
    return different or None


def listed(raw_dir: Path, lacking: Sequence[Path]) -> dict[str, bytes]:
    """The file that lists what a partial data set lacks, by its name; none where nothing is lacking."""
    lines = [f"{path.relative_to(raw_dir).as_posix()}\n" for path in lacking]
    return {NOT_DOWNLOADED: "".join(lines).encode()} if lines else {}


def told_lacking(lacking: Sequence[Path]) -> list[str]:
    """The same as a known defect."""
    return [f"{len(lacking)} files are lacking; {NOT_DOWNLOADED} lists them."] if lacking else []


def chosen(name: str, wanted: Sequence[int] | None, known: Sequence[int]) -> list[int]:
    """Numbers of subjects or sessions to read, in order, each once; a `DataError` where one is not `known`."""
    fits = wanted is None or (bool(wanted) and set(wanted) <= set(known))
    check_value(name, list(wanted or ()), fits, f"numbers of {list(known)}")
    return sorted(set(wanted or known))


def path_inside(folder: Path, name: str, where: str | Path) -> Path:
    """Join a relative path that a table names to the folder that must hold it.

    Links within the folder are followed, because downloads by datalad consist of them; the name itself cannot leave.

    Args:
        folder (`Path`): The folder.
        name (`str`): Path below it, with `/` between its parts.
        where (`str` or `Path`): The table, for the message.

    Raises:
        DataError: If the name is empty or absolute, steps up, or holds a backslash or a NUL.
    """
    path = PurePosixPath(name)
    if "\\" in name or "\0" in name or not path.parts or path.is_absolute() or ".." in path.parts:
        raise DataError(f"'{where}' names the file {name!r}, which is not a path inside '{folder}'.")
    return folder / path
