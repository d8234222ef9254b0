"""Baselines that several processes fit: the report of one process, digit for digit; what goes wrong ends as in one."""

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
import pytest

from folder_contents import contents
from local_cluster import local_cluster
from neural_clip.errors import DataError
from neural_clip.evaluation import baseline_units, run
from neural_clip.evaluation.baselines import closed_form_fit, inputs, linear, ridge, strengths, tried
from neural_clip.evaluation.baselines.rows import BASELINES, IDENTITY, not_refused
from neural_clip.evaluation.finished_parts import PARTS_DIR, FinishedParts
from neural_clip.evaluation.run import evaluate_checkpoints
from neural_clip.files.kept import deciding_versions
from neural_clip.parallel import on_cluster
from neural_clip.prepared.reader import PreparedSet
from planted_data import SHAPES, PlantedModel, plant, write_planted
from planted_splits import planted

COUNTS = {"train": 14, "validation": 7, "test": 9}
NAMES = [name for name, _ in BASELINES]
THREADS = {"backend": "threading", "n_jobs": 2}  # of this process, so that what a test changes holds for units as well


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two data sets, and what one process finds in them."""
    root = tmp_path_factory.mktemp("units")
    for modality in ("eeg", "fmri"):
        write_planted(root / modality, modality, pixels=False, counts=COUNTS)
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context() as planting:
        plant(planting, lambda checkpoint: PlantedModel(("eeg", "fmri")))
        patch.chdir(root)
        evaluated("one")
    return root


@pytest.fixture(autouse=True)
def work(place, monkeypatch):
    """Names of folders are those of `place`; checkpoints of all names know what was planted."""
    plant(monkeypatch, lambda checkpoint: PlantedModel(("eeg", "fmri")))
    monkeypatch.chdir(place)
    return place


def evaluated(out, *modalities, **changes):
    """The report on both sets or some, with all baselines."""
    return evaluate_checkpoints(
        {"neural_clip": "a"}, modalities or ("eeg", "fmri"), out, **{"controls": False, "batch_size": 10} | changes
    )


def rows_of(report):
    """Rows of baselines of EEG."""
    return [row for row in report["decoding"]["eeg"]["rows"] if row["method"] in NAMES]


@pytest.fixture
def fits(monkeypatch):
    """An entry for each ridge that this process fits."""
    found, fitted = [], ridge.CholeskyRidge.__init__
    monkeypatch.setattr(ridge.CholeskyRidge, "__init__", lambda *a, **k: found.append(1) or fitted(*a, **k))
    return found


@pytest.mark.parametrize("way", ["two processes", pytest.param("cluster", marks=pytest.mark.slow)])
def test_several_processes_write_the_report_of_one(work, way, fits, capsys):
    if way == "cluster":
        with on_cluster(local_cluster()):
            report = evaluated("cluster", streaming=True)
    else:
        report = evaluated("two processes", num_proc=2)
    assert not fits  # here
    one, several = contents("one"), contents(way)
    assert one["report.json"] == several["report.json"] and one.keys() == several.keys()
    told = capsys.readouterr().err
    for key, absent in (("eeg", set()), ("fmri", {IDENTITY})):
        found = {row["method"] for row in report["decoding"][key]["rows"] if "fit" in row}
        assert found == set(NAMES) - absent
        for name in found:
            assert len(re.findall(rf"{key}: {name} in [\d.]+ s, [\d.]+ s of the processor", told)) == 1


def workers():
    """Processes of joblib that this one has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended
            parent, words = (
                (folder / "stat").read_text().rpartition(")")[2].split()[1],
                (folder / "cmdline").read_bytes(),
            )
            if int(parent) == os.getpid() and b"loky" in words and b"tracker" not in words:
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_is_killed_is_told_of_and_the_same_command_ends_with_the_same_report():
    over = threading.Event()

    def kill():
        while not over.wait(0.02):
            for number in workers():
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    try:
        with pytest.raises(
            DataError, match=r"A process that worked on 'eeg: .*' was killed.* What was finished is kept"
        ):
            evaluated("killed", num_proc=2)
    finally:
        over.set()
        killing.join()
    assert not Path("killed", "report.json").exists()
    evaluated("killed", num_proc=2)
    assert contents("killed")["report.json"] == contents("one")["report.json"]


