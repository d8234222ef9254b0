"""The way from raw files to scores, at the command line."""

import json

import yaml

from neural_clip.commands import main as cli

MODELS = {
    "eeg": {"hidden_size": 8, "temporal_kernel_size": 5, "n_windows": 10, "dropout": 0.1},
    "fmri": {"alignment_size": 16, "num_hidden_layers": 0, "dropout": 0.1},
}


def scored(folder, prepare, modality="eeg", baselines="none", batch_size=128, protocol="strict"):
    """Prepare at a shell into `folder/set`, embed, train and evaluate; the first scores with an interval."""
    recipe = {
        "data": {modality: f"{folder}/set"}, "closed_form": True, "model": {modality: MODELS[modality]},
        "training": {
            "output_dir": f"{folder}/run", "num_train_epochs": 2, "per_device_train_batch_size": batch_size,
            "learning_rate": 0.003, "seed": 0, "use_cpu": True, "disable_tqdm": True,
        },
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    places = f"--checkpoint {folder}/run --data {modality}={folder}/set --output-dir {folder}/report"
    for line in (
        f"prepare {prepare} --output-dir {folder}/set",
        f"embed-images {folder}/set --model neural_clip/tiny-clip",
        f"train {folder}/recipe.yaml",
        f"evaluate {places} --no-pictures --baselines {baselines} --no-controls --protocol {protocol}",
    ):
        cli.main(line.split())
    report = json.loads((folder / "report" / "report.json").read_text())
    found = [one for one in records(report) if one.get("two_way") is not None and "two_way_interval" in one]
    return found[0]


def records(tree):
    """All objects of a report."""
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        if isinstance(value, dict):
            yield value
        yield from records(value)
