"""Mini: two dozen of the demo's held-out problems, many times each; half a minute on a laptop."""

from megatron_rl.config.suites import Answering, Benchmark, Rows, Suite

SUITE = Suite(
    name="mini",
    title="Some of the demo's held-out problems",
    benchmarks=(
        Benchmark(
            name="mini_math",
            title="Medians",
            column="",
            group="math",
            source=Rows(
                repository="recipes/suites/data",
                revision="",
                files=("mini_math.jsonl",),
                layout="items",
                num_rows=12,  # chosen: enough to see a spread
            ),
            counts="right",
        ),
        Benchmark(
            name="mini_logic",
            title="Words spelt backward",
            column="",
            group="logic",
            source=Rows(
                repository="recipes/suites/data",
                revision="",
                files=("mini_logic.jsonl",),
                layout="items",
                num_rows=12,  # chosen: enough to see a spread
            ),
            counts="share",
            scorers=("ours", "as_published"),
        ),
    ),
    answering=Answering(
        samples_per_problem=256,  # P1 section 4
        temperature=0.6,  # P1 section 3.4
        top_p=0.95,  # P1 section 3.4
        max_prompt_tokens=32,  # chosen: as the demo trains
        max_response_tokens=24,  # chosen: as the demo trains
    ),
)
