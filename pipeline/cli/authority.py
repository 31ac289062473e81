"""`pipeline authority`: certificates of nodes, for networks that want them."""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline import limits
from pipeline.cli import completion
from pipeline.cli.shared import Group, json_flag, print_value
from pipeline.errors import PipelineError, UsageError
from pipeline.terminal import printable

if TYPE_CHECKING:
    from pipeline.io.authority import Authority
    from pipeline.keys.certificate import Certificate
    from pipeline.keys.register import Order, Signed

DAY_S = 86_400
DAYS = 365.0
"""Period of a certificate: a renewal once a year."""
DAYS_MAX = 36_500.0
"""Longest period: a certificate for longer than a century is a mistake."""
NONE = "none"
"""Word in place of a network: those of the present certificate are not renewed."""
COPY_LIST = "copy it to any node and run pipeline reload there"
SERIAL_DIGITS_MAX = 18
"""Digits of a serial number that are read."""


@click.group(cls=Group)
def authority() -> None:
    """Sign certificates of nodes, so that only these are members of a network.

    `authority init` makes a signing key, which can be kept on any host, also offline.  Every node gets the public
    key ([security] authority) and its own certificate ([node] certificate).  A revocation list that is given to one
    node reaches all others.
    """


def _authority_flag(command: Callable[..., Any]) -> Callable[..., Any]:
    option = click.option(
        "--authority",
        "key",
        metavar="PATH",
        default="authority.key",
        shell_complete=completion.files,
        help="Signing key, or its directory (default: authority.key in this directory).",
    )
    return option(command)


@authority.command()
@click.argument("path", metavar="[PATH]", required=False, default="authority.key", shell_complete=completion.files)
def init(path: str) -> int:
    """Make a signing key, mode 0600, its public key and its register (default: authority.key in this directory).

    PATH is the file of the key, or a directory for it.  Nothing is overwritten.  Keep the key secret, and make
    backups of it together with the register.
    """
    from pipeline.io import authority as files

    register, public_key, key = files.make(files.key_path(path))
    _tell(f"{key}: secret; keep it with {register.name}, and copy {public_key.name} to every node")
    return 0


@authority.command()
@click.argument("public_key", metavar="[KEY]", required=False, default="", shell_complete=completion.files)
@click.option("--name", metavar="NAME", required=True, help="Name of the node.")
@click.option("--address", "addresses", metavar="CIDR", multiple=True,
              help="Its overlay address (default: from the name).")  # fmt: skip
@click.option("--prefix", "prefixes", metavar="CIDR", multiple=True, help='Network behind it; "none" for no more.')
@click.option("--relay/--no-relay", "relay", default=None, help="Whether it may relay for others (default: it may).")
@click.option("--days", metavar="N", default=f"{DAYS:g}", help=f"Days until it expires (default {DAYS:g}).")
@click.option("--replace", "replaces", is_flag=True, help="Revoke another key that has the name.")
@click.option("--out", metavar="FILE", shell_complete=completion.files, help="File (default: NAME.certificate), or -.")
@_authority_flag
def sign(*, public_key: str, days: str, out: str | None, key: str, **order: Any) -> int:
    """Sign the certificate of a node.

    KEY is its public key, as `pipeline identity show` prints it there: a file, "-" for stdin, or the text.
    Without KEY, or with the key that has the name already, the certificate is renewed.  Addresses, networks and
    relay are then those of the present one unless they are given again.
    """
    from pipeline.io import authority as files
    from pipeline.io.credentials import certificate_text
    from pipeline.keys import storage

    wanted = _order(public_key, days, **order)
    now = int(time.time())
    with files.opened(files.key_path(key)) as opened:
        if wanted.public_key == opened.signer.public_key:
            raise UsageError(f"{public_key}: the key of the authority itself; sign that of a node (identity show)")
        version = opened.register.version
        certificate, data = opened.register.sign(wanted, opened.signer, now)
        opened.save()  # before the certificate exists, so that no serial number is given twice
        text, path = certificate_text(certificate, data), out or f"{wanted.name}.certificate"
        if path == "-":
            sys.stdout.write(text)
        else:
            storage.replace(Path(path), text, mode=0o644)
            _tell(f"{path}: {_describe(certificate)}")
        if opened.register.version != version:
            revocations = opened.write_revocations(opened.revocations_path, now)
            _warn(f"{opened.revocations_path}: version {revocations.version} revokes the former one: {COPY_LIST}")
    return 0


@authority.command()
@click.argument("target", metavar="NAME|SERIAL|CERTIFICATE", shell_complete=completion.files)
@click.option("--reason", metavar="TEXT", default="", help="Reason, for `authority list` and the logs of the nodes.")
@click.option("--out", metavar="FILE", shell_complete=completion.files,
              help="File of the list (default: beside the signing key).")  # fmt: skip
@_authority_flag
def revoke(target: str, reason: str, out: str | None, key: str) -> int:
    """Exclude a node, or revoke one certificate, and write the next version of the revocation list.

    NAME excludes the node with all its certificates: its key is never accepted again.  A serial number or the file
    of a certificate revokes that certificate alone.  Copy the list to any node ([security] revocations) and run
    `pipeline reload` there: the others receive it from that node.
    """
    from pipeline.io import authority as files

    _check_reason(reason)
    now = int(time.time())
    with files.opened(files.key_path(key)) as opened:
        remaining = _revoke(opened, target, reason, now)
        path = Path(out) if out else opened.revocations_path
        revocations = opened.write_revocations(path, now)
        _tell(f"{path}: version {revocations.version}, {len(revocations.entries)} revoked: {COPY_LIST}")
        for each in remaining:
            _warn(
                f"serial {each.serial} of the same node is still valid: authority revoke {each.name} excludes the node"
            )
    return 0


