"""ProRL v2 as the model card tells it: 1,000 steps more from ProRL v1's 2,000."""

from dataclasses import replace

from recipes.prorl_v2 import RECIPE as PRORL_V2

RECIPE = replace(
    PRORL_V2,
    name="prorl_v2_after_v1",
    version="1.1.0",
    starts_from="prorl_v1",  # MC, JR
    num_steps=1000,  # MC: from 2,000 to 3,000
)
