"""Science: GPQA diamond, open-ended as the papers' subset is, and by letter."""

from megatron_rl.config.suites import Benchmark, Rows

GPQA = Benchmark(
    name="gpqa_diamond",
    title="GPQA diamond (open-ended)",
    column="GPQA diamond",
    group="stem",
    source=Rows(
        repository="spawn99/GPQA-diamond-ClaudeR1",
        revision="cefe6df",  # HF
        files=("data/train-*.parquet",),
        layout="gpqa_r1",
        num_rows=198,  # HF
    ),
    counts="right",
    notes=("The paper's subset holds no wrong options, and its base model scores below a guess: read as open-ended.",),
)
GPQA_CHOICE = Benchmark(
    name="gpqa_diamond_choice",
    title="GPQA diamond (by letter)",
    column="",
    group="other",
    source=Rows(
        repository="Idavidrein/gpqa",
        revision="83022cefff930aea54f654c0b282e74b9eeda5c6",  # HF
        files=("gpqa_diamond.csv",),
        layout="gpqa",
        num_rows=198,  # HF
    ),
    counts="right",
)
BENCHMARKS = (GPQA, GPQA_CHOICE)
