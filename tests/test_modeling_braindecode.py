"""Networks of braindecode as the shared network: a small stand-in for the package, and the package where it is."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from neural_clip import (
    EegConfig,
    EegEncoder,
    MegConfig,
    MegEncoder,
    NeuralClipConfig,
    NeuralClipModel,
    NeuralClipProcessor,
)
from neural_clip.errors import DataError
from neural_clip.training.checkpoint import read_checkpoint
from neural_clip.training.model import build_model
from second_process import python
from tolerances import assert_same_outputs

pytestmark = pytest.mark.numerical

SUBJECTS = ["sub-01", "sub-02"]
PLACES = [[0.0, 0.08, 0.04], [-0.07, 0.0, 0.04], [0.07, 0.0, 0.04], [0.0, -0.08, 0.04]]
# `Flat` does what real ones do: it computes while it is made, keeps a buffer out of checkpoints and drops features.
STAND_IN = """
import torch
from torch import nn

CALLS = []

class EEGModuleMixin(nn.Module):
    pass

class Flat(EEGModuleMixin):
    def __init__(self, n_chans, n_times, sfreq, n_outputs, chs_info=None, width=3):
        super().__init__()
        CALLS.append({"n_chans": n_chans, "n_times": n_times, "sfreq": sfreq, "n_outputs": n_outputs})
        CALLS[-1] |= {"chs_info": chs_info, "width": width}
        self.register_buffer("window", torch.hann_window(n_times), persistent=False)
        self.scale = sum(self.window.tolist())
        self.layers = nn.Sequential(nn.Linear(n_chans, width), nn.Dropout(0.5), nn.Linear(width, n_outputs))

    def forward(self, values):
        return self.layers((values * self.window).sum(2) / self.scale)

class Dense(Flat):
    def forward(self, values):
        return super().forward(values)[:, :, None].expand(-1, -1, 7)

class Several(Flat):
    def forward(self, values):
        return {"features": values}

