"""A model from a recipe and the facts of its data sets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from transformers import set_seed

from neural_clip.configuration_neural_clip import NeuralClipConfig
from neural_clip.corpus_inputs import CorpusInputs, common_inputs
from neural_clip.errors import DataError, check_option, check_value
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.prepared.facts import Facts
from neural_clip.prepared.modalities import MODALITIES, kind_of
from neural_clip.target_space import TargetSpace
from neural_clip.targets.encoder import ImageEncoder
from neural_clip.targets.identity import POOLINGS, EncoderIdentity, common_identity
from neural_clip.targets.probes import space_of
from neural_clip.training.recipe import Recipe

SENSOR_FACTS = ("n_chans", "n_times", "sfreq", "tmin")


def model_config(recipe: Recipe, facts: dict[str, Facts], tower: ImageEncoder | None = None) -> NeuralClipConfig:
    """Join a recipe with what its data sets say of themselves.

    Args:
        recipe ([`Recipe`]): `recipe.model` holds settings of the model, per modality under `eeg`, `meg`, `fmri`.
        facts (`dict[str, Facts]`): `neural_clip.json` of each data set, by modality or `modality.corpus`.
        tower ([`ImageEncoder`], *optional*): The image encoder of the data sets, whose architecture is then recorded.

    Raises:
        DataError: If the data sets were embedded by different image encoders, or none.
    """
    settings = dict(recipe.model)
    per_modality = {name: dict(settings.pop(name, None) or {}) for name in MODALITIES}
    identity = common_identity(facts)
    for modality in MODALITIES:
        sets = [found for key, found in facts.items() if kind_of(key) == modality]
        if sets:
            settings[f"{modality}_config"] = encoder_settings(sets, modality, per_modality[modality])
    if tower is not None:
        # without the place on this machine from where it was loaded
        settings["vision_config"] = tower.model.config.to_dict() | {"_name_or_path": ""}
    settings |= identity.as_config()
    settings["category_level"] = any(found.category_level for found in facts.values())
    try:
        return NeuralClipConfig(**settings)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"The recipe's 'model' section cannot be used: {error}") from error


def encoder_settings(sets: Sequence[Facts], modality: str, given: dict[str, Any]) -> dict[str, Any]:
    """Settings of the encoder of a modality: what its data sets say, and what the recipe gives."""
    wanted = given.get("subjects")
    if len(sets) > 1 and wanted is not None:
        check_wanted(wanted, modality, [name for found in sets for name in found.subjects])
    kept = []
    for found in sets:
        own = wanted if len(sets) == 1 or wanted is None else [name for name in wanted if name in found.subjects]
        if own == [] and len(sets) > 1:
            raise DataError(
                f"'model.{modality}.subjects' names nobody of the corpus {found.corpus!r}, who are {found.subjects}. "
                "Leave the data set out, or name some of them."
            )
        kept.append(trained_subjects(found, modality, own))
    everyone = [name for names in kept for name in names]
    shape: dict[str, Any]
    if not MODALITIES[modality].sensors:
        shape = {"n_voxels": {name: n for found in sets for name, n in found.n_voxels.items() if name in everyone}}
    else:
        most = max(sets, key=lambda found: found.n_chans)
        shape = {name: getattr(most, name) for name in (*SENSOR_FACTS, "ch_names", "ch_positions")}
        if len(sets) > 1:
            shape |= inputs_of_corpora(sets)
    learnt = {"trained_on": [found.stated_terms(own) for found, own in zip(sets, kept, strict=True)]}
    return {**shape, **given, "subjects": everyone, **learnt}


def inputs_of_corpora(sets: Sequence[Facts]) -> dict[str, Any]:
    """What the shared network reads of several corpora of EEG or MEG, and what the recordings of each look like."""
    corpora = {found.corpus: CorpusInputs.of(found) for found in sets}
    try:
        common = common_inputs(corpora).as_dict()
    except ValueError as error:
        raise DataError(str(error)) from error
    return common | {"corpora": {name: inputs.as_dict() for name, inputs in corpora.items()}}


def check_wanted(wanted: Any, modality: str, known: Sequence[str]) -> None:
    """Raise a `DataError` unless subjects that a recipe wants are a list of some who are there, each once."""
    names = isinstance(wanted, list | tuple) and len(set(map(str, wanted))) == len(wanted)
    check_value(f"model.{modality}.subjects", wanted, names, "a list of subjects, each once")
    for name in wanted:
        check_option(f"model.{modality}.subjects", name, known)


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
