"""One command from recordings to a page: what it makes, how it goes on, and what it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from custom_raw import eeg_manifest, patterns, write_manifest
from edge_sets import CASES, embeddings, rows, write_set
from folder_contents import contents
from killed_command import KILLED
from neural_clip.commands import main as cli
from neural_clip.errors import DataError
from neural_clip.files.record import sealed
from neural_clip.files.whole import sha256_of
from neural_clip.prepared.reader import PreparedSet
from neural_clip.targets.tiny_clip import TINY_CLIP, TINY_CLIP_DIR
from neural_clip.training.run_state import is_finished
from neural_clip.workflow.options import RunOptions
from neural_clip.workflow.record import OUTPUTS, begin
from neural_clip.workflow.run import Workflow
from neural_clip.workflow.sources import open_sources
from planted_data import READY, write_planted
from second_process import python

EEG = {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 5, "dropout": 0.1}
RECIPE = {
    "data": {"eeg": "x"}, "model": {"eeg": EEG, "fmri": {"alignment_size": 8, "num_hidden_layers": 0}},
    "training": {"output_dir": "x", "num_train_epochs": 2, "per_device_train_batch_size": 16, "learning_rate": 0.003,
                 "seed": 5, "use_cpu": True, "disable_tqdm": True},
}  # fmt: skip
RUN = ["run", "manifest.yaml", "--output-dir", "out", "--recipe", "recipe.yaml", "--model", TINY_CLIP]


def write_inputs(folder, **changes):
    """A manifest of EEG of two subjects with pictures, and a small recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder, eeg_manifest(folder, **{"scaling": "train"} | changes)[0])
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run in a process of its own that nothing disturbed: the folder, and what was printed."""
    folder = write_inputs(tmp_path_factory.mktemp("finished") / "work")
    done = python("-m", "neural_clip.commands.main", *RUN, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done


@pytest.fixture(scope="module")
def finished(first):
    """Its folder, with inputs and outputs."""
    return first[0]


@pytest.fixture
def work(finished, tmp_path, monkeypatch):
    """A copy of it, times of files included, as working directory."""
    folder = shutil.copytree(finished, tmp_path / "work")
    monkeypatch.chdir(folder)
    return folder


def made(folder):
    """What a run makes that is the same each time: data, weights, scores, text and pictures."""
    report = json.loads((folder / "evaluation" / "report.json").read_text())
    files = [*(folder / "data").rglob("*"), *(folder / "checkpoint").glob("*.safetensors"), folder / "run.json"]
    files += [*(folder / "evaluation").rglob("*.png")]
    digests = {str(path.relative_to(folder)): sha256_of([path]) for path in files if path.is_file()}
    lines = (folder / "evaluation" / "report.md").read_text().splitlines()
    text = [line for line in lines if not line.startswith("* command:")]
    return digests | {name: report[name] for name in ("decoding", "encoding", "data", "checkpoints")} | {"text": text}


def steps_in(said):
    """The lines that announce steps, without times."""
    return [line.partition("] ")[2] for line in said.splitlines() if "] step " in line]


def steps_of(capsys):
    """Those of the last command."""
    return steps_in(capsys.readouterr().err)


@pytest.mark.slow
def test_it_makes_what_the_single_commands_make(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(finished)
    data, checkpoint, scores = (str(tmp_path / name) for name in ("data", "checkpoint", "scores"))
    cli.main(["prepare", "custom", "manifest.yaml", "--output-dir", data])
    cli.main(["embed-images", data, "--model", TINY_CLIP])
    cli.main(["train", "recipe.yaml", "--data", f"eeg={data}", "--output-dir", checkpoint])
    cli.main(["evaluate", "--checkpoint", checkpoint, "--data", f"eeg={data}", "--output-dir", scores])
    assert contents(data) == contents(finished / "out" / "data" / "eeg")
    for name in ("model.safetensors", "processor_config.json", "scaling.safetensors"):
        ours = finished / "out" / "checkpoint" / name
        assert Path(checkpoint, name).read_bytes() == ours.read_bytes()
    reports = [json.loads(Path(folder, "report.json").read_text()) for folder in (scores, finished / "out/evaluation")]
    assert reports[0]["decoding"] == reports[1]["decoding"] and reports[0]["controls"] == reports[1]["controls"]
    assert {row["method"] for row in reports[1]["decoding"]["eeg"]["rows"]} > {"neural_clip", "per-subject ridge"}


def test_it_says_what_it_does_and_where_all_lies(first, work, capsys):
    done = first[1]
    names = ["prepare", "embed images", "examine the data (doctor)", "train", "evaluate", "report"]
    steps = [f"step {number} of 6: {name}" for number, name in enumerate(names, 1)]
    assert steps_in(done.stderr) == steps
    assert "Table 1. Decoding, test split, single trial" in done.stdout
    for line in ("page:       out/evaluation/report.html", "checkpoint: out/checkpoint", "data:       out/data/eeg"):
        assert line in done.stdout.splitlines()
    report = json.loads(Path("out/evaluation/report.json").read_text())
    assert report["command"].startswith("neural-clip run manifest.yaml --output-dir out --recipe recipe.yaml")
    cli.main(RUN)
    assert steps_of(capsys) == [f"{step} (done before)" for step in steps]


def test_streamed_it_goes_on_to_the_same_end(finished, work, monkeypatch, capsys):
    """What was made without `--streaming` stays; training and evaluation are made again, and copy no recording."""
    for name in ("checkpoint", "evaluation"):
        shutil.rmtree(work / "out" / name)
    monkeypatch.setattr(PreparedSet, "_of_subject", lambda *_: pytest.fail("recordings were written as Arrow"))
    cli.main([*RUN, "--streaming"])
    assert [step.endswith("(done before)") for step in steps_of(capsys)] == [True] * 3 + [False] * 3
    reports = []
    for folder in (work, finished):
        reports.append(json.loads((folder / "out" / "evaluation" / "report.json").read_text()))
    for name in ("decoding", "encoding", "controls"):
        assert reports[0][name] == reports[1][name], name
    recipe = json.loads((work / "out" / "checkpoint" / "training.json").read_text())["recipe"]
    assert recipe["streaming"] is True


MOMENTS = [
    ("out/run.json", 1), ("out/data/eeg", 1), ("000000000.npz", 1), ("/eeg.replaced", 1), ("out/data/eeg", 1),
    ("doctor.json", 1), ("checkpoint-1/files.json", 2), ("checkpoint-2/files.json", 2), ("out/checkpoint", 1),
    ("evaluation/report.json", 1), ("report.html", 1),
]  # fmt: skip


@pytest.mark.slow
def test_killed_at_any_step_it_goes_on_to_the_same_end(finished, tmp_path, monkeypatch):
    """One run is killed again and again, each time further on."""
    folder = tmp_path / "work"
    shutil.copytree(finished, folder, ignore=lambda path, names: [name for name in names if name == "out"])
    monkeypatch.chdir(folder)
    for end, times in MOMENTS:
        done = python("-c", KILLED, end, times, *RUN)
        assert done.returncode == -signal.SIGKILL, (end, done.stderr[-2000:])
    cli.main(RUN)
    assert made(folder / "out") == made(finished / "out")
    assert sorted(os.listdir("out")) == ["checkpoint", "data", "evaluation", "run.json"]
    assert sorted(os.listdir("out/data")) == ["doctor.json", "eeg"]


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_the_program_stopped_from_outside_goes_on(finished, tmp_path, sent):
    folder = tmp_path / "work"
    shutil.copytree(finished, folder, ignore=lambda path, names: [name for name in names if name == "out"])
    program = [sys.executable, "-m", "neural_clip.commands.main", *RUN]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = subprocess.Popen(program, cwd=folder, **pipes)
    while not is_finished(folder / "out" / "checkpoint.partial" / "checkpoint-1"):
        assert running.poll() is None, running.communicate()[0][-3000:]
        time.sleep(0.001)
    running.send_signal(sent)
    said, _ = running.communicate(timeout=300)
    if sent == signal.SIGINT:
        assert running.returncode == 130 and "Traceback" not in said, said[-6000:]
        assert "stopped in step 4 of 6: train. What is whole stays; the same command goes on from there." in said
    again = subprocess.run(program, cwd=folder, **pipes, timeout=300)
    assert again.returncode == 0 and "going on from step" in again.stdout, again.stdout[-3000:]
    assert made(folder / "out") == made(finished / "out")


# What was made from something else.


def change_manifest(folder):
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    write_manifest(folder, manifest | {"scaling": "none"})


def comment(folder):
    path = folder / "manifest.yaml"
    path.write_text(f"# mine\n{path.read_text()}")


def touch(name):
    return lambda folder: os.utime(folder / name, ns=(0, 0))


CHANGED = [
    (["--epochs", "3"], None, "training.num_train_epochs was 2 and is 3", "checkpoint and evaluation"),
    (["--seed", "6"], None, "training.seed was 5 and is 6", "checkpoint and evaluation"),
    (["--folds", "3"], None, "folds was 0 and is 3", "checkpoint and evaluation"),
    (["--gallery", "all"], None, "the gallery was not given and is all", "evaluation"),
    (["--recipe", "base"], None, "model.eeg.decimation was not given and is 4", "checkpoint and evaluation"),
    ([], change_manifest, "the eeg manifest has changed", "data and checkpoint and evaluation"),
    ([], touch("1-epo.fif"), "'1-epo.fif' (eeg) has changed", "data and checkpoint and evaluation"),
    ([], touch("stimuli/cats/im01.png"), "'stimuli' (eeg) has changed", "data and checkpoint and evaluation"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "change", "told", "concerns"), CHANGED, ids=[told for _, _, told, _ in CHANGED])
def test_what_was_made_from_something_else_is_not_taken(work, words, change, told, concerns):
    if change:
        change(work)
    before = contents(work)
    with pytest.raises(DataError) as caught:
        cli.main([*RUN, *words])
    message = str(caught.value)
    assert told in message and f"It concerns {concerns}." in message and "pass `--overwrite`" in message
    assert contents(work) == before


def test_a_comment_in_the_manifest_changes_nothing(work, capsys):
    comment(work)
    cli.main(RUN)
    assert all(step.endswith("(done before)") for step in steps_of(capsys))


def test_overwrite_makes_what_differs_anew_and_nothing_else(work, capsys):
    before = made(work / "out")
    cli.main([*RUN, "--seed", "6", "--overwrite"])
    assert [step.endswith("(done before)") for step in steps_of(capsys)] == [True] * 3 + [False] * 3
    after = made(work / "out")
    kept = {name for name in before if name.startswith("data/")}
    assert {name for name in before if before[name] == after[name]} >= kept
    assert before["checkpoint/model.safetensors"] != after["checkpoint/model.safetensors"]
    assert sorted(os.listdir("out")) == ["checkpoint", "data", "evaluation", "run.json"]


@pytest.mark.slow
def test_overwrite_of_the_same_begins_anew(work, capsys):
    before = made(work / "out")
    cli.main([*RUN, "--overwrite"])
    assert not any(step.endswith("(done before)") for step in steps_of(capsys))
    assert made(work / "out") == before


@pytest.mark.slow
def test_what_is_replaced_stays_until_its_successor_stands(work, monkeypatch):
    """Killed while the second model is trained; then the first is asked for once more, and then the second."""
    first = made(work / "out")
    second = [*RUN, "--seed", "6", "--overwrite"]
    assert python("-c", KILLED, "checkpoint-1/files.json", 2, *second).returncode == -signal.SIGKILL
    assert sha256_of([work / "out/replaced-1/checkpoint/model.safetensors"]) == first["checkpoint/model.safetensors"]
    assert (work / "out/replaced-1/evaluation/report.json").is_file()
    with pytest.raises(DataError, match=r"training\.seed was 6 and is 5.*It concerns checkpoint\. Give"):
        cli.main(RUN)
    cli.main(second[:-1])  # goes on: it was asked to overwrite before
    assert made(work / "out")["checkpoint/model.safetensors"] != first["checkpoint/model.safetensors"]
    assert sorted(os.listdir("out")) == ["checkpoint", "data", "evaluation", "run.json"]


@pytest.mark.slow
def test_a_state_of_other_settings_is_not_gone_on_from(work):
    """Both trainings are killed; the second must not go on from the first one's state."""
    expected = made(work / "out")
    shutil.rmtree("out")
    for seed in ("6", "5"):
        killed = python("-c", KILLED, "checkpoint-2/files.json", 2, *RUN, "--seed", seed, "--overwrite")
        assert killed.returncode == -signal.SIGKILL
    cli.main([*RUN, "--seed", "5"])
    assert made(work / "out") == expected


