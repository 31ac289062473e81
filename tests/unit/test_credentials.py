"""Credentials.  Goal: a node starts with files that are its own and of its network, and names any other one.

Method: an authority, and a configuration whose paths are in a temporary directory.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline import limits
from pipeline.address import parse_prefix
from pipeline.config import Config, NodeSection, SecuritySection, TunSection
from pipeline.errors import ConfigError, PipelineError
from pipeline.io import credentials, state
from pipeline.keys import certificate as certificates
from pipeline.keys import revocation
from pipeline.keys.certificate import Certificate
from pipeline.keys.identity import Identity
from pipeline.keys.revocation import Revocation, RevocationList

AUTHORITY, STRANGER, NODE, OTHER = (Identity(bytes([number]) * 32) for number in range(4))
BEGIN, END = 1_700_000_000, 1_731_536_000


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Directory of the files, which is also the state directory of every instance."""
    monkeypatch.setattr(state, "directory", lambda _name: tmp_path)
    return tmp_path


def config(root: Path, *, authority: bool = True, addresses: tuple[str, ...] = (), certificate: str = "") -> Config:
    if authority:
        (root / "authority.pub").write_text(credentials.public_key_text("x", AUTHORITY.public_key))
    return Config(
        node=NodeSection(name="a", certificate=certificate or None),
        tun=TunSection(addresses=addresses),
        security=SecuritySection(authority=str(root / "authority.pub") if authority else None),
    )


def sign(
    path: Path, signer: Identity = AUTHORITY, node: Identity = NODE, name: str = "a", serial: int = 1
) -> Certificate:
    """Write the file of a certificate."""
    certificate = Certificate(
        authority=signer.public_key,
        public_key=node.public_key,
        serial=serial,
        name=name,
        addresses=(parse_prefix("10.77.0.1/16"), parse_prefix("10.77.0.2/16"), parse_prefix("fd77::1/64")),
        prefixes=(),
        relay=True,
        not_before=BEGIN,
        not_after=END,
    )
    path.write_text(credentials.certificate_text(certificate, certificates.encode(certificate, signer)))
    return certificate


def revoke(path: Path, *entries: Revocation, signer: Identity = AUTHORITY, version: int = 1) -> RevocationList:
    """Write the file of a revocation list."""
    found = RevocationList(authority=signer.public_key, version=version, issued_at=BEGIN + 500, entries=entries)
    path.write_text(credentials.revocations_text(found, revocation.encode(found, signer)))
    return found


def assert_refused(config: Config, *words: str, public_key: bytes | None = NODE.public_key) -> None:
    with pytest.raises(ConfigError) as caught:
        credentials.load(config, public_key)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_certificate_and_list_are_loaded(root: Path) -> None:
    """Goal: control gets each structure as a value and as bytes.  Method: all three files in the default places."""
    certificate, revocations = sign(root / "certificate"), revoke(root / "revocations", Revocation(serial=9))
    found = credentials.load(config(root), NODE.public_key)
    assert (found.authority, found.certificate, found.revocations) == (AUTHORITY.public_key, certificate, revocations)
    assert certificates.decode(found.certificate_data) == certificate
    assert revocation.decode(found.revocations_data) == revocations


def test_open_network_needs_no_files(root: Path) -> None:
    """Goal: without an authority nothing changes.  Method: an empty directory; a list of whoever in it."""
    assert credentials.load(config(root, authority=False), NODE.public_key) == credentials.Credentials()
    revoke(root / "revocations", Revocation(public_key=NODE.public_key))
    assert credentials.load(config(root, authority=False), NODE.public_key) == credentials.Credentials()


def test_certificate_is_loaded_in_an_open_network(root: Path) -> None:
    """Goal: a network gets certificates first and its authority later, node by node.  Method: a certificate alone."""
    certificate = sign(root / "certificate")
    assert credentials.load(config(root, authority=False), NODE.public_key).certificate == certificate


def test_missing_certificate_is_an_error_once_the_node_has_an_identity(root: Path) -> None:
    """Goal: a node can start once, for its identity, before it is signed; the error has path and remedy.
    Method: an authority and no certificate; a configured certificate without an authority."""
    assert credentials.load(config(root)).certificate is None
    assert_refused(config(root), str(root / "certificate"), "authority sign")
    elsewhere = str(root / "a.certificate")
    assert credentials.load(config(root, authority=False, certificate=elsewhere)).certificate is None
    assert_refused(config(root, authority=False, certificate=elsewhere), elsewhere, "authority sign")


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"signer": STRANGER}, "another authority"), ({"node": OTHER}, "another key"), ({"name": "b"}, "the name b")],
)
def test_certificate_of_another_node_or_network_is_refused(root: Path, changes: dict, word: str) -> None:
    """Goal: the error names the file and what is wrong.  Method: other authority, key and name."""
    sign(root / "certificate", **changes)
    assert_refused(config(root), str(root / "certificate"), word)


