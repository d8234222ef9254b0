"""Parts of a data set: kept after an interruption, made anew when their source changes, alike from many processes."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets import load_dataset

from local_cluster import local_cluster
from neural_clip.errors import DataError
from neural_clip.parallel import on_cluster
from neural_clip.prepared.facts import fingerprint, read_metadata
from neural_clip.prepared.parts import MARKS_DIR, Part, _Job
from neural_clip.prepared.writer import write_prepared
from paths import REPOSITORY
from toy_sets import toy_facts

N_IMAGES = 12
FACTS = toy_facts()


def split_of(i):
    return "test" if i >= 9 else "validation" if i >= 6 else "train"


def rows_of(raw, subject, session, log=None):
    """Rows of one session, from a raw file that holds the seed of its noise; reading it is written down."""
    if log is not None:
        with open(log, "a") as file:
            file.write(f"sub-{subject:02d} ses-{session:02d}\n")
    text = raw.read_text()
    if text == "damaged":
        raise DataError(f"'{raw}' is damaged.")
    if text == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "wait":
        time.sleep(60)
    rng = np.random.default_rng([int(text), subject, session])
    for i in range(N_IMAGES):
        yield {
            "subject": f"sub-{subject:02d}", "session": f"ses-{session:02d}", "trial": session * 100 + i,
            "image_id": f"im{i:02d}", "split": split_of(i), "eeg": rng.standard_normal((3, 5)),
        }  # fmt: skip


def image_rows(first, last, shape=(6, 8, 3)):
    for i in range(first, last):
        pixels = np.random.default_rng(i).integers(0, 255, shape, dtype=np.uint8)
        yield {"image_id": f"im{i:02d}", "image": pixels, "concept": f"c{i % 3}"}


IMAGES = [
    Part("images_0", partial(image_rows, 0, 7), n_rows=7),
    Part("images_1", partial(image_rows, 7, 12), n_rows=5),
]


def make_raw(folder, text="1"):
    folder.mkdir(exist_ok=True)
    for subject in (1, 2):
        for session in (1, 2):
            (folder / f"raw_{subject}_{session}.txt").write_text(text)
    return folder


def parts(raw, log=None):
    return [
        Part(
            f"sub-{subject:02d}_ses-{session:02d}",
            partial(rows_of, raw / f"raw_{subject}_{session}.txt", subject, session, log),
            files=[raw / f"raw_{subject}_{session}.txt"],
            n_rows=N_IMAGES,
        )
        for subject in (1, 2)
        for session in (1, 2)
    ]


def write(folder, raw, log=None, **options):
    return write_prepared(folder, FACTS | options.pop("facts", {}), parts(raw, log), IMAGES, **options)


def read_log(log):
    return log.read_text().splitlines() if log.exists() else []


def test_parts_hold_what_one_stream_holds(tmp_path):
    raw = make_raw(tmp_path / "raw")
    whole = [row for part in parts(raw) for row in part.rows()]
    streamed = write_prepared(tmp_path / "streamed", FACTS, whole, [row for part in IMAGES for row in part.rows()])
    folder = write(tmp_path / "parts", raw)
    assert not (folder / MARKS_DIR).exists()
    for config, split in (("all", "train"), ("sub-02", "test"), ("images", "images")):
        expected, found = (
            load_dataset(str(place), config, split=split, cache_dir=str(tmp_path / "cache"))
            for place in (streamed, folder)
        )
        assert expected.to_dict() == found.to_dict()
    for key in ("subjects", "splits", "subject_splits", "n_chans", "n_times"):
        assert read_metadata(folder)[key] == read_metadata(streamed)[key]


def test_processes_write_the_same_bytes(tmp_path):
    raw = make_raw(tmp_path / "raw")
    one, two = write(tmp_path / "one", raw), write(tmp_path / "two", raw, num_proc=2)
    with on_cluster(local_cluster()):
        cluster = write(tmp_path / "cluster", raw)
    assert fingerprint(one) == fingerprint(two) == fingerprint(cluster)
    assert {path.name: path.read_bytes() for path in one.rglob("*.*")} == {
        path.name: path.read_bytes() for path in cluster.rglob("*.*")
    }


def test_a_part_that_another_machine_wrote_elsewhere_is_told(tmp_path, monkeypatch):
    """As where a worker has a folder of that name on its own disk; here the mark is not looked for."""
    monkeypatch.setattr("neural_clip.prepared.parts.SEEN_S", 0.2)
    monkeypatch.setattr(_Job, "kept", lambda job: None)
    with pytest.raises(DataError, match=r"'images_.' was written by another process, but is not in '.*set.partial'"):
        write(tmp_path / "set", make_raw(tmp_path / "raw"), num_proc=2)


def test_a_part_that_another_process_still_writes_is_left_to_it(tmp_path):
    """A worker of a cluster goes on when the command that gave it work was killed."""
    raw = make_raw(tmp_path / "raw")
    (raw / "raw_2_2.txt").write_text("damaged")
    with pytest.raises(DataError):
        write(tmp_path / "set", raw)
    (raw / "raw_2_2.txt").write_text("1")
    mark = tmp_path / "set.partial" / MARKS_DIR / "recordings-0003.json"
    code = "import sys; from neural_clip.files.whole import only_writer\n"
    code += "with only_writer(sys.argv[1]): print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(mark)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(DataError, match=r"Another process is writing '.*recordings-0003.json'. Wait until"):
            write(tmp_path / "set", raw)
        other.communicate(b"\n")
    assert fingerprint(write(tmp_path / "set", raw)) == fingerprint(write(tmp_path / "fresh", raw))


@pytest.mark.slow
@pytest.mark.parametrize("num_proc", [1, 2])
def test_finished_parts_are_kept_after_an_error_and_used(tmp_path, capsys, num_proc):
    raw, log = make_raw(tmp_path / "raw"), tmp_path / "log"
    (raw / "raw_2_2.txt").write_text("damaged")
    with pytest.raises(DataError, match=r"raw_2_2.txt' is damaged"):
        write(tmp_path / "set", raw, log, num_proc=num_proc)
    assert not (tmp_path / "set").exists()
    assert "5 finished parts stay in" in capsys.readouterr().err  # two of images, three of recordings
    (raw / "raw_2_2.txt").write_text("1")
    log.unlink()
    folder = write(tmp_path / "set", raw, log, num_proc=num_proc)
    assert read_log(log) == ["sub-02 ses-02"]
    assert fingerprint(folder) == fingerprint(write(tmp_path / "fresh", raw, log))
    assert not (tmp_path / "set.partial").exists()


def test_parts_are_made_anew_when_what_they_depend_on_changes(tmp_path):
    raw, log = make_raw(tmp_path / "raw"), tmp_path / "log"

    def finished_anew(change=None, facts=None):
        """Parts read on a second try after a first one that failed in its last part."""
        (raw / "raw_2_2.txt").write_text("damaged")
        with pytest.raises(DataError, match="is damaged"):
            write(tmp_path / "set", raw, log, overwrite=True)
        (raw / "raw_2_2.txt").write_text("1")
        log.unlink()
        if change:
            change()
        folder = write(tmp_path / "set", raw, log, facts=facts or {}, overwrite=True)
        assert fingerprint(folder) == fingerprint(write(tmp_path / "fresh", raw, facts=facts or {}, overwrite=True))
        return read_log(log)

    assert finished_anew() == ["sub-02 ses-02"]
    changed = finished_anew(lambda: (raw / "raw_1_2.txt").write_text("7"))
    assert changed == ["sub-01 ses-02", "sub-02 ses-02"]
    assert len(finished_anew(facts={"preprocessing": {"high_pass_hz": 1}})) == 4

    def damage_a_finished_file():
        path = sorted((tmp_path / "set.partial" / "data" / "sub-01").glob("train-0000-*.parquet"))[0]
        path.write_bytes(path.read_bytes()[:-1])

    assert finished_anew(damage_a_finished_file) == ["sub-01 ses-01", "sub-02 ses-02"]


def test_equal_arguments_are_the_same_part_however_they_lie_in_memory(tmp_path):
    raw = make_raw(tmp_path / "raw")
    name = "".join(["sub", "-01"])  # not the object that the literal is

    def identity(*texts):
        table = pd.DataFrame({"subject": list(texts), "trial": [1, 2]})
        part = Part("a", partial(changed_rows, Path(*raw.parts) / "raw_1_1.txt", table=table, texts=texts))
        return _Job(tmp_path, "recordings", 0, part, write, {}).identity()

    assert name is not "sub-01"  # noqa: F632
    assert identity("sub-01", "sub-01") == identity("sub-01", name)
    assert identity("sub-01", "sub-01") != identity("sub-01", "sub-02")


def test_what_other_parts_left_does_not_get_in(tmp_path):
    raw, log = make_raw(tmp_path / "raw"), tmp_path / "log"
    (raw / "raw_2_2.txt").write_text("damaged")
    with pytest.raises(DataError):
        write(tmp_path / "set", raw, log)
    (tmp_path / "set.partial" / "scaling.npz").write_bytes(b"of other parameters")
    (tmp_path / "set.partial" / "masks").mkdir()
    (tmp_path / "set.partial" / "masks" / "sub-02.nii.gz").write_bytes(b"of another subject")
    fewer = parts(raw)[:1]
    folder = write_prepared(tmp_path / "set", FACTS, fewer, IMAGES)
    assert read_metadata(folder)["subjects"] == ["sub-01"]
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "data", "images", "neural_clip.json"]
    assert [path.name for path in (folder / "data").iterdir()] == ["sub-01"]
    names = {path.name for path in (folder / "data" / "sub-01").iterdir()}
    assert names == {f"{split}-0000-00000.parquet" for split in ("train", "validation", "test")}


@pytest.mark.slow
def test_a_killed_process_is_told(tmp_path):
    raw = make_raw(tmp_path / "raw")
    (raw / "raw_2_2.txt").write_text("kill")
    with pytest.raises(DataError, match=r"was killed.*--num-proc"):
        write(tmp_path / "set", raw, num_proc=2)
    (raw / "raw_2_2.txt").write_text("1")
    assert len(read_metadata(write(tmp_path / "set", raw))["subjects"]) == 2


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_program_that_is_stopped_goes_on(tmp_path, stop):
    raw, log = make_raw(tmp_path / "raw"), tmp_path / "log"
    (raw / "raw_2_1.txt").write_text("wait")
    # under the name it has here, since parts are known by the names of their functions
    places = [str(REPOSITORY), str(REPOSITORY / "tests")]
    code = (
        f"import importlib, sys; from pathlib import Path; sys.path[:0] = {places!r}\n"
        f"importlib.import_module({__name__!r}).write(*map(Path, sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "set"), str(raw), str(log)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while read_log(log)[-1:] != ["sub-02 ses-01"]:
            assert time.monotonic() < deadline, "the third part was not reached"
            time.sleep(0.05)
        process.send_signal(stop)
    assert not (tmp_path / "set").exists()
    (raw / "raw_2_1.txt").write_text("1")
    log.unlink()
    folder = write(tmp_path / "set", raw, log)
    assert read_log(log) == ["sub-02 ses-01", "sub-02 ses-02"]
    assert fingerprint(folder) == fingerprint(write(tmp_path / "fresh", raw, log))


def changed_rows(raw, subject=1, only=None, **changes):
    return [row | changes for row in rows_of(raw, subject, 1) if only in (None, row["image_id"])]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "test", "only": "im00"}, "in split 'train' and in split 'test' as well, such as 'im00'"),
        ({"eeg": np.ones((3, 6))}, r"shape \(3, 6\)"),
    ],
)
def test_parts_must_agree(tmp_path, changes, message):
    raw = make_raw(tmp_path / "raw") / "raw_1_1.txt"
    pieces = [Part("a", partial(changed_rows, raw)), Part("b", partial(changed_rows, raw, **{"subject": 2} | changes))]
    with pytest.raises(DataError, match=message):
        write_prepared(tmp_path / "set", FACTS, pieces, IMAGES)
    assert not (tmp_path / "set").exists()


def test_bad_lists_of_parts_are_refused(tmp_path):
    rows = partial(changed_rows, make_raw(tmp_path / "raw") / "raw_1_1.txt")
    with pytest.raises(DataError, match="different names"):
        write_prepared(tmp_path / "set", FACTS, [Part("a", rows), Part("a", rows)], IMAGES)
    with pytest.raises(DataError, match="different names"):
        write_prepared(tmp_path / "set", FACTS, [Part("../a", rows)], IMAGES)
    doubled = [Part("a", partial(image_rows, 0, 12)), Part("b", partial(image_rows, 3, 5))]
    with pytest.raises(DataError, match="'im03' occurs twice"):
        write_prepared(tmp_path / "set", FACTS, [Part("a", rows)], doubled)
    with pytest.raises(DataError, match=r"'num_proc' parameter.*got 0"):
        write_prepared(tmp_path / "set", FACTS, [Part("a", rows)], IMAGES, num_proc=0)


def touched_rows(raw):
    yield from rows_of(raw, 1, 1)
    raw.write_text("another seed")


def test_raw_files_that_change_while_they_are_read_are_noticed(tmp_path):
    raw = make_raw(tmp_path / "raw") / "raw_1_1.txt"
    with pytest.raises(DataError, match="'moving' changed while they were read"):
        write_prepared(tmp_path / "set", FACTS, [Part("moving", partial(touched_rows, raw), files=[raw])], IMAGES)


@pytest.mark.parametrize("link", [False, True])
def test_a_raw_file_that_is_not_there_is_named(tmp_path, link):
    raw = make_raw(tmp_path / "raw")
    (raw / "raw_2_1.txt").unlink()
    if link:
        (raw / "raw_2_1.txt").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"The raw file '.*raw_2_1.txt' cannot be read: no such file"):
        write(tmp_path / "set", raw)


def test_streams_are_divided_among_workers(tmp_path):
    folder = write(tmp_path / "set", make_raw(tmp_path / "raw"))
    stream = load_dataset(str(folder), "all", split="train", streaming=True)
    assert stream.num_shards == 4
    shards = [[(row["subject"], row["trial"]) for row in stream.shard(num_shards=2, index=i)] for i in range(2)]
    whole = [(row["subject"], row["trial"]) for row in stream]
    assert len(shards[0]) == len(shards[1]) == 12
    assert sorted(shards[0] + shards[1]) == sorted(whole)
    assert len(set(whole)) == 24


def test_marks_are_json_that_a_person_can_read(tmp_path):
    raw = make_raw(tmp_path / "raw")
    (raw / "raw_2_2.txt").write_text("damaged")
    with pytest.raises(DataError):
        write(tmp_path / "set", raw)
    mark = json.loads((tmp_path / "set.partial" / MARKS_DIR / "recordings-0001.json").read_text())
    assert mark["summary"]["rows"] == {"sub-01": {"train": 6, "validation": 3, "test": 3}}
    assert all((tmp_path / "set.partial" / name).stat().st_size == size for name, size in mark["files"].items())
