"""Pipelines of transformers give what the searches of a gallery give, for one query, many, and many at once."""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mne
import nibabel as nib
import numpy as np
import pytest
import torch
from datasets import DatasetDict
from torch.utils.data import Dataset
from transformers import CLIPVisionConfig, CLIPVisionModel, Pipeline, pipeline

from neural_clip import NeuralClipModel, NeuralClipProcessor, NeuralGallery
from neural_clip.errors import DataError
from neural_clip.gallery.pipelines import is_one

TASKS = ("neural-decoding", "neural-encoding", "neural-conversion")


@pytest.fixture(scope="module")
def made(world, images, signals):
    """A pipeline of each task with its gallery."""
    galleries = dict(zip(TASKS, (images, signals, signals), strict=True))
    found = {task: pipeline(task, model=str(world.checkpoint), gallery=galleries[task], top_k=3) for task in TASKS}
    assert all(isinstance(each, Pipeline) for each in found.values())
    return found


@pytest.fixture(scope="module")
def rows(world):
    """Test recordings of both subjects by modality, as rows."""
    return {modality: list(world.data[modality].split("test").recordings) for modality in ("eeg", "meg", "fmri")}


@pytest.fixture(scope="module")
def pictures(world):
    return [row["image"] for row in world.data["eeg"].stored_images.select(range(5))]


class Arrays(Dataset):
    """A data set of torch."""

    def __init__(self, arrays):
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays)

    def __getitem__(self, place):
        return self.arrays[place]


def test_decoding_equals_the_gallery(world, made, images, rows):
    """Whatever holds the recordings; to the last digit, because they are embedded together."""
    pipe, part = made["neural-decoding"], world.data["eeg"].split("test")
    expected = images.decode(rows["eeg"], top_k=3).as_dicts()
    assert len(expected) > 64 / 3 and pipe(rows["eeg"]) == expected == json.loads(json.dumps(expected))
    assert pipe(part.recordings) == expected and pipe(tuple(rows["eeg"])) == expected
    assert pipe(part) == images.decode(part, top_k=3).as_dicts()
    streamed = pipe(row for row in rows["eeg"])
    assert not isinstance(streamed, list) and list(streamed) == expected
    assert list(pipe(part.recordings.to_iterable_dataset())) == expected
    assert pipe(rows["eeg"], num_workers=2) == expected
    arrays, people = [np.array(row["eeg"], np.float32) for row in rows["eeg"]], [row["subject"] for row in rows["eeg"]]
    assert pipe(arrays, subject=people) == expected == pipe(np.stack(arrays), subject=people)
    own = [array for array, who in zip(arrays, people, strict=True) if who == "sub-02"]
    assert list(pipe(Arrays(own), subject="sub-02")) == images.decode(own, "sub-02", top_k=3).as_dicts()
    assert pipe(rows["eeg"], batch_size=64, top_k=7) == images.decode(rows["eeg"], top_k=7).as_dicts()


def test_one_query_gives_the_hits_themselves(made, images, signals, rows, pictures):
    (expected,) = images.decode(rows["eeg"][:1], top_k=3).as_dicts()
    decoding, encoding = made["neural-decoding"], made["neural-encoding"]
    assert decoding(rows["eeg"][0]) == expected and decoding([rows["eeg"][0]]) == [expected]
    array, who = np.array(rows["eeg"][0]["eeg"], np.float32), rows["eeg"][0]["subject"]
    assert decoding(array, subject=who) == expected == decoding(torch.tensor(array), subject=who)
    assert decoding(array[None], subject=who) == [expected]
    assert encoding(pictures[0]) == signals.encode(pictures[0], top_k=3).as_dicts()[0]


def test_another_size_of_batches_changes_the_last_bits_alone(made, images, rows):
    expected = images.decode(rows["meg"][:12], top_k=3)
    found = made["neural-decoding"](rows["meg"][:12], batch_size=5)
    assert [[hit["row"] for hit in ranked] for ranked in found] == expected.rows.tolist()
    np.testing.assert_allclose([[hit["score"] for hit in ranked] for ranked in found], expected.scores, atol=1e-5)


