"""Rules of membership: which records a node takes, beside their signature.

    open network        whoever has the network key is a member.  A name belongs to the identity that had it first at
                        this node (pinned); pins stay in the state directory.  Nodes of protocol 1 are members too.
    certified network   whoever has a certificate of the authority is a member (certified_members.py)

A pin remembers the addresses of its identity too, so that an address stays with its first holder.  An identity that
ends with its process is pinned only while this process runs.  This module knows no files and no sessions.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from pipeline import limits
from pipeline.address import Address
from pipeline.messages import NodeRecord, RefusalReason

UNKNOWN_RANK = 1 << 32
"""Rank of a claim that this node has no memory of: later than all others."""


class Objection(NamedTuple):
    """Why a record is not taken."""

    reason: RefusalReason
    detail: str


class Pin(msgspec.Struct, frozen=True):
    """An identity that this node has met, and what it had first."""

    name: str
    public_key: bytes
    addresses: tuple[Address, ...] = ()
    is_kept: bool = True
    """False if the identity ends with its node's process."""


class Members(abc.ABC):
    """The rules of one network."""

    accepts_unsigned: bool
    """True if nodes of protocol 1, which have no identity, may be members."""

    revocation_list: bytes = b""
    """The authority's newest revocation list; empty in an open network."""

    def take_revocations(self, revocation_list: bytes) -> bool:  # noqa: ARG002 (an open network has no authority)
        """Take a revocation list, and return whether it is newer; WireError if the authority has not signed it."""
        return False

    def is_revoked(self, record: NodeRecord) -> bool:  # noqa: ARG002
        """Return whether the authority has revoked the node's certificate."""
        return False

    @abc.abstractmethod
    def objection(self, record: NodeRecord) -> Objection | None:
        """Return why a node's record is not taken, or None."""

    @abc.abstractmethod
    def note_link(self, record: NodeRecord) -> None:
        """Note that a link to the node is up: it has proved its identity."""

    @abc.abstractmethod
    def rank(self, record: NodeRecord, address: Address) -> int:
        """Return the rank of a node's claim to an address: the lowest was there first."""

    def certified(self, record: NodeRecord) -> tuple[str, ...]:  # noqa: ARG002 (an open network certifies none)
        """Return the addresses and prefixes that the authority allows the node to hold."""
        return ()


class OpenMembers(Members):
    """Members of a network without an authority."""

    def __init__(self, pins: Iterable[Pin] = (), *, accepts_unsigned: bool = True) -> None:
        self.accepts_unsigned = accepts_unsigned
        self._pins = {pin.name: pin for pin in pins}
        """By name, the first ones first."""
        self._ranks: dict[str, int] = {name: number for number, name in enumerate(self._pins)}
        """Position of each pin among all that there ever were."""
        self._next_rank = len(self._pins)
        self.is_changed = False
        """True if pins have changed since they were last saved."""

    @property
    def pins(self) -> list[Pin]:
        """All pins that are to be kept, the first ones first."""
        return [pin for pin in self._pins.values() if pin.is_kept]

    def objection(self, record: NodeRecord) -> Objection | None:
        """Return an objection to a name that is pinned to another identity."""
        pin = self._pins.get(record.name)
        if pin is None or not record.is_signed or pin.public_key == record.public_key or not pin.is_kept:
            return None
        return Objection(RefusalReason.PINNED, "")

    def note_link(self, record: NodeRecord) -> None:
        """Pin the node's name and addresses to its identity, unless it has a pin that says the same."""
        if not record.is_signed:
            return
        held = self._pins.get(record.name)
        known = held.addresses if held is not None and held.public_key == record.public_key else ()
        added = tuple(address for address, _ in record.addresses if address not in known)
        addresses = (known + added)[-limits.ADDRESSES_PER_NODE_MAX :]
        pin = Pin(record.name, record.public_key, addresses, record.is_kept)
        if pin == held:
            return
        if held is None or held.public_key != record.public_key:
            self._pins.pop(record.name, None)
            self._ranks[record.name] = self._next_rank
            self._next_rank += 1
        self._pins[record.name] = pin
        if len(self._pins) > limits.PINS_MAX:
            self.forget(next(iter(self._pins)))
        self.is_changed = True

    def forget(self, name: str) -> bool:
        """Remove a pin, so that another identity may have the name.  Returns whether there was one."""
        self.is_changed |= name in self._pins
        self._ranks.pop(name, None)
        return self._pins.pop(name, None) is not None

    def rank(self, record: NodeRecord, address: Address) -> int:
        """Return the position of the pin that holds the address; later than all pins without one."""
        pin = self._pins.get(record.name)
        if pin is None or pin.public_key != record.public_key or address not in pin.addresses:
            return UNKNOWN_RANK
        return self._ranks[record.name]
