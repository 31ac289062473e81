"""IGMP codec.  Goal: every message of RFC 1112, 2236 and 9776 is built and parsed, and hostile bytes raise WireError
only.

Method: scapy is the other side; hypothesis makes messages; wrong counts and cut messages one by one.
"""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.igmp import IGMP
from scapy.contrib.igmpv3 import IGMPv3, IGMPv3gr, IGMPv3mq, IGMPv3mr

from pipeline.address import parse as address
from pipeline.errors import WireError
from pipeline.wire import igmp, ip
from pipeline.wire.report import (
    Leave,
    Message,
    OldReport,
    Query,
    Record,
    RecordType,
    Report,
    decode_code,
    encode_code,
    ticks,
)

G = address("239.1.2.3")
S1, S2 = address("10.77.1.1"), address("10.77.1.2")

ADDRESSES = st.binary(min_size=4, max_size=4)
RECORDS = st.builds(Record, st.sampled_from(RecordType), ADDRESSES, st.lists(ADDRESSES, max_size=5).map(tuple))
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Report, st.lists(RECORDS, max_size=4).map(tuple)),
    st.builds(OldReport, st.integers(1, 2), ADDRESSES),
    st.builds(Leave, ADDRESSES),
    st.builds(
        Query,
        version=st.just(3),
        group=st.none() | ADDRESSES.filter(any),
        max_response_s=st.integers(1, 127).map(lambda tenths: tenths / 10),
        suppress=st.booleans(),
        robustness=st.integers(0, 7),
        query_interval_s=st.integers(0, 127).map(float),
        sources=st.lists(ADDRESSES, max_size=5).map(tuple),
    ).filter(lambda query: query.group is not None or not query.sources),
)


def with_checksum(blank: bytes) -> bytes:
    return blank[:2] + ip.checksum(blank).to_bytes(2, "big") + blank[4:]


def refusal(message: bytes) -> str:
    with pytest.raises(WireError) as caught:
        igmp.parse(message)
    return str(caught.value)


@given(MESSAGES)
def test_parse_inverts_build(message: Message) -> None:
    """Goal: parse returns every message that build has made."""
    assert igmp.parse(igmp.build(message)) == message


def test_reports_of_scapy_are_parsed() -> None:
    """Goal: RFC 9776 §4.2.  Method: scapy builds a report with two records."""
    records = [
        IGMPv3gr(rtype=4, maddr="239.1.2.3"),
        IGMPv3gr(rtype=1, maddr="232.1.1.1", srcaddrs=["10.77.1.1", "10.77.1.2"]),
    ]
    wire = bytes(IGMPv3mr(records=records))
    expected = (Record(RecordType.TO_EX, G), Record(RecordType.IS_IN, address("232.1.1.1"), (S1, S2)))
    assert igmp.parse(wire) == Report(expected)


def test_scapy_parses_the_queries() -> None:
    """Goal: RFC 9776 §4.1, field by field, in version 3, and 8 octets in versions 1 and 2 (§7.3.1)."""
    query = Query(3, G, 1.0, suppress=True, robustness=2, query_interval_s=125.0, sources=(S1, S2))
    seen = IGMPv3(igmp.build(query))
    body = seen[IGMPv3mq]
    assert (seen.type, seen.mrcode, body.gaddr, body.s, body.qrv, body.qqic) == (0x11, 10, "239.1.2.3", 1, 2, 125)
    assert (body.numsrc, body.srcaddrs) == (2, ["10.77.1.1", "10.77.1.2"])
    old = IGMP(igmp.build(Query(2, G, 20.0)))
    assert (old.type, old.mrcode, old.gaddr) == (0x11, 200, "239.1.2.3")
    assert igmp.build(Query(2, None, 60.0))[1] == 255
    assert igmp.build(Query(1, None, 10.0))[:2] == b"\x11\x00"


