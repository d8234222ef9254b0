"""Data sets by what reports call them; several corpora of one modality are told apart by their names."""

from __future__ import annotations

from collections.abc import Iterable

from neural_clip.errors import DataError
from neural_clip.prepared.reader import PreparedSet


def by_key(sets: Iterable[PreparedSet]) -> dict[str, PreparedSet]:
    """Data sets by modality; of a modality with several by `modality.corpus`, and their people as `corpus/sub-01`.

    Raises:
        DataError: If two of one modality are of the same corpus, or one has a name that cannot be part of others.
    """
    opened = list(sets)
    kinds = [each.facts.modality for each in opened]
    found: dict[str, PreparedSet] = {}
    for each, kind in zip(opened, kinds, strict=True):
        named = each.of_corpus() if kinds.count(kind) > 1 else each
        if named.key in found:
            raise DataError(
                f"'{found[named.key].name}' and '{each.name}' both hold {kind} of the corpus {each.facts.corpus!r}. "
                "Several data sets of one modality must be of different corpora, whose names tell their people apart."
            )
        found[named.key] = named
    return found


def in_report(sets: Iterable[PreparedSet]) -> dict[str, PreparedSet]:
    """Data sets by all names that a report may have for them."""
    return {key: each for each in sets for key in (each.facts.modality, f"{each.facts.modality}.{each.facts.corpus}")}
