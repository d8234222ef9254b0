"""Ridge baselines against scikit-learn, and on planted signals with known answers."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from kernel_ridge import KernelRidge
from neural_clip.errors import DataError
from neural_clip.evaluation.baselines import closed_form as closed_form_module
from neural_clip.evaluation.baselines import inputs, strengths, tried, whitening
from neural_clip.evaluation.baselines import linear as baselines
from neural_clip.evaluation.baselines.closed_form import closed_form
from neural_clip.evaluation.baselines.linear import (
    frozen_identity_alignment,
    frozen_random_alignment,
    per_subject_ridge,
    pooled_whitened_ridge,
)
from neural_clip.evaluation.baselines.ridge import RELATIVE_ALPHAS, CholeskyRidge
from neural_clip.evaluation.baselines.rows import BASELINES
from neural_clip.evaluation.finished_parts import FinishedParts
from planted_data import split_of
from planted_splits import WIDTH, planted, two_way, unit
from tolerances import assert_same_outputs

pytestmark = pytest.mark.numerical


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
        weights, intercept = ridge.coefficients(relative)
        np.testing.assert_allclose(others @ weights + intercept, expected, atol=1e-8)


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
        ridge = Ridge(alpha=alpha, solver="svd").fit(scaled, unit(train.targets[rows]))
        others = test.of_subject(subject)
        expected = ridge.predict(scaler.transform(others.reshape(len(others), -1)))
        expected -= unit(train.targets[rows]).mean(axis=0)  # predictions lie near it, whatever was recorded
        np.testing.assert_allclose(predictions[test.subjects == subject], expected, atol=2e-4)


@pytest.mark.parametrize(("name", "fit"), BASELINES)
@pytest.mark.parametrize("modality", ["sensors", "voxels"])
def test_lengths_of_image_embeddings_change_nothing(name, fit, modality):
    """They are compared by their cosine, so a ridge must not follow how long they are."""
    if fit is frozen_identity_alignment and modality == "voxels":
        pytest.skip("voxels have none")
    splits = planted(modality, noise=4.0)
    longer = [
        split_of(
            split.recordings,
            split.subjects,
            split.image_ids,
            split.targets * (1 + np.unique(split.image_ids, return_inverse=True)[1])[:, None],
        )
        for split in splits
    ]
    (expected, chosen), (found, also) = fit(*splits), fit(*longer)
    assert also == pytest.approx(chosen) if name != "closed form" else also.keys() == chosen.keys()
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_strength_is_the_best_on_validation_and_the_test_split_is_not_looked_at():
    train, validation, test = planted("sensors")
    _, chosen = per_subject_ridge(train, validation, test)
    scores = []
    for alpha in RELATIVE_ALPHAS:
        predictions = np.empty((len(validation.subjects), WIDTH))
        for subject in np.unique(validation.subjects):
            inputs = StandardScaler().fit(train.of_subject(subject).reshape(40, -1))
            flat = inputs.transform(train.of_subject(subject).reshape(40, -1))
            ridge = KernelRidge(flat, unit(train.targets[train.subjects == subject]))
            others = inputs.transform(validation.of_subject(subject).reshape(16, -1))
            predictions[validation.subjects == subject] = ridge.predict(others, [alpha])[0] - ridge.target_mean
        scores.append(two_way(predictions, validation))
    assert chosen["validation_two_way"] == pytest.approx(max(scores), abs=1e-3)
    assert scores[int(np.argmin(np.abs(RELATIVE_ALPHAS - chosen["relative_alpha"])))] == pytest.approx(
        max(scores), abs=1e-3
    )
    other_test = split_of(test.recordings[::-1], test.subjects[::-1], test.image_ids, test.targets * 0 + 1)
    assert per_subject_ridge(train, validation, other_test)[1] == chosen


@pytest.mark.parametrize("fit", [per_subject_ridge, pooled_whitened_ridge, closed_form])
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
    strengths = {"least_shrinkage", "relative_alpha", "relative_alpha_shared"}
    assert set(chosen) == {*strengths, "strength_by", "validation_two_way"}


def test_constant_features_do_not_break_ridge():
    train, validation, test = planted("voxels")
    for split in (train, validation, test):
        for row in split.recordings:
            row[3] = 7.0
    for fit in (per_subject_ridge, pooled_whitened_ridge, closed_form):
        assert np.isfinite(fit(train, validation, test)[0]).all()


def test_unknown_subject_raises():
    train, validation, test = planted("sensors")
    keep = train.subjects != "sub-01"
    short = train.at(np.flatnonzero(keep))
    with pytest.raises(DataError, match="'sub-01' has no training rows"):
        per_subject_ridge(short, validation, test)
    for _, fit in BASELINES:
        if fit is frozen_identity_alignment:  # nothing is fitted for one subject alone
            assert np.isfinite(fit(short, validation, test)[0]).all()
            continue
        with pytest.raises(DataError, match="'sub-01' has no training rows"):
            fit(short, validation, test)
    frozen_identity_alignment(train, validation, test)


FEW_ALPHAS = np.array([0.01, 0.3, 10.0])


def few_alphas(monkeypatch):
    for module in (strengths, tried):
        monkeypatch.setattr(module, "RELATIVE_ALPHAS", FEW_ALPHAS)


def pooled_oracle(train, validation, test, align):
    """One scikit-learn ridge on aligned recordings, its strength chosen on the validation split."""

    def rows(split):
        aligned = [np.ravel(align(subject, np.asarray(recording, dtype=np.float64)))
                   for subject, recording in zip(split.subjects, split.recordings, strict=True)]  # fmt: skip
        return np.array(aligned)

    scaler = StandardScaler().fit(rows(train))
    inputs = scaler.transform(rows(train))
    mean_eigenvalue = (inputs**2).sum() / len(inputs)
    found = []
    for relative in FEW_ALPHAS:
        ridge = Ridge(alpha=relative * mean_eigenvalue, solver="svd").fit(inputs, unit(train.targets))
        mean = unit(train.targets).mean(axis=0)
        predictions = [ridge.predict(scaler.transform(rows(split))) - mean for split in (validation, test)]
        found.append((two_way(predictions[0], validation), predictions[1], relative))
    return max(found, key=lambda entry: (round(entry[0], 9), entry[2]))  # the stronger ridge wins a tie


@pytest.mark.parametrize("modality", ["sensors", "voxels"])
def test_frozen_random_alignment_equals_sklearn_behind_the_same_layers(modality, monkeypatch):
    few_alphas(monkeypatch)
    splits = planted(modality)
    names = sorted(set(splits[0].subjects))

    def align(subject, recording):
        n_in = len(recording)
        n_out = n_in if modality == "sensors" else 1024
        rng = np.random.default_rng([0, names.index(subject)])
        return (rng.uniform(-1, 1, (n_out, n_in)) / np.sqrt(n_in)).astype(np.float32) @ recording

    score, expected, relative = pooled_oracle(*splits, align)
    predictions, chosen = frozen_random_alignment(*splits)
    assert chosen["relative_alpha"] == pytest.approx(relative)
    assert chosen["validation_two_way"] == pytest.approx(score, abs=1e-6)
    np.testing.assert_allclose(predictions, expected, atol=1e-3)


def test_random_layers_are_drawn_as_torch_draws_them():
    """Bounds and spread of the weights that the pooled ridge gets, against torch's own layers."""
    import torch

    for modality, layer in (("sensors", torch.nn.Conv1d(400, 400, 1)), ("voxels", torch.nn.Linear(400, 1024))):
        seen = {}

        def spy(train, layers, parts, seen=seen):
            seen |= layers
            raise DataError("enough")

        size = (400, 1) if modality == "sensors" else (400,)
        split = split_of(np.zeros((2, *size), np.float32), np.array(["a", "b"]), np.array(["x", "y"]), np.eye(2))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(baselines, "aligned_fit", spy)
            with pytest.raises(DataError, match="enough"):
                frozen_random_alignment(split, split, split)
        drawn = layer.weight.detach().numpy().ravel()
        for weights in seen.values():
            assert np.abs(weights).max() == pytest.approx(np.abs(drawn).max(), rel=1e-3)
            assert weights.std() == pytest.approx(drawn.std(), rel=0.02) and abs(weights.mean()) < 1e-3
        assert not np.allclose(seen["a"], seen["b"])


