"""A folder of results written by hand: three policies, two benchmarks, and no engine."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from megatron_rl.commands.suites import all_benchmarks
from megatron_rl.config.suites import Answering
from megatron_rl.evaluation import store
from megatron_rl.evaluation.plan import Ask, Evaluation, Policy
from megatron_rl.evaluation.store import SAMPLES
from recipes.scales import SCALES
from tests.folders import write_model

PROBLEMS, SAMPLES_EACH = 6, 128
RATES = {"step_000000": 0.1, "step_000100": 0.4, "step_000200": 0.7}  # policy -> how often it is right


def write_evaluation(folder: Path) -> Evaluation:
    """Three policies on AIME 2024 and IFEval."""
    model = write_model(folder / "model")
    answering = Answering(
        samples_per_problem=SAMPLES_EACH, temperature=0.6, top_p=0.95, max_prompt_tokens=32, max_response_tokens=32
    )
    asks = tuple(Ask(benchmark=all_benchmarks()[name], answering=answering) for name in ("aime24", "ifeval"))
    for ask in asks:
        rows = [{"id": str(i), "domain": "math", "prompt": "?", "item": {"answer": "1"}} for i in range(PROBLEMS)]
        store.write_lines(store.problems_folder(folder) / f"{ask.name}.jsonl", rows)
        facts = json.dumps({"source": dataclasses.asdict(ask.benchmark.source), "left_out": {"too odd": 2}})
        store.write_text(store.problems_folder(folder) / f"{ask.name}.json", facts)
        for place, (policy, rate) in enumerate(RATES.items()):
            samples, verdicts = [], []
            for i in range(PROBLEMS):
                for j in range(SAMPLES_EACH):
                    is_right = i > 0 and j < rate * SAMPLES_EACH
                    samples.append(
                        {"id": str(i), "sample": j, "tokens": 10, "finish": "stop", "response": f"a b c d e {i % 2} g"}
                    )
                    verdicts.append({"id": str(i), "sample": j, "score": float(is_right), "outcome": "judged"})
            place_of = store.folder_of(folder, policy, ask.name)
            store.write_lines(place_of / SAMPLES / "wave_00000.jsonl", samples)
            store.write_lines(place_of / "ours" / "wave_00000.jsonl", verdicts)
            facts = json.dumps({"title": f"step {100 * place} <b>", "step": 100 * place, "weights": ""})
            store.write_text(folder / "policies" / policy / "policy.json", facts)
    (folder / "corpus.txt").write_text("a b c d e 0 g\n")
    policy = Policy(name="step_000000", title="start", folder=model, step=0, shape_folder=model)
    return Evaluation(
        directory=folder, policies=(policy,), asks=asks, scale=SCALES["cpu"], corpus=(folder / "corpus.txt",)
    )
