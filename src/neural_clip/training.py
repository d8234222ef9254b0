"""Training on `transformers.Trainer`: from a recipe and prepared data sets to a checkpoint.

Start it with `accelerate launch train.py RECIPE.yaml`, `python train.py ...`, `torchrun ... train.py ...` or
`neural-clip train RECIPE.yaml`. See [`Recipe`] for what a recipe holds. With several processes each compares its own
recordings with its own images: negatives are not gathered, so two processes with batches of 64 are not one with 128.
"""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata as package_metadata
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerState, TrainingArguments, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from neural_clip.configuration_neural_clip import NeuralClipConfig
from neural_clip.data import (
    JointDataset,
    ModalityBatchSampler,
    RecordingDataset,
    load_metadata,
    resolve_folder,
    whole_batch,
)
from neural_clip.errors import DataError
from neural_clip.image_encoder import (
    CONFIG_KEYS,
    ENCODER_KEYS,
    POOLINGS,
    ImageEncoder,
    check_same_encoder,
    configured_encoder,
    model_encoder,
    weights_digest,
)
from neural_clip.image_retrieval import retrieval_scores
from neural_clip.model_card import write_model_card
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.processing_neural_clip import NeuralClipProcessor
from neural_clip.pushing import check_terms, find_repository, hub
from neural_clip.recipes import Recipe, read_recipe
from neural_clip.whole_files import write_whole

VALIDATION_BATCH = 256
RECORDED_FACTS = ("corpus", "fingerprint", "splits", "subjects", "split_protocol", "redistribution")


def model_config(recipe: Recipe, facts: dict[str, dict], tower: ImageEncoder | None = None) -> NeuralClipConfig:
    """Join a recipe with what its data sets say of themselves.

    Args:
        recipe ([`Recipe`]): `recipe.model` holds settings of the model, per modality under `eeg`, `meg`, `fmri`.
        facts (`dict[str, dict]`): `neural_clip.json` of each modality's data set.
        tower ([`ImageEncoder`], *optional*): The image encoder of the data sets, whose architecture is then recorded.

    Raises:
        DataError: If the data sets were embedded by different image encoders, or none.
    """
    settings = dict(recipe.model)
    per_modality = {name: dict(settings.pop(name, None) or {}) for name in ("eeg", "meg", "fmri")}
    encoder = common_image_encoder(facts)
    shape: dict[str, Any]
    for modality, metadata in facts.items():
        if modality == "fmri":
            kept = per_modality[modality].get("subjects", metadata["subjects"])
            shape = {"n_voxels": {name: count for name, count in metadata["n_voxels"].items() if name in kept}}
        else:
            shape = {key: metadata[key] for key in ("n_chans", "n_times", "sfreq", "tmin", "ch_names")}
            shape["ch_positions"] = metadata.get("ch_positions")  # data sets prepared by older versions have none
        settings[f"{modality}_config"] = {**shape, "subjects": metadata["subjects"], **per_modality[modality]}
    if tower is not None:
        settings["vision_config"] = tower.model.config.to_dict()
    expected = configured_encoder(encoder)
    settings |= {key: expected[name] for name, key in CONFIG_KEYS.items()}
    settings["category_level"] = any(metadata["category_level"] for metadata in facts.values())
    try:
        return NeuralClipConfig(**settings)
    except (TypeError, ValueError) as error:
        raise DataError(f"The recipe's 'model' section cannot be used: {error}") from error


def common_image_encoder(facts: dict[str, dict]) -> dict:
    """Return the image encoder that all data sets share, or raise a `DataError`."""
    encoders = {modality: metadata["image_encoder"] for modality, metadata in facts.items()}
    lacking = [modality for modality, encoder in encoders.items() if encoder is None]
    if lacking:
        raise DataError(f"The images of {lacking} have no embeddings; run `neural-clip embed-images FOLDER` first.")
    distinct = {tuple(encoder[key] for key in ENCODER_KEYS) for encoder in encoders.values()}
    processors = {json.dumps(encoder.get("image_processor"), sort_keys=True) for encoder in encoders.values()}
    if len(distinct) > 1 or len(processors - {"null"}) > 1:  # ready-made embeddings have none
        raise DataError(f"The data sets were embedded by different image encoders: {encoders}. Embed them alike.")
    return next(iter(encoders.values()))


