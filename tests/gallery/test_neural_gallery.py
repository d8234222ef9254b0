"""Searches of a gallery against loops over all pairs."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import mne
import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

import neural_clip
from checkpoints_of_galleries import compare_with_searches, save_checkpoint
from neural_clip import NeuralClipModel
from neural_clip.errors import DataError
from neural_clip.evaluation.run import evaluate_checkpoints
from neural_clip.files.record import record_files, sealed
from neural_clip.gallery.cells import thumbnail
from neural_clip.gallery.conversion import expected_images
from neural_clip.gallery.embedder import CheckpointIdentity
from neural_clip.gallery.neural_gallery import NeuralGallery
from neural_clip.targets.encoder import ImageEncoder
from neural_clip.targets.identity import EncoderIdentity
from neural_clip.targets.tiny_clip import TINY_CLIP
from planted_data import ENCODER, split_of

WIDTH = 6
CHECKPOINT = CheckpointIdentity("model", "0" * 64)
NAMED = ENCODER | {"projection_dim": WIDTH}


def planted(seed=0, n_images=9, n_rows=40):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((n_images, WIDTH)).astype(np.float32)
    shown = np.r_[np.arange(n_images), rng.integers(0, n_images, n_rows - n_images)]
    ids = np.array([f"im{n}" for n in range(n_images)])
    concepts = {name: "cat" if n % 2 else "dog" for n, name in enumerate(ids)}
    subjects = np.array([f"sub-{n % 3}" for n in range(n_rows)])
    part = split_of(np.zeros((n_rows, 1)), subjects, ids[shown], images[shown], "meg", concepts=concepts,
                    image_encoder=NAMED)  # fmt: skip
    return part, images[shown] + 2 * rng.standard_normal((n_rows, WIDTH))


def order_of(query, vectors):
    """Rows from the most to the least alike, pair by pair."""
    cosines = [query @ row / np.sqrt((query @ query) * (row @ row)) for row in vectors]
    return sorted(range(len(vectors)), key=lambda row: -cosines[row])


def test_nearest_and_hits_equal_loops():
    part, vectors = planted()
    for gallery in (NeuralGallery.of_images(part), NeuralGallery.of_recordings(part, vectors)):
        queries = np.random.default_rng(1).standard_normal((7, WIDTH))
        nearest, hits = gallery.nearest(queries, 4), gallery.hits(queries, 3)
        for query, rows, found in zip(queries, nearest, hits, strict=True):
            order = order_of(query, gallery.vectors)
            assert rows.tolist() == order[:4]
            first = []
            for row in order:
                if gallery.image_ids[row] not in gallery.image_ids[first]:
                    first.append(row)
            assert found.tolist() == first[:3]


def test_places_without_another_image_are_marked():
    part, vectors = planted(n_images=2)
    hits = NeuralGallery.of_recordings(part, vectors).hits(vectors[:4])
    assert hits.shape == (4, 5) and (hits[:, :2] >= 0).all() and (hits[:, 2:] == -1).all()


def test_what_stands_behind_each_vector():
    part, vectors = planted()
    images, recordings = NeuralGallery.of_images(part), NeuralGallery.of_recordings(part, vectors, CHECKPOINT)
    assert (images.modalities, recordings.modalities) == (["image"], ["meg"])
    assert (len(images), len(recordings)) == (9, 40) and not any(images.subjects)
    assert images.image_ids.tolist() == sorted(set(part.image_ids)) and images.checkpoint is None
    assert images.encoder == recordings.encoder == EncoderIdentity.of_facts(NAMED)
    assert recordings.checkpoint == CHECKPOINT
    for row, image_id in enumerate(recordings.image_ids):
        assert image_id == part.image_ids[row] and recordings.subjects[row] == part.subjects[row]
        assert recordings.concepts[row] == ("cat" if int(image_id[2:]) % 2 else "dog")
    assert images.labels == recordings.labels == {"cat", "dog"}


def test_the_package_offers_it_without_heavy_imports():
    assert neural_clip.NeuralGallery is NeuralGallery and "NeuralGallery" in dir(neural_clip)
    code = (
        "import sys, neural_clip\n"
        "neural_clip.NeuralGallery\n"
        "heavy = {'torch', 'transformers', 'datasets', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# ---- galleries of a checkpoint: what goes in, the three verbs, and what is refused


@pytest.fixture(scope="module")
def photos(world, tmp_path_factory):
    """Six pictures of the EEG data set as files, two of them in a folder below."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "below").mkdir()
    stored = world.data["eeg"].stored_images
    for number in range(6):
        name = f"below/p{number}.png" if number > 3 else f"p{number}.png"
        stored[number]["image"].save(folder / name)
    (folder / ".hidden").write_text("no image")
    return folder