def test_frozen_identity_alignment_equals_sklearn_on_recordings_as_they_are(monkeypatch):
    few_alphas(monkeypatch)
    splits = planted("sensors")
    score, expected, relative = pooled_oracle(*splits, lambda subject, recording: recording)
    predictions, chosen = frozen_identity_alignment(*splits)
    assert chosen.pop("strength_by") == "validation recordings"
    assert chosen == pytest.approx({"relative_alpha": relative, "validation_two_way": score}, abs=1e-6)
    np.testing.assert_allclose(predictions, expected, atol=1e-3)


def test_random_layers_spoil_what_people_have_in_common():
    """Alike people can be pooled as they are; behind a mixture of each person's own there is less to share."""
    splits = planted("sensors", n_subjects=6, noise=4.0, own=0.0)
    identity, _ = frozen_identity_alignment(*splits)
    mixed, _ = frozen_random_alignment(*splits)
    assert two_way(identity, splits[2]) > two_way(mixed, splits[2]) + 0.1


def test_voxels_cannot_be_pooled_as_they_are():
    with pytest.raises(DataError, match="Voxels of different subjects do not correspond"):
        frozen_identity_alignment(*planted("voxels"))


@pytest.mark.parametrize(("tmin", "sfreq", "first"), [(-0.5, 120.0, 60), (0.04, 1000.0, 0), (-0.1, 200.0, 20)])
def test_samples_before_onset_are_left_out(tmin, sfreq, first):
    recordings = np.random.default_rng(0).standard_normal((4, 3, 90)).astype(np.float32)
    names, targets = np.array(list("abab")), np.eye(4)
    targets = targets[[0, 1, 0, 1]]
    split = split_of(recordings, names, names, targets, tmin=tmin, sfreq=sfreq).from_onset()
    np.testing.assert_array_equal(split.values(), recordings[:, :, first:])
    assert tmin + first / sfreq >= 0 and (split.subjects == names).all()