@pytest.fixture
def large(monkeypatch):
    """Small recordings are treated as large ones: matrices are kept, strengths walked, sensors reduced over time."""
    for module in (inputs, strengths, linear, tried):
        monkeypatch.setattr(module, "MAX_GRID_SIZE", 0)
    monkeypatch.setattr(inputs, "MAX_FEATURES", 35)  # of 6 x 10


def test_what_baselines_share_is_made_once_and_before_them(large, monkeypatch):
    rounds, made, really, products = [], [], baseline_units.run_units, closed_form_fit.products_of

    def watched(work, units, **options):
        rounds.append(list(units))
        yield from really(work, units, **options)

    monkeypatch.setattr(baseline_units, "run_units", watched)
    monkeypatch.setattr(closed_form_fit, "products_of", lambda *a, **k: made.append(len(rounds)) or products(*a, **k))
    whole = evaluated("large")
    in_one = len(made)
    made.clear()
    with joblib.parallel_config(**THREADS):
        assert evaluated("shared") == whole
    # of each person; of EEG in rows and in features
    assert made == [2] * in_one and in_one == 2 * 3
    people = [f"{key}: statistics and matrix of sub-0{number}" for key in ("eeg", "fmri") for number in (1, 2)]
    assert rounds[:2] == [["eeg: temporal components"], people]
    assert sorted(name for names in rounds[2:] for name in names) == sorted(
        f"{key}: {name}" for key in ("eeg", "fmri") for name in NAMES
    )
    turn = {name: number for number, names in enumerate(rounds) for name in names}
    assert turn["fmri: per-subject ridge"] < turn["fmri: pooled whitened ridge"]


def test_what_is_finished_before_an_interruption_is_kept(fits, monkeypatch):
    whole = evaluated("ended", "eeg")
    n_fits, really, left = len(fits), baseline_units.predicted, [3]

    def interrupted(name, *arguments):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return really(name, *arguments)

    monkeypatch.setattr(baseline_units, "predicted", interrupted)
    with joblib.parallel_config(**THREADS), pytest.raises(KeyboardInterrupt):
        evaluated("goes on", "eeg")
    assert not contents("goes on").keys() & {"report.json"} and len(list_parts("goes on")) == 2
    fits.clear()
    assert evaluated("goes on", "eeg") == whole
    assert 0 < len(fits) < n_fits


def list_parts(out):
    """Baselines that are finished."""
    return [name for name in contents(out) if name.startswith(f"{PARTS_DIR}/predictions-")]


def test_a_baseline_that_fails_elsewhere_is_fitted_here(monkeypatch):
    """So that the sentence of a row that is not computed is that of one process."""
    whole = evaluated("ridge", "eeg", baselines=["ridge"])

    def fails(*arguments):
        raise DataError("not there")

    monkeypatch.setattr(baseline_units, "predicted", fails)
    with joblib.parallel_config(**THREADS):
        assert evaluated("fails", "eeg", baselines=["ridge"]) == whole


def test_what_another_process_wrote_elsewhere_is_an_error(monkeypatch):
    monkeypatch.setattr(baseline_units, "predicted", lambda *arguments: None)
    with joblib.parallel_config(**THREADS), pytest.raises(DataError, match="unfinished' lacks the predictions of"):
        evaluated("elsewhere", "eeg", baselines=["ridge"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"deciding_versions": lambda: {"numpy": "0"}}, "other versions of packages, {'numpy': '0'}, than"),
     ({"Facts": SimpleNamespace(read=lambda folder: SimpleNamespace(fingerprint="x"))}, "another data set in 'eeg'")],
)  # fmt: skip
def test_another_process_must_find_the_same(monkeypatch, changes, said):
    for name, value in changes.items():
        monkeypatch.setattr(baseline_units, name, value)
    with joblib.parallel_config(**THREADS), pytest.raises(DataError, match=said):
        evaluated("differs", "eeg", baselines=["ridge"])


