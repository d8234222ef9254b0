"""ImageNetEEG (Spampinato et al. 2017, Palazzo et al. 2020): from the released `.pth` files to a prepared data set.

The corpus: six people, 40 ImageNet classes, 1,996 images, 128 channels at 1 kHz, 0.5 s an image, released at
https://github.com/perceivelab/eeg_visual_classification. All images of a class were shown in one block, so class and
block coincide: a decoder may read the block instead of the image (Li et al. 2021, doi:10.1109/TPAMI.2020.2973153), and
every prepared set is stamped `block_confounded`, unless it is a simulation without blocks.

Facts that the release leaves open and this module therefore does not assert: how the `_std` files were standardised
and the `means` and `stddevs` of the raw file computed (possibly over all trials, the test trials among them), the
order of channels 40 to 128, the origin of the count 11,466 in early papers. The upstream README tells 11,964 trials;
the files hold 11,965. How the values are made is told in `imagenet_eeg_signals.py`, what damage is noticed in
`imagenet_eeg_files.py`, and where images may lie in `imagenet_images.py`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from neural_clip.corpora.declared import check_facts
from neural_clip.corpora.imagenet_eeg.about import MISSING_IMAGES_FILE, describe
from neural_clip.corpora.imagenet_eeg.images import IMAGE_DIR, ImageFile, find_images
from neural_clip.corpora.imagenet_eeg.layout import (
    RAW_FILE,
    SPLIT_FACTS,
    SPLITS_FILE,
    Trials,
    declared_facts,
    find_recordings,
    find_splits,
    forget_recordings,
    found_facts,
    opened_recordings,
    read_splits,
    readable_names,
    split_sizes,
)
from neural_clip.corpora.imagenet_eeg.signals import Signals, check_filters, fit_scale, released_scale
from neural_clip.corpora.stamp import read_stamp
from neural_clip.errors import DataError
from neural_clip.prepared.parts import Part

__all__ = ["IMAGE_DIR", "VARIANTS", "prepare"]


VARIANTS = {
    "eeg_14_70_std": "eeg_14_70_std.pth",
    "eeg_55_95_std": "eeg_55_95_std.pth",
    "eeg_5_95_std": "eeg_5_95_std.pth",
    "raw": RAW_FILE,
}
"""Names of the variants and their files; the numbers are the pass band in Hz."""
IMAGES_A_PART = 1000
CHOICES = {"standardize": ("train", "none", "released"), "missing_images": ("error", "drop")}


def prepare(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    variant: str = "eeg_14_70_std",
    window: tuple[int, int] = (40, 480),
    length_range: tuple[int, int] | None = None,
    standardize: str | None = None,
    band_pass: tuple[float, float] | None = None,
    notch: float | None = None,
    subjects: Sequence[str] | None = None,
    image_dir: str | Path | None = None,
    splits_file: str | Path | None = None,
    ch_names_file: str | Path | None = None,
    missing_images: str = "error",
    allow_partial: bool = False,
    overwrite: bool = False,
    num_proc: int = 1,
) -> Path:
    """Turn a local copy of ImageNetEEG into a prepared data set folder.

    Args:
        raw_dir (`str` or `Path`): Folder with the `.pth` files of the release.
        output_dir (`str` or `Path`): Folder to write.
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
            ends of such short recordings suffer, see `imagenet_eeg_signals.py`.
        notch (`float`, *optional*): Line frequency to take out in Hz, 50 in Europe, for the raw variant; 3 Hz on
            either side go with it. Zero-phase; near the ends half of the line stays.
        subjects (`Sequence[str]`, *optional*): Such as `["sub-01"]`; default all.
        image_dir (`str` or `Path`, *optional*): ImageNet training images: a folder (the tree of the official archive,
            folders of synsets, or a flat one; also with archives in it), a zip file, `ILSVRC2012_img_train.tar` or the
            tar of one synset. Archives are not unpacked. Default `raw_dir`.
        splits_file (`str` or `Path`, *optional*): Default `block_splits_by_image_all.pth`; its split 0 is used.
        ch_names_file (`str` or `Path`, *optional*): Text file, one channel name a line. Default EEG000, EEG001, ...
        missing_images (`str`): `"error"` stops when images are absent and lists them in
            `<output_dir>.missing_images.txt`, `"drop"` leaves their trials out and lists them in the data set.
        allow_partial (`bool`): Accept a corpus whose counts differ from the release (or from what a simulated one
            tells of itself); the differences are kept in the metadata as `partial`.
        overwrite (`bool`): Replace an existing `output_dir`.
        num_proc (`int`): Processes that write subjects at the same time. Each takes memory of about 1 GB, and a file
            of torch before 1.6 (no zip file) is held by each of them as a whole, 3 GB.

    Returns:
        `Path`: The folder; recordings are float32 of shape (n_chans, window length), z or V.

    Raises:
        DataError: If a file is absent, damaged, another corpus, holds more than tensors and plain values, or
            contradicts itself or the published counts.
    """
    from neural_clip.prepared.writer import write_prepared

    raw_dir, output_dir = Path(raw_dir), Path(output_dir)
    standardize = _check_parameters(variant, window, length_range, standardize, missing_images)
    check_filters(variant, band_pass, notch)
    stamp = read_stamp(raw_dir)
    declared = declared_facts(raw_dir, stamp)
    forget_recordings()  # what a call that failed may have left
    data = opened_recordings(find_recordings(raw_dir, VARIANTS[variant]))
    lacking = check_facts(data.path, declared, found_facts(data), allow_partial=allow_partial) or {}
    splits_path = find_splits(raw_dir, splits_file)
    split_of = read_splits(splits_path, data, allow_partial)
    if stamp is None and splits_path.name == SPLITS_FILE:
        declared |= SPLIT_FACTS
        lacking |= check_facts(splits_path, SPLIT_FACTS, split_sizes(split_of), allow_partial=allow_partial) or {}
    if len(split_of) < len(data.eeg):
        lacking["trials_in_splits"] = {"found": len(split_of), "declared": len(data.eeg)}
    # the split indices are global: subjects and filters come after them, never before
    rows = _select(data, split_of, subjects, length_range)
    files, absent = _find_images(data, rows, Path(image_dir) if image_dir else raw_dir, missing_images, output_dir)
    rows = [i for i in rows if data.images[data.image[i]] not in absent]
    signals = Signals(window, band_pass, notch, released_scale(data) if standardize == "released" else None)
    _check_rows(data, rows, split_of, signals, standardize)
    about = describe(data, rows, split_of, signals, standardize, stamp, lacking, absent)
    about["preprocessing"] |= {
        "variant": variant, "length_range": list(length_range) if length_range else None,
        "missing_images": missing_images,
    }  # fmt: skip
    about |= {
        "declared": declared, "partial": lacking or None, "subjects": _subjects_of(data, rows),
        "ch_names": _channel_names(data.n_chans, ch_names_file),
        "split_protocol": f"split 0 of {splits_path.stem}, applied to all trials",
    }  # fmt: skip
    readable = readable_names(data, raw_dir, stamp)
    recordings = _recording_parts(data, splits_path, rows, split_of, signals, standardize, readable)
    images = _image_parts(data, rows, files, readable)
    if num_proc > 1:  # an old file is not mapped, and each process that writes holds it for itself
        del data
        forget_recordings()
    if not stamp:
        _warn_about_block_design(variant)
    try:
        return write_prepared(
            output_dir,
            about,
            recordings,
            images,
            overwrite=overwrite,
            extra_files={MISSING_IMAGES_FILE: _listed(absent)} if absent else None,
            num_proc=num_proc,
        )
    finally:
        forget_recordings()


def _check_parameters(variant, window, length_range, standardize, missing_images) -> str:
    """Refuse impossible parameters; return the standardization in effect."""
    if variant not in VARIANTS:
        names = ", ".join(f"'{name}'" for name in VARIANTS)
        raise DataError(f"Invalid value for the 'variant' parameter. Allowed values are {names}, but got '{variant}'.")
    if standardize is None:
        standardize = "train" if variant == "raw" else "none"
    for name, value in (("standardize", standardize), ("missing_images", missing_images)):
        if value not in CHOICES[name]:
            allowed = " and ".join(f"'{choice}'" for choice in CHOICES[name])
            raise DataError(
                f"Invalid value for the '{name}' parameter. Allowed values are {allowed}, but got '{value}' instead."
            )
    if standardize == "released" and variant != "raw":
        raise DataError(
            "Invalid value for the 'standardize' parameter. 'released' takes means and stddevs that only the raw file "
            f"holds; allowed values for '{variant}' are 'train' and 'none'."
        )
    for name, value in (("window", window), ("length_range", length_range)):
        if value is not None and not (len(value) == 2 and 0 <= value[0] < value[1]):
            raise DataError(
                f"Invalid value for the '{name}' parameter. Allowed values are two sample numbers, "
                f"0 <= first < second, but got {tuple(value)} instead."
            )
    return standardize


def _find_images(
    data: Trials, rows: Sequence[int], place: Path, missing_images: str, output_dir: Path
) -> tuple[dict[str, ImageFile], list[str]]:
    """Places of the images of trials, and the names of those that are absent."""
    names = [data.images[i] for i in np.unique(data.image[rows])]
    files = find_images(place, names)
    absent = sorted(set(names) - set(files))
    if absent:
        few = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        message = f"{len(absent)} of {len(names)} ImageNet images are absent from '{place}': {few}."
        if missing_images == "error" or len(absent) == len(names):
            listing = output_dir.absolute().with_name(f"{output_dir.name}.{MISSING_IMAGES_FILE}")
            listing.parent.mkdir(parents=True, exist_ok=True)
            aside = listing.with_name(f"{listing.name}.partial")
            aside.write_bytes(_listed(absent))
            os.replace(aside, listing)
            raise DataError(
                f"{message} All are listed in '{listing}'. Name their folder or archive (--image-dir), or leave their "
                "trials out (--missing-images drop)."
            )
        warnings.warn(f"{message} Their trials are left out; '{MISSING_IMAGES_FILE}' lists them.", stacklevel=3)
    return files, absent


def _listed(names: Sequence[str]) -> bytes:
    """Content of the list of missing images: one name a line."""
    return "".join(f"{name}\n" for name in names).encode()


def _channel_names(n_chans: int, path: str | Path | None) -> list[str]:
    """EEG000, EEG001, ... or the lines of a text file."""
    if path is None:
        return [f"EEG{i:03d}" for i in range(n_chans)]
    names = Path(path).read_text(encoding="utf-8").split()
    if len(names) != n_chans or len(set(names)) != n_chans:
        raise DataError(f"'{path}' should name {n_chans} different channels, but has {len(set(names))}.")
    return names


def _subjects_of(data: Trials, rows: Sequence[int]) -> list[str]:
    """Subjects of trials by name."""
    return [f"sub-{subject:02d}" for subject in np.unique(data.subject[rows])]


def _select(data: Trials, split_of: dict[int, str], subjects, length_range) -> list[int]:
    """Trials of the asked-for subjects and lengths, in the order of the file."""
    available = _subjects_of(data, range(len(data.eeg)))
    wanted = list(subjects) if subjects is not None else available
    for subject in wanted:
        if subject not in available:
            raise DataError(
                f"Invalid value for the 'subjects' parameter. Allowed values are {', '.join(available)}, "
                f"but got '{subject}' instead."
            )
    low, high = length_range or (0, int(data.length.max()))
    rows = [i for i in sorted(split_of) if f"sub-{data.subject[i]:02d}" in wanted and low <= data.length[i] <= high]
    if not rows:
        raise DataError(f"No trial of '{data.path}' is left: check the 'subjects' and 'length_range' parameters.")
    return rows


def _check_rows(data: Trials, rows: Sequence[int], split_of: dict[int, str], signals: Signals, standardize: str):
    """Refuse before anything is written what cannot be cut or scaled."""
    signals.check_length(data, rows)
    fitted = {int(data.subject[i]) for i in rows if split_of[i] == "train"}
    for subject in np.unique(data.subject[rows]).tolist():
        if standardize == "train" and subject not in fitted:
            raise DataError(f"Subject {subject} of '{data.path}' has no training trial to fit its scaling on.")


def _concept(synset: str, readable: dict[str, str]) -> str:
    """Synset and readable name, "n02106662 German shepherd"."""
    return f"{synset} {readable[synset]}"


def _recording_parts(data, splits_path, rows, split_of, signals, standardize, readable) -> list[Part]:
    """One part for each subject, in the order of the file; each opens the file for itself."""
    parts: list[Part] = []
    for subject in dict.fromkeys(data.subject[rows].tolist()):
        trials = [(i, split_of[i]) for i in rows if data.subject[i] == subject]
        make = partial(_recording_rows, data.path, trials, signals, standardize, readable)
        parts.append(Part(f"sub-{subject:02d}", make, (data.path, splits_path), len(trials)))
    return parts


def _recording_rows(
    path: Path, trials: Sequence[tuple[int, str]], signals: Signals, standardize: str, readable: dict[str, str]
) -> Iterator[dict]:
    """Rows of one subject for `write_prepared`, scaled by the subject's own training trials if so asked."""
    data = opened_recordings(path)
    mean, divisor = np.zeros((data.n_chans, 1)), np.ones((data.n_chans, 1))
    if standardize == "train":
        mean, divisor = fit_scale(data, [i for i, split in trials if split == "train"], signals)
    elif standardize == "none" and path.name == RAW_FILE:
        divisor = np.full((data.n_chans, 1), 1e6)  # the raw file is in microvolts, prepared sets are in volts
    for i, split in trials:
        synset = data.labels[data.label[i]]
        yield {
            "subject": f"sub-{data.subject[i]:02d}", "session": "ses-01", "run": "", "trial": i,
            "image_id": data.images[data.image[i]], "concept": _concept(synset, readable),
            "categories": [synset], "n_repeats": 1, "split": split,
            "eeg": ((signals.cut(data, i) - mean) / divisor).astype(np.float32),
        }  # fmt: skip


