"""The shell lines of the pages, and how a test runs each: one table, in which every line has one place."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
OF_FOLDERS = [ROOT / "containers" / "README.md", ROOT / "benchmarks" / "README.md"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *OF_FOLDERS]
PAGES += [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "recipes").glob("*.md"))]
NO_PAGES = {"CHANGELOG.md": "says what has changed since when, and nothing to type"}
PROGRAMS = (
    r"megatron-rl|make|python3?(?:\.\d+)?|\.venv/\S+|sbatch|srun|scancel|scontrol|squeue|sacct|hf|pip|uv|docker|enroot"
    r"|apptainer|sudo|apt-get|git|cp|grep|source|unset|export|ssh|nemorun|pytest|slurm/\S+\.sh|containers/\S+\.sh"
    r"|benchmarks/\S+\.py|/tmp/lock/\S+|launch\.py"
)
BEGINS = re.compile(rf"(?:\w+=\S* )*(?:{PROGRAMS})(?= |$)")
# What a block shows in place of commands: the beginnings of its lines.
OUTPUTS = ("17:03:02 INFO step", "...", "prorl_v2 2.1.0 at scale cpu:", "accuracy ", "run directory ", "step 17/3000")

# Given in this order in one folder, by tests/docs/test_journey.py; the trainings are short ones.
JOURNEY = (
    "make demo",
    "megatron-rl report runs/demo",
    "megatron-rl watch runs/demo --once",
    "megatron-rl watch runs/demo",
    "megatron-rl evaluate runs/demo --suite mini",
    "megatron-rl track runs/demo --to tensorboard",
    "megatron-rl track runs/demo --to wandb",
    "megatron-rl track runs/demo --to mlflow",
    "megatron-rl trace runs/demo --to trace.json",
    "megatron-rl trace runs/demo --steps 10:12 --to trace.json",
    "megatron-rl train prorl_v2 --scale cpu --directory runs/warm --set sampling.temperature=1.2",
    "megatron-rl report runs/demo runs/warm",
    "megatron-rl report runs/demo runs/warm --to runs/both.html",
    "megatron-rl train prorl_v2 --scale cpu_tp2_pp2",
    "megatron-rl train prorl_v2 --scale cpu --directory runs/v2",
    "megatron-rl train brorl --scale cpu --parent runs/v2 --directory runs/brorl",
    "megatron-rl export runs/v2 --to policy",
    "megatron-rl export runs/v2 --to policy --push me/policy",
    "megatron-rl export runs/demo --to policy --push me/policy",
    "megatron-rl train prorl_v2 --scale cpu --directory runs/tracked --set run.track=tensorboard",
    "megatron-rl train grpo_control --domains my_rewards.py:Sum --scale cpu --set run.data_folder=demo/own_reward",
    "megatron-rl train prorl_v2 --scale cpu --set sampling.difficulty.memory=0.5 "
    "--set sampling.difficulty.easy_rate=0.9 --set sampling.difficulty.min_probability=0.25",
)
SERVES = "megatron-rl watch runs/demo --serve 8000"  # there too
# In a folder each, by tests/test_campaign_run.py; the trainings are short ones.
CAMPAIGN = "megatron-rl campaign --scale cpu --directory runs/all"
SIDE_BY_SIDE = "megatron-rl campaign prorl_v2 brorl brorl_control_n16 dler --scale cpu --directory runs/side_by_side"
# From a hub on this machine, which has a few rows of every source, by tests/docs/test_hub.py.
PREPARE = "megatron-rl data prepare prorl --to data/prorl"
DOWNLOAD = "hf download deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"

# Fast, in this process, by test_commands.py.
CHECKS = r"megatron-rl check (?!.*--strict).*"
# A process each, by test_commands.py: they take seconds, and train nothing.
SHOWS = (
    r"megatron-rl (estimate|recipe new|doctor|verify|theory)( (?!.*[A-Z]{4}).*)?",
    r"PYTHONHASHSEED=0 python -m megatron_rl\.data\.logic_tasks --split held_out .*",
    r"python benchmarks/gpu\.py --results gpu\.jsonl",
)
# The words are given to the script's own parser, by tests/benchmarks/test_lines.py; those that take seconds run there,
# too, as written or with what their row says makes them short. The others take minutes on a machine of their own.
SCRIPT = r"(\.venv/bin/python |python )?benchmarks/(?!gpu\.py --results)\w+\.py.*"
# By tests/containers/test_locks.py: beside the image's own lines, and on the environment that the lock has made.
CUDA = (
    r"grep -v '\^transformer-engine-torch==' containers/cuda\.lock \| .*",
    r"export CUDNN_HOME=.*",
    r"CPATH=.* pip install .*",
    r"pip install --no-deps --no-build-isolation -e \.",
)
FREEZE = r"(/tmp/lock/bin/)?pip freeze .*"
# Of a line that cannot come to its end here: what it says where it stops, by test_commands.py.
UP_TO = {
    "megatron-rl train brorl --scale gpu1 --parent nvidia/Nemotron-Research-Reasoning-Qwen-1.5B@main": (
        "run `hf download nvidia/Nemotron-Research-Reasoning-Qwen-1.5B --revision main`"
    ),  # 3 GB, and a GPU
    "megatron-rl train prorl_v2 --scale gpu1 --set run.data_folder=data/prorl --set num_steps=20 "
    "--directory runs/first": "run `hf download deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B`",  # 3 GB, and a GPU
}
# On the private Slurm, by tests/slurm/test_page_jobs.py; some by other tests, as said.
SLURM = (
    r"(SCALE=\S+ RUN_DIR=\S+ NCCL_DEBUG=INFO )?sbatch (?!.*(\.\.\.|\b[A-Z]{4,}\b)).*slurm/(prorl_v2|brorl)\.sh.*",
    r"srun --account.* python -m megatron_rl doctor",
    r"(cp|source) slurm/site\.env.*",
    r"squeue --me|scontrol show job",
    r"\.venv/login/bin/python -m megatron_rl check .*--strict",  # tests/slurm/test_page.py
    r"srun .* megatron-rl evaluate .*",
    r"\.venv/nemo_run/bin/python slurm/launch\.py .*",  # tests/slurm/test_launch_script.py, test_training.py
    r"launch\.py recipes/mine\.py --allow-dirty",  # tests/slurm/test_training.py
)
# Not run by a test, and why.
NOT_RUN = {
    r"(sudo )?apt-get install .*": "changes the machine; .ci/run installs what is missing",
    r"pip install (tensorboard|huggingface_hub)": "changes the environment; both are in the locks",
    r"python3 -m venv \.venv/login && .*": "installs from the package index",
    r"containers/setup_nemo_run\.sh": "installs from the package index; .ci/run does",
    r"(docker (build|run)|enroot import|apptainer build) .*": "needs docker, enroot or Apptainer, and an image",
    r"git clone .*": "the address is the reader's",
    r"source \.venv/bin/activate": "begins every line that is run",
    r"hf auth login": "asks for a secret",
    r"make (lint types )?test|pytest -m slurm": "this is a part of it",
    r"PYTHON=/path/to/python3\.11 make setup": "the path is the reader's; tests/containers/test_setup.py gives one",
    r"containers/compat\.sh tests/actor": "downloads 4 GB; `make compat` is a part of each release",
    r"python3\.\d+ -m venv (/tmp/lock|\.venv-cuda && .*)": "begins what downloads 4 GB",
    r"/tmp/lock/bin/pip (un)?install .*": "resolves anew, from the package index, what cpu.lock holds",
    r"uv pip compile .*": "resolves anew, from the package index, what cuda.lock holds",
    r"pip install nemo-run==.*": "resolves anew, from the package index, what nemo_run.lock holds; a test has its pins",
    r"python docs/recipes/make\.py": "writes what tests/recipes/test_pages.py compares with",
    r"nemorun (experiment list|megatron_rl prorl_v2 scale=h100x32 --yes)": "NeMo-Run's; it starts what launch.py does",
    r"GRACE_SECONDS=3500 sbatch --signal=B:USR1@3600 ...": "a part of a line",
    r"sbatch --export=ALL ...": "a part of a line",
    r"unset NVTE_FLASH_ATTN .*": "a line for the site's own file",
    r"python -m tests\.data\.make_sources": "writes what tests/data compares with",
    # 247 s of computing in reasoning-gym's own generators, two thirds of it in knight_swap's and futoshiki's.
    r".*logic_tasks --split train .*": "takes 140 s on two cores; the line below it is the same for the other split",
}


def blocks_and_prose(text: str) -> tuple[list[list[str]], str]:
    """The lines of each block of code without a language, and the text outside of all blocks."""
    blocks: list[list[str]] = []
    prose: list[str] = []
    language: str | None = None  # of the block that is open
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            if language is None:
                blocks += [[]] if line == "```" else []
            language = line[3:] if language is None else None
        elif language is None:
            prose.append(line)
        elif language == "":
            blocks[-1].append(" ".join(line.split("  #")[0].split()))
    return blocks, "\n".join(prose)


def commands_of(page: Path) -> list[str]:
    """What stands in blocks, and what stands in the text as code, begins as a command and has words behind it."""
    blocks, prose = blocks_and_prose(page.read_text(encoding="utf-8"))
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    lines = [line for block in blocks for line in block if not line.startswith(OUTPUTS)]
    lines += [
        code
        for code in inline
        if BEGINS.match(code) and (re.search(r" -| \S+/\S+|^benchmarks/", code) or len(code.split()) > 2)
    ]
    return list(dict.fromkeys(lines))


def is_filled_in(line: str) -> bool:
    """Whether a word of it stands for what the reader puts there: NODE, or three points.

    >>> is_filled_in("scancel JOB"), is_filled_in('RUN_DIR=runs/a srun --time="$TIME" --signal=B:USR1@300 doctor')
    (True, False)
    """
    without = re.sub(r"^(\w+=\S* )+", "", line)
    return re.search(r"\.\.\.|(?<![$\w])[A-Z][A-Z_]+\b", without) is not None


PLACES: dict[str, tuple[str, ...]] = {
    "journey": tuple(map(re.escape, (*JOURNEY, SERVES))),
    "campaign": tuple(map(re.escape, (CAMPAIGN, SIDE_BY_SIDE))),
    "hub": (r"megatron-rl data prepare .* --to .*", r"(HF_\w+=\S+ )*hf download \w+.*"),
    "checks": (CHECKS,),
    "shows": SHOWS,
    "up to": tuple(map(re.escape, UP_TO)),
    "slurm": SLURM,
    "scripts": (SCRIPT,),
    "locks": (*CUDA, FREEZE),
    "named": (r"megatron-rl data prepare \w+", r"hf download --local-dir", r"python -m megatron_rl train"),
    "not run": tuple(NOT_RUN),
}


def places_of(line: str) -> list[str]:
    """The places that a line has in the table; that of the reader where it has no other."""
    found = [name for name, patterns in PLACES.items() if any(re.fullmatch(one, line) for one in patterns)]
    return found or (["the reader"] if is_filled_in(line) else [])


COMMANDS = [(str(page.relative_to(ROOT)), line) for page in PAGES for line in commands_of(page)]


def lines_in(place: str) -> list[str]:
    """The lines of a place, each once, in the order of the pages."""
    return list(dict.fromkeys(line for _, line in COMMANDS if place in places_of(line)))
