"""Galleries on disk: the same rows in another process, whole or not at all, and damage that is named."""

import json
import shutil

import numpy as np
import pytest

from folder_contents import contents
from neural_clip import NeuralGallery
from neural_clip.errors import DataError
from neural_clip.files.record import sealed
from neural_clip.files.whole import sha256_of
from neural_clip.publishing.push import push
from second_process import python


@pytest.fixture(scope="module")
def saved(world, signals, tmp_path_factory):
    """A gallery of recordings on disk."""
    return signals.save_to_disk(tmp_path_factory.mktemp("saved") / "signals")


def test_another_process_opens_the_same_gallery(saved, signals, world):
    code = (
        "import sys\nimport numpy as np\nfrom neural_clip import NeuralGallery\n"
        "gallery = NeuralGallery.load_from_disk(sys.argv[1])\n"
        "np.save(sys.argv[2], gallery.vectors)\n"
        "print(len(gallery), gallery.modalities, gallery.checkpoint.sha256, gallery.rows[3]['image_id'])\n"
    )
    done = python("-c", code, saved, saved.parent / "vectors.npy", timeout=120)
    assert done.returncode == 0, done.stderr
    row = signals.rows[3]
    assert done.stdout.split("\n")[0] == (
        f"{len(signals)} {signals.modalities} {signals.checkpoint.sha256} {row['image_id']}"
    )
    np.testing.assert_array_equal(np.load(saved.parent / "vectors.npy"), signals.vectors)
    opened = NeuralGallery.load_from_disk(saved, world.checkpoint)
    signals.encoder.require(opened.encoder, "one", "other")
    assert opened.checkpoint == signals.checkpoint


def test_the_same_gallery_has_the_same_bytes(saved, world):
    """Made anew by the model, and loaded and saved again."""
    parts = [world.data[modality].split("test") for modality in ("eeg", "fmri")]
    again = NeuralGallery.from_recordings(world.checkpoint, parts).save_to_disk(saved.parent / "again")
    copied = NeuralGallery.load_from_disk(again).save_to_disk(saved.parent / "copied")
    assert contents(again) == contents(saved) == contents(copied)


def test_it_is_not_written_over_other_things(saved, signals, images, world, tmp_path):
    with pytest.raises(DataError, match=r"is not empty\. Pass `--overwrite`"):
        signals.save_to_disk(saved)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(DataError, match="exists and is no gallery"):
        signals.save_to_disk(tmp_path / "mine", overwrite=True)
    with pytest.raises(DataError, match=r"lies in .*eeg"):
        signals.save_to_disk(world.folders["eeg"] / "gallery")
    copy = shutil.copytree(saved, tmp_path / "copy")
    NeuralGallery.load_from_disk(copy).filter(modality="eeg").save_to_disk(
        copy, overwrite=True
    )  # of what it is read from
    assert NeuralGallery.load_from_disk(copy).modalities == ["eeg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "mine"]


@pytest.mark.parametrize("name", ["data-00000-of-00001.arrow", "state.json", "dataset_info.json"])
@pytest.mark.parametrize("way", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named(saved, tmp_path, name, way):
    folder = shutil.copytree(saved, tmp_path / "gallery")
    path = folder / name
    content = path.read_bytes()
    if way == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-9] if way == "cut" else content[:50] + bytes([content[50] ^ 4]) + content[51:])
    with pytest.raises(DataError, match=rf"{name}' is (missing|not the file that was written)"):
        NeuralGallery.load_from_disk(folder)


def test_a_changed_or_unknown_description_is_refused(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "gallery")
    path = folder / "gallery.json"
    content = json.loads(path.read_text())
    for changed, message in (
        (content | {"checkpoint": None}, "gallery.json' was changed since it was written"),
        (sealed(content | {"format_version": 9}), "has format_version 9; this package reads 1"),
        (sealed(content | {"rows": 7}), "but 7 were written"),
        ([], "was changed since it was written, or is damaged"),
    ):
        path.write_text(json.dumps(changed))
        with pytest.raises(DataError, match=message):
            NeuralGallery.load_from_disk(folder)
    path.write_text("{")
    with pytest.raises(DataError, match=r"gallery\.json"):
        NeuralGallery.load_from_disk(folder)
    with pytest.raises(DataError, match=r"is no gallery: it has no gallery\.json"):
        NeuralGallery.load_from_disk(tmp_path)
    with pytest.raises(DataError, match=r"^There is no gallery '.*nowhere'\.$"):
        NeuralGallery.load_from_disk(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "values"),
    [("files", [["a"], None, {"state.json": None}]), ("rows", ["8", True, None]), ("encoder", ["net", []]),
     ("checkpoint", ["net", {"name": "net"}, {"name": 1, "sha256": "0"}]),
     ("terms", [["eeg"], {"eeg": "free"}, {"eeg": [{"corpus": 3}]}]), ("montage", ["eeg", [1], [{"of": 1}]])],
)  # fmt: skip
def test_entries_of_another_type_are_named_though_the_description_is_sealed(saved, tmp_path, name, values):
    """Whoever makes a gallery can seal it: it may come from anybody on the Hub."""
    folder = shutil.copytree(saved, tmp_path / "gallery")
    content = json.loads((folder / "gallery.json").read_text())
    changed = [content | {name: value} for value in values]
    if name not in ("terms", "montage"):  # which earlier versions did not write
        changed.append({key: value for key, value in content.items() if key != name})
    for each in changed:
        (folder / "gallery.json").write_text(json.dumps(sealed(each)))
        for read in (NeuralGallery.load_from_disk, lambda place: push(place, "me/gallery", public=True)):
            with pytest.raises(DataError, match=rf"gallery\.json' is damaged: (its )?'{name}'"):
                read(folder)


@pytest.mark.parametrize("place", ["/private/a.png", "../../private/a.png", "a/../../../private/a.png"])
def test_a_gallery_that_names_pictures_elsewhere_on_this_machine_is_refused(world, saved, tmp_path, place):
    """They would be drawn, and shown to visitors of `neural-clip app`."""
    from datasets import load_from_disk

    rows = load_from_disk(saved).map(lambda row: {"file": place})
    rows.save_to_disk(tmp_path / "gallery")
    content = json.loads((saved / "gallery.json").read_text())
    files = {path.name: sha256_of([path]) for path in (tmp_path / "gallery").iterdir()}
    (tmp_path / "gallery" / "gallery.json").write_text(json.dumps(sealed(content | {"files": files})))
    with pytest.raises(DataError, match=rf"names the picture '{place}', which does not lie beside it"):
        NeuralGallery.load_from_disk(tmp_path / "gallery")


def test_no_path_of_this_machine_is_written(world, saved, images, tmp_path):
    far = images.save_to_disk(tmp_path / "a" / "b" / "c" / "gallery")
    for folder in (saved, far):
        content = b"".join(path.read_bytes() for path in folder.iterdir())
        assert str(world.root).encode() not in content
    found = NeuralGallery.load_from_disk(far, world.checkpoint)
    hit = found.decode(world.data["eeg"].split("test"), top_k=1)[0]
    assert hit.image is None and "is not at hand: there is no 'eeg'. Name its folder by 'pictures'" in hit.why_no_image
    found = NeuralGallery.load_from_disk(far, world.checkpoint, pictures=world.folders["eeg"])
    assert found.decode(world.data["eeg"].split("test"), top_k=1)[0].image.mode == "RGB"
