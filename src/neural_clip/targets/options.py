"""Options of [`embed_images`] and of `neural-clip embed-images`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neural_clip.options import Options, option
from neural_clip.targets.identity import POOLINGS


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(Options):
    """Options of [`embed_images`]; here is what the help of a field leaves out.

    Args:
        pooling (`str` or sequence of `str`): `"projected"`, or `"cls"` for the class token of the last layer; one for
            all models or one for each.
        blur (`float`, *optional*): Blur the images with a Gaussian first, whose standard deviation is this share of
            the shorter side. A model takes such embeddings, and concatenated ones, as ready-made: it cannot embed
            further images by itself.
        batch_size (`int`): Images a forward pass. An interrupted run goes on only with the same one, because it
            decides the last digits.
    """

    pooling: str | Sequence[str] = option(
        POOLINGS[0], "CLIP's embedding or the class token of the last layer; one for all models or each",
        choices=POOLINGS, nargs="+",
    )  # fmt: skip
    revision: str | Sequence[str | None] | None = option(
        None, "branch, tag or commit on the Hub, '' for none; one for all models or each", nargs="+"
    )
    blur: float | None = option(
        None, "blur the images: sigma as a share of the shorter side, up to 1", type=float, metavar="SHARE"
    )
    batch_size: int = option(64, "images a forward pass", type=int, least=1)
    device: str | None = option(None, "where the tower computes; default cuda where there is one, else cpu")
    num_proc: int = option(1, "processes, each with the tower in memory", type=int, metavar="N", least=1)
    overwrite: bool = option(False, "replace embeddings that are already there")
