"""The closed form beside a trained network: what is put into a checkpoint, and by what it is chosen."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from neural_clip import NeuralClipModel
from neural_clip.commands.adapt import main as adapt
from neural_clip.evaluation.baselines import whitening
from neural_clip.evaluation.baselines.closed_form import choose, cross_entropy, ready, scores_of, undoing
from neural_clip.evaluation.baselines.closed_form_fit import Way, fit_of
from neural_clip.evaluation.run import evaluate_checkpoints
from neural_clip.evaluation.seen import seen_by_closed_form
from neural_clip.evaluation.validation_predictions import validation_predictions
from neural_clip.prepared.reader import PreparedSet, Split
from neural_clip.report.tables import scope_notes
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.closed_form import (
    PRIOR,
    PRIOR_STRENGTH,
    WEIGHTS,
    add_closed_forms,
    best_blend,
    give_closed_forms,
    joined,
)
from neural_clip.training.closed_form_maps import Blend, Maps, fill, fill_beside, settings_of
from neural_clip.training.recipe import read_recipe
from neural_clip.training.ridge_start import of_subject
from neural_clip.training.run import train
from neural_clip.training.trainer import neural_embeds, validation_scores
from planted_splits import planted

pytestmark = pytest.mark.numerical

WAYS = [
    ("eeg", Way(False)),
    ("eeg", Way(True)),
    ("eeg", Way(True, 0.1)),
    ("fmri", Way(False)),
    ("fmri", Way(False, 0.3)),
]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def trained(finished_run):
    """A checkpoint without a closed form."""
    return finished_run[1]


@pytest.fixture(scope="module")
def with_closed_form(ready_folders, new_recipe, tmp_path_factory):
    """A checkpoint of the same recipe with one, and the tests' own copy of its record."""
    root = tmp_path_factory.mktemp("closed_form")
    recipe = new_recipe(root, {name: ready_folders[name] for name in ("eeg", "fmri")})
    output = train(read_recipe([str(recipe), "--closed-form", "true"]))
    return output, json.loads((output / "training.json").read_text())


def parts_of(model, folder, modality):
    """Training and validation recordings."""
    subjects, data = getattr(model.config, f"{modality}_config").subjects, PreparedSet.open(folder)
    return [RecordingDataset.open(data, split, subjects) for split in ("train", "validation")]


def by_hand(network, closed, split, weight):
    """The cost of a weight, by loops."""
    gallery = unit(split.gallery_embeds)
    total = np.zeros((len(split), network.shape[1]))
    for embeds, share in ((network, weight), (closed, 1 - weight)):
        cosines = unit(embeds) @ gallery.T
        spread = np.sqrt(np.mean([(row - row.mean()) ** 2 for row in cosines]))
        total += share * unit(embeds) / spread
    return len(split) * cross_entropy(total, split) + PRIOR_STRENGTH * (weight - PRIOR) ** 2


def test_the_blend_has_the_lowest_cost():
    _, validation, _ = planted("voxels")
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, *validation.targets.shape))
    for scales in ((0.3, 3.0), (3.0, 0.3), (1.0, 1.0), (50.0, 50.0)):
        network, closed = (unit(validation.targets) + scale * each for scale, each in zip(scales, noise, strict=True))
        costs = [by_hand(network, closed, validation, weight) for weight in WEIGHTS]
        assert best_blend(network, closed, validation).weight == WEIGHTS[int(np.argmin(costs))]


@pytest.mark.parametrize("n_images", [2, 5, 16])
def test_the_closed_form_is_the_floor_as_far_as_validation_rows_tell(n_images):
    """In all, rows have at most 0.8 nats more with the blend; of a network that tells nothing there is little left."""
    _, validation, _ = planted("voxels", n_subjects=1)
    few = validation.at(np.flatnonzero(np.isin(validation.image_ids, validation.shown_ids[:n_images])))
    slack, weights = PRIOR_STRENGTH * PRIOR**2, []
    assert slack == pytest.approx(0.8) and len(few) == n_images
    for seed in range(20):
        noise = np.random.default_rng(seed).standard_normal((2, *few.targets.shape))
        network, closed = noise[0], unit(few.targets) + 0.3 * noise[1]
        blend = best_blend(network, closed, few)
        weights.append(blend.weight)
        behind = cross_entropy(blend(network, closed), few) - cross_entropy(closed, few)
        assert len(few) * behind <= slack
    assert np.mean(weights) < {2: PRIOR, 5: 0.25, 16: 0.1}[n_images]


