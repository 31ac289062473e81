"""Filters of system calls: a list of allowed calls for a worker, and a list of forbidden calls for control.

A worker reads packets from the network, and an attacker that takes it over must gain little: it cannot open a file,
connect to another host, start or trace a process, or make memory executable.  The tables below were measured
(`strace -f -c` of each stage under load, while control was restarted), and tests check them.

    always      memory, time, the rings' doorbells, waiting, signals, a last log line, exit
    by stage    reading and sending packets
    punting     ZeroMQ to control: one thread, and sockets of family AF_UNIX only

Control reads messages of members in Python, with libraries whose calls differ from version to version, so a list of
allowed calls would break one day.  Instead the calls that make a bug worse are forbidden (FORBIDDEN): run a program,
start or trace a process, change the host, load code into the kernel.  A forbidden call kills the process.

The call numbers are those of x86_64 and aarch64.  On another machine there is no filter, and `install` returns False.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Collection, Iterable, Mapping

from pipeline.errors import PipelineError

SECCOMP_SET_MODE_FILTER = 1
FLAG_SPEC_ALLOW = 1 << 2
"""Without the mitigations of speculative execution that Linux before 5.16 adds to a filter: a worker runs no foreign
code."""
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
RET_KILL_PROCESS, RET_ERRNO, RET_ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
CLONE_THREAD = 0x00010000
PROT_EXEC = 4
PR_SET_NAME, PR_SET_VMA = 15, 0x53564D41

ARCHES: Mapping[str, int] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_… by machine."""

# name: (x86_64, aarch64); None: the call does not exist there
_NUMBERS: Mapping[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "poll": (7, None),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "writev": (20, 66),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "socket": (41, 198),
    "connect": (42, 203),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    "setsockopt": (54, 208),
    "getsockopt": (55, 209),
    "clone": (56, 220),
    "exit": (60, 93),
    "fcntl": (72, 25),
    "gettimeofday": (96, 169),
    "sched_getparam": (143, 121),
    "sched_setscheduler": (144, 119),
    "sched_getscheduler": (145, 120),
    "prctl": (157, 167),
    "gettid": (186, 178),
    "time": (201, None),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "epoll_wait": (232, None),
    "epoll_ctl": (233, 21),
    "ppoll": (271, 73),
    "set_robust_list": (273, 99),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    "epoll_create1": (291, 20),
    "recvmmsg": (299, 243),
    "sendmmsg": (307, 269),
    "sched_setattr": (314, 274),
    "sched_getattr": (315, 275),
    "getrandom": (318, 278),
    "rseq": (334, 293),
    "clone3": (435, 435),
    "epoll_pwait2": (441, 441),
}

# Calls that control must not make; columns as above.
_FORBIDDEN_NUMBERS: Mapping[str, tuple[int | None, int | None]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "ptrace": (101, 117),
    "syslog": (103, 116),
    "personality": (135, 92),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "mount": (165, 40),
    "umount2": (166, 39),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "iopl": (172, None),
    "ioperm": (173, None),
    "init_module": (175, 105),
    "delete_module": (176, 106),
    "quotactl": (179, 60),
    "clock_settime": (227, 112),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "unshare": (272, 97),
    "perf_event_open": (298, 241),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "finit_module": (313, 273),
    "kexec_file_load": (320, 294),
    "bpf": (321, 280),
    "execveat": (322, 281),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "pidfd_getfd": (438, 438),
    "mount_setattr": (442, 442),
}
FORBIDDEN = frozenset(_FORBIDDEN_NUMBERS)
"""Calls that no code of control makes."""
X32_BIT = 0x40000000
"""Begin of a second set of call numbers of x86_64, which a list of forbidden calls must include."""

