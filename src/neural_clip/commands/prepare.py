"""`neural-clip prepare CORPUS` and the programs in `dataset_scripts/`; [`CORPORA`] names each corpus' options."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.interruption import told_how_to_go_on
from neural_clip.commands.options import ClusterOptions, read_options
from neural_clip.files.places import place_line
from neural_clip.options import option
from neural_clip.parallel import on_cluster
from neural_clip.prepared.known_corpora import CORPORA

ABOUT_CUSTOM = """Prepare your own recordings, with images or ready-made embeddings, as a manifest lists them.

Epochs of mne, continuous EEG or MEG, BIDS data sets, fMRI time series or patterns; the documentation explains the
manifest in docs/bring_your_own_recordings.md.
"""


@dataclass
class RawPlaces:
    """Where a corpus lies, and where it goes."""

    raw_dir: Path = option(MISSING, "folder of the raw files as they were published", type=Path)
    output_dir: Path = option(MISSING, "folder of the prepared data set", type=Path)


@dataclass
class ManifestPlaces:
    """Where the description of recordings lies, and where they go."""

    manifest: Path = option(MISSING, "YAML file that lists recordings, images and splits", type=Path, positional=True)
    output_dir: Path = option(MISSING, "folder of the prepared data set", type=Path)


def main(name: str, argv: Sequence[str] | None = None) -> Path:
    """Prepare a corpus of [`CORPORA`], or `"custom"` recordings; returns the folder of the data set."""
    places: type
    if name in CORPORA:
        corpus = CORPORA[name]
        about, places, kind, function = corpus.about, RawPlaces, corpus.options, corpus.prepare
    else:
        about, places = ABOUT_CUSTOM, ManifestPlaces
        kind, function = "neural_clip.corpora.custom.options.CustomOptions", "neural_clip.corpora.custom.prepare"
    given, options, where = read_options(
        f"prepare {name}", about, argv, places, pkgutil.resolve_name(kind), ClusterOptions
    )
    with told_how_to_go_on("prepare"), on_cluster(where.cluster):
        folder = pkgutil.resolve_name(function)(*vars(given).values(), options)
    from neural_clip.prepared.reader import PreparedSet

    preparation = PreparedSet.open(folder).preparation
    if preparation is not None and preparation.said_of_others:
        print(preparation.said_of_others, file=sys.stderr)
    print(place_line("data", folder))
    return folder
