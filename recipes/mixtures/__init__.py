"""Which prompts are trained on: one MIXTURE per module, with the words put round each problem.

Every number ends with the tag of its source, or with `chosen:` and the reason. The tags of the papers are in
`recipes/__init__.py`; those of the data sets are:

DS   agentica-org/DeepScaleR-Preview-Dataset, and the prompt of its own training code, which verl's is too
EU   PRIME-RL/Eurus-2-RL-Data, its card and the code of PRIME-RL/PRIME
DM   BytedTsinghua-SIA/DAPO-Math-17k and its card
SC   EricLu/SCP-116K and its card
LN   nvidia/Llama-Nemotron-Post-Training-Dataset and its card
RY   reasoning-gym
GP   Idavidrein/gpqa
IE   google/IFEval
AI   HuggingFaceH4/aime_2024
"""
