"""`SentenceTransformer.encode` gives the vectors of the gallery, before and after it is saved."""

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from neural_clip.errors import DataError
from neural_clip.gallery.embedder import Embedder
from neural_clip.gallery.sentence_transformer import NeuralClipModule
from second_process import python


@pytest.fixture(scope="module")
def model(world):
    return SentenceTransformer(modules=[NeuralClipModule(world.checkpoint, subject="sub-01", modality="eeg")],
                               device="cpu")  # fmt: skip


@pytest.fixture(scope="module")
def rows(world):
    return [row for row in world.data["eeg"].split("test").recordings if row["subject"] == "sub-01"]


def test_recordings_images_and_texts_lie_in_one_space(world, model, rows):
    embedder = Embedder.of(str(world.checkpoint))
    _, expected = embedder.embed_recordings(rows)
    embeds = model.encode(rows)
    np.testing.assert_array_equal(embeds, expected)
    np.testing.assert_array_equal(model.encode([np.array(row["eeg"], np.float32) for row in rows]), expected)
    assert model.encode(rows[0]).shape == (model.get_embedding_dimension(),) == (64,)
    pictures = [row["image"] for row in world.data["eeg"].stored_images.select(range(4))]
    vectors = embedder.embed_images(pictures).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(model.similarity(embeds, model.encode(pictures)), expected @ vectors.T, atol=1e-5)
    words = embedder.embed_texts(["a dog"])[0].astype(np.float64)
    similarity = model.similarity(model.encode(["a dog"]), embeds)
    np.testing.assert_allclose(similarity[0], expected @ (words / np.linalg.norm(words)), atol=1e-5)


def test_fmri_and_rows_of_several_subjects(world):
    part = world.data["fmri"].split("test").recordings
    rows, model = list(part), SentenceTransformer(modules=[NeuralClipModule(str(world.checkpoint))], device="cpu")
    expected = Embedder.of(str(world.checkpoint)).embed_recordings(rows)[1]
    np.testing.assert_allclose(model.encode(rows), expected, atol=1e-6)  # sorted by their length in between


def test_a_saved_model_gives_the_same_vectors(world, model, rows, tmp_path):
    model.save_pretrained(str(tmp_path / "saved"))
    with pytest.raises(ValueError, match="trust_remote_code=True"):  # sentence-transformers asks for that
        SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu", trust_remote_code=True)
    arrays = [np.array(row["eeg"], np.float32) for row in rows]
    np.testing.assert_array_equal(again.encode(arrays), model.encode(arrays))
    assert Embedder.of(str(tmp_path / "saved")).identity.sha256 == Embedder.of(str(world.checkpoint)).identity.sha256


def test_inputs_that_do_not_fit_are_named(world, model, rows, tmp_path):
    with pytest.raises(DataError, match="'eeg' must have shape"):
        model.encode([np.zeros((3, 4))])
    with pytest.raises(DataError, match=r"one kind, but these are .*'recordings', 'texts'"):
        model.encode(["a dog", rows[0]])
    with pytest.raises(DataError, match="no readable checkpoint"):
        NeuralClipModule(tmp_path)


def test_without_sentence_transformers_one_sentence_says_what_to_install():
    code = "import sys\nsys.modules['sentence_transformers'] = None\nimport neural_clip.gallery.sentence_transformer\n"
    done = python("-c", code)
    assert "ImportError: This needs sentence-transformers: pip install 'neural_clip[sent" in done.stderr
