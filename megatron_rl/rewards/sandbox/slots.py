"""One spare user per confined process of a node: claimed by a name that the kernel frees when its owner dies."""

from __future__ import annotations

import os
import pwd
import socket

FIRST_UID, NUM_UIDS = 62_000, 1_000  # below 65,536, which is all that some containers map


def claim_user() -> tuple[int, socket.socket] | str:
    """A user that no account and no other claim on this node has, held while the socket is open; or why there is none.

    The claim is an abstract socket name: it leaves no file, and any ranks and jobs of one network namespace share it.
    """
    if os.geteuid() != 0:
        return "only root can change its user"
    start = os.getpid() % NUM_UIDS  # neighbours do not try the same names in the same order
    for offset in range(NUM_UIDS):
        uid = FIRST_UID + (start + offset) % NUM_UIDS
        if _has_account(uid):
            continue
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0megatron-rl-user-{uid}")
        except OSError:
            claim.close()
        else:
            return uid, claim
    return f"users {FIRST_UID} to {FIRST_UID + NUM_UIDS - 1} are all taken"


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
