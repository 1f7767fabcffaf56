"""The system calls a confined process may not make, with their numbers on x86_64 and aarch64."""

from __future__ import annotations

import platform
from collections.abc import Iterator

# Linux's audit architecture and the column of the tables below; no other machine is supported.
_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# name = number on x86_64, number on aarch64; `-` where a machine has no such call.
_NETWORK = "socket=41,198 connect=42,203 bind=49,200 listen=50,201 accept=43,202 accept4=288,242"
_OTHER_PROCESSES = """
    ptrace=101,117 process_vm_readv=310,270 process_vm_writev=311,271 kcmp=312,272 process_madvise=440,440
    pidfd_getfd=438,438 pidfd_open=434,434 pidfd_send_signal=424,424 setpriority=141,140 ioprio_set=251,30
    sched_setaffinity=203,122 sched_setscheduler=144,119 sched_setparam=142,118 sched_setattr=314,274
    migrate_pages=256,238 move_pages=279,239
"""
_NAMESPACES_AND_MOUNTS = """
    unshare=272,97 setns=308,268 mount=165,40 umount2=166,39 pivot_root=155,41 chroot=161,51 open_tree=428,428
    move_mount=429,429 fsopen=430,430 fsconfig=431,431 fsmount=432,432 fspick=433,433 mount_setattr=442,442
"""
_KERNEL = """
    bpf=321,280 perf_event_open=298,241 userfaultfd=323,282 add_key=248,217 request_key=249,218 keyctl=250,219
    io_setup=206,0 io_uring_setup=425,425 io_uring_enter=426,426 io_uring_register=427,427 init_module=175,105
    finit_module=313,273 delete_module=176,106 kexec_load=246,104 kexec_file_load=320,294 reboot=169,142
    swapon=167,224 swapoff=168,225 sethostname=170,161 setdomainname=171,162 acct=163,89 quotactl=179,60
    settimeofday=164,170 clock_settime=227,112 adjtimex=159,171 clock_adjtime=305,266 syslog=103,116 vhangup=153,58
    iopl=172,- ioperm=173,- fanotify_init=300,262 name_to_handle_at=303,264 open_by_handle_at=304,265
    personality=135,92
"""
_MEMORY_THAT_IS_NO_PROCESS = """
    shmget=29,194 shmat=30,196 semget=64,190 msgget=68,186 mq_open=240,180 memfd_create=319,279 memfd_secret=447,447
"""
_FILES = """
    mkdir=83,- mkdirat=258,34 mknod=133,- mknodat=259,33 creat=85,- rmdir=84,- unlink=87,- unlinkat=263,35
    rename=82,- renameat=264,38 renameat2=316,276 link=86,- linkat=265,37 symlink=88,- symlinkat=266,36
    truncate=76,45 chmod=90,- fchmod=91,52 fchmodat=268,53 fchmodat2=452,452 chown=92,- lchown=94,- fchown=93,55
    fchownat=260,54 utime=132,- utimes=235,- futimesat=261,- utimensat=280,88 setxattr=188,5 lsetxattr=189,6
    fsetxattr=190,7 removexattr=197,14 lremovexattr=198,15 fremovexattr=199,16
"""
_IDENTITY = """
    setuid=105,146 setgid=106,144 setreuid=113,145 setregid=114,143 setresuid=117,147 setresgid=119,149
    setgroups=116,159 setfsuid=122,151 setfsgid=123,152 capset=126,91
"""

# What the zygote gives up as well as its programs, and what programs give up on top of that.
SERVICE = _NETWORK + _OTHER_PROCESSES + _NAMESPACES_AND_MOUNTS + _KERNEL + _MEMORY_THAT_IS_NO_PROCESS + _FILES
PROGRAM = _IDENTITY + "fork=57,- vfork=58,- execve=59,221 execveat=322,281"
PROGRAM += " kill=62,129 tkill=200,130 tgkill=234,131 rt_sigqueueinfo=129,138 rt_tgsigqueueinfo=297,240"
PROGRAM += " timer_create=222,107 sendmsg=46,211 sendmmsg=307,269"  # a timer may send any signal

# Calls that are allowed or not by an argument, or that are to look as if the kernel had none.
_CONDITIONAL = "open=2,- openat=257,56 openat2=437,437 clone=56,220 clone3=435,435 prlimit64=302,261 prctl=157,167"
_CONDITIONAL += " fcntl=72,25 ioctl=16,29 setrlimit=160,164 sendto=44,206"


def audit_architecture() -> int:
    """The kernel's number for this machine. Raises OSError where the tables have no column for it."""
    return _machine()[0]


def numbers(table: str) -> Iterator[int]:
    """The numbers of a table's calls on this machine."""
    column = _machine()[1]
    for entry in table.split():
        number = entry.partition("=")[2].split(",")[column]
        if number != "-":
            yield int(number)


def number(name: str) -> int | None:
    """The number of a call that is filtered by its arguments; None where this machine has no such call."""
    (entry,) = (entry for entry in _CONDITIONAL.split() if entry.startswith(f"{name}="))
    return next(numbers(entry), None)


def _machine() -> tuple[int, int]:
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(f"no system call numbers for {machine}; known are {', '.join(_MACHINES)}")
    return _MACHINES[machine]
