"""ProRL v2 that pays truncated responses nothing, as its public configurations do, instead of the cosine term."""

from dataclasses import replace

from megatron_rl.config.records import Truncation
from recipes.prorl_v2 import RECIPE as PRORL_V2

RECIPE = replace(
    PRORL_V2,
    name="prorl_v2_stop_properly",
    version="1.1.0",
    algorithm=replace(
        PRORL_V2.algorithm,
        truncation=Truncation(
            how="multiply",  # OR, NR
            value=0.0,  # OR, NR, DL
        ),
        length=None,  # OR, NR
    ),
)
