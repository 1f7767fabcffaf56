"""What is evaluated: the benchmarks of the papers by family, and suites of them. A suite imports no recipe.

Every number ends with the tag of its source, or with `chosen:` and the reason. The tags of recipes/__init__.py, and

HF   the data set's own page, card or files on Hugging Face
EU   PRIME-RL/PRIME: the card of Eurus-2-RL-Data, and its readers
LC   LiveCodeBench/LiveCodeBench: its readers and ERRATA.md
"""
