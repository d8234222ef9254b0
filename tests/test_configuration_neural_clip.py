"""Configurations: what transformers writes is read, what is misspelt is refused."""

import copy
import json
import math

import numpy as np
import pytest
from transformers import AutoConfig, CLIPVisionConfig, PreTrainedConfig

from neural_clip import EegConfig, FmriConfig, MegConfig, NeuralClipConfig
from small_models import TOWER, small_config


def written(config, folder, **changes):
    """Save a configuration and change what was written; a dotted key is an entry of a part."""
    config.save_pretrained(folder)
    path = folder / "config.json"
    entries = json.loads(path.read_text())
    for key, value in changes.items():
        *part, last = key.split("__")
        (entries[part[0]] if part else entries)[last] = value
    path.write_text(json.dumps(entries))
    return folder


def test_every_key_that_transformers_may_set_is_read(tmp_path):
    """All that the base class holds, in the file and in each part of it, at whatever value."""
    plain = PreTrainedConfig().to_dict()
    keys = sorted((set(plain) | {"torch_dtype", "use_cache", "attn_implementation", "name_or_path"}) - {"model_type"})
    assert len(keys) > 10
    values = {key: plain.get(key) for key in keys}
    changes = {**values, **{f"eeg_config__{key}": value for key, value in values.items()}}
    config = NeuralClipConfig.from_pretrained(written(small_config(), tmp_path, **changes))
    assert config.eeg_config.to_dict() == small_config().eeg_config.to_dict()
    for config_class in (EegConfig, MegConfig, FmriConfig):
        config_class(**{key: value for key, value in values.items() if key != "transformers_version"})


@pytest.mark.parametrize("place", ["", "eeg_config__", "fmri_config__"])
def test_keys_of_a_later_version_or_another_library_are_read(place, tmp_path):
    """Simulated: keys that no version has."""
    folder = written(small_config(), tmp_path, **{f"{place}pipeline_layout": [1], f"{place}quasar": None})
    config = NeuralClipConfig.from_pretrained(folder)
    part = getattr(config, place.removesuffix("__")) if place else config
    assert part.pipeline_layout == [1] and part.quasar is None
    again = NeuralClipConfig.from_pretrained(written(config, tmp_path))
    assert again.to_dict() == config.to_dict()


def test_an_attribute_of_the_base_class_that_is_added_later_is_read(tmp_path, monkeypatch):
    """Near one of ours in the letters, but transformers' own."""
    monkeypatch.setattr(PreTrainedConfig, "hidden_sizes", None, raising=False)
    assert EegConfig(hidden_sizes=3).hidden_sizes == 3


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("projection_dims", "projection_dim"),
        ("eeg_config__hiden_size", "hidden_size"),
        ("meg_config__n_chan", "n_chans"),
        ("fmri_config__alignement_size", "alignment_size"),
    ],
)
def test_misspelt_keys_of_a_file_are_refused(key, near, tmp_path):
    folder = written(small_config(), tmp_path, **{key: 3})
    for config_class in (NeuralClipConfig, AutoConfig):
        with pytest.raises(
            ValueError, match=f"Unknown configuration key '{key.split('__')[-1]}' .*Did you mean '{near}'"
        ):
            config_class.from_pretrained(folder)


def test_misspelt_keywords_and_attributes_are_refused(tmp_path):
    config = small_config()
    with pytest.raises(ValueError, match=r"'projction_dim' for NeuralClipConfig. Did you mean 'projection_dim'"):
        NeuralClipConfig.from_pretrained(written(config, tmp_path), projction_dim=3)
    with pytest.raises(ValueError, match=r"'dropot' for EegConfig. Did you mean 'dropout'"):
        NeuralClipConfig.from_dict(config.to_dict(), eeg_config={"dropot": 0.1})
    with pytest.raises(ValueError, match=r"Unknown configuration key 'quasar' for EegConfig. Known keys are"):
        EegConfig(quasar=1)
    for part, name, near in ((config.eeg_config, "droput", "dropout"), (config, "objectve", "objective")):
        setattr(part, name, 1)
        with pytest.raises(ValueError, match=f"Did you mean '{near}'"):
            config.save_pretrained(tmp_path)
        delattr(part, name)
    config.save_pretrained(tmp_path)


def test_keywords_are_checked_as_the_file_is(tmp_path):
    folder = written(small_config(), tmp_path)
    changed = NeuralClipConfig.from_pretrained(folder, projection_dim=7, eeg_config={"dropout": 0.1}, foreign=1)
    assert changed.projection_dim == 7 and changed.eeg_config.dropout == 0.1 and changed.eeg_config.n_times == 100
    with pytest.raises(ValueError, match=r"'objective' parameter. Allowed values are 'infonce' and 'mse'"):
        NeuralClipConfig.from_pretrained(folder, objective="l1")
    with pytest.raises(ValueError, match=r"'subject_dropout' parameter. Allowed is 0 to 1"):
        NeuralClipConfig.from_pretrained(folder, eeg_config={"subject_dropout": 2})


def test_another_kind_of_configuration_is_refused():
    with pytest.raises(
        ValueError, match="EegConfig is for models of type 'neural_clip_eeg', but the configuration says"
    ):
        EegConfig.from_dict(MegConfig().to_dict())


def test_differences_equality_and_parts(tmp_path):
    config = small_config(include_vision_tower=True, vision_config=CLIPVisionConfig(**TOWER))
    assert NeuralClipConfig.from_dict(config.to_diff_dict()).to_dict() == config.to_dict()
    assert copy.deepcopy(config) == config != small_config()
    written(config, tmp_path)
    assert NeuralClipConfig.from_pretrained(tmp_path) == NeuralClipConfig.from_pretrained(tmp_path)
    for key, config_class in config.sub_configs.items():
        assert config_class.from_pretrained(tmp_path).to_dict() == getattr(config, key).to_dict()


@pytest.mark.parametrize(
    "changes",
    [
        {"decimation": 1.5},
        {"n_windows": True},
        {"dropout": True},
        {"dropout": 2},
        {"crop_tmin": "a"},
        {"sfreq": math.inf},
    ],
)
def test_numbers_of_another_kind_are_named(changes):
    ((name, value),) = changes.items()
    with pytest.raises(ValueError, match=f"'{name}' parameter. Allowed is .* but got {value!r}"):
        EegConfig(**changes)
    assert EegConfig(decimation=np.int64(2), dropout=np.float32(0.5)).decimation == 2


def test_temperatures_of_confidence_are_saved_and_checked(tmp_path):
    """By subject, in the configuration of the joint model and of one encoder."""
    temperatures = {"sub-01": 12.5, "average": 0.0}
    config = NeuralClipConfig(
        eeg_config={"subjects": ["sub-01"], "confidence_temperature": temperatures},
        fmri_config={"subjects": ["a"], "n_voxels": {"a": 3}},
    )
    config.save_pretrained(tmp_path)
    read = NeuralClipConfig.from_pretrained(tmp_path)
    assert read.eeg_config.confidence_temperature == temperatures and read.fmri_config.confidence_temperature is None
    assert EegConfig.from_pretrained(tmp_path).confidence_temperature == temperatures
    for wrong, message in (
        ({"sub-02": 1.0}, "numbers by subject, of"), (3.0, "numbers by subject, of"),
        ({"sub-01": -1.0}, r"confidence_temperature\.sub-01.*0 and more"), ({"sub-01": math.nan}, "0 and more"),
        ({"sub-01": True}, "0 and more"), ({"sub-01": "3"}, "0 and more"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            EegConfig(subjects=["sub-01"], confidence_temperature=wrong)