def test_a_part_that_tells_nothing_apart_counts_nothing():
    _, validation, _ = planted("voxels")
    constant = np.tile(validation.targets[:1], (len(validation), 1)) * 0
    assert best_blend(constant, validation.targets, validation).weight == 0
    assert best_blend(validation.targets, constant, validation).weight == 1


@pytest.mark.parametrize(("modality", "way"), WAYS, ids=[f"{modality} {way.name}" for modality, way in WAYS])
def test_a_checkpoint_computes_what_the_fit_predicts(trained, ready_folders, modality, way):
    model = NeuralClipModel.from_pretrained(trained)
    train_part, validation = parts_of(model, ready_folders[modality], modality)
    split, held_out = (ready(part.part) for part in (train_part, validation))
    fit = fit_of(way, split)
    transform = undoing(split.data.images.of(split.shown_ids).embeds)
    expected = fit.deviations(held_out, [0.3])[0] @ transform
    maps, blend = Maps.of(fit, 0.3, transform), Blend(0.5, 1.0, 1.0)
    fill(model, train_part, maps, blend, "float32")
    batch = validation.__getitems__(list(range(len(validation))))
    values = batch[f"{modality}_values"]
    found = model.each_features(modality, values, batch["subject_ids"])["closed form"].detach().numpy()
    np.testing.assert_allclose(unit(found), unit(expected), atol=1e-4)
    assert maps.smallest_dtype(held_out, blend, neural_embeds(model.eval(), validation)) == "float16"
    model.set_closed_form(modality, settings_of(train_part, own=[]).as_dict())
    fill_beside(model, train_part, maps.apart(), blend, "float32")
    found = model.each_features(modality, values, batch["subject_ids"])["closed form"].detach().numpy()
    np.testing.assert_allclose(unit(found), unit(expected), atol=1e-4)


@pytest.mark.parametrize("least", [1.0, 0.1])
def test_the_average_subject_computes_what_a_fit_predicts_of_somebody_new(trained, ready_folders, least):
    model = NeuralClipModel.from_pretrained(trained)
    train_part, validation = parts_of(model, ready_folders["eeg"], "eeg")
    fit = fit_of(Way(True, least), ready(train_part.part))
    maps = Maps.of(fit, 0.3, np.eye(train_part.part.targets.shape[1]))
    fill(model, train_part, maps, Blend(0.5, 1.0, 1.0), "float32")
    values = validation.__getitems__(list(range(len(validation))))["eeg_values"]
    found = model.each_features("eeg", values, torch.full((len(values),), -1))["closed form"].detach().numpy()
    somebody = replace(ready(validation.part), subjects=np.full(len(validation), "somebody new"))
    np.testing.assert_allclose(unit(found), unit(fit.deviations(somebody, [0.3])[0]), atol=1e-4)
    alone = fit_of(Way(False), ready(train_part.part))
    assert not alone.deviations(somebody, [0.3]).any()  # nothing is known of them


def test_half_precision_is_not_taken_where_it_changes_scores(trained, ready_folders):
    model = NeuralClipModel.from_pretrained(trained)
    train_part, validation = parts_of(model, ready_folders["fmri"], "fmri")
    split, held_out = (ready(part.part) for part in (train_part, validation))
    maps = Maps.of(fit_of(Way(False), split), 0.3, np.eye(split.targets.shape[1]))
    for name, weights in maps.weights.items():  # one value that dwarfs all others, which half precision loses
        weights[:, :] *= 1e-9
        weights[0, 0] = 1.0
        maps.offsets[name][:] *= 1e-9
    held_out = replace(held_out, recordings=[np.append(0, row[1:]).astype(np.float32) for row in held_out.values()])
    assert maps.smallest_dtype(held_out, Blend(0.0, 1.0, 1.0), neural_embeds(model.eval(), validation)) == "float32"


