"""One trial: a stream through a network, its datagrams at every receiver, and the CPU time of the whole machine.

The programs are those of tests/netns/tools: the sender calls send() once for each datagram, receivers count every
number. CPU time is that of all programs and of the kernel, also for unrelated work: wall-clock time of all CPUs less
idle, I/O wait and steal in /proc/stat. This module does not know what connects the hosts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perf.network import Network
from perf.search import RateSearch
from pipeline.lab.programs import LabError
from tests.netns.traffic import PAYLOAD, PORT, Receiver, Sender

GROUP = "239.77.0.1"
LOSS_MAX = 0.001
"""Share of datagrams that may be lost at every receiver for a trial to pass."""

SETTLE_TIMEOUT_S = 20.0
"""Time for handshakes, which take about 10 s with the slowest VPN and 7 receivers."""

DRAIN_TIMEOUT_S = 2.0
"""Time for datagrams that are in queues when the sender has ended; those that arrive later count as lost."""


# ---------------------------------------------------------------- CPU of the whole machine


@dataclass(frozen=True, slots=True)
class CpuClock:
    """Wall-clock and idle time of the machine at one moment, in seconds."""

    wall_s: float
    idle_s: float
    cpus: int

    @classmethod
    def read(cls) -> CpuClock:
        ticks = os.sysconf("SC_CLK_TCK")
        return cls(time.monotonic(), parse_idle(Path("/proc/stat").read_text()) / ticks, os.cpu_count() or 1)

    def busy_since(self, earlier: CpuClock) -> float:
        """Return the CPU seconds in use between two moments."""
        return max(0.0, (self.wall_s - earlier.wall_s) * self.cpus - (self.idle_s - earlier.idle_s))


def parse_idle(text: str) -> int:
    """Return idle, iowait and steal of the first line of /proc/stat, in ticks."""
    words = text.splitlines()[0].split()
    assert words[0] == "cpu", f"not /proc/stat: {words}"
    return int(words[4]) + int(words[5]) + int(words[8])


def background_share(seconds: float = 1.0) -> float:
    """Return the share of all CPUs that other work uses; above a few percent, figures are not reliable."""
    before = CpuClock.read()
    time.sleep(seconds)
    after = CpuClock.read()
    return after.busy_since(before) / ((after.wall_s - before.wall_s) * after.cpus)


# ---------------------------------------------------------------- one trial


def group_addresses(count: int) -> list[str]:
    """Return consecutive groups, from GROUP on."""
    first = int.from_bytes(bytes(map(int, GROUP.split("."))))
    return [".".join(map(str, (first + i).to_bytes(4))) for i in range(count)]


@dataclass(frozen=True, slots=True)
class Load:
    """Traffic of a trial; with `pps` 0 the sender has no rate limit.

    Each of the `programs` sends its share of the packets in `flows` flows to `groups` groups of its own. Every
    receiving host runs as many programs, one for each sender.
    """

    pps: float = 0.0
    size: int | Sequence[int] = PAYLOAD
    seconds: float = 1.0
    groups: int = 1
    flows: int = 1
    programs: int = 1

    @property
    def mean_size(self) -> float:
        return self.size if isinstance(self.size, int) else sum(self.size) / len(self.size)

    @property
    def addresses(self) -> list[str]:
        """Groups of all programs."""
        return group_addresses(self.groups * self.programs)

    @property
    def group_lists(self) -> list[str]:
        """Groups of each program, in the notation of the traffic tool."""
        count = f"+{self.groups}" if self.groups > 1 else ""
        return [first + count for first in self.addresses[:: self.groups]]


SINGLE = Load()
"""One program, one flow, one group."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Result of a trial; `loss` is that of the worst receiver, `delivered_gbit` the sum over all receivers."""

    asked_pps: float
    sent: int
    seconds: float
    loss: float
    duplicates: int
    delivered_gbit: float
    cpu_s: float
    latency_us: dict[str, float]

    @property
    def pps(self) -> float:
        """Packets a second that the sender reached."""
        return self.sent / self.seconds if self.seconds else 0.0

    @property
    def delivered_pps(self) -> float:
        """Packets a second at the worst receiver."""
        return self.pps * (1 - self.loss)

    @property
    def passed(self) -> bool:
        return self.sent > 0 and self.loss <= LOSS_MAX

    @property
    def cpu_per_gbit(self) -> float | None:
        """CPU seconds of the whole machine for each Gbit of payload delivered, all receivers together."""
        return self.cpu_s / self.delivered_gbit if self.delivered_gbit else None

    def json(self) -> dict[str, Any]:
        names = ("asked_pps", "sent", "seconds", "loss", "duplicates", "delivered_gbit", "cpu_s", "latency_us")
        values = {name: getattr(self, name) for name in names}
        return {**values, "pps": self.pps, "cpu_s_per_gbit": self.cpu_per_gbit}


