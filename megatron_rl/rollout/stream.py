"""Requests streamed through an engine: new ones are added while those before are answered, so that it never runs dry.

A request may have other company each time. In fp32 on a CPU its tokens stay what they are; elsewhere kernels may round
otherwise in another batch, and what is asked once more may then be another sample of the same distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from megatron_rl.rollout.engine import Engine, sample_of
from megatron_rl.types import Request, Sample

AHEAD = (
    2  # chosen: times the sequences decoded at once that are added: a seat that falls free is taken in the same step
)
STEPS_BETWEEN_LOOKS = 32  # chosen: of the engine; a fraction of a second between two questions whether to leave


class Wanted(NamedTuple):
    """A request, and how it is answered."""

    request: Request
    max_response_tokens: int
    temperature: float
    top_p: float


def streamed(
    engine: Engine, wanted: Iterable[Wanted], *, has_to_leave: Callable[[], bool]
) -> Iterator[tuple[int, tuple[Sample, ...]]]:
    """(place among `wanted`, samples) of each request, as it is finished. Collective over the engine's ranks.

    It ends early, with the rest dropped, where `has_to_leave` says so on all ranks of the engine, which are asked
    together. On a CPU vLLM also draws from torch's own generator, whose state is nobody's here.
    """
    version = engine.version
    assert version is not None, "the engine has no weights before its first load"
    engine.forget_prefixes()
    core, waiting = engine.llm.llm_engine, enumerate(wanted)
    room = AHEAD * engine.max_requests_in_flight
    under_way: set[str] = set()
    num_steps = 0
    while True:
        while core.get_num_unfinished_requests() < room and (following := next(waiting, None)) is not None:
            place, one = following
            options = engine.options(
                one.request,
                max_response_tokens=one.max_response_tokens,
                temperature=one.temperature,
                top_p=one.top_p,
                keeps_logprobs=False,
            )
            under_way.add(str(place))
            core.add_request(str(place), engine.prompt(one.request), options)
        if not under_way:
            return
        if num_steps % STEPS_BETWEEN_LOOKS == 0 and has_to_leave():
            core.abort_request(sorted(under_way))
            return
        num_steps += 1
        for output in core.step():
            if output.finished:
                under_way.remove(output.request_id)
                yield int(output.request_id), tuple(sample_of(completion, version) for completion in output.outputs)
