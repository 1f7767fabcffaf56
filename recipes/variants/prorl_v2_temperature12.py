"""ProRL v2 sampled at version 1's temperature."""

from dataclasses import replace

from recipes.prorl_v2 import RECIPE as PRORL_V2

RECIPE = replace(
    PRORL_V2,
    name="prorl_v2_temperature12",
    version="1.0.0",
    sampling=replace(
        PRORL_V2.sampling,
        temperature=1.2,  # P1 section 3.2, SU: B2 states none
    ),
)
