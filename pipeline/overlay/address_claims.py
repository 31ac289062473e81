"""Rule for the overlay addresses that a node may claim in its record.

An address outside of the overlay could be any host's: a member that claimed it would send to programs in that host's
name, and receive what they send to it.  So an address is accepted only within one of these prefixes:

    derived addresses          10.77.0.0/16, fd77::/64
    this node's own networks   of each `--address`
    [overlay] prefixes         what the operator has listed

A node with a certificate may have the addresses that the certificate lists, and no others.  Some addresses are never
accepted: those that belong to no host (loopback, link-local, multicast and others), the first and the last of a
network, and those of this host's other interfaces.

Every node applies the rule to the records of its peers; records travel unchanged.  This module knows no interfaces and
sends nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

import msgspec

from pipeline.address import OVERLAY_V4, OVERLAY_V6, Address, show, show_prefix, spans_special_addresses
from pipeline.messages import NodeRecord

OUTSIDE = "outside of this overlay's prefixes: list its prefix in [overlay] prefixes, or use addresses of one network"


class AddressClaims:
    """The addresses that other nodes may have."""

    def __init__(self, prefixes: Iterable[tuple[Address, int]] = (), host_addresses: Iterable[Address] = ()) -> None:
        """Make the rule from this node's networks and those of the configuration, and addresses of its interfaces."""
        self._networks = _Networks([str(OVERLAY_V4), str(OVERLAY_V6), *(show_prefix(*each) for each in prefixes)])
        self._host_addresses = frozenset(host_addresses)

    def accept(self, record: NodeRecord, certified: Sequence[str] = ()) -> NodeRecord:
        """Return the record with those of its addresses that are accepted; the same object if all are.

        `certified`: addresses and prefixes, as text, of the node's certificate; empty if it has none or lists none.
        """
        accepted = tuple(each for each in record.addresses if not self._why_refused(each[0], certified))
        return record if accepted == record.addresses else msgspec.structs.replace(record, addresses=accepted)

    def explain(self, record: NodeRecord, certified: Sequence[str] = ()) -> str:
        """Return a line for the operator about the first address that is refused, or an empty text."""
        for address, _ in record.addresses:
            why = self._why_refused(address, certified)
            if why:
                return f"packets of {record.name} from {show(address)} are dropped, as the address is {why}"
        return ""

    def _why_refused(self, address: Address, certified: Sequence[str]) -> str:
        networks = _Networks(certified) if certified else self._networks
        if spans_special_addresses(address, 8 * len(address)):
            return "no address of a host: give the node another one"
        if address in self._host_addresses:
            return "one of this host's own: give the node another one"
        if not networks.contains(address):
            return "not in the node's certificate: have the certificate signed with it" if certified else OUTSIDE
        if networks.has_edge(address) or self._networks.has_edge(address):
            return "the first or last of a network: give the node another one"
        return ""


class _Networks:
    """Networks, by address length, as integers: a record is checked in microseconds."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._ranges: set[tuple[int, int, int]] = set()
        """(length of an address, first address, last address)"""
        for text in texts:
            network = ipaddress.ip_interface(text).network
            first = int(network.network_address)
            self._ranges.add((network.max_prefixlen // 8, first, first + network.num_addresses - 1))

    def contains(self, address: Address) -> bool:
        """Return whether an address is in one of the networks."""
        return bool(self._of(address))

    def has_edge(self, address: Address) -> bool:
        """Return whether an address is a network's own: its first, or in IPv4 its last, the broadcast address.

        A network of one or two addresses has no such address (RFC 3021, RFC 6164).
        """
        number = int.from_bytes(address)
        edges = [(first, last if len(address) == 4 else first) for first, last in self._of(address) if last - first > 1]
        return any(number in edge for edge in edges)

    def _of(self, address: Address) -> list[tuple[int, int]]:
        number = int.from_bytes(address)
        return [(first, last) for size, first, last in self._ranges if size == len(address) and first <= number <= last]
