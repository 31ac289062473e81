"""The order in which a data plane looks up the forwarding entry of a packet.

    host side      group     (S,G), then (*,G)
    overlay side   group     (origin, via), (origin), (via), then (*,G); `via` is the node that sent the datagram
    both sides     unicast   the destination
                   flood     one entry for each family

The stages look up in C (mp_lookup.h); the simulators use this module, and a test compares the two.  It knows neither
shared memory nor caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from pipeline.address import Address, NodeId, is_link_scope, is_multicast
from pipeline.forwarding.route import FibEntry, FibKey, Kind, Side

Entries: TypeAlias = Mapping[FibKey, FibEntry]
"""The entries of a forwarding table by their keys."""

NO_LINKS: frozenset[int] = frozenset()


def host_entry(entries: Entries, source: Address, destination: Address) -> FibEntry | None:
    """Return the entry for a packet that a program of this host sends, or None."""
    return _first(entries, _host_keys(source, destination))


def overlay_entry(entries: Entries, destination: Address, origin: NodeId, via: NodeId | None) -> FibEntry | None:
    """Return the entry for a packet that comes from another node, or None.

    `via` is the node that sent the datagram; None if its endpoint belongs to no known link.
    """
    return _first(entries, _overlay_keys(destination, origin, via))


def stripe_links(entries: Entries, entry: FibEntry, stream_sequence: int) -> frozenset[int]:
    """Return the links for a datagram of this stream sequence number; `entry` is the one of stripe 0.

    A stripe may have no entry while control changes the stripes one by one.  Its datagrams then go nowhere.
    """
    stripe = stream_sequence % entry.stripes
    if not stripe:
        return entry.links
    other = entries.get(entry.key._replace(stripe=stripe))
    return other.links if other is not None else NO_LINKS


def _first(entries: Entries, keys: Iterator[FibKey]) -> FibEntry | None:
    return next((entries[key] for key in keys if key in entries), None)


def _host_keys(source: Address, destination: Address) -> Iterator[FibKey]:
    default = _default_key(Side.HOST, destination)
    if default.kind is Kind.GROUP:
        yield default._replace(source=source)
    yield default


def _overlay_keys(destination: Address, origin: NodeId, via: NodeId | None) -> Iterator[FibKey]:
    default = _default_key(Side.OVERLAY, destination)
    if default.kind is Kind.GROUP:
        yield default._replace(origin=origin, via=via)
        yield default._replace(origin=origin)
        yield default._replace(via=via)
    yield default


def _default_key(side: Side, destination: Address) -> FibKey:
    """Return the least specific key for a destination."""
    if not is_multicast(destination):
        return FibKey(side, Kind.UNICAST, destination)
    if is_link_scope(destination):
        return FibKey(side, Kind.FLOOD, bytes(len(destination)))
    return FibKey(side, Kind.GROUP, destination)