@pytest.mark.parametrize(("version", "code"), [(1, 0), (2, 100), (2, 255)])
def test_query_version_follows_from_length_and_code(version: int, code: int) -> None:
    """Goal: 8 octets are version 1 with code 0, else version 2, with a linear code (RFC 9776 §7.1)."""
    parsed = igmp.parse(with_checksum(struct.pack("!BBH4s", 0x11, code, 0, bytes(4))))
    assert parsed == Query(version, None, code / 10 if code else 10.0)


@pytest.mark.parametrize("length", [9, 10, 11])
def test_query_of_another_length_is_refused(length: int) -> None:
    """Goal: lengths between those of the versions are not a query (RFC 9776 §7.1)."""
    assert refusal(with_checksum(b"\x11\x64" + bytes(length - 2))) == "igmp_query_length"


def test_unknown_flags_and_reserved_fields_are_ignored() -> None:
    """Goal: fields of later versions beside S and QRV change nothing."""
    query = igmp.parse(with_checksum(struct.pack("!BBH4sBBH", 0x11, 100, 0, G, 0xF2, 125, 0)))
    assert query == Query(3, G, 10.0, robustness=2, query_interval_s=125.0)


def test_general_query_with_sources_is_refused() -> None:
    """Goal: a query with sources but no group is not processed as a general query."""
    assert (
        refusal(with_checksum(struct.pack("!BBH4sBBH", 0x11, 100, 0, bytes(4), 2, 125, 1) + S1)) == "igmp_query_sources"
    )


def test_trailing_octets_are_used_for_the_checksum_only() -> None:
    """Goal: additional data is summed and otherwise ignored (RFC 9776 §4.1.10, §4.2.12)."""
    built = igmp.build(Query(3, G, 1.0, sources=(S1,)))
    query = with_checksum(built[:2] + b"\0\0" + built[4:] + b"extra")
    parsed = igmp.parse(query)
    assert isinstance(parsed, Query)
    assert parsed.sources == (S1,)
    assert igmp.parse(with_checksum(b"\x16\0\0\0" + G + b"more")) == OldReport(2, G)
    assert refusal(igmp.build(OldReport(2, G)) + b"more") == "igmp_checksum"


def test_auxiliary_data_is_skipped() -> None:
    """Goal: the record after auxiliary data is found (RFC 9776 §4.2.10)."""
    first = struct.pack("!BBH4s", 1, 2, 1, G) + S1 + b"auxidata"
    second = struct.pack("!BBH4s", 4, 0, 0, address("239.9.9.9"))
    parsed = igmp.parse(with_checksum(struct.pack("!BBHHH", 0x22, 0, 0, 0, 2) + first + second))
    assert parsed == Report((Record(RecordType.IS_IN, G, (S1,)), Record(RecordType.TO_EX, address("239.9.9.9"))))


def test_unknown_record_types_are_ignored() -> None:
    """Goal: unknown record types are ignored silently, and the other records parsed (RFC 9776 §4.2)."""
    records = struct.pack("!BBH4s", 7, 0, 1, G) + S1 + struct.pack("!BBH4s", 0, 0, 0, G)
    records += struct.pack("!BBH4s", 5, 0, 1, G) + S2
    parsed = igmp.parse(with_checksum(struct.pack("!BBHHH", 0x22, 0, 0, 0, 3) + records))
    assert parsed == Report((Record(RecordType.ALLOW, G, (S2,)),))


@pytest.mark.parametrize("kind", [0x00, 0x10, 0x13, 0x14, 0x1E, 0x1F, 0x23, 0xFF])
def test_unknown_message_types_are_ignored(kind: int) -> None:
    """Goal: unknown message types (DVMRP, PIMv1, …) are ignored silently (RFC 9776 §4)."""
    assert igmp.parse(with_checksum(bytes([kind, 1]) + bytes(6))) is None


@pytest.mark.parametrize("size", range(8))
def test_message_below_8_octets_is_refused(size: int) -> None:
    """Goal: no message has fewer than 8 octets."""
    assert refusal(igmp.build(Leave(G))[:size]) == "igmp_truncated"


