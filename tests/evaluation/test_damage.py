"""Checkpoints that are damaged or not those of their record, numbers at their limits, and runs that are killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from folder_contents import contents
from forked import run_forked
from neural_clip.commands import main as cli
from neural_clip.commands.evaluate import main
from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.rows import BASELINES
from neural_clip.evaluation.checkpoints import load_model
from neural_clip.evaluation.outputs import read_report, why_not_of, write_outputs
from neural_clip.evaluation.run import evaluate_checkpoints
from neural_clip.files.record import RECORD_FILE, record_files
from neural_clip.files.whole import only_writer
from neural_clip.gallery.embedding import embed_split
from neural_clip.gallery.fit import check_prepared_alike
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.prepared.reader import PreparedSet
from neural_clip.processing_neural_clip import NeuralClipProcessor
from planted_data import PlantedModel, write_planted
from saved_models import save_model
from small_models import small_config

COUNTS = {"train": 14, "validation": 6, "test": 6}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint with its processor, in one file and in two, and a record."""
    root = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    model = NeuralClipModel(small_config())
    for name, options in {"whole": {}, "sharded": {"max_shard_size": "8KB"}}.items():
        model.save_pretrained(root / name, **options)
        NeuralClipProcessor.from_config(model.config).save_pretrained(root / name)
        names = [path.name for path in (root / name).iterdir() if path.suffix in (".json", ".safetensors")]
        (root / name / RECORD_FILE).write_text(json.dumps({"files": record_files(root / name, names)}))
    return root


@pytest.fixture(scope="module")
def eeg(tmp_path_factory):
    """A planted data set of few images."""
    return write_planted(tmp_path_factory.mktemp("data") / "eeg", "eeg", counts=COUNTS)


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def shard(folder):
    return sorted(folder.glob("model-*.safetensors"))[0]


def header_flipped(path):
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF
    path.write_bytes(content)


