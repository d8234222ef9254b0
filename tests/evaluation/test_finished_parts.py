"""Parts of an evaluation that are kept, and evaluations that are killed and go on."""

import json
import signal

import numpy as np
import pytest
import torch

from neural_clip.commands.evaluate import main
from neural_clip.errors import DataError
from neural_clip.evaluation import run
from neural_clip.evaluation.baselines import ridge
from neural_clip.evaluation.baselines.rows import BASELINES
from neural_clip.evaluation.finished_parts import PARTS_DIR, FinishedParts
from neural_clip.evaluation.options import BASELINE_NAMES, EvaluateOptions
from neural_clip.evaluation.outputs import model_digest
from neural_clip.files import kept
from neural_clip.modeling_neural_clip import NeuralClipModel
from planted_data import write_planted
from saved_models import save_model
from second_process import python


def refuse():
    raise AssertionError("was computed again")


def test_parts_are_read_from_their_files(tmp_path):
    parts = FinishedParts(tmp_path / "kept", {"data": "a"})
    made = {"one": np.arange(6, dtype=np.float32).reshape(2, 3), "two": np.zeros((0, 4))}
    for compute in (lambda: made, refuse):
        found = parts.arrays("ridge of sub-01", compute)
        assert set(found) == set(made)
        for name, value in made.items():
            np.testing.assert_array_equal(found[name], value)
            assert found[name].dtype == value.dtype and found[name].shape == value.shape
    assert parts.finished("ridge of sub-01")["one"].sum() == 15 == parts.arrays("ridge of sub-01", refuse)["one"].sum()
    assert parts.finished("ridge of sub-02") is None
    record = {"score": 0.1 + 0.2, "none": None, "names": ["é"]}
    assert parts.record("controls", lambda: record) == record == parts.record("controls", refuse)
    for other in (parts.of(strength=1), FinishedParts(tmp_path / "kept", {"data": "b"})):
        with pytest.raises(AssertionError, match="computed again"):
            other.arrays("ridge of sub-01", refuse)
    parts.remove()
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("where", [0.02, 0.5, 0.99, None])
def test_a_damaged_part_is_computed_again(tmp_path, where):
    parts = FinishedParts(tmp_path, {})
    parts.arrays("x", lambda: {"x": np.arange(1000)})
    (path,) = tmp_path.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    if where is None:
        content = content[:-3]
    else:
        content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    assert parts.arrays("x", lambda: {"x": np.arange(5)})["x"].tolist() == [0, 1, 2, 3, 4]


def test_nothing_is_kept_without_a_folder():
    assert FinishedParts().finished("x") is None and FinishedParts().arrays("x", lambda: {"x": np.ones(1)})["x"] == 1
    FinishedParts().remove()


KILLED = """
import os, signal, sys
from neural_clip.commands.evaluate import main
from neural_clip.evaluation.baselines import ridge

fitted = ridge.CholeskyRidge.__init__
count = 0

def until(*arguments, **settings):
    global count
    count += 1
    if count == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    fitted(*arguments, **settings)

ridge.CholeskyRidge.__init__ = until
main(sys.argv[2:])
"""


def test_a_killed_evaluation_goes_on_and_ends_as_if_nothing_had_happened(tmp_path, monkeypatch):
    """Killed while it fits the second baseline; what is finished is not computed again."""
    data = write_planted(tmp_path / "eeg", "eeg", pixels=False)
    checkpoint = save_model(tmp_path / "model")
    fits = []
    fitted = ridge.CholeskyRidge.__init__
    monkeypatch.setattr(ridge.CholeskyRidge, "__init__", lambda *a, **k: fits.append(1) or fitted(*a, **k))
    words = ["--checkpoint", str(checkpoint), "--data", f"eeg={data}", "--no-pictures", "--no-controls",
             "--baselines", "ridge,identity", "random"]  # fmt: skip
    whole = main([*words, "--output-dir", str(tmp_path / "whole")])
    n_fits = len(fits)
    assert [row["method"] for row in whole["decoding"]["eeg"]["rows"][3::3]] == [
        "per-subject ridge", "ridge, identity alignment", "ridge, random alignment"
    ]  # fmt: skip
    program, out = tmp_path / "killed.py", tmp_path / "out"
    program.write_text(KILLED)
    done = python(program, n_fits, *words, "--output-dir", out)
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
    assert list((out / PARTS_DIR).glob("*.safetensors")) and not (out / "report.json").exists()
    fits.clear()
    again = main([*words, "--output-dir", str(out)])
    assert len(fits) == 1 < n_fits
    assert not (out / PARTS_DIR).exists() and not (tmp_path / "whole" / PARTS_DIR).exists()
    for report in (whole, again):
        for name in ("command", "sha256", "embeddings"):
            report.pop(name, None)
        report["data"]["eeg"].pop("folder")
        report["checkpoints"][0].pop("path")
    assert json.dumps(again, sort_keys=True) == json.dumps(whole, sort_keys=True)


