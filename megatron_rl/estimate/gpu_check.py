"""The constants of a step that one GPU gives: read from the results of benchmarks/gpu.py.

Not covered: what that check does not measure, such as lengths, verdicts, saves, and messages between devices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from megatron_rl.config.checks import require
from megatron_rl.config.run import Run
from megatron_rl.estimate.generation import simulate
from megatron_rl.estimate.step import Constants, decoding, slowed

PHASES = {"memory": "updates", "engine": "refit", "sampling": "generation"}  # of the check -> what it gives
Record = Mapping[str, Any]


def from_gpu_check(
    constants: Constants, run: Run, checked: Run, records: Sequence[Record]
) -> tuple[Constants, tuple[str, ...]]:
    """The constants with what the check's phases measured, and the names of what they gave.

    `checked` is the run whose model and scale the check has. A phase that was skipped or failed gives nothing. Raises
    UserError for results that are of no GPU, and for those of which no phase gives anything.
    """
    machine = next((record for record in records if "machine" in record), None)
    require(machine is not None, "it has no line about a machine; give what benchmarks/gpu.py wrote, or a run's folder")
    assert machine is not None
    require(machine["gpu"] == "present", f"it was made without a GPU ({machine['gpu']}); run the check on one")
    require(not machine["rehearsal"], "it is a rehearsal on a CPU; run benchmarks/gpu.py without --rehearse")
    phases = {record["phase"]: record for record in records if record.get("status") == "passed"}
    found: list[str] = []
    if memory := phases.get("memory"):
        # As the estimate counts an update: four forward passes where activations are made again, else three.
        recomputes = run.scale.recomputes_activations
        mfu = memory["as_published" if recomputes else "recompute_off"]["update_mfu"]
        constants = dataclasses.replace(
            constants,
            flops=memory["matrix_product_flops"],
            training_share=mfu * (4 / 3 if recomputes else 1),
            prefill_share=constants.prefill_share * constants.flops / memory["matrix_product_flops"],
        )
        found.append("memory")
    if engine := phases.get("engine"):
        rate = engine["bytes_moved"] / engine["to_rollouts_seconds_1"]  # the second one: the first makes the plan
        constants = dataclasses.replace(constants, refit_bytes_per_second=rate)
        found.append("engine")
    if (sampling := phases.get("sampling")) and "requests" in sampling:
        constants = slowed(constants, _speed(constants, checked, sampling) / sampling["tokens_per_second"])
        found.append("sampling")
    require(bool(found), f"none of its phases {', '.join(PHASES)} passed; run benchmarks/gpu.py again")
    return constants, tuple(PHASES[name] for name in found)


def _speed(constants: Constants, checked: Run, sampling: Record) -> float:
    """Tokens per second of the check's own requests, simulated."""
    requests, samples = sampling["requests"], sampling["samples_per_request"]
    length = max(1, round(sampling["tokens"] / requests / samples))
    made = simulate(
        [[length] * samples] * requests,
        prompt_tokens=sampling["prompt_tokens"],
        num_engines=1,
        slots=checked.scale.max_requests_in_flight,
        cost=decoding(checked.recipe.model, checked.scale, constants),
        largest_piece=None,
    )
    return made.num_tokens / made.seconds
