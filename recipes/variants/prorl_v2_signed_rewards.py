"""ProRL v2 with an example of its blog for rewards: -1, 1 and -0.5 for wrong, right and badly formatted."""

from dataclasses import replace

from megatron_rl.config.records import FormatReward
from recipes.prorl_v2 import RECIPE as PRORL_V2

RECIPE = replace(
    PRORL_V2,
    name="prorl_v2_signed_rewards",
    version="1.0.0",
    algorithm=replace(
        PRORL_V2.algorithm,
        format_reward=FormatReward(
            wrong=-1.0,  # B2: -1 / 1 / -0.5
            unanswered=-0.5,  # B2
        ),
    ),
)
