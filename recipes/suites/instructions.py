"""Instructions: IFEval; the mean share of the instructions that were followed, strictly read."""

from megatron_rl.config.suites import Benchmark, Rows

IFEVAL = Benchmark(
    name="ifeval",
    title="IFEval",
    column="IFEval",
    group="instruct",
    source=Rows(
        repository="google/IFEval",
        revision="966cd89545d6b6acfd7638bc708b98261ca58e84",  # HF
        files=("ifeval_input_data.jsonl",),
        layout="ifeval",
        num_rows=541,  # HF
    ),
    counts="share",
    notes=("Whether the paper reads instructions strictly or loosely is not stated: strictly here.",),
)
BENCHMARKS = (IFEVAL,)
