"""Scorers of grids to fill in: any filling that keeps the givens and obeys the rules is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

from megatron_rl.rewards.puzzles.reading import grid, integer_grid

Rows = Sequence[Sequence[int]]


def solves_sudoku(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for each number once in every row, column and box, the givens kept."""
    puzzle: Rows = entry["metadata"]["puzzle"]
    rows = _filled(answer, puzzle)
    box = isqrt(len(puzzle))
    if rows is None or not _is_latin(rows):
        return 0.0
    corners = [(row, column) for row in range(0, len(rows), box) for column in range(0, len(rows), box)]
    boxes = [[rows[r + i][c + j] for i in range(box) for j in range(box)] for r, c in corners]
    return float(all(len(set(numbers)) == len(rows) for numbers in boxes))


def solves_futoshiki(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for each number once in every row and column, the givens kept and the inequalities met."""
    metadata = entry["metadata"]
    lines = [[word for word in line if word not in ("<", ">", "∧", "∨", "^", "v")] for line in grid(answer) or []]
    rows = _filled("\n".join(" ".join(line) for line in lines), metadata["puzzle"])
    if rows is None or not _is_latin(rows):
        return 0.0
    pairs = [(rows[r1][c1], rows[r2][c2], relation) for r1, c1, r2, c2, relation in metadata["constraints"]]
    return float(all(first < second if relation == "<" else first > second for first, second, relation in pairs))


def solves_kakurasu(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for a grid of 0 and 1 with the weighted sums of the rows and columns."""
    metadata = entry["metadata"]
    rows = integer_grid(answer)
    if rows is None or _shape(rows) != [metadata["n_cols"]] * metadata["n_rows"]:
        return 0.0
    if any(cell not in (0, 1) for row in rows for cell in row):
        return 0.0
    sums = [
        [sum(place * cell for place, cell in enumerate(line, 1)) for line in lines] for lines in (rows, _turned(rows))
    ]
    return float(sums == [metadata["row_sums"], metadata["col_sums"]])


def solves_survo(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for the numbers given placed in the blanks so that the last of every row and column is its sum."""
    metadata = entry["metadata"]
    rows = _filled(answer, metadata["puzzle"])
    if rows is None:
        return 0.0
    blanks = [(r, c) for r, row in enumerate(metadata["puzzle"]) for c, cell in enumerate(row) if cell == 0]
    placed = Counter(rows[r][c] for r, c in blanks)
    adds_up = all(sum(line[:-1]) == line[-1] for lines in (rows, _turned(rows)) for line in lines)
    return float(adds_up and placed == Counter(metadata["candidate_numbers"]))


def solves_n_queens(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for one queen in every row, none attacking another, those given kept."""
    puzzle = entry["metadata"]["puzzle"]
    rows = grid(answer)
    if rows is None or _shape(rows) != _shape(puzzle) or {cell for row in rows for cell in row} != {"_", "Q"}:
        return 0.0
    queens = [(r, c) for r, row in enumerate(rows) for c, cell in enumerate(row) if cell == "Q"]
    lines = [{r for r, _ in queens}, {c for _, c in queens}, {r + c for r, c in queens}, {r - c for r, c in queens}]
    keeps_givens = all((r, c) in queens for r, row in enumerate(puzzle) for c, cell in enumerate(row) if cell == "Q")
    return float(keeps_givens and len(queens) == len(rows) and all(len(line) == len(queens) for line in lines))


def _filled(answer: str, puzzle: Rows) -> list[list[int]] | None:
    """The answer's numbers if they have the puzzle's shape and its givens; a blank of the puzzle is a 0."""
    rows = integer_grid(answer)
    if rows is None or _shape(rows) != _shape(puzzle):
        return None
    cells = [pair for lines in zip(rows, puzzle, strict=True) for pair in zip(*lines, strict=True)]
    return rows if all(given in (0, cell) for cell, given in cells) else None


def _is_latin(rows: Rows) -> bool:
    numbers = set(range(1, len(rows) + 1))
    return all(set(line) == numbers for lines in (rows, _turned(rows)) for line in lines)


def _turned(rows: Rows) -> list[list[int]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _shape(rows: Sequence[Sequence[Any]]) -> list[int]:
    return [len(row) for row in rows]
