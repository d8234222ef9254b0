"""Training on several corpora of one modality: batches, images in common, held-out images, checkpoint and record."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from neural_clip import NeuralClipModel, NeuralClipProcessor
from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.closed_form import ready
from neural_clip.evaluation.baselines.closed_form_fit import Way, fit_of
from neural_clip.evaluation.validation_predictions import validation_predictions
from neural_clip.prepared.image_table import ImageTable
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.several import by_key
from neural_clip.training.adapt import adapt
from neural_clip.training.batches import JointDataset, RecordingDataset
from neural_clip.training.closed_form import add_closed_forms, within
from neural_clip.training.closed_form_maps import Blend, Maps, fill_corpora
from neural_clip.training.model import encoder_settings
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from neural_clip.training.several_corpora import PooledDataset, numbers_of_images, same_images
from neural_clip.training.splits import Splits
from neural_clip.training.trainer import neural_embeds
from several_corpora import COUNTS, FIRST, SECOND, write_sensors, write_voxels

N_IMAGES = sum(COUNTS.values())
PEOPLE = ["first/sub-01", "first/sub-02", "second/sub-01", "second/sub-02"]
MODEL = {"eeg": {"hidden_size": 8, "temporal_kernel_size": 3, "n_windows": 5, "dropout": 0.1}}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Folders of two EEG corpora that have ten training images in common."""
    root = tmp_path_factory.mktemp("corpora")
    others = [*range(10), *range(100, 100 + N_IMAGES - 10)]
    return {"first": write_sensors(root / "first", FIRST),
            "second": write_sensors(root / "second", SECOND, numbers=others, seed=1)}  # fmt: skip


def train_on(folders, output, *more):
    words = ["--data", *folders, "--output_dir", str(output), "--use_cpu", "true", "--disable_tqdm", "true"]
    model = [part for name, value in MODEL["eeg"].items() for part in (f"--model.eeg.{name}", str(value))]
    settings = ["--num_train_epochs", "3", "--min_steps", "0", "--model.eeg.num_networks", "1", "--folds", "0"]
    settings += ["--model.eeg.n_fine_windows", "10", "--model.eeg.decimation", "1", "--model.eeg.readout_size", "0"]
    settings += ["--per_device_train_batch_size", "32", "--passes.eeg", "1"]
    return train(read_recipe([*words, *settings, *model, *more]))


@pytest.fixture(scope="module")
def checkpoint(corpora, tmp_path_factory):
    """Of both corpora."""
    return train_on([f"eeg={folder}" for folder in corpora.values()], tmp_path_factory.mktemp("run") / "out")


@pytest.fixture
def data(corpora):
    return by_key(map(PreparedSet.open, corpora.values()))


def test_people_are_named_by_their_corpus(data, corpora):
    assert list(data) == ["eeg.first", "eeg.second"]
    first, plain = data["eeg.first"], PreparedSet.open(corpora["first"])
    assert first.facts.subjects == PEOPLE[:2]
    part = first.split("test", [PEOPLE[1]])
    assert set(part.subjects) == {PEOPLE[1]} and len(part) == 32
    assert np.array_equal(part.values(), plain.split("test", ["sub-02"]).values())
    streamed = PreparedSet.open(corpora["first"], streaming=True).of_corpus().split("test", [PEOPLE[1]])
    assert np.array_equal(streamed.values(), part.values()) and set(streamed.subjects) == {PEOPLE[1]}
    assert first.verify() is first and first.of_corpus() is first
    with pytest.raises(DataError, match="has no subject"):
        first.split("test", ["sub-02"])


def test_statistics_and_places_keep_their_people(corpora, tmp_path):
    plain = PreparedSet.open(write_voxels(tmp_path / "set", "one", [5, 6], numbers=range(N_IMAGES)))
    named = plain.of_corpus()
    assert named.facts.n_voxels == {"one/sub-01": 5, "one/sub-02": 6}
    assert named.voxel_places("one/sub-01") is None and named.scanner_places("one/sub-02") is None
    vars(plain)["statistics"] = {}
    assert named.statistics == {}
    assert [len(row) for row in named.split("test", ["one/sub-02"]).values([0, 1])] == [6, 6]


