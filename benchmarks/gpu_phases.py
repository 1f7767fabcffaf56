"""The phases of gpu.py: each a function of a Setting that returns figures, raises Skip with a reason, or fails."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.gpu_kernels import attention, fp8_recipes
from benchmarks.gpu_setting import (
    DEMO_DATA,
    DEMO_MODEL,
    Figures,
    Setting,
    Skip,
    World,
    forward_flops,
    free_gib,
    num_steps,
    peak,
    product_rate,
    some_requests,
    timed,
)
from benchmarks.loop import random_groups, with_loss_targets
from megatron_rl.commands.choose import REPOSITORY, build_run
from megatron_rl.runtime.ranks import process_environment

if TYPE_CHECKING:
    from megatron_rl.actor.actor import Actor
    from megatron_rl.config.records import Recipe
    from megatron_rl.types import Batch, Request, Sample

LOOP_STEPS = 12
MEAN_GAP = 0.03  # nats, in bf16: from transformers, and between the two engines with fp32 logits


def imports(setting: Setting) -> Figures:
    """What imports, and which calls see the card."""
    import torch

    found: Figures = {"torch": torch.__version__, "cuda": torch.version.cuda}
    wanted = ["megatron.core", "transformer_engine.pytorch", "vllm", "vllm.cumem_allocator"]
    for name in wanted:
        try:
            importlib.import_module(name)
            found[name] = "imports"
        except (ImportError, OSError, RuntimeError) as error:
            found[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    if not torch.cuda.is_available():
        raise Skip(f"no CUDA device is visible to torch; {json.dumps(found)}")
    found["capability"] = list(torch.cuda.get_device_capability())
    missing = [name for name in wanted if found[name] != "imports"]
    assert not missing, f"{missing} do not import: {found}"
    return found


def actor(setting: Setting) -> Figures:
    """Largest gap to transformers' log-probabilities, with rounded and with fp32 logits."""
    import torch
    from transformers import AutoModelForCausalLM

    from megatron_rl.actor.pack import pack

    run = setting.run()
    world = World.of(run)
    place = world.hardware.torch_device
    groups = random_groups(dataclasses.replace(setting.case(2), fewest_tokens=32, most_tokens=48), run)
    model = AutoModelForCausalLM.from_pretrained(run.model_folder, dtype=torch.bfloat16).to(place)
    temperature, found = run.recipe.sampling.temperature, {}
    for logits in ("neither", "both"):
        trained = world.actor(setting.run(fp32_logits=logits))
        batch = pack(groups, world.ranks, run.recipe.algorithm, trained.limits)
        ours = torch.cat([part.cpu() for part in trained.logprobs(batch, run.recipe).logprobs if part is not None])
        mask = torch.cat([part.response_mask for part in batch.packs]) > 0
        theirs = []
        for part in batch.packs:
            starts = part.cumulative_lengths.tolist()
            for first, last in zip(starts[:-1], starts[1:], strict=True):
                with torch.no_grad():
                    exact = model(part.token_ids[None, first:last].to(place)).logits[0].float() / temperature
                chosen = exact.log_softmax(-1).gather(-1, part.targets[first:last, None].to(place))
                theirs.append(chosen.squeeze(-1).cpu())
        gap = (ours - torch.cat(theirs)).abs()[mask]
        found[f"gap_max_{logits}"], found[f"gap_mean_{logits}"] = float(gap.max()), float(gap.mean())
        assert float(gap.mean()) < MEAN_GAP, f"fp32_logits={logits}: {float(gap.mean())} nats from transformers"
        del trained
    return found


