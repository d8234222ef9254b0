"""Find the images that recordings look like, among a folder of images, a prepared data set or a saved gallery.

Recordings are a file of epochs (.fif); a continuous recording that mne reads (FIF, EDF, BDF, BrainVision and others),
which is filtered and cut as the training recordings were; a file or the root of a BIDS data set; an fMRI image whose
volumes are responses, with --mask; an array (.npy, .npz, .mat); or rows of a prepared data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from neural_clip.commands.options import read_options
from neural_clip.queries.options import AnswerOptions, DecodeOptions, RecordingOptions, Recordings

if TYPE_CHECKING:
    from neural_clip.queries.answers import Answer


def main(argv: Sequence[str] | None = None) -> Answer:
    """Run `neural-clip decode`."""
    given, answer, said, options = read_options(
        "decode", __doc__, argv, Recordings, AnswerOptions, RecordingOptions, DecodeOptions
    )
    from neural_clip.queries.answers import answered
    from neural_clip.queries.verbs import decode

    find = partial(decode, given.recordings, answer.gallery, answer.checkpoint, said, options)
    return answered(find, answer, [given.recordings], options)
