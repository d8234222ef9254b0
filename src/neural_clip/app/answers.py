"""What the page answers: the checkpoint, what it searches, and recordings that can be picked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neural_clip.app.uploads import open_upload
from neural_clip.errors import check_option
from neural_clip.gallery.columns import IMAGE
from neural_clip.gallery.embedder import Embedder
from neural_clip.gallery.hits import Ranked
from neural_clip.gallery.neural_gallery import HITS, NeuralGallery
from neural_clip.gallery.opening import opened_place
from neural_clip.gallery.pictures import Pictures
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.prepared.splits import SPLITS
from neural_clip.queries.recorded import row_of

ANY = "by its shape"  # the modality of an upload
SIMULATED = "SIMULATED"


@dataclass(frozen=True)
class Searched:
    """A gallery by the name that the page gives it."""

    gallery: NeuralGallery

    @property
    def simulated(self) -> bool:
        """Whether it is of a simulated data set."""
        return self.gallery.simulated

    @property
    def kind(self) -> str:
        """`"images"`, or `"EEG recordings"` and the like."""
        (modality,) = self.gallery.modalities
        return "images" if modality == IMAGE else f"{MODALITIES[modality].title} recordings"

    @property
    def chance(self) -> str:
        """What a ranking at random does."""
        n = len(self.gallery)
        return f"{n:,} {self.kind} were searched; by chance, any of them comes first in 1 of {n:,} ({1 / n:.1%})."


@dataclass(frozen=True)
class Answer:
    """Ranked hits of one query.

    Args:
        asked (`str`): The query in words; begins with `SIMULATED` where its recordings are.
        searched ([`Searched`]): Where it was looked for.
        hits ([`Ranked`]): Best first.
        simulated (`bool`): Whether recordings or the training of the checkpoint are.
        seen (`PIL.Image`, *optional*): The image that was shown, where it is known.
        seen_name (`str`): Its concept or id.
        right (`tuple[str, str]`, *optional*): Folder of the data set and id of the image that was shown.
    """

    asked: str
    searched: Searched
    hits: Ranked
    simulated: bool
    seen: Any = None
    seen_name: str = ""
    right: tuple[str, str] | None = None


@dataclass(eq=False)
class Answers:
    """A checkpoint with what it searches.

    Args:
        embedder ([`Embedder`]): The checkpoint.
        places (list of `str` or `Path`): Folders of images, saved galleries and prepared data sets, these also by
            their name on the Hub.

    Raises:
        DataError: If a place holds nothing of these, or does not fit the checkpoint.
    """

    embedder: Embedder
    places: list[Any]
    searched: dict[str, Searched] = field(default_factory=dict)
    examples: dict[str, Split] = field(default_factory=dict)
    _images: dict[str, str] = field(default_factory=dict)
    _pictures: Pictures = field(default_factory=lambda: Pictures([]))

    def __post_init__(self) -> None:
        """Read every place once."""
        for place in self.places:
            found = opened_place(place, self.embedder)
            if isinstance(found, PreparedSet):
                self._add_set(found)
            else:
                gallery = NeuralGallery.from_images(self.embedder, place) if found is None else found
                self._add_gallery(Path(place).absolute().name, gallery)

    def _add_set(self, data: PreparedSet) -> None:
        """The images of a prepared data set, and the recordings of its test split, or of the last that it has."""
        modality, simulated = data.facts.modality, bool(data.facts.simulated)
        check_option("gallery", modality, self.embedder.modalities)
        splits = [name for name in SPLITS if any(counts.get(name) for counts in data.facts.subject_splits.values())]
        part = data.split(splits[-1])
        name = f"{SIMULATED} {MODALITIES[modality].title}" if simulated else MODALITIES[modality].title
        name += "" if data.folder.name == modality else f" of {data.folder.name}"
        name += f" ({len(self.examples) + 1})" if name in self.examples else ""
        self.examples[name] = part
        self._images[name] = self._add_gallery(name, NeuralGallery.from_images(self.embedder, data))
        self._add_gallery(name, NeuralGallery.from_recordings(self.embedder, part))

    def _add_gallery(self, name: str, gallery: NeuralGallery) -> str:
        """Each modality of a gallery is searched by itself; returns the title of the last."""
        for modality in gallery.modalities:
            own = gallery if len(gallery.modalities) == 1 else gallery.filter(modality=modality)
            found = Searched(own)
            kind = "images" if modality == IMAGE else "recordings"
            title = f"{len(own):,} {kind}: {name}"
            title += f" ({len(self.searched) + 1})" if title in self.searched else ""
            self.searched[title] = found
        return title

    def images_of(self, name: str) -> str:
        """What is searched first for a recording of a data set: its images."""
        return self._images[name]

    @property
    def subjects(self) -> list[str]:
        """Whom the checkpoint knows, and the average of those."""
        config = self.embedder.model.config
        known = [name for m in self.embedder.modalities for name in getattr(config, f"{m}_config").subjects]
        configs = [getattr(config, f"{m}_config") for m in self.embedder.modalities if MODALITIES[m].sensors]
        average = any(getattr(each, "corpora", None) is None for each in configs)
        return [*dict.fromkeys(known), *(["average"] if average else [])]

    @property
    def has_text(self) -> bool:
        """Whether the image encoder has a text tower."""
        try:
            return self.embedder.model.text_tower() is not None
        except (OSError, ValueError):
            return False

    def of_example(self, name: str, number: int, among: str) -> Answer:
        """Hits of a recording of a data set."""
        check_option("data set", name, self.examples)
        part = self.examples[name]
        row = row_of(number, len(part))
        recordings: Any = part.recordings
        image_id, folder = str(part.image_ids[row]), str(part.data.folder)
        picture, _ = self._pictures.of({"pixels": None, "file": folder, "image_id": image_id})
        asked = f"{name} of {part.subjects[row]}, recording {row + 1} of {len(part)}"
        return self._answer(
            asked, recordings.select([row]), part.modality, among, simulated=bool(part.facts.simulated),
            seen=picture, seen_name=part.gallery_concepts[part.columns[row]] or image_id, right=(folder, image_id),
        )  # fmt: skip

    def of_upload(
        self, path: Path, mask: Path | None, number: int, among: str, *, modality: str = ANY,
        subject: str | None = None, **said: Any,
    ) -> Answer:  # fmt: skip
        """Hits of a recording of a file."""
        check_option("modality", modality, [ANY, *self.embedder.modalities])
        named = None if modality == ANY else modality
        file = open_upload(path, mask, self.embedder, modality=named, subject=subject, **said)
        one = file.one(number)
        asked = f"{MODALITIES[file.modality].title} of '{path.name}', recording {int(number)} of {len(file.names)}"
        asked += "" if file.made is None else f". {file.made.said}"
        return self._answer(asked, one, file.modality, among, subject=file.subject, **file.said)

    def of_words(self, text: str, among: str) -> Answer:
        """Hits of a text."""
        check_option("search among", among, self.searched)
        target = self.searched[among]
        hits = target.gallery.search_text(text, top_k=HITS)[0]
        return Answer(f"“{text}”", target, hits, target.simulated)

    def _answer(
        self, asked: str, recordings: Any, modality: str, among: str, *, simulated: bool = False,
        subject: str | None = None, seen: Any = None, seen_name: str = "", right: tuple[str, str] | None = None,
        **said: Any,
    ) -> Answer:  # fmt: skip
        """Search images, or recordings of whatever modality the gallery has."""
        check_option("search among", among, self.searched)
        target = self.searched[among]
        (kind,) = target.gallery.modalities
        if kind == IMAGE:
            hits = target.gallery.decode(recordings, subject, top_k=HITS, modality=modality, **said)[0]
        else:
            hits = target.gallery.convert(recordings, subject, to=kind, top_k=HITS, modality=modality, **said)[0]
        simulated = simulated or target.simulated or self._trained_on_simulated(modality)
        return Answer(asked, target, hits, simulated, seen, seen_name, right)

    def _trained_on_simulated(self, modality: str) -> bool:
        """Whether the checkpoint learnt from simulated recordings of a modality."""
        entries = getattr(self.embedder.model.config, f"{modality}_config").trained_on or []
        return any(entry.get("simulated") for entry in entries)
