"""Filters of system calls: a worker does what its stages need and nothing else, control nothing that it never needs.

A worker reads the packets of strangers, so it must not be worth anything to who takes it over: it cannot open a file or
a connection to another host, start or trace a process, make memory executable.  The tables below were measured
(`strace -f -c` of each stage under load, with control restarted meanwhile) and are kept by tests.

    always      memory, time, the rings' doorbells, waiting, signals, writing a last line, the end
    by stage    how it reads and sends packets
    punting     ZeroMQ to control: one thread, and sockets of family AF_UNIX only

Control reads what members say, in Python with all its libraries, whose calls differ from version to version: a list of
what is allowed would break one day.  So it is killed for what turns a bug into more (FORBIDDEN): to run a program or
start a process, to look into others, to change the host or load code into the kernel.

It knows the numbers of x86_64 and aarch64; elsewhere there is no filter, and `install` says so.
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
"""Without the branch-prediction brakes that a filter used to bring along: a worker runs no code of strangers."""
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

# As above: what control may not do.
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
"""Whatever does this in control is not ours."""
X32_BIT = 0x40000000
"""x86_64 has a second set of numbers from here on, which a list of what is forbidden must not overlook."""

ALWAYS = frozenset(
    {"munmap", "brk", "mremap", "madvise", "futex", "sched_yield", "getrandom"}  # memory and locks
    | {"clock_gettime", "clock_nanosleep", "nanosleep", "gettimeofday", "time"}
    | {"sched_getattr", "sched_setattr"}  # its own turns, by load
    | {"read", "write", "poll", "ppoll", "restart_syscall"}  # doorbells, the log's last line
    | {"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "getpid", "gettid", "exit", "exit_group"}
)
PUNTING = frozenset(
    {"close", "fcntl", "eventfd2", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2"}
    | {"connect", "getsockname", "getpeername", "getsockopt", "setsockopt", "sendto", "recvfrom"}
    | {"set_robust_list", "rseq", "sched_getparam", "sched_getscheduler", "sched_setscheduler", "sched_getaffinity"}
)
"""With `socket` and `clone` below: ZeroMQ's one I/O thread and its connection to control."""
STAGES: Mapping[str, frozenset[str]] = {
    "tun_ingress": frozenset(),
    "classify": PUNTING,
    "overlay_egress": frozenset({"sendmsg", "sendmmsg"}),
    "overlay_ingress": PUNTING | {"recvmmsg", "writev", "sendto"},
}
"""Beside ALWAYS, by the stage's word."""


def install(stages: Iterable[str], *, inline: Iterable[str] = ()) -> bool:
    """Allow only the calls that these stages need, and those that it runs inline, which punt nothing here.

    False: no table for this machine.  It cannot be taken back; no_new_privs must be set (io/privileges.py).
    """
    machine = platform.machine()
    if machine not in ARCHES:
        return False
    names = ALWAYS.union(*(STAGES[stage] for stage in stages), *(STAGES[stage] - PUNTING for stage in inline))
    load(program(names, machine))
    return True


def install_for_control() -> bool:
    """From now on this process and its threads do nothing of FORBIDDEN; as `install`, before there are threads."""
    machine = platform.machine()
    if machine not in ARCHES:
        return False
    load(program_for_control(machine))
    return True


def load(instructions: bytes) -> None:
    """Hands a filter to the kernel for this process; PipelineError if it is refused."""
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    given = struct.pack("HL", len(instructions) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 317, "aarch64": 277}[platform.machine()]
    if libc.syscall(number, SECCOMP_SET_MODE_FILTER, FLAG_SPEC_ALLOW, given) == 0:
        return
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, given, 0, 0):
        code = ctypes.get_errno()
        raise PipelineError(f"the kernel refuses the filter of system calls: {os.strerror(code)}")


# ---------------------------------------------------------------- the program, in the kernel's classic BPF

_NR_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def program(names: Collection[str], machine: str) -> bytes:
    """The filter that lets these calls pass: 8 bytes an instruction, as the kernel's struct sock_filter."""
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
    """The filter that allows all but FORBIDDEN and new processes; threads are none."""
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
    """This machine's calls only; the number is loaded."""
    right_machine = _i(_EQUAL, ARCHES[machine], 1, 0)
    return [_i(_LOAD, _ARCH_AT), right_machine, _i(_RETURN, RET_KILL_PROCESS), _i(_LOAD, _NR_AT)]


def _no_clone3() -> list[bytes]:
    """Not there: glibc then uses clone, whose flags can be looked at."""
    return _if_number(435, [_i(_RETURN, RET_ERRNO | errno.ENOSYS)])


def _conditions(*, punts: bool) -> list[tuple[str, int, list[bytes]]]:
    """Calls that are allowed by one of their arguments: name, which argument, and the verdict on it."""
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
