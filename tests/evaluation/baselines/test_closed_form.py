"""The closed form against slow computations of its own, and on targets that leave nothing to learn."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import Ridge

from kernel_ridge import KernelRidge
from neural_clip.errors import DataError
from neural_clip.evaluation.baselines import closed_form as module
from neural_clip.evaluation.baselines import closed_form_fit, inputs, strengths, tried, whitening
from neural_clip.evaluation.baselines import ridge as ridge_module
from neural_clip.evaluation.baselines.closed_form import (
    GAMMA,
    TEMPERATURES,
    choose,
    closed_form,
    cross_entropy,
    undoing,
    with_unit_targets,
)
from neural_clip.evaluation.baselines.closed_form_fit import fits
from neural_clip.evaluation.baselines.linear import per_subject_ridge
from neural_clip.evaluation.baselines.ridge import CholeskyRidge, Rows
from neural_clip.evaluation.baselines.strengths import image_folds
from neural_clip.evaluation.finished_parts import FinishedParts
from planted_data import split_of
from planted_splits import WIDTH, planted, two_way, unit
from slow_whitening import whitening_of
from tolerances import assert_same_outputs

pytestmark = pytest.mark.numerical


def assert_maps_predict(fit, alpha, split, expected):
    """The maps of all subjects, applied to their recordings by hand."""
    for name, passed in fit.inputs.items():
        weights, offset = fit.folded(name, alpha, np.eye(WIDTH))
        rows = split.of_subject(name)
        mixed = passed.spatial @ rows if hasattr(passed, "spatial") else rows
        made = mixed.reshape(len(rows), -1) @ weights + offset
        np.testing.assert_allclose(made, expected[split.subjects == name], atol=1e-4)


def test_voxels_of_each_subject_equal_sklearn():
    """Standardised by hand, ridge by scikit-learn, the covariance of the targets undone by its eigenvalues."""
    train, _, test = planted("voxels", noise=6.0)
    fit = next(fits(with_unit_targets(train)))
    found = fit.deviations(test, [0.3])[0]
    for name in np.unique(test.subjects):
        rows, targets = train.of_subject(name).astype(np.float64), unit(train.targets[train.subjects == name])
        mean, std = rows.mean(0), rows.std(0)
        scaled = (rows - mean) / std
        alpha = 0.3 * np.linalg.eigvalsh(scaled @ scaled.T).mean()
        ridge = Ridge(alpha=alpha, fit_intercept=False).fit(scaled, targets - targets.mean(0))
        expected = ridge.predict((test.of_subject(name) - mean) / std)
        np.testing.assert_allclose(found[test.subjects == name], expected, atol=1e-5)


def test_the_covariance_of_the_targets_is_undone_within_their_span():
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((30, 3)) @ rng.standard_normal((3, 6))  # rank 3 of 6
    targets = centred = targets - targets.mean(0)
    variances, directions = np.linalg.eigh(centred.T @ centred / 30)
    transform = undoing(targets)
    for variance, direction in zip(variances[-3:], directions.T[-3:], strict=True):
        np.testing.assert_allclose(transform @ direction, variance ** (-GAMMA / 2) * direction, atol=1e-8)
    np.testing.assert_allclose(transform @ directions[:, :3], 0, atol=1e-8)


def test_what_all_images_share_is_taken_out_of_predictions():
    """All of it where images share far more than they differ, and some where they share little."""
    rng = np.random.default_rng(0)
    for common, share in ((50.0, 1.0), (0.5, 0.25 / (0.25 + 1))):
        targets = rng.standard_normal((4000, 6)) + np.r_[common, np.zeros(5)]
        before, after = undoing(targets - targets.mean(0)), undoing(targets)
        np.testing.assert_allclose(after[:, 0], before[:, 0] * (1 - share), atol=0.03)
        np.testing.assert_allclose(after[:, 1:], before[:, 1:], atol=0.03)


def test_images_that_share_much_find_their_recordings_too():
    """As well as recordings find their images: no recording is the nearest to all of them."""
    rng = np.random.default_rng(3)
    splits = []
    images = unit(rng.standard_normal((170, WIDTH)) + 10 * unit(rng.standard_normal((1, WIDTH))))  # cosines near 0.9
    planted_map = rng.standard_normal((WIDTH, 40))
    for name, rows in (("train", slice(90)), ("validation", slice(90, 130)), ("test", slice(130, 170))):
        values = (images[rows] - images.mean(0)) @ planted_map * 4 + 0.5 * rng.standard_normal((len(images[rows]), 40))
        ids = np.array([f"{name}-{number:03d}" for number in range(len(values))])
        subjects = np.array(["sub-01"] * len(values))
        splits.append(split_of(list(values.astype(np.float32)), subjects, ids, images[rows], "fmri", name=name))
    cosines = unit(closed_form(*splits)[0]) @ unit(splits[2].targets).T  # one recording an image, in their order
    true = np.diag(cosines)
    from_recordings, from_images = ((cosines < true[:, None]).sum() / (40 * 39), (cosines < true).sum() / (40 * 39))
    assert from_recordings > 0.9 and from_images > from_recordings - 0.03


def test_cross_entropy_equals_a_softmax_by_hand():
    _, _, test = planted("voxels")
    rng = np.random.default_rng(1)
    predictions = test.targets + 2 * rng.standard_normal(test.targets.shape)
    ids = sorted(set(test.image_ids.tolist()))
    gallery = np.array([test.targets[test.image_ids.tolist().index(image_id)] for image_id in ids])
    cosines = unit(predictions) @ unit(gallery).T
    cosines = cosines - cosines.mean(1, keepdims=True)
    logits = cosines / cosines.std()
    own = [ids.index(image_id) for image_id in test.image_ids]
    expected = min(
        -log_softmax(temperature * logits, axis=1)[np.arange(len(own)), own].mean() for temperature in TEMPERATURES
    )
    assert cross_entropy(predictions, test) == pytest.approx(expected, abs=1e-6)
    assert cross_entropy(1000 * predictions, test) == pytest.approx(expected, abs=1e-6)  # lengths tell nothing
    assert expected < np.log(len(ids)) == pytest.approx(cross_entropy(0 * predictions, test))


@pytest.mark.parametrize("modality", ["sensors", "voxels"])
def test_what_recordings_pass_through_folds_into_weights(modality):
    """Weights and offset of every way, applied to recordings as they are, give its predictions."""
    train, validation, _ = planted(modality, coloured=modality == "sensors")
    ways = set()
    for fit in fits(train):
        ways.add(fit.way.name)
        expected = fit.deviations(validation, [0.1])[0]
        assert_maps_predict(fit, 0.1, validation, expected)
    whitened = "pooled" if modality == "sensors" else "per subject"
    expected = {f"{whitened}, whitened ({least})" for least in (0.01, 0.1, 0.3)} | {"per subject"}
    assert ways == expected | ({"pooled"} if modality == "sensors" else set())


def test_few_rows_choose_their_strength_without_the_validation_split():
    """By folds over images: no row helps to predict another of its image."""
    train, validation, _ = (with_unit_targets(split) for split in planted("sensors", noise=6.0))
    folds = image_folds(train.image_ids, module.N_FOLDS)
    assert all(len(set(folds[train.image_ids == image])) == 1 for image in set(train.image_ids))
    shuffled = validation.at(np.random.default_rng(0).permutation(len(validation)))
    wrong = split_of(list(shuffled.recordings), validation.subjects, validation.image_ids, validation.targets)
    strengths = module._folded_strengths(train, validation)
    allowed = {module.RELATIVE_ALPHAS[number] for number, _ in strengths.values()}
    assert len(strengths) == 5 and choose(train, validation)[0].relative_alpha in allowed
    assert choose(train, wrong)[0].relative_alpha in allowed
    assert choose(train, wrong)[0].strength_by == "5 folds over training images"


@pytest.mark.parametrize("modality", ["sensors", "voxels"])
def test_validation_images_that_are_trained_on_choose_alone(modality):
    """Few images in many repeats, divided by runs: what unseen images tell is about another question."""
    rng, splits = np.random.default_rng(0), []
    targets, shape = rng.standard_normal((12, WIDTH)).astype(np.float32), (5, 6) if modality == "sensors" else (60,)
    answers = rng.standard_normal((12, *shape))  # which no map of embeddings predicts
    for repeats in (6, 2, 4):
        images = np.tile(np.arange(12), repeats)
        recordings = (answers[images] + 2 * rng.standard_normal((len(images), *shape))).astype(np.float32)
        ids = np.array([f"image{number:02d}" for number in images])
        splits.append(split_of(list(recordings), np.full(len(images), "sub-01"), ids, targets[images]))
    train, validation, test = map(with_unit_targets, splits)
    assert module._folded_strengths(train, validation) == {}
    predictions, found = closed_form(train, validation, test)
    assert found["strength_by"] == "validation recordings"
    ridge, _ = per_subject_ridge(train, validation, test)
    assert two_way(predictions, test) > two_way(ridge, test) - 0.02 and two_way(ridge, test) > 0.7


def test_an_image_under_two_names_lies_in_one_fold(monkeypatch):
    """Each subject saw the same images, but the second one's have names of their own."""
    train, validation, _ = (with_unit_targets(split) for split in planted("sensors", n_subjects=2))
    renamed = np.where(train.subjects == "sub-01", np.char.add("twin of ", train.image_ids), train.image_ids)
    other = split_of(list(train.recordings), train.subjects, renamed, train.targets)
    assert len(other.shown_ids) == 2 * len(train.shown_ids)
    found = []
    monkeypatch.setattr(module, "_held_out", lambda split, folds: found.append(folds) or iter(()))
    for split in (train, other):
        module._folded_strengths(split, validation)
    assert np.array_equal(*found) and len(set(found[0])) == 5


