"""Simulated twin of THINGS-EEG2, written in the formats of the real corpus and of four preprocessed releases of it.

As in the real design, images follow each other every 0.2 s in sequences of 20, so that responses overlap. Two sessions
in a row show all training images, each half of the concepts, which differs between people; every session shows all
test images. Some images are shown once more than planned, and targets stand among them.

```
raw_data/sub-01/ses-01/raw_eeg_{training,test}.npy        recordings
image_set/{training_images,test_images}/, image_metadata.npy
preprocessed_data/, Preprocessed_data_250Hz/, Preprocessed_data_250Hz_whiten/, preprocessed_eeg/
                                                           as official, NICE, UBP and NeuroBridge have them
```
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neural_clip.corpora.things_eeg2.facts import ALL_CHANNELS, PARTS, POSTERIOR, SHORT, TARGET
from neural_clip.corpora.things_eeg2.whitening import epoch_covariance, inverse_root
from neural_clip.errors import check_value
from neural_clip.simulation.images import CONCEPTS, ImageSpec, render
from neural_clip.simulation.presets import ThingsEeg2Preset, TwinPreset
from neural_clip.simulation.things_images import EEG2_INDEX as CORPUS_INDEX
from neural_clip.simulation.things_images import ThingsImages, concept_of

SOA_S, SEQUENCE, PAUSE_S, LEAD_S = 0.2, 20, 2.2, 1.5  # s between onsets, images of a sequence, s between sequences
RESPONSE_S = 0.55  # simulated responses have died out by then
BASELINE_S = 0.2
SHUFFLE_SEED = 20200220  # of the published scripts


@dataclass(frozen=True)
class Stimulus:
    """An image: what it shows, its file, and its concept with the number among those of its part."""

    spec: ImageSpec
    file: str
    numbered: str


@dataclass(frozen=True)
class Epochs:
    """Epochs of a session by image and repeat, in V, at 1000 Hz from -0.2 to 1.0 s.

    Args:
        codes (`dict[str, np.ndarray]`): Of each part, the images in order.
        values (`dict[str, np.ndarray]`): Of each part, `(n_images, n_repeats, n_chans, n_times)` float32.
    """

    codes: dict[str, np.ndarray]
    values: dict[str, np.ndarray]


def write(raw_dir: str | Path, preset: TwinPreset, seed: int, *, releases: bool = True) -> None:
    """Write the simulated corpus.

    Args:
        raw_dir (`str` or `Path`): Folder to make.
        preset (`TwinPreset`): Sizes and dials; the part `things_eeg2` is used.
        seed (`int`): Equal seeds give equal bytes.
        releases (`bool`, *optional*, defaults to `True`): Also write what others preprocess of the recordings.

    Raises:
        DataError: If the preset asks for more concepts than there are, or for odd numbers of concepts or sessions.
    """
    from tqdm import tqdm

    from neural_clip.simulation.ceiling import compute
    from neural_clip.simulation.generative import SensorModel, simulated_stamp
    from neural_clip.simulation.latent_space import image_embeds, latents

    raw_dir, sizes = Path(raw_dir), preset.things_eeg2
    n_concepts, most = sizes.n_concepts + sizes.n_test_images, len(CONCEPTS)
    check_value("n_concepts", n_concepts, n_concepts <= most, f"up to {most}, those of test images included")
    for name in ("n_concepts", "n_sessions"):
        check_value(name, getattr(sizes, name), getattr(sizes, name) % 2 == 0, "an even number")
    raw_dir.mkdir(parents=True, exist_ok=True)
    stimuli = make_stimuli(ThingsImages(preset, seed))
    codes = {}
    for part in PARTS:
        pictures = [render(stimulus.spec, sizes.image_size) for stimulus in stimuli[part]]
        _write_images(raw_dir / "image_set" / f"{part}_images", stimuli[part], pictures)
        codes[part] = latents(image_embeds(np.stack(pictures)))
    _write_table(raw_dir / "image_set" / "image_metadata.npy", stimuli)
    model = SensorModel(sizes, seed)
    with tqdm(total=sizes.n_subjects * sizes.n_sessions, desc="simulated THINGS-EEG2", unit="session") as bar:
        for index in range(sizes.n_subjects):
            sessions = []
            for session in range(1, sizes.n_sessions + 1):
                sessions.append(_write_session(raw_dir, sizes, seed, index, session, model, codes))
                bar.update()
            if releases:
                _write_releases(raw_dir, f"sub-{sizes.subjects[index]:02d}", sessions, stimuli, sizes)
    stamp = simulated_stamp(preset, "things_eeg2", seed, compute("eeg", model, sizes, codes["test"], seed))
    (raw_dir / "SIMULATED.json").write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def make_stimuli(images: ThingsImages) -> dict[str, list[Stimulus]]:
    """All images of both parts in the order of their codes; concepts are in alphabetical order."""
    stimuli = {}
    for part, names in images.eeg2.items():
        concepts = dict.fromkeys(map(concept_of, names))
        numbered = {concept: f"{number:05d}_{concept}" for number, concept in enumerate(concepts, 1)}
        stimuli[part] = [Stimulus(images.spec(name), f"{name}.jpg", numbered[concept_of(name)]) for name in names]
    return stimuli


def _write_images(folder: Path, stimuli: Sequence[Stimulus], pictures: Sequence[np.ndarray]) -> None:
    """Folders of concepts with JPEG files."""
    from PIL import Image

    for stimulus, picture in zip(stimuli, pictures, strict=True):
        path = folder / stimulus.numbered / stimulus.file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, quality=95, subsampling=0)


def _write_table(path: Path, stimuli: dict[str, list[Stimulus]]) -> None:
    """`image_metadata.npy`: what each code stands for."""
    everything = sorted({stimulus.numbered[6:] for part in PARTS for stimulus in stimuli[part]})
    of_things = {concept: f"{number:05d}_{concept}" for number, concept in enumerate(everything, 1)}
    table = {}
    for part, own in stimuli.items():
        key = SHORT[part]
        table[f"{key}_img_concepts"] = [stimulus.numbered for stimulus in own]
        table[f"{key}_img_concepts_THINGS"] = [of_things[stimulus.numbered[6:]] for stimulus in own]
        table[f"{key}_img_files"] = [stimulus.file for stimulus in own]
    _save_object(path, table)


def _save_object(path: Path, content: dict) -> None:
    """A dict as `np.save` pickles it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.save(file, content, allow_pickle=True)  # type: ignore[arg-type]