def check_named_encoder(recipe: Recipe, encoder: dict) -> None:
    """Raise a `DataError` when the recipe names another image encoder than the one that embedded the images."""
    named = {name: recipe.model[key] for name, key in CONFIG_KEYS.items() if recipe.model.get(key) is not None}
    folder = Path(str(named.get("name"))).expanduser()
    if folder.is_dir():  # data sets keep the name of a folder and the digest of its weights
        named = {"revision": weights_digest(folder)} | named | {"name": folder.resolve().name}
    check_same_encoder(named, "The recipe's 'model' section", configured_encoder(encoder), data_places(recipe))


def check_resumed_encoder(checkpoint: str, recipe: Recipe, encoder: dict) -> None:
    """Raise a `DataError` when a checkpoint was trained on embeddings of another image encoder than the data's."""
    if not Path(checkpoint, "config.json").is_file():
        raise DataError(f"'{checkpoint}' cannot be resumed from: it has no config.json.")
    expected = model_encoder(NeuralClipConfig.from_pretrained(checkpoint))
    if expected is not None:
        check_same_encoder(
            expected, f"The checkpoint '{checkpoint}'", configured_encoder(encoder), data_places(recipe)
        )


def data_places(recipe: Recipe) -> str:
    """The data sets of a recipe, for messages."""
    return " and ".join(f"'{folder}'" for folder in recipe.data.values())


def check_modalities(data: dict[str, str], facts: dict[str, dict]) -> None:
    """Raise a `DataError` when a folder holds another modality than the one it is given for."""
    for modality, metadata in facts.items():
        if metadata["modality"] != modality:
            raise DataError(
                f"'data.{modality}' is '{data[modality]}', but that data set holds {metadata['modality']}."
            )


def load_tower(encoder: dict, required: bool) -> ImageEncoder | None:
    """Load the image encoder that made the targets, or return `None` where it is neither at hand nor required.

    Raises:
        DataError: If it is required and cannot be had, or is not the one that embedded the images.
    """
    if encoder["pooling"] not in POOLINGS:
        if required:
            raise DataError(
                f"'include_vision_tower' is true, but the targets are ready-made embeddings ({encoder['name']})."
            )
        return None
    of_folder = str(encoder["revision"]).startswith("sha256:")
    try:
        tower = ImageEncoder(encoder["name"], None if of_folder else encoder["revision"], "cpu", encoder["pooling"])
    except DataError as error:
        if required:
            raise
        print(f"note: the checkpoint will not embed images by itself: {error}", file=sys.stderr)
        return None
    if tower.description["revision"] != encoder["revision"]:
        raise DataError(
            f"The images were embedded by {encoder['name']} with weights {encoder['revision']}, but those on this "
            f"machine are {tower.description['revision']}. Embed the images again with `neural-clip embed-images`."
        )
    found, recorded = tower.description["image_processor"], encoder.get("image_processor")
    if recorded is not None and found != recorded:
        raise DataError(
            f"The images were prepared for {encoder['name']} with {recorded}, but its processor on this machine has "
            f"{found}. Embed the images again with `neural-clip embed-images`."
        )
    return tower


def build_model(config: NeuralClipConfig, tower: ImageEncoder | None, seed: int) -> NeuralClipModel:
    """Make a model from a seed, with the frozen tower's weights if the checkpoint is to hold them.

    Raises:
        DataError: If a network cannot be made as the configuration says.
    """
    set_seed(seed)
    try:
        model = NeuralClipModel(config)
    except (ImportError, ValueError) as error:
        raise DataError(f"The recipe's 'model' section cannot be used: {error}") from error
    if model.vision_model is not None and tower is not None:
        model.vision_model.load_state_dict(tower.model.state_dict())
    return model


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


