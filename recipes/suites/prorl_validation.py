"""ProRL's validation: what the papers watched while they trained."""

from megatron_rl.config.suites import Answering, Suite
from recipes.suites import code, instructions, math, reasoning_gym, science

SUITE = Suite(
    name="prorl_validation",
    title="The papers' in-training mixture, with the context of the training",
    benchmarks=(math.AIME24, code.CODEFORCES, science.GPQA, instructions.IFEVAL, reasoning_gym.GRAPH_COLOR),
    answering=Answering(
        samples_per_problem=16,  # P1 section 3.4
        temperature=0.6,  # P1 section 3.4
        top_p=0.95,  # P1 section 3.4
        max_prompt_tokens=8192,  # chosen: as suite prorl
        max_response_tokens=8192,  # P1 App. E: as in training
    ),
)
