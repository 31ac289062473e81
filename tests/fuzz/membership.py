"""Fuzz targets of membership: any bytes in, and invariants that must hold.

    ip, igmp, mld    a parser: it returns a value or raises WireError; a message that is built again is parsed alike
    router           a whole MembershipRouter with a script of packets and times

Checksums are corrected before the bytes are parsed, because random bytes rarely have the right one.  A target returns
nothing, and raises if an invariant is violated.
"""

from __future__ import annotations

from collections.abc import Callable

from pipeline.address import Address, parse
from pipeline.config import MembershipConfig
from pipeline.errors import WireError
from pipeline.membership.router import MembershipRouter
from pipeline.wire import igmp, ip, mld
from pipeline.wire.report import Message, Query

HOST4, HOST6 = parse("10.77.200.1"), parse("fe80::c8:1")
ROUTERS4, ROUTERS6 = parse("224.0.0.22"), parse("ff02::16")
STEPS_MAX = 64
"""Packets of one script: enough for joins, leaves, an election and the end of all groups."""
STATE_MAX_S = 7 * 31_744 + 1000.0
"""Longest time for which state lasts without packets: the largest robustness times the largest query interval of
another querier (RFC 9776 §4.1.6, §4.1.7), and two response intervals (§8.4)."""


def fuzz_ip(data: bytes) -> None:
    """Parse headers of both versions, as they are and with a correct IPv4 header checksum."""
    for packet in (data, _with_header_checksum(data)):
        try:
            found = ip.parse(packet)
        except WireError:
            continue
        assert len(found.source) == len(found.destination) in (4, 16)
        assert len(found.payload) <= len(packet)
        assert found.payload in packet


def fuzz_igmp(data: bytes) -> None:
    """Parse an IGMP message, and build it again."""
    _parse_and_build(igmp_with_checksum(data), igmp.parse, igmp.build)


def fuzz_mld(data: bytes) -> None:
    """Parse an MLD message, and build it again."""
    _parse_and_build(
        mld_with_checksum(data),
        lambda message: mld.parse(message, source=HOST6, destination=ROUTERS6),
        lambda message: mld.build(message, source=HOST6, destination=ROUTERS6),
    )


def fuzz_router(data: bytes) -> None:
    """Run a script: each step is an octet of time, an octet for the kind, two octets of length, and a message."""
    now = 0.0
    router = _new_router(now)
    router.start(now)
    at = 0
    for _ in range(STEPS_MAX):
        if at + 4 > len(data):
            break
        wait, kind, length = data[at], data[at + 1], data[at + 2] << 8 | data[at + 3]
        body = data[at + 4 : at + 4 + length]
        at += 4 + length
        now += wait / 16
        while (due := router.poll_timeout()) is not None and due <= now:
            router.handle_timeout(now)
        router.handle_packet(_packet(kind, body), now)
        _drain(router)
    _check(router, now)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "ip": fuzz_ip,
    "igmp": fuzz_igmp,
    "mld": fuzz_mld,
    "router": fuzz_router,
}


# ---------------------------------------------------------------- invariants


def _parse_and_build(
    data: bytes, parse_message: Callable[[bytes], Message | None], build: Callable[[Message], bytes]
) -> None:
    try:
        message = parse_message(data)
    except WireError:
        return
    if message is None:
        return
    again = parse_message(build(message))
    if isinstance(message, Query):  # a code of 0 is built as the smallest time
        assert isinstance(again, Query)
        kept = (message.version, message.group, message.sources, message.suppress, message.robustness)
        assert (again.version, again.group, again.sources, again.suppress, again.robustness) == kept or (
            message.version == 2 and message.max_response_s == 0
        )
    else:
        assert again == message


def _drain(router: MembershipRouter) -> None:
    """Check that every query is a packet that can be parsed, and that there is one event for each group."""
    while (packet := router.poll_transmit()) is not None:
        parsed = ip.parse(packet)
        if len(parsed.source) == 4:
            assert isinstance(igmp.parse(parsed.payload), Query)
        else:
            assert isinstance(mld.parse(parsed.payload, source=parsed.source, destination=parsed.destination), Query)
    groups: set[Address] = set()
    while (event := router.poll_event()) is not None:
        assert event.group not in groups
        groups.add(event.group)


def _check(router: MembershipRouter, now: float) -> None:
    """Check that counts are right, that a snapshot has all groups, and that all groups end without packets."""
    views = router.groups(now)
    for view in views:
        assert view.sources or view.filter_mode == "EXCLUDE"
        assert not set(view.sources) & set(view.requested) or view.filter_mode == "INCLUDE"
    database = router._database
    assert database.sources_count == sum(state.sources_count for state in database.groups.values())
    successor = _new_router(now)
    successor.restore(router.snapshot(now), now)
    assert [view.group for view in successor.groups(now)] == [view.group for view in views]
    end = now + STATE_MAX_S
    while database.groups and now < end:
        now += 100.0
        router.handle_timeout(now)
    assert not database.groups
    assert database.sources_count == 0


def _new_router(now: float) -> MembershipRouter:
    config = MembershipConfig(query_interval_s=4.0, query_response_interval_s=1.0, fast_leave=False)
    return MembershipRouter(
        config, querier_v4=parse("10.77.255.254"), querier_v6=parse("fe80::77:1"), mtu=1280, now=now
    )


# ---------------------------------------------------------------- checksums


def _packet(kind: int, body: bytes) -> bytes:
    """Return an IGMP (0) or MLD (1) message of a host, one of another router (2, 3), or raw bytes (other kinds)."""
    if kind & 1 == 0 and kind < 4:
        source = HOST4 if kind < 2 else parse("10.77.0.1")
        return ip.build_v4(source=source, destination=ROUTERS4, payload=igmp_with_checksum(body))
    if kind < 4:
        source = HOST6 if kind < 2 else parse("fe80::1")
        return ip.build_v6(source=source, destination=ROUTERS6, payload=mld_with_checksum(body, source))
    return _with_header_checksum(body)


def igmp_with_checksum(data: bytes) -> bytes:
    """Return the message with a correct checksum, if it is long enough to have one."""
    if len(data) < 8:
        return data
    blank = data[:2] + b"\0\0" + data[4:]
    return data[:2] + ip.checksum(blank).to_bytes(2, "big") + data[4:]


def mld_with_checksum(data: bytes, source: Address = HOST6) -> bytes:
    """Return the message with a correct checksum, which includes the pseudo-header."""
    if len(data) < 8:
        return data
    blank = data[:2] + b"\0\0" + data[4:]
    total = ip.checksum(ip.pseudo_header(source, ROUTERS6, len(blank)) + blank)
    return data[:2] + total.to_bytes(2, "big") + data[4:]


def _with_header_checksum(data: bytes) -> bytes:
    """Return an IPv4 packet with a correct header checksum, and any other bytes unchanged."""
    header = (data[0] & 15) * 4 if data and data[0] >> 4 == 4 else 0
    if not 20 <= header <= len(data):
        return data
    blank = data[:10] + b"\0\0" + data[12:header]
    return data[:10] + ip.checksum(blank).to_bytes(2, "big") + data[12:]
