"""Goal: dropped capabilities cannot be gained again.  Method: children of this process drop theirs and try to."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.io import privileges


def in_child(action: Callable[[], object]) -> None:
    """Run `action` in a child process; fail if it fails there."""
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


def test_no_capability_is_kept_by_default() -> None:
    """Goal: after keep_only() every set is empty, and capset cannot fill one.  Method: read /proc, call capset."""

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
    """Goal: the supervisor keeps CAP_NET_ADMIN, if it had it, and no other.  Method: drop all but that."""

    def drop() -> None:
        kept = privileges.held() & 1 << privileges.CAP_NET_ADMIN
        privileges.keep_only([privileges.CAP_NET_ADMIN])
        assert privileges.held() == status_field("CapEff") == kept
        privileges.keep_only()
        assert privileges.held() == 0

    in_child(drop)


def test_capabilities_that_remain_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: capabilities that remain after they were dropped are an error.  Method: a capset that does nothing."""
    monkeypatch.setattr(privileges, "_capset", lambda _: 0)
    monkeypatch.setattr(privileges, "held", lambda: 0x1000)
    with pytest.raises(PipelineError, match="remain"):
        privileges.keep_only()


def test_process_cannot_be_read_by_others() -> None:
    """Goal: a process that holds keys is not dumpable.  Method: its /proc entries belong to root, and prctl."""

    def harden() -> None:
        privileges.harden()
        assert Path("/proc/self/mem").stat().st_uid == 0
        assert privileges._libc.prctl(3, 0, 0, 0, 0) == 0  # PR_GET_DUMPABLE

    in_child(harden)
