"""Goal: a node may have addresses of the overlay only, and nothing of a record is used that it may not have.

Method: the rule alone with example records; two OverlayNodes; the publisher with a real region.
"""

from __future__ import annotations

import os

import msgspec
import pytest

from pipeline.address import parse, parse_prefix
from pipeline.control.publish import Publisher
from pipeline.forwarding.route import Kind, Side
from pipeline.messages import NodeRecord
from pipeline.overlay.address_claims import AddressClaims
from pipeline.overlay.address_owners import AddressOwners
from pipeline.overlay.events import AddressOwnersChanged, Notice, NoticeKind, RecordChanged
from pipeline.shm.fib import ForwardingTableWriter
from pipeline.shm.region import Geometry, Region
from tests.unit.overlay_net import Net
from tests.unit.test_overlay_directory import record

NETWORKS = ("10.88.3.1/16", "fd88:0:0:1::1/64", "192.0.2.64/26", "2001:db8::7/128", "198.51.100.4/31")
"""Networks of this node's own addresses and of its configuration."""
HOST = "192.0.2.70"
"""Address of another interface of this host."""


def with_addresses(*texts: str) -> NodeRecord:
    """Return a record with addresses; a prefix length is part of the text or the whole address."""
    pairs = (parse_prefix(text if "/" in text else f"{text}/{128 if ':' in text else 32}") for text in texts)
    return msgspec.structs.replace(record(7), addresses=tuple(pairs))


def is_accepted(text: str, certified: tuple[str, ...] = ()) -> bool:
    """Return whether the example rule accepts a record with this one address."""
    claims = AddressClaims(map(parse_prefix, NETWORKS), {parse(HOST)})
    claimed = with_addresses(text)
    accepted = claims.accept(claimed, certified)
    assert (accepted is claimed) == (claims.explain(claimed, certified) == "")
    assert accepted.addresses in (claimed.addresses, ())
    return bool(accepted.addresses)


@pytest.mark.parametrize(
    "text",
    [
        *("10.77.0.1", "10.77.255.254", "fd77::1", "fd77::ffff:ffff:ffff:ffff"),
        *("10.88.0.1", "10.88.255.254", "fd88:0:0:1::9", "192.0.2.65", "192.0.2.126"),
        *("2001:db8::7", "198.51.100.4", "198.51.100.5"),
    ],
)
def test_addresses_of_the_overlay_are_accepted(text: str) -> None:
    """Goal: the derived networks, this node's own and the configured ones; of a /31, /127 or host prefix every
    address."""
    assert is_accepted(text)


@pytest.mark.parametrize(
    "text",
    [
        *("10.76.255.255", "10.78.0.1", "10.87.0.1", "203.0.113.1", "fd77:0:0:1::1", "fd88::1", "2001:db8::8"),
        *("192.0.2.63", "192.0.2.128", "198.51.100.6"),
        *("10.77.0.0", "10.77.255.255", "10.88.0.0", "192.0.2.64", "192.0.2.127", "fd77::", "fd88:0:0:1::"),
        *("127.0.0.1", "169.254.1.1", "224.0.0.1", "0.0.0.1", "255.255.255.255", "::1", "fe80::1", "ff02::1"),
        *("::ffff:10.77.0.1", "::ffff:192.0.2.65", HOST),
    ],
)
def test_other_addresses_are_refused(text: str) -> None:
    """Goal: no underlay address, network address, broadcast address, address without a host, IPv4 address in the form
    of an IPv6 one, or address of this host's other interfaces."""
    assert not is_accepted(text)


def test_certificate_decides_about_addresses() -> None:
    """Goal: a node may have the addresses and prefixes of its certificate, and none besides."""
    certified = ("203.0.113.5", "10.77.4.0/24", "fd99::/64")
    for text in ("203.0.113.5", "10.77.4.1", "fd99::1"):
        assert is_accepted(text, certified), text
    for text in ("203.0.113.6", "10.77.5.1", "fd77::1", "10.77.4.0", "10.77.4.255", "fd99::", HOST, "127.0.0.1"):
        assert not is_accepted(text, certified), text


