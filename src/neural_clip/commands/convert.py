"""Find recordings of another modality that answer to recordings, among prepared data sets or a saved gallery.

Recordings are given as for `neural-clip decode`. `--via images` needs images: by default those that the checkpoint
was trained on, where they are at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from neural_clip.commands.options import read_options
from neural_clip.queries.options import AnswerOptions, ConvertOptions, RecordingOptions, Recordings

if TYPE_CHECKING:
    from neural_clip.queries.answers import Answer


def main(argv: Sequence[str] | None = None) -> Answer:
    """Run `neural-clip convert`."""
    given, answer, said, options = read_options(
        "convert", __doc__, argv, Recordings, AnswerOptions, RecordingOptions, ConvertOptions
    )
    from neural_clip.queries.answers import answered
    from neural_clip.queries.verbs import convert

    find = partial(convert, given.recordings, answer.gallery, answer.checkpoint, said, options)
    return answered(find, answer, [given.recordings], options)