def test_images_of_every_kind_have_the_same_vectors(world, photos, images):
    """A folder, files, images, a data set with a column of images, stored embeddings, a bare image encoder."""
    model = NeuralClipModel.from_pretrained(world.checkpoint)
    folder = NeuralGallery.from_images(world.checkpoint, photos)
    assert folder.image_ids.tolist() == ["below/p4.png", "below/p5.png", "p0.png", "p1.png", "p2.png", "p3.png"]
    files = [photos / name for name in folder.image_ids]
    pictures = [Image.open(path) for path in files]
    table = Dataset.from_dict({"image_id": [*folder.image_ids, "p3.png"], "picture": [*pictures, pictures[-1]]})
    kinds = {
        "files": NeuralGallery.from_images(model, files),
        "images": NeuralGallery.from_images(model, pictures),
        "table": NeuralGallery.from_images(model, table),  # the last image is there twice
        "encoder": NeuralGallery.from_images(ImageEncoder(TINY_CLIP, device="cpu"), photos),
    }
    for gallery in kinds.values():
        np.testing.assert_allclose(gallery.vectors, folder.vectors, atol=1e-5)
        gallery.encoder.require(images.encoder, "one", "the stored")
    order = [4, 5, 0, 1, 2, 3]
    np.testing.assert_allclose(folder.vectors, images.vectors[order], atol=1e-4)  # embedded by the data set's maker
    assert images.image_ids.tolist() == world.data["eeg"].images.image_ids
    part = NeuralGallery.from_images(model, world.data["eeg"].split("test"))
    assert part.image_ids.tolist() == world.data["eeg"].split("test").shown_ids.tolist()
    for gallery in (folder, kinds["images"], kinds["table"], part):  # the picture comes back
        hit = gallery.for_model(model).decode(part_of(world, "eeg", 2), top_k=1)[0][0]
        assert hit.image.size == (64, 64) and not hit.why_no_image
    assert kinds["encoder"].for_model(model).decode(part_of(world, "eeg", 2), top_k=6)[1][5].rank == 6
    half = NeuralGallery.from_images(model, photos, dtype="float16")
    assert half.vectors.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(half.vectors.astype(float), axis=1), 1, atol=1e-3)


def part_of(world, modality, count):
    return world.data[modality].split("test").at(np.arange(count))


def test_recordings_of_every_kind_are_decoded_alike(world, images):
    """A split, rows, arrays, tensors, epochs, another gallery; the modality is found, or asked for."""
    for modality in ("eeg", "meg", "fmri"):
        part = part_of(world, modality, 4)  # all of sub-01
        own = images if modality == "eeg" else NeuralGallery.from_images(world.checkpoint, world.folders[modality])
        expected = own.decode(part, top_k=3)
        values = part.values()
        recordings = NeuralGallery.from_recordings(world.checkpoint, part)
        assert own.search(recordings, 3)[0].tolist() == expected.rows.tolist()
        found = [own.decode(recordings, top_k=3), own.decode(part.recordings, top_k=3)]
        found += [own.decode(values, subject="sub-01", modality=name, top_k=3) for name in (modality, None)]
        found.append(own.decode([torch.tensor(row) for row in values], subject=["sub-01"] * 4, top_k=3))
        for hits in found:
            assert hits.rows.tolist() == expected.rows.tolist()
            np.testing.assert_allclose(hits.scores, expected.scores, atol=1e-5)
    first = expected[0]
    assert first.image_id == first[0].image_id == own.image_ids[expected.rows[0, 0]] and first.score == first[0].score
    assert [hit.rank for hit in first] == [1, 2, 3] and len(first) == 3 and len(expected) == 4
    plain = json.loads(json.dumps(expected.as_dicts()))
    assert plain[3][2]["image_id"] == expected[3][2].image_id and plain[3][2]["rank"] == 3
    assert {"concept", "subject", "session", "modality", "file", "score"} <= set(plain[0][0])


