"""ProRL v2 with the upper clip bound of its public configurations."""

from dataclasses import replace

from recipes.prorl_v2 import RECIPE as PRORL_V2

RECIPE = replace(
    PRORL_V2,
    name="prorl_v2_clip27",
    version="1.1.0",
    algorithm=replace(
        PRORL_V2.algorithm,
        clip_high=0.27,  # OR, NR
    ),
)
