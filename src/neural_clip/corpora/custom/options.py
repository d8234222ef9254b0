"""Options of `prepare` for recordings that a manifest lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.options import Options, option


@dataclass(frozen=True, kw_only=True)
class CustomOptions(Options):
    """Options of `prepare`.

    Args:
        raw_dir (`str` or `Path`, *optional*): Where the manifest's relative paths begin; by default its own folder.
        subjects (`Sequence[str]`, *optional*): Subjects to take, like `sub-01`; by default all. The data set is
            marked as partial.
        num_proc (`int`): Processes that read and write files at the same time.
        allow_partial (`bool`): Accept other counts than the manifest's `expect` says; the data set is then marked as
            partial.
        overwrite (`bool`): Replace an older prepared data set.
    """

    raw_dir: str | Path | None = option(None, "where relative paths begin; default the manifest's folder", type=Path)
    subjects: Sequence[str] | None = option(None, "such as sub-01 sub-02; default all of the manifest", nargs="+")
    num_proc: int = option(1, "processes that work at the same time", type=int, metavar="N")
    allow_partial: bool = option(False, "accept other counts than 'expect' says")
    overwrite: bool = option(False, "replace an older prepared data set")
