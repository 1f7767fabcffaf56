"""How many bytes the layers of the fullest stage keep for the backward pass, for each token of a microbatch.

Per token and layer, with h hidden, q query, k key and f ffn numbers, q, k and f divided by the tensor-parallel degree,
and h, too, under sequence parallelism:

                 Transformer Engine on a GPU                 on a CPU
two norms        4 h: inputs and outputs                     2 h, outputs, and 2 h in fp32, the normalized inputs
attention        2 q + 2 k: query, key, value, output        5 q + 5 k: these before and after padding, and the whole
                                                             of QKV, which the value is a part of
q and k normed   q + k: inputs of their norms                q + k in fp32
MLP              3 f where SwiGLU is one kernel: gate    4 f: gate and up, silu(gate), product
                 and up, product; else 5 f: silu(gate)
                 and a copy of up besides

Recomputed layers keep their input, h, and one whole layer while it is gone through; of a recomputed MLP only the
input is kept, which on a GPU is that of its norm, and one whole MLP.

With S stages of C chunks each, a rank holds c = 1 + (S - 1) / (S C) times its layers if C > 1, and else those of one
microbatch per stage.

Not covered: statistics of norms and of the softmax, masks and positions, a few numbers per token; padding of attention
on a CPU where sequences differ in length. What the vocabulary needs is in estimate/memory.py.

Source: Korthikanti et al. 2022, arXiv 2205.05198, section 4.1, for what a layer keeps of a plain transformer.
"""

from __future__ import annotations

from megatron_rl.config.precision import BYTES
from megatron_rl.config.records import Model, Scale


def activation_bytes_per_token(model: Model, scale: Scale) -> int:
    """Bytes kept for the backward pass, per token of a microbatch, on the fullest pipeline stage."""
    size, on_cpu = BYTES[scale.precision], scale.device == "cpu"
    hidden = model.hidden_size // (scale.tensor_parallel if scale.sequence_parallel else 1)
    heads = (model.num_heads + model.num_kv_heads) * model.head_dim // scale.tensor_parallel  # q + k
    ffn = model.ffn_hidden_size // scale.tensor_parallel
    in_fp32 = 4 if on_cpu else size
    norm = (size + in_fp32) * hidden
    attention = (5 if on_cpu else 2) * size * heads + model.qk_norm * in_fp32 * heads
    mlp = (4 if on_cpu else 3 if scale.fuses_swiglu else 5) * size * ffn
    whole = 2 * norm + attention + mlp
    layers = _layers_held(model, scale)
    if scale.recomputes_activations:
        return size * hidden * layers + whole
    if scale.recomputes_mlp:
        own_norm = norm if on_cpu else size * hidden
        return (norm + attention + own_norm) * layers + mlp + norm - own_norm
    return whole * layers


def _layers_held(model: Model, scale: Scale) -> int:
    """Layers of which a stage holds a microbatch at once: the first stage has one microbatch under way per stage."""
    stages, chunks = scale.pipeline_parallel, scale.virtual_pipeline
    more = model.num_layers * (stages - 1) // (stages * chunks) if chunks > 1 else 0
    return model.num_layers + more
