"""Goal: names and addresses of an open network stay with the identity that had them first, and a network with an
authority has the members that it has signed.

Method: records of several identities are shown to the rules, in the order in which nodes meet.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline import limits
from pipeline.address import parse
from pipeline.errors import WireError
from pipeline.messages import NodeRecord, RefusalReason
from pipeline.overlay import records
from pipeline.overlay.certified_members import CertifiedMembers
from pipeline.overlay.members import UNKNOWN_RANK, OpenMembers
from tests.unit.authority import AUTHORITY, NOW, STRANGER, certificate_of, revocation_list
from tests.unit.overlay_net import Forger, identity_of

ONE, TWO = parse("10.77.0.1"), parse("10.77.0.2")


def node(name: str, *addresses: bytes, identity: str = "", is_kept: bool = True) -> NodeRecord:
    """Return the record of a node whose identity is named like itself, unless another one is given."""
    owned = tuple((address, 16) for address in addresses)
    record = Forger(identity or name, addresses=owned, is_kept=is_kept).record
    return records.sign(msgspec.structs.replace(record, name=name), identity_of(identity or name))


def reason(members: OpenMembers | CertifiedMembers, record: NodeRecord) -> RefusalReason | None:
    objection = members.objection(record)
    return objection and objection.reason


# ---- open network


def test_name_is_pinned_to_the_identity_whose_link_was_up_first() -> None:
    """Goal: a name that a node has proved to have is not given to another identity.
    Method: two identities with one name; the record alone pins nothing, the link does."""
    members = OpenMembers()
    for record in (node("a"), node("a", identity="m")):
        assert members.objection(record) is None
    members.note_link(node("a"))
    assert reason(members, node("a", identity="m")) is RefusalReason.PINNED
    assert members.objection(node("a")) is None
    assert members.objection(node("b", identity="m")) is None, "the identity may have another name"


def test_pin_moves_by_forget_only() -> None:
    """Goal: a host with a new identity gets its name back by the operator's command.
    Method: forget a name, an unknown one, and then the former identity is the other one."""
    members = OpenMembers()
    members.note_link(node("a"))
    assert not members.forget("b")
    assert members.forget("a")
    assert members.objection(node("a", identity="new")) is None
    members.note_link(node("a", identity="new"))
    assert reason(members, node("a")) is RefusalReason.PINNED


def test_pins_are_those_of_the_file() -> None:
    """Goal: a restart forgets no pin, and changes are noticed, so that they are written.
    Method: pins of one object in another one."""
    first = OpenMembers()
    first.note_link(node("a", ONE))
    first.note_link(node("b", TWO))
    assert first.is_changed
    again = OpenMembers(first.pins)
    assert again.pins == first.pins
    assert not again.is_changed
    again.note_link(node("a", ONE))
    assert not again.is_changed, "the same link needs no write"
    assert reason(again, node("a", identity="m")) is RefusalReason.PINNED
    again.forget("a")
    assert again.is_changed
    assert [pin.name for pin in again.pins] == ["b"]


def test_identity_that_ends_with_its_process_holds_its_name_as_long() -> None:
    """Goal: a node without a state directory can restart.
    Method: such an identity, and the next one of the same name; neither is written."""
    members = OpenMembers()
    members.note_link(node("a", is_kept=False))
    assert members.objection(node("a", identity="next")) is None
    assert members.pins == []
    members.note_link(node("a", identity="next"))
    assert reason(members, node("a")) is RefusalReason.PINNED


def test_number_of_pins_is_bounded_and_the_first_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a member with invented identities takes no pin of another node away.
    Method: a lowered bound; more nodes are linked than there is room for, also ones whose identity is not kept."""
    monkeypatch.setattr(limits, "PINS_MAX", 4)
    members = OpenMembers()
    members.note_link(node("a"))
    for number in range(10):
        members.note_link(node(f"invented{number}", is_kept=number % 2 == 0))
    members.note_link(node("b"))
    assert len(members._pins) <= 4
    assert reason(members, node("a", identity="m")) is RefusalReason.PINNED


def test_pins_of_identities_that_are_not_kept_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: pins that end with this process keep no other one out.  Method: a full table of them."""
    monkeypatch.setattr(limits, "PINS_MAX", 3)
    members = OpenMembers()
    for number in range(3):
        members.note_link(node(f"brief{number}", is_kept=False))
    members.note_link(node("a"))
    assert reason(members, node("a", identity="m")) is RefusalReason.PINNED


def test_address_has_the_rank_of_its_first_holder() -> None:
    """Goal: a node that has been known for longer cannot claim the address of another one later.
    Method: the node that was met first adds the address of the second one."""
    members = OpenMembers()
    members.note_link(node("early", ONE))
    members.note_link(node("late", TWO))
    greedy = node("early", ONE, TWO)
    members.note_link(greedy)
    assert members.rank(node("late", TWO), TWO) < members.rank(greedy, TWO)
    assert members.rank(greedy, ONE) < UNKNOWN_RANK
    assert OpenMembers(members.pins).rank(node("late", TWO), TWO) < OpenMembers(members.pins).rank(greedy, TWO)


def test_address_of_a_forgotten_pin_is_free() -> None:
    """Goal: an address can move to another node by the operator's command.  Method: forget its holder."""
    members = OpenMembers()
    members.note_link(node("a", ONE))
    members.forget("a")
    members.note_link(node("b", ONE))
    assert members.rank(node("b", ONE), ONE) < members.rank(node("a", ONE), ONE)


