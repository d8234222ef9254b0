"""Options of the commands that search galleries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.gallery.conversion import RECORDINGS, WAYS
from neural_clip.gallery.options import HITS, MONTAGE_HELP
from neural_clip.montage import MONTAGES
from neural_clip.options import Options, option
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.splits import SPLITS


@dataclass
class Recordings:
    """What [`decode`] and [`convert`] are asked."""

    recordings: str = option(
        MISSING, "file of recordings, prepared data set, or saved gallery of recordings", positional=True,
        metavar="RECORDINGS",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RecordingOptions(Options):
    """What is said of a file of recordings; each kind of file takes some of these (see [`open_recordings`])."""

    modality: str | None = option(None, "of the recordings, where the file does not tell", choices=MODALITIES)
    subject: str | None = option(
        None, "whose recordings these are, or average for people whom the model does not know (EEG, MEG); of a "
        "prepared data set, whose rows are taken",
    )  # fmt: skip
    session: str | None = option(None, "of recordings that are scaled session by session")
    unit: str | None = option(
        None, "of arrays and images as they were recorded, such as uV; prepared for what went through the steps of "
        "the training data already",
    )  # fmt: skip
    scaling: str | None = option(
        None, "fit: scale by mean and deviation of these recordings, 20 at least, not of the training recordings",
        choices=("fit",),
    )  # fmt: skip
    events: Path | None = option(
        None, "table of image onsets in s (.tsv, .csv) of a continuous recording; default its events.tsv in BIDS, its "
        "annotations, or its trigger channel", type=Path, metavar="FILE",
    )  # fmt: skip
    keep: Sequence[str] | None = option(
        None, "events that show images: trial_type of annotations, value of triggers, or columns of the table",
        nargs="+", metavar="COLUMN=VALUE",
    )  # fmt: skip
    bad_segments: str | None = option(
        None, "drop: leave out events in segments marked bad; default an error", choices=("drop",)
    )
    notch: Sequence[float] | None = option(
        None, "mains frequency, and multiples of it, that are removed from a continuous recording", nargs="+",
        type=float, least=0, metavar="HZ",
    )  # fmt: skip
    task: str | None = option(None, "of a recording in a BIDS data set")
    run: str | None = option(None, "of a recording in a BIDS data set")
    mask: Path | None = option(None, "region of an fMRI image (.nii, .nii.gz, .npy)", type=Path, metavar="FILE")
    key: str | None = option(None, "name of an array in an .npz or .mat file")
    sfreq: float | None = option(None, "rate of an array in Hz, where it is not the model's", type=float)
    tmin: float | None = option(None, "first sample of an array in s from image onset", type=float)
    ch_names: Sequence[str] | None = option(None, "names of the channels of an array", nargs="+", metavar="NAME")
    montage: str | None = option(None, MONTAGE_HELP, choices=MONTAGES)
    split: str | None = option(None, "of a prepared data set; default test", choices=SPLITS)
    rows: Sequence[int] | None = option(
        None, "of a prepared data set or a gallery, counted from 0; default all", nargs="+", type=int, least=0
    )


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(Options):
    """Where is searched, by which model, and how the answer is given."""

    gallery: Sequence[str] = option(
        MISSING, "what is searched: saved galleries, prepared data sets or, for images, folders of them", nargs="+",
        metavar="PATH",
    )  # fmt: skip
    checkpoint: str = option(MISSING, "folder or Hub name of a NeuralClipModel", metavar="PATH")
    figure: Path | None = option(None, "picture of the hits: .png, .pdf or .svg", type=Path, metavar="FILE")
    json: bool = option(False, "print JSON, and nothing else, to stdout")


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Options):
    """How a gallery is searched."""

    gallery_split: str | None = option(
        None, "of the prepared data sets or the gallery that is searched; default all", choices=SPLITS
    )
    pictures: Path | None = option(
        None, "where the images of a saved gallery lie by now", type=Path, flag="--images-dir"
    )
    top_k: int = option(HITS, "hits of each query; all, where there are fewer", type=int, least=1)


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(SearchOptions):
    """Options of [`decode`]."""

    calibrate: str | None = option(
        None, "csls: lower images that are near to many of these recordings; transductive, no label takes part",
        choices=("csls",),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AmongOptions(SearchOptions):
    """Options of [`encode`] and [`search`]: which rows are searched."""

    modality: str | None = option(None, "of what is searched; default all", choices=("image", *MODALITIES))
    subject: Sequence[str] | None = option(None, "whose recordings are searched; default all", nargs="+")
    session: Sequence[str] | None = option(None, "whose recordings are searched; default all", nargs="+")
    montage: str | None = option(None, MONTAGE_HELP, choices=MONTAGES)


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(SearchOptions):
    """Options of [`convert`]."""

    to: str = option(MISSING, "modality of the recordings that are searched", choices=MODALITIES)
    via: str = option(
        RECORDINGS, "compare with single recordings, with their means by image, or with single recordings through "
        "the image embedding that is to be expected", choices=WAYS,
    )  # fmt: skip
    bank: str | None = option(
        None, "images for --via images: a folder, a prepared data set or a gallery; default those that the "
        "checkpoint was trained on", metavar="PATH",
    )  # fmt: skip
