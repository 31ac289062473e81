"""Load tests with iperf 2, a common program for multicast tests: loss and jitter by rate.

Method: `iperf -s -u -B GROUP%IF` on every receiver, `iperf -c GROUP -u -b RATE` on host 1, datagrams of 1316 bytes,
receive buffers of 4 MiB where the system allows them. Neither iperf nor the networks are modified. Loss is the number
of datagrams that the client sent less those at the worst server. iperf keeps its rate by bursts, so it loses at lower
rates than the sender of versus.py.

    python perf/iperf_load.py [--quick] [--kinds ours-4,vxlan,native] [--mbit 10,50,100,200,400] [--json]
"""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict, dataclass
from typing import Any

from perf import contenders, packages
from perf.measure import GROUP, CpuClock, background_share, drop_ended_programs, settled
from perf.network import Network
from perf.report import Cell, Plot, Result, arguments, log_progress, run, table
from pipeline.errors import PipelineError
from pipeline.lab.netns import Host
from pipeline.lab.programs import LabError, Process, require, wait_until

PORT = 5002
SIZE = 1316
MBIT = "10,50,100,200,400,800"
QUICK_MBIT = "50,200,800"
JOIN_TIMEOUT_S = 5.0
REPORT_TIMEOUT_S = 3.0
HEADER = ("network", "Mbit/s offered", "Mbit/s sent", "Mbit/s worst", "loss worst", "jitter ms", "CPU s/Gbit")


@dataclass(frozen=True, slots=True)
class ServerReport:
    """Values of the final line of a server."""

    mbit: float
    jitter_ms: float
    received: int


def parse_client(text: str) -> tuple[float, int]:
    """Return Mbit/s and number of datagrams from the report of a client; LabError if there is none."""
    rate = re.search(r"sec\s+[\d.]+ MBytes\s+([\d.]+) Mbits/sec", text)
    sent = re.search(r"Sent (\d+) datagrams", text)
    if not rate or not sent:
        raise LabError(f"no report of an iperf 2 client: {text.strip()[-200:]}")
    return float(rate[1]), int(sent[1])


def parse_server(text: str) -> ServerReport | None:
    """Return the last report of a server, or None if it has received nothing so far."""
    line = r"sec\s+[\d.]+ MBytes\s+([\d.]+) Mbits/sec\s+([\d.]+) ms\s+(-?\d+)/\s*(\d+) \("
    found = re.findall(line, text)
    if not found:
        return None
    mbit, jitter, lost, total = found[-1]
    return ServerReport(float(mbit), float(jitter), int(total) - int(lost))


# ---------------------------------------------------------------- one load


@dataclass(frozen=True, slots=True)
class Load:
    """Result of one offered rate; `received`, `mbit` and `jitter_ms` are those of the worst receiver."""

    kind: str
    offered_mbit: float
    sent_mbit: float
    sent: int
    received: int
    mbit: float
    jitter_ms: float
    cpu_s_per_gbit: float | None

    @property
    def loss(self) -> float:
        """Share that was lost; the client counts its end mark, the server does not."""
        return max(0.0, 1 - self.received / (self.sent - 1)) if self.sent > 1 else 1.0

    def json(self) -> dict[str, Any]:
        return {**asdict(self), "loss": self.loss}


def is_listening(host: Host) -> bool:
    """Return whether a server on the host has bound its port."""
    return f":{PORT:04X} " in host.run([require("cat"), "/proc/net/udp"]).stdout


def serve(network: Network) -> list[Process]:
    where = ["-B", f"{GROUP}%{network.interface}", "-p", str(PORT), "-w", "4M", "-l", "1470"]
    servers = [
        host.spawn([require("iperf"), "-s", "-u", *where, "-f", "m"], label="iperf") for host in network.receivers
    ]
    wait_until(lambda: all(map(is_listening, network.receivers)), JOIN_TIMEOUT_S, "iperf servers have bound their port")
    return servers