def test_hits_are_drawn(world, images, signals):
    axes = images.decode(part_of(world, "eeg", 2), top_k=3).plot()
    assert len(axes.images) == 8 and [text.get_text() for text in axes.texts].count("seen") == 2
    figure = Figure()
    picture = world.data["eeg"].stored_images[0]["image"]
    drawn = signals.encode(picture, top_k=2).plot(ax=figure.subplots())
    assert drawn.figure is figure and len(drawn.images) == 3  # the query too
    for place in ("hits.png", figure):
        with pytest.raises(DataError, match=r"'ax' parameter. Allowed is axes of matplotlib, .*\.savefig\(FILE\)"):
            signals.encode(picture, top_k=2).plot(place)
    pyplot.close("all")


def test_more_hits_than_rows_are_all_rows_best_first(world, images, signals):
    """As the pipelines of transformers do with more labels than there are."""
    part, picture = part_of(world, "eeg", 3), world.data["fmri"].stored_images[3]["image"]
    n_fmri, n_shown = len(signals.filter(modality="fmri")), len(set(world.data["fmri"].split("test").image_ids))
    for ask, size in (
        (lambda k: images.decode(part, top_k=k), len(images)),
        (lambda k: images.decode(part, top_k=k, calibrate="csls"), len(images)),
        (lambda k: images.search_text("a red square", top_k=k), len(images)),
        (lambda k: signals.encode(picture, top_k=k), len(signals)),
        (lambda k: signals.encode(picture, modality="fmri", top_k=k), n_fmri),
        (lambda k: signals.convert(part, to="fmri", top_k=k), n_fmri),
        (lambda k: signals.convert(part, to="fmri", via="mean recordings", top_k=k), n_shown),
    ):
        whole, more = ask(size), ask(size + 1)
        assert len(more[0]) == size and more.as_dicts() == whole.as_dicts()
        assert sorted(set(more.rows[0])) == sorted(more.rows[0])


@pytest.mark.parametrize("via", ["recordings", "mean recordings"])
def test_conversions_are_drawn_beside_the_image_that_was_seen(world, signals, via):
    part, data = part_of(world, "meg", 2), world.data["meg"]
    stored = dict(zip(data.images.image_ids, data.stored_images["image"], strict=True))
    for asked in (part, NeuralGallery.from_recordings(world.checkpoint, part)):
        hits = signals.convert(asked, to="fmri", via=via, top_k=2)
        axes = hits.plot(ax=Figure().subplots())
        assert len(axes.images) == 2 * 3
        for number, name in enumerate(part.image_ids):
            shown = axes.images[3 * number].get_array()
            np.testing.assert_array_equal(shown, thumbnail(stored[name]))
            np.testing.assert_array_equal(axes.images[3 * number + 1].get_array(), thumbnail(hits[number].image))
        captions = [text.get_text() for text in axes.texts]  # a mean is of nobody, so its concept is named
        assert (hits[0].concept if via == "mean recordings" else hits[0].subject) in captions[2]
    unknown = signals.convert(part.values(), "sub-01", modality="meg", to="fmri", via=via, top_k=2)
    assert unknown.asked is None and len(unknown.plot(ax=Figure().subplots()).images) == 2 * 2


def test_csls_equals_its_formula(world, images):
    part = world.data["eeg"].split("test")
    plain, lowered = (images.decode(part, top_k=5, calibrate=name) for name in (None, "csls"))
    queries = NeuralGallery.from_recordings(world.checkpoint, part).vectors.astype(float)
    units = images.vectors / np.linalg.norm(images.vectors.astype(float), axis=1, keepdims=True)
    cosines = queries @ units.T
    of_images = np.sort(cosines, axis=0)[-10:].mean(axis=0)
    of_queries = np.sort(cosines, axis=1)[:, -10:].mean(axis=1, keepdims=True)
    order = np.argsort(-(2 * cosines - of_queries - of_images), axis=1)[:, :5]
    assert lowered.rows.tolist() == order.tolist() and plain.rows.tolist() != order.tolist()
    np.testing.assert_allclose(lowered.scores, np.take_along_axis(cosines, order, axis=1), atol=1e-6)


