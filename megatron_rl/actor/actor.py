"""The actor: the policy that is trained, its optimizer, and the reference it is held to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from megatron_rl.actor import model, names, optimizer, precision, reshard, schedule, vocabulary
from megatron_rl.actor.context import Share, on_device
from megatron_rl.actor.offload import Offload
from megatron_rl.actor.pack import Limits, joined
from megatron_rl.actor.vocabulary import Head
from megatron_rl.algorithms.kl import kl_estimate, kl_per_sequence
from megatron_rl.algorithms.mismatch import mismatch
from megatron_rl.algorithms.objective import TokenSums, objective
from megatron_rl.config.records import Recipe
from megatron_rl.config.run import Run
from megatron_rl.device import Device
from megatron_rl.runtime import parallel
from megatron_rl.runtime.parallel import Ranks
from megatron_rl.runtime.spans import span
from megatron_rl.types import Batch, Pack, PolicyView, State, Update


class Seen:
    """What forward passes of one policy say of it: sums over the response tokens of this rank, on their device."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self.largest = ranks, torch.zeros(())
        self.sums = torch.zeros(4, dtype=torch.float64)  # tokens, entropy, |actor - rollout|, k3

    @torch.no_grad()
    def add(self, pack: Pack, logprobs: Tensor, entropy: Tensor) -> None:
        """Adds a pack's log-probabilities and entropies [T]."""
        found = mismatch(pack.rollout_logprobs, logprobs, pack.response_mask)
        self.largest = torch.maximum(self.largest.to(found.gap_max.device), found.gap_max)
        if self.ranks.counts_tokens:
            parts = [pack.response_mask.sum(), (entropy * pack.response_mask).sum(), found.gap_sum, found.kl_sum]
            self.sums = self.sums.to(logprobs.device) + torch.stack(parts).double()

    def view(self, logprobs: Sequence[Tensor | None]) -> PolicyView:
        """What all ranks saw, with the log-probabilities of this one. Collective over the world."""
        tokens, entropy_sum, gap_sum, kl_sum = parallel.total(self.sums.cpu()).tolist()
        return PolicyView(
            logprobs=logprobs,
            num_tokens=round(tokens),
            entropy_nats=entropy_sum / max(tokens, 1),
            mismatch_mean_nats=gap_sum / max(tokens, 1),
            mismatch_max_nats=max(parallel.gather(float(self.largest))) if tokens else 0.0,
            mismatch_kl_nats=kl_sum / max(tokens, 1),
        )


