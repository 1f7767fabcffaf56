"""What to run: one RECIPE and its PAGE per module, variants of them, and the scales to run them at.

Every number of a recipe ends with the tag of its source, or with `chosen:` and the reason.

P1   ProRL v1, https://arxiv.org/abs/2505.24864
SU   "Scaling Up RL", https://arxiv.org/abs/2507.12507: the same group and model, known second-hand
MC   model card, https://huggingface.co/nvidia/Nemotron-Research-Reasoning-Qwen-1.5B
B2   "Scaling LLM Reinforcement Learning with Prolonged Training using ProRL v2", https://research.nvidia.com/labs/lpr/prorlv2
BR   BroRL, https://arxiv.org/abs/2510.01180
BB   https://developer.nvidia.com/blog/breaking-through-rl-training-limits-with-scaling-rollouts-in-brorl/
RF   REINFORCE++, https://arxiv.org/abs/2501.03262
DL   DLER, https://arxiv.org/abs/2510.15110: the same group, the same model
JR   JustRL, https://arxiv.org/abs/2512.16649, and the training script of https://github.com/thunlp/JustRL
HF   config.json of the start model, https://huggingface.co/deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B
NR   https://github.com/NVIDIA-NeMo/RL, examples/configs/prorlv2.v2.yaml and grpo_math_1B.yaml, which it extends
OR   https://github.com/OpenRLHF/OpenRLHF, examples/scripts/train_prorlv2_math_hybrid_engine.sh
VE   https://github.com/volcengine/verl: what its PPO trainer does where nothing is set, and examples of its pages
CL   "Demystifying Long Chain-of-Thought", https://arxiv.org/abs/2502.03373: the cosine that B2 links
OI   https://github.com/allenai/open-instruct, scripts/train/olmo3/7b_rlzero_math.sh: Olmo 3 RL-Zero in several versions
GG   Golden Goose, https://arxiv.org/abs/2601.22975: the same group, from ProRL v2's weights
RV   RLVE, https://arxiv.org/abs/2511.07317: from ProRL v2's weights

OR and NR are public configurations under the recipe's name, not the one the released model was trained with: they
stand in for what the paper, the blog and the card leave out.
"""
