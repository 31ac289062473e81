"""Goal: a worker's filter allows the calls of its stages and kills the process at any other; control's filter kills it
at a forbidden call.
Method: children of this process install a filter and do one thing; a killed child ends by SIGSYS."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import signal
import socket
import threading
from collections.abc import Callable

import pytest
import zmq

from pipeline.io import privileges, seccomp

STAGES = tuple(seccomp.STAGES)
SYSCALL_GETPPID = {"x86_64": 110, "aarch64": 173}.get(platform.machine(), 0)
SYSCALL_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}.get(platform.machine(), 0)
libc = ctypes.CDLL(None, use_errno=True)


def outcome(stages: tuple[str, ...] | None, action: Callable[[], object]) -> int:
    """Return the exit code, or minus the signal, of a child with the filter of these stages; None: that of control."""
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            privileges.harden()
            assert seccomp.install_for_control() if stages is None else seccomp.install(stages)
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forbidden() -> dict[str, Callable[[], object]]:
    return {
        "open a file": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "run a program": lambda: os.execv("/bin/true", ["true"]),
        "start a process": os.fork,
        "reach another host": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "kill": lambda: os.kill(os.getppid(), 0),
        "make memory executable": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        "make it executable later": lambda: libc.mprotect(None, 4096, 4),
        "change rights": lambda: libc.prctl(privileges.PR_SET_DUMPABLE, 1, 0, 0, 0),
        "trace": lambda: libc.ptrace(0, 0, 0, 0),
        "shared memory": lambda: libc.shmget(0, 4096, 0),
        "read the id of the parent": lambda: libc.syscall(SYSCALL_GETPPID),
    }


@pytest.mark.parametrize("action", forbidden())
@pytest.mark.parametrize("stage", STAGES)
def test_forbidden_call_kills_worker(stage: str, action: str) -> None:
    """Goal: each of these actions ends a worker of any stage.  Method: a child tries it."""
    assert outcome((stage,), forbidden()[action]) == -signal.SIGSYS


@pytest.mark.parametrize("stage", STAGES)
def test_calls_of_the_worker_loop_are_allowed(stage: str) -> None:
    """Goal: memory, time, pipes, a last log line and exit work in every stage.  Method: a child uses them."""

    def work() -> None:
        blocks = [bytearray(200_000) for _ in range(50)]
        assert blocks
        libc.usleep(10)
        os.write(2, b"")
        os.getpid()
        libc.syscall(SYSCALL_SCHED_SETATTR, 0, None, 0)

    assert outcome((stage,), work) == 0


@pytest.mark.parametrize("stage", ["classify", "overlay_ingress"])
def test_punting_stages_can_connect_to_control(stage: str) -> None:
    """Goal: a thread and a local connection work, as ZeroMQ needs them.  Method: a child makes both."""

    def work() -> None:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            assert sock.connect_ex("/nowhere") != 0

    assert outcome((stage,), work) == 0


@pytest.mark.parametrize("name", sorted(seccomp.FORBIDDEN))
def test_forbidden_call_kills_control(name: str) -> None:
    """Goal: each call of the list ends control.  Method: a child makes it with arguments that have no effect."""
    number = seccomp._FORBIDDEN_NUMBERS[name][list(seccomp.ARCHES).index(platform.machine())]
    if number is not None:
        assert outcome(None, lambda: libc.syscall(number, -1, -1, -1, -1, -1)) == -signal.SIGSYS


def test_control_cannot_start_a_process_by_other_calls() -> None:
    """Goal: clone as fork and the call numbers of x32 end control too.  Method: fork, posix_spawn, execve of x32."""
    assert outcome(None, os.fork) == -signal.SIGSYS
    assert outcome(None, lambda: os.posix_spawn("/bin/true", ["true"], {})) == -signal.SIGSYS
    if platform.machine() == "x86_64":
        assert outcome(None, lambda: libc.syscall(0x40000000 + 520, 0, 0, 0)) == -signal.SIGSYS


def test_calls_of_control_are_allowed() -> None:
    """Goal: threads, files, sockets and ZeroMQ work under control's filter.  Method: a child uses them."""

    def work() -> None:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        with open("/etc/hostname", "rb") as file:
            file.read()
        with socket.create_server(("127.0.0.1", 0)):
            pass
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        context.socket(zmq.ROUTER).bind("tcp://127.0.0.1:*")
        context.destroy(linger=0)

    assert outcome(None, work) == 0


@pytest.mark.parametrize("machine", list(seccomp.ARCHES))
def test_filters_of_all_machines_are_valid(machine: str) -> None:
    """Goal: the table of a machine that the tests do not run on makes valid filters too.
    Method: the kernel's bounds, which are 4,096 instructions of 8 bytes, and the check of the architecture."""
    names = [seccomp.ALWAYS | seccomp.STAGES[stage] for stage in STAGES]
    programs = [seccomp.program(each, machine) for each in (*names, frozenset().union(*names))]
    for code in [*programs, seccomp.program_for_control(machine)]:
        assert len(code) % 8 == 0
        assert len(code) // 8 < 4096
        assert seccomp.ARCHES[machine].to_bytes(4, "little") in code


def test_call_numbers_are_those_of_the_kernel() -> None:
    """Goal: the table of this machine is right.  Method: compare it with the header of the C library."""
    machine = platform.machine()
    column = list(seccomp.ARCHES).index(machine)
    headers = ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h"]
    with open(headers[column], encoding="ascii") as file:
        words = [line.split() for line in file]
    known = {line[1].removeprefix("__NR_").removeprefix("__NR3264_"): line[2] for line in words if len(line) == 3}
    for name, numbers in {**seccomp._NUMBERS, **seccomp._FORBIDDEN_NUMBERS}.items():
        if numbers[column] is not None:
            assert known[name] == str(numbers[column]), name
