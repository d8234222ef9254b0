"""Small prepared data sets of several corpora with a planted linear signal: channels, rates and windows differ."""

import numpy as np

from neural_clip.prepared.writer import write_prepared
from neural_clip.simulation.images import render, sample_specs

WIDTH = 16
ENCODER = {"name": "planted", "revision": "0", "pooling": "precomputed"}
COUNTS = {"train": 40, "validation": 12, "test": 16}
# One reads 6 channels at 200 Hz from before onset, the other 4 of other names at 100 Hz; Pz and Oz are common.
FIRST = {"corpus": "first", "ch_names": ["Fz", "Cz", "Pz", "Oz", "O1", "O2"], "sfreq": 200.0, "tmin": -0.1,
         "n_times": 60}  # fmt: skip
SECOND = {"corpus": "second", "ch_names": ["Pz", "P3", "P4", "Oz"], "sfreq": 100.0, "tmin": 0.0, "n_times": 25}


def images_of(numbers):
    """Embeddings and pictures by number, alike in all corpora."""
    rng = np.random.default_rng(11)
    specs = sample_specs(400, rng)
    embeds = rng.standard_normal((400, WIDTH)).astype(np.float32)
    return [
        {"image_id": f"image-{n:03d}", "concept": specs[n].category_name, "categories": [specs[n].category_name],
         "image_embeds": embeds[n], "image": render(specs[n])}
        for n in numbers
    ]  # fmt: skip


def write_sensors(folder, shape, *, numbers=None, modality="eeg", n_subjects=2, repeats=2, noise=0.3, seed=0,
                  without_validation=False, preparation=None):  # fmt: skip
    """EEG or MEG that holds image embeddings in slow waves at each channel; returns the folder.

    The wave of each of `WIDTH` dimensions depends on time in seconds and on the name of the channel, so that corpora
    have it in common.
    """
    numbers = list(range(sum(COUNTS.values()))) if numbers is None else numbers
    images, rng = images_of(numbers), np.random.default_rng([seed, 3])
    times = shape["tmin"] + np.arange(shape["n_times"]) / shape["sfreq"]
    phases = np.array([[np.random.default_rng([sum(map(ord, name)), d]).uniform(0, 6) for name in shape["ch_names"]]
                       for d in range(WIDTH)])  # fmt: skip
    rates = 4 + np.arange(WIDTH)  # Hz
    waves = np.sin(2 * np.pi * rates[:, None, None] * times + phases[:, :, None])  # (WIDTH, n_chans, n_times)
    splits = np.repeat(list(COUNTS), list(COUNTS.values()))
    splits[splits == "validation"] = "train" if without_validation else "validation"

    def recordings():
        for subject in range(n_subjects):
            for image, split in zip(images, splits, strict=True):
                for _ in range(repeats):
                    values = np.tensordot(image["image_embeds"], waves, 1) / 4
                    values += noise * rng.standard_normal(values.shape)
                    yield {"subject": f"sub-{subject + 1:02d}", "image_id": image["image_id"], "split": split,
                           modality: values}  # fmt: skip

    facts = {name: shape[name] for name in ("corpus", "ch_names", "sfreq", "tmin")}
    return write_prepared(folder, _metadata(modality) | facts | {"preparation": preparation}, recordings(), images)


def write_voxels(folder, corpus, n_voxels, *, numbers, noise=0.5, seed=0):
    """FMRI of people with so many voxels each."""
    images, rng = images_of(numbers), np.random.default_rng([seed, 4])
    splits = np.repeat(list(COUNTS), list(COUNTS.values()))
    maps = [rng.standard_normal((WIDTH, count)) / 4 for count in n_voxels]

    def recordings():
        for subject, weights in enumerate(maps):
            for image, split in zip(images, splits, strict=True):
                for _ in range(2):
                    values = image["image_embeds"] @ weights
                    yield {"subject": f"sub-{subject + 1:02d}", "image_id": image["image_id"], "split": split,
                           "fmri": values + noise * rng.standard_normal(values.shape)}  # fmt: skip

    return write_prepared(folder, _metadata("fmri") | {"corpus": corpus}, recordings(), images)


def _metadata(modality):
    return {
        "modality": modality, "split_protocol": "planted", "split_unit": "image", "licence": "none",
        "redistribution": "allowed", "citation": "none", "source": "planted", "image_encoder": ENCODER,
        "simulated": {"preset": "planted", "seed": 0, "ceiling": None},
    }  # fmt: skip
