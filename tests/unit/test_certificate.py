"""Certificates.  Goal: a node is what an authority has signed, and nothing else.

Method: certificates of two authorities, changed bytes, and claims beside those that were signed.
"""

from __future__ import annotations

import random

import msgspec
import pytest

from pipeline import limits
from pipeline.address import parse, parse_prefix, show
from pipeline.errors import WireError
from pipeline.keys import certificate as certificates
from pipeline.keys import revocation
from pipeline.keys.certificate import Certificate
from pipeline.keys.identity import SIGNATURE_BYTES, Identity

AUTHORITY, STRANGER, NODE, OTHER = (Identity(bytes([number]) * 32) for number in range(4))
BEGIN, END = 1_700_000_000, 1_731_536_000
NOW = BEGIN + 1000.0


def make(**changes: object) -> Certificate:
    values: dict[str, object] = {
        "authority": AUTHORITY.public_key,
        "public_key": NODE.public_key,
        "serial": 1,
        "name": "studio",
        "addresses": (parse_prefix("10.77.0.1/16"), parse_prefix("fd77::1/64")),
        "prefixes": (parse_prefix("192.0.2.0/24"), parse_prefix("2001:db8:1::/48")),
        "relay": True,
        "not_before": BEGIN,
        "not_after": END,
    }
    return Certificate(**(values | changes))  # type: ignore[arg-type]


def sign(body: bytes, signer: Identity = AUTHORITY, purpose: bytes = certificates.PURPOSE) -> bytes:
    """Return a body of any content with a signature."""
    return signer.sign(purpose, body) + body


def check(certificate: Certificate, **changes: object) -> str:
    """Return why a node is refused whose claims are those of the certificate that `make` returns, but for changes."""
    claims: dict[str, object] = {
        "authority": AUTHORITY.public_key,
        "public_key": NODE.public_key,
        "name": "studio",
        "addresses": (parse("10.77.0.1"), parse("fd77::1")),
        "now": NOW,
    }
    return certificates.check(certificate, **(claims | changes))  # type: ignore[arg-type]


def assert_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        certificates.decode(data)


# ---------------------------------------------------------------- bytes


def test_certificate_survives_encoding_with_the_same_bytes() -> None:
    """Goal: equal values give equal bytes, and these give the values.  Method: with and without ranges of groups."""
    groups = (parse_prefix("239.1.0.0/16"),)
    for certificate in (make(), make(send_groups=groups, receive_groups=()), make(addresses=(), prefixes=())):
        data = certificates.encode(certificate, AUTHORITY)
        assert certificates.decode(data) == certificate
        assert certificates.encode(certificate, AUTHORITY) == data


def test_unknown_field_is_ignored_but_signed() -> None:
    """Goal: a later version may add fields.  Method: a body with one more field, as signed and then changed."""
    fields = msgspec.msgpack.decode(certificates.encode(make(), AUTHORITY)[SIGNATURE_BYTES:])
    data = sign(msgspec.msgpack.encode(fields | {"colour": "green"}))
    assert certificates.decode(data) == make()
    assert_refused(data.replace(b"green", b"black"))


def test_truncated_bytes_are_refused() -> None:
    """Goal: no part of a certificate is one.  Method: every length."""
    data = certificates.encode(make(), AUTHORITY)
    for length in range(len(data)):
        assert_refused(data[:length])
    assert_refused(data + b"\0")


def test_every_changed_bit_is_noticed() -> None:
    """Goal: no byte is outside of the signature.  Method: each bit of a certificate in turn."""
    data = certificates.encode(make(), AUTHORITY)
    for position in range(8 * len(data)):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        assert_refused(bytes(changed))


def test_random_bytes_are_refused_without_an_unexpected_error() -> None:
    """Goal: no bytes raise another error.  Method: mutations of a body with a correct signature."""
    body = certificates.encode(make(), AUTHORITY)[SIGNATURE_BYTES:]
    rng = random.Random(7)
    for _ in range(3000):
        mutated = bytearray(body)
        for _ in range(rng.choice((1, 1, 2, 8))):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        try:
            decoded = certificates.decode(sign(bytes(mutated)))
        except WireError:
            continue
        assert certificates.decode(certificates.encode(decoded, AUTHORITY)) == decoded


