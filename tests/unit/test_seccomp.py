"""Goal: a worker's filter lets its stages work and kills the process at anything else; control's kills it for what
would take it out of its place.
Method: children of this process install a filter and then do one thing; who is killed dies of SIGSYS."""

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
    """What a child with the filter of those stages, or control's, ends with: 0, its exit code, or minus a signal."""
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
        "ask for the parent": lambda: libc.syscall(SYSCALL_GETPPID),
    }


@pytest.mark.parametrize("what", forbidden())
@pytest.mark.parametrize("stage", STAGES)
def test_forbidden_call_kills(stage: str, what: str) -> None:
    """Goal: no stage may do any of these.  Method: a child tries."""
    assert outcome((stage,), forbidden()[what]) == -signal.SIGSYS


@pytest.mark.parametrize("stage", STAGES)
def test_what_the_loop_needs_is_allowed(stage: str) -> None:
    """Goal: memory, time, pipes, the last line of a log and the end work in every stage.  Method: a child does it."""

    def work() -> None:
        blocks = [bytearray(200_000) for _ in range(50)]
        assert blocks
        libc.usleep(10)
        os.write(2, b"")
        os.getpid()
        libc.syscall(SYSCALL_SCHED_SETATTR, 0, None, 0)

    assert outcome((stage,), work) == 0


@pytest.mark.parametrize("stage", ["classify", "overlay_ingress"])
def test_punting_stages_may_talk_to_control(stage: str) -> None:
    """Goal: a thread and a local connection work, as ZeroMQ wants them.  Method: a child makes both."""

    def work() -> None:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            assert sock.connect_ex("/nowhere") != 0

    assert outcome((stage,), work) == 0


@pytest.mark.parametrize("name", sorted(seccomp.FORBIDDEN))
def test_control_is_killed_for_what_it_never_does(name: str) -> None:
    """Goal: each call of the list ends control.  Method: a child makes it with arguments that would do nothing."""
    number = seccomp._FORBIDDEN_NUMBERS[name][list(seccomp.ARCHES).index(platform.machine())]
    if number is not None:
        assert outcome(None, lambda: libc.syscall(number, -1, -1, -1, -1, -1)) == -signal.SIGSYS


def test_control_cannot_start_a_process_by_other_ways() -> None:
    """Goal: neither fork in disguise nor the numbers of another machine.  Method: clone(SIGCHLD), execve as x32."""
    assert outcome(None, os.fork) == -signal.SIGSYS
    assert outcome(None, lambda: os.posix_spawn("/bin/true", ["true"], {})) == -signal.SIGSYS
    if platform.machine() == "x86_64":
        assert outcome(None, lambda: libc.syscall(0x40000000 + 520, 0, 0, 0)) == -signal.SIGSYS


def test_control_does_its_work_under_its_filter() -> None:
    """Goal: threads, files, sockets and ZeroMQ work.  Method: a child uses them."""

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
def test_programs_of_all_machines_are_sound(machine: str) -> None:
    """Goal: the table of the machine that tests do not run on makes a program too.  Method: the kernel's own bounds
    (4,096 instructions of 8 bytes), the architecture it asks for, and no call allowed that the other one has not."""
    names = [seccomp.ALWAYS | seccomp.STAGES[stage] for stage in STAGES]
    programs = [seccomp.program(each, machine) for each in (*names, frozenset().union(*names))]
    for code in [*programs, seccomp.program_for_control(machine)]:
        assert len(code) % 8 == 0
        assert len(code) // 8 < 4096
        assert seccomp.ARCHES[machine].to_bytes(4, "little") in code


def test_table_is_this_machines() -> None:
    """Goal: the numbers are right.  Method: the C library's own, where its header is installed."""
    machine = platform.machine()
    column = list(seccomp.ARCHES).index(machine)
    headers = ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h"]
    with open(headers[column], encoding="ascii") as file:
        words = [line.split() for line in file]
    known = {line[1].removeprefix("__NR_").removeprefix("__NR3264_"): line[2] for line in words if len(line) == 3}
    for name, numbers in {**seccomp._NUMBERS, **seccomp._FORBIDDEN_NUMBERS}.items():
        if numbers[column] is not None:
            assert known[name] == str(numbers[column]), name
