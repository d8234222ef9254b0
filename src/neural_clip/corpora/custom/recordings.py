"""Recordings of one's own, file by file: one reader for each kind; and all files that a manifest stands for."""

from __future__ import annotations

from pathlib import Path

from neural_clip.corpora.custom.continuous import read_bids, read_continuous
from neural_clip.corpora.custom.epochs import read_epochs
from neural_clip.corpora.custom.manifest import Manifest, Recording
from neural_clip.corpora.custom.patterns import read_patterns
from neural_clip.corpora.custom.series import read_series
from neural_clip.corpora.custom.stimuli import image_files
from neural_clip.corpora.custom.trials import Trials
from neural_clip.files.reading import existing


def read_trials(entry: Recording, manifest: Manifest, root: Path) -> Trials:
    """Read what the rows of one file show.

    Raises:
        DataError: If a file is missing, damaged or does not hold what its entry says.
    """
    if entry.kind == "bids":
        return read_bids(entry, manifest.modality, root / entry.file)
    if entry.kind == "continuous":
        return read_continuous(entry, manifest.modality, root / entry.file, root)
    path = existing(root / entry.file, "recording")
    if entry.kind == "epochs":
        return read_epochs(entry, manifest.modality, path)
    if entry.kind == "series":
        return read_series(entry, path, root)
    return read_patterns(entry, manifest, path, root)


def raw_files(manifest: Manifest, root: Path) -> dict[str, list[Path]]:
    """Files that a data set is made from, by what the manifest names.

    Raises:
        DataError: If one is missing, or a recording cannot be opened.
    """
    found: dict[str, list[Path]] = {}
    for entry in manifest.recordings:
        found.setdefault(entry.file, []).extend(read_trials(entry, manifest, root).files)
    if manifest.images and manifest.images.folder is not None:
        found[manifest.images.folder] = image_files(root / manifest.images.folder)
    for part in (manifest.images, manifest.embeddings):
        if part is not None and part.file is not None:
            found.setdefault(part.file, []).append(existing(root / part.file, "file of images or embeddings"))
    for name in manifest.place_files:
        found.setdefault(name, []).append(existing(root / name, "file of places"))
    return found
