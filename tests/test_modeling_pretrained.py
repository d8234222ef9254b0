"""Loading: whole or not at all, for every class, in every way that transformers loads a checkpoint."""

import copy
import io
import json
import logging
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, CLIPVisionConfig

from neural_clip import EegConfig, EegEncoder, FmriEncoder, MegEncoder, NeuralClipConfig, NeuralClipModel
from second_process import python
from small_models import ENCODER_TYPES, TOWER, seeded_model, small_batch, small_config
from tolerances import assert_same_outputs

pytestmark = pytest.mark.numerical

ENCODERS = {"eeg": EegEncoder, "meg": MegEncoder, "fmri": FmriEncoder}


def model_with_tower():
    torch.manual_seed(0)
    return NeuralClipModel(small_config(include_vision_tower=True, vision_config=CLIPVisionConfig(**TOWER))).eval()


@pytest.fixture(scope="module")
def model():
    return model_with_tower()


@pytest.fixture(scope="module")
def joint(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("joint")
    model.save_pretrained(path)
    return path


def assert_same_tensors(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert list(one) == list(other)
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype and torch.equal(tensor, other[name]), name


# A branch of a joint checkpoint.


@pytest.mark.parametrize("types", ENCODER_TYPES, ids="-".join)
def test_an_encoder_takes_its_branch_of_a_joint_checkpoint(types, tmp_path, caplog):
    model = seeded_model(types)
    model.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        for modality, encoder_class in ENCODERS.items():
            branch, info = encoder_class.from_pretrained(tmp_path, output_loading_info=True)
            assert_same_tensors(branch, model.encoders[modality])
            assert not any(info.values()) and not branch.training
            batch = small_batch(modality, [0, 2, 1])
            assert_same_outputs(branch(**batch).pooler_output, model.encoders[modality](**batch).pooler_output)
            again = tmp_path / modality
            branch.save_pretrained(again)
            assert_same_tensors(AutoModel.from_pretrained(again), branch)
    assert "LOAD REPORT" not in caplog.text


@pytest.mark.slow
def test_a_branch_loads_where_the_package_is_not_installed(model, joint):
    """By the code that travels with the joint checkpoint; strict there too."""
    code = (
        "import sys\nsys.modules['neural_clip'] = None\n"
        "from transformers.dynamic_module_utils import get_class_from_dynamic_module\n"
        "MegEncoder = get_class_from_dynamic_module('modeling_meg.MegEncoder', sys.argv[1])\n"
        "branch, info = MegEncoder.from_pretrained(sys.argv[1], output_loading_info=True)\n"
        "print(any(info.values()), sum(float(p.detach().double().sum()) for p in branch.parameters()))\n"
    )
    result = python("-c", code, joint)
    expected = sum(float(weight.detach().double().sum()) for weight in model.encoders["meg"].parameters())
    assert result.stdout.split() == ["False", str(expected)]


WAYS = {
    "dtype": {"dtype": torch.float32},
    "torch_dtype": {"torch_dtype": "float32"},
    "device_map auto": {"device_map": "auto"},
    "device_map": {"device_map": {"": "cpu"}, "low_cpu_mem_usage": True},
    "attention": {"attn_implementation": "eager"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shard", ["50GB", "2KB"])
def test_every_way_of_loading_gives_the_same_tensors(model, way, shard, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "2KB")
    assert_same_tensors(NeuralClipModel.from_pretrained(tmp_path, **WAYS[way]), model)
    assert_same_tensors(AutoModel.from_pretrained(tmp_path, **WAYS[way]), model)
    for modality, encoder_class in ENCODERS.items():
        assert_same_tensors(encoder_class.from_pretrained(tmp_path, **WAYS[way]), model.encoders[modality])


def test_weights_from_a_state_dict_or_a_pytorch_file(model, tmp_path):
    loaded = NeuralClipModel.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    assert_same_tensors(loaded, model)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert_same_tensors(NeuralClipModel.from_pretrained(tmp_path), model)
    assert_same_tensors(MegEncoder.from_pretrained(tmp_path), model.encoders["meg"])
    changed = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "changed", state_dict=changed)
    loaded = NeuralClipModel.from_pretrained(tmp_path / "changed")
    assert torch.equal(loaded.logit_scale, model.logit_scale + 1)


@pytest.mark.parametrize("encoder_class", ENCODERS.values())
def test_a_joint_checkpoint_without_the_branch_is_refused(encoder_class, tmp_path):
    config = small_config()
    setattr(config, encoder_class.config_class.base_config_key, None)
    NeuralClipModel(config).save_pretrained(tmp_path)
    modality = encoder_class.config_class.base_config_key.removesuffix("_config")
    with pytest.raises(ValueError, match=f"has no {modality} encoder; it has "):
        encoder_class.from_pretrained(tmp_path)


def test_a_checkpoint_of_another_class_is_refused(model, joint, tmp_path):
    model.encoders["eeg"].save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="MegConfig is for models of type 'neural_clip_meg', but the configuration says"
    ):
        MegEncoder.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="NeuralClipConfig is for models of type 'neural_clip', but"):
        NeuralClipModel.from_pretrained(tmp_path)
    with pytest.raises(TypeError, match="EegEncoder takes a EegConfig as configuration, but got a NeuralClipConfig"):
        EegEncoder.from_pretrained(joint, config=model.config)


# Tensors that do not fit.


def damaged(path, folder, damage, prefix):
    """Copy a checkpoint with one tensor missing, left over or of another shape; returns the name of that tensor."""
    tensors = load_file(path / "model.safetensors")
    name = f"{prefix}alignment.layers.sub-02.weight"
    if damage == "missing":
        del tensors[name]
    elif damage == "reshaped":
        tensors[name] = torch.zeros(3, 3)
    else:
        name = {"unexpected": f"{prefix}alignment.layers.sub-09.weight", "foreign": "head.weight"}[damage]
        tensors[name] = torch.zeros(1)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text((path / "config.json").read_text())
    return name


@pytest.mark.parametrize(
    ("keywords", "asked"),
    [({"bogus": 1}, "bogus"), ({"projction_dim": 7}, "projction_dim"), ({"objective": "l1"}, "objective"),
     ({"eeg_config": {"dropot": 1}}, "eeg_config"), ({"attn_implementation": "x"}, "attn_implementation"),
     ({"dtype": "bogus"}, "dtype"), ({"device_map": "nowhere"}, "device_map")],
)  # fmt: skip
def test_a_wrong_keyword_is_named_and_no_file_is_blamed(joint, keywords, asked):
    with pytest.raises(ValueError, match=f"'{joint}' cannot be loaded with the argument '{asked}': ") as caught:
        NeuralClipModel.from_pretrained(joint, **keywords)
    assert "config.json" not in str(caught.value)


def test_a_damaged_file_is_blamed_whatever_was_asked_for(joint, tmp_path):
    folder = shutil.copytree(joint, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"bogus")
    with pytest.raises(ValueError, match=r"model\.safetensors' cannot be loaded: "):
        NeuralClipModel.from_pretrained(folder, bogus=1, dtype="float32")


@pytest.mark.parametrize(
    "keywords", [{}, {"dtype": torch.bfloat16}, {"device_map": "auto"}, {"ignore_mismatched_sizes": True}], ids=str
)
@pytest.mark.parametrize("damage", ["missing", "unexpected", "foreign", "reshaped"])
@pytest.mark.parametrize("modality", ENCODERS)
def test_what_does_not_fit_raises_for_every_class(model, joint, modality, damage, keywords, tmp_path):
    own = tmp_path / "own"
    model.encoders[modality].save_pretrained(own)
    for path, prefix in ((joint, f"encoders.{modality}."), (own, "")):
        name = damaged(path, tmp_path / "damaged", damage, prefix)
        classes = [ENCODERS[modality], AutoModel, *([NeuralClipModel] if prefix else [])]
        for model_class in classes:
            with pytest.raises(ValueError, match=rf"does not fit its configuration.*{name.removeprefix(prefix)}"):
                model_class.from_pretrained(tmp_path / "damaged", **keywords)


def test_other_parts_are_no_excuse_in_a_checkpoint_of_one_encoder(model, tmp_path):
    """Tensors named as in a joint checkpoint are left over where the configuration is an encoder's."""
    model.encoders["meg"].save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"logit_scale": torch.zeros(())}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"'unexpected_keys': \['logit_scale'\]"):
        MegEncoder.from_pretrained(tmp_path)


