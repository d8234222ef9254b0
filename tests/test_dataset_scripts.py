"""The programs of the corpora on simulated raw files: killed half-way, started again, on a cluster."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from datasets import load_dataset

from local_cluster import local_cluster
from neural_clip.prepared.doctor.inspect import inspect
from neural_clip.prepared.facts import fingerprint, read_metadata
from neural_clip.simulation.presets import get_preset
from neural_clip.simulation.simulate import simulate
from paths import REPOSITORY
from second_process import python

SCRIPTS = REPOSITORY / "dataset_scripts"
CORPORA = {
    "imagenet_eeg": "eeg", "things_meg": "meg", "nsd": "fmri", "things_eeg2": "things_eeg2",
    "things_fmri": "things_fmri",
}  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("raw"), get_preset("tiny"), corpora=tuple(CORPORA.values()))


def command(corpus, raw_dir, output_dir, *options):
    return [str(SCRIPTS / f"{corpus}.py"), "--raw-dir", str(raw_dir), "--output-dir", str(output_dir), *options]


def run(*words):
    done = python(*command(*words))
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("corpus", CORPORA)
def test_killed_program_goes_on_where_it_stopped(raw, tmp_path, corpus):
    output, partial = tmp_path / "set", tmp_path / "set.partial"
    with subprocess.Popen(
        [sys.executable, *command(corpus, raw[CORPORA[corpus]], output)], stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while not list(partial.glob(".parts/recordings-*.json")):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not output.exists()
    kept = {
        path.relative_to(partial): path.stat().st_mtime_ns
        for mark in partial.glob(".parts/recordings-*.json")
        for path in partial.glob(f"data/*/*{mark.stem.removeprefix('recordings')}-*.parquet")
    }
    assert kept
    run(corpus, raw[CORPORA[corpus]], output)
    assert {name: (output / name).stat().st_mtime_ns for name in kept} == kept  # not written again
    run(corpus, raw[CORPORA[corpus]], tmp_path / "fresh", "--num-proc", "2")
    assert fingerprint(output) == fingerprint(tmp_path / "fresh") == read_metadata(output)["fingerprint"]
    run(corpus, raw[CORPORA[corpus]], tmp_path / "cluster", "--cluster", local_cluster())
    assert fingerprint(output) == fingerprint(tmp_path / "cluster")
    assert not partial.exists()


@pytest.mark.parametrize("corpus", CORPORA)
def test_data_sets_load_stream_and_are_free_of_errors(raw, tmp_path, corpus):
    folder = tmp_path / "set"
    run(corpus, raw[CORPORA[corpus]], folder)
    metadata = read_metadata(folder)
    subject = metadata["subjects"][-1]
    rows = load_dataset(str(folder), subject, split="test", cache_dir=str(tmp_path / "cache"))
    assert len(rows) == metadata["subject_splits"][subject]["test"] and set(rows["subject"]) == {subject}
    stream = load_dataset(str(folder), "all", split="train", streaming=True)
    shards = [list(stream.shard(num_shards=2, index=index)) for index in range(2)]
    assert len(shards[0]) + len(shards[1]) == metadata["splits"]["train"]["rows"] and all(shards)
    names = [(row["subject"], row["trial"], row["image_id"]) for shard in shards for row in shard]
    assert len(set(names)) == len(names)
    assert np.isfinite(np.asarray(shards[0][0][metadata["modality"]])).all()
    found = inspect(folder)
    assert [finding for finding in found if finding.severity == "error"] == []
    assert [vars(finding) for finding in found] == metadata["findings"]


def interrupted(order, folder):
    """Return code and stderr of a program that gets SIGINT once its first part is there."""

    def listen():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs, and what they start, ignore it

    with subprocess.Popen(
        [sys.executable, *order], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=listen
    ) as process:
        deadline = time.monotonic() + 120
        while not list(folder.parent.glob(f"{folder.name}.partial/.parts/recordings-*.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGINT)
        message = process.communicate()[1]
    return process.returncode, message


def test_interrupted_program_says_where_it_can_go_on(raw, tmp_path):
    """Python drops an interrupt that falls into a destructor, and a quick program may be done: then once more."""
    for attempt in range(4):
        folder = tmp_path / f"set{attempt}"
        code, message = interrupted(command("things_meg", raw["meg"], folder), folder)
        if code != 0:
            break
        assert (folder / "neural_clip.json").is_file()  # not interrupted, so whole
    assert code == 130
    assert re.search("finished parts? stays? in", message) and "Traceback" not in message
