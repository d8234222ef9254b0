"""Hits say how likely they are right, where that was calibrated, and why not elsewhere."""

import json
import math
import shutil

import numpy as np
import pytest
from datasets import Dataset

from checkpoints_of_galleries import save_checkpoint
from neural_clip import NeuralClipModel, NeuralClipProcessor, NeuralGallery
from neural_clip.errors import DataError
from neural_clip.files.record import sealed
from neural_clip.files.whole import sha256_of
from neural_clip.gallery.columns import table_of
from slow_scores import cosine

TEMPERATURES = {"sub-01": 7.0, "sub-02": 40.0}


@pytest.fixture(scope="module")
def model(world):
    """Calibrated for EEG of its two subjects, not for fMRI."""
    found = NeuralClipModel.from_pretrained(world.checkpoint)
    found.config.eeg_config.confidence_temperature = TEMPERATURES
    return found


@pytest.fixture(scope="module")
def rows(world):
    return world.data["eeg"].split("test")


@pytest.fixture(scope="module")
def gallery(world, model):
    return NeuralGallery.from_images(model, world.folders["eeg"])


def slow_probability(query, vectors, temperature, row):
    """Of one image among all, each once."""
    unique = {vector.tobytes(): vector.astype(float) for vector in vectors}.values()
    total = sum(math.exp(temperature * cosine(query, vector)) for vector in unique)
    return math.exp(temperature * cosine(query, vectors[row].astype(float))) / total


def test_probabilities_are_those_of_a_softmax_over_the_whole_gallery(model, gallery, rows):
    hits = gallery.decode(rows, top_k=3)
    queries = NeuralGallery.from_recordings(model, rows).vectors.astype(float)
    for number in (0, 5, len(rows) - 1):
        temperature = TEMPERATURES[rows.subjects[number]]
        expected = [slow_probability(queries[number], gallery.vectors, temperature, hit.row) for hit in hits[number]]
        assert [hit.confidence for hit in hits[number]] == pytest.approx(expected, rel=1e-6)
        assert hits[number].confidence == hits[number][0].confidence == pytest.approx(max(expected), rel=1e-6)
        assert hits[number].why_no_confidence == "" and 1 / len(gallery) < hits[number].confidence < 1
    everything = gallery.decode(rows, top_k=len(gallery))
    assert all(sum(hit.confidence for hit in ranked) == pytest.approx(1) for ranked in everything)
    assert {ranked[0].confidence for ranked in hits} == {ranked.confidence for ranked in everything}
    assert json.loads(json.dumps(hits.as_dicts()))[0][0]["confidence"] == hits[0].confidence


def test_rows_that_show_one_image_count_once(gallery, rows):
    """A gallery in which half of the images stand a second time, under other names."""
    again = gallery.filter(image_id=gallery.image_ids[::2].tolist())
    columns = {name: again.rows.with_format(None)[name][:] for name in ("concept", "categories", "file")}
    copies = table_of(again.vectors, modality="image", image_id=[f"copy of {i}" for i in again.image_ids], **columns)
    doubled = gallery.add(NeuralGallery(copies, gallery.encoder))
    assert len(doubled) == len(gallery) + len(again)
    once, twice = gallery.decode(rows, top_k=1), doubled.decode(rows, top_k=1)
    assert [hit.confidence for hit in twice] == pytest.approx([hit.confidence for hit in once])


def test_halves_of_numbers_are_about_as_sure(world, model, gallery, rows):
    half = NeuralGallery.from_images(model, world.folders["eeg"], dtype="float16")
    found, exact = (np.array([hit.confidence for hit in each.decode(rows)]) for each in (half, gallery))
    assert np.allclose(found, exact, atol=0.01)


@pytest.mark.parametrize("kind", ["array", "gallery", "loaded gallery", "list of rows"])
def test_all_kinds_of_recordings_have_the_temperature_of_their_subject(kind, world, model, gallery, rows, tmp_path):
    expected = [hit.confidence for hit in gallery.decode(rows, top_k=1)]
    if kind == "array":
        own = rows.subjects == "sub-02"
        expected = np.array(expected)[own].tolist()
        values = np.asarray(rows.values())[own]
        found = gallery.decode(values, subject="sub-02", modality="eeg", top_k=1)
    elif kind == "list of rows":
        found = gallery.decode(rows.recordings, top_k=1)
    else:
        signals = NeuralGallery.from_recordings(model, rows)
        if kind == "loaded gallery":  # knows its checkpoint by its weights, and has no model of its own
            signals = NeuralGallery.load_from_disk(signals.save_to_disk(tmp_path / "signals"))
        found = gallery.decode(signals, top_k=1)
    assert [hit.confidence for hit in found] == pytest.approx(expected, rel=1e-4)


