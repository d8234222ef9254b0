"""Whether a data set fits a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from neural_clip.corpus_inputs import corpus_of
from neural_clip.errors import DataError, check_option
from neural_clip.montage import Interpolation, Montage, check_montage, interpolation
from neural_clip.preparation import VOXELS, Preparation, channel_differences, check_keeps_places
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
    expected = _expected(settings, data)
    if None in (facts.ch_names, expected.ch_names):
        raise DataError(f"'{data.name}' or the model does not name its channels, so that none can be interpolated.")
    if list(facts.ch_names) == list(expected.ch_names):
        return None
    places = facts.ch_positions if facts.ch_positions_frame == "head" else None
    stored = settings.ch_positions if expected is settings else None  # of one corpus
    try:
        made = interpolation(
            Montage.of_names(facts.ch_names, facts.modality, places), tuple(expected.ch_names),
            None if stored is None else tuple(map(tuple, stored)),
        )  # fmt: skip
        if made.interpolated or made.left_out:
            check_keeps_places(data.preparation, f"'{data.name}'")
    except ValueError as error:
        raise DataError(f"'{data.name}': {error}") from error
    return made


def _expected(config: Any, data: PreparedSet) -> Any:
    """What recordings of the corpus of a data set look like for an encoder."""
    several = getattr(config, "corpora", None)
    if several is None:
        return config
    check_option("corpus", data.facts.corpus, list(several))
    return SimpleNamespace(**several[data.facts.corpus])


def known_corpora(config: Any) -> set[str]:
    """Corpora whose people an encoder knows: by their names where there are several, else those it was trained on."""
    named = {corpus_of(name) for name in config.subjects} - {""}
    return named or {entry["corpus"] for entry in getattr(config, "trained_on", None) or ()}


def called_by(config: Any, data: PreparedSet) -> PreparedSet:
    """A data set with its people called as an encoder calls them, if it knows their corpus.

    Args:
        config (`EegConfig`, `MegConfig` or `FmriConfig`, *optional*): Of the encoder.
        data ([`PreparedSet`]): Its people are called `sub-01` or `corpus/sub-01`.
    """
    if config is None or data.facts.corpus not in known_corpora(config):
        return data
    return data.of_corpus() if any(map(corpus_of, config.subjects)) else data.alone()


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
    try:
        groups = processor.groups(data.facts.modality) if data.facts.modality in processor.recordings else []
    except ValueError as error:
        raise DataError(f"{by} cannot be compared with '{data.name}': {error}") from error
    data = data.named_for(name for group in groups for name in group["subjects"])
    for name, places in processor.statistics_of(data.facts.modality).items():
        if name.endswith(f"/{VOXELS}") and not np.array_equal(data.statistics.get(name, places), places):
            raise DataError(
                f"{by} does not fit '{data.name}': the voxels of {unquote(name.split('/')[0])} lie in other places, "
                "or are in another order. Prepare the data set with the mask of the checkpoint's."
            )
    groups = [group for group in groups if group.get("corpus") in (None, data.facts.corpus)]
    for group in groups:
        _check_channels_fit(group, data, by)
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


def _check_channels_fit(group: Mapping, data: PreparedSet, by: str) -> None:
    """Raise where channels differ from those of a checkpoint, which nobody can interpolate."""
    found, expected = data.facts.ch_names or (), group.get("ch_names") or ()
    if not (found and expected) or set(found) == set(expected):
        return
    try:
        check_keeps_places(Preparation.of(group.get("preparation")), "the checkpoint's data set")
    except ValueError as error:
        raise DataError(
            f"{by} does not fit '{data.name}' in its channels: {channel_differences(found, expected)}. {error}"
        ) from error


def check_shape(
    config: Any, data: PreparedSet, subjects: Sequence[str], made: Interpolation | None = None, hint: str = ""
) -> None:
    """Raise a `DataError` where channels, rate, window or voxels of a data set are not those of an encoder."""
    expected = _expected(config, data)
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
