"""Embedding the images of a prepared data set: each once, with the encoder recorded, or a clear refusal."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image, ImageFilter
from transformers import (
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionModel,
)

from folder_contents import contents
from local_cluster import local_cluster
from neural_clip import NeuralClipModel, NeuralClipProcessor
from neural_clip.commands import main as cli
from neural_clip.commands.embed_images import main
from neural_clip.errors import DataError, run
from neural_clip.image_tower_files import weights_digest
from neural_clip.prepared import integrity
from neural_clip.prepared.doctor.inspect import inspect
from neural_clip.prepared.facts import read_metadata, verify_prepared
from neural_clip.prepared.reader import PreparedSet
from neural_clip.targets import embed_images as embedding
from neural_clip.targets.embed_images import DEFAULT_MODEL, embed_images
from neural_clip.targets.encoder import ImageEncoder, TargetEncoder
from neural_clip.targets.identity import EncoderIdentity
from neural_clip.targets.probes import N_PROBES
from neural_clip.targets.tiny_clip import TINY_CLIP
from neural_clip.training.model import load_tower
from planted_data import write_planted
from tolerances import assert_same_outputs
from toy_sets import write_toy_set

pytestmark = pytest.mark.numerical

N = 7
READY = np.random.default_rng(1).standard_normal((N, 3))
# An embedding program that counts the images it embeds in a file and waits before a given batch.
PROGRAM = """
import sys, time
from pathlib import Path
from neural_clip.commands.embed_images import main
from neural_clip.targets.encoder import ImageEncoder

folder, clip, log, wait_at = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
original, calls = ImageEncoder.encode, []

def encode(self, images):
    if len(images) == 8:  # the probes
        return original(self, images)
    calls.append(len(images))
    if len(calls) == wait_at:
        Path(log.with_suffix(".waiting")).touch()
        time.sleep(60)
    with log.open("a") as file:
        file.write(f"{len(images)} ")
    return original(self, images)

