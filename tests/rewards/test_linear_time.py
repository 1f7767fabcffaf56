"""Whatever reads a response in the trainer takes time linear in its length, on any text that one can think of.

A text of a shape is doubled. What is linear doubles its time, what is quadratic quadruples it, and what backtracks
squares it, which is broken off. Times are of the processor, the least of several tries, and compared with each other:
with half the text, and with a pattern that reads the same text once. So a slow or busy machine changes nothing.

Not covered: what `judge` does in a worker, which is killed.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from megatron_rl.rewards.code import last_program
from megatron_rl.rewards.instruct import INSTRUCTIONS, NEEDS_LANGUAGE
from megatron_rl.rewards.instructions.counting import says_something
from megatron_rl.rewards.mathematics.answers import read_answer
from megatron_rl.rewards.mathematics.boxes import boxed_answer
from megatron_rl.rewards.mathematics.clock import is_same_time
from megatron_rl.rewards.mathematics.labels import is_label
from megatron_rl.rewards.mathematics.notation import compact, crossed_as, nesting, plain, vectors_as_letters
from megatron_rl.rewards.mathematics.numbers import plain_number
from megatron_rl.rewards.mathematics.quantities import split_unit
from megatron_rl.rewards.mathematics.scalars import Rules, Undecided, is_same_scalar, words
from megatron_rl.rewards.response import after_thinking, as_read
from megatron_rl.rewards.science.compounds import formulas
from megatron_rl.rewards.science.concentrations import has_concentrations, in_concentrations
from megatron_rl.rewards.science.elements import in_symbols
from megatron_rl.rewards.science.forms import in_one_form
from megatron_rl.rewards.science.macros import without_macros
from megatron_rl.rewards.science.measures import quantity
from megatron_rl.rewards.science.names import one_name
from megatron_rl.rewards.science.numerals import in_digits
from megatron_rl.rewards.science.particles import particle
from megatron_rl.rewards.science.remarks import split_direction, without_remarks
from megatron_rl.rewards.science.spans import span
from megatron_rl.rewards.science.statements import sentences, statements
from megatron_rl.rewards.science.symbols import plain_symbols, without_subscripts
from megatron_rl.rewards.science.typed import in_letters, with_brackets
from megatron_rl.rewards.science.wording import same_words
from megatron_rl.rewards.score import VERIFIERS

FIRST_CHARACTERS, LAST_CHARACTERS = 1_024, 65_536  # the last where growth looks suspicious
MAX_GROWTH = 2.8  # of the time when the text is doubled: 2 is linear, 4 is quadratic
MAX_FOURFOLD_GROWTH = 5.0  # when it is four times as long: 4 is linear, 16 is quadratic
MAX_SECONDS = 0.2  # of the processor for each 1,024 characters, thirty times what the slowest reader takes
CHEAP = 5.0  # times the yardstick: what costs less may grow as it likes
TRIES, SHORT_SECONDS = 5, 0.0005  # what takes less is often disturbed by half as much again
YARDSTICK = re.compile(r"(?:[^\W\d_]+|\d+|\s+|.)", re.DOTALL)

UNITS = r"""
a 1 . - ( ) { } [ ] \ $ * ** *** ` ``` _ ^ & | : ; , ' " + / = ! % # < > << >> ~ é ½ √ √( ² ₁ ０ ﬁ ﷺ 。 ! … ... ..
-- a_ x_1 x^ x^2 {x}_1 1, 1: 1/ 1+ =1 1.1 1e 1,2, 111, 1,111 10^ 3:30 (1,2), (0,1)\cup (0,1)U {1}\cup [0,1] \{
\} \{1\} \{1, \\ \! 1\! \, \; \quad ~1 \% \$ \circ ^\circ ^{\circ} \frac \frac{ \frac{1}{ \frac12 \sqrt{ \sqrt[
\over {\over {a\over a\over \text \text{ \text{a} \text{a}\text{b} \text{\text{ \mathbf{\text{ \text{and}
\text{or} \text{:} \color{ \color{red} \bf \boxed \boxed{ \boxed{1} \fbox{ \boxed{\text{ \left( \right) \left[
\begin{matrix} \end{matrix} \begin{array}{c} \begin{aligned} \pm \pm1 \mp \cup \cap \setminus \in \mid \le \ne
x\ne1, x<1, \ldots \ldots, 1,\ldots, \dots \overline{ \bar{3} \pmod \bmod7 \infty \cdot \cdot1 \times10^ \SI{
\qty{1}{ \ce{ <think> </think> <answer> </answer> <a> ```python ```py [a] [a [] ** ****** P.S. p. s. a.b. A) (A)
A. A, (A) (A answer Answer: a? a! a@ http:// a-b a'b a/b 'a' "a" a"b" °C m/s km^ N·m x=
"""
WORDS = (
    "a ",
    " a",
    "1 ",
    "- ",
    "* ",
    "# ",
    ". ",
    "? ! ",
    "! ",
    ": ",
    "; ",
    ", ",
    "= ",
    "\n",
    "\r\n",
    "\t",
    "\n\n",
    "\n- ",
    "\n* a",
    " \n",
    "\n1. ",
    "\nA. ",
    "\n```\n",
    "```\n",
    "```python\n",
    "km ",
    "km/",
    "apples ",
    "apple",
    "5 apples ",
    "m to the east ",
    "per ",
    "million ",
    "of the ",
    "a b ",
    "or ",
    "and ",
    "A or ",
    "and A ",
    "not ",
    "no ",
    "wait no ",
    "so ",
    "it is ",
    "the answer is ",
    "The answer is A. ",
    "is not A. ",
    "Actually, it is ",
    "because ",
    "also ",
    "maybe ",
    "but A ",
    "option ",
    "the option A ",
    "answer ",
    "answer\n",
    "final answer: ",
    "the final ",
    "is correct ",
    "A is correct. ",
    "It is B. ",
    "I choose ",
    "either ",
    "\\text{ km} ",
    "\\text{a b} ",
    "\\text{ } ",
    "\\, ",
    "\\ ",
    "\\! ",
    "1 111 ",
    "1 234",
    "1 1/",
    "12 \\frac",
    "\\boxed{1} or ",
    "\\boxed{1} so ",
    "\\boxed{1}\n",
    "\\boxed ",
    "\\frac {1} ",
    "\\begin {matrix} ",
    "& ",
    "\\\\ ",
    "x \\le ",
    "\\text {",
    "P. S. ",
    "Mr. ",
    "e.g. ",
    "Section 1 ",
    "<< a ",
    " >>",
    "[ ",
    "***\n",
    "e\u0301",
    "\u0301",
    "\u0315\u0300",
    "\uff9e\u0301",
    "\u0344\u0315",
    "\u200b",
    "\ud800",
    "\U0001d7d9",
    "A\u0301\u0316 ",
    "east ",
    "(a) ",
    "(a ",
    "up, ",
    "m (",
    "is ",
    "is the ",
    "therefore ",
    "two ",
    "minus ",
    "twenty-",
    "2 h ",
    "1 to ",
    "5 - ",
    "\\SI{5}{\\m} ",
    "\\kilo\\m",
    "\\sqrt{2}",
    "pi ",
    "tea, ",
    "tea < ",
    "tea and ",
    "butan-2-ol ",
    "ion(II) ",
    "which? ",
)
SHAPES = [*dict.fromkeys([*UNITS.split(), *WORDS])]
ENDS = ("x", "", "} 7")

Reader = Callable[[str], object]
MATH, NONE = Rules(may_evaluate=False), {"answer": "x+1"}
ARGUMENTS = {
    "keywords": ["tea"],
    "forbidden_words": ["tea", "a"],
    "keyword": "a",
    "letter": "a",
    "language": "en",
    "first_word": "a",
    "relation": "at least",
    "let_relation": "at least",
    "capital_relation": "at least",
    "section_spliter": "Section",
    "postscript_marker": "P.S.",
    "prompt_to_repeat": "a a",
    "end_phrase": "x",
    "num_paragraphs": 2,
    "nth_paragraph": 2,
}


def scalar(reference: str) -> Reader:
    def compare(text: str) -> None:
        with suppress(Undecided):
            is_same_scalar(reference, text, MATH)

    return compare


def prepared(domain: str, item: dict[str, object], wrap: str = "%s") -> Reader:
    return lambda text: VERIFIERS[domain].prepare(wrap % text, item)


def instruction(identifier: str) -> Reader:
    check = INSTRUCTIONS[identifier]
    names = check.__code__.co_varnames[1 : check.__code__.co_argcount]
    given = {name: ARGUMENTS.get(name, 3) for name in names}
    return lambda text: check(text, **given)


ENTRY = {"question": "hello", "answer": "olleh", "metadata": {"word": "hello"}}
CHOICES = {"answer": "B", "choices": ["5 m", "a"]}
READERS: dict[str, tuple[Reader, int]] = {  # and how long a text it is given at most
    "as_read": (lambda text: as_read(text, opens_thought=True), LAST_CHARACTERS),
    "after_thinking": (after_thinking, LAST_CHARACTERS),
    "boxed_answer": (boxed_answer, LAST_CHARACTERS),
    "plain": (plain, LAST_CHARACTERS),
    "compact": (compact, LAST_CHARACTERS),
    "nesting": (nesting, LAST_CHARACTERS),
    "plain_number": (plain_number, 20_000),
    "read_answer": (lambda text: read_answer(plain(text)), 2_000),
    "split_unit": (lambda text: split_unit(text, False), 4_000),
    "split_unit with letters": (lambda text: split_unit(text, True), 4_000),
    "words": (words, 4_000),
    "is_same_time": (lambda text: is_same_time("8:40", text), 4_000),
    "is_label": (is_label, 4_000),
    **{
        f"scalar {reference}": (scalar(reference), 4_000) for reference in ("7", "x+1", "B", "12 cm", "3 : 2", "1011_2")
    },
    "last_program": (last_program, LAST_CHARACTERS),
    "statements": (statements, 10_000),
    "sentences": (sentences, 10_000),
    "quantity": (quantity, 300),
    "without_remarks": (without_remarks, 300),
    "split_direction": (split_direction, 300),
    "without_macros": (without_macros, 300),
    "crossed_as": (lambda text: crossed_as(text, "\\vec r\\times\\vec p"), 20_000),
    "vectors_as_letters": (vectors_as_letters, 20_000),
    "in_concentrations": (in_concentrations, 300),
    "has_concentrations": (has_concentrations, 300),
    "plain_symbols": (plain_symbols, 300),
    "without_subscripts": (without_subscripts, 300),
    "particle": (particle.__wrapped__, 300),
    "in_digits": (in_digits, 300),
    "in_one_form": (in_one_form, 300),
    "in_symbols": (in_symbols, 300),
    "one_name": (one_name, 300),
    "in_letters": (lambda text: in_letters(text, "\\mu"), 300),
    "with_brackets": (with_brackets, 300),
    "formulas": (formulas, 300),
    "span": (span, 300),
    "same_words": (lambda text: same_words(text, "carbon dioxide"), 300),
    "same_words of a list": (lambda text: same_words(text, "glucose and fructose"), 300),
    "same_words in order": (lambda text: same_words(text, "CH4 < C2H6"), 300),
    "same_words of a formula": (lambda text: same_words(text, "H_2O"), 300),
    "says_something": (says_something, LAST_CHARACTERS),
    **{name: (instruction(name), LAST_CHARACTERS) for name in sorted(INSTRUCTIONS.keys() - NEEDS_LANGUAGE)},
    **{
        f"math {answer}": (prepared("math", {"answer": answer}, "\\boxed{%s}"), 20_000)
        for answer in ("5", "\\{1,2\\}", "(0,1)")
    },
    "math without a box": (prepared("math", NONE), LAST_CHARACTERS),
    "math before a box": (prepared("math", NONE, "%s\\boxed{1}"), LAST_CHARACTERS),
    "math between boxes": (prepared("math", NONE, "\\boxed{1}%s\\boxed{2}"), LAST_CHARACTERS),
    "code": (prepared("code", {"tests": [{"input": "", "output": "6"}]}), LAST_CHARACTERS),
    "code in a block": (prepared("code", {"tests": [{"input": "", "output": "6"}]}, "```py\n%s\n```"), LAST_CHARACTERS),
    "stem choices": (prepared("stem", CHOICES, "The answer is B %s"), LAST_CHARACTERS),
    "stem choices in a box": (prepared("stem", CHOICES, "\\boxed{%s}"), 1_000),
    "stem words": (prepared("stem", {"answer": "photosynthesis"}), LAST_CHARACTERS),
    "stem quantity": (prepared("stem", {"answer": "9.81", "unit": "m/s^2"}), LAST_CHARACTERS),
    "stem quantity in a box": (prepared("stem", {"answer": "9.81", "unit": "m/s^2"}, "\\boxed{9 %s}"), 1_000),
    "stem quantity with a direction": (prepared("stem", {"answer": "5 N up"}, "\\boxed{5 %s}"), 1_000),
    "stem between boxes": (prepared("stem", CHOICES, "\\boxed{A}%s\\boxed{B}"), LAST_CHARACTERS),
    "stem formula": (prepared("stem", {"answer": "x^2+1"}, "\\boxed{%s}"), 1_000),
    "logic": (prepared("logic", {"task": "spell_backward", "entry": ENTRY}), LAST_CHARACTERS),
    "logic in a tag": (prepared("logic", {"task": "spell_backward", "entry": ENTRY}, "<answer>%s</answer>"), 10_000),
    "instruct": (
        prepared("instruct", {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}),
        LAST_CHARACTERS,
    ),
    "instruct, loosely": (
        prepared("instruct", {"instruction_id_list": ["startend:quotation"], "kwargs": [{}], "mode": "loose"}),
        LAST_CHARACTERS,
    ),
}


class TooLong(Exception):
    """A reader was broken off."""


@pytest.fixture(autouse=True)
def _clock() -> Iterator[None]:
    """Breaks off what computes for too long, patterns included, which look for signals as they search."""

    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    yield
    signal.signal(signal.SIGVTALRM, before)


def seconds(reader: Reader, text: str, tries: int) -> float:
    """The least processor time of several tries. Raises TooLong."""
    times = []
    for _ in range(tries):
        signal.setitimer(signal.ITIMER_VIRTUAL, MAX_SECONDS * max(1.0, len(text) / FIRST_CHARACTERS))
        began = time.thread_time()
        try:
            reader(text)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        times.append(time.thread_time() - began)
    return min(times)


def growth(reader: Reader, unit: str, end: str, max_characters: int) -> str:
    """Where the time of a text grows faster than its length twice in a row, an empty text if nowhere.

    Once is no sign: another length may be read in another way. A text that is long enough is looked at first, beside
    its quarter; if that looks suspicious, all is doubled, and while a doubling looks suspicious, it is doubled again.
    """
    enough, num_strikes = FIRST_CHARACTERS, 0
    while enough > max_characters:
        enough //= 2
    size = enough
    try:
        if looks_linear(reader, unit, end, size):
            return ""
        if 2 * size > max_characters:  # there would be no longer one to confirm it
            size //= 2
        while size <= max_characters:
            now, least, most = doubled(reader, unit, end, size)
            text = text_of(unit, end, size)
            is_strike = now > MAX_GROWTH * most and now > CHEAP * seconds(YARDSTICK.findall, text, TRIES)
            num_strikes = num_strikes + 1 if is_strike else 0
            if num_strikes == 2:
                return f"{unit!r} to {size} characters, then {end!r}: {now / most:.1f} times the half's time"
            if now <= MAX_GROWTH * least and 2 * size > enough:
                break
            size *= 2
    except TooLong:
        return f"{unit!r} to {size} characters, then {end!r}: takes more than {MAX_SECONDS} s for each 1,024"
    return ""


def looks_linear(reader: Reader, unit: str, end: str, size: int) -> bool:
    """Whether a text takes hardly longer than four times its quarter, the least of two tries. Raises TooLong.

    Says so of nothing that passes `doubled` as suspicious: what is fixed, linear and quadratic in the time of a text
    are weighed here as 4, 0.25 and -0.69, there as 1.8, 0.4 and -0.3; and costs half as much.
    """
    quarter = text_of(unit, end, size // 4)
    before = seconds(reader, quarter, 1)
    if before < SHORT_SECONDS:
        before = min(before, seconds(reader, quarter, 1))
    return seconds(reader, text_of(unit, end, size), 1) <= MAX_FOURFOLD_GROWTH * before


def text_of(unit: str, end: str, size: int) -> str:
    return unit * max(1, size // len(unit)) + end


def doubled(reader: Reader, unit: str, end: str, size: int) -> tuple[float, float, float]:
    """The least time of a text, and the least and the most of its half's: a doubt is told by both. Raises TooLong."""
    text, half = text_of(unit, end, size), text_of(unit, end, size // 2)
    now, before = seconds(reader, text, 1), seconds(reader, half, 1)
    if now <= MAX_GROWTH * before and before < SHORT_SECONDS:
        before = min(before, seconds(reader, half, 2))
    if now <= MAX_GROWTH * before:
        return now, before, before
    now, again = seconds(reader, text, TRIES if now < 0.1 else 2), seconds(reader, half, TRIES)
    return now, min(before, again), max(before, again)


@pytest.mark.parametrize("name", READERS)
def test_time_is_linear_in_the_length_of_a_response(name: str) -> None:
    reader, max_characters = READERS[name]
    ends = ENDS[:1] if name.startswith(tuple(VERIFIERS)) else ENDS  # their parts have read the others
    found = [growth(reader, unit, end, max_characters) for unit in SHAPES for end in ends]
    assert not any(found), [line for line in found if line]


@pytest.mark.parametrize(
    "pattern",
    [r"\s+$", r"(?:[a-z]+ ?)+$", r"(?: ?[+-]? ?[a-z])*\d", r"\([^)]*\)", r"(?:a|b|ab)*c", r"x+x+y"],
)
def test_a_pattern_that_backtracks_is_found(pattern: str) -> None:
    compiled = re.compile(pattern)
    units = [" ", "a ", "(", "ab", "x", "y"] * 4  # a busy machine may hide growth once
    assert any(growth(compiled.search, unit, "!", LAST_CHARACTERS) for unit in units)
