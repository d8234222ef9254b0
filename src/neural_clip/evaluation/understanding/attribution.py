"""Which samples, sensors and voxels an encoder uses: what its score loses without them.

Two methods of captum (the extra `understand`), both from the mean training recording of the same subject:

* Occlusion (EEG, MEG): a window of samples, a sensor, or a sensor in a window is replaced; the map is the score with
  everything minus the score without that part. Source: Zeiler and Fergus 2014, arXiv:1311.2901.
* Integrated gradients (fMRI, where replacing voxels one by one would take as many passes as voxels): gradients of the
  score along the straight line from the training mean to the recording, times their difference. They sum to the score
  of the recording minus that of the mean. Source: Sundararajan, Taly and Yan 2017, arXiv:1703.01365.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neural_clip.errors import DataError
from neural_clip.retrieval.tiles import TIE_TOLERANCE

if TYPE_CHECKING:
    import torch

    from neural_clip.modeling_neural_clip import NeuralClipModel
    from neural_clip.prepared.reader import PreparedSet


MARGIN, TWO_WAY = "cosine margin", "2-way score"
GRADIENT_STEPS = 50  # captum's own default
RECORDINGS_AT_ONCE = 16  # their maps are held whole; the rest of a batch are occlusions of them
INSTALL_CAPTUM = "Maps of samples, sensors and voxels need captum: pip install 'neural_clip[understand]'."


def require_captum() -> str:
    """Return the version of captum, or say how to install it."""
    try:
        import captum
    except ImportError as error:
        raise DataError(INSTALL_CAPTUM) from error
    return captum.__version__


def pair_scores(embeds: torch.Tensor, columns: torch.Tensor, gallery: torch.Tensor, kind: str) -> torch.Tensor:
    """Score of each recording against the image that was seen.

    Args:
        embeds (`torch.Tensor` of shape `(n, projection_dim)`): Of recordings, of any length.
        columns (`torch.LongTensor` of shape `(n,)`): Image of each in the gallery.
        gallery (`torch.Tensor` of shape `(n_images, projection_dim)`): Unit vectors, float64.
        kind (`str`): `"cosine margin"`, the cosine to the seen image minus the mean cosine to the others, which is 0
            at chance and which a direction common to all images does not change; or `"2-way score"`, the share of
            other images that are less similar, ties one half: `two_way` of [`score_queries`], in torch.

    Returns:
        `torch.Tensor` of shape `(n,)`, float64.
    """
    from torch.nn import functional

    cosines = functional.normalize(embeds.double(), dim=-1) @ gallery.T  # (n, n_images)
    true = cosines.gather(1, columns[:, None])
    if kind == MARGIN:
        return (true[:, 0] * len(gallery) - cosines.sum(dim=1)) / (len(gallery) - 1)
    wins = (true > cosines + TIE_TOLERANCE).double() + (true >= cosines - TIE_TOLERANCE).double()
    return (wins.sum(dim=1) - 1) / (2 * (len(gallery) - 1))


@dataclass
class Scorer:
    """Scores recordings of one subject, for captum.

    Args:
        model ([`NeuralClipModel`]): In `eval()` mode, on `device`.
        modality (`str`): `"eeg"`, `"meg"` or `"fmri"`.
        subject_id (`int`): Index of the subject in the model's `subjects`.
        gallery (`np.ndarray` of shape `(n_images, projection_dim)`): Unit vectors.
        device (`str`): Where to compute.
        batch_size (`int`): Recordings a forward pass, occluded copies included.
    """

    model: NeuralClipModel
    modality: str
    subject_id: int
    gallery: np.ndarray
    device: str
    batch_size: int = 256

    def forward(self, kind: str) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Make the function of recordings and their columns that captum explains."""
        import torch

        gallery = torch.from_numpy(np.asarray(self.gallery, dtype=np.float64)).to(self.device)

        def score(values: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
            subject_ids = torch.full((len(values),), self.subject_id, device=values.device)
            embeds = self.model.features(self.modality, values, subject_ids)
            return pair_scores(embeds, columns, gallery, kind)

        return score

    def scores(self, values: np.ndarray, columns: np.ndarray, kind: str) -> np.ndarray:
        """Score recordings as they are, `(n,)`."""
        import torch

        score, parts = self.forward(kind), []
        with torch.no_grad():
            for start in range(0, len(values), self.batch_size):
                rows = slice(start, start + self.batch_size)
                parts.append(score(self._tensor(values[rows]), self._columns(columns[rows])).cpu().numpy())
        return np.concatenate(parts)

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        """Float32 on the device."""
        import torch

        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(self.device)

    def _columns(self, columns: np.ndarray) -> torch.Tensor:
        """Int64 on the device."""
        import torch

        return torch.from_numpy(np.asarray(columns, dtype=np.int64)).to(self.device)

    def occlude(
        self,
        values: np.ndarray,
        columns: np.ndarray,
        replacement: np.ndarray,
        window: tuple[int, int],
        stride: tuple[int, int],
        kind: str = MARGIN,
    ) -> np.ndarray:
        """What the score loses where a window is replaced.

        Args:
            values (`np.ndarray` of shape `(n, n_chans, n_times)`): Recordings.
            columns (`np.ndarray` of shape `(n,)`): Image of each in the gallery.
            replacement (`np.ndarray` of shape `(n_chans, n_times)`): Put in place of what is occluded.
            window, stride (`tuple[int, int]`): Sensors and samples of the window, and its steps.
            kind (`str`): See [`pair_scores`].

        Returns:
            `np.ndarray` of shape `(n, n_chans, n_times)`, float64: Score with everything minus score without, at each
            sensor and sample the mean over the windows that hold it.
        """
        from captum.attr import Occlusion

        occlusion, parts = Occlusion(self.forward(kind)), []
        for start in range(0, len(values), RECORDINGS_AT_ONCE):
            rows = slice(start, start + RECORDINGS_AT_ONCE)
            parts.append(
                occlusion.attribute(
                    self._tensor(values[rows]),
                    sliding_window_shapes=window,
                    strides=stride,
                    baselines=self._tensor(replacement[None]),
                    additional_forward_args=(self._columns(columns[rows]),),
                    perturbations_per_eval=max(1, self.batch_size // len(values[rows])),
                )
                .cpu()
                .numpy()
            )
        return np.concatenate(parts)

    def integrate(self, values: np.ndarray, columns: np.ndarray, start_at: np.ndarray) -> np.ndarray:
        """What each value adds to the cosine margin on the way from `start_at`, by integrated gradients.

        Args:
            values (`np.ndarray` of shape `(n, n_voxels)`): Recordings.
            columns (`np.ndarray` of shape `(n,)`): Image of each in the gallery.
            start_at (`np.ndarray` of shape `(n_voxels,)`): Where the line to each recording begins.

        Returns:
            `np.ndarray` of shape `(n, n_voxels)`, float64: Sums to the margin of the recording minus that of
            `start_at`, up to the error of `GRADIENT_STEPS` Gauss-Legendre nodes.
        """
        from captum.attr import IntegratedGradients

        gradients, parts = IntegratedGradients(self.forward(MARGIN)), []
        for start in range(0, len(values), RECORDINGS_AT_ONCE):
            rows = slice(start, start + RECORDINGS_AT_ONCE)
            parts.append(
                gradients.attribute(
                    self._tensor(values[rows]),
                    baselines=self._tensor(start_at[None]),
                    additional_forward_args=(self._columns(columns[rows]),),
                    n_steps=GRADIENT_STEPS,
                    internal_batch_size=self.batch_size,
                )
                .detach()
                .cpu()
                .numpy()
            )
        return np.concatenate(parts).astype(np.float64)


def training_mean(data: PreparedSet, subject: str) -> np.ndarray:
    """Mean training recording of a subject, float64, read in blocks.

    Raises:
        DataError: If the subject has no training recordings.
    """
    recordings, total = data.split("train", [subject]), 0.0
    for _, values in recordings.blocks(512):
        total = total + np.asarray(values, dtype=np.float64).sum(axis=0)
    return np.asarray(total / len(recordings))


def split_half(maps: np.ndarray, image_ids: Iterable[str]) -> float | None:
    """Correlate the map of every other image with the map of the rest.

    Args:
        maps (`np.ndarray` of shape `(n, ...)`): Map of each recording.
        image_ids (iterable of `n` `str`): Image of each recording.

    Returns:
        `float`: Pearson correlation of the two mean maps, or `None` where there is one image or a map is constant.
    """
    _, codes = np.unique(np.asarray(list(image_ids), dtype=str), return_inverse=True)
    if codes.max() == 0:
        return None
    even, odd = (maps[codes % 2 == half].mean(axis=0).ravel() for half in (0, 1))
    even, odd = even - even.mean(), odd - odd.mean()
    scale = float(np.sqrt((even @ even) * (odd @ odd)))
    return float(even @ odd) / scale if scale > 0 else None
