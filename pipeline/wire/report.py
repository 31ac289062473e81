"""The parts that IGMP and MLD messages have in common: values, group records, floating-point codes.

Group records of the two differ only in the length of an address.  This module knows neither the other layout of a
message (igmp.py, mld.py) nor its effect on state (membership/rules.py).
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

from pipeline.address import Address, show
from pipeline.errors import WireError


class RecordType(enum.IntEnum):
    """Group record types (RFC 9776 §4.2, RFC 9777 §5.2): current state, filter mode change, source list change."""

    IS_IN = 1
    IS_EX = 2
    TO_IN = 3
    TO_EX = 4
    ALLOW = 5
    BLOCK = 6


class Record(msgspec.Struct, frozen=True, gc=False):
    """One group record of an IGMPv3 or MLDv2 report; its sources are as sent and not yet checked."""

    kind: RecordType
    group: Address
    sources: tuple[Address, ...] = ()


class Query(msgspec.Struct, frozen=True, gc=False):
    """A query of any version; `group` is None in a general query.

    `robustness` (QRV) and `query_interval_s` (QQI) are 0 where a message does not have them, as in older versions.
    """

    version: int
    group: Address | None
    max_response_s: float
    suppress: bool = False
    robustness: int = 0
    query_interval_s: float = 0.0
    sources: tuple[Address, ...] = ()

    def __str__(self) -> str:
        """Return the RFCs' notation: "Q()", "Q(239.1.2.3)", or "Q(232.1.2.3, 2 sources) S" with the S flag."""
        count = len(self.sources)
        listed = f", {count} source{'s' if count > 1 else ''}" if count else ""
        return f"Q({show(self.group) if self.group else ''}{listed})" + (" S" if self.suppress else "")


class Report(msgspec.Struct, frozen=True, gc=False):
    """An IGMPv3 or MLDv2 report."""

    records: tuple[Record, ...]


class OldReport(msgspec.Struct, frozen=True, gc=False):
    """A report of IGMPv1, IGMPv2 or MLDv1, for one group and any source."""

    version: int
    group: Address


class Leave(msgspec.Struct, frozen=True, gc=False):
    """An IGMPv2 leave or an MLDv1 done."""

    group: Address


Message: TypeAlias = Query | Report | OldReport | Leave

QRV_MAX = 7
"""Largest value of the three-bit QRV field; a larger Robustness Variable is sent as 0 (RFC 9776 §4.1.6)."""


_RECORD_TYPES: dict[int, RecordType] = {int(kind): kind for kind in RecordType}


def decode_records(message: bytes, *, address_bytes: int, truncated: str) -> tuple[Record, ...]:
    """Return the records of an IGMPv3 or MLDv2 report (RFC 9776 §4.2, RFC 9777 §5.2), without unknown types.

    Both counts are checked against the length of the message before anything is stored: WireError(truncated).
    """
    count = message[6] << 8 | message[7]
    head_bytes, size = 4 + address_bytes, len(message)
    if 8 + head_bytes * count > size:
        raise WireError(truncated)
    records: list[Record] = []
    at = 8
    for _ in range(count):
        begin = at + head_bytes
        if begin > size:
            raise WireError(truncated)
        end = begin + address_bytes * (message[at + 2] << 8 | message[at + 3])
        after = end + 4 * message[at + 1]
        if after > size:
            raise WireError(truncated)
        kind = _RECORD_TYPES.get(message[at])
        if kind is not None:
            sources = tuple(message[i : i + address_bytes] for i in range(begin, end, address_bytes))
            records.append(Record(kind, message[at + 4 : begin], sources))
        at = after
    return tuple(records)


def decode_code(code: int, mantissa_bits: int) -> int:
    """Return the value of a floating-point code; 8-bit codes have 4 mantissa bits, 16-bit codes have 12."""
    if code < 1 << (mantissa_bits + 3):
        return code
    mantissa = code & ((1 << mantissa_bits) - 1)
    exponent = (code >> mantissa_bits) & 7
    return (mantissa | 1 << mantissa_bits) << (exponent + 3)


def encode_code(value: int, mantissa_bits: int) -> int:
    """Return the code of the largest representable number up to `value` (RFC 9776 §8.8, RFC 9777 §9.8)."""
    if value < 1 << (mantissa_bits + 3):
        return value
    exponent = value.bit_length() - (mantissa_bits + 1) - 3
    if exponent > 7:
        return (1 << (mantissa_bits + 4)) - 1
    mantissa = (value >> (exponent + 3)) & ((1 << mantissa_bits) - 1)
    return 1 << (mantissa_bits + 3) | exponent << mantissa_bits | mantissa


def ticks(seconds: float, per_second: int) -> int:
    """Return seconds in the units of a code, rounded down, but at least 1: 0 means "at once", IGMPv1 or "default"."""
    return max(1, int(seconds * per_second + 1e-6))
