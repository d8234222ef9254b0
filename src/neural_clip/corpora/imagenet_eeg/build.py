"""ImageNetEEG (Spampinato et al. 2017, Palazzo et al. 2020): from the released `.pth` files to a prepared data set.

The corpus: six subjects, 40 ImageNet classes, 1,996 images, 128 channels at 1 kHz, 0.5 s an image, released at
https://github.com/perceivelab/eeg_visual_classification. All images of a class were shown in one block, so class and
block coincide: a decoder may read the block instead of the image (Li et al. 2021, doi:10.1109/TPAMI.2020.2973153), and
every prepared set is stamped `block_confounded`, unless it is a simulation without blocks.

Facts that the release leaves open and this module therefore does not assert: how the `_std` files were standardised
and the `means` and `stddevs` of the raw file computed (possibly over all trials, the test trials among them), the
order of channels 40 to 128, the origin of the count 11,466 in early papers. The upstream README tells 11,964 trials;
the files hold 11,965. How the values are made is told in `signals.py`, what damage is noticed in `layout.py`, and
where images may lie in `images.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neural_clip.corpora.declared import check_facts
from neural_clip.corpora.image_parts import image_parts
from neural_clip.corpora.imagenet_eeg.about import MISSING_IMAGES_FILE, describe
from neural_clip.corpora.imagenet_eeg.images import ImageFile, find_images
from neural_clip.corpora.imagenet_eeg.layout import (
    SPLIT_FACTS,
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
from neural_clip.corpora.imagenet_eeg.options import RAW_FILE, SPLITS_FILE, VARIANTS, ImageNetEegOptions
from neural_clip.corpora.imagenet_eeg.signals import MICRO, Signals, check_filters, fit_scale, released_scale
from neural_clip.corpora.stamp import read_stamp
from neural_clip.errors import DataError, check_option
from neural_clip.files.names import plain_name
from neural_clip.files.reading import read_text
from neural_clip.files.whole import write_whole
from neural_clip.parallel import n_processes
from neural_clip.preparation import Statistics
from neural_clip.prepared.parts import Part
from neural_clip.prepared.units import check_unit
from neural_clip.prepared.writer import check_output, write_prepared

TRIALS_CHECKED = 50  # of each subject, for their unit


def prepare(
    raw_dir: str | Path, output_dir: str | Path, options: ImageNetEegOptions | None = None, **changes: Any
) -> Path:
    """Turn a local copy of ImageNetEEG into a prepared data set folder.

    Args:
        raw_dir (`str` or `Path`): Folder with the `.pth` files of the release.
        output_dir (`str` or `Path`): Folder to write.
        options (`ImageNetEegOptions`, *optional*): What to prepare, and how.
        **changes: Options by name, in place of those of `options`.

    Returns:
        `Path`: The folder; recordings are float32 of shape (n_chans, window length), z or V.

    Raises:
        DataError: If a file is absent, damaged, another corpus, holds more than tensors and plain values, or
            contradicts itself or the published counts.
    """
    options = replace(options or ImageNetEegOptions(), **changes)
    check_output(output_dir, [raw_dir, *options.places], options.overwrite)
    check_filters(options.variant, options.band_pass, options.notch)
    raw_dir, output_dir = Path(raw_dir), Path(output_dir)
    stamp = read_stamp(raw_dir)
    forget_recordings()  # what a call that failed may have left
    release = _open(raw_dir, stamp, options)
    # the split indices are global: subjects and filters come after them, never before
    rows = _select(release, options)
    place = Path(options.image_dir) if options.image_dir else raw_dir
    files, absent = _find_images(release.data, rows, place, options.missing_images, output_dir)
    rows = [i for i in rows if release.data.images[release.data.image[i]] not in absent]
    released = released_scale(release.data) if options.standardization == "released" else None
    signals = Signals(options.window, options.band_pass, options.notch, released)
    _check_rows(release, rows, signals, options.standardization)
    about = _about(release, rows, signals, stamp, absent, options)
    readable = readable_names(release.data, raw_dir, stamp)
    recordings = _recording_parts(release, rows, signals, options.standardization, readable)
    listed = [(name, files[name]) for name in (release.data.images[i] for i in np.unique(release.data.image[rows]))]
    images = image_parts(
        listed, partial(_image_rows, readable=readable), lambda some: sorted({file.path for _, file in some})
    )
    if n_processes(options.num_proc) > 1:  # an old file is not mapped: each process holds it for itself
        del release
        forget_recordings()
    if not stamp:
        _warn_about_block_design(options.variant)
    try:
        return write_prepared(
            output_dir, about, recordings, images, overwrite=options.overwrite, num_proc=options.num_proc,
            made_from=raw_dir,
            extra_files={MISSING_IMAGES_FILE: _listed(absent)} if absent else None,
        )  # fmt: skip
    finally:
        forget_recordings()


@dataclass(frozen=True)
class _Release:
    """What was found: trials, the file of splits and the split of each trial, declared facts and how it differs."""

    data: Trials
    splits_path: Path
    split_of: dict[int, str]
    declared: dict
    lacking: dict


def _open(raw_dir: Path, stamp: dict | None, options: ImageNetEegOptions) -> _Release:
    """Read recordings and splits, and compare their counts with the declared ones."""
    declared, partial = declared_facts(raw_dir, stamp), options.allow_partial
    data = opened_recordings(find_recordings(raw_dir, VARIANTS[options.variant]))
    lacking = check_facts(data.path, declared, found_facts(data), allow_partial=partial) or {}
    splits_path = find_splits(raw_dir, options.splits_file)
    split_of = read_splits(splits_path, data, partial)
    if stamp is None and splits_path.name == SPLITS_FILE:
        declared |= SPLIT_FACTS
        lacking |= check_facts(splits_path, SPLIT_FACTS, split_sizes(split_of), allow_partial=partial) or {}
    if len(split_of) < len(data.eeg):
        lacking["trials_in_splits"] = {"found": len(split_of), "declared": len(data.eeg)}
    return _Release(data, splits_path, split_of, declared, lacking)


def _about(
    release: _Release, rows: Sequence[int], signals: Signals, stamp: dict | None, absent: Sequence[str],
    options: ImageNetEegOptions,
) -> dict:  # fmt: skip
    """Facts of `neural_clip.json`."""
    data = release.data
    about = describe(data, rows, release.split_of, signals, options.standardization, stamp, release.lacking, absent)
    about["preprocessing"] |= {
        "variant": options.variant, "length_range": list(options.length_range) if options.length_range else None,
        "missing_images": options.missing_images,
    }  # fmt: skip
    return about | {
        "declared": release.declared, "partial": release.lacking or None, "subjects": _subjects_of(data, rows),
        "ch_names": _channel_names(data.n_chans, options.ch_names_file),
        "split_protocol": f"split 0 of {release.splits_path.stem}, applied to all trials",
    }  # fmt: skip


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
            write_whole(listing, _listed(absent))
            raise DataError(
                f"{message} All are listed in '{listing}'. Name their folder or archive (--images-dir), or leave "
                "their trials out (--missing-images drop)."
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
    lines = read_text(Path(path), "list of channel names").splitlines()
    names = [name for line in lines if (name := plain_name(line))]
    if len(names) != n_chans or len(set(names)) != n_chans:
        raise DataError(f"'{path}' should name {n_chans} different channels, but has {len(set(names))}.")
    return names


def _subjects_of(data: Trials, rows: Sequence[int]) -> list[str]:
    """Subjects of trials by name."""
    return [f"sub-{subject:02d}" for subject in np.unique(data.subject[rows])]


def _select(release: _Release, options: ImageNetEegOptions) -> list[int]:
    """Trials of the asked-for subjects and lengths, in the order of the file."""
    data = release.data
    available = _subjects_of(data, range(len(data.eeg)))
    wanted = list(options.subjects) if options.subjects is not None else available
    for subject in wanted:
        check_option("subjects", subject, available)
    low, high = options.length_range or (0, int(data.length.max()))
    rows = [
        i for i in sorted(release.split_of)
        if f"sub-{data.subject[i]:02d}" in wanted and low <= data.length[i] <= high
    ]  # fmt: skip
    if not rows:
        raise DataError(f"No trial of '{data.path}' is left: check the 'subjects' and 'length_range' parameters.")
    return rows


def _check_rows(release: _Release, rows: Sequence[int], signals: Signals, standardize: str) -> None:
    """Refuse before anything is written what cannot be cut or scaled."""
    data = release.data
    signals.check_length(data, rows)
    fitted = {int(data.subject[i]) for i in rows if release.split_of[i] == "train"}
    for subject in np.unique(data.subject[rows]).tolist():
        if standardize == "train" and subject not in fitted:
            raise DataError(f"Subject {subject} of '{data.path}' has no training trial to fit its scaling on.")


def _concept(synset: str, readable: dict[str, str]) -> str:
    """Synset and readable name, "n02106662 German shepherd"."""
    return f"{synset} {readable[synset]}"


def _recording_parts(
    release: _Release, rows: Sequence[int], signals: Signals, standardize: str, readable: dict[str, str]
) -> list[Part]:
    """One part for each subject, in the order of the file; each opens the file for itself."""
    data, parts = release.data, []
    for subject in dict.fromkeys(data.subject[rows].tolist()):
        trials = [(i, release.split_of[i]) for i in rows if data.subject[i] == subject]
        make = partial(_recording_rows, data.path, trials, signals, standardize, readable)
        parts.append(Part(f"sub-{subject:02d}", make, (data.path, release.splits_path), len(trials)))
    return parts


def _recording_rows(
    path: Path, trials: Sequence[tuple[int, str]], signals: Signals, standardize: str, readable: dict[str, str]
) -> Iterator[dict | Statistics]:
    """Rows of one subject for `write_prepared`, scaled by the subject's own training trials if so asked.

    Of the raw file, whose values are in microvolts, the statistics come first, in volts.
    """
    data = opened_recordings(path)
    _check_unit(data, [i for i, _ in trials], signals)
    mean, divisor = np.zeros((data.n_chans, 1)), np.ones((data.n_chans, 1))
    if standardize == "train":
        mean, divisor = fit_scale(data, [i for i, split in trials if split == "train"], signals)
    elif standardize == "none" and path.name == RAW_FILE:
        divisor = np.full((data.n_chans, 1), MICRO)  # prepared sets are in volts
    if path.name == RAW_FILE and standardize != "none":
        centre, spread = signals.applied_scale or (mean, divisor)
        yield Statistics(f"sub-{data.subject[trials[0][0]]:02d}", "", centre / MICRO, spread / MICRO)
    for i, split in trials:
        synset = data.labels[data.label[i]]
        yield {
            "subject": f"sub-{data.subject[i]:02d}", "session": "ses-01", "run": "", "trial": i,
            "image_id": data.images[data.image[i]], "concept": _concept(synset, readable),
            "categories": [synset], "n_repeats": 1, "split": split,
            "eeg": ((signals.cut(data, i) - mean) / divisor).astype(np.float32),
        }  # fmt: skip


def _check_unit(data: Trials, trials: Sequence[int], signals: Signals) -> None:
    """Refuse values of a subject that are neither in microvolts (raw) nor standardised (the others)."""
    some = trials[:: max(len(trials) // TRIALS_CHECKED, 1)]
    raw = data.path.name == RAW_FILE and signals.released is None
    values = np.stack([signals.cut(data, i) for i in some]) * (1e-6 if raw else 1.0)
    check_unit(
        values, "V" if raw else "z", f"'{data.path}', subject {data.subject[some[0]]}", None,
        " Get the file of the release again.",
    )  # fmt: skip


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
