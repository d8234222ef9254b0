"""Strengths that training rows choose where there are fewer than two validation images, against loops by hand."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines import closed_form as closed_form_module
from neural_clip.evaluation.baselines import closed_form_fit, cost, inputs, linear, ridge, strengths, tried
from neural_clip.evaluation.baselines.closed_form import choose_by_folds, closed_form, ready
from neural_clip.evaluation.baselines.linear import per_subject_ridge, pooled_whitened_ridge
from neural_clip.evaluation.baselines.ridge import RELATIVE_ALPHAS
from neural_clip.evaluation.baselines.rows import BASELINES
from neural_clip.evaluation.baselines.strengths import image_folds
from neural_clip.evaluation.baselines.targets import Targets
from neural_clip.evaluation.finished_parts import FinishedParts
from neural_clip.prepared.reader import PreparedSet
from planted_data import split_of
from planted_runs import write_runs
from planted_splits import planted, two_way, unit

pytestmark = pytest.mark.numerical

BY_HELD_OUT = "held-out training recordings"
METHODS = pytest.mark.parametrize(("method", "fit"), BASELINES, ids=[name for name, _ in BASELINES])
MODALITIES = pytest.mark.parametrize("modality", ["sensors", "voxels"])


def without_validation(modality, n_validation=0, **more):
    train, validation, test = planted(modality, **more)
    return train, validation.at(np.arange(n_validation)), test


def of_some(train, rows, others, relative):
    """scikit-learn's ridge of each subject's standardised rows, fitted to some of them; less the target mean."""
    found = np.full((len(others), train.projection_dim), np.nan)
    for subject in np.unique(train.subjects):
        own = rows[train.subjects[rows] == subject]
        values, asked = (np.stack([np.ravel(row) for row in split.values(which)]).astype(float)
                         for split, which in ((train, own), (others, others.rows_of(subject))))  # fmt: skip
        scaler, targets = StandardScaler().fit(values), unit(train.targets[own])
        scaled = scaler.transform(values)
        alpha = relative * np.linalg.eigvalsh(scaled @ scaled.T).mean()
        made = Ridge(alpha=alpha, solver="svd").fit(scaled, targets).predict(scaler.transform(asked))
        found[others.subjects == subject] = made - targets.mean(axis=0)
    return found


@MODALITIES
@pytest.mark.parametrize("n_validation", [0, 1])
def test_the_strength_of_per_subject_ridge_is_that_of_folds_by_hand(modality, n_validation):
    train, validation, test = without_validation(modality, n_validation, noise=4.0)
    folds, scores = image_folds(train.image_ids, 5), []
    for relative in RELATIVE_ALPHAS:
        held_out = np.empty(train.targets.shape)
        for fold in range(5):
            held_out[folds == fold] = of_some(
                train, np.flatnonzero(folds != fold), train.at(np.flatnonzero(folds == fold)), relative
            )
        scores.append(two_way(held_out, train))
    predictions, chosen = per_subject_ridge(train, validation, test)
    assert chosen["relative_alpha"] == RELATIVE_ALPHAS[int(np.argmax(scores))] and len(set(scores)) > 5
    assert chosen["held_out_two_way"] == pytest.approx(max(scores), abs=1e-4)
    assert (chosen["strength_by"], chosen["n_folds"]) == (BY_HELD_OUT, 5) and "validation_two_way" not in chosen
    expected = of_some(train, np.arange(len(train)), test, chosen["relative_alpha"])
    np.testing.assert_allclose(predictions, expected, atol=1e-4)


@MODALITIES
def test_way_and_strength_of_the_closed_form_are_those_of_training(modality):
    train, validation, test = without_validation(modality, noise=4.0)
    predictions, chosen = closed_form(train, validation, test)
    fitted = ready(train)
    way, relative, held_out = choose_by_folds(fitted, image_folds(train.image_ids, 5))
    assert (chosen["way"], chosen["relative_alpha"]) == (way.name, relative)
    assert chosen["held_out_two_way"] == pytest.approx(two_way(held_out, train), abs=1e-4)
    assert chosen["held_out_cross_entropy"] == pytest.approx(
        closed_form_module.cross_entropy(held_out, fitted), abs=1e-4
    )
    transform = closed_form_module.undoing(fitted.of_its_images().gallery_embeds)
    expected = closed_form_fit.fit_of(way, fitted).deviations(test, [relative])[0] @ transform
    np.testing.assert_allclose(predictions, expected, atol=1e-4 * np.abs(expected).max())


@METHODS
@MODALITIES
@pytest.mark.parametrize("n_validation", [0, 1])
def test_every_baseline_finds_the_signal_and_says_by_what_it_was_chosen(method, fit, modality, n_validation):
    splits = without_validation(modality, n_validation, noise=4.0)
    if method == "ridge, identity alignment" and modality == "voxels":
        pytest.skip("voxels have none")
    predictions, chosen = fit(*splits)
    assert two_way(predictions, splits[2]) > (0.75 if "random" in method else 0.9)
    assert (chosen["strength_by"], chosen["n_folds"]) == (BY_HELD_OUT, 5)
    assert chosen["held_out_two_way"] > 0.7 and not [name for name in chosen if name.startswith("validation")]
    noise, _ = fit(*without_validation(modality, n_validation, labels=False))
    assert 0.35 < two_way(noise, splits[2]) < 0.65
    _, by_validation = fit(*planted(modality))
    assert "folds" in by_validation["strength_by"] or by_validation["strength_by"] == "validation recordings"
    assert not {"n_folds", "held_out_two_way"} & set(by_validation)


@METHODS
@MODALITIES
def test_walked_kept_and_grouped_is_the_same_and_goes_on_where_it_stopped(
    method, fit, modality, monkeypatch, tmp_path
):
    """Matrices of people that are kept, folds left out of them, few predictions at a time, then none made again."""
    if method == "ridge, identity alignment" and modality == "voxels":
        pytest.skip("voxels have none")
    splits = without_validation(modality, noise=4.0, rows=100)
    whole, chosen = fit(*splits)
    for module in (inputs, tried, strengths, linear):
        monkeypatch.setattr(module, "MAX_GRID_SIZE", 0)
    monkeypatch.setattr(tried, "MAX_PATHS", 5 * 100 * 8)
    left_out, really = [], closed_form_fit.Fit._without
    monkeypatch.setattr(closed_form_fit.Fit, "_without", lambda *a: left_out.append(1) or really(*a))
    parts = FinishedParts(tmp_path)
    found, again = fit(*splits, parts=parts)
    np.testing.assert_allclose(found, whole, atol=2e-4 * np.abs(whole).max())
    numbers = {name: value for name, value in chosen.items() if not isinstance(value, str)}
    assert {name: again[name] for name in numbers} == pytest.approx(numbers, rel=1e-4)
    assert left_out or (method == "ridge, random alignment" and modality == "voxels")  # a random layer, in no matrix
    made, really_made = [], ridge.CholeskyRidge.__init__
    monkeypatch.setattr(ridge.CholeskyRidge, "__init__", lambda *a, **k: made.append(1) or really_made(*a, **k))
    finished, same = fit(*splits, parts=parts)
    assert same == again and finished.tobytes() == found.tobytes()
    assert len(made) <= (6 * 4 if method == "pooled whitened ridge" and modality == "voxels" else 0)  # shared maps


@MODALITIES
def test_the_strength_of_the_shared_map_of_voxels_is_that_of_folds(modality, monkeypatch):
    """By hand, from the out-of-fold predictions of each person's ridge."""
    if modality == "sensors":
        pytest.skip("sensors have no shared map")
    monkeypatch.setattr(linear, "LEAST_SHRINKAGES", (1.0,))
    train, validation, test = without_validation(modality, noise=6.0)
    _, chosen = pooled_whitened_ridge(train, validation, test)
    folds = image_folds(train.image_ids, 5)
    known = np.empty(train.targets.shape)
    for fold in range(5):
        known[folds == fold] = of_some(
            train, np.flatnonzero(folds != fold), train.at(np.flatnonzero(folds == fold)), chosen["relative_alpha"]
        )
    targets, scores = unit(train.targets), []
    for relative in RELATIVE_ALPHAS:
        behind = np.empty(known.shape)
        for fold in range(5):
            others = known[folds != fold]
            mean = others.mean(axis=0)
            alpha = relative * np.linalg.eigvalsh((others - mean) @ (others - mean).T).mean()
            left = targets[folds != fold] - others
            shared = Ridge(alpha=alpha, solver="svd").fit(others - mean, left)
            behind[folds == fold] = known[folds == fold] + shared.predict(known[folds == fold] - mean) - left.mean(0)
        scores.append(two_way(behind, train))
    assert chosen["held_out_two_way"] == pytest.approx(max(scores), abs=1e-3)
    best = [alpha for alpha, score in zip(RELATIVE_ALPHAS, scores, strict=True) if score > max(scores) - 1e-3]
    assert chosen["relative_alpha_shared"] in best


