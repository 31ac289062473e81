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

UNKNOWN_RANK = 1
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
        self._holders: dict[Address, str] = {}
        """Name of the pin that has had each address first."""
        for pin in self._pins.values():
            for address in pin.addresses:
                self._holders.setdefault(address, pin.name)
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
        if held is not None and held.public_key != record.public_key:
            self.forget(record.name)
            held = None
        known = held.addresses if held is not None else ()
        claimed = (address for address, _ in record.addresses)
        added = tuple(each for each in claimed if each not in known and each not in self._holders)
        pin = Pin(record.name, record.public_key, known + added, record.is_kept)
        if pin == held or (held is None and not self._has_room()):
            return
        self._release(record.name, pin.addresses[: -limits.ADDRESSES_PER_NODE_MAX])
        addresses = pin.addresses[-limits.ADDRESSES_PER_NODE_MAX :]
        self._pins[record.name] = msgspec.structs.replace(pin, addresses=addresses)
        for address in addresses:
            self._holders.setdefault(address, record.name)
        self.is_changed = True

    def _release(self, name: str, addresses: Iterable[Address]) -> None:
        for address in addresses:
            if self._holders.get(address) == name:
                del self._holders[address]

    def _has_room(self) -> bool:
        """Return whether there is room for one more pin; one that is not kept makes room, others stay.

        If others did not stay, a member with invented identities could remove the pins of all other nodes.
        """
        if len(self._pins) >= limits.PINS_MAX:
            self.forget(next((name for name, pin in self._pins.items() if not pin.is_kept), ""))
        return len(self._pins) < limits.PINS_MAX

    def forget(self, name: str) -> bool:
        """Remove a pin, so that another identity may have the name.  Returns whether there was one."""
        pin = self._pins.pop(name, None)
        if pin is None:
            return False
        self._release(name, pin.addresses)
        self.is_changed = True
        return True

    def rank(self, record: NodeRecord, address: Address) -> int:
        """Return 0 for the address of a pin, so that it stays with that node."""
        pin = self._pins.get(record.name)
        if pin is None or pin.public_key != record.public_key or self._holders.get(address) != record.name:
            return UNKNOWN_RANK
        return 0