ImageEncoder.encode = encode
main([folder, "--model", clip, "--batch-size", "2", "--device", "cpu"])
"""


def pixels():
    return np.random.default_rng(0).integers(0, 255, (N, 20, 16, 3), dtype=np.uint8)


def make_set(folder, *, simulated=None, embeds=None, with_pixels=True, twins=(), **changes):
    images = [{"image_id": f"im{i}", "concept": "c"} for i in range(N)]
    for i, row in enumerate(images):
        row |= {"image": pixels()[dict(twins).get(i, i)]} if with_pixels else {}
        row |= {} if embeds is None else {"image_embeds": embeds[i]}
    changes = {"simulated": simulated, "image_encoder": None if embeds is None else {"name": "ready"}} | changes
    return write_toy_set(folder, images, [np.ones(3) * i for i in range(N)], **changes)


def embeddings(folder, tmp_path):
    images = load_dataset(str(folder), "images", split="images", cache_dir=str(tmp_path / "cache"))
    return np.array(images["image_embeds"], dtype=np.float32), images


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_embeddings_are_those_of_the_tower_image_by_image(tmp_path, clip, batch_size):
    folder = make_set(tmp_path / "set")
    before = read_metadata(folder)
    assert embed_images(folder, str(clip), batch_size=batch_size, device="cpu") == folder
    whole, processor = CLIPModel.from_pretrained(clip).eval(), CLIPImageProcessor.from_pretrained(clip)
    stored, images = embeddings(folder, tmp_path)
    for row, picture in zip(stored, pixels(), strict=True):
        with torch.no_grad():
            hidden = whole.vision_model(**processor(images=[picture], return_tensors="pt")).pooler_output
            expected = whole.visual_projection(hidden)[0].numpy()
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(images[3]["image"]), pixels()[3])
    after = verify_prepared(folder)
    assert after["image_encoder"] == {
        "name": clip.name, "revision": weights_digest(clip), "pooling": "projected", "projection_dim": 8,
        "image_processor": {
            "do_convert_rgb": True, "do_resize": True, "size": {"shortest_edge": 16}, "resample": 3,
            "do_center_crop": True, "crop_size": {"height": 16, "width": 16}, "do_rescale": True,
            "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": list(processor.image_mean),
            "image_std": list(processor.image_std),
        },
    }  # fmt: skip
    assert after["image_encoder"]["revision"].startswith("sha256:")
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {"image_encoder", "targets", "fingerprint", "files"}
    card = (folder / "README.md").read_text()
    assert clip.name in card and "projected" in card and "none yet" not in card
    assert (folder / "scaling.npz").read_bytes() == b"kept"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("set")] == ["set"]
    recordings = load_dataset(str(folder), "sub-01", split="test", cache_dir=str(tmp_path / "cache"))
    assert recordings[0]["fmri"] == [6, 6, 6]


def test_same_weights_give_the_same_bytes(tmp_path, clip):
    fingerprints = set()
    for name in ("a", "b"):
        embed_images(make_set(tmp_path / name), str(clip), device="cpu")
        fingerprints.add(read_metadata(tmp_path / name)["fingerprint"])
    assert len(fingerprints) == 1


def test_embeddings_already_there_are_kept_unless_told(tmp_path, clip):
    folder = make_set(tmp_path / "set", embeds=READY)
    with pytest.raises(DataError, match=r"already have embeddings, made by 'ready'.*--overwrite"):
        embed_images(folder, str(clip))
    assert embeddings(folder, tmp_path)[0].shape == (N, 3)
    embed_images(folder, str(clip), overwrite=True, device="cpu")
    assert embeddings(folder, tmp_path)[0].shape == (N, 8)
    assert verify_prepared(folder)["image_encoder"]["name"] == clip.name


def test_places_of_voxels_are_carried_over(tmp_path, clip):
    folder = write_planted(tmp_path / "set", "fmri", counts=dict(train=4, validation=2, test=2), places=True)
    places = PreparedSet.open(folder).voxel_places("sub-02")
    embed_images(folder, str(clip), overwrite=True, device="cpu")
    data = PreparedSet.open(folder).verify()
    assert data.places_space == "MNI152"
    np.testing.assert_array_equal(data.voxel_places("sub-02"), places)


def test_sets_without_pixels_are_refused(tmp_path, clip):
    folder = make_set(tmp_path / "set", embeds=READY, with_pixels=False)
    with pytest.raises(DataError, match="no pixels, only ready-made embeddings"):
        embed_images(folder, str(clip), overwrite=True)
    assert verify_prepared(folder)["image_encoder"]["name"] == "ready"
    category = make_set(tmp_path / "category", category_level=True, split_unit="run")
    with pytest.raises(DataError, match="category-level"):
        embed_images(category, str(clip))
    with pytest.raises(DataError, match="is no prepared data set"):
        embed_images(tmp_path, str(clip))


@pytest.fixture
def calls(monkeypatch):
    """Sizes of the batches that were embedded; `calls.fail[n]` is raised instead of embedding the n-th."""

    class Calls(list):
        fail = {}  # noqa: RUF012 - made anew for each test

    made, original = Calls(), ImageEncoder.encode

    def encode(self, images):
        if len(images) == N_PROBES:  # more than a batch of images here
            return original(self, images)
        if error := made.fail.pop(len(made), None):
            raise error
        made.append(len(images))
        return original(self, images)

    monkeypatch.setattr(ImageEncoder, "encode", encode)
    return made


@pytest.fixture
def whole(tmp_path, clip):
    """What an uninterrupted run writes."""
    return contents(embed_images(make_set(tmp_path / "whole" / "set"), str(clip), batch_size=2, device="cpu"))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["key", "disk"])
def test_an_interrupted_run_leaves_the_set_as_it_was_and_goes_on(tmp_path, clip, calls, whole, capsys, error):
    folder = make_set(tmp_path / "set")
    before = contents(folder)
    calls.clear()
    calls.fail = {2: error}
    with pytest.raises(type(error)):
        embed_images(folder, str(clip), batch_size=2, device="cpu")
    assert contents(folder) == before
    kept = tmp_path / "set.embeds-partial"
    assert f"2 embedded batches stay in '{kept}'; the same command goes on" in capsys.readouterr().err
    assert calls == [2, 2]
    embed_images(folder, str(clip), batch_size=2, device="cpu")
    assert calls == [2, 2, 2, 1]  # 7 images: none was embedded twice
    assert f"going on from the batches in '{kept}'" in capsys.readouterr().err
    assert contents(folder) == whole
    assert not kept.exists() and not (tmp_path / "set.partial").exists()


def test_interruption_before_the_first_batch_leaves_nothing(tmp_path, clip, calls):
    folder = make_set(tmp_path / "set")
    calls.fail = {0: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        embed_images(folder, str(clip), batch_size=2, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_error_while_the_folder_is_written_keeps_the_embeddings(tmp_path, clip, calls, whole, monkeypatch):
    folder = make_set(tmp_path / "set")
    calls.clear()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(embedding, "save_metadata", full)
        with pytest.raises(DataError, match=r"set' cannot be written: no space is left on the device"):
            embed_images(folder, str(clip), batch_size=2, device="cpu")
    assert calls == [2, 2, 2, 1]
    embed_images(folder, str(clip), batch_size=2, device="cpu")
    assert calls == [2, 2, 2, 1]
    assert contents(folder) == whole


@pytest.mark.slow
def test_two_processes_and_a_cluster_write_the_same_bytes(tmp_path, clip, whole, monkeypatch):
    """At a shell, with names that are not absolute; workers of a cluster were started in another folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(clip, "clip")
    for name, words in (("two", ["--num-proc", "2"]), ("cluster", ["--cluster", local_cluster()])):
        make_set(tmp_path / name / "set")
        main([f"{name}/set", "--model", "clip", "--batch-size", "2", "--device", "cpu", *words])
        found = contents(tmp_path / name / "set")
        assert found.keys() == whole.keys()
        different = {key for key in whole if whole[key] != found[key]}
        assert different <= {"README.md", "neural_clip.json"}  # they hold the name of the model, as it was given
        told, meant = (json.loads(each["neural_clip.json"]) for each in (found, whole))
        for facts in (told, meant):
            facts["image_encoder"].pop("name")
        assert told == meant