@METHODS
@MODALITIES
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("n_images", [1, 2, 3, 4, 7])
def test_few_training_images_take_fewer_folds_down_to_two(method, fit, modality, n_images):
    if method == "ridge, identity alignment" and modality == "voxels":
        pytest.skip("voxels have none")
    train, validation, test = without_validation(modality, rows=n_images)
    if n_images == 1 or (n_images == 2 and method == "closed form"):
        with pytest.raises(DataError, match=rf"two at least, .*training images, (two|three) .*are 0 and {n_images}\."):
            fit(train, validation, test)
        return
    predictions, chosen = fit(train, validation, test)
    assert chosen["n_folds"] == min(n_images, 5) and np.isfinite(predictions).all()


@METHODS
@MODALITIES
def test_a_subject_with_images_of_one_fold_does_not_choose_but_is_predicted(method, fit, modality):
    if method == "ridge, identity alignment" and modality == "voxels":
        pytest.skip("voxels have none")
    train, validation, test = without_validation(modality, noise=4.0)
    one = image_folds(train.image_ids, 5) == 2
    for kept in ("sub-00", "sub-02"):  # the first of them, and the last
        part = train.at(np.flatnonzero(one | (train.subjects != kept)))
        predictions, chosen = fit(part, validation, test)
        assert np.isfinite(predictions).all() and chosen["n_folds"] == 5
        others = np.flatnonzero(test.subjects != kept)
        assert two_way(predictions[others], test.at(others)) > (0.7 if "random" in method else 0.9)
    each = np.array([train.rows_of(name)[number] for number, name in enumerate(np.unique(train.subjects))])
    with pytest.raises(DataError, match="No subject has training images enough"):
        fit(train.at(each), validation, test)


