"""Options of [`evaluate_checkpoints`] and of `neural-clip evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neural_clip.evaluation.protocols import PROTOCOLS
from neural_clip.options import Options, option
from neural_clip.prepared.splits import SPLITS


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Options):
    """Options of [`evaluate_checkpoints`]; here is what the help of a field leaves out.

    Args:
        subjects (`Sequence[str]`, *optional*): Of any of the data sets; each needs one of them.
        subject (`str`, *optional*): `"average"`, or by default each subject's own layer.
        gallery (`str`, *optional*): `"all"`, `"train"`, `"validation"`, `"test"`, or a prepared data set whose images
            join those that were shown (see [`searched_images`]). It must hold every image that was shown.
        controls (`bool`): Also run the controls of `controls.py` for the first checkpoint.
        understand (`int`, *optional*): Also write `<output_dir>/understanding` of the first checkpoint (see
            [`understand`]), with maps over so many recordings; needs captum.
        seed (`int`): Seed of intervals, p-values and sampled scores; nothing else is random.
    """

    split: str = option("test", "the recordings that are scored", choices=SPLITS)
    subjects: Sequence[str] | None = option(None, "whose recordings are scored; default all", nargs="+")
    subject: str | None = option(
        None,
        "average: all recordings go through the mean of the alignment layers (EEG, MEG), for subjects whom the model "
        "has not seen",
        choices=("average",),
    )
    gallery: str | None = option(
        None,
        "images that are searched: all of the set, those of a split, or those of another prepared set as well; "
        "default those that were shown",
        metavar="{all,SPLIT,FOLDER}",
    )
    protocol: str = option("strict", "which scores the report puts first", choices=tuple(PROTOCOLS))
    baselines: bool = option(True, "linear baselines beside the checkpoints")
    controls: bool = option(True, "controls beside the scores")
    understand: int | None = option(
        None, "also show what was learned: similarity, time, sensor and voxel maps over N recordings, 64 unless given",
        nargs="?", type=int, const=64, least=1,
    )  # fmt: skip
    seed: int = option(0, "of intervals and p-values", type=int, least=0)
    batch_size: int = option(64, "recordings a forward pass", type=int, least=1)
    device: str = option("cpu", "where the model computes, cpu or cuda")
