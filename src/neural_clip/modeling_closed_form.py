"""The closed form beside a network: linear maps of recordings to image embeddings, fitted without gradients.

A recording's embedding is then the blend w n / s_n + (1 - w) r / s_r of two unit vectors: what the network makes of
it, n, and what the closed form does, r. s_n and s_r are their spreads, so that w says how much each counts.
`neural-clip train` fits the maps and chooses w after the network has learnt (`training/closed_form.py`).
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .closed_form_settings import ClosedFormSettings
from .configuration_neural_clip import AVERAGE_SUBJECT
from .corpus_inputs import corpus_of
from .modeling_subject_branch import CommonWindow, SubjectClosedForm, Window, blend
from .modeling_subject_layers import (
    SubjectLayers,
    apply_by_subject,
    average_layer,
    common_values,
    mean_parameters,
)


class ClosedFormLayer(nn.Module):
    """What a subject alone has of a closed form.

    Args:
        out_features (`int`): Width of the space shared with images.
        in_features (`int`, *optional*): Values in a recording, for a subject with a map of its own.
        n_chans (`int`, *optional*): Channels to mix.

    `parts`, of shape `(2,)`, are what network and closed form count: w / s_n and (1 - w) / s_r. A new layer leaves the
    embedding to the network.
    """

    def __init__(self, out_features: int, in_features: int | None = None, n_chans: int | None = None) -> None:
        super().__init__()
        sizes: dict[str, tuple[int, ...]] = {"parts": (2,), "bias": (out_features,)}
        if n_chans is not None:
            sizes["mixing"] = (n_chans, n_chans)
        if in_features is not None:
            sizes["weight"] = (out_features, in_features)
        for name in ("parts", "bias", "mixing", "weight"):
            self.register_parameter(name, nn.Parameter(torch.empty(sizes[name])) if name in sizes else None)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start without a closed form."""
        for parameter in self.parameters():
            parameter.zero_()
        self.get_parameter("parts")[0] = 1.0
        if getattr(self, "mixing", None) is not None:
            nn.init.eye_(self.get_parameter("mixing"))