def test_wrong_checksum_is_refused() -> None:
    """Goal: a changed message is not processed."""
    message = igmp.build(Leave(G))
    assert refusal(message[:7] + bytes([message[7] ^ 1])) == "igmp_checksum"


@pytest.mark.parametrize(
    "blank",
    [
        struct.pack("!BBHHH", 0x22, 0, 0, 0, 1),
        struct.pack("!BBHHH", 0x22, 0, 0, 0, 0xFFFF) + bytes(64),
        struct.pack("!BBHHHBBH4s", 0x22, 0, 0, 0, 1, 1, 0, 1, G),
        struct.pack("!BBHHHBBH4s", 0x22, 0, 0, 0, 1, 1, 0, 0xFFFF, G) + bytes(64),
        struct.pack("!BBHHHBBH4s", 0x22, 0, 0, 0, 1, 1, 1, 0, G),
        struct.pack("!BBHHHBBH4s", 0x22, 0, 0, 0, 2, 1, 0, 1, G) + bytes(8),
        struct.pack("!BBH4sBBH", 0x11, 10, 0, G, 2, 125, 1),
        struct.pack("!BBH4sBBH", 0x11, 10, 0, G, 2, 125, 0xFFFF) + bytes(40),
    ],
)
def test_counts_beyond_the_message_are_refused(blank: bytes) -> None:
    """Goal: no count in a message is trusted.
    Method: too large counts of records, of their sources and auxiliary words, and of a query's sources."""
    assert refusal(with_checksum(blank)) == "igmp_truncated"


@given(st.binary(max_size=80))
def test_hostile_bytes_raise_wire_errors_only(data: bytes) -> None:
    """Goal: no bytes raise another exception, not even with a right checksum."""
    for message in (data, with_checksum(data) if len(data) >= 4 else data):
        with contextlib.suppress(WireError):
            igmp.parse(message)


@pytest.mark.parametrize("bits", [4, 12])
def test_every_floating_point_code(bits: int) -> None:
    """Goal: RFC 9776 §4.1.1 and RFC 9777 §5.1.3.  Method: all codes, by the RFC's formula; encoding inverts
    decoding."""
    limit = 1 << (bits + 3)
    previous = -1
    for code in range(2 * limit):
        value = decode_code(code, bits)
        if code < limit:
            assert value == code
        else:
            exponent, mantissa = code >> bits & 7, code & ((1 << bits) - 1)
            assert value == (mantissa + (1 << bits)) * 2 ** (exponent + 3)
        assert value > previous
        assert encode_code(value, bits) == code
        previous = value


@given(st.integers(0, 40_000_000), st.sampled_from([4, 12]))
def test_codes_round_down(value: int, bits: int) -> None:
    """Goal: a value is sent as the largest representable one up to it (§8.8, §9.8)."""
    code = encode_code(value, bits)
    assert decode_code(code, bits) <= value
    if code + 1 < 1 << (bits + 4):
        assert decode_code(code + 1, bits) > value


def test_examples_of_codes() -> None:
    """Goal: known values: the largest one is 31,744 with 8 bits and 8,387,584 with 16 bits."""
    assert (decode_code(255, 4), decode_code(0xFFFF, 12)) == (31744, 8387584)
    assert (encode_code(128, 4), encode_code(135, 4), encode_code(136, 4)) == (128, 128, 129)
    assert (ticks(0.01, 10), ticks(0.29, 100), ticks(1.0, 10)) == (1, 29, 10)


def test_robustness_above_seven_is_sent_as_zero() -> None:
    """Goal: QRV has three bits; RFC 9776 §4.1.6 has 0 sent for a larger Robustness Variable."""
    assert igmp.build(Query(3, None, 10.0, robustness=8))[8] == 0
    assert igmp.build(Query(3, None, 10.0, robustness=7))[8] == 7


def test_interval_below_a_second_is_not_sent_as_zero() -> None:
    """Goal: a QQIC of 0 would mean the default of 125 s."""
    assert igmp.build(Query(3, None, 0.1, query_interval_s=0.4))[9] == 1