@pytest.mark.slow
def test_processes_keep_their_batches_and_name_what_they_cannot_embed(tmp_path, clip, calls, whole, capsys):
    folder, meant = make_set(tmp_path / "set"), TargetEncoder([str(clip)], device="cpu").description
    with pytest.raises(DataError, match="Another process has another image encoder under the name 'clip0'"):
        embedding._opened(((str(clip),), ("projected",), (None,), "cpu", None), json.dumps(meant | {"revision": "x"}))
    calls.clear()
    calls.fail = {2: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        embed_images(folder, str(clip), batch_size=2, device="cpu")
    embed_images(folder, str(clip), batch_size=2, device="cpu", num_proc=2)
    assert calls == [2, 2]  # those that were missing are embedded by other processes
    assert contents(folder) == whole


@pytest.mark.slow
def test_killed_process_is_gone_on_from(tmp_path, clip, whole):
    """`kill -9` in the third of four batches; a second real process embeds what is left and nothing else."""
    folder, log = make_set(tmp_path / "set"), tmp_path / "log"
    before = contents(folder)
    command = [sys.executable, "-c", PROGRAM, str(folder), str(clip), str(log)]
    process = subprocess.Popen([*command, "3"], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not log.with_suffix(".waiting").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()  # SIGKILL
        process.wait()
    assert contents(folder) == before
    assert log.read_text() == "2 2 "
    done = subprocess.run([*command, "99"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert log.read_text() == "2 2 2 1 "
    assert f"going on from the batches in '{folder}.embeds-partial'" in done.stderr
    assert contents(folder) == whole


@pytest.mark.parametrize("damage", ["flipped bit", "cut off", "emptied", "other width"])
def test_damaged_batches_are_embedded_again(tmp_path, clip, calls, whole, damage):
    folder = make_set(tmp_path / "set")
    calls.clear()
    calls.fail = {3: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        embed_images(folder, str(clip), batch_size=2, device="cpu")
    path = sorted((tmp_path / "set.embeds-partial").glob("*.npz"))[1]
    content = bytearray(path.read_bytes())
    if damage == "flipped bit":
        content[content.index(b"\x93NUMPY") + 128 + 9] ^= 1  # in the numbers: only a checksum can tell
    if damage == "other width":
        np.savez(path, embeds=np.ones((2, 3), np.float32))
    else:
        path.write_bytes(content[: {"cut off": len(content) // 2, "emptied": 0}.get(damage)])
    embed_images(folder, str(clip), batch_size=2, device="cpu")
    assert calls == [2, 2, 2, 2, 1]
    assert contents(folder) == whole


@pytest.fixture
def other_clip(tmp_path, clip):
    """The same architecture under the same name with other weights."""
    import safetensors.torch

    folder = tmp_path / "other" / clip.name
    shutil.copytree(clip, folder)
    weights = safetensors.torch.load_file(clip / "model.safetensors")
    weights["visual_projection.weight"] *= 1.5
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("change", ["weights", "processor", "batch size", "data"])
def test_kept_batches_of_something_else_are_not_used(tmp_path, clip, other_clip, calls, change, capsys):
    folder, options = make_set(tmp_path / "set"), {"batch_size": 2, "device": "cpu"}
    calls.fail = {2: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        embed_images(folder, str(clip), **options)
    model = clip
    if change == "weights":
        model = other_clip
    elif change == "processor":
        model = tmp_path / "sharper" / clip.name
        shutil.copytree(clip, model)
        text = (model / "preprocessor_config.json").read_text()
        (model / "preprocessor_config.json").write_text(text.replace('"resample": 3', '"resample": 2'))
    elif change == "batch size":
        options["batch_size"] = 3
    else:
        shutil.rmtree(folder)
        make_set(folder, twins={1: 0})
    calls.clear()
    embed_images(folder, str(model), **options)
    assert "going on" not in capsys.readouterr().err
    assert calls == {"batch size": [3, 3, 1], "data": [2, 2, 2]}.get(change, [2, 2, 2, 1])
    # "data": six different images are left. Each run equals one that never saw the others' batches.
    fresh = make_set(tmp_path / "fresh" / "set", twins={1: 0} if change == "data" else ())
    assert contents(embed_images(fresh, str(model), **options)) == contents(folder)
    assert not (tmp_path / "set.embeds-partial").exists()


def test_images_with_the_same_bytes_are_embedded_once(tmp_path, clip, calls):
    folder = make_set(tmp_path / "set", twins={3: 0, 4: 2})
    embed_images(folder, str(clip), batch_size=3, device="cpu")
    assert calls == [3, 2]
    stored, images = embeddings(folder, tmp_path)
    assert images["image_id"][:] == [f"im{i}" for i in range(N)]
    assert np.array_equal(stored[3], stored[0]) and np.array_equal(stored[4], stored[2])
    assert len(np.unique(stored, axis=0)) == 5
    apart, _ = embeddings(embed_images(make_set(tmp_path / "apart"), str(clip), device="cpu"), tmp_path)
    np.testing.assert_allclose(stored[[0, 1, 2, 5, 6]], apart[[0, 1, 2, 5, 6]], rtol=1e-4, atol=1e-6)


def test_a_changed_set_is_not_embedded(tmp_path, clip):
    folder = make_set(tmp_path / "set")
    shutil.copy(folder / "images" / "images-00000.parquet", folder / "images" / "images-00001.parquet")
    with pytest.raises(DataError, match=r"images-00001\.parquet' was added to the data set"):
        embed_images(folder, str(clip), device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_set_that_another_process_writes_is_left_alone(tmp_path, clip):
    folder = make_set(tmp_path / "set")
    before = contents(folder)
    hold = "import sys, time; from neural_clip.files.whole import only_writer as o"
    hold += "\nwith o(sys.argv[1]): print(flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", hold, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "\n"
        with pytest.raises(DataError, match=r"Another process is writing '.*set'"):
            embed_images(folder, str(clip), device="cpu")
    finally:
        other.kill()
        other.communicate()
    assert contents(folder) == before and not (tmp_path / "set.embeds-partial").exists()
    embed_images(folder, str(clip), device="cpu")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_a_set_that_changes_meanwhile_is_not_replaced(tmp_path, clip, monkeypatch):
    folder, embed = make_set(tmp_path / "set"), embedding._embed_unique
    changed = next(folder.glob("data/*/test-*.parquet"))

    def meanwhile(*arguments):
        changed.unlink()  # a new file in its place: bytes are shared with what is written
        changed.write_bytes(b"changed by hand")
        return embed(*arguments)

    monkeypatch.setattr(embedding, "_embed_unique", meanwhile)
    with pytest.raises(DataError, match=rf"'{changed}' is not the file that was written"):
        embed_images(folder, str(clip), device="cpu")
    assert changed.read_bytes() == b"changed by hand" and read_metadata(folder)["image_encoder"] is None


def test_recordings_are_read_twice_for_their_sums(tmp_path, clip, monkeypatch):
    """Before the images are embedded, and before the set is replaced."""
    folder, counted, sha256_of = make_set(tmp_path / "set"), [], integrity.sha256_of
    monkeypatch.setattr(integrity, "sha256_of", lambda paths: counted.append(paths[0].name) or sha256_of(paths))
    verify_prepared(embed_images(folder, str(clip), device="cpu"))
    assert counted.count("test-00000.parquet") == 3  # with that of the last line


def test_a_set_that_a_killed_run_moved_aside_is_found_and_embedded(tmp_path, clip):
    folder = make_set(tmp_path / "set")
    folder.rename(tmp_path / "set.replaced")  # where it is between the two renames that replace it
    for look in (PreparedSet.open, read_metadata, inspect):
        with pytest.raises(DataError, match=r"set' is not there: .*The older one lies whole in '.*set\.replaced'"):
            look(folder)
    embed_images(folder, str(clip), device="cpu")
    assert verify_prepared(folder)["image_encoder"]["name"] == clip.name
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_files_of_the_user_stay_and_are_not_listed(tmp_path, clip):
    folder = make_set(tmp_path / "set")
    (folder / "notes.txt").write_text("mine")
    files = read_metadata(embed_images(folder, str(clip), device="cpu"))["files"]
    assert (folder / "notes.txt").read_text() == "mine"
    assert sorted(files) == sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.*")
        if path.is_file() and path.name not in ("README.md", "neural_clip.json", "notes.txt")
    )


def test_hub_model_that_is_not_here_fails_at_once_and_says_what_to_do(tmp_path):
    folder = make_set(tmp_path / "set")
    start = time.monotonic()
    with pytest.raises(
        DataError, match=f"'{DEFAULT_MODEL}' is not on this machine.*hf download {DEFAULT_MODEL}.*--model"
    ):
        embed_images(folder)
    assert time.monotonic() - start < 5
    assert verify_prepared(folder)["image_encoder"] is None


def test_unreachable_hub_is_told(tmp_path, monkeypatch):
    import huggingface_hub

    def unreachable(self, name, revision=None, timeout=None):
        assert 0 < timeout <= 10
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(DataError, match=r"the Hub does not give it \(Name or service not known\)"):
        embed_images(make_set(tmp_path / "set"))


def test_simulated_sets_take_the_tiny_clip(tmp_path, clip, monkeypatch):
    from neural_clip.targets import tiny_clip

    monkeypatch.setattr(tiny_clip, "TINY_CLIP_DIR", clip)
    folder = make_set(tmp_path / "set", simulated={"simulated": True})
    embed_images(folder, device="cpu")
    assert read_metadata(folder)["image_encoder"]["name"] == TINY_CLIP
    monkeypatch.setattr(tiny_clip, "TINY_CLIP_DIR", tmp_path / "gone")
    with pytest.raises(DataError, match=r"no model folder '.*gone'"):
        embed_images(folder, overwrite=True)


def test_models_that_are_none_are_refused(tmp_path, clip):
    folder = make_set(tmp_path / "set")
    (tmp_path / "empty").mkdir()
    bare = tmp_path / "bare"
    shutil.copytree(clip, bare)
    (bare / "model.safetensors").unlink()
    partial = tmp_path / "partial"
    shutil.copytree(clip, partial)
    import safetensors.torch

    weights = safetensors.torch.load_file(clip / "model.safetensors")
    weights.pop("visual_projection.weight")
    safetensors.torch.save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    for name, options, message in (
        (tmp_path / "nowhere", {}, "no model folder"),
        (tmp_path / "empty", {}, "it has no config.json"),
        (bare, {}, "cannot be loaded as a CLIP vision model"),
        (partial, {}, "lacks weights of a CLIP vision tower: visual_projection.weight"),
        (clip, {"revision": "main"}, "'revision' is for models of the Hub"),
        (clip, {"batch_size": 0}, "'batch_size'"),
        (clip, {"device": "abacus"}, "'device' parameter: 'abacus'"),
    ):
        with pytest.raises(DataError, match=message):
            embed_images(folder, str(name), **options)
    assert verify_prepared(folder)["image_encoder"] is None


def test_not_finite_weights_are_refused(tmp_path, clip):
    import safetensors.torch

    broken = tmp_path / "broken"
    shutil.copytree(clip, broken)
    weights = safetensors.torch.load_file(clip / "model.safetensors")
    weights["visual_projection.weight"][:] = float("nan")
    safetensors.torch.save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    folder = make_set(tmp_path / "set")
    with pytest.raises(DataError, match="embedding of image 'im0' holds values that are not finite"):
        embed_images(folder, str(broken), device="cpu")
    assert verify_prepared(folder)["image_encoder"] is None


def test_program(tmp_path, clip, capsys):
    folder = make_set(tmp_path / "set")
    main([str(folder), "--model", str(clip), "--batch-size", "4", "--device", "cpu"])
    assert "(8-d, projected)" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        run(main, [str(folder), "--model", str(clip)])
    assert stop.value.code == 2
    assert "--overwrite" in capsys.readouterr().err


def by_transformers(clip, pooling, pictures):
    """Projected embeddings or class tokens by other models of transformers than ours."""
    pixel_values = CLIPImageProcessor.from_pretrained(clip)(images=list(pictures), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        if pooling == "cls":
            return CLIPVisionModel.from_pretrained(clip).eval()(pixel_values).last_hidden_state[:, 0].numpy()
        whole = CLIPModel.from_pretrained(clip).eval()
        return whole.visual_projection(whole.vision_model(pixel_values).pooler_output).numpy()


def unit(vector):
    return vector / np.sqrt((vector.astype(np.float64) ** 2).sum())


def test_class_tokens_are_those_of_the_last_layer(tmp_path, clip):
    folder = embed_images(make_set(tmp_path / "set"), clip, pooling="cls", batch_size=3, device="cpu")  # a path
    stored, _ = embeddings(folder, tmp_path)
    expected = by_transformers(clip, "cls", pixels())
    assert expected.shape == (N, 16)
    np.testing.assert_allclose(stored, expected, rtol=1e-4, atol=1e-5)
    projected = ImageEncoder(str(clip), device="cpu").description
    assert verify_prepared(folder)["image_encoder"] == projected | {"pooling": "cls", "projection_dim": 16}


def test_several_encoders_are_normalised_one_by_one(tmp_path, clip, other_clip):
    models, poolings = [str(clip), str(other_clip), str(clip)], ["projected", "cls", "cls"]
    folder = embed_images(make_set(tmp_path / "set"), models, pooling=poolings, batch_size=4, device="cpu")
    stored, _ = embeddings(folder, tmp_path)
    singles = [by_transformers(model, *rest, pixels()) for model, *rest in zip(models, poolings, strict=True)]
    expected = np.hstack([[unit(vector) for vector in single] for single in singles])
    np.testing.assert_allclose(stored, expected, rtol=1e-3, atol=1e-5)
    cosines = [[unit(single[i]) @ unit(single[j]) for i in range(N) for j in range(N)] for single in singles]
    joint = [unit(stored[i]) @ unit(stored[j]) for i in range(N) for j in range(N)]
    np.testing.assert_allclose(joint, np.mean(cosines, axis=0), atol=1e-5)
    single = ImageEncoder(str(clip), device="cpu").description
    digests = [weights_digest(path) for path in (clip, other_clip, clip)]
    assert digests[0] != digests[1]
    assert verify_prepared(folder)["image_encoder"] == {
        "name": f"{clip.name} (projected) + {clip.name} (cls) + {clip.name} (cls)", "revision": " + ".join(digests),
        "pooling": "concatenated", "projection_dim": 8 + 16 + 16, "image_processor": [single["image_processor"]] * 3,
    }  # fmt: skip


@pytest.mark.parametrize("pooling", ["projected", "cls"])
def test_images_are_blurred_first(tmp_path, clip, pooling):
    folder = make_set(tmp_path / "set")
    embed_images(folder, str(clip), pooling=pooling, blur=0.125, device="cpu")
    stored, _ = embeddings(folder, tmp_path)
    blurred = [Image.fromarray(picture).filter(ImageFilter.GaussianBlur(2)) for picture in pixels()]  # 0.125 * 16
    np.testing.assert_allclose(stored, by_transformers(clip, pooling, blurred), rtol=1e-4, atol=1e-5)
    text = f"{pooling}, images blurred with sigma 0.125 of the shorter side"
    sharp = ImageEncoder(str(clip), device="cpu", pooling=pooling).description
    assert verify_prepared(folder)["image_encoder"] == sharp | {"name": f"{clip.name} ({text})", "pooling": text}


def test_options_that_are_not_allowed(tmp_path, clip):
    folder, name = make_set(tmp_path / "set"), str(clip)
    before = contents(folder)
    for models, options, message in (
        (name, {"pooling": "mean"}, "'pooling' parameter. Allowed values are 'projected' and 'cls', but got 'mean'"),
        ([name, name], {"pooling": ["cls", "cls", "projected"]}, r"'pooling' parameter.*for each of .*\['cls', 'c"),
        (name, {"pooling": ["cls", "projected"]}, "'pooling' parameter. Allowed is one for all"),
        (name, {"pooling": []}, r"'pooling' parameter.*but got \[\]"),
        ([name, name], {"revision": [None, None, "main"]}, "'revision' parameter. Allowed is one for all"),
        ([name, name], {"pooling": ["cls", "projected"], "revision": [None, "main"]}, "'revision' is for models of"),
        ([name, name], {}, rf"'model' parameter. {clip.name} \(projected\) is given twice"),
        ([name, name, name], {"pooling": ["cls", "projected", "cls"], "blur": 0.1}, r"\(cls, images .* given twice"),
        *((name, {"blur": blur}, rf"'blur' parameter. Allowed is a share in \(0, 1\], but got {blur}")
          for blur in (0, -0.1, 1.01)),
        (name, {"blur": float("nan")}, "'blur' parameter. Allowed is a finite number, but got nan"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            embed_images(folder, models, device="cpu", **options)
    assert contents(folder) == before and [path.name for path in tmp_path.iterdir()] == ["set"]


OPTIONS = {
    "class token": {"pooling": "cls"},
    "blurred": {"blur": 0.1},
    "more blurred": {"blur": 0.2},
    "another blurred pooling": {"blur": 0.1, "pooling": "cls"},
    "two": {"pooling": ["projected", "cls"]},
    "two in the other order": {"pooling": ["cls", "projected"]},
}


CHANGES = [
    ("projected", "blurred"), ("blurred", "more blurred"), ("projected", "class token"),
    ("two", "two in the other order"),
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=" to ".join)
def test_batches_of_other_options_are_not_used(tmp_path, clip, calls, change, capsys):
    first, then = (OPTIONS.get(name, {}) | {"batch_size": 2, "device": "cpu"} for name in change)
    model = [str(clip)] * (2 if "two" in change else 1)
    folder = make_set(tmp_path / "set")
    calls.fail = {2 * len(model): KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        embed_images(folder, model, **first)
    embed_images(folder, model, **then)
    assert "going on" not in capsys.readouterr().err
    fresh = make_set(tmp_path / "fresh" / "set")
    assert contents(embed_images(fresh, model, **then)) == contents(folder)


def test_models_tell_the_options_apart(clip):
    """What a model's configuration keeps of the targets differs for each option, and no tower is made up for them."""
    descriptions = {"projected": TargetEncoder([str(clip)], device="cpu").description}
    for name, options in OPTIONS.items():
        poolings = options.get("pooling", "projected")
        poolings = [poolings] if isinstance(poolings, str) else poolings
        made = TargetEncoder([str(clip)] * len(poolings), poolings, device="cpu", blur=options.get("blur"))
        descriptions[name] = made.description
    kept = {name: EncoderIdentity.of_facts(encoder) for name, encoder in descriptions.items()}
    assert {name: encoder.pooling for name, encoder in kept.items()} == {
        name: {"projected": "projected", "class token": "cls"}.get(name, "precomputed") for name in kept
    }
    for name, encoder in kept.items():
        for other in kept.keys() - {name}:
            with pytest.raises(DataError, match=f"The data.* of {other}"):
                encoder.require(kept[other], f"The model of {name}", f"The data of {other}")
        if encoder.pooling == "precomputed":
            assert load_tower(descriptions[name], required=False) is None
            with pytest.raises(DataError, match="'include_vision_tower' is true, but the targets are ready-made"):
                load_tower(descriptions[name], required=True)


def test_command_line_with_options(tmp_path, clip, other_clip, capsys):
    folder = make_set(tmp_path / "set")
    words = ["embed-images", str(folder), "--device", "cpu", "--model", str(clip), str(other_clip)]
    cli.main([*words, "--pooling", "cls", "projected", "--revision", "", "--blur", "0.25"])
    blurred = ", images blurred with sigma 0.25 of the shorter side)"
    assert f"{clip.name} (cls{blurred} + {clip.name} (projected{blurred} (24-d, conc" in capsys.readouterr().err
    twin = make_set(tmp_path / "twin" / "set")
    embed_images(twin, (clip, other_clip), pooling=("cls", "projected"), blur=0.25, device="cpu")  # paths and tuples
    assert contents(twin) == contents(folder)
    with pytest.raises(DataError, match="'pooling' parameter"):
        cli.main([*words, "--pooling", "cls", "cls", "cls", "--overwrite"])
    with pytest.raises(SystemExit) as stop:
        cli.main([*words, "--pooling", "mean"])
    assert stop.value.code == 2 and "invalid choice: 'mean'" in capsys.readouterr().err


def test_a_model_of_class_tokens_makes_them_itself(tmp_path):
    """A real, short training: the checkpoint embeds images as they were embedded, and can be evaluated."""
    counts = {"train": 12, "validation": 4, "test": 4}
    folder = write_planted(tmp_path / "set", "fmri", n_subjects=1, repeats=1, counts=counts)
    cli.main(["embed-images", str(folder), "--pooling", "cls", "--device", "cpu", "--overwrite"])
    output = tmp_path / "out"
    training = {"output_dir": str(output), "num_train_epochs": 1, "use_cpu": True, "disable_tqdm": True}
    model = {"include_vision_tower": True, "fmri": {"alignment_size": 8, "hidden_size": 8}}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"data": {"fmri": str(folder)}, "model": model, "training": training}))
    cli.main(["train", str(recipe)])
    trained, processor = NeuralClipModel.from_pretrained(output), NeuralClipProcessor.from_pretrained(output)
    assert (trained.config.image_pooling, trained.config.projection_dim) == ("cls", 128)
    stored, images = embeddings(folder, tmp_path)
    found = trained.get_image_features(processor(images=images["image"][:5], return_tensors="pt")["pixel_values"])
    np.testing.assert_allclose(found.numpy(), stored[:5], rtol=1e-4, atol=1e-4)
    encoder = read_metadata(folder)["image_encoder"]
    assert load_tower(encoder, required=True).description == encoder
    words = ["evaluate", "--checkpoint", str(output), "--data", f"fmri={folder}", "--output-dir", str(tmp_path / "ev")]
    cli.main([*words, "--no-controls", "--no-pictures", "--baselines=none"])
    report = json.loads((tmp_path / "ev" / "report.json").read_text())
    assert report["decoding"]["fmri"]["rows"][0]["gallery_size"] == 4
    embed_images(folder, overwrite=True, device="cpu")
    with pytest.raises(DataError, match=r"'pooling': 'cls'.*'pooling': 'projected'.*differ in 'pooling'"):
        cli.main(words)


def odd_files(folder):
    """Pictures that plain readers show in different ways, in a folder of files."""
    pixels = np.random.default_rng(4).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[0x0112] = 6
    folder.mkdir(parents=True)
    image.save(folder / "turned.jpg", exif=exif)
    image.save(folder / "plain.jpg")
    Image.merge("RGBA", [*image.split(), Image.fromarray(pixels[:, :, 0])]).save(folder / "clear.png")
    Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257).save(folder / "wide.png")
    image.quantize(8).save(folder / "few.gif", save_all=True, append_images=[image.quantize(4)])
    image.convert("CMYK").save(folder / "print.tif")
    return sorted(path.name for path in folder.iterdir())


def test_files_of_every_kind_are_embedded_as_the_encoder_sees_them(tmp_path, clip):
    """By the commands, in folders whose names are patterns of others."""
    root = tmp_path / "my [1] set, \u00e4"
    names = odd_files(root / "pictures")
    np.savez(root / "p.npz", betas=2 * np.random.default_rng(5).standard_normal((2 * len(names), 4)))
    (root / "t.csv").write_text("image_id\n" + "".join(f"{name}\n" for name in names * 2))
    (root / "m.yaml").write_text(
        "{name: odd, modality: fmri, recordings: [{file: p.npz, kind: patterns, subject: sub-01, data_key: betas, "
        "events: t.csv}], images: {folder: pictures}, splits: {validation: 0.2, test: 0.2}, source: x, licence: CC0, "
        "redistribution: allowed, citation: x}"
    )
    folder = root / "set*"
    cli.main(["prepare", "custom", str(root / "m.yaml"), "--output-dir", str(folder)])
    cli.main(["embed-images", str(folder), "--model", str(clip)])
    images = PreparedSet.open(folder).images
    assert images.image_ids == names
    given = [Image.open(root / "pictures" / name) for name in names]
    assert {image.mode for image in given} == {"RGB", "RGBA", "I;16", "P", "CMYK"}
    assert_same_outputs(images.embeds, ImageEncoder(str(clip)).encode(given))
