"""Checkpoints and data sets of an evaluation: their names, and whether they fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neural_clip.errors import DataError, check_value
from neural_clip.evaluation.options import EvaluateOptions
from neural_clip.gallery.embedder import load_model
from neural_clip.gallery.fit import called_by, check_prepared_alike, known_corpora
from neural_clip.prepared.modalities import MODALITIES, kind_of
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.several import by_key
from neural_clip.target_space import TargetSpace
from neural_clip.targets.identity import EncoderIdentity, common_image_encoder, identity_of

if TYPE_CHECKING:
    from neural_clip.modeling_neural_clip import NeuralClipModel

MOST_KEPT = 2**29  # bytes of row groups: recordings are passed over in their order, again and again


def check_names(checkpoints: Mapping[str, str | Path]) -> None:
    """Raise where there is no checkpoint, or one has the name of a baseline."""
    from neural_clip.evaluation.baselines.rows import BASELINES

    check_value("checkpoints", list(checkpoints), bool(checkpoints), "one or more")
    for name, path in checkpoints.items():
        if name in dict(BASELINES):
            raise DataError(f"'{path}' is called '{name}', which is the name of a baseline; name it otherwise.")


def open_data(data: Sequence[str | Path | PreparedSet], streaming: bool = False) -> dict[str, PreparedSet]:
    """Data sets by modality, several of one by `modality.corpus`; raise where corpora or image encoders do not fit."""
    if not data:
        raise DataError("Invalid value for the 'data' parameter. Allowed is one or more, but got none.")
    found = by_key(PreparedSet.open(folder, streaming, MOST_KEPT) for folder in data)
    common_image_encoder({opened.name: opened.facts for opened in found.values()}, means=False)
    return {key: found[key] for modality in MODALITIES for key in found if kind_of(key) == modality}


def check_understood(options: EvaluateOptions, data: Mapping[str, PreparedSet]) -> None:
    """Raise a `DataError` where what was learned is to be shown of one of several corpora."""
    if options.understand is not None and any(opened.key != opened.facts.modality for opened in data.values()):
        raise DataError("'understand' shows a model of one corpus of each modality; leave it out with several.")


def fitting_models(
    checkpoints: Mapping[str, str | Path], data: dict[str, PreparedSet], options: EvaluateOptions
) -> tuple[dict[str, NeuralClipModel], dict[str, PreparedSet]]:
    """Models that fit data sets, and these as they are reported.

    Args:
        checkpoints (`Mapping[str, str or Path]`): The first has an encoder for all data sets, others for one at least.
        data (`dict[str, PreparedSet]`): Which.
        options ([`EvaluateOptions`]): What is scored.

    Returns:
        `tuple` of models by name, and data sets: with the mean that the first subtracts from images, and people who
        are called `corpus/sub-01` where one of the models knows several corpora.

    Raises:
        DataError: If something does not fit.
    """
    models = {name: load_model(path) for name, path in checkpoints.items()}
    found = [opened.named_for(_known(models.values(), opened)) for opened in data.values()]
    data = {opened.key: opened for opened in found}
    check_understood(options, data)
    for name, model in models.items():
        _check_fits(model, checkpoints[name], data, options, first=name == next(iter(models)))
        space = TargetSpace.of(getattr(model.config, "target_space", None))
        data = {key: opened.moved_to(space) for key, opened in data.items()}
    return models, data


def _known(models: Iterable[NeuralClipModel], data: PreparedSet) -> list[str]:
    """People of the modality of a data set whom one of the models knows, as it calls them."""
    configs = [getattr(model.config, f"{data.facts.modality}_config", None) for model in models]
    return [name for config in configs if config is not None for name in config.subjects]


def encodes(model: NeuralClipModel, data: PreparedSet, options: EvaluateOptions) -> bool:
    """Whether a model has an encoder for a data set, and where people go by their corpus, knows some of it."""
    config = getattr(model.config, f"{data.facts.modality}_config", None)
    by_name = data.prefix and options.subject is None
    return config is not None and (not by_name or data.facts.corpus in known_corpora(config))


def _check_fits(
    model: NeuralClipModel, checkpoint: str | Path, data: dict[str, PreparedSet], options: EvaluateOptions, *,
    first: bool,
) -> None:  # fmt: skip
    """Raise where a model lacks an encoder for a data set (the first) or for all, or has another space or rows."""
    own = [opened for opened in data.values() if encodes(model, opened, options)]
    absent = [opened for opened in data.values() if opened not in own]
    if absent and (first or not own):
        raise DataError(
            _lacking(model, checkpoint, absent[0])
            + ("." if len(data) == 1 else ", and the first checkpoint needs one for every data set.")
        )
    expected = EncoderIdentity.of_config(model.config)
    if expected is not None:  # a model that was not made from data sets names none
        for opened in own:
            if opened.facts.image_encoder:
                by, found = f"The checkpoint '{checkpoint}'", identity_of(opened.facts)
                expected.require(found, by, f"'{opened.name}'", means=not first)
    configs = [getattr(model.config, f"{opened.facts.modality}_config") for opened in own]
    check_prepared_alike(checkpoint, [called_by(config, opened) for config, opened in zip(configs, own, strict=True)])


def _lacking(model: NeuralClipModel, checkpoint: str | Path, data: PreparedSet) -> str:
    """What a model lacks for a data set."""
    kind, corpus = data.facts.modality, data.facts.corpus
    config = getattr(model.config, f"{kind}_config", None)
    if config is None:
        return f"'{data.name}' holds {kind} recordings, but the model '{checkpoint}' has no {kind} encoder"
    known = " and ".join(sorted(known_corpora(config))) or "a corpus that it does not name"
    return (
        f"'{data.name}' holds {kind} recordings of the corpus {corpus!r}, but the {kind} encoder of the model "
        f"'{checkpoint}' knows people of {known}"
    )
