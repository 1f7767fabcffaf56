"""The clusters that tests share."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing


@contextmanager
def _running(num_nodes: int) -> Iterator[Cluster]:
    if lacks := missing():
        pytest.skip(lacks)
    # Not pytest's own folder: a socket's path must be short and other users' folders in it passable.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        Path(folder).chmod(0o755)
        with Cluster(Path(folder), num_nodes) as running:
            yield running


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with _running(num_nodes=2) as running:
        yield running


@pytest.fixture(scope="module")
def large() -> Iterator[Cluster]:
    """As many nodes as the largest published scale asks for, which take a container's options."""
    with _running(num_nodes=8) as running:
        if not running.has_containers:
            pytest.skip("the stand-in for Pyxis needs a C compiler and slurm/spank.h; apt-get install libslurm-dev")
        yield running
