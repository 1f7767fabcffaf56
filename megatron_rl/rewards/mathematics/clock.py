r"""Times of day: 8:40, 3:30\text{ p.m.}, 15:30, noon. They are read off a clock, and are no ratios.

`2:10` is not `8:40`, though the ratios are equal. A reference such as `3:10` could be either; it is compared as a time
with what is written as one, and as a ratio with anything else (`\frac{3}{10}`).
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

_UNWRAPPED = re.compile(r"\\text ?\{([^{}]*)\}")
_HALVES = (
    r"(?P<morning>a ?\.? ?m|in the morning)|(?P<afternoon>p ?\.? ?m|in the (?:afternoon|evening))"
    r"|(?P<noon>noon)|(?P<midnight>midnight)"
)
_CLOCK = re.compile(
    r"(?P<hour>[0-9]{1,2})(?: ?: ?(?P<minute>[0-9]{2})(?: ?: ?(?P<second>[0-9]{2}))?)?"
    rf"(?P<clock> ?o'? ?clock)?(?: ?,? ?(?:{_HALVES}))?"
)
_ALONE = {"noon": "12 noon", "midnight": "12 midnight", "midday": "12 noon"}


class Clock(NamedTuple):
    """What a clock shows; `half` is "a" before noon, "p" after it, empty where a text does not say."""

    hour: int
    minute: int
    second: int
    half: str

    def of_day(self) -> tuple[int, int, int]:
        """The time on a clock of 24 hours."""
        hour = self.hour if not self.half else self.hour % 12 + 12 * (self.half == "p")
        return hour, self.minute, self.second


def is_same_time(reference: str, answer: str) -> bool | None:
    """Whether two texts in plain form are the same time; None where the reference is none, or could be a ratio.

    >>> is_same_time("8:40", "2:10"), is_same_time("15:30", "3:30 p.m."), is_same_time("3:10", "0.3")
    (False, True, None)
    """
    time = read_clock(reference)
    if time is None:
        return None
    other = read_clock(answer)
    if other is None:
        if time.half and answer.isdigit():  # 4 for 4 p.m.
            return (time.hour, time.minute) == (int(answer[:9]), 0)
        is_ratio = not time.half and time.second == 0 and math.gcd(time.hour, time.minute) == 1 and ":" not in answer
        return None if is_ratio else False
    if bool(time.half) == bool(other.half):
        return time.of_day() == other.of_day()
    return time.of_day() == other.of_day() or time[:3] == other[:3]


def read_clock(text: str) -> Clock | None:
    """The time that a text in plain form is, with its minutes or its half of the day; else None."""
    if len(text) > 60:
        return None
    words = " ".join(_UNWRAPPED.sub(r" \1 ", text).lower().split()).strip(" .")
    match = _CLOCK.fullmatch(_ALONE.get(words, words))
    if match is None:
        return None
    has_half = match["morning"] or match["afternoon"] or match["noon"] or match["midnight"]
    if not has_half and match["minute"] is None and match["clock"] is None:
        return None
    half = "a" if match["morning"] or match["midnight"] else "p" if has_half else ""
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    if hour > 24 or minute > 59 or second > 59 or (half and hour > 12):
        return None
    return Clock(hour, minute, second, half)
