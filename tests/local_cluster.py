"""A Dask cluster of two workers on this machine, one for all tests of a process of pytest."""

import functools

import pytest


@functools.cache
def _cluster():
    distributed = pytest.importorskip("distributed")
    return distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0", worker_dashboard_address=":0"
    )


def local_cluster():
    """Address of its scheduler; it ends with the process."""
    return _cluster().scheduler_address
