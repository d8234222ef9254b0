"""`transformers.Trainer` with batches of one modality and validation by retrieval."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from neural_clip.errors import DataError
from neural_clip.files.reading import read_json
from neural_clip.files.whole import write_whole
from neural_clip.gallery.embedding import embed_recordings
from neural_clip.processing_neural_clip import NeuralClipProcessor
from neural_clip.retrieval.scores import retrieval_scores
from neural_clip.training.across_processes import average_gradients, raised_by_all, share_batch_norms, shared_error
from neural_clip.training.batch_loss import batch_loss
from neural_clip.training.batches import (
    BatchLoader,
    JointDataset,
    ModalityBatchSampler,
    RecordingDataset,
    least_batches,
    named,
)
from neural_clip.training.checkpoint import check_weights
from neural_clip.training.collapse import collapse_of, spread_of
from neural_clip.training.freed_memory import freed_memory_kept
from neural_clip.training.run_state import BATCHES_FILE, mark_finished, mark_unfinished, states_of

VALIDATION_BATCH = 256
# Steps after which losses and gradients are looked at: a look at a GPU waits until it has done all it was given.
LOOK_EVERY = {"cpu": 1}
LOOK_EVERY_ELSEWHERE = 10


class NeuralClipTrainer(Trainer):
    """`Trainer` with batches of one modality each and validation by retrieval.

    Args:
        recordings ([`JointDataset`]): Training recordings of every modality.
        validation (`list[RecordingDataset]`): Validation recordings, one entry a data set.
        passes (`dict[str, int]`, *optional*): How often an epoch goes over the recordings of a modality.
        min_steps (`int`): Optimiser steps that each modality has in a whole run, or more.
        mini_batch_size (`int`): Rows of a process whose activations are kept at a time; 0 for all of a batch.
        shuffle_buffer_size (`int`): Recordings that are shuffled at a time, row group after row group; 0 for all.
        processor ([`NeuralClipProcessor`], *optional*): Saved with each state, so that it can be used as it is.
        kwargs: Everything else that `Trainer` takes.
    """

    def __init__(
        self,
        recordings: JointDataset,
        validation: list[RecordingDataset],
        passes: dict[str, int] | None = None,
        min_steps: int = 0,
        mini_batch_size: int = 0,
        shuffle_buffer_size: int = 0,
        processor: NeuralClipProcessor | None = None,
        **kwargs: Any,
    ) -> None:
        self.recordings, self.validation, self.passes = recordings, validation, passes or {}
        self.processor, self.shuffle_buffer_size = processor, shuffle_buffer_size
        self.groups = [part.groups for part in recordings.parts] if shuffle_buffer_size else None
        self.warned: set[str] = set()  # modalities that were said to have collapsed
        # steps that were not looked at yet: number, whether loss and gradient are finite, batch
        self.unseen: list[tuple[int, torch.Tensor, dict[str, Any]]] = []
        super().__init__(train_dataset=recordings, eval_dataset=validation, **kwargs)
        args, self.min_steps, self.mini_batch_size = self.args, min_steps, mini_batch_size
        # of a modality in an epoch
        self.min_batches = least_batches(min_steps, args.num_train_epochs, args.gradient_accumulation_steps)
        recordings.share, recordings.stored = (args.process_index, args.world_size), bool(mini_batch_size)
        if args.world_size > 1:
            share_batch_norms(self.accelerator.unwrap_model(self.model))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as `Trainer` does; memory that a step frees is kept for the next one."""
        with freed_memory_kept():
            return super().train(*args, **kwargs)

    def batches(self) -> ModalityBatchSampler:
        """Batches over all processes, in an order that depends on seed and epoch alone."""
        args = self.args
        seed = args.seed if args.data_seed is None else args.data_seed
        sizes = [len(part) for part in self.recordings.parts]
        passes = [self.passes.get(part.modality, 1) for part in self.recordings.parts]
        shuffled = (self.shuffle_buffer_size, self.groups)
        size = args.train_batch_size * args.world_size
        return ModalityBatchSampler(sizes, size, seed, passes, self.min_batches, *shuffled)

    def deciding_batches(self) -> dict[str, Any]:
        """What decides the batches of a run and the state of its optimiser; a resumed one must agree."""
        steps = {"min_steps": self.min_steps, "gradient_accumulation_steps": self.args.gradient_accumulation_steps}
        return self.batches().as_dict() | steps | {"optim": str(getattr(self.args.optim, "value", self.args.optim))}

    def n_steps(self) -> int:
        """Steps that training takes."""
        return self.set_initial_training_values(self.args, self.get_train_dataloader())[-1]

    def steps_of(self, n_steps: int) -> dict[str, int]:
        """How many of so many steps each modality has, by its share of the batches."""
        counts = self.batches().counts
        parts = zip(self.recordings.parts, counts, strict=True)
        return {part.modality: n_steps * count // sum(counts) for part, count in parts}

    def collapsed_at(self, step: int | None) -> list[str]:
        """Modalities whose embeddings were collapsed after a step."""
        scores = [entry for entry in self.state.log_history if "eval_two_way" in entry and entry["step"] == step]
        marked = [name for name in (scores[-1] if scores else {}) if name.endswith("_collapsed")]
        return [name.removeprefix("eval_").removesuffix("_collapsed") for name in marked]

    def get_train_dataloader(self) -> BatchLoader:
        """Loader of the batches; `Trainer` and accelerate are left no say in their order."""
        return BatchLoader(
            self.recordings,
            self.batches(),
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
        )

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Leave the temperature out of weight decay, as CLIP does."""
        return [name for name in super().get_decay_parameter_names(model) if not name.endswith("logit_scale")]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The next batches; an error of a process that loads them keeps its message alone."""
        with raised_by_all(self.args.device):
            try:
                return super().get_batch_samples(*args, **kwargs)
            except DataError as error:
                raise DataError(str(error).rpartition("DataError: ")[2].strip()) from error

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """A step of `Trainer`; every few steps it is looked whether loss and gradients are finite."""
        loss = super().training_step(model, inputs, *args, **kwargs)
        if self.accelerator.sync_gradients and self.args.world_size > 1:
            average_gradients(self.accelerator.unwrap_model(model))
        self.unseen.append((self.state.global_step + 1, torch.isfinite(loss), inputs))
        if not self.accelerator.sync_gradients:  # or else the gradients are looked at too, once they are complete
            self._look()
        return loss

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The loss of a batch, which several processes may share, or which is embedded in parts."""
        if self.args.world_size == 1 and not self.mini_batch_size:
            return super().compute_loss(model, inputs, *args, **kwargs)
        with self.accelerator.autocast():
            return batch_loss(self.accelerator.unwrap_model(model), inputs, self.mini_batch_size).float()

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """The norm of all gradients, which is finite where they are; `Trainer` asks for it before each step."""
        norm = super()._get_grad_norm(model, grad_norm)
        if self.accelerator.scaler is None:  # a scaler looks for itself
            step, finite, inputs = self.unseen[-1]
            self.unseen[-1] = step, finite & torch.isfinite(norm), inputs
        self._look()
        return norm

    def _look(self) -> None:
        """Look at the steps that were not looked at, where they are many enough."""
        if len(self.unseen) >= LOOK_EVERY.get(self.args.device.type, LOOK_EVERY_ELSEWHERE):
            self.check_steps()

    def check_steps(self) -> None:
        """Raise a `DataError` that names the recordings of the first step whose loss or gradient is not finite."""
        unseen, self.unseen = self.unseen, []
        found = torch.stack([finite for _, finite, _ in unseen]).tolist() if unseen else []
        for (step, _, inputs), finite in zip(unseen, found, strict=True):
            if not finite:
                raise shared_error(
                    f"Training diverged: loss or gradient of step {step} is NaN or infinite. "
                    f"{self._recordings_of(inputs)} Try a smaller 'training.learning_rate', full precision ('bf16' "
                    "and 'fp16' false), or recordings with values of about 1."
                )

    def _recordings_of(self, inputs: dict[str, Any]) -> str:
        """Which recordings a batch holds over all processes, each of which asks, and how large their values are."""
        from accelerate.utils import gather_object

        if (stored := inputs.get("recordings")) is not None:
            inputs = {f"{stored.modality}_values": stored.read(slice(None)), **inputs}
        part = next(part for part in self.recordings.parts if f"{part.modality}_values" in inputs)
        subjects = [part.subjects[number] for number in inputs["subject_ids"].tolist()]
        images = part.names_of_images(inputs["image_ids"].tolist())
        largest = [float(row.abs().amax()) for row in inputs[f"{part.modality}_values"]]
        every = list(zip(*gather_object(list(zip(subjects, images, largest, strict=True))), strict=True))
        return (
            f"Its batch holds these recordings of {part.name}, with values up to {max(every[2]):.3g}: "
            f"{named(every[0], every[1])}."
        )

    def evaluate(
        self, eval_dataset: object = None, ignore_keys: object = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Score the validation split: 2-way accuracy (definition A) of each data set and their mean.

        The first process scores for all, so that none reads what another has read.
        """
        from accelerate.utils import broadcast_object_list

        self.check_steps()
        with raised_by_all(self.args.device):
            found = [self._scores(metric_key_prefix) if self.is_world_process_zero() else None]
        (metrics,) = broadcast_object_list(found)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _scores(self, prefix: str) -> dict[str, float]:
        """Scores of the validation split; a collapsed modality is told of and marked."""
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        model.eval()
        scores: dict[str, float] = {}
        warm = self.state.global_step > self.args.get_warmup_steps(self.state.max_steps)
        collapsed = {}
        for part in self.validation:
            embeds = self.embeds_of(model, part)
            if not np.isfinite(embeds).all():
                part.__getitems__(np.flatnonzero(~np.isfinite(embeds).all(axis=1)).tolist())  # raises for such values
                raise DataError(
                    f"Training diverged: after step {self.state.global_step} the embeddings of {part.key} hold "
                    f"NaN or infinity. {spread_of(part.part)} Try a smaller 'training.learning_rate'."
                )
            scores[f"{prefix}_{part.key}_two_way"] = two_way = scores_of(embeds, part)["two_way"]
            if warm and (text := collapse_of(embeds, part.part, two_way)):
                collapsed[f"{prefix}_{part.key}_collapsed"] = 1.0
                if part.key not in self.warned:
                    print(f"warning: after step {self.state.global_step} {text}", file=sys.stderr)
                    self.warned.add(part.key)
        scores[f"{prefix}_two_way"] = sum(scores.values()) / len(scores)
        model.train(was_training)
        return scores | collapsed

    def embeds_of(self, model: PreTrainedModel, part: RecordingDataset) -> np.ndarray:
        """What the model makes of validation recordings."""
        return neural_embeds(model, part)

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """Keep the card that this package writes."""

    def push_to_hub(
        self, commit_message: str | None = "End of training", blocking: bool = True, token: str | None = None,
        revision: str | None = None, private: bool | None = None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        """Push model and processor as [`~NeuralClipModel.push_to_hub`] does; returns its last commit."""
        if not self.is_world_process_zero():
            return None
        args = self.args
        given: dict[str, Any] = {"private": args.hub_private_repo if private is None else private}
        given |= {"token": token or args.hub_token, "revision": revision or args.hub_revision}
        repo = args.hub_model_id or Path(str(args.output_dir)).absolute().name
        parts: list[Any] = [self.accelerator.unwrap_model(self.model), self.processor]
        return [part.push_to_hub(repo, commit_message=commit_message, **given) for part in parts if part is not None][
            -1
        ]

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save a state, say that it is whole, and only then remove older ones."""
        self.check_steps()
        folder = Path(str(self.args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        with raised_by_all(self.args.device):
            check_weights(cast(PreTrainedModel, self.model))
            if self.is_world_process_zero():
                mark_unfinished(folder)
            with self._keeping_states():
                super()._save_checkpoint(model, trial)
        if self.is_world_process_zero():
            self._complete(folder)
            rotate_checkpoints(
                output_dir=str(folder.parent), save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint, use_mtime=True,
            )  # fmt: skip

    def _complete(self, folder: Path) -> None:
        """Write beside a state what `Trainer` does not; it names no folder, which may be moved."""
        state = read_json(folder / TRAINER_STATE_NAME, finite=False)
        write_whole(folder / TRAINER_STATE_NAME, json.dumps(state | {"best_model_checkpoint": None}, indent=2) + "\n")
        write_whole(folder / BATCHES_FILE, json.dumps(self.deciding_batches(), indent=2) + "\n")
        if self.processor is not None:
            self.processor.save_pretrained(folder)
        mark_finished(folder)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """Choose the best state; `Trainer` would remove the last one before the weights are saved."""
        self.check_steps()
        with self._keeping_states():
            return super()._finalize_training(*args, **kwargs)

    @contextmanager
    def _keeping_states(self) -> Iterator[None]:
        """Have `Trainer` remove no state."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            yield
        finally:
            self.args.save_total_limit = limit

    def remove_other_states(self) -> None:
        """Remove what `Trainer` does at the end of a run that keeps one state: all but the best one."""
        best = self.state.best_model_checkpoint
        if best is not None and self.args.save_total_limit == 1:
            for state in states_of(Path(best).parent):
                if state.name != Path(best).name:
                    shutil.rmtree(state)

    def init_hf_repo(self, *args: object, **kwargs: object) -> None:
        """Make no repository before there is something to send."""

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save the model without `training_args.bin`, a pickle that holds paths, host name and token of the Hub."""
        if self.args.should_save:
            model = self.accelerator.unwrap_model(self.model)
            model.save_pretrained(output_dir or self.args.output_dir, state_dict=state_dict)


class KeepTowerInEval(TrainerCallback):
    """Nothing of the frozen tower may change while training: checked at the end of each epoch."""

    def on_epoch_end(self, args: object, state: object, control: object, **kwargs: object) -> None:
        """Raise when the tower trains."""
        tower = getattr(kwargs.get("model"), "vision_model", None)
        if tower is not None and (tower.training or any(p.requires_grad for p in tower.parameters())):
            raise RuntimeError("The frozen vision tower was switched to training.")


class OwnNoise(TrainerCallback):
    """Let each process draw dropout and shifts of its own; the first draws what a single one would."""

    def on_train_begin(self, args: TrainingArguments, state: object, control: object, **kwargs: Any) -> None:
        """Seed all but the first."""
        if args.process_index:
            torch.manual_seed(args.seed + args.process_index)


class BestState(TrainerCallback):
    """Find the best state of a resumed run where it lies now."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: object, **kwargs: Any) -> None:
        """What the state says of a folder is of another time."""
        if state.best_global_step:
            best = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}"
            state.best_model_checkpoint = str(best) if best.is_dir() else None


def neural_embeds(model: PreTrainedModel, recordings: RecordingDataset) -> np.ndarray:
    """What a model in `eval()` mode makes of recordings, `(n_recordings, projection_dim)`, L2-normalised."""

    def forward(**inputs: torch.Tensor) -> torch.Tensor:
        """As in training, mixed precision included."""
        return model(**inputs).neural_embeds

    return embed_recordings(forward, recordings.part, recordings.subject_ids, VALIDATION_BATCH, model.device)


def scores_of(embeds: np.ndarray, recordings: RecordingDataset) -> dict[str, Any]:
    """Retrieval scores of single recordings, `(n_recordings, projection_dim)`, among the images of their own split."""
    part = recordings.part
    return retrieval_scores(embeds, part.targets, part.image_ids.tolist())


def validation_scores(model: PreTrainedModel, recordings: RecordingDataset) -> dict[str, Any]:
    """Retrieval scores of what a model makes of recordings."""
    return scores_of(neural_embeds(model, recordings), recordings)


def validation_two_way(model: PreTrainedModel, recordings: RecordingDataset) -> float:
    """2-way accuracy among them."""
    return validation_scores(model, recordings)["two_way"]
