"""Which test holds which formula of the papers against an oracle of its own."""

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
# Formula, as the sources write it -> where it stands -> the test.
FORMULAS = {
    "A = (R - mean_group R) / std_group R": (
        "P1 eq. 2",
        "test_advantages.py::test_advantages_within_a_group_equal_the_papers_formula",
    ),
    "A = (R~ - mean_batch R~) / (std_batch R~ + eps), R~ = R - mean_group R": (
        "B2; RF eq. 6-7",
        "test_advantages.py::test_advantages_equal_the_papers_formula",
    ),
    "A = R - mean of the others": (
        "RLOO arXiv 2402.14740",
        "test_advantages.py::test_advantages_within_a_group_equal_the_papers_formula",
    ),
    "min(r A, clip(r, 1 - eps_low, 1 + eps_high) A)": (
        "P1 eq. 1 and 3; B2",
        "test_losses.py::test_loss_equals_the_formula",
    ),
    "max(min(r A, clip(r) A), c A) where A < 0": ("arXiv 1912.09729", "test_losses.py::test_loss_equals_the_formula"),
    "1 / sum |o_i| sum_i sum_t": ("DAPO 3.3", "test_losses.py::test_shares_sum_token_losses_to_the_papers_mean"),
    "1 / |o| sum_t, a mean over responses": (
        "RF eq. 1",
        "test_losses.py::test_shares_sum_token_losses_to_the_papers_mean",
    ),
    "k1 = -log x, k2 = (log x)^2 / 2, k3 = x - 1 - log x, x = pi_ref / pi, clamped": (
        "B2; RF eq. 8, section 3.2; VE",
        "test_kl.py::test_the_estimate_equals_the_formula",
    ),
    "grad E[k2] = grad KL(pi || pi_ref), grad E[k3] = grad KL(pi_ref || pi)": (
        "RF section 3.2",
        "test_kl.py::test_the_expected_gradient_is_the_one_the_papers_give",
    ),
    "sum_t KL_t, in the reward": (
        "RF eq. 4-5",
        "test_kl.py::test_sums_per_sequence_add_up_over_packs_whatever_has_no_weight",
    ),
    "eta_min + 0.5 (eta_max - eta_min) (1 + cos(pi t / T))": (
        "B2",
        "test_shaping.py::test_term_equals_the_formula_at_every_length",
    ),
    "R' = R + lambda eta(t), 100 updates on, 500 off": (
        "B2",
        "test_shaping.py::test_rewards_move_only_while_the_term_is_on",
    ),
    "-min(max(len - (Lmax - Lbuf), 0), Lbuf) / Lbuf factor": (
        "DAPO 3.4",
        "test_shaping.py::test_overlong_penalty_equals_dapos_formula",
    ),
    "R <- c R, or R <- c, where truncated": (
        "OR, NR stop_properly; DL",
        "test_shaping.py::test_only_truncated_responses_are_punished_and_then_shaped_by_length",
    ),
    "0 < #correct < N; 0 < mean < 1; std != 0": (
        "BR; OR; NR, VE",
        "test_groups.py::test_the_three_tests_equal_their_definitions",
    ),
    "clamp(w, lo, C); w 1[lo <= w <= hi]; w 1[lo <= exp(mean log w) <= hi]": (
        "BR; OR, NR",
        "test_mismatch.py::test_correction_weights_equal_the_formulas",
    ),
    "reset every 200-500 steps, on a KL spike, on a stall": (
        "B2; P1 2.3.1",
        "test_reference.py::test_a_period_is_counted_from_the_last_reset",
    ),
}


@pytest.mark.parametrize("formula", FORMULAS)
def test_every_formula_has_the_test_that_is_named(formula: str) -> None:
    file, name = FORMULAS[formula][1].split("::")
    tree = ast.parse((FOLDER / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
