"""Whether the terms of data allow what is asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.files.record import RECORD_FILE, read_record
from neural_clip.prepared.facts import Facts


def data_terms(folder: Path) -> dict[str, str | None]:
    """Whether a prepared data set may be redistributed (`"allowed"` or `"forbidden"`), by its corpus."""
    facts = Facts.read(folder)
    return {facts.corpus: facts.redistribution}


def model_terms(folder: Path) -> dict[str, str | None]:
    """Whether the data that a checkpoint learnt from may be redistributed, by corpus; `None` where nobody knows."""
    record = read_record(folder)
    if record is None:
        return {"its training data": None}
    try:
        learnt = dict(record["data"])
        learnt |= {", ".join(entry["subjects"]): entry["data"] for entry in record.get("adaptations", [])}
        return {f"{facts['corpus']} ({what})": facts.get("redistribution") for what, facts in learnt.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"'{folder / RECORD_FILE}' is damaged ({error!r}); what the model learnt from cannot be told."
        ) from error


def check_terms(what: str, terms: Mapping[str, str | None]) -> None:
    """Raise a `DataError` unless all terms allow that `what` becomes public.

    Args:
        what (`str`): For the message.
        terms (`Mapping[str, str]`): `"allowed"`, `"forbidden"` or, where nothing is recorded, `None`, by data set.
    """
    held_back = {"forbidden": [name for name, term in terms.items() if term == "forbidden"]}
    held_back["not recorded"] = [name for name, term in terms.items() if term not in ("allowed", "forbidden")]
    listed = [f"redistribution of {', '.join(names)} is {state}" for state, names in held_back.items() if names]
    if listed:
        raise DataError(
            f"{what} must not become public: {' and '.join(listed)}. Push it to a private repository, and let nobody "
            "into it who has not accepted the terms of the source."
        )
