"""How many bytes a device will need, by part, before anything is started.

With P the weights of the fullest pipeline stage divided by the tensor-parallel degree, b the bytes of a number in the
scale's precision, m the tokens of a microbatch / context_parallel and V vocabulary:

weights          b P                      gradients, optimizer and weights leave for the host in rollouts as asked
gradients        4 P                      fp32 buffer
optimizer        12 P / ranks             of data_parallel x context_parallel: fp32 weights and two moments; 8 in fp32,
                                          where the weights are the model's
reference        b P                      in host memory
set_aside        b P                      the own weights, while the reference's are in their place
rollout_weights  b num_parameters / rollout_tensor_parallel; in FP8 a byte for each weight of a linear layer
quantized        2 bytes for each of them that the actor has, with FP8
kv_cache         what the scale pins
logits           (4 + r) m C + 8 m hidden + b V hidden / tensor_parallel, or 12 m C where that is more
                                          blocks of C = 4,096 columns of the vocabulary, what the hidden states get of
                                          them and the gradient of the head's weights, r = b or in fp32 0; or three
                                          blocks for the entropy
activations      m times what estimate/activations.py says

Not covered, so that RESERVED_BYTES are left for it: CUDA context and communication buffers (4-8 GiB), fragmentation,
vLLM's own activations and CUDA graphs; on a CPU the engines' code, which a process imports.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron_rl.config.precision import BYTES, bf16_layers
from megatron_rl.config.records import Model, Scale
from megatron_rl.config.run import Run
from megatron_rl.estimate.activations import activation_bytes_per_token

RESERVED_BYTES = {"cuda": 8 * 2**30, "cpu": 2**30}
VOCABULARY_AT_ONCE = 4096  # as actor/vocabulary.py has it


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device, the fullest one."""

    weights: int
    gradients: int
    optimizer: int
    reference: int  # in host memory
    set_aside: int  # never beside the activations
    rollout_weights: int
    kv_cache: int
    logits: int
    activations: int
    quantized: int = 0  # FP8 copies of the weights, both ways around, which the actor drops before rollouts
    offloaded: int = 0  # of gradients and optimizer, before the refit
    offloaded_weights: int = 0  # of the weights, after it

    @property
    def resting(self) -> int:
        """Device bytes that the actor holds all the time."""
        return self.weights + self.gradients + self.optimizer

    @property
    def training(self) -> int:
        """Device bytes while the actor is updated, or stands in for the reference, and the engine sleeps."""
        return self.resting + self.quantized + self.logits + max(self.activations, self.set_aside)

    @property
    def generation(self) -> int:
        """Device bytes while the engine generates beside the actor at rest."""
        return self.resting - self.offloaded + self.rollout_weights + max(0, self.kv_cache - self.offloaded_weights)

    @property
    def everything(self) -> int:
        """Device bytes if neither half makes way for the other, as on a CPU."""
        return self.training + self.rollout_weights + self.kv_cache


def shortage(memory: Memory, scale: Scale) -> int:
    """Bytes that a device of the scale lacks, what is not covered included; 0 or less where the run fits.

    On a GPU the engine and the update make way for each other, on a CPU they do not.
    """
    needed = memory.everything if scale.device == "cpu" else max(memory.training, memory.generation)
    return needed + RESERVED_BYTES[scale.device] - scale.device_memory_bytes


def estimate(run: Run) -> Memory:
    """The memory of one rank of `run`."""
    model, scale = run.recipe.model, run.scale
    size, local = BYTES[scale.precision], stage_parameters(model, scale)
    replicas = scale.data_parallel * scale.context_parallel
    weights, gradients = size * local, 4 * local
    optimizer = (8 if scale.precision == "fp32" else 12) * local // replicas
    leaves = {"nothing": 0, "gradients": gradients, "optimizer": gradients + optimizer}
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        offloaded=leaves.get(scale.offloads, gradients + optimizer),
        offloaded_weights=weights if scale.offloads == "weights" else 0,
        reference=size * local if run.recipe.algorithm.kl else 0,
        set_aside=size * local if run.recipe.algorithm.kl else 0,
        rollout_weights=rollout_bytes(model, scale),
        quantized=0
        if scale.fp8_actor == "off"
        else 2 * fp8_weights(model, scale) // (scale.tensor_parallel * scale.pipeline_parallel),
        kv_cache=scale.kv_cache_bytes,
        logits=logits_bytes(model, scale),
        activations=tokens_per_rank(scale) * activation_bytes_per_token(model, scale),
    )


def tokens_per_rank(scale: Scale) -> int:
    """Tokens of the fullest microbatch that one rank has."""
    return scale.max_tokens_per_microbatch // scale.context_parallel


def stage_parameters(model: Model, scale: Scale) -> int:
    """Weights of the fullest pipeline stage, divided by the tensor-parallel degree."""
    embedding = model.vocab_size * model.hidden_size
    tables = embedding if model.tied_embeddings else 2 * embedding
    layers = (model.num_parameters - tables) // scale.pipeline_parallel
    # With several stages the first holds the input table and the last the output table, tied or not.
    return (layers + (tables if scale.pipeline_parallel == 1 else embedding)) // scale.tensor_parallel


def logits_bytes(model: Model, scale: Scale) -> int:
    """Bytes of all that log-probabilities, entropy and their gradient take at once, the hidden states not counted."""
    size, tokens, hidden = BYTES[scale.precision], tokens_per_rank(scale), model.hidden_size
    vocabulary = model.vocab_size // scale.tensor_parallel
    columns = min(VOCABULARY_AT_ONCE, vocabulary)
    rounded = 0 if size == 4 else size
    return max(12 * tokens * columns, tokens * ((4 + rounded) * columns + 8 * hidden) + size * vocabulary * hidden)


def rollout_bytes(model: Model, scale: Scale) -> int:
    """Bytes of the weights on one rank of a rollout engine."""
    whole = BYTES[scale.precision] * model.num_parameters - scale.fp8_rollout * fp8_weights(model, scale)
    return whole // scale.rollout_tensor_parallel


def fp8_weights(model: Model, scale: Scale) -> int:
    """Weights of the whole model that multiply in FP8, where the scale asks for it: a byte each instead of two."""
    attention = 2 * (model.num_heads + model.num_kv_heads) * model.head_dim * model.hidden_size
    mlp = 3 * model.hidden_size * model.ffn_hidden_size
    return (attention + mlp) * (model.num_layers - len(bf16_layers(model, scale)))
