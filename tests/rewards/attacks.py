"""Attacks on the sandbox, and a program that runs them all in one: `python attacks.py MODE` prints JSON.

Each attack prints ESCAPED where it succeeds. MODE is `root`, `user` (an ordinary one), `no_namespaces` (root, where the
kernel refuses namespaces and mounts, as in most containers), `no_landlock` (root, on an old kernel) or `bare`: without
a sandbox, which shows that the attacks would succeed. Uses the standard library and the sandbox alone, so that any
interpreter can run it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

SECRET = "the-secret-of-the-trainer"
NOBODY = 65534
SECONDS = 0.5

_START = """
import ctypes, os, resource, signal, socket, sys, time
kernel = ctypes.CDLL(None, use_errno=True)
def escaped(*what): os.write(1, f"ESCAPED {what}\\n".encode())
"""

# Those that would harm the machine if nothing stopped them, and those that only a limit of the sandbox ends.
HARMFUL = {
    "fork bomb": """
for count in range(300):
    if os.fork() == 0: time.sleep(5); os._exit(0)
escaped(count)
""",
    "thread bomb": """
import threading
threading.stack_size(32768)
try:
    while True: threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
except RuntimeError:
    if threading.active_count() > 5000: escaped(threading.active_count())
""",
    "memory, one process": "kept = [bytearray(64 << 20) for _ in range(40)]; escaped()",
    "memory, five processes": """
for _ in range(5):
    if os.fork() == 0: kept = [bytearray(50 << 20) for _ in range(10)]; escaped(); time.sleep(1); os._exit(0)
time.sleep(0.5)
""",
    "memory, shared": "import mmap; kept = [mmap.mmap(-1, 64 << 20) for _ in range(40)]; escaped()",
    "memory after raising the limits": """
for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
    try: resource.setrlimit(which, (-1, -1))
    except (ValueError, OSError): pass
kept = [bytearray(64 << 20) for _ in range(40)]; escaped()
""",
    "infinite loop": "while True: pass",
    "sleep with signals ignored": """
for which in (1, 2, 3, 15, signal.SIGXCPU): signal.signal(which, signal.SIG_IGN)
time.sleep(60); escaped()
""",
    "one big number": "9 ** 9 ** 9; escaped()",
    "output without end": "while True: sys.stdout.write('x' * (1 << 20))",
    "disk, one file": "open('/tmp/sandbox-attack', 'wb').write(bytes(300 << 20)); escaped()",
    "disk, many files": "for i in range(10): open(f'/tmp/sandbox-attack{i}', 'wb').write(bytes(40 << 20)); escaped()",
    "shared memory folder": "open('/dev/shm/sandbox-attack', 'wb').write(bytes(1 << 20)); escaped()",
    "kills all it may": "os.kill(-1, 9); escaped()",
    "changes the clock": "time.clock_settime(time.CLOCK_REALTIME, time.time()); escaped()",
}

HARMLESS = {
    "descriptors": "kept = [os.open('/dev/null', 0) for _ in range(5000)]; escaped()",
    "TCP": "socket.create_connection(('127.0.0.1', @PORT@), 1).send(b'x'); escaped()",
    "UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9)); escaped()",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); escaped()",
    "abstract socket": "socket.socket(socket.AF_UNIX).connect('\\0@NAME@'); escaped()",
    "socket file": "socket.socket(socket.AF_UNIX).connect('@FOLDER@/socket'); escaped()",
    "socket file, from a pair": "socket.socketpair(1, 2)[0].sendto(b'x', '@FOLDER@/datagrams'); escaped()",
    "socket file, by a message": "socket.socketpair(1, 2)[0].sendmsg([b'x'], [], 0, '@FOLDER@/datagrams'); escaped()",
    "abstract socket, from a pair": "socket.socketpair(1, 2)[0].sendto(b'x', '\\0@NAME@-datagrams'); escaped()",
    "reads /etc/passwd": "open('/etc/passwd').read(); escaped()",
    "reads a file of the trainer": "open('@FOLDER@/private').read(); escaped()",
    "reads a file that all may read": "open('@FOLDER@/public').read(); escaped()",
    "reads the tests": "open('@TESTS@').read(); escaped()",
    "finds files": "os.listdir('@FOLDER@'); escaped()",
    "own environment": "if '@SECRET@' in str(os.environ): escaped()",
    "own environment, the kernel's": "if b'@SECRET@' in open('/proc/self/environ', 'rb').read(): escaped()",
    "the trainer's environment": """
for process in (@VICTIM@, @TRAINER@, os.getppid()):
    try:
        if b'@SECRET@' in open(f'/proc/{process}/environ', 'rb').read(): escaped()
    except OSError: pass
""",
    "the trainer's memory": """