@pytest.mark.parametrize("n_images", [2, 12])
def test_few_rows_choose_their_way_by_all_rows_that_were_held_out(n_images):
    """Each way's strength by folds, by hand; two validation images do not decide against the training images."""
    train, validation, _ = (with_unit_targets(split) for split in planted("sensors", noise=6.0))
    few = validation.at(np.flatnonzero(np.isin(validation.image_ids, validation.shown_ids[:n_images])))
    folds, transform = image_folds(train.image_ids, module.N_FOLDS), undoing(train.of_its_images().gallery_embeds)
    nats, on_few = {}, {}
    for fit in fits(train):
        held_out = np.empty((len(module.RELATIVE_ALPHAS), *train.targets.shape))
        for fold in range(module.N_FOLDS):
            fitted, left = train.at(np.flatnonzero(folds != fold)), train.at(np.flatnonzero(folds == fold))
            part = next(one for one in fits(fitted) if one.way == fit.way)
            undone = undoing(fitted.of_its_images().gallery_embeds)
            held_out[:, folds == fold] = part.deviations(left, module.RELATIVE_ALPHAS) @ undone
        entropies = [cross_entropy(path, train) for path in held_out]
        alpha = module.RELATIVE_ALPHAS[int(np.argmin(entropies))]
        on_few[fit.way] = cross_entropy(fit.deviations(few, [alpha])[0] @ transform, few)
        nats[fit.way, alpha] = len(train) * min(entropies) + len(few) * on_few[fit.way]
    best, _ = choose(train, few)
    assert (best.fit.way, best.relative_alpha) == min(nats, key=nats.__getitem__)
    assert best.cross_entropy == pytest.approx(on_few[best.fit.way])


