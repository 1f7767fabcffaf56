"""Runs Python programs that a model wrote, on this machine, without a container.

`run.py` starts a clean process, the zygote (`zygote.py`), before anything secret is near; it confines itself
(`layers.py`) and forks for each program (`program.py`), which may then compute, read Python's own folders, read its
input and write its output, and nothing else: one process, no files, no sockets, no signals to others. That leaves no
process tree to hunt and no disk to watch: the address space of one process is all the memory there is, and the
supervisor in `run.py` holds time and output. `probe.py` shows by trying which layers hold on this machine.

Covered by a test each: see `tests/rewards/attacks.py`.
Not covered: bugs of the kernel, side channels through time and caches, a machine without seccomp; kernels before 6.12
have no Landlock scopes and before 6.7 no Landlock network rules (seccomp denies the same calls). The aarch64 numbers
come from the kernel's headers and have not been run.
"""
