"""BroRL without a reference: no KL, nothing held in memory or passed over the batch for it, no resets."""

from dataclasses import replace

from recipes.brorl import RECIPE as BRORL

RECIPE = replace(
    BRORL,
    name="brorl_reference_free",
    version="1.0.0",
    algorithm=replace(
        BRORL.algorithm,
        kl=None,  # chosen: off, as in DAPO
        reference_reset=None,  # chosen: there is none
    ),
)
