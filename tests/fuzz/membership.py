"""Fuzz targets of the membership side: bytes in, and what must hold whatever they are.

    ip, igmp, mld    a parser: a value or a WireError, and what was parsed is built and parsed to the same again
    router           a whole MembershipRouter under a script of packets and of time that passes

Checksums are put right before the bytes are parsed, or nothing would get past them; now and then they are left as
they are.  A target returns nothing and raises if something does not hold.
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
"""Packets of one script: enough for joins, leaves, an election and their end."""
SILENCE_MAX_S = 7 * 31_744 + 1000.0
"""State outlives silence by no more: robustness times query interval as a rival querier can set them at most (RFC 9776
§4.1.6, §4.1.7), and the two response intervals of §8.4 on top."""


def fuzz_ip(data: bytes) -> None:
    """Headers of both versions; the first IPv4 header's checksum is put right."""
    for packet in (data, _with_header_sum(data)):
        try:
            found = ip.parse(packet)
        except WireError:
            continue
        assert len(found.source) == len(found.destination) in (4, 16)
        assert len(found.payload) <= len(packet)
        assert found.payload in packet


def fuzz_igmp(data: bytes) -> None:
    """An IGMP message."""
    _parse_and_build(sealed_igmp(data), igmp.parse, igmp.build)


def fuzz_mld(data: bytes) -> None:
    """An MLD message."""
    _parse_and_build(
        sealed_mld(data),
        lambda message: mld.parse(message, source=HOST6, destination=ROUTERS6),
        lambda message: mld.build(message, source=HOST6, destination=ROUTERS6),
    )


def fuzz_router(data: bytes) -> None:
    """A script: each step is an octet of time, one of what kind, two of length, and a message."""
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


# ---------------------------------------------------------------- what must hold


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
    if isinstance(message, Query):  # a code may say 0 and is then built as the least that can be said
        assert isinstance(again, Query)
        kept = (message.version, message.group, message.sources, message.suppress, message.robustness)
        assert (again.version, again.group, again.sources, again.suppress, again.robustness) == kept or (
            message.version == 2 and message.max_response_s == 0
        )
    else:
        assert again == message


def _drain(router: MembershipRouter) -> None:
    """Every query is a packet that parses; every event is of its own group."""
    while (packet := router.poll_transmit()) is not None:
        seen = ip.parse(packet)
        if len(seen.source) == 4:
            assert isinstance(igmp.parse(seen.payload), Query)
        else:
            assert isinstance(mld.parse(seen.payload, source=seen.source, destination=seen.destination), Query)
    told: set[Address] = set()
    while (event := router.poll_event()) is not None:
        assert event.group not in told
        told.add(event.group)


def _check(router: MembershipRouter, now: float) -> None:
    """Counts are right, a snapshot holds all there is, and silence ends everything."""
    views = router.groups(now)
    for view in views:
        assert view.sources or view.filter_mode == "EXCLUDE"
        assert not set(view.sources) & set(view.requested) or view.filter_mode == "INCLUDE"
    database = router._database
    assert database.sources_count == sum(record.sources_count for record in database.groups.values())
    successor = _new_router(now)
    successor.restore(router.snapshot(now), now)
    assert [view.group for view in successor.groups(now)] == [view.group for view in views]
    silent_until = now + SILENCE_MAX_S
    while database.groups and now < silent_until:
        now += 100.0
        router.handle_timeout(now)
    assert not database.groups
    assert database.sources_count == 0


def _new_router(now: float) -> MembershipRouter:
    config = MembershipConfig(query_interval_s=4.0, query_response_interval_s=1.0, fast_leave=False)
    return MembershipRouter(
        config, querier_v4=parse("10.77.255.254"), querier_v6=parse("fe80::77:1"), mtu=1280, now=now
    )


# ---------------------------------------------------------------- putting checksums right


def _packet(kind: int, body: bytes) -> bytes:
    """Kind 0 and 1 are an IGMP and an MLD message in good headers, 2 and 3 from a rival router, all else raw."""
    if kind & 1 == 0 and kind < 4:
        source = HOST4 if kind < 2 else parse("10.77.0.1")
        return ip.build_v4(source=source, destination=ROUTERS4, payload=sealed_igmp(body))
    if kind < 4:
        source = HOST6 if kind < 2 else parse("fe80::1")
        return ip.build_v6(source=source, destination=ROUTERS6, payload=sealed_mld(body, source))
    return _with_header_sum(body)


def sealed_igmp(data: bytes) -> bytes:
    """The message with its checksum put right, if it is long enough to have one."""
    if len(data) < 8:
        return data
    blank = data[:2] + b"\0\0" + data[4:]
    return data[:2] + ip.checksum(blank).to_bytes(2, "big") + data[4:]


def sealed_mld(data: bytes, source: Address = HOST6) -> bytes:
    """The same with the pseudo-header."""
    if len(data) < 8:
        return data
    blank = data[:2] + b"\0\0" + data[4:]
    total = ip.checksum(ip.pseudo_header(source, ROUTERS6, len(blank)) + blank)
    return data[:2] + total.to_bytes(2, "big") + data[4:]


def _with_header_sum(data: bytes) -> bytes:
    """An IPv4 packet with its header checksum put right; anything else as it is."""
    header = (data[0] & 15) * 4 if data and data[0] >> 4 == 4 else 0
    if not 20 <= header <= len(data):
        return data
    blank = data[:10] + b"\0\0" + data[12:header]
    return data[:10] + ip.checksum(blank).to_bytes(2, "big") + data[12:]
