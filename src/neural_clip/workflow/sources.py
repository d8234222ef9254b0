"""What a run begins with: manifests of recordings, or prepared data sets."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from neural_clip.corpora.custom.manifest import Manifest, read_manifest
from neural_clip.corpora.custom.recordings import raw_files
from neural_clip.errors import DataError
from neural_clip.files.whole import moved_aside, only_writer, place_of, restore
from neural_clip.prepared.facts import METADATA_FILE, Facts
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.several import by_key

MANIFESTS = (".yaml", ".yml")


@dataclass(frozen=True)
class Source:
    """Recordings of one modality.

    Args:
        given (`str`): The manifest or prepared data set, as it was named.
        modality (`str`): `"eeg"`, `"meg"` or `"fmri"`.
        folder (`str`): The prepared data set, which a manifest will become; a name on the Hub is one too.
        manifest ([`Manifest`], *optional*): What a manifest says.
        several (`bool`): Whether it is one of several corpora of its modality.
    """

    given: str
    modality: str
    folder: str
    manifest: Manifest | None = None
    several: bool = False

    @property
    def key(self) -> str:
        """What reports call it: `"eeg"`, or `"eeg.things_eeg2"` as one of several corpora."""
        return f"{self.modality}.{self.facts.corpus}" if self.several else self.modality

    @property
    def is_there(self) -> bool:
        """Whether the prepared data set stands in its folder, or is one of the Hub."""
        return self.manifest is None or Path(self.folder, METADATA_FILE).is_file()

    @property
    def facts(self) -> Facts:
        """What the prepared data set says of itself."""
        return PreparedSet.open(self.folder).facts

    @property
    def is_embedded(self) -> bool:
        """Whether its images have embeddings."""
        return self.is_there and bool(self.facts.image_encoder)

    @property
    def brings_embeddings(self) -> bool:
        """Whether its embeddings are not made by the run."""
        return bool(self.manifest.embeddings if self.manifest else self.facts.image_encoder)

    @property
    def inputs(self) -> list[str | Path]:
        """Files and folders that nothing may be written into."""
        if self.manifest is None:
            return [self.folder] if Path(self.folder).is_dir() else []
        return [self.given, *(Path(self.given).parent / name for name in self.manifest.named_files)]

    def made_from(self) -> dict[str, str | None]:
        """What decides the prepared data set: digests by what they are of."""
        if self.manifest is None:
            facts = self.facts
            return {f"the {self.key} data set": facts.fingerprint if facts.image_encoder else None}
        root = Path(self.given).parent
        content = json.dumps(asdict(self.manifest), sort_keys=True, default=str)
        files = {
            f"'{name}' ({self.modality})": _digest(_size_and_time(path, root) for path in paths)
            for name, paths in raw_files(self.manifest, root).items()
        }
        return {f"the {self.modality} manifest": _digest([content]), **files}


def open_sources(given: Sequence[str | Path], output_dir: Path) -> list[Source]:
    """Read manifests and open data sets: several of one modality are prepared and of different corpora.

    Args:
        given (sequence of `str` or `Path`): YAML files, folders, or names of data sets on the Hub.
        output_dir (`Path`): Where manifests are prepared: in `data/<modality>`.

    Raises:
        DataError: If one cannot be read, or two of one modality cannot be told apart.
    """
    found: list[Source] = []
    for name in map(str, given):
        if Path(name).is_file() or Path(name).suffix.lower() in MANIFESTS:
            manifest = read_manifest(name)
            source = Source(name, manifest.modality, str(output_dir / "data" / manifest.modality), manifest)
        else:
            put_back(name)
            source = Source(name, PreparedSet.open(name).facts.modality, name)
        found.append(source)
    if not found:
        raise DataError("Invalid value for the 'sources' parameter. Allowed is one or more, but got none.")
    kinds = [source.modality for source in found]
    found = [replace(source, several=kinds.count(source.modality) > 1) for source in found]
    for source in (each for each in found if each.several and each.manifest):
        first, second, *_ = (each.given for each in found if each.modality == source.modality)
        raise DataError(
            f"'{first}' and '{second}' both hold {source.modality}, and '{source.given}' is a manifest. Several data "
            "sets of one modality are given prepared (`neural-clip prepare custom`), and of different corpora."
        )
    by_key(PreparedSet.open(source.folder) for source in found if source.several)  # told apart by their corpora
    return found


def put_back(folder: str) -> None:
    """Put a prepared data set back where a killed run had moved it aside."""
    if moved_aside(folder, METADATA_FILE):
        with only_writer(place_of(folder)):
            restore(folder, METADATA_FILE)


def _size_and_time(path: Path, root: Path) -> str:
    """Name, size and time of a file, by which `prepared/parts.py` knows a raw file too."""
    stat = path.stat()
    return f"{os.path.relpath(path, root)} {stat.st_size} {stat.st_mtime_ns}"


def _digest(lines: Iterable[str]) -> str:
    """SHA-256 of lines."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
