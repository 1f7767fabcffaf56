"""One function per published source: a row in, a draft of an item out, or the reason why it becomes none.

Each knows every layout that its source was published in. What they are, their licences and what is dropped:
docs/sources.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from megatron_rl.config.mixture import Rules, Source
from megatron_rl.data import competitions
from megatron_rl.data.code_tests import check_statement, item_of
from megatron_rl.data.competitions import first_program
from megatron_rl.data.drafts import Draft, LeftOut, answer_of, boxed, text_of
from megatron_rl.rewards.instruct import ARGUMENTS
from megatron_rl.rewards.mathematics.boxes import boxed_answer

Row = Mapping[str, Any]

_CODE_SUFFIX = re.compile(
    r"\s*Write Python code to solve the problem\.\s*Present the code in\s*```python\s*Your code\s*```"
    r"\s*at the end\.?\s*$"
)
_MATH_SUFFIX = re.compile(r"\s*Present the answer in LaTex format:\s*\\boxed\{Your answer\}\s*$")
_DAPO_PREFIX = re.compile(r"^Solve the following math problem step by step\..*?\n\s*\n", re.DOTALL)
_DAPO_SUFFIX = re.compile(r"\s*Remember to put your answer on its own line after \"Answer:\"\.?\s*$")
_PARTS = re.compile(r"(?:^|[\s.;:])\(?a\)\s.+?[\s.;:]\(?b\)\s", re.DOTALL | re.IGNORECASE)
_PROOF = re.compile(r"^\s*(?:prove|show|derive|verify|demonstrate|explain|discuss)\b", re.IGNORECASE)


def read_draft(row: Any, source: Source, rules: Rules) -> Draft:
    """The draft of a row of a source. Raises LeftOut."""
    if not isinstance(row, Mapping):
        raise LeftOut("malformed", f"the row is a {type(row).__name__}, not an object")
    draft = READERS[source.reader](row, source, rules)
    if source.domain == "code":
        check_statement(draft.problem)
    return draft


def deepscaler(row: Row, source: Source, rules: Rules) -> Draft:
    """DeepScaleR: `problem`, `answer`, and a `solution` that is often empty."""
    answer = answer_of(row, "answer")
    return Draft(problem=text_of(row, "problem"), item={"answer": answer}, proof=boxed(answer))


def eurus(row: Row, source: Source, rules: Rules) -> Draft:
    """Eurus-2: verl's layout, and the first revisions' `task`, `source`, `instruction`, `reference`."""
    if "instruction" in row:
        kind, part, truth = text_of(row, "task").lower(), str(row.get("source")), row.get("reference")
        problem = text_of(row, "instruction")
    else:
        kind, part, truth = text_of(row, "ability").lower(), text_of(row, "data_source"), _ground_truth(row)
        problem = _last_message(row.get("prompt"))
    domain = "code" if kind in ("code", "coding") else "math" if kind == "math" else kind
    if domain != source.domain:
        raise LeftOut("other_part", f"is of {domain}")
    if source.subset and part not in source.subset:
        raise LeftOut("other_part", f"is of {part}")
    if domain == "code":
        item, left_out = item_of(truth, rules)
        problem = _not_empty(_CODE_SUFFIX.sub("", problem))
        return Draft(problem=problem, item=item, proof=first_program(row), tests_left_out=left_out)
    answer = answer_of({"ground_truth": truth}, "ground_truth")
    return Draft(problem=_not_empty(_MATH_SUFFIX.sub("", problem)), item={"answer": answer}, proof=boxed(answer))


def scp(row: Row, source: Source, rules: Rules) -> Draft:
    """SCP-116K: `matched_solution` with two models' flags, or `extract_solution` with R1's response.

    The reference is a worked solution. The answer is the last box of a model that agrees with it: by its flag, or
    where the verifier finds that answer at the solution's own end.
    """
    problem = text_of(row, "problem")
    if "extract_solution" not in row and "matched_solution" not in row:
        raise LeftOut("malformed", "has neither extract_solution nor matched_solution")
    truth = row.get("extract_solution", row.get("matched_solution"))
    if not isinstance(truth, str) or not truth.strip():
        raise LeftOut("no_answer", "has no solution to judge by")
    if _PARTS.search(problem):
        raise LeftOut("several_questions", "asks (a) and (b)")
    if _PROOF.search(problem):
        raise LeftOut("no_short_answer", "asks for a proof or an explanation")
    short = _flagged_answer(row) if "matched_solution" in row else _box_of(row.get("r1_response"))
    if short is None:
        raise LeftOut("no_short_answer", "no model's answer stands in a box")
    witnesses = () if "matched_solution" in row else _witnesses(truth)
    return Draft(problem=problem, item={"answer": short}, proof=boxed(short), witnesses=witnesses)


def nemotron(row: Row, source: Source, rules: Rules) -> Draft:
    """Llama-Nemotron's instructions: `input` with one turn, `args` with IFEval's ids and keyword arguments."""
    if row.get("category") not in (None, "instruction_following"):
        raise LeftOut("other_part", f"is of {row['category']}")
    arguments = row.get("args")
    if not isinstance(arguments, Mapping):
        raise LeftOut("malformed", "args is no object")
    problem = _last_message(row.get("input"))
    names, given = arguments.get("instruction_id_list"), arguments.get("instruction_kwargs")
    return Draft(problem=problem, item=_instructions(names, given, problem), proof=None)


def ifeval(row: Row, source: Source, rules: Rules) -> Draft:
    """IFEval, and the sets in its layout: `prompt`, `instruction_id_list`, `kwargs`."""
    problem = text_of(row, "prompt")
    item = _instructions(row.get("instruction_id_list"), row.get("kwargs"), problem)
    return Draft(problem=problem, item=item, proof=None)


def dapo(row: Row, source: Source, rules: Rules) -> Draft:
    """DAPO-Math-17k: verl's layout, with a fixed prefix and suffix that ask for an `Answer:` line.

    In its copy without repetitions the prompt is the problem itself.
    """
    answer, prompt = answer_of({"ground_truth": _ground_truth(row)}, "ground_truth"), row.get("prompt")
    text = prompt if isinstance(prompt, str) and not prompt.lstrip().startswith("[{") else _last_message(prompt)
    problem = _DAPO_SUFFIX.sub("", _DAPO_PREFIX.sub("", text))
    return Draft(problem=_not_empty(problem), item={"answer": answer}, proof=boxed(answer))


def goose(row: Row, source: Source, rules: Rules) -> Draft:
    """GooseReason: `question`, `options`, and the letter of the right one as `answer`."""
    options, letter = row.get("options"), answer_of(row, "answer").strip("(). ").upper()
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise LeftOut("malformed", "options is no list of texts")
    return _choice(text_of(row, "question"), [option.strip() for option in options], letter)


def gpqa(row: Row, source: Source, rules: Rules) -> Draft:
    """GPQA with its three wrong answers, in an order that follows from the row; its open copy without them."""
    if "correct_answer" in row:
        answer = answer_of(row, "correct_answer")
        return Draft(problem=text_of(row, "question"), item={"answer": answer}, proof=boxed(answer))
    right = text_of(row, "Correct Answer")
    options = [right, *(text_of(row, f"Incorrect Answer {number}") for number in (1, 2, 3))]
    if len(set(options)) < len(options):
        raise LeftOut("several_outputs", "two of the options are equal")
    question = text_of(row, "Question")
    key = str(row.get("Record ID") or question)
    options.sort(key=lambda option: hashlib.blake2b(f"{key}:{option}".encode(errors="replace")).digest())
    return _choice(question, options, chr(ord("A") + options.index(right)))


def aime(row: Row, source: Source, rules: Rules) -> Draft:
    """Competition sets of `problem` (or `question`) and a whole number as `answer`, however it is written."""
    answer = answer_of(row, "answer", "Answer")
    problem = text_of(row, "problem", "Problem", "question")
    if re.fullmatch(r"0*\d+", answer):
        answer = str(int(answer))
    return Draft(problem=problem, item={"answer": answer}, proof=boxed(answer))


def items(row: Row, source: Source, rules: Rules) -> Draft:
    """Rows in this project's own layout: `prompt`, `item`, and perhaps the `domain`."""
    if row.get("domain", source.domain) != source.domain:
        raise LeftOut("other_part", f"is of {row['domain']}")
    item = row.get("item")
    if not isinstance(item, dict):
        raise LeftOut("malformed", "item is no object")
    answer = item.get("answer")
    entry = item.get("entry")
    if source.domain == "logic" and isinstance(entry, Mapping):
        known = entry.get("answer")
        proof = f"<answer>{known}</answer>" if isinstance(known, str) else None
    else:
        proof = boxed(answer) if source.domain in ("math", "stem") and isinstance(answer, str) else None
    return Draft(problem=text_of(row, "prompt"), item=item, proof=proof)