def run_trial(network: Network, load: Load) -> Trial:
    """Run a trial in groups that are joined already (`settled`): send, wait for the last datagrams, count."""
    streams = list(enumerate(load.group_lists))
    receivers = [
        Receiver(host, groups, port=PORT + number, interface=network.interface)
        for number, groups in streams
        for host in network.receivers
    ]
    try:
        before = CpuClock.read()
        senders = [
            Sender(
                network.sender,
                groups,
                port=PORT + number,
                interface=network.interface,
                size=load.size,
                pps=load.pps / load.programs,
                seconds=load.seconds,
                flows=load.flows,
            )
            for number, groups in streams
        ]
        reports = [sender.report(load.seconds + 30) for sender in senders]
        after = CpuClock.read()
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        while time.monotonic() < deadline and any(receiver.process.alive() for receiver in receivers):
            time.sleep(0.005)
        accounts = [receiver.stop() for receiver in receivers]
    finally:
        for receiver in receivers:
            receiver.process.kill()
    drop_ended_programs(network)
    counts = [account.stream() for account in accounts]
    sent = [int(report["sent"]) for report in reports for _ in network.receivers]
    worst = max(accounts, key=lambda account: account.latency_us["p99"])
    return Trial(
        asked_pps=load.pps,
        sent=sum(int(report["sent"]) for report in reports),
        seconds=max(float(report["seconds"]) for report in reports),
        loss=max(1 - count["unique"] / total if total else 1.0 for count, total in zip(counts, sent, strict=True)),
        duplicates=sum(int(count["duplicates"]) for count in counts),
        delivered_gbit=sum(count["bytes"] for count in counts) * 8 / 1e9,
        cpu_s=after.busy_since(before),
        latency_us={name: float(min(value, worst.latency_us["max"])) for name, value in worst.latency_us.items()},
    )


def drop_ended_programs(network: Network) -> None:
    """Drop ended programs from the hosts' lists: a long measurement starts thousands in the same hosts."""
    for host in network.hosts:
        host.processes = [process for process in host.processes if process.alive()]


@contextmanager
def settled(network: Network, load: Load = SINGLE) -> Iterator[Network]:
    """Join the load's groups on all receivers, and wait until a few datagrams reach every one of them."""
    network.join(load.addresses)
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    try:
        while (loss := run_trial(network, Load(pps=200, size=200, seconds=0.1)).loss) > 0:
            if time.monotonic() > deadline:
                raise LabError(f"{network.name}: after {SETTLE_TIMEOUT_S:.0f} s a receiver still loses {loss:.0%}")
        yield network
    finally:
        network.leave()


# ---------------------------------------------------------------- the highest rate without loss


START_PPS = 8000.0
"""First rate of a search without an earlier result."""


def highest_rate(network: Network, load: Load, *, confirm_s: float, near_pps: float | None = None) -> Trial | None:
    """Return the confirmed trial at the highest rate at which every receiver gets at least 99.9 %, or None.

    The rate of `load` is ignored. `near_pps`, the result of an earlier search, makes this one shorter.
    """
    search = RateSearch(near_pps * 0.85, growth=1.2) if near_pps else RateSearch(START_PPS)
    confirmed: Trial | None = None
    while planned := search.next_trial():
        seconds = confirm_s if planned.confirms else load.seconds
        trial = run_trial(network, replace(load, pps=planned.rate, seconds=seconds))
        search.record(passed=trial.passed, reached=trial.pps)
        if planned.confirms and trial.passed:
            confirmed = trial
    return confirmed
