"""What membership messages say, whichever of IGMP and MLD carries it: values, group records, floating-point codes.

Does not know the layout of a message (igmp.py, mld.py), only what both have in it, which differs in the length of an
address; nor what a message does to state (membership/rules.py).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

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


@dataclass(frozen=True, slots=True)
class Record:
    """One group record of an IGMPv3 or MLDv2 report; sources as sent, not yet judged."""

    kind: RecordType
    group: Address
    sources: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """A query of any version; `group` is None in a general one.

    `robustness` (QRV) and `query_interval_s` (QQI) are 0 where the message says nothing, as in the older versions.
    """

    version: int
    group: Address | None
    max_response_s: float
    suppress: bool = False
    robustness: int = 0
    query_interval_s: float = 0.0
    sources: tuple[Address, ...] = ()

    def __str__(self) -> str:
        """As the RFCs write it: "Q()", "Q(239.1.2.3)", "Q(232.1.2.3, 2 sources) S" with the S flag."""
        count = len(self.sources)
        listed = f", {count} source{'s' if count > 1 else ''}" if count else ""
        return f"Q({show(self.group) if self.group else ''}{listed})" + (" S" if self.suppress else "")


@dataclass(frozen=True, slots=True)
class Report:
    """An IGMPv3 or MLDv2 report."""

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class OldReport:
    """A report of IGMPv1, IGMPv2 or MLDv1: one group, any source."""

    version: int
    group: Address


@dataclass(frozen=True, slots=True)
class Leave:
    """An IGMPv2 leave or an MLDv1 done."""

    group: Address


Message: TypeAlias = Query | Report | OldReport | Leave

QRV_MAX = 7
"""The field has three bits; a larger Robustness Variable is sent as 0 (RFC 9776 §4.1, RFC 9777 §5.1)."""


_RECORD_TYPES: dict[int, RecordType] = {int(kind): kind for kind in RecordType}


def decode_records(message: bytes, *, address_bytes: int, truncated: str) -> tuple[Record, ...]:
    """The records of an IGMPv3 or MLDv2 report, unknown types left out; WireError(truncated) if they do not fit.

    RFC 9776 §4.2, RFC 9777 §5.2: both counts are checked against the octets that are there before anything is stored.
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
    """The number that a floating-point code stands for: 4 mantissa bits in 8-bit codes, 12 in 16-bit ones."""
    if code < 1 << (mantissa_bits + 3):
        return code
    mantissa = code & ((1 << mantissa_bits) - 1)
    exponent = (code >> mantissa_bits) & 7
    return (mantissa | 1 << mantissa_bits) << (exponent + 3)


def encode_code(value: int, mantissa_bits: int) -> int:
    """The code of the largest number that can be said and is no larger than `value` (RFC 9776 §8.8, RFC 9777 §9.8)."""
    if value < 1 << (mantissa_bits + 3):
        return value
    exponent = value.bit_length() - (mantissa_bits + 1) - 3
    if exponent > 7:
        return (1 << (mantissa_bits + 4)) - 1
    mantissa = (value >> (exponent + 3)) & ((1 << mantissa_bits) - 1)
    return 1 << (mantissa_bits + 3) | exponent << mantissa_bits | mantissa


def ticks(seconds: float, per_second: int) -> int:
    """Seconds in the units of a code, rounded down, at least 1: 0 would say "at once", IGMPv1 or "the default"."""
    return max(1, int(seconds * per_second + 1e-6))
