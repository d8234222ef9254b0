"""Options of what embeds into a folder or a file: `neural-clip gallery build` and `neural-clip embed-recordings`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neural_clip.gallery.columns import DTYPES
from neural_clip.montage import MONTAGES
from neural_clip.options import Options, option
from neural_clip.prepared.splits import SPLITS

MONTAGE_HELP = (
    "interpolate: channels of the model that are lacking, or marked as bad, are made of those around them (EEG, MEG); "
    "default an error"
)
HITS = 5  # images shown beside a query, as in the figures of arXiv 2411.09723


@dataclass(frozen=True, kw_only=True)
class BuildOptions(Options):
    """Options of [`build_gallery`]."""

    recordings: bool = option(False, "embed the recordings of prepared data sets, not their images")
    split: str | None = option(None, "of prepared data sets; default all", choices=SPLITS)
    subjects: Sequence[str] | None = option(None, "whose recordings; default all", nargs="+")
    dtype: str = option(DTYPES[0], "of the vectors; float16 takes half the memory", choices=DTYPES)
    montage: str | None = option(None, MONTAGE_HELP, choices=MONTAGES)
    overwrite: bool = option(False, "replace an older gallery")


@dataclass(frozen=True, kw_only=True)
class EmbedRecordingsOptions(Options):
    """Options of [`write_embeddings`]."""

    subject: str | None = option(
        None, "average: all recordings go through the mean of the alignment layers (EEG, MEG)", choices=("average",)
    )
    dtype: str = option(DTYPES[0], "of the vectors", choices=DTYPES)
    montage: str | None = option(None, MONTAGE_HELP, choices=MONTAGES)
    streaming: bool = option(
        False, "read recordings from their Parquet files, here or on the Hub, without copies of them"
    )
    num_proc: int = option(1, "processes, each with the model in memory", type=int, metavar="N", least=1)
    overwrite: bool = option(False, "replace an older file")