@authority.command("list")
@_authority_flag
@json_flag
def list_command(key: str, as_json: bool) -> int:
    """List what was signed and what was revoked."""
    from pipeline.io import authority as files

    with files.opened(files.key_path(key)) as opened:
        value = _listing(opened, int(time.time()))
    print_value("authority", value, as_json=as_json)
    return 0


# ---------------------------------------------------------------- arguments


def _order(public_key: str, days: str, **flags: Any) -> Order:
    """Return the contents of a certificate; UsageError for a value that cannot be one."""
    from pipeline.keys.register import Order

    addresses = _checked("--address", "tun.addresses", flags["addresses"])
    has_prefixes = flags["prefixes"] != (NONE,)
    prefixes = _checked("--prefix", "overlay.prefixes", flags["prefixes"] if has_prefixes else ())
    if len(prefixes) > limits.CERTIFICATE_PREFIXES_MAX:
        raise UsageError(f"--prefix: {len(prefixes)} networks, {limits.CERTIFICATE_PREFIXES_MAX} are the limit")
    return Order(
        name=_checked("--name", "node.name", flags["name"]),
        public_key=_public_key(public_key),
        addresses=addresses or None,
        prefixes=prefixes or None if has_prefixes else (),
        relay=flags["relay"],
        period_s=_period(days),
        replaces=flags["replaces"],
    )


def _checked(flag: str, key: str, value: Any) -> Any:
    """Return a value as the configuration key of a node would accept it."""
    from pipeline.config_checks import CHECKS

    try:
        return CHECKS[key](value)
    except ValueError as error:
        shown = ", ".join(value) if isinstance(value, tuple) else value
        raise UsageError(f"{flag} {shown}: {error}") from None


def _public_key(text: str) -> bytes | None:
    """Return the public key of a node from a file, from stdin ("-") or from base64 text; None without any."""
    from pipeline.io.credentials import load_public_key, parse_public_key
    from pipeline.keys.identity import Identity

    if not text:
        return None
    try:
        if text == "-":
            found = parse_public_key(sys.stdin.buffer.read(limits.CERTIFICATE_BYTES_MAX))
        else:
            found = load_public_key(Path(text)) if Path(text).exists() else parse_public_key(text.encode())
    except (ValueError, OSError):
        raise UsageError(f"{text}: neither the file nor the text of a public key (pipeline identity show)") from None
    if Identity(bytes(32)).pair_key(found) is None:
        raise UsageError(f"{text}: not a usable public key")
    return found


def _period(text: str) -> int:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 1 / DAY_S <= days <= DAYS_MAX:
        raise UsageError(f"--days {text}: expected a number of days, {DAYS_MAX:g} at the most")
    return int(days * DAY_S)


def _check_reason(text: str) -> None:
    if len(text) > limits.REVOCATION_REASON_LENGTH_MAX or not text.isascii() or not (text.isprintable() or not text):
        raise UsageError(f"--reason {text}: at most {limits.REVOCATION_REASON_LENGTH_MAX} ASCII characters")


# ---------------------------------------------------------------- revocation, output


def _revoke(opened: Authority, target: str, reason: str, now: int) -> list[Signed]:
    """Revoke what the user names, and return the certificates that its node still has."""
    from pipeline.io.credentials import load_certificate

    register = opened.register
    certificate: Certificate | Signed
    if register.has_signed(target):
        register.revoke_node(target, reason, now)
        return []
    if target.isascii() and target.isdigit():
        certificate = register.find(int(target[:SERIAL_DIGITS_MAX]))
    elif Path(target).exists():
        certificate, _ = load_certificate(Path(target))
        if certificate.authority != opened.signer.public_key:
            raise PipelineError(f"{target}: certificate of another authority")
    else:
        raise PipelineError(f"{target}: no name or serial number in the register, and no file of a certificate")
    register.revoke_certificate(certificate, reason, now)
    return register.remaining(certificate, now)


def _describe(certificate: Certificate) -> str:
    from pipeline.address import show_prefix
    from pipeline.keys.certificate import show_time

    networks = [show_prefix(*each) for each in (*certificate.addresses, *certificate.prefixes)]
    until = show_time(certificate.not_after)
    return ", ".join([f"node {certificate.name}", f"serial {certificate.serial}", *networks, f"until {until}"])


def _listing(opened: Authority, now: int) -> dict[str, Any]:
    """Return the register as JSON values."""
    register = opened.register
    return {
        "public_key": _key(register.authority),
        "revocations_version": register.version,
        "certificates": [
            {
                "serial": each.serial,
                "name": each.name,
                "state": state,
                "addresses": list(each.addresses),
                "prefixes": list(each.prefixes),
                "relay": each.relay,
                "not_before": _iso(each.not_before),
                "not_after": _iso(each.not_after),
                "public_key": _key(each.public_key),
            }
            for each, state in register.states(now)
        ],
        "revocations": [
            {
                "name": each.name,
                "serial": None if each.public_key else each.serial,
                "public_key": _key(each.public_key) if each.public_key else None,
                "revoked_at": _iso(each.revoked_at),
                "reason": each.reason,
            }
            for each in register.revocations
        ],
    }


def _key(public_key: bytes) -> str:
    from pipeline.io.credentials import PUBLIC_KEY
    from pipeline.keys import storage

    return storage.tagged(PUBLIC_KEY, public_key)


def _iso(time: int) -> str:
    return dt.datetime.fromtimestamp(time, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _tell(text: str) -> None:
    click.echo(printable(text))


def _warn(text: str) -> None:
    click.echo(printable(text), err=True)
