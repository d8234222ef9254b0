"""Options of `prepare` for THINGS-EEG2."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.errors import DataError
from neural_clip.files.numbers import is_count
from neural_clip.options import Options, option
from neural_clip.prepared.splits import check_fraction

RAW_ROUTES = ("raw", "bids")
ROUTES = (*RAW_ROUTES, "official", "nice", "ubp", "neurobridge")


def subject_number(text: str) -> int:
    """`"1"` and `"sub-01"` are subject 1."""
    digits = text.removeprefix("sub-")
    if not is_count(digits):
        raise argparse.ArgumentTypeError(f"subjects are given like 1 or sub-01, but got '{text}'")
    return int(digits)


@dataclass(frozen=True, kw_only=True)
class ThingsEeg2Options(Options):
    """Options of `prepare`; here is what the help of a field leaves out.

    Args:
        images_dir (`str` or `Path`, *optional*): Folder with `training_images` (or `train_images`) and `test_images`;
            `image_metadata.npy` lies in it, beside it or in the raw folder.
        route (`str`): `"raw"` reads `raw_eeg_{training,test}.npy`, `"bids"` the copy in BIDS (BDF). The others read
            what was preprocessed already: `"official"` (17 channels, 100 Hz), `"nice"` (as NICE and ATM publish it),
            `"ubp"` (`train.pt`, `test.pt`), `"neurobridge"` (`train.npy`, `test.npy`).
        preprocessing (`str`, *optional*): Of the recordings: `"nice"` (default: 63 channels, 0 to 1.0 s, 250 Hz,
            every fourth sample, as the amplifier passed 100 Hz at most) or `"official"` (17 posterior channels, -0.2
            to 0.8 s, resampled to 100 Hz). Both subtract the mean from -0.2 s to onset.
        scaling (`str`, *optional*): Of the recordings: `"mvnn"` (default) whitens the channels of each session by the
            covariance within its training epochs (multivariate noise normalisation); `"train_std"` divides each
            channel by the root mean square of the session's training epochs; `"none"` keeps V. Validation and test
            epochs take no part in either.
        average_repeats (`bool`): One row per subject and image, the mean of all its presentations.
        validation_fraction (`float`): Share of the training concepts, all of whose images are held out, the same for
            all subjects.
        allow_partial (`bool`): Accept counts of events that differ from the published ones; they are kept in the
            metadata as `partial`. Mixed-up files are refused all the same.
        num_proc (`int`): Processes that write at the same time. Recordings stay on disk; with `average_repeats` each
            process holds the sums of one subject, 2 GB at real size.
    """

    images_dir: str | Path | None = option(
        None, "folder of training_images and test_images; default RAW_DIR/image_set", type=Path
    )
    route: str = option("raw", "which release to read", choices=ROUTES)
    preprocessing: str | None = option(
        None, "of raw and bids; default nice: 63 channels, 250 Hz", choices=("nice", "official")
    )
    scaling: str | None = option(
        None, "of raw and bids, fitted on training epochs; default mvnn", choices=("mvnn", "train_std", "none")
    )
    average_repeats: bool = option(False, "one row per subject and image")
    subjects: Sequence[int] | None = option(None, "such as sub-01 sub-02; default all", type=subject_number, nargs="+")
    sessions: Sequence[int] | None = option(
        None, "numbers, such as 1 2, of raw and bids; default all", type=int, nargs="+"
    )
    validation_fraction: float = option(0.1, "share of the training concepts", type=float)
    seed: int = option(0, "of the choice of validation concepts", type=int, least=0)
    allow_partial: bool = option(False, "accept counts of events that differ from the published ones")
    num_proc: int = option(1, "processes that write", type=int, metavar="N", least=1)
    overwrite: bool = option(False, "replace an older prepared data set")

    @property
    def recorded(self) -> bool:
        """Whether recordings are read, not what others preprocessed."""
        return self.route in RAW_ROUTES

    @property
    def recipe(self) -> str:
        """Name of the preprocessing in effect."""
        return self.preprocessing or "nice"

    @property
    def scaled_by(self) -> str:
        """The scaling in effect."""
        return self.scaling or "mvnn"

    def __post_init__(self) -> None:
        """Check what goes together."""
        super().__post_init__()
        check_fraction("validation_fraction", self.validation_fraction)
        for name in () if self.recorded else ("preprocessing", "scaling", "sessions"):
            if getattr(self, name) is not None:
                raise DataError(
                    f"Invalid value for the '{name}' parameter. Route '{self.route}' reads what was preprocessed "
                    f"already, so it allows none, but got {getattr(self, name)!r}."
                )
