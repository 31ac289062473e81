"""Register of an authority.  Goal: a name, a key, an address and a network belong to one node at a time.

Method: orders and revocations on a virtual clock; the certificates and lists are decoded as nodes do it.
"""

from __future__ import annotations

import pytest

from pipeline import limits
from pipeline.address import parse, parse_prefix, show_prefix
from pipeline.errors import PipelineError
from pipeline.keys import certificate as certificates
from pipeline.keys import revocation
from pipeline.keys.certificate import Certificate
from pipeline.keys.identity import Identity
from pipeline.keys.register import Order, Register
from pipeline.keys.revocation import RevocationList

AUTHORITY, A, B, C = (Identity(bytes([number]) * 32) for number in range(4))
NOW = 1_700_000_000
YEAR_S = 365 * 86_400


@pytest.fixture
def register() -> Register:
    return Register(authority=AUTHORITY.public_key)


def sign(register: Register, name: str, node: Identity | None = None, now: int = NOW, **order: object) -> Certificate:
    """Sign a node, and return its certificate as another node decodes it."""
    public_key = node.public_key if node else None
    values = {"name": name, "public_key": public_key, "period_s": YEAR_S} | order
    certificate, data = register.sign(Order(**values), AUTHORITY, now)  # type: ignore[arg-type]
    assert certificates.decode(data) == certificate
    return certificate


def issued(register: Register, now: int = NOW) -> RevocationList:
    """Return the revocation list as a node decodes it."""
    revocations, data = register.revocation_list(AUTHORITY, now)
    assert revocation.decode(data) == revocations
    return revocations


def assert_refused(register: Register, *words: str, **order: object) -> None:
    """Check that an order is refused with these words, and that it changes nothing."""
    before = register.last_serial
    with pytest.raises(PipelineError) as caught:
        sign(register, **order)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)
    assert register.last_serial == before == len(register.certificates)


# ---------------------------------------------------------------- signing


def test_node_without_an_address_has_those_of_its_name(register: Register) -> None:
    """Goal: a node has the addresses that it would derive in an open network.  Method: no --address; the next node that
    derives the same ones has others."""
    first = sign(register, "a", A)
    assert all(first.holds(address) for address, _ in first.addresses) and len(first.addresses) == 2
    taken = tuple(show_prefix(*each) for each in first.addresses)
    other = Register(authority=AUTHORITY.public_key)
    sign(other, "b", B, addresses=taken)
    second = sign(other, "a", A, prefixes=("192.0.2.0/24",))
    assert not {address for address, _ in second.addresses} & {address for address, _ in first.addresses}
    assert [length for _, length in second.addresses] == [16, 64]


def test_renewal_has_a_new_serial_and_the_same_contents(register: Register) -> None:
    """Goal: a renewal needs a name only.  Method: sign again without a key, with it, and with other addresses."""
    first = sign(register, "a", A, addresses=("10.77.0.1/16",), prefixes=("192.0.2.0/24",), relay=False)
    again = sign(register, "a", now=NOW + 100)
    assert (again.serial, again.not_before, again.not_after) == (2, NOW + 100, NOW + 100 + YEAR_S)
    assert (again.public_key, again.addresses, again.prefixes, again.relay) == (
        A.public_key, first.addresses, first.prefixes, False,
    )  # fmt: skip
    assert sign(register, "a", A, relay=True).relay
    moved = sign(register, "a", A, addresses=("10.77.0.9/16",))
    assert (moved.addresses, moved.prefixes) == ((parse_prefix("10.77.0.9/16"),), first.prefixes)
    assert sign(register, "a", prefixes=()).prefixes == () == sign(register, "a").prefixes
    assert_refused(register, "no certificate to renew", name="b")


def test_name_of_another_key_is_replaced_on_request_only(register: Register) -> None:
    """Goal: no mistake gives a name to a second node; a replaced node is revoked.  Method: another key, --replace."""
    old = sign(register, "a", A)
    assert_refused(register, "--replace", "serial 1", name="a", node=B)
    assert register.version == 0
    new = sign(register, "a", B, replaces=True)
    revocations = issued(register)
    assert revocations.revokes(old) and not revocations.revokes(new) and register.version == 1
    assert_refused(register, "revoked", name="a", node=A)
    assert sign(register, "a").public_key == B.public_key


