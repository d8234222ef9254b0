"""Ridge baselines against scikit-learn, and on planted signals with known answers."""

import numpy as np
import pytest
from sklearn.covariance import oas
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from neural_clip import baselines
from neural_clip.baselines import (
    RELATIVE_ALPHAS,
    BaselineSplit,
    KernelRidge,
    inverse_square_root,
    per_subject_ridge,
    pooled_whitened_ridge,
    shrinkage_of,
)
from neural_clip.errors import DataError
from neural_clip.image_retrieval import retrieval_scores

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
        splits.append(BaselineSplit(recordings, subjects, ids, np.tile(targets, (n_subjects, 1))))
    return splits


def two_way(predictions, split):
    return retrieval_scores(predictions, split.targets, split.image_ids)["two_way"]


@pytest.mark.parametrize("shape", [(30, 80), (60, 12)])  # wider than long, longer than wide
def test_kernel_ridge_equals_sklearn(shape):
    rng = np.random.default_rng(0)
    inputs, targets, others = (
        rng.standard_normal(shape),
        rng.standard_normal((shape[0], 4)),
        rng.standard_normal((7, shape[1])),
    )
    ridge = KernelRidge(inputs, targets)
    for relative, predictions in zip(RELATIVE_ALPHAS, ridge.predict(others, RELATIVE_ALPHAS), strict=True):
        expected = Ridge(alpha=relative * ridge.mean_eigenvalue, solver="svd").fit(inputs, targets).predict(others)
        np.testing.assert_allclose(predictions, expected, atol=1e-8)


@pytest.mark.parametrize("modality", ["sensors", "voxels"])
def test_per_subject_ridge_equals_sklearn_at_the_chosen_strength(modality):
    train, validation, test = planted(modality)
    predictions, chosen = per_subject_ridge(train, validation, test)
    for subject in np.unique(test.subjects):
        rows = train.subjects == subject
        inputs = train.of_subject(subject).reshape(rows.sum(), -1).astype(np.float64)
        scaler = StandardScaler().fit(inputs)
        scaled = scaler.transform(inputs)
        alpha = chosen["relative_alpha"] * np.linalg.eigvalsh(scaled @ scaled.T).mean()
        ridge = Ridge(alpha=alpha, solver="svd").fit(scaled, train.targets[rows])
        others = test.of_subject(subject)
        expected = ridge.predict(scaler.transform(others.reshape(len(others), -1)))
        np.testing.assert_allclose(predictions[test.subjects == subject], expected, atol=2e-4)


def test_strength_is_the_best_on_validation_and_the_test_split_is_not_looked_at():
    train, validation, test = planted("sensors")
    _, chosen = per_subject_ridge(train, validation, test)
    scores = []
    for alpha in RELATIVE_ALPHAS:
        predictions = np.empty((len(validation.subjects), WIDTH))
        for subject in np.unique(validation.subjects):
            inputs = StandardScaler().fit(train.of_subject(subject).reshape(40, -1))
            flat = inputs.transform(train.of_subject(subject).reshape(40, -1))
            ridge = KernelRidge(flat, train.targets[train.subjects == subject])
            others = inputs.transform(validation.of_subject(subject).reshape(16, -1))
            predictions[validation.subjects == subject] = ridge.predict(others, [alpha])[0]
        scores.append(two_way(predictions, validation))
    assert chosen["validation_two_way"] == pytest.approx(max(scores), abs=1e-3)
    assert scores[int(np.argmin(np.abs(RELATIVE_ALPHAS - chosen["relative_alpha"])))] == pytest.approx(
        max(scores), abs=1e-3
    )
    other_test = BaselineSplit(test.recordings[::-1], test.subjects[::-1], test.image_ids, test.targets * 0 + 1)
    assert per_subject_ridge(train, validation, other_test)[1] == chosen


