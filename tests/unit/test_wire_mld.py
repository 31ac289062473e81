"""MLD codec.  Goal: every message of RFC 2710 and 9777 is built and parsed, and hostile bytes raise WireError only.

Method: scapy is the other side; hypothesis makes messages; wrong counts and cut messages one by one.
"""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLDone,
    ICMPv6MLQuery2,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)

from pipeline.address import parse as address
from pipeline.errors import WireError
from pipeline.wire import ip, mld
from pipeline.wire.report import Leave, Message, OldReport, Query, Record, RecordType, Report

HOST, ALL, ROUTERS = address("fe80::1"), address("ff02::1"), address("ff02::16")
G = address("ff15::1:2")
S1, S2 = address("fd77::1"), address("fd77::2")

ADDRESSES = st.binary(min_size=16, max_size=16)
RECORDS = st.builds(Record, st.sampled_from(RecordType), ADDRESSES, st.lists(ADDRESSES, max_size=4).map(tuple))
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Report, st.lists(RECORDS, max_size=3).map(tuple)),
    st.builds(OldReport, st.just(1), ADDRESSES),
    st.builds(Leave, ADDRESSES),
    st.builds(
        Query,
        version=st.just(1),
        group=st.none() | ADDRESSES.filter(any),
        max_response_s=st.integers(1, 65535).map(lambda milliseconds: milliseconds / 1000),
    ),
    st.builds(
        Query,
        version=st.just(2),
        group=st.none() | ADDRESSES.filter(any),
        max_response_s=st.integers(1, 32767).map(lambda milliseconds: milliseconds / 1000),
        suppress=st.booleans(),
        robustness=st.integers(0, 7),
        query_interval_s=st.integers(0, 127).map(float),
        sources=st.lists(ADDRESSES, max_size=4).map(tuple),
    ).filter(lambda query: query.group is not None or not query.sources),
)


def parse(message: bytes, destination: bytes = ROUTERS) -> Message | None:
    return mld.parse(message, source=HOST, destination=destination)


def with_checksum(blank: bytes, destination: bytes = ROUTERS) -> bytes:
    total = ip.checksum(ip.pseudo_header(HOST, destination, len(blank)) + blank)
    return blank[:2] + total.to_bytes(2, "big") + blank[4:]


def refusal(message: bytes) -> str:
    with pytest.raises(WireError) as caught:
        parse(message)
    return str(caught.value)


@given(MESSAGES)
def test_parse_inverts_build(message: Message) -> None:
    """Goal: parse returns every message that build has made."""
    assert parse(mld.build(message, source=HOST, destination=ROUTERS)) == message


def test_messages_of_scapy_are_parsed() -> None:
    """Goal: reports of both versions and dones.  Method: scapy builds them, with its checksum."""
    head = IPv6(src="fe80::1", dst="ff02::16", hlim=1) / IPv6ExtHdrHopByHop(options=[RouterAlert()])
    records = [
        ICMPv6MLDMultAddrRec(rtype=4, dst="ff15::1:2"),
        ICMPv6MLDMultAddrRec(rtype=1, dst="ff35::1", sources=["fd77::1", "fd77::2"]),
    ]
    cases = [
        (
            ICMPv6MLReport2(records=records),
            Report((Record(RecordType.TO_EX, G), Record(RecordType.IS_IN, address("ff35::1"), (S1, S2)))),
        ),
        (ICMPv6MLReport(mladdr="ff15::1:2"), OldReport(1, G)),
        (ICMPv6MLDone(mladdr="ff15::1:2"), Leave(G)),
    ]
    for layer, expected in cases:
        packet = ip.parse(bytes(head / layer))
        assert mld.parse(packet.payload, source=packet.source, destination=packet.destination) == expected


def test_scapy_parses_the_queries() -> None:
    """Goal: RFC 9777 §5.1, field by field, with the checksum."""
    query = Query(2, G, 1.0, suppress=True, robustness=2, query_interval_s=125.0, sources=(S1, S2))
    wire = ip.build_v6(source=HOST, destination=G, payload=mld.build(query, source=HOST, destination=G))
    packet = IPv6(wire)
    seen = packet[ICMPv6MLQuery2]
    assert (seen.mrd, seen.mladdr, seen.S, seen.QRV, seen.QQIC) == (1000, "ff15::1:2", 1, 2, 125)
    assert (seen.sources_number, seen.sources) == (2, ["fd77::1", "fd77::2"])
    was = seen.cksum
    del seen.cksum
    assert IPv6(bytes(packet))[ICMPv6MLQuery2].cksum == was


def test_codes_are_linear_in_version_1_and_floating_point_in_2() -> None:
    """Goal: RFC 2710 §3.4 and RFC 9777 §5.1.3, at the ends of each range."""
    for query, code in [
        (Query(1, None, 100.0), 0xFFFF),
        (Query(1, None, 40.0), 40000),
        (Query(2, None, 32.767), 32767),
        (Query(2, None, 32.768), 32768),
        (Query(2, None, 9000.0), 0xFFFF),
    ]:
        message = mld.build(query, source=HOST, destination=ROUTERS)
        assert int.from_bytes(message[4:6], "big") == code
    parsed = parse(with_checksum(struct.pack("!BBHHH16sBBH", 130, 0, 0, 0x8001, 0, bytes(16), 0, 0x80, 0)))
    assert parsed == Query(2, None, 32.776, query_interval_s=128.0)


