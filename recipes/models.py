"""Shapes of published models, each named once; every number ends with the tag of its source."""

from megatron_rl.config.records import Model

R1_DISTILL_QWEN_1_5B = Model(
    name="deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",  # HF
    family="qwen2",  # HF
    num_layers=28,  # HF
    hidden_size=1536,  # HF
    num_heads=12,  # HF
    num_kv_heads=2,  # HF
    head_dim=128,  # HF: hidden_size / num_heads
    ffn_hidden_size=8960,  # HF
    vocab_size=151936,  # HF
    max_positions=131072,  # HF
    rope_theta=10000.0,  # HF
    norm_epsilon=1e-6,  # HF
    tied_embeddings=False,  # HF: unlike Qwen2.5-1.5B, of the same shape
    qkv_bias=True,  # HF: by the family, not a field of the file
    qk_norm=False,  # HF
)
