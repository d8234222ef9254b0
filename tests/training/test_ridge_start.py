"""The start of somebody new's fMRI layer, against a known network, scikit-learn and the start at random."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from kernel_ridge import KernelRidge
from neural_clip import NeuralClipConfig, NeuralClipModel
from neural_clip.evaluation.baselines import whitening
from neural_clip.evaluation.baselines.ridge import RELATIVE_ALPHAS
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.training import ridge_start
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.ridge_start import start_by_ridge, wanted_vectors
from neural_clip.training.trainer import validation_two_way
from planted_data import READY, WIDTH, planted_maps, voxels, write_planted

pytestmark = pytest.mark.numerical

PEOPLE = ["sub-01", "sub-02", "sub-03"]
SIZE = 24


def known_model(seed=0, nonlinear=True):
    """A model whose first two people are decoded as they were planted; the third's layer is random."""
    torch.manual_seed(seed)
    fmri = {"subjects": PEOPLE, "n_voxels": {name: voxels(n) for n, name in enumerate(PEOPLE)}}
    fmri |= {"alignment_size": SIZE, "hidden_size": 64, "num_hidden_layers": int(nonlinear)}
    model = NeuralClipModel(NeuralClipConfig(fmri_config=fmri, projection_dim=WIDTH)).eval()
    encoder, projection = model.encoders["fmri"], model.projections["fmri"]
    into = torch.linalg.qr(torch.randn(SIZE, WIDTH))[0]  # (SIZE, WIDTH), what aligned vectors are of embeddings
    maps = planted_maps("fmri", 3)
    with torch.no_grad():
        for name, planted in zip(PEOPLE[:2], maps, strict=False):
            layer = encoder.alignment.layers[name]
            layer.weight.copy_(into @ torch.linalg.pinv(torch.tensor(planted).float()).T)
            layer.bias.zero_()
        if nonlinear:  # relu(x) - relu(-x) = x, in directions of which nobody says which
            first = encoder.network[1]
            first.weight.zero_(), first.bias.zero_(), projection.weight.zero_()
            first.weight[:WIDTH], first.weight[WIDTH : 2 * WIDTH] = into.T, -into.T
            projection.weight[:, :WIDTH], projection.weight[:, WIDTH : 2 * WIDTH] = torch.eye(WIDTH), -torch.eye(WIDTH)
        else:
            projection.weight.copy_(into.T)
        projection.bias.zero_()
    return model, into


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start") / "fmri"
    data = PreparedSet.open(write_planted(folder, "fmri", n_subjects=3, pixels=False, encoder=READY, noise=2.0))
    train, validation = (RecordingDataset.open(data, split, PEOPLE) for split in ("train", "validation"))
    return train, validation


@pytest.mark.parametrize("nonlinear", [True, False])
def test_the_network_makes_of_wanted_vectors_what_was_wanted(nonlinear):
    model, _ = known_model(nonlinear=nonlinear)
    wanted = np.random.default_rng(1).standard_normal((50, WIDTH)).astype(np.float32)
    aligned = torch.tensor(wanted_vectors(model, PEOPLE[:2], wanted, seed=0)).float()
    with torch.no_grad():
        found = model.projections["fmri"](model.encoders["fmri"].network(aligned))
    assert torch.nn.functional.cosine_similarity(found, torch.tensor(wanted)).min() > 0.97
    again = wanted_vectors(model, PEOPLE[:2], 7 * wanted, seed=0)
    np.testing.assert_allclose(again, aligned.numpy(), rtol=1e-3, atol=1e-5)  # lengths do not matter


def test_networks_in_parallel_are_given_what_their_mean_needs():
    """Two networks, the second with another basis of aligned vectors; each part of the wanted vectors is its own."""
    single, into = known_model(nonlinear=False)
    fmri = single.config.fmri_config.to_diff_dict() | {"num_networks": 2}
    model = NeuralClipModel(NeuralClipConfig(fmri_config=fmri, projection_dim=WIDTH)).eval()
    turned = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(4)))[0]
    with torch.no_grad():
        for name in PEOPLE[:2]:
            known, layer = (m.encoders["fmri"].alignment.layers[name] for m in (single, model))
            layer.weight.copy_(torch.cat([known.weight, turned @ known.weight]))
            layer.bias.zero_()
        for projection, basis in zip(model.projections["fmri"], (into, turned @ into), strict=True):
            projection.weight.copy_(basis.T)
            projection.bias.zero_()
    wanted = np.random.default_rng(1).standard_normal((50, WIDTH)).astype(np.float32)
    aligned = torch.tensor(wanted_vectors(model, PEOPLE[:2], wanted, seed=0)).float()
    assert aligned.shape == (50, 2 * SIZE)
    with torch.no_grad():
        each = model.project("fmri", model.encoders["fmri"].network(aligned))
    for part in each:
        assert torch.nn.functional.cosine_similarity(part, torch.tensor(wanted)).min() > 0.97


