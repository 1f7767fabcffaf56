"""ProRL: every benchmark of the papers' tables, as they were evaluated."""

from megatron_rl.config.suites import Answering, Suite
from recipes.suites import code, instructions, math, reasoning_gym, science

SUITE = Suite(
    name="prorl",
    title="The papers' tables: pass@1 as the mean of 16 samples",
    benchmarks=(
        math.AIME24,
        math.AIME25,
        math.AMC,
        math.MATH,
        math.MINERVA,
        math.OLYMPIAD,
        *code.BENCHMARKS,
        science.GPQA,
        instructions.IFEVAL,
        *reasoning_gym.CATEGORIES,
        *reasoning_gym.OUT_OF_DISTRIBUTION,
    ),
    answering=Answering(
        samples_per_problem=16,  # P1 section 3.4
        temperature=0.6,  # P1 section 3.4
        top_p=0.95,  # P1 section 3.4
        max_prompt_tokens=8192,  # chosen: the longest problem statements have half of it
        max_response_tokens=32768,  # P1 section 3.4: 32k
    ),
)