ALWAYS = frozenset(
    {"munmap", "brk", "mremap", "madvise", "futex", "sched_yield", "getrandom"}  # memory and locks
    | {"clock_gettime", "clock_nanosleep", "nanosleep", "gettimeofday", "time"}
    | {"sched_getattr", "sched_setattr"}  # its own time slice, which depends on the load
    | {"read", "write", "poll", "ppoll", "restart_syscall"}  # doorbells, a last log line
    | {"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "getpid", "gettid", "exit", "exit_group"}
)
PUNTING = frozenset(
    {"close", "fcntl", "eventfd2", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2"}
    | {"connect", "getsockname", "getpeername", "getsockopt", "setsockopt", "sendto", "recvfrom"}
    | {"set_robust_list", "rseq", "sched_getparam", "sched_getscheduler", "sched_setscheduler", "sched_getaffinity"}
)
"""Calls of ZeroMQ's one I/O thread and its connection to control; `socket` and `clone` have conditions below."""
STAGES: Mapping[str, frozenset[str]] = {
    "tun_ingress": frozenset(),
    "classify": PUNTING,
    "overlay_egress": frozenset({"sendmsg", "sendmmsg"}),
    "overlay_ingress": PUNTING | {"recvmmsg", "writev", "sendto"},
}
"""Calls in addition to ALWAYS, by the stage's word."""


def install(stages: Iterable[str], *, inline: Iterable[str] = ()) -> bool:
    """Allow only the calls of these stages and of those that the worker runs inline, which punt nothing here.

    Return False if there is no table for this machine.  A filter cannot be removed.  no_new_privs must be set before
    (io/privileges.py).
    """
    machine = platform.machine()
    if machine not in ARCHES:
        return False
    names = ALWAYS.union(*(STAGES[stage] for stage in stages), *(STAGES[stage] - PUNTING for stage in inline))
    load(program(names, machine))
    return True


def install_for_control() -> bool:
    """Forbid the calls of FORBIDDEN to this process, before it has threads; results and conditions as of `install`."""
    machine = platform.machine()
    if machine not in ARCHES:
        return False
    load(program_for_control(machine))
    return True


def load(instructions: bytes) -> None:
    """Install a filter in the kernel for this process; PipelineError if the kernel refuses it."""
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    sock_fprog = struct.pack("HL", len(instructions) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 317, "aarch64": 277}[platform.machine()]
    if libc.syscall(number, SECCOMP_SET_MODE_FILTER, FLAG_SPEC_ALLOW, sock_fprog) == 0:
        return
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, sock_fprog, 0, 0):
        code = ctypes.get_errno()
        raise PipelineError(f"the kernel refuses the filter of system calls: {os.strerror(code)}")


# ---------------------------------------------------------------- the program, in the kernel's classic BPF

_NR_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def program(names: Collection[str], machine: str) -> bytes:
    """Return a filter that allows these calls: 8 bytes for each instruction, the kernel's struct sock_filter."""
    column = list(ARCHES).index(machine)

    def number(name: str) -> int | None:
        return _NUMBERS[name][column]

    code = _head(machine)
    for name in sorted(names, key=lambda name: number(name) or 0):
        if (plain := number(name)) is not None:
            code += _if_number(plain, [_i(_RETURN, RET_ALLOW)])
    for name, argument, instruction in _conditions(punts=set(names) >= PUNTING):
        checked = number(name)
        assert checked is not None, "conditions are on calls that both machines have"
        code += _if_number(checked, [_i(_LOAD, _ARGUMENTS_AT + 8 * argument), *instruction])
    if set(names) >= PUNTING:
        code += _no_clone3()
    return b"".join([*code, _i(_RETURN, RET_KILL_PROCESS)])


def program_for_control(machine: str) -> bytes:
    """Return a filter that allows all calls but FORBIDDEN and the creation of processes; threads are allowed."""
    column = list(ARCHES).index(machine)
    code = _head(machine)
    if machine == "x86_64":
        code += [_i(_AT_LEAST, X32_BIT, 0, 1), _i(_RETURN, RET_KILL_PROCESS)]
    for numbers in _FORBIDDEN_NUMBERS.values():
        if (plain := numbers[column]) is not None:
            code += _if_number(plain, [_i(_RETURN, RET_KILL_PROCESS)])
    clone = _NUMBERS["clone"][column]
    assert clone is not None, "both machines have it"
    code += _if_number(clone, [_i(_LOAD, _ARGUMENTS_AT), _i(_ANY_BIT, CLONE_THREAD, 0, 1), *_allow_or_kill()])
    return b"".join([*code, *_no_clone3(), _i(_RETURN, RET_ALLOW)])


def _head(machine: str) -> list[bytes]:
    """Return instructions that refuse calls of other architectures and load the call number."""
    right_machine = _i(_EQUAL, ARCHES[machine], 1, 0)
    return [_i(_LOAD, _ARCH_AT), right_machine, _i(_RETURN, RET_KILL_PROCESS), _i(_LOAD, _NR_AT)]


def _no_clone3() -> list[bytes]:
    """Return instructions that make clone3 fail with ENOSYS.

    glibc then uses clone, whose flags a filter can check because they are not behind a pointer.
    """
    return _if_number(435, [_i(_RETURN, RET_ERRNO | errno.ENOSYS)])


def _conditions(*, punts: bool) -> list[tuple[str, int, list[bytes]]]:
    """Return the calls that depend on an argument: name, number of the argument, and instructions that check it."""
    no_code = [_i(_ANY_BIT, PROT_EXEC, 1, 0), _i(_RETURN, RET_ALLOW), _i(_RETURN, RET_KILL_PROCESS)]
    names_only = [_i(_EQUAL, PR_SET_NAME, 1, 0), _i(_EQUAL, PR_SET_VMA, 0, 1)]
    found = [("mmap", 2, no_code), ("mprotect", 2, no_code), ("prctl", 0, [*names_only, *_allow_or_kill()])]
    if punts:
        local_only = [_i(_EQUAL, socket.AF_UNIX, 0, 1), *_allow_or_kill()]
        threads_only = [_i(_ANY_BIT, CLONE_THREAD, 0, 1), *_allow_or_kill()]
        found += [("socket", 0, local_only), ("clone", 0, threads_only)]
    return found


def _allow_or_kill() -> list[bytes]:
    return [_i(_RETURN, RET_ALLOW), _i(_RETURN, RET_KILL_PROCESS)]


def _if_number(number: int, then: list[bytes]) -> list[bytes]:
    return [_i(_EQUAL, number, 0, len(then)), *then]


def _i(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """struct sock_filter: code, jump if true, jump if false, operand."""
    return struct.pack("HBBI", code, if_true, if_false, operand)