def test_many_rows_choose_their_strength_on_the_validation_split(monkeypatch):
    train, validation, _ = (with_unit_targets(split) for split in planted("sensors", noise=6.0))
    monkeypatch.setattr(module, "MAX_FOLDED_ROWS", len(train) - 1)
    best, transform = choose(train, validation)
    entropies = {
        (fit.way, alpha): cross_entropy(path @ transform, validation)
        for fit in fits(train)
        for alpha, path in zip(module.RELATIVE_ALPHAS, fit.deviations(validation, module.RELATIVE_ALPHAS), strict=True)
    }
    assert (best.fit.way, best.relative_alpha) == min(entropies, key=entropies.__getitem__)
    assert best.cross_entropy == pytest.approx(min(entropies.values()))


@pytest.fixture(scope="module")
def wide():
    """Recordings of voxels and targets of many dimensions, and their folds."""
    rng = np.random.default_rng(4)
    targets = unit(rng.standard_normal((400, 384))).astype(np.float32)
    values = (targets @ rng.standard_normal((384, 30)) + rng.standard_normal((400, 30))).astype(np.float32)
    ids = np.array([f"image{number:03d}" for number in range(400)])
    train = split_of(list(values), np.array(["sub-01"] * 400), ids, targets, "fmri", name="train")
    return train, image_folds(ids, 5)


