"""The loop: prompts -> rollouts -> rewards -> advantages -> update -> refit, on every rank alike."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

from megatron_rl import checkpoint, device
from megatron_rl.actor.actor import Actor
from megatron_rl.actor.pack import pack
from megatron_rl.algorithms.advantages import advantages
from megatron_rl.algorithms.reference import reset_reason
from megatron_rl.algorithms.shaping import shaped_rewards
from megatron_rl.config import lineage
from megatron_rl.config.checks import UserError
from megatron_rl.config.run import Run
from megatron_rl.data.items import read_data
from megatron_rl.data.prompts import (
    PromptStream,
    encode,
    held_out,
    left_out,
    load_tokenizer,
    tell_left_out,
    tell_overlap,
)
from megatron_rl.evaluation.evaluate import evaluate
from megatron_rl.export import export
from megatron_rl.refit import agreement
from megatron_rl.refit.phase import end, rollout_phase
from megatron_rl.report.card import write_card
from megatron_rl.report.report import Report
from megatron_rl.rewards.score import Scorer
from megatron_rl.rollout.collect import Rollouts
from megatron_rl.rollout.engine import Engine
from megatron_rl.runtime import parallel, rundir
from megatron_rl.runtime.preempt import Preemption
from megatron_rl.runtime.sole import only_one
from megatron_rl.runtime.watchdog import Watchdog
from megatron_rl.types import Prompt, State


def train(run: Run) -> State:
    """Trains until `num_steps`, from the newest checkpoint on if there is one, and returns the last state.

    Collective over the world: every rank calls it with the same run. Raises UserError where a checkpoint in the
    directory is another run's, UserError where the directory is in use, Preempted where the run has to leave and
    would go on if it were started again.
    """
    hardware = device.select(run.scale)
    preemption = Preemption(run.scale.time_limit_hours, run.preemption_lead_seconds)
    ranks = parallel.start(run.scale, hardware, run.stall_seconds)
    tokenizer, limit = load_tokenizer(run.model_folder), run.recipe.sampling.max_prompt_tokens
    data = read_data(run.data_folder).of({domain.name for domain in run.recipe.domains})
    weights = {domain.name: domain.weight for domain in run.recipe.domains if domain.weight is not None}
    prompts = PromptStream(data.train, tokenizer, seed=run.seed, max_prompt_tokens=limit, weights=weights)
    encoded = encode(data.validation, tokenizer, max_prompt_tokens=limit)
    validation = held_out(encoded, max_prompts=run.max_validation_prompts)
    if ranks.is_main:
        tell_left_out("train", prompts.left_out, limit)
        tell_left_out("validation", left_out(data.validation, [one.item for one in encoded]), limit)
        tell_overlap(data.overlap())
    with (
        only_one(run.directory, ranks),
        rundir.clearing_shared_memory(run.directory, is_first_of_machine=ranks.is_first_of_machine),
        Scorer(
            run.scale.verifier_processes,
            run.verifier_timeout_seconds,
            allows_unsafe_sandbox=run.allows_unsafe_sandbox,
            own_rewards=data.own_rewards,
        ) as scorer,
        Report(run, ranks) as report,
        Watchdog(run.directory, ranks.rank, run.stall_seconds),
    ):
        engine = Engine(run, ranks, hardware)
        rollouts = Rollouts(
            engine,
            tokenizer,
            scorer,
            preemption,
            run,
        )
        actor = Actor(run, ranks, hardware)
        gc.freeze()  # what has been imported stays; looking through it again and again is a tenth of a small step
        gc.enable()
        state = loop(run, actor, rollouts, prompts, validation, report)
        end(actor, engine)
    parallel.stop()
    return state


def export_run(run: Run, folder: Path, checkpoint_folder: Path | None = None) -> State:
    """Writes the policy of the newest checkpoint, or a given one, into `folder`. Collective over the world.

    Raises UserError when the run's directory has no checkpoint.
    """
    if not rundir.checkpoints(run.directory):
        raise UserError(f"{run.directory}: has no checkpoint yet; wait for the first")
    hardware = device.select(run.scale)
    actor = Actor(run, parallel.start(run.scale, hardware, run.stall_seconds), hardware)
    gc.enable()
    state = checkpoint.resume(run, actor, None, only=checkpoint_folder)
    export(run, state, actor, folder)
    if actor.ranks.is_main:
        write_card(folder, run.directory)
    parallel.stop()
    return state


def loop(
    run: Run, actor: Actor, rollouts: Rollouts, prompts: PromptStream, validation: Sequence[Prompt], report: Report
) -> State:
    """The algorithm of the papers, a step at a time. Collective over the world."""
    state = checkpoint.resume(run, actor, prompts)
    agreement.check_start(actor, rollouts.engine, validation, run.at_step(state.step), state.step)
    report.start(state)
    with checkpoint.Saver(run, actor, prompts, state) as saver:  # Preempted leaves through it; nothing is lost
        while True:
            recipe = run.at_step(state.step)
            with rollout_phase(actor, rollouts.engine, version=state.step):
                if checkpoint.is_due(state.step, run.validate_every_steps, recipe.num_steps):
                    found = evaluate(rollouts, validation, run, state.step)
                    state = state.with_scores(found.scores)
                    report.scores(state, found.examples)
                    actor.keep_if_best(state)
                if state.step == recipe.num_steps:
                    break
                collected = rollouts.collect(prompts, recipe, state)

            batch = pack(collected.groups, actor.ranks, recipe.algorithm, actor.limits)
            policy = actor.old_logprobs(batch, recipe)
            batch = batch.with_logprobs(old=policy.logprobs, reference=actor.reference_logprobs(batch, recipe))

            rewards = shaped_rewards(batch.groups, recipe, state.step) - actor.kl_in_reward(batch, recipe)
            batch = batch.with_advantages(advantages(rewards, batch.groups, recipe.algorithm))

            updates = [actor.update(packs, recipe, state.step) for packs in batch.updates]
            policy = policy.with_own(updates)
            agreement.check_step(actor, policy, state.step)
            state = state.after(collected, updates)
            if reason := reset_reason(state, recipe):
                actor.reset_reference(recipe)
                state = state.with_reset(reason)

            report.step(state, collected, batch, policy, updates)
            check_learning(run, state)
            saver.after(state)
    export(run, state, actor, lineage.model_folder_of(run.directory))
    report.finish()
    return state


def check_learning(run: Run, state: State) -> None:
    """Raises UserError, on every rank, once too many steps in a row, or all of a short run, had nothing to learn."""
    limit = min(run.max_steps_without_update, run.recipe.num_steps)
    if state.idle_streak >= limit:
        raise UserError(
            f"step {state.step}: no update in {state.idle_streak} steps in a row, for no group of answers had a reward "
            "above and one below another; change the prompts or their verifiers, or raise run.max_steps_without_update"
        )
