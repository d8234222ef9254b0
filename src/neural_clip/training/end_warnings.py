"""What is said of a training that is over and had too few steps, or learnt nothing that shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from neural_clip.retrieval.scores import score_queries
from neural_clip.retrieval.scoring import MIN_CLUSTERS
from neural_clip.retrieval.uncertainty import bootstrap_interval
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.trainer import NeuralClipTrainer

OF_ALL_FOLDS = (
    "This compares the recordings of all folds with the images of all folds; the epochs were chosen by the mean over "
    "folds, each by its own images, and over data sets."
)


def end_warnings(
    trainer: NeuralClipTrainer,
    scored: Sequence[RecordingDataset],
    network: Mapping[str, np.ndarray],
    n_held_out: int = 0,
) -> list[str]:
    """Sentences for the end of a training, its record and its card; none where there is nothing to say.

    Args:
        trainer ([`NeuralClipTrainer`]): Has trained.
        scored (sequence of [`RecordingDataset`]): Validation recordings, or those that cross-validation held out.
        network (`Mapping[str, np.ndarray]`): By data set what its model makes of these, with the weights that are
            kept, or what the models made that had not seen them.
        n_held_out (`int`): Epochs that cross-validation chose from; 0 without.
    """
    return [*_few_steps(trainer), *_at_chance(trainer, scored, network, n_held_out)]


def _few_steps(trainer: NeuralClipTrainer) -> list[str]:
    """Fewer steps than the learning rate takes to rise, in all or of a modality."""
    n_steps = trainer.state.global_step
    warmup = trainer.args.get_warmup_steps(trainer.state.max_steps)
    more = "Give more epochs, or 'min_steps'."
    if n_steps < warmup:
        return [
            f"training took {n_steps} steps, fewer than the {warmup} of its warm-up, so that the learning rate never "
            f"reached {trainer.args.learning_rate:g}. {more}"
        ]
    few = [f"{steps} of {name}" for name, steps in trainer.steps_of(n_steps).items() if steps < warmup]
    told = f"training took {n_steps} steps, about {' and '.join(few)}, fewer than the {warmup} of its warm-up. {more}"
    return [told] if few else []


def _at_chance(
    trainer: NeuralClipTrainer, scored: Sequence[RecordingDataset], network: Mapping[str, np.ndarray], n_held_out: int
) -> list[str]:
    """Data sets whose score on recordings that were not learnt from cannot be told from that of guessing."""
    n_scored = len([entry for entry in trainer.state.log_history if "eval_two_way" in entry])
    n_chosen_from = n_held_out or (n_scored if trainer.args.load_best_model_at_end else 1)
    found = ((part, chance_of(network[part.key], part, n_chosen_from)) for part in scored)
    which = "2-way accuracy on held-out recordings" if n_held_out else "validation 2-way accuracy"
    folds = f" {OF_ALL_FOLDS}" if n_held_out else ""
    return [
        f"the network of {part.key} cannot be told from chance: its {which} is {score}, and guessing gives 0.5.{folds}"
        for part, score in found
        if score is not None
    ]


def chance_of(embeds: np.ndarray, recordings: RecordingDataset, n_chosen_from: int) -> str | None:
    """The 2-way accuracy and its interval where that reaches down to 0.5, else nothing.

    Args:
        embeds (`np.ndarray` of shape `(n_recordings, projection_dim)`): What the network makes of the recordings.
        recordings ([`RecordingDataset`]): Images are resampled, or single recordings at category level. Fewer than
            `MIN_CLUSTERS` of them have no interval, and the accuracy itself decides.
        n_chosen_from (`int`): Epochs of which these weights are the best by these very recordings. The best of many
            lies above 0.5 by luck, so that the interval is as wide as that many together need (Bonferroni).
    """
    part = recordings.part
    ids = part.image_ids.tolist()
    two_way = score_queries(embeds, part.gallery_embeds, ids, part.gallery_ids.tolist())["two_way"]
    units = list(range(len(ids))) if part.category_level else ids
    if len(set(units)) < MIN_CLUSTERS:
        return None if two_way.mean() > 0.5 else f"{two_way.mean():.3f}"
    low, high = bootstrap_interval(two_way, units, seed=0, level=1 - 0.05 / max(n_chosen_from, 1))
    if low > 0.5:
        return None
    best = f", the best of {n_chosen_from}" if n_chosen_from > 1 else ""
    return f"{two_way.mean():.3f} (95 % interval {max(low, 0):.3f} to {min(high, 1):.3f}{best})"
