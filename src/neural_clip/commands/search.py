"""Find images or recordings that answer to words, where the checkpoint's image encoder has a text tower.

Of prepared data sets images are searched, or recordings where --modality or --subject names some.
"""

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

    text: Sequence[str] = option(
        MISSING, "words in quotes; each text is a query", positional=True, nargs="+", metavar="TEXT"
    )


def main(argv: Sequence[str] | None = None) -> Answer:
    """Run `neural-clip search`."""
    given, answer, options = read_options("search", __doc__, argv, Arguments, AnswerOptions, AmongOptions)
    from neural_clip.queries.answers import answered
    from neural_clip.queries.verbs import search

    find = partial(search, given.text, answer.gallery, answer.checkpoint, options)
    return answered(find, answer, [], options)
