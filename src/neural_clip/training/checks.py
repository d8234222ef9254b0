"""What is checked before a training starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME

from neural_clip.configuration_neural_clip import NeuralClipConfig
from neural_clip.errors import DataError, check_value
from neural_clip.files.reading import reading
from neural_clip.image_tower_files import weights_digest
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.image_rows import stored_pictures
from neural_clip.prepared.reader import PreparedSet
from neural_clip.publishing.push import open_repository
from neural_clip.target_space import TargetSpace
from neural_clip.targets.encoder import ImageEncoder
from neural_clip.targets.identity import CONFIG_KEYS, EncoderIdentity
from neural_clip.terms import check_terms
from neural_clip.training.recipe import Recipe
from neural_clip.training.run_state import BATCHES_FILE, object_in

N_LOOKED_AT = 8  # images
MADE_COSINE = 0.999  # weaker than that of probes: others may have embedded in 16 bits or after another resizing


def check_named_encoder(recipe: Recipe, encoder: dict) -> None:
    """Raise a `DataError` when the recipe names another image encoder than the one that embedded the images."""
    named = {field: recipe.model.get(key) for field, key in CONFIG_KEYS.items()}
    folder = Path(str(named["name"])).expanduser()
    if folder.is_dir():  # data sets keep the name of a folder and the digest of its weights
        named |= {"name": folder.resolve().name, "revision": named["revision"] or weights_digest(folder)}
    found = EncoderIdentity.of_facts(encoder)
    found.changed(**named).require_name(found, "The recipe's 'model' section", data_places(recipe))


def check_resumed_encoder(checkpoint: str, recipe: Recipe, found: EncoderIdentity) -> None:
    """Raise a `DataError` when a checkpoint was trained on embeddings of another image encoder than the data's."""
    if not Path(checkpoint, "config.json").is_file():
        raise DataError(f"'{checkpoint}' cannot be resumed from: it has no config.json.")
    expected = EncoderIdentity.of_config(NeuralClipConfig.from_pretrained(checkpoint))
    if expected is not None:
        expected.require(found, f"The checkpoint '{checkpoint}'", data_places(recipe))


def check_made_by(tower: ImageEncoder, data: PreparedSet) -> None:
    """Raise a `DataError` when an image encoder makes other embeddings of a data set's images than those it holds.

    Looks at `N_LOOKED_AT` images, spread over the table. Without pixels nothing can be looked at.
    """
    stored = data.stored_images
    if "image" not in stored.column_names:
        return
    rows = np.unique(np.linspace(0, len(stored) - 1, N_LOOKED_AT).astype(int))
    made = tower.encode(stored_pictures(stored, rows.tolist(), data.folder))
    raw = data.moved_to(TargetSpace()).images.embeds[rows]
    cosines = (raw * made).sum(axis=1) / np.linalg.norm(raw, axis=1) / np.linalg.norm(made, axis=1)
    if not (cosines >= MADE_COSINE).all():  # NaN fails too
        name = stored["image_id"][int(rows[np.argmin(cosines)])]
        raise DataError(
            f"The image embeddings of '{data.name}' are not those that {tower.description['name']!r} makes of its "
            f"images: image {name!r} has a cosine of {cosines.min():.4f}, where {MADE_COSINE} is needed. Embed them "
            "by `neural-clip embed-images FOLDER --overwrite`, or name the encoder that made them."
        )


def data_places(recipe: Recipe) -> str:
    """The data sets of a recipe, for messages."""
    return " and ".join(f"'{folder}'" for _, folder in recipe.folders)


def check_objective(recipe: Recipe) -> None:
    """Raise a `DataError` for batches of one recording where the loss compares the recordings of a batch."""
    arguments = recipe.training_arguments
    size = arguments.train_batch_size * arguments.world_size
    if recipe.model.get("objective", "infonce") == "infonce":
        check_value("training.per_device_train_batch_size", size, size > 1, "2 and more for the contrastive loss")


def check_mini_batches(size: int, model: PreTrainedModel) -> None:
    """Raise a `DataError` where a part of a batch could be one recording, of which a batch norm knows no variance."""
    normed = any(isinstance(module, _BatchNorm) for module in model.modules())
    # parts of a batch are of nearly equal size: 3 recordings in parts of 2 are 2 and 1
    allowed = "0 (the whole batch at once) or 3 and more for networks with batch norms"
    check_value("mini_batch_size", size, size == 0 or size > 2 or not normed, allowed)