READERS: Mapping[str, Callable[[Row, Source, Rules], Draft]] = {
    "aime": aime,
    "apps": competitions.apps,
    "codecontests": competitions.codecontests,
    "codeforces": competitions.codeforces,
    "dapo": dapo,
    "deepscaler": deepscaler,
    "eurus": eurus,
    "goose": goose,
    "gpqa": gpqa,
    "ifeval": ifeval,
    "items": items,
    "math": competitions.math,
    "nemotron": nemotron,
    "olympiad": competitions.olympiad,
    "scp": scp,
}
# Of parquet files only these columns are read, where a file has any of them: others can be most of its bytes.
COLUMNS: Mapping[str, Sequence[str]] = {
    "codecontests": ("description", "public_tests", "private_tests", "generated_tests", "input_file", "output_file"),
    "dapo": ("prompt", "reward_model"),
    "eurus": ("data_source", "prompt", "ability", "reward_model", "task", "source", "instruction", "reference"),
    "scp": (
        "problem",
        "extract_solution",
        "r1_response",
        "matched_solution",
        "o1_solution",
        "is_o1_solution_same_with_matched_solution",
        "qwq_solution",
        "is_qwq_solution_same_with_matched_solution",
    ),
}


def _last_message(prompt: Any) -> str:
    """The text of the last turn; the prompt is a list of turns, or its JSON text."""
    if isinstance(prompt, str):
        try:
            prompt = json.loads(prompt)
        except ValueError:
            raise LeftOut("malformed", "prompt is a text, not a list of messages") from None
    if not isinstance(prompt, list) or not prompt or not isinstance(prompt[-1], Mapping):
        raise LeftOut("malformed", "prompt is no list of messages")
    if prompt[-1].get("role", "user") != "user":
        raise LeftOut("malformed", f"the last message is of role {prompt[-1]['role']!r}, not the user's")
    return text_of(prompt[-1], "content")


