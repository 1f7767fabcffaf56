"""Scorers of puzzles that are solved by moves: the moves are played, and one that the rules forbid ends it with 0.

Any solution is right. Where a shortest one was asked for or is the measure, a longer one earns a share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from megatron_rl.rewards.puzzles.reading import listed, sequence, texts

Entry = Mapping[str, Any]

LONGER_SHARE = 0.5  # for a solution that is not the shortest where the shortest was asked for; reasoning-gym's own
_STEPS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
_RUSH_HOUR_SIZE, _RUSH_HOUR_EXIT_ROW = 6, 2


def solves_hanoi(answer: str, entry: Entry) -> float:
    """1 for all disks on the target peg in the fewest moves, that number over the answer's where it took more."""
    metadata = entry["metadata"]
    pegs: dict[int, list[int]] = {peg: [] for peg in range(1, metadata["num_pegs"] + 1)}
    pegs[metadata["start_peg"]] = list(range(metadata["num_disks"], 0, -1))
    lines = [" ".join(line.casefold().split()) for line in answer.splitlines() if line.strip()]
    for line in lines:
        match = re.fullmatch(r"move disk ([0-9]{1,4}) from peg ([0-9]{1,4}) to peg ([0-9]{1,4})\.?", line)
        if match is None:
            return 0.0
        disk, source, target = map(int, match.groups())
        if (
            source not in pegs
            or target not in pegs
            or pegs[source][-1:] != [disk]
            or min(pegs[target], default=disk) < disk
        ):
            return 0.0
        pegs[target].append(pegs[source].pop())
    is_solved = len(pegs[metadata["target_peg"]]) == metadata["num_disks"]
    return _share(metadata["solution_length"], len(lines)) if is_solved else 0.0


def solves_jugs(answer: str, entry: Entry) -> float:
    """1 for moves after which a jug holds the target."""
    puzzle = entry["metadata"]["puzzle"]
    room = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", puzzle["jug_capacities"], strict=False))
    water = dict.fromkeys(room, 0)
    for move in texts(listed(answer)) or []:
        match = re.fullmatch(r"(fill|empty|pour) ([A-Z])(?: ?-> ?([A-Z]))?", " ".join(move.split()))
        if match is None:
            return 0.0
        kind, jug, other = match.groups()
        if jug not in room or (kind == "pour") != (other is not None) or other == jug or (other or jug) not in room:
            return 0.0
        if kind == "pour":
            poured = min(water[jug], room[other] - water[other])
            water[other] += poured
            water[jug] -= poured
        else:
            water[jug] = room[jug] if kind == "fill" else 0
    return float(puzzle["target"] in water.values())


def solves_knight_swap(answer: str, entry: Entry) -> float:
    """1 for the colours swapped in the fewest moves, or "No" where it cannot be done; a share for more moves."""
    metadata = entry["metadata"]
    if not metadata["is_possible"] or answer.casefold() == "no":
        return float(not metadata["is_possible"] and answer.casefold() == "no")
    moves = texts(listed(answer)) or []
    at = {square: piece for square, piece in metadata["pieces"].items() if piece}
    turn = metadata["start_turn"]
    for move in moves:
        piece, start, end = ([part.strip() for part in move.split(",")] + ["", "", ""])[:3]
        if move.count(",") != 2 or piece != turn or at.get(start) != piece:
            return 0.0
        if end in at or end not in metadata["board"].get(start, ()):
            return 0.0
        at[end] = at.pop(start)
        turn = "B" if turn == "w" else "w"
    swapped = {square: "B" if piece == "w" else "w" for square, piece in metadata["pieces"].items() if piece}
    return _share(len(metadata["solution"]), len(moves)) if moves and at == swapped else 0.0


def presses_buttons(answer: str, entry: Entry) -> float:
    """1 for a shortest sequence of buttons that reaches the target, half for a longer one."""
    metadata = entry["metadata"]
    buttons = {button["name"].casefold(): button for button in metadata["buttons"]}
    pressed = re.sub("→|->|,", " ", answer.casefold()).split()
    value, light = metadata["initial_value"], metadata["initial_state"]
    for name in pressed:
        if name not in buttons:
            return 0.0
        button = buttons[name]
        if button["active_state"] in (light, "any"):
            change = button["value"]
            value = {"add": value + change, "subtract": value - change, "multiply": value * change}[button["type"]]
        light = "green" if light == "red" else "red"
    if value != metadata["target_value"]:
        return 0.0
    return 1.0 if len(pressed) <= len(metadata["solution_path"]) else LONGER_SHARE


def walks_grid(answer: str, entry: Entry) -> float:
    """1 for a shortest way through open cells, or "infeasible" where there is none; half for a longer way."""
    matrix, shortest = entry["metadata"]["matrix"], entry["metadata"]["solution"]
    words = sequence(answer.casefold()) or []
    if not shortest:
        return float(words == ["infeasible"])
    cells = {(r, c): cell for r, row in enumerate(matrix) for c, cell in enumerate(row)}
    row, column = next(place for place, cell in cells.items() if cell == "*")
    for word in words:
        if word not in _STEPS:
            return 0.0
        row, column = row + _STEPS[word][0], column + _STEPS[word][1]
        if cells.get((row, column), "X") == "X":
            return 0.0
    if cells[row, column] != "#":
        return 0.0
    return 1.0 if len(words) <= len(shortest) else LONGER_SHARE