def test_images_under_two_names_lie_in_one_fold():
    train, validation, test = without_validation("sensors", rows=4)
    names = np.array([f"{name} of {subject}" for name, subject in zip(train.image_ids, train.subjects, strict=True)])
    apart = split_of(train.recordings, train.subjects, names, train.targets)
    folds = strengths.folds_of_rows(apart, test)
    assert strengths.n_folds_of(apart, validation) == folds.count == folds.n_images == 4 and folds.over == "images"
    assert all(len(set(folds.of_rows[train.image_ids == name].tolist())) == 1 for name in np.unique(train.image_ids))


@METHODS
@MODALITIES
def test_as_many_ridges_are_fitted_as_was_said(method, fit, modality, monkeypatch):
    splits, fits, ticks = without_validation(modality), [], []
    fitted = ridge.CholeskyRidge.__init__
    monkeypatch.setattr(ridge.CholeskyRidge, "__init__", lambda *a, **k: fits.append(a[0]) or fitted(*a, **k))
    said = cost.costs_of([method], *splits[:2])[method]
    if method == "ridge, identity alignment" and modality == "voxels":
        assert said.ridges == 0
        return
    fit(*splits, parts=FinishedParts(tick=lambda: ticks.append(1)))
    shared = 4 * 6 if (method, modality) == ("pooled whitened ridge", "voxels") else 0  # from embedding to embedding
    assert len(fits) - shared == said.ridges == len(ticks)
    assert max(len(made.gram) for made in fits) == said.size
    assert said.seconds > cost.costs_of([method], splits[0])[method].seconds
    assert cost.costs_of([method], splits[0].at(np.arange(0)), splits[1])[method].ridges == 0