def test_a_missing_shard_or_a_lost_entry_of_the_index_raises(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="2KB")
    index = tmp_path / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    lost = [name for name, shard in table["weight_map"].items() if shard == table["weight_map"]["logit_scale"]]
    table["weight_map"] = {name: shard for name, shard in table["weight_map"].items() if name not in lost}
    index.write_text(json.dumps(table))
    with pytest.raises(ValueError, match=r"'missing_keys'.*'logit_scale'"):
        NeuralClipModel.from_pretrained(tmp_path)


def test_a_model_that_an_adapter_is_for_is_loaded_whole_too(joint, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    model = NeuralClipModel.from_pretrained(joint)
    model.save_pretrained(base)
    model = NeuralClipModel.from_pretrained(base)
    model.add_adapter(peft.LoraConfig(target_modules=["projections.eeg"], init_lora_weights=False))
    model.save_pretrained(adapter)
    batch = small_batch("eeg", [0, 1])
    loaded = NeuralClipModel.from_pretrained(adapter)
    assert_same_outputs(loaded(**batch).neural_embeds, model.eval()(**batch).neural_embeds)
    name = damaged(base, base, "missing", "encoders.meg.")
    with pytest.raises(ValueError, match=f"'missing_keys': .'{name}'"):
        NeuralClipModel.from_pretrained(adapter)


def test_parts_that_must_stay_together_are_not_offloaded(joint, tmp_path):
    with pytest.raises(ValueError, match=r"'device_map'.* disk"):
        NeuralClipModel.from_pretrained(joint, device_map={"": "disk"}, offload_folder=tmp_path)


# First values.


@pytest.mark.parametrize("types", ENCODER_TYPES, ids="-".join)
def test_every_tensor_has_a_first_value(types):
    """Empty memory is filled by `init_weights` as the constructor fills it; NaN and 99 stand for what lay there."""
    with torch.device("meta"):
        model = NeuralClipModel(
            small_config(types, include_vision_tower=True, vision_config=CLIPVisionConfig(**TOWER))
        )
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(float("nan") if tensor.is_floating_point() else 99)
    model.init_weights()
    one, other = (NeuralClipModel(model.config).state_dict() for _ in range(2))
    drawn = 0
    for name, tensor in model.state_dict().items():
        assert torch.isfinite(tensor).all() and not (tensor == 99).any(), name
        if torch.equal(one[name], other[name]):  # identities, norms, the temperature
            assert torch.equal(tensor, one[name]), name
        elif tensor.numel() > 60:
            assert float(tensor.std()) == pytest.approx(float(one[name].std()), rel=0.4), name
            drawn += 1
    assert drawn > 3


def test_loaded_tensors_stay_when_first_values_are_drawn(model):
    """Transformers asks for first values after it has loaded, of every layer."""
    state = {name: torch.full_like(tensor, 3) for name, tensor in model.state_dict().items()}
    loaded = NeuralClipModel.from_pretrained(None, config=model.config, state_dict=state)
    assert all(bool((tensor == 3).all()) for tensor in loaded.state_dict().values())


# Dtype and attention reach every part.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtype_converts_the_whole_model(joint, dtype):
    loaded = NeuralClipModel.from_pretrained(joint, dtype=dtype)
    assert {tensor.dtype for tensor in loaded.parameters()} == {dtype}
    assert {loaded.config.dtype, loaded.config.vision_config.dtype, loaded.config.eeg_config.dtype} == {dtype}
    made = AutoModel.from_config(copy.deepcopy(loaded.config), dtype=torch.float32)
    assert {tensor.dtype for tensor in made.parameters()} == {torch.float32}


@pytest.mark.parametrize("convert", ["half", "bfloat16", "double"])
@pytest.mark.parametrize("types", ENCODER_TYPES, ids="-".join)
@pytest.mark.parametrize("modality", ENCODERS)
def test_other_precisions_take_any_recordings(types, modality, convert):
    """Recordings in float32, as the processor makes them, and in the dtype of the weights give the same, nearly."""
    model, batch = seeded_model(types), small_batch(modality, [0, 1, 2])
    images = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    expected = model(**batch, image_embeds=images, return_loss=True)
    model = getattr(model, convert)()
    for values in (batch[f"{modality}_values"], batch[f"{modality}_values"].to(model.dtype)):
        output = model(**{**batch, f"{modality}_values": values}, image_embeds=images, return_loss=True)
        assert output.neural_embeds.dtype == output.loss.dtype == model.dtype
        cosine = torch.nn.functional.cosine_similarity(output.neural_embeds.float(), expected.neural_embeds)
        assert cosine.min() > 0.99
        assert output.loss.item() == pytest.approx(expected.loss.item(), rel=0.1)
    output.loss.backward()


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementation_reaches_the_tower(joint, implementation):
    loaded = NeuralClipModel.from_pretrained(joint, attn_implementation=implementation)
    assert loaded.vision_model.config._attn_implementation == implementation
    own = NeuralClipModel.from_pretrained(joint, attn_implementation={"vision_config": implementation})
    assert own.vision_model.config._attn_implementation == implementation
    loaded.set_attn_implementation("eager")
    assert loaded.vision_model.config._attn_implementation == "eager"


# Outputs as CLIP gives them.


def test_outputs_as_tuples_and_with_hidden_states(model):
    batch, pixels = small_batch("meg", [0, 1]), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    plain = model(**batch, pixel_values=pixels, return_loss=True)
    assert plain.vision_model_output.hidden_states is None and plain.neural_model_output.hidden_states is None
    full = model(**batch, pixel_values=pixels, return_loss=True, output_hidden_states=True, output_attentions=True)
    tower = model.vision_model(pixels, output_hidden_states=True, output_attentions=True)
    for found, expected in (("hidden_states", tower.hidden_states), ("attentions", tower.attentions)):
        for one, other in zip(full.vision_model_output[found], expected, strict=True):
            assert torch.equal(one, other)
    aligned, features = full.neural_model_output.hidden_states
    assert aligned.shape[0] == 2 and torch.equal(features, full.neural_model_output.pooler_output)
    as_tuple = model(**batch, pixel_values=pixels, return_loss=True, return_dict=False)
    assert isinstance(as_tuple, tuple) and isinstance(as_tuple[-1], tuple)
    for one, other in zip(as_tuple[:5], plain.values(), strict=False):
        assert torch.equal(one, other)
    for modality, encoder in model.encoders.items():
        batch = small_batch(modality, [0, 1])
        (pooled,) = encoder(**batch, return_dict=False)
        output = encoder(**batch, output_hidden_states=True, output_attentions=True)
        assert torch.equal(output.pooler_output, pooled) and len(output.hidden_states) == 2
    model.config.return_dict, model.config.output_hidden_states = False, True
    for encoder in model.encoders.values():
        encoder.config.return_dict = False
    assert isinstance(model(**small_batch("eeg", [0])), tuple)


def test_unknown_arguments_of_forward_are_refused(model):
    with pytest.raises(TypeError, match="unexpected keyword argument 'eeg_value'"):
        model(eeg_value=torch.zeros(1, 5, 100))


# What else is done with models of transformers.


def test_copies_and_pickles_are_the_model(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)):
        assert_same_tensors(other, model)
        assert other.config.to_dict() == model.config.to_dict()


