"""Pictures and responses to them with a known relation, and the way from raw files to scores, at the command line."""

import json

import numpy as np
import yaml

from neural_clip.commands import main as cli

N_FEATURES = 27  # three by three patches of three colours


def features(concept, number):
    """Colours of the patches of a picture, -0.5 to 0.5: those of its concept, a little changed."""
    base = np.random.default_rng([41, *concept.encode()]).uniform(-0.4, 0.4, N_FEATURES)
    return base + np.random.default_rng([42, number, *concept.encode()]).uniform(-0.1, 0.1, N_FEATURES)


def picture(concept, number):
    """The picture, uint8 `(48, 48, 3)`."""
    patches = (255 * (features(concept, number) + 0.5)).astype(np.uint8).reshape(3, 3, 3)
    return patches.repeat(16, axis=0).repeat(16, axis=1)


def response(concept, number, n_chans, sfreq):
    """What one picture adds to a recording, `(n_chans, n_times)` from onset on: two patterns, one after the other."""
    times = np.arange(int(0.5 * sfreq)) / sfreq
    shown = features(concept, number)
    patterns = np.random.default_rng(43).standard_normal((2, n_chans, N_FEATURES)) @ shown  # (2, n_chans)
    courses = np.exp(-((times - np.array([[0.12], [0.2]])) ** 2) / (2 * 0.03**2))  # (2, n_times)
    return patterns.T @ courses


def recorded(n_chans, n_times, sfreq, events, size, seed):
    """Noise with responses, in units of the noise: `events` are `(sample, concept, number)`."""
    values = np.random.default_rng([44, seed]).standard_normal((n_chans, n_times))
    for sample, concept, number in events:
        added = size * response(concept, number, n_chans, sfreq)
        values[:, sample : sample + added.shape[1]] += added[:, : n_times - sample]
    return values


def scored(folder, prepare):
    """Prepare at a shell into `folder/set`, embed, train and evaluate; the first scores with an interval."""
    recipe = {
        "data": {"eeg": f"{folder}/set"}, "closed_form": True,
        "model": {"eeg": {"hidden_size": 8, "temporal_kernel_size": 5, "n_windows": 10, "dropout": 0.1}},
        "training": {
            "output_dir": f"{folder}/run", "num_train_epochs": 2, "per_device_train_batch_size": 128,
            "learning_rate": 0.003, "seed": 0, "use_cpu": True, "disable_tqdm": True,
        },
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    places = f"--checkpoint {folder}/run --data eeg={folder}/set --output-dir {folder}/report"
    for line in (
        f"prepare {prepare} --output-dir {folder}/set",
        f"embed-images {folder}/set --model neural_clip/tiny-clip",
        f"train {folder}/recipe.yaml",
        f"evaluate {places} --no-pictures --baselines none --no-controls",
    ):
        cli.main(line.split())
    report = json.loads((folder / "report" / "report.json").read_text())
    return next(entry for entry in records(report) if "two_way_interval" in entry)


def records(tree):
    """All objects of a report."""
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        if isinstance(value, dict):
            yield value
        yield from records(value)
