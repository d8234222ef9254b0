"""The model: shapes, alignment layers, loading, and code that travels with the weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoModel, AutoProcessor, CLIPVisionConfig

from neural_clip import (
    EegConfig,
    EegEncoder,
    FmriConfig,
    FmriEncoder,
    MegConfig,
    MegEncoder,
    NeuralClipConfig,
    NeuralClipModel,
    NeuralClipProcessor,
)
from neural_clip.modeling_eeg import stft_magnitude
from neural_clip.modeling_temporal_spatial import TemporalFilter
from second_process import python
from small_models import ENCODER_TYPES, SUBJECTS, TOWER, VOXELS, seeded_model, small_batch, small_config
from tolerances import assert_same_outputs

pytestmark = pytest.mark.numerical


@pytest.fixture(params=ENCODER_TYPES, ids="-".join)
def model(request):
    return seeded_model(request.param)


@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
def test_mixed_batch_equals_one_recording_at_a_time(model, modality):
    batch = small_batch(modality, [2, 0, 1, 0, 2])
    mixed = model(**batch).neural_embeds
    for row in range(5):
        alone = model(**{name: values[row : row + 1] for name, values in batch.items()}).neural_embeds
        torch.testing.assert_close(mixed[row : row + 1], alone, rtol=1e-4, atol=1e-5)
    swapped = (
        model(**(batch | {"subject_ids": torch.tensor([1, 1, 1, 1, 1])})).neural_embeds if modality != "fmri" else None
    )
    if swapped is not None:
        assert (swapped[0] - mixed[0]).abs().max() > 1e-3  # another subject's layer is another map
    torch.testing.assert_close(mixed.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
def test_alignment_layers_learn_and_are_saved(model, modality, tmp_path):
    model.train()
    batch = small_batch(modality, [0, 0, 1, 1])
    images = torch.randn(4, 12, generator=torch.Generator().manual_seed(1))
    output = model(**batch, image_embeds=images, image_ids=torch.arange(4))
    output.loss.backward()
    layers = model.encoders[modality].alignment.layers
    for name in ("sub-01", "sub-02"):
        assert layers[name].weight.grad.abs().max() > 1e-8
    assert layers["sub-03"].weight.grad is None  # nobody of that name in the batch
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        for name in SUBJECTS:
            stored = file.get_tensor(f"encoders.{modality}.alignment.layers.{name}.weight")
            assert torch.equal(stored, layers[name].weight)


@pytest.mark.parametrize("encoder_types", ENCODER_TYPES, ids="-".join)
def test_freezing_alignment_freezes_it_and_nothing_else(encoder_types, tmp_path):
    models = []
    for freeze in (False, True):
        torch.manual_seed(0)
        models.append(NeuralClipModel(small_config(encoder_types, freeze_alignment=freeze)))
    free, frozen = models
    assert all(torch.equal(value, frozen.state_dict()[name]) for name, value in free.state_dict().items())
    assert all(parameter.requires_grad for parameter in free.parameters())
    frozen.save_pretrained(tmp_path)
    loaded = NeuralClipModel.from_pretrained(tmp_path)
    assert loaded.config.freeze_alignment is True
    layers = [f"{modality}.alignment.layers.{name}" for modality in ("eeg", "meg", "fmri") for name in SUBJECTS]
    expected = {f"encoders.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    for model in (frozen, loaded):
        assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == expected
        loss = model.train()(
            **small_batch("eeg", [0, 1]), image_embeds=torch.randn(2, 12), image_ids=torch.arange(2)
        ).loss
        loss.backward()  # gradients pass by the frozen layers
        assert next(model.projections["eeg"].parameters()).grad.abs().max() > 0


@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
def test_a_new_subject_leaves_the_others_alone(model, modality, tmp_path):
    batch = small_batch(modality, [2, 0, 1, 0])
    others = {name: model(**small_batch(name, [0, 1, 2])).neural_embeds for name in ("eeg", "meg", "fmri")}
    before = model(**batch).neural_embeds
    average = None
    if modality != "fmri":
        average = model(**(batch | {"subject_ids": torch.full((4,), -1)})).neural_embeds
    model.add_subject(modality, "sub-04", 40 if modality == "fmri" else None)
    assert_same_outputs(model(**batch).neural_embeds, before)
    if modality == "fmri":
        values = torch.randn(4, 40, generator=torch.Generator().manual_seed(3))
        model(fmri_values=values, subject_ids=torch.full((4,), 3))
        with pytest.raises(ValueError, match="of subject 'sub-04' must hold 40 voxels"):
            model(fmri_values=values[:, :39], subject_ids=torch.full((4,), 3))
    else:
        new = model(**(batch | {"subject_ids": torch.full((4,), 3)})).neural_embeds
        torch.testing.assert_close(new, average)
        again = model(**(batch | {"subject_ids": torch.full((4,), -1)})).neural_embeds
        torch.testing.assert_close(again, average)  # the mean with a mean added is the same
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    loaded = NeuralClipModel.from_pretrained(tmp_path)
    assert getattr(loaded.config, f"{modality}_config").subjects == [*SUBJECTS, "sub-04"]
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    for name, embeds in others.items():
        assert_same_outputs(loaded(**small_batch(name, [0, 1, 2])).neural_embeds, embeds)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("eeg", "sub-02"), "knows eeg subject 'sub-02' already"),
        (("fmri", "sub-02", 5), "knows fmri subject 'sub-02' already"),
        (("eeg", "average"), "'average' stands for the mean"),
        (("eeg", "sub-04", 5), "'n_voxels' parameter.*None for the others, but got 5 for 'eeg'"),
        (("fmri", "sub-04"), "'n_voxels' parameter.*above 0 for 'fmri'.*got None"),
        (("fmri", "sub-04", 0), "'n_voxels' parameter.*got 0"),
        (("ecog", "sub-04"), "has no 'ecog' encoder"),
    ],
)
def test_new_subjects_that_are_refused(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.add_subject(*arguments)
    assert all(getattr(model.config, f"{name}_config").subjects == SUBJECTS for name in ("eeg", "meg", "fmri"))


def test_nobody_can_be_called_average():
    with pytest.raises(ValueError, match="no subject can have this name"):
        EegConfig(subjects=["average"])


@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
def test_identity_alignment_passes_recordings_through(modality):
    model = NeuralClipModel(small_config()).eval()
    if modality == "fmri":
        assert model.encoders["fmri"].alignment.layers["sub-02"].in_features == 31
        return
    batch = small_batch(modality, [0, 1, 2])
    aligned = model.encoders[modality].align(batch[f"{modality}_values"], batch["subject_ids"])
    assert_same_outputs(aligned, batch[f"{modality}_values"])


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_filters_multiplied_with_alignment_layers_are_filters_behind_them(model, modality):
    """The encoder's output and gradients against its parts one behind the other, the average subject among them."""
    encoder, found = model.encoders[modality].train(), []
    values = small_batch(modality, [0, 1, 2, 0, 1])[f"{modality}_values"]
    ids = torch.tensor([2, -1, 0, 2, -1])
    for whole in (True, False):
        torch.manual_seed(3)  # dropout
        output = encoder(values, ids).pooler_output if whole else encoder.network(encoder.align(values, ids))
        encoder.zero_grad()
        (output * torch.linspace(-1, 1, output.shape[1])).sum().backward()
        found.append([output, *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 2
    for fused, plain in zip(*found, strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("modality", ["eeg", "meg"])
def test_average_subject_has_the_mean_of_all_layers(model, modality):
    """Layers are affine: the output of the mean layer is the mean of the outputs of the layers."""
    encoder = model.encoders[modality]
    values = small_batch(modality, [0])[f"{modality}_values"]
    each = encoder.align(values.expand(3, -1, -1), torch.tensor([0, 1, 2]))
    mixed = encoder.align(values.expand(4, -1, -1), torch.tensor([2, -1, 0, -1]))
    torch.testing.assert_close(mixed[[1, 3]], each.mean(dim=0, keepdim=True).expand_as(mixed[[1, 3]]))
    assert_same_outputs(mixed[[0, 2]], each[[2, 0]])
    mixed[1].square().sum().backward()
    grads = [layer.weight.grad for layer in encoder.alignment.layers.values()]
    assert grads[0].abs().max() > 0
    for grad in grads[1:]:
        assert_same_outputs(grad, grads[0])


@pytest.mark.parametrize(("subject_dropout", "low", "high"), [(0.0, 0, 0), (0.3, 0.2, 0.4), (1.0, 1, 1)])
def test_subject_dropout_gives_recordings_to_the_average_subject(subject_dropout, low, high):
    config = EegConfig(n_chans=2, n_times=8, subjects=SUBJECTS[:2], hidden_size=2, subject_dropout=subject_dropout)
    encoder = EegEncoder(config)
    with torch.no_grad():
        for bias, name in ((1.0, "sub-01"), (3.0, "sub-02")):
            encoder.alignment.layers[name].bias.fill_(bias)
    values, ids = torch.zeros(400, 2, 8), torch.arange(400) % 2
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with torch.no_grad():
        used = encoder.train().align(values, ids)[:, 0, 0]
    assert torch.equal(torch.get_rng_state(), state) == (subject_dropout == 0)  # older recipes draw what they drew
    for subject, own in ((0, 1.0), (1, 3.0)):
        assert set(used[ids == subject].tolist()) <= {own, 2.0}
        assert low <= float((used[ids == subject] == 2.0).float().mean()) <= high
    assert set(encoder.eval().align(values, ids)[:, 0, 0].tolist()) == {1.0, 3.0}


@pytest.mark.parametrize(("time_shift", "lags"), [(0.0, {0}), (0.016, {-2, -1, 0, 1, 2})])  # 120 Hz
def test_recordings_are_shifted_in_training_alone(time_shift, lags):
    """Whole recordings move before the crop, so that what was before it comes in; only at the end a sample repeats."""
    shape = {"n_chans": 3, "n_times": 20, "sfreq": 120.0, "tmin": -5 / 120, "crop_tmin": 0.0, "subjects": SUBJECTS}
    encoder = MegEncoder(MegConfig(hidden_size=2, time_shift=time_shift, alignment_kernel_size=1, **shape))
    values, ids = torch.randn(60, 3, 20, generator=torch.Generator().manual_seed(1)), torch.zeros(60, dtype=int)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with torch.no_grad():
        shifted = encoder.train().align(values, ids)
        assert torch.equal(torch.get_rng_state(), state) == (time_shift == 0)  # older recipes draw what they drew
        torch.testing.assert_close(encoder.eval().align(values, ids), values[:, :, 5:])
    found = set()
    for before, after in zip(values, shifted, strict=True):
        matches = [
            lag
            for lag in range(-4, 5)
            if torch.allclose(after, before[:, [min(max(t + lag, 0), 19) for t in range(5, 20)]])
        ]
        assert len(matches) == 1
        found.update(matches)
    assert found == lags


def test_random_alignment_differs_between_subjects():
    config = EegConfig(n_chans=5, n_times=50, subjects=SUBJECTS, alignment_init="random", hidden_size=4)
    layers = EegEncoder(config).alignment.layers
    assert (layers["sub-01"].weight - layers["sub-02"].weight).abs().max() > 0.01


@pytest.mark.parametrize("encoder_class", [EegEncoder, MegEncoder])
def test_linear_encoder_multiplies_the_whole_recording(encoder_class):
    config = encoder_class.config_class(n_chans=5, n_times=9, subjects=SUBJECTS, encoder_type="linear", hidden_size=4)
    encoder = encoder_class(config).eval()
    values, ids = torch.randn(3, 5, 9, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 2])
    output = encoder(values, ids)
    for row, subject in enumerate(ids.tolist()):
        layer = encoder.alignment.layers[SUBJECTS[subject]]
        expected = torch.einsum("oct,ct->o", layer.weight.reshape(4, 5, 9), values[row]) + layer.bias
        torch.testing.assert_close(output.pooler_output[row], expected)
    assert_same_outputs(encoder.align(values, ids), output.pooler_output)
    assert {name.split(".")[0] for name, _ in encoder.named_parameters()} == {"alignment"}


SENSOR_TYPES = [(EegEncoder, name) for name in EegEncoder.networks if name != "braindecode"] + [
    (MegEncoder, name) for name in MegEncoder.networks if name != "braindecode"
]


@pytest.mark.parametrize(("encoder_class", "encoder_type"), SENSOR_TYPES)
def test_crop_and_decimation_are_those_of_the_recording(encoder_class, encoder_type):
    """Cropping and averaging in the encoder equals an encoder without them on a recording treated beforehand."""
    shared = {"n_chans": 5, "subjects": SUBJECTS, "encoder_type": encoder_type, "hidden_size": 4, "stft_nperseg": 8}
    shared |= {"temporal_kernel_size": 5, "n_windows": 4, "alignment_kernel_size": 3, "alignment_init": "random"}
    torch.manual_seed(0)
    inside = encoder_class(
        encoder_class.config_class(n_times=90, sfreq=120.0, tmin=-0.25, crop_tmin=0.0, decimation=2, **shared)
    ).eval()
    outside = encoder_class(encoder_class.config_class(n_times=30, sfreq=60.0, tmin=0.0, **shared)).eval()
    outside.load_state_dict(inside.state_dict())
    values, ids = torch.randn(6, 5, 90), torch.tensor([0, 1, 2, 0, 1, 2])
    treated = values[:, :, 30:].reshape(6, 5, 30, 2).mean(3)
    torch.testing.assert_close(inside(values, ids).pooler_output, outside(treated, ids).pooler_output)


@pytest.mark.parametrize(
    ("crop_tmin", "tmin", "sfreq", "first"),
    [(None, -0.5, 120.0, 0), (0.0, -0.5, 120.0, 60), (0.001, -0.5, 120.0, 61), (-1.0, -0.5, 120.0, 0),
     (0.1, -0.1, 1000.0, 200), (0.0, 0.04, 1000.0, 0), (0.3, -0.1, 250.0, 100)],
)  # fmt: skip
def test_crop_keeps_samples_from_its_time_on(crop_tmin, tmin, sfreq, first):
    config = EegConfig(n_times=400, tmin=tmin, sfreq=sfreq, crop_tmin=crop_tmin)
    assert config.first_sample == first
    times = tmin + np.arange(400) / sfreq
    if crop_tmin is not None:  # a sample at the time itself, up to rounding, is kept
        assert (times[first:] > crop_tmin - 1e-6).all() and (times[:first] < crop_tmin).all()


def test_fine_windows_and_readout_against_loops():
    """Features and hidden layer of the temporal-spatial network, computed one window and one unit at a time."""
    config = EegConfig(n_chans=3, n_times=24, subjects=["a"], hidden_size=2, temporal_kernel_size=3, n_windows=2,
                       n_fine_windows=6, readout_size=5)  # fmt: skip
    torch.manual_seed(0)
    network = EegEncoder(config).eval().network
    values = torch.randn(4, 3, 24)
    filtered = network.norm(network.temporal(network.spatial(values)))
    long = torch.stack([filtered[:, :, 12 * i : 12 * i + 12].mean(2) for i in range(2)], dim=2).flatten(1)
    power = torch.stack([filtered[:, :, 12 * i : 12 * i + 12].square().mean(2) for i in range(2)], dim=2).flatten(1)
    fine = torch.stack([filtered[:, :, 4 * i : 4 * i + 4].mean(2) for i in range(6)], dim=2).flatten(1) / 3**0.5
    features = torch.cat([long, network.power_norm(torch.log(power + 1e-4)), fine], dim=1)
    linear = network.readout[1].network[0]
    hidden = torch.nn.functional.gelu(features @ linear.weight.T + linear.bias)
    torch.testing.assert_close(network(values), torch.cat([features, hidden], dim=1))
    assert network.output_size == 2 * (2 + 2 + 6) + 5


def test_linear_path_shows_the_projection_both():
    settings = {"subjects": SUBJECTS, "n_voxels": VOXELS, "alignment_size": 8, "hidden_size": 6}
    encoder = FmriEncoder(FmriConfig(linear_path=True, **settings)).eval()
    plain = FmriEncoder(FmriConfig(**settings)).eval()
    plain.load_state_dict(dict(zip(plain.state_dict(), encoder.state_dict().values(), strict=True)))
    batch = small_batch("fmri", [0, 1, 2])
    output = encoder(**batch)
    assert encoder.output_size == 14
    torch.testing.assert_close(output.pooler_output[:, :8], encoder.align(*batch.values()))
    torch.testing.assert_close(output.pooler_output[:, 8:], plain(**batch).pooler_output)
    without = FmriEncoder(FmriConfig(linear_path=True, num_hidden_layers=0, **settings))
    assert without.output_size == 8  # there is nothing beside it


@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
@pytest.mark.parametrize("encoder_types", [*ENCODER_TYPES[:2]], ids="-".join)
def test_networks_in_parallel_are_models_of_one_network(modality, encoder_types):
    """Each of three networks, taken out with its projection, is a model by itself; the embedding is their mean."""
    torch.manual_seed(0)
    model = NeuralClipModel(small_config((*encoder_types, "in parallel"))).eval()
    batch, images = small_batch(modality, [2, 0, 1, 0]), torch.randn(4, 12)
    inputs = batch | {"image_embeds": images, "image_ids": torch.tensor([3, 4, 3, 5])}
    alone = []
    for index in range(3):
        single, weights = NeuralClipModel(small_config(encoder_types)).eval(), {}
        for name, value in model.state_dict().items():
            if ".network." in name:
                if f".network.{index}." in name:
                    weights[name.replace(f".network.{index}.", ".network.")] = value
            elif name.startswith("projections."):
                before, number, kind = name.rsplit(".", 2)
                weights |= {f"{before}.{kind}": value} if int(number) == index else {}
            elif ".alignment." in name:  # a part of the layer for each network
                weights[name] = value.chunk(3)[index]
            else:
                weights[name] = value
        single.load_state_dict(weights)
        alone.append(single(**inputs))
    assert (alone[0].neural_embeds - alone[1].neural_embeds).abs().max() > 0.05  # they start differently
    output = model(**inputs)
    mean = sum(part.neural_embeds for part in alone) / 3
    torch.testing.assert_close(output.neural_embeds, normalize(mean, dim=1))
    torch.testing.assert_close(getattr(model, f"get_{modality}_features")(**batch), mean)
    assert output.loss.item() == pytest.approx(sum(part.loss.item() for part in alone) / 3, rel=1e-5)


@pytest.mark.parametrize(("n_times", "nperseg"), [(440, 40), (100, 20), (181, 40), (33, 8)])
def test_stft_equals_scipy(n_times, nperseg):
    values = np.random.default_rng(0).standard_normal((2, 3, n_times))
    expected = np.abs(scipy.signal.stft(values, 1000, nperseg=nperseg)[2])
    got = stft_magnitude(torch.from_numpy(values), nperseg)
    if (n_times, nperseg) == (440, 40):
        assert got.shape == (2, 3, 21, 23)  # the shape of the paper's spectrograms, for 3 sensors
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def test_paper_networks_have_the_widths_of_the_paper():
    model = NeuralClipModel(small_config(("spectrogram_cnn", "temporal_cnn")))
    eeg = [m for m in model.encoders["eeg"].network.modules() if isinstance(m, torch.nn.Conv2d)]
    meg = [m for m in model.encoders["meg"].network.modules() if isinstance(m, torch.nn.Conv1d)]
    assert [(m.out_channels // 4, m.stride[0], m.kernel_size[0]) for m in eeg] == [
        (1, 1, 3), (1, 1, 3), (2, 2, 3), (2, 1, 3), (2, 2, 3), (2, 2, 3),
    ]  # fmt: skip
    assert [(m.out_channels // 4, m.stride[0], m.kernel_size[0]) for m in meg] == [
        (1, 3, 11), (1, 2, 7), (2, 2, 5), (2, 2, 3), (2, 2, 3), (2, 2, 3),
    ]  # fmt: skip


def test_power_branch_sees_what_averaging_destroys():
    """Oscillations of random phase and varying strength: zero mean, but the network's features follow the strength."""
    torch.manual_seed(0)
    encoder = EegEncoder(EegConfig(n_chans=2, n_times=200, sfreq=200.0, subjects=["sub-01"], hidden_size=8)).eval()
    rng = np.random.default_rng(0)
    strength = np.repeat([0.2, 2.0], 50)
    phase = rng.uniform(0, 2 * np.pi, 100)
    wave = strength[:, None, None] * np.sin(2 * np.pi * 20 * np.arange(200) / 200 + phase[:, None, None])
    values = torch.from_numpy(np.repeat(wave, 2, axis=1).astype(np.float32))
    features = encoder(values, torch.zeros(100, dtype=torch.long)).pooler_output.detach().numpy()
    separation = np.abs(features[:50].mean(0) - features[50:].mean(0)) / (features.std(0) + 1e-6)
    half = features.shape[1] // 2
    assert separation[:half].max() < 1.0 < 1.5 < separation[half:].max()


def test_loss_is_the_loss_of_losses(model):
    from neural_clip.losses import clip_loss

    batch = small_batch("meg", [0, 1, 2, 0])
    images = torch.randn(4, 12, generator=torch.Generator().manual_seed(3))
    ids = torch.tensor([3, 4, 3, 5])
    output = model(**batch, image_embeds=images, image_ids=ids)
    parts = normalize(model.encode("meg", batch["meg_values"], batch["subject_ids"]), dim=2)
    losses = [clip_loss(part, normalize(images, dim=1), model.logit_scale, ids) for part in parts]
    assert output.loss.item() == pytest.approx(sum(losses).item() / len(losses), abs=1e-6)
    torch.testing.assert_close(output.logits_per_image, output.logits_per_neural.T)
    torch.testing.assert_close(output.neural_embeds, normalize(model.get_meg_features(**batch), dim=1))


def test_regression_brings_normalised_embeddings_together(model, monkeypatch):
    batch = small_batch("meg", [0, 1, 2, 0])
    images = 7 * torch.randn(4, 12, generator=torch.Generator().manual_seed(3))
    inputs = batch | {"image_embeds": images, "image_ids": torch.tensor([3, 4, 3, 5])}
    contrastive = model(**inputs)
    monkeypatch.setattr(model.config, "objective", "mse")
    output = model(**inputs)
    parts = model.encode("meg", batch["meg_values"], batch["subject_ids"])
    cosines = torch.nn.functional.cosine_similarity(parts, images[None], dim=2)
    assert output.loss.item() == pytest.approx(2 - 2 * cosines.mean().item(), rel=1e-5)
    assert model(**(inputs | {"image_ids": None})).loss is None
    torch.testing.assert_close(output.logits_per_neural, contrastive.logits_per_neural)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "Give exactly one of"),
        ({"eeg_values": torch.zeros(1, 5, 100), "meg_values": torch.zeros(1, 5, 90)}, "Give exactly one of"),
        (
            {"eeg_values": torch.zeros(1, 5, 99), "subject_ids": torch.tensor([0])},
            r"'eeg_values' must have shape .*5, 100",
        ),
        (
            {"eeg_values": torch.zeros(1, 5, 100), "subject_ids": torch.tensor([3])},
            "'subject_ids' must lie between 0 and 2",
        ),
        ({"eeg_values": torch.zeros(1, 5, 100), "subject_ids": torch.tensor([-2])}, r"or be -1 \(the average subject"),
        ({"fmri_values": torch.zeros(1, 31), "subject_ids": torch.tensor([-1])}, "no average subject for fMRI"),
        ({"eeg_values": torch.zeros(1, 5, 100)}, "'subject_ids' is missing"),
        ({"fmri_values": torch.zeros(1, 19), "subject_ids": torch.tensor([0])}, "must hold 20 voxels"),
        ({"fmri_values": torch.ones(1, 31), "subject_ids": torch.tensor([0])}, "must hold 20 voxels"),
        (
            {"meg_values": torch.zeros(1, 5, 90), "subject_ids": torch.tensor([0]), "image_embeds": torch.zeros(2, 5)},
            r"'image_embeds' must have shape \(n_images, 12\)",
        ),
    ],
)
def test_bad_input_is_named(inputs, message):
    model = NeuralClipModel(small_config()).eval()
    with pytest.raises(ValueError, match=message):
        model(**inputs)


def test_modality_that_is_absent_is_named():
    config = small_config()
    config.meg_config = None
    model = NeuralClipModel(config)
    assert list(model.encoders) == ["eeg", "fmri"]
    with pytest.raises(ValueError, match="This model has no 'meg' encoder"):
        model.get_meg_features(torch.zeros(1, 5, 90), torch.tensor([0]))
    with pytest.raises(ValueError, match="holds no encoder"):
        NeuralClipModel(NeuralClipConfig())


@pytest.mark.slow
def test_another_process_gives_the_same_outputs(tmp_path):
    batch, models = small_batch("eeg", [0, 1, 2]), {"-".join(types): seeded_model(types) for types in ENCODER_TYPES}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
    save_file(batch, tmp_path / "batch.safetensors")
    code = (
        "import sys\nfrom safetensors.torch import load_file, save_file\nfrom neural_clip import NeuralClipModel\n"
        "folder, *names = sys.argv[1:]\n"
        "models = {name: NeuralClipModel.from_pretrained(folder + '/' + name) for name in names}\n"
        "batch = load_file(folder + '/batch.safetensors')\n"
        "out = {name: model(**batch).neural_embeds.detach().contiguous() for name, model in models.items()}\n"
        "save_file(out, folder + '/out.safetensors')\n"
    )
    python("-c", code, tmp_path, *models)
    found = load_file(tmp_path / "out.safetensors")
    for name, model in models.items():
        assert_same_outputs(found[name], model(**batch).neural_embeds)


@pytest.mark.slow
def test_checkpoint_works_where_the_package_is_not_installed(tmp_path):
    config = small_config(include_vision_tower=True, vision_config=CLIPVisionConfig(**TOWER))
    model = NeuralClipModel(config).eval()
    model.save_pretrained(tmp_path)
    NeuralClipProcessor.from_config(config).save_pretrained(tmp_path)
    code = (
        "import sys\nsys.modules['neural_clip'] = None\nimport torch\n"
        "from transformers import AutoModel, AutoProcessor\n"
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "inputs = processor(eeg=torch.ones(2, 5, 100), subject='sub-02')\n"
        "print(model.get_eeg_features(**inputs).tolist())\n"
        "print(tuple(model.get_image_features(torch.zeros(1, 3, 16, 16)).shape))\n"
    )
    result = python("-c", code, tmp_path)
    features, shape = result.stdout.splitlines()
    expected = model.get_eeg_features(torch.ones(2, 5, 100), torch.tensor([1, 1]))
    assert_same_outputs(torch.tensor(json.loads(features)), expected)
    assert shape == "(1, 12)"


def test_auto_classes(model, tmp_path):
    model.save_pretrained(tmp_path)
    NeuralClipProcessor.from_config(model.config).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is NeuralClipConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is NeuralClipModel
    assert type(AutoProcessor.from_pretrained(tmp_path)) is NeuralClipProcessor
    for encoder_class, name in ((EegEncoder, "eeg"), (MegEncoder, "meg"), (FmriEncoder, "fmri")):
        model.encoders[name].save_pretrained(tmp_path / name)
        assert type(AutoModel.from_pretrained(tmp_path / name)) is encoder_class


@pytest.mark.parametrize("damage", ["missing", "unexpected", "reshaped"])
def test_a_load_that_does_not_fit_raises(model, tmp_path, damage):
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "encoders.fmri.alignment.layers.sub-02.weight"
    if damage == "missing":
        del tensors[name]
    elif damage == "unexpected":
        tensors["encoders.fmri.alignment.layers.sub-09.weight"] = torch.zeros(1)
    else:
        tensors[name] = torch.zeros(8, 30)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises((ValueError, RuntimeError), match=r"sub-0|mismatched|ignore_mismatched_sizes"):
        NeuralClipModel.from_pretrained(tmp_path)


def test_frozen_tower_does_not_move(tmp_path):
    config = small_config(include_vision_tower=True, vision_config=CLIPVisionConfig(**TOWER))
    model = NeuralClipModel(config)
    before = {name: value.clone() for name, value in model.vision_model.state_dict().items()}
    model.train()
    assert not model.vision_model.training
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    output = model(**small_batch("eeg", [0, 1]), pixel_values=torch.rand(2, 3, 16, 16), return_loss=True)
    output.loss.backward()
    optimiser.step()
    assert all(torch.equal(value, before[name]) for name, value in model.vision_model.state_dict().items())
    model.save_pretrained(tmp_path)
    loaded = NeuralClipModel.from_pretrained(tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in loaded.vision_model.state_dict().items())


def test_what_does_not_learn_does_not_learn_after_loading_either(tmp_path):
    """Loading through transformers gives gradients to every tensor."""
    tower = {"include_vision_tower": True, "vision_config": CLIPVisionConfig(**TOWER)}
    NeuralClipModel(small_config(learn_logit_scale=False, **tower)).save_pretrained(tmp_path)
    loaded = NeuralClipModel.from_pretrained(tmp_path)
    assert {name.split(".")[0]: parameter.requires_grad for name, parameter in loaded.named_parameters()} == {
        "logit_scale": False, "encoders": True, "projections": True, "vision_model": False,
    }  # fmt: skip


def test_images_without_a_tower_say_what_to_do():
    model = NeuralClipModel(small_config(image_pooling="precomputed", vision_model_name="mobilenet"))
    with pytest.raises(ValueError, match="ready-made image embeddings"):
        model.get_image_features(torch.zeros(1, 3, 16, 16))
    model = NeuralClipModel(small_config(vision_model_name="nobody/absent"))
    with pytest.raises(OSError, match="nobody/absent"):
        model.get_image_features(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("config_class", "settings", "message"),
    [
        (
            EegConfig,
            {"hiden_size": 3},
            "Unknown configuration key 'hiden_size' for EegConfig. Did you mean 'hidden_size'",
        ),
        (NeuralClipConfig, {"fmri_confg": {}}, "Did you mean 'fmri_config'"),
        (NeuralClipConfig, {"eeg_config": {"n_chan": 3}}, "Did you mean 'n_chans'"),
        (EegConfig, {"encoder_type": "temporal_cnn"}, "are 'braindecode', 'linear', 'spectrogram_cnn' and"),
        (EegConfig, {"n_chans": 2, "ch_positions": [[0, 0, 0]]}, "each of the 2 sensors, but lists 1 of"),
        (EegConfig, {"n_chans": 2, "ch_positions": [[0, 0, 0], [0, 0]]}, r"but lists 2 of \[2, 3\] numbers"),
        (MegConfig, {"encoder_type": "braindecode"}, "'braindecode_model' is missing"),
        (MegConfig, {"braindecode_model": "Deep4Net"}, "but it is 'temporal_spatial'"),
        (EegConfig, {"braindecode_kwargs": {}}, "but it is 'temporal_spatial'"),
        (
            EegConfig,
            {"encoder_type": "braindecode", "braindecode_model": "X", "braindecode_kwargs": {"sfreq": 1, "depth": 2}},
            r"may not hold \['sfreq'\]",
        ),
        (
            EegConfig,
            {"encoder_type": "braindecode", "braindecode_model": "X", "braindecode_kwargs": {"activation": dict}},
            "'braindecode_kwargs' must be JSON",
        ),
        (MegConfig, {"alignment_kernel_size": 4}, "Allowed is an odd number, 1 and more, but got 4"),
        (EegConfig, {"subjects": [1, 2]}, "'subjects' parameter. Allowed is a list of strings, but got"),
        (EegConfig, {"subjects": "sub-01"}, "Allowed is a list of strings, but got 'sub-01'"),
        (FmriConfig, {"subjects": "A", "n_voxels": {"A": 2}}, "Allowed is a list of strings, but got 'A'"),
        (MegConfig, {"subjects": ["sub-01", "sub-01"]}, "Allowed is each name once, but got"),
        (EegConfig, {"n_chans": 2, "ch_names": ["Cz"]}, "'ch_names' lists 1 sensors but 'n_chans' is 2"),
        (EegConfig, {"subject_dropout": 1.5}, "'subject_dropout' parameter. Allowed is 0 to 1, but got 1.5"),
        (EegConfig, {"time_shift": -0.1}, "'time_shift'"),
        (EegConfig, {"time_shift": 0.44}, "'time_shift' parameter. Allowed is less than a recording .0.44 s"),
        (FmriConfig, {"subject_dropout": 0.1}, "Unknown configuration key 'subject_dropout' for FmriConfig"),
        (MegConfig, {"num_networks": 0}, "'num_networks' parameter. Allowed is a number above 0"),
        (FmriConfig, {"num_networks": 0}, "'num_networks' parameter. Allowed is a number above 0"),
        (EegConfig, {"n_chans": "5"}, "'n_chans' parameter. Allowed is a whole number, but got '5'"),
        (EegConfig, {"n_chans": True}, "'n_chans' parameter. Allowed is a whole number, but got True"),
        (EegConfig, {"readout_size": None}, "'readout_size' parameter. Allowed is a whole number, but got None"),
        (EegConfig, {"n_times": 0}, "'n_times' parameter. Allowed is a number above 0"),
        (MegConfig, {"crop_tmin": 2.0}, r"'crop_tmin' \(2.0 s\) and 'decimation' \(1\) leave nothing of 181 samples"),
        (EegConfig, {"decimation": 441}, "leave nothing of 440 samples"),
        (EegConfig, {"readout_size": -1}, "'readout_size' parameter. Allowed is 0 and more"),
        (FmriConfig, {"subjects": ["sub-01"], "n_voxels": {}}, "must give a count for each"),
        (NeuralClipConfig, {"include_vision_tower": True}, "'vision_config' is None"),
        (NeuralClipConfig, {"contrastive_direction": "up"}, "'contrastive_direction'"),
        (NeuralClipConfig, {"objective": "l1"}, "'objective' parameter. Allowed values are 'infonce' and 'mse'"),
    ],
)
def test_bad_configuration_is_named(config_class, settings, message):
    with pytest.raises(ValueError, match=message):
        config_class(**settings)


def test_configuration_round_trip(tmp_path):
    config = small_config()
    config.save_pretrained(tmp_path)
    loaded = NeuralClipConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert isinstance(loaded.fmri_config, FmriConfig)
    assert json.loads(Path(tmp_path, "config.json").read_text())["meg_config"]["n_times"] == 90


@pytest.mark.parametrize(("kernel_size", "n_times"), [(5, 50), (4, 50), (1, 7), (41, 440), (9, 9)])
def test_temporal_filter_is_a_depthwise_convolution(kernel_size, n_times):
    layer = TemporalFilter(3, kernel_size).double()
    values = torch.randn(2, 3, n_times, generator=torch.Generator().manual_seed(0))
    weight = layer.weight.detach().float()[:, None]
    expected = torch.nn.functional.conv1d(values, weight, padding=kernel_size // 2, groups=3)
    torch.testing.assert_close(layer(values), expected, rtol=1e-5, atol=1e-5)