def helper():
    pass
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A package called braindecode with three networks; returns the folder to put on the path."""
    folder = tmp_path / "path" / "braindecode"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "models.py").write_text(STAND_IN)
    for name in [name for name in sys.modules if name.partition(".")[0] == "braindecode"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(folder.parent))
    yield folder.parent
    for name in ("braindecode", "braindecode.models"):
        sys.modules.pop(name, None)


def encoder_config(config_class=EegConfig, name="Flat", **changes):
    shape = {"n_chans": 4, "n_times": 200, "sfreq": 100.0, "subjects": SUBJECTS, "hidden_size": 6}
    shape |= {"encoder_type": "braindecode", "braindecode_model": name, "alignment_kernel_size": 1}
    return config_class(**(shape | changes))


def recordings(n_rows=8, n_times=200):
    values = torch.randn(n_rows, 4, n_times, generator=torch.Generator().manual_seed(0))
    return values, torch.arange(n_rows) % 2


def test_tensors_that_nothing_was_loaded_into_start_as_those_of_a_new_network(stand_in):
    """Those of the package too, of which only it knows how they start."""
    with torch.device("meta"):
        encoder = EegEncoder(encoder_config())
    encoder.to_empty(device="cpu")
    for tensor in (*encoder.parameters(), *encoder.buffers()):
        tensor.data.fill_(float("nan"))
    encoder.network.network.layers[2].bias._is_hf_initialized = True  # this one was loaded
    encoder.init_weights()
    for name, tensor in encoder.state_dict().items():
        assert torch.isfinite(tensor).all() == (name != "network.network.layers.2.bias"), name
    assert torch.equal(encoder.network.network.window, torch.hann_window(200))


def absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "braindecode", None)


def test_network_is_told_of_the_recordings(stand_in):
    encoder = EegEncoder(encoder_config(braindecode_kwargs={"width": 5}))
    from braindecode.models import CALLS

    expected = {"n_chans": 4, "n_times": 200, "sfreq": 100.0, "n_outputs": 6, "chs_info": None, "width": 5}
    assert [expected] == CALLS
    assert encoder.network.training and encoder.network.network.layers[1].training
    values, ids = recordings()
    torch.manual_seed(1)
    dropped = encoder(values, ids).pooler_output
    plain = encoder.eval()(values, ids).pooler_output
    by_hand = encoder.network.network.layers((values * torch.hann_window(200)).sum(2) / torch.hann_window(200).sum())
    torch.testing.assert_close(plain, by_hand)  # the alignment layers start as identities
    zeros = (dropped == 0).float().mean()
    assert plain.shape == (8, encoder.output_size) == (8, 6) and 0.25 < zeros < 0.75  # `dropout` is 0.5


@pytest.mark.parametrize(("config_class", "encoder_class"), [(EegConfig, EegEncoder), (MegConfig, MegEncoder)])
def test_network_is_told_names_and_places(stand_in, config_class, encoder_class):
    import mne

    names = ["Fz", "C3", "C4", "Oz"]
    encoder_class(encoder_config(config_class, ch_names=names, ch_positions=PLACES))
    encoder_class(encoder_config(config_class, ch_positions=PLACES))
    from braindecode.models import CALLS

    channels = CALLS[0]["chs_info"]
    assert [channel["ch_name"] for channel in channels] == names
    np.testing.assert_allclose([channel["loc"][:3] for channel in channels], PLACES)
    kind = {"eeg": mne.io.constants.FIFF.FIFFV_EEG_CH, "meg": mne.io.constants.FIFF.FIFFV_MEG_CH}
    assert {channel["kind"] for channel in channels} == {kind[encoder_class.main_input_name[:3]]}
    assert len({channel["ch_name"] for channel in CALLS[1]["chs_info"]}) == 4


def test_unknown_network_names_the_nearest(stand_in):
    with pytest.raises(
        ValueError, match=r"'braindecode_model' parameter\..* but got 'Flatt' instead\. Did you mean 'Flat'"
    ):
        EegEncoder(encoder_config(name="Flatt"))
    for name in ("helper", "EEGModuleMixin", "torch"):  # in the module, but no networks
        with pytest.raises(ValueError, match=f"'braindecode_model' parameter.* but got '{name}' instead"):
            EegEncoder(encoder_config(name=name))
    with pytest.raises(
        ValueError, match=r"Allowed values are 'Dense', 'Flat' and 'Several', but got 'Xyz' instead\.$"
    ):
        EegEncoder(encoder_config(name="Xyz"))


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("Dense", None, r"for 2 recordings it returns \(2, 6, 7\) instead of \(2, 6\)"),
        ("Several", None, r"returns dict instead of \(2, 6\)"),
        ("Flat", {"widht": 5}, r"'Flat' cannot be made for 4 sensors and 200 samples at 100.0 Hz .*TypeError.*widht"),
        ("Flat", {"width": -1}, "'Flat' cannot be made .*RuntimeError"),
    ],
)  # fmt: skip
def test_network_that_does_not_fit_is_named(stand_in, name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        EegEncoder(encoder_config(name=name, braindecode_kwargs=kwargs))


def test_absent_package_says_how_to_install_it(monkeypatch):
    absent(monkeypatch)
    with pytest.raises(
        ImportError, match=r"'Flat' is one of braindecode, .* `pip install 'neural_clip\[braindecode\]'`"
    ):
        EegEncoder(encoder_config())
    config = NeuralClipConfig(eeg_config=encoder_config(), projection_dim=5)  # can be read without it
    with pytest.raises(DataError, match=r"'model' section cannot be used: .*pip install"):
        build_model(config, None, 0)


def test_package_that_does_not_load_says_so(stand_in):
    (stand_in / "braindecode" / "models.py").write_text("raise OSError('libc10_cuda.so: cannot open')")
    with pytest.raises(ImportError, match=r"libc10_cuda.so.*torchaudio must be built for the torch at hand"):
        EegEncoder(encoder_config())


def joint_model(name="Flat", **changes):
    torch.manual_seed(0)
    config = encoder_config(name=name, dropout=0.0, **changes)
    return NeuralClipModel(NeuralClipConfig(eeg_config=config, projection_dim=5))


def check_reloaded(model, folder, path=""):
    """The same outputs from a reloaded checkpoint, and where `neural_clip` cannot be imported."""
    model.eval().save_pretrained(folder)
    loaded = NeuralClipModel.from_pretrained(folder).eval()
    values, ids = recordings()
    expected = model.get_eeg_features(values, ids)
    assert_same_outputs(loaded.get_eeg_features(values, ids), expected)
    code = (
        "import sys\nsys.modules['neural_clip'] = None\nsys.path.insert(0, sys.argv[2])\nimport torch\n"
        "from transformers import AutoModel\n"
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()\n"
        "values = torch.randn(8, 4, 200, generator=torch.Generator().manual_seed(0))\n"
        "print(model.get_eeg_features(values, torch.arange(8) % 2).tolist())\n"
    )
    done = python("-c", code, folder, path)
    assert_same_outputs(torch.tensor(json.loads(done.stdout)), expected)


def check_learns(model):
    """A few steps on eight recordings bring the loss down, and every layer in use has a gradient."""
    values, ids = recordings()
    images = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    batch = {"eeg_values": values, "subject_ids": ids, "image_embeds": images, "image_ids": torch.arange(8)}
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    torch.manual_seed(2)
    for _ in range(25):
        optimizer.zero_grad()
        loss = model.train()(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]
    network = model.encoders["eeg"].network
    assert any(float(parameter.grad.abs().max()) > 0 for parameter in network.parameters())
    assert all(float(layer.weight.grad.abs().max()) > 0 for layer in model.encoders["eeg"].alignment.layers.values())


def test_checkpoint_says_how_to_install_what_it_needs(stand_in, tmp_path, monkeypatch):
    model = joint_model()
    model.save_pretrained(tmp_path)
    NeuralClipProcessor.from_config(model.config).save_pretrained(tmp_path)
    (tmp_path / "training.json").write_text("{}")
    assert type(read_checkpoint(tmp_path)[0].encoders["eeg"].network.network).__name__ == "Flat"
    absent(monkeypatch)
    with pytest.raises(DataError, match=r"is no readable checkpoint .*pip install 'neural_clip\[braindecode\]'"):
        read_checkpoint(tmp_path)


@pytest.mark.slow
def test_reloaded_network_is_the_same_with_the_copied_code_too(stand_in, tmp_path):
    model = joint_model(ch_positions=PLACES)
    model.encoders["eeg"].network.network.window.mul_(torch.linspace(1, 2, 200))  # what was in use is what is kept
    check_reloaded(model, tmp_path / "model", stand_in)


# ------------------------------------------------------------------------------------------- the package itself


@pytest.fixture
def braindecode():
    """The real package, if it is installed; a stand-in that other tests loaded is not."""
    try:
        version("braindecode")
        import braindecode.models as models
    except (ImportError, OSError) as error:
        pytest.skip(f"braindecode cannot be loaded here ({error}); install 'neural_clip[braindecode]' to test it")
    assert Path(models.__file__).parent.name == "models"
    return models


REAL = {
    "ShallowFBCSPNet": {"final_conv_length": "auto"}, "Deep4Net": {"pool_time_length": 2, "pool_time_stride": 2},
    "EEGNeX": None, "BrainModule": {"hidden_dim": 16, "depth": 2}, "EEGConformer": {"num_layers": 1}, "BDTCN": None,
    "DGCNN": None, "SignalJEPA_PreLocal": None,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_network_learns_and_is_reloaded(braindecode, name, tmp_path):
    model = joint_model(name, braindecode_kwargs=REAL[name], ch_positions=PLACES, ch_names=["Fz", "C3", "C4", "Oz"])
    assert isinstance(model.encoders["eeg"].network.network, getattr(braindecode, name))
    check_learns(model)
    check_reloaded(model, tmp_path / "model")


def test_real_network_that_does_not_fit_is_named(braindecode):
    with pytest.raises(ValueError, match="Did you mean 'Deep4Net'"):
        EegEncoder(encoder_config(name="Deep4"))
    with pytest.raises(ValueError, match="'Labram' cannot be made for 4 sensors and 50 samples"):
        EegEncoder(encoder_config(name="Labram", n_times=50))
