"""`transformers.Trainer` as it is, and the limit of the temperature that every training keeps."""

import math
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, Trainer, TrainingArguments, default_data_collator

from neural_clip import NeuralClipModel, NeuralClipProcessor
from neural_clip.errors import DataError
from neural_clip.modeling_neural_clip import MAX_LOGIT_SCALE
from neural_clip.training import run as run_module
from neural_clip.training import trainer as trainer_module
from neural_clip.training.model import build_model
from neural_clip.training.recipe import read_recipe
from neural_clip.training.run import train
from small_models import small_config
from spoiled_rows import spoil
from tolerances import assert_same_outputs

pytestmark = pytest.mark.numerical

N_RECORDINGS = 64


@pytest.fixture(scope="module")
def rows():
    """Planted: EEG that is a linear map of the image's embedding, with noise."""
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(N_RECORDINGS, 12, generator=generator)
    values = (embeds @ torch.randn(12, 500, generator=generator)).view(-1, 5, 100)
    values += 0.5 * torch.randn(values.shape, generator=generator)
    return [
        {"eeg_values": values[i], "subject_ids": i % 3, "image_embeds": embeds[i], "image_ids": i}
        for i in range(N_RECORDINGS)
    ]


def batch_of(rows):
    return {name: torch.stack([torch.as_tensor(row[name]) for row in rows[:8]]) for name in rows[0]}


def new_model(**changes):
    torch.manual_seed(0)
    return NeuralClipModel(small_config(**changes))


def arguments(folder, **changes):
    settings = {
        "num_train_epochs": 4, "per_device_train_batch_size": 16, "learning_rate": 3e-3, "eval_strategy": "epoch",
        "save_strategy": "epoch", "label_names": ["image_ids"], "report_to": [], "use_cpu": True, "seed": 0,
        "disable_tqdm": True,
    }  # fmt: skip
    return TrainingArguments(str(folder), **settings | changes)


def trainer_of(model, rows, folder, **changes):
    return Trainer(
        model,
        arguments(folder, **changes),
        train_dataset=rows[:48],
        eval_dataset=rows[48:],
        processing_class=NeuralClipProcessor.from_config(model.config),
    )


def test_training_evaluation_saving_resuming_and_reloading(rows, tmp_path):
    trainer = trainer_of(new_model(), rows, tmp_path / "whole", load_best_model_at_end=True)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    predicted = trainer.predict(rows[48:])
    logits, _, neural, images = predicted.predictions
    assert logits.shape == (16, 8) and neural.shape == images.shape == (16, 12)  # batches of 8
    assert np.array_equal(predicted.label_ids, np.arange(48, 64))
    last = NeuralClipModel.from_pretrained(tmp_path / "whole" / "checkpoint-12").state_dict()

    resumed = trainer_of(new_model(), rows, tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))
    for name, tensor in NeuralClipModel.from_pretrained(tmp_path / "resumed" / "checkpoint-12").state_dict().items():
        assert torch.equal(tensor, last[name]), name

    resumed.save_model(tmp_path / "saved")
    loaded = AutoModel.from_pretrained(tmp_path / "saved")
    processor = AutoProcessor.from_pretrained(tmp_path / "saved")
    inputs = processor(eeg=rows[0]["eeg_values"], subject="sub-01")
    expected = resumed.model.eval()(**inputs).neural_embeds
    assert_same_outputs(loaded(**inputs).neural_embeds, expected)


def test_a_batch_that_asks_for_the_loss_is_evaluated_without_labels(rows, tmp_path):
    """As the examples of transformers train CLIP."""
    trainer = trainer_of(new_model(), rows, tmp_path, label_names=None, prediction_loss_only=True)
    trainer.data_collator = lambda batch: default_data_collator(batch) | {"return_loss": True}
    loss = trainer.evaluate()["eval_loss"]
    assert loss == pytest.approx(trainer_of(new_model(), rows, tmp_path).evaluate()["eval_loss"], rel=1e-5)


# The temperature.