@pytest.fixture(scope="module")
def by_all_strengths(wide):
    """Way, strength and predictions by cross-validation, and the most memory that it took, in bytes."""
    return traced(module.choose_by_folds, *wide)


def traced(function, *given):
    """What a function returns, and the most memory that arrays took meanwhile, in bytes."""
    tracemalloc.start()
    try:
        return function(*given), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_undoing_a_covariance_copies_no_embeddings_whole():
    targets = np.random.default_rng(0).standard_normal((30_000, 64))
    assert traced(undoing, targets)[1] < 0.3 * targets.nbytes


def test_memory_holds_what_one_way_predicts_of_held_out_rows(wide, by_all_strengths):
    train, _ = wide
    path = 4 * len(module.RELATIVE_ALPHAS) * train.targets.size  # of one way, in float32
    assert len(list(fits(train))) == 4 and by_all_strengths[1] < 5 * path  # 8 for all ways in float64


def test_strengths_are_walked_where_predictions_take_much_memory(wide, by_all_strengths, monkeypatch):
    """Three at a time, to the same way and strength, with the same predictions."""
    (way, alpha, predictions), whole = by_all_strengths
    monkeypatch.setattr(module, "MAX_LOADED", len(module.RELATIVE_ALPHAS) * wide[0].targets.size - 1)
    asked, deviations = [], closed_form_fit.Fit.deviations
    monkeypatch.setattr(
        closed_form_fit.Fit, "deviations",
        lambda self, split, alphas: asked.append(len(alphas)) or deviations(self, split, alphas),
    )  # fmt: skip
    (found_way, found_alpha, found), less = traced(module.choose_by_folds, *wide)
    assert max(asked) == 3 and less < 0.75 * whole
    assert (found_way, found_alpha) == (way, alpha)
    # in float32, as products are: of fewer strengths at a time they have other last bits on some processors
    assert_same_outputs(found.astype(np.float32), predictions.astype(np.float32))


def test_the_spread_of_cosines_by_blocks_is_that_of_all(monkeypatch):
    train, _, _ = planted("voxels")
    whole = np.sqrt((module.centred_cosines(train.targets + 1, train) ** 2).mean())
    assert module.spread_of(train.targets + 1, train) == float(whole)
    monkeypatch.setattr(module, "MAX_CHUNK", 7 * len(train.shown_ids))
    assert len(module._blocks(train)) == 18
    assert module.spread_of(train.targets + 1, train) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(("sfreq", "factor"), [(1000.0, 4), (499.0, 1), (120.0, 1), (520.0, 2)])
def test_high_rates_are_averaged(sfreq, factor):
    values = np.random.default_rng(0).standard_normal((3, 2, 10)).astype(np.float32)
    split = split_of(values, np.array(list("aaa")), np.array(list("xyz")), np.eye(3), sfreq=sfreq)
    found = module.ready(split).values()
    n_times = 10 // factor
    for place in range(n_times):
        expected = values[:, :, place * factor : (place + 1) * factor].mean(axis=2)
        np.testing.assert_allclose(found[:, :, place], expected, atol=1e-6)
    assert found.shape == (3, 2, n_times)


