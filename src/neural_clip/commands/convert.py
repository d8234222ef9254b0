"""Find recordings of another modality that answer to recordings, among prepared data sets or a saved gallery.

Recordings are given as for `neural-clip decode`. `--via images` needs images: by default those that the checkpoint
was trained on, where they are at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING

from neural_clip.commands.options import read_options
from neural_clip.options import option
from neural_clip.queries.options import AnswerOptions, ConvertOptions, RecordingOptions

if TYPE_CHECKING:
    from neural_clip.queries.answers import Answer


@dataclass
class Arguments:
    """What is asked."""

    recordings: str = option(
        MISSING, "file of recordings, prepared data set, or saved gallery of recordings", positional=True,
        metavar="RECORDINGS",
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> Answer:
    """Run `neural-clip convert`."""
    given, answer, said, options = read_options(
        "convert", __doc__, argv, Arguments, AnswerOptions, RecordingOptions, ConvertOptions
    )
    from datasets.utils.logging import disable_progress_bar

    from neural_clip.queries.answers import check_figure, show_answer
    from neural_clip.queries.verbs import convert

    disable_progress_bar()
    check_figure(answer.figure, [given.recordings, *answer.gallery])
    found = convert(given.recordings, answer.gallery, answer.checkpoint, said, options)
    show_answer(found, as_json=answer.json, figure=answer.figure)
    return found