def test_validation_images_of_one_embedding_choose_nothing():
    """Two names of one picture: every strength has the same score on them."""
    train, validation, test = planted("sensors", noise=4.0)
    pair = validation.at(np.flatnonzero(np.isin(validation.image_ids, ["validation0", "validation1"])))
    same = split_of(pair.recordings, pair.subjects, pair.image_ids, np.tile(pair.targets[:1], (len(pair), 1)))
    assert strengths.can_choose(pair) and not strengths.can_choose(same) and len(same.shown_ids) == 2
    for fit in (per_subject_ridge, closed_form):
        found, chosen = fit(train, same, test)
        expected, _ = fit(train, same.at(np.arange(0)), test)
        assert chosen["strength_by"] == BY_HELD_OUT
        np.testing.assert_array_equal(found, expected)


def of_categories(modality, n_images=4, n_rows=20):
    """Categories that the test shows again, `n_rows` recordings of each one by one; no validation."""
    rng = np.random.default_rng(3)
    shape = (5, 6) if modality == "sensors" else (60,)
    targets, maps = rng.standard_normal((n_images, 8)), rng.standard_normal((2, 8, int(np.prod(shape))))

    def split(n_rows):
        which, subjects = np.tile(np.arange(n_images), 2 * n_rows), np.repeat([0, 1], n_images * n_rows)
        signal = np.einsum("nd,ndp->np", targets[which], maps[subjects])
        values = (signal + 12 * rng.standard_normal(signal.shape)).astype(np.float32).reshape(-1, *shape)
        names = np.array([f"sub-{subject:02d}" for subject in subjects])
        return split_of(list(values), names, np.array([f"kind {k}" for k in which]), targets[which].astype(np.float32))

    train = split(n_rows)
    return train, train.at(np.arange(0)), split(10)


@METHODS
@MODALITIES
def test_categories_that_are_tested_are_not_held_out(method, fit, modality):
    """New recordings of known categories are what the test asks for: each is held out with its neighbours."""
    if method == "ridge, identity alignment" and modality == "voxels":
        pytest.skip("voxels have none")
    train, validation, test = of_categories(modality)
    predictions, chosen = fit(train, validation, test)
    assert (chosen["folds_over"], chosen["n_folds"], chosen["n_images"]) == ("recordings", 5, 4)
    assert chosen["held_out_two_way"] == pytest.approx(two_way(predictions, test), abs=0.12)
    folds = strengths.folds_of_rows(train, test).of_rows
    for subject in np.unique(train.subjects):
        for image in np.unique(train.image_ids):
            own = folds[(train.subjects == subject) & (train.image_ids == image)]
            assert np.array_equal(own, np.repeat(np.arange(5), 4))
    _, of_new = fit(train, validation, planted(modality)[2].at(np.arange(0)))
    assert of_new["folds_over"] == "images"


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_runs_are_held_out_where_there_are_any(modality, tmp_path):
    data = PreparedSet.open(write_runs(tmp_path / "set", modality, 5))
    train, test = data.split("train"), data.split("test")
    folds = strengths.folds_of_rows(train, test)
    runs = train.labels("run")["run"].to_numpy()
    first = train.rows_of("sub-01")  # the other subject has one run
    assert (folds.over, folds.count, folds.n_images) == ("runs", 4, 8)
    assert len({*zip(folds.of_rows[first].tolist(), runs[first].tolist(), strict=True)}) == 4
    _, chosen = closed_form(train, train.at(np.arange(0)), test)  # which reads small sets into memory
    assert (chosen["folds_over"], chosen["n_folds"], chosen["n_images"]) == ("runs", 4, 8)


def test_runs_are_numbered_at_random_whatever_their_size(tmp_path):
    data = PreparedSet.open(write_runs(tmp_path / "set", "fmri", 7))
    train = data.split("train", ["sub-01"])
    runs = train.labels("run")["run"].to_numpy()
    kept = np.flatnonzero((runs != "run-03") | (np.arange(len(runs)) % 4 == 0))  # which has fewer recordings
    np.testing.assert_array_equal(strengths.runs_of(train.at(kept)), strengths.runs_of(train)[kept])
    assert {*strengths.runs_of(train).tolist()} == {*range(6)}


