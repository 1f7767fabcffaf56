"""The ordinary way to train: transformers on padded microbatches, torch's AdamW, and the loss of the actor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM

from megatron_rl.actor.actor import Actor
from megatron_rl.algorithms.kl import kl_estimate
from megatron_rl.algorithms.losses import policy_loss
from megatron_rl.config.run import Run
from megatron_rl.types import Batch


def sequences(batch: Batch) -> list[dict[str, Tensor]]:
    """The batch's sequences as they were drawn, each with its share of the fields of its pack."""
    fields = ("token_ids", "targets", "response_mask", "old_logprobs", "reference_logprobs", "advantages")
    found = {}
    for pack in batch.packs:
        bounds = pack.cumulative_lengths.tolist()
        for start, end in zip(bounds, bounds[1:], strict=False):
            found[int(pack.sequences[start])] = {name: getattr(pack, name)[start:end] for name in fields}
    return [found[row] for row in sorted(found)]


def microbatches(rows: Sequence[dict[str, Tensor]], max_tokens: int) -> list[dict[str, Tensor]]:
    """Rows in their order, padded on the right to the longest of their microbatch; at most `max_tokens` each."""
    parts: list[list[dict[str, Tensor]]] = [[]]
    for row in rows:
        longest = max(len(other["token_ids"]) for other in [*parts[-1], row])
        if longest * (len(parts[-1]) + 1) > max_tokens and parts[-1]:
            parts.append([])
        parts[-1].append(row)
    padded = []
    for part in parts:
        fields = {name: pad_sequence([row[name] for row in part], batch_first=True) for name in part[0]}
        mask = pad_sequence([torch.ones_like(row["token_ids"]) for row in part], batch_first=True)
        padded.append({**fields, "attention_mask": mask})
    return padded


class PaddedTrainer:
    """The ordinary way: a transformers model with the actor's weights, torch's AdamW, the same loss."""

    def __init__(self, actor: Actor, run: Run) -> None:
        self.recipe, values = run.recipe, run.recipe.optimizer
        config = AutoConfig.from_pretrained(run.model_folder)
        self.model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).train()
        self.model.load_state_dict({name: tensor.clone() for name, tensor in actor.stream()})
        parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": values.weight_decay},
            {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
        ]
        betas = (values.beta1, values.beta2)
        self.optimizer = torch.optim.AdamW(groups, lr=values.learning_rate, betas=betas, eps=values.epsilon, fused=True)

    def update(self, parts: Sequence[dict[str, Tensor]]) -> tuple[float, float]:
        """Loss and gradient norm of one optimizer step."""
        num_tokens = float(sum(part["response_mask"].sum() for part in parts))
        total = sum(self.backward(part, num_tokens) for part in parts)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total, float(norm)

    def backward(self, part: dict[str, Tensor], num_tokens: float) -> float:
        """Adds the gradient of a microbatch's share of the loss, and returns the share."""
        algorithm = self.recipe.algorithm
        logits = self.model(part["token_ids"], attention_mask=part["attention_mask"], use_cache=False).logits
        logits = logits / self.recipe.sampling.temperature if self.recipe.sampling.temperature != 1 else logits
        logprobs = logits.gather(-1, part["targets"][..., None])[..., 0] - logits.logsumexp(-1)
        loss = policy_loss(logprobs, part["old_logprobs"], part["advantages"], algorithm)
        if algorithm.kl is not None:
            loss = loss + algorithm.kl.coefficient * kl_estimate(logprobs, part["reference_logprobs"], algorithm.kl)
        loss = (loss * part["response_mask"]).sum() / num_tokens
        loss.backward()
        return loss.item()
