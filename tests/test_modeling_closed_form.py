"""The closed form beside a network: what it computes, how it is kept, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from neural_clip import EegEncoder, NeuralClipModel
from second_process import python
from small_models import SUBJECTS, VOXELS, seeded_model, small_batch
from tolerances import assert_same_outputs

pytestmark = pytest.mark.numerical

SENSORS = {"first_sample": 5, "decimation": 2}
SETTINGS = {
    "pooled": ("eeg", {"own": [], "shared": True, **SENSORS}),
    "pooled and mixed, one subject apart": ("meg", {"own": [SUBJECTS[1]], "shared": True, "mixed": True, **SENSORS}),
    "each sensor subject": ("eeg", {"own": list(SUBJECTS), **SENSORS, "dtype": "float16"}),
    "each voxel subject": ("fmri", {"own": list(SUBJECTS), "dtype": "float16"}),
}
EACH = pytest.mark.parametrize(("modality", "settings"), SETTINGS.values(), ids=SETTINGS)


def model_with(modality, settings, seed=0):
    """A model with a closed form of random numbers that half precision holds."""
    model = seeded_model(("temporal_spatial", "temporal_spatial"))
    model.set_closed_form(modality, copy.deepcopy(settings))
    torch.manual_seed(seed)
    for parameter in model.closed_forms.parameters():
        parameter.data = torch.randn(parameter.shape).half().float()
    return model.eval()


def unit(vector):
    return vector / np.linalg.norm(vector)


def slow_closed_form(model, modality, recording, name):
    """What the closed form makes of one recording, and what the parts count, by plain numpy."""
    closed = model.closed_forms[modality]
    held = {key: value.detach().numpy() for key, value in closed.layers[name].named_parameters()}
    weight = held["weight"] if name in closed.settings.own else closed.weight.detach().numpy()
    if modality != "fmri":
        step, first = closed.settings.decimation, closed.settings.first_sample
        starts = range(first, recording.shape[1] - step + 1, step)
        recording = np.stack([recording[:, start : start + step].mean(axis=1) for start in starts], axis=1)
        if "mixing" in held:
            recording = held["mixing"] @ recording
    values = recording.reshape(-1)[: weight.shape[1]]
    return weight @ values + held["bias"], held["parts"]


@EACH
def test_an_embedding_is_the_blend_of_both(modality, settings):
    model = model_with(modality, settings)
    batch = small_batch(modality, [2, 0, 1, 0])
    found = getattr(model, f"get_{modality}_features")(**batch).detach().numpy()
    parts = model.each_features(modality, batch[f"{modality}_values"], batch["subject_ids"])
    for row, subject in enumerate([2, 0, 1, 0]):
        closed, counts = slow_closed_form(model, modality, batch[f"{modality}_values"][row].numpy(), SUBJECTS[subject])
        network = parts["network"][row].detach().numpy()
        assert_same_outputs(torch.tensor(parts["closed form"][row].detach().numpy()), torch.tensor(closed))
        expected = counts[0] * unit(network) + counts[1] * unit(closed)
        np.testing.assert_allclose(found[row], expected, atol=2e-5)
    output = model(**batch)
    np.testing.assert_allclose(output.neural_embeds.detach(), [unit(row) for row in found], atol=1e-6)
    assert_same_outputs(parts["blend"], torch.tensor(found))


@EACH
def test_training_sees_the_network_alone(modality, settings):
    model = model_with(modality, settings).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch = small_batch(modality, [0, 1, 2])
    alone = seeded_model(("temporal_spatial", "temporal_spatial")).train()
    for module in alone.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    assert torch.equal(model(**batch).neural_embeds, alone(**batch).neural_embeds)
    assert not any(parameter.requires_grad for parameter in model.closed_forms.parameters())


@EACH
def test_one_subject_alone_gives_the_same(modality, settings):
    model = model_with(modality, settings)
    for name in [*SUBJECTS, *(["average"] if modality != "fmri" else [])]:
        subject = SUBJECTS.index(name) if name in SUBJECTS else -1
        batch = small_batch(modality, [max(subject, 0)] * 3)
        batch["subject_ids"] = torch.full((3,), subject)
        values = batch[f"{modality}_values"]
        branch = model.for_subject(name, modality)
        expected = getattr(model, f"get_{modality}_features")(**batch)
        assert_same_outputs(branch(values[:, : VOXELS[name]] if modality == "fmri" else values), expected)


@EACH
def test_kept_on_disk_and_read_in_another_process(modality, settings, tmp_path):
    model = model_with(modality, settings)
    model.save_pretrained(tmp_path)
    stored = {name: held for name, held in load_file(tmp_path / "model.safetensors").items() if "closed_forms" in name}
    half = settings.get("dtype") == "float16"
    for name, tensor in stored.items():
        assert tensor.dtype == (torch.float16 if half and name.endswith(".weight") else torch.float32)
    if settings.get("shared"):  # one map for all who share it
        assert sum(name.endswith(".weight") for name in stored) == 1 + len(settings["own"])
    batch = small_batch(modality, [0, 1, 2])
    torch.save(batch, tmp_path / "batch.pt")
    done = python(
        "-c",
        "import sys, torch; from transformers import AutoModel;"
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True);"
        "assert {p.dtype for p in model.parameters()} == {torch.float32};"
        f"batch = torch.load(sys.argv[1] + '/batch.pt'); found = model.get_{modality}_features(**batch);"
        "torch.save(found, sys.argv[1] + '/found.pt')",
        str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert_same_outputs(torch.load(tmp_path / "found.pt"), getattr(model, f"get_{modality}_features")(**batch))
    again = NeuralClipModel.from_pretrained(tmp_path)
    for name, parameter in again.closed_forms.named_parameters():
        assert torch.equal(parameter, model.closed_forms.get_parameter(name))
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_an_encoder_alone_is_its_branch(tmp_path):
    model_with(*SETTINGS["pooled"]).save_pretrained(tmp_path)
    assert isinstance(EegEncoder.from_pretrained(tmp_path), EegEncoder)


def test_a_checkpoint_without_its_maps_is_refused(tmp_path):
    model = model_with(*SETTINGS["pooled"])
    model.save_pretrained(tmp_path)
    model.set_closed_form("eeg", None)
    config = (tmp_path / "config.json").read_text()
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"missing_keys.*closed_forms\.eeg"):
        NeuralClipModel.from_pretrained(tmp_path)


@EACH
def test_a_new_map_leaves_all_others_as_they_are(modality, settings, tmp_path):
    model = model_with(modality, settings)
    batch = small_batch(modality, [0, 1, 2])
    batch["subject_ids"] = torch.tensor([0, 1, 2])
    before = getattr(model, f"get_{modality}_features")(**batch)
    model.add_subject(modality, "new", 7 if modality == "fmri" else None)
    layer = model.closed_forms[modality].give_map("new")
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.parts.copy_(torch.tensor([0.5, 2.0]))
    assert_same_outputs(getattr(model, f"get_{modality}_features")(**batch), before)
    model.save_pretrained(tmp_path)
    again = NeuralClipModel.from_pretrained(tmp_path)
    values = torch.randn(2, 7) if modality == "fmri" else batch[f"{modality}_values"][:2]
    new = torch.full((2,), 3)
    expected = model.each_features(modality, values, new)
    assert not torch.allclose(expected["closed form"], torch.zeros(1))
    assert_same_outputs(again.each_features(modality, values, new)["blend"], expected["blend"])
    assert_same_outputs(again.for_subject("new", modality)(values), expected["blend"])


def test_where_some_have_no_map_the_average_subject_is_the_networks():
    model = model_with("eeg", {"own": [SUBJECTS[0]]})
    batch = small_batch("eeg", [0, 1])
    for subject in (1, -1):
        batch["subject_ids"] = torch.full((2,), subject)
        parts = model.each_features("eeg", batch["eeg_values"], batch["subject_ids"])
        if subject == -1:
            assert torch.equal(parts["blend"], parts["network"])
        assert_same_outputs(
            model.for_subject([*SUBJECTS, "average"][subject], "eeg")(batch["eeg_values"]), parts["blend"]
        )


@EACH
def test_a_new_subject_starts_as_the_average_or_with_the_network(modality, settings, tmp_path):
    model = model_with(modality, settings)
    batch = small_batch(modality, [0, 1, 2])
    before = getattr(model, f"get_{modality}_features")(**batch)
    model.add_subject(modality, "new", 7 if modality == "fmri" else None)
    assert_same_outputs(getattr(model, f"get_{modality}_features")(**batch), before)
    new = torch.full((3,), 3)
    if modality == "fmri":
        values = torch.randn(3, 7)
        parts = model.each_features("fmri", values, new)
        assert torch.equal(parts["blend"], parts["network"])
    else:
        values = batch[f"{modality}_values"]
        mapped = [model.closed_forms[modality](values, torch.full((3,), number))[0] for number in (-1, 3)]
        np.testing.assert_allclose(*(each.detach() for each in mapped), atol=0.02 if "dtype" in settings else 1e-4)
    model.save_pretrained(tmp_path)
    again = NeuralClipModel.from_pretrained(tmp_path)
    assert_same_outputs(again.each_features(modality, values, new)["blend"],
                        model.each_features(modality, values, new)["blend"])  # fmt: skip


@pytest.mark.parametrize(
    ("modality", "changes", "named"),
    [
        ("eeg", {"own": ["nobody"]}, "closed_form.own"),
        ("eeg", {"own": SUBJECTS, "rows": 3}, "'closed_form' parameter"),
        ("eeg", {"own": [], "shared": True, "decimation": 0}, "closed_form.decimation"),
        ("eeg", {"own": [], "shared": True, "first_sample": 10_000}, "'closed_form' parameter"),
        ("eeg", {"own": [], "shared": True, "dtype": "int8"}, "closed_form.dtype"),
        ("eeg", {"own": SUBJECTS, "own_dtypes": {"nobody": "float16"}}, "closed_form.own_dtypes"),
        ("eeg", {"own": SUBJECTS, "own_dtypes": {SUBJECTS[0]: ["float16"]}}, "closed_form.own_dtypes"),
        ("eeg", {"own": SUBJECTS, "own_dtypes": ["float16"]}, "closed_form.own_dtypes"),
        ("fmri", {"own": [], "shared": True}, "'closed_form' parameter"),
        ("fmri", {"own": SUBJECTS, "decimation": 2}, "'closed_form' parameter"),
    ],
)
def test_settings_that_make_no_sense_are_named(modality, changes, named):
    config = seeded_model(("temporal_spatial", "temporal_spatial")).config
    content = config.to_dict()
    content[f"{modality}_config"]["closed_form"] = {**changes, "own": list(changes["own"])}
    with pytest.raises(ValueError, match=named):
        type(config)(**content)
