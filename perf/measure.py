"""One trial: a stream through a network, what arrived at every receiver, and what the whole machine paid for it.

The programs are those of tests/netns/tools: a sender that calls send() once a datagram, receivers that count every
number.  CPU is that of all programs, the kernel's work for them, and whatever else runs on the machine: wall-clock
time of all CPUs less what /proc/stat calls idle, waiting or stolen.  What connects the hosts is not known here.
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
"""The bar: at most this share lost, at every receiver."""

SETTLE_TIMEOUT_S = 20.0
"""Handshakes of the slowest VPN take about 10 s with 7 receivers."""

DRAIN_TIMEOUT_S = 2.0
"""For what is still in queues when the sender has ended; after that, what did not arrive is lost."""


# ---------------------------------------------------------------- CPU of the whole machine


@dataclass(frozen=True, slots=True)
class CpuClock:
    """/proc/stat at one moment, in seconds."""

    wall_s: float
    idle_s: float
    cpus: int

    @classmethod
    def read(cls) -> CpuClock:
        ticks = os.sysconf("SC_CLK_TCK")
        return cls(time.monotonic(), parse_idle(Path("/proc/stat").read_text()) / ticks, os.cpu_count() or 1)

    def busy_since(self, earlier: CpuClock) -> float:
        """CPU seconds that something ran in between."""
        return max(0.0, (self.wall_s - earlier.wall_s) * self.cpus - (self.idle_s - earlier.idle_s))


def parse_idle(text: str) -> int:
    """Ticks that no CPU worked for this machine: idle, iowait and steal of the first line."""
    words = text.splitlines()[0].split()
    assert words[0] == "cpu", f"not /proc/stat: {words}"
    return int(words[4]) + int(words[5]) + int(words[8])


def background_share(seconds: float = 1.0) -> float:
    """The share of all CPUs that others use while nothing is measured: above a few percent, figures are suspect."""
    before = CpuClock.read()
    time.sleep(seconds)
    after = CpuClock.read()
    return after.busy_since(before) / ((after.wall_s - before.wall_s) * after.cpus)


# ---------------------------------------------------------------- one trial


def group_addresses(count: int) -> list[str]:
    """Groups in a row, from GROUP on."""
    first = int.from_bytes(bytes(map(int, GROUP.split("."))))
    return [".".join(map(str, (first + i).to_bytes(4))) for i in range(count)]


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent; `pps` 0 is flat out.

    Each of the `programs` sends its share of the packets, in `flows` flows to `groups` groups of its own, and every
    receiving host runs as many programs, one for each that sends.
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
        """The groups of all programs."""
        return group_addresses(self.groups * self.programs)

    @property
    def group_lists(self) -> list[str]:
        """The groups of each program, as the traffic tool takes them."""
        count = f"+{self.groups}" if self.groups > 1 else ""
        return [first + count for first in self.addresses[:: self.groups]]


SINGLE = Load()
"""One program, one flow, one group."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it.  `loss` is the share at the worst receiver; `delivered_gbit` is summed over all receivers."""

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
        """What the sender reached."""
        return self.sent / self.seconds if self.seconds else 0.0

    @property
    def delivered_pps(self) -> float:
        """What the worst receiver got."""
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
    """Send, wait until all has arrived, count.  The groups are joined already (`settled`)."""
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
    forget_ended(network)
    counts = [account.stream() for account in accounts]
    sent = [int(report["sent"]) for report in reports for _ in network.receivers]
    worst = max(accounts, key=lambda account: account.latency_us["p99"])
    return Trial(
        asked_pps=load.pps,
        sent=sum(int(report["sent"]) for report in reports),
        seconds=max(float(report["seconds"]) for report in reports),
        loss=max(1 - count["unique"] / wanted if wanted else 1.0 for count, wanted in zip(counts, sent, strict=True)),
        duplicates=sum(int(count["duplicates"]) for count in counts),
        delivered_gbit=sum(count["bytes"] for count in counts) * 8 / 1e9,
        cpu_s=after.busy_since(before),
        latency_us={name: float(min(value, worst.latency_us["max"])) for name, value in worst.latency_us.items()},
    )


def forget_ended(network: Network) -> None:
    """A long measurement starts thousands of programs in the same hosts."""
    for host in network.hosts:
        host.processes = [process for process in host.processes if process.alive()]


@contextmanager
def settled(network: Network, load: Load = SINGLE) -> Iterator[Network]:
    """The network with the load's groups joined by all receivers, once a few datagrams reach every one of them."""
    network.join(load.addresses)
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    try:
        while (loss := run_trial(network, Load(pps=200, size=200, seconds=0.1)).loss) > 0:
            if time.monotonic() > deadline:
                raise LabError(f"{network.name}: after {SETTLE_TIMEOUT_S:.0f} s a receiver still misses {loss:.0%}")
        yield network
    finally:
        network.leave()


# ---------------------------------------------------------------- the highest rate without loss


START_PPS = 8000.0
"""Where a search begins that knows nothing yet."""


def highest_rate(network: Network, load: Load, *, confirm_s: float, near_pps: float | None = None) -> Trial | None:
    """The confirmed trial at the highest rate at which every receiver got at least 99.9 %; None if there is none.

    Of `load` the rate is what is searched; `near_pps` is what an earlier search found, and makes this one shorter.
    """
    search = RateSearch(near_pps * 0.85, growth=1.2) if near_pps else RateSearch(START_PPS)
    confirmed: Trial | None = None
    while ask := search.ask():
        seconds = confirm_s if ask.confirms else load.seconds
        trial = run_trial(network, replace(load, pps=ask.rate, seconds=seconds))
        search.tell(passed=trial.passed, reached=trial.pps)
        if ask.confirms and trial.passed:
            confirmed = trial
    return confirmed
