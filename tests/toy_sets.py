"""Small data sets with facts that are made up."""

import numpy as np

from neural_clip.prepared.writer import write_prepared


def toy_facts(modality="eeg", **changes):
    """Facts as the writer takes them; sensors are three at 100 Hz."""
    facts = {
        "corpus": "toy", "modality": modality, "split_protocol": "by hand", "split_unit": "image",
        "licence": "CC0-1.0", "redistribution": "allowed", "citation": "nobody", "source": "made up",
    }  # fmt: skip
    if modality != "fmri":
        facts |= {"ch_names": ["A", "B", "C"], "sfreq": 100.0, "tmin": 0.0}
    return facts | changes


def write_toy_set(folder, images, values, n_held_out=1, shard_rows=2000, **changes):
    """Write fMRI of one person, a recording of each image; the last are for validation and test, so many for each."""
    splits = ["train"] * (len(images) - 2 * n_held_out) + ["validation"] * n_held_out + ["test"] * n_held_out
    rows = [
        {"subject": "sub-01", "run": f"run-{i}", "image_id": image["image_id"], "split": splits[i],
         "fmri": np.asarray(values[i])}
        for i, image in enumerate(images)
    ]  # fmt: skip
    files = {"scaling.npz": b"kept"}
    return write_prepared(folder, toy_facts("fmri", **changes), rows, images, extra_files=files, shard_rows=shard_rows)