def test_two_sets_of_one_corpus_are_refused(corpora, tmp_path):
    twice = [PreparedSet.open(corpora["first"]), PreparedSet.open(str(corpora["first"]))]
    with pytest.raises(DataError, match="both hold eeg of the corpus 'first'"):
        by_key(twice)
    odd = PreparedSet.open(corpora["second"])
    odd.facts = replace(odd.facts, corpus="a/b")
    with pytest.raises(DataError, match="letters, digits, '_' and '-' are allowed"):
        by_key([twice[0], odd])
    assert list(by_key([odd])) == ["eeg"]  # alone it may have any name


def pooled(data, split="train"):
    return PooledDataset([RecordingDataset.open(each, split, PEOPLE) for each in data.values()])


def test_a_batch_holds_recordings_of_both_with_zeros_after_the_smaller(data):
    both = pooled(data)
    assert len(both) == 2 * len(both.sets[0]) == 320
    rows = [319, 0, 160, 5, 200]
    batch = both.__getitems__(rows)
    assert batch["eeg_values"].shape == (5, 6, 60)
    for place, row in enumerate(rows):
        part, own = (both.sets[0], row) if row < 160 else (both.sets[1], row - 160)
        values, labels = part.values([own])[0], part.labels([own])
        expected = torch.zeros(6, 60)
        expected[: values.shape[0], : values.shape[1]] = values
        assert torch.equal(batch["eeg_values"][place], expected)
        assert batch["subject_ids"][place] == labels["subject_ids"][0]
        assert torch.equal(batch["image_embeds"][place], labels["image_embeds"][0])
        image = part.part.image_ids[own]
        assert both.names_of_images([int(batch["image_ids"][place])]) == [image]
    assert batch["subject_ids"].tolist() == [3, 0, 2, 0, 2]
    empty = both.__getitems__([])
    assert len(empty["eeg_values"]) == len(empty["image_ids"]) == 0


def test_processes_share_a_batch_of_both(data):
    rows = list(range(0, 320, 10))
    whole = JointDataset([pooled(data)])
    shares = []
    for process in range(2):
        own = JointDataset([pooled(data)])
        own.share, own.stored = (process, 2), True
        shares.append(own.__getitems__(rows)["recordings"].read(slice(None)))
    assert [tuple(share.shape) for share in shares] == [(16, 6, 60), (16, 4, 25)]  # each as large as its own need
    expected = whole.__getitems__(rows)["eeg_values"]
    assert torch.equal(shares[0], expected[:16]) and torch.equal(shares[1], expected[16:, :4, :25])
    groups = pooled(data).groups
    assert len(groups) == 320 and not set(groups[:160]) & set(groups[160:])


def test_an_image_that_both_show_is_one(data):
    both = pooled(data)
    ids = both.labels(list(range(320)))["image_ids"].numpy()
    names = np.concatenate([part.part.image_ids for part in both.sets])
    same = names[:, None] == names
    assert np.array_equal(ids[:, None] == ids, same)
    assert same[:160, 160:].any()  # some are shared


def test_images_are_the_same_by_id_or_by_embedding():
    embeds = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    one = ImageTable(["a", "b", "c"], embeds[:3], ["", "", ""], [[], [], []])
    other = ImageTable(["x", "b", "z"], np.stack([embeds[2] * 3, embeds[3], embeds[3] + 1]), [""] * 3, [[]] * 3)
    assert same_images(one, other).tolist() == [-1, 1, 0]
    assert [each.tolist() for each in numbers_of_images([one, other, one])] == [[0, 1, 2], [2, 1, 5], [0, 1, 2]]


