"""Options of `neural-clip app`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neural_clip.options import Options, option

MAX_UPLOAD_MB = 100  # a volume of fMRI has 1 to 10, and 300 epochs of 64 channels and 1 s at 1 kHz 77


@dataclass(frozen=True, kw_only=True)
class AppOptions(Options):
    """Options of `neural-clip app`."""

    checkpoint: str | None = option(
        None, "folder or Hub name of a NeuralClipModel; default the SIMULATED sample that ships", metavar="PATH"
    )
    gallery: Sequence[str] | None = option(
        None,
        "what is searched: folders of images, saved galleries, prepared data sets (whose test recordings can be "
        "picked, too); default the SIMULATED sample",
        nargs="+", metavar="FOLDER",
    )  # fmt: skip
    host: str = option("127.0.0.1", "address that the page listens on; 0.0.0.0 lets other machines in")
    port: int = option(7860, "port that it listens on; 0 takes a free one", type=int, least=0)