@pytest.mark.parametrize("kind", ["voxels", "sensors"])
def test_maps_read_a_split_by_blocks_and_once_for_both_types(kind, monkeypatch):
    split, scored, _ = planted(kind)
    way = Way(False) if kind == "voxels" else Way(True, 0.1)
    maps = Maps.of(fit_of(way, split), 0.3, np.eye(split.targets.shape[1]))
    whole = maps.predictions(scored, "float32", "float16")
    read = []
    values = Split.values

    def watched(self, rows=slice(None)):
        read.append(np.arange(len(self))[rows])
        return values(self, rows)

    monkeypatch.setattr(Split, "values", watched)
    monkeypatch.setattr(whitening, "BLOCK_ROWS", 3)
    np.testing.assert_allclose(maps.predictions(scored, "float32", "float16"), whole, rtol=1e-5, atol=1e-5)
    assert max(map(len, read)) == 3
    times = np.bincount(np.concatenate([rows for rows in read if len(rows) > 1]), minlength=len(scored))
    assert set(times.tolist()) <= {0, 1}  # rows that are read alone tell their size, or are the last of a person
    assert not np.array_equal(*whole)


def test_everything_is_chosen_on_training_and_validation_rows_and_recorded(with_closed_form, trained, ready_folders):
    output, record = with_closed_form
    before, after = NeuralClipModel.from_pretrained(trained), NeuralClipModel.from_pretrained(output)
    for name, weight in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], weight)  # the network has learnt as without
    card = (output / "README.md").read_text()
    for modality in ("eeg", "fmri"):
        found = record["closed_form"][modality]
        train_part, validation = parts_of(before, ready_folders[modality], modality)
        split, held_out = (ready(part.part) for part in (train_part, validation))
        choice, transform = choose(split, held_out)
        assert (found["way"], found["relative_alpha"]) == (choice.fit.way.name, choice.relative_alpha)
        predictions = choice.fit.deviations(held_out, [choice.relative_alpha])[0] @ transform
        network = neural_embeds(before, validation)
        blend = best_blend(network, predictions, held_out)
        assert found["weight_of_network"] == blend.weight < 1
        assert found["validation"]["network"]["two_way"] == pytest.approx(
            validation_scores(before, validation)["two_way"]
        )
        entropies = {name: scores["cross_entropy"] for name, scores in found["validation"].items()}
        assert entropies["blend"] == pytest.approx(cross_entropy(blend(network, predictions), held_out))
        assert f"{found['validation']['blend']['two_way']:.4f}" in card
        assert found["refitted_on"] == {"train": len(split), "validation": len(held_out)}
        # what is kept was fitted on the rows of both splits
        again = fit_of(choice.fit.way, everything := ready(joined(train_part.part, validation.part)))
        transform = undoing(everything.data.images.of(everything.shown_ids).embeds)
        (kept,) = [each for each in validation_predictions(output) if each.modality == modality]
        assert kept.split == "validation" and kept.fingerprint == record["data"][modality]["fingerprint"]
        np.testing.assert_allclose(kept.embeds, unit(blend(network, predictions)), atol=1e-3)  # those before
        expected = blend(network, again.deviations(held_out, [choice.relative_alpha])[0] @ transform)
        np.testing.assert_allclose(neural_embeds(after, validation), unit(expected), atol=2e-3)
        assert np.abs(neural_embeds(after, validation) - unit(blend(network, predictions))).max() > 1e-2