def _not_empty(problem: str) -> str:
    """Raises LeftOut where nothing but the words round a problem was there."""
    if not problem.strip():
        raise LeftOut("malformed", "the prompt holds no problem")
    return problem.strip()


def _ground_truth(row: Row) -> Any:
    model = row.get("reward_model")
    if isinstance(model, str):
        try:
            model = json.loads(model)
        except ValueError:
            model = None
    if not isinstance(model, Mapping):
        raise LeftOut("malformed", "reward_model is no object with a ground_truth")
    return model.get("ground_truth")


def _box_of(response: Any) -> str | None:
    if not isinstance(response, str):
        return None
    answer, _ = boxed_answer(response)
    return answer.strip() if answer and answer.strip() else None


def _flagged_answer(row: Row) -> str | None:
    """The box of a model whose flag says that it agrees. Raises LeftOut where none does."""
    flags = {name: row.get(f"is_{name}_solution_same_with_matched_solution") for name in ("o1", "qwq")}
    if not any(flag is True for flag in flags.values()):
        raise LeftOut("disagreement", "neither o1 nor QwQ agrees with the solution")
    texts = [row.get(f"{name}_solution") for name, flag in flags.items() if flag is True]
    boxes = [_box_of(text) for text in (*texts, row["matched_solution"])]
    return next((box for box in boxes if box is not None), None)


def _witnesses(truth: str) -> tuple[str, ...]:
    """Responses that say what a worked solution ends with: itself, its last line, and what its last `=` leads to."""
    last = [line.strip() for line in truth.strip().splitlines() if line.strip()][-1]
    tail = last.rpartition("=")[2].strip(" .$")
    return (truth, f"The answer is {last}", *([boxed(tail)] if "=" in last and tail else []))


def _choice(question: str, options: list[str], letter: str) -> Draft:
    """A multiple-choice draft; the options are written under the question."""
    listed = "\n".join(f"{chr(ord('A') + place)}. {option}" for place, option in enumerate(options))
    return Draft(problem=f"{question}\n\n{listed}", item={"answer": letter, "choices": options}, proof=boxed(letter))


def _instructions(names: Any, given: Any, problem: str) -> dict[str, Any]:
    """IFEval's item: nulls off, and the names and arguments that other sets use mapped where that is sure."""
    if not isinstance(names, list) or not isinstance(given, list) or len(names) != len(given):
        raise LeftOut("malformed", "instruction ids and their arguments are not two lists of equal length")
    identifiers, arguments = [], []
    for name, values in zip(names, given, strict=True):
        if values is not None and not isinstance(values, Mapping):
            raise LeftOut("malformed", f"the arguments of {name!r} are no object")
        identifier = "startend:quotation" if name == "detectable_format:quotation" else name
        kept = {key: value for key, value in (values or {}).items() if value is not None}
        identifiers.append(identifier)
        arguments.append(_mapped(str(identifier), kept, problem))
    return {"instruction_id_list": identifiers, "kwargs": arguments}


def _mapped(identifier: str, given: dict[str, Any], problem: str) -> dict[str, Any]:
    if identifier == "keywords:frequency" and "keyword" not in given and isinstance(given.get("keywords"), list):
        if len(given["keywords"]) == 1:
            given = {**given, "keyword": given["keywords"][0]}
            given.pop("keywords")
    elif identifier == "change_case:capital_word_frequency":
        renamed = {"frequency": "capital_frequency", "relation": "capital_relation"}
        given = {renamed.get(key, key): value for key, value in given.items()}
    elif identifier == "combination:repeat_prompt" and not given:
        given = {"prompt_to_repeat": problem}
    elif identifier == "detectable_format:constrained_response" and not ARGUMENTS[identifier]:
        given = {key: value for key, value in given.items() if key != "options"}
    return given
