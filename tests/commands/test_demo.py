"""The whole path in real processes, at the smallest size: simulate, prepare, embed, train, evaluate, report."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import pytest
import torch

from checkpoints_of_galleries import compare_with_searches
from folder_contents import contents
from neural_clip import NeuralClipModel, NeuralClipProcessor
from neural_clip.commands.options import todays_spelling
from neural_clip.evaluation.outputs import read_report
from neural_clip.files.record import check_record
from neural_clip.prepared.reader import PreparedSet
from second_process import python

MODALITIES = {"eeg": "imagenet_eeg", "meg": "things_meg", "fmri": "nsd"}

DEMO = ["demo", "--preset", "tiny", "--epochs", "2"]


def run_demo(output, *more):
    done = python(
        "-m", "neural_clip.commands.main", *DEMO, "--output-dir", output, *more, cwd=output.parent, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo that was interrupted before it trained, and then run whole; where it lies and what both printed."""
    output = tmp_path_factory.mktemp("demo") / "out"
    first = run_demo(output, "--data-only")
    made = (output / "raw" / "nsd" / "SIMULATED.json").stat().st_mtime_ns
    assert not (output / "checkpoint").exists()
    for name in ("checkpoint", "frozen_alignment"):  # of an earlier training, which is done anew
        (output / name).mkdir()
        (output / name / "config.json").write_text("{}")
        (output / name / "training.json").write_text("{}")
    return output, run_demo(output), first, made


@pytest.mark.slow
def test_demo_leaves_what_it_promises(demo):
    output, done, _, _ = demo
    report = json.loads((output / "report.json").read_text())
    assert set(report["decoding"]) == set(MODALITIES)
    assert [part["name"] for part in report["checkpoints"]] == ["neural_clip", "frozen alignment"]
    assert len(report["conversion"]) == 12  # six pairs, two checkpoints
    assert {part["other"] for part in report["comparisons"] if part["task"] == "conversion"} == {"frozen alignment"}
    text = (output / "report.md").read_text()
    assert "Table 1" in text and "Table 2" in text and "simulated" in text
    pictures = {path.stem for path in (output / "pictures").glob("*.png")}
    drawn = {"decoding", "encoding", "conversion", "intervals_decoding", "intervals_conversion"}
    sure = {
        f"confidence_{name}"
        for name, found in read_report(output)["confidence"].items()
        if any("not_computed" not in record for record in found)
    }
    assert pictures == drawn | sure | {"conversion_ways", *(f"summary_{name}" for name in MODALITIES)}
    assert "Controls beside the scores" in text and (output / "report.html").is_file()
    shown = done.stdout.split("$ neural-clip evaluate")[1]
    assert "Table 1" in shown and "Table 2" in shown and str(output / "report.md") in shown


@pytest.mark.slow
def test_printed_commands_can_be_copied(demo):
    """They say what was run, in today's spelling; the last one is started as it was printed."""
    output, second, first, _ = demo
    printed = [*first.stdout.splitlines(), *second.stdout.splitlines()]
    commands = [shlex.split(line.removeprefix("  $ ")) for line in printed if line.startswith("  $ ")]
    steps = [words[1] if words[0] == "neural-clip" else words[0] for words in commands]
    expected = (
        ["simulate"] * 2
        + ["prepare"] * 3
        + ["embed-images"] * 3
        + ["simulate"] * 2
        + ["accelerate"] * 2
        + ["evaluate"]
    )
    assert steps == expected
    for words in commands:
        name = words[1] if words[0] == "neural-clip" else "train"
        own = words[words.index(name) + 1 :]
        assert todays_spelling(f"prepare {own[0]}" if name == "prepare" else name, own) == own
    program = {"neural-clip": "neural_clip.commands.main", "accelerate": "accelerate.commands.accelerate_cli"}
    name, *words = commands[-1]
    words += ["--output-dir", str(output.parent / "again"), "--baselines=none", "--no-controls", "--no-pictures"]
    done = python("-m", program[name], *words)
    assert done.returncode == 0, done.stderr[-4000:]
    again, before = (json.loads((place / "report.json").read_text()) for place in (output.parent / "again", output))
    assert again["encoding"] == before["encoding"]