@pytest.mark.parametrize("split", ["test", "validation"])
def test_images_that_another_corpus_holds_out_are_not_trained_on(tmp_path, corpora, split):
    first = {"test": N_IMAGES - 1, "validation": COUNTS["train"]}[split]
    numbers = [first, *range(200, 200 + N_IMAGES - 1)]
    leaky = write_sensors(tmp_path / "leaky", SECOND, numbers=numbers, n_subjects=1)
    data = by_key([PreparedSet.open(corpora["first"]), PreparedSet.open(leaky)])
    with pytest.raises(DataError, match=rf"1 of the 40 training images of .*leaky' are {split} images of .*first'"):
        Splits.open(data, {"eeg": [*PEOPLE[:3]]}, 8)


def test_the_network_reads_what_all_have(data):
    found = encoder_settings([each.facts for each in data.values()], "eeg", {})
    assert {name: found[name] for name in ("n_chans", "n_times", "sfreq", "tmin")} == {
        "n_chans": 6, "n_times": 20, "sfreq": 100.0, "tmin": 0.0}  # fmt: skip
    assert found["subjects"] == PEOPLE and list(found["corpora"]) == ["first", "second"]
    assert found["corpora"]["second"] == {name: SECOND[name] for name in SECOND if name != "corpus"} | {"n_chans": 4}
    assert [entry["corpus"] for entry in found["trained_on"]] == ["first", "second"]
    some = encoder_settings([each.facts for each in data.values()], "eeg", {"subjects": [PEOPLE[3], PEOPLE[0]]})
    assert some["subjects"] == [PEOPLE[0], PEOPLE[3]]
    for wanted, message in (
        ([PEOPLE[0]], "names nobody of the corpus 'second'"),
        (["sub-01"], "'model.eeg.subjects'"),
        ("first/sub-01", "a list of subjects"),
    ):
        with pytest.raises(DataError, match=message):
            encoder_settings([each.facts for each in data.values()], "eeg", {"subjects": wanted})


def test_the_command_line_takes_several_data_sets_of_a_modality(tmp_path):
    recipe = read_recipe(["--data", "eeg=a", "fmri=f", "eeg=b", "--output_dir", str(tmp_path)])
    assert recipe.data == {"eeg": ["a", "b"], "fmri": "f"}
    assert recipe.folders == [("eeg", "a"), ("eeg", "b"), ("fmri", "f")]
    with pytest.raises(DataError, match="each folder once, but got 'eeg=a'"):
        read_recipe(["--data", "eeg=a", "eeg=a", "--output_dir", str(tmp_path)])
    for wrong in ("[a, 3]", "[]", "[a, [b]]"):
        with pytest.raises(DataError, match=r"data\.eeg|'data' section"):
            read_recipe(["--data", f"{{eeg: {wrong}}}", "--output_dir", str(tmp_path)])
    with pytest.raises(DataError, match=r"model\.eeg\.corpora"):
        read_recipe(["--data", "eeg=a", "--output_dir", str(tmp_path), "--model.eeg.corpora", "{}"])


def test_a_checkpoint_of_two_corpora_says_so(checkpoint):
    record = json.loads((checkpoint / "training.json").read_text())
    assert list(record["data"]) == ["eeg.first", "eeg.second"] == record["simulated"]
    assert record["data"]["eeg.second"]["subjects"] == PEOPLE[2:]
    last = record["validation"][-1]
    assert last["eval_two_way"] == pytest.approx(
        (last["eval_eeg.first_two_way"] + last["eval_eeg.second_two_way"]) / 2
    )
    assert min(last["eval_eeg.first_two_way"], last["eval_eeg.second_two_way"]) > 0.7
    assert list(record["closed_form"]) == list(record["confidence"]) == ["eeg.first", "eeg.second"]
    assert [found.subjects for found in validation_predictions(checkpoint)] == [PEOPLE[:2], PEOPLE[2:]]
    card = (checkpoint / "README.md").read_text()
    for said in ("first: 6 channels", "second: 4 channels", "25 samples at 100 Hz", "second/sub-02",
                 "EEG first and EEG second", "no\nmean layer"):  # fmt: skip
        assert said in card, said
    config = json.loads((checkpoint / "config.json").read_text())["eeg_config"]
    assert config["subjects"] == PEOPLE and set(config["confidence_temperature"]) == set(PEOPLE)
    assert [group["subjects"] for group in NeuralClipProcessor.from_pretrained(checkpoint).recordings["eeg"]] == [
        PEOPLE[:2], PEOPLE[2:]]  # fmt: skip


