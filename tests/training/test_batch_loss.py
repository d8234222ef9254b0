"""A batch in several processes, or embedded in parts: the loss, the gradients and the weights of one process."""

import numpy as np
import pytest
import torch
from torch import nn

from joined_processes import in_processes
from neural_clip import NeuralClipModel
from neural_clip.errors import DataError
from neural_clip.training.across_processes import (
    SharedBatchNorm,
    any_process,
    average_gradients,
    gathered,
    raised_by_all,
    row_counts,
    share_batch_norms,
)
from neural_clip.training.batch_loss import batch_loss
from small_models import ENCODER_TYPES, SUBJECTS, small_batch, small_config

pytestmark = pytest.mark.numerical

IMAGES = 20  # fewer than rows: some are positives of each other, within a process and between two


def new_model(encoder_types=ENCODER_TYPES[0], dropout=0.0, **changes):
    torch.manual_seed(0)
    config = small_config(encoder_types, **changes)
    for modality in ("eeg", "meg", "fmri"):
        getattr(config, f"{modality}_config").dropout = dropout
    return NeuralClipModel(config).train()


def batch_of(modality, n_rows, seed):
    """Rows of three people; the first third is of one alone, so that another process lacks a subject."""
    rng = np.random.default_rng(seed)
    subjects = np.where(np.arange(n_rows) < n_rows // 3, 0, rng.integers(0, len(SUBJECTS), n_rows))
    images = torch.from_numpy(rng.integers(0, IMAGES, n_rows))
    table = torch.randn(IMAGES, 12, generator=torch.Generator().manual_seed(7))
    batch = small_batch(modality, subjects.tolist(), seed)
    return {**batch, "image_ids": images, "image_embeds": table[images]}


def share_of(batch, index, n_processes):
    rows = np.array_split(np.arange(len(batch["image_ids"])), n_processes)[index]
    return {name: value[rows] for name, value in batch.items()}


def trained(index, n_processes, sizes, mini_batch_size=0, accumulated=1, plain=False, **model):
    """Losses and weights after a step on a batch of each size, modality after modality; `plain` is the model's own."""
    model = new_model(**model)
    if n_processes > 1:
        share_batch_norms(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    losses = []
    for step, (modality, n_rows) in enumerate(sizes):
        batch = share_of(batch_of(modality, n_rows, step), index, n_processes)
        loss = model(**batch).loss if plain else batch_loss(model, batch, mini_batch_size)
        (loss / accumulated).backward()
        losses.append(float(loss.detach()))
        if (step + 1) % accumulated == 0:
            if n_processes > 1:
                average_gradients(model)
            optimizer.step()
            optimizer.zero_grad()
    return losses, {name: value.detach().numpy() for name, value in model.state_dict().items()}


def assert_same(found, expected, tolerance):
    np.testing.assert_allclose(found[0], expected[0], atol=tolerance)
    for name, value in expected[1].items():
        np.testing.assert_allclose(found[1][name], value, atol=tolerance, err_msg=name)


TEN = [(name, 64) for name in ("eeg", "fmri", "meg", "eeg", "fmri", "meg", "eeg", "fmri", "fmri", "eeg")]
UNEVEN = [("eeg", 64), ("fmri", 33), ("fmri", 1), ("meg", 7), ("eeg", 64), ("fmri", 1), ("meg", 5), ("fmri", 2)]


@pytest.mark.parametrize("encoder_types", ENCODER_TYPES)
def test_two_processes_of_32_are_one_of_64(encoder_types):
    expected = trained(0, 1, TEN, plain=True, encoder_types=encoder_types)
    for found in in_processes(2, lambda index: trained(index, 2, TEN, encoder_types=encoder_types)):
        assert_same(found, expected, 1e-4)


@pytest.mark.parametrize("n_processes", [2, 3])
@pytest.mark.parametrize("changes", [{}, {"objective": "mse"}, {"contrastive_direction": "neural_to_image"}])
def test_uneven_batches_and_processes_without_rows(n_processes, changes):
    """The one row of a batch lies in the first process; the others have none of that modality."""
    expected = trained(0, 1, UNEVEN, accumulated=2, plain=True, **changes)
    for found in in_processes(
        n_processes, lambda index: trained(index, n_processes, UNEVEN, accumulated=2, **changes)
    ):
        assert_same(found, expected, 1e-4)


def test_without_the_rows_of_others_it_is_another_loss():
    """What the tests above would see if nothing were gathered."""
    whole = batch_of("fmri", 64, 0)
    with torch.no_grad():
        parts = [float(new_model()(**share_of(whole, index, 2)).loss) for index in range(2)]
        assert abs(float(new_model()(**whole).loss) - np.mean(parts)) > 0.3


def test_repeats_on_two_processes_are_positives_of_each_other():
    whole = batch_of("fmri", 8, 0)
    whole["image_ids"] = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    expected = float(new_model()(**whole).loss.detach())
    found = in_processes(2, lambda index: float(batch_loss(new_model(), share_of(whole, index, 2)).detach()))
    apart = whole | {"image_ids": torch.arange(8)}
    assert found == pytest.approx([expected] * 2, abs=1e-6)
    assert abs(float(new_model()(**apart).loss.detach()) - expected) > 1e-3


def test_rows_are_gathered_in_order_with_their_gradients():
    def work(index):
        rows = torch.arange(3.0 * index, 3.0 * index + 2 - index, requires_grad=True)  # two rows, then one
        counts = row_counts(len(rows), rows.device)
        found = gathered(rows, counts)
        (found * torch.tensor([1.0, 2.0, 5.0])).sum().backward()
        return counts, found.tolist(), rows.grad.tolist(), any_process(index == 1, rows.device)

    first, second = in_processes(2, work)
    assert first == ([2, 1], [0.0, 1.0, 3.0], [2.0, 4.0], True)  # twice the gradient: weights average over two
    assert second == ([2, 1], [0.0, 1.0, 3.0], [10.0], True)


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (DataError("row 5 is NaN"), ["DataError: row 5 is NaN, told elsewhere", "DataError: row 5 is NaN"]),
        (OSError(28, "No space"), ["DataError: [Errno 28] No space", "OSError: [Errno 28] No space"]),
        (None, ["nothing", "nothing"]),
    ],
)
def test_what_one_process_raises_all_raise_and_one_tells(error, raised):
    """The second of them; a `DataError` is told by the first process, another one where it happened."""

    def work(index):
        try:
            with raised_by_all(torch.device("cpu")):
                if index == 1 and error is not None:
                    raise error
        except (DataError, OSError) as found:
            elsewhere = ", told elsewhere" * getattr(found, "told_elsewhere", False)
            return f"{type(found).__name__}: {found}{elsewhere}"
        return "nothing"

    assert sorted(in_processes(2, work)) == sorted(raised)
    if error is not None:
        with pytest.raises(type(error)), raised_by_all(torch.device("cpu")):  # in one process as it is
            raise error


