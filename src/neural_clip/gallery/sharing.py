"""Galleries on the Hub, and the terms of the data that they were made of, which travel with them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from neural_clip.errors import DataError, is_hub_name
from neural_clip.files.fetched import folder_of
from neural_clip.files.record import GALLERY_FILE
from neural_clip.prepared.facts import Facts
from neural_clip.publishing.hub import hub, hub_errors
from neural_clip.publishing.push import OWN_FILES, push
from neural_clip.pushing import IN_PYTHON

Terms = Mapping[str, list[dict] | None]  # by modality, what data sets state of themselves; `None`: nobody knows
# Files, images in memory and data sets of others: whoever asks for a public repository answers for them.
OWN_IMAGES: dict[str, Any] = {
    "corpus": "images of whoever made the gallery", "redistribution": "allowed", "licence": None,
    "terms": "those of the images; whoever made the gallery public answers for them", "subjects": [],
    "simulated": False,
}  # fmt: skip


def terms_of_data(modality: str, facts: Facts, subjects: Iterable[str] = ()) -> Terms:
    """What a data set states of rows that were made of it."""
    return {modality: [facts.stated_terms(sorted(set(map(str, subjects))))]}


def joined_terms(parts: Sequence[Terms]) -> dict[str, list[dict] | None]:
    """Terms of rows of several sources: each source once, and nobody knows where it is not known of one."""
    found: dict[str, list[dict] | None] = {}
    for part in parts:
        for modality, entries in part.items():
            known = found.get(modality, [])
            found[modality] = None if known is None or entries is None else _merged([*known, *entries])
    return found


def terms_of_people(terms: Terms, people: Mapping[str, set[str]]) -> Terms:
    """Terms of some of the rows, which name the people of each modality in these rows alone."""

    def of_those(entry: dict, kept: set[str]) -> dict:
        named = entry.get("subjects", [])
        return entry | {"subjects": [name for name in named if name in kept] or named}  # none: means of all people

    return {
        modality: None if entries is None else [of_those(entry, people.get(modality, set())) for entry in entries]
        for modality, entries in terms.items()
    }


def _merged(entries: Sequence[dict]) -> list[dict]:
    """Entries that differ in their subjects alone become one of all these."""
    found: list[dict] = []
    for entry in entries:
        same = next((one for one in found if one | {"subjects": []} == entry | {"subjects": []}), None)
        subjects = sorted({*(same or {}).get("subjects", []), *entry.get("subjects", [])})
        if same is None:
            found.append(same := dict(entry))
        same["subjects"] = subjects
    return found


def push_gallery(
    save: Callable[[Path], object], repo_id: str, what: str, private: bool | None, token: str | None, **told: Any
) -> str:
    """Save a gallery aside and push the folder; see [`NeuralGallery.push_to_hub`]."""
    if "/" not in repo_id:
        api = hub(f"me/{repo_id}", token)
        with hub_errors(repo_id):
            repo_id = f"{api.whoami()['name']}/{repo_id}"
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made, "saved", "gallery")  # so deep that no file of a picture lies beside it
        save(folder)
        return push(folder, repo_id, public=private is False, token=token, what=what, advice=IN_PYTHON, **told)


def fetched(place: str | Path, revision: str | None, token: str | None, cache_dir: str | Path | None) -> Path:
    """The folder of a gallery: one of this machine, or from the Hub, or its cache on this machine.

    Raises:
        DataError: If there is none, or the Hub is out of reach.
    """
    folder = folder_of(
        place, "gallery", revision=revision, token=token, cache_dir=cache_dir,
        allow_patterns=list(OWN_FILES["gallery"]),
    )  # fmt: skip
    if is_hub_name(place) and not (folder / GALLERY_FILE).is_file():
        raise DataError(f"'{place}' on the Hub is no gallery: it has no {GALLERY_FILE}.")
    return folder