class Actor:
    """Holds one rank's share of the policy. Its methods are collective over the world unless they say otherwise."""

    def __init__(self, run: Run, ranks: Ranks, device: Device) -> None:
        from megatron.core import parallel_state

        precision.check_hardware(run.scale)
        self.ranks, self.device, self.model = ranks, device, run.recipe.model
        self.config = model.transformer_config(self.model, run.scale, device)
        chunks = model.build(self.model, run.scale, self.config, device)
        model.load_folder(chunks, self.model, run.model_folder, ranks.tensor_parallel, ranks.tensor)
        self.chunks = optimizer.wrapped(chunks, self.config)
        self.optimizer = optimizer.build(self.chunks, run.recipe.optimizer, device.dtype)
        self.loss_scaler = optimizer.loss_scaler(self.optimizer)
        if self.loss_scaler is not None:
            self.config.grad_scale_func = self.optimizer.scale_loss
        self.offload = Offload(run.scale, device, self.chunks, self.optimizer)
        self.keeps_scaling = run.scale.fp8_actor == "delayed"
        self.limits = Limits.of(run.scale, model.needs_one_length(run.scale, device))
        self.weights = names.WeightStream(self.chunks, self.model)
        self.entries = [entry for entry, _ in names.parameters(self.chunks, self.model)]
        # Which part of the whole each tensor of `state` is.
        self.places = {
            "tensor": (ranks.tensor, ranks.tensor_parallel),
            "parameters": [(entry.hugging_face, entry.is_tied_copy) for entry in self.entries],
            "optimizer": optimizer.ranges(self.optimizer, self._parameters()),
        }
        self.tensor_group = parallel_state.get_tensor_model_parallel_group()
        algorithm = run.recipe.algorithm
        self.reference = self._copy_of_weights() if algorithm.kl else None
        keeps_best = algorithm.reference_reset is not None and algorithm.reference_reset.target == "best_checkpoint"
        self.best = self._copy_of_weights() if keeps_best else None

    @span("logprob")
    def logprobs(self, batch: Batch, recipe: Recipe) -> PolicyView:
        """Log-probabilities of the batch under the current weights, at the sampling temperature."""
        return self._viewed(batch.packs, recipe)

    @span("logprob")
    def old_logprobs(self, batch: Batch, recipe: Recipe) -> PolicyView:
        """The same without those of the first update, whose own forward pass gives them.

        That pass is still of the weights a step begins with, those of later updates are not. Where a KL is taken off
        the rewards the first update needs them before.
        """
        kl = recipe.algorithm.kl
        needs_all = kl is not None and kl.place == "reward"
        num_own = len(batch.updates[0]) if batch.updates and not needs_all else 0
        view = self._viewed(batch.packs[num_own:], recipe)
        return dataclasses.replace(view, logprobs=[*[None] * num_own, *view.logprobs])

    def _viewed(self, packs: list[Pack], recipe: Recipe) -> PolicyView:
        temperature, seen = recipe.sampling.temperature, Seen(self.ranks)

        def read(head: Head, share: Share) -> Tensor:
            pair = vocabulary.log_probabilities_and_entropy(head, share.targets, temperature, self.tensor_group)
            return share.whole(torch.stack(pair))

        views = self._views(packs, read)
        for pack, (logprobs, entropy) in zip(packs, views, strict=False):
            seen.add(on_device(pack, logprobs.device), logprobs, entropy)
        return seen.view([view[0] for view in views] or [None] * len(packs))

    @span("logprob")
    def reference_logprobs(self, batch: Batch, recipe: Recipe) -> list[Tensor | None]:
        """Log-probabilities of the batch under the reference; Nones off the last pipeline stage, or without a KL."""
        if self.reference is None:
            return [None] * len(batch.packs)

        def read(head: Head, share: Share) -> Tensor:
            temperature = recipe.sampling.temperature
            return share.whole(vocabulary.log_probabilities(head, share.targets, temperature, self.tensor_group))

        with self._holding(self.reference):
            views = self._views(batch.packs, read)
        return list(views) or [None] * len(batch.packs)

    def _views(self, packs: list[Pack], read: schedule.Read) -> list[Tensor]:
        """What `read` makes of each pack's head, [..., T] each; empty off the last pipeline stage."""
        views = schedule.forward(self.chunks, joined(packs, self.limits), read) if packs else []
        return list(torch.cat(views, -1).split([len(pack.token_ids) for pack in packs], -1)) if views else []

    @span("update")
    def update(self, packs: Sequence[Pack], recipe: Recipe, step: int) -> Update:
        """One optimizer step on the packs of one update: the gradient of the mean loss over all its tokens.

        In fp16 it is made again with half the loss scale until no gradient overflows. Raises RuntimeError when the
        gradient is not finite at any scale.
        """
        rate = optimizer.set_rates(self.optimizer, recipe.optimizer, step)
        scaler, norm, num_overflows = self.loss_scaler, None, -1
        while norm is None:
            before = float(scaler.scale) if scaler is not None else 1.0
            sums, seen = self._accumulate(packs, recipe)
            _, norm, _ = self.optimizer.step()  # None after an overflow: nothing was changed but the loss scale
            num_overflows += 1
            if norm is None and scaler is not None and float(scaler.scale) == before:
                norm = math.inf
        sums, norm, own = TokenSums.of(parallel.total(sums.values.cpu())), float(norm), seen.view([])
        if not math.isfinite(norm):
            raise RuntimeError(f"step {step}: the gradient norm is {norm}; the newest checkpoint is from before it")
        return Update(
            num_tokens=round(float(sums.tokens)),
            loss=float(sums.loss / sums.tokens),
            gradient_norm=norm,
            learning_rate=rate,
            clip_low_fraction=float(sums.clip_low / sums.tokens),
            clip_high_fraction=float(sums.clip_high / sums.tokens),
            clip_dual_fraction=float(sums.clip_dual / sums.tokens),
            ratio_mean=float(sums.ratio / sums.tokens),
            kl_reference=float(sums.kl_reference / sums.tokens),
            correction_fraction=float(sums.corrected / sums.tokens),
            loss_scale=float(scaler.scale) if scaler is not None else None,
            num_overflows=num_overflows,
            policy=own if own.num_tokens else None,
        )

    def _accumulate(self, packs: Sequence[Pack], recipe: Recipe) -> tuple[TokenSums, Seen]:
        """Fills the gradient buffers, and adds up what this rank's tokens say of the update and of the policy."""
        for chunk in self.chunks:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        sums, seen, temperature = (
            TokenSums.zero(self.device.torch_device),
            Seen(self.ranks),
            recipe.sampling.temperature,
        )

        def loss(head: Head, share: Share) -> tuple[Tensor, Tensor]:
            nonlocal sums
            pack, targets = share.pack, share.targets
            if pack.old_logprobs is None:
                pair = vocabulary.log_probabilities_and_entropy(head, targets, temperature, self.tensor_group)
                logprobs, entropy = share.whole(torch.stack(pair))
                seen.add(pack, logprobs.detach(), entropy.detach())
            else:
                logprobs = share.whole(vocabulary.log_probabilities(head, targets, temperature, self.tensor_group))
            total, of_pack = objective(logprobs, pack, recipe.algorithm)
            if self.ranks.counts_tokens:
                sums += of_pack
            return total, pack.response_mask.sum()

        schedule.forward_backward(self.chunks, packs, loss)
        return sums, seen

    def settle_scaling(self, batch: Batch, recipe: Recipe) -> None:
        """Lets delayed scaling that remembers nothing meet a batch's numbers and gradients; changes nothing else.

        It goes by what the pass before met, and a pass without gradients tells it nothing: until the first update it
        would clip what is large and lose what is small.
        """
        # Of all ranks: a stage whose layers are all in bf16 remembers nothing, and must not go without the others.
        if not self.keeps_scaling or any(parallel.gather(any(precision.scaling_state(self.chunks)))):
            return

        def loss(head: Head, share: Share) -> tuple[Tensor, Tensor]:
            temperature, mask = recipe.sampling.temperature, share.pack.response_mask
            logprobs = share.whole(vocabulary.log_probabilities(head, share.targets, temperature, self.tensor_group))
            return -(logprobs * mask).sum(), mask.sum()

        for _ in range(precision.SETTLING_PASSES):
            schedule.forward_backward(self.chunks, batch.packs, loss)

    def kl_in_reward(self, batch: Batch, recipe: Recipe) -> Tensor | float:
        """What the KL takes off the rewards [G, N] float64: the coefficient times the sum over each response.

        Of the policy that the step began with; 0 for a recipe whose KL is in the loss, or without one. Collective over
        the world.
        """
        kl, shape = recipe.algorithm.kl, batch.groups.rewards.shape
        if kl is None or kl.place == "loss":
            return 0.0
        sums = torch.zeros(shape.numel(), dtype=torch.float64)
        for pack in batch.packs if self.ranks.counts_tokens else ():
            assert pack.old_logprobs is not None and pack.reference_logprobs is not None
            estimates = kl_estimate(pack.old_logprobs, pack.reference_logprobs, kl).cpu()
            sums += kl_per_sequence(estimates, pack.response_mask.cpu(), pack.sequences.cpu(), len(sums))
        return kl.coefficient * parallel.total(sums).view(shape)

    def reset_reference(self, recipe: Recipe) -> None:
        """Makes the reference a copy of the policy, or of the best there was, as the recipe says. Not collective."""
        reset = recipe.algorithm.reference_reset
        assert reset is not None, f"{recipe.release} resets no reference"
        if self.reference is not None:
            best = None if self.best is None else [self.device.host_copy(weight) for weight in self.best]
            self.reference = best or self._copy_of_weights()
        if reset.clears_optimizer:
            optimizer.clear(self.optimizer)

    def keep_if_best(self, state: State) -> None:
        """Remembers a policy that validated best, where the recipe resets to the best one. Not collective."""
        if self.best is not None and state.newest_is_best:
            self.best = self._copy_of_weights()

    def stream(self) -> Iterator[tuple[str, Tensor]]:
        """The current weights as (Hugging Face name, whole tensor), on every rank; all of it must be drawn."""
        return self.weights(lambda parameter: parameter.data)

    def named_weights(self) -> Iterator[tuple[names.Entry, Tensor]]:
        """This rank's parameters, each with what it is of the whole. Not collective."""
        return zip(self.entries, self._parameters(), strict=True)

    def state(self) -> dict[str, Any]:
        """Everything of this rank that must outlive the process. Its tensors are those that the next update changes."""
        return {
            "weights": [parameter.detach() for parameter in self._parameters()],
            "reference": self.reference,
            "best": self.best,
            "optimizer": optimizer.state(self.optimizer),
            "torch_rng": torch.get_rng_state(),
            "places": self.places,
            **({"loss_scale": self.loss_scaler.state_dict()} if self.loss_scaler is not None else {}),
            **({"fp8_scaling": precision.scaling_state(self.chunks)} if self.keeps_scaling else {}),
        }

    @torch.no_grad()
    def load_state(self, saved: dict[str, Any]) -> None:
        """Restores what `state` gave, in the same places; delayed scaling that it does not have begins anew."""
        assert saved["places"] == self.places, "the state of another layout must be resharded before"
        for parameter, value in zip(self._parameters(), saved["weights"], strict=True):
            parameter.copy_(value)
        self.reference, self.best = (
            None if weights is None else [self.device.host_copy(weight) for weight in weights]
            for weights in (saved["reference"], saved["best"])
        )
        optimizer.load_state(self.optimizer, saved["optimizer"])
        torch.set_rng_state(saved["torch_rng"])
        if self.loss_scaler is not None:
            self.loss_scaler.load_state_dict(saved["loss_scale"])
        if self.keeps_scaling and "fp8_scaling" in saved:
            precision.load_scaling_state(self.chunks, saved["fp8_scaling"], self.config)

    def resharded(self, files: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What `load_state` takes, made of what `state` gave on all ranks of another layout. Not collective.

        Random states are not sharded: nothing in a step draws from them. The history of FP8's delayed scaling begins
        anew.
        """
        of_all = {name: files[0][name] for name in ("loss_scale",) if name in files[0]}
        return reshard.resharded(files, self.state(), self.entries, self.model) | of_all

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for chunk in self.chunks for parameter in chunk.parameters()]

    def _copy_of_weights(self) -> list[Tensor]:
        here = [parameter.detach() for parameter in self._parameters()]
        return [self.device.host_copy(weight) for weight in self.offload.weights_on_host or here]

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