def push_up(model):
    """A step that leads the temperature up, whatever the loss says."""
    with torch.no_grad():
        model.logit_scale.add_(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_temperature_comes_back_from_its_limit(rows, dtype):
    """Wrong pairs at the limit: the gradient leads down, also from beyond it."""
    model = new_model(logit_scale_init_value=10.0).to(dtype).train()
    batch = batch_of(rows)
    batch["image_embeds"] = batch["image_embeds"].flip(0)
    model(**batch).loss.backward()
    limit = torch.tensor(math.log(100.0), dtype=dtype)
    assert torch.equal(model.logit_scale.detach(), limit)
    assert model.logit_scale.grad is not None and model.logit_scale.grad > 0
    with torch.no_grad():
        model.logit_scale.sub_(0.1 * model.logit_scale.grad.sign())
    assert model(**batch).logits_per_neural.abs().max() <= limit.exp()
    assert model.logit_scale < limit


def test_below_the_limit_nothing_is_touched(rows):
    model = new_model().train()
    before = model.logit_scale.detach().clone()
    batch = batch_of(rows)
    model(**batch)
    assert torch.equal(model.logit_scale, before)


def test_two_forwards_before_one_backward(rows):
    """As where a batch of each modality is added up: no graph is spoilt by the limit."""
    model = new_model(logit_scale_init_value=10.0).train()
    batch = batch_of(rows)
    (model(**batch).loss + model(**batch).loss).backward()
    assert model.logit_scale.grad is not None


def test_a_fixed_temperature_stays_as_it_is_and_is_limited_in_use(rows, tmp_path):
    model = new_model(logit_scale_init_value=10.0, learn_logit_scale=False).train()
    batch = batch_of(rows)
    assert model(**batch).logits_per_neural.abs().max() <= 100.01
    model.save_pretrained(tmp_path)
    assert float(NeuralClipModel.from_pretrained(tmp_path).logit_scale) == 10.0


def test_plain_trainer_and_accelerate_keep_the_limit(rows, tmp_path):
    """A learning rate that leads far beyond it in one step; what is saved is within it, after the last step too."""
    settings = {"learning_rate": 1.0, "lr_scheduler_type": "constant", "eval_strategy": "no", "max_steps": 6}
    trainer = trainer_of(new_model(logit_scale_init_value=4.6), rows, tmp_path / "trainer", **settings)
    seen = []
    trainer.model.register_forward_hook(lambda model, *_: seen.append(float(model.logit_scale.detach())))
    trainer.train()
    assert max(seen) <= float(torch.tensor(MAX_LOGIT_SCALE)) and len(seen) == 6
    accelerator = Accelerator(cpu=True)
    model = new_model(logit_scale_init_value=4.6)
    model, optimiser = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1e-3))
    batch = batch_of(rows)
    for _ in range(2):
        accelerator.backward(model.train()(**batch).loss)
        optimiser.step()
        push_up(accelerator.unwrap_model(model))
    assert model.logit_scale > MAX_LOGIT_SCALE
    accelerator.unwrap_model(model).save_pretrained(tmp_path / "saved")
    saved = NeuralClipModel.from_pretrained(tmp_path / "saved")
    assert float(saved.logit_scale.detach()) == float(torch.tensor(MAX_LOGIT_SCALE))


# What is not finite.


@pytest.mark.parametrize(("split", "workers"), [("train", "0"), ("train", "1"), ("validation", "0")])
def test_one_value_that_is_not_finite_stops_training_by_its_name(recipe_file, folders, tmp_path, split, workers):
    data = {name: str(shutil.copytree(folder, tmp_path / name)) for name, folder in folders.items()}
    spoil(data["fmri"], split, "sub-02", 5, float("nan"))
    given = [recipe_file, "--data", yaml.safe_dump(data, default_flow_style=True), "--dataloader_num_workers", workers]
    with pytest.raises(DataError) as caught:
        train(read_recipe(given))
    told = rf"Recordings in the {split} split of '{data['fmri']}' hold NaN or infinity: row 5 of sub-02 \(image 'fmri0"
    assert re.match(told, str(caught.value)) and "Traceback" not in str(caught.value)
    assert not list(tmp_path.glob("out*"))