def test_baselines_are_listed_by_name():
    assert (
        ("per-subject ridge", per_subject_ridge),
        ("pooled whitened ridge", pooled_whitened_ridge),
        ("closed form", closed_form),
        ("ridge, identity alignment", frozen_identity_alignment),
        ("ridge, random alignment", frozen_random_alignment),
    ) == BASELINES


def test_whitening_is_shared_between_shrinkages_but_equals_each_alone(monkeypatch):
    splits = planted("sensors", coloured=True, noise=30.0, rows=20)
    both, chosen = pooled_whitened_ridge(*splits)
    scores = {}
    for least in (0.01, 0.1, 0.3, 1.0):
        monkeypatch.setattr(baselines, "LEAST_SHRINKAGES", (least,))
        predictions, alone = pooled_whitened_ridge(*splits)
        scores[least] = alone["validation_two_way"]
        if chosen["least_shrinkage"] == least:
            assert_same_outputs(predictions, both)
    assert chosen["validation_two_way"] == pytest.approx(max(scores.values())) and len(set(scores.values())) > 2


def test_unwhitened_voxels_equal_whitening_with_the_whole_share(monkeypatch):
    """At 1 the whitener multiplies all voxels by one number, which the strength takes out."""
    splits = planted("voxels", noise=6.0)
    monkeypatch.setattr(baselines, "LEAST_SHRINKAGES", (1.0,))
    plain, chosen = pooled_whitened_ridge(*splits)
    monkeypatch.setattr(baselines, "LEAST_SHRINKAGES", (1.0 - 1e-6,))  # takes the way through the noise covariance
    scaled, also = pooled_whitened_ridge(*splits)
    assert chosen == pytest.approx(also, abs=1e-4)
    np.testing.assert_allclose(plain, scaled, atol=1e-3)


@pytest.mark.parametrize(("name", "fit"), BASELINES)
def test_fits_hold_blas_to_one_thread(name, fit, monkeypatch):
    """Whatever is allowed outside; what a second thread does to sums is seen in two processes, in test_controls.py."""
    seen, fitted = [], CholeskyRidge.__init__

    def spy(*arguments, **settings):
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        fitted(*arguments, **settings)

    monkeypatch.setattr(CholeskyRidge, "__init__", spy)
    with threadpool_limits(limits=2, user_api="blas"):
        fit(*planted("sensors", rows=20))
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {2}
    assert set(seen) == {1}


