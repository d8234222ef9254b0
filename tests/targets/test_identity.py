"""Spaces of image embeddings are told apart by name and by vectors, through the real commands, and never mix."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from custom_raw import N, patterns, prepared
from neural_clip import NeuralClipConfig, NeuralClipModel, NeuralClipProcessor
from neural_clip.commands import main as cli
from neural_clip.errors import DataError
from neural_clip.evaluation.checkpoints import open_data
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.prepared.facts import Facts, read_metadata
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.writer import save_metadata
from neural_clip.target_space import TargetSpace
from neural_clip.targets.embed_images import embed_images
from neural_clip.targets.encoder import ImageEncoder, weights_digest
from neural_clip.targets.identity import EncoderIdentity, common_identity, common_image_encoder, identity_of
from neural_clip.targets.probes import probe_images
from neural_clip.targets.tiny_clip import TINY_CLIP, TINY_CLIP_DIR
from neural_clip.training.checks import check_made_by
from neural_clip.training.model import load_tower
from planted_data import facts_of, older, write_planted

pytestmark = pytest.mark.numerical

COUNTS = {"train": 12, "validation": 4, "test": 4}
SMALL = {"fmri": {"alignment_size": 8, "hidden_size": 8}, "eeg": {"hidden_size": 4, "temporal_kernel_size": 3}}
OTHER = "name the same image encoder, '{}', but its vectors are others: "


def test_encoders_are_told_apart():
    facts = {"name": "a/clip", "revision": "1", "pooling": "projected", "projection_dim": 8}
    clip = EncoderIdentity(**facts)
    clip.require(EncoderIdentity.of_facts(facts | {"image_processor": {}}), "the model", "the data")
    for key, other in (("name", "b/clip"), ("revision", "2"), ("pooling", "cls"), ("projection_dim", 9)):
        for found in (EncoderIdentity.of_facts(facts | {key: other}), clip.changed(**{key: other})):
            with pytest.raises(DataError) as caught:
                clip.require(found, "the model", "the data")
            for part in ("the model", "the data", f"differ in '{key}'.", repr(facts[key]), repr(other)):
                assert part in str(caught.value)
    with pytest.raises(DataError, match="differ in 'revision'"):  # one that is not stated is no wildcard
        EncoderIdentity.of_facts(facts | {"revision": None}).require(clip, "the model", "the data")
    assert clip.changed(name="a/clip", revision=None) == clip
    ready_made = EncoderIdentity.of_facts(facts | {"pooling": "mean of patches"})
    assert ready_made == EncoderIdentity(**facts | {"pooling": "precomputed"})


@pytest.mark.parametrize("key", ["name", "revision", "pooling", "projection_dim"])
def test_an_encoder_that_lacks_an_entry_is_told(key):
    encoder = {"name": "a/clip", "revision": "1", "pooling": "projected", "projection_dim": 8}
    del encoder[key]
    with pytest.raises(DataError, match=f"'image_encoder' of a prepared data set lacks '{key}', so its"):
        common_image_encoder({"eeg": facts_of("eeg", image_encoder=encoder)})


def test_configurations_keep_the_encoder():
    clip = EncoderIdentity("a/clip", None, "cls", 8)
    assert clip.as_config() == {
        "vision_model_name": "a/clip", "vision_revision": None, "image_pooling": "cls", "projection_dim": 8,
        "target_space": None,
    }  # fmt: skip
    assert EncoderIdentity.of_config(NeuralClipConfig(**clip.as_config())) == clip
    assert EncoderIdentity.of_config(NeuralClipConfig(projection_dim=8)) is None


def change_facts(folder, **changes):
    path = Path(folder, "neural_clip.json")
    metadata = json.loads(path.read_text())
    metadata["image_encoder"] |= changes
    path.write_text(json.dumps(metadata))


def embedded(folder, modality, clip, **changes):
    """A planted set whose images a CLIP embedded; `changes` are what it says of that CLIP."""
    write_planted(folder, modality, n_subjects=1, repeats=1, counts=COUNTS)
    embed_images(folder, str(clip), device="cpu", overwrite=True)
    change_facts(folder, **changes)
    return str(folder)


def recipe_of(path, data, output, **model):
    training = {"output_dir": str(output), "num_train_epochs": 1, "use_cpu": True, "disable_tqdm": True}
    model |= {modality: SMALL[modality] for modality in data if modality in SMALL}
    path.write_text(json.dumps({"data": data, "model": model, "training": training}))
    return str(path)


@pytest.fixture(scope="module")
def sets(tmp_path_factory, clip, namesake):
    """Sets of two CLIPs of one name, width and (so it is stated) revision."""
    root = tmp_path_factory.mktemp("sets")
    stated = {"revision": weights_digest(clip)}
    return {
        "fmri": embedded(root / "fmri", "fmri", clip),
        "eeg": embedded(root / "eeg", "eeg", clip),
        "other fmri": embedded(root / "other_fmri", "fmri", namesake, **stated),
        "other eeg": embedded(root / "other_eeg", "eeg", namesake, **stated),
    }


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, sets):
    root = tmp_path_factory.mktemp("run")
    data = {"fmri": sets["fmri"]}
    cli.main(["train", recipe_of(root / "recipe.yaml", data, root / "out")])
    return root / "out"


def test_sets_and_checkpoints_keep_the_probes(sets, checkpoint, clip):
    space = Facts.read(sets["fmri"]).target_space
    config = NeuralClipModel.from_pretrained(checkpoint).config
    assert config.target_space == space.as_dict() and space.probes.shape == (8, 8) and space.mean is None
    vectors = ImageEncoder(str(clip), device="cpu").encode(probe_images())
    np.testing.assert_allclose(space.probes, unit(vectors), atol=1e-3)
    assert (checkpoint / "config.json").stat().st_size < 20_000


def test_sets_of_two_clips_of_one_name_are_not_trained_together(sets, tmp_path, clip):
    data = {"eeg": sets["other eeg"], "fmri": sets["fmri"]}
    with pytest.raises(DataError, match=OTHER.format(clip.name) + "probe image") as caught:
        cli.main(["train", recipe_of(tmp_path / "r.yaml", data, tmp_path / "out")])
    assert f"'{data['eeg']}' and '{data['fmri']}' name the same image encoder" in str(caught.value)
    with pytest.raises(DataError, match=OTHER.format(clip.name)):
        open_data(list(data.values()))
    assert not (tmp_path / "out" / "model.safetensors").exists()
    both = {name: Facts.read(sets[name]) for name in ("eeg", "fmri")}
    assert common_image_encoder(both)["name"] == clip.name


def test_a_run_does_not_go_on_with_another_clip_of_the_name(sets, checkpoint, tmp_path):
    output = shutil.copytree(checkpoint, tmp_path / "out")
    recipe = recipe_of(tmp_path / "r.yaml", {"fmri": sets["other fmri"]}, output)
    with pytest.raises(DataError, match=r"The checkpoint '.*checkpoint-.*its vectors are others"):
        cli.main(["train", recipe, "--resume", "true", "--num_train_epochs", "2"])


def test_a_checkpoint_does_not_score_another_clip_of_the_name(sets, checkpoint, tmp_path):
    words = ["evaluate", "--checkpoint", str(checkpoint), "--output-dir", str(tmp_path / "ev")]
    quick = ["--no-controls", "--no-pictures", "--baselines=none"]
    with pytest.raises(DataError, match=r"The checkpoint '.*its vectors are others.*embed-images"):
        cli.main([*words, *quick, "--data", f"fmri={sets['other fmri']}"])
    cli.main([*words, *quick, "--data", f"fmri={sets['fmri']}"])
    assert (tmp_path / "ev" / "report.json").is_file()


def test_a_checkpoint_is_not_adapted_to_another_clip_of_the_name(sets, checkpoint, tmp_path):
    folder = shutil.copytree(sets["other fmri"], tmp_path / "set")
    words = ["adapt", "--checkpoint", str(checkpoint), "--data", f"fmri={folder}", "--output-dir"]
    with pytest.raises(DataError, match=r"The checkpoint '.*its vectors are others"):
        cli.main([*words, str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_galleries_of_two_clips_of_one_name_are_not_searched(sets, checkpoint):
    model = NeuralClipModel.from_pretrained(checkpoint)
    mine, other = (PreparedSet.open(sets[name]).split("test") for name in ("fmri", "other fmri"))
    gallery = NeuralGallery.of_images(mine, model)
    assert gallery.nearest(NeuralGallery.of_images(mine))[:, 0].tolist() == list(range(len(gallery)))
    assert gallery.hits(gallery, 1)[:, 0].tolist() == list(range(len(gallery)))
    with pytest.raises(DataError, match=r"The model and .*its vectors are others"):
        NeuralGallery.of_images(other, model)
    for search in (gallery.nearest, gallery.hits):
        with pytest.raises(DataError, match=r"The gallery and the queries .*its vectors are others"):
            search(NeuralGallery.of_images(other))


def test_a_tower_of_the_name_with_other_weights_is_not_taken(sets, namesake, monkeypatch):
    facts = Facts.read(sets["fmri"])
    tower = ImageEncoder(str(namesake), device="cpu")
    tower.description = dict(facts.image_encoder)
    monkeypatch.setattr("neural_clip.training.model.ImageEncoder", lambda *args: tower)
    with pytest.raises(DataError, match="on this machine its vectors are others: probe image"):
        load_tower(facts.image_encoder, True, facts.target_space)
    assert load_tower(facts.image_encoder, True) is tower  # of format 1: nothing but the name is known


def test_sets_of_before_are_compared_by_name_with_a_warning(sets, clip):
    old = replace(Facts.read(sets["other fmri"]), targets=None)
    new = Facts.read(sets["eeg"])
    with pytest.warns(UserWarning, match=f"'a' and 'b' name the same image encoder, '{clip.name}'. Whether it made"):
        assert common_identity({"a": old, "b": new}).space.differences(new.target_space) == []


# ---- the table


def rewrite_images(folder, change):
    """Write the image table anew; what `neural_clip.json` and the card say stays."""
    (path,) = Path(folder, "images").glob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(change(table), path)


def appended(table):
    return pa.concat_tables([table, *[renamed(table, number) for number in range(25)]])


def renamed(table, number):
    ids = pa.array([f"{name}-{number}" for name in table["image_id"].to_pylist()])
    return table.set_column(table.column_names.index("image_id"), table.schema.field("image_id"), ids)


def drawn(table):
    column = table.column_names.index("image_embeds")
    field = table.schema.field(column)
    values = np.random.default_rng(0).standard_normal((len(table), 8)).astype(np.float32)
    return table.set_column(column, field, pa.array(values.tolist(), type=field.type))


CHANGES = {
    "appended": appended,
    "random vectors": drawn,
    "left out": lambda table: table.slice(0, len(table) - 1),
    "reordered": lambda table: table.take(np.arange(len(table))[::-1]),
    "renamed": lambda table: renamed(table, 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_image_table_is_noticed(sets, checkpoint, tmp_path, change):
    folder = shutil.copytree(sets["fmri"], tmp_path / change)
    rewrite_images(folder, CHANGES[change])
    with pytest.raises(DataError, match=r"images-00000\.parquet' is not the file that was written"):
        PreparedSet.open(folder)
    older(folder)  # lists no files; the table has a digest
    with pytest.raises(DataError, match=r"image embeddings of .* are not those that were written: .* 20 with"):
        _ = PreparedSet.open(folder).images
    words = ["evaluate", "--checkpoint", str(checkpoint), "--output-dir", str(tmp_path / "ev")]
    with pytest.raises(DataError, match="are not those that were written"):
        cli.main([*words, "--data", f"fmri={folder}", "--no-controls", "--no-pictures", "--baselines=none"])
    with pytest.raises(DataError, match="are not those that were written"):
        cli.main(["train", recipe_of(tmp_path / "r.yaml", {"fmri": str(folder)}, tmp_path / "out")])


def test_images_that_no_recording_shows_are_fine_where_they_were_written(tmp_path, clip):
    folder = Path(embedded(tmp_path / "set", "fmri", clip))
    before = Facts.read(folder).targets
    rewrite_images(folder, appended)
    save_metadata(folder, read_metadata(folder))
    assert (before["images"], Facts.read(folder).targets["images"]) == (20, 520)
    assert len(PreparedSet.open(folder).images.image_ids) == 520
    assert Facts.read(folder).targets["space"] == before["space"]


def test_the_digest_is_of_ids_and_vectors_in_order(sets):
    table = PreparedSet.open(sets["fmri"]).images
    digest = hashlib.sha256(json.dumps(table.image_ids).encode() + table.embeds.tobytes()).hexdigest()
    assert Facts.read(sets["fmri"]).targets["sha256"] == digest == table.sha256


def test_format_2_without_a_digest_is_refused(sets, tmp_path):
    folder = shutil.copytree(sets["fmri"], tmp_path / "set")
    path = folder / "neural_clip.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"targets": None}))
    with pytest.raises(DataError, match="instead of None with None"):
        _ = PreparedSet.open(folder).images


def test_a_damaged_space_is_told(sets, tmp_path):
    folder = shutil.copytree(sets["fmri"], tmp_path / "set")
    path = folder / "neural_clip.json"
    metadata = json.loads(path.read_text())
    metadata["targets"]["space"]["probes"][0] = "cut"
    path.write_text(json.dumps(metadata))
    with pytest.raises(DataError, match=r"neural_clip\.json': 'targets' is damaged: The target space cannot"):
        open_data([folder])


# ---- ready-made embeddings and their mean


def ready_made(folder, vectors, modality="fmri", **changes):
    """A set of `prepare custom` with ready-made embeddings, in a folder of its own."""
    folder.mkdir()
    splits = changes.pop("splits", {"validation": 0.25, "test": 0.25})
    manifest, _ = patterns(folder, modality, splits=splits, **({} if modality == "fmri" else {"unit": "z"}))
    np.savez(folder / "e.npz", embeds=vectors, ids=np.array([f"image-{i:05d}" for i in range(len(vectors))]))
    manifest["embeddings"] = {"file": "e.npz", "name": "net", **changes}
    return prepared(folder, manifest)


def table_of(seed, n=N, width=6):
    return (3 + np.random.default_rng(seed).standard_normal((n, width))).astype(np.float32)


def test_ready_made_tables_of_one_name_are_told_apart(tmp_path):
    vectors = table_of(0)
    one = ready_made(tmp_path / "one", vectors)
    same = ready_made(tmp_path / "same", table_of(0), "eeg")
    longer = ready_made(tmp_path / "longer", np.concatenate([vectors, table_of(1)]), "meg")
    assert list(open_data([one, same, longer])) == ["eeg", "meg", "fmri"]
    other = ready_made(tmp_path / "other", table_of(2), "eeg")
    with pytest.raises(DataError, match=OTHER.format("net") + f"{N} of {N} images kept of both tables.*from one file"):
        open_data([one, other])


def test_sets_with_other_means_are_not_trained_together(tmp_path):
    splits = {"validation": 0.25, "test": 0.25, "seed": 1}
    centred = ready_made(tmp_path / "a", table_of(0), centre="train")
    again = ready_made(tmp_path / "b", table_of(0), "eeg", centre="train")
    other = ready_made(tmp_path / "c", table_of(0), "eeg", centre="train", splits=splits)
    raw = ready_made(tmp_path / "d", table_of(0), "eeg")
    facts = {name: Facts.read(folder) for name, folder in {"a": centred, "b": again, "c": other, "d": raw}.items()}
    assert common_image_encoder({"a": facts["a"], "b": facts["b"]})["name"] == "net"
    for name in "cd":
        with pytest.raises(DataError, match=f"'a' and '{name}' have image embeddings of 'net' from which other means"):
            common_image_encoder({"a": facts["a"], name: facts[name]})
        open_data([centred, {"c": other, "d": raw}[name]])  # scored in the space of a checkpoint


@pytest.fixture(scope="module")
def centred(tmp_path_factory):
    """A set of embeddings that the tiny CLIP made elsewhere and that were centred, a checkpoint, and the raw table."""
    root = tmp_path_factory.mktemp("centred")
    (root / "raw").mkdir()
    _, arrays = patterns(root / "raw")
    pictures = [Image.fromarray(picture).convert("RGB") for picture in arrays["pictures"]]
    raw = ImageEncoder(TINY_CLIP, device="cpu").encode(pictures)
    named = {"name": TINY_CLIP, "revision": weights_digest(TINY_CLIP_DIR), "pooling": "projected"}
    folder = ready_made(root / "set", raw, centre="train", **named)
    recipe = recipe_of(root / "r.yaml", {"fmri": str(folder)}, root / "out", include_vision_tower=True)
    cli.main(["train", recipe])
    return folder, root / "out", raw, pictures, named


def test_a_model_of_centred_targets_embeds_images_where_its_targets_lie(centred):
    folder, checkpoint, raw, pictures, _ = centred
    model, processor = NeuralClipModel.from_pretrained(checkpoint), NeuralClipProcessor.from_pretrained(checkpoint)
    images = PreparedSet.open(folder).images
    mean = np.load(folder / "embedding_mean.npz")["mean"]
    stored = images.embeds[images.rows_of([f"image-{i:05d}" for i in range(N)])]
    np.testing.assert_allclose(stored, raw - mean, atol=1e-5)
    pixel_values = processor(images=pictures, return_tensors="pt")["pixel_values"]
    np.testing.assert_allclose(model.get_image_features(pixel_values).numpy(), stored, rtol=1e-4, atol=1e-4)
    assert np.abs(stored - raw).max() > 0.1
    voxels = torch.zeros(1, model.config.fmri_config.n_voxels["sub-01"])
    compared = model(fmri_values=voxels, subject_ids=torch.zeros(1, dtype=torch.int64), pixel_values=pixel_values)
    np.testing.assert_allclose(compared.image_embeds.detach().numpy(), unit(stored), atol=1e-4)
    content = json.loads((checkpoint / "config.json").read_text())["target_space"]
    np.testing.assert_array_equal(TargetSpace.of(content).mean, mean.astype(np.float32))
    half = model.bfloat16().get_image_features(pixel_values.bfloat16())
    assert half.dtype == pixel_values.bfloat16().dtype and np.abs(half.float().numpy() - stored).max() < 0.1


@pytest.mark.parametrize("change", ["random", "swapped"])
def test_vectors_that_the_named_tower_does_not_make_are_not_trained_on(centred, tmp_path, change):
    """The digest is right and there are no probes: the images themselves tell."""
    _, _, raw, _, named = centred
    vectors = {"random": 3 + np.random.default_rng(0).standard_normal(raw.shape), "swapped": raw[::-1]}[change]
    folder = ready_made(tmp_path / "set", vectors.astype(np.float32), centre="train", **named)
    recipe = recipe_of(tmp_path / "r.yaml", {"fmri": str(folder)}, tmp_path / "out")
    with pytest.raises(DataError, match=r"image embeddings of .* are not those that 'neural_clip/tiny-clip' makes"):
        cli.main(["train", recipe])
    facts = Facts.read(folder)
    assert facts.targets["sha256"] == PreparedSet.open(folder).images.sha256


def test_transparent_images_are_looked_at_as_they_are_embedded():
    """Older versions stored them as they were."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 4), dtype=np.uint8)
    pixels[..., 3] = 40
    pictures = [Image.fromarray(picture) for picture in pixels]
    tower = ImageEncoder(TINY_CLIP, device="cpu")
    stored = datasets.Dataset.from_dict({"image_id": list("abcd"), "image": pictures})
    space = SimpleNamespace(images=SimpleNamespace(embeds=tower.encode(pictures)))
    check_made_by(tower, SimpleNamespace(name="set", folder="set", stored_images=stored, moved_to=lambda _: space))


