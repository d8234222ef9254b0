"""Options of `prepare` for THINGS-EEG1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.corpora.sensor_scaling import METHODS
from neural_clip.corpora.things_eeg2.options import subject_number
from neural_clip.options import Options, option
from neural_clip.prepared.splits import check_fraction

SPLIT_PROTOCOLS = ("zero_shot", "all_concepts")


@dataclass(frozen=True, kw_only=True)
class ThingsEeg1Options(Options):
    """Options of `prepare`; here is what the help of a field leaves out.

    Args:
        images_dir (`str` or `Path`, *optional*): Extracted images of THINGS, with a folder for each concept.
        split (`str`): `"zero_shot"` leaves out training images of the 200 test concepts, `"all_concepts"` keeps them;
            they are other images than the test images, but test concepts are then not unseen.
        include_excluded (`bool`): Read the people whom `participants.tsv` marks as excluded: their signal is very
            poor, or parts of the experiment are missing.
        scaling (`str`): `"mvnn"` whitens the channels of each subject by the covariance within training epochs
            (multivariate noise normalisation); `"train_std"` divides each channel by the root mean square of the
            subject's training epochs; `"none"` keeps V. Validation and test epochs take no part in either.
        average_repeats (`bool`): One row per subject and image, the mean of all its presentations; only test images
            are shown more than once.
        validation_fraction (`float`): Share of the training concepts that are no test concepts, all of whose images
            are held out, the same for all subjects.
        markers (`str`): `"compare"` refuses a recording whose markers (`.vmrk`) are not at its events; `"ignore"`
            leaves them out, which the metadata tell.
        allow_partial (`bool`): Accept counts of events that differ from the published ones; they are kept in the
            metadata as `partial`.
        num_proc (`int`): Processes that read at the same time; recordings stay on disk.
    """

    images_dir: str | Path | None = option(
        None, "folder of the concepts' folders of images; default RAW_DIR/images or RAW_DIR/stimuli", type=Path
    )
    split: str = option(
        "zero_shot", "whether training shows test concepts", choices=SPLIT_PROTOCOLS, flag="--split-protocol"
    )
    include_excluded: bool = option(False, "read people whom participants.tsv marks as excluded")
    scaling: str = option("mvnn", "fitted on training epochs", choices=METHODS)
    average_repeats: bool = option(False, "one row per subject and image")
    subjects: Sequence[int] | None = option(None, "such as sub-02 sub-03; default all", type=subject_number, nargs="+")
    validation_fraction: float = option(0.1, "share of the training concepts", type=float)
    seed: int = option(0, "of the choice of validation concepts", type=int, least=0)
    markers: str = option(
        "compare", "compare the markers of recordings with their events, or ignore them", choices=("compare", "ignore")
    )
    allow_partial: bool = option(False, "accept counts of events that differ from the published ones")
    num_proc: int = option(1, "processes that write", type=int, metavar="N", least=1)
    overwrite: bool = option(False, "replace an older prepared data set")

    def __post_init__(self) -> None:
        """Check the share."""
        super().__post_init__()
        check_fraction("validation_fraction", self.validation_fraction)
