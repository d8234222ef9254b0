"""People of several corpora behind one shared network: each one's channels, rate and window."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from neural_clip import EegConfig, MegConfig, NeuralClipConfig, NeuralClipModel, NeuralClipProcessor
from neural_clip.closed_form_settings import ClosedFormSettings
from neural_clip.corpus_inputs import CorpusInputs, common_inputs, resampling
from neural_clip.modeling_subject_layers import AlignmentConv
from second_process import python
from tolerances import assert_same_outputs

pytestmark = pytest.mark.numerical

CORPORA = {
    "first": CorpusInputs(6, 60, 200.0, -0.1, ("Fz", "Cz", "Pz", "Oz", "O1", "O2")),
    "second": CorpusInputs(4, 25, 100.0, 0.0, ("Pz", "P3", "P4", "Oz")),
}
COMMON = common_inputs(CORPORA)
PEOPLE = ["first/sub-01", "second/sub-01", "second/sub-02"]
SMALL = {"hidden_size": 4, "temporal_kernel_size": 3, "n_windows": 4, "stft_nperseg": 8, "dropout": 0.0}


def settings(**changes):
    corpora = {name: inputs.as_dict() for name, inputs in CORPORA.items()}
    return {**COMMON.as_dict(), "corpora": corpora, "subjects": PEOPLE, **SMALL, **changes}


def model_of(modality="eeg", **changes):
    torch.manual_seed(3)
    kind = {"eeg": EegConfig, "meg": MegConfig}[modality]
    return NeuralClipModel(NeuralClipConfig(**{f"{modality}_config": kind(**settings(**changes))}, projection_dim=8))


def recordings(seed=0):
    """One of each person, zeros after what is smaller, and whose they are."""
    rng = torch.Generator().manual_seed(seed)
    values = torch.zeros(3, 6, 60)
    values[0] = torch.randn(6, 60, generator=rng)
    values[1:, :4, :25] = torch.randn(2, 4, 25, generator=rng)
    return values, torch.arange(3)


def test_places_of_one_corpus_are_not_those_of_another():
    places = [[0.0, 0.01 * number, 0.09] for number in range(6)]
    processor = NeuralClipProcessor.from_config(model_of(ch_positions=places).config)
    assert [len(group["ch_names"]) for group in processor.groups("eeg")] == [6, 4]
    with pytest.raises(ValueError, match="people of several corpora have no average subject"):
        processor.interpolation("eeg", ch_names=["Fz", "Cz", "Pz", "Oz"])


KINDS = [
    ("eeg", "temporal_spatial"), ("eeg", "linear"), ("eeg", "spectrogram_cnn"), ("meg", "temporal_cnn"),
    ("meg", "temporal_spatial"),
]  # fmt: skip


@pytest.mark.parametrize(("modality", "encoder_type"), KINDS)
def test_gradients_reach_the_alignment_layer_of_each_corpus(modality, encoder_type):
    model = model_of(modality, encoder_type=encoder_type, num_networks=2, alignment_kernel_size=1).train()
    values, subject_ids = recordings()
    targets = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    output = model(**{f"{modality}_values": values}, subject_ids=subject_ids, image_embeds=targets,
                   image_ids=torch.arange(3))  # fmt: skip
    output.loss.backward()
    layers = model.encoders[modality].alignment.layers
    for name in PEOPLE:
        assert layers[name].weight.grad.abs().sum() > 0, name
    n_chans = {name: layers[name].weight.shape[1] for name in PEOPLE}
    if encoder_type != "linear":
        assert n_chans == {"first/sub-01": 6, "second/sub-01": 4, "second/sub-02": 4}


@pytest.mark.parametrize(("modality", "encoder_type"), KINDS)
def test_a_batch_of_several_corpora_is_what_each_recording_gives_alone(modality, encoder_type):
    model = model_of(modality, encoder_type=encoder_type, num_networks=2).eval()
    values, subject_ids = recordings()
    with torch.no_grad():
        together = model.features(modality, values, subject_ids)
        for row, (name, n_chans, n_times) in enumerate(zip(PEOPLE, (6, 4, 4), (60, 25, 25), strict=True)):
            own = values[row : row + 1, :n_chans, :n_times]
            assert_same_outputs(model.features(modality, own, subject_ids[row : row + 1]), together[row : row + 1])
            assert_same_outputs(model.for_subject(name)(own), together[row : row + 1])


def test_recordings_are_cropped_and_resampled_before_the_layers():
    model = model_of(alignment_init="identity", encoder_type="spectrogram_cnn").eval()
    values, subject_ids = recordings()
    aligned = model.encoders["eeg"].align(values, subject_ids).detach()
    first = values[0].double().numpy() @ resampling(CORPORA["first"], COMMON)
    np.testing.assert_allclose(aligned[0], first, atol=1e-5)
    second = values[1, :4, :20]  # the same rate and onset: a crop, each channel where its name is
    expected = torch.stack([second[1], second[2], second[0], second[3], *torch.zeros(2, 20)])
    torch.testing.assert_close(aligned[1], expected)


def test_crop_and_decimation_follow_the_window_in_common():
    model = model_of(crop_tmin=0.05, decimation=2, encoder_type="linear").eval()
    values, subject_ids = recordings()
    window, _ = model.encoders["eeg"].window(values, subject_ids)
    expected = (values[0].double().numpy() @ resampling(CORPORA["first"], COMMON))[:, 5:19]
    np.testing.assert_allclose(window[0], expected.reshape(6, 7, 2).mean(axis=2), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values, ids: (values, ids[[1, 0, 2]]), "'eeg_values' of corpus 'second' must hold 4 sensors and 25"),
        (lambda values, ids: (values[:, :4, :25], ids), "of corpus 'first' must hold 6 sensors and 60 samples"),
        (lambda values, ids: (values[1:, :, :20], ids[1:]), "of corpus 'second' must hold 4 sensors and 25 samples"),
        (lambda values, ids: (values, ids - 1), r"must lie between 0 and 2 .*but got \[-1, 0, 1\]"),
        (lambda values, ids: (values[0], ids), "must have shape"),
    ],
)
def test_recordings_of_another_corpus_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        model_of().get_eeg_features(*change(*recordings()))


def test_nobody_is_the_mean_of_people_of_several_corpora():
    model = model_of()
    with pytest.raises(ValueError, match="Allowed values are"):
        model.for_subject("average")
    with pytest.raises(ValueError, match="no mean layer"):
        model.add_subject("eeg", "first/sub-09")
    with pytest.raises(ValueError, match="'subject_dropout'"):
        EegConfig(**settings(subject_dropout=0.1))
    for apart in ({"shared": True}, {"mixed": True}):
        with pytest.raises(ValueError, match="maps of subjects or corpora"):
            EegConfig(**settings(closed_form={"own": [], **apart}))
    for corpora in (["third"], ["first", "first"], "first"):
        with pytest.raises(ValueError, match=r"closed_form.corpora.*corpora of \['first', 'second'\]"):
            EegConfig(**settings(closed_form={"own": [], "corpora": corpora}))
    with pytest.raises(ValueError, match=r"closed_form.corpora.*none where the model has one corpus"):
        EegConfig(**settings(corpora=None, closed_form={"own": [], "corpora": ["first"]}))


def test_the_closed_form_of_each_person_reads_the_window_in_common():
    model = model_of(closed_form={"own": PEOPLE[:2], "first_sample": 2, "decimation": 3}).eval()
    closed = model.closed_forms["eeg"]
    for name in PEOPLE[:2]:
        for parameter in closed.layers[name].parameters():
            torch.nn.init.normal_(parameter)
        closed.layers[name].parts.data.copy_(torch.tensor([0.0, 1.0]))
    values, subject_ids = recordings()
    with torch.no_grad():
        found = model.get_eeg_features(values, subject_ids)
    for row, name in enumerate(PEOPLE[:2]):
        inputs, layer = CORPORA[name.split("/")[0]], closed.layers[name]
        own = values[row, : inputs.n_chans, : inputs.n_times].double().numpy() @ resampling(inputs, COMMON)
        own = own[:, 2:].reshape(inputs.n_chans, 6, 3).mean(axis=2).ravel()
        expected = layer.weight.detach().double().numpy() @ own + layer.bias.detach().double().numpy()
        np.testing.assert_allclose(found[row], expected / np.linalg.norm(expected), atol=1e-5)
        own = values[row : row + 1, : inputs.n_chans, : inputs.n_times]
        assert_same_outputs(model.for_subject(name)(own), found[row : row + 1])
    network = model.each_features("eeg", values, subject_ids)["network"]
    assert torch.equal(found[2], network[2])  # who has no map is left to the network


SHARED = {"own": [PEOPLE[0]], "corpora": ["second"], "mixed": True, "first_sample": 2, "decimation": 3}


def model_that_shares(dtype="float32"):
    """One person of the first corpus with a map, and two of the second who share one behind channels of their own."""
    model = model_of(closed_form={**SHARED, "dtype": dtype}).eval()
    torch.manual_seed(5)
    for parameter in model.closed_forms.parameters():
        parameter.data = torch.randn(parameter.shape).half().float()
    return model


def test_people_of_a_corpus_share_a_map():
    model = model_that_shares()
    closed, (values, subject_ids) = model.closed_forms["eeg"], recordings()
    held = {name: value.detach().double().numpy() for name, value in closed.named_parameters()}
    assert [name for name in held if name.endswith("weight")] == ["shared.second.weight", "layers.first/sub-01.weight"]
    assert [name for name in held if name.endswith("mixing")] == [f"layers.{name}.mixing" for name in PEOPLE[1:]]
    with torch.no_grad():
        found = model.each_features("eeg", values, subject_ids)
    for row, name in enumerate(PEOPLE):
        inputs = CORPORA[name.split("/")[0]]
        own = values[row, : inputs.n_chans, : inputs.n_times].double().numpy() @ resampling(inputs, COMMON)
        own = own[:, 2:].reshape(inputs.n_chans, 6, 3).mean(axis=2)
        if row:
            own = held[f"layers.{name}.mixing"] @ own
        weight = held["shared.second.weight" if row else "layers.first/sub-01.weight"]
        expected = weight @ own.ravel() + held[f"layers.{name}.bias"]
        np.testing.assert_allclose(found["closed form"][row], expected, atol=1e-4)
        part = values[row : row + 1, : inputs.n_chans, : inputs.n_times]
        assert_same_outputs(model.for_subject(name)(part), found["blend"][row : row + 1])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_map_of_a_corpus_is_stored_once_in_its_precision(tmp_path, dtype):
    model = model_that_shares(dtype)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["closed_forms.eeg.shared.second.weight"].dtype == getattr(torch, dtype)
    assert not any(name in stored for name in (f"closed_forms.eeg.layers.{each}.weight" for each in PEOPLE[1:]))
    again = NeuralClipModel.from_pretrained(tmp_path)
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
    assert_same_outputs(again.get_eeg_features(*recordings()), model.get_eeg_features(*recordings()))


def test_one_corpus_is_stored_as_before():
    plain = {name: value for name, value in settings().items() if name != "corpora"} | {"subjects": ["sub-01"]}
    config = EegConfig(**plain)
    assert "corpora" not in config.to_dict() and "corpora" not in json.loads(config.to_json_string())
    assert "corpora" not in ClosedFormSettings(["sub-01"]).as_dict()
    assert "corpora" not in NeuralClipConfig(eeg_config=config).to_dict()["eeg_config"]
    torch.manual_seed(0)
    layer = AlignmentConv(EegConfig(**plain | {"alignment_init": "random"}))
    torch.manual_seed(0)
    assert torch.equal(layer.weight, torch.nn.Conv1d(6, 6, 1).weight)
    group = NeuralClipProcessor.from_config(NeuralClipConfig(eeg_config=config)).recordings["eeg"]
    assert [set(each) for each in group] == [{"ch_names", "n_chans", "n_times", "sfreq", "tmin", "subjects"}]


def test_a_model_of_several_corpora_is_saved_and_loaded(tmp_path):
    model = model_of(closed_form={"own": PEOPLE[:1]}).eval()
    model.save_pretrained(tmp_path)
    again = NeuralClipModel.from_pretrained(tmp_path)
    assert again.config.eeg_config.corpora == model.config.eeg_config.corpora
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
    values, subject_ids = recordings()
    assert_same_outputs(again.get_eeg_features(values, subject_ids), model.get_eeg_features(values, subject_ids))


def test_the_processor_knows_what_each_corpus_looks_like(tmp_path):
    model = model_of()
    NeuralClipProcessor.from_config(model.config).save_pretrained(tmp_path)
    processor = NeuralClipProcessor.from_pretrained(tmp_path)
    values = recordings()[0].numpy()
    assert [group["corpus"] for group in processor.recordings["eeg"]] == ["first", "second"]
    found = processor(eeg=values[1:, :4, :25], subject=PEOPLE[1:])
    assert found["eeg_values"].shape == (2, 4, 25) and found["subject_ids"].tolist() == [1, 2]
    rows = [{"eeg": values[1, :4, :25], "subject": "sub-02"}]  # a row does not name its corpus
    assert processor(eeg=rows, subject="second/sub-02")["subject_ids"].tolist() == [2]
    for given, subject, message in (
        (values[:1], "second/sub-01", r"must have shape \(batch_size, 4, 25\)"),
        (values[1:2, :4, :25], "first/sub-01", r"must have shape \(batch_size, 6, 60\)"),
        (values[:1], "sub-01", "Allowed values are"),
        (values[:1], "average", "no average subject"),
        (values[:2], PEOPLE[:2], "give each group by itself"),
        (rows, "second/sub-01", "but the rows are of"),
    ):
        with pytest.raises(ValueError, match=message):
            processor(eeg=given, subject=subject)
    with pytest.raises(ValueError, match="'ch_names' must be the model's 4 channels"):
        processor(eeg=values[1:2, :4, :25], subject="second/sub-01", ch_names=["Pz", "P3", "Oz", "P4"])
    with pytest.raises(ValueError, match=r"'sfreq' must be 100\.0 Hz"):
        processor(eeg=values[1:2, :4, :25], subject="second/sub-01", sfreq=200.0)


@pytest.mark.slow
def test_a_model_of_several_corpora_works_where_the_package_is_not_installed(tmp_path):
    model = model_that_shares("float16")
    model.save_pretrained(tmp_path)
    NeuralClipProcessor.from_config(model.config).save_pretrained(tmp_path)
    values, subject_ids = recordings()
    save_file({"values": values, "own": values[1:2, :4, :25].contiguous()}, tmp_path / "in.safetensors")
    code = (
        "import sys\nsys.modules['neural_clip'] = None\n"
        "from safetensors.torch import load_file, save_file\nimport torch\n"
        "from transformers import AutoModel, AutoProcessor\n"
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "given = load_file(sys.argv[1] + '/in.safetensors')\n"
        "inputs = processor(eeg=given['own'], subject='second/sub-01')\n"
        "out = {'all': model.get_eeg_features(given['values'], torch.arange(3)),\n"
        "       'one': model.get_eeg_features(**inputs),\n"
        "       'subject': model.for_subject('second/sub-01')(given['own'])}\n"
        "save_file({k: v.detach().contiguous() for k, v in out.items()}, sys.argv[1] + '/out.safetensors')\n"
    )
    result = python("-c", code, tmp_path)
    assert result.returncode == 0, result.stderr
    found, expected = load_file(tmp_path / "out.safetensors"), model.get_eeg_features(values, subject_ids).detach()
    assert_same_outputs(found["all"], expected)
    assert_same_outputs(found["one"], expected[1:2])
    assert_same_outputs(found["subject"], expected[1:2])
