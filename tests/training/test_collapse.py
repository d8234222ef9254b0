"""A network that says the same of every recording: it is told which modality, what was found and the likely cause."""

import json

import numpy as np
import pytest
import yaml

from neural_clip.errors import DataError
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.writer import write_prepared
from neural_clip.training.collapse import collapse_of, spread_of
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from planted_data import READY, split_of
from toy_sets import toy_facts

MEG = {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 5, "dropout": 0.1}


def some_split(n=12, scale=1.0, n_images=6, **facts):
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((n_images, 8)).astype(np.float32)
    rows = np.arange(n) % n_images
    values = scale * rng.standard_normal((n, 3, 5))
    return split_of(values, ["sub-01"] * n, [f"i{row}" for row in rows], targets[rows], "meg", **facts)


def test_collapse_needs_one_nearest_image_and_a_score_of_guessing():
    part = some_split()
    constant = np.tile(part.gallery_embeds[3], (len(part), 1))
    text = collapse_of(constant, part, 0.5)
    assert "embeddings of meg have collapsed: of 6 validation images 'i3' is the nearest one to each of 12" in text
    assert collapse_of(constant, part, 0.6) is None
    constant[0] = part.gallery_embeds[1]
    assert collapse_of(constant, part, 0.5) is None


def test_few_recordings_may_share_their_nearest_image_by_chance():
    part = some_split(n=4, n_images=4)
    assert collapse_of(np.tile(part.gallery_embeds[1], (4, 1)), part, 0.5) is None


def test_the_likely_cause_follows_the_values():
    small = spread_of(some_split(scale=1e-13, unit="T"))
    assert "deviation of 1e-13 T (scaling: none), but networks need about 1: prepare the data set again" in small
    assert "which networks train on" in spread_of(some_split())


def write_meg(folder, scale, **changes):
    """MEG that answers to its image, in units of `scale`."""
    rng = np.random.default_rng(1)
    embeds = rng.standard_normal((40, 16)).astype(np.float32)
    maps = rng.standard_normal((16, 3 * 20))
    images = [
        {"image_id": f"i{i}", "concept": f"c{i % 4}", "categories": [], "image_embeds": embeds[i]} for i in range(40)
    ]
    splits = ["train"] * 24 + ["validation"] * 8 + ["test"] * 8
    rows = [
        {"subject": "sub-01", "image_id": f"i{i}", "split": splits[i],
         "meg": scale * (embeds[i] @ maps + rng.standard_normal(60)).reshape(3, 20)}
        for i in range(40) for _ in range(4)
    ]  # fmt: skip
    return write_prepared(
        folder, toy_facts("meg", image_encoder=READY | {"projection_dim": 16}, **changes), rows, images
    )


def recipe_for(folder, tmp_path):
    training = {"output_dir": str(tmp_path / "out"), "num_train_epochs": 3, "per_device_train_batch_size": 16}
    training |= {"learning_rate": 0.003, "warmup_steps": 2, "disable_tqdm": True}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"data": {"meg": str(folder)}, "model": {"meg": MEG}, "training": training}))
    return str(path)


@pytest.mark.parametrize("scale", [1e-13, 1.0])
def test_recordings_in_tesla_are_told_of_while_training(tmp_path, capsys, scale):
    folder = write_meg(tmp_path / "meg", scale, unit="T")
    output = train(read_recipe([recipe_for(folder, tmp_path)]))
    said = capsys.readouterr().err
    record = json.loads((output / "training.json").read_text())
    if scale == 1.0:
        assert "collapsed" not in said and record["best_validation_two_way"] > 0.6
        return
    assert said.count("warning: after step ") == 1
    for part in ("embeddings of meg have collapsed", f"'{folder}'", "e-13 T (scaling: none)", "with a scaling"):
        assert part in said
    assert "warning: the embeddings of meg are collapsed in it" in said
    assert all(entry["eval_meg_collapsed"] == 1.0 for entry in record["validation"])


def test_embeddings_that_are_not_finite_stop_the_run(tmp_path):
    folder = write_meg(tmp_path / "meg", 1.0)
    with pytest.raises(DataError, match=r"Training diverged: loss or gradient of step \d+ is NaN.*smaller"):
        train(read_recipe([recipe_for(folder, tmp_path), "--learning_rate", "1e30", "--max_grad_norm", "0"]))


def test_the_spread_is_that_of_the_files(tmp_path):
    opened = PreparedSet.open(write_meg(tmp_path / "meg", 3.0))
    part = opened.split("validation")
    assert f"{np.std(part.values()):.2g}" in spread_of(part)
