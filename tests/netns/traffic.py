"""Senders and receivers of numbered datagrams in hosts, and the accounts of what arrived.

The work is done by the C program in tools/, which is compiled when it is first used and documents what it counts.
The tests and perf/ use it. This module does not know which network carries the datagrams. The figure `lost` of an
account is exact once the stream has ended.
"""

from __future__ import annotations

import fcntl
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.lab.netns import Namespace
from pipeline.lab.programs import LabError, Process, require, run_program, wait_until

TOOLS = Path(__file__).resolve().parent / "tools"
BUILT = TOOLS / "build" / "traffic"
PORT = 5001
PAYLOAD = 1316
INTERFACE = "mcast0"


def traffic_program() -> str:
    """Return the path of the compiled program; compile it again when a source is newer."""
    BUILT.parent.mkdir(exist_ok=True)
    sources = sorted(str(path) for path in TOOLS.glob("*.c"))
    newest = max(path.stat().st_mtime for path in TOOLS.glob("*.[ch]"))
    with (BUILT.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not BUILT.exists() or BUILT.stat().st_mtime < newest:
            flags = ["-D_GNU_SOURCE", "-O2", "-std=c11", "-Wall", "-Wextra", "-Werror"]
            run_program([require("gcc"), *flags, "-o", str(BUILT), *sources], timeout_s=60)
    return str(BUILT)


class Receiver:
    """Program that has joined a group and counts datagrams; `account()` returns its report."""

    def __init__(
        self,
        host: Namespace,
        group: str,
        *,
        port: int = PORT,
        streams: int = 1,
        sources: Sequence[str] = (),
        blocked: Sequence[str] = (),
        gro: bool = False,
        interface: str = INTERFACE,
    ) -> None:
        args = [traffic_program(), "receive", f"--group={group}", f"--port={port}", f"--interface={interface}"]
        args += [f"--streams={streams}"]
        args += [f"--source={','.join(sources)}"] if sources else []
        args += [f"--block={','.join(blocked)}"] if blocked else []
        args += ["--gro"] if gro else []
        self.process = host.spawn(args, label="receive")
        wait_until(self._is_ready, 10, f"a receiver of {group} on {host.netns} has joined")

    def _is_ready(self) -> bool:
        if '"ready"' in self.process.output:
            return True
        if not self.process.alive():
            raise LabError(f"the receiver ended: {self.process.log.strip()}")
        return False

    def account(self, timeout_s: float = 20) -> Account:
        """Wait for the end of every stream; return the report."""
        self.process.wait(timeout_s)
        return Account(_last_object(self.process))

    def stop(self) -> Account:
        """End the receiver now; return its report."""
        self.process.signal(signal.SIGTERM)
        return self.account()


class Sender:
    """Program that sends a numbered stream; `sent()` returns the number of datagrams."""

    def __init__(
        self,
        host: Namespace,
        group: str,
        *,
        port: int = PORT,
        stream: int = 1,
        size: int | Sequence[int] = PAYLOAD,
        mbit: float = 0,
        pps: float = 0,
        seconds: float = 0,
        count: int = 0,
        ttl: int = 1,
        flows: int = 1,
        loop: bool = True,
        interface: str = INTERFACE,
    ) -> None:
        sizes = [size] if isinstance(size, int) else size
        args = [traffic_program(), "send", f"--group={group}", f"--port={port}", f"--interface={interface}"]
        args += [f"--stream={stream}", f"--size={','.join(map(str, sizes))}", f"--ttl={ttl}", f"--flows={flows}"]
        for name, value in (("mbit", mbit), ("pps", pps), ("seconds", seconds), ("count", count)):
            args += [f"--{name}={value}"] if value else []
        args += [] if loop else ["--no-loop"]
        self.process = host.spawn(args, label="send")

    def report(self, timeout_s: float = 30) -> dict[str, Any]:
        """Wait for the end of the stream; return `sent`, `errors`, `seconds`, `slipped_ms` and `cpu_s`."""
        self.process.wait(timeout_s)
        return _last_object(self.process)

    def sent(self, timeout_s: float = 30) -> int:
        """Wait for the end of the stream; return the number of datagrams."""
        number: int = self.report(timeout_s)["sent"]
        return number

    def stop(self) -> int:
        """End the stream early, with its end mark; return the number of datagrams."""
        self.process.signal(signal.SIGTERM)
        return self.sent()


class Account:
    """Counts of one receiver."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.report = report
        self.latency_us: dict[str, int] = report["latency_us"]

    def stream(self, number: int = 1) -> dict[str, Any]:
        """Return the counts of one stream; zeros when no datagram of it arrived."""
        names = ("received", "unique", "expected", "lost", "duplicates", "reordered", "bytes", "groups", "gap_ms")
        found: dict[str, Any] = self.report["streams"].get(str(number), dict.fromkeys(names, 0))
        return found

    def assert_perfect(self, sent: int, *, stream: int = 1) -> None:
        """Check that every datagram of the stream arrived once, intact, in its own group."""
        counts = self.stream(stream)
        assert (counts["unique"], counts["duplicates"]) == (sent, 0), f"{sent} sent: {self.report}"
        for fault in ("corrupt", "foreign", "wrong_group"):
            assert self.report[fault] == 0, self.report


def _last_object(process: Process) -> dict[str, Any]:
    lines = process.output.strip().splitlines()
    if not lines or not lines[-1].startswith("{") or '"ready"' in lines[-1]:
        raise LabError(f"{process.label} ended without a report: {process.log.strip()}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found
