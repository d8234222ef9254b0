"""The record of a checkpoint: its files are those that it lists, or loading stops with the name of one."""

import json

import pytest

from neural_clip.errors import DataError
from neural_clip.files.record import check_record, record_files, sealed


@pytest.fixture
def folder(tmp_path):
    """A checkpoint of two files and what loading does not read."""
    for name, content in (("model.safetensors", b"weights"), ("config.json", b"{}"), ("README.md", b"card")):
        (tmp_path / name).write_bytes(content)
    write_record(tmp_path, files=record_files(tmp_path, ["model.safetensors", "config.json"]))
    return tmp_path


def write_record(folder, **entries):
    (folder / "training.json").write_text(json.dumps({"seed": 0} | entries))


def test_the_files_of_a_record_are_known_by_their_digest(folder):
    record = check_record(folder)
    assert record["seed"] == 0 and list(record["files"]) == ["config.json", "model.safetensors"]
    # `printf weights | sha256sum`
    assert record["files"]["model.safetensors"].startswith("9a129038d9a00aed")
    (folder / "README.md").write_text("another card")
    (folder / "notes.json").write_text("[]")
    assert check_record(folder) == record


def test_a_folder_without_a_record_and_a_record_without_files_pass(folder):
    (folder / "model.safetensors").write_bytes(b"others")
    write_record(folder)
    assert check_record(folder) == {"seed": 0}
    (folder / "training.json").unlink()
    assert check_record(folder) is None
    assert check_record(folder / "absent") is None


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_changed_or_is_missing_is_named(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes()[::-1])
    with pytest.raises(DataError, match=rf"{name}' is not the file that training.json was written for"):
        check_record(folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"{name}' is missing, which training.json lists"):
        check_record(folder)


@pytest.mark.parametrize("name", ["scaling.safetensors", "adapter_config.json", "pytorch_model.bin"])
def test_a_file_that_loading_would_read_is_not_added_unnoticed(folder, name):
    (folder / name).write_bytes(b"{}")
    with pytest.raises(DataError, match=rf"{name}' was added to a checkpoint"):
        check_record(folder)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", "null", "[" * 100_000, '{"files": 3}', '{"files": {"config.json": 3}}', '{"files": null}',
     '{"files": {"../other": "0"}}', '{"files": {"": "0"}}', "\udcff"],
)  # fmt: skip
def test_a_damaged_record_is_named(folder, content):
    (folder / "training.json").write_text(content, errors="surrogateescape")
    with pytest.raises(DataError, match=r"training.json'"):
        check_record(folder)


def test_a_record_that_was_changed_is_noticed(folder):
    """Such as one whose terms were made to allow what they forbid."""
    record = sealed({"data": {"eeg": {"redistribution": "forbidden"}}, "best": 0.1, "files": {}})
    path = folder / "training.json"
    path.write_text(json.dumps(record, sort_keys=True))
    assert check_record(folder) == record == sealed(record)
    path.write_text(json.dumps(record).replace("forbidden", "allowed"))
    with pytest.raises(DataError, match=r"training\.json' was changed since it was written: its digest differs"):
        check_record(folder)
