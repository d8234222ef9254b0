"""Prepared data sets whose images are categories, which every run shows again."""

import numpy as np

from neural_clip.prepared.writer import write_prepared
from planted_data import READY


def write_runs(folder, modality, n_runs):
    """Eight categories that each of so many runs shows twice, the last run for the test."""
    rng, size = np.random.default_rng(0), (30,) if modality == "fmri" else (4, 6)
    embeds, answers = rng.standard_normal((8, 16)), rng.standard_normal((8, *size))
    named = {"concept": "c", "categories": []}
    images = [{"image_id": f"im{n}", "image_embeds": row, **named} for n, row in enumerate(np.float32(embeds))]

    def rows():
        for subject, runs in (("sub-01", range(n_runs)), ("sub-02", (0, n_runs - 1))):
            for run in runs:
                split = "test" if run == n_runs - 1 else "train"
                for number in [*range(8)] * 2:
                    values = answers[number] + rng.standard_normal(size)
                    yield {"subject": subject, "run": f"run-{run:02d}", "image_id": f"im{number}", "split": split,
                           modality: values}  # fmt: skip

    metadata = dict.fromkeys(("corpus", "split_protocol", "licence", "citation", "source"), "planted")
    metadata |= {"modality": modality, "split_unit": "run", "redistribution": "allowed", "image_encoder": READY}
    metadata |= {} if modality == "fmri" else {"sfreq": 100.0, "tmin": 0.0, "ch_names": list("abcd")}
    return str(write_prepared(folder, metadata | {"category_level": True}, rows(), images))
