"""The same work by TRL's GRPOTrainer, in an environment of its own: imports nothing of this project.

Called by against_trl.py with a file of settings, once for each process of TRL; the first writes when each step ended.
A step is one generation and all of its updates.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Clock(TrainerCallback):
    """Notes the moment at which each step ends."""

    def __init__(self, updates_per_step: int) -> None:
        self.updates_per_step, self.moments = updates_per_step, [time.time()]

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.updates_per_step == 0:
            self.moments.append(time.time())


def main() -> None:
    """Trains as the settings say and writes moments, samples and tokens of the steps."""
    given = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(given["threads"])
    rows, world = given["prompts"], int(os.environ.get("WORLD_SIZE", "1"))
    tokenizer = AutoTokenizer.from_pretrained(given["model_folder"])
    for row in rows:
        found = tokenizer(row["prompt"])["input_ids"]
        assert found == row["token_ids"], f"another prompt than ours: {found} against {row['token_ids']}"
    counts: list[int] = []

    def reward(completion_ids: list[Any], **_: Any) -> list[float]:
        """Costs nothing and differs within a group, so that there is something to learn."""
        counts.append(sum(map(len, completion_ids)))
        return [float(sum(ids) % 2) for ids in completion_ids]

    samples = given["prompts_per_step"] * given["samples_per_prompt"]
    parts = samples // given["updates_per_step"] // world // given["batch"]
    clock = Clock(given["updates_per_step"])
    trainer = GRPOTrainer(
        model=given["model_folder"],
        reward_funcs=reward,
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        callbacks=[clock],
        args=GRPOConfig(
            output_dir=given["folder"],
            use_cpu=True,
            bf16=False,
            ddp_backend="gloo" if world > 1 else None,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            optim="adamw_torch_fused",
            learning_rate=given["learning_rate"],
            lr_scheduler_type="constant",
            max_steps=given["num_steps"] * given["updates_per_step"],
            per_device_train_batch_size=given["batch"],
            gradient_accumulation_steps=parts,
            steps_per_generation=parts * given["updates_per_step"],
            num_generations=given["samples_per_prompt"],
            max_completion_length=given["max_response_tokens"],
            use_transformers_continuous_batching=given["continuous_batching"],
            beta=given["kl_coefficient"],
            epsilon=given["clip_low"],
            epsilon_high=given["clip_high"],
            loss_type="dapo",
            scale_rewards="batch",
            shuffle_dataset=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=1,
        ),
        processing_class=tokenizer,
    )
    trainer.train()
    assert len(counts) == given["num_steps"], f"{len(counts)} generations in {given['num_steps']} steps"
    if os.environ.get("RANK", "0") == "0":
        tokens = sum(counts) / len(counts) / (samples / world)
        Path(given["result"]).write_text(json.dumps({"moments": clock.moments, "response_tokens": tokens}))


if __name__ == "__main__":
    main()
