"""The loss of a batch that lies in several processes, or is embedded a part at a time (GradCache), or both.

The contrastive loss compares all recordings of a batch, so that their activations would have to be kept until its
backward pass. With cached gradients the batch is embedded in parts without keeping them; the loss gives a gradient for
each embedding; then each part is embedded again, with the same random numbers, and led backward from there. Source:
Gao et al. 2021, arXiv:2101.06983, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import get_device_states, set_device_states

from neural_clip.modeling_neural_clip import NeuralClipModel
from neural_clip.training.across_processes import gathered, raised_by_all, row_counts

Part = tuple[str, torch.Tensor, torch.Tensor]  # modality, recordings and subjects of some rows


def batch_loss(model: NeuralClipModel, inputs: dict[str, Any], mini_batch_size: int = 0) -> torch.Tensor:
    """What `model(**inputs).loss` would be of the rows of all processes together.

    Args:
        model ([`NeuralClipModel`]): In `train()` mode.
        inputs (`dict`): The rows of this process as [`RecordingDataset`] gives them, or with `recordings`
            ([`StoredRecordings`]) that are read a part at a time.
        mini_batch_size (`int`): Rows of a process whose activations are kept at a time; 0 for all.
    """
    model.limit_logit_scale()
    counts = row_counts(len(inputs["subject_ids"]), model.device)
    targets, image_ids = (gathered(inputs[name], counts) for name in ("image_embeds", "image_ids"))
    model.check_image_embeds(targets)
    targets = functional.normalize(targets.to(model.dtype), dim=-1)

    def loss_of(features: torch.Tensor) -> torch.Tensor:
        every = gathered(features.transpose(0, 1), counts).transpose(0, 1)  # (num_networks, batch_size, ...)
        return model.mean_loss(every, targets, image_ids)

    read = _reader(inputs, model.device)
    if not mini_batch_size:
        return loss_of(_embed(model, read(slice(None))))
    n_parts = -(-max(counts) // mini_batch_size)  # as many in each process
    borders = torch.arange(len(inputs["subject_ids"])).tensor_split(n_parts)
    slices = [slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0) for rows in borders]

    def part(rows: slice) -> Callable[[], torch.Tensor]:
        return lambda: _embed(model, read(rows))

    return _cached(model, [part(rows) for rows in slices], loss_of)


def _reader(inputs: dict[str, Any], device: torch.device) -> Callable[[slice], Part]:
    """What gives modality, recordings and subjects of some rows."""
    stored: Any = inputs.get("recordings")
    subject_ids = inputs["subject_ids"]

    def read(rows: slice) -> Part:
        with raised_by_all(device):
            return stored.modality, stored.read(rows).to(device), subject_ids[rows]

    if stored is not None:
        return read
    (name,) = [name for name in inputs if name.endswith("_values")]
    return lambda rows: (name.removesuffix("_values"), inputs[name][rows], subject_ids[rows])


def _embed(model: NeuralClipModel, part: Part) -> torch.Tensor:
    """Unit vectors of each network, `(num_networks, n_rows, projection_dim)`."""
    return functional.normalize(model.encode(*part), dim=-1)


def _cached(
    model: NeuralClipModel, embed: list[Callable[[], torch.Tensor]], loss_of: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """A loss whose backward pass embeds each part once more."""
    device = model.device.type
    precision: dict[str, Any] = {
        "enabled": torch.is_autocast_enabled(device),
        "dtype": torch.get_autocast_dtype(device),
    }
    began = _random_state(model.device)
    with torch.no_grad(), _buffers_kept(model):
        features = [each() for each in embed]
    cached = torch.cat(features, dim=1).requires_grad_()
    loss = loss_of(cached)
    result = loss.detach().requires_grad_()

    def backward(gradient: torch.Tensor) -> None:
        loss.backward(gradient)
        now = _random_state(model.device)
        _set_random_state(began)
        parts = cached.grad.split([part.shape[1] for part in features], dim=1)  # type: ignore[union-attr]
        with torch.enable_grad(), torch.autocast(device, **precision):
            for each, part in zip(embed, parts, strict=True):
                each().backward(part)
        _set_random_state(now)

    result.register_hook(backward)
    return result


@contextmanager
def _buffers_kept(model: NeuralClipModel) -> Iterator[None]:
    """Let the running statistics of batch norms be what they were: the second pass moves them."""
    before = [buffer.clone() for buffer in model.buffers()]
    yield
    for buffer, value in zip(model.buffers(), before, strict=True):
        buffer.copy_(value)


def _random_state(device: torch.device) -> tuple[torch.Tensor, list[int], list[torch.Tensor]]:
    """State of the generators of the processor and of a device."""
    return torch.get_rng_state(), *get_device_states(torch.empty(0, device=device))


def _set_random_state(state: tuple[torch.Tensor, list[int], list[torch.Tensor]]) -> None:
    """Go back to a state."""
    torch.set_rng_state(state[0])
    set_device_states(*state[1:])  # none of the processor alone