# Damage.


def test_a_damaged_output_is_named_and_not_replaced_unasked(work, capsys):
    (weights,) = Path("out/checkpoint").glob("model.safetensors")
    rows = next(Path("out/data/eeg/data").rglob("train-*.parquet"))
    for path, step in ((weights, "step 4 of 6: train"), (rows, "step 1 of 6: prepare")):
        whole = path.read_bytes()
        path.write_bytes(whole[:-20] + b"0" * 20)
        with pytest.raises(DataError, match=path.name):
            cli.main(RUN)
        if path == weights:
            assert f"stopped in {step}. What is whole stays;" in capsys.readouterr().err
        path.write_bytes(whole)
    record = Path("out/run.json")
    record.write_text(record.read_text().replace('"training.seed": 5', '"training.seed": 6'))
    with pytest.raises(DataError, match=r"run\.json' was changed since it was written.*`--overwrite` begins anew"):
        cli.main([*RUN, "--seed", "6"])
    assert not Path("out/replaced-1").exists()


@pytest.mark.slow
def test_a_damaged_run_is_made_anew_where_that_is_asked_for(work):
    before = made(work / "out")
    for path in (Path("out/run.json"), next(Path("out/data/eeg/data").rglob("train-*.parquet"))):
        path.write_bytes(b"damaged")
    cli.main([*RUN, "--overwrite"])
    assert made(work / "out") == before


