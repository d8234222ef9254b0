"""`neural-clip adapt --prior places`: what known people share is carried over, where rehearsal says that it helps."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from neural_clip import NeuralClipModel
from neural_clip.commands.adapt import main
from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.closed_form import ready
from neural_clip.evaluation.baselines.whitening import stacked
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.publishing.terms import model_terms
from neural_clip.retrieval.scores import retrieval_scores
from neural_clip.training import places_prior
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.known_people import ImageSpace, KnownPeople
from neural_clip.training.places_prior import carried_over, decided, drawn, scale_of_few
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from placed_people import IMAGES, PEOPLE, places_of, write_people
from planted_data import READY, write_planted

pytestmark = pytest.mark.numerical

KNOWN, NEW = PEOPLE[:3], PEOPLE[3]
QUICK = ["--epochs", "1", "--batch-size", "16", "--images", "25"]


def checkpoint_of(folder, root):
    """A model of the known people, trained for an epoch, and its data set."""
    voxels = PreparedSet.open(folder).facts.n_voxels
    model = {"alignment_size": 16, "num_hidden_layers": 0, "subjects": list(KNOWN)}
    model["n_voxels"] = {name: voxels[name] for name in KNOWN}
    training = {"output_dir": str(root / "known"), "num_train_epochs": 1, "per_device_train_batch_size": 64}
    training |= {"use_cpu": True, "disable_tqdm": True}
    recipe = root / "recipe.yaml"
    content = {"data": {"fmri": str(folder)}, "model": {"fmri": model}, "training": training, "closed_form": True}
    recipe.write_text(yaml.safe_dump(content))
    return train(read_recipe([str(recipe)])), folder


@pytest.fixture(scope="module")
def alike(tmp_path_factory):
    """People who share most of their tuning at a place."""
    root = tmp_path_factory.mktemp("alike")
    return checkpoint_of(write_people(root / "set"), root)


@pytest.fixture(scope="module")
def unlike(tmp_path_factory):
    """People who share nothing."""
    root = tmp_path_factory.mktemp("unlike")
    return checkpoint_of(write_people(root / "set", shared=0.0), root)


def adapted(world, output, *more, prior=True, data=None, known=None):
    """The folder of a new checkpoint."""
    checkpoint, folder = world
    words = ["--checkpoint", str(checkpoint), "--data", f"fmri={data or folder}", "--output-dir", str(output), *QUICK]
    words += ["--prior", "places", "--known", f"fmri={known or folder}"] if prior else []
    return main([*words, *more])


def entry_of(output):
    (entry,) = json.loads((output / "training.json").read_text())["adaptations"]
    return entry


def test_scores(output, folder, part="closed form"):
    """2-way accuracy of what the closed form of a checkpoint makes of the new person's test recordings."""
    split = ready(PreparedSet.open(folder).split("test", [NEW]))
    model = NeuralClipModel.from_pretrained(output).eval()
    ids = torch.full((len(split),), len(KNOWN))
    values = torch.from_numpy(stacked(split, np.arange(len(split))))
    with torch.no_grad():
        embeds = model.each_features("fmri", values, ids)[part].numpy()
    return retrieval_scores(embeds, split.targets, split.image_ids.tolist())["two_way"]


test_scores.__test__ = False


@pytest.fixture
def opened(monkeypatch):
    """Names of the splits whose recordings are read."""
    read, found = Split._read, set()

    def guarded(split, rows):
        found.add(split.name)
        return read(split, rows)

    monkeypatch.setattr(Split, "_read", guarded)
    return found


