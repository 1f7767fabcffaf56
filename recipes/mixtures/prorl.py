"""The prompts of ProRL: five domains to train on, and the five sets that its runs were watched with."""

from megatron_rl.config.mixture import Mixture, Rules, Source

BOXED = " Let's think step by step and output the final answer within \\boxed{}."  # DS
FENCED = (  # EU
    "\n\nWrite Python code to solve the problem. Present the code in \n```python\nYour code\n```\nat the end."
)
TAGGED = "\n\nPut your final answer between <answer> and </answer>."  # P1: the tags; chosen: the words

MIXTURE = Mixture(
    name="prorl",
    version="1.0.0",
    train=(
        Source(
            name="deepscaler",
            domain="math",
            reader="deepscaler",
            repository="agentica-org/DeepScaleR-Preview-Dataset",  # MC
            revision="b6ae8c60f5c1f2b594e2140b91c49c9ad0949e29",  # DS
            files=("deepscaler.json",),  # DS
            licence="MIT",  # DS
            subset=(),
            rows_per_task=None,
            prefix="",
            suffix=BOXED,  # P1 asks for step by step and a box; DS for the words
            published_prompts=40_000,  # P1 Table 4
            max_prompts=None,  # chosen: all that are left
            drops_similar=True,  # chosen: its four sources overlap
        ),
        Source(
            name="eurus",
            domain="code",
            reader="eurus",
            repository="PRIME-RL/Eurus-2-RL-Data",  # MC
            revision="9776b13264b5aaa0b16495fcf086a0a8d86fd655",  # EU
            files=("train*.parquet", "data/train*.parquet"),  # EU
            licence="MIT",  # EU
            subset=(),
            rows_per_task=None,
            prefix="",
            suffix=FENCED,  # P1 asks for triple backticks; EU for the words
            published_prompts=24_000,  # P1 Table 4
            max_prompts=None,  # chosen: all that are left
            drops_similar=True,  # chosen: its four sources share problems
        ),
        Source(
            name="scp",
            domain="stem",
            reader="scp",
            repository="EricLu/SCP-116K",  # MC
            revision="main",  # chosen: no source pins the revision of 274,000 rows; the manifest has the checksum
            files=("*.jsonl", "data/*.parquet"),  # SC
            licence="CC-BY-NC-SA-4.0",  # SC: its first revision was MIT
            subset=(),
            rows_per_task=None,
            prefix="",
            suffix=BOXED,  # chosen: as for math, P1 has no words for it
            published_prompts=25_000,  # P1 Table 4
            max_prompts=25_000,  # P1 Table 4
            drops_similar=True,  # chosen: textbooks repeat each other
        ),
        Source(
            name="reasoning_gym",
            domain="logic",
            reader="reasoning_gym",
            repository="reasoning-gym",  # MC
            revision="0.1.25",  # chosen: the version of the verifiers
            files=(),
            licence="Apache-2.0",  # RY
            subset=(),
            rows_per_task=400,  # chosen: 37,000 / 96 tasks = 386, and some more for what is left out
            prefix="",
            suffix=TAGGED,
            published_prompts=37_000,  # P1 Table 4
            max_prompts=37_000,  # P1 Table 4
            drops_similar=False,  # chosen: the problems of a task share its template; seeds never meet
        ),
        Source(
            name="nemotron",
            domain="instruct",
            reader="nemotron",
            repository="nvidia/Llama-Nemotron-Post-Training-Dataset",  # MC
            revision="ab2a40d258a6a4d9d4c277d702aeea445081766c",  # LN
            files=("RL/instruction_following/instruction_following.jsonl",),  # LN
            licence="CC-BY-4.0",  # LN
            subset=(),
            rows_per_task=None,
            prefix="",
            suffix="",  # P1: no words about the format
            published_prompts=10_000,  # P1 Table 4
            max_prompts=10_000,  # P1 Table 4; chosen: by a draw, it does not say which
            drops_similar=True,  # chosen: queries repeat
        ),
    ),
    # P1 names the five; how many rows of each is not stated.
    validation=(
        Source(
            name="aime_2024",
            domain="math",
            reader="aime",
            repository="HuggingFaceH4/aime_2024",  # P1 names AIME 2024; chosen: this copy
            revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",  # AI
            files=("data/*.parquet",),  # AI
            licence="not stated",  # AI
            subset=(),
            rows_per_task=None,
            prefix="",
            suffix=BOXED,
            published_prompts=None,
            max_prompts=None,
            drops_similar=False,  # chosen: 30 problems
        ),
        Source(
            name="codeforces",
            domain="code",
            reader="eurus",
            repository="PRIME-RL/Eurus-2-RL-Data",  # P1
            revision="9776b13264b5aaa0b16495fcf086a0a8d86fd655",  # EU
            files=("validation*.parquet", "data/validation*.parquet"),  # EU
            licence="MIT",  # EU
            subset=("codeforces",),  # P1
            rows_per_task=None,
            prefix="",
            suffix=FENCED,
            published_prompts=None,
            max_prompts=None,
            drops_similar=False,  # chosen: a test set stays whole
        ),
        Source(
            name="gpqa_diamond",
            domain="stem",
            reader="gpqa",
            repository="Idavidrein/gpqa",  # P1 names a subset of it that has no options
            revision="83022cefff930aea54f654c0b282e74b9eeda5c6",  # GP
            files=("gpqa_diamond.csv",),  # GP
            licence="CC-BY-4.0, gated",  # GP
            subset=(),
            rows_per_task=None,
            prefix="",
            suffix=BOXED,
            published_prompts=None,
            max_prompts=None,
            drops_similar=False,  # chosen: a test set stays whole
        ),
        Source(
            name="graph_color",
            domain="logic",
            reader="reasoning_gym",
            repository="reasoning-gym",  # P1
            revision="0.1.25",  # chosen: the version of the verifiers
            files=(),
            licence="Apache-2.0",  # RY
            subset=("graph_color",),  # P1
            rows_per_task=100,  # P1 section 3.4 has as many for each task in its evaluation
            prefix="",
            suffix=TAGGED,
            published_prompts=None,
            max_prompts=None,
            drops_similar=False,  # chosen: the problems of a task share its template
        ),
        Source(
            name="ifeval",
            domain="instruct",
            reader="ifeval",
            repository="google/IFEval",  # P1
            revision="966cd89545d6b6acfd7638bc708b98261ca58e84",  # IE
            files=("ifeval_input_data.jsonl",),  # IE
            licence="Apache-2.0",  # IE
            subset=(),
            rows_per_task=None,
            prefix="",
            suffix="",
            published_prompts=None,
            max_prompts=None,
            drops_similar=False,  # chosen: a test set stays whole
        ),
    ),
    rules=Rules(
        seed=1,  # chosen: any
        max_prompt_tokens=1024,  # OR, DL
        max_tests=100,  # chosen: a test takes tens of milliseconds of the 5 s that P1 gives all of them
        max_test_bytes=4 * 2**20,  # chosen: what the sandbox takes
        max_tests_bytes=8 * 2**20,  # chosen: a row has to fit into memory on every rank
        shingle_words=3,  # chosen: a changed word changes three runs
        min_similarity=0.8,  # chosen: the usual bound of near duplicates
        num_permutations=126,  # chosen: 21 bands of 6
        num_bands=21,  # chosen: finds 99.8 % of the pairs at 0.8, and looks at 1.5 % of those at 0.3
        overlap_words=13,  # chosen: the usual length
        min_overlap=0.3,  # chosen: the phrases that all contest problems share are less than that
    ),
)
