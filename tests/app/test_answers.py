"""What the page answers: the same hits as `NeuralGallery`, chance, what was seen, and where SIMULATED stands."""

import re

import numpy as np
import pytest

from neural_clip import NeuralGallery, load_sample
from neural_clip.app.answers import Answers
from neural_clip.app.shown import as_html, refusal
from neural_clip.errors import DataError
from neural_clip.gallery.embedder import Embedder
from neural_clip.sample import CHECKPOINT, FOLDERS

TITLES = {"eeg": "SIMULATED EEG", "meg": "SIMULATED MEG", "fmri": "SIMULATED fMRI"}


@pytest.fixture(scope="module")
def embedder():
    return Embedder.of(CHECKPOINT)


@pytest.fixture(scope="module")
def answers(embedder):
    return Answers(embedder, list(FOLDERS.values()))


def scores(hits):
    return [(hit.image_id, hit.score) for hit in hits]


def test_what_is_searched_and_what_can_be_picked(answers):
    kinds = [f"{count}: {title}" for title in TITLES.values() for count in ("46 images", "40 recordings")]
    assert list(answers.searched) == kinds and list(answers.examples) == list(TITLES.values())
    assert [answers.images_of(title) for title in TITLES.values()] == kinds[::2]
    assert answers.subjects == ["sub-01", "average"] and answers.has_text


@pytest.mark.parametrize("modality", FOLDERS)
def test_a_recording_of_a_set_is_decoded_as_by_a_gallery_and_the_image_that_was_seen_is_known(modality, answers):
    sample, among = load_sample(modality), f"46 images: {TITLES[modality]}"
    answer = answers.of_example(TITLES[modality], 7, among)
    gallery = answers.searched[among].gallery
    expected = gallery.decode(sample.recordings.select([6]), modality=modality)[0]
    assert scores(answer.hits) == scores(expected)
    row = sample.images["image_id"].index(sample.recordings["image_id"][6])
    assert np.array_equal(np.asarray(answer.seen), np.asarray(sample.images[row]["image"].convert("RGB")))
    assert answer.seen_name == sample.images["concept"][row] and answer.simulated
    assert answer.asked == f"{TITLES[modality]} of sub-01, recording 7 of 40"
    assert answer.searched.chance == "46 images were searched; by chance, any of them comes first in 1 of 46 (2.2%)."


@pytest.mark.parametrize("source", FOLDERS)
@pytest.mark.parametrize("target", FOLDERS)
def test_recordings_are_converted_into_every_modality(source, target, answers):
    among = f"40 recordings: {TITLES[target]}"
    answer = answers.of_example(TITLES[source], 3, among)
    recording = load_sample(source).recordings.select([2])
    expected = answers.searched[among].gallery.convert(recording, to=target, modality=source)[0]
    assert scores(answer.hits) == scores(expected)
    assert {hit.modality for hit in answer.hits} == {target}
    assert "40 EEG recordings" in answer.searched.chance or target != "eeg"


@pytest.mark.parametrize("modality", FOLDERS)
def test_an_upload_is_decoded_by_its_shape_or_as_it_is_said(modality, answers, tmp_path):
    values = np.array(load_sample(modality).recordings[modality][:2], np.float32)
    np.save(tmp_path / "mine.npy", values)
    among = f"46 images: {TITLES[modality]}"
    expected = scores(answers.of_example(TITLES[modality], 2, among).hits)
    for said in ({}, {"modality": modality}):
        answer = answers.of_upload(tmp_path / "mine.npy", None, 2, among, subject="sub-01", **said)
        assert scores(answer.hits) == expected and answer.seen is None
        assert answer.simulated  # the checkpoint learnt from simulated recordings
        assert answer.asked.endswith("of 'mine.npy', recording 2 of 2")


@pytest.mark.parametrize(
    ("values", "said", "told"),
    [
        (np.zeros((2, 5, 6), np.float32), {}, "these recordings could be none of them by their shape"),
        (np.zeros((2, 5, 6), np.float32), {"modality": "meg"}, "but got"),
        (np.full((1, 32, 440), np.nan, np.float32), {}, "values that are not finite"),
        (np.zeros((1, 32, 440), np.float32), {"subject": "sub-09"}, "['sub-01'], but got ['sub-09']"),
        (np.zeros((1, 32, 440), np.float32), {"unit": "kg"}, "Recordings as they were recorded cannot be used"),
        (np.zeros((1, 32, 440), np.float32), {"number": 2}, "Allowed is 1 to 1"),
        (np.zeros((1, 32, 440), np.float32), {"among": "46 images: gone"}, "'search among' parameter"),
        (np.array([["a"]]), {"modality": "eeg"}, "must be numbers"),
    ],
)  # fmt: skip
def test_an_upload_that_does_not_fit_is_refused_in_words(values, said, told, answers, tmp_path):
    np.save(tmp_path / "mine.npy", values)
    words = {"number": 1, "among": "46 images: SIMULATED EEG", "subject": "sub-01"} | said
    with pytest.raises(DataError) as caught:
        answers.of_upload(tmp_path / "mine.npy", None, **words)
    assert told in str(caught.value)


