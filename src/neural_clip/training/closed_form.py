"""Put a closed form beside a trained network, as far as the validation split says that it helps.

1. The closed form is fitted on the training rows; way and strength are chosen as for the baseline of that name
   (`evaluation/baselines/closed_form.py`).
2. Network and closed form are blended: w n / s_n + (1 - w) r / s_r, with s the spread of each one's cosines to the
   validation images. w has the lowest cross-entropy on the validation rows, weighed against `PRIOR` where these are
   few.
3. The scores of network, closed form and blend on the validation rows are recorded, and what the blend predicts of
   these is kept (`evaluation/validation_predictions.py`).
4. The closed form is fitted once more, on training and validation rows, with everything that was chosen. From then on
   the validation rows are rows that it has seen.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from neural_clip.errors import DataError
from neural_clip.evaluation.baselines.closed_form import (
    GAMMA,
    choose,
    choose_by_folds,
    cross_entropy,
    ready,
    scores_of,
    spread_of,
    undoing,
)
from neural_clip.evaluation.baselines.closed_form_fit import fit_of
from neural_clip.evaluation.baselines.ridge import one_thread
from neural_clip.evaluation.baselines.strengths import BY_HELD_OUT, n_told_apart, require_rows, require_validation
from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.prepared.reader import Split
from neural_clip.prepared.streamed_rows import StreamedRows
from neural_clip.training.batches import RecordingDataset
from neural_clip.training.closed_form_maps import (
    NETWORK_ALONE,
    Blend,
    CarryOver,
    Maps,
    fill,
    fill_beside,
    fill_corpora,
)
from neural_clip.training.folds import held_out_units, number_of
from neural_clip.training.ridge_start import of_subject

WEIGHTS = np.linspace(0.0, 1.0, 21)  # of the network
PRIOR, PRIOR_STRENGTH = 0.4, 5.0  # nats a squared difference of w: validation rows of small sets are few
UNFITTED = (DataError, MemoryError, np.linalg.LinAlgError)  # the network stands without it


def best_blend(network: np.ndarray, closed_form: np.ndarray, validation: Split) -> Blend:
    """The blend with the lowest cross-entropy on validation rows, weighed against the prior.

    Args:
        network, closed_form (`np.ndarray` of shape `(n_rows, projection_dim)`): Of the validation rows, by a network
            and a closed form that have not seen them.
        validation ([`Split`]): Those rows.
    """
    spreads = [spread_of(embeds, validation) for embeds in (network, closed_form)]
    usable = [spread > np.finfo(np.float32).eps for spread in spreads]
    if not all(usable):  # one of the two tells nothing apart
        return Blend(
            float(usable[0]), *(spread if fine else 1.0 for spread, fine in zip(spreads, usable, strict=True))
        )
    costs = []
    for weight in WEIGHTS:
        entropy = cross_entropy(Blend(weight, *spreads)(network, closed_form), validation)
        costs.append(len(validation) * entropy + PRIOR_STRENGTH * (weight - PRIOR) ** 2)
    return Blend(float(WEIGHTS[int(np.argmin(costs))]), *spreads)


@dataclass(frozen=True)
class Fitted:
    """A closed form, and how it was chosen.

    Args:
        record (`dict`): What was chosen and why, or `left_out` with the reason.
        embeds (`np.ndarray` of shape `(n_rows, projection_dim)`): What the blend predicts of the rows that it was
            chosen by, before the last fit; the network alone where there is no closed form.
        maps ([`Maps`], *optional*): Of all rows; `None` where the network is better alone.
        blend ([`Blend`]): Of network and maps.
    """

    record: dict[str, Any]
    embeds: np.ndarray
    maps: Maps | None = None
    blend: Blend = NETWORK_ALONE


def add_closed_forms(
    model: NeuralClipModel,
    train: list[RecordingDataset],
    validation: list[RecordingDataset],
    network: Mapping[str, np.ndarray],
    folds: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Fit a closed form for each modality of a trained model, and put it beside the network.

    Args:
        model ([`NeuralClipModel`]): Changed in place; it has none yet.
        train, validation (`list[RecordingDataset]`): One entry a data set, validation for those that have such rows.
            Each corpus of a modality that has several is fitted by itself, and its people have maps of their own.
        network (`Mapping[str, np.ndarray]`): By data set what the network makes of the validation rows.
        folds (`Mapping[str, np.ndarray]`, *optional*): Fold of each training row by data set. Training rows then stand
            in for validation rows, and `network` has what networks that had not seen them make of them.

    Returns:
        `tuple` of `dict`: For the record, by data set: what was chosen and why, or `left_out` with the reason; and
        what was predicted of the rows of `network` before the last fit.
    """
    scored = {part.key: within(model, part) for part in validation}
    units = held_out_units(train) if folds is not None else {}
    found, embeds = {}, dict(network)
    of_corpora: dict[str, list[tuple[RecordingDataset, Maps, Fitted]]] = {}
    for part in (within(model, each) for each in train):
        started, name = time.monotonic(), part.key
        try:
            if name not in network:
                raise DataError("There are no validation recordings, by which it is chosen.")
            fitted = _fitted(part, scored.get(name), network[name], folds and folds[name])
            if folds is not None:
                told = {"n_folds": number_of({name: folds[name]}), "folds_over": units[name]}
                fitted.record.update(told, n_images=n_told_apart(part.part))
            if fitted.maps is not None and sum(each.modality == part.modality for each in train) > 1:
                of_corpora.setdefault(part.modality, []).append((part, fitted.maps, fitted))
            elif fitted.maps is not None:
                fill(model, part, fitted.maps, fitted.blend, fitted.record["dtype"])
            found[name], embeds[name] = fitted.record, fitted.embeds
        except UNFITTED as error:
            found[name] = {"left_out": reason_of(error)}
        print(f"closed form of {name}: {_told(found[name], started)}", file=sys.stderr)
    for each in of_corpora.values():
        dtype = "float16" if all(fitted.record["dtype"] == "float16" for _, _, fitted in each) else "float32"
        for _, maps, fitted in each:
            fitted.record.update(dtype=dtype, megabytes=maps.megabytes(dtype))
        fill_corpora(model, [(part, maps, fitted.blend) for part, maps, fitted in each], dtype)
    return found, embeds