def test_oversize_certificate_is_refused() -> None:
    """Goal: the size is bounded whatever the fields.  Method: an unknown field up to the limit, and beyond."""
    fields = msgspec.msgpack.decode(certificates.encode(make(), AUTHORITY)[SIGNATURE_BYTES:])
    size = len(sign(msgspec.msgpack.encode(fields | {"more": bytes(1000)})))
    room = limits.CERTIFICATE_BYTES_MAX - size + 1000
    assert certificates.decode(sign(msgspec.msgpack.encode(fields | {"more": bytes(room)}))) == make()
    assert_refused(sign(msgspec.msgpack.encode(fields | {"more": bytes(room + 1)})))


def test_largest_certificate_fits() -> None:
    """Goal: every certificate that the fields allow can be encoded.  Method: all lists full, with IPv6 addresses."""
    networks = tuple((bytes([0xFD, number]) + bytes(14), 64) for number in range(limits.CERTIFICATE_PREFIXES_MAX))
    groups = tuple((bytes([0xFF, 0x15, number]) + bytes(13), 128) for number in range(limits.CERTIFICATE_PREFIXES_MAX))
    largest = make(
        serial=(1 << 63) - 1,
        name="n" * limits.NAME_LENGTH_MAX,
        addresses=tuple((bytes([0xFD]) + bytes(14) + bytes([number]), 128) for number in range(16)),
        prefixes=networks,
        not_after=limits.TIME_MAX,
        send_groups=groups,
        receive_groups=groups,
    )
    assert len(certificates.encode(largest, AUTHORITY)) <= 1700


@pytest.mark.parametrize(
    "changes",
    [
        {"serial": 0},
        {"name": ""},
        {"name": "a b"},
        {"name": "n" * 64},
        {"public_key": bytes(31)},
        {"authority": AUTHORITY.public_key + b"\0"},
        {"addresses": ((bytes(5), 8),)},
        {"addresses": (parse_prefix("10.77.0.1/33"),)},
        {"addresses": (parse_prefix("239.1.2.3/32"),)},
        {"addresses": tuple((bytes([10, 77, 0, n]), 16) for n in range(17))},
        {"prefixes": (parse_prefix("192.0.2.1/24"),)},
        {"prefixes": (parse_prefix("239.0.0.0/8"),)},
        {"prefixes": (parse_prefix("0.0.0.0/0"),)},
        {"prefixes": (parse_prefix("fe80::/10"),)},
        {"addresses": (parse_prefix("::ffff:10.77.0.1/128"),)},
        {"prefixes": tuple((bytes([10, n, 0, 0]), 16) for n in range(17))},
        {"send_groups": (parse_prefix("10.0.0.0/8"),)},
        {"receive_groups": (parse_prefix("239.0.0.1/8"),)},
        {"not_before": END, "not_after": END},
        {"not_after": limits.TIME_MAX + 1},
    ],
)
def test_value_out_of_its_bounds_is_refused_although_it_is_signed(changes: dict[str, object]) -> None:
    """Goal: not even an authority puts a value into a node that the node does not expect.  Method: one wrong value."""
    assert_refused(sign(msgspec.msgpack.encode(make(**changes))))


@pytest.mark.parametrize(
    "name", ["studiо", "ѕtudio", "stud\u0456o", "studio\u200b", "\uff53tudio", "studio\n", "st\0udio"]
)
def test_name_with_look_alikes_is_refused(name: str) -> None:
    """Goal: two names that look alike are equal.  Method: Cyrillic, invisible, full-width and control characters, in a
    certificate and as the claim of a node."""
    assert name != "studio"
    assert_refused(sign(msgspec.msgpack.encode(make(name=name))))
    assert "name" in check(make(), name=name)


def test_signature_for_another_purpose_is_refused() -> None:
    """Goal: no record or list of the same key is a certificate.  Method: the body signed for other purposes."""
    body = certificates.encode(make(), AUTHORITY)[SIGNATURE_BYTES:]
    assert certificates.decode(sign(body)) == make()
    for purpose in (b"record", b"", revocation.PURPOSE):
        assert_refused(sign(body, purpose=purpose))


def test_key_of_small_order_is_no_authority() -> None:
    """Goal: nobody signs for a key that has no secret.  Method: points of small order, with signatures that satisfy a
    verifier that does not refuse them."""
    for point in (bytes([1]) + bytes(31), bytes(32)):
        body = msgspec.msgpack.encode(make(authority=point))
        assert_refused(bytes([1]) + bytes(63) + body)


