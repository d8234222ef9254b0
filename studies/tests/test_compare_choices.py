"""Tests of studies/compare_choices.py: objectives against slow oracles, augmentations, what is trained and kept."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

import choices
import compare_choices
from neural_clip.errors import DataError
from neural_clip.prepared.reader import PreparedSet
from paths import REPOSITORY
from planted_data import write_planted

IDS = torch.tensor([4, 7, 4, 1, 7])


@pytest.fixture
def output():
    generator = torch.Generator().manual_seed(3)
    neural, image = (functional.normalize(torch.randn(5, 6, generator=generator), dim=1) for _ in range(2))
    image = image[[0, 1, 0, 3, 1]]  # recordings of one image have one embedding
    return SimpleNamespace(neural_embeds=neural, image_embeds=image)


def slow_cross_entropy(scores, weights):
    return -sum(w * (s - math.log(sum(math.exp(t) for t in scores))) for s, w in zip(scores, weights, strict=True))


def similarities(output, scale):
    return [[scale * float(n @ i) for i in output.image_embeds] for n in output.neural_embeds]


def test_soft_targets_are_a_mixture_in_both_directions(output):
    found = choices.soft_targets(output, IDS, torch.tensor(math.log(3.0)), weight=0.2)
    logits = similarities(output, 3.0)
    total = 0.0
    for i in range(5):
        alike = [math.exp(float(output.image_embeds[i] @ output.image_embeds[j]) / 0.1) for j in range(5)]
        same = [float(IDS[i] == IDS[j]) for j in range(5)]
        targets = [0.8 * s / sum(same) + 0.2 * a / sum(alike) for s, a in zip(same, alike, strict=True)]
        total += slow_cross_entropy(logits[i], targets)
        total += slow_cross_entropy([logits[j][i] for j in range(5)], targets)
    assert float(found) == pytest.approx(total / 10, rel=1e-5)


def test_the_sigmoid_loss_asks_of_each_pair(output):
    found = choices.sigmoid_loss(output, IDS, torch.tensor(math.log(10.0)))
    logits = similarities(output, 10.0)
    total = 0.0
    for i in range(5):
        for j in range(5):
            sign = 1 if IDS[i] == IDS[j] else -1
            total += math.log1p(math.exp(-sign * (logits[i][j] - 10)))
    assert float(found) == pytest.approx(total / 5, rel=1e-5)


def test_the_sum_of_two_losses(output):
    scale = torch.tensor(1.0)
    found = choices.with_regression(output, IDS, scale, weight=0.5)
    apart = [float(((n - i) ** 2).sum()) for n, i in zip(output.neural_embeds, output.image_embeds, strict=True)]
    contrast = float(choices.with_regression(output, IDS, scale, weight=0.0))
    assert contrast > 0
    assert float(found) == pytest.approx(contrast + 0.5 * np.mean(apart), rel=1e-5)


def test_noise_has_half_the_standard_deviation_and_leaves_the_padding():
    torch.manual_seed(0)
    values = 3 * torch.randn(64, 500)
    values[:, 400:] = 0
    added = choices.noisy(values) - values
    assert float(added[:, 400:].abs().max()) == 0
    assert float(added[:, :400].std()) == pytest.approx(0.5 * float(values.std()), rel=0.02)


@pytest.mark.parametrize("shape", [(50, 40, 7), (50, 40)])
def test_channels_are_dropped_whole(shape):
    torch.manual_seed(2)
    found = choices.without_channels(torch.ones(shape)).reshape(50, 40, -1)
    assert torch.equal(found.amin(2), found.amax(2))
    assert 0.07 < float((found[:, :, 0] == 0).float().mean()) < 0.13


def test_partners_are_of_the_same_person():
    torch.manual_seed(4)
    subjects = torch.tensor([0, 2, 0, 1, 2, 2, 0])
    other = choices.partners(subjects)
    assert torch.equal(subjects[other], subjects) and sorted(other.tolist()) == list(range(7))
    assert other[3] == 3


def test_spatial_attention_weighs_sensors_by_place():
    places = torch.tensor([[0.05, 0.0, 0.05], [-0.05, 0.0, 0.05], [0.0, 0.05, 0.06], [0.0, -0.05, 0.06], [0, 0, 0.1]])
    torch.manual_seed(5)
    filters = torch.nn.Conv1d(5, 7, 1, bias=False)
    layer = choices.SpatialAttention(places, filters, n_frequencies=4)
    torch.nn.init.dirac_(filters.weight)
    out = layer.weight[:5, :, 0]  # the weights of the sums themselves
    assert torch.allclose(out.sum(1), torch.ones(5), atol=1e-6) and float(out.detach().min()) > 0
    flat = choices.azimuthal(places)
    flat = (flat - flat.amin(0)) / (flat.amax(0) - flat.amin(0))
    scores = []
    for x, y in flat.tolist():
        angles = [2 * math.pi * (k * x + m * y) for k in range(4) for m in range(4)]
        scores.append([math.cos(a) for a in angles] + [math.sin(a) for a in angles])
    expected = torch.softmax(layer.maps @ torch.tensor(scores).T, dim=1)
    assert torch.allclose(out, expected, atol=1e-5)
    torch.nn.init.normal_(filters.weight)
    assert torch.allclose(layer.weight[:, :, 0], filters.weight[:, :, 0] @ expected, atol=1e-5)
    layer.weight.square().sum().backward()
    assert layer.maps.grad.abs().max() > 0


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("choices")
    return {m: str(write_planted(root / m, m, n_subjects=2, repeats=2)) for m in ("eeg", "fmri")}


@pytest.mark.parametrize("name", ["BiMixCo", "SigLIP", "frozen alignment", "shift by 10 samples"])
def test_choices_train(folders, name):
    modality = choices.CHOICES[name].modalities[-1]
    found = compare_choices.train_choice(name, modality, PreparedSet.open(folders[modality]), 0, 2)
    assert found["epochs"] == 2 and found["gallery_size"] == 12 and found["n_queries"] == 48
    assert 0 <= found["two_way"] <= 1 and 0 <= found["top1"] <= 1


def weights_after(monkeypatch, folder, choice):
    """Norm of the alignment weights after training with a choice."""
    seen = {}

    class Spy(choices.ChoiceTrainer):
        def train(self, *arguments, **kwargs):
            super().train(*arguments, **kwargs)
            layers = self.model.encoders["fmri"].alignment.parameters()
            seen["norm"] = sum(float(weight.detach().square().sum()) for weight in layers if weight.ndim > 1)
            seen["decays"] = {group["weight_decay"] for group in self.optimizer.param_groups if group["params"]}

    with monkeypatch.context() as patch:
        patch.setattr(compare_choices, "ChoiceTrainer", Spy)
        compare_choices.train_choice(choice, "fmri", PreparedSet.open(folder), 0, 8)
    return seen


def test_alignment_layers_have_a_decay_of_their_own(folders, monkeypatch):
    plain = weights_after(monkeypatch, folders["fmri"], "demo")
    more = weights_after(monkeypatch, folders["fmri"], "alignment decay 1")
    none = weights_after(monkeypatch, folders["fmri"], "alignment decay 0")
    assert more["decays"] == {0.0, 0.1, 1.0} and plain["decays"] == {0.0, 0.1} and none["decays"] == {0.0, 0.1}
    assert more["norm"] < plain["norm"] < none["norm"]


@pytest.mark.slow
def test_results_are_kept_and_the_page_compares_with_the_same_seed(folders, tmp_path, monkeypatch):
    results, page = tmp_path / "choices.json", tmp_path / "choices.md"
    words = ["--data", f"fmri={folders['fmri']}", "--choices", "demo", "noise", "--seeds", "0", "--epochs", "2"]
    words += ["--results", str(results), "--page", str(page)]
    compare_choices.main(words)
    records = json.loads(results.read_text())["records"]
    assert [(r["choice"], r["seed"], r["simulated"]) for r in records] == [("demo", 0, True), ("noise", 0, True)]
    monkeypatch.setattr(compare_choices, "train_choice", lambda *arguments: pytest.fail("trained again"))
    compare_choices.main(words)
    assert json.loads(results.read_text())["records"] == records
    records[1]["two_way"], records[1]["top1"] = records[0]["two_way"] + 0.0125, records[0]["top1"] - 0.02
    shown = compare_choices.page(records)
    (line,) = [line for line in shown.splitlines() if line.startswith("| noise |")]
    assert "| +0.013 |" in line.replace("+0.012", "+0.013") and "| -2.0 |" in line
    assert all(words in " ".join(shown.split()) for words in ("simulated", "validation split"))


def test_the_committed_page_is_that_of_the_committed_results():
    records = json.loads(compare_choices.RESULTS.read_text())["records"]
    assert compare_choices.page(records) == (REPOSITORY / "docs" / "studies" / "choices.md").read_text()


def test_an_unknown_choice_is_refused(folders):
    with pytest.raises(DataError, match=r"'--choices'.*Allowed are.*got \['magic'\]"):
        compare_choices.main(["--data", f"fmri={folders['fmri']}", "--choices", "magic"])
