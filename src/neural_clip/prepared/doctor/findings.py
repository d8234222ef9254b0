"""What the doctor reports: a finding, and how it lists names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that was found in a prepared data set.

    Args:
        check (`str`): Name of the check, such as `"split overlap"`.
        severity (`str`): `"error"` (scores would be wrong), `"warning"` (scores need care) or `"note"`.
        message (`str`): What was found, with numbers.
        consequence (`str`): What it means for scores.
    """

    check: str
    severity: str
    message: str
    consequence: str


def error(check: str, message: str, consequence: str) -> Finding:
    """A finding for which scores would be wrong."""
    return Finding(check, "error", message, consequence)


def warning(check: str, message: str, consequence: str) -> Finding:
    """A finding for which scores need care."""
    return Finding(check, "warning", message, consequence)


def note(check: str, message: str, consequence: str) -> Finding:
    """A finding that readers of scores should know."""
    return Finding(check, "note", message, consequence)


def counts_of(findings: Sequence[Finding]) -> dict[str, int]:
    """How many there are of each severity."""
    return {severity: sum(finding.severity == severity for finding in findings) for severity in SEVERITIES}


def in_words(folder: object, findings: Sequence[Finding]) -> str:
    """Findings on a data set as lines of text, and how many there are."""
    lines = [f"{found.severity}: {found.check}: {found.message}\n    {found.consequence}" for found in findings]
    counted = (f"{count} {name}{'s' * (count != 1)}" for name, count in counts_of(findings).items())
    return "\n".join([*lines, f"{folder}: {', '.join(counted)}"])


def examples(names: Iterable[object], count: int = 3) -> str:
    """The first names, and how many more there are."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(listed[:count]) + more
