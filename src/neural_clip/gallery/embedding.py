"""Recordings embedded by a model, and averaged: what decoding, encoding and conversion are scored on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from neural_clip.errors import DataError
from neural_clip.gallery.fit import called_by, check_fit, interpolation_of
from neural_clip.montage import HINT
from neural_clip.prepared.reader import Split, padded

if TYPE_CHECKING:
    import torch

    from neural_clip.modeling_neural_clip import NeuralClipModel
    from neural_clip.montage import Interpolation
    from neural_clip.retrieval.tiles import Vectors


PARTS = ("network alone", "closed form alone")  # of a blend, in this order
MEAN_ROWS = 2048  # recordings that are averaged at a time: 12 MB
SINGLE_TRIAL, IMAGE_MEAN, SUBJECT_MEAN = "single trial", "image mean within subject", "image mean over subjects"


@dataclass(frozen=True, eq=False)
class EmbeddedSplit(Split):
    """A split with its recordings in the space of the images.

    Args:
        embeds (`np.ndarray` of shape `(n, projection_dim)`): Unit vectors, float32.
        parts (`np.ndarray` of shape `(n, n_parts, projection_dim)`, *optional*): Where embeddings are blends, what
            each of `PARTS` makes of the recordings alone, of any length; otherwise there are no parts.
    """

    embeds: np.ndarray
    parts: Any = field(default=None, kw_only=True)

    by_row: ClassVar[tuple[str, ...]] = (*Split.by_row, "embeds", "parts")

    def __post_init__(self) -> None:
        if self.parts is None:
            object.__setattr__(self, "parts", np.empty((len(self.embeds), 0, self.embeds.shape[1]), np.float32))
        super().__post_init__()


def embed_split(
    model: NeuralClipModel, part: Split, *, batch_size: int = 64, device: str = "cpu", subject: str | None = None,
    montage: str | None = None, progress: bool = True,
) -> EmbeddedSplit:  # fmt: skip
    """Embed the recordings of one split of a prepared data set.

    Args:
        model ([`NeuralClipModel`]): In `eval()` mode.
        part ([`Split`]): Of a data set whose images are embedded. The model may call people of several corpora
            otherwise.
        batch_size (`int`): Recordings a forward pass.
        device (`str`): Where to compute.
        subject (`str`, *optional*): `"average"` takes the mean of all alignment layers for all recordings (EEG, MEG);
            by default each goes through the layer of its own subject.
        montage (`str`, *optional*): `"interpolate"` makes channels of the model that the data set lacks of those
            around them; by default it is refused.
        progress (`bool`): Show a bar on stderr.

    Raises:
        DataError: If the model has no such modality or subject, or no average subject, the channels, voxels or the
            width of the image embeddings differ from the model's, or an embedding is not finite.
    """
    import torch

    from neural_clip.retrieval.tiles import float32_units

    modality, name = part.modality, part.data.name
    config = getattr(model.config, f"{modality}_config", None)
    own = part.called_as_in(called_by(config, part.data))
    made = interpolation_of(model.config, own.data, montage)
    check_fit(model, own.data, [] if subject else sorted(set(own.subjects)), made, HINT)
    subject_ids = _subject_ids(model, own, subject)
    model.eval().to(torch.device(device))

    def forward(subject_ids: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
        """The parts of a blend and the blend, `(batch_size, n_parts + 1, projection_dim)`."""
        (values,) = inputs.values()
        return torch.stack([*model.each_features(modality, values, subject_ids).values()], dim=1)

    read = part if made is None else in_channels_of(part, made)
    found = embed_recordings(forward, read, subject_ids, batch_size, device, progress=progress)
    try:
        embeds = float32_units(found[:, -1], f"{modality} embeddings")
    except ValueError as error:
        raise DataError(f"The model's embeddings of '{name}' cannot be scored: {error}") from error
    if part.gallery_embeds.shape[1] != embeds.shape[1]:
        raise DataError(
            f"The images of '{name}' have embeddings of width {part.gallery_embeds.shape[1]}, "
            f"but the model embeds recordings in {embeds.shape[1]} dimensions."
        )
    return EmbeddedSplit(**part.as_fields(), embeds=embeds, parts=found[:, :-1])


def in_channels_of(part: Split, made: Interpolation) -> Split:
    """A split whose recordings are read with the channels of a model."""
    rows = [part.facts.ch_names.index(name) for name in made.recorded]
    return replace(part, change=lambda values, subjects: made.applied(values[:, rows]))


def _subject_ids(model: NeuralClipModel, part: Split, subject: str | None) -> np.ndarray:
    """Whose layer each recording goes through, `(n,)` int64."""
    from neural_clip.processing_neural_clip import subject_indices, subject_names

    config = getattr(model.config, f"{part.modality}_config")
    known, several = list(config.subjects), getattr(config, "corpora", None) is not None
    try:
        names = subject_names(subject or part.subjects.tolist(), len(part), known, part.modality, several)
    except ValueError as error:
        raise DataError(f"'{part.data.name}' cannot be scored so: {error}") from error
    return np.array(subject_indices(names, known), dtype=np.int64)


def embed_recordings(
    forward: Callable[..., torch.Tensor],
    part: Split,
    subject_ids: np.ndarray,
    batch_size: int,
    device: str | torch.device,
    *,
    progress: bool = False,
) -> np.ndarray:
    """Pass the recordings of a split through a network, some at a time.

    Args:
        forward (`Callable`): Called with `<modality>_values` and `subject_ids` on `device`; returns
            `(batch_size, ...)`.
        part ([`Split`]): Recordings; fMRI is padded with zeros inside a batch.
        subject_ids (`np.ndarray` of shape `(n,)`, int64): As the network counts subjects.
        batch_size (`int`): Recordings a forward pass; another one changes the last bits.
        device (`str` or `torch.device`): Where the network is.
        progress (`bool`): Show a bar on stderr, where there is more than one batch.

    Returns:
        `np.ndarray` of shape `(n, ...)`, float32.
    """
    import torch
    from tqdm import tqdm

    found = np.empty(0, dtype=np.float32)
    for rows, values in tqdm(
        part.blocks(batch_size), f"embed {part.modality}", -(-len(part) // batch_size), unit="batch",
        file=sys.stderr, disable=not progress or len(part) <= batch_size,
    ):  # fmt: skip
        inputs = {f"{part.modality}_values": padded(values), "subject_ids": subject_ids[rows]}
        with torch.no_grad():
            output = forward(**{name: torch.from_numpy(array).to(device) for name, array in inputs.items()})
        made = output.float().cpu().numpy()
        found = found if len(found) else np.empty((len(part), *made.shape[1:]), dtype=np.float32)
        found[rows] = made
    return found


def aggregate(
    embeds: np.ndarray, subjects: np.ndarray, image_ids: np.ndarray, level: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average recordings of the same image.

    Args:
        embeds (`np.ndarray` of shape `(n, projection_dim)`): Scaled to unit length before averaging, so that no
            recording counts more. Single trials are given back as they are: their cosines are compared.
        level (`str`): `"single trial"`, `"image mean within subject"` or `"image mean over subjects"`.

    Returns:
        `tuple`: Embeddings `(m, projection_dim)`, subjects `(m,)` (`"all"` over subjects), image ids `(m,)`.
    """
    from neural_clip.retrieval.tiles import Vectors

    if level == SINGLE_TRIAL:
        return embeds, subjects, image_ids
    kept = subjects if level == IMAGE_MEAN else np.full(len(subjects), "all")
    keys, codes = np.unique(np.stack([kept, image_ids]), axis=1, return_inverse=True)
    return _means(Vectors(embeds, "embeds"), codes.ravel()), keys[0], keys[1]


def _means(vectors: Vectors, codes: np.ndarray) -> np.ndarray:
    """Mean unit vector of each code, `(n_codes, projection_dim)` float64; first ones are added first, and so on."""
    from neural_clip.retrieval.tiles import steps

    counts, order = np.bincount(codes), np.argsort(codes, kind="stable")
    nth = np.empty(len(codes), dtype=np.int64)  # of its code
    nth[order] = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    sums = np.zeros((len(counts), vectors.width))
    for rows in np.split(np.argsort(nth, kind="stable"), np.cumsum(np.bincount(nth))[:-1]):
        for part in steps(len(rows), MEAN_ROWS):
            sums[codes[rows[part]]] += vectors.units(rows[part])
    sums /= counts[:, None]
    return sums


Embedded = dict[str, dict[str, EmbeddedSplit]]  # checkpoint -> modality -> recordings in its space
