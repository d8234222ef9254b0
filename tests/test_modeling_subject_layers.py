"""Subjects: any name, whole numbers as ids, layers that are called as modules."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from neural_clip import EegConfig, EegEncoder, FmriConfig, MegConfig, NeuralClipConfig, NeuralClipModel
from neural_clip.modeling_subject_layers import SubjectLayers
from small_models import ENCODER_TYPES, seeded_model, small_batch
from tolerances import assert_same_outputs

pytestmark = pytest.mark.numerical

NAMES = [
    "sub.01", "keys", "forward", "", "training", "layers", "weight", "a%2Eb", "a.b", "%a%2Eb", "\ud800", "日本 語/..",
    "__init__", "_modules", "_key_of", "x\ny", " ", "1", "0.1", "LayerNorm.gamma", "get", "sub-01",
]  # fmt: skip


def test_any_string_is_the_name_of_a_subject(tmp_path):
    """Saved, loaded, taken as a branch, and given one more subject."""
    sensors = {"n_chans": 3, "n_times": 20, "hidden_size": 2, "n_windows": 2, "alignment_init": "random"}
    config = NeuralClipConfig(
        eeg_config=EegConfig(**sensors, subjects=NAMES),
        meg_config=MegConfig(**sensors, subjects=NAMES, encoder_type="linear"),
        fmri_config=FmriConfig(subjects=NAMES, n_voxels={name: i + 1 for i, name in enumerate(NAMES)}, hidden_size=2),
        projection_dim=4,
    )
    model = NeuralClipModel(config).eval()
    model.add_subject("eeg", "new.one")
    model.save_pretrained(tmp_path)
    loaded, branch = NeuralClipModel.from_pretrained(tmp_path), EegEncoder.from_pretrained(tmp_path)
    assert loaded.config.fmri_config.subjects == NAMES and branch.config.subjects == [*NAMES, "new.one"]
    for modality, encoder in model.encoders.items():
        for index, name in enumerate(encoder.config.subjects):
            weight = encoder.alignment.layers[name].weight
            assert weight is list(encoder.alignment.layers.values())[index].weight
            assert torch.equal(loaded.encoders[modality].alignment.layers[name].weight, weight)
    assert torch.equal(
        branch.alignment.layers["new.one"].weight, model.encoders["eeg"].alignment.layers["new.one"].weight
    )
    values = torch.randn(1, 3, 20)
    for index, name in enumerate(NAMES):
        expected = model.get_eeg_features(values, torch.tensor([index]))
        assert_same_outputs(loaded.for_subject(name, "eeg")(values), expected)


def test_usual_names_are_the_names_of_their_tensors(tmp_path):
    names = ["sub-01", "S 2", "jörg", "a%2Eb", "%", "weight", "3"]
    EegEncoder(EegConfig(n_chans=2, n_times=20, subjects=[*names, "sub.01"])).save_pretrained(tmp_path)
    saved = {
        name for name in load_file(tmp_path / "model.safetensors") if name.startswith("alignment") and "bias" in name
    }
    assert saved == {f"alignment.layers.{name}.bias" for name in [*names, "%sub%2E01"]}


def test_layers_are_found_by_name_alone():
    layers = SubjectLayers()
    layers["a.b"], layers["%a%2Eb"] = torch.nn.Linear(1, 1), torch.nn.Linear(1, 2)
    assert "a.b" in layers and "%a%2Eb" in layers and "a" not in layers and len(layers) == 2
    assert (layers["a.b"].out_features, layers["%a%2Eb"].out_features) == (1, 2)
    layers["a.b"] = torch.nn.Linear(1, 3)
    assert len(layers) == 2 and copy.deepcopy(layers)["a.b"].out_features == 3
    with pytest.raises(KeyError):
        layers["a"]


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        (torch.tensor([0.0, 1.0]), "torch.float32"),
        (torch.tensor([0.4, 1.9], dtype=torch.float16), "torch.float16"),
        (torch.tensor([True, False]), "torch.bool"),
        ([0, 1], "list"),
    ],
)
@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
def test_subject_ids_are_whole_numbers(modality, ids, found):
    model, batch = seeded_model(ENCODER_TYPES[0]), small_batch(modality, [0, 1])
    with pytest.raises(ValueError, match=rf"'subject_ids' must be a tensor of whole numbers .*but got .*{found}"):
        model(**batch | {"subject_ids": ids})
    for dtype in (torch.int32, torch.uint8):
        output = model(**batch | {"subject_ids": batch["subject_ids"].to(dtype)})
        assert torch.equal(output.neural_embeds, model(**batch).neural_embeds)


def test_an_average_of_nobody_is_refused():
    encoder = EegEncoder(EegConfig(n_chans=2, n_times=20))
    with pytest.raises(ValueError, match="no subject yet, so there is no average subject"):
        encoder(torch.zeros(1, 2, 20), torch.tensor([-1]))


@pytest.mark.parametrize("types", ENCODER_TYPES, ids="-".join)
@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
def test_layers_are_called_as_modules_unless_fused(types, modality):
    """Hooks see each linear layer and convolution once, but for those that are multiplied with one another first."""
    model, called = seeded_model(types), []
    for name, module in model.encoders[modality].named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    model(**small_batch(modality, [0, 2, 0]))
    layers = {
        name for name, module in model.encoders[modality].named_modules() if list(module.parameters(recurse=False))
    }
    fused = modality != "fmri" and "temporal_spatial" in types
    expected = {
        name
        for name in layers
        if isinstance(
            model.encoders[modality].get_submodule(name), torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d
        )
        and "sub-02" not in name
        and not (fused and ("alignment" in name or name.endswith("spatial")))
    }
    assert sorted(called) == sorted(expected)