@torch.no_grad()
def embed_recordings(model: PreTrainedModel, recordings: RecordingDataset) -> torch.Tensor:
    """Embed all recordings of a data set with a model in `eval()` mode.

    Returns:
        `torch.FloatTensor` of shape `(n_recordings, projection_dim)`: L2-normalised, on the CPU.
    """
    embeds = []
    for start in range(0, len(recordings), VALIDATION_BATCH):
        batch = recordings.__getitems__(list(range(start, min(start + VALIDATION_BATCH, len(recordings)))))
        values = batch[f"{recordings.modality}_values"].to(model.device)
        output = model(
            **{f"{recordings.modality}_values": values, "subject_ids": batch["subject_ids"].to(model.device)}
        )
        embeds.append(output.neural_embeds.float().cpu())
    return torch.cat(embeds)


def validation_two_way(model: PreTrainedModel, recordings: RecordingDataset) -> float:
    """2-way accuracy of single recordings among the images of their own split."""
    embeds = embed_recordings(model, recordings).numpy()
    images = recordings.images
    rows = recordings.image_rows
    return retrieval_scores(embeds, images.embeds[rows], [images.image_ids[row] for row in rows])["two_way"]


def prepare_output(recipe: Recipe, output_dir: Path) -> str | None:
    """Return the checkpoint to resume from, or raise a `DataError` rather than overwrite a run."""
    if given := recipe.training_arguments.resume_from_checkpoint:
        raise DataError(
            f"'training.resume_from_checkpoint' is {given!r}, but runs go on from the last checkpoint in their own "
            "'output_dir'. Copy it there and pass `--resume true`."
        )
    checkpoint = get_last_checkpoint(str(output_dir)) if output_dir.is_dir() else None
    if recipe.resume:
        if checkpoint is None:
            raise DataError(f"'resume' is true, but '{output_dir}' holds no checkpoint to resume from.")
        return checkpoint
    if checkpoint or (output_dir / "config.json").exists():
        if not recipe.overwrite:
            raise DataError(
                f"'{output_dir}' holds an earlier run. Pass `--resume true` to go on or `--overwrite true`."
            )
        if recipe.training_arguments.process_index == 0:
            for old in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
                shutil.rmtree(old)
    return None


def check_push(recipe: Recipe, facts: dict[str, dict]) -> None:
    """Raise a `DataError` when weights learnt from data that must not be redistributed would become public."""
    arguments = recipe.training_arguments
    if not arguments.push_to_hub:
        return
    terms = {f"{metadata['corpus']} ({name})": metadata["redistribution"] for name, metadata in facts.items()}
    what = "This model ('training.push_to_hub' is true)"
    if arguments.hub_private_repo is not True:
        check_terms(f"{what}, for which 'training.hub_private_repo' is {arguments.hub_private_repo},", terms)
    elif any(term != "allowed" for term in terms.values()):
        # a repository that is public already would stay so
        repo = str(arguments.hub_model_id or "")
        if "/" not in repo:
            raise DataError(f"Give 'training.hub_model_id' as ORG/NAME, so that it can be checked; it is {repo!r}.")
        known = find_repository(hub(repo), repo, "model")
        if known is not None and not known.private:
            check_terms(f"{what}, for which '{repo}' is a public repository,", terms)


def recorded_facts(metadata: dict, subjects: Sequence[str]) -> dict:
    """What the record of a checkpoint says of a data set, of which it may have seen some subjects only."""
    facts = {key: metadata[key] for key in RECORDED_FACTS}
    if list(subjects) != list(metadata["subjects"]):
        counts = [metadata["subject_splits"][name] for name in subjects]
        rows = {split: sum(count.get(split, 0) for count in counts) for split in metadata["splits"]}
        facts |= {"subjects": list(subjects), "splits": {split: {"rows": count} for split, count in rows.items()}}
    return facts


