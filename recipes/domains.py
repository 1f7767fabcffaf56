"""The five domains of ProRL, each named once: size, source and how a verdict counts, with the tags of the sources."""

from megatron_rl.config.records import Domain

MATH = Domain(
    name="math",
    num_prompts=40_000,  # P1 Table 4
    source="agentica-org/DeepScaleR-Preview-Dataset",  # MC
    reward="binary",  # P1 Table 4
    accuracy="binary",  # P1 section 3.4
    weight=None,  # chosen: as many as there are; no source names weights
)

DAPO_MATH = Domain(
    name="math",
    num_prompts=17_000,  # JR: by its name
    source="BytedTsinghua-SIA/DAPO-Math-17k",  # JR
    reward="binary",  # JR
    accuracy="binary",  # JR
    weight=None,  # JR: one domain
)

CODE = Domain(
    name="code",
    num_prompts=24_000,  # P1 Table 4
    source="PRIME-RL/Eurus-2-RL-Data",  # MC
    reward="fraction",  # P1 Table 4
    accuracy="binary",  # P1 section 3.4
    weight=None,  # chosen: as many as there are; no source names weights
)

STEM = Domain(
    name="stem",
    num_prompts=25_000,  # P1 Table 4
    source="EricLu/SCP-116K",  # MC
    reward="binary",  # P1 Table 4
    accuracy="binary",  # P1 section 3.4
    weight=None,  # chosen: as many as there are; no source names weights
)

LOGIC = Domain(
    name="logic",
    num_prompts=37_000,  # P1 Table 4
    source="open-thought/reasoning-gym",  # MC
    reward="fraction",  # P1 Table 4
    accuracy="fraction",  # P1 section 3.4
    weight=None,  # chosen: as many as there are; no source names weights
)

INSTRUCT = Domain(
    name="instruct",
    num_prompts=10_000,  # P1 Table 4
    source="nvidia/Llama-Nemotron-Post-Training-Dataset",  # MC
    reward="fraction",  # P1 Table 4
    accuracy="fraction",  # P1 section 3.4
    weight=None,  # chosen: as many as there are; no source names weights
)
