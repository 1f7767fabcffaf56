"""ProRL v2 with an example of its blog for rewards: 0, 1 and -0.5 for wrong, right and badly formatted."""

from dataclasses import replace

from megatron_rl.config.records import FormatReward
from recipes.prorl_v2 import RECIPE as PRORL_V2

RECIPE = replace(
    PRORL_V2,
    name="prorl_v2_format_reward",
    version="1.0.0",
    algorithm=replace(
        PRORL_V2.algorithm,
        format_reward=FormatReward(
            wrong=0.0,  # B2: 0 / 1 / -0.5
            unanswered=-0.5,  # B2
        ),
    ),
)
