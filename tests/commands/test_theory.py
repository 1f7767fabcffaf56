"""What `megatron-rl theory` gives: figures by name, a picture, and checks that notice a wrong formula."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from megatron_rl.algorithms.broadening import MassChange, mass_change
from megatron_rl.algorithms.simulator import OPEN, PUBLISHED_NUM_SAMPLES, simulate
from megatron_rl.commands import theory


def test_figures_are_json_and_tell_what_the_curves_show(tmp_path: Path) -> None:
    every = theory.simulations(with_variants=True, seed=1)
    small = [dataclasses.replace(every[i], num_tokens=200, num_correct=20, num_steps=5) for i in (0, 4, 5)]
    found = theory.reproduce(tmp_path / "new" / "folder", small)
    assert json.loads(json.dumps(found)) == found
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
    for simulation, setting in zip(small, found["settings"], strict=True):
        with theory.one_thread():
            curves = simulate(simulation)  # alone: those of several at once are the same bits
        assert (setting["num_samples"], setting["seed"], setting["num_steps"]) == (simulation.num_samples, 1, 5)
        assert setting["q_pos_start"] == curves.correct_mass[0] and setting["q_pos_end"] == curves.correct_mass[5]
        assert setting["improved_fraction_end"] == curves.improved_fraction[5]
        assert setting["worst_change_end"] == curves.worst_change[5]
        assert setting["worst_change_of_all_steps"] == curves.worst_change.min()
    said = io.StringIO()
    theory.show(found, Console(file=said, width=140))
    text = " ".join(said.getvalue().split())
    assert all(f" {setting['q_pos_end']:.4f} " in text for setting in found["settings"])
    assert all(choice in text for choice in OPEN.values()) and found["picture"] in text


def test_the_settings_are_the_published_ones_first_and_differ() -> None:
    published, every = (theory.simulations(with_variants=flag, seed=0) for flag in (False, True))
    assert [simulation.num_samples for simulation in published] == list(PUBLISHED_NUM_SAMPLES)
    assert {(simulation.weight_decay, simulation.anchor_is_correct) for simulation in published} == {(0.01, True)}
    assert every[:5] == published and len(set(every)) == 20


def test_the_theory_holds() -> None:
    assert theory.theorem_error() < 1e-7
    assert theory.corollary_error() < 1e-12


@pytest.mark.parametrize("field", MassChange._fields)
def test_a_wrong_term_is_noticed(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*tokens: torch.Tensor, **numbers: float) -> MassChange:
        terms = mass_change(*tokens, **numbers)  # type: ignore[arg-type]
        return terms._replace(**{field: 1.01 * getattr(terms, field)})

    monkeypatch.setattr(theory, "mass_change", wrong)
    assert theory.theorem_error() > 1e-3


def test_a_wrong_exponent_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(theory, "expected_unsampled_squares", lambda p, n: p.square() * (1 - p) ** (n - 1))
    assert theory.corollary_error() > 1e-2
