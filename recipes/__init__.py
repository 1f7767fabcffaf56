"""What to run: one RECIPE and its PAGE per module, variants of them, and the scales to run them at.

Every number of a recipe ends with the tag of its source, or with `chosen:` and the reason.

P1   ProRL v1, arXiv 2505.24864
SU   "Scaling Up RL", arXiv 2507.12507: the same group and model, known second-hand
MC   model card of nvidia/Nemotron-Research-Reasoning-Qwen-1.5B
B2   NVIDIA technical blog, "Scaling LLM Reinforcement Learning with Prolonged Training using ProRL v2"
BR   BroRL, arXiv 2510.01180
BB   NVIDIA technical blog on BroRL
RF   REINFORCE++, arXiv 2501.03262
DL   DLER, arXiv 2510.15110: the same group, the same model
JR   JustRL, arXiv 2512.16649, and the training script of thunlp/JustRL
HF   config.json of the start model on Hugging Face
NR   NVIDIA-NeMo/RL, examples/configs/prorlv2.v2.yaml and grpo_math_1B.yaml, which it extends
OR   OpenRLHF, examples/scripts/train_prorlv2_math_hybrid_engine.sh
VE   verl: what its PPO trainer does where nothing is set, and the examples of its documentation

OR and NR are public configurations under the recipe's name, not the one the released model was trained with: they
stand in for what the paper, the blog and the card leave out.
"""