class ClosedForm(nn.Module):
    """The closed form of one modality.

    Args:
        config ([`SensorConfig`] or [`FmriConfig`]): Of the encoder; its `closed_form` is there.
        out_features (`int`): Width of the space shared with images.
    """

    def __init__(self, config: Any, out_features: int) -> None:
        super().__init__()
        settings = ClosedFormSettings.of(config.closed_form, config.subjects)
        assert settings is not None  # the model asks for a closed form where there is one
        self.config, self.settings, self.out_features = config, settings, out_features
        self.is_sensors = hasattr(config, "n_chans")  # the class may be another copy of the same code
        self.window = Window(settings.first_sample, settings.decimation) if self.is_sensors else nn.Identity()
        self.weight = nn.Parameter(torch.empty(out_features, self.in_features(""))) if settings.shared else None
        self.shared = SubjectLayers()  # maps of corpora
        for corpus in settings.corpora:
            first = next(name for name in config.subjects if corpus_of(name) == corpus)
            self.shared[corpus] = nn.Linear(self.in_features(first), out_features, bias=False)
        self.layers = SubjectLayers()
        for name in config.subjects:
            self.layers[name] = self.new_layer(name in settings.own, name)
        self.reset_parameters()

    @property
    def dtype(self) -> torch.dtype:
        """Of the maps."""
        return next(self.parameters()).dtype

    def in_features(self, name: str) -> int:
        """Values that the map of a subject reads."""
        if not self.is_sensors:
            return self.config.n_voxels[name]
        n_times = (self.config.n_times - self.settings.first_sample) // self.settings.decimation
        return self.config.inputs_of(name).n_chans * n_times

    def give_map(self, name: str, dtype: str | None = None) -> ClosedFormLayer:
        """Give a subject of the configuration a new layer with a map of its own, kept in `dtype`, and return it."""
        self.layers[name] = self.new_layer(True, name).to(next(self.parameters()).device, self.dtype)
        self.layers[name].requires_grad_(False)
        self.settings.own[:] = [*(each for each in self.settings.own if each != name), name]
        self.settings.own_dtypes.pop(name, None)
        if dtype not in (None, self.settings.dtype):
            self.settings.own_dtypes[name] = dtype
        self.config.closed_form = self.settings.as_dict()
        return self.layers[name]

    def maps_in_half(self) -> list[nn.Parameter]:
        """Maps that are kept in 16 bits on disk."""
        kept = [self.weight, *self.shared.parameters()] if self.settings.dtype == "float16" else []
        kept += [self.layers[name].weight for name in self.settings.own if self.settings.dtype_of(name) == "float16"]
        return [weight for weight in kept if weight is not None]

    def new_layer(self, own: bool, name: str) -> ClosedFormLayer:
        """A layer that leaves the embedding to the network."""
        shares = not own and (self.settings.shared or corpus_of(name) in self.settings.corpora)
        n_chans = self.config.inputs_of(name).n_chans if self.settings.mixed and shares else None
        return ClosedFormLayer(self.out_features, self.in_features(name) if own else None, n_chans)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start without a map."""
        if self.weight is not None:
            self.weight.zero_()
        for parameter in self.shared.parameters():
            parameter.zero_()

    def add_subject(self, name: str) -> None:
        """Append a subject: the mean of the others, or nothing but the network where voxels do not correspond."""
        averaged = self.averaged()
        layer: Any = average_layer(averaged) if averaged else self.new_layer(False, name)
        if layer.weight is not None and self.settings.dtype == "float16":
            layer.weight.data = layer.weight.data.half().to(layer.weight.dtype)  # as it is kept on disk
        self.layers[name] = layer
        if layer.weight is not None:
            self.settings.own.append(name)

    def averaged(self) -> SubjectLayers:
        """Layers whose mean is the average subject's: of those who share a map, or of all where each has one.

        There are none where voxels do not correspond, or some have no map: there it is left to the network.
        """
        found, own = SubjectLayers(), self.settings.own
        if self.is_sensors and (self.settings.shared or len(own) == len(self.config.subjects)):
            for name in self.config.subjects:
                if not self.settings.shared or name not in own:
                    found[name] = self.layers[name]
        return found

    def parts_of(self, subject: int) -> dict[str, torch.Tensor]:
        """What the layer of one subject, or of the average one, holds; the shared map where it has none of its own."""
        found: dict[str, Any]
        if subject != AVERAGE_SUBJECT:
            found = dict(list(self.layers.values())[subject].named_parameters())
            if (corpus := corpus_of(self.config.subjects[subject])) in self.shared:
                return {"weight": self.shared[corpus].weight, **found}
        elif averaged := self.averaged():
            found = mean_parameters(averaged)
        else:
            found = dict(ClosedFormLayer(self.out_features).to(self.dtype).named_parameters())
        return found if self.weight is None else {"weight": self.weight, **found}

    def forward(self, values: torch.Tensor, subject_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the closed form makes of recordings, and what the two parts of a blend count.

        Args:
            values (`torch.FloatTensor` of shape `(batch_size, ...)`): As the encoder takes them.
            subject_ids (`torch.LongTensor` of shape `(batch_size,)`): As the encoder takes them.

        Returns:
            `tuple` of `torch.FloatTensor` `(batch_size, out_features)`, of any length, and `(batch_size, 2)`.
        """
        values = values.to(self.dtype)
        if self.is_sensors:
            values = common_values(values, subject_ids, self.config, "values")
        values = self.window(values)

        def layer_of(subject: int, rows: torch.Tensor) -> torch.Tensor:
            found, own = self.parts_of(subject), values[rows]
            if "mixing" in found:
                own = found["mixing"] @ own[:, : len(found["mixing"])]  # zeros follow the channels of a corpus
            mapped = found["bias"].expand(len(rows), self.out_features)
            if "weight" in found:
                own = own.flatten(1)[:, : found["weight"].shape[1]]  # zeros follow the voxels or channels of a subject
                mapped = functional.linear(own, found["weight"], found["bias"])
            return torch.cat([mapped, found["parts"].expand(len(rows), 2)], dim=1)

        return apply_by_subject(layer_of, subject_ids).split([self.out_features, 2], dim=1)

    def blended(self, network: torch.Tensor, values: torch.Tensor, subject_ids: torch.Tensor) -> torch.Tensor:
        """Embeddings `(batch_size, out_features)` from what the network makes of recordings, not normalised."""
        return blend(network, *self(values, subject_ids))

    @torch.no_grad()
    def for_subject(self, subject: int) -> SubjectClosedForm:
        """The closed form of one subject, as a plain module with weights of its own."""
        window: nn.Module = self.window
        if self.is_sensors and self.config.corpora is not None:
            common = CommonWindow(self.config.inputs_of(self.config.subjects[subject]), self.config.inputs)
            window = nn.Sequential(common, window)
        return SubjectClosedForm(window, **self.parts_of(subject))
