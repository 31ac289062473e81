"""Addresses, groups and source filters as values.

An address inside the program is its packed form, 4 or 16 bytes: cheap to hash, to compare, to send and to hand
to C.  Text exists only at the edges (command line, configuration, logs).  Nothing here knows interfaces.
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Address: TypeAlias = bytes
"""A packed IPv4 (4 bytes) or IPv6 (16 bytes) address, network order."""

NodeId: TypeAlias = int
"""A node of the overlay: the u32 `origin` of the wire format, never 0."""

OVERLAY_V4 = ipaddress.IPv4Network("10.77.0.0/16")
OVERLAY_V6 = ipaddress.IPv6Network("fd77::/64")
LINK_LOCAL_V6 = ipaddress.IPv6Network("fe80::/64")

_SSM_V4 = bytes([232])
_V4_LINK_SCOPE = bytes([224, 0, 0])


def parse(text: str) -> Address:
    """The packed form of "239.1.2.3" or "ff15::1"; ValueError if the text is no address."""
    return ipaddress.ip_address(text).packed


def show(address: Address) -> str:
    """The canonical text of a packed address."""
    if len(address) == 4:
        return "%d.%d.%d.%d" % tuple(address)
    return str(ipaddress.IPv6Address(address))


def parse_prefix(text: str) -> tuple[Address, int]:
    """The packed address and the prefix length of "10.77.0.1/16"; ValueError if the text is neither."""
    address, _, prefix = text.partition("/")
    return parse(address), int(prefix)


def show_prefix(address: Address, prefix: int) -> str:
    """The text of an address with its prefix length: "10.77.0.1/16"."""
    return f"{show(address)}/{prefix}"


def is_multicast(address: Address) -> bool:
    """224.0.0.0/4 or ff00::/8."""
    return address[0] == 0xFF if len(address) == 16 else address[0] >> 4 == 0xE


def is_unicast(address: Address) -> bool:
    """Usable as the source of a packet: not multicast, unspecified, loopback, or IPv4 class E and broadcast."""
    if len(address) == 4:
        return address[0] not in (0, 127) and address[0] < 224
    return address[0] != 0xFF and address not in (bytes(16), bytes(15) + b"\x01")


def is_link_scope(group: Address) -> bool:
    """224.0.0.0/24 (RFC 5771 §4) or ff02::/16 whatever its flags (RFC 4291 §2.7): flooded to every node."""
    if len(group) == 4:
        return group[:3] == _V4_LINK_SCOPE
    return group[0] == 0xFF and group[1] & 0x0F == 2


def is_node_scope(group: Address) -> bool:
    """IPv6 scopes 0 (reserved) and 1 (interface-local): never leave a host, never become state (RFC 9777 §6)."""
    return len(group) == 16 and group[0] == 0xFF and group[1] & 0x0F <= 1


def is_ssm(group: Address) -> bool:
    """232/8 (RFC 4607 §1) or ff3x::/32: source-specific groups, to be joined with a source only."""
    if len(group) == 4:
        return group[:1] == _SSM_V4
    return group[0] == 0xFF and group[1] >> 4 == 3 and group[2:4] == b"\x00\x00"


def derive_node_id(name: str, attempt: int) -> NodeId:
    """The id of a node of that name, for its nth attempt after conflicts: 32 bits of a hash, never 0."""
    digest = hashlib.blake2b(f"{name}#{attempt}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) or 1


def derive_addresses(name: str, attempt: int) -> tuple[Address, Address]:
    """The IPv4 and IPv6 overlay address of a node without `--address`, for its nth attempt after conflicts.

    Hashed from the name into 10.77.0.0/16 and fd77::/64, so that a node keeps its address from start to start.
    The last octet is never 0 or 255 and 10.77.255.254 is the querier's.
    """
    digest = hashlib.blake2b(f"{name}/{attempt}".encode(), digest_size=16).digest()
    third, last = digest[0], 1 + digest[1] % 254
    if (third, last) == (255, 254):
        last = 253
    v4, v6 = OVERLAY_V4.network_address.packed, OVERLAY_V6.network_address.packed
    return v4[:2] + bytes([third, last]), v6[:8] + digest[:8]


def link_local(address: Address) -> Address:
    """The IPv6 link-local address that goes with an IPv6 overlay address: fe80::/64 and its last 64 bits."""
    return LINK_LOCAL_V6.network_address.packed[:8] + address[8:]


class FilterMode(enum.StrEnum):
    """The two filter modes of RFC 9776 §3.1 (the words of `show groups`)."""

    INCLUDE = "INCLUDE"
    EXCLUDE = "EXCLUDE"


@dataclass(frozen=True, slots=True)
class SourceFilter:
    """Which sources of a group are wanted: only those (INCLUDE) or all but those (EXCLUDE)."""

    mode: FilterMode
    sources: frozenset[Address] = frozenset()

    def accepts(self, source: Address) -> bool:
        """Whether packets of that source are wanted."""
        return (source in self.sources) == (self.mode is FilterMode.INCLUDE)

    @property
    def is_empty(self) -> bool:
        """INCLUDE of nothing: no membership at all."""
        return self.mode is FilterMode.INCLUDE and not self.sources


ANY_SOURCE = SourceFilter(FilterMode.EXCLUDE)


def include(sources: Iterable[Address]) -> SourceFilter:
    """INCLUDE(sources)."""
    return SourceFilter(FilterMode.INCLUDE, frozenset(sources))
