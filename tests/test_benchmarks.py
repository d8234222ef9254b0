"""The benchmarks run: the table of ratios at toy size, and the arithmetic of the figures of a GPU on the CPU."""

import getpass
import importlib
import json
import math
import socket

import pytest
import torch

from paths import REPOSITORY
from second_process import python

BENCHMARKS = REPOSITORY / "benchmarks"
EACH = {
    "share of the peak of a matrix product", "share of the bound", "step with memory handed back over step",
    "loop of training over bare step", "plain loop over ours", "loader over Arrow scan", "evaluation over forward",
}  # fmt: skip
ONCE = {
    "metric over product, 200 x 200", "reader over gzip, 2 volumes", "peak memory at 4x the rows over 1x",
    "peak memory at 16x the rows over 1x",
}  # fmt: skip


@pytest.fixture(scope="module")
def gpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("gpu")


@pytest.mark.slow
def test_the_table_of_ratios_is_whole_and_names_nobody(tmp_path):
    done = python(BENCHMARKS / "run.py", "--preset", "toy", "--output", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "found.json").read_text()
    found = json.loads(text)
    assert {"date", "preset", "machine", "versions", "minutes", "load", "ratios"} == set(found)
    names = {(line["name"], line["modality"]) for line in found["ratios"]}
    assert {(name, modality) for name in EACH for modality in ("eeg", "meg", "fmri")} <= names
    assert {name for name, _ in names} - EACH == ONCE
    for line in found["ratios"]:
        assert math.isclose(line["ratio"], line["ours"] / line["other"]) and line["ratio"] > 0
        assert f"| {line['name']} | {line['modality']} | {line['ratio']:.2f} |" in done.stdout
    for name in (socket.gethostname(), f"/{getpass.getuser()}/", str(tmp_path)):
        assert name not in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="There is a GPU.")
def test_without_a_gpu_it_says_so_and_ends_with_a_code(tmp_path):
    done = python(BENCHMARKS / "gpu.py", "--output", tmp_path / "found.json")
    assert done.returncode == 2 and done.stderr.startswith("There is no GPU that torch ")
    assert not (tmp_path / "found.json").exists()


def test_the_share_of_time_in_which_a_kernel_runs(gpu):
    assert gpu.busy_of([]) is None
    assert gpu.busy_of([(0, 1), (2, 4)]) == 3 / 4
    assert gpu.busy_of([(2, 4), (0, 3), (1, 2), (8, 10)]) == 6 / 10  # streams overlap, in any order


def test_operations_are_those_of_the_products(gpu):
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    assert gpu.operations_of(lambda: left @ right) == 2 * 3 * 5 * 7


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("kind", ["train", "embed"])
def test_figures_follow_from_seconds_operations_and_peak(gpu, tmp_path, monkeypatch, kind, precision):
    run, synthetic = importlib.import_module("run"), importlib.import_module("synthetic")
    data = synthetic.write_data("benchmark", run.PRESETS["toy"].plans["eeg"], tmp_path / "eeg")
    case = gpu.Case(str(data), 16)
    monkeypatch.setattr(gpu, "product_rate", lambda *_: 5e9)
    monkeypatch.setattr(gpu, "operations_of", lambda work: 1000 if work() is None or kind == "embed" else 0)
    found = gpu.measure(case, kind, precision, "cpu", 1)
    assert found["modality"] == "eeg" and found["precision"] == precision and found["busy"] is None
    assert math.isclose(found["trials_per_second"] * found["seconds"], 16)
    assert math.isclose(found["share_of_peak"], 1000 / found["seconds"] / 5e9)
    assert found["peak_teraflops"] == 0.005
    assert gpu.line_of(found).startswith(f"| eeg | {kind} | {precision} |")
