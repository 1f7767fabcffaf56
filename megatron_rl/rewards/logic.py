"""The reward of a logic answer: the last `<answer>...</answer>` by the scorer of its reasoning-gym task.

Items are stored reasoning-gym entries: what a generator makes depends on its version and on Python's hash seed.
A score counts only when it is 1: reasoning-gym gives most of the credit to near misses, padding and lists of options.
Tasks whose scorer executes the answer, or pays for a wrong one, are refused; see `REFUSED`.

Not covered: partial credit; scorers that are lenient about words around a right answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from megatron_rl.rewards.response import after_thinking
from megatron_rl.types import Verdict

MAX_ANSWER_CHARACTERS = 4000

_EXECUTES = "its scorer executes the answer as Python"
_PARSES = "its scorer hands the answer to sympy's parse_expr, which executes Python"
_LENIENT = "its scorer finds the right answer inside other text"
_NO_REFERENCE = "its entries have no reference answer to check the scorer with"

REFUSED: Mapping[str, str] = {
    "binary_matrix": _EXECUTES,
    "n_queens": _EXECUTES,
    "spiral_matrix": _EXECUTES,
    "string_insertion": _EXECUTES,
    "countdown": _PARSES,
    "puzzle24": _PARSES,
    "simple_integration": _PARSES,
    "intermediate_integration": _PARSES,
    "polynomial_multiplication": _PARSES,
    "game_of_life_halting": "its scorer gives 1 to any text",
    "complex_arithmetic": "its scorer gives 1 to 'nan'",
    "coin_flip": "its scorer accepts a prefix of the number: '0' earns 0.95 on average",
    "game_of_life": "its scorer pays 0.96 for an empty grid",
    "gsm_symbolic": _LENIENT,
    "kakurasu": _LENIENT,
    "knights_knaves": _LENIENT,
    "sokoban": _LENIENT,
    "survo": _LENIENT,
    "arc_agi": "its scorer compares tuples, which become lists in a file: the reference answer scores 0.05",
    "rearc": "its scorer compares tuples, which become lists in a file: the reference answer scores 0.05",
    "boxnet": _NO_REFERENCE,
    "graph_color": _NO_REFERENCE,
    "propositional_logic": _NO_REFERENCE,
    "rubiks_cube": _NO_REFERENCE,
    "rush_hour": _NO_REFERENCE,
    "prime_factorization": "its scorer fails on text that is not a number",
    "codeio": "its generator executes unseeded code: an entry's answer can not be reproduced",
    "composite": "it wraps other tasks; store their entries under their own names",
}

# Of reasoning-gym 0.1.25; written out so that a data file is checked without importing it.
_NAMES = """
    ab acre advanced_geometry aiw arc_1d base_conversion basic_arithmetic bf binary_alternation bitwise_arithmetic
    caesar_cipher calendar_arithmetic chain_sum circuit_logic color_cube_rotation count_bits count_primes
    course_schedule cryptarithm decimal_arithmetic decimal_chain_sum dice emoji_mystery family_relationships
    figlet_font fraction_simplification futoshiki gcd group_anagrams isomorphic_strings jugs knight_swap
    largest_island lcm leg_counting letter_counting letter_jumble list_functions mahjong_puzzle manipulate_matrix maze
    mini_sudoku modulo_grid needle_haystack number_filtering number_format number_sequence number_sorting
    palindrome_generation palindrome_partitioning path_star polynomial_equations pool_matrix power_function products
    quantum_lock ransom_note rectangle_count rotate_matrix rotten_oranges self_reference sentence_reordering
    shortest_path simple_equations simple_geometry spell_backward string_manipulation string_splitting
    string_synthesis sudoku syllogism time_intervals tower_of_hanoi tsumego word_ladder word_sequence_reversal
    word_sorting zebra_puzzles
"""
ACCEPTED = frozenset(_NAMES.split())


def check_item(item: Mapping[str, Any]) -> None:
    """Raises ValueError unless `item` is {"task": an accepted task, "entry": a reasoning-gym entry of it}."""
    if item.keys() != {"task", "entry"}:
        raise ValueError(f"a logic item has the keys 'entry' and 'task', not {sorted(item)}; see docs/data.md")
    task, entry = item["task"], item["entry"]
    if not isinstance(task, str):
        raise ValueError(f"the task of a logic item is a name, not {task!r}; see docs/data.md")
    if task in REFUSED:
        raise ValueError(f"logic task '{task}' is refused: {REFUSED[task]}; drop its rows")
    if task not in ACCEPTED:
        raise ValueError(f"logic task '{task}' is not one of reasoning-gym's; see ACCEPTED in rewards/logic.py")
    if not isinstance(entry, Mapping) or entry.keys() != {"question", "answer", "metadata"}:
        raise ValueError("a logic entry has the keys 'answer', 'metadata' and 'question'; store reasoning-gym's own")
    if not isinstance(entry["answer"], str) or not entry["answer"].strip():
        raise ValueError(f"the answer of a logic entry is a text, not {entry['answer']!r}; drop the row")
    if not isinstance(entry["metadata"], Mapping):
        raise ValueError("the metadata of a logic entry is an object; store reasoning-gym's own")


def verify(response: str, item: Mapping[str, Any]) -> Verdict:
    """The verdict on a response; without a time limit, so for trusted text only."""
    found = prepare(response, item)
    return found if isinstance(found, Verdict) else judge(found, item)


def prepare(response: str, item: Mapping[str, Any]) -> Verdict | str:
    """The verdict where there is no answer to judge, else the answer for `judge`; fast and safe on any text."""
    _, opening, rest = after_thinking(response).rpartition("<answer>")
    answer, closing, _ = rest.partition("</answer>")
    if not opening or not closing:
        return _verdict(0.0, "no <answer>...</answer> after the thinking")
    answer = answer.strip()
    if not answer:
        return _verdict(0.0, "the answer is empty")
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return _verdict(0.0, f"the answer has more than {MAX_ANSWER_CHARACTERS} characters")
    return answer


def load() -> None:
    """Imports what `judge` needs, so that the first case is as fast as the others."""
    import reasoning_gym  # noqa: F401


def judge(answer: str, item: Mapping[str, Any]) -> Verdict:
    """reasoning-gym's verdict on an answer, 0 unless it is 1; may never return."""
    if item["task"] not in ACCEPTED:  # a refused scorer must not even meet the text
        raise ValueError(f"logic task '{item['task']}' is not accepted")
    score = float(_scorer(item["task"])(answer, item["entry"]))
    return _verdict(1.0, "right") if score == 1.0 else _verdict(0.0, f"reasoning-gym scores it {score:.2f}")


@cache
def _scorer(task: str) -> Callable[[str, Mapping[str, Any]], float]:
    from reasoning_gym import get_score_answer_fn

    score_answer: Callable[[str, Mapping[str, Any]], float] = get_score_answer_fn(task)
    return score_answer


def _verdict(score: float, detail: str) -> Verdict:
    return Verdict(score=score, outcome="judged", detail=detail)
