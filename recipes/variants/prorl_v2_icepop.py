"""ProRL v2 with the correction for the rollout engine's probabilities of its public configurations."""

from dataclasses import replace

from megatron_rl.config.records import Correction
from recipes.prorl_v2 import RECIPE as PRORL_V2

RECIPE = replace(
    PRORL_V2,
    name="prorl_v2_icepop",
    version="1.1.0",
    algorithm=replace(
        PRORL_V2.algorithm,
        correction=Correction(
            method="icepop",  # OR, NR
            low=0.5,  # OR, NR
            high=5.0,  # OR, NR
        ),
    ),
)