def test_verbs_search_the_modality_that_is_asked_for(world, signals, images):
    picture = world.data["fmri"].stored_images[3]["image"]
    everything, own = signals.encode(picture, top_k=72), signals.encode(picture, modality="fmri", top_k=24)
    assert {hit.modality for hit in everything[0]} == {"eeg", "fmri"} and len(signals) == 96
    assert [hit.row for hit in own[0]] == [hit.row for hit in everything[0] if hit.modality == "fmri"][:24]
    part = part_of(world, "eeg", 3)
    single = signals.convert(part, to="fmri", top_k=48)
    assert {hit.modality for ranked in single for hit in ranked} == {"fmri"}
    means = signals.convert(part, to="fmri", via="mean recordings", top_k=12)
    assert sorted(hit.image_id for hit in means[0]) == sorted(set(world.data["fmri"].split("test").image_ids))
    through = signals.convert(part, to="fmri", via="images", bank=images, top_k=4)
    expected = expected_images(NeuralGallery.from_recordings(world.checkpoint, part).vectors, images.vectors)
    rows = signals.filter(modality="fmri").search(expected, 4)[0]
    offset = int(np.argmax(np.array(signals.rows["modality"][:]) == "fmri"))
    assert through.rows.tolist() == (rows + offset).tolist()
    with pytest.raises(DataError, match="has no record of the images"):
        signals.convert(part, to="fmri", via="images")


def test_words_find_what_their_vectors_are_near_to(world, images, signals):
    texts = ["a striped circle", "a large red square"]
    model = NeuralClipModel.from_pretrained(world.checkpoint)
    tokens = model.tokenizer(texts, padding=True, return_tensors="pt")
    vectors = model.get_text_features(**tokens).numpy()
    for gallery, modality in ((images, None), (signals, "fmri")):
        hits = gallery.search_text(texts, modality=modality, top_k=4)
        among = gallery if modality is None else gallery.filter(modality=modality)
        assert [hit.image_id for hit in hits[1]] == among.image_ids[among.search(vectors, 4)[0][1]].tolist()
    assert (
        images.search_text(texts[0], top_k=4).rows[0].tolist() == images.search_text(texts, top_k=4).rows[0].tolist()
    )
    for text, message in (("  ", "a text that is not empty"), ([], "one text or more"), ("a " * 40, "takes 24")):
        with pytest.raises(DataError, match=message):
            images.search_text(text)


def test_rows_are_filtered_and_added(world, signals, images):
    kept = signals.filter(lambda row: row["concept"] != "", modality="fmri", subject=["sub-02"])
    assert len(kept) == 24 and set(kept.subjects) == {"sub-02"} and kept.modalities == ["fmri"]
    joined = kept.add(signals.filter(modality="eeg"))
    assert len(joined) == 72 and joined.search(signals.vectors[:2])[1] == pytest.approx(1.0)
    assert len(images.add(images.filter(concept=str(images.concepts[0])))) == len(images)  # once each
    other = NeuralGallery.of_arrays("image", -images.vectors[:1], images.image_ids[:1], encoder=images.encoder)
    half = NeuralGallery.from_images(world.checkpoint, world.folders["eeg"], dtype="float16")
    for more, message in (
        (other, f"Two images are called '{images.image_ids[0]}'"),
        (signals, "Images and recordings have galleries of their own"),
        (half, "vectors of 64 numbers of float32 and of 64 numbers of float16"),
    ):
        with pytest.raises(DataError, match=message):
            images.add(more)
    for wanted, message in (
        ({"subject": "sub-09"}, "Allowed values are 'sub-01' and 'sub-02', but got 'sub-09'"),
        ({"person": "sub-01"}, "Invalid value for the 'filter' parameter"),
        ({"modality": "eeg", "image_id": "fmri025"}, "No row of the gallery has"),
        ({"function": lambda row: False}, "one that is true for a row"),
    ):
        with pytest.raises(DataError, match=message):
            signals.filter(**wanted)


