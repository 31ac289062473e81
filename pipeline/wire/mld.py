"""MLDv1 and MLDv2 messages: ICMPv6 bytes ↔ values (RFC 2710 §3, RFC 9777 §5).

This module knows of the IPv6 header only the two addresses that the checksum covers.  It also builds the messages of
hosts.  A message that is refused raises a `WireError` with the drop reason as its text: mld_truncated, mld_checksum,
mld_query_length, mld_query_sources (sources, but no group).  Other ICMPv6 types and unknown record types are ignored
silently.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from pipeline.address import Address
from pipeline.drop_reasons import MembershipCounter
from pipeline.errors import WireError
from pipeline.wire.ip import checksum, checksum_holds, pseudo_header
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

TYPE_QUERY = 130
TYPE_REPORT_V1 = 131
TYPE_DONE = 132
TYPE_REPORT_V2 = 143
TYPES = frozenset((TYPE_QUERY, TYPE_REPORT_V1, TYPE_DONE, TYPE_REPORT_V2))

QUERY_HEADER_BYTES = 28
"""Size of a version 2 query without its sources."""

_UNSPECIFIED = bytes(16)
_RESPONSE_MANTISSA_BITS = 12
_INTERVAL_MANTISSA_BITS = 4
_SHORT = struct.Struct("!BBHHH16s")
_QUERY = struct.Struct("!BBHHH16sBBH")
_RECORD = struct.Struct("!BBH16s")


def parse(message: bytes, *, source: Address, destination: Address) -> Message | None:
    """Return the message, or None if it is not MLD; octets after its end are used for the checksum only."""
    if not message or message[0] not in TYPES:
        return None
    kind = message[0]
    if len(message) < (8 if kind == TYPE_REPORT_V2 else 24):
        raise WireError(MembershipCounter.MLD_TRUNCATED)
    if not checksum_holds(pseudo_header(source, destination, len(message)) + message):
        raise WireError(MembershipCounter.MLD_CHECKSUM)
    if kind == TYPE_REPORT_V2:
        return Report(decode_records(message, address_bytes=16, truncated=MembershipCounter.MLD_TRUNCATED))
    if kind == TYPE_REPORT_V1:
        return OldReport(1, message[8:24])
    if kind == TYPE_DONE:
        return Leave(message[8:24])
    return _parse_query(message)


def _parse_query(message: bytes) -> Query:
    """Parse a query: 24 octets are version 1, 28 and more version 2, other lengths are refused (RFC 9777 §8.1)."""
    code, group = message[4] << 8 | message[5], message[8:24]
    queried_group = None if group == _UNSPECIFIED else group
    if len(message) == 24:
        return Query(1, queried_group, code / 1000)
    if len(message) < QUERY_HEADER_BYTES:
        raise WireError(MembershipCounter.MLD_QUERY_LENGTH)
    count = message[26] << 8 | message[27]
    end = QUERY_HEADER_BYTES + 16 * count
    if end > len(message):
        raise WireError(MembershipCounter.MLD_TRUNCATED)
    if count and queried_group is None:
        raise WireError(MembershipCounter.MLD_QUERY_SOURCES)
    return Query(
        version=2,
        group=queried_group,
        max_response_s=decode_code(code, _RESPONSE_MANTISSA_BITS) / 1000,
        suppress=bool(message[24] & 0x08),
        robustness=message[24] & 0x07,
        query_interval_s=float(decode_code(message[25], _INTERVAL_MANTISSA_BITS)),
        sources=tuple(message[i : i + 16] for i in range(QUERY_HEADER_BYTES, end, 16)),
    )


def build(message: Message, *, source: Address, destination: Address) -> bytes:
    """Return the bytes of a message, with the checksum for a packet between these two addresses."""
    if isinstance(message, Query):
        blank = _blank_query(message)
    elif isinstance(message, Report):
        blank = _blank_report(message.records)
    elif isinstance(message, OldReport):
        blank = _SHORT.pack(TYPE_REPORT_V1, 0, 0, 0, 0, message.group)
    else:
        blank = _SHORT.pack(TYPE_DONE, 0, 0, 0, 0, message.group)
    total = checksum(pseudo_header(source, destination, len(blank)) + blank)
    return blank[:2] + total.to_bytes(2, "big") + blank[4:]


def _blank_query(query: Query) -> bytes:
    """Build a query without checksum: its response code is linear in version 1, floating point in version 2."""
    group = query.group or _UNSPECIFIED
    milliseconds = ticks(query.max_response_s, 1000)
    if query.version == 1:
        return _SHORT.pack(TYPE_QUERY, 0, 0, min(milliseconds, 0xFFFF), 0, group)
    flags = query.suppress << 3 | (query.robustness if query.robustness <= QRV_MAX else 0)
    interval = encode_code(ticks(query.query_interval_s, 1) if query.query_interval_s else 0, _INTERVAL_MANTISSA_BITS)
    code = encode_code(milliseconds, _RESPONSE_MANTISSA_BITS)
    head = _QUERY.pack(TYPE_QUERY, 0, 0, code, 0, group, flags, interval, len(query.sources))
    return head + b"".join(query.sources)


def _blank_report(records: Iterable[Record]) -> bytes:
    parts = [_RECORD.pack(r.kind, 0, len(r.sources), r.group) + b"".join(r.sources) for r in records]
    return struct.pack("!BBHHH", TYPE_REPORT_V2, 0, 0, 0, len(parts)) + b"".join(parts)
