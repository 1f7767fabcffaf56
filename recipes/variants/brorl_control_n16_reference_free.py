"""BroRL's control without a reference: no KL, nothing held in memory or passed over the batch for it, no resets."""

from dataclasses import replace

from recipes.brorl_control_n16 import RECIPE as BRORL_CONTROL_N16

RECIPE = replace(
    BRORL_CONTROL_N16,
    name="brorl_control_n16_reference_free",
    version="1.0.0",
    algorithm=replace(
        BRORL_CONTROL_N16.algorithm,
        kl=None,  # chosen: off, as in DAPO
        reference_reset=None,  # chosen: there is none
    ),
)