@pytest.mark.parametrize("name", ["evaluation", "evaluation/report.html", "checkpoint", "evaluation/embeddings.npz"])
def test_what_was_removed_is_made_again(work, name, capsys):
    before = made(work / "out")
    path = Path("out", name)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    cli.main(RUN)
    assert made(work / "out") == before


def test_a_checkpoint_of_other_data_is_told(work):
    facts = Path("out/checkpoint/training.json")
    record = json.loads(facts.read_text())
    record.pop("sha256", None)
    record["data"]["eeg"]["fingerprint"] = "0" * 64
    facts.write_text(json.dumps(record))
    with pytest.raises(DataError, match="checkpoint' was trained on other data sets than those that stand here"):
        cli.main(RUN)


# What is refused before anything is written.


def test_a_record_knows_an_image_encoder_by_its_name_and_weights_wherever_it_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(write_inputs(tmp_path / "work"))
    shutil.copytree(TINY_CLIP_DIR, "clip")
    found = [
        Workflow(open_sources(["manifest.yaml"], Path("out")), Path("out"), RunOptions(model=model), "").made_from()
        for model in ("clip", str(tmp_path / "work" / "clip"))
    ]
    assert found[0] == found[1] and str(tmp_path) not in json.dumps(found)
    assert found[0]["data"]["the image encoder"] == "clip"


