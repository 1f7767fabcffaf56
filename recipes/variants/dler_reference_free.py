"""DLER without a reference: no KL, nothing held in memory or passed over the batch for it, no resets."""

from dataclasses import replace

from recipes.dler import RECIPE as DLER

RECIPE = replace(
    DLER,
    name="dler_reference_free",
    version="1.0.0",
    algorithm=replace(
        DLER.algorithm,
        kl=None,  # chosen: off, as in DAPO
    ),
)