def training_record(recipe: Recipe, facts: dict[str, dict], trainer: Trainer) -> dict:
    """Collect what made a checkpoint: recipe, data, versions, seed, validation scores."""
    packages = ("neural_clip", "torch", "transformers", "datasets", "accelerate", "numpy")
    simulated = [name for name, metadata in facts.items() if metadata["simulated"]]
    config: Any = cast(PreTrainedModel, trainer.model).config
    return {
        "command": shlex.join(sys.argv),
        "recipe": recipe.as_dict(),
        "seed": recipe.training_arguments.seed,
        "data": {
            name: recorded_facts(metadata, getattr(config, f"{name}_config").subjects)
            for name, metadata in facts.items()
        },
        "simulated": simulated,
        "image_encoder": common_image_encoder(facts),
        "best_validation_two_way": trainer.state.best_metric,
        "best_step": trainer.state.best_global_step,
        "epochs": trainer.state.epoch,
        "steps": trainer.state.global_step,
        "validation": [entry for entry in trainer.state.log_history if "eval_two_way" in entry],
        "processes": trainer.args.world_size,
        "device": str(trainer.args.device),
        "python": platform.python_version(),
        "versions": {name: package_metadata.version(name) for name in packages},
    }


def train(recipe: Recipe) -> Path:
    """Train a model as a recipe says and save it whole.

    Args:
        recipe ([`Recipe`]): What to train on, what to build and how.

    Returns:
        `Path`: The folder with the best checkpoint by validation 2-way accuracy, its processor, card and record.

    Raises:
        DataError: If the recipe or a data set cannot be used; nothing is overwritten.
    """
    arguments = recipe.training_arguments
    output_dir = Path(str(arguments.output_dir))
    folders = {modality: str(resolve_folder(folder)) for modality, folder in recipe.data.items()}
    facts = {modality: load_metadata(folder) for modality, folder in folders.items()}
    check_modalities(folders, facts)
    check_push(recipe, facts)
    encoder = common_image_encoder(facts)
    check_named_encoder(recipe, encoder)
    resume_from = prepare_output(recipe, output_dir)
    if resume_from is not None:
        check_resumed_encoder(resume_from, recipe, encoder)
    tower = load_tower(encoder, required=bool(recipe.model.get("include_vision_tower")))
    config = model_config(recipe, facts, tower)
    subjects = {name: getattr(config, f"{name}_config").subjects for name in facts}
    train_parts = [RecordingDataset(folders[name], "train", subjects[name]) for name in facts]
    validation_parts = [RecordingDataset(folders[name], "validation", subjects[name]) for name in facts]
    processor = NeuralClipProcessor.from_config(config, tower.processor if tower else None)
    trainer = NeuralClipTrainer(
        model=build_model(config, tower, arguments.seed),
        args=arguments,
        recordings=JointDataset(train_parts),
        validation=validation_parts,
        passes=recipe.passes,
        callbacks=[KeepTowerInEval(), SaveProcessor(processor)],
    )
    trainer.train(resume_from_checkpoint=resume_from)
    trainer.save_model(str(output_dir))
    if trainer.is_world_process_zero():
        processor.save_pretrained(output_dir)
        record = training_record(recipe, facts, trainer)
        write_whole(output_dir / "training.json", json.dumps(record, indent=2) + "\n")
        write_model_card(output_dir)
        print(f"checkpoint: {output_dir}  (best validation 2-way {trainer.state.best_metric:.4f})", file=sys.stderr)
    if arguments.push_to_hub:
        trainer.push_to_hub()
    return output_dir


def main(argv: Sequence[str] | None = None) -> None:
    """Read a recipe with its overrides and train."""
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()  # opening a prepared data set is quick; the bar that matters is the training's
    train(read_recipe(sys.argv[1:] if argv is None else list(argv)))