@pytest.mark.slow
def test_every_prepared_folder_loads_also_streaming(demo):
    output, *_ = demo
    for modality, name in MODALITIES.items():
        folder = str(output / "data" / name)
        facts = json.loads(Path(folder, "neural_clip.json").read_text())
        subject = facts["subjects"][0]
        for split in ("train", "validation", "test"):
            rows = datasets.load_dataset(folder, subject, split=split)
            streamed = next(iter(datasets.load_dataset(folder, subject, split=split, streaming=True)))
            assert streamed["image_id"] == rows[0]["image_id"]
            assert streamed[modality] == rows[0][modality]
            assert facts["subject_splits"][subject][split] == len(rows)
        images = datasets.load_dataset(folder, "images", split="images")
        assert {"image", "image_embeds"} <= set(images.column_names)


@pytest.mark.slow
def test_checkpoint_answers_from_rows_and_images(demo):
    output, *_ = demo
    model = NeuralClipModel.from_pretrained(output / "checkpoint")
    processor = NeuralClipProcessor.from_pretrained(output / "checkpoint")
    for modality, name in MODALITIES.items():
        folder = str(output / "data" / name)
        rows = datasets.load_dataset(folder, "all", split="test")
        inputs = processor(**{modality: [rows[0], rows[len(rows) - 1]]})
        with torch.no_grad():
            embeds = getattr(model, f"get_{modality}_features")(**inputs)
        assert embeds.shape == (2, model.config.projection_dim)
        image = datasets.load_dataset(folder, "images", split="images")[0]
        made = model.get_image_features(**processor(images=image["image"].convert("RGB")))[0]
        # The tower in the checkpoint makes the very targets of the data set.
        torch.testing.assert_close(made, torch.tensor(image["image_embeds"]), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_scores_of_searches_are_those_of_the_report(demo):
    """Decoding, encoding and conversion by each way, counted from the hits of galleries, to the last digit."""
    output, *_ = demo
    sets = {modality: PreparedSet.open(output / "data" / name) for modality, name in MODALITIES.items()}
    compare_with_searches(output / "checkpoint", sets, read_report(output))


def started(output):
    """The demo itself, in a group of processes of its own."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "neural_clip.commands.main", *DEMO, "--output-dir", str(output)], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "step"), [(signal.SIGINT, "train"), (signal.SIGKILL, "turn raw files into")])
def test_a_demo_that_is_stopped_goes_on_when_it_is_started_again(demo, tmp_path, sent, step):
    """Stopped in a step with all that it started; in the end the data sets are those of an undisturbed demo."""
    output = tmp_path / "out"
    running, said = started(output), ""
    while f": {step}" not in said:
        line = running.stdout.readline()
        assert line, said[-4000:]
        said += line
    time.sleep(4 if sent == signal.SIGINT else 0.5)  # Ctrl-C while Python itself starts ends with its traceback
    os.killpg(running.pid, sent)
    said += running.communicate(timeout=120)[0]
    assert running.returncode == (130 if sent == signal.SIGINT else -sent)
    assert "Traceback" not in said and "error:" not in said, said[-4000:]
    run_demo(output)
    for part in ("raw", "data"):
        assert contents(output / part) == contents(demo[0] / part)
    assert check_record(output / "checkpoint") and check_record(output / "frozen_alignment")
    assert read_report(output)["seed"] == 0
    assert not [path for path in output.rglob("*") if path.suffix in (".partial", ".replaced", ".interrupted")]


@pytest.mark.slow
def test_second_run_keeps_the_simulation(demo):
    output, second, first, made = demo
    assert (output / "raw" / "nsd" / "SIMULATED.json").stat().st_mtime_ns == made
    step = "of 5: turn raw files into data sets"
    assert "step 2 of 3: turn raw files into data sets\n" in first.stderr and f"{step} (done before)" in second.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")
def test_told_to_end_alone_a_demo_leaves_no_process_behind(tmp_path):
    """SIGTERM reaches the demo and nothing that it started, which would simulate on unseen."""
    running = subprocess.Popen(
        [sys.executable, "-m", "neural_clip.commands.main", *DEMO, "--output-dir", tmp_path / "out"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while "simulated " not in (line := running.stdout.readline(60)):  # the bar of what it started
        assert line, "it ended"
    running.send_signal(signal.SIGTERM)
    told = running.communicate(timeout=20)[0]  # until all have closed the pipe
    assert running.returncode == -signal.SIGTERM and "done in" not in told  # as `simulate` says in the end
