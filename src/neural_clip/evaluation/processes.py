"""The processes of one evaluation: each embeds a share of the recordings, the first one does everything else.

`torchrun` and `accelerate launch` start them. Batches are those of one process, so that the numbers are too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast

import numpy as np

from neural_clip.errors import DataError
from neural_clip.evaluation.finished_parts import NOT_KEPT, FinishedParts
from neural_clip.files.numbers import is_count
from neural_clip.gallery.embedding import EmbeddedSplit, embed_split
from neural_clip.prepared.reader import Split

PATIENCE = timedelta(days=30)  # that a process waits for one whose share takes longer


class _ToldByTheFirst(Exception):
    """Ends another process than the first, which tells what went wrong."""


def rank_and_count() -> tuple[int, int]:
    """Which of how many processes of a launcher this is; `(0, 1)` without one."""
    names = ("RANK", "WORLD_SIZE")
    rank, count = (int(text) if is_count(text) else -1 for text in (os.environ.get(name, "") for name in names))
    return (rank, count) if count > 1 and 0 <= rank < count else (0, 1)


@contextmanager
def joined() -> Iterator[bool]:
    """Join the processes of a launcher, on CPUs; tells whether this is the first, which alone writes.

    What goes wrong while another process embeds is raised in the first one, and the other ends without a word.

    Raises:
        DataError: If the processes do not find each other.
    """
    import torch.distributed

    rank, count = rank_and_count()
    if count == 1:
        yield True
        return
    try:
        torch.distributed.init_process_group("gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:  # of the variables that a launcher sets, and of sockets
        raise DataError(
            f"WORLD_SIZE={count} asks for several processes, but they do not find each other: {error}. Start them "
            f"with `torchrun --nproc_per_node {count} --no-python neural-clip evaluate ...`."
        ) from error
    try:
        yield rank == 0
    except _ToldByTheFirst:
        pass
    finally:
        torch.distributed.destroy_process_group()


def once_a_machine(check: Callable[[], object]) -> None:
    """Run a check in the first process of each machine; what it raises there is raised in the first of all."""
    failure = None
    if os.environ.get("LOCAL_RANK", "0") == "0" or rank_and_count()[1] == 1:
        try:
            check()
        except DataError as error:
            failure = error
    _told_to_the_first(None, failure)


def embed_together(
    model: Any, part: Split, kept: FinishedParts = NOT_KEPT, *, batch_size: int, device: str, **options: Any
) -> EmbeddedSplit:
    """[`embed_split`] by all joined processes; the first gets all recordings, each other one only its own.

    Args:
        model, part, batch_size, device, options: As for [`embed_split`].
        kept ([`FinishedParts`]): Where the first process keeps what all have made, and looks for it before.
    """
    rank, count = rank_and_count()
    name = f"{part.modality} embeddings"
    found = kept.finished(name)  # only the first keeps anything
    if not _first_says(found is not None):
        local = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" and count > 1 else device
        made = _embedded_shares(model, part, batch_size=batch_size, device=local, **options)
        if rank == 0:
            embeds, parts = (np.concatenate(arrays) for arrays in zip(*made, strict=True))
            found = kept.keep(name, {"embeds": embeds, "parts": parts})
    if found is None:
        return cast(Any, part.at(np.zeros(0, dtype=np.int64)))
    return EmbeddedSplit(**part.as_fields(), embeds=found["embeds"], parts=found["parts"])


def _embedded_shares(model: Any, part: Split, *, batch_size: int, **options: Any) -> list[tuple[np.ndarray, ...]]:
    """Embeddings and their parts by each process, of whole batches that follow each other; none but in the first."""
    rank, count = rank_and_count()
    n_batches = -(-len(part) // batch_size)
    first, end = (min(number * n_batches // count * batch_size, len(part)) for number in (rank, rank + 1))
    own, failure = None, None
    try:
        if count == 1 or end > first:
            share = part if count == 1 else part.at(np.arange(first, end))
            embedded = embed_split(model, share, batch_size=batch_size, **options)
            own = (embedded.embeds, embedded.parts)
    except DataError as error:
        failure = error
    return [found for found in _told_to_the_first(own, failure) if found is not None]


def _first_says(found: bool) -> bool:
    """What the first process says, in all."""
    import torch.distributed

    rank, count = rank_and_count()
    said = [found]
    if count > 1:
        with _ended_by_others(rank):
            torch.distributed.broadcast_object_list(said)
    return said[0]


def _told_to_the_first(own: Any, failure: DataError | None) -> list[Any]:
    """What each process has, in the first one, which raises what went wrong in any; the one where it did ends."""
    import torch.distributed

    rank, count = rank_and_count()
    if rank == 0 and failure is not None:
        raise failure
    gathered: list[Any] = [(own, failure)] * count
    if count > 1:
        with _ended_by_others(rank):
            torch.distributed.gather_object((own, failure), gathered if rank == 0 else None)
    if rank > 0:
        if failure is not None:
            raise _ToldByTheFirst
        return []
    for _, told in gathered:
        if told is not None:
            raise told
    return [found for found, _ in gathered]


@contextmanager
def _ended_by_others(rank: int) -> Iterator[None]:
    """Exchange with processes that may have ended meanwhile."""
    try:
        yield
    except RuntimeError as error:
        if rank > 0:
            raise _ToldByTheFirst from error
        raise DataError(
            "Another process of this evaluation ended before it had embedded its share; what it printed says why."
        ) from error
