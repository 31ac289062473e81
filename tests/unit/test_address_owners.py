"""Goal: all nodes with the same records agree on the owner of each overlay address.

Method: records by hand and at random, in several orders.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.address import derive_addresses, parse
from pipeline.messages import NodeRecord
from pipeline.overlay.address_owners import AddressOwners
from tests.unit.overlay_net import record


def claim(node: int, *addresses: str, explicit: bool = False) -> NodeRecord:
    packed = tuple((parse(address), 16) for address in addresses)
    return msgspec.structs.replace(record(node), addresses=packed, explicit_addresses=explicit)


def test_explicit_address_has_precedence_then_the_lower_node_id() -> None:
    """Goal: all nodes agree on the owner among nodes that started at the same time, and the others move.
    Method: three records with one address; the owner leaves."""
    owners = AddressOwners()
    address = parse("10.77.0.1")
    for each in (claim(3, "10.77.0.1"), claim(2, "10.77.0.1"), claim(9, "10.77.0.1", explicit=True)):
        owners.set(each)
    assert owners.owners() == {address: 9}
    assert owners.must_move(claim(2, "10.77.0.1"))
    assert not owners.must_move(claim(9, "10.77.0.1", explicit=True))
    assert owners.remove(9)
    assert owners.owners() == {address: 2}
    assert owners.must_move(claim(3, "10.77.0.1"))
    assert not owners.must_move(claim(2, "10.77.0.1"))


@pytest.mark.parametrize("explicit", [True, False])
def test_address_stays_with_the_node_that_started_first(explicit: bool) -> None:
    """Goal: a node whose name hashes to a lower id does not take the address of another.
    Method: the later of two nodes has the lower id; both addresses are configured, or both derived."""
    owners, address = AddressOwners(), parse("10.77.0.1")
    first = msgspec.structs.replace(claim(9, "10.77.0.1", explicit=explicit), incarnation=100)
    later = msgspec.structs.replace(claim(2, "10.77.0.1", explicit=explicit), incarnation=200)
    owners.set(first)
    owners.set(later)
    assert owners.owners() == {address: 9}
    assert not owners.must_move(first)
    assert owners.must_move(later) is not explicit


def test_configured_address_has_precedence_over_a_derived_one_of_an_older_node() -> None:
    """Goal: an operator's choice counts more than the order of starts.  Method: the derived claim is older."""
    owners = AddressOwners()
    owners.set(msgspec.structs.replace(claim(2, "10.77.0.1"), incarnation=100))
    owners.set(msgspec.structs.replace(claim(9, "10.77.0.1", explicit=True), incarnation=200))
    assert owners.owners() == {parse("10.77.0.1"): 9}


@given(
    st.lists(
        st.tuples(st.integers(2, 9), st.integers(0, 3), st.booleans(), st.sets(st.integers(1, 3), min_size=1)),
        unique_by=lambda each: each[0],
    ),
    st.randoms(),
)
def test_claims_in_any_order_have_one_owner(claims: list[tuple[int, int, bool, set[int]]], shuffler: Any) -> None:
    """Goal: nodes agree on every owner, also after a partition that each side entered with claims of its own.
    Method: random claims in two orders; in the second, nodes also leave and return."""
    records = [
        msgspec.structs.replace(
            claim(node, *(f"10.77.0.{each}" for each in sorted(addresses)), explicit=explicit), incarnation=incarnation
        )
        for node, incarnation, explicit, addresses in claims
    ]
    one, other = AddressOwners(), AddressOwners()
    for each in records:
        one.set(each)
    shuffled = list(records)
    shuffler.shuffle(shuffled)
    for each in shuffled:
        other.set(each)
    for each in shuffled[::2]:
        other.remove(each.node_id)
    for each in shuffled[::2]:
        other.set(each)
    assert one.owners() == other.owners()


def test_explicit_addresses_in_conflict_are_both_kept() -> None:
    """Goal: a configured address never moves; the other node is reported.
    Method: two records with one configured address."""
    owners = AddressOwners()
    owners.set(claim(2, "10.77.0.1", explicit=True))
    own = claim(3, "10.77.0.1", explicit=True)
    assert not owners.must_move(own)
    assert [rival.node_id for rival in owners.rivals(own)] == [2]


def test_derived_addresses_avoid_those_of_other_nodes() -> None:
    """Goal: a node derives its next addresses if one of the first is in use.
    Method: a record with its first IPv4 address."""
    owners = AddressOwners()
    v4, v6 = derive_addresses("a", 0)
    owners.set(msgspec.structs.replace(record(5), addresses=((v4, 16),)))
    attempt, addresses = owners.derive("a", 7, 0)
    assert attempt == 1
    assert addresses == ((derive_addresses("a", 1)[0], 16), (derive_addresses("a", 1)[1], 64))
    assert owners.derive("a", 5, 0)[0] == 0, "the node's own claim does not count"
    assert v6 not in owners.owners()
