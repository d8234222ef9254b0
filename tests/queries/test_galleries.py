"""Galleries from the shell: built whole, told, opened by every verb, and refused where they do not fit."""

import json
import shutil
import time

import numpy as np
import pytest
from huggingface_hub import constants

from folder_contents import contents
from loopback_hub import LoopbackHub
from neural_clip import NeuralGallery
from neural_clip.commands import main as cli
from neural_clip.errors import DataError
from neural_clip.gallery.parquet import PRIVATE
from neural_clip.prepared.facts import Facts

CHECKPOINT = ["--checkpoint", "checkpoint"]


@pytest.fixture
def here(lab, monkeypatch):
    monkeypatch.chdir(lab.root)
    return lab


def test_galleries_are_built_and_told(here, capsys, tmp_path):
    images, signals = tmp_path / "images", tmp_path / "signals"
    cli.main(["gallery", "build", "stimuli", *CHECKPOINT, "--output-dir", str(images), "--dtype", "float16"])
    assert capsys.readouterr().out == f"gallery:    {images}\n"
    cli.main(["gallery", "build", "sets/eeg", "sets/fmri", "--recordings", "--split", "test", "--subjects", "sub-01",
              *CHECKPOINT, "--output-dir", str(signals)])  # fmt: skip
    out, err = capsys.readouterr()
    assert out == f"gallery:    {signals}\n" and PRIVATE in err
    expected = NeuralGallery.from_recordings("checkpoint", [here.data[name].split("test") for name in ("eeg", "fmri")])
    built = NeuralGallery.load_from_disk(signals)
    assert np.array_equal(built.vectors, expected.vectors) and built.checkpoint == expected.checkpoint

    capsys.readouterr()
    told = cli.main(["gallery", "info", str(signals), "--json"])
    assert json.loads(capsys.readouterr().out) == told
    count = len(here.data["eeg"].split("test"))
    assert told["rows"] == {"eeg": count, "fmri": count} and told["subjects"] == {"sub-01": 2 * count}
    assert told["vectors"] == {"dtype": "float32", "projection_dim": 64}
    assert told["checkpoint"]["sha256"] == expected.checkpoint.sha256
    cli.main(["gallery", "info", str(images)])
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["rows"].strip() == "20 images" and lines["vectors"].strip() == "64 numbers of float16"
    assert lines["encoder"].strip().startswith("neural_clip/tiny-clip (projected") and "none" in lines["checkpoint"]

    found = cli.main(["decode", "sets/eeg", "--gallery", str(images), *CHECKPOINT, "--images-dir", "stimuli"])
    again = cli.main(["decode", "sets/eeg", "--gallery", "stimuli", *CHECKPOINT])
    assert found.hits.rows.tolist() == again.hits.rows.tolist() and found.hits[0].image is not None


def test_what_is_there_is_not_lost(here, tmp_path):
    place = tmp_path / "images"
    words = ["gallery", "build", "stimuli", *CHECKPOINT, "--output-dir", str(place)]
    cli.main(words)
    before = contents(place)
    with pytest.raises(DataError, match=r"is not empty\. Pass `--overwrite` to replace the gallery"):
        cli.main(words)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="exists and is no gallery, so it is not overwritten"):
        cli.main([*words[:-1], str(tmp_path / "mine"), "--overwrite"])
    with pytest.raises(DataError, match="lies in 'stimuli', which is read"):
        cli.main([*words[:-1], "stimuli/gallery"])
    with pytest.raises(DataError, match="There is no folder 'gone'"):
        cli.main(["gallery", "build", "stimuli", "--checkpoint", "gone", "--output-dir", str(place), "--overwrite"])
    shutil.copytree("checkpoint", place / "checkpoint")
    with pytest.raises(DataError, match=r"holds '.*checkpoint', which is read"):
        cli.main(["gallery", "build", "stimuli", "--checkpoint", f"{place}/checkpoint", *words[-2:], "--overwrite"])
    shutil.rmtree(place / "checkpoint")
    assert contents(place) == before
    cli.main([*words, "--overwrite"])
    assert contents(place) == before


