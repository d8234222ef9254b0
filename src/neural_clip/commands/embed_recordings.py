"""Embed all recordings of a prepared data set, all splits, into one Parquet file.

Each row holds the vector and what stands behind it: modality, image, concept, person, session, split. The file says
which checkpoint and image encoder made it, and by which terms its data set may be shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.options import ClusterOptions, read_options
from neural_clip.files.places import place_line
from neural_clip.gallery.options import EmbedRecordingsOptions
from neural_clip.options import option
from neural_clip.parallel import on_cluster


@dataclass
class Arguments:
    """What is embedded, by what, and where it goes."""

    folder: str = option(MISSING, "prepared data set", positional=True, metavar="FOLDER")
    checkpoint: str = option(MISSING, "folder or Hub name of a NeuralClipModel", metavar="PATH")
    output_file: Path = option(MISSING, "Parquet file to write", type=Path)


def main(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip embed-recordings`."""
    given, options, where = read_options(
        "embed-recordings", __doc__, argv, Arguments, EmbedRecordingsOptions, ClusterOptions
    )
    from neural_clip.files.bars import only_our_bars
    from neural_clip.gallery.parquet import write_embeddings

    only_our_bars()
    with on_cluster(where.cluster):
        path = write_embeddings(given.checkpoint, given.folder, given.output_file, options)
    print(place_line("embeddings", path))
    return path