def test_what_people_share_at_a_place_is_carried_over(alike, tmp_path, capsys, opened):
    checkpoint, folder = alike
    plain, prior = adapted(alike, tmp_path / "plain", prior=False), adapted(alike, tmp_path / "prior")
    assert opened == {"train", "validation"}  # test recordings are never read
    assert test_scores(prior, folder) > test_scores(plain, folder) + 0.05
    entry = entry_of(prior)
    found, plain_entry = entry["closed_form"][NEW]["prior"], entry_of(plain)
    assert found["weight"] == found["rehearsal"]["best"] > 0 and found["rehearsal"]["interval"][0] > 0
    assert found["rehearsal"]["images"] == {"train": 20, "validation": 5}
    assert entry["known"]["subjects"] == list(KNOWN) and entry["known"]["space"] == "MNI152"
    assert entry["settings"]["prior"] == "places" and "known" not in plain_entry
    assert "prior" not in plain_entry["closed_form"][NEW]
    card = (prior / "README.md").read_text()
    assert (
        f"Of the closed form {found['weight']:.2f} is the tuning of sub-01, sub-02, sub-03, carried over by the places"
        in card
    )
    assert "carried over" not in (plain / "README.md").read_text()
    told = capsys.readouterr().err
    assert f"prior by places of {NEW}: it counts {found['weight']:.2f}" in told
    assert f"of '{folder}' ['{NEW}'] are not used" in told
    before, after = (load_file(path / "model.safetensors") for path in (checkpoint, prior))
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_terms_of_the_known_people_are_remembered(alike, tmp_path):
    _, folder = alike
    known = shutil.copytree(folder, tmp_path / "known")
    metadata = json.loads((known / "neural_clip.json").read_text())
    (known / "neural_clip.json").write_text(json.dumps(metadata | {"redistribution": "forbidden"}))
    output = adapted(alike, tmp_path / "new", known=known)
    assert "forbidden" in model_terms(output).values()
    assert "redistribution of the data: forbidden" in (output / "README.md").read_text()
    trained_on = json.loads((output / "config.json").read_text())["fmri_config"]["trained_on"]
    found = [(entry["subjects"], entry["redistribution"]) for entry in trained_on]
    assert found == [(list(KNOWN), "allowed"), (list(KNOWN), "forbidden"), ([NEW], "allowed")]


def test_what_nobody_shares_switches_it_off_bit_for_bit(unlike, tmp_path):
    plain, prior = adapted(unlike, tmp_path / "plain", prior=False), adapted(unlike, tmp_path / "prior")
    found = entry_of(prior)["closed_form"][NEW].pop("prior")
    assert (found["weight"] == 0 and "does not say that it helps" in found["left_out"]) or "not alike" in found[
        "left_out"
    ]
    assert (plain / "model.safetensors").read_bytes() == (prior / "model.safetensors").read_bytes()
    assert (plain / "config.json").read_bytes() == (prior / "config.json").read_bytes()
    assert found["left_out"] in (prior / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2])
def test_targets_of_low_rank_give_numbers(tmp_path, rank):
    world = checkpoint_of(write_people(tmp_path / "set", rank=rank), tmp_path)
    output = adapted(world, tmp_path / "new")
    assert 0 <= entry_of(output)["closed_form"][NEW]["prior"]["weight"] <= 1
    assert "NaN" not in (output / "training.json").read_text()
    assert all(torch.isfinite(value).all() for value in load_file(output / "model.safetensors").values())


@pytest.mark.slow
def test_people_whose_places_are_shuffled_share_nothing(tmp_path_factory, tmp_path):
    """The same tuning; what is known of places is wrong."""
    rng = np.random.default_rng(0)
    places = {name: rng.permutation(places_of(number)) for number, name in enumerate(PEOPLE)}
    root = tmp_path_factory.mktemp("shuffled")
    world = checkpoint_of(write_people(root / "set", places=places), root)
    assert entry_of(adapted(world, tmp_path / "new"))["closed_form"][NEW]["prior"]["weight"] == 0


