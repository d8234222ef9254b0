"""Options of [`evaluate_checkpoints`] and of `neural-clip evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neural_clip.errors import check_option, check_value
from neural_clip.evaluation.protocols import PROTOCOLS
from neural_clip.gallery.options import MONTAGE_HELP
from neural_clip.montage import MONTAGES
from neural_clip.options import Options, option
from neural_clip.prepared.splits import SPLITS

BASELINE_NAMES = {
    "ridge": "per-subject ridge",
    "whitened": "pooled whitened ridge",
    "closed_form": "closed form",
    "identity": "ridge, identity alignment",
    "random": "ridge, random alignment",
}


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Options):
    """Options of [`evaluate_checkpoints`]; here is what the help of a field leaves out.

    Args:
        subjects (`Sequence[str]`, *optional*): Of any of the data sets; each needs one of them.
        subject (`str`, *optional*): `"average"`, or by default each subject's own layer.
        gallery (`str`, *optional*): `"all"`, `"train"`, `"validation"`, `"test"`, or a prepared data set whose images
            join those that were shown (see [`searched_images`]). It must hold every image that was shown.
        protocol (`str`): Key of `PROTOCOLS`.
        templates (`str`, *optional*): Folder or Hub name; its images must be embedded by the same image encoder. Those
            that are scored are left out of the templates.
        baselines (`Sequence[str]` or `bool`): Keys of `BASELINE_NAMES`, `"all"` or `"none"`; `True` and `False` mean
            these two.
        controls (`bool`): Also run the controls of `controls.py` for the first checkpoint.
        understand (`int`, *optional*): Also write `<output_dir>/understanding` of the first checkpoint (see
            [`understand`]), with maps over so many recordings; needs captum.
        streaming (`bool`): Read recordings a row group at a time. Sizes and footers of the files are compared with
            what was written; contents are not read beforehand.
        montage (`str`, *optional*): `"interpolate"` makes channels of a checkpoint that a data set lacks of those
            around them, of the rows as they are scaled; baselines and controls read the channels that were recorded.
        seed (`int`): Seed of intervals, p-values and sampled scores; nothing else is random.
        num_proc (`int`): With 1, `joblib.parallel_config` may say otherwise. Each process holds up to two matrices for
            EEG and MEG and three for fMRI, of the size that is told before they are made, and about 1 GB beside them.
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
    templates: str | None = option(
        None, "prepared data set whose other images of each test concept make its template, for protocols that score "
        "person by person", metavar="FOLDER",
    )  # fmt: skip
    baselines: Sequence[str] = option(
        ("all",),
        "linear baselines beside the checkpoints: " + ", ".join(BASELINE_NAMES) + ", or none",
        nargs="+", metavar="NAME",
    )  # fmt: skip
    controls: bool = option(True, "controls beside the scores")
    understand: int | None = option(
        None, "also show what was learned: similarity, time, sensor and voxel maps over N recordings, 64 unless given",
        nargs="?", type=int, const=64, least=1,
    )  # fmt: skip
    montage: str | None = option(None, MONTAGE_HELP, choices=MONTAGES)
    seed: int = option(0, "of intervals and p-values", type=int, least=0)
    streaming: bool = option(
        False, "read recordings from their Parquet files, here or on the Hub, without copies of them"
    )
    batch_size: int = option(64, "recordings a forward pass", type=int, least=1)
    device: str = option("cpu", "where the model computes, cpu or cuda")
    num_proc: int = option(
        1, "processes that fit baselines, each with matrices of its own in memory (docs/scale.md)", type=int,
        metavar="N", least=1,
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check, and take names of baselines that stand in one text apart."""
        given: object = self.baselines
        if isinstance(given, bool):
            given = "all" if given else "none"
        texts = (given,) if isinstance(given, str) else tuple(self.baselines)
        names = tuple(name for text in texts for name in str(text).split(","))
        for name in names:
            check_option("baselines", name, ("all", "none", *BASELINE_NAMES))
        alone = len(names) == 1 or not {"all", "none"} & set(names)
        check_value(
            "baselines", " ".join(names), bool(names) and alone, "'all' or 'none' alone, or names of baselines"
        )
        object.__setattr__(self, "baselines", names)
        by_person = [name for name, protocol in PROTOCOLS.items() if protocol.by_person]
        fits = self.templates is None or self.protocol in by_person
        check_value("templates", self.templates, fits, f"none but with one of the protocols {', '.join(by_person)}")
        super().__post_init__()

    @property
    def wanted_baselines(self) -> tuple[str, ...]:
        """The baselines as tables call them."""
        if self.baselines == ("none",):
            return ()
        names = BASELINE_NAMES if self.baselines == ("all",) else self.baselines
        return tuple(BASELINE_NAMES[name] for name in names)
