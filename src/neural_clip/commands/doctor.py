"""Options of `neural-clip doctor`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from neural_clip.prepared.doctor.findings import SEVERITIES, Finding
from neural_clip.prepared.doctor.inspect import inspect


def main(argv: Sequence[str] | None = None) -> list[Finding]:
    """Run `neural-clip doctor`; the exit status is 1 if there is an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="prepared data set")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--num-proc", type=int, default=1, help="files read at the same time (default: 1)")
    arguments = parser.parse_args(argv)
    findings = inspect(arguments.folder, num_proc=arguments.num_proc)
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in SEVERITIES}
    if arguments.json:
        told = {"folder": str(arguments.folder), "counts": counts, "findings": [asdict(f) for f in findings]}
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        for finding in findings:
            print(f"{finding.severity}: {finding.check}: {finding.message}\n    {finding.consequence}")
        print(f"{arguments.folder}: " + ", ".join(f"{n} {name}{'s' * (n != 1)}" for name, n in counts.items()))
    if counts["error"]:
        raise SystemExit(1)
    return findings