def within(model: NeuralClipModel, part: RecordingDataset) -> RecordingDataset:
    """Recordings in the window that several corpora of a model have in common; those of one as they are."""
    common = getattr(model.config, f"{part.modality}_config")
    if getattr(common, "corpora", None) is None:
        return part
    found = copy.copy(part)
    found.part = part.part.within(common.inputs)
    return found


@one_thread
def _fitted(
    train: RecordingDataset,
    validation: RecordingDataset | None,
    network: np.ndarray,
    folds: np.ndarray | None = None,
    carried: CarryOver | None = None,
    own: bool = False,
) -> Fitted:
    """Choose, blend, fit again; `own` for maps of each subject's own, on recordings as they are."""
    fitted = ready(train.part)
    if validation is None:
        assert folds is not None  # in place of validation rows
        scored = fitted
        way, relative_alpha, predictions = choose_by_folds(fitted, folds)
        counts, strength_by = {"train": len(fitted)}, BY_HELD_OUT
    else:
        scored = ready(validation.part)
        require_validation(scored)
        require_rows(fitted, scored)
        choice, transform = choose(fitted, scored)
        way, relative_alpha, predictions = choice.fit.way, choice.relative_alpha, choice.predictions
        if carried is not None:
            theirs = carried(Maps.of(choice.fit, relative_alpha, transform), fitted)
            (predictions,) = theirs.predictions(scored, "float32")
        counts, strength_by = {"train": len(fitted), "validation": len(scored)}, choice.strength_by
    blend = best_blend(network, predictions, scored)
    embeds = blend(network, predictions)
    chosen = {"way": way.name, "relative_alpha": relative_alpha, "strength_by": strength_by, "gamma": GAMMA}
    record = chosen | _scored(blend, {"network": network, "closed form": predictions, "blend": embeds}, scored)
    if blend.weight == 1:
        return Fitted(record | {"left_out": "The network does better alone."}, network)
    everything = fitted if validation is None else ready(joined(train.part, validation.part))
    transform = undoing(everything.shown_images.embeds)
    maps = Maps.of(fit_of(way, everything), relative_alpha, transform)
    if carried is not None:
        maps = carried(maps, everything)
    if own:
        maps = maps.apart()
    dtype = maps.smallest_dtype(scored, blend, network)
    record |= {"refitted_on": counts, "dtype": dtype, "megabytes": maps.megabytes(dtype)}
    return Fitted(record, embeds, maps, blend)


