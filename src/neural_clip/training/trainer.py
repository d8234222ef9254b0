"""`transformers.Trainer` with batches of one modality and validation by retrieval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from neural_clip.evaluation.embedding import embed_recordings
from neural_clip.processing_neural_clip import NeuralClipProcessor
from neural_clip.retrieval.scores import retrieval_scores
from neural_clip.training.batches import JointDataset, ModalityBatchSampler, RecordingDataset, whole_batch

VALIDATION_BATCH = 256


class NeuralClipTrainer(Trainer):
    """`Trainer` with batches of one modality each and validation by retrieval.

    Args:
        recordings ([`JointDataset`]): Training recordings of every modality.
        validation (`list[RecordingDataset]`): Validation recordings, one entry a modality.
        passes (`dict[str, int]`, *optional*): How often an epoch goes over the recordings of a modality.
        kwargs: Everything else that `Trainer` takes.
    """

    def __init__(
        self,
        recordings: JointDataset,
        validation: list[RecordingDataset],
        passes: dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.recordings, self.validation, self.passes = recordings, validation, passes or {}
        super().__init__(train_dataset=recordings, eval_dataset=validation, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """Batches whose order depends on seed and epoch alone."""
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        sizes = [len(part) for part in self.recordings.parts]
        passes = [self.passes.get(part.modality, 1) for part in self.recordings.parts]
        loader = DataLoader(
            self.recordings,
            batch_sampler=ModalityBatchSampler(sizes, self.args.train_batch_size, seed, passes),
            collate_fn=whole_batch,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
        )
        return self.accelerator.prepare(loader)

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Leave the temperature out of weight decay, as CLIP does."""
        return [name for name in super().get_decay_parameter_names(model) if not name.endswith("logit_scale")]

    def evaluate(
        self, eval_dataset: object = None, ignore_keys: object = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Score the validation split: 2-way accuracy (definition A) of each modality and their mean."""
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        metrics: dict[str, float] = {}
        for part in self.validation:
            metrics[f"{metric_key_prefix}_{part.modality}_two_way"] = validation_two_way(model, part)
        metrics[f"{metric_key_prefix}_two_way"] = sum(metrics.values()) / len(metrics)
        model.train(was_training)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """Keep the card that this package writes."""


class KeepTowerInEval(TrainerCallback):
    """Nothing of the frozen tower may change while training: checked at the end of each epoch."""

    def on_epoch_end(self, args: object, state: object, control: object, **kwargs: object) -> None:
        """Raise when the tower trains."""
        tower = getattr(kwargs.get("model"), "vision_model", None)
        if tower is not None and (tower.training or any(p.requires_grad for p in tower.parameters())):
            raise RuntimeError("The frozen vision tower was switched to training.")


class SaveProcessor(TrainerCallback):
    """Put the processor into each checkpoint, so that every one of them can be used as it is."""

    def __init__(self, processor: NeuralClipProcessor) -> None:
        self.processor = processor

    def on_save(self, args: TrainingArguments, state: TrainerState, control: object, **kwargs: object) -> None:
        """Save it beside the weights that were just written."""
        if state.is_world_process_zero:
            self.processor.save_pretrained(Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")


def neural_embeds(model: PreTrainedModel, recordings: RecordingDataset) -> np.ndarray:
    """What a model in `eval()` mode makes of recordings, `(n_recordings, projection_dim)`, L2-normalised."""

    def forward(**inputs: torch.Tensor) -> torch.Tensor:
        """As in training, mixed precision included."""
        return model(**inputs).neural_embeds

    return embed_recordings(forward, recordings.part, recordings.subject_ids, VALIDATION_BATCH, model.device)


def validation_scores(model: PreTrainedModel, recordings: RecordingDataset) -> dict[str, float]:
    """Retrieval scores of single recordings among the images of their own split."""
    part = recordings.part
    return retrieval_scores(neural_embeds(model, recordings), part.targets, part.image_ids.tolist())


def validation_two_way(model: PreTrainedModel, recordings: RecordingDataset) -> float:
    """2-way accuracy among them."""
    return validation_scores(model, recordings)["two_way"]