def memory(setting: Setting) -> Figures:
    """Peak GiB, seconds and MFU of passes and an update over two full packs, for each switch of the scale."""
    from megatron_rl.actor.pack import pack

    ways: dict[str, dict[str, Any]] = {
        "as_published": {},
        "fused_rope": {"fuses_rope": True},
        "fused_swiglu": {"fuses_swiglu": True},
        "recompute_off": {"recomputes_activations": False, "fuses_swiglu": True, "fuses_rope": True},
    }
    base = {} if setting.rehearses else {"recomputes_activations": True}
    run = setting.run(**base)
    world = World.of(run)
    rate = product_rate(world.hardware, 256 if setting.rehearses else 8192)
    found: Figures = {"matrix_product_flops": rate}
    for name, changes in ways.items():
        changed = setting.run(**base | changes)
        trained = world.actor(changed)
        batch = pack(random_groups(setting.case(1), changed), world.ranks, changed.recipe.algorithm, trained.limits)
        batch = with_loss_targets(batch, trained, changed.recipe)
        num_tokens = sum(len(part.token_ids) for part in batch.packs)
        figures: Figures = {"tokens": num_tokens}
        for part, call in passes(trained, batch, changed.recipe).items():
            call()
            with peak(world.hardware, figures, f"{part}_peak_gib"):
                figures[f"{part}_seconds"] = timed(call, 2)
        figures["update_mfu"] = 3 * forward_flops(changed, batch) / figures["update_seconds"] / rate
        found[name] = figures
        del trained, call, batch
        world.hardware.release_memory()
    return found


def passes(trained: Actor, batch: Batch, recipe: Recipe) -> dict[str, Callable[[], Any]]:
    """What a step asks of an actor."""
    return {
        "logprobs": lambda: trained.logprobs(batch, recipe),
        "reference": lambda: trained.reference_logprobs(batch, recipe),
        "update": lambda: trained.update(batch.updates[0], recipe, 0),
    }


def determinism(setting: Setting) -> Figures:
    """Whether one update from one state gives the same bits twice, plainly and when a fixed order is asked for."""
    import torch

    from megatron_rl.actor.pack import pack

    found: Figures = {}
    world = None
    for name, wanted in {"plain": False, "deterministic": True}.items():
        run = setting.run(deterministic=wanted)
        if wanted and not setting.rehearses:  # the variables count from before torch is imported
            if os.environ.get("NVTE_ALLOW_NONDETERMINISTIC_ALGO") != "0":
                found |= again(setting, process_environment(run.scale))
                break
        elif not wanted and os.environ.get("NVTE_ALLOW_NONDETERMINISTIC_ALGO") == "0":
            continue
        world = world or World.of(run)
        digests, seconds = [], 0.0
        for _ in range(2):
            torch.manual_seed(0)
            trained = world.actor(run)
            batch = pack(random_groups(setting.case(1), run), world.ranks, run.recipe.algorithm, trained.limits)
            batch = with_loss_targets(batch, trained, run.recipe)
            began = time.perf_counter()
            update = trained.update(batch.updates[0], run.recipe, 0)
            seconds = time.perf_counter() - began
            bits = torch.cat([tensor.flatten().view(torch.uint8).cpu() for _, tensor in trained.stream()])
            digests.append((update.loss, update.gradient_norm, hash(bits.numpy().tobytes())))
            del trained
        found[name] = {"same_bits": digests[0] == digests[1], "update_seconds": seconds}
    if setting.rehearses:
        assert all(part["same_bits"] for part in found.values()), f"a CPU gives the same bits: {found}"
    return found


def again(setting: Setting, environment: dict[str, str]) -> Figures:
    """The determinism phase once more under other variables, in a process of its own."""
    from benchmarks.gpu import attempt

    command = [sys.executable, "-W", "ignore", __file__, "determinism", "--work", str(setting.work)]
    answer = attempt(command, 80.0, os.environ | environment)
    return {"deterministic": answer.get("deterministic", answer)}


