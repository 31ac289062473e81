"""Goal: dropped rights are gone for good.  Method: children of this process drop theirs and try to use them."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.io import privileges


def in_child(action: Callable[[], object]) -> None:
    """Runs `action` in a child and fails if it fails there."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def status_field(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(f"{name}:")).split()[1], 16)


def test_nothing_is_kept() -> None:
    """Goal: after keep_only() every set is empty and capset cannot fill one.  Method: read /proc, try."""

    def drop() -> None:
        before = privileges.held()
        privileges.harden()
        privileges.keep_only()
        assert [status_field(name) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [0] * 4
        assert not before >> privileges.CAP_SETPCAP & 1 or status_field("CapBnd") == 0
        assert status_field("NoNewPrivs") == 1
        assert before == 0 or privileges._capset(before) == -1
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)

    in_child(drop)


def test_one_capability_is_kept() -> None:
    """Goal: the supervisor keeps CAP_NET_ADMIN if it had it, and nothing more.  Method: drop all but that."""

    def drop() -> None:
        wanted = privileges.held() & 1 << privileges.CAP_NET_ADMIN
        privileges.keep_only([privileges.CAP_NET_ADMIN])
        assert privileges.held() == status_field("CapEff") == wanted
        privileges.keep_only()
        assert privileges.held() == 0

    in_child(drop)


def test_a_kernel_that_lies_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: rights that are still there after they were dropped are an error.  Method: a capset that does nothing."""
    monkeypatch.setattr(privileges, "_capset", lambda _: 0)
    monkeypatch.setattr(privileges, "held", lambda: 0x1000)
    with pytest.raises(PipelineError, match="still there"):
        privileges.keep_only()


def test_process_cannot_be_read_by_others() -> None:
    """Goal: a process that holds keys is not dumpable.  Method: the kernel gives its /proc entries to root."""

    def harden() -> None:
        privileges.harden()
        assert Path("/proc/self/mem").stat().st_uid == 0
        assert privileges._libc.prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE

    in_child(harden)