def test_second_name_of_a_key_is_replaced_on_request_only(register: Register) -> None:
    """Goal: a node has one name; a renamed node keeps its key.  Method: the same key with another name."""
    old = sign(register, "a", A)
    assert_refused(register, "--replace", name="b", node=A)
    new = sign(register, "b", A, replaces=True)
    assert issued(register).revokes(old) and not issued(register).revokes(new)


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ({"addresses": ("10.77.0.1/16",)}, {"addresses": ("10.77.0.1/24",)}),
        ({"addresses": ("fd77::1/64",)}, {"addresses": ("10.77.0.2/16", "fd77::1/64")}),
        ({"prefixes": ("192.0.2.0/24",)}, {"prefixes": ("192.0.2.128/25",)}),
        ({"prefixes": ("192.0.2.128/25",)}, {"prefixes": ("192.0.2.0/24",)}),
        ({"prefixes": ("192.0.2.0/24",)}, {"addresses": ("192.0.2.7/24",)}),
        ({"addresses": ("192.0.2.7/24",)}, {"prefixes": ("192.0.2.0/24",)}),
    ],
)
def test_address_and_network_have_one_owner(register: Register, held: dict, wanted: dict) -> None:
    """Goal: what is signed for one node is signed for no other, until its certificate ends or is revoked.
    Method: equal and overlapping addresses and networks; the same after a revocation, and after the grace."""
    owner = sign(register, "a", A, **held)
    assert_refused(register, "belongs to a", name="b", node=B, **wanted)
    end = owner.not_after + limits.CERTIFICATE_GRACE_S
    assert_refused(register, "belongs to a", name="b", node=B, now=end, **wanted)
    sign(register, "b", B, now=end + 1, **wanted)
    fresh = Register(authority=AUTHORITY.public_key)
    sign(fresh, "a", A, **held)
    fresh.revoke_node("a", "", NOW)
    sign(fresh, "b", B, **wanted)


def test_neighbours_have_no_conflict(register: Register) -> None:
    """Goal: nodes of one subnet get their certificates.  Method: neighbouring addresses and networks."""
    sign(register, "a", A, addresses=("10.77.0.1/16",), prefixes=("192.0.2.0/25",))
    sign(register, "b", B, addresses=("10.77.0.2/16",), prefixes=("192.0.2.128/25", "2001:db8::/32"))
    assert sign(register, "a").holds(parse("192.0.2.1"))


# ---------------------------------------------------------------- revoking


def test_revoked_node_is_excluded_with_all_its_certificates(register: Register) -> None:
    """Goal: a stolen node is out, whatever certificate it has kept.  Method: revoke a name with two certificates; the
    other nodes keep theirs."""
    first, second, other = sign(register, "a", A), sign(register, "a"), sign(register, "b", B)
    register.revoke_node("a", "stolen", NOW + 5)
    revocations = issued(register, NOW + 5)
    assert revocations.revokes(first) and revocations.revokes(second) and not revocations.revokes(other)
    assert [(entry.reason, entry.revoked_at) for entry in revocations.entries] == [("stolen", NOW + 5)]
    assert [state for _, state in register.states(NOW)] == ["revoked", "revoked", "valid"]
    with pytest.raises(PipelineError, match="revoked already"):
        register.revoke_node("a", "", NOW)


def test_single_certificate_is_revoked_and_the_node_stays(register: Register) -> None:
    """Goal: a certificate with a mistake is taken back, and its node signed again.  Method: revoke a serial number."""
    wrong = sign(register, "a", A, addresses=("10.77.0.1/16",))
    right = sign(register, "a", A, addresses=("10.77.0.2/16",))
    register.revoke_certificate(register.find(1), "", NOW)
    assert issued(register).revokes(wrong) and not issued(register).revokes(right)
    assert [each.serial for each in register.remaining(wrong, NOW)] == [2]
    sign(register, "b", B, addresses=("10.77.0.1/16",))
    with pytest.raises(PipelineError, match="revoked already"):
        register.revoke_certificate(wrong, "", NOW)
    with pytest.raises(PipelineError, match="serial 9"):
        register.find(9)


def test_versions_grow_whatever_the_clock_shows(register: Register) -> None:
    """Goal: nodes always take the newest list.  Method: a clock that goes back between two revocations."""
    for node, now in ((A, NOW), (B, 5), (C, NOW - 7)):
        sign(register, f"n{now}", node, now=now)
        register.revoke_node(f"n{now}", "", now)
    assert issued(register).version == 3


def test_revocation_is_kept_until_no_node_can_accept_the_certificate(register: Register) -> None:
    """Goal: a list does not grow without end, and forgets nothing that matters.
    Method: revocations beside one whose certificate has expired long ago, or not so long ago."""
    sign(register, "a", A)
    register.revoke_node("a", "", NOW)
    expired = NOW + YEAR_S
    for number, now, kept in (
        (2, expired + limits.REVOCATION_KEPT_S, 2),
        (3, expired + limits.REVOCATION_KEPT_S + 1, 2),
    ):
        sign(register, f"n{number}", Identity(bytes([number]) * 32), now=now)
        register.revoke_node(f"n{number}", "", now)
        assert len(issued(register).entries) == kept
    assert all(entry.public_key != A.public_key for entry in issued(register).entries)


def test_full_list_and_full_register_are_errors(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no list is signed that nodes refuse.  Method: smaller bounds."""
    monkeypatch.setattr(limits, "REVOCATIONS_MAX", 1)
    monkeypatch.setattr(limits, "REGISTER_CERTIFICATES_MAX", 3)
    sign(register, "a", A)
    sign(register, "b", B)
    register.revoke_node("a", "", NOW)
    with pytest.raises(PipelineError, match="full"):
        register.revoke_node("b", "", NOW)
    sign(register, "b")
    assert_refused(register, "full", name="b")
    late = NOW + YEAR_S + limits.REVOCATION_KEPT_S + 1
    assert sign(register, "c", C, now=late).serial == 4 and len(register.certificates) == 1