def test_what_is_not_calibrated_has_none_and_says_why(world, model, gallery, rows, tmp_path):
    def reason(hits):
        assert {hit.confidence for ranked in hits for hit in ranked} == {None}
        (found,) = {hit.why_no_confidence for ranked in hits for hit in ranked}
        assert hits[0].confidence is None and hits[0].why_no_confidence == found
        return found

    signals = NeuralGallery.from_recordings(model, [rows, world.data["fmri"].split("test")])
    assert "'csls' changes it" in reason(gallery.decode(rows, calibrate="csls"))
    decoding_alone = "for decoding alone"
    assert decoding_alone in reason(signals.encode(gallery, modality="eeg"))
    assert decoding_alone in reason(signals.convert(rows, to="fmri"))
    assert decoding_alone in reason(gallery.search_text("a dog"))
    fmri = world.data["fmri"].split("test", ["sub-01"])
    assert "no temperature for the fMRI of 'sub-01'" in reason(gallery.decode(fmri))
    assert "no temperature for the EEG of 'average'" in reason(gallery.decode(rows, subject="average"))
    assert "no temperature for the EEG of 'all'" in reason(
        gallery.decode(signals.filter(modality="eeg").mean_recordings())
    )
    plain = NeuralGallery.from_images(world.checkpoint, world.folders["eeg"])  # a checkpoint of an earlier version
    own = world.data["eeg"].split("test", ["sub-01"])
    assert "an earlier version made it" in reason(plain.decode(own))
    stored = NeuralGallery.load_from_disk(signals.filter(modality="eeg").save_to_disk(tmp_path / "signals"))
    assert "is not at hand" in reason(NeuralGallery(gallery.rows, gallery.encoder).decode(stored))
    other = save_checkpoint(tmp_path / "other", world.data, seed=1)  # of the same image encoder
    assert "is not at hand" in reason(NeuralGallery.from_images(other, world.folders["eeg"]).decode(stored))


def test_recordings_that_went_through_the_average_have_its_temperature(world, model, gallery, rows, tmp_path):
    """Known people, too: their own temperature is that of their own layer."""
    averaged = NeuralGallery.from_recordings(model, rows, subject="average")
    stored = NeuralGallery.load_from_disk(averaged.save_to_disk(tmp_path / "averaged"))
    for queries in (averaged, stored):
        hits = gallery.decode(queries, top_k=1)
        assert {hit.confidence for hit in hits} == {None} and "the EEG of 'average'" in hits[0].why_no_confidence
    own = NeuralGallery.from_recordings(model, rows)
    hits = gallery.decode(own.add(averaged), top_k=1)
    assert [hit.confidence is None for hit in hits] == [False] * len(own) + [True] * len(averaged)


def test_vectors_of_nobody_knows_what_are_joined_in_either_order(world, model, gallery, rows):
    """What is known of one gallery holds for both, and rows of arrays have no confidence."""
    own = NeuralGallery.from_recordings(model, rows)
    unknown = NeuralGallery.of_arrays("eeg", own.vectors[:3], list("abc"))
    for joined, first in ((unknown.add(own), 0), (own.add(unknown), len(own))):
        assert (joined.encoder, joined.checkpoint) == (own.encoder, own.checkpoint)
        confidences = [hit.confidence for hit in gallery.decode(joined, top_k=1)]
        assert [place for place, found in enumerate(confidences) if found is None] == [first, first + 1, first + 2]
    other = save_checkpoint(world.root / "another", world.data, seed=2)
    with pytest.raises(DataError, match="Recordings of two checkpoints are not comparable"):
        unknown.for_model(other).add(own)


def test_a_gallery_that_does_not_say_whose_layer_was_used_has_no_confidence(world, model, gallery, rows, tmp_path):
    """As earlier versions wrote it; it is searched, filtered and joined like others."""
    own = NeuralGallery.from_recordings(model, rows)
    folder = own.save_to_disk(tmp_path / "old")
    stored = Dataset.load_from_disk(folder).remove_columns("layer")
    stored.save_to_disk(tmp_path / "new")
    content = json.loads((folder / "gallery.json").read_text())
    for path in (tmp_path / "new").iterdir():
        shutil.copy(path, folder / path.name)
        content["files"][path.name] = sha256_of([path])
    (folder / "gallery.json").write_text(json.dumps(sealed(content)))
    old = NeuralGallery.load_from_disk(folder, model)
    assert np.array_equal(old.vectors, own.vectors)
    hits = gallery.decode(old.filter(subject="sub-01").add(own), top_k=1)
    assert hits[0].confidence is None and "through whose alignment layer" in hits[0].why_no_confidence
    assert hits[len(hits) - 1].confidence is not None


def test_the_temperature_travels_with_the_model(world, model, gallery, rows, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    NeuralClipProcessor.from_pretrained(world.checkpoint).save_pretrained(tmp_path / "saved")
    again = NeuralGallery.from_images(str(tmp_path / "saved"), world.folders["eeg"])
    found, expected = ([hit.confidence for hit in each.decode(rows)] for each in (again, gallery))
    assert found == pytest.approx(expected, rel=1e-4)
