"""A small recipe on two planted data sets, and a run of it."""

from pathlib import Path

import pytest
import yaml

from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train

MODEL = {
    "eeg": {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 5, "dropout": 0.1},
    "fmri": {"alignment_size": 32, "num_hidden_layers": 0, "dropout": 0.1},
}


@pytest.fixture(scope="module")
def folders(ready_folders):
    return {name: ready_folders[name] for name in ("eeg", "fmri")}


@pytest.fixture
def recipe_file(folders, tmp_path):
    return str(write_recipe(tmp_path, folders))


@pytest.fixture(scope="session")
def finished_run(ready_folders, tmp_path_factory):
    """Recipe and folder of a run of two epochs that kept both its states; whoever changes it copies it first."""
    root = tmp_path_factory.mktemp("finished")
    recipe = write_recipe(root, {name: ready_folders[name] for name in ("eeg", "fmri")}, save_total_limit=9)
    return str(recipe), train(read_recipe([str(recipe)]))


def write_recipe(folder: Path, data: dict[str, str], **settings: object) -> Path:
    """Write a recipe that trains into `out` of the same folder."""
    training = {"output_dir": str(folder / "out"), "num_train_epochs": 2, "per_device_train_batch_size": 16}
    training |= {"learning_rate": 0.003, "seed": 5, "use_cpu": True, "disable_tqdm": True, **settings}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"data": data, "model": MODEL, "training": training}))
    return path


@pytest.fixture(scope="session")
def new_recipe():
    """[`write_recipe`], for fixtures and tests that choose the data sets."""
    return write_recipe
