"""Overlay addresses of one node and its peers: which claims count, who owns each, which ones this node derives.

    record ──AddressClaims──▶ claims that count ──AddressOwners──▶ owner of each address
                                                        └────────▶ this node's next derived addresses, if it must move

It sends nothing, and knows no sessions: node.py passes records to it, and reports what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.address import Address, NodeId
from pipeline.messages import NodeRecord
from pipeline.overlay.address_claims import AddressClaims
from pipeline.overlay.address_owners import AddressOwners
from pipeline.overlay.members import Members


class Addresses:
    """Claims and owners of overlay addresses, as one node sees them."""

    def __init__(self, claims: AddressClaims, members: Members) -> None:
        self._claims = claims
        self._members = members
        self._held = AddressOwners(members.rank)
        self.attempt = 0
        """Number of the pair of derived addresses in use."""
        self.owners: Mapping[Address, NodeId] = {}
        """Owner of each address, as it was last reported."""

    # ---- claims

    def accepted(self, record: NodeRecord) -> NodeRecord:
        """Return a record with the addresses that its node may have; the same object if these are all."""
        return self._claims.accept(record, self._members.certified(record))

    def refusal(self, record: NodeRecord) -> str:
        """Return a line for the operator about an address that a node may not have, or an empty text."""
        return self._claims.explain(record, self._members.certified(record))

    def set(self, record: NodeRecord) -> bool:
        """Add or replace the claims of a node.  Returns whether an owner may have changed."""
        return self._held.set(record)

    def remove(self, node_id: NodeId) -> bool:
        """Remove the claims of a node.  Returns whether an owner may have changed."""
        return self._held.remove(node_id)

    # ---- this node

    def first(self, name: str, node_id: NodeId) -> tuple[tuple[Address, int], ...]:
        """Return the addresses that a node derives from its name at its start."""
        return self._held.derive(name, node_id, 0)[1]

    def next_derived(self, own: NodeRecord) -> tuple[tuple[Address, int], ...]:
        """Return other addresses for this node, if another one owns those that it has derived; else nothing."""
        if not self._held.must_move(own):
            return ()
        self.attempt, addresses = self._held.derive(own.name, own.node_id, self.attempt + 1)
        return addresses

    def conflicts(self, own: NodeRecord) -> list[tuple[str, str]]:
        """Return (name, line for the operator) of each node that was given an address of `own` as well."""
        return self._held.conflicts(own)

    def update_owners(self, own: NodeRecord) -> bool:
        """Decide the owners anew.  Returns whether one has changed."""
        self._held.set(own)
        owners = self._held.owners(own.node_id)
        if owners == self.owners:
            return False
        self.owners = owners
        return True
