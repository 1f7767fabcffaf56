"""How each task of reasoning-gym is scored, and why not by reasoning-gym's own scorer where that is unsound.

All scorers are our own: they read the answer as text and execute nothing. A score is 1 for a right answer and 0 for
any other, save where `is_continuous`: there a solution that takes longer than need be, or a plan that does part of the
work, earns a share. Shares of reasoning-gym's that a wrong answer earns by being near are not paid.

Measured over 50 entries per task: a constant answer earns what it is right, up to 0.70 where there are two answers, and
0.78 in `propositional_logic`, where a disjunction of two variables often follows. The question repeated, and the right
answer among others or in a sentence earn nothing, in the continuous tasks, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from megatron_rl.rewards.puzzles import algebra, boards, cube, integrals, moves, statements, values, words


@dataclass(frozen=True, kw_only=True)
class Task:
    """The scorer of a task."""

    score: Callable[[str, Mapping[str, Any]], float]  # (answer, entry) -> 0..1; fast on any text
    why: str  # what reasoning-gym's own scorer does wrong, or that it was sound
    is_continuous: bool = False
    has_reference: bool = True  # whether the entries' answer is a text; None where there are many and none is stored


_PADDED = "its own pays for an answer that contains the right one, so for a list of all options"
_SOUND = "its own is sound; here white space, case and a full stop do not decide"
_STRICT = "its own is sound but fails a right answer in another common form"
_NEAR = "its own pays for an answer near the right one"
_FOUND = "its own finds the right answer inside other text"
_EXECUTES = "its own executes the answer as Python"
_PARSES = "its own hands the answer to sympy's parse_expr, which executes Python"
_TUPLES = "its own compares tuples with lists: in a stored entry the right answer earns 0.05"
_LONGER = "its own verifies the moves; a longer solution than the shortest earns a share, as there"
_RULES = "its own knows one solution and pays for cells of it; any that obeys the rules is right"

TASKS: Mapping[str, Task] = {
    # algebra
    "complex_arithmetic": Task(score=values.same_complex, why="its own pays 1 for 'nan', and for near answers"),
    "intermediate_integration": Task(score=integrals.is_antiderivative, why=_PARSES),
    "polynomial_equations": Task(score=values.same_roots, why=_NEAR),
    "polynomial_multiplication": Task(score=algebra.is_expanded_product, why=_PARSES),
    "simple_equations": Task(score=values.same_solution, why=_PADDED),
    "simple_integration": Task(score=integrals.is_antiderivative, why=_PARSES),
    # algorithmic
    "ab": Task(score=values.same_text, why=_SOUND),
    "base_conversion": Task(score=values.same_digits, why=_PADDED),
    "binary_alternation": Task(score=values.same_value, why=_PADDED),
    "binary_matrix": Task(score=values.same_grid, why=_EXECUTES),
    "caesar_cipher": Task(score=values.same_words, why=_PADDED),
    "count_primes": Task(score=values.same_value, why=_PADDED),
    "cryptarithm": Task(score=words.solves_cryptarithm, why="its own is sound save for letters that do not occur"),
    "game_of_life": Task(score=values.same_grid, why="its own pays 0.96 for an empty grid"),
    "game_of_life_halting": Task(score=values.same_value, why="its own pays 1 for any text"),
    "graph_color": Task(score=words.colors_graph, has_reference=False, why="its own is sound save for other keys"),
    "group_anagrams": Task(score=values.same_groups, why=_SOUND),
    "isomorphic_strings": Task(score=values.same_value, why=_PADDED),
    "jugs": Task(score=moves.solves_jugs, why="its own is sound; here a pour into the same jug is no move"),
    "letter_counting": Task(score=values.same_value, why=_PADDED),
    "letter_jumble": Task(score=values.same_words, why="its own pays for the words that were not scrambled"),
    "manipulate_matrix": Task(score=values.same_grid, why=_PADDED),
    "number_filtering": Task(score=values.same_list, why=_PADDED),
    "number_sorting": Task(score=values.same_list, why="its own lets every number be wrong by 1"),
    "palindrome_generation": Task(score=words.is_palindrome, why=_NEAR),
    "palindrome_partitioning": Task(score=values.same_partitions, why=_SOUND),
    "pool_matrix": Task(score=values.same_pooling, why="its own lets every number be wrong by 1 in 100"),
    "ransom_note": Task(score=values.same_value, why=_PADDED),
    "rotate_matrix": Task(score=values.same_grid, why=_PADDED),
    "rotten_oranges": Task(score=values.same_value, why=_PADDED),
    "sentence_reordering": Task(score=values.same_words, why="its own pays for the words that stayed in place"),
    "spell_backward": Task(score=values.same_words, why=_NEAR),
    "spiral_matrix": Task(score=values.same_sequence, why=_EXECUTES),
    "string_insertion": Task(score=values.same_text, why=_EXECUTES),
    "string_manipulation": Task(score=values.same_text, why=_PADDED),
    "string_splitting": Task(score=values.same_sequence, why=_PADDED),
    "string_synthesis": Task(score=values.same_sequence, why=_PADDED),
    "word_ladder": Task(
        score=words.climbs_ladder, why="its own pays for words that are none; here any of two lists is"
    ),
    "word_sequence_reversal": Task(score=values.same_comma_list, why=_PADDED),
    "word_sorting": Task(score=values.same_comma_list, why=_NEAR),
    # arc
    "arc_1d": Task(score=values.same_sequence, why=_PADDED),
    "arc_agi": Task(score=values.same_grid, why=_TUPLES),
    "rearc": Task(score=values.same_grid, why=_TUPLES),
    # arithmetic
    "basic_arithmetic": Task(score=values.same_value, why=_PADDED),
    "bitwise_arithmetic": Task(
        score=values.same_hexadecimal, why="its own evaluates the problem's text; the answer is stored"
    ),
    "calendar_arithmetic": Task(score=values.same_value, why=_NEAR),
    "chain_sum": Task(score=values.same_value, why=_PADDED),
    "count_bits": Task(score=values.same_value, why=_PADDED),
    "decimal_arithmetic": Task(
        score=values.same_to_12_digits, why="its own lets an answer be wrong by 1e-6, however small it is"
    ),
    "decimal_chain_sum": Task(score=values.same_value, why=_SOUND),
    "dice": Task(score=values.same_fraction, why=_STRICT),
    "fraction_simplification": Task(score=values.same_fraction, why=_NEAR),
    "gcd": Task(score=values.same_value, why=_PADDED),
    "gsm_symbolic": Task(score=values.same_value, why=_FOUND),
    "lcm": Task(score=values.same_value, why=_PADDED),
    "leg_counting": Task(score=values.same_value, why=_PADDED),
    "number_format": Task(score=values.same_pick, why="its own pays for a candidate that lies near"),
    "power_function": Task(score=values.same_to_3_digits, why=_NEAR),
    "prime_factorization": Task(
        score=values.same_factors, why="its own fails on text, and pays 0.5 for the number itself"
    ),
    "products": Task(score=values.same_value, why=_PADDED),
    "time_intervals": Task(
        score=values.same_duration, why="its own pays 0.99 for near answers; its references cut milliseconds off"
    ),
    # code
    "bf": Task(score=values.same_text, why=_PADDED),
    "codeio": Task(
        score=values.same_json,
        why="its generator runs unseeded code, but a stored answer is fixed; of several inputs only that one counts",
    ),
    # cognition
    "color_cube_rotation": Task(score=values.same_value, why=_SOUND),
    "figlet_font": Task(score=values.same_letters, why="its own pays 0.1 for every letter in place"),
    "needle_haystack": Task(score=values.same_letters, why=_SOUND),
    "number_sequence": Task(score=values.same_value, why=_PADDED),
    "rectangle_count": Task(score=values.same_value, why=_NEAR),
    "rubiks_cube": Task(
        score=cube.solves_cube, has_reference=False, why="its own pays for the stickers of an unsolved cube"
    ),
    # games
    "countdown": Task(score=algebra.reaches_target, why=_PARSES),
    "emoji_mystery": Task(score=values.same_text, why="its own pays for letters in place"),
    "futoshiki": Task(score=boards.solves_futoshiki, why=_RULES),
    "knight_swap": Task(score=moves.solves_knight_swap, is_continuous=True, why=_LONGER),
    "mahjong_puzzle": Task(score=values.same_value, why=_PADDED),
    "maze": Task(score=values.same_value, why=_PADDED),
    "mini_sudoku": Task(score=boards.solves_sudoku, why=_RULES),
    "n_queens": Task(score=boards.solves_n_queens, why=_EXECUTES),
    "rush_hour": Task(
        score=moves.solves_rush_hour, has_reference=False, why="its own skips forbidden moves and other text"
    ),
    "sokoban": Task(score=moves.solves_sokoban, why="its own skips forbidden steps and other text"),
    "sudoku": Task(score=boards.solves_sudoku, why=_RULES),
    "tower_of_hanoi": Task(score=moves.solves_hanoi, is_continuous=True, why=_LONGER),
    "tsumego": Task(score=values.same_value, why=_PADDED),
    # geometry
    "advanced_geometry": Task(score=values.same_geometry, why=_STRICT),
    "simple_geometry": Task(score=values.same_angle, why=_PADDED),
    # graphs
    "course_schedule": Task(score=values.same_value, why=_PADDED),
    "family_relationships": Task(score=values.same_value, why=_SOUND),
    "largest_island": Task(score=values.same_value, why=_PADDED),
    "quantum_lock": Task(
        score=moves.presses_buttons,
        is_continuous=True,
        why="its own reads buttons out of any text; a longer sequence earns half, as there",
    ),
    "shortest_path": Task(
        score=moves.walks_grid, is_continuous=True, why="its own is sound; a longer way earns half, as there"
    ),
    # induction
    "list_functions": Task(score=values.same_elements, why=_PADDED),
    # logic
    "aiw": Task(score=values.same_value, why=_PADDED),
    "circuit_logic": Task(score=values.same_value, why=_PADDED),
    "knights_knaves": Task(score=words.names_roles, why=_FOUND),
    "propositional_logic": Task(
        score=statements.is_conclusion, has_reference=False, why="its own pays 1 for a premise copied"
    ),
    "self_reference": Task(score=values.same_value, why=_SOUND),
    "syllogism": Task(score=values.same_value, why=_PADDED),
    "zebra_puzzles": Task(score=values.same_value, why=_SOUND),
    # not among the papers' 96 training tasks
    "acre": Task(score=values.same_value, why=_PADDED),
    "boxnet": Task(
        score=moves.delivers_boxes,
        is_continuous=True,
        has_reference=False,
        why="its own fails on text; the share of boxes delivered, as there",
    ),
    "coin_flip": Task(score=values.same_probability, why="its own pays for a prefix of the number: 0.95 for '0'"),
    "kakurasu": Task(score=boards.solves_kakurasu, why=_FOUND),
    "modulo_grid": Task(score=values.same_picture, why=_PADDED),
    "path_star": Task(score=values.same_sequence, why=_SOUND),
    "puzzle24": Task(score=algebra.reaches_target, why="its own executes the answer, and does not compare the numbers"),
    "survo": Task(score=boards.solves_survo, why=_FOUND),
}