def test_configured_address_must_be_in_the_certificate(root: Path) -> None:
    """Goal: a node does not start with an address that its peers refuse.  Method: one that was signed, and another."""
    sign(root / "certificate")
    credentials.load(config(root, addresses=("10.77.0.2/16",)), NODE.public_key)
    assert_refused(config(root, addresses=("10.77.0.3/16",)), "10.77.0.3")


def test_node_takes_the_first_addresses_of_its_certificate(root: Path) -> None:
    """Goal: a certificate is configuration enough.  Method: two IPv4 addresses and one of IPv6."""
    assert credentials.addresses_of(sign(root / "certificate")) == ("10.77.0.1/16", "fd77::1/64")


def test_revoked_node_does_not_start(root: Path) -> None:
    """Goal: a revoked node names the reason.  Method: a list with its key; with its serial; with another one."""
    sign(root / "certificate", serial=5)
    for entry in (Revocation(public_key=NODE.public_key), Revocation(serial=5)):
        revoke(root / "revocations", entry)
        assert_refused(config(root), str(root / "certificate"), "revoked")
    revoke(root / "revocations", Revocation(serial=4))
    credentials.load(config(root), NODE.public_key)


def test_list_of_another_authority_is_refused(root: Path) -> None:
    """Goal: a list that was copied from another network is named.  Method: a stranger's list."""
    sign(root / "certificate")
    revoke(root / "revocations", signer=STRANGER)
    assert_refused(config(root), str(root / "revocations"), "another authority")


@pytest.mark.parametrize("name", ["authority.pub", "certificate", "revocations"])
@pytest.mark.parametrize("damage", ["cut", "empty", "changed", "binary", "huge", "directory"])
def test_damaged_file_is_named(root: Path, name: str, damage: str) -> None:
    """Goal: one line with the path for any content.  Method: six kinds of damage to each file."""
    settings = config(root)
    sign(root / "certificate")
    revoke(root / "revocations")
    path = root / name
    text = path.read_text()
    if damage == "directory":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({
            "cut": text[:-10].encode(),
            "empty": b"",
            "changed": re.sub(r"\n(\w)", lambda match: "\n" + ("B" if match[1] != "B" else "C"), text).encode(),
            "binary": bytes(range(256)),
            "huge": b"A" * (1 << 20),
        }[damage])  # fmt: skip
    assert_refused(settings, str(path))


def test_wrong_clock_does_not_keep_a_node_from_its_start(root: Path) -> None:
    """Goal: a clock that is years off is logged, and no error.  Method: texts and times by clocks of all kinds."""
    sign(root / "certificate")
    found = credentials.load(config(root), NODE.public_key)
    assert "expired at" in found.time_warning(END + 1) and "begins at" in found.time_warning(0)
    assert found.time_warning(BEGIN + 1) == "" == credentials.Credentials().time_warning(0)
    assert (found.now(0.0), found.now(END + 9.0), credentials.Credentials().now(5.0)) == (BEGIN, END + 9, 5)
    revoke(root / "revocations")
    assert credentials.load(config(root), NODE.public_key).now(0.0) == BEGIN + 500


def test_received_list_is_kept(root: Path) -> None:
    """Goal: a node does not forget a revocation with its restart.  Method: save bytes, and load them; into a directory
    that is missing, and into one that cannot be made."""
    sign(root / "certificate")
    newer = revoke(root / "elsewhere", Revocation(serial=3), version=8)
    data = revocation.encode(newer, AUTHORITY)
    credentials.save_revocations(config(root), data)
    assert credentials.load(config(root), NODE.public_key).revocations == newer
    settings = config(root)
    for name in ("none", "authority.pub"):
        path = root / name / "list"
        security = SecuritySection(authority=settings.security.authority, revocations=str(path))
        other = Config(node=settings.node, security=security)
        if name == "none":
            credentials.save_revocations(other, data)
            assert path.exists()
        else:
            with pytest.raises(PipelineError, match=re.escape(str(path))):
                credentials.save_revocations(other, data)


def test_largest_structures_fit_into_their_files(root: Path) -> None:
    """Goal: no list that an authority can sign is too large for a file.  Method: a full one."""
    sign(root / "certificate")
    entry = Revocation(public_key=OTHER.public_key, serial=1 << 60, revoked_at=limits.TIME_MAX, reason="r" * 64)
    full = revoke(root / "revocations", *[entry] * limits.REVOCATIONS_MAX)
    assert credentials.load(config(root), NODE.public_key).revocations == full
