"""The model: frozen CLIP image embeddings on one side, one encoder per recording modality on the other."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_neural_clip import NeuralClipConfig
from .losses import clip_loss, regression_loss
from .modeling_eeg import EegEncoder
from .modeling_fmri import FmriEncoder
from .modeling_meg import MegEncoder
from .modeling_parallel import ParallelProjections
from .target_space import TargetSpace

ENCODERS = {"eeg": EegEncoder, "meg": MegEncoder, "fmri": FmriEncoder}
# CLIP never lets the inverse temperature pass 100 (Radford et al. 2021, arXiv:2103.00020, section 2.5).
MAX_LOGIT_SCALE = math.log(100.0)


@dataclass
class NeuralClipOutput(ModelOutput):
    """What [`NeuralClipModel`] returns.

    Args:
        loss (`torch.FloatTensor` of shape `()`): That of `config.objective` (`"infonce"` in nats), where images were
            given with the recordings and `return_loss` is not False; the mean over networks in parallel.
        logits_per_neural (`torch.FloatTensor` of shape `(batch_size, n_images)`): Cosine similarity times the
            inverse temperature.
        logits_per_image (`torch.FloatTensor` of shape `(n_images, batch_size)`): Its transpose.
        neural_embeds (`torch.FloatTensor` of shape `(batch_size, projection_dim)`): L2-normalised.
        image_embeds (`torch.FloatTensor` of shape `(n_images, projection_dim)`): L2-normalised.
    """

    loss: torch.Tensor | None = None
    logits_per_neural: torch.Tensor | None = None
    logits_per_image: torch.Tensor | None = None
    neural_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None


class NeuralClipModel(PreTrainedModel):
    """EEG, MEG and fMRI recordings in the embedding space of a frozen CLIP image encoder.

    Args:
        config ([`NeuralClipConfig`]): At least one of `eeg_config`, `meg_config` and `fmri_config` must be there.

    Source: Ferrante et al. 2024, arXiv:2411.09723.
    """

    config_class = NeuralClipConfig
    _auto_class: Any = "AutoModel"  # so that the code travels with what is saved
    base_model_prefix = "neural_clip"
    main_input_name = "eeg_values"

    def __init__(self, config: NeuralClipConfig) -> None:
        super().__init__(config)
        if not config.modalities:
            raise ValueError("The configuration holds no encoder; give 'eeg_config', 'meg_config' or 'fmri_config'.")
        self.encoders = nn.ModuleDict()
        self.projections = nn.ModuleDict()
        for modality in config.modalities:
            encoder = ENCODERS[modality](getattr(config, f"{modality}_config"))
            self.encoders[modality] = encoder
            count = encoder.config.num_networks
            self.projections[modality] = (
                nn.Linear(encoder.output_size, config.projection_dim)
                if count == 1
                else ParallelProjections(encoder.output_size, config.projection_dim, count)
            )
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.vision_model = None
        if isinstance(config.vision_config, CLIPVisionConfig) and config.include_vision_tower:
            self.vision_model = CLIPVisionModelWithProjection(config.vision_config)
        # A tower loaded on demand is kept out of the registered modules, so that it is never trained or saved.
        self._external_vision_model: Any
        object.__setattr__(self, "_external_vision_model", None)
        self.freeze_parts()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keep what each layer was constructed with; transformers would redraw it."""

    def freeze_parts(self) -> None:
        """Take gradients from what the configuration leaves untrained; transformers gives them to all it loads."""
        self.logit_scale.requires_grad_(self.config.learn_logit_scale)
        for encoder in self.encoders.values():
            encoder.alignment.requires_grad_(not self.config.freeze_alignment)
        if self.vision_model is not None:
            freeze(self.vision_model)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint whole, or raise.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Hub name or folder; further arguments are those
                of [`~transformers.PreTrainedModel.from_pretrained`].

        Returns:
            [`NeuralClipModel`] in `eval()` mode.

        Raises:
            ValueError: If a tensor is missing, left over or of another shape. Never a silent random initialisation.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs["output_loading_info"] = True
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model, info = loaded
        problems = {key: sorted(map(str, info.get(key) or [])) for key in LOADING_PROBLEMS}
        found = {key: names for key, names in problems.items() if names}
        if found:
            raise ValueError(
                f"The checkpoint {pretrained_model_name_or_path!s} does not fit its configuration: {found}."
            )
        model.freeze_parts()
        return (model, info) if wants_info else model

    def train(self, mode: bool = True) -> "NeuralClipModel":
        """Switch the encoders between training and evaluation; the frozen tower stays in evaluation."""
        super().train(mode)
        if self.vision_model is not None:
            self.vision_model.eval()
        return self

    def add_subject(self, modality: str, name: str, n_voxels: int | None = None) -> None:
        """Give a new subject an alignment layer; the outputs of all others stay as they are.

        For EEG and MEG the layer starts as the mean of the others, so that it gives what the average subject gave;
        for fMRI, where voxels of two subjects do not correspond, as torch's linear layer does. `neural-clip adapt`
        fits it. The average subject (`subject_ids` of -1) is from then on the mean of one layer more.

        Args:
            modality (`str`): `"eeg"`, `"meg"` or `"fmri"`.
            name (`str`): Appended to `subjects` of that modality's configuration; its index is that of `subject_ids`.
            n_voxels (`int`, *optional*): Voxels of the new region of interest; for fMRI only, and needed there.

        Raises:
            ValueError: If the model has no such encoder, knows the name already, or `n_voxels` does not fit.
        """
        if modality not in self.encoders:
            raise ValueError(f"This model has no {modality!r} encoder; it has {list(self.encoders)}.")
        encoder: Any = self.encoders[modality]
        config, alignment = encoder.config, encoder.alignment
        if name in config.subjects:
            raise ValueError(
                f"The model knows {modality} subject {name!r} already; its subjects are {config.subjects}."
            )
        config.check_subjects([*config.subjects, name])
        if (modality == "fmri") != (n_voxels is not None) or (n_voxels is not None and n_voxels < 1):
            raise ValueError(
                "Invalid value for the 'n_voxels' parameter. It must be above 0 for 'fmri' and None for the others, "
                f"but got {n_voxels} for {modality!r}."
            )
        if modality != "fmri" and not config.subjects:
            raise ValueError(f"The model has no {modality} subject yet whose alignment layer could be the start.")
        if n_voxels is None:
            alignment.add_subject(name)
        else:
            alignment.add_subject(name, n_voxels)
            config.n_voxels = {**config.n_voxels, name: n_voxels}
        config.subjects = [*config.subjects, name]
        alignment.to(self.device, self.dtype)
        self.freeze_parts()

    def encode(self, modality: str, values: torch.Tensor, subject_ids: torch.Tensor | None) -> torch.Tensor:
        """Map recordings of one modality to what each network makes of them.

        Returns:
            `torch.FloatTensor` of shape `(num_networks, batch_size, projection_dim)`: Not normalised.
        """
        if modality not in self.encoders:
            raise ValueError(f"This model has no {modality!r} encoder; it has {list(self.encoders)}.")
        return self.project(modality, self.encoders[modality](values, subject_ids).pooler_output)

    def project(self, modality: str, features: torch.Tensor) -> torch.Tensor:
        """Map what an encoder returns, `(batch_size, output_size)`, as [`~NeuralClipModel.encode`] returns it."""
        return self.projections[modality](features).view(-1, len(features), self.config.projection_dim)

    def get_eeg_features(self, eeg_values: torch.Tensor, subject_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Embed EEG recordings.

        Args:
            eeg_values (`torch.FloatTensor` of shape `(batch_size, n_chans, n_times)`): As the processor makes them.
            subject_ids (`torch.LongTensor` of shape `(batch_size,)`): Indices into `config.eeg_config.subjects`, or
                -1 (EEG and MEG) for the average subject.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, projection_dim)`: Not normalised, as CLIP's features. Where
            several networks lie in parallel it is the mean of their vectors, each of unit length.
        """
        return mean_features(self.encode("eeg", eeg_values, subject_ids))

    def get_meg_features(self, meg_values: torch.Tensor, subject_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Embed MEG recordings; see [`~NeuralClipModel.get_eeg_features`]."""
        return mean_features(self.encode("meg", meg_values, subject_ids))

    def get_fmri_features(self, fmri_values: torch.Tensor, subject_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Embed fMRI patterns `(batch_size, max_n_voxels)`; see [`~NeuralClipModel.get_eeg_features`]."""
        return mean_features(self.encode("fmri", fmri_values, subject_ids))

    @torch.no_grad()
    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embed images with the frozen CLIP tower.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`): As the processor makes them.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, projection_dim)`: Not normalised; minus the mean that was
            subtracted from the targets of training, if one was (`config.target_space`).

        Raises:
            ValueError: If the targets were ready-made vectors, which no image tower of this model can make.
            OSError: If the tower is not part of the checkpoint and cannot be found on this machine or the Hub.
        """
        return self.target_of(self.vision_tower()(pixel_values.to(self.device)))

    def target_of(self, output: Any) -> torch.Tensor:
        """Where images lie in the space of the targets, from what the tower returns for them."""
        embeds = pooled_image(output, self.config.image_pooling)
        space = TargetSpace.of(self.config.target_space)
        return embeds if space is None or space.mean is None else embeds - torch.from_numpy(space.mean).to(embeds)

    def vision_tower(self) -> CLIPVisionModelWithProjection:
        """Return the frozen tower: the checkpoint's own, or the one that the configuration names, loaded once."""
        if self.vision_model is not None:
            return self.vision_model
        if self.config.image_pooling == "precomputed" or self.config.vision_model_name is None:
            raise ValueError(
                "This model was trained on ready-made image embeddings "
                f"({self.config.vision_model_name}); embed images with that encoder and pass 'image_embeds'."
            )
        if self._external_vision_model is None:
            name, revision = self.config.vision_model_name, self.config.vision_revision or "main"
            try:
                tower = CLIPVisionModelWithProjection.from_pretrained(name, revision=revision)
            except OSError as error:
                raise OSError(
                    f"The image encoder {name!r} (revision {revision}) is not part of this checkpoint and cannot be "
                    "had from this machine's Hub cache or the Hub. Download it there, or pass 'image_embeds'."
                ) from error
            freeze(tower)
            object.__setattr__(self, "_external_vision_model", tower)
        return self._external_vision_model.to(self.device)

    def forward(
        self,
        eeg_values: torch.Tensor | None = None,
        meg_values: torch.Tensor | None = None,
        fmri_values: torch.Tensor | None = None,
        subject_ids: torch.Tensor | None = None,
        image_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_ids: torch.Tensor | None = None,
        return_loss: bool | None = None,
    ) -> NeuralClipOutput:
        """Compare recordings of one modality with images.

        Args:
            eeg_values, meg_values, fmri_values (`torch.FloatTensor`): Exactly one of them; see `get_*_features`.
            subject_ids (`torch.LongTensor` of shape `(batch_size,)`): Index of each recording's subject in that
                modality's `subjects`, or -1 (EEG and MEG) for the average subject.
            image_embeds (`torch.FloatTensor` of shape `(n_images, projection_dim)`, *optional*): Cached embeddings, as
                `get_image_features` gives them.
            pixel_values (`torch.FloatTensor`, *optional*): Images, embedded by the frozen tower instead.
            image_ids (`torch.LongTensor` of shape `(batch_size,)`, *optional*): Rows with the same id show the same
                image and are positives of each other.
            return_loss (`bool`, *optional*): Row i of the images must answer row i of the recordings. By default the
                loss is computed when the two counts agree and `image_ids` is given.

        Returns:
            [`NeuralClipOutput`]

        Raises:
            ValueError: If not exactly one modality is given, or a shape does not fit the configuration.
        """
        values = {"eeg": eeg_values, "meg": meg_values, "fmri": fmri_values}
        given = {name: value for name, value in values.items() if value is not None}
        if len(given) != 1:
            raise ValueError(
                f"Give exactly one of 'eeg_values', 'meg_values' and 'fmri_values', but got {list(given)}."
            )
        ((modality, recordings),) = given.items()
        features = self.encode(modality, recordings, subject_ids)  # (num_networks, batch_size, projection_dim)
        neural_embeds = functional.normalize(mean_features(features), dim=-1)  # (batch_size, projection_dim)
        if image_embeds is None and pixel_values is not None:
            image_embeds = self.get_image_features(pixel_values)
        if image_embeds is None:
            return NeuralClipOutput(neural_embeds=neural_embeds)
        self.check_image_embeds(image_embeds)
        image_embeds = functional.normalize(image_embeds.to(neural_embeds.dtype), dim=-1)  # (n_images, projection_dim)
        logit_scale = self.logit_scale.clamp(max=MAX_LOGIT_SCALE)
        logits = logit_scale.exp() * neural_embeds @ image_embeds.T  # (batch_size, n_images)
        loss = None
        if return_loss or (return_loss is None and image_ids is not None):
            each = [
                self.loss_of(part, image_embeds, logit_scale, image_ids)
                for part in functional.normalize(features, dim=-1)
            ]
            loss = torch.stack(each).mean()
        return NeuralClipOutput(
            loss=loss,
            logits_per_neural=logits,
            logits_per_image=logits.T,
            neural_embeds=neural_embeds,
            image_embeds=image_embeds,
        )

    def loss_of(
        self, neural_embeds: torch.Tensor, image_embeds: torch.Tensor, logit_scale: torch.Tensor, image_ids: Any
    ) -> torch.Tensor:
        """The loss that `config.objective` names, of L2-normalised embeddings."""
        if self.config.objective == "mse":
            return regression_loss(neural_embeds, image_embeds)
        direction = self.config.contrastive_direction
        return clip_loss(neural_embeds, image_embeds, logit_scale, image_ids, direction)

    def check_image_embeds(self, image_embeds: torch.Tensor) -> None:
        """Raise a `ValueError` when image embeddings are not of the shared width."""
        if image_embeds.ndim != 2 or image_embeds.shape[1] != self.config.projection_dim:
            raise ValueError(
                f"'image_embeds' must have shape (n_images, {self.config.projection_dim}), "
                f"but got {tuple(image_embeds.shape)}."
            )


def pooled_image(output: Any, pooling: str) -> torch.Tensor:
    """Take the embeddings of images from what a CLIP vision tower returns.

    Args:
        output (`CLIPVisionModelOutput`): Of `CLIPVisionModelWithProjection`.
        pooling (`str`): `"projected"`, CLIP's image embedding; otherwise the class token behind the last layer, as
            it comes: no layer norm, no projection.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, projection_dim)`; the tower's `hidden_size` for the class token.
    """
    return output.image_embeds if pooling == "projected" else output.last_hidden_state[:, 0]


def mean_features(features: torch.Tensor) -> torch.Tensor:
    """Vectors of several networks `(num_networks, batch_size, projection_dim)` as one `(batch_size, projection_dim)`.

    The mean of unit vectors, so that no network counts for more because its vectors are longer; those of one network
    stay as they are.
    """
    return features[0] if len(features) == 1 else functional.normalize(features, dim=-1).mean(dim=0)


def freeze(module: nn.Module) -> None:
    """Put a module in evaluation for good: no gradients."""
    module.requires_grad_(False).eval()


LOADING_PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")


__all__ = ["NeuralClipModel", "NeuralClipOutput"]