def test_an_image_encoder_that_is_not_to_be_had_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(write_inputs(tmp_path / "work"))
    before, started = contents("."), time.monotonic()
    with pytest.raises(DataError, match=r"'openai/clip-vit-large-patch14' is not on this machine.*ready-made"):
        cli.main(RUN[:-2])
    with pytest.raises(DataError, match=r"There is no model folder '\.\./clip'"):
        cli.main([*RUN[:-1], "../clip"])
    assert contents(".") == before and not Path("out").exists() and time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--recipe", "bsae"], "Did you mean 'base'?"),
        (["--epochs", "0"], "Allowed is 1 and more"),
        (["--folds", "1"], "'folds' parameter. Allowed is 0, or 2 to"),
        (["--gallery", "al"], "Did you mean 'all'?"),
        (["--output-dir", "stimuli/out"], "lies in 'stimuli', which is read"),
        (["--output-dir", "."], "' is not empty and holds no run of `neural-clip run`"),
        (["--output-dir", "recipe.yaml"], "'recipe.yaml' is a file; name a folder"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(write_inputs(tmp_path / "work"))
    before = contents(".")
    with pytest.raises((DataError, OSError)) as caught:
        cli.main([*RUN, *words])
    assert told in str(caught.value) and contents(".") == before


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        (["gone.yaml"], "gone.yaml"), (["gone"], "There is no folder 'gone', and it is no name on the Hub"),
        (["stimuli"], "'stimuli' is no prepared data set"),
        (["manifest.yaml", "manifest.yaml"], "'manifest.yaml' both hold eeg, and 'manifest.yaml' is a manifest."),
    ],
)  # fmt: skip
def test_sources_that_are_none_are_told(tmp_path, monkeypatch, sources, told):
    monkeypatch.chdir(write_inputs(tmp_path / "work"))
    with pytest.raises(DataError) as caught:
        cli.main(["run", *sources, *RUN[2:]])
    assert told in str(caught.value) and not Path("out").exists()