def test_rank_needs_identity_and_name() -> None:
    """Goal: nobody inherits the addresses of a name.  Method: another identity, another name, another address."""
    members = OpenMembers()
    members.note_link(node("a", ONE))
    assert members.rank(node("a", ONE), ONE) < UNKNOWN_RANK
    for other in (node("a", ONE, identity="m"), node("b", ONE, identity="a"), node("a", TWO)):
        assert members.rank(other, ONE if other.addresses[0][0] == ONE else TWO) == UNKNOWN_RANK


def test_addresses_of_a_pin_are_bounded() -> None:
    """Goal: a node that changes its addresses all the time does not fill memory, and has its present ones.
    Method: more addresses than a record has."""
    members = OpenMembers()
    last = b""
    for number in range(3 * limits.ADDRESSES_PER_NODE_MAX):
        last = parse(f"10.77.1.{number}")
        members.note_link(node("a", last))
    assert len(members.pins[0].addresses) == limits.ADDRESSES_PER_NODE_MAX
    assert members.rank(node("a", last), last) < UNKNOWN_RANK


def test_node_of_protocol_1_is_not_pinned() -> None:
    """Goal: a name without an identity can be taken by the node's identity after its upgrade.  Method: both records."""
    members = OpenMembers()
    members.note_link(records.unsigned(node("a")))
    assert members.pins == []
    assert members.objection(node("a")) is None


# ---- network with an authority


def certified(name: str, *addresses: bytes, **changes: Any) -> NodeRecord:
    """Return the record of a node with a certificate."""
    return msgspec.structs.replace(node(name, *addresses), certificate=certificate_of(name, *addresses, **changes))


def members_at(now: float = NOW, revoked: bytes = b"") -> CertifiedMembers:
    return CertifiedMembers(AUTHORITY.public_key, clock=lambda: now, revocation_list=revoked)


def test_node_with_a_certificate_is_a_member() -> None:
    """Goal: name, key and addresses of the certificate are accepted.  Method: a whole certificate."""
    assert members_at().objection(certified("a", ONE)) is None


GRACE = limits.CERTIFICATE_GRACE_S


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (node("a", ONE), "no certificate"),
        (records.unsigned(certified("a", ONE)), "older version"),
        (msgspec.structs.replace(node("a", ONE), certificate=b"x" * 100), "malformed"),
        (certified("a", ONE, signer=STRANGER), "another authority"),
        (certified("a", ONE, public_key=identity_of("b").public_key), "another key"),
        (msgspec.structs.replace(certified("a", ONE), name="\N{CYRILLIC SMALL LETTER A}"), "for the name a"),
        (msgspec.structs.replace(certified("a", ONE), name="A"), "for the name a"),
        (msgspec.structs.replace(certified("a", ONE), addresses=((TWO, 16),)), "without the address 10.77.0.2"),
        (certified("a", ONE, not_before=NOW - 2 * GRACE, not_after=NOW - GRACE - 1), "expired"),
        (certified("a", ONE, not_before=NOW + GRACE + 1, not_after=NOW + 2 * GRACE), "begins at"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_node_without_a_valid_certificate_is_no_member(record: NodeRecord, words: str) -> None:
    """Goal: each fault has an objection with its reason.  Method: certificates with one fault each."""
    objection = members_at().objection(record)
    assert objection is not None
    assert objection.reason is RefusalReason.CERTIFICATE
    assert words in objection.detail


def test_revoked_node_is_no_member_by_the_newest_list() -> None:
    """Goal: an older list does not admit a revoked node again, and only the authority can make a list.
    Method: lists in every order of versions, of another authority, changed, and the same twice."""
    members = members_at(revoked=revocation_list(2, "a"))
    assert reason(members, certified("a", ONE)) is RefusalReason.CERTIFICATE
    assert members.objection(certified("b", TWO)) is None
    for older in (revocation_list(1), revocation_list(2), revocation_list(9, signer=STRANGER)):
        assert not members.take_revocations(older)
    assert reason(members, certified("a", ONE)) is RefusalReason.CERTIFICATE
    newer = revocation_list(3, "b")
    with pytest.raises(WireError):
        members.take_revocations(newer[:-1] + b"\0")
    assert members.take_revocations(newer)
    assert not members.take_revocations(newer)
    assert members.revocation_list == newer
    assert members.objection(certified("a", ONE)) is None
    assert members.is_revoked(certified("b", TWO))


def test_certificate_without_addresses_allows_derived_ones_only_to_its_key() -> None:
    """Goal: a certificate may leave the addresses to the node.  Method: a certificate without any."""
    record = msgspec.structs.replace(certified("a"), addresses=((ONE, 16),))
    assert members_at().objection(record) is None
    assert members_at().certified(record) == ()
    assert members_at().certified(certified("a", ONE)) == ("10.77.0.1/32",)