def test_the_test_split_is_not_looked_at():
    train, validation, test = planted("sensors")
    _, chosen = closed_form(train, validation, test)
    reversed_rows = split_of(test.recordings[::-1], test.subjects[::-1], test.image_ids, test.targets * 0 + 1)
    assert closed_form(train, validation, reversed_rows)[1] == chosen


def test_targets_of_unequal_variance_are_told_apart_better():
    """Where images differ along one direction mostly, ridge follows it and the closed form does not."""
    splits = planted("voxels", noise=4.0)
    stretched = []
    for split in splits:
        targets = split.targets * np.array([6.0] + [1.0] * (WIDTH - 1))
        stretched.append(split_of(split.recordings, split.subjects, split.image_ids, targets))
    plain, _ = per_subject_ridge(*stretched)
    undone, _ = closed_form(*stretched)
    assert two_way(undone, stretched[2]) > two_way(plain, stretched[2]) + 0.02


@pytest.mark.parametrize("modality", ["sensors", "voxels"])
def test_few_images_and_targets_of_low_rank_give_numbers(modality):
    """Fewer images than folds, one subject, more dimensions than images, targets of rank 1."""
    train, validation, test = planted(modality, rows=4, n_subjects=1)
    predictions, _ = closed_form(train, validation, test)
    assert np.isfinite(predictions).all()
    line = [
        split_of(
            split.recordings, split.subjects, split.image_ids, split.targets[:, :1] * np.ones(WIDTH) + np.eye(WIDTH)[0]
        )
        for split in (train, validation, test)
    ]
    assert np.isfinite(closed_form(*line)[0]).all()


def test_equal_targets_are_refused():
    train, validation, test = planted("sensors")
    same = split_of(train.recordings, train.subjects, train.image_ids, np.ones_like(train.targets))
    with pytest.raises(DataError, match="All training images have the same embedding"):
        closed_form(same, validation, test)


@pytest.mark.parametrize("n_features", [30, 66, 90])  # 66: in features though these are more, as rows are 60
@pytest.mark.parametrize("least", [1.0, 0.1, 1 - 1e-5])
def test_ridge_by_blocks_equals_an_eigendecomposition_of_all_rows(n_features, least):
    """In rows and in features, as it is and whitened over features; float32 moves predictions by 1e-4 at most."""
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((60, WIDTH)).astype(np.float32)
    rows = rng.standard_normal((60, n_features)) * np.linspace(0.3, 3, n_features) + targets @ rng.standard_normal(
        (WIDTH, n_features)
    )
    rows = ((rows - rows.mean(0)) / rows.std(0)).astype(np.float32)
    white = (lambda part: part) if least == 1 else whitening_of(rows, targets, least)
    other = rng.standard_normal((20, n_features)).astype(np.float32)
    blocks, others = np.array_split(np.arange(60), 4), np.array_split(np.arange(20), 3)
    ridge = CholeskyRidge(Rows(lambda block: rows[block], blocks), targets, least)
    assert ridge.is_dual == (n_features == 90)
    whole = KernelRidge(white(rows).astype(np.float64), targets)
    found = ridge.deviations([Rows(lambda block: other[block], others)], module.RELATIVE_ALPHAS)[0]
    expected = whole.deviations(white(other), module.RELATIVE_ALPHAS)
    share = 1e-3 if n_features == 66 else 1e-4  # fewer rows than features leave the weakest ridge worse conditioned
    for one, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, wanted, atol=share * np.abs(wanted).max())
    np.testing.assert_allclose(other @ ridge.weights(1.0), found[6], atol=1e-4 * np.abs(found[6]).max())


