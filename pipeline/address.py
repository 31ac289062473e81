"""Addresses, groups and source filters as values.

Inside the program an address is its packed form, 4 or 16 bytes: cheap to hash, to compare, to send and to pass to C.
Text is used only at the edges (command line, configuration, logs).  This module does not know interfaces.
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
"""The id of a node: the u32 `origin` of the wire format, never 0."""

OVERLAY_V4 = ipaddress.IPv4Network("10.77.0.0/16")
OVERLAY_V6 = ipaddress.IPv6Network("fd77::/64")
LINK_LOCAL_V6 = ipaddress.IPv6Network("fe80::/64")
_SPECIAL_V4 = tuple(map(ipaddress.IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
_SPECIAL_V6 = tuple(map(ipaddress.IPv6Network, ("::/8", "fe80::/10", "ff00::/8")))
"""Networks without addresses of hosts that others can reach (RFC 6890).  ::/8 has the IPv4-mapped addresses, by which
shared memory represents IPv4."""

_SPECIAL_RANGES = {
    size: tuple((int(each.network_address), int(each.broadcast_address)) for each in networks)
    for size, networks in ((4, _SPECIAL_V4), (16, _SPECIAL_V6))
}

_SSM_V4 = bytes([232])
_V4_LINK_SCOPE = bytes([224, 0, 0])


def parse(text: str) -> Address:
    """Return the packed form of "239.1.2.3" or "ff15::1"; ValueError if the text is not an address."""
    return ipaddress.ip_address(text).packed


def show(address: Address) -> str:
    """Return the canonical text of a packed address."""
    if len(address) == 4:
        return "%d.%d.%d.%d" % tuple(address)
    return str(ipaddress.IPv6Address(address))


def parse_prefix(text: str) -> tuple[Address, int]:
    """Return the packed address and the prefix length of "10.77.0.1/16"; ValueError if the text is malformed."""
    address, _, prefix = text.partition("/")
    return parse(address), int(prefix)


def show_prefix(address: Address, prefix: int) -> str:
    """Return the text of an address with its prefix length: "10.77.0.1/16"."""
    return f"{show(address)}/{prefix}"


def is_within(address: Address, prefix: Address, length: int) -> bool:
    """Return whether an address is in the network with the first `length` bits of `prefix`, of the same family."""
    shift = 8 * len(prefix) - length
    return len(address) == len(prefix) and int.from_bytes(address) >> shift == int.from_bytes(prefix) >> shift


def is_multicast(address: Address) -> bool:
    """Return whether an address is in 224.0.0.0/4 or ff00::/8."""
    return address[0] == 0xFF if len(address) == 16 else address[0] >> 4 == 0xE


def is_unicast(address: Address) -> bool:
    """Return whether an address can be a packet's source: not multicast, unspecified, loopback, class E, broadcast."""
    if len(address) == 4:
        return address[0] not in (0, 127) and address[0] < 224
    return address[0] != 0xFF and address not in (bytes(16), bytes(15) + b"\x01")


def spans_special_addresses(address: Address, prefix: int) -> bool:
    """Return whether a prefix has addresses that no node can have.

    These are unspecified, loopback, link-local, multicast, class E and IPv4-mapped addresses.
    """
    bits = 8 * len(address)
    first = int.from_bytes(address) >> (bits - prefix) << (bits - prefix)
    last = first | (1 << (bits - prefix)) - 1
    return any(first <= high and low <= last for low, high in _SPECIAL_RANGES[len(address)])


def is_in_prefix(address: Address, network: Address, length: int) -> bool:
    """Return whether the first `length` bits of two addresses of one family are equal."""
    shift = 8 * len(network) - length
    return len(address) == len(network) and int.from_bytes(address) >> shift == int.from_bytes(network) >> shift


def is_link_scope(group: Address) -> bool:
    """Return whether a group is flooded to every node.

    These are 224.0.0.0/24 (RFC 5771 §4) and IPv6 scope 2 with any flags (RFC 4291 §2.7).
    """
    if len(group) == 4:
        return group[:3] == _V4_LINK_SCOPE
    return group[0] == 0xFF and group[1] & 0x0F == 2


def is_node_scope(group: Address) -> bool:
    """Return whether a group has IPv6 scope 0 (reserved) or 1 (interface-local).

    Its packets never leave a host, and it never has state (RFC 9777 §6).
    """
    return len(group) == 16 and group[0] == 0xFF and group[1] & 0x0F <= 1


def is_ssm(group: Address) -> bool:
    """Return whether a group is source-specific: 232/8 or ff3x::/32, joined with a source only (RFC 4607 §1)."""
    if len(group) == 4:
        return group[:1] == _SSM_V4
    return group[0] == 0xFF and group[1] >> 4 == 3 and group[2:4] == b"\x00\x00"


def derive_node_id(public_key: bytes, attempt: int) -> NodeId:
    """Return a node's id for its nth attempt after conflicts: 32 bits of a hash of its public key, never 0."""
    digest = hashlib.blake2b(public_key + bytes([attempt]), digest_size=32).digest()
    return int.from_bytes(digest[:4]) or 1


def derive_unsigned_node_id(name: str) -> NodeId:
    """Return the id that a node had in protocol 1: 32 bits of a hash of its name, never 0."""
    return int.from_bytes(hashlib.blake2b(f"{name}#0".encode(), digest_size=4).digest()) or 1


def derive_addresses(name: str, attempt: int) -> tuple[Address, Address]:
    """Return the IPv4 and IPv6 overlay address of a node without `--address`, for its nth attempt after conflicts.

    The name is hashed into 10.77.0.0/16 and fd77::/64, so that a node has the same addresses at each start.  The last
    octet is never 0 or 255, and 10.77.255.254 is reserved for the querier.
    """
    digest = hashlib.blake2b(f"{name}/{attempt}".encode(), digest_size=16).digest()
    third, last = digest[0], 1 + digest[1] % 254
    if (third, last) == (255, 254):
        last = 253
    v4, v6 = OVERLAY_V4.network_address.packed, OVERLAY_V6.network_address.packed
    return v4[:2] + bytes([third, last]), v6[:8] + digest[:8]


def link_local(address: Address) -> Address:
    """Return the link-local address of an IPv6 overlay address: fe80::/64 with the same last 64 bits."""
    return LINK_LOCAL_V6.network_address.packed[:8] + address[8:]


class FilterMode(enum.StrEnum):
    """The two filter modes of RFC 9776 §3.1, with the words of `show groups`."""

    INCLUDE = "INCLUDE"
    EXCLUDE = "EXCLUDE"


@dataclass(frozen=True, slots=True)
class SourceFilter:
    """The sources of a group that are requested: only those listed (INCLUDE), or all but those listed (EXCLUDE)."""

    mode: FilterMode
    sources: frozenset[Address] = frozenset()

    def accepts(self, source: Address) -> bool:
        """Return whether packets of a source are requested."""
        return (source in self.sources) == (self.mode is FilterMode.INCLUDE)

    @property
    def is_empty(self) -> bool:
        """Return whether the filter is INCLUDE of nothing, which is no membership."""
        return self.mode is FilterMode.INCLUDE and not self.sources


ANY_SOURCE = SourceFilter(FilterMode.EXCLUDE)


def include(sources: Iterable[Address]) -> SourceFilter:
    """Return INCLUDE(sources)."""
    return SourceFilter(FilterMode.INCLUDE, frozenset(sources))
