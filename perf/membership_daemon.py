"""Membership at scale through a running node: reports on its TUN, what control does with them, and what that costs.

Method: two nodes in a laboratory.  Reports of one record are put on the first one's TUN at a rate: joins of so many
groups, refreshes, leaves.  Said for each: the rate, how long control was behind when the last had been sent, its CPU
for each report; then the memory for each group and the time of `show groups`, and at the end what was dropped.

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


def taken(node: Instance) -> int:
    count: int = node.ask("show", "counters", timeout_s=TIMEOUT_S)["membership"].get("reports_received", 0)
    return count


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(node: Instance, link: Segment, *, groups: int, rate_per_s: float) -> dict[str, float]:
    control = psutil.Process(worker_pid(node, "control"))
    found: dict[str, float] = {"groups": groups, "rate_per_s": rate_per_s}
    expected, empty = taken(node), control.memory_info().rss
    for name, kind in PHASES:
        packets = [packet(Record(kind, group(4, i))) for i in range(groups)]
        before = cpu_s(control)
        found[f"{name}_sent_per_s"] = groups / link.send_at(packets, rate_per_s)
        sent, expected = time.monotonic(), expected + groups
        wait_until(lambda: taken(node) >= expected, TIMEOUT_S, f"{name} is taken in", every_s=0.02)  # noqa: B023
        found[f"{name}_behind_ms"] = 1e3 * (time.monotonic() - sent)
        found[f"{name}_cpu_us"] = 1e6 * (cpu_s(control) - before) / groups
        if name == "refresh":
            found["bytes_per_group"] = (control.memory_info().rss - empty) / groups
            began = time.monotonic()
            assert len(node.ask("show", "groups", timeout_s=TIMEOUT_S)) == groups
            found["show_groups_ms"] = 1e3 * (time.monotonic() - began)
    drops = node.show("counters")["drops"]
    return found | {"dropped": drops["report_limit"] + drops["tun_queue"]}


def main() -> None:
    parser = argparse.ArgumentParser(description="membership reports through a running node")
    parser.add_argument("--groups", type=int, default=65_536)
    parser.add_argument("--rate", type=float, default=20_000.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    sockets = Sockets()
    with Network(2) as network:
        node = network.instances[0]
        try:
            found = measure(node, Segment(sockets, node), groups=given.groups, rate_per_s=given.rate)
        finally:
            sockets.close()
    if given.json:
        print(json.dumps({"schema": 1, "membership_daemon": {key: round(value, 1) for key, value in found.items()}}))
        return
    for key, value in found.items():
        print(f"{key:<45} {value:>12,.1f}")


if __name__ == "__main__":
    main()
