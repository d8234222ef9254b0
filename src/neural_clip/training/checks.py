"""What is checked before a training starts."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from neural_clip.configuration_neural_clip import NeuralClipConfig
from neural_clip.errors import DataError, check_value
from neural_clip.image_tower_files import weights_digest
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.image_rows import stored_pictures
from neural_clip.prepared.reader import PreparedSet
from neural_clip.publishing.hub import find_repository, hub
from neural_clip.publishing.terms import check_terms
from neural_clip.target_space import TargetSpace
from neural_clip.targets.encoder import ImageEncoder
from neural_clip.targets.identity import CONFIG_KEYS, EncoderIdentity
from neural_clip.training.recipe import Recipe

N_LOOKED_AT = 8  # images
MADE_COSINE = 0.999  # weaker than that of probes: others may have embedded in 16 bits or after another resizing
BATCHES_FILE = "batches.json"  # of a checkpoint: what decides the batches that come next


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
    made = tower.encode(stored_pictures(stored, rows.tolist()))
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
    return " and ".join(f"'{folder}'" for folder in recipe.data.values())


def check_objective(recipe: Recipe) -> None:
    """Raise a `DataError` for batches of one recording where the loss compares the recordings of a batch."""
    size = recipe.training_arguments.train_batch_size
    if recipe.model.get("objective", "infonce") == "infonce":
        check_value("training.per_device_train_batch_size", size, size > 1, "2 and more for the contrastive loss")


def check_modalities(data: dict[str, PreparedSet]) -> None:
    """Raise a `DataError` when a folder holds another modality than the one it is given for."""
    for modality, opened in data.items():
        if opened.facts.modality != modality:
            raise DataError(f"'data.{modality}' is '{opened.name}', but that data set holds {opened.facts.modality}.")


def _number(checkpoint: Path) -> int:
    """Steps that a checkpoint was written after; -1 for a folder of another name."""
    number = checkpoint.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
    return int(number) if number.isdigit() else -1


def is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint holds all that a run needs to go on: what an interruption left half does not."""
    recorded = checkpoint / BATCHES_FILE
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))  # written last by the first process
        n_processes = json.loads(recorded.read_text())["num_processes"] if recorded.is_file() else 1
    except (OSError, ValueError):
        return False
    n_states = len(list(checkpoint.glob("rng_state*.pth")))  # of each process
    return n_states >= n_processes and all(
        (checkpoint / f"{name}.pt").is_file() for name in ("optimizer", "scheduler")
    )


def check_resumed_batches(checkpoint: str, batches: dict[str, Any]) -> None:
    """Raise a `DataError` where a run would not see the batches that the checkpoint's run was about to see.

    Args:
        checkpoint (`str`): Folder of a checkpoint; an older one tells the number of processes alone.
        batches (`dict`): What decides the batches of this run.
    """
    path = Path(checkpoint, BATCHES_FILE)
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
    else:
        before = {"num_processes": max(len(list(path.parent.glob("rng_state_*.pth"))), 1)}
    changed = {name: (value, batches.get(name)) for name, value in before.items() if batches.get(name) != value}
    if changed:
        told = "; ".join(f"'{name}' was {old} and is {new}" for name, (old, new) in changed.items())
        raise DataError(
            f"'{checkpoint}' cannot be resumed from with other batches: {told}. Give what it was, or train anew with "
            "`--overwrite`."
        )


def prepare_output(recipe: Recipe, output_dir: Path) -> str | None:
    """Return the checkpoint to resume from, or raise a `DataError` rather than overwrite a run; nothing is changed."""
    if given := recipe.training_arguments.resume_from_checkpoint:
        raise DataError(
            f"'training.resume_from_checkpoint' is {given!r}, but runs go on from the last checkpoint in their own "
            "'output_dir'. Copy it there and pass `--resume`."
        )
    found = output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    checkpoints = sorted((path for path in found if _number(path) >= 0), key=_number)
    if recipe.resume:
        if not checkpoints:
            raise DataError(f"'resume' is true, but '{output_dir}' holds no checkpoint to resume from.")
        whole = [path for path in checkpoints if is_whole(path)]
        if not whole:
            raise DataError(
                f"{', '.join(repr(str(path)) for path in checkpoints)} cannot be resumed from: the state of the "
                "optimiser or of the run is missing. 'training.save_only_model' was true, or the run was interrupted "
                "while it wrote."
            )
        if whole[-1] != checkpoints[-1] and recipe.training_arguments.process_index == 0:
            print(f"note: '{checkpoints[-1]}' is half written; going on from '{whole[-1]}'.", file=sys.stderr)
        return str(whole[-1])
    if not recipe.overwrite and (checkpoints or (output_dir / "config.json").exists()):
        raise DataError(
            f"'{output_dir}' holds an earlier run. Pass `--resume` to go on or `--overwrite` to replace it."
        )
    return None


def remove_checkpoints(output_dir: Path) -> None:
    """Remove those of an earlier run that is to be replaced."""
    for old in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(old)


def check_push(recipe: Recipe, facts: dict[str, Facts]) -> None:
    """Raise a `DataError` when weights learnt from data that must not be redistributed would become public."""
    arguments = recipe.training_arguments
    if not arguments.push_to_hub:
        return
    terms = {f"{found.corpus} ({name})": found.redistribution for name, found in facts.items()}
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
