"""Tests of the shipped tiny CLIP and of scripts/train_tiny_clip.py, which made it."""

from __future__ import annotations

import importlib.util
import json
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import AutoProcessor, AutoTokenizer, CLIPModel, CLIPProcessor

from neural_clip.simulation import images
from neural_clip.targets.tiny_clip import TINY_CLIP_DIR
from paths import REPOSITORY

pytestmark = pytest.mark.numerical
SCRIPT = REPOSITORY / "scripts" / "train_tiny_clip.py"


@pytest.fixture(scope="module")
def script():
    """The training script as a module."""
    spec = importlib.util.spec_from_file_location("train_tiny_clip", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model():
    """The shipped weights in float32."""
    return CLIPModel.from_pretrained(TINY_CLIP_DIR, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def processor():
    """The shipped tokenizer and image pipeline."""
    return CLIPProcessor.from_pretrained(TINY_CLIP_DIR)


@pytest.fixture(scope="module")
def unseen():
    """400 renderings from a random stream that neither training nor the shipped evaluation used."""
    return images.sample_specs(400, np.random.default_rng((2, 20261)))


@pytest.fixture(scope="module")
def image_embeds(model, processor, unseen):
    """L2-normalised embeddings (400, 64) of the unseen renderings."""
    return _embed(model, processor, unseen)


@torch.no_grad()
def _embed(model, processor, specs, size=64):
    """L2-normalised image embeddings through the processor, from PIL images."""
    pictures = [Image.fromarray(images.render(spec, size=size)) for spec in specs]
    inputs = processor(images=pictures, return_tensors="pt")
    return functional.normalize(model.get_image_features(**inputs).pooler_output, dim=-1)


@torch.no_grad()
def _embed_text(model, processor, text):
    """L2-normalised text embeddings."""
    inputs = processor(text=text, padding=True, return_tensors="pt")
    return functional.normalize(model.get_text_features(**inputs).pooler_output, dim=-1)


def _category_prompts():
    return [f"a photo of a {name}" for name in images.CATEGORIES]


def test_folder_is_small_and_complete():
    names = {path.name for path in TINY_CLIP_DIR.iterdir()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "README.md"} <= names
    assert sum(path.stat().st_size for path in TINY_CLIP_DIR.iterdir()) <= 4 * 2**20


def test_weights_are_stored_in_half_precision(model):
    stored = CLIPModel.from_pretrained(TINY_CLIP_DIR, dtype="auto")
    assert stored.dtype == torch.float16
    assert model.config.projection_dim == 64
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_zero_shot_names_unseen_renderings(model, processor, unseen, image_embeds):
    prompts = _embed_text(model, processor, _category_prompts())
    predicted = (image_embeds @ prompts.T).argmax(dim=1).numpy()
    truth = np.array([spec.category for spec in unseen])
    # The card reports 0.996 on 4,000 images; five standard errors of 400 images are 0.016. Chance is 0.025.
    assert (predicted == truth).mean() >= 0.97
    # No shape and no texture is given up for the others.
    for values in (truth // 4, truth % 4):
        assert min((predicted == truth)[values == value].mean() for value in np.unique(values)) >= 0.85


def test_accuracy_agrees_with_the_card(model, processor, unseen, image_embeds):
    prompts = _embed_text(model, processor, _category_prompts())
    truth = torch.tensor([spec.category for spec in unseen])
    accuracy = ((image_embeds @ prompts.T).argmax(dim=1) == truth).float().mean().item()
    reported = json.loads((TINY_CLIP_DIR / "evaluation.json").read_text())["accuracy"]["category"]
    assert abs(accuracy - reported) < 5 * (reported * (1 - reported) / 400) ** 0.5 + 0.005


def test_card_is_made_from_its_json(script):
    facts = json.loads((TINY_CLIP_DIR / "evaluation.json").read_text())
    card = (TINY_CLIP_DIR / "README.md").read_text()
    assert card == script.card(facts)
    for task, value in facts["accuracy"].items():  # and independently of the script's own formatting
        row = re.search(rf"^\| {task} \| ([\d.]+)% \|", card, flags=re.MULTILINE)
        assert float(row.group(1)) == pytest.approx(100 * value, abs=0.051)
    assert facts["command"] in card


def test_embeddings_are_not_collapsed_and_keep_graded_facts(image_embeds, unseen):
    cosines = image_embeds @ image_embeds.T
    off_diagonal = cosines[~torch.eye(len(unseen), dtype=torch.bool)]
    assert off_diagonal.mean().abs() < 0.3
    variances = torch.linalg.eigvalsh(torch.cov(image_embeds.T))
    assert variances.sum() ** 2 / (variances**2).sum() > 5  # participation ratio; 1 is a line
    assert (variances > 1e-4 * variances.max()).sum() >= 24  # the simulation reads 24 components
    # Linear read-out of what categories do not hold, on images that did not fit it.
    features = torch.cat([image_embeds, torch.ones(len(unseen), 1)], dim=1).numpy()
    half = len(unseen) // 2
    for fact in ("x", "y", "size"):
        values = np.array([getattr(spec, fact) for spec in unseen])
        weights = np.linalg.lstsq(features[:half], values[:half], rcond=None)[0]
        assert np.corrcoef(features[half:] @ weights, values[half:])[0, 1] > 0.7, fact
    colours = np.eye(8)[[spec.colour for spec in unseen]]
    weights = np.linalg.lstsq(features[:half], colours[:half], rcond=None)[0]
    assert ((features[half:] @ weights).argmax(1) == colours[half:].argmax(1)).mean() > 0.9  # chance 0.125


def test_text_is_pooled_at_its_end_whatever_the_padding(model, processor):
    """The last word changes the embedding and padding after the end does not: the end token decides."""
    assert model.config.text_config.eos_token_id == processor.tokenizer.eos_token_id != 2
    texts = ["a photo of a striped star", "a photo of a striped heart"]
    star, heart = _embed_text(model, processor, texts)
    assert star @ heart < 0.98
    longer = [texts[0], "a large red striped star on a grid background at the bottom left"]
    torch.testing.assert_close(_embed_text(model, processor, longer)[0], star, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        ids = processor.tokenizer(texts, return_tensors="pt").input_ids
        output = model.text_model(input_ids=ids)
    ends = (ids == processor.tokenizer.eos_token_id).int().argmax(dim=1)
    torch.testing.assert_close(output.pooler_output, output.last_hidden_state[torch.arange(2), ends])


def test_vocabulary_covers_every_caption_and_prompt():
    tokenizer = AutoTokenizer.from_pretrained(TINY_CLIP_DIR)
    texts = [spec.caption for spec in images.sample_specs(500, np.random.default_rng(0))] + _category_prompts()
    encoded = tokenizer(texts)["input_ids"]
    assert all(tokenizer.unk_token_id not in ids for ids in encoded)
    assert max(map(len, encoded)) <= 24
    assert tokenizer("a photo of a zebra")["input_ids"][-2] == tokenizer.unk_token_id
    assert tokenizer.decode(tokenizer("a red STAR")["input_ids"], skip_special_tokens=True) == "a red star"


def test_processor_repeats_the_pixel_pipeline_of_the_training(script, unseen):
    processor = AutoProcessor.from_pretrained(TINY_CLIP_DIR)
    arrays = [images.render(spec) for spec in unseen[:8]]
    pixel_values = processor(images=[Image.fromarray(array) for array in arrays], return_tensors="pt").pixel_values
    expected = script.to_pixel_values(np.stack([array.transpose(2, 0, 1) for array in arrays]))
    torch.testing.assert_close(pixel_values, expected, rtol=0, atol=1e-5)
    oracle = np.stack(arrays).transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(pixel_values.numpy(), oracle, atol=1e-5)


def test_larger_renderings_give_nearly_the_same_embedding(model, processor, unseen, image_embeds):
    """The corpora store larger images; the processor shrinks them to 64 pixels again."""
    enlarged = _embed(model, processor, unseen[:50], size=192)
    assert (enlarged * image_embeds[:50]).sum(dim=1).mean() > 0.95


def test_training_streams_are_disjoint_from_the_evaluation(script):
    train = script.render_batch(5, (script.TRAIN_STREAM, 0, 0))[1]
    test = script.render_batch(5, (script.TEST_STREAM, 0))[1]
    assert not set(train) & set(test)


def test_sincos_positions_against_a_loop(script):
    table = script.sincos_positions(side=4, width=16).numpy()
    for row in range(4):
        for column in range(4):
            expected = []
            for place in (row, column):
                angles = [place * 2 * (2 * np.pi / 4) * 16 ** -(k / 4) for k in range(4)]
                expected += [np.sin(a) for a in angles] + [np.cos(a) for a in angles]
            np.testing.assert_allclose(table[4 * row + column], expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 12), (2, 12, 5)])
def test_orthogonalise_keeps_the_singular_vectors(script, shape):
    """The quintic maps every singular value into about [0.68, 1.14] and leaves the singular vectors alone."""
    matrices = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    for before, after in zip(matrices, script.orthogonalise(matrices), strict=True):
        u, s, vh = torch.linalg.svd(before.double(), full_matrices=False)
        core = u.T @ after.double() @ vh.T
        torch.testing.assert_close(core, torch.diag(torch.diagonal(core)), atol=1e-4, rtol=0)
        clear = s > 0.05 * s.max()
        assert ((torch.diagonal(core)[clear] > 0.6) & (torch.diagonal(core)[clear] < 1.25)).all()


def test_schedule_warms_up_and_falls(script):
    rates = [script.schedule(step, 1000, warmup=100) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01) and rates[99] == rates[100] == 1.0
    assert np.all(np.diff(rates[100:]) < 0) and rates[-1] == pytest.approx(0.01, abs=1e-4)


def test_training_resumes_where_it_stopped_and_writes_the_model(script, tmp_path, monkeypatch):
    """2 steps + resume + 2 steps equal 4 steps, bit for bit; the written folder loads and tells its command."""

    def in_process(args, first_step):
        for step in range(first_step, args.steps):
            yield script.render_batch(args.batch_size, (script.TRAIN_STREAM, args.seed, step))

    monkeypatch.setattr(script, "batches", in_process)
    options = ["--steps", "4", "--batch-size", "6", "--test-images", "20"]
    script.main(["--output-dir", str(tmp_path / "whole"), *options])
    script.main(["--output-dir", str(tmp_path / "parts"), *options, "--stop-after", "2"])
    stopped = json.loads((tmp_path / "parts" / "model" / "evaluation.json").read_text())
    assert stopped["steps"] == 2 and "--stop-after 2" in stopped["command"]
    script.main(["--output-dir", str(tmp_path / "parts"), *options])
    whole, parts = (tmp_path / name / "model" for name in ("whole", "parts"))
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    facts = json.loads((parts / "evaluation.json").read_text())
    assert facts["n_training_images"] == 24 and "--stop-after" not in facts["command"]
    assert (parts / "README.md").read_text() == script.card(facts)
    assert not (tmp_path / "parts" / "model.partial").exists()
    assert CLIPModel.from_pretrained(parts).config.projection_dim == 64


@pytest.mark.slow  # the worker imports torch and transformers once more
def test_worker_draws_the_batches_that_their_seeds_name(script, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))  # the worker finds the script by its name
    monkeypatch.setitem(sys.modules, "train_tiny_clip", script)
    args = script.parse_args(["--output-dir", str(tmp_path), "--steps", "4", "--batch-size", "3", "--seed", "5"])
    drawn = list(script.batches(args, 2))
    assert len(drawn) == 2
    for step, (pixels, specs) in zip((2, 3), drawn, strict=True):
        expected, expected_specs = script.render_batch(3, (script.TRAIN_STREAM, 5, step))
        np.testing.assert_array_equal(pixels, expected)
        assert specs == expected_specs
