"""bfloat16 and `torch.compile` give the scores that float32 gives, to stated tolerances."""

import shutil

import numpy as np
import pytest
import torch
import yaml

from neural_clip import NeuralClipModel
from neural_clip.prepared.reader import PreparedSet, padded
from neural_clip.retrieval.scores import score_queries
from neural_clip.retrieval.uncertainty import bootstrap_interval
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from planted_data import READY, write_planted

pytestmark = pytest.mark.slow

MODEL = {
    "eeg": {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 5, "dropout": 0.1},
    "meg": {"encoder_type": "temporal_spatial", "hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 5},
    "fmri": {"alignment_size": 32, "num_hidden_layers": 1, "hidden_size": 32, "linear_path": True, "num_networks": 2},
}
COUNTS = {"train": 160, "validation": 20, "test": 100}
NOISE = {"eeg": 6.0, "meg": 6.0, "fmri": 16.0}  # 2-way between 0.6 and 0.98: where a difference would show
OF_TRAINING, OF_FORWARD = 0.02, 0.005  # largest difference of a 2-way accuracy


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("precision")
    return {
        m: str(write_planted(root / m, m, noise=NOISE[m], pixels=False, encoder=READY, counts=COUNTS)) for m in MODEL
    }


@pytest.fixture(scope="module")
def checkpoints(data, tmp_path_factory):
    """The same training in float32 and in bfloat16 by `Trainer`."""
    root = tmp_path_factory.mktemp("trained")
    training = {"num_train_epochs": 5, "per_device_train_batch_size": 64, "learning_rate": 0.003, "seed": 5}
    recipe = root / "recipe.yaml"
    recipe.write_text(
        yaml.safe_dump({"data": data, "model": MODEL, "training": training | {"use_cpu": True, "disable_tqdm": True}})
    )
    return {bf16: train(read_recipe([str(recipe), "--bf16", bf16, "--output_dir", str(root / bf16)]))
            for bf16 in ("false", "true")}  # fmt: skip


def embedded(forward, part, ids):
    """Unit vectors of a split in one batch."""
    with torch.no_grad():
        found = forward(torch.from_numpy(padded(part.values())), torch.from_numpy(ids)).float()
    return torch.nn.functional.normalize(found, dim=-1).numpy()


def two_way(embeds, part):
    """2-way accuracy of each recording."""
    return score_queries(embeds, part.gallery_embeds, part.image_ids, part.gallery_ids)["two_way"]


def split_of(model, folder):
    part = PreparedSet.open(folder).split("test")
    subjects = getattr(model.config, f"{part.modality}_config").subjects
    return part, np.array([subjects.index(name) for name in part.subjects])


@pytest.mark.parametrize("modality", MODEL)
def test_training_in_bfloat16_scores_as_in_float32(checkpoints, data, modality):
    found = {}
    for bf16, folder in checkpoints.items():
        model = NeuralClipModel.from_pretrained(folder).eval()
        part, ids = split_of(model, data[modality])
        scores = two_way(embedded(lambda values, of, m=model: m.features(modality, values, of), part, ids), part)
        found[bf16] = (scores.mean(), *bootstrap_interval(scores, part.image_ids, seed=0))
    (full, low, high), (half, half_low, half_high) = found.values()
    assert 0.6 < full < 0.98  # something was learnt, and more could have been
    assert abs(full - half) < OF_TRAINING
    assert low < half_high and half_low < high


@pytest.mark.parametrize("modality", MODEL)
def test_one_checkpoint_evaluated_in_bfloat16_and_compiled_scores_the_same(checkpoints, data, modality):
    model = NeuralClipModel.from_pretrained(checkpoints["false"]).eval()
    part, ids = split_of(model, data[modality])

    def plain(values, of):
        return model.features(modality, values, of)

    def in_bfloat16(values, of):
        with torch.autocast("cpu", torch.bfloat16):
            return model.features(modality, values, of)

    expected = embedded(plain, part, ids)
    half = embedded(in_bfloat16, part, ids)
    assert 1e-4 < np.abs(half - expected).max() < 0.05  # it was computed in bfloat16, and nearly the same
    assert abs(two_way(half, part).mean() - two_way(expected, part).mean()) < OF_FORWARD
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs g++ on the CPU, which is not installed.")
    subject = model.encoder(modality).config.subjects[0]
    rows = part.rows_of(subject)
    own = part.at(rows)
    compiled = torch.compile(model.for_subject(subject, modality), fullgraph=True)
    found = embedded(lambda values, of: compiled(values), own, ids[rows])
    assert np.abs(found - expected[rows]).max() < 1e-5
    assert abs(two_way(found, own).mean() - two_way(expected[rows], own).mean()) < 1e-4