@pytest.mark.parametrize("modality", ["sensors", "voxels"])
def test_the_size_of_blocks_changes_nothing(modality, monkeypatch):
    train, validation, _ = planted(modality, coloured=True)
    whole = {fit.way: (fit.deviations(validation, [0.1, 1.0]), fit) for fit in fits(train)}
    monkeypatch.setattr(whitening, "BLOCK_NUMBERS", 7 * 60)
    monkeypatch.setattr(closed_form_fit, "MAX_KEPT", 0)  # every ridge makes room for the next
    for fit in fits(train):
        expected, one = whole[fit.way]
        np.testing.assert_allclose(fit.deviations(validation, [0.1, 1.0]), expected, atol=1e-4)
        for name in fit.inputs:
            made, wanted = (each.folded(name, 1.0, np.eye(WIDTH)) for each in (fit, one))
            np.testing.assert_allclose(np.vstack(made), np.vstack(wanted), atol=1e-4)


def test_large_matrices_are_walked_to_the_lowest_cross_entropy(monkeypatch):
    train, validation, _ = (module.ready(split) for split in planted("sensors", noise=6.0))
    monkeypatch.setattr(module, "MAX_FOLDED_ROWS", 0)
    every, _ = choose(train, validation)
    for where in (strengths, tried):
        monkeypatch.setattr(where, "MAX_GRID_SIZE", 0)
    for fit in fits(train):
        found = tried.tried(fit, [validation]).scores
        assert 0 < len(found) < len(module.RELATIVE_ALPHAS)
        if fit.way.pooled:
            best = strengths.best_of(found)
            assert {best - 1, best + 1} & set(range(13)) <= set(found)
    walked, _ = choose(train, validation)
    assert (walked.fit.way, walked.relative_alpha) == (every.fit.way, every.relative_alpha)


def test_wide_sensors_are_reduced_over_time(monkeypatch):
    """Components that keep all variance change nothing; fewer are named, and fold into weights of all samples."""
    train, validation, _ = planted("sensors", coloured=True)
    exact = {replace(fit.way): fit.deviations(validation, [0.3])[0] for fit in fits(train)}
    monkeypatch.setattr(inputs, "MAX_FEATURES", 29)  # of 5 x 6
    for fit in fits(train):
        assert fit.way.name.endswith(", 5 temporal components") and fit.way.n_components == 5
        found = fit.deviations(validation, [0.3])[0]
        kept = replace(fit.way, n_components=0)
        assert 0.8 < np.corrcoef(found.ravel(), exact[kept].ravel())[0, 1] < 0.9999
        assert_maps_predict(fit, 0.3, validation, found)
        whole = closed_form_fit.fit_of(replace(fit.way, n_components=6), train)
        expected = exact[kept] if fit.way.whitened else by_channels(train, validation, fit.way.pooled, 0.3)
        np.testing.assert_allclose(whole.deviations(validation, [0.3])[0], expected, atol=1e-4)


def test_whitening_within_components_is_that_of_all_samples(monkeypatch):
    """Where these lie in a few directions over time, whose noise is very unequal; the white noise stays as large."""
    splits = planted("sensors", coloured=True)[:2]
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0][:, :3]
    few = (basis * [1, 0.3, 0.05]) @ basis.T
    for split in splits:
        for row in split.recordings:
            row[:] = row @ few
    train, validation = splits
    exact = {fit.way: fit.deviations(validation, [0.3])[0] for fit in fits(train) if fit.way.whitened}
    monkeypatch.setattr(inputs, "MAX_FEATURES", 19)  # of 5 x 6
    for fit in closed_form_fit.whitened_fits(train, [0.01, 0.1, 0.3]):
        expected = exact[replace(fit.way, n_components=0)]
        found = fit.deviations(validation, [0.3])[0]
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def by_channels(train, others, pooled, relative_alpha):
    """Ridge by scikit-learn on recordings each of whose channels is scaled by one number, which components keep."""
    found, subjects = np.empty((len(others), WIDTH)), np.unique(train.subjects)
    own = {name: train.of_subject(name).astype(np.float64) for name in subjects}
    centred = {name: rows - rows.mean(0) for name, rows in own.items()}
    if pooled:
        variance = np.concatenate(list(centred.values())).var((0, 2))
    for name in subjects:
        scale = (variance if pooled else centred[name].var((0, 2))) ** -0.5
        fitted = np.concatenate(list(centred.values())) if pooled else centred[name]
        rows = (fitted * scale[:, None]).reshape(len(fitted), -1)
        targets = train.targets if pooled else train.targets[train.subjects == name]
        alpha = relative_alpha * (rows**2).sum() / len(rows)
        ridge = Ridge(alpha=alpha, fit_intercept=False).fit(rows, targets - targets.mean(0))
        mine = (others.of_subject(name) - own[name].mean(0)) * scale[:, None]
        found[others.subjects == name] = ridge.predict(mine.reshape(len(mine), -1))
    return found


