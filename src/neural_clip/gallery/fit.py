"""Whether a data set fits a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from neural_clip.errors import DataError, check_option
from neural_clip.montage import Interpolation, Montage, check_montage, interpolation
from neural_clip.preparation import VOXELS, Preparation, channel_differences
from neural_clip.prepared.modalities import MODALITIES

if TYPE_CHECKING:
    from neural_clip.modeling_neural_clip import NeuralClipModel
    from neural_clip.prepared.reader import PreparedSet
    from neural_clip.processing_neural_clip import NeuralClipProcessor


def interpolation_of(config: Any, data: PreparedSet, montage: str | None) -> Interpolation | None:
    """How the channels of a model are made of those of a data set; `None` where they are the same, or nobody asks.

    Args:
        config ([`NeuralClipConfig`]): Of the model, which has this modality.
        data ([`PreparedSet`]): Its recordings are interpolated as they are, scaled.
        montage (`str`, *optional*): `"interpolate"` or `None`.

    Raises:
        DataError: If they cannot be made.
    """
    facts, settings = data.facts, getattr(config, f"{data.facts.modality}_config", None)
    check_montage(montage)
    if montage is None or settings is None or not MODALITIES[facts.modality].sensors:
        return None
    if settings.corpora is not None:
        raise DataError(
            f"'montage' is {montage!r}, but the model has {facts.modality} of the corpora {list(settings.corpora)}, "
            "whose channels may differ. Channels are interpolated for a model of one corpus."
        )
    if None in (facts.ch_names, settings.ch_names):
        raise DataError(f"'{data.name}' or the model does not name its channels, so that none can be interpolated.")
    if list(facts.ch_names) == list(settings.ch_names):
        return None
    if facts.scaling.get("method") == "mvnn":
        raise DataError(
            f"The channels of '{data.name}' were whitened together (mvnn): they hold no potentials of one place each, "
            "from which others could be interpolated. Prepare the data set with another scaling."
        )
    places = facts.ch_positions if facts.ch_positions_frame == "head" else None
    stored = settings.ch_positions
    try:
        return interpolation(
            Montage.of_names(facts.ch_names, facts.modality, places), tuple(settings.ch_names),
            None if stored is None else tuple(map(tuple, stored)),
        )  # fmt: skip
    except ValueError as error:
        raise DataError(f"'{data.name}': {error}") from error


def check_fit(
    model: NeuralClipModel, data: PreparedSet, subjects: list[str], made: Interpolation | None = None, hint: str = ""
) -> None:
    """Raise where a data set does not fit the model's configuration.

    Args:
        model ([`NeuralClipModel`]), data ([`PreparedSet`]): Which.
        subjects (`list[str]`): Who must be known to the model.
        made ([`Interpolation`], *optional*): How its channels are made to fit.
        hint (`str`): What to do about other channels.
    """
    modality = data.facts.modality
    config = getattr(model.config, f"{modality}_config", None)
    if config is None:
        raise DataError(f"'{data.name}' holds {modality} recordings, but the model has no {modality} encoder.")
    unknown = [subject for subject in subjects if subject not in config.subjects]
    if unknown:
        raise DataError(
            f"'{data.name}' has subject '{unknown[0]}', but the model knows {list(config.subjects)}. "
            "`neural-clip adapt` fits an alignment layer for a new subject"
            + ("; `evaluate --subject average` scores them without." if MODALITIES[modality].sensors else ".")
        )
    check_shape(config, data, subjects, made, hint)


def check_prepared_alike(checkpoint: str | Path, data: Sequence[PreparedSet]) -> None:
    """Raise where the rows of a data set went through something else than those of a checkpoint."""
    from neural_clip.processing_neural_clip import NeuralClipProcessor

    try:
        processor = NeuralClipProcessor.from_pretrained(str(checkpoint))
    except (OSError, ValueError) as error:
        raise DataError(f"The processor of the checkpoint '{checkpoint}' cannot be read: {error}") from error
    for opened in data:
        check_preparation(processor, opened, f"The checkpoint '{checkpoint}'")


def check_preparation(processor: NeuralClipProcessor, data: PreparedSet, by: str) -> None:
    """Raise a `DataError` where the rows of a data set went through something else than those of a checkpoint.

    Data sets of format 1 and older checkpoints do not know what that was; nothing is compared then.
    """
    groups = processor.recordings.get(data.facts.modality, [])
    data = data.named_for(name for group in groups for name in group.get("subjects") or ())
    for name, places in processor.statistics_of(data.facts.modality).items():
        if name.endswith(f"/{VOXELS}") and not np.array_equal(data.statistics.get(name, places), places):
            raise DataError(
                f"{by} does not fit '{data.name}': the voxels of {unquote(name.split('/')[0])} lie in other places, "
                "or are in another order. Prepare the data set with the mask of the checkpoint's."
            )
    groups = [group for group in groups if group.get("corpus") in (None, data.facts.corpus)]
    known = [Preparation.of(group.get("preparation")) for group in groups]
    found = data.preparation
    if found is None or not known or None in known:
        return
    differences = [one.differences(found) for one in known if one is not None]
    if all(differences):
        raise DataError(
            f"{by} does not fit '{data.name}', whose recordings were prepared differently: "
            f"{'; '.join(differences[0])}. Prepare the data set as that of the checkpoint was."
        )


def check_shape(
    config: Any, data: PreparedSet, subjects: Sequence[str], made: Interpolation | None = None, hint: str = ""
) -> None:
    """Raise a `DataError` where channels, rate, window or voxels of a data set are not those of an encoder."""
    several, expected = getattr(config, "corpora", None), config
    if several is not None:
        check_option("corpus", data.facts.corpus, list(several))
        expected, hint = SimpleNamespace(**several[data.facts.corpus]), ""  # channels are not interpolated
    pairs: dict[str, tuple[Any, Any]] = {
        key: (getattr(data.facts, key), getattr(expected, key, None))
        for key in ("ch_names", "n_chans", "n_times", "sfreq", "tmin")
        if made is None or key not in ("n_chans", "ch_names")
    }
    voxels = data.facts.n_voxels or {}
    known = getattr(config, "n_voxels", None) or {}
    pairs |= {f"n_voxels of {subject}": (voxels.get(subject), known.get(subject)) for subject in subjects}
    for key, (found, expected) in pairs.items():
        found, expected = (list(v) if isinstance(v, list | tuple) else v for v in (found, expected))
        if None not in (found, expected) and found != expected:
            if key == "ch_names":
                differs = channel_differences(found, expected)
                raise DataError(f"'{data.name}' does not fit the model in its channels: {differs}. {hint}".rstrip())
            raise DataError(
                f"'{data.name}' does not fit the model: {key} is {found}, but the model expects {expected}."
            )
