"""Training objectives: the only place where they are defined."""

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .errors import check_option

BLOCK_ROWS = 1024  # queries of a larger batch that are compared at a time


def positive_mask(image_ids: torch.Tensor | None, batch_size: int, device: torch.device) -> torch.Tensor:
    """Mark the pairs that show the same image, `(batch_size, batch_size)` bool; the diagonal where ids are absent."""
    if image_ids is None:
        return torch.eye(batch_size, dtype=torch.bool, device=device)
    return image_ids[:, None] == image_ids[None, :]


def one_direction_loss(logits: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row against the uniform distribution over its positives.

    Args:
        logits (`torch.Tensor` of shape `(n_queries, batch_size)`): Scaled similarities; row i is query i.
        positives (`torch.BoolTensor` of shape `(n_queries, batch_size)`): True where column j answers row i.

    Returns:
        `torch.Tensor` of shape `()`: Mean over rows, in nats.

    Source: Khosla et al. 2020, arXiv:2004.11362, eq. 2 (the sum over positives outside the logarithm). With one
    positive a row it is InfoNCE, arXiv 2411.09723, eq. 1.
    """
    targets = positives.to(logits.dtype)
    targets = targets / targets.sum(dim=1, keepdim=True)
    return functional.cross_entropy(logits, targets)


def clip_loss(
    neural_embeds: torch.Tensor,
    image_embeds: torch.Tensor,
    logit_scale: torch.Tensor,
    image_ids: torch.Tensor | None = None,
    direction: str = "both",
) -> torch.Tensor:
    """InfoNCE between recordings and the images they answer to.

    Args:
        neural_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`): L2-normalised, unitless.
        image_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`): L2-normalised, unitless.
        logit_scale (`torch.Tensor` of shape `()`): Log of the inverse temperature; exponentiated here.
        image_ids (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
            Rows that show the same image are positives of each other.
        direction (`str`): `"both"` averages the two directions, `"neural_to_image"` is the first alone.

    Returns:
        `torch.Tensor` of shape `()`: In nats.

    Raises:
        ValueError: If shapes differ, or `direction` is unknown.

    Source: Radford et al. 2021, arXiv:2103.00020, Fig. 3 (both directions); Ferrante et al. 2024, arXiv:2411.09723,
    eq. 1 (recordings to images alone). Deviation: repeats of an image are positives, not false negatives.
    """
    check_same_shape(neural_embeds, image_embeds)
    if image_ids is not None and image_ids.shape != neural_embeds.shape[:1]:
        raise ValueError(
            f"'image_ids' must have shape {tuple(neural_embeds.shape[:1])}, but got {tuple(image_ids.shape)}."
        )
    check_option("direction", direction, ("both", "neural_to_image"))
    if len(neural_embeds) > BLOCK_ROWS:
        neural_to_image = _loss_by_blocks(neural_embeds, image_embeds, logit_scale, image_ids)
        if direction == "neural_to_image":
            return neural_to_image
        return (neural_to_image + _loss_by_blocks(image_embeds, neural_embeds, logit_scale, image_ids)) / 2
    logits = logit_scale.exp() * neural_embeds @ image_embeds.T  # (batch_size, batch_size)
    positives = positive_mask(image_ids, len(logits), logits.device)
    neural_to_image = one_direction_loss(logits, positives)
    if direction == "neural_to_image":
        return neural_to_image
    return (neural_to_image + one_direction_loss(logits.T, positives)) / 2


def _loss_by_blocks(
    queries: torch.Tensor, answers: torch.Tensor, logit_scale: torch.Tensor, image_ids: torch.Tensor | None
) -> torch.Tensor:
    """[`one_direction_loss`] of a large batch, a block of queries at a time; backward computes logits again."""
    ids = torch.arange(len(queries), device=queries.device) if image_ids is None else image_ids

    def of_block(own: torch.Tensor, own_ids: torch.Tensor) -> torch.Tensor:
        logits = logit_scale.exp() * own @ answers.T  # (n_rows, batch_size)
        return one_direction_loss(logits, own_ids[:, None] == ids) * len(own)

    blocks = zip(queries.split(BLOCK_ROWS), ids.split(BLOCK_ROWS), strict=True)
    sums = [checkpoint(of_block, *block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
    return torch.stack(sums).sum() / len(queries)


def regression_loss(neural_embeds: torch.Tensor, image_embeds: torch.Tensor) -> torch.Tensor:
    """Squared distance between recordings and the images they answer to: regression, nothing contrastive.

    Both are unit vectors, as retrieval compares them, so it is 2 - 2 cos. Features of free length did worse.

    Args:
        neural_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`): L2-normalised, unitless.
        image_embeds (`torch.Tensor` of shape `(batch_size, projection_dim)`): L2-normalised, unitless.

    Returns:
        `torch.Tensor` of shape `()`: Mean over recordings; `projection_dim` times the mean squared error.

    Raises:
        ValueError: If shapes differ.
    """
    check_same_shape(neural_embeds, image_embeds)
    return (neural_embeds - image_embeds).square().sum(dim=1).mean()


def check_same_shape(neural_embeds: torch.Tensor, image_embeds: torch.Tensor) -> None:
    """Raise a `ValueError` when there is not one image for each recording, in the same space."""
    if neural_embeds.shape != image_embeds.shape:
        raise ValueError(
            "'neural_embeds' and 'image_embeds' must have the same shape, but got "
            f"{tuple(neural_embeds.shape)} and {tuple(image_embeds.shape)}."
        )


__all__ = ["clip_loss", "one_direction_loss", "positive_mask", "regression_loss"]