def test_a_report_shows_network_closed_form_and_blend(with_closed_form, ready_folders, tmp_path):
    output, _ = with_closed_form
    options = {"baselines": False, "controls": False}
    report = evaluate_checkpoints({"ours": output}, [ready_folders["fmri"]], tmp_path / "test", **options)
    rows = [row for row in report["decoding"]["fmri"]["rows"] if row["aggregation"] == "single trial"]
    assert [row["method"] for row in rows] == ["ours", "ours, network alone", "ours, closed form alone"]
    others = {part["other"] for part in report["comparisons"] if part["task"] == "decoding"}
    assert others == {"ours, network alone", "ours, closed form alone"}
    assert not [note for note in scope_notes(report) if "closed form" in note]
    options |= {"split": "validation"}
    report = evaluate_checkpoints({"ours": output}, [ready_folders["fmri"]], tmp_path / "validation", **options)
    assert [note for note in scope_notes(report) if "scores are of recordings that it has seen;" in note]


def test_scores_of_the_average_subject_name_whose_recordings_the_closed_form_has_seen(
    ready_folders, new_recipe, tmp_path
):
    """Those of whom it was fitted on, and only where the average subject has a closed form."""
    only = ["--model.eeg.subjects", "[sub-01]"]
    recipe = new_recipe(tmp_path, {"eeg": ready_folders["eeg"]})
    output = train(read_recipe([str(recipe), "--closed-form", "true", *only]))
    model, part = NeuralClipModel.from_pretrained(output), PreparedSet.open(ready_folders["eeg"]).split("validation")
    assert seen_by_closed_form(model, part, "average") == ["sub-01"]
    assert seen_by_closed_form(model, part.data.split("test"), "average") == []
    options = {"baselines": False, "controls": False, "split": "validation", "subject": "average"}
    for subjects, told in ((None, "seen, those of sub-01."), (["sub-01"], "it has seen."), (["sub-02"], None)):
        place = tmp_path / str(subjects)
        report = evaluate_checkpoints({"ours": output}, [ready_folders["eeg"]], place, subjects=subjects, **options)
        notes = [note for note in scope_notes(report) if "closed form" in note]
        assert [note.endswith(told) for note in notes] == [True] * (told is not None)
    for layer in model.closed_forms["eeg"].layers.values():
        layer.parts.data[:] = torch.tensor([1.0, 0.0])  # the network alone
    assert seen_by_closed_form(model, part, "average") == seen_by_closed_form(model, part, None) == []


def test_without_validation_rows_it_is_left_out(trained, ready_folders, capsys):
    model = NeuralClipModel.from_pretrained(trained)
    train_part, _ = parts_of(model, ready_folders["eeg"], "eeg")
    found, embeds = add_closed_forms(model, [train_part], [], {})
    assert embeds == {} and found == {
        "eeg": {"left_out": "There are no validation recordings, by which it is chosen."}
    }
    assert "closed form of eeg: left out. There are no validation" in capsys.readouterr().err
    assert len(model.closed_forms) == 0


def test_images_of_one_embedding_leave_it_out(trained, ready_folders):
    model = NeuralClipModel.from_pretrained(trained)
    train_part, validation = parts_of(model, ready_folders["fmri"], "fmri")
    for part in (train_part, validation):
        part.part.data.images.embeds[:] = part.part.data.images.embeds[0]
    network = {"fmri": neural_embeds(model.eval(), validation)}
    records, embeds = add_closed_forms(model, [train_part], [validation], network)
    (found,) = records.values()
    assert embeds["fmri"] is network["fmri"]
    assert "same embedding" in found["left_out"] and len(model.closed_forms) == 0


def test_what_cannot_be_computed_leaves_the_network(trained, ready_folders, monkeypatch):
    def raises(*words):
        raise MemoryError

    monkeypatch.setattr("neural_clip.training.closed_form.choose", raises)
    model = NeuralClipModel.from_pretrained(trained)
    train_part, validation = parts_of(model, ready_folders["fmri"], "fmri")
    network = {"fmri": neural_embeds(model.eval(), validation)}
    (found,) = add_closed_forms(model, [train_part], [validation], network)[0].values()
    assert found == {"left_out": "It could not be computed (MemoryError)."} and len(model.closed_forms) == 0


