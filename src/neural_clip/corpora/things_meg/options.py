"""Options of `prepare` for THINGS-MEG."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.files.numbers import is_count
from neural_clip.options import Options, option
from neural_clip.prepared.splits import check_fraction

SPLIT_PROTOCOLS = {
    "paper": "paper: THINGS-MEG training images against its test images; test concepts also occur in training",
    "zero_shot": "zero_shot: training images without the test concepts, against the test images",
    "large": "large: training images without the test concepts, against the training images of the test concepts",
}


def subject_number(text: str) -> int:
    """`"1"`, `"sub-01"`, `"BIGMEG1"` and `"sub-BIGMEG1"` are subject 1."""
    digits = text.removeprefix("sub-").removeprefix("BIGMEG")
    if not is_count(digits):
        raise argparse.ArgumentTypeError(f"subjects are given like 1, sub-01 or sub-BIGMEG1, but got '{text}'")
    return int(digits)


@dataclass(frozen=True, kw_only=True)
class ThingsMegOptions(Options):
    """Options of `prepare`; here is what the help of a field leaves out.

    Args:
        preprocessing (`str`, *optional*): `"paper"` (default of the raw route: low-pass 48 Hz, -0.5 to 1.0 s, 120 Hz,
            181 samples as both ends count) or `"published"` (the only one of the derivative: 0.1 to 40 Hz, -0.1 to
            1.3 s, 200 Hz, 281 samples).
        scaling (`str`): `"baseline_zscore"` centres and scales each epoch and channel by its own samples up to onset,
            so nothing is fitted; `"train_std"` subtracts that mean and divides by the root mean square of the training
            epochs, by subject and channel; `"none"` subtracts the mean and keeps T.
        average_repeats (`bool`): One row per subject and image, the mean of all its presentations.
        categories (`str`): `"27"`, the matrix of the raw folder, or `"53"`; several or none (`"none"`) a concept.
        categories_file (`str` or `Path`, *optional*): `Categories_final_20200131.tsv` of the public repository
            ViCCo-Group/THINGS-data (MRI/data), for `"53"`. It is joined by row: its words are not unique.
        subjects, sessions (`Sequence[int]`, *optional*): Numbers to read, all by default.
        triggers (`str`): `"compare"` refuses recordings whose triggers (UPPT001) contradict their events; `"ignore"`
            leaves them out, which the metadata tell. Only the raw route has triggers.
        allow_partial (`bool`): Use the runs that are downloaded (of the derivative: the subjects); what is lacking is
            listed in `not_downloaded.txt` and in the metadata. Damaged files are refused all the same.
        num_proc (`int`): Processes that read at the same time. Each holds one run (2 GB at real size) in memory; with
            `"train_std"` each also needs room for a subject's epochs (5 GB) beside `output_dir`.
    """

    images_dir: str | Path | None = option(None, "extracted THINGS images; default RAW_DIR/images", type=Path)
    route: str = option("raw", "CTF recordings or published epochs", choices=("raw", "derivative"))
    preprocessing: str | None = option(
        None, "default paper for raw, published for derivative", choices=("paper", "published")
    )
    split: str = option(
        "paper", "which images train and which test", choices=tuple(SPLIT_PROTOCOLS), flag="--split-protocol"
    )
    scaling: str = option(
        "baseline_zscore",
        "of each epoch by its baseline, by the training epochs, or none",
        choices=("baseline_zscore", "train_std", "none"),
    )
    average_repeats: bool = option(False, "one row per subject and image")
    categories: str = option("27", "table of categories, several a concept", choices=("27", "53"))
    categories_file: str | Path | None = option(
        None, "Categories_final_20200131.tsv of ViCCo-Group/THINGS-data (MRI/data), for 53", type=Path
    )
    subjects: Sequence[int] | None = option(None, "such as sub-01 sub-02; default all", type=subject_number, nargs="+")
    sessions: Sequence[int] | None = option(None, "numbers, such as 1 2; default all", type=int, nargs="+")
    validation_fraction: float = option(0.1, "share of the training images", type=float)
    seed: int = option(0, "of the choice of validation images", type=int, least=0)
    triggers: str = option(
        "compare", "compare the triggers with the events, or ignore them", choices=("compare", "ignore")
    )
    allow_partial: bool = option(False, "use the runs that are downloaded, and mark the data set as partial")
    num_proc: int = option(1, "processes; each holds one run, 2 GB at real size", type=int, metavar="N", least=1)
    overwrite: bool = option(False, "replace an older prepared data set")

    @property
    def recipe(self) -> str:
        """Name of the preprocessing in effect."""
        return self.preprocessing or ("paper" if self.route == "raw" else "published")

    def __post_init__(self) -> None:
        """Check what goes together."""
        super().__post_init__()
        check_fraction("validation_fraction", self.validation_fraction)
        if self.categories_file and self.categories != "53":
            raise DataError("'categories_file' is the table of 53 categories; give categories '53' with it.")
        published = self.recipe == "published" and self.scaling == "baseline_zscore"
        if self.route == "derivative" and not published:
            raise DataError(
                "Route 'derivative' allows only preprocessing 'published' and scaling 'baseline_zscore', which were "
                f"applied before publication, but got '{self.recipe}' and '{self.scaling}'."
            )
