"""Ranks that share every sequence, on the real engines: their run is that of ranks that do not."""

from __future__ import annotations

import pytest

from tests.test_end_to_end import Row, finished, repeatable
from tests.test_options_run import SHORT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

LIKE = SHORT | {"scale.max_tokens_per_microbatch": 256}  # several packs an update
SHARED = LIKE | {"scale.context_parallel": 2}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    """Metrics of a run of two data-parallel ranks, and of one of two context-parallel ranks."""
    runs = tmp_path_factory.mktemp("context")
    alone, shared = finished(runs / "alone", **LIKE), finished(runs / "shared", **SHARED)
    assert "each over 2 context-parallel ranks" in shared.said()
    return {"alone": repeatable(alone.directory), "shared": repeatable(shared.directory)}


def trained(rows: list[Row]) -> list[Row]:
    return [row for row in rows if "actor/loss" in row]


def test_the_first_step_is_that_of_ranks_that_share_nothing(found: dict[str, list[Row]]) -> None:
    assert found["shared"][0] == found["alone"][0], "the first validation"
    row, expected = trained(found["shared"])[0], trained(found["alone"])[0]
    assert row.keys() == expected.keys()
    for name, value in expected.items():
        if name.startswith(("actor/", "mismatch/")):
            absolute = 1e-6 if name.startswith("actor/") else 1e-5
            assert row[name] == pytest.approx(value, rel=1e-5, abs=absolute), name
        else:
            assert row[name] == value, name


def test_what_follows_is_the_same_too(found: dict[str, list[Row]]) -> None:
    shared, alone = trained(found["shared"]), trained(found["alone"])
    assert [row["step"] for row in shared] == [row["step"] for row in alone] == [1, 2]
    for row, expected in zip(shared, alone, strict=True):
        for name in ("actor/loss", "actor/gradient_norm", "actor/entropy_nats", "rollout/reward_mean"):
            assert row[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-6), (row["step"], name)