def test_the_gallery_of_another_model_is_refused(world, signals, images, tmp_path):
    other = save_checkpoint(tmp_path / "other", world.data, seed=1)
    message = r"recordings of the checkpoint 'checkpoint' \(weights \w{12}\), but the model is 'other' \(weights"
    with pytest.raises(DataError, match=message):
        signals.for_model(other)
    theirs = NeuralGallery.from_recordings(other, world.data["eeg"].split("test"))
    with pytest.raises(DataError, match="are not comparable; embed them with one"):
        signals.add(theirs)
    with pytest.raises(DataError, match="are not comparable; embed them with one"):
        signals.convert(theirs, to="fmri")
    assert len(images.for_model(other).decode(part_of(world, "eeg", 1), top_k=2)[0]) == 2  # images are of the encoder
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"vision_revision": "sha256:another"}))
    with pytest.raises(DataError, match="they differ in 'revision'"):
        images.for_model(other)
    with pytest.raises(DataError, match=r"The model 'other' expects .*they differ in 'revision'"):
        NeuralGallery.from_images(other, world.folders["eeg"])
    copied = NeuralClipModel.from_pretrained(world.checkpoint)
    copied.save_pretrained(tmp_path / "copied")
    again = CheckpointIdentity.of(NeuralClipModel.from_pretrained(tmp_path / "copied"))
    assert again.sha256 == signals.checkpoint.sha256 and again.name == "copied"