HOLDS = """
import sys, time
from pathlib import Path
from neural_clip.files.whole import only_writer

with only_writer(Path(sys.argv[1])):
    print(flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_baseline_that_another_process_still_fits_is_told(monkeypatch, processes):
    """As a worker of a cluster may after Ctrl-C; the row does not say that it cannot be computed."""
    out = f"held {processes}"
    monkeypatch.setattr(run.FinishedParts, "remove", lambda self: None)
    evaluated(out, "eeg", baselines=["ridge"])
    (part,) = list_parts(out)
    (run.Path(out) / part).unlink()
    other = subprocess.Popen([sys.executable, "-c", HOLDS, f"{out}/{part}"], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "\n"
        threads = joblib.parallel_config(**THREADS | {"n_jobs": processes})
        with threads, pytest.raises(DataError, match=r"Another process is writing .*predictions"):
            evaluated(out, "eeg", baselines=["ridge"])
    finally:
        other.kill()
        other.communicate()


def test_baselines_that_are_refused_at_once_take_no_process():
    train, validation, test = planted("sensors")
    assert not_refused(NAMES, train, validation, test) == NAMES
    new = replace(test, subjects=np.full(len(test), "sub-99"))
    assert not_refused(NAMES, train, validation, new) == [IDENTITY]
    assert not_refused(NAMES[:2], train, validation, new) == []
    assert not_refused(NAMES, train.at(np.zeros(0, int)), validation, test) == []
    one = validation.at(np.zeros(1, int))
    assert not_refused(NAMES, train, one, test) == NAMES
    assert not_refused(NAMES, train.at(np.flatnonzero(train.image_ids == train.image_ids[0])), one, test) == []


def test_a_data_set_on_its_way_to_another_process(work):
    """It is read from its folder there; embeddings of images go along only where they are not those of the folder."""
    opened = PreparedSet.open("eeg").of_corpus()
    embeds = opened.images.embeds
    sent = pickle.dumps(opened)
    found = pickle.loads(sent)
    assert embeds.tobytes() not in sent and found.images.embeds.tobytes() == embeds.tobytes()
    rows = opened.split("train", opened.facts.subjects[1:])
    assert rows.subjects[0] == "planted/sub-02"
    again = found.split("train", ["planted/sub-02"])
    assert np.array_equal(again.values(), rows.values()) and again.image_ids.tolist() == rows.image_ids.tolist()
    moved = opened.with_facts(opened.facts, replace(opened.images, embeds=embeds + 1))
    assert pickle.loads(pickle.dumps(moved)).images.embeds.tobytes() == (embeds + 1).tobytes()


def test_unit_and_row_are_kept_in_one_place(work):
    part = PreparedSet.open("eeg").split("test", ["sub-02", "sub-01"])
    fitted = baseline_units._Fitted.of(part, "strict", FinishedParts(run.Path("x"), {"versions": deciding_versions()}))
    train, validation, test = pickle.loads(pickle.dumps(fitted)).opened()
    assert test.subjects.tolist() == part.subjects.tolist() and test.image_ids.tolist() == part.image_ids.tolist()
    assert len(train) == 56 and len(validation) == 28


@pytest.mark.slow
def test_large_matrices_are_those_of_one_process(monkeypatch, fits, capsys):
    """Real processes at the size from which matrices are kept, in rows for a person and in features for all."""
    monkeypatch.setitem(SHAPES, "meg", (64, 64))
    plant(monkeypatch, lambda checkpoint: PlantedModel(("meg",)))
    write_planted("meg", "meg", pixels=False, noise=6.0, counts={"train": 1030, "validation": 10, "test": 9})
    words = {"baselines": ["ridge", "identity", "closed_form"]}
    evaluated("meg in one", "meg", **words)
    fits.clear()
    evaluated("meg in two", "meg", **words, num_proc=2)
    assert not fits and " 5/5 " in capsys.readouterr().err  # two people and three baselines
    assert contents("meg in one")["report.json"] == contents("meg in two")["report.json"]
