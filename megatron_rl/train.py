"""The loop: prompts -> rollouts -> rewards -> advantages -> update -> refit, on every rank alike."""

from __future__ import annotations

from megatron_rl import checkpoint, device, parallel
from megatron_rl.actor.actor import Actor
from megatron_rl.actor.pack import pack
from megatron_rl.algorithms.advantages import advantages
from megatron_rl.algorithms.reference import reset_is_due
from megatron_rl.algorithms.shaping import shaped_rewards
from megatron_rl.config import Run
from megatron_rl.data.items import read_items
from megatron_rl.data.prompts import PromptStream, held_out, load_tokenizer
from megatron_rl.evaluate import evaluate
from megatron_rl.refit.phase import rollout_phase
from megatron_rl.report.report import Report
from megatron_rl.rewards.score import Scorer
from megatron_rl.rollout.collect import Rollouts
from megatron_rl.rollout.engine import Engine
from megatron_rl.types import State


def train(run: Run) -> State:
    """Trains until `num_steps` or from the newest checkpoint on, and returns the last state.

    Collective over the world: every rank calls it with the same run.
    """
    hardware = device.select(run.scale)
    ranks = parallel.start(run.scale, hardware, run.stall_seconds)
    tokenizer = load_tokenizer(run.model_folder)
    limit = run.recipe.sampling.max_prompt_tokens
    prompts = PromptStream(
        read_items(run.data_folder / "train.jsonl"), tokenizer, seed=run.seed, max_prompt_tokens=limit
    )
    validation = held_out(
        read_items(run.data_folder / "validation.jsonl"),
        tokenizer,
        max_prompt_tokens=limit,
        max_prompts=run.max_validation_prompts,
    )
    with Scorer(run.scale.verifier_processes, run.verifier_timeout_seconds) as scorer, Report(run, ranks) as report:
        engine = Engine(run, ranks, hardware)
        actor = Actor(run, ranks, hardware)
        rollouts = Rollouts(engine, tokenizer, scorer, run_seed=run.seed, prompts_per_wave=run.scale.prompts_per_wave)
        state = checkpoint.resume(run, actor, prompts)
        report.start(state)
        while True:
            recipe = run.at_step(state.step)
            with rollout_phase(actor, engine, version=state.step):
                if is_due(state.step, run.validate_every_steps, recipe.num_steps):
                    state = state.with_scores(evaluate(rollouts, validation, recipe, state.step))
                    report.scores(state)
                if state.step == recipe.num_steps:
                    break
                collected = rollouts.collect(prompts, recipe, state.step)
            groups, algorithm = collected.groups, recipe.algorithm
            rewards = shaped_rewards(
                groups.rewards,
                groups.lengths,
                limit=recipe.sampling.max_response_tokens,
                step=state.step,
                algorithm=algorithm,
            )
            batch = pack(groups, ranks, algorithm.updates_per_step, actor.limits)
            policy = actor.logprobs(batch, recipe)
            batch = batch.with_logprobs(old=policy.logprobs, reference=actor.reference_logprobs(batch, recipe))
            batch = batch.with_advantages(advantages(rewards, groups.judged, groups.lengths, algorithm))
            updates = [actor.update(packs, recipe, state.step) for packs in batch.updates]
            state = state.after(collected, updates)
            if is_reset := reset_is_due(state.step, algorithm.reference_reset):
                actor.reset_reference(clear_optimizer=algorithm.reference_reset.clears_optimizer)
                state = state.with_reset()
            report.step(state, collected, policy, updates, is_reset)
            if is_due(state.step, run.save_every_steps, recipe.num_steps):
                checkpoint.save(run, state, actor, prompts)
        report.finish(state)
    parallel.stop()
    return state


def is_due(step: int, every: int, last: int) -> bool:
    """True at step 0, at every `every`-th step and at the last one.

    >>> [step for step in range(8) if is_due(step, 3, 7)]
    [0, 3, 6, 7]
    """
    return step % every == 0 or step == last
