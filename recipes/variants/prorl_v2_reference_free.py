"""ProRL v2 without a reference: no KL, nothing held in memory or passed over the batch for it, no resets."""

from dataclasses import replace

from recipes.prorl_v2 import RECIPE as PRORL_V2

RECIPE = replace(
    PRORL_V2,
    name="prorl_v2_reference_free",
    version="1.0.0",
    algorithm=replace(
        PRORL_V2.algorithm,
        kl=None,  # chosen: off, as in DAPO
        reference_reset=None,  # chosen: there is none
    ),
)