def test_single_recordings_of_known_images_are_spread_over_folds():
    train, validation, _ = without_validation("sensors", rows=11)
    folds = strengths.folds_of_rows(train, train)
    assert folds.over == "recordings" and folds.count == 5
    assert np.ptp(np.bincount(folds.of_rows)) <= 1
    predictions, chosen = per_subject_ridge(train, validation, train)
    assert chosen["folds_over"] == "recordings" and np.isfinite(predictions).all()


@METHODS
@MODALITIES
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_recordings_changes_no_choice(method, fit, modality, scale):
    if method == "ridge, identity alignment" and modality == "voxels":
        pytest.skip("voxels have none")
    train, validation, test = without_validation(modality, noise=4.0)
    predictions, chosen = fit(train, validation, test)
    scaled = (split_of([(row * scale).astype(np.float32) for row in split.recordings], split.subjects,
                       split.image_ids, split.targets) for split in (train, test))  # fmt: skip
    fitted, asked = scaled
    others, choice = fit(fitted, fitted.at(np.arange(0)), asked)
    assert {k: v for k, v in choice.items() if "two_way" not in k and "entropy" not in k} == {
        k: v for k, v in chosen.items() if "two_way" not in k and "entropy" not in k
    }
    np.testing.assert_allclose(others, predictions, atol=2e-3 * np.abs(predictions).max())


def test_rows_that_choose_are_never_predicted_by_a_fit_to_them(monkeypatch):
    """Where predictions of all strengths are too many, those of the best are made again: by folds, as before."""
    train, validation, test = without_validation("voxels", noise=4.0)
    whole, chosen = pooled_whitened_ridge(train, validation, test)
    expected, by_form = closed_form(train, validation, test)
    monkeypatch.setattr(tried, "MAX_PATHS", 1)
    found, again = pooled_whitened_ridge(train, validation, test)
    np.testing.assert_allclose(found, whole, atol=1e-6)
    assert again == pytest.approx(chosen, abs=1e-6)
    found, again = closed_form(train, validation, test)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert again == pytest.approx(by_form, abs=1e-6)


@METHODS
@MODALITIES
def test_targets_that_are_all_the_same_leave_nothing(method, fit, modality):
    """Rounding would rank images; a subject who saw one image says nothing of others."""
    if method == "ridge, identity alignment" and modality == "voxels":
        pytest.skip("voxels have none")
    rng = np.random.default_rng(0)
    vector = np.repeat(rng.standard_normal((1, 8)).astype(np.float32), 1001, axis=0)
    assert not Targets(lambda part: vector[part], len(vector)).whole().any()
    train, validation, test = planted(modality)
    alike = split_of(
        train.recordings, train.subjects, train.image_ids, np.tile(unit(train.targets)[:1], (len(train), 1))
    )
    refused = {"closed form": "All training images have the same embedding"}
    if modality == "voxels":
        refused["pooled whitened ridge"] = "No subject has training images enough"
    if method in refused:
        with pytest.raises(DataError, match=refused[method]):
            fit(alike, validation, test)
        return
    predictions, _ = fit(alike, validation, test)
    assert not predictions.any() and two_way(predictions, test) == 0.5


@METHODS
@MODALITIES
@pytest.mark.parametrize("validated", [True, False])
def test_recordings_that_are_all_the_same_leave_nothing(method, fit, modality, validated):
    """Behind random layers they tell who was recorded, and rounding would rank images by that."""
    if method == "ridge, identity alignment" and modality == "voxels":
        pytest.skip("voxels have none")
    alike = [
        split_of([np.full_like(row, 0.1) for row in split.recordings], split.subjects, split.image_ids, split.targets)
        for split in planted(modality)
    ]
    train, validation, test = alike
    predictions, chosen = fit(train, validation if validated else validation.at(np.arange(0)), test)
    assert not predictions.any()
    assert chosen["validation_two_way" if validated else "held_out_two_way"] == 0.5
