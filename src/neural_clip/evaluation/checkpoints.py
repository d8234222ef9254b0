"""Checkpoints and data sets of an evaluation: their names, and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neural_clip.errors import DataError, check_value
from neural_clip.files.record import check_record
from neural_clip.gallery.fit import check_prepared_alike
from neural_clip.prepared.modalities import MODALITIES
from neural_clip.prepared.reader import PreparedSet
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
    """Data sets by modality; raise where a modality is given twice or the image encoders differ."""
    if not data:
        raise DataError("Invalid value for the 'data' parameter. Allowed is one or more, but got none.")
    found: dict[str, PreparedSet] = {}
    for folder in data:
        opened = PreparedSet.open(folder, streaming, MOST_KEPT)
        modality = opened.facts.modality
        if modality in found:
            raise DataError(f"'{found[modality].name}' and '{opened.name}' both hold {modality}; give one.")
        found[modality] = opened
    common_image_encoder({opened.name: opened.facts for opened in found.values()}, means=False)
    return {modality: found[modality] for modality in MODALITIES if modality in found}


def fitting_model(checkpoint: str | Path, data: dict[str, PreparedSet], *, first: bool) -> NeuralClipModel:
    """A checkpoint's model, which has an encoder for all data sets (the first) or one at least, in the same space.

    The first says which mean is subtracted from the images; data sets that are compared with others have it already.
    """
    model = load_model(checkpoint)
    absent = [modality for modality in data if getattr(model.config, f"{modality}_config", None) is None]
    if absent and (first or len(absent) == len(data)):
        raise DataError(
            f"'{data[absent[0]].name}' holds {absent[0]} recordings, but the model '{checkpoint}' has no {absent[0]} "
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