def test_words_find_images_and_recordings(answers):
    for among in ("46 images: SIMULATED MEG", "40 recordings: SIMULATED fMRI"):
        answer = answers.of_words("a red circle", among)
        assert scores(answer.hits) == scores(answers.searched[among].gallery.search_text("a red circle")[0])
        assert answer.simulated and answer.right is None
    with pytest.raises(DataError, match="a text that is not empty"):
        answers.of_words("  ", "46 images: SIMULATED MEG")


def test_folders_of_images_and_saved_galleries_are_searched_too(answers, embedder, tmp_path):
    (tmp_path / "photos").mkdir()
    for row, image in enumerate(load_sample("eeg").images["image"][:3]):
        image.save(tmp_path / "photos" / f"{row}.png")
    signals = [answers.searched[f"40 recordings: {TITLES[name]}"].gallery for name in ("eeg", "fmri")]
    signals[0].add(signals[1]).save_to_disk(tmp_path / "signals")
    found = Answers(embedder, [tmp_path / "photos", str(tmp_path / "signals")])
    assert list(found.searched) == ["3 images: photos", "40 recordings: signals", "40 recordings: signals (3)"]
    assert found.examples == {} and found.searched["3 images: photos"].kind == "images"
    told = as_html(found.of_words("an arrow", "3 images: photos"))
    assert "SIMULATED" not in told and told.count("<li") == 3


@pytest.mark.parametrize("place", ["gone", "empty", "text.txt"])
def test_a_place_that_holds_nothing_to_search_is_named(place, embedder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no image")
    with pytest.raises(DataError, match=place):
        Answers(embedder, [tmp_path / place])


def test_a_saved_gallery_of_simulated_recordings_says_so(answers, embedder, tmp_path):
    answers.searched["40 recordings: SIMULATED EEG"].gallery.save_to_disk(tmp_path / "signals")
    found = Answers(embedder, [tmp_path / "signals"])
    told = as_html(found.of_words("an arrow", "40 recordings: signals"))
    assert told.count("SIMULATED") == 7  # what was asked, chance and five hits


def test_the_image_that_was_seen_is_known_however_the_data_set_is_named(embedder):
    found = Answers(embedder, [f"{FOLDERS['eeg']}/"])
    answer = found.of_example("SIMULATED EEG", 1, "46 images: SIMULATED EEG")
    hit = next(iter(found.searched["46 images: SIMULATED EEG"].gallery.rows))
    assert answer.right[0] == hit["file"]


def test_an_answer_tells_no_place_of_this_machine(answers, embedder, tmp_path):
    (tmp_path / "photos").mkdir()
    load_sample("eeg").images["image"][0].save(tmp_path / "photos" / "a.png")
    found = Answers(embedder, [tmp_path / "photos"])
    (tmp_path / "photos" / "a.png").unlink()
    told = as_html(found.of_words("an arrow", "1 images: photos"))
    assert str(tmp_path) not in told and "a.png" in told


def test_an_answer_says_how_sure_its_first_image_is(monkeypatch, answers):
    monkeypatch.setattr(answers.embedder.model.config.eeg_config, "confidence_temperature", {"sub-01": 20.0})
    answer = answers.of_example("SIMULATED EEG", 1, "46 images: SIMULATED EEG")
    assert f"SIMULATED · Confidence in the first image: {answer.hits.confidence:.1%}, if" in as_html(answer)
    assert "onfidence" not in as_html(answers.of_example("SIMULATED EEG", 1, "40 recordings: SIMULATED fMRI"))


def test_names_from_files_are_shown_as_text(answers, embedder, tmp_path):
    name = "<img src=x onerror=alert(1)>.png"
    (tmp_path / "photos").mkdir()
    load_sample("eeg").images["image"][0].save(tmp_path / "photos" / name)
    found = Answers(embedder, [tmp_path / "photos"])
    told = as_html(found.of_words("<b>an arrow</b>", "1 images: photos"))
    assert "<img src=x" not in told and "&lt;img src=x onerror=alert(1)&gt;.png" in told and "<b>" not in told
    assert "<i>" not in refusal("<i>wrong</i>")


def test_every_line_of_an_answer_says_that_it_is_simulated_and_pictures_have_words(answers):
    told = as_html(answers.of_example("SIMULATED MEG", 1, "46 images: SIMULATED MEG"))
    lines = [line for line in re.sub("<[^>]+>", "\n", told).splitlines() if line.strip()]
    assert len(lines) == 9 and all(line.startswith("SIMULATED") for line in lines)
    assert sum("Confidence in the first image: " in line for line in lines) == 1
    assert told.count("<img alt=") == 6 and told.count('alt=""') == 0
    assert sum("(the image that was seen)" in line for line in lines) == told.count('class="right"') <= 1


def test_a_gallery_of_another_checkpoint_is_refused(answers, tmp_path):
    gallery = answers.searched["40 recordings: SIMULATED EEG"].gallery
    other = type(gallery.checkpoint)("other", "0" * 64)
    NeuralGallery(gallery.rows, gallery.encoder, other).save_to_disk(tmp_path / "other")
    with pytest.raises(DataError, match="Recordings of two checkpoints are not comparable"):
        Answers(answers.embedder, [tmp_path / "other"])


def test_a_folder_that_is_missing_is_called_so(answers, tmp_path):
    with pytest.raises(DataError, match=r"^There is no folder or image '.*nowhere'\.$"):
        Answers(answers.embedder, [tmp_path / "nowhere"])