@pytest.mark.parametrize("other", ["raw", "another mean"])
def test_galleries_get_the_mean_of_the_checkpoint(centred, tmp_path, other):
    folder, checkpoint, raw, _, named = centred
    changes = {"raw": {}, "another mean": {"centre": "train", "splits": {"validation": 0.25, "test": 0.25, "seed": 1}}}
    second = ready_made(tmp_path / "set", raw, **named, **changes[other])
    mean = np.load(folder / "embedding_mean.npz")["mean"]
    part = PreparedSet.open(second).split("test")
    model = NeuralClipModel.from_pretrained(checkpoint)
    gallery = NeuralGallery.of_images(part, model)
    rows = [int(name[-5:]) for name in gallery.image_ids]
    np.testing.assert_allclose(gallery.vectors, raw[rows] - mean, atol=1e-5)
    assert np.abs(NeuralGallery.of_images(part).vectors - gallery.vectors).max() > 1e-3
    identity_of(Facts.read(folder)).require(gallery.encoder, "the set", "the gallery")
    recordings = NeuralGallery.of_recordings(part, np.ones((len(part), raw.shape[1])), model=model)
    assert recordings.nearest(gallery).shape == (len(gallery), 1)
    with pytest.raises(DataError, match=r"The gallery and the queries have image embeddings .* other means"):
        recordings.nearest(NeuralGallery.of_images(part))
    words = ["evaluate", "--checkpoint", str(checkpoint), "--data", f"fmri={second}", "--output-dir", str(tmp_path)]
    cli.main([*words, "--no-controls", "--no-pictures", "--baselines=none"])
    with np.load(tmp_path / "embeddings.npz") as file:
        ids, scored = file["fmri_gallery_ids"], file["fmri_gallery_embeds"]
    cosines = (unit(scored) * unit(raw[[int(name[-5:]) for name in ids]] - mean)).sum(axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-5)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
