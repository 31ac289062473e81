"""The traffic tool in hosts: built when first used, senders and receivers as objects, accounts as values.

Used by the tests and by perf/.  The C program (tools/) says what it counts; nothing here knows what carries the
datagrams.  An account's `lost` is exact once the stream has ended.
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
    """The path of the compiled tool; compiled again if a source is newer."""
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
    """A program that has joined and counts; `account()` is its report."""

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
        wait_until(self._ready, 10, f"a receiver of {group} on {host.netns} has joined")

    def _ready(self) -> bool:
        if '"ready"' in self.process.output:
            return True
        if not self.process.alive():
            raise LabError(f"the receiver ended: {self.process.log.strip()}")
        return False

    def account(self, timeout_s: float = 20) -> Account:
        """The report, once every stream has ended."""
        self.process.wait(timeout_s)
        return Account(_last_object(self.process))

    def stop(self) -> Account:
        """The report as of now; the receiver leaves."""
        self.process.signal(signal.SIGTERM)
        return self.account()


class Sender:
    """A program that sends a numbered stream; `sent()` is how much it was."""

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
        """sent, errors, seconds, slipped_ms, cpu_s: once it has sent everything."""
        self.process.wait(timeout_s)
        return _last_object(self.process)

    def sent(self, timeout_s: float = 30) -> int:
        """How many datagrams it has sent: once it has sent everything."""
        number: int = self.report(timeout_s)["sent"]
        return number

    def stop(self) -> int:
        """Ends the stream (in good order: its end is marked); how many datagrams there were."""
        self.process.signal(signal.SIGTERM)
        return self.sent()


class Account:
    """What a receiver counted."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.report = report
        self.latency_us: dict[str, int] = report["latency_us"]

    def stream(self, number: int = 1) -> dict[str, Any]:
        """The counts of one stream; zeros if nothing of it came."""
        names = ("received", "unique", "expected", "lost", "duplicates", "reordered", "bytes", "groups", "gap_ms")
        found: dict[str, Any] = self.report["streams"].get(str(number), dict.fromkeys(names, 0))
        return found

    def assert_perfect(self, sent: int, *, stream: int = 1) -> None:
        """Every datagram of the stream arrived once, intact and to its own group."""
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
