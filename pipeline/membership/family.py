"""The differences between IGMP and MLD for a router: addresses, versions and the rules for a valid packet.

The other modules of membership/ serve both protocols.  This one knows packets and no state.  A packet that breaks a
rule raises a `WireError` with the drop reason as its text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.address import Address, is_node_scope, is_unicast, parse
from pipeline.drop_reasons import MembershipCounter
from pipeline.errors import WireError
from pipeline.wire import igmp, ip, mld
from pipeline.wire.report import Message, OldReport, Query

_UNSPECIFIED_V4 = bytes(4)


@dataclass(frozen=True, slots=True)
class Family:
    """The properties of IGMP or of MLD."""

    name: str
    latest: int  # the newest version, the only one with source lists
    versions_without_leave: frozenset[int]  # IGMPv1: TO_IN is ignored in its compatibility mode (RFC 9776 §7.3.2)
    all_hosts: Address  # destination of general queries; this group never has state
    elects_on_any_query: bool  # RFC 9777 §7.6.2; IGMP elects on general queries only (RFC 9776 §6.6.2)
    follows_older_queries: bool  # RFC 9776 §6.6.2; RFC 9777 §8.3.1 leaves this to the administrator
    query_bytes: int  # size of an IP packet with a query that lists no sources
    address_bytes: int
    receive: Callable[[ip.IpPacket], Message | None]
    send: Callable[[Address, Query], bytes]

    def keeps_state(self, group: Address) -> bool:
        """Return whether reports make state for this group: not the all-hosts group, nor IPv6 scopes 0 and 1."""
        return group != self.all_hosts and not is_node_scope(group)

    def query_sources_max(self, mtu: int) -> int:
        """Return the number of sources that one query can list (RFC 9776 §4.1.8, RFC 9777 §5.1.10)."""
        return max(1, (mtu - self.query_bytes) // self.address_bytes)


def _receive_igmp(packet: ip.IpPacket) -> Message | None:
    """Check an IGMP packet and parse it; None if it is to be ignored.

    RFC 9776 §4 requires TTL 1 and Router Alert.  Version 1 messages may lack the option, which RFC 1112 did not have.
    Reports from 0.0.0.0 are accepted.
    """
    if packet.protocol != ip.PROTOCOL_IGMP:
        return None
    message = igmp.parse(packet.payload)
    if message is None:
        return None
    if packet.hop_limit != 1:
        raise WireError(MembershipCounter.IGMP_TTL)
    if not packet.router_alert and not (isinstance(message, OldReport | Query) and message.version == 1):
        raise WireError(MembershipCounter.IGMP_ROUTER_ALERT)
    if not is_unicast(packet.source) and packet.source != _UNSPECIFIED_V4:
        raise WireError(MembershipCounter.IGMP_SOURCE)
    return message


def _receive_mld(packet: ip.IpPacket) -> Message | None:
    """Check an MLD packet and parse it; None if it is not MLD.

    RFC 9777 §7.4 and §7.6 drop messages without link-local source, hop limit 1 and Router Alert.
    """
    if packet.protocol != ip.PROTOCOL_ICMPV6 or packet.payload[:1] not in _MLD_TYPES:
        return None
    if packet.hop_limit != 1:
        raise WireError(MembershipCounter.MLD_HOP_LIMIT)
    if packet.source[0] != 0xFE or packet.source[1] & 0xC0 != 0x80:
        raise WireError(MembershipCounter.MLD_SOURCE)
    if not packet.router_alert:
        raise WireError(MembershipCounter.MLD_ROUTER_ALERT)
    return mld.parse(packet.payload, source=packet.source, destination=packet.destination)


_MLD_TYPES = frozenset(bytes([kind]) for kind in mld.TYPES)


def _send_igmp(source: Address, query: Query) -> bytes:
    destination = query.group or IGMP.all_hosts
    return ip.build_v4(source=source, destination=destination, payload=igmp.build(query))


def _send_mld(source: Address, query: Query) -> bytes:
    destination = query.group or MLD.all_hosts
    message = mld.build(query, source=source, destination=destination)
    return ip.build_v6(source=source, destination=destination, payload=message)


IGMP = Family(
    name="IGMP",
    latest=3,
    versions_without_leave=frozenset((1,)),
    all_hosts=parse("224.0.0.1"),
    elects_on_any_query=False,
    follows_older_queries=True,
    query_bytes=ip.HEADER_V4_BYTES + igmp.QUERY_HEADER_BYTES,
    address_bytes=4,
    receive=_receive_igmp,
    send=_send_igmp,
)

MLD = Family(
    name="MLD",
    latest=2,
    versions_without_leave=frozenset(),
    all_hosts=parse("ff02::1"),
    elects_on_any_query=True,
    follows_older_queries=False,
    query_bytes=ip.HEADER_V6_BYTES + mld.QUERY_HEADER_BYTES,
    address_bytes=16,
    receive=_receive_mld,
    send=_send_mld,
)