def test_one_thread_holds_a_blas_that_is_loaded_late():
    """SciPy has its own; where only NumPy's was there, it would run on all cores."""
    program = """
import numpy, sys
from threadpoolctl import threadpool_info
from neural_clip.evaluation.baselines.ridge import one_thread
assert "scipy" not in sys.modules
@one_thread
def threads():
    import scipy.linalg
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
found = threads()
assert set(found) == {1}, found
"""
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "2"})


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("modality", ["sensors", "voxels"])
@pytest.mark.parametrize(("method", "fit"), BASELINES, ids=[name for name, _ in BASELINES])
def test_a_subject_with_next_to_nothing_leaves_the_others_their_signal(method, fit, modality):
    """With one row; with two of one image; with recordings that are all alike."""
    if method == "ridge, identity alignment" and modality == "voxels":
        pytest.skip("voxels have none")
    train, validation, test = planted(modality, noise=0.5)
    own = train.rows_of("sub-00")
    for left, again, alike in ((1, 1, False), (1, 2, False), (len(own), 1, True)):
        kept = np.concatenate([np.repeat(own[:left], again), train.rows_of("sub-01"), train.rows_of("sub-02")])
        few = train.at(kept)
        if alike:
            recordings = [np.full_like(row, 0.37) if n < left else row for n, row in enumerate(few.recordings)]
            few = replace(few, recordings=recordings)
        predictions, chosen = fit(few, validation, test)
        assert np.isfinite(predictions).all()
        assert np.isfinite([value for name, value in chosen.items() if name not in ("way", "strength_by")]).all()
        others = test.subjects != "sub-00"
        if method != "ridge, random alignment":
            assert two_way(predictions[others], test.at(np.flatnonzero(others))) > 0.8


@pytest.mark.parametrize("modality", ["sensors", "voxels"])
@pytest.mark.parametrize(("method", "fit"), BASELINES, ids=[name for name, _ in BASELINES])
def test_large_recordings_are_fitted_by_blocks_with_few_strengths_and_the_same_scores(
    method, fit, modality, monkeypatch, tmp_path
):
    """Blocks of seven recordings, strengths that are walked to, and predictions kept in files."""
    if method == "ridge, identity alignment" and modality == "voxels":
        pytest.skip("voxels have none")
    splits = planted(modality, noise=4.0)
    monkeypatch.setattr(closed_form_module, "MAX_FOLDED_ROWS", 0)
    whole, chosen = fit(*splits)
    monkeypatch.setattr(whitening, "BLOCK_NUMBERS", 7 * 30)
    for module in (strengths, tried, inputs):
        monkeypatch.setattr(module, "MAX_GRID_SIZE", 0)
    parts = FinishedParts(tmp_path / "parts")
    predictions, again = fit(*splits, parts=parts)
    # 48 validation recordings: neighbours of the best strength are hardly told apart
    assert two_way(predictions, splits[2]) == pytest.approx(two_way(whole, splits[2]), abs=1e-2)
    score = next(name for name in ("validation_cross_entropy", "validation_two_way") if name in chosen)
    assert again[score] == pytest.approx(chosen[score], abs=1e-2)
    kept = sorted((tmp_path / "parts").iterdir())
    monkeypatch.setattr(CholeskyRidge, "__init__", None)  # nothing is fitted twice, but for the small shared map
    if not (modality == "voxels" and fit is pooled_whitened_ridge):
        np.testing.assert_array_equal(fit(*splits, parts=parts)[0], predictions)
    assert sorted((tmp_path / "parts").iterdir()) == kept


def test_other_people_with_another_best_strength_are_filled_in(monkeypatch):
    """One person's recordings are nearly noise, so that the best strength is far from the other's."""
    train, validation, test = planted("sensors", n_subjects=2, noise=0.3)
    rng = np.random.default_rng(0)
    for split in (train, validation, test):
        for name, recording in zip(split.subjects, split.recordings, strict=True):
            if name == "sub-01":
                recording += 15 * rng.standard_normal(recording.shape).astype(np.float32)
    whole, chosen = per_subject_ridge(train, validation, test)
    for module in (strengths, tried):
        monkeypatch.setattr(module, "MAX_GRID_SIZE", 0)
    predictions, again = per_subject_ridge(train, validation, test)
    assert again == pytest.approx(chosen) and again["validation_two_way"] > 0.6
    assert_same_outputs(predictions, whole)
