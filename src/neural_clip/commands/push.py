"""Upload a prepared data set, a checkpoint or a gallery to the Hub, private unless you say otherwise.

Data whose terms forbid redistribution, models that learnt from them and galleries of them never become public.
Credentials are those of `hf auth login` or `HF_TOKEN`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.options import read_options
from neural_clip.files.places import place_line
from neural_clip.options import option


@dataclass
class PushOptions:
    """Options of `neural-clip push`; [`push`] explains them."""

    folder: Path = option(MISSING, "prepared data set, checkpoint or gallery", type=Path, positional=True)
    repo: str = option(MISSING, "repository on the Hub; made if missing", metavar="ORG/NAME")
    public: bool = option(False, "make the repository public")
    scores: Path | None = option(
        None,
        "report of an evaluation of this checkpoint, for the scores of its card",
        type=Path,
        metavar="FOLDER",
    )
    message: str | None = option(None, "message of the commit", metavar="TEXT")


def main(argv: Sequence[str] | None = None) -> str:
    """Run `neural-clip push`; returns the address."""
    (options,) = read_options("push", __doc__, argv, PushOptions)
    from neural_clip.publishing.push import push

    address = push(**vars(options))
    print(place_line("repository", f"{address} ({'public' if options.public else 'private'})"))
    return address