@pytest.mark.parametrize("fit", [per_subject_ridge, pooled_whitened_ridge])
@pytest.mark.parametrize("modality", ["sensors", "voxels"])
def test_planted_signal_is_found_and_shuffled_labels_score_chance(fit, modality):
    splits = planted(modality)
    assert two_way(fit(*splits)[0], splits[2]) > 0.85
    shuffled = planted(modality, labels=False)
    assert two_way(fit(*shuffled)[0], shuffled[2]) == pytest.approx(0.5, abs=0.12)


def test_pooling_and_whitening_help_where_people_are_alike_and_noise_is_coloured():
    splits = planted("sensors", rows=25, noise=3.0, coloured=True)
    single, _ = per_subject_ridge(*splits)
    pooled, _ = pooled_whitened_ridge(*splits)
    assert two_way(pooled, splits[2]) > two_way(single, splits[2]) + 0.03


def test_shared_voxel_map_does_no_harm():
    splits = planted("voxels", noise=6.0)
    single, _ = per_subject_ridge(*splits)
    pooled, chosen = pooled_whitened_ridge(*splits)
    assert two_way(pooled, splits[2]) > two_way(single, splits[2]) - 0.02
    assert set(chosen) == {"least_shrinkage", "relative_alpha", "relative_alpha_shared", "validation_two_way"}


def test_inverse_square_root_whitens():
    rng = np.random.default_rng(0)
    data = rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6))
    covariance = data.T @ data / 500
    whitener = inverse_square_root(covariance, 0.0)
    np.testing.assert_allclose(whitener @ covariance @ whitener, np.eye(6), atol=1e-8)
    np.testing.assert_allclose(whitener, whitener.T)
    flat = inverse_square_root(covariance, 1.0)
    np.testing.assert_allclose(flat, np.eye(6) / np.sqrt(np.trace(covariance) / 6), atol=1e-12)


def test_voxel_whitener_equals_the_explicit_matrix():
    rng = np.random.default_rng(0)
    recordings, targets = rng.standard_normal((20, 35)), rng.standard_normal((20, WIDTH))
    standardised = (recordings - recordings.mean(0)) / recordings.std(0)
    noise = baselines._noise(standardised, targets)
    covariance = noise.T @ noise / 20
    eigenvalues = np.linalg.eigvalsh(covariance)
    share = shrinkage_of(eigenvalues, 35, 20, 0.1)
    whitened = baselines._voxel_whitener(recordings, targets, 0.1)(recordings)
    np.testing.assert_allclose(whitened, standardised @ inverse_square_root(covariance, share), atol=1e-6)


@pytest.mark.parametrize("shape", [(30, 50), (400, 20)])
def test_shrinkage_equals_sklearn(shape):
    data = np.random.default_rng(0).standard_normal(shape) * np.linspace(0.1, 3, shape[1])
    centred = data - data.mean(0)
    eigenvalues = np.linalg.eigvalsh(centred.T @ centred / len(data))
    _, expected = oas(centred, assume_centered=True)
    assert shrinkage_of(eigenvalues, shape[1], shape[0], 0.0) == pytest.approx(expected)
    assert shrinkage_of(eigenvalues, shape[1], shape[0], 0.9) == pytest.approx(max(expected, 0.9))


def test_constant_features_do_not_break_ridge():
    train, validation, test = planted("voxels")
    for split in (train, validation, test):
        for row in split.recordings:
            row[3] = 7.0
    for fit in (per_subject_ridge, pooled_whitened_ridge):
        assert np.isfinite(fit(train, validation, test)[0]).all()


def test_unknown_subject_and_too_many_rows_raise(monkeypatch):
    train, validation, test = planted("sensors")
    keep = train.subjects != "sub-01"
    short = BaselineSplit([r for r, k in zip(train.recordings, keep, strict=True) if k],
                          train.subjects[keep], train.image_ids[keep], train.targets[keep])  # fmt: skip
    with pytest.raises(DataError, match="'sub-01' has no training rows"):
        per_subject_ridge(short, validation, test)
    monkeypatch.setattr(baselines, "MAX_TRAIN_ROWS", 100)
    with pytest.raises(DataError, match="at most 100 training rows, but got 120"):
        pooled_whitened_ridge(train, validation, test)
