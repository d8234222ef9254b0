"""Fit an alignment layer for subjects whom a model has not seen, and change nothing else.

Everything that the checkpoint holds stays as it is, bit for bit. Of a data set's subjects those are fitted whom the
checkpoint does not know by name, so different subjects need different names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.options import open_data_set, read_options, words_of
from neural_clip.options import option
from neural_clip.training.options import AdaptOptions


@dataclass
class Arguments:
    """From where, for whom, and where to."""

    checkpoint: str = option(MISSING, "checkpoint to start from, left as it is", metavar="FOLDER")
    data: str = option(MISSING, "prepared data set of the new subjects", metavar="MODALITY=FOLDER")
    output_dir: Path = option(MISSING, "folder of the new checkpoint", type=Path)
    known: str | None = option(
        None, "prepared data set of subjects whom the checkpoint knows, for --prior", metavar="MODALITY=FOLDER"
    )


def main(argv: Sequence[str] | None = None) -> Path:
    """Run `neural-clip adapt`; returns the folder of the new checkpoint."""
    given, options = read_options("adapt", __doc__, argv, Arguments, AdaptOptions)
    from neural_clip.files.bars import only_our_bars
    from neural_clip.files.privacy import shared_command
    from neural_clip.training.adapt import adapt

    command = shared_command("neural-clip adapt", words_of(argv))
    data = open_data_set(given.data, streaming=options.streaming)
    known = given.known and open_data_set(given.known, "--known", options.streaming)
    only_our_bars()
    return adapt(given.checkpoint, data, given.output_dir, options, known=known, command=command)