class Piece(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
here = ctypes.create_string_buffer(8)
for process in (@VICTIM@, @TRAINER@):
    try:
        for line in open(f'/proc/{process}/maps'):
            address = int(line.split('-')[0], 16)
            local, remote = Piece(ctypes.addressof(here), 8), Piece(address, 8)
            if kernel.process_vm_readv(process, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) > 0: escaped()
    except OSError: pass
""",
    "lists processes": "if len([name for name in os.listdir('/proc') if name.isdigit()]) > 1: escaped()",
    "writes where all may": "open('@FOLDER@/shared/new', 'w').write('x'); escaped()",
    "truncates where all may": "os.close(os.open('@FOLDER@/shared/file', os.O_WRONLY | os.O_TRUNC)); escaped()",
    "makes an empty file": "os.close(os.open('@FOLDER@/shared/empty', os.O_CREAT)); escaped()",
    "makes a folder": "os.mkdir('@FOLDER@/shared/folder'); escaped()",
    "makes a link": "os.symlink('/etc/passwd', '@FOLDER@/shared/link'); escaped()",
    "makes a pipe file": "os.mkfifo('@FOLDER@/shared/pipe'); escaped()",
    "renames a file": "os.rename('@FOLDER@/shared/file', '@FOLDER@/shared/other'); escaped()",
    "removes a file": "os.unlink('@FOLDER@/shared/doomed'); escaped()",
    "changes a file's mode": "os.chmod('@FOLDER@/shared/file', 0o777); escaped()",
    "kills the trainer": "for process in (@VICTIM@,): os.kill(process, 9); escaped()",
    "kills the trainer, by thread": "if kernel.tgkill(@VICTIM@, @VICTIM@, 9) == 0: escaped()",
    "kills the trainer, by a descriptor's owner": """
import fcntl
reading, writing = os.pipe()
fcntl.fcntl(reading, 10, 9)  # F_SETSIG
fcntl.fcntl(reading, 8, @VICTIM@)  # F_SETOWN
fcntl.fcntl(reading, fcntl.F_SETFL, fcntl.fcntl(reading, fcntl.F_GETFL) | os.O_ASYNC)
os.write(writing, b'x'); escaped()
""",
    "slows the trainer": "os.setpriority(os.PRIO_PROCESS, @VICTIM@, 19); escaped()",
    "pins the trainer": "os.sched_setaffinity(@VICTIM@, {0}); escaped()",
    "limits the trainer": "resource.prlimit(@VICTIM@, resource.RLIMIT_CORE, (0, 0)); escaped()",
    "traces the trainer": "if kernel.ptrace(0x4206, @VICTIM@, 0, 0) == 0: escaped()",
    "inherited descriptors": """
for number in range(4, 256):
    try: os.fstat(number)
    except OSError: continue
    escaped(number)
""",
    "runs a program": "os.execv('/bin/sh', ['sh', '-c', 'echo ESCAPED'])",
    "a daemon that survives": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(3); os._exit(0)
    os._exit(0)
escaped()
""",
    "outlives its parent": "if kernel.prctl(1, 0, 0, 0, 0) == 0: escaped()",
    "a user namespace": "if kernel.unshare(0x10000000 | 0x20000) == 0: escaped()",
    "a namespace by clone": """
child = kernel.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)
if child == 0: os._exit(0)
if child > 0: escaped()
""",
    "becomes root": "if os.getuid() != 0: os.setuid(0)\nos.setgid(0); escaped()",
    "memory that is no process": "if kernel.memfd_create(b'x', 0) >= 0: escaped()",
    "shared memory of System V": "if kernel.shmget(0, 4096, 0o1600) >= 0: escaped()",
    "keyring": "if kernel.syscall(250, 0, -3, 1) >= 0: escaped()",
    "io_uring": "if kernel.syscall(425, 8, ctypes.create_string_buffer(512)) >= 0: escaped()",
    "a signal for its own process": "os.kill(os.getpid(), 0); escaped()",
}

ATTACKS = HARMFUL | HARMLESS
# A user of its own may still look at what every user of a machine may look at.
OPEN_WITHOUT_LANDLOCK = {
    "reads /etc/passwd", "reads a file that all may read", "reads the tests", "finds files", "lists processes",
}  # fmt: skip
MUST_ESCAPE_WHEN_BARE = set(HARMLESS) - {  # what this kernel refuses or the interpreter's start leaves nothing of
    "inherited descriptors", "io_uring", "the trainer's memory", "own environment, the kernel's",
}  # fmt: skip


