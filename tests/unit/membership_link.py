"""A link for the membership tests: one router, any number of hosts, and a clock that only the test moves.

Packets are built by pipeline.wire, which has its own tests against scapy.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.address import Address, SourceFilter, parse
from pipeline.config import MembershipConfig
from pipeline.membership.querier import Querier
from pipeline.membership.router import MembershipRouter
from pipeline.membership.state import GroupState
from pipeline.wire import igmp, ip, mld
from pipeline.wire.report import Leave, Message, OldReport, Query, Record, RecordType, Report

QUERIER_V4 = parse("10.77.255.254")
QUERIER_V6 = parse("fe80::77:1")
ALL_ROUTERS = {4: parse("224.0.0.22"), 6: parse("ff02::16")}


@dataclass(frozen=True)
class Names:
    """Test addresses of one family."""

    ip: int
    group: Address
    other_group: Address
    ssm_group: Address
    sources: tuple[Address, ...]
    host: Address
    other_host: Address
    lower_querier: Address
    higher_querier: Address
    all_hosts: Address
    latest: str
    oldest: str


V4 = Names(
    ip=4,
    group=parse("239.1.2.3"),
    other_group=parse("239.1.2.4"),
    ssm_group=parse("232.1.2.3"),
    sources=tuple(parse(f"10.77.1.{i}") for i in range(1, 9)),
    host=parse("10.77.0.1"),
    other_host=parse("10.77.0.2"),
    lower_querier=parse("10.77.0.200"),
    higher_querier=parse("10.77.255.255"),
    all_hosts=parse("224.0.0.1"),
    latest="IGMPv3",
    oldest="IGMPv1",
)
V6 = Names(
    ip=6,
    group=parse("ff15::1:2"),
    other_group=parse("ff15::1:3"),
    ssm_group=parse("ff35::1"),
    sources=tuple(parse(f"fd77::{i}") for i in range(1, 9)),
    host=parse("fe80::1"),
    other_host=parse("fe80::2"),
    lower_querier=parse("fe80::77:0"),
    higher_querier=parse("fe80::77:2"),
    all_hosts=parse("ff02::1"),
    latest="MLDv2",
    oldest="MLDv1",
)
BOTH = (V4, V6)


def packet_of(message: Message, *, source: Address, destination: Address) -> bytes:
    """Return a message as a well-formed packet."""
    if len(source) == 4:
        return ip.build_v4(source=source, destination=destination, payload=igmp.build(message))
    payload = mld.build(message, source=source, destination=destination)
    return ip.build_v6(source=source, destination=destination, payload=payload)


def query_in(packet: bytes) -> Query:
    """Return the query in a packet of the router."""
    parsed = ip.parse(packet)
    if len(parsed.source) == 4:
        message = igmp.parse(parsed.payload)
    else:
        message = mld.parse(parsed.payload, source=parsed.source, destination=parsed.destination)
    assert isinstance(message, Query)
    return message


class Link:
    """The router under test and its clock; the router is started and its first general queries are drained."""

    def __init__(self, *, started: bool = True, mtu: int = 1436, **config: object) -> None:
        self.now = 100.0
        self.config = MembershipConfig(**config)  # type: ignore[arg-type]
        self.mtu = mtu
        self.router = self.new_router()
        if started:
            self.router.start(self.now)
            self.packets()

    def new_router(self) -> MembershipRouter:
        return MembershipRouter(self.config, querier_v4=QUERIER_V4, querier_v6=QUERIER_V6, mtu=self.mtu, now=self.now)

    # ---- messages of hosts and other routers

    def send(self, host: Address, message: Message, destination: Address) -> str | None:
        return self.router.handle_packet(packet_of(message, source=host, destination=destination), self.now)

    def report(
        self, names: Names, kind: RecordType, *indices: int, group: Address | None = None, host: Address | None = None
    ) -> str | None:
        record = Record(kind, group or names.group, tuple(names.sources[i] for i in indices))
        return self.send(host or names.host, Report((record,)), ALL_ROUTERS[names.ip])

    def old_report(self, names: Names, version: int, *, group: Address | None = None) -> str | None:
        return self.send(names.host, OldReport(version, group or names.group), group or names.group)

    def leave(self, names: Names, *, group: Address | None = None) -> str | None:
        return self.send(names.host, Leave(group or names.group), parse("224.0.0.2" if names.ip == 4 else "ff02::2"))

    def query(self, names: Names, source: Address, query: Query) -> str | None:
        return self.send(source, query, query.group or names.all_hosts)

    # ---- time

    def advance(self, seconds: float) -> None:
        """Let time pass; every timer is served at its own time, as a driver does."""
        until = self.now + seconds
        while (deadline := self.router.poll_timeout()) is not None and deadline <= until:
            self.now = max(self.now, deadline)
            self.router.handle_timeout(self.now)
        self.now = until

    # ---- output of the router

    def packets(self) -> list[bytes]:
        found = []
        while (packet := self.router.poll_transmit()) is not None:
            found.append(packet)
        return found

    def queries(self, names: Names, *, general: bool = False) -> list[Query]:
        """Return the specific (or general) queries of one family since the last drain, and drop the others."""
        found = [query_in(packet) for packet in self.packets() if packet[0] >> 4 == names.ip]
        return [query for query in found if (query.group is None) == general]

    def events(self) -> dict[Address, SourceFilter | None]:
        found: dict[Address, SourceFilter | None] = {}
        while (event := self.router.poll_event()) is not None:
            assert event.group not in found, "one event for each group"
            found[event.group] = event.source_filter
        return found

    def state(self, names: Names, group: Address | None = None) -> GroupState | None:
        return self.router._database.groups.get(group or names.group)

    def querier(self, names: Names) -> Querier:
        return self.router._v4 if names.ip == 4 else self.router._v6

    def compatibility(self, names: Names) -> str:
        (view,) = [view for view in self.router.groups(self.now) if view.group == names.group]
        return view.compatibility
