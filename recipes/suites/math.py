"""Mathematics: AIME, AMC, MATH, Minerva and OlympiadBench; the last box of a response, right or wrong."""

from megatron_rl.config.suites import Benchmark, Rows

AIME24 = Benchmark(
    name="aime24",
    title="AIME 2024",
    column="AIME24",
    group="math",
    source=Rows(
        repository="HuggingFaceH4/aime_2024",
        revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",  # HF
        files=("data/train-*.parquet",),
        layout="aime",
        num_rows=30,  # HF
    ),
    counts="right",
)
AIME25 = Benchmark(
    name="aime25",
    title="AIME 2025",
    column="AIME25",
    group="math",
    source=Rows(
        repository="math-ai/aime25",
        revision="7510e41",  # HF
        files=("test.jsonl",),
        layout="aime",
        num_rows=30,  # HF
    ),
    counts="right",
)
AMC = Benchmark(
    name="amc",
    title="AMC 2022 and 2023",
    column="AMC",
    group="math",
    source=Rows(
        repository="AI-MO/aimo-validation-amc",
        revision="69d78a4a2c840e82d69af6bc742bda09005f6316",  # HF
        files=("data/train-*.parquet",),
        layout="amc",
        num_rows=83,  # HF
    ),
    counts="right",
)
MATH = Benchmark(
    name="math",
    title="MATH (500 of its test problems)",
    column="MATH",
    group="math",
    source=Rows(
        repository="HuggingFaceH4/MATH-500",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",  # HF
        files=("test.jsonl",),
        layout="math_500",
        num_rows=500,  # HF
    ),
    counts="right",
    notes=("The paper says MATH; the recipes that it follows evaluate these 500 of its 5,000 test problems.",),
)
MATH_FULL = Benchmark(
    name="math_full",
    title="MATH (all of its test problems)",
    column="",
    group="other",
    source=Rows(
        repository="EleutherAI/hendrycks_math",
        revision="21a5633873b6a120296cce3e2df9d5550074f4a3",  # HF
        files=("*/test-*.parquet",),
        layout="math",
        num_rows=5000,  # HF
    ),
    counts="right",
)
MINERVA = Benchmark(
    name="minerva",
    title="Minerva",
    column="Minerva",
    group="math",
    source=Rows(
        repository="math-ai/minervamath",
        revision="ee46ddc",  # HF
        files=("test.jsonl",),
        layout="minerva",
        num_rows=272,  # HF
    ),
    counts="right",
    notes=(
        "A decimal may be off by 1 %, as its problems and solutions round differently; the paper's leeway is unknown.",
    ),
)
OLYMPIAD = Benchmark(
    name="olympiad",
    title="OlympiadBench (open, text, English)",
    column="Olympiad",
    group="math",
    source=Rows(
        repository="Hothan/OlympiadBench",
        revision="3b426ee",  # HF
        files=("OE_TO_maths_en_COMP/*.parquet",),
        layout="olympiad",
        num_rows=674,  # HF
    ),
    counts="right",
)
BENCHMARKS = (AIME24, AIME25, AMC, MATH, MINERVA, OLYMPIAD)