def test_a_manifest_can_be_mended_before_anything_is_made(tmp_path, monkeypatch):
    folder = write_inputs(tmp_path / "work", splits={"by": "image", "validation": 0.2, "test": ["nobody"]})
    monkeypatch.chdir(folder)
    with pytest.raises(DataError, match="nobody"):
        cli.main([*RUN, "--epochs", "1"])
    write_inputs(folder)
    cli.main([*RUN, "--epochs", "1"])
    assert Path("out/evaluation/report.html").is_file()


# Small sets, embeddings, prepared data sets.


def test_a_test_split_of_one_image_is_told_before_training_and_searched_among_all(tmp_path, monkeypatch, capsys):
    folder = write_inputs(tmp_path / "work", splits={"by": "image", "validation": 0.25, "test": ["cats/im01.png"]})
    monkeypatch.chdir(folder)
    with pytest.raises(DataError, match=r"show one image.*`--gallery all` searches the 12 images of the set"):
        cli.main([*RUN, "--epochs", "1"])
    assert not list(Path("out").glob("checkpoint*"))
    cli.main([*RUN, "--epochs", "1", "--gallery", "all"])
    rows = json.loads(Path("out/evaluation/report.json").read_text())["decoding"]["eeg"]["rows"]
    computed = [row for row in rows if "not_computed" not in row]
    assert len(computed) > 3 and {row["gallery_size"] for row in computed} == {12}
    assert rows[0]["chance_top1"] == pytest.approx(1 / 12)
    assert "searched are 12 images (all); shown: 1; of the training split: 8." in capsys.readouterr().out.replace(
        "\n", " "
    )


@pytest.mark.slow
def test_a_set_without_a_validation_split_is_trained_to_its_end(tmp_path, monkeypatch):
    folder = write_inputs(tmp_path / "work", splits={"by": "image", "validation": None, "test": 0.25})
    monkeypatch.chdir(folder)
    cli.main([*RUN, "--epochs", "1"])
    assert json.loads(Path("out/checkpoint/training.json").read_text())["best_step"] is None
    assert Path("out/evaluation/report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one person", "targets of rank 1", "the same images for both under other names"])
def test_sets_at_the_edge_are_cross_validated_and_scored(tmp_path, monkeypatch, name):
    embeds, recordings = CASES[name]
    recordings = [(who, number, split.replace("validation", "train")) for who, number, split in recordings]
    write_set(tmp_path / "set", "fmri", embeds, recordings)
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(yaml.safe_dump(RECIPE | {"closed_form": True}))
    cli.main(["run", "set", *RUN[2:6], "--folds", "3", "--epochs", "1"])
    record = json.loads(Path("out/checkpoint/training.json").read_text())
    assert record["cross_validation"]["n_folds"] == 3 and "fmri" in record["closed_form"]
    assert "NaN" not in Path("out/evaluation/report.json").read_text()


def test_fewer_images_than_folds_are_told_before_training(tmp_path, monkeypatch):
    write_set(tmp_path / "set", "fmri", embeddings(8), rows(splits={"train": range(5), "test": range(6, 8)}))
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    with pytest.raises(DataError, match="its 5 training images are too few for 3 folds"):
        cli.main(["run", "set", *RUN[2:6], "--folds", "3", "--epochs", "1"])
    assert not list(Path("out").glob("checkpoint*"))


@pytest.mark.slow
def test_test_subjects_who_are_not_trained_on_are_scored_as_new_ones(tmp_path, monkeypatch):
    """Held out by the manifest they are scored by the average subject; left out by the recipe they are not scored."""
    splits = {"by": "subject", "validation": 0.2, "test": ["sub-02"]}
    monkeypatch.chdir(write_inputs(tmp_path / "held", splits=splits))
    cli.main([*RUN, "--epochs", "1"])
    report = json.loads(Path("out/evaluation/report.json").read_text())
    assert (
        report["data"]["eeg"]["unseen_subjects"] == ["sub-02"] == [*report["decoding"]["eeg"]["rows"][0]["subjects"]]
    )
    monkeypatch.chdir(write_inputs(tmp_path / "left"))
    Path("recipe.yaml").write_text(yaml.safe_dump(RECIPE | {"model": {"eeg": EEG | {"subjects": ["sub-01"]}}}))
    cli.main([*RUN, "--epochs", "1"])
    report = json.loads(Path("out/evaluation/report.json").read_text())
    assert report["data"]["eeg"]["scored_subjects"] == ["sub-01"]


