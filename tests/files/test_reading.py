"""What cannot be read says why, and speaks of damage only where there is some."""

from pathlib import Path

import pytest

from neural_clip.errors import DataError
from neural_clip.files.reading import existing, read_json, read_text, reading, told_where


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, r"There is no recording '.*/x\.bin'\.$"),
        (lambda path: path.symlink_to("gone"), "a link to a file that is not there"),
        (lambda path: path.mkdir(), r"x\.bin': it is a folder"),
        (lambda path: path.touch(), "is empty: it has 0 bytes"),
        (lambda path: path.write_text("../../.git/annex/objects/0/1"), "not downloaded: it is a pointer"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "not downloaded"),
    ],
)
def test_what_is_not_there_says_so(tmp_path, make, message):
    make(tmp_path / "x.bin")
    with pytest.raises(DataError, match=message) as caught:
        existing(tmp_path / "x.bin", "recording")
    assert "damaged" not in str(caught.value)


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "folder").write_text("x")
    with pytest.raises(DataError, match="There is no recording"):
        existing(tmp_path / "folder" / "x.bin", "recording")


def test_permission_denied_says_so(tmp_path, monkeypatch):
    (tmp_path / "x.bin").write_bytes(b"x")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(DataError, match=r"x\.bin' cannot be read: permission denied") as caught:
        existing(tmp_path / "x.bin", "recording")
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "damaged"),
    [
        (EOFError("early end"), True),
        (ValueError("bad bytes"), True),
        (OSError("truncated file"), True),
        (KeyError(), True),
        (PermissionError(13, "Permission denied"), False),
        (FileNotFoundError(2, "No such file or directory"), False),
        (ModuleNotFoundError("No module named 'edfio'"), False),
        (RuntimeError("For export to work, the module pybv is needed, but it could not be imported."), False),
        (NotImplementedError("Please use HDF reader for matlab v7.3 files"), False),
        (ValueError("Unsupported file type (.xyz)"), False),
        (ValueError("Split raw file detected but next file x_raw-1.fif does not exist."), False),
        (ValueError("Object arrays cannot be loaded when allow_pickle=False"), False),
    ],
)
def test_damage_is_asked_for_only_where_it_is_likely(error, damaged):
    with (
        pytest.raises(DataError, match=r"^'x\.bin' cannot be read by a library: .+[.?]$") as caught,
        reading("x.bin", " by a library"),
    ):
        raise error
    assert ("Is it damaged or truncated?" in str(caught.value)) == damaged


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_in_known_encodings(tmp_path, encoding):
    (tmp_path / "t.csv").write_bytes("onset,bild\n1,Käfer\n".encode(encoding))
    assert read_text(tmp_path / "t.csv") == "onset,bild\n1,Käfer\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("onset\nK\u00e4fer\n".encode("latin-1"), r"no table in UTF-8 .* line 2 holds the byte 0xe4.*Latin-1"),
        ("onset\n1\n".encode("utf-16-le"), "zero bytes.*UTF-16 without a byte order mark"),
        (b"\xff\xfe\x00", "no table in UTF-8 or UTF-16"),
        (b"", "is empty"),
    ],
)
def test_text_in_other_encodings_is_named(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_text(tmp_path / "t.csv", "table")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a":' * 3000 + "1" + "}" * 3000, "nested more than 50 deep"),
        ("[" * 51 + "]" * 51, "nested more than 50 deep"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ('{"a": NaN}', "NaN, which is no number of JSON"),
        ('{"a": 1e999}', "1e999, which is no number of JSON"),
        ('"\\ud800"', "surrogates not allowed"),
        ("{", "damaged or truncated"),
    ],
)
def test_json_that_cannot_be_used_is_named(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=rf"x\.json' is no readable card: .*{message}"):
        read_json(tmp_path / "x.json", "card")


def test_json_is_read_as_deep_as_it_may_be_and_with_nan_where_that_is_meant(tmp_path):
    (tmp_path / "x.json").write_text("[" * 50 + "NaN" + "]" * 50)
    found = read_json(tmp_path / "x.json", finite=False)
    for _ in range(50):
        (found,) = found
    assert found != found


def test_an_error_on_what_a_file_says_names_the_file_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data/set_eeg", "out"):
        Path(name).mkdir(parents=True)
    for said, named in (("'k' is 3.", True), ("'a.yaml': 'k' is 3.", False), ("'set_eeg' has no rows.", False)):
        with pytest.raises(DataError) as caught, told_where(Path("x/a.yaml"), "recipe", ["data/set_eeg"]):
            raise DataError(said)
        assert str(caught.value) == said + " The recipe is 'x/a.yaml'." * named
    of_out = {"Unknown key 'dropout'.": True, "Do not put out the set": True, "'out' holds files.": False,
              "/x/out/a.json is cut.": False, "out: is no folder": False}  # fmt: skip
    for said, named in of_out.items():
        with pytest.raises(DataError) as caught, told_where(Path("a.yaml"), "recipe", ["out"]):
            raise DataError(said)
        assert str(caught.value) == said + " The recipe is 'a.yaml'." * named
    with pytest.raises(DataError) as caught, told_where(Path("a.yaml"), "recipe", ["sub-01"]):
        raise DataError("There is no folder 'sub-01'.")
    assert str(caught.value).endswith("'sub-01'. The recipe is 'a.yaml'.")  # it is the recipe that is wrong
    error = DataError("'k' is 3.")
    error.told_elsewhere = True  # by another process, so that it is printed once
    with pytest.raises(DataError) as caught, told_where(Path("a.yaml"), "recipe"):
        raise error
    assert caught.value is error
