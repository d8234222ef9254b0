"""The losses against values computed by hand and by a slow loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neural_clip import losses
from neural_clip.losses import clip_loss, one_direction_loss, positive_mask, regression_loss

pytestmark = pytest.mark.numerical


def slow_direction(logits, ids):
    """Mean over rows of the mean over positives of the negative log-softmax, one number at a time."""
    rows = []
    for i in range(len(logits)):
        total = math.log(sum(math.exp(float(value)) for value in logits[i]))
        positives = [j for j in range(len(logits)) if ids[j] == ids[i]]
        rows.append(sum(total - float(logits[i][j]) for j in positives) / len(positives))
    return sum(rows) / len(rows)


def unit(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, columns, generator=generator, dtype=torch.float64), dim=1)


def test_each_direction_alone_by_hand():
    # Similarities [[1, 0], [0.6, 0.8]] at temperature 1.
    neural = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    image = torch.eye(2, dtype=torch.float64)
    scale = torch.tensor(0.0, dtype=torch.float64)
    rows = (math.log(1 + math.exp(0 - 1)) + math.log(1 + math.exp(0.6 - 0.8))) / 2
    columns = (math.log(1 + math.exp(0.6 - 1)) + math.log(1 + math.exp(0 - 0.8))) / 2
    assert clip_loss(neural, image, scale, direction="neural_to_image").item() == pytest.approx(rows, abs=1e-12)
    assert clip_loss(neural, image, scale).item() == pytest.approx((rows + columns) / 2, abs=1e-12)
    assert abs(rows - columns) > 1e-2  # the two directions differ, so that mixing them up shows


@settings(max_examples=30, deadline=None)
@given(size=st.integers(2, 7), n_images=st.integers(1, 4), seed=st.integers(0, 99), log_scale=st.floats(-1, 3))
def test_equals_slow_loop_with_repeats(size, n_images, seed, log_scale):
    neural, image = unit(size, 5, seed), unit(n_images, 5, seed + 1)
    ids = torch.randint(n_images, (size,), generator=torch.Generator().manual_seed(seed))
    logits = math.exp(log_scale) * neural @ image[ids].T
    expected = (slow_direction(logits, ids) + slow_direction(logits.T, ids)) / 2
    got = clip_loss(neural, image[ids], torch.tensor(log_scale, dtype=torch.float64), ids)
    assert got.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("direction", ["both", "neural_to_image"])
@pytest.mark.parametrize("repeats", [True, False])
def test_a_large_batch_is_compared_by_blocks_with_the_same_gradients(direction, repeats, monkeypatch):
    image, ids = unit(11, 5, 1), None
    if repeats:
        ids = torch.tensor([0, 1, 2, 0, 4, 5, 1, 7, 8, 9, 0])
        image = image[ids]
    found = []
    for rows in (11, 4):  # at once, and in blocks of 4, 4 and 3
        monkeypatch.setattr(losses, "BLOCK_ROWS", rows)
        leaves = [
            unit(11, 5, 0).requires_grad_(),
            image.clone().requires_grad_(),
            torch.tensor(1.3, dtype=torch.float64),
        ]
        loss = clip_loss(leaves[0], leaves[1], leaves[2].requires_grad_(), ids, direction)
        (2 * loss).backward()
        found.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    for blocks, whole in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(blocks, whole, atol=1e-12, rtol=1e-12)


def test_a_large_batch_makes_no_matrix_of_all_pairs(monkeypatch):
    """Neither forward nor backward."""
    monkeypatch.setattr(losses, "BLOCK_ROWS", 20)
    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            made = function(*args, **(kwargs or {}))
            largest = max([largest, *(each.numel() for each in tree_leaves(made) if isinstance(each, torch.Tensor))])
            return made

    neural = unit(200, 4, 0).requires_grad_()
    with Sizes():
        clip_loss(neural, unit(200, 4, 1), torch.tensor(2.0, dtype=torch.float64)).backward()
    assert largest == 20 * 200


def test_repeats_are_not_pushed_apart():
    """Two recordings of one image on its embedding: any other target than both would leave a gradient."""
    image = unit(1, 4, 0).repeat(2, 1)
    neural = image.clone().requires_grad_()
    scale = torch.tensor(2.0, dtype=torch.float64)
    loss = clip_loss(neural, image, scale, torch.tensor([7, 7]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))  # two equal answers, both right
    assert neural.grad.abs().max() < 1e-12


def test_temperature_is_trained_when_it_is_a_parameter():
    scale = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    clip_loss(unit(4, 3, 1), unit(4, 3, 2), scale).backward()
    assert scale.grad.abs() > 1e-4


def test_positive_mask():
    assert positive_mask(None, 3, torch.device("cpu")).equal(torch.eye(3, dtype=torch.bool))
    mask = positive_mask(torch.tensor([5, 6, 5]), 3, torch.device("cpu"))
    assert mask.tolist() == [[True, False, True], [False, True, False], [True, False, True]]


def test_uniform_logits_cost_the_logarithm_of_the_batch():
    assert one_direction_loss(torch.zeros(6, 6), torch.eye(6, dtype=torch.bool)).item() == pytest.approx(math.log(6))


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 6), width=st.integers(1, 5), seed=st.integers(0, 99))
def test_squared_distance_of_unit_vectors(size, width, seed):
    neural, image = unit(size, width, seed), unit(size, width, seed + 1)
    cosines = [
        sum(float(a) * float(b) for a, b in zip(*rows, strict=True)) for rows in zip(neural, image, strict=True)
    ]
    assert regression_loss(neural, image).item() == pytest.approx(2 - 2 * sum(cosines) / size, abs=1e-12)


def test_squared_distance_by_hand():
    neural = torch.tensor([[3.0, 0.0], [0.6, 0.0]])
    assert regression_loss(neural, torch.tensor([[1.0, 0.0], [0.0, 1.0]])).item() == pytest.approx((4 + 1.36) / 2)
    with pytest.raises(ValueError, match=r"same shape, but got \(2, 2\) and \(1, 2\)"):
        regression_loss(neural, torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_embeds": torch.zeros(3, 2)}, "same shape"),
        ({"image_ids": torch.zeros(3, dtype=torch.long)}, "'image_ids' must have shape"),
        ({"direction": "image"}, "Allowed values are 'both' and 'neural_to_image'"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {
        "neural_embeds": torch.zeros(2, 2),
        "image_embeds": torch.zeros(2, 2),
        "logit_scale": torch.tensor(0.0),
    }
    with pytest.raises(ValueError, match=message):
        clip_loss(**(arguments | change))
