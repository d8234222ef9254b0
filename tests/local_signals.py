"""Data sets whose signal lies in known sensors, samples and voxels, and the linear model that finds it."""

from types import SimpleNamespace

import numpy as np
import torch

from neural_clip.prepared.writer import write_prepared
from planted_data import ENCODER, FeatureMethods

WIDTH, COUNTS = 8, {"train": 60, "validation": 4, "test": 14}
SUBJECTS = ["sub-01", "sub-02"]
NAMES = {
    "eeg": ["Fp1", "Fp2", "C3", "Cz", "C4", "Pz", "O1", "O2", "Fz"],
    "meg": ["MLC11-1609", "MLF12-1609", "MRO11-1609", "MRT14-1609"],
}
SHAPES = {"eeg": (9, 12), "meg": (4, 12)}
SIGNAL_SENSORS, SIGNAL_SAMPLES = {"eeg": [2, 6], "meg": [1]}, {"eeg": [6, 7], "meg": [8, 9]}
SIGNAL_VOXELS = [3, 11, 12, 20]
N_VOXELS = {"sub-01": 26, "sub-02": 23}


class LinearModel(FeatureMethods, torch.nn.Module):
    """One matrix a subject from recording to embedding, with an offset, fitted by ridge regression."""

    def __init__(self, weights):
        super().__init__()
        self.weights = {key: torch.tensor(value, dtype=torch.float32) for key, value in weights.items()}
        self.config = SimpleNamespace(**{
            f"{m}_config": SimpleNamespace(subjects=SUBJECTS, n_voxels=None) if (m, 0) in weights else None
            for m in ("eeg", "meg", "fmri")
        })  # fmt: skip

    def features(self, modality, values, subject_ids):
        rows = [
            row[: len(self.weights[modality, subject])] @ self.weights[modality, subject]
            for row, subject in zip(values.flatten(1), subject_ids.tolist(), strict=True)
        ]
        return torch.stack(rows) + 0.3


def signal_columns(modality, subject):
    """Which features of a recording carry signal, and how many there are."""
    if modality == "fmri":
        return np.array(SIGNAL_VOXELS), N_VOXELS[subject]
    cells = np.zeros(SHAPES[modality], dtype=bool)
    cells[np.ix_(SIGNAL_SENSORS[modality], SIGNAL_SAMPLES[modality])] = True
    return np.flatnonzero(cells), cells.size


def write_local(folder, modality, seed=0, simulated=True):
    """Recordings of which few sensors, samples or voxels answer to the image, and ridge weights fitted on them."""
    rng = np.random.default_rng([seed, ["eeg", "meg", "fmri"].index(modality)])
    splits = np.repeat(list(COUNTS), list(COUNTS.values()))
    embeds = rng.standard_normal((len(splits), WIDTH)).astype(np.float32)
    rows, weights = [], {}
    for number, subject in enumerate(SUBJECTS):
        columns, size = signal_columns(modality, subject)
        values = 0.5 * rng.standard_normal((len(splits), size)) + 0.2
        directions, _ = np.linalg.qr(rng.standard_normal((WIDTH, len(columns))))
        values[:, columns] += 2 * embeds @ directions  # each carries something that no other does
        x, y = values[splits == "train"], embeds[splits == "train"]
        weights[modality, number] = np.linalg.solve(x.T @ x + 30 * np.eye(size), x.T @ y)
        for image, split in enumerate(splits):
            shaped = values[image] if modality == "fmri" else values[image].reshape(SHAPES[modality])
            rows.append({"subject": subject, "image_id": f"{modality}{image:02d}", "split": split, modality: shaped})
    images = [
        {"image_id": f"{modality}{n:02d}", "concept": "abc"[n % 3], "categories": [], "image_embeds": embed}
        for n, embed in enumerate(embeds)
    ]
    metadata = {
        "corpus": "local", "modality": modality, "split_protocol": "planted", "split_unit": "image", "licence": "none",
        "redistribution": "allowed", "citation": "none", "source": "planted", "image_encoder": ENCODER,
        "simulated": {"preset": "local", "seed": seed} if simulated else None,
    }  # fmt: skip
    if modality != "fmri":
        metadata |= {"sfreq": 50.0, "tmin": -0.04, "ch_names": NAMES[modality]}
    return write_prepared(folder, metadata, rows, images), weights


def planted_mask(seed=0):
    """Mask of as many voxels as the first subject has, and its affine."""
    inside = np.zeros((4, 5, 3), dtype=bool)
    inside.ravel()[np.random.default_rng(seed).choice(60, N_VOXELS["sub-01"], replace=False)] = True
    return inside, np.array([[-1.8, 0, 0, 20], [0, 1.8, 0, -30], [0, 0, 1.8, -10], [0, 0, 0, 1.0]])
