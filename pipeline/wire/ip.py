"""IPv4 and IPv6 headers as far as membership messages need them, and the internet checksum.

This module does not know the payload (igmp.py, mld.py).  It refuses fragments, because membership messages are never
fragmented.  The data plane has its own parser in C; this one processes only the packets that are punted to control.
A packet that is refused raises a `WireError` with the drop reason as its text.
"""

from __future__ import annotations

import struct

import msgspec

from pipeline.address import Address
from pipeline.drop_reasons import MembershipCounter
from pipeline.errors import WireError

PROTOCOL_IGMP = 2
PROTOCOL_ICMPV6 = 58

TOS_INTERNETWORK_CONTROL = 0xC0
"""Type of service of every IGMP message (RFC 9776 §4)."""

ROUTER_ALERT_V4 = b"\x94\x04\x00\x00"
"""The Router Alert option of IPv4: copied, option 20, four octets, value 0 (RFC 2113 §2.1)."""

ROUTER_ALERT_V6 = b"\x05\x02\x00\x00"
"""The Router Alert option of IPv6: option 5, two octets, value 0 for MLD messages (RFC 2711 §2.1)."""

HEADER_V4_BYTES = 20 + len(ROUTER_ALERT_V4)
HEADER_V6_BYTES = 40 + 8
"""Size of the headers that `build_v4` and `build_v6` put before a message."""

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_EXTENSION_HEADERS_MAX = 8
"""RFC 8200 §4.1 defines six different headers; the limit bounds the loop over those of a hostile packet."""

_V4 = struct.Struct("!BBHHHBBH4s4s")
_V6 = struct.Struct("!IHBB16s16s")


class IpPacket(msgspec.Struct, frozen=True, gc=False):
    """One inner packet; `hop_limit` is the TTL in IPv4, `protocol` the type after the last extension header."""

    source: Address
    destination: Address
    hop_limit: int
    protocol: int
    router_alert: bool
    payload: bytes


def parse(packet: bytes) -> IpPacket:
    """Return the packet in these bytes, without octets after the end that its length field gives.

    Drop reasons of a WireError: ip_version, ip_truncated, ip_header, ip_checksum, ip_fragment, ip_options.
    """
    if not packet:
        raise WireError(MembershipCounter.IP_TRUNCATED)
    version = packet[0] >> 4
    if version == 4:
        return _parse_v4(packet)
    if version == 6:
        return _parse_v6(packet)
    raise WireError(MembershipCounter.IP_VERSION)


def _parse_v4(packet: bytes) -> IpPacket:
    if len(packet) < 20:
        raise WireError(MembershipCounter.IP_TRUNCATED)
    first, _, length, _, fragment, ttl, protocol, _, source, destination = _V4.unpack_from(packet)
    header = (first & 0x0F) * 4
    if header < 20 or length < header:
        raise WireError(MembershipCounter.IP_HEADER)
    if length > len(packet):
        raise WireError(MembershipCounter.IP_TRUNCATED)
    if fragment & 0x3FFF:
        raise WireError(MembershipCounter.IP_FRAGMENT)
    if not checksum_holds(packet[:header]):
        raise WireError(MembershipCounter.IP_CHECKSUM)
    alert = header > 20 and _has_alert_v4(packet[20:header])
    return IpPacket(source, destination, ttl, protocol, alert, packet[header:length])


def _has_alert_v4(options: bytes) -> bool:
    """Return whether Router Alert is among the options; all options are parsed, so that malformed ones are refused."""
    if options == ROUTER_ALERT_V4:
        return True
    found, at = False, 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:  # no-operation, one octet
            at += 1
            continue
        if at + 1 >= len(options) or options[at + 1] < 2 or at + options[at + 1] > len(options):
            raise WireError(MembershipCounter.IP_OPTIONS)
        found = found or (options[at] == 0x94 and options[at + 1] == 4)
        at += options[at + 1]
    return found