def test_images_that_are_held_out_are_not_learnt_from(alike, tmp_path):
    """By id, by embedding; where images are categories, which recur, nothing is left out."""
    _, folder = alike
    data = PreparedSet.open(folder)
    config = NeuralClipModel.from_pretrained(alike[0]).config.fmri_config
    rows = KnownPeople.of(data, config, data, [NEW]).record["train_rows"]
    assert rows == dict.fromkeys(KNOWN, IMAGES["train"])
    split, images = data.split("train", ["sub-02"]), data.images
    tests = data.split("test", [NEW]).shown_ids[:3]
    embeds = images.embeds.copy()
    embeds[images.rows_of(split.shown_ids[:3])] = 2 * images.embeds[images.rows_of(tests)]  # the same pictures
    twins = PreparedSet(data.name, data.folder, data.facts, replace(images, embeds=embeds))
    rows = KnownPeople.of(twins, config, data, [NEW]).record["train_rows"]
    assert rows == {"sub-01": 80, "sub-02": 77, "sub-03": 80}


def test_the_scale_of_a_few_recordings_lies_between_that_of_each_voxel_and_of_all():
    values = np.random.default_rng(0).standard_normal((10, 3)) * (1.0, 1.0, 9.0)
    own, all_ = values.std(axis=0), np.sqrt(values.var(axis=0).mean())
    found = 1 / scale_of_few(values)
    assert ((np.minimum(own, all_) <= found) & (found <= np.maximum(own, all_))).all()
    np.testing.assert_allclose(1 / scale_of_few(np.tile(values, (2000, 1))), own, rtol=2e-2)
    assert not scale_of_few(np.ones((4, 3))).any()


def test_coordinates_of_images_are_white_and_go_back():
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 6)) + 3
    space = ImageSpace.of(targets, 99)
    z = space.coordinates(targets)
    np.testing.assert_allclose(z.T @ z / 300, np.eye(6), atol=1e-9)
    undone = np.linalg.inv(space.into @ space.into.T)  # the covariance
    values, vectors = np.linalg.eigh(undone)
    mean = targets.mean(axis=0)
    share = (mean @ mean) ** 2 / ((targets @ mean) ** 2).mean()  # what the mean has of the mean square along it
    without = np.eye(6) - share * np.outer(mean, mean) / (mean @ mean)
    expected = (targets - mean) @ (vectors * values**-0.375) @ vectors.T @ without
    np.testing.assert_allclose(z @ space.back, expected)
    with pytest.raises(DataError, match="have the same embedding"):
        ImageSpace.of(np.tile(targets[:1], (20, 1)), 5)
    assert ImageSpace.of(targets, 2).coordinates(targets).shape == (300, 2)


def rehearsal(with_others, without, spread=0.1):
    """Scores as `decided` takes them, by weights."""
    rng = np.random.default_rng(0)
    two_way = np.stack([np.asarray(row)[:, None] + spread * rng.standard_normal(60) for row in (without, with_others)])
    entropies = 2 - two_way.mean(axis=2)
    return decided(entropies, two_way, [f"image {number}" for number in range(60)], {})


def test_only_a_clear_gain_over_what_does_without_others_counts():
    flat, rising = [0.6] * 5, [0.6, 0.65, 0.7, 0.75, 0.72]
    assert rehearsal(rising, flat)["weight"] == 0.75
    assert rehearsal(rising, rising)["weight"] == 0  # neighbours alone do as much
    assert rehearsal(flat, flat)["weight"] == 0
    assert rehearsal([0.6, 0.601, 0.602, 0.603, 0.602], flat, spread=0.3)["weight"] == 0  # within its interval
    falling = rehearsal([0.6, 0.5, 0.4, 0.3, 0.2], flat)
    assert falling["weight"] == 0 and falling["rehearsal"]["best"] == 0
    assert len(falling["rehearsal"]["with_others"]) == 5 and "left_out" in falling


def test_a_rehearsal_draws_images_whole(tmp_path):
    data = PreparedSet.open(write_people(tmp_path / "set", people=PEOPLE[:1], repeats=3))
    split = data.split("train")
    first, second = drawn(split, 10, 4, 2, np.random.default_rng(0))
    assert (len(first), len(second)) == (20, 8) and (len(first.shown_ids), len(second.shown_ids)) == (10, 4)
    assert not set(first.shown_ids) & set(second.shown_ids)


