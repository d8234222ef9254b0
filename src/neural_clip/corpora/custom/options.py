"""Options of `prepare` for recordings that a manifest lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.options import Options, option


@dataclass(frozen=True, kw_only=True)
class CustomOptions(Options):
    """Options of `prepare`; here is what the help of a field leaves out.

    Args:
        allow_partial (`bool`): Accept other counts than the manifest's `expect` says; the data set is then marked as
            partial.
    """

    raw_dir: str | Path | None = option(None, "where relative paths begin; default the manifest's folder", type=Path)
    subjects: Sequence[str] | None = option(None, "such as sub-01 sub-02; default all of the manifest", nargs="+")
    num_proc: int = option(1, "processes that work at the same time", type=int, metavar="N", least=1)
    allow_partial: bool = option(False, "accept other counts than 'expect' says")
    overwrite: bool = option(False, "replace an older prepared data set")