def test_counting_moving_and_refusing(model):
    model = copy.deepcopy(model)
    trained = sum(weight.numel() for name, weight in model.named_parameters() if not name.startswith("vision_model."))
    assert model.num_parameters(only_trainable=True) == trained < model.num_parameters()
    with pytest.raises(ValueError, match=r"does not support (activation|gradient) checkpointing"):
        model.gradient_checkpointing_enable()
    with pytest.raises(NotImplementedError, match="get_input_embeddings"):
        model.resize_token_embeddings(7)
    assert {weight.device.type for weight in model.to("meta").parameters()} == {"meta"}


def test_a_batch_of_no_recordings(model):
    assert model(**{k: v[:0] for k, v in small_batch("eeg", [0]).items()}).neural_embeds.shape == (0, 12)


def test_making_models_from_configurations():
    config = small_config()
    model = AutoModel.from_config(config, attn_implementation="eager")
    assert type(model) is NeuralClipModel
    assert type(AutoModel.from_config(config.eeg_config)) is EegEncoder
    assert AutoConfig.for_model("neural_clip", projection_dim=3).projection_dim == 3
    assert isinstance(model.config, NeuralClipConfig) and model.logit_scale.isfinite()
    with pytest.raises(TypeError, match="EegEncoder takes a EegConfig as configuration"):
        EegEncoder(config)
    assert EegEncoder(EegConfig(n_chans=3, n_times=20, subjects=["a"])).config.n_chans == 3
