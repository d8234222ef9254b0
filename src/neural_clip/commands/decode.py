"""Find the images that recordings look like, among a folder of images, a prepared data set or a saved gallery.

Recordings are a file of epochs (.fif); a continuous recording that mne reads (FIF, EDF, BDF, BrainVision and others),
which is filtered and cut as the training recordings were; a file or the root of a BIDS data set; an fMRI image whose
volumes are responses, with --mask; an array (.npy, .npz, .mat); or rows of a prepared data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from typing import TYPE_CHECKING

from neural_clip.commands.options import read_options
from neural_clip.options import option
from neural_clip.queries.options import AnswerOptions, DecodeOptions, RecordingOptions

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
    """Run `neural-clip decode`."""
    given, answer, said, options = read_options(
        "decode", __doc__, argv, Arguments, AnswerOptions, RecordingOptions, DecodeOptions
    )
    from datasets.utils.logging import disable_progress_bar

    from neural_clip.queries.answers import check_figure, show_answer
    from neural_clip.queries.verbs import decode

    disable_progress_bar()
    check_figure(answer.figure, [given.recordings, *answer.gallery])
    found = decode(given.recordings, answer.gallery, answer.checkpoint, said, options)
    show_answer(found, as_json=answer.json, figure=answer.figure)
    return found
