"""Functions run in several processes that are joined by gloo: forks of this one, which need not import torch again."""

import os
import pickle
import tempfile
import traceback
from pathlib import Path

import torch
import torch.distributed


def in_processes(n_processes, work, seconds=60):
    """What `work(process_index)` returns in each of so many joined processes; an error of one is raised here."""
    with tempfile.TemporaryDirectory() as folder:
        children = [_fork(index, n_processes, work, Path(folder), seconds) for index in range(n_processes)]
        for child in children:
            os.waitpid(child, 0)
        found = [Path(folder, str(index)) for index in range(n_processes)]
        results = [pickle.loads(path.read_bytes()) if path.exists() else "it was killed" for path in found]
    for result in results:
        assert not isinstance(result, str), result
    return [result for (result,) in results]


def _fork(index, n_processes, work, folder, seconds):
    """Start one of them."""
    if child := os.fork():
        return child
    import signal

    signal.alarm(seconds)
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        address = f"file://{folder}/meeting"
        torch.distributed.init_process_group("gloo", address, rank=index, world_size=n_processes)
        result = (work(index),)
    except BaseException:
        result = traceback.format_exc()
    (folder / f"{index}.part").write_bytes(pickle.dumps(result))
    (folder / f"{index}.part").rename(folder / str(index))
    torch.distributed.destroy_process_group()
    os._exit(0)
