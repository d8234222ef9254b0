"""Names of images, whatever wrote them, and files and folders with any name."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from custom_raw import TERMS, N, patterns, prepared, rng
from neural_clip.corpora.custom.stimuli import Stimuli
from neural_clip.errors import DataError
from neural_clip.prepared.reader import PreparedSet
from prepared_rows import parquet_rows

STEMS = ["K\u00e4fer", "b\u00e9b\u00e9", "Cat", *(f"im {i:02d}" for i in range(3, N))]


def shown(folder):
    return [row["image_id"] for row in sorted(parquet_rows(folder), key=lambda row: row["trial"])]


def with_pictures(tmp_path, form, table, encoding="utf-8"):
    """Patterns that a table relates to picture files, whose names are written in one Unicode form or another."""
    (tmp_path / "pictures").mkdir()
    for i, stem in enumerate(STEMS):
        pixels = rng(i).integers(0, 255, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / unicodedata.normalize(form, f"{stem}.png"))
    np.savez(tmp_path / "p.npz", betas=3 + rng(0).normal(size=(N, 5)))
    (tmp_path / "t.csv").write_bytes(("image_id\n" + "".join(f"{name}\n" for name in table)).encode(encoding))
    entry = {"file": "p.npz", "kind": "patterns", "subject": "sub-01", "data_key": "betas", "events": "t.csv"}
    return {
        "name": "mine", "modality": "fmri", "recordings": [entry], "images": {"folder": "pictures"},
        "splits": {"validation": 0.25, "test": [STEMS[0] + ".png", STEMS[1] + ".png"]}, **TERMS,
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("files", "table"), [("NFC", "NFC"), ("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
def test_accents_match_however_they_are_written(tmp_path, files, table, encoding):
    names = [unicodedata.normalize(table, f"{stem}.png ") for stem in STEMS]
    folder = prepared(tmp_path, with_pictures(tmp_path, files, names, encoding))
    assert shown(folder) == [f"{stem}.png" for stem in STEMS]


def test_latin_1_is_named(tmp_path):
    manifest = with_pictures(tmp_path, "NFC", STEMS, "latin-1")
    with pytest.raises(DataError, match=r"t\.csv' is no table in UTF-8 .* line 2 .*Latin-1"):
        prepared(tmp_path, manifest)


def test_case_and_suffix_may_lack_where_one_image_is_left():
    stimuli = Stimuli({name: {} for name in ("Cat.png", "dog.JPG", "Ox.png", "ox.png", "two.png", "two.jpg")})
    for name, image_id in {
        "Cat.png": "Cat.png", "cat.PNG": "Cat.png", "CAT": "Cat.png", "dog": "dog.JPG", "dog.jpg": "dog.JPG",
        "ox.png": "ox.png", "ox": "ox.png", "Ox": "Ox.png",
    }.items():  # fmt: skip
        assert stimuli.find(name, "row 1") == image_id
    for name in ("OX", "OX.PNG", "two", "TWO", "cow"):
        with pytest.raises(DataError, match=rf"row 1 shows '{name}', which is none of the 6 images"):
            stimuli.find(name, "row 1")


def test_pictures_that_differ_in_the_form_of_accents_alone_are_refused(tmp_path):
    manifest = with_pictures(tmp_path, "NFC", STEMS)
    Image.new("RGB", (5, 5)).save(tmp_path / "pictures" / unicodedata.normalize("NFD", "K\u00e4fer.png"))
    with pytest.raises(DataError, match=r"images are repeated, for example 'K.fer\.png'"):
        prepared(tmp_path, manifest)


@pytest.mark.parametrize("dtype", ["S", "U"])
def test_bytes_and_text_name_the_same_images(tmp_path, dtype):
    manifest, arrays = patterns(tmp_path)
    names = np.array([f"p{i}" for i in range(N)])
    np.savez(tmp_path / "p.npz", **arrays | {"shown": names[::-1].astype(dtype), "names": names.astype(dtype)})
    manifest["images"] |= {"ids_key": "names", "concept_keys": ["names"]}
    manifest["recordings"][0].pop("index_base")
    folder = prepared(tmp_path, manifest)
    assert shown(folder) == names[::-1].tolist()
    assert sorted(row["concept"] for row in parquet_rows(folder)) == sorted(names)


def test_labels_that_are_double_in_matlab_find_their_names(tmp_path):
    manifest, arrays = patterns(tmp_path)
    np.savez(tmp_path / "p.npz", **arrays | {"labels": np.repeat([1.0, 2.0], N // 2)})
    manifest["images"] |= {"concept_keys": ["labels"], "concept_names": {1: "cat", 2: "dog"}}
    assert {row["concept"] for row in parquet_rows(prepared(tmp_path, manifest))} == {"cat", "dog"}


@pytest.mark.parametrize("name", ["set[1]", "s*t", "s?t", "a b", "K\u00e4fer", "a,b", "{a,b}", "[!x]", "a#1%20"])
def test_folders_of_any_name_are_read_and_no_other(tmp_path, name):
    """`set[1]` as a pattern is `set1`, `s*t` and `s?t` are `set`, `[!x]` is any other letter."""
    for number, other in enumerate(("set1", "set", "a", "y", name)):
        (tmp_path / other).mkdir()
        manifest, arrays = patterns(tmp_path / other)
        np.savez(tmp_path / other / "p.npz", **arrays | {"betas": arrays["betas"] + 100 * number})
        prepared(tmp_path / other, manifest).rename(tmp_path / f"{other} of {other}")
    data = PreparedSet.open(tmp_path / f"{name} of {name}")
    found = {
        int(row["trial"]): row["fmri"]
        for part in ("train", "validation", "test")
        for row in data.split(part).recordings
    }
    np.testing.assert_allclose([found[i] for i in range(N)], arrays["betas"] + 400, rtol=1e-6)
    assert len(data.stored_images) == N