def test_temporal_components_are_those_of_scaled_channels(monkeypatch):
    """Against scikit-learn, on recordings whose channels have very different units."""
    train, _, _ = planted("sensors", coloured=True, n_subjects=2)
    for row in train.recordings:
        row *= np.array([1, 1e3, 1e-6, 1, 10], dtype=np.float32)[:, None]
    found = inputs.temporal_components(train, 3, FinishedParts())
    scaled = []
    for name in np.unique(train.subjects):
        rows = train.of_subject(name).astype(np.float64)
        rows -= rows.mean(0)
        scaled.append((rows / np.sqrt((rows**2).sum(2).mean(0))[None, :, None]).reshape(-1, 6))
    scaled = np.concatenate(scaled)
    expected = np.linalg.svd(scaled, full_matrices=False)[2][:3].T
    np.testing.assert_allclose(np.abs((found * expected).sum(0)), 1, atol=1e-4)


@pytest.mark.parametrize("least", [1.0, 0.1])
def test_folds_are_left_out_of_a_matrix_that_is_kept(monkeypatch, tmp_path, least):
    """The ridge of other folds, without reading their rows again."""
    train, validation, _ = planted("voxels", rows=100, n_subjects=2, noise=4.0)
    for row in train.recordings:
        row[3] = 0.5  # constant in all
    way = closed_form_fit.Way(False, least)
    left = np.flatnonzero(image_folds(train.image_ids, 4) == 1)
    remaining = closed_form_fit.fit_of(way, train.at(np.setdiff1d(np.arange(len(train)), left)))
    monkeypatch.setattr(inputs, "MAX_GRID_SIZE", 0)
    whole = closed_form_fit.fit_of(way, train, FinishedParts(tmp_path))
    for name in ("sub-00", "sub-01"):
        expected = remaining.paths(name, [validation], module.RELATIVE_ALPHAS)[0]
        remaining.forget()
        own = left[train.subjects[left] == name]
        made = whole.without(name, own, remaining)
        remaining.source = lambda subject, made=made: made
        found = remaining.paths(name, [validation], module.RELATIVE_ALPHAS)[0]
        for one, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, wanted, atol=1e-4 * np.abs(wanted).max())
        remaining.source = None
    dual = closed_form_fit.fit_of(way, train.at(np.arange(20)), FinishedParts(tmp_path))
    assert dual.without("sub-00", np.arange(3), remaining) is None


