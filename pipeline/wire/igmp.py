"""IGMPv1, v2 and v3 messages: bytes ↔ values (RFC 1112 appendix I, RFC 2236 §2, RFC 9776 §4).

This module knows neither the IP header around a message (ip.py) nor its effect (membership/).  It also builds the
messages of hosts, for tests and tools.  A message that is refused raises a `WireError` with the drop reason as its
text: igmp_truncated, igmp_checksum, igmp_query_length, igmp_query_sources (sources, but no group).  Unknown types of
messages and of records are ignored silently, as §4 requires.
"""

from __future__ import annotations

import functools
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
"""Size of a version 3 query without its sources."""

_V1_RESPONSE_S = 10.0
"""Response time of version 1 queries, which have the code 0 (RFC 2236 §4)."""

_UNSPECIFIED = bytes(4)
_MANTISSA_BITS = 4
_SHORT = struct.Struct("!BBH4s")
_QUERY = struct.Struct("!BBH4sBBH")
_RECORD = struct.Struct("!BBH4s")


def parse(message: bytes) -> Message | None:
    """Return the message, or None for an unknown type; octets after its end are used for the checksum only."""
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
    """Parse a query; its version follows from its length and code (RFC 9776 §7.1)."""
    code, group = message[1], message[4:8]
    queried_group = None if group == _UNSPECIFIED else group
    if len(message) == 8:
        if code == 0:
            return Query(1, queried_group, _V1_RESPONSE_S)
        return Query(2, queried_group, code / 10)
    if len(message) < QUERY_HEADER_BYTES:
        raise WireError(MembershipCounter.IGMP_QUERY_LENGTH)
    count = message[10] << 8 | message[11]
    end = QUERY_HEADER_BYTES + 4 * count
    if end > len(message):
        raise WireError(MembershipCounter.IGMP_TRUNCATED)
    if count and queried_group is None:
        raise WireError(MembershipCounter.IGMP_QUERY_SOURCES)
    return Query(
        version=3,
        group=queried_group,
        max_response_s=decode_code(code, _MANTISSA_BITS) / 10,
        suppress=bool(message[8] & 0x08),
        robustness=message[8] & 0x07,
        query_interval_s=float(decode_code(message[9], _MANTISSA_BITS)),
        sources=tuple(message[i : i + 4] for i in range(QUERY_HEADER_BYTES, end, 4)),
    )


def build(message: Message) -> bytes:
    """Return the bytes of a message, checksum included."""
    if isinstance(message, Query):
        return _build_query(message)
    if isinstance(message, Report):
        return build_report(message.records)
    if isinstance(message, OldReport):
        kind = TYPE_REPORT_V1 if message.version == 1 else TYPE_REPORT_V2
        return _with_checksum(_SHORT.pack(kind, 0, 0, message.group))
    return _with_checksum(_SHORT.pack(TYPE_LEAVE, 0, 0, message.group))


def _build_query(query: Query) -> bytes:
    """Build a query: codes are 0 in version 1, linear in version 2, floating point in version 3 (RFC 9776 §7.3.1)."""
    group = query.group or _UNSPECIFIED
    if query.version == 1:
        return _with_checksum(_SHORT.pack(TYPE_QUERY, 0, 0, group))
    if query.version == 2:
        return _with_checksum(_SHORT.pack(TYPE_QUERY, min(ticks(query.max_response_s, 10), 255), 0, group))
    flags = query.suppress << 3 | (query.robustness if query.robustness <= QRV_MAX else 0)
    code, interval = _codes(query.max_response_s, query.query_interval_s)
    head = _QUERY.pack(TYPE_QUERY, code, 0, group, flags, interval, len(query.sources))
    return _with_checksum(head + b"".join(query.sources))


@functools.lru_cache(maxsize=16)  # a router uses few intervals, in a query for each group
def _codes(max_response_s: float, query_interval_s: float) -> tuple[int, int]:
    """Return the Max Resp Code and the QQIC of a version 3 query (RFC 9776 §4.1.1, §4.1.7)."""
    tenths, seconds = ticks(max_response_s, 10), ticks(query_interval_s, 1) if query_interval_s else 0
    return encode_code(tenths, _MANTISSA_BITS), encode_code(seconds, _MANTISSA_BITS)


def build_report(records: Iterable[Record]) -> bytes:
    """Return the bytes of a version 3 report."""
    parts = [_RECORD.pack(r.kind, 0, len(r.sources), r.group) + b"".join(r.sources) for r in records]
    return _with_checksum(struct.pack("!BBHHH", TYPE_REPORT_V3, 0, 0, 0, len(parts)) + b"".join(parts))


def _with_checksum(blank: bytes) -> bytes:
    """Fill in the checksum field, which is zero."""
    return blank[:2] + checksum(blank).to_bytes(2, "big") + blank[4:]