def test_names_of_baselines():
    assert tuple(BASELINE_NAMES.values()) == tuple(name for name, _ in BASELINES)
    every = tuple(BASELINE_NAMES.values())
    assert EvaluateOptions().wanted_baselines == every == EvaluateOptions(baselines=True).wanted_baselines
    for nothing in (False, "none", ["none"]):
        assert EvaluateOptions(baselines=nothing).wanted_baselines == ()
    expected = ("per-subject ridge", "closed form", "ridge, random alignment")
    for some in ("ridge,closed_form,random", ["ridge", "closed_form,random"], ["random", "closed_form", "ridge"]):
        assert set(EvaluateOptions(baselines=some).wanted_baselines) == set(expected)
    with pytest.raises(DataError, match=r"'rigde'.*'ridge'"):
        EvaluateOptions(baselines="rigde")
    with pytest.raises(DataError, match="'all' or 'none' alone"):
        EvaluateOptions(baselines=["ridge", "none"])


def test_controls_of_other_options_are_computed_again(tmp_path, monkeypatch):
    """Parts stay, as those of an evaluation that is killed just before its report is written."""
    data = write_planted(tmp_path / "eeg", "eeg", pixels=False, counts={"train": 12, "validation": 4, "test": 8})
    model = NeuralClipModel.from_pretrained(save_model(tmp_path / "same layers"))
    torch.manual_seed(1)
    for name, weights in model.named_parameters():
        if ".alignment." in name:
            torch.nn.init.normal_(weights)
    model.save_pretrained(tmp_path / "model")
    words = ["--checkpoint", str(tmp_path / "model"), "--data", f"eeg={data}", "--no-pictures", "--baselines", "none"]
    out, others = tmp_path / "out", (["--gallery", "all"], ["--subject", "average"])
    expected = [main([*words, *more, "--output-dir", str(tmp_path / "whole")])["controls"] for more in others]
    monkeypatch.setattr(run.FinishedParts, "remove", lambda self: None)
    first = main([*words, "--output-dir", str(out)])["controls"]
    assert len(list((out / PARTS_DIR).glob("eeg-controls-shuffled-labels-*"))) == 1
    for more, controls in zip(others, expected, strict=True):
        assert controls != first, more
        assert main([*words, *more, "--output-dir", str(out)])["controls"] == controls, more


def test_parts_of_other_packages_are_computed_again(tmp_path, monkeypatch):
    data = write_planted(tmp_path / "eeg", "eeg", pixels=False, counts={"train": 12, "validation": 4, "test": 8})
    words = ["--checkpoint", str(save_model(tmp_path / "model")), "--data", f"eeg={data}", "--no-pictures",
             "--no-controls", "--baselines", "ridge", "--output-dir", str(tmp_path / "out")]  # fmt: skip
    fits = []
    fitted = ridge.CholeskyRidge.__init__
    monkeypatch.setattr(ridge.CholeskyRidge, "__init__", lambda *a, **k: fits.append(1) or fitted(*a, **k))
    monkeypatch.setattr(run.FinishedParts, "remove", lambda self: None)
    for package, n_fits in ((None, 2), (None, 0), ("numpy", 2), ("scipy", 2)):
        monkeypatch.setattr(kept, "version_of", lambda name, package=package: "0.1" if name == package else "0")
        fits.clear()
        main(words)
        assert len(fits) == n_fits, package


def test_whatever_is_loaded_of_a_checkpoint_is_in_its_digest(tmp_path):
    assert model_digest(tmp_path) is None is model_digest("org/name")
    known = set()
    for name in ("config.json", "model-00001-of-00002.safetensors", "pytorch_model.bin", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes(b"x")
        known.add(model_digest(tmp_path))
    assert len(known) == 4


def test_files_of_others_stay_when_parts_are_removed(tmp_path):
    parts = FinishedParts(tmp_path / "out" / PARTS_DIR)
    parts.arrays("x", lambda: {"x": np.arange(5)})
    mine = tmp_path / "out" / PARTS_DIR / "thesis.txt"
    mine.write_text("mine")
    parts.remove()
    assert list((tmp_path / "out" / PARTS_DIR).iterdir()) == [mine]
    mine.unlink()
    parts.arrays("x", lambda: {"x": np.arange(5)})
    (path,) = (tmp_path / "out" / PARTS_DIR).iterdir()
    path.with_name(path.name + ".partial").write_bytes(b"left by a kill")
    parts.remove()
    assert list((tmp_path / "out").iterdir()) == []
    FinishedParts(tmp_path / "out" / PARTS_DIR).remove()


def test_a_file_where_parts_would_lie_is_named(tmp_path):
    (tmp_path / PARTS_DIR).write_text("mine")
    with pytest.raises(DataError, match=f"{PARTS_DIR}' cannot be written: file exists"):
        FinishedParts(tmp_path / PARTS_DIR).arrays("x", lambda: {"x": np.arange(5)})
    FinishedParts(tmp_path / PARTS_DIR).remove()
    assert (tmp_path / PARTS_DIR).read_text() == "mine"
