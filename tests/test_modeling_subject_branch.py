"""One subject as a plain module: the same outputs, one graph, exports, adapters and hooks."""

import copy

import pytest
import torch
from transformers import PreTrainedModel

from neural_clip import EegEncoder
from neural_clip.modeling_subject_branch import SubjectEncoder, SubjectModel
from small_models import ENCODER_TYPES, SUBJECTS, VOXELS, seeded_model, small_batch
from tolerances import assert_exported_alike, assert_same_outputs

pytestmark = pytest.mark.numerical

CASES = [
    (modality, types)
    for modality in ("eeg", "meg", "fmri")
    for types in ENCODER_TYPES
    if modality != "fmri" or "temporal_spatial" in types
]
IDS = [f"{modality}-{'-'.join(types)}" for modality, types in CASES]
EACH = pytest.mark.parametrize(("modality", "types"), CASES, ids=IDS)
DYNAMIC = ({0: torch.export.Dim("batch_size")},)


def cropped_model(types):
    """With a window to crop, samples to average, and temporal filters computed by the Fourier transform."""
    model = seeded_model(types)
    for encoder in (model.encoders["eeg"], model.encoders["meg"]):
        encoder.config.temporal_kernel_size = 25
        encoder.config.crop_tmin, encoder.config.decimation = encoder.config.tmin + 0.08, 2
    torch.manual_seed(3)
    again = type(model)(copy.deepcopy(model.config)).eval()
    with torch.no_grad():
        for name, weight in again.named_parameters():
            if "alignment" in name:
                weight.add_(torch.randn(weight.shape))
    return again


def branch_and_values(modality, types, subject="sub-02", count=3):
    """A model, one subject's module, and recordings of that subject in the form that each of them takes."""
    model = cropped_model(types)
    batch = small_batch(modality, [SUBJECTS.index(subject) if subject in SUBJECTS else 0] * count)
    values = batch[f"{modality}_values"]
    if modality == "fmri":
        values = values[:, : VOXELS[subject]]
    return model, model.for_subject(subject, modality), batch, values


@EACH
def test_the_outputs_are_those_of_the_whole_model(modality, types):
    for subject in ("sub-01", "sub-03") if modality == "fmri" else ("sub-01", "sub-03", "average"):
        model, branch, batch, values = branch_and_values(modality, types, subject)
        if subject == "average":
            batch["subject_ids"] = torch.full((3,), -1)
        expected = getattr(model, f"get_{modality}_features")(**batch)
        assert_same_outputs(branch(values), expected)
        assert_same_outputs(branch.encoder(values), model.encoders[modality](**batch).pooler_output)
        assert_same_outputs(model.encoders[modality].for_subject(subject)(values), branch.encoder(values))
        assert branch(values.half()).dtype == torch.float32
        assert copy.deepcopy(branch).half()(values).dtype == torch.float16


@EACH
def test_weights_are_its_own_and_all_of_them_learn(modality, types):
    model, branch, _, values = branch_and_values(modality, types)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    model.for_subject("sub-01", modality)
    assert torch.equal(torch.get_rng_state(), state)
    assert not branch.training and not any(isinstance(module, PreTrainedModel) for module in branch.modules())
    optimiser = torch.optim.SGD(branch.train().parameters(), lr=1.0)
    branch(values).square().sum().backward()
    assert all(weight.grad is not None for weight in branch.parameters())  # nothing is left over
    optimiser.step()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sub-02",), r"Subject 'sub-02' is known in \['eeg', 'meg', 'fmri'\]; name one of them as 'modality'"),
        (("average",), r"known in \['eeg', 'meg'\]"),
        (("sub-2",), "Allowed values are 'sub-01', 'sub-02', 'sub-03' and 'average', but got 'sub-2'.*Did you mean"),
        (("sub-2", "meg"), "and 'average', but got 'sub-2'"),
        (("average", "fmri"), "Allowed values are 'sub-01', 'sub-02' and 'sub-03', but got 'average'"),
        (("sub-02", "ecog"), "Allowed values are 'eeg', 'meg' and 'fmri', but got 'ecog'"),
    ],
)
def test_names_that_do_not_say_who_is_meant(arguments, message):
    with pytest.raises(ValueError, match=message):
        seeded_model(ENCODER_TYPES[0]).for_subject(*arguments)


def test_a_name_that_one_modality_has_is_enough():
    model = seeded_model(ENCODER_TYPES[0])
    model.add_subject("meg", "only.meg")
    assert type(model.for_subject("only.meg")) is SubjectModel
    assert type(EegEncoder(model.config.eeg_config).for_subject("average")) is SubjectEncoder


@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
def test_recordings_of_another_shape_are_refused(modality):
    _, branch, _, values = branch_and_values(modality, ENCODER_TYPES[0])
    with pytest.raises(ValueError, match=r"Recordings must have shape \(batch_size, .*but got \(3, "):
        branch(values[..., :-1])


@EACH
def test_one_graph_without_breaks(modality, types):
    _, branch, _, values = branch_and_values(modality, types)
    torch._dynamo.reset()
    compiled = torch.compile(branch, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert_same_outputs(compiled(values), branch(values))


@EACH
def test_an_exported_program_takes_a_batch_of_any_size(modality, types):
    _, branch, _, values = branch_and_values(modality, types)
    program = torch.export.export(branch, (values,), dynamic_shapes=DYNAMIC).module()
    for count in (1, 7):
        more = values[:1].repeat(count, *[1] * (values.ndim - 1)) * torch.linspace(0.5, 2, count).view(
            -1, *[1] * (values.ndim - 1)
        )
        with torch.no_grad():
            torch.testing.assert_close(program(more), branch(more), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@EACH
def test_onnx_gives_the_same(modality, types, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript, by which torch writes ONNX, is not installed")
    _, branch, _, values = branch_and_values(modality, types)
    path = tmp_path / "branch.onnx"
    torch.onnx.export(branch, (values,), dynamo=True, dynamic_shapes=DYNAMIC, verbose=False).save(path)
    session = runtime.InferenceSession(path)
    more = torch.cat([values, 2 * values[:2]])
    (found,) = session.run(None, {session.get_inputs()[0].name: more.numpy()})
    with torch.no_grad():
        assert_exported_alike(found, branch(more))


@EACH
def test_adapters_of_peft(modality, types, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    _, branch, _, values = branch_and_values(modality, types)
    start = branch(values).detach()
    config = peft.LoraConfig(target_modules="all-linear", r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(copy.deepcopy(branch), config).eval()
    adapted(values).sum().backward()
    lora = {name: weight for name, weight in adapted.named_parameters() if "lora" in name}
    n_linear = sum(isinstance(module, torch.nn.Linear) for module in branch.modules())
    assert len(lora) == 2 * n_linear and all(weight.grad is not None for weight in lora.values())
    adapted.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(branch), tmp_path).eval()
    with torch.no_grad():
        found = adapted(values)
        assert (found - start).abs().max() > 1e-4
        assert torch.equal(loaded(values), found)
        torch.testing.assert_close(loaded.merge_and_unload()(values), found, rtol=1e-4, atol=1e-5)


@EACH
def test_hooks_see_each_layer(modality, types):
    _, branch, _, values = branch_and_values(modality, types)
    called = []
    kinds = torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d
    named = {name: module for name, module in branch.named_modules() if isinstance(module, kinds)}
    for name, module in named.items():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    branch(values)
    assert sorted(called) == sorted(named)
