"""Whether the terms of data allow what is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.files.record import RECORD_FILE, check_gallery_files, read_record
from neural_clip.prepared.facts import Facts
from neural_clip.terms import terms_of


def data_terms(folder: Path) -> dict[str, str | None]:
    """Whether a prepared data set may be redistributed (`"allowed"` or `"forbidden"`), by its corpus."""
    facts = Facts.read(folder)
    return {facts.corpus: facts.redistribution}


def gallery_terms(folder: Path) -> dict[str, str | None]:
    """Whether the data that a gallery was made of may be redistributed, by corpus; `None` where nobody knows."""
    stated = check_gallery_files(folder).get("terms", {"its rows": None})  # of before terms were kept
    return terms_of(stated)


def model_terms(folder: Path) -> dict[str, str | None]:
    """Whether the data that a checkpoint learnt from may be redistributed, by corpus; `None` where nobody knows."""
    record = read_record(folder)
    if record is None:
        return {"its training data": None}
    try:
        learnt = dict(record["data"])
        for entry in record.get("adaptations", []):
            new = ", ".join(entry["subjects"])
            learnt |= {f"tuning carried over to {new}": facts for facts in data_carried_over(entry)}
            learnt[new] = entry["data"]
        return {f"{facts['corpus']} ({what})": facts.get("redistribution") for what, facts in learnt.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"'{folder / RECORD_FILE}' is damaged ({error!r}); what the model learnt from cannot be told."
        ) from error


def data_carried_over(adaptation: dict) -> Iterator[dict]:
    """The data set of known people whose tuning an entry of `adaptations` says was carried over; none if none was."""
    found = adaptation.get("closed_form", {}).values()
    if any(each.get("prior", {}).get("weight") for each in found):
        yield adaptation["known"]
