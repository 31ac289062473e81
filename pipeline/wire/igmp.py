"""IGMPv1, v2 and v3 messages: bytes ↔ values (RFC 1112 appendix I, RFC 2236 §2, RFC 9776 §4).

Does not know the IP header around them (ip.py) nor what they do (membership/).  Hosts' messages are built too: the
tests and the tools speak for hosts.  Every refusal is a `WireError` whose text is the drop reason: igmp_truncated,
igmp_checksum, igmp_query_length, igmp_query_sources (of no group).  Unknown types of messages and of records are
ignored without a word, as §4 asks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from pipeline.drop_reasons import MembershipCounter
from pipeline.errors import WireError
from pipeline.wire.ip import checksum, checksum_holds
from pipeline.wire.report import (
    QRV_MAX,
    Leave,
    Message,
    OldReport,
    Query,
    Record,
    Report,
    decode_code,
    decode_records,
    encode_code,
    ticks,
)

TYPE_QUERY = 0x11
TYPE_REPORT_V1 = 0x12
TYPE_REPORT_V2 = 0x16
TYPE_LEAVE = 0x17
TYPE_REPORT_V3 = 0x22

QUERY_HEADER_BYTES = 12
"""A version 3 query before its sources."""

_V1_RESPONSE_S = 10.0
"""What the code 0 of a version 1 query stands for (RFC 2236 §4)."""

_UNSPECIFIED = bytes(4)
_MANTISSA_BITS = 4
_SHORT = struct.Struct("!BBH4s")
_QUERY = struct.Struct("!BBH4sBBH")
_RECORD = struct.Struct("!BBH4s")


def parse(message: bytes) -> Message | None:
    """The message, or None for a type that is to be ignored; octets after its end count for the checksum only."""
    if len(message) < 8:
        raise WireError(MembershipCounter.IGMP_TRUNCATED)
    if not checksum_holds(message):
        raise WireError(MembershipCounter.IGMP_CHECKSUM)
    kind = message[0]
    if kind == TYPE_REPORT_V3:
        return Report(decode_records(message, address_bytes=4, truncated=MembershipCounter.IGMP_TRUNCATED))
    if kind == TYPE_REPORT_V2:
        return OldReport(2, message[4:8])
    if kind == TYPE_REPORT_V1:
        return OldReport(1, message[4:8])
    if kind == TYPE_LEAVE:
        return Leave(message[4:8])
    if kind == TYPE_QUERY:
        return _parse_query(message)
    return None


def _parse_query(message: bytes) -> Query:
    """RFC 9776 §7.1: the version follows from length and code."""
    code, group = message[1], message[4:8]
    asked = None if group == _UNSPECIFIED else group
    if len(message) == 8:
        if code == 0:
            return Query(1, asked, _V1_RESPONSE_S)
        return Query(2, asked, code / 10)
    if len(message) < QUERY_HEADER_BYTES:
        raise WireError(MembershipCounter.IGMP_QUERY_LENGTH)
    count = message[10] << 8 | message[11]
    end = QUERY_HEADER_BYTES + 4 * count
    if end > len(message):
        raise WireError(MembershipCounter.IGMP_TRUNCATED)
    if count and asked is None:
        raise WireError(MembershipCounter.IGMP_QUERY_SOURCES)
    return Query(
        version=3,
        group=asked,
        max_response_s=decode_code(code, _MANTISSA_BITS) / 10,
        suppress=bool(message[8] & 0x08),
        robustness=message[8] & 0x07,
        query_interval_s=float(decode_code(message[9], _MANTISSA_BITS)),
        sources=tuple(message[i : i + 4] for i in range(QUERY_HEADER_BYTES, end, 4)),
    )


def build(message: Message) -> bytes:
    """The bytes of any message, checksum included."""
    if isinstance(message, Query):
        return _build_query(message)
    if isinstance(message, Report):
        return build_report(message.records)
    if isinstance(message, OldReport):
        return _sealed(_SHORT.pack(TYPE_REPORT_V1 if message.version == 1 else TYPE_REPORT_V2, 0, 0, message.group))
    return _sealed(_SHORT.pack(TYPE_LEAVE, 0, 0, message.group))


def _build_query(query: Query) -> bytes:
    """Codes are linear in version 2, floating point in version 3, and 0 in version 1 (RFC 9776 §7.3.1)."""
    group = query.group or _UNSPECIFIED
    tenths = ticks(query.max_response_s, 10)
    if query.version == 1:
        return _sealed(_SHORT.pack(TYPE_QUERY, 0, 0, group))
    if query.version == 2:
        return _sealed(_SHORT.pack(TYPE_QUERY, min(tenths, 255), 0, group))
    flags = query.suppress << 3 | (query.robustness if query.robustness <= QRV_MAX else 0)
    interval = encode_code(ticks(query.query_interval_s, 1) if query.query_interval_s else 0, _MANTISSA_BITS)
    code = encode_code(tenths, _MANTISSA_BITS)
    head = _QUERY.pack(TYPE_QUERY, code, 0, group, flags, interval, len(query.sources))
    return _sealed(head + b"".join(query.sources))


def build_report(records: Iterable[Record]) -> bytes:
    """A version 3 report."""
    parts = [_RECORD.pack(r.kind, 0, len(r.sources), r.group) + b"".join(r.sources) for r in records]
    return _sealed(struct.pack("!BBHHH", TYPE_REPORT_V3, 0, 0, 0, len(parts)) + b"".join(parts))


def _sealed(blank: bytes) -> bytes:
    return blank[:2] + checksum(blank).to_bytes(2, "big") + blank[4:]