# ---------------------------------------------------------------- claims


def test_node_with_its_certificate_is_accepted() -> None:
    """Goal: all claims that were signed pass, and fewer.  Method: addresses named, and addresses of its prefixes."""
    assert check(make()) == ""
    assert check(make(), addresses=()) == ""
    assert check(make(), addresses=(parse("192.0.2.77"), parse("2001:db8:1::5"))) == ""
    assert check(make(), prefixes=(parse_prefix("192.0.2.0/24"), parse_prefix("2001:db8:1:2::/64"))) == ""


def test_certificate_of_another_authority_is_refused() -> None:
    """Goal: an authority signs for its own network only.  Method: the same values from another one; and its signature
    under the name of the right one."""
    foreign = make(authority=STRANGER.public_key)
    assert "another authority" in check(certificates.decode(certificates.encode(foreign, STRANGER)))
    assert_refused(sign(msgspec.msgpack.encode(make()), STRANGER))


def test_certificate_of_another_node_is_refused() -> None:
    """Goal: a certificate that is copied from the directory is useless.  Method: another key; another name."""
    assert "another key" in check(make(), public_key=OTHER.public_key)
    assert "the name studio" in check(make(), name="viewer")
    assert "the name studio" in check(make(), name="Studio")


@pytest.mark.parametrize(
    "address", ["10.77.0.2", "192.0.3.1", "fd77::2", "2001:db8:2::1", "::ffff:10.77.0.1", "10.77.0.0"]
)
def test_address_that_is_not_its_own_is_refused(address: str) -> None:
    """Goal: no node takes an address that was not signed.  Method: neighbours of the addresses and prefixes."""
    assert show(parse(address)) in check(make(), addresses=(parse("10.77.0.1"), parse(address)))


@pytest.mark.parametrize("prefix", ["192.0.2.0/23", "192.0.3.0/24", "0.0.0.0/0", "2001:db8:1::/47", "10.77.0.0/16"])
def test_prefix_that_is_not_its_own_is_refused(prefix: str) -> None:
    """Goal: no node announces a network that was not signed.  Method: wider and other ones; the subnet of its address,
    which names a length and no right."""
    assert prefix in check(make(), prefixes=(parse_prefix(prefix),))


def test_prefix_is_that_of_one_family() -> None:
    """Goal: a node that routes for much of IPv4 holds no IPv6 address.  Method: an eighth of all addresses."""
    everything = make(prefixes=(parse_prefix("64.0.0.0/3"),), addresses=())
    assert check(everything, addresses=(parse("64.0.113.1"),)) == ""
    assert "4000::1" in check(everything, addresses=(parse("4000::1"),))


# ---------------------------------------------------------------- time


def test_expired_and_future_certificates_have_a_bounded_grace() -> None:
    """Goal: a certificate is accepted a day before and after its period, and at no other time.
    Method: both ends, to the second."""
    grace = limits.CERTIFICATE_GRACE_S
    for now in (BEGIN - grace, BEGIN, NOW, END, END + grace):
        assert check(make(), now=now) == ""
    assert "begins at 2023-11-14 22:13 UTC" in check(make(), now=BEGIN - grace - 1)
    assert "expired at 2024-11-13 22:13 UTC" in check(make(), now=END + grace + 1)


def test_grace_is_described() -> None:
    """Goal: the log can say why a certificate ends soon.  Method: before, in and after the period."""
    assert certificates.describe_grace(make(), NOW) == ""
    assert "begins at" in certificates.describe_grace(make(), BEGIN - 1)
    assert "expired at" in certificates.describe_grace(make(), END + 1)


@pytest.mark.parametrize("clock", [0.0, 946_684_800.0, BEGIN - 3 * 365 * 86_400.0])
def test_clock_that_is_years_behind_is_corrected_by_what_the_authority_has_signed(clock: float) -> None:
    """Goal: a host without a battery for its clock links at once.  Method: peers whose certificates were signed up to a
    day after the host's own one; a clock that is right or ahead is not changed."""
    now = certificates.latest_time(clock, make().not_before, BEGIN - 10)
    assert check(make(not_before=BEGIN + 3600), now=now) == ""
    assert check(make(not_before=BEGIN + 3600), now=clock) != ""
    assert certificates.latest_time(END + 5.0, BEGIN) == END + 5.0
    assert certificates.latest_time(clock) == clock
