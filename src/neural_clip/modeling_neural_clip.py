"""The model: frozen CLIP image embeddings on one side, one encoder per recording modality on the other."""

import copy
import math
from dataclasses import dataclass
from threading import RLock
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_neural_clip import AVERAGE_NAME, NeuralClipConfig
from .errors import check_option
from .losses import clip_loss, regression_loss
from .modalities import MODALITIES
from .modeling_closed_form import ClosedForm
from .modeling_eeg import EegEncoder
from .modeling_fmri import FmriEncoder
from .modeling_image_tower import freeze, load_tower, pooled_image
from .modeling_meg import MegEncoder
from .modeling_parallel import EncoderOutput, ParallelProjections, mean_features
from .modeling_pretrained import WholeModel
from .modeling_subject_branch import SubjectModel, blend
from .modeling_subject_layers import subject_index
from .modeling_text_tower import load_text_tower
from .target_space import TargetSpace

ENCODERS = {"eeg": EegEncoder, "meg": MegEncoder, "fmri": FmriEncoder}
# CLIP never lets the inverse temperature pass 100 (Radford et al. 2021, arXiv:2103.00020, section 2.5).
MAX_LOGIT_SCALE = math.log(100.0)
LOADING = RLock()  # threads that ask for a tower at once load it once


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
        neural_model_output ([`EncoderOutput`]): What the encoder returned, with its hidden states where they are
            asked for.
        vision_model_output (`CLIPVisionModelOutput`): What the image tower returned where `pixel_values` were given,
            with hidden states and attentions where they are asked for.
    """

    loss: torch.Tensor | None = None
    logits_per_neural: torch.Tensor | None = None
    logits_per_image: torch.Tensor | None = None
    neural_embeds: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    neural_model_output: EncoderOutput | None = None
    vision_model_output: ModelOutput | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        """All that is not `None`, the outputs of encoder and tower as tuples too."""
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in self.values())


class NeuralClipModel(WholeModel):
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
            *others, last = (f"'{name}_config'" for name in ENCODERS)
            raise ValueError(f"The configuration holds no encoder; give {', '.join(others)} or {last}.")
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
        self.closed_forms: Any = nn.ModuleDict()  # of `ClosedForm`
        for modality in config.modalities:
            if getattr(config, f"{modality}_config").closed_form is not None:
                self.closed_forms[modality] = self.new_closed_form(modality)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.vision_model = None
        if isinstance(config.vision_config, CLIPVisionConfig) and config.include_vision_tower:
            self.vision_model = CLIPVisionModelWithProjection(config.vision_config)
        # A tower loaded on demand is kept out of the registered modules, so that it is never trained or saved.
        self._external_vision_model: Any
        object.__setattr__(self, "_external_vision_model", None)
        self._external_text_model: Any  # likewise, with its tokenizer
        object.__setattr__(self, "_external_text_model", None)
        self.freeze_parts()
        self.post_init()

    def initialize_weights(self) -> None:
        """Give every tensor a first value, those of the tower as CLIP itself does."""
        if self.vision_model is not None:
            self.vision_model.initialize_weights()
        super().initialize_weights()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Give tensors that nothing was loaded into what they are constructed with."""
        super()._init_weights(module)
        if module is self and not getattr(self.logit_scale, "_is_hf_initialized", False):
            self.logit_scale.fill_(self.config.logit_scale_init_value)

    def freeze_parts(self) -> None:
        """Take gradients from what the configuration leaves untrained; transformers gives them to all it loads."""
        self.logit_scale.requires_grad_(self.config.learn_logit_scale)
        self.closed_forms.requires_grad_(False)
        for encoder in self.encoders.values():
            encoder.alignment.requires_grad_(not self.config.freeze_alignment)
        if self.vision_model is not None:
            freeze(self.vision_model)

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
        encoder = self.encoder(modality)
        config, alignment = encoder.config, encoder.alignment
        if name in config.subjects:
            raise ValueError(
                f"The model knows {modality} subject {name!r} already; its subjects are {config.subjects}."
            )
        config.check_subjects([*config.subjects, name])
        sensors = MODALITIES[modality].sensors
        if sensors != (n_voxels is None) or (n_voxels is not None and n_voxels < 1):
            raise ValueError(
                "Invalid value for the 'n_voxels' parameter. It must be above 0 for 'fmri' and None for the others, "
                f"but got {n_voxels} for {modality!r}."
            )
        if sensors and config.corpora is not None:
            raise ValueError(
                f"The model has {modality} of the corpora {list(config.corpora)}, whose channels may differ, so that "
                "there is no mean layer a new subject could start from. Train a model of one corpus for that."
            )
        if sensors and not config.subjects:
            raise ValueError(f"The model has no {modality} subject yet whose alignment layer could be the start.")
        if n_voxels is None:
            alignment.add_subject(name)
        else:
            alignment.add_subject(name, n_voxels)
            config.n_voxels = {**config.n_voxels, name: n_voxels}
        if modality in self.closed_forms:
            closed = self.closed_forms[modality]
            closed.add_subject(name)
            config.closed_form = closed.settings.as_dict()
            closed.to(self.device, self.dtype)
        config.subjects = [*config.subjects, name]
        alignment.to(self.device, self.dtype)
        self.freeze_parts()

    def new_closed_form(self, modality: str) -> ClosedForm:
        """A closed form as the configuration says, which leaves embeddings to the network until it is filled."""
        return ClosedForm(self.encoder(modality).config, self.config.projection_dim)

    def set_closed_form(self, modality: str, settings: dict | None) -> None:
        """Put a new closed form beside the network of a modality, or take away the one that is there.

        Args:
            modality (`str`): `"eeg"`, `"meg"` or `"fmri"`.
            settings (`dict`, *optional*): As [`ClosedFormSettings`] holds them; `None` for no closed form.
        """
        self.encoder(modality).config.closed_form = settings
        if settings is not None:
            self.closed_forms[modality] = self.new_closed_form(modality).to(self.device, self.dtype)
        elif modality in self.closed_forms:
            del self.closed_forms[modality]
        self.freeze_parts()

    def encode(self, modality: str, values: torch.Tensor, subject_ids: torch.Tensor | None) -> torch.Tensor:
        """Map recordings of one modality to what each network makes of them.

        Returns:
            `torch.FloatTensor` of shape `(num_networks, batch_size, projection_dim)`: Not normalised.
        """
        return self.project(modality, self.encoder(modality)(values, subject_ids, return_dict=True).pooler_output)

    def encoder(self, modality: str) -> Any:
        """The encoder of a modality; raises a `ValueError` where the model has none."""
        if modality not in self.encoders:
            raise ValueError(f"This model has no {modality!r} encoder; it has {list(self.encoders)}.")
        return self.encoders[modality]

    def project(self, modality: str, features: torch.Tensor) -> torch.Tensor:
        """Map what an encoder returns, `(batch_size, output_size)`, as [`~NeuralClipModel.encode`] returns it."""
        count = self.encoder(modality).config.num_networks
        return self.projections[modality](features).view(count, len(features), self.config.projection_dim)

    def blended(
        self, modality: str, network: torch.Tensor, values: torch.Tensor, subject_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """Embeddings from what the network makes of recordings, `(batch_size, projection_dim)`.

        While training, and where there is no closed form, they are the network's.
        """
        if self.training or modality not in self.closed_forms:
            return network
        assert subject_ids is not None  # the encoder has looked
        return self.closed_forms[modality].blended(network, values, subject_ids)

    def features(self, modality: str, values: torch.Tensor, subject_ids: torch.Tensor | None) -> torch.Tensor:
        """Embed recordings of one modality; see [`~NeuralClipModel.get_eeg_features`]."""
        return self.blended(modality, mean_features(self.encode(modality, values, subject_ids)), values, subject_ids)

    def each_features(
        self, modality: str, values: torch.Tensor, subject_ids: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Embed recordings by each of the two parts of a blend, and by both.

        Args:
            modality (`str`): `"eeg"`, `"meg"` or `"fmri"`; the other arguments are those of `get_*_features`.

        Returns:
            `dict[str, torch.FloatTensor]`: `"network"` and, where there is a closed form, `"closed form"` and
            `"blend"`, each of shape `(batch_size, projection_dim)`, not normalised.
        """
        network = mean_features(self.encode(modality, values, subject_ids))
        if modality not in self.closed_forms:
            return {"network": network}
        mapped, parts = self.closed_forms[modality](values, subject_ids)
        return {"network": network, "closed form": mapped, "blend": blend(network, mapped, parts)}

    def get_eeg_features(self, eeg_values: torch.Tensor, subject_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Embed EEG recordings.

        Args:
            eeg_values (`torch.FloatTensor` of shape `(batch_size, n_chans, n_times)`): As the processor makes them.
            subject_ids (`torch.LongTensor` of shape `(batch_size,)`): Indices into `config.eeg_config.subjects`, or
                -1 (EEG and MEG) for the average subject.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, projection_dim)`: Not normalised, as CLIP's features. Where
            several networks lie in parallel it is the mean of their vectors, each of unit length; where there is a
            closed form beside them, the blend of both.
        """
        return self.features("eeg", eeg_values, subject_ids)

    def get_meg_features(self, meg_values: torch.Tensor, subject_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Embed MEG recordings; see [`~NeuralClipModel.get_eeg_features`]."""
        return self.features("meg", meg_values, subject_ids)

    def get_fmri_features(self, fmri_values: torch.Tensor, subject_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Embed fMRI patterns `(batch_size, max_n_voxels)`; see [`~NeuralClipModel.get_eeg_features`]."""
        return self.features("fmri", fmri_values, subject_ids)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embed images with the frozen CLIP tower.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`): As the processor makes them.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, projection_dim)`: Not normalised; minus the mean that was
            subtracted from the targets of training, if one was (`config.target_space`).

        Raises:
            ValueError: If the targets were ready-made vectors, which no image tower of this model can make, or the
                tower that is found has other weights.
            OSError: If the tower is not part of the checkpoint and cannot be found on this machine or the Hub.
        """
        return self.target_of(self.see(pixel_values))

    @torch.no_grad()
    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Embed text with the frozen text tower of the CLIP whose image tower made the targets.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`): As [`~NeuralClipModel.tokenizer`]
                makes them.
            attention_mask (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*): 0 where a text
                has ended.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, projection_dim)`: Not normalised; minus the mean that was
            subtracted from the targets of training, if one was.

        Raises:
            ValueError: If the targets are not CLIP's projected image embeddings, or it has no text tower.
            OSError: If the tower cannot be found on this machine or the Hub.
        """
        tower, _ = self.text_tower()
        mask = None if attention_mask is None else attention_mask.to(tower.device)
        embeds = tower(input_ids=input_ids.to(tower.device), attention_mask=mask).text_embeds
        return self.less_mean(embeds)

    @property
    def tokenizer(self) -> Any:
        """Of the text tower."""
        return self.text_tower()[1]

    def text_tower(self) -> tuple[Any, Any]:
        """The frozen text tower and its tokenizer, loaded once; never trained or saved."""
        with LOADING:
            if self._external_text_model is None:
                object.__setattr__(self, "_external_text_model", load_text_tower(self.config, self.dtype))
        tower, tokenizer = self._external_text_model
        return tower.to(self.device, self.dtype), tokenizer

    @torch.no_grad()
    def see(self, pixel_values: torch.Tensor, **wanted: bool) -> Any:
        """What the frozen tower returns for images; `wanted` are hidden states or attentions."""
        tower = self.vision_tower()
        return tower(pixel_values.to(tower.device, tower.dtype), return_dict=True, **wanted)

    def target_of(self, output: Any) -> torch.Tensor:
        """Where images lie in the space of the targets, from what the tower returns for them."""
        return self.less_mean(pooled_image(output, self.config.image_pooling))

    def less_mean(self, embeds: torch.Tensor) -> torch.Tensor:
        """Embeddings without the mean that was subtracted from the targets of training, if one was."""
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
        with LOADING:
            if self._external_vision_model is None:
                object.__setattr__(self, "_external_vision_model", load_tower(self.config, self.dtype))
        return self._external_vision_model.to(self.device, self.dtype)

    def for_subject(self, name: str, modality: str | None = None) -> SubjectModel:
        """The model for one subject and one modality, as a plain module with weights of its own.

        Its `forward` takes recordings alone, so that it can be compiled as one graph, exported with a batch of any
        size, or given to `peft`; that subject's alignment layer is folded in.

        Args:
            name (`str`): A subject of the model, or `"average"` (EEG and MEG) for the mean of all layers.
            modality (`str`, *optional*): `"eeg"`, `"meg"` or `"fmri"`; may be left out where only one of them has
                that subject.

        Returns:
            [`SubjectModel`] in `eval()` mode: recordings `(batch_size, ...)` to what `get_eeg_features` and its like
            give for this subject.

        Raises:
            ValueError: If the subject is unknown, or known in several modalities and none is named.
        """
        if modality is None:
            known: dict[str, list[str]] = {}
            for each in self.encoders:
                config = self.encoder(each).config
                average = [AVERAGE_NAME] if MODALITIES[each].sensors and config.corpora is None else []
                for subject in [*config.subjects, *average]:
                    known.setdefault(subject, []).append(each)
            check_option("name", name, list(known))
            if len(known[name]) > 1:
                raise ValueError(
                    f"Subject {name!r} is known in {known[name]}; name one of them as 'modality' of 'for_subject'."
                )
            modality = known[name][0]
        check_option("modality", modality, list(self.encoders))
        encoder, closed = self.encoder(modality), None
        if modality in self.closed_forms:
            subject = subject_index(name, encoder.config.subjects, average=MODALITIES[modality].sensors)
            closed = self.closed_forms[modality].for_subject(subject)
        projection = copy.deepcopy(self.projections[modality])
        return SubjectModel(encoder.for_subject(name), projection, closed).eval()

    @can_return_tuple
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
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
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
            output_hidden_states (`bool`, *optional*): Whether encoder and image tower return theirs.
            output_attentions (`bool`, *optional*): Whether the image tower returns its own.
            return_dict (`bool`, *optional*): `False` returns a tuple of all that is not `None`.

        Returns:
            [`NeuralClipOutput`]

        Raises:
            ValueError: If not exactly one modality is given, or a shape does not fit the configuration.
        """
        values = {"eeg": eeg_values, "meg": meg_values, "fmri": fmri_values}
        given = {name: value for name, value in values.items() if value is not None}
        if len(given) != 1:
            *others, last = (f"'{name}_values'" for name in values)
            raise ValueError(f"Give exactly one of {', '.join(others)} and {last}, but got {list(given)}.")
        ((modality, recordings),) = given.items()
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        wanted = {"output_hidden_states": bool(output_hidden_states), "output_attentions": bool(output_attentions)}
        encoded = self.encoder(modality)(recordings, subject_ids, return_dict=True, **wanted)
        features = self.project(modality, encoded.pooler_output)  # (num_networks, batch_size, projection_dim)
        embeds = self.blended(modality, mean_features(features), recordings, subject_ids)
        neural_embeds = functional.normalize(embeds, dim=-1)  # (batch_size, projection_dim)
        seen = None
        if image_embeds is None and pixel_values is not None:
            seen = self.see(pixel_values, **wanted)
            image_embeds = self.target_of(seen)
        if image_embeds is None:
            return NeuralClipOutput(neural_embeds=neural_embeds, neural_model_output=encoded)
        self.check_image_embeds(image_embeds)
        image_embeds = functional.normalize(image_embeds.to(neural_embeds.dtype), dim=-1)  # (n_images, projection_dim)
        if self.training:
            self.limit_logit_scale()
        logit_scale = self.logit_scale.clamp(max=MAX_LOGIT_SCALE)
        logits = logit_scale.exp() * neural_embeds @ image_embeds.T  # (batch_size, n_images)
        loss = None
        if return_loss or (return_loss is None and image_ids is not None):
            loss = self.mean_loss(functional.normalize(features, dim=-1), image_embeds, image_ids)
        return NeuralClipOutput(
            loss=loss,
            logits_per_neural=logits,
            logits_per_image=logits.T,
            neural_embeds=neural_embeds,
            image_embeds=image_embeds,
            neural_model_output=encoded,
            vision_model_output=seen,
        )

    def limit_logit_scale(self) -> None:
        """Bring a learned temperature back to its limit, which a step may have led it beyond, as open_clip does.

        A limit on what is computed alone would leave it without a gradient from then on. `forward` calls this while
        training, because every training passes through it: plain `Trainer`, accelerate, own loops.
        """
        if self.logit_scale.requires_grad:
            # `data`: a graph of this step that waits for its backward pass keeps the value that it was made with.
            self.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Save with the temperature within its limit, also after the last step, and closed forms as they are kept."""
        self.limit_logit_scale()
        if kept := self.maps_in_half():
            state = kwargs.get("state_dict") or self.state_dict()
            kwargs["state_dict"] = {name: tensor.half() if name in kept else tensor for name, tensor in state.items()}
        super().save_pretrained(*args, **kwargs)

    def maps_in_half(self) -> set[str]:
        """Names of tensors that are kept in 16 bits on disk."""
        maps = {id(weight) for closed in self.closed_forms.values() for weight in closed.maps_in_half()}
        return {name for name, parameter in self.named_parameters() if id(parameter) in maps}

    def mean_loss(
        self, features: torch.Tensor, image_embeds: torch.Tensor, image_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """The mean over networks of the loss of what each makes of recordings.

        Args:
            features (`torch.FloatTensor` of shape `(num_networks, batch_size, projection_dim)`): L2-normalised.
            image_embeds (`torch.FloatTensor` of shape `(batch_size, projection_dim)`): L2-normalised.
            image_ids (`torch.LongTensor` of shape `(batch_size,)`, *optional*): Equal ones are positives.
        """
        logit_scale = self.logit_scale.clamp(max=MAX_LOGIT_SCALE)
        return torch.stack([self.loss_of(part, image_embeds, logit_scale, image_ids) for part in features]).mean()

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


__all__ = ["NeuralClipModel", "NeuralClipOutput"]
