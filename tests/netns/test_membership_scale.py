"""Goal: a node holds 65,536 groups and keeps up with many reports a second, with bounded memory.

Method: reports of one record each are put on the TUN at 12,000 a second: joins of 65,536 groups, refreshes, leaves.
After each phase the test reads the number of processed reports, the groups on the other node and the memory of control.
perf/membership_daemon.py measures 20,000 a second, which needs a machine without other work."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
import pytest

from pipeline.lab.instance import Instance
from pipeline.lab.programs import wait_until
from pipeline.wire import igmp, ip
from pipeline.wire.report import Record, RecordType
from tests.netns.network import Network, worker_pid
from tests.netns.segment import Segment
from tests.netns.sockets import Sockets

GROUPS = 65_536
RATE_PER_S = 12_000
HOST, ROUTERS = bytes([10, 77, 200, 1]), bytes([224, 0, 0, 22])


def reports(kind: RecordType) -> list[bytes]:
    """Return a report of one record for each group."""
    groups = (b"\xee" + number.to_bytes(3, "big") for number in range(GROUPS))
    return [
        ip.build_v4(source=HOST, destination=ROUTERS, payload=igmp.build_report([Record(kind, group)]))
        for group in groups
    ]


def processed_reports(instance: Instance) -> int:
    """Return the number of reports that control has processed so far."""
    count: int = instance.request("show", "counters", timeout_s=10)["membership"].get("reports_received", 0)
    return count


def resident_bytes(instance: Instance) -> int:
    size: int = psutil.Process(worker_pid(instance, "control")).memory_info().rss
    return size


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_node_holds_65536_groups(
    make_network: Callable[..., Network], sockets: Sockets, measured: Callable[..., None]
) -> None:
    """Goal: no report of 65,536 groups is lost, and the memory of control is bounded.
    Method: the phases above, with the number of groups on both nodes after each."""
    network = make_network(2, workers=2)
    node, other = network.instances
    segment = Segment(sockets, node)
    expected, empty = processed_reports(node), resident_bytes(node)
    behind_s = {}
    for name, kind in (("join", RecordType.TO_EX), ("refresh", RecordType.IS_EX), ("again", RecordType.IS_EX)):
        packets = reports(kind)
        segment.send_at(packets, RATE_PER_S)
        sent, expected = time.monotonic(), expected + GROUPS
        progress = f"{name}: {processed_reports(node)} of {expected}"
        wait_until(lambda: processed_reports(node) >= expected, 20, progress, every_s=0.05)  # noqa: B023
        behind_s[name] = time.monotonic() - sent
        if name == "refresh":
            full = resident_bytes(node)
    grown = resident_bytes(node) - full
    began = time.monotonic()
    rows = node.request("show", "groups", timeout_s=20)
    show_s = time.monotonic() - began
    assert len(rows) == GROUPS
    assert sum(len(row["members"]) for row in other.request("show", "groups", timeout_s=20)) == GROUPS
    counters = node.show("counters")
    assert (counters["drops"]["report_limit"], counters["drops"]["tun_queue"]) == (0, 0)
    measured(
        **{f"{name}_behind_s": value for name, value in behind_s.items()},
        show_s=show_s,
        bytes_per_group=(full - empty) / GROUPS,
        grown_mb=grown / 1e6,
    )
    assert max(behind_s.values()) < 5
    assert grown < 60e6  # a checkpoint that is being written takes some
    segment.send_at(reports(RecordType.TO_IN), RATE_PER_S)
    wait_until(lambda: not node.request("show", "groups", timeout_s=20), 20, "all groups have ended", every_s=0.2)
    wait_until(lambda: not other.request("show", "groups", timeout_s=20), 20, "the other lists no group", every_s=0.2)
    assert resident_bytes(node) < full + 60e6