def engine(setting: Setting) -> Figures:
    """Seconds and free memory of each move of an engine, and whether it holds the actor's bits."""
    import torch

    from megatron_rl.refit.phase import rollout_phase

    run = setting.run()
    world = World.of(run)
    began = time.perf_counter()
    rollouts = world.engine(run)
    found: Figures = {"start_seconds": time.perf_counter() - began, "free_gib_asleep": free_gib(world.hardware)}
    trained = world.actor(run)
    for version in range(2):
        began = time.perf_counter()
        with rollout_phase(trained, rollouts, version):
            found[f"to_rollouts_seconds_{version}"] = time.perf_counter() - began
            found["free_gib_awake"] = free_gib(world.hardware)
            held = dict(rollouts.network.named_parameters())
            whole = dict(trained.stream())
            names = [name for name in held if name in whole]
            assert names and all(torch.equal(held[name], whole[name]) for name in names), "other bits after the refit"
            began = time.perf_counter()
        found[f"to_training_seconds_{version}"] = time.perf_counter() - began
    bytes_moved = sum(tensor.nbytes for _, tensor in trained.stream())
    sources = [tensor.clone() for _, tensor in trained.stream()]
    targets = [torch.empty_like(tensor) for tensor in sources]
    found["copy_floor_seconds"] = timed(lambda: [a.copy_(b) for a, b in zip(targets, sources, strict=True)], 3)
    found["bytes_moved"] = bytes_moved
    rollouts.close()
    return found


def sampling(setting: Setting) -> Figures:
    """Tokens that differ when the same requests are generated again, in another order, by half, and after a refit."""
    from megatron_rl.refit.phase import rollout_phase

    run = setting.run(fp32_logits="rollout")
    world = World.of(run)
    rollouts = world.engine(run)
    trained = world.actor(run)
    requests = some_requests(setting)

    def generate(chosen: Sequence[Request]) -> dict[int, tuple[Sample, ...]]:
        made = rollouts.generate(chosen, max_response_tokens=setting.response_tokens, temperature=1.2, top_p=1.0)
        return {request.prompt.serial: samples for request, samples in zip(chosen, made, strict=True)}

    with rollout_phase(trained, rollouts, 0):
        first = generate(requests)
        began = time.perf_counter()
        ways = {"again": generate(requests)}
        seconds = time.perf_counter() - began
        ways |= {"reversed": generate(requests[::-1]), "half": generate(requests[::2])}
    with rollout_phase(trained, rollouts, 1):
        ways["after_refit"] = generate(requests)
    tokens = sum(len(sample.token_ids) for samples in first.values() for sample in samples)
    found: Figures = {
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "requests": len(requests),
        "samples_per_request": setting.samples_per_request,
        "prompt_tokens": len(requests[0].prompt.token_ids),
    }
    for name, made in ways.items():
        pairs = [pair for serial in made for pair in zip(made[serial], first[serial], strict=True)]
        found[f"samples_that_differ_{name}"] = sum(a.token_ids != b.token_ids for a, b in pairs)
    for name in ("again", "after_refit"):
        assert found[f"samples_that_differ_{name}"] == 0, f"the same wave gave other tokens: {found}"
    rollouts.close()
    return found


def mismatch(setting: Setting) -> Figures:
    """Mean and largest |actor - rollout| in nats over {rounded, fp32 logits} x {rope fused, not} x temperature."""
    from megatron_rl.actor.pack import pack
    from megatron_rl.refit.phase import rollout_phase
    from megatron_rl.types import Groups

    found: Figures = {}
    logits = os.environ.get("LOGITS")
    if logits is None:  # an engine's logits are fixed at its start, and a process has one engine
        from benchmarks.gpu import attempt

        flags = ["--rehearse"] if setting.rehearses else []
        command = [sys.executable, "-W", "ignore", __file__, "mismatch", "--work", str(setting.work), *flags]
        for choice in ("neither", "rollout", "both"):
            answer = attempt(command, 75.0, os.environ | {"LOGITS": choice})
            assert answer["status"] == "passed", f"fp32_logits={choice}: {answer}"
            found |= {name: value for name, value in answer.items() if name not in ("status", "seconds")}
        return found
    run = setting.run(fp32_logits=logits)
    world = World.of(run)
    rollouts = world.engine(run)
    num_samples, limit = setting.samples_per_request, setting.response_tokens
    requests = some_requests(setting)
    prompts = [request.prompt for request in requests]
    for fuses in (False,) if setting.rehearses else (False, True):
        trained = world.actor(setting.run(fp32_logits=logits, fuses_rope=fuses))
        for temperature in (1.0, 1.2):
            rollouts.version = None
            with rollout_phase(trained, rollouts, 0):
                made = rollouts.generate(requests, max_response_tokens=limit, temperature=temperature, top_p=1.0)
            samples = [sample for group in made for sample in group]
            groups = Groups(
                **Groups.tables(num_samples, lengths=[len(sample.token_ids) for sample in samples]),
                prompts=tuple(prompts), samples=dict(enumerate(samples)), policy_version=0,
            )  # fmt: skip
            sampled = dataclasses.replace(run.recipe.sampling, temperature=temperature)
            recipe = dataclasses.replace(run.recipe, sampling=sampled)
            view = trained.logprobs(pack(groups, world.ranks, recipe.algorithm, trained.limits), recipe)
            name = f"logits_{logits}_rope_{'fused' if fuses else 'plain'}_T{temperature}"
            found[name] = {"mean_nats": view.mismatch_mean_nats, "max_nats": view.mismatch_max_nats}
            if logits == "both":
                assert view.mismatch_mean_nats < MEAN_GAP, f"{name}: {found[name]}"
        del trained
    rollouts.close()
    return found


