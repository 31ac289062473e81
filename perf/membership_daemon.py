"""Membership at scale through a running node: delay, CPU and memory of control for many reports on its TUN.

Method: two nodes in a laboratory. Reports of one record each are sent on the first node's TUN at a fixed rate: joins of
all groups, refreshes, leaves. For each phase: the rate, the delay of control behind the last report, its CPU time for
each report. Then the memory for each group, the time of `show groups`, and the number of drops.

    python -m perf.membership_daemon [--groups 65536] [--rate 20000] [--json]
"""

from __future__ import annotations

import argparse
import json
import time

import psutil

from perf.membership_rate import group, packet
from pipeline.lab.instance import Instance
from pipeline.lab.programs import wait_until
from pipeline.wire.report import Record, RecordType
from tests.netns.network import Network, worker_pid
from tests.netns.segment import Segment
from tests.netns.sockets import Sockets

PHASES = (("join", RecordType.TO_EX), ("refresh", RecordType.IS_EX), ("leave", RecordType.TO_IN))
TIMEOUT_S = 60.0


def processed_reports(node: Instance) -> int:
    count: int = node.request("show", "counters", timeout_s=TIMEOUT_S)["membership"].get("reports_received", 0)
    return count


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(node: Instance, segment: Segment, *, groups: int, rate_per_s: float) -> dict[str, float]:
    control = psutil.Process(worker_pid(node, "control"))
    found: dict[str, float] = {"groups": groups, "rate_per_s": rate_per_s}
    expected, empty = processed_reports(node), control.memory_info().rss
    for name, kind in PHASES:
        packets = [packet(Record(kind, group(4, i))) for i in range(groups)]
        before = cpu_s(control)
        found[f"{name}_sent_per_s"] = groups / segment.send_at(packets, rate_per_s)
        sent, expected = time.monotonic(), expected + groups
        what = f"all reports of {name} are processed"
        wait_until(lambda: processed_reports(node) >= expected, TIMEOUT_S, what, every_s=0.02)  # noqa: B023
        found[f"{name}_behind_ms"] = 1e3 * (time.monotonic() - sent)
        found[f"{name}_cpu_us"] = 1e6 * (cpu_s(control) - before) / groups
        if name == "refresh":
            found["bytes_per_group"] = (control.memory_info().rss - empty) / groups
            began = time.monotonic()
            assert len(node.request("show", "groups", timeout_s=TIMEOUT_S)) == groups
            found["show_groups_ms"] = 1e3 * (time.monotonic() - began)
    drops = node.show("counters")["drops"]
    return found | {"dropped": drops["report_limit"] + drops["tun_queue"]}


def main() -> None:
    parser = argparse.ArgumentParser(description="membership reports through a running node")
    parser.add_argument("--groups", type=int, default=65_536)
    parser.add_argument("--rate", type=float, default=20_000.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sockets = Sockets()
    with Network(2) as network:
        node = network.instances[0]
        try:
            found = measure(node, Segment(sockets, node), groups=options.groups, rate_per_s=options.rate)
        finally:
            sockets.close()
    if options.json:
        print(json.dumps({"schema": 1, "membership_daemon": {key: round(value, 1) for key, value in found.items()}}))
        return
    for key, value in found.items():
        print(f"{key:<45} {value:>12,.1f}")


if __name__ == "__main__":
    main()
