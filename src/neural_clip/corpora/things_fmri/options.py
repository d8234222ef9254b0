"""Options of `prepare` for THINGS-fMRI."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.errors import check_value
from neural_clip.files.numbers import is_count
from neural_clip.options import Options, option
from neural_clip.prepared.splits import check_fraction

ROUTES = ("table", "volume")
SPLIT_PROTOCOLS = ("zero_shot", "all_concepts")
DEFAULT_ROI = ("visual",)


def subject_number(text: str) -> int:
    """`"1"` and `"sub-01"` are subject 1."""
    digits = text.removeprefix("sub-")
    if not is_count(digits):
        raise argparse.ArgumentTypeError(f"subjects are given like 1 or sub-01, but got '{text}'")
    return int(digits)


@dataclass(frozen=True, kw_only=True)
class ThingsFmriOptions(Options):
    """Options of `prepare`; here is what the help of a field leaves out.

    Args:
        images_dir (`str` or `Path`, *optional*): Folder of the extracted THINGS images, with `object_images` or a
            folder for each concept in it.
        route (`str`): `"table"` reads `sub-01_ResponseData.h5` and its tables (betas_csv), `"volume"` the NIfTI files
            of each run (betas_vol) with the brain masks. Both give the same rows.
        roi (`Sequence[str]`): Regions, whose union is taken: `"visual"`, all regions of the pRF and localizer
            experiments and IT; `"brain"`, all voxels; columns of `VoxelMetadata.csv` such as `"V1"`, `"hV4"`, `"IT"`,
            `"lFFA"` or `"glasser-V1"`; `"FFA"` for both sides, `"LO1"` for `"LO1 (prf)"`. The route `"volume"` needs
            `VoxelMetadata.csv` for all but `"brain"`.
        min_noise_ceiling (`float`): Voxels whose `nc_testset` is lower are left out, in percent. It was estimated from
            the test trials, which the card then says.
        split (`str`): `"zero_shot"` leaves out the training images of the concepts of test images (1,200 trials of
            100 concepts a person), `"all_concepts"` keeps them. Validation images are the same in both.
        average_repeats (`bool`): One row an image, the mean of its presentations, or one row a presentation. Training
            images were shown once, test images once a session.
        session_zscore (`str`): `"train_only"` z-scores each voxel within each session with mean and standard
            deviation of the training trials; neither test nor validation images take part in the fit. `"none"` leaves
            the betas as they are.
        validation_fraction (`float`): Share of the concepts that are not tested, all of whose images are held out, the
            same for all people.
        sessions (`Sequence[int]`, *optional*): Sessions whose trials are read; the tables of images are read whole.
        allow_partial (`bool`): Use the people who are downloaded, and of volumes their sessions; what is lacking is
            listed in `not_downloaded.txt` and in the metadata. Damaged files are refused all the same.
    """

    images_dir: str | Path | None = option(None, "extracted THINGS images; default RAW_DIR/images", type=Path)
    route: str = option("table", "betas as tables or as volumes", choices=ROUTES)
    roi: Sequence[str] = option(DEFAULT_ROI, "regions, such as V1 hV4 IT FFA; all voxels: brain", nargs="+")
    min_noise_ceiling: float = option(0.0, "least nc_testset of a voxel, in percent", type=float)
    split: str = option(
        "zero_shot", "whether training shows test concepts", choices=SPLIT_PROTOCOLS, flag="--split-protocol"
    )
    average_repeats: bool = option(True, "one row an image, or one a trial")
    session_zscore: str = option("train_only", "fitted on training trials, or none", choices=("train_only", "none"))
    subjects: Sequence[int] | None = option(None, "such as sub-01 sub-02; default all", type=subject_number, nargs="+")
    sessions: Sequence[int] | None = option(None, "numbers, such as 1 2; default all", type=int, nargs="+")
    validation_fraction: float = option(0.1, "share of the training concepts", type=float)
    seed: int = option(0, "of the choice of validation concepts", type=int, least=0)
    allow_partial: bool = option(False, "use what is downloaded, and mark the data set as partial")
    num_proc: int = option(1, "parts (subjects, or sessions) written at a time", type=int, metavar="N", least=1)
    overwrite: bool = option(False, "replace an older prepared data set")

    def __post_init__(self) -> None:
        """Check what can be checked before files are read."""
        super().__post_init__()
        check_fraction("validation_fraction", self.validation_fraction)
        least = self.min_noise_ceiling
        check_value("min_noise_ceiling", least, 0 <= least < 100, "a number from 0 to below 100, in percent")
        if isinstance(self.roi, str):
            object.__setattr__(self, "roi", (self.roi,))
        check_value("roi", self.roi, bool(self.roi), "one region or more")