def test_each_corpus_has_a_closed_form_of_its_own(checkpoint, data):
    model = NeuralClipModel.from_pretrained(checkpoint).eval()
    closed, record = model.closed_forms["eeg"], json.loads((checkpoint / "training.json").read_text())["closed_form"]
    pooled = [key.partition(".")[2] for key, found in record.items() if found["way"].startswith("pooled")]
    assert closed.settings.corpora == pooled and not closed.settings.shared
    assert closed.settings.own == [name for name in PEOPLE if name.split("/")[0] not in pooled]
    assert {found["dtype"] for found in record.values()} == {closed.settings.dtype}
    for each in data.values():
        part = RecordingDataset.open(each, "test", PEOPLE)
        split = ready(within(model, part).part)
        assert split.values([0])[0].shape == (each.facts.n_chans, 20)
        inputs = part.__getitems__([0, 40])
        with torch.no_grad():
            mapped, _ = closed(inputs["eeg_values"], inputs["subject_ids"])
        for row, recording in enumerate((0, 40)):
            name = part.part.subjects[recording]
            held = {key: value.double().numpy() for key, value in closed.layers[name].named_parameters()}
            weight = (
                held["weight"] if name in closed.settings.own else closed.shared[name.split("/")[0]].weight.numpy()
            )
            values = split.values([recording])[0].astype(np.float64)
            expected = weight @ (held["mixing"] @ values if "mixing" in held else values).ravel() + held["bias"]
            np.testing.assert_allclose(mapped[row], expected, atol=1e-4 * np.abs(expected).max())


WAYS = [Way(True, 0.1), Way(True), Way(False)]


@pytest.mark.parametrize("ways", [(WAYS[0], WAYS[1]), (WAYS[2], WAYS[0]), (WAYS[2], WAYS[2])], ids=str)
def test_maps_of_each_corpus_compute_what_its_fit_predicts(checkpoint, data, ways, tmp_path):
    """Pooled and whitened beside pooled, each person alone beside pooled and whitened, and all alone."""
    model, made, expected = NeuralClipModel.from_pretrained(checkpoint).eval(), [], {}
    for key, way in zip(data, ways, strict=True):
        train_part, test_part = (
            within(model, RecordingDataset.open(data[key], name, PEOPLE)) for name in ("train", "test")
        )
        fit = fit_of(way, ready(train_part.part))
        expected[key] = fit.deviations(ready(test_part.part), [0.3])[0]
        made.append((train_part, Maps.of(fit, 0.3, np.eye(16)), Blend(0.5, 1.0, 1.0)))
        assert not fit._ridges  # no matrix stays
    fill_corpora(model, made, "float16")
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    weights = {name: value for name, value in stored.items() if name.startswith("closed_forms") and "weight" in name}
    assert len(weights) == sum(1 if way.pooled else 2 for way in ways)
    assert {value.dtype for value in weights.values()} == {torch.float16}
    n_bytes = sum(value.numel() * value.element_size() for value in weights.values())
    assert n_bytes / 1e6 == pytest.approx(sum(maps.megabytes("float16") for _, maps, _ in made), abs=1e-3)
    again = NeuralClipModel.from_pretrained(tmp_path).eval()
    for key, predicted in expected.items():
        inputs = (part := RecordingDataset.open(data[key], "test", PEOPLE)).__getitems__(list(range(len(part))))
        found = again.each_features("eeg", inputs["eeg_values"], inputs["subject_ids"])["closed form"]
        unit = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (found.detach().numpy(), predicted))
        np.testing.assert_allclose(*unit, atol=5e-3)


