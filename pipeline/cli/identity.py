"""`pipeline identity`: the key pair of a node, and those of other nodes that it remembers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pipeline.cli.shared import Group, config_flag, instance_flag, json_flag, print_value


@click.group(cls=Group)
def identity() -> None:
    """Show the identity of this node, or forget that of another one."""


@identity.command()
@instance_flag
@config_flag
@json_flag
def show(name: str | None, config: str | None, as_json: bool) -> int:
    """Print the public key of this node, for `authority sign`, with its node id and a fingerprint.

    The first `pipeline launch` makes the identity.
    """
    from pipeline.address import derive_node_id
    from pipeline.config import load
    from pipeline.io import identity_file
    from pipeline.io.credentials import PUBLIC_KEY, public_key_text
    from pipeline.keys import storage
    from pipeline.keys.identity import Identity, fingerprint

    node = load({"node.name": name}, os.environ, Path(config) if config else None, require_key=False).node
    path = identity_file.path_of(node)
    public_key = Identity(identity_file.load(path)).public_key
    node_id = f"{derive_node_id(public_key, 0):08x}"
    if as_json:
        value = {
            "name": node.name,
            "node_id": node_id,
            "fingerprint": fingerprint(public_key),
            "public_key": storage.tagged(PUBLIC_KEY, public_key),
            "path": str(path),
        }
        print_value("identity", value, as_json=True)
    else:
        of = f"node {node.name}, id {node_id}, fingerprint {fingerprint(public_key)}"
        sys.stdout.write(public_key_text(of, public_key))
    return 0


@identity.command()
@click.argument("node", metavar="NODE")
@instance_flag
def forget(node: str, name: str | None) -> int:
    """Forget the identity of the node NODE, so that another one may have the name.

    A running instance remembers which identity each name had first, and refuses any other.  When a host has lost its
    identity, run this on every node that refuses it.
    """
    from pipeline.client import instance_name, request

    request(instance_name(name), "forget", arguments={"name": node})
    return 0
