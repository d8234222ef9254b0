"""Embedding the images of a prepared data set: each once, with the encoder recorded, or a clear refusal."""

import shutil
import time

import numpy as np
import pytest
import torch
from datasets import load_dataset
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
)

from neural_clip import embedding
from neural_clip.corpora.prepared import read_metadata, verify_prepared, write_prepared
from neural_clip.embedding import DEFAULT_MODEL, TINY_CLIP, embed_images, main
from neural_clip.errors import DataError, run

N = 7


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A whole CLIP, as models of the Hub are: vision and text tower, image processor."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config=CLIPVisionConfig(**vision, image_size=16, patch_size=8).to_dict(),
        text_config=CLIPTextConfig(**vision, vocab_size=20, max_position_embeddings=8).to_dict(),
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def pixels():
    return np.random.default_rng(0).integers(0, 255, (N, 20, 16, 3), dtype=np.uint8)


def make_set(folder, *, simulated=None, embeds=None, with_pixels=True, **changes):
    facts = {
        "corpus": "toy", "modality": "fmri", "split_protocol": "by hand", "split_unit": "image", "licence": "CC0-1.0",
        "redistribution": "allowed", "citation": "nobody", "source": "made up", "simulated": simulated,
        "image_encoder": None if embeds is None else {"name": "ready"},
    } | changes  # fmt: skip
    images = [{"image_id": f"im{i}", "concept": "c"} for i in range(N)]
    for i, row in enumerate(images):
        row |= {"image": pixels()[i]} if with_pixels else {}
        row |= {} if embeds is None else {"image_embeds": embeds[i]}
    splits = ["train"] * (N - 2) + ["validation", "test"]
    rows = [
        {"subject": "sub-01", "run": f"run-{i}", "image_id": f"im{i}", "split": splits[i], "fmri": np.ones(3) * i}
        for i in range(N)
    ]
    return write_prepared(folder, facts, rows, images, extra_files={"scaling.npz": b"kept"})


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
        "name": clip.name, "revision": embedding._weights_digest(clip), "pooling": "projected", "projection_dim": 8,
    }  # fmt: skip
    assert after["image_encoder"]["revision"].startswith("sha256:")
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {"image_encoder", "fingerprint"}
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
    folder = make_set(tmp_path / "set", embeds=np.ones((N, 3)))
    with pytest.raises(DataError, match=r"already have embeddings, made by 'ready'.*--overwrite"):
        embed_images(folder, str(clip))
    assert embeddings(folder, tmp_path)[0].shape == (N, 3)
    embed_images(folder, str(clip), overwrite=True, device="cpu")
    assert embeddings(folder, tmp_path)[0].shape == (N, 8)
    assert verify_prepared(folder)["image_encoder"]["name"] == clip.name


def test_sets_without_pixels_are_refused(tmp_path, clip):
    folder = make_set(tmp_path / "set", embeds=np.ones((N, 3)), with_pixels=False)
    with pytest.raises(DataError, match="no pixels, only ready-made embeddings"):
        embed_images(folder, str(clip), overwrite=True)
    assert verify_prepared(folder)["image_encoder"]["name"] == "ready"
    category = make_set(tmp_path / "category", category_level=True, split_unit="run")
    with pytest.raises(DataError, match="category-level"):
        embed_images(category, str(clip))
    with pytest.raises(DataError, match="is no prepared data set"):
        embed_images(tmp_path, str(clip))


def test_interruption_leaves_the_set_as_it_was(tmp_path, clip, monkeypatch):
    folder = make_set(tmp_path / "set")
    before = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    original, calls = embedding.ImageEncoder.encode, []

    def encode(self, images):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, images)

    monkeypatch.setattr(embedding.ImageEncoder, "encode", encode)
    with pytest.raises(KeyboardInterrupt):
        embed_images(folder, str(clip), batch_size=2, device="cpu")
    after = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


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
    from neural_clip.simulation import images

    monkeypatch.setattr(images, "TINY_CLIP_DIR", clip)
    folder = make_set(tmp_path / "set", simulated={"simulated": True})
    embed_images(folder, device="cpu")
    assert read_metadata(folder)["image_encoder"]["name"] == TINY_CLIP
    monkeypatch.setattr(images, "TINY_CLIP_DIR", tmp_path / "gone")
    with pytest.raises(DataError, match=r"no model folder '.*gone'"):
        embed_images(folder, overwrite=True)


def test_shipped_tiny_clip_embeds_simulated_images():
    from neural_clip.simulation.images import TINY_CLIP_DIR, render, sample_specs

    if not (TINY_CLIP_DIR / "model.safetensors").is_file():
        pytest.skip("the tiny CLIP has not been trained yet")
    from PIL import Image

    encoder = embedding.ImageEncoder(TINY_CLIP, device="cpu")
    specs = sample_specs(4, np.random.default_rng(0))
    vectors = encoder.encode([Image.fromarray(render(spec)) for spec in specs])
    assert vectors.shape == (4, 64) == (4, encoder.description["projection_dim"])
    assert np.isfinite(vectors).all()


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
    assert "(8-d, projected)" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        run(main, [str(folder), "--model", str(clip)])
    assert stop.value.code == 2
    assert "--overwrite" in capsys.readouterr().err