def solves_sokoban(answer: str, entry: Entry) -> float:
    """1 for steps after which every box is on a goal; a step into a wall or a stuck box is forbidden."""
    cells = {
        (r, c): cell
        for r, line in enumerate(entry["metadata"]["gamestr"].split("\n"))
        for c, cell in enumerate(line.replace(" ", ""))
    }
    boxes = {place for place, cell in cells.items() if cell in "@$"}
    goals = {place for place, cell in cells.items() if cell in "X$%"}
    row, column = next(place for place, cell in cells.items() if cell in "*%")
    steps = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}
    moves = re.sub(r"[\s,]", "", answer).upper()
    for move in moves:
        if move not in steps:
            return 0.0
        down, right = steps[move]
        row, column = row + down, column + right
        if (row, column) in boxes:
            beyond = (row + down, column + right)
            if beyond in boxes or cells.get(beyond, "+") == "+":
                return 0.0
            boxes = boxes - {(row, column)} | {beyond}
        if cells.get((row, column), "+") == "+":
            return 0.0
    return float(boxes <= goals)


def solves_rush_hour(answer: str, entry: Entry) -> float:
    """1 for moves after which the red car is at the exit; a move through another car or a wall is forbidden."""
    board = entry["metadata"]["board_config"]
    places: dict[str, list[tuple[int, int]]] = {}
    for index, label in enumerate(board):
        if label != "o":
            places.setdefault(label, []).append(divmod(index, _RUSH_HOUR_SIZE))
    walls = set(places.pop("x", []))
    # The question names the cars A, B, ... in the order of the labels, which may have gaps.
    cars = {chr(ord("A") + index): places[label] for index, label in enumerate(sorted(places))}
    taken = walls.union(*cars.values())
    for move in sequence(answer) or []:
        match = re.fullmatch(r"([A-Z])\1*([+-])([1-9])", move)
        if match is None or match[1] not in cars:
            return 0.0
        car = cars[match[1]]
        sign = 1 if match[2] == "+" else -1
        down, right = (0, sign) if car[0][0] == car[1][0] else (sign, 0)
        for _ in range(int(match[3])):
            moved = [(row + down, column + right) for row, column in car]
            free = set(moved) - set(car)
            if free & taken or any(not 0 <= part < _RUSH_HOUR_SIZE for place in moved for part in place):
                return 0.0
            taken = taken - set(car) | set(moved)
            car = cars[match[1]] = moved
    return float(cars["A"][-1] == (_RUSH_HOUR_EXIT_ROW, _RUSH_HOUR_SIZE - 1))


def delivers_boxes(answer: str, entry: Entry) -> float:
    """The share of the boxes that the plan brings to a target of their colour; a forbidden action ends it with 0."""
    squares = {place: list(things) for place, things in entry["metadata"]["initial_state"].items()}
    num_boxes = _num_boxes(squares)
    try:
        plan = json.loads(answer)
    except (ValueError, RecursionError):  # no JSON, or hostile
        return 0.0
    if not isinstance(plan, list) or not all(isinstance(step, dict) for step in plan):
        return 0.0
    if not all(_acts(squares, step) for step in plan):
        return 0.0
    return 1.0 - _num_boxes(squares) / num_boxes


def _acts(squares: dict[str, list[str]], step: Mapping[str, Any]) -> bool:
    """Whether every agent's action of a step is allowed; changes `squares`. A box is moved once per step."""
    arrived: list[tuple[str, str]] = []
    for agent, action in step.items():
        coordinate = r"\[?([0-9]+\.5), ?([0-9]+\.5)\]"
        here = re.fullmatch(rf"Agent{coordinate}", agent)
        what = re.fullmatch(rf"move\((box_\w+), ?(?:(target_\w+)|square{coordinate})\)", str(action))
        if here is None or what is None or what[1] not in squares.get("_".join(here.groups()), []):
            return False
        things = squares["_".join(here.groups())]
        things.remove(what[1])
        if what[2]:
            if what[2] not in things or what[2][7:] != what[1][4:]:
                return False
            things.remove(what[2])
            continue
        there = f"{what[3]}_{what[4]}"
        distance = abs(float(what[3]) - float(here[1])) + abs(float(what[4]) - float(here[2]))
        if there not in squares or distance != 1:
            return False
        arrived.append((there, what[1]))
    for there, box in arrived:
        squares[there].append(box)
    return True


def _num_boxes(squares: Mapping[str, Sequence[str]]) -> int:
    return sum(thing.startswith("box_") for things in squares.values() for thing in things)


def _share(fewest: int, number: int) -> float:
    return min(1.0, fewest / number)
