"""Programs: the four sources of PRIME's validation rows, HumanEval+ and LiveCodeBench; all tests passed, or wrong."""

from megatron_rl.config.suites import Benchmark, Rows

EURUS, REVISION, FILES = (
    "PRIME-RL/Eurus-2-RL-Data",
    "9776b13264b5aaa0b16495fcf086a0a8d86fd655",  # HF
    ("*validation*.parquet",),
)
NOTES = ("ProRL v1's figures are strictly binary; BroRL's table measures the same policy higher, by another rule.",)

APPS = Benchmark(
    name="apps",
    title="APPS",
    column="APPS",
    group="code",
    source=Rows(
        repository=EURUS,
        revision=REVISION,
        files=FILES,
        layout="eurus_code",
        num_rows=142,  # EU
        subset="apps",
    ),
    counts="right",
    notes=NOTES,
)
CODECONTESTS = Benchmark(
    name="codecontests",
    title="CodeContests",
    column="CodeContests",
    group="code",
    source=Rows(
        repository=EURUS,
        revision=REVISION,
        files=FILES,
        layout="eurus_code",
        num_rows=377,  # EU
        subset="codecontests",
    ),
    counts="right",
    notes=NOTES,
)
CODEFORCES = Benchmark(
    name="codeforces",
    title="Codeforces",
    column="Codeforces",
    group="code",
    source=Rows(
        repository=EURUS,
        revision=REVISION,
        files=FILES,
        layout="eurus_code",
        num_rows=123,  # EU
        subset="codeforces",
    ),
    counts="right",
    notes=NOTES,
)
TACO = Benchmark(
    name="taco",
    title="TACO",
    column="TACO",
    group="code",
    source=Rows(
        repository=EURUS,
        revision=REVISION,
        files=FILES,
        layout="eurus_code",
        num_rows=382,  # EU
        subset="taco",
    ),
    counts="right",
    notes=NOTES,
)
HUMANEVAL_PLUS = Benchmark(
    name="humaneval_plus",
    title="HumanEval+",
    column="HumanEval+",
    group="code",
    source=Rows(
        repository="evalplus/humanevalplus",
        revision="d32357cf319e50e9c8d8dab5ea876c72b0fd321b",  # HF
        files=("data/test-*.parquet",),
        layout="humaneval_plus",
        num_rows=164,  # HF
    ),
    counts="right",
    notes=(
        "The tests' literals are read, and nothing is executed: the few rows whose expected values a function "
        "computes are left out.",
    ),
)
LIVECODEBENCH = Benchmark(
    name="livecodebench",
    title="LiveCodeBench",
    column="LiveCodeBench",
    group="code",
    source=Rows(
        repository="livecodebench/code_generation_lite",
        revision="0fe84c3912ea0c4d4a78037083943e8f0c4dd505",  # HF
        files=("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl"),  # HF
        layout="livecodebench",
        num_rows=880,  # HF
        since="2024-08-01",  # chosen: DeepCoder's window, whose figures the paper sets beside its own
        until="2025-02-01",  # chosen: the same
    ),
    counts="right",
    notes=(
        "Version 5, contests of August 2024 to January 2025: the window of DeepCoder; the paper names none.",
        "Problems that the benchmark's own errata call interactive, wrong or of several right outputs are left out.",
    ),
)
BENCHMARKS = (APPS, CODECONTESTS, CODEFORCES, TACO, HUMANEVAL_PLUS, LIVECODEBENCH)
