"""Commands that write: one process a place, nothing into what is read, nothing where something else lies."""

import json
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from pkgutil import resolve_name

import pytest

from custom_raw import patterns, write_manifest
from folder_contents import contents
from neural_clip.commands import main as cli
from neural_clip.errors import DataError
from neural_clip.prepared.known_corpora import CORPORA
from planted_data import write_planted

HOLDS = """
import sys, time
from contextlib import ExitStack
from neural_clip.files.whole import only_writer

with ExitStack() as locks:
    for path in sys.argv[1:]:
        locks.enter_context(only_writer(path))
    print(flush=True)
    time.sleep(60)
"""
EMPTY_REPORT = {"format_version": 2, "decoding": {}, "encoding": {}, "conversion": [], "data": {}}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder in which another process writes everything that a command could write."""
    root = tmp_path_factory.mktemp("work")
    write_manifest(root, patterns(root)[0])
    write_planted(root / "data", "eeg", counts={"train": 6, "validation": 5, "test": 5})
    (root / "report").mkdir()
    (root / "report" / "report.json").write_text(json.dumps(EMPTY_REPORT))
    places = ("set", "data", "twins/nsd", "scores/report.json", "report/report.json", "demo/raw", "gallery",
              "rows.parquet")  # fmt: skip
    for folder in ("twins", "scores", "demo"):
        (root / folder).mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS, *(str(root / place) for place in places)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "\n"
    yield root
    other.kill()
    other.communicate()


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("prepare custom {}/manifest.yaml --output-dir {}/set", "set"),
        ("embed-images {}/data --model neural_clip/tiny-clip --overwrite", "data"),
        ("simulate --preset tiny --corpora fmri --output-dir {}/twins", "twins/nsd"),
        ("evaluate --checkpoint no --data eeg={}/data --output-dir {}/scores", "scores/report.json"),
        ("report {}/report --no-pictures", "report/report.json"),
        ("demo --output-dir {}/demo", "demo/raw"),
        ("gallery build {}/data --recordings --checkpoint no --output-dir {}/gallery", "gallery"),
        ("embed-recordings {}/data --checkpoint no --output-file {}/rows.parquet", "rows.parquet"),
    ],
)
def test_a_command_that_writes_where_another_process_does_is_refused(work, command, place):
    before, start = contents(work), time.monotonic()
    with pytest.raises(DataError, match=rf"Another process is writing '{work / place}'\. Wait until it has finished"):
        cli.main(command.format(work, work).split())
    assert contents(work) == before and time.monotonic() - start < 30


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize(
    ("output", "said"),
    [("raw", "raw' lies in '.*raw', which is read"), ("raw/deep/set", "set' lies in '.*raw', which is read"),
     (".", "' holds '.*raw', which is read"), ("/", "'/' is the root of the file system"),
     ("file", "file' exists and is no prepared data set"), ("link", "link' is a link to 'nowhere', which is not")],
)  # fmt: skip
def test_a_place_where_no_data_set_may_be_written_is_refused_at_once(tmp_path, corpus, output, said):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "precious").write_text("recorded once")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    before = contents(tmp_path)
    with pytest.raises(DataError, match=said):
        cli.main(["prepare", corpus, "--raw-dir", f"{tmp_path}/raw", "--output-dir", str(tmp_path / output),
                  "--overwrite"])  # fmt: skip
    assert contents(tmp_path) == before and (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    ("output", "said"),
    [(".", "' holds '.*manifest.yaml', which is read"), ("pictures", "pictures' lies in '.*pictures'")],
)
def test_a_data_set_is_not_written_over_what_its_manifest_names(tmp_path, output, said):
    manifest, _ = patterns(tmp_path, images={"folder": "pictures"})
    (tmp_path / "pictures").mkdir()
    path = write_manifest(tmp_path, manifest)
    with pytest.raises(DataError, match=said):
        cli.main(["prepare", "custom", str(path), "--output-dir", str(tmp_path / output), "--overwrite"])
    assert path.is_file()


@pytest.mark.parametrize("named", ["events", "mask", "images", "embeddings"])
def test_nor_over_any_file_that_it_names(tmp_path, named):
    manifest, _ = patterns(tmp_path)
    write_planted(tmp_path / "set", "fmri", counts={"train": 6, "validation": 5, "test": 5})
    (tmp_path / "set" / "mine.npz").write_text("recorded once")
    if named in ("images", "embeddings"):
        manifest[named] = {"file": "set/mine.npz"} | ({"keys": ["pictures"]} if named == "images" else {"name": "net"})
    else:
        manifest["recordings"] = [
            {"file": "run.nii.gz", "kind": "series", "subject": "sub-01", "t_r": 2.0, "window": [4, 8],
             "events": "run.tsv", "mask": "mask.nii.gz", "image_column": "picture", named: "set/mine.npz"}
        ]  # fmt: skip
    path, before = write_manifest(tmp_path, manifest), contents(tmp_path / "set")
    with pytest.raises(DataError, match=r"set' holds '.*mine\.npz', which is read"):
        cli.main(["prepare", "custom", str(path), "--output-dir", f"{tmp_path}/set", "--overwrite"])
    assert contents(tmp_path / "set") == before


@pytest.mark.parametrize("corpus", CORPORA)
def test_no_data_set_is_written_over_or_into_what_an_option_names(tmp_path, corpus):
    """With `--overwrite`, a data set would take the place of the folder, and of all that lies in it."""
    (tmp_path / "raw").mkdir()
    write_planted(tmp_path / "set", "eeg", counts={"train": 6, "validation": 5, "test": 5})
    (tmp_path / "set" / "mine").mkdir()
    (tmp_path / "set" / "mine" / "a.nii.gz").write_text("recorded once")
    (tmp_path / "pictures").mkdir()
    before = contents(tmp_path)
    named = [item for item in fields(resolve_name(CORPORA[corpus].options)) if item.metadata.get("type") is Path]
    flags = [item.metadata.get("flag", f"--{item.name.replace('_', '-')}") for item in named]
    flags += ["--roi"] if corpus == "nsd" else []
    assert flags
    more = ["--categories", "53"] if corpus == "things_meg" else []  # of which one of the files is
    for flag in flags:
        words = ["prepare", corpus, "--raw-dir", f"{tmp_path}/raw", *more, "--overwrite", "--output-dir"]
        with pytest.raises(DataError, match=r"set' holds '.*a\.nii\.gz', which is read"):
            cli.main([*words, f"{tmp_path}/set", flag, f"{tmp_path}/set/mine/a.nii.gz"])
        if flag != "--roi":
            with pytest.raises(DataError, match=r"set' lies in '.*pictures', which is read"):
                cli.main([*words, f"{tmp_path}/pictures/set", flag, f"{tmp_path}/pictures"])
    assert contents(tmp_path) == before
