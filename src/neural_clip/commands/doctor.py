"""Examine a prepared data set and tell what would make its scores wrong, and how.

Everything is recomputed from the Parquet files: images, runs and recordings in several splits, identical recordings
and images, values that are not finite, channels that do not move, statistics fitted on the test split, block designs,
counts and embeddings. The exit code is 1 where there is an error.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path

from neural_clip.commands.options import ClusterOptions, read_options
from neural_clip.options import option
from neural_clip.parallel import on_cluster
from neural_clip.prepared.doctor.findings import Finding, counts_of, in_words


@dataclass
class DoctorOptions:
    """Options of `neural-clip doctor`."""

    folder: Path = option(MISSING, "prepared data set", type=Path, positional=True)
    json: bool = option(False, "print the findings as JSON")
    num_proc: int = option(1, "files read at the same time", type=int)


def main(argv: Sequence[str] | None = None) -> list[Finding]:
    """Run `neural-clip doctor`; the exit status is 1 if there is an error."""
    options, where = read_options("doctor", __doc__, argv, DoctorOptions, ClusterOptions)
    from neural_clip.prepared.doctor.inspect import inspect

    with on_cluster(where.cluster):
        findings = inspect(options.folder, num_proc=options.num_proc)
    counts = counts_of(findings)
    if options.json:
        told = {"folder": str(options.folder), "counts": counts, "findings": [asdict(f) for f in findings]}
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        print(in_words(options.folder, findings))
    if counts["error"]:
        raise SystemExit(1)
    return findings