def test_a_list_may_mix_modalities_and_subjects(made, images, rows):
    mixed = [rows["eeg"][0], rows["fmri"][0], rows["meg"][-1], rows["fmri"][-1], rows["eeg"][-1]]
    assert len({row["subject"] for row in mixed}) == 2
    for row, found in zip(mixed, made["neural-decoding"](mixed), strict=True):
        (expected,) = images.decode([row], top_k=3)
        assert [hit["row"] for hit in found] == [hit.row for hit in expected]
        np.testing.assert_allclose([hit["score"] for hit in found], [hit.score for hit in expected], atol=1e-5)


def test_encoding_equals_the_gallery(world, made, signals, pictures, tmp_path):
    pipe, files = made["neural-encoding"], []
    for number, picture in enumerate(pictures):
        files.append(tmp_path / f"{number}.png")
        picture.save(files[-1])
    expected = signals.encode(pictures, modality="fmri", top_k=3).as_dicts()
    assert pipe(pictures, modality="fmri") == expected == pipe(files, modality="fmri")
    assert pipe(tmp_path, modality="fmri") == expected == pipe(str(tmp_path), modality="fmri")
    assert list(pipe((picture for picture in pictures), modality="fmri")) == expected
    stored = world.data["eeg"].stored_images.select(range(5))
    assert pipe(stored, modality="fmri") == expected


@pytest.mark.parametrize("via", ["recordings", "mean recordings", "images"])
def test_conversion_equals_the_gallery(made, images, signals, rows, via):
    pipe, more = made["neural-conversion"], {"bank": images} if via == "images" else {}
    expected = signals.convert(rows["eeg"], to="fmri", via=via, top_k=3, **more).as_dicts()
    assert pipe(rows["eeg"], to="fmri", via=via, **more) == expected
    assert {hit["modality"] for ranked in expected for hit in ranked} == {"fmri"}


def test_galleries_of_every_kind_are_opened(world, images, signals, rows, pictures, tmp_path):
    images.save_to_disk(tmp_path / "gallery")
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / "photos" / f"{number}.png")
    model = NeuralClipModel.from_pretrained(world.checkpoint)
    pipe = pipeline("neural-decoding", model=model, top_k=2)  # the processor lies beside the model
    expected = images.decode(rows["eeg"][:3], top_k=2).as_dicts()
    for gallery in (tmp_path / "gallery", str(tmp_path / "gallery"), world.folders["eeg"], world.data["eeg"], images):
        found = pipe(rows["eeg"][:3], gallery=gallery)
        keys = ("row", "score", "image_id")
        assert [[[hit[key] for key in keys] for hit in ranked] for ranked in found] == [
            [[hit[key] for key in keys] for hit in ranked] for ranked in expected
        ]
    assert {hit["file"] for hit in pipe(rows["eeg"][0], gallery=tmp_path / "photos", top_k=5)} == {
        str(path) for path in (tmp_path / "photos").iterdir()
    }
    parts = [world.data[modality].split("test") for modality in ("eeg", "fmri")]
    encoding = pipeline("neural-encoding", model=str(world.checkpoint), gallery=parts)
    assert encoding(pictures[0]) == signals.encode(pictures[0]).as_dicts()[0]


def test_device_and_dtype(world, images, rows):
    pipe = pipeline("neural-decoding", model=str(world.checkpoint), gallery=images, device="cpu", dtype=torch.bfloat16)
    assert pipe.device == torch.device("cpu") and pipe.dtype == torch.bfloat16
    assert next(pipe.model.parameters()).dtype == torch.bfloat16 and "NeuralDecodingPipeline" in repr(pipe)
    scores = [ranked[0]["score"] for ranked in pipe(rows["eeg"], top_k=1)]
    exact = images.decode(rows["eeg"], top_k=1).scores[:, 0]
    np.testing.assert_allclose(scores, exact, atol=0.05)
    assert not np.array_equal(scores, exact)
    assert images.embedder.model.dtype == torch.float32  # a gallery of another model object is not touched


