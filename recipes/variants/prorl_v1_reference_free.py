"""ProRL v1 without a reference: no KL, nothing held for it, and no hard resets, of the optimizer neither."""

from dataclasses import replace

from recipes.prorl_v1 import RECIPE as PRORL_V1

RECIPE = replace(
    PRORL_V1,
    name="prorl_v1_reference_free",
    version="1.0.0",
    algorithm=replace(
        PRORL_V1.algorithm,
        kl=None,  # chosen: off, as in DAPO
        reference_reset=None,  # chosen: there is none
    ),
    stages=tuple(replace(stage, resets_reference=False) for stage in PRORL_V1.stages),
)
