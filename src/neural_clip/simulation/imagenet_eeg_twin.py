"""Simulated ImageNetEEG: the known generative model in the files of the real release.

Written are the raw recordings, band-passed and standardised variants, the splits, the ImageNet folder of (procedural)
images, and SIMULATED.json. Category k of the procedural images poses as the k-th synset. The release leaves open how
its `_std` files were standardised; here each subject's channels are z-scored over all of the subject's trials.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neural_clip.errors import check_value
from neural_clip.simulation.presets import DEMO_SIZED, EegPreset, TwinPreset

# The real label list is not sorted and begins with these five; the order of the others is arbitrary but fixed here.
_SYNSETS = (
    "n02389026", "n03888257", "n03584829", "n02607072", "n03297495", "n03063599", "n03792782", "n04086273",
    "n02510455", "n11939491", "n02951358", "n02281787", "n03773504", "n02106662", "n07873807", "n03445777",
    "n03100240", "n03180011", "n02504458", "n03272562", "n07753592", "n03452741", "n02492035", "n03775071",
    "n02690373", "n04120489", "n03272010", "n03709823", "n03877472", "n04069434", "n03982430", "n02124075",
    "n04044716", "n03590841", "n02992529", "n03792972", "n03376595", "n13054560", "n02906734", "n03197337",
)  # fmt: skip
_BANDS = {"eeg_5_95_std": (5, 95), "eeg_14_70_std": (14, 70), "eeg_55_95_std": (55, 95)}  # Hz
_DEMO_BANDS = ("eeg_14_70_std",)  # the default of `prepare`; the others would triple the demo's time and disk
_FILTER_ORDER = 4
_N_FOLDS = 6
_JPEG = {"quality": 95, "subsampling": 0}
_IMAGE_DIR = "ILSVRC/Data/CLS-LOC/train"


@dataclass(frozen=True)
class _Images:
    """Names, classes and latents of all images, in the order of the `images` list of the files."""

    names: list[str]
    labels: np.ndarray
    latents: np.ndarray
    synsets: list[str]
    category_names: dict[str, str]


def write(raw_dir: str | Path, preset: TwinPreset, seed: int) -> None:
    """Write a simulated ImageNetEEG corpus.

    Args:
        raw_dir (`str` or `Path`): Folder to fill; made if it does not exist.
        preset (`TwinPreset`): Sizes and dials; its `eeg` part counts. The demo's size has one of the three bands.
        seed (`int`): Same seed, same bytes.

    Raises:
        DataError: If the preset asks for more than 40 classes.

    The files hold microvolts (raw) or z-scores, float32 of shape (n_chans, length), lengths differing by trial. Two
    variants are in memory at a time, 6 GB for the full preset.
    """
    from neural_clip.simulation import ceiling
    from neural_clip.simulation.generative import SensorModel, simulated_stamp

    raw_dir, sizes = Path(raw_dir), preset.eeg
    check_value("n_classes", sizes.n_classes, sizes.n_classes <= len(_SYNSETS), f"up to {len(_SYNSETS)}")
    raw_dir.mkdir(parents=True, exist_ok=True)
    images = _write_images(raw_dir / _IMAGE_DIR, sizes, seed)
    trials = _plan(images, sizes, seed)
    folds = _folds(images, sizes, seed)
    _write_splits(raw_dir / "block_splits_by_image_all.pth", trials, folds)

    model = SensorModel(sizes, seed)
    recordings, blocks = _record(model, images, trials, sizes, seed)
    path = raw_dir / "eeg_signals_raw_with_mean_std.pth"
    _write_recordings(path, recordings, trials, images, sizes.subjects, standardize=False)
    for name in _DEMO_BANDS if preset.name in DEMO_SIZED else _BANDS:
        passed = _band_pass(recordings, blocks, _BANDS[name], sizes.sfreq)
        _write_recordings(raw_dir / f"{name}.pth", passed, trials, images, sizes.subjects, standardize=True)

    test = images.latents[folds[0]["test"]]
    stamp = simulated_stamp(
        preset, "eeg", seed, ceiling.compute("eeg", model, sizes, test, seed),
        counts={
            "trials": len(trials), "images": len(images.names), "classes": sizes.n_classes,
            "subjects": sizes.n_subjects, "n_chans": sizes.n_chans,
        },
        category_names=images.category_names,
    )  # fmt: skip
    (raw_dir / "SIMULATED.json").write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _write_images(folder: Path, sizes: EegPreset, seed: int) -> _Images:
    """Draw, write and embed the images; what was compressed is what is embedded."""
    from PIL import Image

    from neural_clip.simulation.images import CATEGORIES, render, sample_specs
    from neural_clip.simulation.latent_space import image_embeds, latents

    rng = np.random.default_rng([seed, 100])
    synsets = list(_SYNSETS[: sizes.n_classes])
    rows = []
    for label, synset in enumerate(synsets):
        # ILSVRC numbers its files up to about 32,000 within a synset
        numbers = rng.choice(np.arange(1, 32000), sizes.images_per_class, replace=False)
        specs = sample_specs(sizes.images_per_class, rng, category=label)
        rows += [(f"{synset}_{number}", label, spec) for number, spec in zip(numbers, specs, strict=True)]
    rows = [rows[i] for i in rng.permutation(len(rows))[: sizes.n_images]]
    pixels = []
    for name, label, spec in rows:
        buffer = io.BytesIO()
        Image.fromarray(render(spec, sizes.image_size)).save(buffer, "JPEG", **_JPEG)
        path = folder / synsets[label] / f"{name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
        pixels.append(np.asarray(Image.open(buffer).convert("RGB")))
    return _Images(
        names=[name for name, _, _ in rows],
        labels=np.array([label for _, label, _ in rows]),
        latents=latents(image_embeds(pixels)),
        synsets=synsets,
        category_names={synset: CATEGORIES[label] for label, synset in enumerate(synsets)},
    )


def _plan(images: _Images, sizes: EegPreset, seed: int) -> np.ndarray:
    """Trials of the files in their order: (subject index, image, length in samples), grouped by subject."""
    rng = np.random.default_rng([seed, 0])
    n_images = len(images.names)
    order = np.roll(np.arange(sizes.n_subjects), -sizes.n_subjects // 2)  # the real file begins with subject 4 of 6
    subject = np.repeat(order, n_images)
    image = np.tile(np.arange(n_images), sizes.n_subjects)
    low, high = sizes.n_times_range
    length = rng.integers(low, high + 1, len(subject))
    kept = np.sort(rng.permutation(len(subject))[: len(subject) - sizes.n_missing_trials])
    return np.stack([subject, image, length], axis=1)[kept]


def _record(
    model, images: _Images, trials: np.ndarray, sizes: EegPreset, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Recordings of all trials in the order of `trials`, microvolts, and the rows of each block as they were shown."""
    recordings: list[np.ndarray] = [np.empty(0)] * len(trials)
    blocks = []
    for subject in range(sizes.n_subjects):
        rng = np.random.default_rng([seed, 0, subject])
        order = rng.permutation(np.flatnonzero(trials[:, 0] == subject))
        if model.dials.block_drift > 0:  # the block design of the real corpus, with its confound
            labels = images.labels[trials[order, 1]]
            groups = [order[labels == label] for label in rng.permutation(sizes.n_classes)]
        else:  # random order: a noise level that wanders over minutes must not tell the class
            groups = np.array_split(order, sizes.n_classes)
        for block, rows in enumerate(groups):
            if rows.size == 0:
                continue
            rng = np.random.default_rng([seed, 0, subject, 1, block])
            for row, recording in zip(rows, _block(model, subject, images, trials[rows], rng), strict=True):
                recordings[row] = recording
            blocks.append(rows)
    return recordings, blocks


