"""ProRL v2 with the two cosines of the paper that its blog links: wrong answers lose less when they are long."""

from dataclasses import replace

from megatron_rl.config.records import CosineLength, WrongLength
from recipes.prorl_v2 import RECIPE as PRORL_V2

RECIPE = replace(
    PRORL_V2,
    name="prorl_v2_two_cosines",
    version="1.0.0",
    algorithm=replace(
        PRORL_V2.algorithm,
        length=CosineLength(
            eta_max=2.0,  # CL: right answers at zero length
            eta_min=1.0,  # CL: right answers at the limit
            weight=0.5,  # chosen: as prorl_v2; CL's reward is the cosine alone
            steps_on=100,  # B2
            steps_off=500,  # B2
            starts_on=False,  # chosen: as prorl_v2
            wrong=WrongLength(
                eta_at_zero=-10.0,  # CL
                eta_at_limit=0.0,  # CL
                eta_beyond=-10.0,  # CL: exceeding the limit
            ),
        ),
    ),
)
