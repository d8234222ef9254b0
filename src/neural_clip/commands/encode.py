"""Find the recordings that answer to images, among those of prepared data sets or of a saved gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from functools import partial
from typing import TYPE_CHECKING

from neural_clip.commands.options import read_options
from neural_clip.options import option
from neural_clip.queries.options import AmongOptions, AnswerOptions

if TYPE_CHECKING:
    from neural_clip.queries.answers import Answer


@dataclass
class Arguments:
    """What is asked."""

    images: Sequence[str] = option(MISSING, "files, or a folder", positional=True, nargs="+", metavar="IMAGE")


def main(argv: Sequence[str] | None = None) -> Answer:
    """Run `neural-clip encode`."""
    given, answer, options = read_options("encode", __doc__, argv, Arguments, AnswerOptions, AmongOptions)
    from neural_clip.queries.answers import answered
    from neural_clip.queries.verbs import encode

    find = partial(encode, given.images, answer.gallery, answer.checkpoint, options)
    return answered(find, answer, given.images, options)
