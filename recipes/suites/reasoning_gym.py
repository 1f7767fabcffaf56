"""Reasoning Gym: 100 held-out problems of each of its 96 tasks, by category, and of tasks never trained on."""

from megatron_rl.config.suites import Benchmark, Made, Scorer

NUM_PER_TASK = 100  # P1 section 3.4
SCORERS: tuple[Scorer, ...] = ("ours", "as_published")
NOTES = (
    "The published figures come from reasoning-gym's own scorers, which pay for some wrong answers: compare the line "
    "as_published with them.",
)
# The categories of the papers, whose tasks data/logic_tasks.py lists.
CATEGORIES = tuple(
    Benchmark(
        name=f"gym_{category}",
        title=f"Reasoning Gym: {category}",
        column=f"Reasoning Gym {category}",
        group="logic",
        source=Made(tasks=category, num_per_task=NUM_PER_TASK),
        counts="share",
        scorers=SCORERS,
        notes=NOTES,
    )
    for category in (
        "algebra",
        "algorithmic",
        "arc",
        "arithmetic",
        "code",
        "cognition",
        "games",
        "geometry",
        "graphs",
        "induction",
        "logic",
    )
)
OUT_OF_DISTRIBUTION = tuple(
    Benchmark(
        name=task,
        title=f"{task} (never trained on)",
        column=task,
        group="other",
        source=Made(tasks=task, num_per_task=NUM_PER_TASK),
        counts="share",
        scorers=SCORERS,
        notes=NOTES,
    )
    for task in ("acre", "boxnet", "game_of_life_halting")
)
GRAPH_COLOR = Benchmark(
    name="graph_color",
    title="Reasoning Gym: graph_color",
    column="",
    group="logic",
    source=Made(tasks="graph_color", num_per_task=NUM_PER_TASK),
    counts="share",
    scorers=SCORERS,
    notes=NOTES,
)
EIGHTEEN = Benchmark(
    name="gym_eighteen",
    title="Reasoning Gym: 18 of its tasks",
    column="",
    group="logic",
    source=Made(
        tasks="letter_counting maze palindrome_generation dice graph_color string_synthesis word_ladder countdown "
        "simple_equations base_conversion arc_1d bf number_sequence sudoku advanced_geometry shortest_path "
        "list_functions knights_knaves",
        num_per_task=NUM_PER_TASK,
    ),
    counts="share",
    scorers=SCORERS,
    notes=(*NOTES, "The paper drew 18 tasks at random and names a few of them: those, and one of each category."),
)