def _image_parts(data: Trials, rows: Sequence[int], files: dict[str, ImageFile], readable) -> list[Part]:
    """Images of trials, each once, in parts of bounded size."""
    names = [data.images[i] for i in np.unique(data.image[rows])]
    parts: list[Part] = []
    for first in range(0, len(names), IMAGES_A_PART):
        some = [(name, files[name]) for name in names[first : first + IMAGES_A_PART]]
        make = partial(_image_rows, some, readable)
        parts.append(Part(f"images-{len(parts)}", make, sorted({file.path for _, file in some}), len(some)))
    return parts


def _image_rows(images: Sequence[tuple[str, ImageFile]], readable: dict[str, str]) -> Iterator[dict]:
    """Rows of images for `write_prepared`."""
    from neural_clip.prepared.image_rows import image_bytes

    for name, file in images:
        synset = name.rsplit("_", 1)[0]
        yield {
            "image_id": name, "image": image_bytes(file.read(), f"image {name!r} in '{file.path}'"),
            "concept": _concept(synset, readable), "categories": [synset],
        }  # fmt: skip


def _warn_about_block_design(variant: str) -> None:
    """Say what the numbers from this corpus mean."""
    message = "ImageNetEEG shows all images of a class in one block: decoders may read the block instead of the image."
    if variant in ("raw", "eeg_5_95_std"):
        message += f" The slow frequencies of '{variant}' carry most of this confound; 'eeg_14_70_std' carries less."
    warnings.warn(message, stacklevel=3)