class Unreadable:
    """Recordings of a process whose second part cannot be read."""

    modality = "eeg"

    def __init__(self, values, broken):
        self.values, self.broken = values, broken

    def read(self, which):
        if self.broken and which.start:
            raise DataError("row 5 is NaN")
        return self.values[which]


def test_a_part_that_one_process_cannot_read_ends_both():
    """Between the exchanges of batch norms, in which the other would wait."""

    def work(index):
        model = new_model()
        share_batch_norms(model)
        batch = share_of(batch_of("eeg", 16, 0), index, 2)
        batch["recordings"] = Unreadable(batch.pop("eeg_values"), broken=index == 1)
        try:
            batch_loss(model, batch, 4)
        except DataError as error:
            return str(error)

    assert in_processes(2, work) == ["row 5 is NaN"] * 2


@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.BatchNorm1d, (9, 4)), (nn.BatchNorm1d, (9, 4, 3)), (nn.BatchNorm2d, (9, 4, 3, 2))]
)
@pytest.mark.parametrize("settings", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}])
@pytest.mark.parametrize("first", [5, 9])  # rows of the first process; all, so that the other has none
def test_a_shared_batch_norm_is_that_of_torch_on_all_rows(kind, shape, settings, first):
    values = 3 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def passed(norm, rows):
        values_in = values[rows].clone().requires_grad_()
        for _ in range(2):
            out = norm(values_in)
        (out**3).sum().backward()
        gradients = [values_in.grad, *(weight.grad for weight in norm.parameters())]
        return out.detach().numpy(), [each.numpy() for each in gradients], dict(norm.named_buffers())

    def work(index):
        model = nn.Sequential(kind(4, **settings).double())
        share_batch_norms(model)
        assert isinstance(model[0], SharedBatchNorm)
        out, gradients, buffers = passed(model[0], slice(0, first) if index == 0 else slice(first, None))
        return out, gradients, {name: value.numpy() for name, value in buffers.items()}

    out, gradients, buffers = passed(kind(4, **settings).double(), slice(None))
    found = in_processes(2, work)
    np.testing.assert_allclose(np.concatenate([each[0] for each in found]), out, atol=1e-10)
    np.testing.assert_allclose(np.concatenate([each[1][0] for each in found]), gradients[0], atol=1e-8)
    for number in range(1, len(gradients)):
        np.testing.assert_allclose(sum(each[1][number] for each in found), gradients[number], rtol=1e-10)
    for each in found:
        for name, value in buffers.items():
            np.testing.assert_allclose(each[2][name], value.numpy(), atol=1e-10)


