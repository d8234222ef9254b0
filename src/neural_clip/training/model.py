"""A model from a recipe and the facts of its data sets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from transformers import set_seed

from neural_clip.configuration_neural_clip import NeuralClipConfig
from neural_clip.errors import DataError, check_value
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.target_space import TargetSpace
from neural_clip.targets.encoder import ImageEncoder
from neural_clip.targets.identity import POOLINGS, EncoderIdentity, common_identity
from neural_clip.targets.probes import space_of
from neural_clip.training.recipe import Recipe


def model_config(recipe: Recipe, facts: dict[str, Facts], tower: ImageEncoder | None = None) -> NeuralClipConfig:
    """Join a recipe with what its data sets say of themselves.

    Args:
        recipe ([`Recipe`]): `recipe.model` holds settings of the model, per modality under `eeg`, `meg`, `fmri`.
        facts (`dict[str, Facts]`): `neural_clip.json` of each modality's data set.
        tower ([`ImageEncoder`], *optional*): The image encoder of the data sets, whose architecture is then recorded.

    Raises:
        DataError: If the data sets were embedded by different image encoders, or none.
    """
    settings = dict(recipe.model)
    per_modality = {name: dict(settings.pop(name, None) or {}) for name in MODALITIES}
    identity = common_identity(facts)
    shape: dict[str, Any]
    for modality, found in facts.items():
        kept = trained_subjects(found, modality, per_modality[modality].get("subjects"))
        if not MODALITIES[modality].sensors:
            shape = {"n_voxels": {name: count for name, count in found.n_voxels.items() if name in kept}}
        else:
            names = ("n_chans", "n_times", "sfreq", "tmin", "ch_names", "ch_positions")
            shape = {name: getattr(found, name) for name in names}
        learnt = {"trained_on": [found.stated_terms(kept)]}
        settings[f"{modality}_config"] = {**shape, "subjects": kept, **per_modality[modality], **learnt}
    if tower is not None:
        # without the place on this machine from where it was loaded
        settings["vision_config"] = tower.model.config.to_dict() | {"_name_or_path": ""}
    settings |= identity.as_config()
    settings["category_level"] = any(found.category_level for found in facts.values())
    try:
        return NeuralClipConfig(**settings)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"The recipe's 'model' section cannot be used: {error}") from error


def trained_subjects(facts: Facts, modality: str, wanted: Sequence[str] | None = None) -> list[str]:
    """Subjects who have training rows, or those wanted: an untrained layer would spoil the mean of all.

    Raises:
        DataError: If nobody has training rows, or someone who is wanted has none.
    """
    trained = [subject for subject in facts.subjects if facts.subject_splits[subject].get("train")]
    if not trained:
        raise DataError(f"'data.{modality}' can be scored only: its subjects {facts.subjects} have no training rows.")
    names = isinstance(wanted, list | tuple | None) and len(set(map(str, wanted or ()))) == len(wanted or ())
    check_value(f"model.{modality}.subjects", wanted, names, "a list of subjects, each once")
    for name in wanted or ():
        if name not in trained:
            raise DataError(
                f"'model.{modality}.subjects' names {name!r}, but the subjects with training rows are {trained}."
            )
    return list(wanted or trained)


def load_tower(encoder: dict, required: bool, space: TargetSpace | None = None) -> ImageEncoder | None:
    """Load the image encoder that made the targets, or return `None` where it is neither at hand nor required.

    Args:
        encoder (`dict`): `image_encoder` of the data sets.
        required (`bool`): Whether the checkpoint is to hold it.
        space ([`TargetSpace`], *optional*): Its vectors of the probe images, which it must make again.

    Raises:
        DataError: If it is required and cannot be had, or is not the one that embedded the images.
    """
    expected = EncoderIdentity.of_facts(encoder)
    if expected.pooling not in POOLINGS:
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
    if (here := EncoderIdentity.of_facts(tower.description)) != expected:
        raise DataError(
            f"The images were embedded by {expected.named}, but on this machine that is {here.named}. "
            "Embed the images again with `neural-clip embed-images`."
        )
    found, recorded = tower.description["image_processor"], encoder.get("image_processor")
    if recorded is not None and found != recorded:
        raise DataError(
            f"The images were prepared for {encoder['name']} with {recorded}, but its processor on this machine has "
            f"{found}. Embed the images again with `neural-clip embed-images`."
        )
    different = space.differences(space_of(tower)) if space is not None and space.probes is not None else None
    if different:
        raise DataError(
            f"The images were embedded by {encoder['name']}, but on this machine its vectors are others: "
            f"{'; '.join(different)}. Embed the images again with `neural-clip embed-images`."
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
    except (ImportError, ValueError, TypeError, RuntimeError, MemoryError, OverflowError) as error:  # also of torch
        raise DataError(f"The recipe's 'model' section cannot be used: {error}") from error
    if model.vision_model is not None and tower is not None:
        model.vision_model.load_state_dict(tower.model.state_dict())
    return model