def shown_codes(sizes: ThingsEeg2Preset, part: str, session: int, halves: np.ndarray, rng: np.random.Generator):
    """Codes of a part of a session in order of presentation: images, some once more, and targets."""
    if part == "test":
        codes = np.arange(1, sizes.n_test_images + 1)
    else:
        concepts = halves[(session - 1) // 2, (session - 1) % 2]
        codes = (concepts[:, None] * sizes.images_per_concept + np.arange(sizes.images_per_concept) + 1).ravel()
    repeats, counts = sizes.repeats(part), sizes.session(part)
    surplus = rng.choice(codes, counts["images shown"] - len(codes) * repeats, replace=False)
    return rng.permutation(np.concatenate([np.tile(codes, repeats), surplus, np.full(counts["targets"], TARGET)]))


def _halves(sizes: ThingsEeg2Preset, seed: int, index: int) -> np.ndarray:
    """Concepts of each session of a subject, `(n_sessions / 2, 2, n_concepts / 2)`."""
    rng = np.random.default_rng([seed, CORPUS_INDEX, index])
    pairs = [rng.permutation(sizes.n_concepts).reshape(2, -1) for _ in range(sizes.n_sessions // 2)]
    return np.sort(np.array(pairs), axis=2)


def _write_session(
    raw_dir: Path, sizes: ThingsEeg2Preset, seed: int, index: int, session: int, model, latents: dict
) -> Epochs:
    """Record both parts of a session, write them, and cut their epochs."""
    halves, codes, values = _halves(sizes, seed, index), {}, {}
    for number, part in enumerate(PARTS):
        rng = np.random.default_rng([seed, CORPUS_INDEX, index, session, number])
        shown = shown_codes(sizes, part, session, halves, rng)
        runs = np.array_split(shown, sizes.n_train_runs if part == "training" else 1)
        recorded = [_run(sizes, run, latents[part], model, index, rng) for run in runs]
        samples, start = [], 0
        for data, onsets in recorded:
            samples.append(onsets + start)
            start += data.shape[1]
        data, onsets = np.concatenate([data for data, _ in recorded], axis=1), np.concatenate(samples)
        stim = np.zeros(data.shape[1])
        stim[onsets] = shown
        volts = data.astype(np.float64) * 1e-6
        content = {
            "raw_eeg_data": np.concatenate([volts, stim[None]]),
            "ch_names": [*sizes.ch_names, "stim"], "ch_types": ["eeg"] * sizes.n_chans + ["stim"],
            "sfreq": int(sizes.sfreq), "highpass": 0.01, "lowpass": 100,
        }  # fmt: skip
        folder = raw_dir / "raw_data" / f"sub-{sizes.subjects[index]:02d}" / f"ses-{session:02d}"
        _save_object(folder / f"raw_eeg_{part}.npy", content)
        codes[part], values[part] = _epochs(volts, onsets, shown, sizes.repeats(part), sizes.sfreq)
    return Epochs(codes, values)


def _run(
    sizes: ThingsEeg2Preset, shown: np.ndarray, latents: np.ndarray, model, index: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A piece of recording, `(n_chans, n_times)` float32 in microvolts, and the samples of its onsets."""
    order = np.arange(len(shown))
    seconds = LEAD_S + order * SOA_S + (order // SEQUENCE) * PAUSE_S
    onsets = np.round(seconds * sizes.sfreq).astype(int)
    reach = round(RESPONSE_S * sizes.sfreq)
    data = model.noise(index, onsets[-1] + round(LEAD_S * sizes.sfreq), rng)
    seen = shown != TARGET
    signal, _ = model.signal(index, latents[shown[seen] - 1], rng, tmin=0.0, n_times=reach)
    for onset, response in zip(onsets[seen], signal, strict=True):
        data[:, onset : onset + reach] += response
    return data, onsets


def _epochs(
    data: np.ndarray, onsets: np.ndarray, shown: np.ndarray, repeats: int, sfreq: float
) -> tuple[np.ndarray, np.ndarray]:
    """Codes in order, and epochs of the first repeats of each, minus the mean before onset."""
    before, after = round(BASELINE_S * sfreq), round(sfreq)
    codes = np.unique(shown[shown != TARGET])
    values = np.empty((len(codes), repeats, len(data), before + after + 1), np.float32)
    for row, code in enumerate(codes):
        for repeat, onset in enumerate(onsets[shown == code][:repeats]):
            epoch = data[:, onset - before : onset + after + 1]
            values[row, repeat] = epoch - epoch[:, : before + 1].mean(axis=1, keepdims=True)
    return codes, values


def _whitened(session: Epochs, chosen: list[int], n_times: int, kept: int, parts: Sequence[str]) -> dict:
    """Epochs of some channels at a lower rate, whitened by the epochs of some parts.

    Args:
        session (`Epochs`): At 1000 Hz.
        chosen (`list[int]`): Channels.
        n_times (`int`): Samples of the epoch at the lower rate, of which the last `kept` are taken.
        parts (`Sequence[str]`): Whose covariances are averaged.
    """
    from scipy.signal import resample

    values = {part: session.values[part][:, :, chosen] for part in PARTS}
    if n_times == 100:  # the official release ends at 0.8 s
        values = {part: own[..., : own.shape[-1] - 200] for part, own in values.items()}
    values = {part: resample(own.astype(np.float64), n_times, axis=-1)[..., -kept:] for part, own in values.items()}
    covariances = [
        np.mean([epoch_covariance(epoch) for epoch in values[part].reshape(-1, len(chosen), kept)], axis=0)
        for part in parts
    ]
    matrix = inverse_root(np.mean(covariances, axis=0), "a simulated session")
    return {part: matrix @ own for part, own in values.items()}


def _merged(sessions: Sequence[Epochs], values: Sequence[dict], n_images: int) -> tuple[dict, dict]:
    """All repeats of each image over sessions, and the session of each, counted from 0."""
    merged, numbers = {}, {}
    merged["test"] = np.concatenate([own["test"] for own in values], axis=1)
    repeats = [np.full(own["test"].shape[:2], float(number)) for number, own in enumerate(values)]
    numbers["test"] = np.concatenate(repeats, axis=1)
    of_image: list[list] = [[] for _ in range(n_images)]
    for number, (session, own) in enumerate(zip(sessions, values, strict=True)):
        for code, epochs in zip(session.codes["training"], own["training"], strict=True):
            of_image[code - 1] += [(epoch, float(number)) for epoch in epochs]
    merged["training"] = np.array([[epoch for epoch, _ in own] for own in of_image])
    numbers["training"] = np.array([[number for _, number in own] for own in of_image])
    return merged, numbers


def _write_releases(
    raw_dir: Path, subject: str, sessions: Sequence[Epochs], stimuli: dict, sizes: ThingsEeg2Preset
) -> None:
    """What others preprocess of the sessions of a subject, in their containers."""
    n_images = sizes.n_images("training")
    posterior = [sizes.ch_names.index(name) for name in POSTERIOR]
    everywhere = [sizes.ch_names.index(name) for name in ALL_CHANNELS]
    official = [_whitened(session, posterior, 100, 100, PARTS) for session in sessions]
    merged, _ = _merged(sessions, official, n_images)
    times = -BASELINE_S + np.arange(100) / 100
    folder = raw_dir / "preprocessed_data" / subject
    for part in PARTS:
        content = {"preprocessed_eeg_data": _shuffled(merged[part]), "ch_names": POSTERIOR, "times": times}
        _save_object(folder / f"preprocessed_eeg_{part}.npy", content)
    fine = [_whitened(session, everywhere, 300, 250, PARTS[:1]) for session in sessions]
    merged, numbers = _merged(sessions, fine, n_images)
    times = -BASELINE_S + np.arange(300) / 250
    for part in PARTS:
        content = {"preprocessed_eeg_data": _shuffled(merged[part]), "ch_names": ALL_CHANNELS, "times": times}
        path = raw_dir / "Preprocessed_data_250Hz" / subject / f"preprocessed_eeg_{part}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:  # named .npy, but a pickle by itself
            pickle.dump(content, file, protocol=4)
    _write_ubp(raw_dir / "Preprocessed_data_250Hz_whiten" / subject, merged, numbers, stimuli, sizes, times)
    _write_neurobridge(raw_dir / "preprocessed_eeg", subject, merged, sizes, times)


def _shuffled(values: np.ndarray) -> np.ndarray:
    """Repeats in another order, the same for all images."""
    return values[:, np.random.default_rng(SHUFFLE_SEED).permutation(values.shape[1])]


def _write_ubp(folder: Path, merged: dict, numbers: dict, stimuli: dict, sizes: ThingsEeg2Preset, times) -> None:
    """`train.pt` and `test.pt`, arrays of NumPy in half precision."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    for part, name in SHORT.items():
        own, n_repeats = stimuli[part], merged[part].shape[1]
        columns = {
            "label": np.arange(len(own)) // sizes.n_exemplars(part),
            "img": np.array([f"{name}_images/{stimulus.numbered}/{stimulus.file}" for stimulus in own]),
            "text": np.array([stimulus.numbered[6:] for stimulus in own]),
        }
        tables = {key: np.tile(column[:, None], (1, n_repeats)) for key, column in columns.items()}
        content = {"eeg": merged[part].astype(np.float16)} | tables
        content |= {"session": numbers[part], "ch_names": list(ALL_CHANNELS), "times": times}
        with (folder / f"{name}.pt").open("wb") as file:  # given a name, torch would store it inside
            torch.save(content, file, pickle_protocol=5)


def _write_neurobridge(folder: Path, subject: str, merged: dict, sizes: ThingsEeg2Preset, times: np.ndarray) -> None:
    """`train.npy` and `test.npy`, images in two dimensions, and `info.json` beside the subjects."""
    (folder / subject).mkdir(parents=True, exist_ok=True)
    for part, name in SHORT.items():
        values = merged[part].astype(np.float32)
        np.save(folder / subject / f"{name}.npy", values.reshape(-1, sizes.n_exemplars(part), *values.shape[1:]))
    info = {
        "ch_names": ALL_CHANNELS, "times": times.tolist(), "baseline_duration": 0.2, "after_duration": 1.0,
        "normalization": "mvnn", "sfreq": 250.0, "precision": "fp32", "seed": SHUFFLE_SEED,
    }  # fmt: skip
    (folder / "info.json").write_text(json.dumps(info, indent=4), encoding="utf-8")
