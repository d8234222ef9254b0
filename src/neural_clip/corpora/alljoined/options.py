"""Options of `prepare` for Alljoined-1.6M and Alljoined1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.corpora.sensor_scaling import METHODS
from neural_clip.corpora.things_eeg2.options import subject_number
from neural_clip.errors import DataError
from neural_clip.options import Options, option
from neural_clip.prepared.splits import check_fraction

ROUTES = ("raw", "flat", "alljoined1")


@dataclass(frozen=True, kw_only=True)
class AlljoinedOptions(Options):
    """Options of `prepare`; here is what the help of a field leaves out.

    Args:
        route (`str`): `"raw"` reads the EDF files of Alljoined-1.6M, `"flat"` what was preprocessed of them
            (`preprocessed_eeg_{training,test}_flat.npy`), `"alljoined1"` the Parquet files of Alljoined1
            (`Alljoined/05_125` on the Hub).
        images_dir (`str` or `Path`, *optional*): Of Alljoined-1.6M, the folder of `00000.jpg` and so on, unpacked from
            `stimuli.zip`; of Alljoined1, `nsd_stimuli.hdf5` of NSD.
        image_metadata (`str` or `Path`, *optional*): `image_metadata.npy` of THINGS-EEG2, whose images Alljoined-1.6M
            shows: images are then called as in all corpora of THINGS, so that a test image of another corpus is known.
        scaling (`str`, *optional*): Of the routes `raw` and `alljoined1`: `"mvnn"` (default) whitens the channels of
            each session by the covariance within its training epochs (multivariate noise normalisation);
            `"train_std"` divides each channel by the root mean square of the session's training epochs; `"none"`
            keeps V. Validation and test epochs take no part in either.
        average_repeats (`bool`): One row per subject and image, the mean of all its presentations.
        validation_fraction (`float`): Share of the training concepts, all of whose images are held out, the same for
            all subjects; of the training images of Alljoined1, whose images have no concepts.
        allow_partial (`bool`): Accept counts that differ from the published ones; they are kept in the metadata as
            `partial`. Mixed-up files are refused all the same.
        num_proc (`int`): Processes that write at the same time.
    """

    route: str = option("raw", "what to read", choices=ROUTES)
    images_dir: str | Path | None = option(
        None, "folder of the images, default RAW_DIR/stimuli/images; of alljoined1, nsd_stimuli.hdf5", type=Path
    )
    image_metadata: str | Path | None = option(
        None,
        "image_metadata.npy of THINGS-EEG2, for the names of images that all corpora of THINGS use",
        type=Path,
        metavar="FILE",
    )
    scaling: str | None = option(
        None, "of raw and alljoined1, fitted on training epochs; default mvnn", choices=METHODS
    )
    average_repeats: bool = option(False, "one row per subject and image")
    subjects: Sequence[int] | None = option(None, "such as sub-01 sub-02; default all", type=subject_number, nargs="+")
    sessions: Sequence[int] | None = option(None, "numbers, such as 1 2, of raw; default all", type=int, nargs="+")
    validation_fraction: float = option(0.1, "share of the training concepts", type=float)
    seed: int = option(0, "of the choice of validation concepts", type=int, least=0)
    allow_partial: bool = option(False, "accept counts that differ from the published ones")
    num_proc: int = option(1, "processes that write", type=int, metavar="N", least=1)
    overwrite: bool = option(False, "replace an older prepared data set")

    @property
    def scaled_by(self) -> str:
        """The scaling in effect."""
        return self.scaling or "mvnn"

    def __post_init__(self) -> None:
        """Check what goes together."""
        super().__post_init__()
        check_fraction("validation_fraction", self.validation_fraction)
        unused = {"flat": ("scaling", "sessions"), "alljoined1": ("image_metadata", "sessions")}
        for name in unused.get(self.route, ()):
            if getattr(self, name) is not None:
                raise DataError(
                    f"Invalid value for the '{name}' parameter. Route '{self.route}' has no use for it, but got "
                    f"{str(getattr(self, name))!r}."
                )