def gradients_of(loss, model):
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def in_parts(model, batch, n_parts):
    """The loss of embeddings that were made a part at a time and all kept: what caching must equal."""
    (name,) = [name for name in batch if name.endswith("_values")]
    modality = name.removesuffix("_values")
    parts = zip(batch[name].tensor_split(n_parts), batch["subject_ids"].tensor_split(n_parts), strict=True)
    features = torch.cat([model.encode(modality, values, subjects) for values, subjects in parts], dim=1)
    unit = nn.functional.normalize(features, dim=-1)
    return model.mean_loss(unit, nn.functional.normalize(batch["image_embeds"], dim=-1), batch["image_ids"])


@pytest.mark.parametrize("modality", ["eeg", "meg", "fmri"])
@pytest.mark.parametrize("encoder_types", ENCODER_TYPES)
def test_cached_gradients_are_those_of_all_activations_kept(modality, encoder_types):
    """With dropout: the second pass draws the same numbers, and the next step draws what it would have drawn."""
    batch, found = batch_of(modality, 37, 0), []
    for loss_of in (lambda model: in_parts(model, batch, 4), lambda model: batch_loss(model, batch, 10)):
        model = new_model(encoder_types, dropout=0.3)
        torch.manual_seed(5)
        loss = loss_of(model)
        gradients = gradients_of(2 * loss, model)
        found.append((loss.detach(), gradients, dict(model.named_buffers()), torch.rand(3)))
    (loss, gradients, buffers, drawn), (cached, cached_gradients, cached_buffers, cached_drawn) = found
    torch.testing.assert_close(cached, loss)
    torch.testing.assert_close(cached_drawn, drawn)
    assert cached_gradients.keys() == gradients.keys() and "logit_scale" in gradients
    for name, gradient in gradients.items():
        torch.testing.assert_close(cached_gradients[name], gradient, atol=1e-5, rtol=1e-4)
    for name, value in buffers.items():
        torch.testing.assert_close(cached_buffers[name], value)


@pytest.mark.parametrize("n_processes", [1, 2])
def test_cached_in_any_number_of_processes_it_is_the_batch_at_once(n_processes):
    """Without statistics of batches, which are those of a part."""
    settings = {"encoder_types": ("linear", "linear")}
    sizes = [("fmri", 64), ("eeg", 33), ("fmri", 1), ("meg", 5)]
    expected = trained(0, 1, sizes, plain=True, **settings)
    for found in in_processes(n_processes, lambda index: trained(index, n_processes, sizes, 5, **settings)):
        assert_same(found, expected, 1e-4)