def loop(setting: Setting) -> Figures:
    """Trains on the demo's problems, is asked to leave after two steps, and goes on to the end."""
    directory = setting.work / "loop"
    settings = [
        f"run.model_folder={DEMO_MODEL}", f"run.data_folder={DEMO_DATA}", f"num_steps={LOOP_STEPS}",
        "scale.devices_per_node=1",
        "run.validate_every_steps=6", "run.max_validation_prompts=8", "sampling.max_prompt_tokens=32",
        "sampling.max_response_tokens=24", "sampling.prompts_per_step=6", "algorithm.updates_per_step=2",
        "algorithm.overlong=none", "run.preemption_lead_seconds=1",
    ]  # fmt: skip
    scale = "cpu" if setting.rehearses else "gpu1"
    words = ["train", "prorl_v2", "--scale", scale, "--directory", str(directory)]
    words += [word for text in settings for word in ("--set", text)]
    command = [sys.executable, "-m", "megatron_rl", *words]
    metrics = directory / "metrics.jsonl"
    first = subprocess.Popen(command, cwd=REPOSITORY)
    deadline = time.monotonic() + 150
    while first.poll() is None and time.monotonic() < deadline and num_steps(metrics) < 2:
        time.sleep(0.05)
    first.send_signal(signal.SIGUSR1)
    code, steps = first.wait(60), num_steps(metrics)
    assert code == 85, f"the notice was answered with exit code {code} after {steps} steps, not 85"
    second = subprocess.run(command, cwd=REPOSITORY)
    assert second.returncode == 0 and num_steps(metrics) == LOOP_STEPS, f"it did not go on: {second.returncode}"
    return {"steps_before_the_notice": steps, "steps": num_steps(metrics)}


FUNCTIONS: dict[str, Callable[[Setting], Figures]] = {
    function.__name__: function
    for function in (imports, fp8_recipes, attention, actor, memory, determinism, engine, sampling, mismatch, loop)
}


def main() -> None:
    """Runs one phase and writes what it found to the file $RESULT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=FUNCTIONS)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    sizes = (2048, 4, 4, 24) if options.rehearse else (17408, 32, 16, 256)
    names = ("pack_tokens", "num_requests", "samples_per_request", "response_tokens")
    setting = Setting(rehearses=options.rehearse, work=options.work, **dict(zip(names, sizes, strict=True)))
    if options.phase not in ("imports", "loop"):
        scale = build_run("prorl_v2", "cpu" if options.rehearse else "gpu1", [], None, needs_files=False).scale
        given = {name: value for name, value in os.environ.items() if name.startswith("NVTE")}
        os.environ.update({**process_environment(scale), **given})
    try:
        found = {"status": "passed", **FUNCTIONS[options.phase](setting)}
    except Skip as reason:
        found = {"status": "skipped", "reason": str(reason)}
    Path(os.environ["RESULT"]).write_text(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # engines keep threads that make an ordinary exit slow


if __name__ == "__main__":
    main()