@pytest.mark.parametrize("reduced_to", [None, 5])
def test_matrices_that_are_kept_give_the_same_ridges(monkeypatch, tmp_path, reduced_to):
    """Of pooled sensors they are sums over people; nothing is read twice for them, by whatever baseline."""
    train, validation, _ = planted("sensors", coloured=True, noise=4.0)
    if reduced_to:
        monkeypatch.setattr(inputs, "MAX_FEATURES", 29)
    rng = np.random.default_rng(0)
    train = train.at(np.setdiff1d(np.arange(len(train)), np.arange(7)))  # people have unequal numbers of rows
    for name, row in zip(train.subjects, train.recordings, strict=True):
        row[2] = 0.5 if name == "sub-01" else row[2]  # a channel that is constant in one person
    layers = {name: rng.standard_normal((5, 5)).astype(np.float32) for name in np.unique(train.subjects)}

    def all_fits(parts):
        yield from fits(train, parts)
        yield from closed_form_fit.whitened_fits(train, [1.0], parts)
        yield closed_form_fit.aligned_fit(train, None, parts)
        yield closed_form_fit.aligned_fit(train, layers, parts)

    expected = {fit.name: fit.deviations(validation, [0.3, 10.0]) for fit in all_fits(FinishedParts())}
    assert len(expected) == 8
    monkeypatch.setattr(inputs, "MAX_GRID_SIZE", 0)
    read, rows_read = [], closed_form_fit.products_of
    monkeypatch.setattr(closed_form_fit, "products_of", lambda *a, **k: read.append(1) or rows_read(*a, **k))
    monkeypatch.setattr(ridge_module, "products_of", None)  # every ridge has its matrix from what is kept
    for n_read in (3, 0):  # once a person, then from the files
        read.clear()
        for fit in all_fits(FinishedParts(tmp_path)):
            found = fit.deviations(validation, [0.3, 10.0])
            np.testing.assert_allclose(found, expected[fit.name], atol=2e-4 * np.abs(expected[fit.name]).max())
        assert len(read) == n_read


@pytest.mark.parametrize("method", [closed_form, per_subject_ridge])
def test_more_rows_and_features_than_a_matrix_may_have_are_fitted_in_part(method, monkeypatch):
    splits = planted("voxels", n_subjects=1, noise=0.5)
    whole, chosen = method(*splits)
    assert "rows_fitted" not in chosen
    monkeypatch.setattr(ridge_module, "MAX_SIZE", 35)  # of 40 rows of 60 voxels
    predictions, chosen = method(*splits)
    assert chosen["rows_fitted"] == "at most 35 of each ridge"
    assert not np.allclose(predictions, whole) and two_way(predictions, splits[2]) > 0.9
    rows = splits[0].values()
    with pytest.raises(DataError, match="at most 35 training rows of more features, but got 40 rows of 60"):
        CholeskyRidge(Rows(lambda block: np.stack(rows)[block], [np.arange(40)]), splits[0].targets)


def test_voxels_of_a_very_large_matrix_are_not_whitened(monkeypatch):
    train, _, _ = planted("voxels", n_subjects=2)
    assert len(list(fits(train))) == 4
    monkeypatch.setattr(closed_form_fit, "MAX_WHITENED_SIZE", 39)
    assert [fit.way.name for fit in fits(train)] == ["per subject"]


@pytest.mark.parametrize("modality", ["sensors", "voxels"])
@pytest.mark.parametrize("what", ["channel", "recordings", "one person"])
def test_what_does_not_vary_gives_numbers(modality, what):
    """A constant channel or voxel, a person whose recordings are all alike, and a single such person."""
    splits = planted(modality, n_subjects=1 if what == "one person" else 2)
    for split in splits:
        for name, recording in zip(split.subjects, split.recordings, strict=True):
            if what == "channel":
                recording[1] = 1e4 + 0.1
            elif name == "sub-00":
                recording[:] = 0.1
    predictions, chosen = closed_form(*splits)
    assert np.isfinite(predictions).all() and np.isfinite(chosen["validation_cross_entropy"])
    assert (predictions != 0).any() == (what != "one person")


@pytest.mark.parametrize("looked_at", [1, 256])  # found by the ridge, and before
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_recordings_that_are_not_finite_are_refused(value, looked_at, monkeypatch):
    monkeypatch.setattr(strengths, "ROWS_LOOKED_AT", looked_at)
    train, validation, test = planted("voxels")
    train.recordings[-1][3] = value
    with pytest.raises(DataError, match="NaN or infinity"):
        closed_form(train, validation, test)
