"""What stands behind a quantity and changes neither its number nor its unit: a direction, a remark in brackets."""

from __future__ import annotations

import re
from fractions import Fraction

from megatron_rl.rewards.science.measures import agree, quantity

_TOWARDS = """
    up down left right in out for back rear sea sky north south east west northeast northwest southeast southwest
    north-east north-west south-east south-west
"""
_WHERE = """
    up down left right north south east west northeast northwest southeast southwest north-east north-west south-east
    south-west northerly southerly easterly westerly clockwise counterclockwise anticlockwise counter-clockwise
    anti-clockwise upstream downstream uphill downhill horizontal horizontally vertical vertically radially page paper
    screen center centre ground rms dc ac peak net surface incline slope ramp motion axis direction
    x-axis y-axis z-axis x-direction y-direction z-direction released evolved liberated emitted lost absorbed gained
"""
_BESIDE = """
    to toward towards in into at on along of from away due straight directly pointing pointed directed acting the its a
    an out positive end side plane wall flowing moving going travelling traveling above below x y z +x +y +z
"""
_DIRECTIONS = frozenset(
    [*_WHERE.split(), *(f"{end}{ward}" for end in _TOWARDS.split() for ward in ("ward", "wards"))],
)
_WORDS = _DIRECTIONS | set(_BESIDE.split())
_AROUND = ",.()"
_WARD = re.compile(r"(?:wards?|erly|ly)$")
_COUNTER = re.compile(r"(?:anti|counter)-?clockwise", re.IGNORECASE)
_SAME_WAY = {
    **dict.fromkeys(("evolved", "liberated", "emitted", "lost", "given"), "released"),
    **dict.fromkeys(("gained", "taken"), "absorbed"),
}
_FILLERS = (
    "to toward towards in into at on along of the its a an due straight direct pointing pointed directed acting moving "
    "flowing going direction side end off heat energy rms dc ac peak net"
)
_MEANS_NOTHING = frozenset(_FILLERS.split())
_TEXT = re.compile(r"\\(?:text|mathrm|textrm|mbox) ?\{([^{}]*)\}")
_REMARK = re.compile(r"\(([A-Za-z][A-Za-z ,.'-]{0,60})\)[\s.]*$")
_TOWARDS_SOMETHING = re.compile(r" (?:towards?|away from) (?:the |its |an? )?[a-z]{2,20}[\s.)]*$")
# "2.7 g Al", "5 mol of NaCl"
_OF_SUBSTANCE = re.compile(
    r"(?:(?<= g)|(?<= kg)|(?<= mg)|(?<= mol)|(?<= mmol)|(?<=grams)|(?<=moles)) (?:of )?(?:[A-Z][a-z]?[0-9_{}()]*){1,8}$"
)
_CHANGES = re.compile(r"\b(?:or|and|not|no|at (?:least|most)|more|less|times|per|each)\b", re.IGNORECASE)


def split_direction(answer: str) -> tuple[str, frozenset[str]]:
    r"""The answer without the direction that it ends in, and the words that tell that direction from others.

    >>> split_direction("20 N, leftward"), split_direction("20 N to the left"), split_direction("20 N")
    (('20 N', frozenset({'left'})), ('20 N', frozenset({'left'})), ('20 N', frozenset()))
    """
    text = " ".join(_TEXT.sub(r" \1 ", answer).replace("\\ ", " ").split())
    rest = without_remarks(text)
    if rest == text or not text.startswith(rest):
        return answer, frozenset()
    said = (
        _WARD.sub("", word.strip(_AROUND).lower())
        for word in _COUNTER.sub("counterclockwise", text[len(rest) :]).replace("-", " ").split()
    )
    return rest, frozenset(_SAME_WAY.get(word, word) for word in said if word) - _MEANS_NOTHING


def without_remarks(answer: str) -> str:
    r"""The answer without the direction and the remark in brackets that it may end in.

    >>> without_remarks("5\\text{ m to the east}"), without_remarks("12 V (DC)"), without_remarks("5 m (or 6)")
    ('5 m', '12 V', '5 m (or 6)')
    """
    text = " ".join(_TEXT.sub(r" \1 ", answer).replace("\\ ", " ").split()).replace("( ", "(").replace(" )", ")")
    text = _OF_SUBSTANCE.sub("", _TOWARDS_SOMETHING.sub("", text))
    remark = _REMARK.search(text)
    if remark and not _CHANGES.search(remark[1]):
        before = quantity(text[: remark.start()])
        text = text[: remark.start()].rstrip() if before and before.unit_text else text
    words = text.split()
    start = len(words)
    while start and words[start - 1].strip(_AROUND).lower() in _WORDS:
        start -= 1
    if start and words[start - 1][-1].isdigit() and words[start : start + 1] in (["in"], ["A"]):
        start += 1  # inches, amperes
    says_where = any(word.strip(_AROUND).lower() in _DIRECTIONS for word in words[start:])
    return " ".join(words[:start]).rstrip(" ,(") if says_where else text


def last_of_equal(answer: str) -> str:
    """The last of several quantities with an equals sign between them, where all are the same; else the answer.

    >>> last_of_equal("12 V = 12000 mV"), last_of_equal("12 V = 13 V")
    ('12000 mV', '12 V = 13 V')
    """
    parts = re.split(r"=|\\approx", answer)
    found = [quantity(part) for part in parts]
    values = [value for value in found if value is not None]
    are_equal = len(values) == len(parts) > 1 and all(agree(value, values[0], Fraction(0)) for value in values[1:])
    return parts[-1].strip() if are_equal else answer