@pytest.mark.parametrize("length", [25, 26, 27])
def test_query_of_another_length_is_refused(length: int) -> None:
    """Goal: lengths between those of the versions are not a query (RFC 9777 §8.1)."""
    assert refusal(with_checksum(b"\x82\x00" + bytes(length - 2))) == "mld_query_length"


def test_unknown_flags_and_reserved_fields_are_ignored() -> None:
    """Goal: fields of later versions beside S and QRV change nothing."""
    query = parse(with_checksum(b"\x82\0\0\0" + struct.pack("!HH16sBBH", 1000, 0xFFFF, G, 0xF2, 125, 0)))
    assert query == Query(2, G, 1.0, robustness=2, query_interval_s=125.0)


def test_general_query_with_sources_is_refused() -> None:
    """Goal: a query with sources but no group is not processed as a general query."""
    query = b"\x82\0\0\0" + struct.pack("!HH16sBBH", 1000, 0, bytes(16), 2, 125, 1) + S1
    assert refusal(with_checksum(query)) == "mld_query_sources"


def test_icmpv6_code_and_trailing_octets_are_ignored() -> None:
    """Goal: the code is ignored, and additional data is summed only (RFC 9777 §5.1.1, §5.1.12)."""
    assert parse(with_checksum(bytes([131, 7]) + bytes(6) + G + b"trailing")) == OldReport(1, G)


def test_auxiliary_data_and_unknown_record_types_are_ignored() -> None:
    """Goal: the record after auxiliary data is found, unknown types are ignored (RFC 9777 §5.2)."""
    records = struct.pack("!BBH16s", 9, 1, 1, G) + S1 + b"aux." + struct.pack("!BBH16s", 6, 0, 1, G) + S2
    assert parse(with_checksum(struct.pack("!BBHHH", 143, 0, 0, 0, 2) + records)) == Report(
        (Record(RecordType.BLOCK, G, (S2,)),)
    )


@pytest.mark.parametrize("kind", [0, 1, 128, 133, 134, 135, 136, 142, 144])
def test_other_icmpv6_types_are_ignored(kind: int) -> None:
    """Goal: echo, neighbour discovery and others are ignored, whatever their checksum."""
    assert parse(bytes([kind]) + bytes(23)) is None
    assert parse(b"") is None


@pytest.mark.parametrize(("kind", "size"), [(130, 23), (131, 23), (132, 23), (143, 7), (130, 1)])
def test_message_below_its_fixed_part_is_refused(kind: int, size: int) -> None:
    """Goal: a message shorter than its type requires is not parsed."""
    assert refusal(bytes([kind]) + bytes(size - 1)) == "mld_truncated"


def test_checksum_covers_the_addresses() -> None:
    """Goal: the same bytes between other addresses are refused (RFC 8200 §8.1, pseudo-header)."""
    message = mld.build(Leave(G), source=HOST, destination=ROUTERS)
    assert parse(message) == Leave(G)
    with pytest.raises(WireError, match="mld_checksum"):
        mld.parse(message, source=HOST, destination=ALL)


@pytest.mark.parametrize(
    "blank",
    [
        struct.pack("!BBHHH", 143, 0, 0, 0, 1),
        struct.pack("!BBHHH", 143, 0, 0, 0, 0xFFFF) + bytes(64),
        struct.pack("!BBHHHBBH16s", 143, 0, 0, 0, 1, 1, 0, 1, G),
        struct.pack("!BBHHHBBH16s", 143, 0, 0, 0, 1, 1, 0, 0xFFFF, G) + bytes(64),
        struct.pack("!BBHHHBBH16s", 143, 0, 0, 0, 1, 1, 1, 0, G),
        struct.pack("!BBHHHBBH16s", 143, 0, 0, 0, 2, 1, 0, 1, G) + bytes(32),
        struct.pack("!BBHHH16sBBH", 130, 0, 0, 1000, 0, G, 2, 125, 1),
    ],
)
def test_counts_beyond_the_message_are_refused(blank: bytes) -> None:
    """Goal: no count in a message is trusted.
    Method: too large counts of records, of their sources and auxiliary words, and of a query's sources."""
    assert refusal(with_checksum(blank)) == "mld_truncated"


@given(st.sampled_from(sorted(mld.TYPES)), st.binary(min_size=3, max_size=100))
def test_hostile_bytes_raise_wire_errors_only(kind: int, data: bytes) -> None:
    """Goal: no bytes raise another exception, not even with a right checksum."""
    for message in (bytes([kind]) + data, with_checksum(bytes([kind]) + data)):
        with contextlib.suppress(WireError):
            parse(message)


def test_robustness_above_seven_is_sent_as_zero() -> None:
    """Goal: QRV has three bits; RFC 9777 §5.1.8 has 0 sent for a larger Robustness Variable."""
    for robustness, sent in ((7, 7), (8, 0), (100, 0)):
        message = mld.build(Query(2, None, 10.0, robustness=robustness), source=HOST, destination=ALL)
        assert message[24] == sent