def test_a_step_that_is_not_finite_stops_training_and_names_its_recordings(recipe_file, folders, tmp_path):
    """A value so large that sums overflow; what was saved before stays, and no weight in it is NaN."""
    data = str(shutil.copytree(folders["eeg"], tmp_path / "eeg"))
    spoil(data, "train", "sub-01", 7, 3e38)
    only = [recipe_file, "--data", f"eeg={data}", "--save_strategy", "steps", "--save_steps", "1"]
    only += ["--load_best_model_at_end", "false", "--seed", "7"]
    with pytest.raises(DataError) as caught:
        train(read_recipe(only))
    assert re.match(
        r"Training diverged: loss or gradient of step \d+ is NaN or infinite\. Its batch", str(caught.value)
    )
    assert "with values up to 3e+38: sub-0" in str(caught.value) and "(image 'eeg0" in str(caught.value)
    for path in tmp_path.glob("out*/checkpoint-*/model.safetensors"):
        assert all(torch.isfinite(value).all() for value in load_file(path).values())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("every", "save"), [(4, "no"), (10_000, "no"), (10_000, "epoch")])
def test_steps_that_are_looked_at_later_as_on_a_gpu_are_named_all_the_same(
    recipe_file, folders, tmp_path, monkeypatch, every, save
):
    """The first step that is not finite is told, not the next ones, whose weights are NaN; nothing is saved."""
    data = str(shutil.copytree(folders["eeg"], tmp_path / "eeg"))
    spoil(data, "train", "sub-01", 7, 3e38)
    only = [recipe_file, "--data", f"eeg={data}", "--seed", "7", "--eval_strategy", "no", "--save_strategy", save]
    only += ["--load_best_model_at_end", "false"]
    told = []
    for steps in (1, every):
        monkeypatch.setattr(trainer_module, "LOOK_EVERY", {"cpu": steps})
        with pytest.raises(DataError, match=r"^Training diverged: loss or gradient of step \d+ is NaN") as caught:
            train(read_recipe(only))
        told.append(str(caught.value))
        assert not list(tmp_path.glob("out*"))
    assert told[0] == told[1]


def test_no_loss_is_looked_at_in_each_step(recipe_file, monkeypatch):
    """`Trainer` asks of each loss whether it is NaN, and waits for a GPU with that, unless it is told not to."""
    monkeypatch.setattr(torch, "isnan", lambda value: pytest.fail("a loss was looked at"))
    never = ["--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]
    train(read_recipe([recipe_file, *never, "--max_steps", "2"]))


@pytest.mark.parametrize(("accumulated", "clipped"), [("1", "1.0"), ("2", "1.0"), ("1", "0.0")])
def test_a_gradient_that_is_not_finite_stops_training_though_the_loss_is(
    recipe_file, tmp_path, monkeypatch, accumulated, clipped
):
    """With and without clipping, by whose norm the gradients are judged, and where several batches make a step."""

    def spoilt(*given):
        model = build_model(*given)
        model.logit_scale.register_hook(lambda gradient: gradient * float("nan"))
        return model

    monkeypatch.setattr(run_module, "build_model", spoilt)
    given = ["--gradient_accumulation_steps", accumulated, "--max_grad_norm", clipped]
    with pytest.raises(DataError, match=r"^Training diverged: loss or gradient of step 1 is NaN or infinite\. Its"):
        train(read_recipe([recipe_file, *given]))
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("save", ["steps", "no"])
def test_weights_that_are_not_finite_are_not_saved(recipe_file, tmp_path, save):
    """A learning rate that leads beyond the largest float in the last step, after which no loss is computed."""
    changes = {"learning_rate": 1e38, "optim": "sgd", "weight_decay": 100, "max_steps": 1, "eval_strategy": "no"}
    changes |= {"save_strategy": save, "save_steps": 1, "load_best_model_at_end": False}
    given = [recipe_file, *(f"--{name}={value}" for name, value in changes.items())]
    with pytest.raises(
        DataError, match=r"Training diverged: the weights of '.*' hold NaN or infinity, so they are not"
    ):
        train(read_recipe(given))
    assert not list(tmp_path.glob("out*"))