def test_many_images_and_a_fit_that_fails_leave_the_closed_form(alike, monkeypatch):
    data = PreparedSet.open(alike[1])
    config = NeuralClipModel.from_pretrained(alike[0]).config.fmri_config
    people = KnownPeople.of(data, config, data, [NEW])
    parts = [RecordingDataset.open(data, split, PEOPLE) for split in ("train", "validation")]
    carried, record = carried_over(people, *parts, NEW, 0)  # as many images as the known people have
    assert (carried is None) == (record["weight"] == 0)
    assert record["rehearsal"]["images"] == {"train": 60, "validation": 20}
    nothing = replace(people.kernels, shared=replace(people.kernels.shared, variances=np.zeros(8)))
    carried, record = carried_over(replace(people, kernels=nothing), *parts, NEW, 0)
    assert carried is None and "not alike at the same place" in record["left_out"]
    monkeypatch.setattr(places_prior, "choose", lambda *splits: np.linalg.cholesky(-np.eye(2)))
    carried, record = carried_over(people, *parts, NEW, 0)
    assert carried is None and "could not be computed (LinAlgError)" in record["left_out"]
    monkeypatch.setattr(places_prior, "MAX_IMAGES", 100)
    carried, record = carried_over(people, *parts, NEW, 0)
    assert carried is None and "110 images are more than the 100" in record["left_out"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"people": ("sub-01", NEW)}, r"needs recordings of 2 people and more .* has \['sub-01'\]"),
        ({"people": (NEW,)}, r"needs recordings of 2 people and more .* has \[\]"),
        ({"places": None}, "does not say where voxels lie in a space that people share"),
        ({"places_space": "fsaverage"}, "have places in fsaverage, those of .* in MNI152"),
        ({"places": {"sub-01": places_of(0), NEW: places_of(3)}}, "does not know where the voxels of 'sub-02' lie"),
        ({"image_encoder": READY | {"revision": "1"}}, "they differ in 'revision'"),
        ({"images": IMAGES | {"train": 7}}, "has 7 training images .* needs 8 and more"),
    ],
)
def test_known_people_that_do_not_fit(alike, tmp_path, changes, message):
    known = write_people(tmp_path / "known", **changes)
    with pytest.raises(DataError, match=message):
        adapted(alike, tmp_path / "new", known=known)
    assert not (tmp_path / "new").exists()


def test_a_new_person_without_places(alike, tmp_path):
    data = write_people(tmp_path / "new set", people=(NEW,), places=None)
    with pytest.raises(DataError, match="new set' does not say where voxels lie"):
        adapted(alike, tmp_path / "new", data=data)


def test_other_modalities_and_lonely_options(alike, tmp_path):
    eeg = write_planted(tmp_path / "eeg", "eeg", pixels=False, encoder=READY)
    with pytest.raises(DataError, match="says fmri, but the data set holds eeg recordings"):
        adapted(alike, tmp_path / "new", known=eeg)
    with pytest.raises(DataError, match=r"'--known' parameter\. Allowed is eeg=FOLDER"):
        adapted(alike, tmp_path / "new", "--known", "somewhere")
    with pytest.raises(DataError, match="'known' does not name"):
        adapted(alike, tmp_path / "new", "--prior", "places", prior=False)
    with pytest.raises(DataError, match="'known' names a data set, but 'prior' is 'none'"):
        adapted(alike, tmp_path / "new", "--prior", "none")
    with pytest.raises(DataError, match="'prior' is blended with the closed form, but 'closed_form' is off"):
        adapted(alike, tmp_path / "new", "--no-closed-form")
    assert not (tmp_path / "new").exists()


def test_a_known_person_with_other_voxels(alike, tmp_path, monkeypatch):
    voxels = {name: np.concatenate([places_of(number), places_of(9)[:1]]) for number, name in enumerate(PEOPLE)}
    monkeypatch.setattr("placed_people.places_of", lambda person, *more: voxels[PEOPLE[person]])
    known = write_people(tmp_path / "known")
    with pytest.raises(DataError, match="n_voxels of sub-01 is 91, but the model expects 90"):
        adapted(alike, tmp_path / "new", known=known)