def run_load(network: Network, mbit: float, seconds: float) -> Load:
    servers = serve(network)
    what = ["-b", f"{mbit:g}m", "-t", f"{seconds:g}", "-l", str(SIZE), "-T", "1", "-p", str(PORT), "-f", "m"]
    clock = CpuClock.read()
    done = network.sender.run([require("iperf"), "-c", GROUP, "-u", *what], check=False, timeout_s=seconds + 30)
    cpu_s = CpuClock.read().busy_since(clock)
    sent_mbit, sent = parse_client(done.stdout)
    try:
        wait_until(lambda: all(parse_server(s.output) for s in servers), REPORT_TIMEOUT_S, "iperf servers report")
    except LabError:
        log_progress(f"{network.name}, {mbit:g} Mbit/s: a server has no report")
    finally:
        for server in servers:
            server.kill()  # on SIGTERM it takes seconds to end
    reports = [parse_server(server.output) or ServerReport(0.0, 0.0, 0) for server in servers]
    drop_ended_programs(network)
    worst = min(reports, key=lambda report: report.received)
    gbit = sum(report.received for report in reports) * SIZE * 8 / 1e9
    cost = cpu_s / gbit if gbit else None
    return Load(network.name, mbit, sent_mbit, sent, worst.received, worst.mbit, worst.jitter_ms, cost)


# ---------------------------------------------------------------- tables


def result(loads: list[Load], failures: dict[str, str], receivers: int, background: float) -> Result:
    data = {"loads": loads, "failures": failures, "receivers": receivers, "background_share": background}
    found = Result("iperf_load", data)
    rows: list[list[Cell]] = [
        [x.kind, x.offered_mbit, x.sent_mbit, x.mbit, f"{x.loss:.2%}", x.jitter_ms, x.cpu_s_per_gbit] for x in loads
    ]
    found.add(f"iperf 2, {receivers} receivers, payload {SIZE} B", table(HEADER, rows))
    remarks = [f"- {what}: {why}" for what, why in failures.items()]
    remarks += [f"- {package} {version}" for package, version in packages.versions(["iperf"]).items()]
    remarks.append(f"- other work before the measurement: {background:.1%} of all CPUs")
    found.add("Remarks", "\n".join(remarks))
    return found


def draw(loads: list[Load]) -> None:
    plot = Plot("iperf_load", "iperf 2 multicast load", columns=2)
    kinds = dict.fromkeys(load.kind for load in loads)
    received = {kind: [(x.offered_mbit, x.mbit) for x in loads if x.kind == kind] for kind in kinds}
    lost = {kind: [(x.offered_mbit, x.loss * 100) for x in loads if x.kind == kind] for kind in kinds}
    plot.lines(plot.axes[0], received, "Mbit/s offered", "Mbit/s at the worst receiver")
    plot.lines(plot.axes[1], lost, "Mbit/s offered", "% lost at the worst receiver")
    plot.save()


# ---------------------------------------------------------------- command line


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__ or "", seconds=3.0)
    contenders.add_kinds(parser, "ours-4,vxlan,native")
    parser.add_argument("--mbit", default=None, help=f"rates to offer (by default {MBIT}, with --quick {QUICK_MBIT})")
    parser.add_argument("--receivers", type=int, default=3)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    kinds: list[str] = options.kinds
    packages.install(["iperf", *(program for kind in kinds for program in contenders.programs(kind))])
    seconds = min(options.seconds, 1.0) if options.quick else options.seconds
    rates = options.mbit or (QUICK_MBIT if options.quick else MBIT)
    background = background_share()
    loads: list[Load] = []
    failures: dict[str, str] = {}
    for kind in kinds:
        try:
            with contenders.make(kind, hosts=options.receivers + 1) as network, settled(network):
                for word in rates.split(","):
                    loads.append(run_load(network, float(word), seconds))
                    log_progress(f"{kind}: {word} Mbit/s: {loads[-1].loss:.2%} lost")
        except PipelineError as error:
            failures[kind] = str(error)
            log_progress(f"{kind}: {error}")
    found = result(loads, failures, options.receivers, background)
    draw(loads)
    found.publish(as_json=options.json)
    return 0


if __name__ == "__main__":
    run(main)
