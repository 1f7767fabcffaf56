"""The prompts of JustRL: DAPO-Math-17k to train on, AIME 2024 of the three sets that it was watched with."""

from megatron_rl.config.mixture import Mixture, Rules, Source

# JR puts them behind DAPO's own words, which ask for a line `Answer:` and are taken off here.
BOXED = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."  # JR

MIXTURE = Mixture(
    name="justrl",
    version="1.0.0",
    train=(
        Source(
            name="dapo",
            domain="math",
            reader="dapo",
            repository="BytedTsinghua-SIA/DAPO-Math-17k",  # JR
            revision="65877096c24ffa7abc4e4fa5edb95cf3413a5674",  # chosen: the newest then; JR pins none
            files=("data/*.parquet", "*.parquet"),  # DM
            licence="Apache-2.0",  # DM
            subset=(),
            rows_per_task=None,
            prefix="",
            suffix=BOXED,
            published_prompts=17_000,  # JR: by its name
            max_prompts=None,  # JR: without filtering
            drops_similar=True,  # chosen: the file repeats its problems
        ),
    ),
    validation=(
        Source(
            name="aime_2024",
            domain="math",
            reader="aime",
            repository="HuggingFaceH4/aime_2024",  # JR names AIME 2024; chosen: this copy
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
    ),
    rules=Rules(
        seed=1,  # chosen: any
        max_prompt_tokens=1024,  # JR
        max_tests=100,  # chosen: has no meaning here, as in prorl
        max_test_bytes=4 * 2**20,  # chosen: has no meaning here, as in prorl
        max_tests_bytes=8 * 2**20,  # chosen: has no meaning here, as in prorl
        shingle_words=3,  # chosen: a changed word changes three runs
        min_similarity=0.8,  # chosen: the usual bound of near duplicates
        num_permutations=126,  # chosen: 21 bands of 6
        num_bands=21,  # chosen: finds 99.8 % of the pairs at 0.8, and looks at 1.5 % of those at 0.3
        overlap_words=13,  # chosen: the usual length
        min_overlap=0.3,  # chosen: the phrases that all contest problems share are less than that
    ),
)
