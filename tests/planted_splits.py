"""Splits in memory of recordings that are linear in the embedding, for the tests of linear baselines."""

import numpy as np

from neural_clip.retrieval.scores import retrieval_scores
from planted_data import split_of

WIDTH = 8


def planted(modality, *, n_subjects=3, rows=40, noise=2.0, seed=0, labels=True, own=0.3, coloured=False):
    """Train, validation and test splits of recordings that are linear in the embedding."""
    rng = np.random.default_rng(seed)
    shape = (5, 6) if modality == "sensors" else (60,)
    shared = rng.standard_normal((WIDTH, int(np.prod(shape))))
    sizes = [shape if modality == "sensors" else (60 + 5 * subject,) for subject in range(n_subjects)]
    maps = [rng.standard_normal((WIDTH, int(np.prod(size)))) for size in sizes]
    if modality == "sensors":
        maps = [shared + own * deviation for deviation in maps]
    mixing = rng.standard_normal((5, 5)) * np.array([6, 3, 1, 0.3, 0.1]) if coloured else np.eye(5)
    splits = []
    for name, count in (("train", rows), ("validation", 16), ("test", 30)):
        targets = rng.standard_normal((count, WIDTH)).astype(np.float32)
        answers = targets if labels else rng.standard_normal(targets.shape)
        recordings = []
        for subject in range(n_subjects):
            for answer in answers:
                disturbance = rng.standard_normal(sizes[subject])
                if modality == "sensors":
                    disturbance = mixing @ disturbance
                signal = (answer @ maps[subject]).reshape(sizes[subject])
                recordings.append((signal + noise * disturbance).astype(np.float32))
        ids = np.tile([f"{name}{i}" for i in range(count)], n_subjects)
        subjects = np.repeat([f"sub-{subject:02d}" for subject in range(n_subjects)], count)
        splits.append(split_of(recordings, subjects, ids, np.tile(targets, (n_subjects, 1))))
    return splits


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def two_way(predictions, split):
    return retrieval_scores(predictions, split.targets, split.image_ids)["two_way"]