def test_embeddings_of_a_manifest_need_no_image_encoder(tmp_path, monkeypatch):
    import numpy as np

    manifest, _ = patterns(tmp_path)
    names = [f"image-{i:05d}" for i in range(12)]
    np.savez(tmp_path / "e.npz", ids=np.array(names), embeds=np.random.default_rng(3).normal(size=(12, 6)))
    write_manifest(tmp_path, manifest | {"embeddings": {"file": "e.npz", "name": "net"}})
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"The images of 'manifest.yaml' have embeddings already. Leave out"):
        cli.main(RUN)
    cli.main([*RUN[:-2], "--epochs", "1"])
    assert json.loads(Path("out/data/fmri/neural_clip.json").read_text())["image_encoder"]["name"] == "net"
    os.utime("e.npz", ns=(0, 0))
    with pytest.raises(DataError, match=r"'e\.npz' \(fmri\) has changed"):
        cli.main([*RUN[:-2], "--epochs", "1"])


@pytest.mark.slow
def test_prepared_data_sets_are_read_where_they_lie(ready_folders, tmp_path, monkeypatch, capsys):
    """Two modalities; the first step of a manifest falls away."""
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    for modality in ("eeg", "fmri"):
        shutil.copytree(ready_folders[modality], modality)
    before = contents("eeg"), contents("fmri")
    words = ["run", "eeg", "fmri", *RUN[2:-2], "--epochs", "1"]
    cli.main(words)
    assert steps_of(capsys)[0] == "step 1 of 5: embed images (done before)"
    report = json.loads(Path("out/evaluation/report.json").read_text())
    assert [*report["decoding"]] == ["eeg", "fmri"] and len(report["conversion"]) == 2
    assert (contents("eeg"), contents("fmri")) == before and os.listdir("out/data") == ["doctor.json"]
    with pytest.raises(DataError, match=f"embeddings of '{READY['name']}' already. Leave out `--model`, or run"):
        cli.main([*words, "--model", TINY_CLIP])
    shutil.rmtree("eeg")
    write_planted("eeg", "eeg", pixels=False, encoder=READY, seed=8)
    with pytest.raises(DataError, match=r"the eeg data set has changed\. It concerns checkpoint and evaluation"):
        cli.main(words)


@pytest.mark.slow
def test_images_of_a_prepared_data_set_are_embedded_there(finished, tmp_path, monkeypatch, capsys):
    """Killed while the set is replaced by the embedded one, too; the encoder may be named again afterwards."""
    monkeypatch.chdir(finished)
    cli.main(["prepare", "custom", "manifest.yaml", "--output-dir", str(tmp_path / "mine")])
    shutil.copy("recipe.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["run", "mine", *RUN[2:], "--epochs", "1"]
    assert python("-c", KILLED, "/mine", 1, *words).returncode == -signal.SIGKILL
    assert sorted(path.name for path in Path().glob("mine*")) != ["mine"]
    cli.main(words)
    assert "put back" in capsys.readouterr().err
    assert contents("mine") == contents(finished / "out" / "data" / "eeg")
    cli.main(words)
    assert all(step.endswith("(done before)") for step in steps_of(capsys))


@pytest.mark.parametrize("part", [None, 3, "x", []])
def test_a_record_of_which_a_part_is_none_is_damaged(tmp_path, part):
    (tmp_path / "run.json").write_text(json.dumps(sealed({"made_from": {"data": {}, "checkpoint": part}})))
    with pytest.raises(DataError, match=r"run\.json' was changed since it was written, or is damaged\. `--overwrite`"):
        begin(tmp_path, {name: {} for name in OUTPUTS}, overwrite=False)


def test_a_file_is_no_folder_of_a_run(tmp_path, monkeypatch, capsys):
    inputs = write_inputs(tmp_path / "work")
    monkeypatch.chdir(inputs)
    (inputs / "out").write_text("notes")
    with pytest.raises(DataError, match="'out' is a file; name a folder"):
        cli.main(RUN)
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", "manifest.yaml", "--output-dir", ""])
    assert stop.value.code == 2 and "argument --output-dir: Allowed is the name of a" in capsys.readouterr().err
    assert (inputs / "out").read_text() == "notes"