def test_what_is_saved_is_a_checkpoint(made, images, rows, tmp_path):
    made["neural-decoding"].save_pretrained(tmp_path)
    assert not json.loads((tmp_path / "config.json").read_text()).get("custom_pipelines")
    assert type(NeuralClipProcessor.from_pretrained(tmp_path)) is NeuralClipProcessor
    again = pipeline("neural-decoding", model=str(tmp_path), gallery=images, top_k=3)
    assert again(rows["eeg"][:4]) == made["neural-decoding"](rows["eeg"][:4])
    assert made["neural-decoding"].data_terms() == made["neural-decoding"].model.data_terms()


def test_one_recording_is_told_from_several():
    info = mne.create_info(["a", "b"], 100.0, "eeg")
    one, several = np.zeros((2, 5)), np.zeros((3, 2, 5))
    assert is_one(mne.EvokedArray(one, info, verbose=False), "eeg")
    assert not is_one(mne.EpochsArray(several, info, verbose=False), "eeg")
    for modality, shape in (("eeg", (2, 5)), ("meg", (2, 5)), ("fmri", (7,))):
        assert is_one(np.zeros(shape), modality) and is_one(torch.zeros(shape), modality)
        assert not is_one(np.zeros((1, *shape)), modality)
    assert is_one(nib.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4)), "fmri")
    assert not is_one(nib.Nifti1Image(np.zeros((2, 2, 2, 1)), np.eye(4)), "fmri")
    assert is_one({"eeg": one, "subject": "sub-01"}, "eeg") and not is_one({"eeg": several, "subject": ["s"]}, "eeg")