def assert_kept_as_recorded(folder, modality, name, record):
    """The file holds the map of a subject in the dtype and size that the record says."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        weight = file.get_tensor(f"closed_forms.{modality}.layers.{name}.weight")
    assert weight.dtype == getattr(torch, record["dtype"])
    assert record["megabytes"] == round(weight.numel() * weight.element_size() / 1e6, 3)


@pytest.mark.parametrize("needed", ["float16", "float32"])
@pytest.mark.parametrize("known", ["float16", "float32", None])
def test_a_new_map_is_kept_in_what_its_score_needs(trained, ready_folders, tmp_path, monkeypatch, known, needed):
    """Beside a known map of either dtype, which stays as it is, and where there is none."""
    model = NeuralClipModel.from_pretrained(trained)
    train_part, validation = parts_of(model, ready_folders["eeg"], "eeg")
    records, held = {}, {}
    for number, (name, dtype) in enumerate({"sub-01": known, "sub-02": needed}.items()):
        if dtype is not None:
            monkeypatch.setattr(Maps, "smallest_dtype", lambda *given, dtype=dtype: dtype)
            network = {name: neural_embeds(model.eval(), of_subject(validation, number))}
            records |= give_closed_forms(model, train_part, validation, network)[0]
            held[name] = model.closed_forms["eeg"].layers[name].weight.clone()
    model.save_pretrained(tmp_path)
    again = NeuralClipModel.from_pretrained(tmp_path).closed_forms["eeg"]
    for name, record in records.items():
        assert_kept_as_recorded(tmp_path, "eeg", name, record)
        assert torch.equal(again.layers[name].weight, held[name])
        assert torch.equal(held[name].half().float(), held[name]) == (record["dtype"] == "float16")


@pytest.mark.parametrize("modality", ["eeg", "fmri"])
def test_new_subjects_get_a_map_of_their_own(ready_folders, new_recipe, tmp_path, modality):
    """Trained on one subject with a closed form, adapted to the other, who is then better than the network alone."""
    recipe = new_recipe(tmp_path, {modality: ready_folders[modality]})
    known = [str(recipe), f"--model.{modality}.subjects", "[sub-01]", "--closed-form", "true"]
    output = train(read_recipe(known))
    before = NeuralClipModel.from_pretrained(output)
    asked = ["--checkpoint", str(output), "--data", f"{modality}={ready_folders[modality]}", "--epochs", "1"]
    adapt([*asked, "--output-dir", str(tmp_path / "adapted")])
    adapted = NeuralClipModel.from_pretrained(tmp_path / "adapted")
    held = dict(adapted.closed_forms.named_parameters())
    for name, value in before.closed_forms.named_parameters():
        assert torch.equal(held[name], value)
    (entry,) = json.loads((tmp_path / "adapted" / "training.json").read_text())["adaptations"]
    found = entry["closed_form"]["sub-02"]
    assert found["weight_of_network"] < 1
    scores = {name: part["two_way"] for name, part in found["validation"].items()}
    assert scores["blend"] >= scores["network"]
    assert adapted.closed_forms[modality].settings.own[-1] == "sub-02"
    assert_kept_as_recorded(tmp_path / "adapted", modality, "sub-02", found)
    first, second = validation_predictions(tmp_path / "adapted")
    (known_alone,) = validation_predictions(output)
    assert np.array_equal(first.embeds, known_alone.embeds) and first.subjects == ["sub-01"]
    assert second.subjects == ["sub-02"]
    _, validation = parts_of(adapted, ready_folders[modality], modality)
    part = of_subject(validation, 1).part
    kept = scores_of(second.embeds.astype(np.float32), part)
    assert kept == pytest.approx(found["validation"]["blend"], abs=2e-3)  # those before the last fit
    after = neural_embeds(adapted.eval(), of_subject(validation, 1))
    assert np.abs(after - second.embeds).max() > 1e-2
    adapt([*asked, "--output-dir", str(tmp_path / "without"), "--no-closed-form"])
    without = NeuralClipModel.from_pretrained(tmp_path / "without")
    alone = validation_predictions(tmp_path / "without")[1]
    np.testing.assert_allclose(alone.embeds, neural_embeds(without.eval(), of_subject(validation, 1)), atol=1e-3)
    assert without.closed_forms[modality].layers["sub-02"].parts.tolist() == [1.0, 0.0]
