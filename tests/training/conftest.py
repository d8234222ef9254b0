"""A small recipe on two planted data sets."""

import pytest
import yaml

MODEL = {
    "eeg": {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 5, "dropout": 0.1},
    "fmri": {"alignment_size": 32, "num_hidden_layers": 0, "dropout": 0.1},
}


@pytest.fixture(scope="module")
def folders(ready_folders):
    return {name: ready_folders[name] for name in ("eeg", "fmri")}


@pytest.fixture
def recipe_file(folders, tmp_path):
    training = {"output_dir": str(tmp_path / "out"), "num_train_epochs": 2, "per_device_train_batch_size": 16}
    training |= {"learning_rate": 0.003, "seed": 5, "use_cpu": True, "disable_tqdm": True}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({"data": folders, "model": MODEL, "training": training}))
    return str(path)