def tensor(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


DAMAGES = {
    "weights cut": ("whole", "model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-40])),
    "weights empty": ("whole", "model.safetensors", lambda path: path.write_bytes(b"")),
    "weights are text": ("whole", "model.safetensors", lambda path: path.write_text("<html>")),
    "header of the weights flipped": ("whole", "model.safetensors", header_flipped),
    "a tensor is missing": (
        "whole", "encoders.eeg.network.temporal.weight",
        lambda path: tensor(path.parent / "model.safetensors", lambda found: found.pop(path.name)),
    ),
    "a shard cut": ("sharded", "model-00001", lambda path: shard(path.parent).write_bytes(b"x" * 99)),
    "a shard is gone": ("sharded", "model-00001", lambda path: shard(path.parent).unlink()),
    "the index names no file": (
        "sharded", "model.safetensors.index.json",
        lambda path: edited(path, lambda found: found["weight_map"].update(logit_scale=[1])),
    ),
    "the index is a list": ("sharded", "model.safetensors.index.json", lambda path: path.write_text("[]")),
    "configuration cut": ("whole", "config.json", lambda path: path.write_bytes(path.read_bytes()[:90])),
    "configuration nested": ("whole", "config.json", lambda path: path.write_text('{"a":' * 100_000)),
    "channels as text": (
        "whole", "config.json", lambda path: edited(path, lambda found: found["eeg_config"].update(n_chans="5")),
    ),
    "encoders are a number": ("whole", "config.json", lambda path: edited(path, lambda f: f.update(eeg_config=7))),
    "a width of half": (
        "whole", "config.json", lambda path: edited(path, lambda f: f["eeg_config"].update(readout_size=1.5)),
    ),
    "a width that fills the memory": (
        "whole", "config.json", lambda path: edited(path, lambda f: f["fmri_config"].update(alignment_size=10**9)),
    ),
    "networks without end": (
        "whole", "config.json", lambda path: edited(path, lambda f: f["eeg_config"].update(num_networks=10**12)),
    ),
    "processor is a list": ("whole", "processor_config.json", lambda path: path.write_text("[1]")),
    "processor is Latin-1": ("whole", "processor_config.json", lambda path: path.write_bytes(b'{"a": "\xe9"}')),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_checkpoints_are_named_with_or_without_a_record(checkpoint, tmp_path, kind):
    which, name, damage = DAMAGES[kind]
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint / which, folder)
    damage(folder / name)

    def load():
        load_model(folder)
        check_prepared_alike(folder, [])

    def load_itself():  # as users do
        try:
            NeuralClipModel.from_pretrained(folder)
            NeuralClipProcessor.from_pretrained(folder)
        except (ValueError, OSError) as error:
            raise DataError(str(error)) from error

    with pytest.raises(DataError, match=str(folder)):
        load()  # by its record
    (folder / RECORD_FILE).unlink()
    for action in (load, load_itself):
        found = run_forked(action)
        assert isinstance(found.error, DataError) and found.megabytes < 500, found
        assert str(folder) in str(found.error) and name in str(found.error)


def test_weights_of_another_record_are_not_evaluated(checkpoint, eeg, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint / "whole", folder)
    tensor(folder / "model.safetensors", lambda found: found["logit_scale"].add_(1))
    with pytest.raises(DataError, match=r"model\.safetensors' is not the file that training\.json was written for"):
        evaluate_checkpoints({"model": folder}, [eeg], tmp_path / "out")
    (folder / RECORD_FILE).write_text("{")
    with pytest.raises(DataError, match=rf"{folder}/training\.json' is damaged"):
        main(["--checkpoint", str(folder), "--data", f"eeg={eeg}", "--output-dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_finite_are_named(tmp_path):
    folder = save_model(tmp_path / "model")
    tensor(folder / "model.safetensors", lambda found: found["projections.eeg.bias"].fill_(float("nan")))
    with pytest.raises(DataError, match=r"are not finite: 'projections\.eeg\.bias' holds NaN"):
        load_model(folder)


def test_half_precision_scores_as_full(eeg, tmp_path):
    """The embeddings of a checkpoint in 16 bits differ by its rounding alone, so its scores hardly do."""
    part = PreparedSet.open(eeg).split("test")
    full = embed_split(load_model(save_model(tmp_path / "full")), part).embeds
    for dtype, tolerance in ((torch.float16, 1e-3), (torch.bfloat16, 1e-2)):
        NeuralClipModel.from_pretrained(tmp_path / "full").to(dtype).save_pretrained(tmp_path / "half")
        half = embed_split(load_model(tmp_path / "half"), part).embeds
        assert half.dtype == np.float32 and ((half * full).sum(axis=1) > 1 - tolerance).all()


def test_a_model_of_zeros_scores_chance(eeg, tmp_path):
    folder = save_model(tmp_path / "model")
    tensor(folder / "model.safetensors", lambda found: [value.zero_() for value in found.values()])
    report = evaluate_checkpoints({"m": folder}, [eeg], tmp_path / "out", baselines=False, controls=False)
    row = report["decoding"]["eeg"]["rows"][0]
    assert (row["two_way"], row["two_way_interval"]) == (0.5, [0.5, 0.5])


@pytest.mark.parametrize(("factor", "fits"), [(1e-30, False), (1e-13, True), (1.0, True), (1e14, True), (1e18, False)])
def test_baselines_refuse_numbers_that_cannot_be_squared(eeg, factor, fits):
    data = PreparedSet.open(eeg)
    loaded = [data.split(name).loaded() for name in ("train", "validation", "test")]
    scaled = [replace(part, recordings=part.recordings * np.float32(factor)) for part in loaded]
    for _, fit in BASELINES:
        if fits:
            assert np.isfinite(fit(*scaled)[0]).all()
        else:
            with pytest.raises(DataError, match="of such numbers float32 holds no squares"):
                fit(*scaled)


def test_an_evaluation_is_not_written_into_its_data_or_over_a_file(eeg, tmp_path):
    folder = save_model(tmp_path / "model")
    with pytest.raises(DataError, match="lies in the data set"):
        evaluate_checkpoints({"m": folder}, [eeg], eeg / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="is a file; name a folder"):
        evaluate_checkpoints({"m": folder}, [eeg], tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(DataError, match="is a data set"):
        evaluate_checkpoints({"m": folder}, [eeg], eeg)


@pytest.mark.parametrize("place", ["model", "link", "state", "trained"])
def test_an_evaluation_is_not_written_beside_weights(eeg, tmp_path, place):
    folder = save_model(tmp_path / "model")
    shutil.copytree(folder, tmp_path / "state")
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / "training.json").write_text("{}")
    before = contents(tmp_path)
    for command in ("evaluate --checkpoint {0}/model --data eeg={1}", "demo"):
        with pytest.raises(DataError, match=rf"/{place}' is a checkpoint\. Choose another folder, such as '.*/report"):
            cli.main([*command.format(tmp_path, eeg).split(), "--output-dir", str(tmp_path / place)])
    assert contents(tmp_path) == before


def test_an_evaluation_into_the_working_directory(eeg, tmp_path, monkeypatch):
    folder = save_model(tmp_path / "model")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    evaluate_checkpoints({"m": folder}, [eeg], ".", baselines=False, controls=False, device="cpu")
    assert sorted(os.listdir()) == ["embeddings.npz", "report.json"] and sorted(os.listdir("..")) == ["model", "out"]


def test_one_process_at_a_time_evaluates_into_a_folder(eeg, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    words = ["--checkpoint", save_model(tmp_path / "model"), "--data", f"eeg={eeg}", "--output-dir", tmp_path / "link"]
    program = "import sys; from neural_clip.commands.main import entry; entry()"
    with only_writer(tmp_path / "out" / "report.json"):
        found = subprocess.run([sys.executable, "-c", program, "evaluate", *words], capture_output=True, text=True)
    assert found.returncode == 2 and f"Another process is writing '{tmp_path}/" in found.stderr
    hold = (
        "from neural_clip.files.whole import only_writer as o\nwith o('out/report.json'): print(flush=True); input()"
    )
    other = [sys.executable, "-c", hold]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        process.stdout.readline()
        with pytest.raises(DataError, match=r"Another process is writing '.*report\.json'"):  # from Python too
            evaluate_checkpoints({"m": tmp_path / "model"}, [eeg], tmp_path / "link")
        process.communicate("\n")


def killed_at(step, output_dir, report, splits):
    """Write an evaluation in a child that is killed at its n-th change of a name; whether it came so far."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def die(_, arguments):
            nonlocal count
            if _ in ("os.rename", "os.remove") and str(output_dir) in str(arguments[0]):
                count += 1
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        write_outputs(output_dir, report, splits)
        os._exit(0)
    return os.waitpid(pid, 0)[1] != 0


def test_a_kill_leaves_the_old_evaluation_or_the_new(eeg, tmp_path):
    """At every change of a name: the report that is read is whole, and no embeddings are taken for another's."""
    part = PreparedSet.open(eeg).split("test")
    splits = [{"eeg": embed_split(PlantedModel(("eeg",), number), part)} for number in (2, 3)]
    tables = {"format_version": 2, "decoding": {}, "encoding": {}, "conversion": [], "data": {}}
    seen, step = set(), 0
    while True:
        step += 1
        folder = tmp_path / str(step)
        write_outputs(folder, old := {**tables, "seed": 0}, splits[0])
        (folder / "report.md").write_text("of the old one")
        killed = killed_at(step, folder, {**tables, "seed": 1}, splits[1])
        found = read_report(folder)
        state = (found["seed"], bool(why_not_of(found, folder / "embeddings.npz")), (folder / "report.md").exists())
        assert state[0] == 0 or not state[2]  # never the old text beside the new numbers
        assert found == {"controls": {}} | old or found["seed"] == 1
        seen.add(state[:2])
        write_outputs(folder, {**tables, "seed": 1}, splits[1])
        assert not why_not_of(read_report(folder), folder / "embeddings.npz")
        if not killed:
            break
    assert step > 3 and (0, False) in seen and (1, False) in seen


def test_a_full_disk_leaves_the_old_evaluation(eeg, tmp_path, monkeypatch):
    part = PreparedSet.open(eeg).split("test")
    splits = {"eeg": embed_split(PlantedModel(("eeg",)), part)}
    tables = {"format_version": 2, "decoding": {}, "encoding": {}, "conversion": [], "data": {}}
    write_outputs(tmp_path / "out", {**tables, "seed": 0}, splits)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DataError, match="no space is left"):
        write_outputs(tmp_path / "out", {**tables, "seed": 1}, splits)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_here_is_named(tmp_path, device):
    with pytest.raises(DataError, match="Invalid value for the 'device' parameter"):
        evaluate_checkpoints({"a": tmp_path}, [], tmp_path / "out", device=device)
