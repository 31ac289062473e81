"""The header of overlay datagrams (design §4), as Python values: for tests and tools.  The stages' own is mp_packet.c.

    0        1        2          3       4            8                16               20
    |ver|type| flags  | hop limit| epoch | origin u32 | sequence u64   | stream seq u32 | sealed … | tag |

It seals and opens nothing.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

from pipeline import limits
from pipeline.address import NodeId
from pipeline.errors import WireError

WIRE_VERSION = 1
HEADER_BYTES = 20
TAG_BYTES = 16
SEQUENCE_BITS = 56
"""Below the sequence space: 2^56 datagrams of one lane last for centuries."""

MALFORMED = "wire_header"
"""The drop reason of the stages for the same thing."""

_LAYOUT = struct.Struct("!BBBBIQI")


class DatagramType(enum.IntEnum):
    """What a datagram is."""

    DATA = 1
    PROBE = 2
    ECHO = 3


class DatagramFlag(enum.IntFlag):
    """Flags of the header."""

    SEALED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayHeader:
    """The 20 bytes before the sealed part.  `sequence` includes the space in its top byte."""

    type: DatagramType
    flags: DatagramFlag = DatagramFlag.SEALED
    hop_limit: int
    epoch: int
    origin: NodeId
    sequence: int
    stream_sequence: int

    @property
    def space(self) -> int:
        """The origin's sequence space: a lane's data, or LANES_MAX higher its probes and echoes."""
        return self.sequence >> SEQUENCE_BITS

    @property
    def lane(self) -> int:
        """The lane of the origin that sent it."""
        return self.space % limits.LANES_MAX

    def encode(self) -> bytes:
        """The 20 bytes."""
        first = WIRE_VERSION << 4 | self.type
        fields = (self.flags, self.hop_limit, self.epoch, self.origin, self.sequence, self.stream_sequence)
        return _LAYOUT.pack(first, *fields)

    def nonce(self) -> bytes:
        """The 12 bytes of AES-GCM's nonce: origin ‖ sequence."""
        return struct.pack("!IQ", self.origin, self.sequence)


def sequence_of(number: int, *, lane: int, is_probe: bool = False) -> int:
    """The sequence field of the nth datagram of a lane."""
    return (lane + limits.LANES_MAX * is_probe) << SEQUENCE_BITS | number


def decode(datagram: bytes) -> tuple[OverlayHeader, memoryview]:
    """The header, and what follows it; WireError if there is no header of this version."""
    if len(datagram) < HEADER_BYTES or datagram[0] >> 4 != WIRE_VERSION:
        raise WireError(MALFORMED)
    first, flags, hop_limit, epoch, origin, sequence, stream_sequence = _LAYOUT.unpack_from(datagram)
    try:
        kind = DatagramType(first & 15)
    except ValueError as error:
        raise WireError(MALFORMED) from error
    header = OverlayHeader(
        type=kind,
        flags=DatagramFlag(flags),
        hop_limit=hop_limit,
        epoch=epoch,
        origin=origin,
        sequence=sequence,
        stream_sequence=stream_sequence,
    )
    return header, memoryview(datagram)[HEADER_BYTES:]
