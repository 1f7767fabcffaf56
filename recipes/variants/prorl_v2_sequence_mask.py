"""ProRL v2 as NeMo-RL's guide has its successor: whole sequences masked, one update a step."""

from dataclasses import replace

from megatron_rl.config.records import Correction
from recipes.prorl_v2 import RECIPE as PRORL_V2

RECIPE = replace(
    PRORL_V2,
    name="prorl_v2_sequence_mask",
    version="1.0.0",
    algorithm=replace(
        PRORL_V2.algorithm,
        updates_per_step=1,  # NR: purely on-policy
        correction=Correction(
            method="sequence_mask",  # NR
            low=0.999,  # NR
            high=1.002,  # NR
        ),
    ),
)
