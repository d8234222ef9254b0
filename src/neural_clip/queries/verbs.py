"""The four verbs of the command line: `decode`, `encode`, `convert` and `search`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.corpora.stamp import STAMP_FILE
from neural_clip.errors import DataError
from neural_clip.gallery.columns import IMAGE, column_of, table_of
from neural_clip.gallery.conversion import IMAGES, MEAN_RECORDINGS
from neural_clip.gallery.embedder import Embedder
from neural_clip.gallery.hits import Hits
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.gallery.opening import opened_place
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet
from neural_clip.queries.answers import Answer
from neural_clip.queries.galleries import open_gallery
from neural_clip.queries.opening import check_used, open_recordings
from neural_clip.queries.options import AmongOptions, ConvertOptions, DecodeOptions, RecordingOptions
from neural_clip.queries.recorded import RecordingFile

AVERAGE = "average"


@dataclass(frozen=True)
class Queries:
    """Recordings that are searched for.

    Args:
        gallery ([`NeuralGallery`]): Their vectors, and what stands behind them.
        names (`list[str]`): What each is called.
        simulated (`bool`): Whether they are known to be simulated.
    """

    gallery: NeuralGallery
    names: list[str]
    simulated: bool

    @property
    def said(self) -> str:
        """What they are, in words."""
        return in_words(self.gallery, self.simulated)


def decode(
    recordings: str, gallery: Sequence[str], checkpoint: str, said: RecordingOptions, options: DecodeOptions
) -> Answer:
    """Which images do recordings look like? See [`NeuralGallery.decode`].

    Args:
        recordings (`str`): A file (see [`open_recordings`]), a prepared data set or a saved gallery of recordings.
        gallery (`Sequence[str]`): Folders of images, prepared data sets, or saved galleries of images.
        checkpoint (`str`): Folder or Hub name.
        said ([`RecordingOptions`]): Of the recordings.
        options ([`DecodeOptions`]): Of the search.

    Raises:
        DataError: If something cannot be read, or does not fit the checkpoint.
    """
    embedder = Embedder.of(checkpoint)
    embed = open_queries(recordings, embedder, said)
    images = open_gallery(gallery, embedder, recordings=False, split=options.gallery_split, pictures=options.pictures)
    images.check_kind(images=True, verb="decode")
    queries = embed()
    hits = images.decode(queries.gallery, top_k=options.top_k, calibrate=options.calibrate)
    return _answer("decode", queries.said, queries.names, queries.gallery.image_ids.tolist(), hits, images,
                   embedder, queries.simulated, asking=queries.gallery)  # fmt: skip


def encode(images: Sequence[str], gallery: Sequence[str], checkpoint: str, options: AmongOptions) -> Answer:
    """Which recordings answer to images? See [`NeuralGallery.encode`].

    Args:
        images (`Sequence[str]`): Files, or a folder.
        gallery (`Sequence[str]`): Prepared data sets, or saved galleries of recordings.
        checkpoint, options: As for [`decode`].
    """
    embedder = Embedder.of(checkpoint)
    among = _among(gallery, embedder, options, recordings=True, verb="encode")
    hits = among.encode(images[0] if len(images) == 1 else list(images), top_k=options.top_k)
    return _answer("encode", _counted(len(hits), "image"), hits.titles, [], hits, among, embedder)


def convert(
    recordings: str, gallery: Sequence[str], checkpoint: str, said: RecordingOptions, options: ConvertOptions
) -> Answer:
    """Which recordings of another modality answer to recordings? See [`NeuralGallery.convert`].

    Args:
        recordings, checkpoint, said, options: As for [`decode`].
        gallery (`Sequence[str]`): Prepared data sets, or saved galleries of recordings.
    """
    embedder = Embedder.of(checkpoint)
    embed = open_queries(recordings, embedder, said)
    signals = open_gallery(
        gallery, embedder, recordings=True, split=options.gallery_split, pictures=options.pictures,
        montage=said.montage,
    )  # fmt: skip
    bank = None
    if options.via == IMAGES and options.bank is not None:
        bank = open_gallery([options.bank], embedder, recordings=False)
    if options.to not in signals.modalities:
        held, place = ", ".join(signals.modalities), "', '".join(gallery)
        raise DataError(f"--to is {options.to}, but the recordings of '{place}' are {held}.")
    queries = embed()
    means = options.via == MEAN_RECORDINGS
    searched = signals.means_of(options.to) if means else signals.filter(modality=options.to)
    hits = signals.convert(queries.gallery, to=options.to, via=options.via, bank=bank, top_k=options.top_k)
    return _answer("convert", queries.said, queries.names, queries.gallery.image_ids.tolist(), hits, searched,
                   embedder, queries.simulated, f" via {options.via}", asking=queries.gallery)  # fmt: skip


def search(text: Sequence[str], gallery: Sequence[str], checkpoint: str, options: AmongOptions) -> Answer:
    """Which images, or recordings, answer to words? See [`NeuralGallery.search_text`].

    Of prepared data sets recordings are searched where `options` name a modality or a person of recordings.
    """
    embedder = Embedder.of(checkpoint)
    recordings = options.modality in MODALITIES or bool(options.subject or options.session)
    among = _among(gallery, embedder, options, recordings=recordings)
    hits = among.search_text(list(text), top_k=options.top_k)
    return _answer("search", _counted(len(hits), "text"), list(text), [], hits, among, embedder)


def open_queries(place: str, embedder: Embedder, said: RecordingOptions) -> Callable[[], Queries]:
    """What embeds the recordings of a file, a prepared data set or a saved gallery, which is opened here.

    Raises:
        DataError: If they cannot be read, or do not fit the model.
    """
    opened = opened_place(place, embedder)
    if isinstance(opened, NeuralGallery):
        return partial(_saved_queries, place, opened, said)
    if opened is not None:
        return _prepared_queries(opened, embedder, said)
    return partial(_queries_of_file, place, open_recordings(place, embedder, said), embedder, said)


def _queries_of_file(place: str, found: RecordingFile, embedder: Embedder, said: RecordingOptions) -> Queries:
    """Recordings of a file."""
    vectors, layers = found.embedded(embedder)
    behind: dict[str, Any] = {
        "subject": found.subject or "",
        "session": said.session or "",
        "file": place,
        "layer": layers,
    }
    rows = table_of(vectors, modality=found.modality, **behind)
    made = () if found.made is None else ({"of": place, **found.made.as_dict()},)
    gallery = NeuralGallery(rows, embedder.encoder, embedder.identity, embedder, montage=made)
    simulated = any((folder / STAMP_FILE).is_file() for folder in Path(place).absolute().parents)
    return Queries(gallery, found.names, simulated)


def _saved_queries(place: str, gallery: NeuralGallery, said: RecordingOptions) -> Queries:
    """Rows of a gallery of recordings."""
    check_used(place, "a gallery", {"split", "rows"}, said)
    gallery = _narrowed(gallery, said, "modality", "subject", "session", "split")
    rows = _chosen(said.rows, len(gallery), place)
    kept = replace(gallery, rows=gallery.rows.select(rows))
    return Queries(kept, [f"row {row}" for row in rows], kept.simulated)


def _prepared_queries(data: PreparedSet, embedder: Embedder, said: RecordingOptions) -> Callable[[], Queries]:
    """What embeds rows of a split of a prepared data set."""
    place, name = data.name, said.split or "test"
    sensors = MODALITIES[data.facts.modality].sensors
    check_used(place, "a prepared data set", {"split", "rows"} | ({"montage"} if sensors else set()), said)
    if said.modality not in (None, data.facts.modality):
        raise DataError(f"'{place}' holds {data.facts.modality} recordings, but --modality is {said.modality}.")
    person = None if said.subject in (None, AVERAGE) else [str(said.subject)]
    data = data.named_for(embedder.known(data.facts.modality))
    part = data.split(name, person)
    if said.session is not None:
        sessions = part.labels("session")["session"].astype(str).to_numpy()
        rows = np.flatnonzero(sessions == said.session)
        if not rows.size:
            raise DataError(f"'{place}' has no session {said.session!r}; it has {sorted(set(sessions))}.")
        part = part.at(rows)
    rows = _chosen(said.rows, len(part), place)
    part = part.at(rows)
    names = [f"{name} {row} ({who})" for row, who in zip(rows, part.subjects, strict=True)]

    def embed() -> Queries:
        layer = AVERAGE if said.subject == AVERAGE else None
        gallery = NeuralGallery.from_recordings(embedder, part, subject=layer, montage=said.montage)
        return Queries(gallery, names, bool(data.facts.simulated))

    return embed


def _chosen(rows: Sequence[int] | None, count: int, place: str) -> np.ndarray:
    """Rows that were asked for; all by default."""
    if rows is not None and max(rows) >= count:
        raise DataError(f"'{place}' has {count} such rows, counted from 0, but --rows names {max(rows)}.")
    return np.arange(count) if rows is None else np.array(rows)


def _among(
    gallery: Sequence[str], embedder: Embedder, options: AmongOptions, *, recordings: bool, verb: str | None = None
) -> NeuralGallery:
    """What is searched, without the rows of others; a verb has to have recordings."""
    found = open_gallery(
        gallery, embedder, recordings=recordings, split=options.gallery_split, pictures=options.pictures,
        montage=options.montage,
    )  # fmt: skip
    if verb is not None:
        found.check_kind(images=False, verb=verb)
    return _narrowed(found, options, "modality", "subject", "session")


def _narrowed(gallery: NeuralGallery, options: Any, *columns: str) -> NeuralGallery:
    """Rows with the texts that options name."""
    wanted = {name: value for name in columns if (value := getattr(options, name)) is not None}
    return gallery.filter(**wanted) if wanted else gallery


def in_words(gallery: NeuralGallery, simulated: bool) -> str:
    """`"40 SIMULATED EEG recordings"`."""
    kinds, counts = np.unique(column_of(gallery.rows, "modality"), return_counts=True)
    parts = [
        _counted(int(count), "image" if kind == IMAGE else f"{MODALITIES[kind].title} recording", simulated)
        for kind, count in zip(kinds, counts, strict=True)
    ]
    return " and ".join(parts)


def _counted(count: int, what: str, simulated: bool = False) -> str:
    return f"{count:,} {'SIMULATED ' if simulated else ''}{what}{'' if count == 1 else 's'}"


def _answer(
    verb: str, asked: str, names: list[str], shown: list[str], hits: Hits, searched: NeuralGallery, embedder: Embedder,
    simulated: bool = False, how: str = "", asking: NeuralGallery | None = None,
) -> Answer:  # fmt: skip
    """Hits with what was searched; a model that learnt from simulated recordings makes them simulated, too."""
    images, by_image = len(set(searched.image_ids.tolist())), searched.modalities == [IMAGE]
    also = searched.simulated and not by_image  # pictures of a simulated data set are no simulated ones
    among, simulated = in_words(searched, also), simulated or also
    among += "" if by_image else f" of {_counted(images, 'image')}"
    learnt = [entry for entries in embedder.processor.trained_on.values() for entry in entries or ()]
    simulated = simulated or any(entry.get("simulated") for entry in learnt)
    return Answer(
        verb, asked, among + how, len(searched), images, names, shown or [""] * len(hits), hits, by_image, simulated,
        vars(embedder.identity), (*(asking.montage if asking else ()), *searched.montage),
    )  # fmt: skip