def test_refused_address_leaves_the_others() -> None:
    """Goal: a record with one foreign address keeps those that are accepted."""
    claims, claimed = AddressClaims(), with_addresses("203.0.113.1", "10.77.0.9/16", "fd77::9/64")
    assert claims.accept(claimed).addresses == with_addresses("10.77.0.9/16", "fd77::9/64").addresses
    assert "203.0.113.1" in claims.explain(claimed)
    assert "[overlay] prefixes" in claims.explain(claimed)


def test_address_of_another_host_is_not_owned_and_causes_one_notice(net: Net) -> None:
    """Goal: a node neither sends to a foreign address by the overlay nor reports it; one line names the remedy.
    Method: a node whose second address is outside of its peer's prefixes; it goes and returns."""
    a = net.add("a")
    foreign, inside = parse("203.0.113.1"), parse("fd77::9")
    b = net.add("b", peers=("192.0.2.1:4747",), addresses=((foreign, 24), (inside, 64)))
    net.run(1)
    net.cut = {b.record.endpoint}
    net.run(5)
    net.cut = set()
    net.run(30)
    assert a.address_owners()[inside] == b.record.node_id
    assert a.links()[0].is_up
    assert a.links()[0].addresses == ((inside, 64),)
    assert foreign not in a.address_owners()
    assert all(foreign not in event.owners for event in net.events_of(a, AddressOwnersChanged))
    assert all(dict(event.record.addresses) == {inside: 64} for event in net.events_of(a, RecordChanged))
    assert net.notices(a) == [NoticeKind.ADDRESS_REFUSED]
    assert "packets of b from 203.0.113.1 are dropped" in net.events_of(a, Notice)[0].text
    assert a.records()[0].addresses == b.record.addresses, "the record itself travels unchanged"


def test_listed_prefix_is_accepted(net: Net) -> None:
    """Goal: `[overlay] prefixes` admits other networks.  Method: as above, with the network listed at one node."""
    foreign = parse("203.0.113.1")
    a = net.add("a", claims=AddressClaims([parse_prefix("203.0.113.0/24")]))
    b = net.add("b", peers=("192.0.2.1:4747",), addresses=((foreign, 24),))
    net.run(1)
    assert a.address_owners()[foreign] == b.record.node_id
    assert net.notices(a) == []


def test_stages_know_accepted_sources_only(net: Net) -> None:
    """Goal: packets from a foreign address are dropped as `foreign_source`.
    Method: the publisher writes the records of the node's events; its source entries are read back."""
    a = net.add("a")
    foreign, inside = parse("203.0.113.1"), parse("10.77.0.9")
    b = net.add("b", peers=("192.0.2.1:4747",), addresses=((foreign, 24), (inside, 16)))
    net.run(1)
    geometry = Geometry.of(lanes=1, mtu=1436, host_slots=64, overlay_slots=8, fib_entries=64, fib_buckets=64)
    region = Region.create(f"test-claims-{os.getpid()}", geometry)
    try:
        publisher = Publisher(region, a, ingress_bells=(), egress_bells=())
        for event in net.events_of(a, RecordChanged):
            publisher.publish_record(event.record, event.link)
        keys = {each.key for each in ForwardingTableWriter(region).entries() if each.key.kind is Kind.SOURCE}
    finally:
        region.unlink()
        region.close()
    assert {(key.side, key.group, key.origin) for key in keys} == {(Side.OVERLAY, inside, b.record.node_id)}


def test_link_local_address_belongs_to_the_first_holder() -> None:
    """Goal: a later node takes no link-local unicast by an address in another network with the same last 64 bits."""
    first = msgspec.structs.replace(with_addresses("fd88::5"), node_id=8, incarnation=1)
    later = msgspec.structs.replace(with_addresses("fd77::5"), node_id=7, incarnation=2)
    for order in ((first, later), (later, first)):
        owners = AddressOwners()
        for each in order:
            owners.set(each)
        assert owners.owners() == {parse("fd88::5"): 8, parse("fd77::5"): 7, parse("fe80::5"): 8}
