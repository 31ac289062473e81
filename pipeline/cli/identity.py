"""`pipeline identity`: the key pair of a node, and those of other nodes that it remembers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from pipeline.cli.shared import Group, config_flag, instance_flag, json_flag, print_value


@click.group(cls=Group)
def identity() -> None:
    """Show the identity of a node."""


@identity.command()
@instance_flag
@config_flag
@json_flag
def show(name: str | None, config: str | None, as_json: bool) -> int:
    """Print the public key of this node, for `authority sign`.

    The first `pipeline launch` makes the identity.
    """
    from pipeline.config import load
    from pipeline.io import identity_file
    from pipeline.io.credentials import PUBLIC_KEY, public_key_text
    from pipeline.keys import storage
    from pipeline.keys.identity import Identity, fingerprint

    node = load({"node.name": name}, os.environ, Path(config) if config else None, require_key=False).node
    path = identity_file.path_of(node)
    public_key = Identity(identity_file.load(path)).public_key
    shown = fingerprint(public_key)
    if as_json:
        value = {"name": node.name, "public_key": storage.tagged(PUBLIC_KEY, public_key), "fingerprint": shown}
        print_value("identity", value | {"path": str(path)}, as_json=True)
    else:
        sys.stdout.write(public_key_text(f"node {node.name}, fingerprint {shown}", public_key))
    return 0
