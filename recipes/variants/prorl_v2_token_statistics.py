"""ProRL v2 whose batch statistics count every token, as OpenRLHF, NeMo-RL and verl do."""

from dataclasses import replace

from recipes.prorl_v2 import RECIPE as PRORL_V2

RECIPE = replace(
    PRORL_V2,
    name="prorl_v2_token_statistics",
    version="1.1.0",
    algorithm=replace(
        PRORL_V2.algorithm,
        statistics_over="tokens",  # OR, NR, VE
    ),
)
