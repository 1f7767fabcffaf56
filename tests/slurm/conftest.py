"""The cluster that the tests of one session share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if lacks := missing():
        pytest.skip(lacks)
    # Not pytest's own folder: a socket's path must be short and other users' folders in it passable.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        Path(folder).chmod(0o755)
        with Cluster(Path(folder)) as running:
            yield running