def _parse_v6(packet: bytes) -> IpPacket:
    if len(packet) < 40:
        raise WireError(MembershipCounter.IP_TRUNCATED)
    _, length, protocol, hop_limit, source, destination = _V6.unpack_from(packet)
    end = 40 + length
    if end > len(packet):
        raise WireError(MembershipCounter.IP_TRUNCATED)
    at, alert = 40, False
    for _ in range(_EXTENSION_HEADERS_MAX):
        if protocol == _FRAGMENT:
            raise WireError(MembershipCounter.IP_FRAGMENT)
        if protocol not in (_HOP_BY_HOP, _ROUTING, _DESTINATION):
            return IpPacket(source, destination, hop_limit, protocol, alert, packet[at:end])
        if at + 8 > end:
            raise WireError(MembershipCounter.IP_TRUNCATED)
        size = (packet[at + 1] + 1) * 8
        if at + size > end:
            raise WireError(MembershipCounter.IP_TRUNCATED)
        if protocol == _HOP_BY_HOP:
            if at != 40:  # RFC 8200 §4.1: only directly after the IPv6 header
                raise WireError(MembershipCounter.IP_HEADER)
            alert = _has_alert_v6(packet[at + 2 : at + size])
        protocol, at = packet[at], at + size
    raise WireError(MembershipCounter.IP_HEADER)


def _has_alert_v6(options: bytes) -> bool:
    """Return whether Router Alert with value 0 (MLD) is among the hop-by-hop options."""
    found, at = False, 0
    while at < len(options):
        if options[at] == 0:  # Pad1, one octet
            at += 1
            continue
        if at + 1 >= len(options) or at + 2 + options[at + 1] > len(options):
            raise WireError(MembershipCounter.IP_OPTIONS)
        size = 2 + options[at + 1]
        found = found or options[at : at + size] == ROUTER_ALERT_V6
        at += size
    return found


def build_v4(
    *, source: Address, destination: Address, payload: bytes, router_alert: bool = True, ttl: int = 1
) -> bytes:
    """Return an IGMP message as an IPv4 packet with TTL 1, TOS 0xc0 and Router Alert (RFC 9776 §4)."""
    options = ROUTER_ALERT_V4 if router_alert else b""
    size = 20 + len(options)
    fields = (TOS_INTERNETWORK_CONTROL, size + len(payload), 0, 0x4000, ttl, PROTOCOL_IGMP)
    blank = _V4.pack(0x40 | size // 4, *fields, 0, source, destination) + options
    return blank[:10] + checksum(blank).to_bytes(2, "big") + blank[12:] + payload


def build_v6(
    *, source: Address, destination: Address, payload: bytes, router_alert: bool = True, hop_limit: int = 1
) -> bytes:
    """Return an ICMPv6 message as an IPv6 packet with hop limit 1 and Router Alert (RFC 9777 §5)."""
    extension = bytes([PROTOCOL_ICMPV6, 0]) + ROUTER_ALERT_V6 + b"\x01\x00" if router_alert else b""
    protocol = _HOP_BY_HOP if router_alert else PROTOCOL_ICMPV6
    head = _V6.pack(0x6 << 28, len(extension) + len(payload), protocol, hop_limit, source, destination)
    return head + extension + payload


def checksum(data: bytes) -> int:
    """Return the internet checksum of `data`, with zeros in its checksum field (RFC 1071).

    The one's complement sum of 16-bit words is the whole number modulo 65,535, which takes Python one division.
    """
    number = int.from_bytes(data, "big") << (8 * (len(data) & 1))
    return 0xFFFF - (number % 0xFFFF or (0xFFFF if number else 0))


def checksum_holds(data: bytes) -> bool:
    """Return whether `data`, its checksum field included, has the sum of all ones; data of zeros has not."""
    number = int.from_bytes(data, "big") << (8 * (len(data) & 1))
    return number != 0 and number % 0xFFFF == 0


def pseudo_header(source: Address, destination: Address, length: int, protocol: int = PROTOCOL_ICMPV6) -> bytes:
    """Return the pseudo-header for the checksum of an upper-layer message of `length` octets (RFC 8200 §8.1)."""
    return source + destination + length.to_bytes(4, "big") + protocol.to_bytes(4, "big")


def destination(packet: bytes) -> Address | None:
    """Return the destination of an IP packet with a header that C has checked; None if the packet is cut short."""
    if packet[0] >> 4 == 4:
        return packet[16:20] if len(packet) >= 20 else None
    return packet[24:40] if len(packet) >= 40 else None
