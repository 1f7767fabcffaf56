"""Shapes of published models, each named once; every number ends with the tag of its source."""

from megatron_rl.config.records import Llama3Scaling, Model

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

QWEN2_5_7B = Model(
    name="Qwen/Qwen2.5-7B",  # HF
    family="qwen2",  # HF
    num_layers=28,  # HF
    hidden_size=3584,  # HF
    num_heads=28,  # HF
    num_kv_heads=4,  # HF
    head_dim=128,  # HF: hidden_size / num_heads
    ffn_hidden_size=18944,  # HF
    vocab_size=152064,  # HF
    max_positions=131072,  # HF
    rope_theta=1000000.0,  # HF
    norm_epsilon=1e-6,  # HF
    tied_embeddings=False,  # HF
    qkv_bias=True,  # HF: by the family, not a field of the file
    qk_norm=False,  # HF: by the family, not a field of the file
)

QWEN2_5_32B = Model(
    name="Qwen/Qwen2.5-32B",  # HF
    family="qwen2",  # HF
    num_layers=64,  # HF
    hidden_size=5120,  # HF
    num_heads=40,  # HF
    num_kv_heads=8,  # HF
    head_dim=128,  # HF: hidden_size / num_heads
    ffn_hidden_size=27648,  # HF
    vocab_size=152064,  # HF
    max_positions=131072,  # HF
    rope_theta=1000000.0,  # HF
    norm_epsilon=1e-5,  # HF
    tied_embeddings=False,  # HF
    qkv_bias=True,  # HF: by the family, not a field of the file
    qk_norm=False,  # HF: by the family, not a field of the file
)

QWEN3_8B = Model(
    name="Qwen/Qwen3-8B",  # HF
    family="qwen3",  # HF
    num_layers=36,  # HF
    hidden_size=4096,  # HF
    num_heads=32,  # HF
    num_kv_heads=8,  # HF
    head_dim=128,  # HF
    ffn_hidden_size=12288,  # HF
    vocab_size=151936,  # HF
    max_positions=40960,  # HF
    rope_theta=1000000.0,  # HF
    norm_epsilon=1e-6,  # HF
    tied_embeddings=False,  # HF
    qkv_bias=False,  # HF: by the family, not a field of the file
    qk_norm=True,  # HF: by the family, not a field of the file
)

QWEN3_32B = Model(
    name="Qwen/Qwen3-32B",  # HF
    family="qwen3",  # HF
    num_layers=64,  # HF
    hidden_size=5120,  # HF
    num_heads=64,  # HF
    num_kv_heads=8,  # HF
    head_dim=128,  # HF
    ffn_hidden_size=25600,  # HF
    vocab_size=151936,  # HF
    max_positions=40960,  # HF
    rope_theta=1000000.0,  # HF
    norm_epsilon=1e-6,  # HF
    tied_embeddings=False,  # HF
    qkv_bias=False,  # HF: by the family, not a field of the file
    qk_norm=True,  # HF: by the family, not a field of the file
)

LLAMA_3_1_8B = Model(
    name="meta-llama/Llama-3.1-8B",  # HF
    family="llama",  # HF
    num_layers=32,  # HF
    hidden_size=4096,  # HF
    num_heads=32,  # HF
    num_kv_heads=8,  # HF
    head_dim=128,  # HF: hidden_size / num_heads
    ffn_hidden_size=14336,  # HF
    vocab_size=128256,  # HF
    max_positions=131072,  # HF
    rope_theta=500000.0,  # HF
    norm_epsilon=1e-5,  # HF
    tied_embeddings=False,  # HF
    qkv_bias=False,  # HF: by the family, not a field of the file
    qk_norm=False,  # HF: by the family, not a field of the file
    rope_scaling=Llama3Scaling(
        factor=8.0,  # HF
        low_frequency_factor=1.0,  # HF
        high_frequency_factor=4.0,  # HF
        original_max_positions=8192,  # HF
    ),
)

MODELS = {
    model.name: model for model in (R1_DISTILL_QWEN_1_5B, QWEN2_5_7B, QWEN2_5_32B, QWEN3_8B, QWEN3_32B, LLAMA_3_1_8B)
}
