"""ImageNetEEG (Spampinato et al. 2017, Palazzo et al. 2020): from the released `.pth` files to a prepared data set.

The corpus: six people, 40 ImageNet classes, 1,996 images, 128 channels at 1 kHz, 0.5 s an image, released at
https://github.com/perceivelab/eeg_visual_classification. All images of a class were shown in one block, so class and
block coincide: a decoder may read the block instead of the image (Li et al. 2021, doi:10.1109/TPAMI.2020.2973153), and
every prepared set is stamped `block_confounded`, unless it is a simulation without blocks.

Facts that the release leaves open and this module therefore does not assert: how the `_std` files were standardised
(possibly over all trials, the test trials among them), the order of channels 40 to 128, the origin of the count 11,466
in early papers. The upstream README tells 11,964 trials; the files hold 11,965.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from neural_clip.corpora.imagenet_eeg_files import (
    FACTS,
    SPLITS_FILE,
    SYNSETS,
    Trials,
    check_counts,
    find_recordings,
    find_splits,
    read_recordings,
    read_splits,
)
from neural_clip.corpora.stamp import read_stamp
from neural_clip.errors import DataError

__all__ = ["VARIANTS", "main", "prepare"]

VARIANTS = {
    "eeg_14_70_std": "eeg_14_70_std.pth",
    "eeg_55_95_std": "eeg_55_95_std.pth",
    "eeg_5_95_std": "eeg_5_95_std.pth",
    "raw": "eeg_signals_raw_with_mean_std.pth",
}
"""Names of the variants and their files; the numbers are the pass band in Hz."""
IMAGE_DIR = "ILSVRC/Data/CLS-LOC/train"
"""Where the official ImageNet archive keeps the training images, below the raw folder."""
SFREQ = 1000.0


def prepare(
    raw_dir: str | Path,
    output_dir: str | Path,
    *,
    variant: str = "eeg_14_70_std",
    window: tuple[int, int] = (40, 480),
    length_range: tuple[int, int] | None = None,
    standardize: str | None = None,
    subjects: Sequence[str] | None = None,
    image_dir: str | Path | None = None,
    splits_file: str | Path | None = None,
    ch_names_file: str | Path | None = None,
    missing_images: str = "error",
    allow_partial: bool = False,
    overwrite: bool = False,
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
            of that subject's training trials, `"none"` leaves the values as released. Default: `"train"` for the raw
            variant, `"none"` for the others, which the releasers standardised over a scope they do not state.
        subjects (`Sequence[str]`, *optional*): Such as `["sub-01"]`; default all.
        image_dir (`str` or `Path`, *optional*): Folder of the ImageNet training images, one folder a synset. Default
            `ILSVRC/Data/CLS-LOC/train` below `raw_dir`.
        splits_file (`str` or `Path`, *optional*): Default `block_splits_by_image_all.pth`; its split 0 is used.
        ch_names_file (`str` or `Path`, *optional*): Text file, one channel name a line. Default EEG000, EEG001, ...
        missing_images (`str`): `"error"` stops when an image file is absent, `"drop"` leaves its trials out.
        allow_partial (`bool`): Accept a corpus that is not simulated and whose counts differ from the release.
        overwrite (`bool`): Replace an existing `output_dir`.

    Returns:
        `Path`: The folder; recordings are float32 of shape (n_chans, window length), z or V.

    Raises:
        DataError: If a file is absent, damaged, another corpus, holds more than tensors and plain values, or
            contradicts itself or the published counts.
    """
    from neural_clip.corpora.prepared import write_prepared

    raw_dir = Path(raw_dir)
    standardize = _check_parameters(variant, window, length_range, standardize, missing_images)
    stamp = read_stamp(raw_dir)
    data = read_recordings(find_recordings(raw_dir, VARIANTS[variant]))
    facts = None if allow_partial else (stamp["counts"] if stamp else FACTS)
    defects = check_counts(data, facts, official=not stamp)
    split_of = read_splits(find_splits(raw_dir, splits_file), data, allow_partial)
    image_paths, absent = _find_images(data, Path(image_dir) if image_dir else raw_dir / IMAGE_DIR, missing_images)
    # the split indices are global: subjects and filters come after them, never before
    rows = _select(data, split_of, subjects, length_range, absent)
    if absent:
        defects.append(f"{len(absent)} images were absent; their trials are left out")
    scale = _fit_scale(data, rows, split_of, window, standardize, variant)
    readable = stamp["category_names"] if stamp else SYNSETS
    ch_names = _channel_names(data.n_chans, ch_names_file)
    if not stamp:
        _warn_about_block_design(variant)
    return write_prepared(
        output_dir,
        _metadata(data, variant, window, length_range, standardize, stamp, ch_names, defects),
        _recordings(data, rows, split_of, window, scale, readable),
        _images(data, rows, image_paths, readable),
        overwrite=overwrite,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `prepare`."""
    parser = argparse.ArgumentParser(prog="imagenet_eeg", description="Prepare ImageNetEEG from its released files.")
    parser.add_argument("--raw-dir", type=Path, required=True, help="folder with the .pth files of the release")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write")
    parser.add_argument("--variant", choices=sorted(VARIANTS), default="eeg_14_70_std", help="which .pth file to read")
    parser.add_argument("--window", type=int, nargs=2, default=(40, 480), metavar=("FIRST", "END"), help="samples")
    parser.add_argument("--length-range", type=int, nargs=2, metavar=("MIN", "MAX"), help="keep such lengths only")
    parser.add_argument("--standardize", choices=("train", "none"), help="default: train for raw, none for *_std")
    parser.add_argument("--subjects", nargs="+", help="such as sub-01 sub-04; default all")
    parser.add_argument("--image-dir", type=Path, help=f"ImageNet training images; default RAW_DIR/{IMAGE_DIR}")
    parser.add_argument("--splits-file", type=Path, help=f"default RAW_DIR/{SPLITS_FILE}")
    parser.add_argument("--ch-names-file", type=Path, help="text file with one channel name a line")
    parser.add_argument("--missing-images", choices=("error", "drop"), default="error")
    parser.add_argument("--allow-partial", action="store_true", help="accept counts that differ from the release")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output folder")
    arguments = vars(parser.parse_args(argv))
    arguments["window"] = tuple(arguments["window"])
    arguments["length_range"] = tuple(arguments["length_range"]) if arguments["length_range"] else None
    print(prepare(arguments.pop("raw_dir"), arguments.pop("output_dir"), **arguments))


def _check_parameters(variant, window, length_range, standardize, missing_images) -> str:
    """Refuse impossible parameters; return the standardization in effect."""
    if variant not in VARIANTS:
        names = ", ".join(f"'{name}'" for name in VARIANTS)
        raise DataError(f"Invalid value for the 'variant' parameter. Allowed values are {names}, but got '{variant}'.")
    if standardize is None:
        standardize = "train" if variant == "raw" else "none"
    for name, value, allowed in (
        ("standardize", standardize, ("train", "none")),
        ("missing_images", missing_images, ("error", "drop")),
    ):
        if value not in allowed:
            raise DataError(
                f"Invalid value for the '{name}' parameter. Allowed values are '{allowed[0]}' and '{allowed[1]}', "
                f"but got '{value}' instead."
            )
    for name, value in (("window", window), ("length_range", length_range)):
        if value is not None and not (len(value) == 2 and 0 <= value[0] < value[1]):
            raise DataError(
                f"Invalid value for the '{name}' parameter. Allowed values are two sample numbers, "
                f"0 <= first < second, but got {tuple(value)} instead."
            )
    return standardize


def _find_images(data: Trials, image_dir: Path, missing_images: str) -> tuple[list[Path], set[int]]:
    """Paths of all images, and the indices of those whose file is absent."""
    paths = [image_dir / name.rsplit("_", 1)[0] / f"{name}.JPEG" for name in data.images]
    absent = {i for i, path in enumerate(paths) if not path.is_file()}
    if absent:
        names = ", ".join(data.images[i] for i in sorted(absent))
        message = f"{len(absent)} of {len(paths)} ImageNet images are absent from '{image_dir}': {names}."
        if missing_images == "error" or len(absent) == len(paths):
            raise DataError(f"{message} Name their folder (--image-dir), or leave them out (--missing-images drop).")
        warnings.warn(message, stacklevel=3)
    return paths, absent


def _channel_names(n_chans: int, path: str | Path | None) -> list[str]:
    """EEG000, EEG001, ... or the lines of a text file."""
    if path is None:
        return [f"EEG{i:03d}" for i in range(n_chans)]
    names = Path(path).read_text(encoding="utf-8").split()
    if len(names) != n_chans or len(set(names)) != n_chans:
        raise DataError(f"'{path}' should name {n_chans} different channels, but has {len(set(names))}.")
    return names


def _select(data: Trials, split_of: dict[int, str], subjects, length_range, absent: set[int]) -> list[int]:
    """Trials of the asked-for subjects and lengths whose image is there, in the order of the file."""
    available = sorted({f"sub-{s:02d}" for s in data.subject.tolist()})
    wanted = list(subjects) if subjects is not None else available
    for subject in wanted:
        if subject not in available:
            raise DataError(
                f"Invalid value for the 'subjects' parameter. Allowed values are {', '.join(available)}, "
                f"but got '{subject}' instead."
            )
    low, high = length_range or (0, int(data.length.max()))
    rows = [
        i
        for i in sorted(split_of)
        if f"sub-{data.subject[i]:02d}" in wanted
        and low <= data.length[i] <= high
        and int(data.image[i]) not in absent
    ]
    if not rows:
        raise DataError(f"No trial of '{data.path}' is left: check the 'subjects' and 'length_range' parameters.")
    return rows


def _cut(data: Trials, i: int, window: tuple[int, int]) -> np.ndarray:
    """Window of one trial, float64 of shape (n_chans, window length)."""
    if data.length[i] < window[1]:
        raise DataError(
            f"Trial {i} of '{data.path}' has {data.length[i]} samples, fewer than the end of the 'window' "
            f"parameter, {window[1]}. Choose another window or drop such trials with the 'length_range' parameter."
        )
    return data.eeg[i][:, window[0] : window[1]].double().numpy()


def _fit_scale(data, rows, split_of, window, standardize, variant) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Per subject: what to subtract from and divide by each channel, both of shape (n_chans, 1)."""
    subjects = sorted({int(data.subject[i]) for i in rows})
    if standardize == "none":  # the raw file is in microvolts, prepared sets are in volts
        divisor = np.full((data.n_chans, 1), 1e6 if variant == "raw" else 1.0)
        return {subject: (np.zeros_like(divisor), divisor) for subject in subjects}
    scale = {}
    for subject in subjects:
        train = [i for i in rows if data.subject[i] == subject and split_of[i] == "train"]
        if not train:
            raise DataError(f"Subject {subject} of '{data.path}' has no training trial to fit its scaling on.")
        n = len(train) * (window[1] - window[0])
        mean = sum(_cut(data, i, window).sum(1, keepdims=True) for i in train) / n
        variance = sum(((_cut(data, i, window) - mean) ** 2).sum(1, keepdims=True) for i in train) / n
        scale[subject] = (mean, np.where(variance > 0, np.sqrt(variance), 1.0))
    return scale


def _concept(synset: str, readable: dict[str, str]) -> str:
    """Synset and readable name, "n02106662 German shepherd"."""
    return f"{synset} {readable[synset]}"


def _recordings(data, rows, split_of, window, scale, readable) -> Iterator[dict]:
    """Rows for `write_prepared`."""
    from tqdm import tqdm

    for i in tqdm(rows, desc="ImageNetEEG", unit="trial"):
        subject, synset = int(data.subject[i]), data.labels[data.label[i]]
        mean, divisor = scale[subject]
        yield {
            "subject": f"sub-{subject:02d}", "session": "ses-01", "run": "", "trial": i,
            "image_id": data.images[data.image[i]], "concept": _concept(synset, readable),
            "categories": [synset], "n_repeats": 1, "split": split_of[i],
            "eeg": ((_cut(data, i, window) - mean) / divisor).astype(np.float32),
        }  # fmt: skip


def _images(data, rows, image_paths, readable) -> Iterator[dict]:
    """Image rows for `write_prepared`, each image once."""
    for image in sorted({int(data.image[i]) for i in rows}):
        synset = data.images[image].rsplit("_", 1)[0]
        yield {
            "image_id": data.images[image], "image": image_paths[image],
            "concept": _concept(synset, readable), "categories": [synset],
        }  # fmt: skip


def _warn_about_block_design(variant: str) -> None:
    """Say what the numbers from this corpus mean."""
    message = "ImageNetEEG shows all images of a class in one block: decoders may read the block instead of the image."
    if variant in ("raw", "eeg_5_95_std"):
        message += f" The slow frequencies of '{variant}' carry most of this confound; 'eeg_14_70_std' carries less."
    warnings.warn(message, stacklevel=3)


def _metadata(data, variant, window, length_range, standardize, stamp, ch_names, defects) -> dict:
    """Everything that neural_clip.json tells and that is not counted while writing."""
    # only a simulation that says so is free of the confound: its trials follow each other in random order
    in_blocks = not (stamp and stamp.get("dials", {}).get("block_drift") == 0)
    as_is = "microvolts to volts" if variant == "raw" else "as released: standardised over an unstated scope"
    scopes = {
        "train": {"method": "z-score per subject and channel", "fit_scope": "train"},
        "none": {"method": as_is, "fit_scope": "none"},
    }
    return {
        "format_version": 1, "corpus": "imagenet_eeg", "modality": "eeg", "simulated": stamp,
        "ch_names": ch_names, "n_chans": data.n_chans, "n_times": window[1] - window[0], "sfreq": SFREQ,
        "tmin": window[0] / SFREQ, "unit": "V" if variant == "raw" and standardize == "none" else "z",
        "n_voxels": None, "roi": None, "split_protocol": "split 0 of block_splits_by_image_all, applied to all trials",
        "split_unit": "image", "scaling": scopes[standardize],
        "preprocessing": {
            "variant": variant, "window_samples": list(window), "standardize": standardize,
            "length_range": list(length_range) if length_range else None,
        },
        "category_level": False, "block_confounded": in_blocks, "average_repeats": False, "image_encoder": None,
        "licence": "Research use; ImageNet's terms of access hold for the images. "
        "The licence of the recordings could not be established.",
        "redistribution": "forbidden",
        "citation": "Spampinato et al. 2017, Deep Learning Human Mind for Automated Visual Classification, CVPR; "
        "Palazzo et al. 2020, Decoding Brain Representations by Multimodal Learning of Neural Activity and Visual "
        "Features, doi:10.1109/TPAMI.2020.2995909",
        "source": "https://github.com/perceivelab/eeg_visual_classification",
        "known_defects": [*(["block design: class and block coincide, see Li et al. 2021"] * in_blocks), *defects],
    }  # fmt: skip
