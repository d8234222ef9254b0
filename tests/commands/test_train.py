"""`train.py` and `neural-clip train` in real processes, in today's spelling and in the old one."""

import json

import pytest
import yaml
from safetensors.torch import load_file

from paths import REPOSITORY
from planted_data import ENCODER, write_planted
from second_process import python

TRAIN_PY = [str(REPOSITORY / "train.py")]
NEURAL_CLIP = ["-m", "neural_clip.commands.main", "train"]


def start(program, folder, *words):
    done = python(*program, *words, cwd=folder)
    told = [line for line in done.stderr.splitlines() if line.startswith(("warning: ", "error: "))]
    return done, [line for line in told if "told from chance" not in line]  # an epoch of such a network may


@pytest.mark.slow
def test_both_programs_in_both_spellings(tmp_path):
    data = write_planted(tmp_path / "eeg", "eeg", pixels=False, encoder=ENCODER | {"pooling": "precomputed"})
    model = {"eeg": {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 5}}
    training = {"output_dir": "elsewhere", "num_train_epochs": 9, "use_cpu": True, "disable_tqdm": True}
    (tmp_path / "mine").write_text(yaml.safe_dump({"data": {"meg": "none"}, "model": model, "training": training}))

    today = ["mine", "--data", "eeg=eeg", "--output-dir", "a", "--epochs", "1", "--batch-size", "16", "--seed", "3"]
    done, told = start(TRAIN_PY, tmp_path, *today)
    assert (done.returncode, told) == (0, []), done.stderr[-3000:]
    first = load_file(tmp_path / "a" / "model.safetensors")
    record = json.loads((tmp_path / "a" / "training.json").read_text())
    assert (
        record["recipe"]["data"] == {"eeg": "eeg"} and record["epochs"] == 1 and not (tmp_path / "elsewhere").exists()
    )

    done, told = start(NEURAL_CLIP, tmp_path, *today)
    assert done.returncode == 2 and "Pass `--resume` to go on or `--overwrite` to replace it." in told[0]

    before = ["mine", "--data", f"{{eeg: {data}}}", "--output_dir", "a", "--num_train_epochs", "1", "--seed", "3"]
    before += ["--per_device_train_batch_size", "16", "--overwrite", "true"]
    done, told = start(NEURAL_CLIP, tmp_path, *before)
    assert done.returncode == 0, done.stderr[-3000:]
    old = ["--output_dir", "--num_train_epochs", "--per_device_train_batch_size", "--overwrite true"]
    record = json.loads((tmp_path / "a" / "training.json").read_text())
    assert record["command"].startswith("neural-clip train mine --data '{eeg: ")  # as a shell reads it
    assert [line.split("'")[1] for line in told] == old and all(line.startswith("warning: ") for line in told)
    second = load_file(tmp_path / "a" / "model.safetensors")
    assert first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)

    done, told = start(
        TRAIN_PY, tmp_path, *today[:5], "--epochs", "2", "--batch-size", "16", "--seed", "3", "--resume"
    )
    assert (done.returncode, told) == (0, []), done.stderr[-3000:]
    assert json.loads((tmp_path / "a" / "training.json").read_text())["epochs"] == 2

    done, told = start(NEURAL_CLIP, tmp_path, *today[:5], "--output-dri", "b")
    assert done.returncode == 2 and told == [
        "error: Unknown key 'output_dri' in the recipe's 'training' section. Did you mean 'output_dir'? The recipe is "
        "'mine'."
    ]
