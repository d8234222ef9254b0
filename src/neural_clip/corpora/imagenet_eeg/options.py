"""Options of `prepare` for ImageNetEEG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neural_clip.errors import DataError, check_value
from neural_clip.options import Options, option

RAW_FILE = "eeg_signals_raw_with_mean_std.pth"
VARIANTS = {
    "eeg_14_70_std": "eeg_14_70_std.pth",
    "eeg_55_95_std": "eeg_55_95_std.pth",
    "eeg_5_95_std": "eeg_5_95_std.pth",
    "raw": RAW_FILE,
}
"""Names of the variants and their files; the numbers are the pass band in Hz."""
SPLITS_FILE = "block_splits_by_image_all.pth"
IMAGE_DIR = "ILSVRC/Data/CLS-LOC/train"
"""Where the official archive of ImageNet keeps the training images."""


@dataclass(frozen=True, kw_only=True)
class ImageNetEegOptions(Options):
    """Options of `prepare`; here is what the help of a field leaves out.

    Args:
        variant (`str`): One of `VARIANTS`. Bands below 14 Hz carry the slow block-long states that inflate results.
        window (`tuple[int, int]`): First sample and end (exclusive) of the cut, in samples from image onset at 1 kHz.
            (40, 480) is the window of the code of arXiv 2411.09723, (20, 460) that of the releasers.
        length_range (`tuple[int, int]`, *optional*): Keep recordings of this many samples only, both ends inclusive;
            the releasers' loader uses (450, 600). The paper's code has no such filter, nor has the default.
        standardize (`str`, *optional*): `"train"` z-scores each subject's channels with mean and standard deviation
            of that subject's training trials, after the filters; `"none"` leaves the values as released (the raw ones
            in V); `"released"` takes the `means` and `stddevs` of the raw file, before the filters, whose scope is
            unknown. Default: `"train"` for the raw variant, `"none"` for the others, which the releasers
            standardised over a scope they do not state.
        band_pass (`tuple[float, float]`, *optional*): Edges of a pass band in Hz, for the raw variant. Zero-phase; the
            ends of such short recordings suffer, see `signals.py`.
        notch (`float`, *optional*): Line frequency to take out in Hz, 50 in Europe, for the raw variant; 3 Hz on
            either side go with it. Zero-phase; near the ends half of the line stays.
        image_dir (`str` or `Path`, *optional*): ImageNet training images: a folder (the tree of the official archive,
            folders of synsets, or a flat one; also with archives in it), a zip file, `ILSVRC2012_img_train.tar` or the
            tar of one synset. Archives are not unpacked. Default `raw_dir`.
        missing_images (`str`): `"error"` stops when images are absent and lists them in
            `<output_dir>.missing_images.txt`, `"drop"` leaves their trials out and lists them in the data set.
        allow_partial (`bool`): Accept a corpus whose counts differ from the release (or from what a simulated one
            tells of itself); the differences are kept in the metadata as `partial`.
        num_proc (`int`): Processes that write subjects at the same time. Each takes memory of about 1 GB, and a file
            of torch before 1.6 (no zip file) is held by each of them as a whole, 3 GB.
    """

    variant: str = option("eeg_14_70_std", "which .pth file to read", choices=tuple(VARIANTS))
    window: tuple[int, int] = option((40, 480), "samples", type=int, nargs=2, metavar=("FIRST", "END"))
    length_range: tuple[int, int] | None = option(
        None,
        "keep recordings of such lengths only, in samples; default all",
        type=int,
        nargs=2,
        metavar=("MIN", "MAX"),
    )
    standardize: str | None = option(
        None,
        "by training trials, or by means and stddevs of the raw file; default train for raw, none for *_std",
        choices=("train", "none", "released"),
    )
    band_pass: tuple[float, float] | None = option(
        None, "Hz, zero-phase; raw only; default none", type=float, nargs=2, metavar=("LOW", "HIGH")
    )
    notch: float | None = option(
        None, "line frequency to take out, zero-phase; raw only; default none", type=float, metavar="HZ"
    )
    subjects: Sequence[str] | None = option(None, "such as sub-01 sub-04; default all", nargs="+")
    image_dir: str | Path | None = option(
        None,
        "ImageNet training images: folder (the official tree, synset folders or flat), tar or zip; default RAW_DIR",
        type=Path,
        flag="--images-dir",
    )
    splits_file: str | Path | None = option(None, f"default RAW_DIR/{SPLITS_FILE}", type=Path)
    ch_names_file: str | Path | None = option(
        None, "text file with one channel name a line; default EEG000, EEG001, ...", type=Path
    )
    missing_images: str = option(
        "error",
        "stop and list them in OUTPUT_DIR.missing_images.txt, or leave their trials out",
        choices=("error", "drop"),
    )
    allow_partial: bool = option(False, "accept counts that differ from the release")
    num_proc: int = option(1, "processes that write", type=int, metavar="N", least=1)
    overwrite: bool = option(False, "replace an existing output folder")

    @property
    def standardization(self) -> str:
        """The standardization in effect."""
        return self.standardize or ("train" if self.variant == "raw" else "none")

    def __post_init__(self) -> None:
        """Check what goes together."""
        super().__post_init__()
        if self.standardize == "released" and self.variant != "raw":
            raise DataError(
                "Invalid value for the 'standardize' parameter. 'released' takes means and stddevs that only the raw "
                f"file holds; allowed values for '{self.variant}' are 'train' and 'none'."
            )
        for name, value in (("window", self.window), ("length_range", self.length_range)):
            fits = value is None or (len(value) == 2 and 0 <= value[0] < value[1])
            check_value(name, value, fits, "two sample numbers, 0 <= first < second")