@contextlib.contextmanager
def targets() -> Iterator[dict[str, object]]:
    """What there is to attack: a trainer with a secret, files, and sockets that somebody listens on."""
    os.environ["SECRET"] = SECRET
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        for name, mode in (("private", 0o600), ("public", 0o644)):
            (folder / name).write_text(SECRET)
            (folder / name).chmod(mode)
        (folder / "shared").mkdir()
        (folder / "shared").chmod(0o777)
        for name in ("file", "doomed"):
            (folder / "shared" / name).write_text("kept")
            (folder / "shared" / name).chmod(0o666)
        os.set_inheritable(os.open(folder / "private", os.O_RDONLY), True)
        name = f"attacked-{os.getpid()}"
        listeners = [socket.create_server(("127.0.0.1", 0))]
        for address in (f"\0{name}", str(folder / "socket")):
            listeners.append(socket.socket(socket.AF_UNIX))
            listeners[-1].bind(address)
            listeners[-1].listen()
        for address in (f"\0{name}-datagrams", str(folder / "datagrams")):
            listeners.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            listeners[-1].bind(address)
        for socket_file in ("socket", "datagrams"):
            (folder / socket_file).chmod(0o777)
        victim = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(1000)"])
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        yield {
            "PORT": listeners[0].getsockname()[1],
            "NAME": name,
            "FOLDER": folder,
            "SECRET": SECRET,
            "TESTS": Path(__file__).resolve(),
            "VICTIM": victim.pid,
            "TRAINER": os.getpid(),
            "victim": victim,
        }


def filled(source: str, values: Mapping[str, object]) -> str:
    """An attack with the places of its targets."""
    for name, value in values.items():
        source = source.replace(f"@{name}@", str(value))
    return _START + source


def damage(folder: Path, victim: subprocess.Popen[bytes]) -> list[str]:
    """What an attack has done that outlasts it."""
    found = []
    if victim.poll() is not None:
        found.append("the victim is dead")
    if os.getpriority(os.PRIO_PROCESS, victim.pid) != os.getpriority(os.PRIO_PROCESS, 0):
        found.append("the victim is slowed")
    if sorted(path.name for path in (folder / "shared").iterdir()) != ["doomed", "file"]:
        found.append("the folder has changed")
    if (folder / "shared" / "file").read_text() != "kept":
        found.append("the file has changed")
    for left in (*Path("/tmp").glob("sandbox-attack*"), *Path("/dev/shm").glob("sandbox-attack*")):
        found.append(f"{left} is left")
    return found


def deny_namespaces() -> None:
    """What the default seccomp profile of Docker does to a process without CAP_SYS_ADMIN."""
    from megatron_rl.rewards.sandbox import seccomp, syscalls

    namespaces = 0x7E020000
    denied = seccomp._deny(syscalls.numbers(syscalls._NAMESPACES_AND_MOUNTS))
    seccomp._load(
        seccomp._finished(denied + seccomp._deny_all("clone3", 38) + seccomp._deny_bits("clone", 0, namespaces))
    )


def deny_landlock() -> None:
    """A kernel from before Landlock."""
    from megatron_rl.rewards.sandbox import seccomp

    calls = b"".join(seccomp._instruction(0x15, number, 0, 1) + seccomp._fail(38) for number in (444, 445, 446))
    seccomp._load(seccomp._finished(calls))


def in_sandbox() -> dict[str, object]:
    """Each attack's traces, what all of them left, and the level they were run at."""
    from megatron_rl.rewards.sandbox.run import MAX_OUTPUT_BYTES, Sandbox

    traces: dict[str, list[str]] = {}
    with targets() as values, Sandbox() as sandbox:
        for name, source in ATTACKS.items():
            began = time.monotonic()
            execution = sandbox.run(filled(source, values), seconds=SECONDS)
            found = [line for line in execution.output.decode(errors="replace").splitlines() if "ESCAPED" in line]
            if time.monotonic() - began > SECONDS + 2:
                found.append("it took too long")
            if len(execution.output) > MAX_OUTPUT_BYTES + (1 << 16):
                found.append("too much output")
            traces[name] = found + damage(Path(str(values["FOLDER"])), values["victim"])
        level = sandbox.level
        usage = peak_kib()
    return {"traces": traces, "present": level.present, "left": left_behind(), "supervisor_kib": usage}


def peak_kib() -> int:
    """The most memory this process had; getrusage would count its parent's, from before it ran this program."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def bare() -> dict[str, object]:
    """The harmless attacks as ordinary processes, each on targets of its own."""
    traces = {}
    for name in sorted(MUST_ESCAPE_WHEN_BARE):
        with targets() as values:
            program = [sys.executable, "-c", filled(HARMLESS[name], values)]
            done = subprocess.run(program, capture_output=True, text=True, timeout=30, close_fds=False)
            traces[name] = [line for line in done.stdout.splitlines() if "ESCAPED" in line]
    return {"traces": traces}


def left_behind() -> list[str]:
    """The processes below this one, which should be none, and its threads."""
    below = [
        int(word) for task in Path("/proc/self/task").iterdir() for word in (task / "children").read_text().split()
    ]
    left = [Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ") for child in below]
    return left + [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]


def main() -> None:
    """Runs the attacks in the mode named by the first argument."""
    mode = sys.argv[1]
    if mode == "no_namespaces":
        deny_namespaces()
    if mode == "no_landlock":
        deny_landlock()
    if mode == "user" and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    signal.alarm(300)
    print(json.dumps(bare() if mode == "bare" else in_sandbox()))


if __name__ == "__main__":
    main()
