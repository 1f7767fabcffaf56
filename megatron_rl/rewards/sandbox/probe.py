"""Which layers hold on this machine: a program tries to get round each of them."""

from __future__ import annotations

import json
import os

from megatron_rl.rewards.sandbox.layers import LAYERS, Level
from megatron_rl.rewards.sandbox.run import Sandbox, SandboxError

SECONDS = 10.0

_PROGRAM = """
def failed_layers(uid, supervisor, group):
    import os, resource, socket

    failed = set()

    def attempt(layer, action, *arguments):
        try:
            action(*arguments)
        except (OSError, ValueError):
            return
        failed.add(layer)

    attempt("rlimits", resource.setrlimit, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    attempt("rlimits", resource.setrlimit, resource.RLIMIT_FSIZE, (1, 1))
    attempt("landlock", os.listdir, "/")
    attempt("landlock", open, "/etc/passwd")
    attempt("seccomp", socket.socket)
    attempt("seccomp", os.kill, os.getpid(), 0)
    attempt("seccomp", os.execv, "/bin/true", ["true"])
    if os.getuid() == uid:
        failed.add("uid")
    try:  # processes outside are hidden
        if os.getpgid(supervisor) == group:
            failed.add("bubblewrap")
    except ProcessLookupError:
        pass
    return sorted(failed)
"""


def probe() -> Level:
    """The level that programs run at here: the layers that could be applied and that a program could not get round."""
    try:
        with Sandbox(allows_unsafe=True) as sandbox:
            me = [os.getuid(), os.getpid(), os.getpgrp()]
            execution = sandbox.run(_PROGRAM, function="failed_layers", calls=[me], seconds=SECONDS)
            missing = dict(sandbox.level.missing)
    except (OSError, SandboxError) as error:
        return Level(missing=dict.fromkeys(LAYERS, str(error)))
    if not execution.is_clean:
        return Level(missing=dict.fromkeys(LAYERS, f"the probe ended with status {execution.status}"))
    for layer in json.loads(execution.value):
        missing.setdefault(layer, "it was applied, but a program got round it")
    return Level(missing=missing)
