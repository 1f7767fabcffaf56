"""One spare user per confined process of a node: one that no account, no other of them and no other process has.

Two processes of one user would share the kernel's limit of tasks, and could be ended by one another. A claim is an
abstract socket name, which the kernel frees when its owner dies, however it does. A container with a network of its own
cannot see those names: what has become a user asks the kernel, too, whether it is alone (`layers.py`).
"""

from __future__ import annotations

import os
import pwd
import random
import socket
from collections.abc import Iterator

FIRST_UID, NUM_UIDS = 62_000, 3_000  # below 65,536, which is all that some containers map
MOST_TRIED = 20  # chosen: as many in a row are not found taken by chance, and each costs a process's start
ALL_TAKEN = f"users {FIRST_UID} to {FIRST_UID + NUM_UIDS - 1} are all taken; end other runs on this node"
NONE_ALONE = (
    f"of {MOST_TRIED} users from {FIRST_UID} to {FIRST_UID + NUM_UIDS - 1} none is alone, or no process can start; "
    "end other runs on this node, or raise its limit of processes"
)


def spare_users(held: list[socket.socket]) -> Iterator[int | str]:
    """Users that no account and no other claim has, each claimed as it is taken; at last why there is no other.

    `held` is given the claims, which last until those sockets are closed.
    """
    if os.geteuid() != 0:
        yield "only root can change its user"
        return
    # In an order of its own: containers that cannot see each other's claims would meet again and again.
    for uid in random.SystemRandom().sample(range(FIRST_UID, FIRST_UID + NUM_UIDS), NUM_UIDS):
        if _has_account(uid):
            continue
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0megatron-rl-user-{uid}")
        except OSError:
            claim.close()
        else:
            held.append(claim)
            yield uid
            if len(held) == MOST_TRIED:
                yield NONE_ALONE
                return
    yield ALL_TAKEN


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