def test_wrong_galleries_are_told_in_a_sentence(here, tmp_path, monkeypatch):
    signals = tmp_path / "signals"
    NeuralGallery.from_recordings("checkpoint", here.data["fmri"].split("test")).save_to_disk(signals)
    other = shutil.copytree("checkpoint", tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vision_revision": "sha256:another"}))
    (tmp_path / "empty").mkdir()
    facts = Facts.read(here.sets["eeg"])
    assert facts.subjects == ["sub-01"]
    decode, encode = ["decode", "sets/eeg", "--gallery"], ["encode", "stimuli", "--gallery"]
    for words, message in (
        ([*decode, "stimuli", "--checkpoint", "no/such/checkpoint"], "There is no folder 'no/such/checkpoint'"),
        ([*decode, "stimuli", "--checkpoint", "nowhere"], "There is no folder 'nowhere'"),
        ([*decode, str(tmp_path / "empty"), *CHECKPOINT], "has no files; a gallery needs at least one image"),
        ([*decode, "gone", *CHECKPOINT], "There is no folder or image 'gone'"),
        ([*decode, "events.tsv", *CHECKPOINT], "'events.tsv'"),
        ([*decode, str(signals), *CHECKPOINT], "cannot decode; that takes a gallery of images"),
        ([*decode, "stimuli", str(signals), *CHECKPOINT], "Images and recordings have galleries of their own"),
        (
            [*decode, "stimuli", *CHECKPOINT, "--gallery-split", "test"],
            "'stimuli' cannot be searched for a test split",
        ),
        ([*encode, str(signals), "--checkpoint", str(other)], "they differ in 'revision'"),
        ([*encode, str(signals), *CHECKPOINT, "--modality", "eeg"], "Allowed is 'fmri', but got 'eeg'"),
        (["gallery", "info", "stimuli"], "'stimuli' is no gallery: it has no gallery.json"),
        (["gallery", "build", "stimuli", "--recordings", *CHECKPOINT, "--output-dir", "x"], "stimuli"),
        (
            ["gallery", "build", "stimuli", "--subjects", "a", *CHECKPOINT, "--output-dir", "x"],
            "give --recordings too",
        ),
        (["gallery", "bild"], "Did you mean 'build'?"),
    ):
        with pytest.raises(DataError) as caught:
            cli.main(words)
        assert message in str(caught.value), words
        assert "huggingface.co" not in str(caught.value)
    with (signals / "gallery.json").open("a") as file:
        file.write(" ")
    (signals / "state.json").write_text("{}")
    with pytest.raises(DataError, match="is not the file that was written: its SHA-256 differs"):
        cli.main(["gallery", "info", str(signals)])


@pytest.mark.slow
def test_data_galleries_and_checkpoints_are_opened_by_their_names_on_the_hub(here, capsys, tmp_path, monkeypatch):
    """By every verb; later, where the Hub is out of reach, from the cache."""
    signals = NeuralGallery.from_recordings("checkpoint", here.data["fmri"]).save_to_disk(tmp_path / "signals")
    photos = NeuralGallery.from_images("checkpoint", "stimuli").save_to_disk(tmp_path / "photos")
    folders = {"lab/model": here.checkpoint, "lab/eeg": here.sets["eeg"], "lab/signals": signals, "lab/photos": photos}
    by_folder = {name: str(folder) for name, folder in folders.items()}
    lines = [
        ["decode", "lab/eeg", "--gallery", "lab/photos"], ["decode", "lab/eeg", "--gallery", "lab/eeg"],
        ["convert", "lab/eeg", "--to", "fmri", "--gallery", "lab/signals", "--via", "images", "--bank", "lab/photos"],
        ["encode", "stimuli/im03.png", "--gallery", "lab/signals"], ["search", "a dog", "--gallery", "lab/photos"],
    ]  # fmt: skip
    lines = [[*line, "--checkpoint", "lab/model"] for line in lines]
    expected = [cli.main([by_folder.get(word, word) for word in line]) for line in lines]
    with LoopbackHub() as hub:
        hub.stand_in(monkeypatch)
        for name, folder in folders.items():
            kind = "model" if name == "lab/model" else "dataset"
            hub.add(kind, name, private=False, files=contents(folder))
        found = [cli.main(line) for line in lines]
        capsys.readouterr()
        cli.main(["gallery", "info", "lab/signals"])
        told = capsys.readouterr().out
        assert "lab/signals" in told and f"{len(NeuralGallery.load_from_disk(signals))} fMRI recordings" in told
        with pytest.raises(DataError, match=r"'lab/gone' is neither a folder here nor .* it has none of that name"):
            cli.main(["decode", "lab/eeg", "--gallery", "lab/gone", "--checkpoint", "lab/model"])
    again = [cli.main(line) for line in lines[:2]]
    for ours, theirs in zip(found + again, expected + expected[:2], strict=True):
        np.testing.assert_array_equal(ours.hits.rows, theirs.hits.rows)
        np.testing.assert_array_equal(ours.hits.scores, theirs.hits.scores)
    begin = time.monotonic()
    for line in (["decode", "lab/other", "--gallery", "stimuli"], ["decode", "lab/eeg", "--gallery", "lab/other"]):
        with pytest.raises(
            DataError, match=r"the Hub is out of reach, and the cache of this machine does not have it"
        ):
            cli.main([*line, "--checkpoint", "checkpoint"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"HF_HUB_OFFLINE is set, and the cache of this machine does not have it\.$"):
        cli.main(["decode", "lab/other", "--gallery", "stimuli", "--checkpoint", "checkpoint"])
    with pytest.raises(DataError, match=r"There is no recording 'lab/other\.npy'|There is no array file"):
        cli.main(["decode", "lab/other.npy", "--gallery", "stimuli", "--checkpoint", "checkpoint"])
    assert time.monotonic() - begin < 60