def test_mistakes_are_one_sentence(world, made, images, signals, rows, pictures, tmp_path):
    model, values = str(world.checkpoint), np.array(rows["eeg"][0]["eeg"])
    tower = CLIPVisionModel(
        CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    decoding, encoding, conversion = (made[task] for task in TASKS)
    cases = [
        (lambda: pipeline(TASKS[0]), r"needs a checkpoint; say model=FOLDER"),
        (lambda: pipeline(TASKS[0], model="outputs/nothing"), "There is no folder 'outputs/nothing', and the Hub"),
        (lambda: pipeline(TASKS[0], model=f"{model}/config.json"), "is a file, but a model is a folder"),
        (lambda: pipeline(TASKS[0], model=tmp_path / "x"), "There is no folder '.*x'. Give that of a checkpoint"),
        (lambda: pipeline(TASKS[0], model=tower, gallery=images), "A gallery needs a NeuralClipModel or the folder"),
        (lambda: pipeline(TASKS[0], model=model)(rows["eeg"]), "no gallery to search; say gallery=FOLDER_OF_IMAGES"),
        (lambda: pipeline(TASKS[1], model=model)(pictures), "no gallery to search; say gallery=PREPARED_DATA_SET"),
        (lambda: pipeline(TASKS[0], model=model, gallery="no where"), "There is no folder or image 'no where'"),
        (lambda: pipeline(TASKS[1], model=model, gallery=tmp_path), "is no prepared data set"),
        (lambda: decoding(rows["eeg"], gallery=signals), "cannot decode; that takes a gallery of images"),
        (lambda: encoding(pictures, gallery=images), "cannot encode; that takes a gallery of recordings"),
        (lambda: decoding(rows["eeg"], top_k=0), "Allowed is a whole number, 1 and more"),
        (lambda: decoding(rows["eeg"], topk=3), "takes no 'topk'; it takes 'gallery', .* Did you mean 'top_k'?"),
        (lambda: encoding(pictures, subject="sub-01"), "'neural-encoding' takes no 'subject'"),
        (lambda: decoding([]), "Allowed is one query or more"),
        (lambda: decoding("epochs.fif"), "are the path 'epochs.fif'; read the file first"),
        (lambda: decoding(values), "'subject' is missing"),
        (lambda: decoding(values, subject="sub-77"), r"but got \['sub-77'\]"),
        (lambda: decoding(values[:, :4], subject="sub-01"), "none of them by their shape"),
        (lambda: decoding([values] * 3, subject=["sub-01"]), "one for each of the 3 recordings"),
        (lambda: decoding(DatasetDict(test=world.data["eeg"].stored_images)), "choose one of them"),
        (lambda: encoding("dog.jpg"), "There is no image 'dog.jpg'"),
        (lambda: conversion(rows["eeg"]), r"needs 'to', the modality that is searched: one of \['eeg', 'fmri'\]"),
        (lambda: conversion(rows["eeg"], to="meg"), "Invalid value for the 'to' parameter"),
    ]
    for case, message in cases:
        with pytest.raises((DataError, OSError), match=message) as found:
            case()
        assert "\n" not in str(found.value)


def resident():
    """Memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def ask(number, made, images, signals, rows, pictures):
    """One of many requests: verbs, modalities and subjects mixed, by pipelines and by galleries."""
    modality = ("eeg", "meg", "fmri")[number % 3]
    row, picture = rows[modality][number % 24], pictures[number % 5]
    kinds = [
        lambda: made["neural-decoding"](row),
        lambda: made["neural-conversion"](row, to="fmri", via=("recordings", "mean recordings")[number % 2]),
        lambda: made["neural-conversion"](row, to="eeg", via="images", bank=images),
        lambda: made["neural-encoding"](picture, modality=("eeg", "fmri")[number % 2]),
        lambda: signals.search_text(["a dog", "a red car on a long street"][number % 2]).as_dicts(),
        lambda: [np.asarray(hit.image).tobytes() for hit in images.decode([row], top_k=2)[0]],
        lambda: signals.encode([picture], modality="fmri").as_dicts(),
    ]
    return kinds[number % len(kinds)]()


def test_a_pipeline_computes_for_one_thread_at_a_time(world, images, rows):
    pipe = pipeline("neural-decoding", model=NeuralClipModel.from_pretrained(world.checkpoint), gallery=images)
    running, most = set(), []

    def begin(*_):
        running.add(threading.get_ident())
        time.sleep(2e-3)  # others would come
        most.append(len(running))

    def end(*_):
        running.discard(threading.get_ident())

    for encoder in pipe.model.encoders.values():
        encoder.register_forward_pre_hook(begin)
        encoder.register_forward_hook(end)
    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(pipe, rows["eeg"] + rows["fmri"]))
    assert set(most) == {1} and len(most) >= len(found)


@pytest.mark.slow
def test_200_requests_at_once_give_what_each_gives_alone(world, rows, pictures):
    """In bounded memory, and each tower is loaded once."""
    model = NeuralClipModel.from_pretrained(world.checkpoint)  # no tower was asked for yet
    images = NeuralGallery.from_images(model, world.folders["eeg"])
    signals = NeuralGallery.from_recordings(model, [world.data[name].split("test") for name in ("eeg", "fmri")])
    galleries = dict(zip(TASKS, (images, signals, signals), strict=True))
    fresh = {task: pipeline(task, model=model, gallery=galleries[task], top_k=3) for task in TASKS}
    towers = []
    before, switching = resident(), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    start = threading.Barrier(200)

    def request(number):
        start.wait()
        if number < 20:
            towers.append((model.vision_tower(), model.text_tower()))
        return ask(number, fresh, images, signals, rows, pictures)

    try:
        with ThreadPoolExecutor(200) as pool:
            found = list(pool.map(request, range(200)))
    finally:
        sys.setswitchinterval(switching)
    assert resident() - before < 300
    assert len({(id(seen), id(read)) for seen, (read, _) in towers}) == 1
    for number, answer in enumerate(found):
        assert answer == ask(number, fresh, images, signals, rows, pictures), number
