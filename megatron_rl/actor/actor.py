"""The actor: the policy that is trained, its optimizer, and the reference it is held to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from megatron_rl import parallel
from megatron_rl.actor import model, names, optimizer, schedule, vocabulary
from megatron_rl.actor.pack import Limits
from megatron_rl.algorithms.kl import kl_estimate
from megatron_rl.algorithms.losses import clipped, policy_loss
from megatron_rl.algorithms.mismatch import mismatch
from megatron_rl.config import Recipe, Run
from megatron_rl.device import Device
from megatron_rl.parallel import Ranks
from megatron_rl.spans import span
from megatron_rl.types import Batch, Pack, Update


@dataclass(frozen=True, kw_only=True)
class PolicyView:
    """What one pass of the current policy over a batch gave, pack by pack; empty off the last pipeline stage."""

    logprobs: list[Tensor | None]  # [T] float32 each
    entropy_nats: float  # mean over the response tokens of all ranks
    mismatch_mean_nats: float  # mean |actor - rollout|
    mismatch_max_nats: float
    mismatch_kl_nats: float  # k3 estimate of KL(rollout || actor)


class Actor:
    """Holds one rank's share of the policy. Its methods are collective over the world unless they say otherwise."""

    def __init__(self, run: Run, ranks: Ranks, device: Device) -> None:
        from megatron.core import parallel_state

        self.ranks, self.device, self.model = ranks, device, run.recipe.model
        self.config = model.transformer_config(self.model, run.scale, device)
        chunks = model.build(self.model, self.config, device)
        model.load_folder(chunks, self.model, run.model_folder, ranks.tensor_parallel, ranks.tensor)
        self.chunks = optimizer.wrapped(chunks, self.config)
        self.optimizer = optimizer.build(self.chunks, run.recipe.optimizer, device.dtype)
        self.limits = Limits.of(run.scale, model.needs_one_length(run.scale, device))
        self.weights = names.WeightStream(self.chunks, self.model)
        self.tensor_group = parallel_state.get_tensor_model_parallel_group()
        self.reference = self._copy_of_weights()

    @span("logprob")
    def logprobs(self, batch: Batch, recipe: Recipe) -> PolicyView:
        """Log-probabilities of the batch under the current weights, at the sampling temperature."""
        temperature = recipe.sampling.temperature

        def read(logits: Tensor, pack: Pack) -> Tensor:
            pair = vocabulary.log_probabilities_and_entropy(logits, pack.targets, temperature, self.tensor_group)
            return torch.stack(pair)

        views = schedule.forward(self.chunks, batch.packs, read) if batch.packs else []
        sums, largest = torch.zeros(4, dtype=torch.float64), 0.0
        for pack, (logprobs, entropy) in zip(batch.packs, views, strict=False):
            pack = schedule.on_device(pack, logprobs.device)
            found = mismatch(pack.rollout_logprobs, logprobs, pack.weights)
            largest = max(largest, float(found.gap_max))
            if self.ranks.counts_tokens:
                parts = [pack.weights.sum(), (entropy * pack.weights).sum(), found.gap_sum, found.kl_sum]
                sums += torch.stack(parts).double().cpu()
        tokens, entropy_sum, gap_sum, kl_sum = parallel.total(sums).tolist()
        return PolicyView(
            logprobs=[view[0] for view in views] or [None] * len(batch.packs),
            entropy_nats=entropy_sum / max(tokens, 1),
            mismatch_mean_nats=gap_sum / max(tokens, 1),
            mismatch_max_nats=max(parallel.gather(largest)),
            mismatch_kl_nats=kl_sum / max(tokens, 1),
        )

    @span("logprob")
    def reference_logprobs(self, batch: Batch, recipe: Recipe) -> list[Tensor | None]:
        """Log-probabilities of the batch under the reference; Nones off the last pipeline stage."""

        def read(logits: Tensor, pack: Pack) -> Tensor:
            temperature = recipe.sampling.temperature
            return vocabulary.log_probabilities(logits, pack.targets, temperature, self.tensor_group)

        with self._holding(self.reference):
            views = schedule.forward(self.chunks, batch.packs, read) if batch.packs else []
        return list(views) or [None] * len(batch.packs)

    @span("update")
    def update(self, packs: Sequence[Pack], recipe: Recipe, step: int) -> Update:
        """One optimizer step on the packs of one update: the gradient of the mean loss over all its tokens.

        Raises RuntimeError when the gradient is not finite.
        """
        for chunk in self.chunks:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        rate = optimizer.set_rates(self.optimizer, recipe.optimizer, step)
        sums = torch.zeros(6, dtype=torch.float64)

        def loss(logits: Tensor, pack: Pack) -> tuple[Tensor, Tensor]:
            total, parts = self._loss(logits, pack, recipe)
            if self.ranks.counts_tokens:
                sums.add_(parts)
            return total, pack.weights.sum()

        schedule.forward_backward(self.chunks, packs, loss)
        _, norm, _ = self.optimizer.step()
        tokens, loss_sum, low, high, ratio, kl = parallel.total(sums).tolist()
        norm = float(norm)
        if not math.isfinite(norm):
            raise RuntimeError(f"step {step}: the gradient norm is {norm}; the newest checkpoint is from before it")
        return Update(
            num_tokens=round(tokens),
            loss=loss_sum / tokens,
            gradient_norm=norm,
            learning_rate=rate,
            clip_low_fraction=low / tokens,
            clip_high_fraction=high / tokens,
            ratio_mean=ratio / tokens,
            kl_reference=kl / tokens,
        )

    def _loss(self, logits: Tensor, pack: Pack, recipe: Recipe) -> tuple[Tensor, Tensor]:
        """The sum over tokens of clipped policy loss + KL, and the sums that the metrics need."""
        assert pack.old_logprobs is not None and pack.reference_logprobs is not None and pack.advantages is not None
        algorithm = recipe.algorithm
        logprobs = vocabulary.log_probabilities(logits, pack.targets, recipe.sampling.temperature, self.tensor_group)
        policy, kl = policy_loss(logprobs, pack.old_logprobs, pack.advantages, algorithm), torch.zeros_like(logprobs)
        if algorithm.kl is not None:
            kl = kl_estimate(logprobs, pack.reference_logprobs, algorithm.kl)
            policy = policy + (algorithm.kl.coefficient * kl if algorithm.kl.place == "loss" else 0)
        total = (policy * pack.weights).sum()
        with torch.no_grad():
            ratio = (logprobs - pack.old_logprobs).exp()
            low, high, _ = clipped(ratio, pack.advantages, algorithm)
            means = torch.stack([torch.ones_like(kl), policy, low, high, ratio, kl])
            sums = (means * pack.weights).sum(1).double().cpu()
        return total, sums

    def reset_reference(self, *, clear_optimizer: bool) -> None:
        """Makes the reference a copy of the current policy. Not collective."""
        self.reference = self._copy_of_weights()
        if clear_optimizer:
            optimizer.clear(self.optimizer)

    def stream(self) -> Iterator[tuple[str, Tensor]]:
        """The current weights as (Hugging Face name, whole tensor), on every rank; all of it must be drawn."""
        return self.weights(lambda parameter: parameter.data)

    def state(self) -> dict[str, Any]:
        """Everything of this rank that must outlive the process."""
        return {
            "weights": [parameter.detach() for parameter in self._parameters()],
            "reference": self.reference,
            "optimizer": optimizer.state(self.optimizer),
            "torch_rng": torch.get_rng_state(),
        }

    @torch.no_grad()
    def load_state(self, saved: dict[str, Any]) -> None:
        """Restores what `state` gave, on the same layout. Not collective."""
        for parameter, value in zip(self._parameters(), saved["weights"], strict=True):
            parameter.copy_(value)
        self.reference = saved["reference"]
        optimizer.load_state(self.optimizer, saved["optimizer"])
        torch.set_rng_state(saved["torch_rng"])

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for chunk in self.chunks for parameter in chunk.parameters()]

    def _copy_of_weights(self) -> list[Tensor]:
        return [parameter.detach().cpu().clone() for parameter in self._parameters()]

    @contextmanager
    def _holding(self, weights: list[Tensor]) -> Iterator[None]:
        """Runs with other weights in place: one model in memory serves as policy and as reference."""
        own = [parameter.detach().clone() for parameter in self._parameters()]
        self._put(weights)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, weights: list[Tensor]) -> None:
        for parameter, value in zip(self._parameters(), weights, strict=True):
            parameter.copy_(value)
