"""Owner of each overlay address among the nodes whose link is up.

An explicit address (`--address`) has precedence over a derived one.  Between equals the first holder keeps the address:
the node that this node remembers with it for longest (members.py).  Of two that it does not remember, or if one is this
node itself, it is the one that has started first: the one with the lower incarnation, and if these are equal, with the
lower node id.  So nodes that have met both claims at the same time agree without a message, in any order.  A node that
loses a derived address takes its next one.  Two explicit claims both stand, and the unicast route leads to the owner.
This module knows no interfaces and sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pipeline import limits
from pipeline.address import Address, NodeId, derive_addresses, link_local, show
from pipeline.messages import NodeRecord

V4_PREFIX = 16
V6_PREFIX = 64


class AddressOwners:
    """Addresses that this node and those with a link up claim."""

    def __init__(self, rank: Callable[[NodeRecord, Address], int] = lambda *_: 0) -> None:
        """Use `rank`, which returns a lower number for the claim that this node remembers for longer."""
        self._rank = rank
        self._by_address: dict[Address, dict[NodeId, NodeRecord]] = {}
        self._by_node: dict[NodeId, NodeRecord] = {}

    def set(self, record: NodeRecord) -> bool:
        """Add or replace the claims of a node.  Returns whether an owner may have changed."""
        old = self._by_node.get(record.node_id)
        if old is not None and _claim(old) == _claim(record):
            return False
        self.remove(record.node_id)
        self._by_node[record.node_id] = record
        for address, _ in record.addresses:
            self._by_address.setdefault(address, {})[record.node_id] = record
        return True

    def remove(self, node_id: NodeId) -> bool:
        """Remove the claims of a node.  Returns whether an owner may have changed."""
        old = self._by_node.pop(node_id, None)
        if old is None:
            return False
        for address, _ in old.addresses:
            claimants = self._by_address.get(address, {})
            claimants.pop(node_id, None)
            if not claimants:
                self._by_address.pop(address, None)
        return bool(old.addresses)

    def owners(self, own_id: NodeId = 0) -> dict[Address, NodeId]:
        """Return the owner of each address, and of the link-local ones that nodes derive from their IPv6 addresses.

        Addresses of several networks can lead to one link-local address.
        """
        claimants = {address: list(records.values()) for address, records in self._by_address.items()}
        for address, records in self._by_address.items():
            if len(address) == 16:
                claimants.setdefault(link_local(address), []).extend(records.values())
        return {address: self._owner(address, records, own_id) for address, records in claimants.items()}

    def _owner(self, address: Address, claimants: list[NodeRecord], own_id: NodeId) -> NodeId:
        if len(claimants) > 1 and all(record.node_id != own_id for record in claimants):
            explicit = [record for record in claimants if record.explicit_addresses] or claimants
            first = min(self._rank(record, address) for record in explicit)
            claimants = [record for record in explicit if self._rank(record, address) == first]
        return first_holder(*claimants).node_id

    def rivals(self, own: NodeRecord) -> list[NodeRecord]:
        """Return the other nodes that claim an address of `own`, each once."""
        found = {
            other.node_id: other
            for address, _ in own.addresses
            for other in self._by_address.get(address, {}).values()
            if other.node_id != own.node_id
        }
        return [found[node_id] for node_id in sorted(found)]

    def conflicts(self, own: NodeRecord) -> list[tuple[str, str]]:
        """Return (name, line for the operator) of each node that was given an address of `own` as well."""
        found = []
        for rival in self.rivals(own) if own.explicit_addresses else []:
            if rival.explicit_addresses:
                theirs = dict(rival.addresses)
                shared = ", ".join(show(address) for address, _ in own.addresses if address in theirs)
                owner = first_holder(own, rival).name
                text = f"{own.name} and {rival.name} were both given {shared}: unicast goes to {owner}"
                found.append((rival.name, text))
        return found

    def must_move(self, own: NodeRecord) -> bool:
        """Return whether another node owns a derived address of `own`."""
        return not own.explicit_addresses and first_holder(own, *self.rivals(own)) is not own

    def derive(self, name: str, own_id: NodeId, attempt: int) -> tuple[int, tuple[tuple[Address, int], ...]]:
        """Return the first pair of derived addresses, from number `attempt` on, that no other node claims.

        Returns (number of the pair, addresses with prefix lengths).
        """
        for number in range(attempt, attempt + limits.ADDRESS_ATTEMPTS_MAX):
            v4, v6 = derive_addresses(name, number)
            if not self._is_claimed((v4, v6), own_id):
                return number, ((v4, V4_PREFIX), (v6, V6_PREFIX))
        raise RuntimeError("no derived address is free: 10.77.0.0/16 has more nodes than NODES_MAX")

    def _is_claimed(self, addresses: Iterable[Address], own_id: NodeId) -> bool:
        return any(self._by_address.get(address, {}).keys() - {own_id} for address in addresses)


def first_holder(*claimants: NodeRecord) -> NodeRecord:
    """Return the node that keeps an address that all of these claim."""
    return min(claimants, key=_rank)


def _rank(record: NodeRecord) -> tuple[bool, int, NodeId]:
    return not record.explicit_addresses, record.incarnation, record.node_id


def _claim(record: NodeRecord) -> tuple[object, ...]:
    return record.addresses, record.explicit_addresses, record.incarnation
