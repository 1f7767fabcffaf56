"""The scorer of Rubik's cubes of any size: the scramble and the answer are turned, one sticker at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

Vector: TypeAlias = tuple[int, int, int]
Cube: TypeAlias = dict[tuple[Vector, Vector], Vector]  # (place, the way it faces) -> colour: the face it came from

MAX_TURNS = 1000
_MOVE = re.compile(r"([0-9]?)([LRUDFB])(w?)('?)([0-9]?)|([MESxyzXYZ])('?)([0-9]?)")
_OUTWARD: Mapping[str, Vector] = {
    "L": (-1, 0, 0),
    "R": (1, 0, 0),
    "D": (0, -1, 0),
    "U": (0, 1, 0),
    "B": (0, 0, -1),
    "F": (0, 0, 1),
}
_LIKE = {"M": "L", "E": "D", "S": "F", "X": "R", "Y": "U", "Z": "F"}  # slices and whole turns, as this face turns


def solves_cube(answer: str, entry: Mapping[str, Any]) -> float:
    """1 for moves in Singmaster notation after which every face has one colour."""
    metadata = entry["metadata"]
    moves = answer.replace("\u2019", "'").replace("\u2032", "'").replace(",", " ").split()
    if len(moves) > MAX_TURNS:
        return 0.0
    cube = solved_cube(metadata["cube_size"])
    for move in metadata["scramble_moves"].split():
        cube = turned(cube, move, metadata["cube_size"])
    try:
        for move in moves:
            cube = turned(cube, move, metadata["cube_size"])
    except ValueError:
        return 0.0
    return float(is_solved(cube))


def solved_cube(size: int) -> Cube:
    """Places are odd or even steps from the middle, so that those of any size are whole numbers."""
    places = range(1 - size, size, 2)
    edge = size - 1
    return {
        (place, outward): outward
        for place in ((x, y, z) for x in places for y in places for z in places)
        for outward in _OUTWARD.values()
        if _dot(place, outward) == edge
    }


def is_solved(cube: Cube) -> bool:
    """Whether all stickers that face one way have one colour."""
    return len({(facing, colour) for (_, facing), colour in cube.items()}) == len(_OUTWARD)


def turned(cube: Cube, move: str, size: int) -> Cube:
    """The cube after one move. Raises ValueError for what is no move of a cube of that size."""
    match = _MOVE.fullmatch(move)
    if match is None:
        raise ValueError(f"'{move}' is no move")
    layer, face, wide, prime, count, special, special_prime, special_count = match.groups()
    outermost, num_layers = 0, int(layer or (2 if wide else 1))
    if special:
        face, prime, count = _LIKE[special.upper()], special_prime, special_count
        outermost, num_layers = (0, size) if special in "xyzXYZ" else (size // 2, size // 2 + 1)
        if special in "MES" and size % 2 == 0:
            raise ValueError(f"'{move}' needs a middle layer")
    elif not wide:
        outermost = num_layers - 1
    if not 1 <= num_layers <= size:
        raise ValueError(f"'{move}' turns more layers than there are")
    outward = _OUTWARD[face]
    depths = {size - 1 - 2 * layer for layer in range(outermost, num_layers)}
    for _ in range((int(count or 1) * (3 if prime else 1)) % 4):
        cube = {
            (_rotated(place, outward), _rotated(facing, outward))
            if _dot(place, outward) in depths
            else (place, facing): colour
            for (place, facing), colour in cube.items()
        }
    return cube


def _rotated(v: Vector, n: Vector) -> Vector:
    """A quarter turn, clockwise for who looks at the face that `n` stands on."""
    along = _dot(v, n)
    return (
        v[1] * n[2] - v[2] * n[1] + n[0] * along,
        v[2] * n[0] - v[0] * n[2] + n[1] * along,
        v[0] * n[1] - v[1] * n[0] + n[2] * along,
    )


def _dot(v: Vector, w: Vector) -> int:
    return v[0] * w[0] + v[1] * w[1] + v[2] * w[2]
