"""ProRL's pass@k: 256 samples of every problem, and 18 tasks of Reasoning Gym."""

from megatron_rl.config.suites import Answering, Suite
from recipes.suites import code, instructions, math, reasoning_gym, science

SUITE = Suite(
    name="prorl_pass_at_k",
    title="The papers' pass@k: 256 samples of every problem",
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
        reasoning_gym.EIGHTEEN,
        *reasoning_gym.OUT_OF_DISTRIBUTION,
    ),
    answering=Answering(
        samples_per_problem=256,  # P1 section 4
        temperature=0.6,  # P1 section 3.4
        top_p=0.95,  # P1 section 3.4
        max_prompt_tokens=8192,  # chosen: as suite prorl
        max_response_tokens=32768,  # P1 section 3.4: 32k
    ),
)