def test_sources_that_are_none_are_named(world, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    (tmp_path / "empty").mkdir()
    shutil.copytree(photos, tmp_path / "linked")
    (tmp_path / "linked" / "gone.png").symlink_to(tmp_path / "gone.png")
    shutil.copytree(photos, tmp_path / "piped")
    os.mkfifo(tmp_path / "piped" / "pipe.png")
    rows = Dataset.from_dict({"number": [1]})
    for source, message in (
        (tmp_path / "photos", r"notes\.txt' is no readable image file"),
        (tmp_path / "empty", "has no files; a gallery needs at least one image"),
        (tmp_path / "linked", r"no image '.*gone\.png'\. It is a link to a file that is not there"),
        (tmp_path / "piped", r"pipe\.png'"),
        ([], "The list is empty; a gallery needs at least one image"),
        (tmp_path / "absent", "There is no folder or image"),
        ([tmp_path / "absent.png"], r"There is no image .*absent\.png"),
        (rows, "has one column of images, but this has none"),
        (DatasetDict({"train": rows}), "A DatasetDict is no table of images"),
        ([np.zeros((2, 2))], r"image '000000' cannot be used: An array of float64"),
    ):
        with pytest.raises(DataError, match=message):
            NeuralGallery.from_images(world.checkpoint, source)
    with pytest.raises(DataError, match="or the folder of a checkpoint, but got 3"):
        NeuralGallery.from_images(3, photos)
    with pytest.raises(DataError, match="is no readable checkpoint of a NeuralClipModel"):
        NeuralGallery.from_images(tmp_path / "empty", photos)
    with pytest.raises(DataError, match="made of prepared data sets and their splits"):
        NeuralGallery.from_recordings(world.checkpoint, 4)
    with pytest.raises(DataError, match="Invalid value for the 'dtype' parameter"):
        NeuralGallery.from_images(world.checkpoint, photos, dtype="int8")


@pytest.mark.parametrize("changed", ["processor_config.json", "model.safetensors", "preprocessor_config.json"])
def test_checkpoints_whose_files_are_not_those_of_their_record_are_refused(world, photos, tmp_path, changed):
    folder = shutil.copytree(world.checkpoint, tmp_path / "checkpoint")
    names = ("config.json", "model.safetensors", "processor_config.json")
    (folder / "training.json").write_text(json.dumps(sealed({"files": record_files(folder, names)})))
    NeuralGallery.from_images(folder, photos)
    with (folder / changed).open("ab") as file:
        file.write(b" ")
    with pytest.raises(DataError, match=rf"{changed}' (is not the file that|was added to a checkpoint)"):
        NeuralGallery.from_images(folder, photos)


def test_an_image_processor_of_another_size_than_the_tower_is_told(world, photos, tmp_path):
    folder = shutil.copytree(world.checkpoint, tmp_path / "checkpoint")
    path = folder / "processor_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"image_settings": {}}))
    with pytest.raises(
        DataError, match=r"by 'checkpoint': 'processor_config\.json' of the checkpoint makes pictures of 224"
    ):
        NeuralGallery.from_images(folder, photos)


def test_queries_that_do_not_fit_are_named(world, signals, images):
    part, values = part_of(world, "eeg", 2), part_of(world, "eeg", 2).values()
    info = mne.create_info([f"X{number}" for number in range(6)], 100.0, "eeg")
    epochs = mne.EpochsArray(values * 1e-6, info, verbose=False)
    cases = [
        (lambda: images.decode(epochs, subject="sub-01"), "lack 6 of the model's 6 channels"),
        (lambda: images.decode(values, subject="sub-01", sfreq=250.0), "'sfreq' must be 100.0 Hz"),
        (lambda: images.decode(values, subject="sub-77"), r"Allowed values are .*but got \['sub-77'\]"),
        (lambda: images.decode(values), "'subject' is missing"),
        (lambda: images.decode(values[:, :5], subject="sub-01"), "none of them by their shape. Say which"),
        (lambda: images.decode(values[:0], subject="sub-01"), "is empty"),
        (lambda: images.decode([], modality="eeg", subject="sub-01"), "cannot be embedded"),
        (lambda: images.decode(values, subject="sub-01", modality="ecog"), "Allowed values are 'eeg', 'meg' and"),
        (lambda: images.decode(part, modality="meg"), "'modality' parameter. Allowed is 'eeg'"),
        (lambda: images.decode(part.at(np.arange(0))), "there is nothing to embed"),
        (lambda: images.decode(part, subject="sub-02"), r"'subject' is 'sub-02', but the rows are of \['sub-01'\]"),
        (lambda: images.decode(values, subject="sub-01", sampling=3), "but got 'sampling' instead"),
        (lambda: images.decode(part, top_k=0), "Allowed is a whole number, 1 and more, but got 0"),
        (lambda: images.decode(part, top_k=2.5), "but got 2.5 instead"),
        (lambda: images.decode(part, top_k=True), "but got True instead"),
        (lambda: images.decode(part, calibrate="isotonic"), "Invalid value for the 'calibrate' parameter"),
        (lambda: images.encode("x.png"), "cannot encode; that takes a gallery of recordings"),
        (lambda: images.convert(part, to="fmri"), "cannot convert; that takes a gallery of recordings"),
        (lambda: signals.decode(part), "cannot decode; that takes a gallery of images"),
        (lambda: signals.encode("x.png"), "There is no image 'x.png'"),
        (lambda: signals.encode([]), "The list is empty"),
        (lambda: signals.encode(images, modality="meg"), "Allowed values are 'eeg' and 'fmri', but got 'meg'"),
        (lambda: signals.convert(part, to="meg"), "Invalid value for the 'to' parameter"),
        (lambda: signals.convert(part, to="fmri", via="dreams"), "Invalid value for the 'via' parameter"),
        (lambda: signals.convert(part, to="fmri", via="images", bank=signals), "takes a gallery of images"),
        (lambda: replace(images, embedder=None).decode(part), "The gallery knows no model that embeds queries"),
        (lambda: images.search(np.ones((1, 3))), "have 3 dimensions, but the gallery 64"),
        (lambda: images.search(np.full((1, 64), np.nan)), "hold NaN or infinity"),
    ]
    for query, message in cases:
        with pytest.raises(DataError, match=message):
            query()


def test_scores_of_searches_are_those_of_evaluate(world, tmp_path):
    """Top-1 and top-5 counted from hits, and 2-way scores of the images behind them, to the last digit."""
    names = ("eeg", "fmri")
    report = evaluate_checkpoints(
        {"m": world.checkpoint}, [world.folders[name] for name in names], tmp_path, baselines=False, controls=False
    )
    compare_with_searches(world.checkpoint, {name: world.data[name] for name in names}, report)