@pytest.mark.parametrize("fine", ["first", "both"])
def test_half_precision_is_taken_where_it_suits_all_corpora(checkpoint, data, monkeypatch, fine):
    model = NeuralClipModel.from_pretrained(checkpoint).eval()
    train_parts, scored = (
        [RecordingDataset.open(each, name, PEOPLE) for each in data.values()] for name in ("train", "validation")
    )
    suits = iter(["float16", "float16" if fine == "both" else "float32"])
    monkeypatch.setattr(Maps, "smallest_dtype", lambda *given: next(suits))
    monkeypatch.setattr("neural_clip.evaluation.baselines.closed_form_fit.LEAST_SHRINKAGES", (1.0,))
    model.set_closed_form("eeg", None)
    network = {part.key: neural_embeds(model, part) for part in scored}
    record, _ = add_closed_forms(model, train_parts, scored, network)
    expected = "float16" if fine == "both" else "float32"
    assert model.closed_forms["eeg"].settings.dtype == expected
    assert [found["dtype"] for found in record.values()] == [expected] * 2


def test_what_takes_one_corpus_says_so(checkpoint, corpora, tmp_path):
    with pytest.raises(DataError, match=r"has people of the corpora \['first', 'second'\]. `adapt` adds"):
        adapt(checkpoint, corpora["first"], tmp_path / "adapted")
    bare = [write_sensors(tmp_path / shape["corpus"], shape, numbers=range(n, n + N_IMAGES), n_subjects=1,
                          without_validation=True) for n, shape in ((0, FIRST), (100, SECOND))]  # fmt: skip
    with pytest.raises(DataError, match="are not cross-validated"):
        train_on([f"eeg={folder}" for folder in bare], tmp_path / "folds", "--folds", "3")
    assert not (tmp_path / "adapted").exists() and not (tmp_path / "folds").exists()


def test_fmri_of_two_corpora(tmp_path):
    folders = [write_voxels(tmp_path / "one", "one", [20, 24], numbers=range(N_IMAGES)),
               write_voxels(tmp_path / "two", "two", [17], numbers=range(100, 100 + N_IMAGES), seed=1)]  # fmt: skip
    words = ["--data", *(f"fmri={folder}" for folder in folders), "--output_dir", str(tmp_path / "out")]
    words += ["--use_cpu", "true", "--disable_tqdm", "true", "--num_train_epochs", "2", "--min_steps", "0"]
    words += ["--model.fmri.alignment_size", "16", "--model.fmri.num_networks", "1", "--model.fmri.hidden_size", "8"]
    checkpoint = train(read_recipe([*words, "--per_device_train_batch_size", "32"]))
    model = NeuralClipModel.from_pretrained(checkpoint).eval()
    assert model.config.fmri_config.n_voxels == {"one/sub-01": 20, "one/sub-02": 24, "two/sub-01": 17}
    assert set(model.closed_forms["fmri"].settings.own) == set(model.config.fmri_config.subjects)
    processor = NeuralClipProcessor.from_pretrained(checkpoint)
    assert [group["corpus"] for group in processor.recordings["fmri"]] == ["one", "two"]
    values = PreparedSet.open(folders[1]).split("test").values([0, 1])
    found = processor(fmri=np.stack(values), subject="two/sub-01")
    assert found["subject_ids"].tolist() == [2, 2]
    assert torch.isfinite(model.get_fmri_features(**found)).all()
    with pytest.raises(ValueError, match="must hold 20 voxels, but holds 17"):
        processor(fmri=np.stack(values), subject="one/sub-01")


@pytest.mark.slow
def test_a_run_of_two_corpora_goes_on_as_if_it_had_not_stopped(corpora, tmp_path):
    folders = [f"eeg={folder}" for folder in corpora.values()]
    same = ["--closed_form", "false", "--lr_scheduler_type", "constant", "--warmup_steps", "0"]
    whole = train_on(folders, tmp_path / "whole", *same, "--num_train_epochs", "2")
    train_on(folders, tmp_path / "half", *same, "--num_train_epochs", "1", "--save_total_limit", "9")
    more = ["--num_train_epochs", "2", "--save_total_limit", "9", "--resume"]
    resumed = train_on(folders, tmp_path / "half", *same, *more)
    assert json.loads((resumed / "training.json").read_text())["steps"] == 20
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
