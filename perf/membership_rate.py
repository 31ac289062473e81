"""Membership at scale on one core: reports a second, and bytes per group.

Method: packets are built first and then passed to a `MembershipRouter` one by one, as control does, with events and
queries drained after each. Time is virtual, so only the work of the router is measured.

    python perf/membership_rate.py [--groups 65536] [--json]
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc

from pipeline.address import Address, parse
from pipeline.config import MembershipConfig
from pipeline.membership.router import RECORDS_PER_SECOND_MAX, SOURCES_PER_TOKEN, MembershipRouter
from pipeline.wire import igmp, ip, mld
from pipeline.wire.report import Record, RecordType, Report

HOSTS = {4: parse("10.77.0.1"), 6: parse("fe80::1")}
ROUTERS = {4: parse("224.0.0.22"), 6: parse("ff02::16")}


def new_router() -> MembershipRouter:
    return MembershipRouter(
        MembershipConfig(), querier_v4=parse("10.77.255.254"), querier_v6=parse("fe80::77:1"), mtu=1436, now=0.0
    )


def packet(record: Record) -> bytes:
    version = 4 if len(record.group) == 4 else 6
    host, routers = HOSTS[version], ROUTERS[version]
    if version == 4:
        return ip.build_v4(source=host, destination=routers, payload=igmp.build_report([record]))
    return ip.build_v6(
        source=host, destination=routers, payload=mld.build(Report((record,)), source=host, destination=routers)
    )


def group(version: int, index: int) -> Address:
    return (b"\xee" if version == 4 else b"\xff\x15" + bytes(11)) + index.to_bytes(3, "big")


def process(router: MembershipRouter, packets: list[bytes], *, rate_per_s: float = 20_000.0, now: float) -> float:
    """Pass the packets to the router at a rate in virtual time; return the real time that it took, in seconds."""
    begin = time.perf_counter()
    for i, one in enumerate(packets):
        reason = router.handle_packet(one, now + i / rate_per_s)
        assert reason is None, reason
        while router.poll_event() is not None:
            pass
        while router.poll_transmit() is not None:
            pass
    return time.perf_counter() - begin


def measure(version: int, groups: int) -> dict[str, float]:
    packets = {
        kind: [packet(Record(kind, group(version, i))) for i in range(groups)]
        for kind in (RecordType.TO_EX, RecordType.IS_EX, RecordType.TO_IN)
    }
    router, found, now = new_router(), {}, 0.0
    for name, kind in (("join", RecordType.TO_EX), ("refresh", RecordType.IS_EX), ("leave", RecordType.TO_IN)):
        found[f"{name}_per_s"] = groups / process(router, packets[kind], now=now)
        now += groups / 20_000.0
    assert router.counters["reports_received"] == 3 * groups
    return found


def bytes_per_group(groups: int) -> float:
    packets = [packet(Record(RecordType.TO_EX, group(4, i))) for i in range(groups)]
    tracemalloc.start()
    router = new_router()
    process(router, packets, now=0.0)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(router.groups(0.0)) == groups
    return size / groups


def sources_per_s(sources: int = 1000) -> dict[str, float]:
    """Measure one group with many sources: reports of all sources, and reports that add one source."""
    listed = tuple(b"\x0a\x4d" + i.to_bytes(2, "big") for i in range(sources))
    router, one_group = new_router(), group(4, 1)
    whole = packet(Record(RecordType.IS_IN, one_group, listed))
    single = packet(Record(RecordType.ALLOW, one_group, listed[:1]))
    rate = RECORDS_PER_SECOND_MAX / (sources / SOURCES_PER_TOKEN + 2)
    return {
        f"reports_of_{sources}_sources_per_s": 500 / process(router, [whole] * 500, rate_per_s=rate, now=0.0),
        f"report_of_one_source_among_{sources}_per_s": 20_000 / process(router, [single] * 20_000, now=5.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="reports a second and bytes per group of the membership router")
    parser.add_argument("--groups", type=int, default=65_536)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, float] = {"groups": options.groups}
    for version, name in ((4, "igmpv3"), (6, "mldv2")):
        found |= {f"{name}_{key}": value for key, value in measure(version, options.groups).items()}
    found["igmpv3_refresh_per_s_with_1_group"] = options.groups / process(
        new_router(), [packet(Record(RecordType.IS_EX, group(4, 1)))] * options.groups, now=0.0
    )
    found |= sources_per_s()
    found["bytes_per_group"] = bytes_per_group(options.groups)
    if options.json:
        print(json.dumps({"schema": 1, "membership_rate": {key: round(value) for key, value in found.items()}}))
        return
    for key, value in found.items():
        print(f"{key:<45} {value:>12,.0f}")


if __name__ == "__main__":
    main()
