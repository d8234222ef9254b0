"""What the models share: a checkpoint is loaded whole or not at all, and no tensor starts as silent memory."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedConfig, PreTrainedModel

from .configuration_neural_clip import NeuralClipConfig
from .errors import loading
from .modeling_braindecode import BraindecodeNet
from .modeling_closed_form import ClosedForm, ClosedFormLayer
from .modeling_temporal_spatial import TemporalFilter
from .pushing import PushedByTerms

LOADING_PROBLEMS = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
MAX_UNFILLED = 1 << 26  # numbers that a configuration may ask for beyond the weights before they are named
# Layers that know how they start.
REDRAWN = (nn.Linear, nn.Conv1d, nn.Conv2d, TemporalFilter, BraindecodeNet, ClosedForm, ClosedFormLayer)
# What a joint checkpoint holds beside its encoders.
JOINT_PARTS = ("closed_forms", "encoders", "logit_scale", "projections", "vision_model")


class WholeModel(PushedByTerms, PreTrainedModel):  # type: ignore[misc]  # `push_to_hub` has fewer arguments
    """A model that is loaded whole or not at all."""

    config_class: Any
    # The image tower alone has attention, and knows each of these; the encoders have none to be refused.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Alignment layers are multiplied with spatial filters, so both must lie on one device.
    _no_split_modules: Any = ("EegEncoder", "FmriEncoder", "MegEncoder")

    def __init__(self, config: Any) -> None:
        self.check_config(config)
        super().__init__(config)

    @classmethod
    def check_config(cls, config: Any) -> None:
        """Raise a `TypeError` for a configuration of another model."""
        if not isinstance(config, cls.config_class) and type(config).__name__ != cls.config_class.__name__:
            raise TypeError(
                f"{cls.__name__} takes a {cls.config_class.__name__} as configuration, "
                f"but got a {type(config).__name__}."
            )

    def data_terms(self) -> dict[str, str | None]:
        """Whether the data that this learnt from may be redistributed, by data set; see [`terms_of`]."""
        return self.config.data_terms()

    def post_init(self) -> None:
        """Keep what each layer was constructed with; transformers would redraw it."""
        if all(tensor.device.type != "meta" for tensor in self.parameters()):
            for module in self.modules():
                vars(module)["_is_hf_initialized"] = True
        super().post_init()

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        """Treat code of the Hub as that of the package: `_init_weights` leaves what was loaded alone."""
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Give tensors that nothing was loaded into what their layer is constructed with."""
        if all(
            getattr(tensor, "_is_hf_initialized", False) for tensor in chain(module.parameters(), module.buffers())
        ):
            return
        if isinstance(module, _BatchNorm):
            super()._init_weights(module)
        elif isinstance(module, REDRAWN):
            module.reset_parameters()

    def _adjust_missing_and_unexpected_keys(self, loading_info: Any) -> None:
        """Keep what does not fit: of a model with an adapter, transformers returns what did not fit of the adapter."""
        super()._adjust_missing_and_unexpected_keys(loading_info)
        vars(self)["_left_of_weights"] = loading_info.to_dict()

    def _move_missing_keys_from_meta_to_device(self, missing_keys: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse what would fill the memory; the rest is named in the end, tensor by tensor."""
        buffers = [buffer for _, buffer in self.named_non_persistent_buffers()]
        tensors = [self.get_parameter_or_buffer(name) for name in missing_keys]
        if (size := sum(tensor.numel() for tensor in tensors + buffers)) > MAX_UNFILLED:
            raise ValueError(f"its configuration asks for {size:,} numbers more than its weights hold")
        super()._move_missing_keys_from_meta_to_device(missing_keys, *args, **kwargs)

    def freeze_parts(self) -> None:
        """Take gradients from what the configuration leaves untrained; transformers gives them to all it loads."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint whole, or raise.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): Hub name or folder. An encoder takes a joint
                checkpoint too, and is then that branch of it. Further arguments are those of
                [`~transformers.PreTrainedModel.from_pretrained`].

        Returns:
            The model in `eval()` mode.

        Raises:
            ValueError: If a tensor is missing, left over or of another shape, also with `ignore_mismatched_sizes`.
                Never a silent random initialisation. Also if a file is damaged; it is named.
        """
        if isinstance(kwargs.get("config"), PreTrainedConfig):
            cls.check_config(kwargs["config"])
        wants_info = kwargs.pop("output_loading_info", False)
        # Transformers reports a tensor of another shape instead of stopping, so that it is named below.
        reported = kwargs | {"output_loading_info": True, "ignore_mismatched_sizes": True}
        with without_report(), loading(pretrained_model_name_or_path, kwargs):
            loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, **reported)
        model, info = loaded
        info = vars(model).pop("_left_of_weights", info)
        problems = {key: set(info.get(key) or []) for key in LOADING_PROBLEMS}
        if problems["unexpected_keys"] and cls.config_class.base_config_key:
            problems["unexpected_keys"] -= cls.other_parts(
                pretrained_model_name_or_path, problems["unexpected_keys"], kwargs
            )
        if any(problems.values()):
            found = {key: sorted(map(str, names)) for key, names in problems.items() if names}
            raise ValueError(
                f"The checkpoint {pretrained_model_name_or_path!s} does not fit its configuration: {found}."
            )
        if any(weight.is_meta for name, weight in model.named_parameters() if not name.startswith("vision_model.")):
            raise ValueError(
                "'device_map' puts encoders or projections on disk or offloads them, but layers that are multiplied "
                "with one another before they meet a recording must stay on their device. Only 'vision_model' may go."
            )
        model.freeze_parts()
        return (model, info | problems) if wants_info else model

    @classmethod
    def other_parts(cls, path: Any, names: set[str], kwargs: dict) -> set[str]:
        """Those of the names that are tensors of a joint checkpoint's other parts; none where it is no joint one."""
        config, _ = cls.config_class.get_config_dict(path, **kwargs)
        if config.get("model_type") != NeuralClipConfig.model_type:
            return set()
        own = f"{cls.base_model_prefix}."
        return {name for name in names if name.split(".")[0] in JOINT_PARTS and not name.startswith(own)}


@contextmanager
def without_report() -> Iterator[None]:
    """Leave out the table that transformers logs of tensors that do not fit: here they raise, or are not asked for."""

    def keep(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
