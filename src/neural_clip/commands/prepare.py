"""`neural-clip prepare CORPUS` and the programs in `dataset_scripts/`; every corpus declares its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path

from neural_clip.commands.options import read_options
from neural_clip.options import option


@dataclass
class RawPlaces:
    """Where a corpus lies, and where it goes."""

    raw_dir: Path = option(MISSING, "folder of the raw files as they were published", type=Path)
    output_dir: Path = option(MISSING, "folder of the prepared data set", type=Path)


@dataclass
class ManifestPlaces:
    """Where the description of recordings lies, and where they go."""

    manifest: Path = option(MISSING, "YAML file that lists recordings, images and splits", type=Path, positional=True)
    output_dir: Path = option(MISSING, "folder of the prepared data set", type=Path)


def imagenet_eeg(argv: Sequence[str] | None = None) -> Path:
    """Prepare ImageNetEEG: EEG of six subjects, 40 classes of ImageNet, from the released .pth files.

    All images of a class were shown in one block, so a decoder may read the block instead of the image.
    """
    from neural_clip.corpora.imagenet_eeg.options import ImageNetEegOptions

    places, options = read_options("prepare imagenet_eeg", imagenet_eeg.__doc__, argv, RawPlaces, ImageNetEegOptions)
    from neural_clip.corpora.imagenet_eeg import prepare

    return _told(prepare(places.raw_dir, places.output_dir, options))


def things_meg(argv: Sequence[str] | None = None) -> Path:
    """Prepare THINGS-MEG (OpenNeuro ds004212, version 2.0.0 or later): MEG of four subjects.

    The route `raw` reads the CTF recordings, `derivative` the published epochs. Training images of the split protocol
    `paper` share their concepts with the test images, those of `zero_shot` and `large` do not.
    """
    from neural_clip.corpora.things_meg.options import ThingsMegOptions

    places, options = read_options("prepare things_meg", things_meg.__doc__, argv, RawPlaces, ThingsMegOptions)
    from neural_clip.corpora.things_meg import prepare

    return _told(prepare(places.raw_dir, places.output_dir, options))


def nsd(argv: Sequence[str] | None = None) -> Path:
    """Prepare the Natural Scenes Dataset: 7 T fMRI of eight subjects, from a local copy.

    The images that all of them saw are the test split. NSD's terms forbid to pass on what this program writes.
    """
    from neural_clip.corpora.nsd.options import NsdOptions

    places, options = read_options("prepare nsd", nsd.__doc__, argv, RawPlaces, NsdOptions)
    from neural_clip.corpora.nsd import prepare

    return _told(prepare(places.raw_dir, places.output_dir, options))


def custom(argv: Sequence[str] | None = None) -> Path:
    """Prepare your own recordings, with images or ready-made embeddings, as a manifest lists them.

    Epochs of mne, continuous EEG or MEG, BIDS data sets, fMRI time series or patterns; the documentation explains the
    manifest in docs/bring_your_own_recordings.md.
    """
    from neural_clip.corpora.custom.options import CustomOptions

    places, options = read_options("prepare custom", custom.__doc__, argv, ManifestPlaces, CustomOptions)
    from neural_clip.corpora.custom import prepare

    return _told(prepare(places.manifest, places.output_dir, options))


def _told(folder: Path) -> Path:
    print(f"{folder}: ready for load_dataset")
    return folder
