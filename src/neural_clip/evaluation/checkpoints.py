"""Checkpoints and data sets of an evaluation: their names, and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neural_clip.errors import DataError, check_value
from neural_clip.evaluation.options import EvaluateOptions
from neural_clip.files.record import check_record
from neural_clip.gallery.fit import check_prepared_alike
from neural_clip.prepared.modalities import MODALITIES, kind_of
from neural_clip.prepared.reader import PreparedSet
from neural_clip.prepared.several import by_key
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


def named_as_in(model: NeuralClipModel, data: Mapping[str, PreparedSet]) -> dict[str, PreparedSet]:
    """Data sets with people called as a model calls them: where it knows several corpora, `corpus/sub-01`."""
    found = []
    for key, opened in data.items():
        config = getattr(model.config, f"{kind_of(key)}_config", None)
        found.append(opened.named_for(() if config is None else config.subjects))
    return {opened.key: opened for opened in found}


def check_people_are_called_alike(
    first: NeuralClipModel, other: NeuralClipModel, data: Mapping[str, PreparedSet], path: str
) -> None:
    """Raise a `DataError` where one of two checkpoints of one report calls people `corpus/sub-01`, the other not."""
    for key, opened in data.items():
        configs = [getattr(model.config, f"{kind_of(key)}_config", None) for model in (first, other)]
        if len({opened.named_for(config.subjects).key for config in configs if config is not None}) > 1:
            raise DataError(
                f"'{path}' calls the people of '{opened.name}' otherwise than the first checkpoint: one of the two "
                "was trained on several corpora of a modality, the other on one. Evaluate them one after the other."
            )


def fitting_model(checkpoint: str | Path, data: dict[str, PreparedSet], *, first: bool) -> NeuralClipModel:
    """A checkpoint's model, which has an encoder for all data sets (the first) or one at least, in the same space.

    The first says which mean is subtracted from the images; data sets that are compared with others have it already.
    """
    model = load_model(checkpoint)
    absent = [key for key in data if getattr(model.config, f"{kind_of(key)}_config", None) is None]
    if absent and (first or len(absent) == len(data)):
        kind = kind_of(absent[0])
        raise DataError(
            f"'{data[absent[0]].name}' holds {kind} recordings, but the model '{checkpoint}' has no {kind} "
            "encoder" + ("." if len(data) == 1 else ", and the first checkpoint needs one for every data set.")
        )
    expected = EncoderIdentity.of_config(model.config)
    if expected is not None:  # a model that was not made from data sets names none
        for modality, opened in data.items():
            if modality not in absent and opened.facts.image_encoder:
                by, found = f"The checkpoint '{checkpoint}'", identity_of(opened.facts)
                expected.require(found, by, f"'{opened.name}'", means=not first)
    check_prepared_alike(checkpoint, list(data.values()))
    return model


def load_model(checkpoint: str | Path) -> NeuralClipModel:
    """Model in evaluation mode.

    Raises:
        DataError: If there is no such checkpoint, its files are damaged or not those of its record, or its weights
            are not finite.
    """
    from neural_clip.modeling_neural_clip import NeuralClipModel

    if not Path(checkpoint).is_dir() and str(checkpoint).count("/") != 1:  # a name on the Hub has one
        raise DataError(f"'{checkpoint}' is no readable checkpoint of a NeuralClipModel: there is no such folder.")
    if Path(checkpoint).is_dir():
        check_record(checkpoint)
    try:
        model = NeuralClipModel.from_pretrained(str(checkpoint)).eval()
    except (ImportError, OSError, ValueError) as error:
        raise DataError(f"'{checkpoint}' is no readable checkpoint of a NeuralClipModel: {error}") from error
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise DataError(f"The weights of '{checkpoint}' are not finite: '{name}' holds NaN or infinite values.")
    return model