def check_streaming(recipe: Recipe) -> None:
    """Raise a `DataError` where processes that load recordings would each keep row groups of their own."""
    workers = recipe.training_arguments.dataloader_num_workers
    allowed = "0 where recordings are streamed: the training process reads them itself"
    check_value("training.dataloader_num_workers", workers, not (recipe.streaming and workers), allowed)


def check_modalities(data: list[tuple[str, PreparedSet]]) -> None:
    """Raise a `DataError` when a folder holds another modality than the one it is given for."""
    for modality, opened in data:
        if opened.facts.modality != modality:
            raise DataError(f"'data.{modality}' is '{opened.name}', but that data set holds {opened.facts.modality}.")


def check_folds(train: list[Any]) -> None:
    """Raise a `DataError` for cross-validation over several corpora of one modality."""
    several = [part.name for part in train if len(part.sets) > 1]
    if several:
        raise DataError(
            f"{several[0]} hold no validation recordings, and several corpora of one modality are not "
            "cross-validated. Prepare one of them with a share for validation, or choose 0 as 'folds' of the recipe "
            "for the last weights of a training on all."
        )


def check_resumed_batches(checkpoint: str, batches: dict[str, Any]) -> int:
    """Raise a `DataError` where a run would not see the batches that the checkpoint's run was about to see.

    Args:
        checkpoint (`str`): Folder of a checkpoint; an older one tells the number of processes alone.
        batches (`dict`): What decides the batches of this run.

    Returns:
        `int`: Batches of a modality that an epoch has at least. More epochs would need fewer, but the run that goes on
            keeps those that it began with.
    """
    processes = {"num_processes": max(len(list(Path(checkpoint).glob("rng_state_*.pth"))), 1)}
    before = {"min_steps": 0, "min_batches": 0, "shuffle_buffer_size": 0} | (
        object_in(Path(checkpoint, BATCHES_FILE)) or processes
    )
    min_batches = before.pop("min_batches")
    if (several := before.pop("num_processes", 1)) != 1:
        raise DataError(
            f"'{checkpoint}' cannot be resumed from: its {several} processes each compared recordings of their own, "
            "as no run does any more. Train anew with `--overwrite`."
        )
    changed = {name: (value, batches.get(name)) for name, value in before.items() if batches.get(name) != value}
    if changed:
        told = "; ".join(f"'{name}' was {old} and is {new}" for name, (old, new) in changed.items())
        raise DataError(
            f"'{checkpoint}' cannot be resumed from with other settings: {told}. Give what it was, or train anew with "
            "`--overwrite`."
        )
    return min_batches


def check_resumed_weights(checkpoint: Path, model: PreTrainedModel) -> None:
    """Raise a `DataError` where a checkpoint holds the weights of another model than the recipe makes."""
    path = checkpoint / SAFE_WEIGHTS_NAME
    if not path.is_file():
        return
    with reading(path), safe_open(path, framework="pt") as file:
        found = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    made = {name: list(value.shape) for name, value in model.state_dict().items()}
    changed = [name for name in sorted(found | made) if found.get(name) != made.get(name)]
    if changed:
        name = changed[0]
        raise DataError(
            f"'{checkpoint}' cannot be resumed from with another model: {len(changed)} weights differ, as '{name}', "
            f"of shape {found.get(name)} there and {made.get(name)} by the recipe. Give the 'model' section that the "
            "run began with, or train anew with `--overwrite`."
        )


def is_public(recipe: Recipe) -> bool:
    """Whether what a recipe pushes is to be public."""
    return recipe.training_arguments.hub_private_repo is not True  # by `null` the Hub would make a public one


def check_push(recipe: Recipe, facts: dict[str, Facts]) -> None:
    """Raise a `DataError` where the checkpoint could not be pushed, or would become public against its terms."""
    arguments = recipe.training_arguments
    if not arguments.push_to_hub:
        return
    terms = {f"{found.corpus} ({name})": found.redistribution for name, found in facts.items()}
    what = "This model ('training.push_to_hub' is true)"
    if is_public(recipe):
        check_terms(f"{what}, for which 'training.hub_private_repo' is {arguments.hub_private_repo},", terms)
    repo = str(arguments.hub_model_id or "")
    if "/" not in repo:
        raise DataError(f"Give 'training.hub_model_id' as ORG/NAME, so that it can be checked; it is {repo!r}.")
    if arguments.process_index == 0:
        open_repository(repo, "model", what, terms, is_public(recipe), arguments.hub_token)