def reason_of(error: BaseException) -> str:
    """Why there is no closed form, for the record."""
    return str(error) if isinstance(error, DataError) else f"It could not be computed ({type(error).__name__})."


def leave_to_network(model: NeuralClipModel, modality: str, subjects: Sequence[str]) -> None:
    """Have embeddings of subjects be those of the network alone."""
    for name in subjects if modality in model.closed_forms else ():
        closed: Any = model.closed_forms[modality]
        closed.layers[name].parts.data.copy_(torch.tensor([1.0, 0.0]))


def give_closed_forms(
    model: NeuralClipModel,
    train: RecordingDataset,
    validation: RecordingDataset,
    network: Mapping[str, np.ndarray],
    carried: Mapping[str, CarryOver] = MappingProxyType({}),
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Fit a map of their own for subjects who are new to a model, and blend it with the network.

    Args:
        model ([`NeuralClipModel`]): Changed in place; it has alignment layers of these subjects already.
        train, validation ([`RecordingDataset`]): Their recordings; strength and blend are chosen by the latter.
        network (`Mapping[str, np.ndarray]`): By subject what the network makes of the validation rows.
        carried (`Mapping[str, Callable]`): By subject, what is blended with the closed form: it gets the maps of that
            subject and the rows they were fitted to, and gives other maps.

    Returns:
        `tuple` of `dict`: By subject, as for [`add_closed_forms`].
    """
    modality, found, embeds = train.modality, {}, dict(network)
    leave_to_network(model, modality, list(network))
    for name in network:
        started = time.monotonic()
        own, scored = (of_subject(part, part.subjects.index(name)) for part in (train, validation))
        try:
            fitted = _fitted(own, scored, network[name], carried=carried.get(name), own=True)
        except UNFITTED as error:
            fitted = Fitted({"left_out": reason_of(error)}, network[name])
        found[name], embeds[name] = fitted.record, fitted.embeds
        if fitted.maps is not None:
            fill_beside(model, train, fitted.maps, fitted.blend, fitted.record["dtype"])
        print(f"closed form of {name}: {_told(found[name], started)}", file=sys.stderr)
    return found, embeds


def _scored(blend: Blend, embeds: dict[str, np.ndarray], split: Split) -> dict[str, Any]:
    """The blend, and the scores that it was chosen by."""
    return {
        "weight_of_network": blend.weight,
        "spread_of_network": blend.network_spread,
        "spread_of_closed_form": blend.closed_form_spread,
        "validation": {name: scores_of(found, split) for name, found in embeds.items()},
    }


def joined(first: Split, second: Split) -> Split:
    """The rows of two splits as one, on disk where both are."""
    from datasets import concatenate_datasets

    parts: list[Any] = [first.recordings, second.recordings]
    recordings: Any
    if any(isinstance(part, np.ndarray | list) for part in parts):
        recordings = [row for part in parts for row in part]
    elif isinstance(parts[0], StreamedRows):
        recordings = parts[0].followed_by(parts[1])
    else:
        recordings = concatenate_datasets(parts)
    subjects, image_ids = (
        np.concatenate([getattr(split, name) for split in (first, second)]) for name in ("subjects", "image_ids")
    )
    return replace(first, recordings=recordings, subjects=subjects, image_ids=image_ids)


def _told(record: dict[str, Any], started: float) -> str:
    """A line for stderr."""
    if "left_out" in record:
        return f"left out. {record['left_out']}"
    scores = ", ".join(f"{name} {found['two_way']:.4f}" for name, found in record["validation"].items())
    which = "held-out" if record["strength_by"] == BY_HELD_OUT else "validation"
    return (
        f"{record['way']}, the network counts {record['weight_of_network']:.2f} "
        f"({which} 2-way: {scores}; {time.monotonic() - started:.1f} s)"
    )