def _block(model, subject: int, images: _Images, trials: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """One block of trials: continuous noise, responses added at the onsets, cut at the onsets."""
    longest = int(trials[:, 2].max())
    noise = model.noise(subject, int(trials[:, 2].sum()), rng)  # (n_chans, n_samples)
    signal, _ = model.signal(subject, images.latents[trials[:, 1]], rng, tmin=0.0, n_times=longest)
    if model.dials.block_drift > 0:
        signal = signal + model.block_drift(subject, len(trials), longest, rng)
    parts = np.split(noise, np.cumsum(trials[:-1, 2]), axis=1)
    return [part + own[:, : part.shape[1]] for part, own in zip(parts, signal, strict=True)]


def _band_pass(recordings: list[np.ndarray], blocks: list[np.ndarray], band, sfreq: float) -> list[np.ndarray]:
    """Band-pass whole blocks, as filtering single trials would put the filter's edges into each of them."""
    from scipy.signal import butter, sosfiltfilt

    sos = butter(_FILTER_ORDER, band, "bandpass", fs=sfreq, output="sos")
    passed: list[np.ndarray] = [np.empty(0)] * len(recordings)
    for rows in blocks:
        lengths = [recordings[row].shape[1] for row in rows]
        block = sosfiltfilt(sos, np.concatenate([recordings[row] for row in rows], axis=1)).astype(np.float32)
        for row, part in zip(rows, np.split(block, np.cumsum(lengths[:-1]), axis=1), strict=True):
            passed[row] = np.ascontiguousarray(part)
    return passed


def _moments(recordings: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over all samples, both (n_chans, 1) float32."""
    count = sum(x.shape[1] for x in recordings)
    mean = sum(x.sum(1, keepdims=True, dtype=np.float64) for x in recordings) / count
    square = sum((x.astype(np.float64) ** 2).sum(1, keepdims=True) for x in recordings) / count
    return mean.astype(np.float32), np.sqrt(square - mean**2).astype(np.float32)


def _write_recordings(
    path: Path, recordings: list[np.ndarray], trials: np.ndarray, images: _Images, subjects, standardize: bool
) -> None:
    """One `.pth` file of the release; `subjects` are the numbers that stand for the subject indices of `trials`."""
    import torch

    content: dict = {"labels": images.synsets, "images": images.names}
    if standardize:
        for subject in np.unique(trials[:, 0]):
            rows = np.flatnonzero(trials[:, 0] == subject)
            mean, std = _moments([recordings[row] for row in rows])
            for row in rows:
                recordings[row] = (recordings[row] - mean) / std
    else:
        means, stddevs = _moments(recordings)
        content |= {"means": torch.from_numpy(means), "stddevs": torch.from_numpy(stddevs)}
    dataset = [
        {
            "eeg": torch.from_numpy(recordings[i]), "image": int(trials[i, 1]),
            "label": int(images.labels[trials[i, 1]]), "subject": subjects[trials[i, 0]],
        }
        for i in range(len(trials))
    ]  # fmt: skip
    with path.open("wb") as file:  # given a name, torch would store it inside
        torch.save({"dataset": dataset, **content}, file)


def _folds(images: _Images, sizes: EegPreset, seed: int) -> list[dict[str, np.ndarray]]:
    """Six splits of the images, each class divided in the same shares; the folds rotate through the images."""
    rng = np.random.default_rng([seed, 0, 999])
    of_class = [rng.permutation(np.flatnonzero(images.labels == label)) for label in range(sizes.n_classes)]
    folds = []
    for fold in range(_N_FOLDS):
        parts: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
        for members in of_class:
            n = len(members)
            n_val = max(1, round(n * sizes.validation_share))
            n_test = max(1, round(n * (1 - sizes.train_share - sizes.validation_share)))
            rolled = np.roll(members, -fold * n // _N_FOLDS)
            for name, part in zip(("val", "test", "train"), np.split(rolled, [n_val, n_val + n_test]), strict=True):
                parts[name].append(part)
        folds.append({name: np.sort(np.concatenate(part)) for name, part in parts.items()})
    return folds


def _write_splits(path: Path, trials: np.ndarray, folds: list[dict[str, np.ndarray]]) -> None:
    """`block_splits_by_image_all.pth`: trial numbers, counted over the whole file."""
    import torch

    splits = [
        {name: np.flatnonzero(np.isin(trials[:, 1], images)).tolist() for name, images in fold.items()}
        for fold in folds
    ]
    with path.open("wb") as file:
        torch.save({"splits": splits}, file)
