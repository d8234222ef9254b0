"""The processes of one evaluation: each embeds a share of the recordings, the first one does everything else.

`torchrun` and `accelerate launch` start them. Batches are those of one process, so that the numbers are too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np

from neural_clip.errors import DataError
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


def embed_together(model: Any, part: Split, *, batch_size: int, device: str, **options: Any) -> EmbeddedSplit:
    """[`embed_split`] by all joined processes; the first gets all recordings, each other one only its own."""
    import torch.distributed

    rank, count = rank_and_count()
    if count == 1:
        return embed_split(model, part, batch_size=batch_size, device=device, **options)
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    n_batches = -(-len(part) // batch_size)
    first, end = (min(share * n_batches // count * batch_size, len(part)) for share in (rank, rank + 1))
    own: Any = part.at(np.arange(first, end))
    arrays, failure = None, None
    try:
        if len(own):
            own = embed_split(model, own, batch_size=batch_size, device=device, **options)
            arrays = (own.embeds, own.parts)
    except DataError as error:
        if rank == 0:
            raise
        failure = error
    gathered: list = [None] * count
    try:
        torch.distributed.gather_object((arrays, failure), gathered if rank == 0 else None)
    except RuntimeError as error:
        if rank > 0:
            raise _ToldByTheFirst from error
        raise DataError(
            "Another process of this evaluation ended before it had embedded its share; what it printed says why."
        ) from error
    if rank > 0:
        if failure is not None:
            raise _ToldByTheFirst
        return own
    for _, told in gathered:
        if told is not None:
            raise told
    embeds, parts = (np.concatenate(arrays) for arrays in zip(*(found for found, _ in gathered if found), strict=True))
    return EmbeddedSplit(**part.as_fields(), embeds=embeds, parts=parts)