def test_the_layer_is_ridge_regression_at_the_strength_that_validation_likes_best(parts):
    train, validation = parts
    model, _ = known_model()
    layer = model.encoders["fmri"].alignment.layers["sub-03"]
    before = [parameter.clone() for name, parameter in model.named_parameters() if "sub-03" not in name]
    own = ridge_start.of_subject(validation, 2)
    start = validation_two_way(model, own)
    start_by_ridge(model, "sub-03", PEOPLE[:2], train, validation, seed=0)
    after = [parameter for name, parameter in model.named_parameters() if "sub-03" not in name]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    weights, bias = layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()
    rows = np.flatnonzero(train.subject_ids == 2)
    batch = train.__getitems__(rows.tolist())
    inputs = batch["fmri_values"].numpy().astype(np.float64)
    wanted = wanted_vectors(model, PEOPLE[:2], batch["image_embeds"].numpy(), seed=0)
    centred = inputs - inputs.mean(axis=0)
    scale = np.linalg.eigvalsh(centred @ centred.T).mean()
    scores = []
    for alpha in RELATIVE_ALPHAS:
        ridge = Ridge(alpha=alpha * scale, solver="svd").fit(inputs, wanted)
        ridge_start.set_layer(layer, ridge.coef_.T, ridge.intercept_)
        scores.append(validation_two_way(model, own))
        if np.allclose(ridge.coef_, weights, rtol=1e-2, atol=1e-5):
            chosen = len(scores) - 1
            np.testing.assert_allclose(bias, ridge.intercept_, atol=1e-4)
    assert scores[chosen] == max(scores) and scores[chosen] not in scores[chosen + 1 :]
    assert scores[chosen] > max(0.85, start + 0.2)
    assert len(train.subject_ids) == 240 and len(validation.subject_ids) == 72  # what was given is as it was


def test_recordings_are_read_by_blocks_and_the_layer_is_that_of_float64(parts, monkeypatch):
    """Weights within 0.1 % of the largest, by a ridge that holds all rows in float64."""
    train, validation = parts
    read = []
    values = Split.values

    def watched(self, rows=slice(None)):
        read.append(len(np.arange(len(self))[rows]))
        return values(self, rows)

    monkeypatch.setattr(Split, "values", watched)
    monkeypatch.setattr(whitening, "BLOCK_ROWS", 7)
    model, _ = known_model()
    start_by_ridge(model, "sub-03", PEOPLE[:2], train, ridge_start.of_subject(validation, 2), seed=0)
    assert max(read) == max(7, (validation.subject_ids == 2).sum())  # the network is given all to be scored
    assert read.count(7) >= 2 * (80 // 7)
    layer = model.encoders["fmri"].alignment.layers["sub-03"]
    batch = train.__getitems__(np.flatnonzero(train.subject_ids == 2).tolist())
    wanted = wanted_vectors(model, PEOPLE[:2], batch["image_embeds"].numpy(), seed=0)
    exact = KernelRidge(batch["fmri_values"].numpy().astype(np.float64), wanted)
    found = layer.weight.detach().numpy().T
    fits = [exact.coefficients(alpha) for alpha in RELATIVE_ALPHAS]
    errors = [np.abs(weights - found).max() / np.abs(weights).max() for weights, _ in fits]
    assert min(errors) < 1e-3
    np.testing.assert_allclose(layer.bias.detach().numpy(), fits[int(np.argmin(errors))][1], atol=1e-3)


def test_of_more_recordings_than_a_matrix_may_have_so_many_are_fitted(parts, monkeypatch):
    train, validation = parts
    monkeypatch.setattr(ridge_start, "MAX_SIZE", 30)
    model, _ = known_model()
    start_by_ridge(model, "sub-03", PEOPLE[:2], train, validation, seed=0)
    assert validation_two_way(model, ridge_start.of_subject(validation, 2)) > 0.7
    assert len(ridge_start._rows_fitted(train.part)) == 30 and ridge_start._rows_fitted(train.part)[-1] == 239
