"""Pins of an instance: the identities of the nodes that it has met in one network, in its state directory.

    pins-NETWORK.json   {"name": …, "public_key": base64, "addresses": [base64 …]} for each node, the first ones first

NETWORK is a hash of the network key, so that a host that moves to another network meets other nodes there.  Without a
network key (`--insecure`) names prove nothing: pins then end with the process.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from pipeline.errors import PipelineError
from pipeline.io import state
from pipeline.keys import file as key_file
from pipeline.keys import storage
from pipeline.overlay.members import Pin

FILE_BYTES_MAX = 4 << 20


def path_for(name: str, network_key: bytes) -> Path:
    """Return the path of an instance's pins in a network."""
    network = key_file.derive(network_key, "network name", 8).hex()
    return state.directory(name) / f"pins-{network}.json"


def load(path: Path) -> list[Pin]:
    """Return the pins in a file, none if there is no file; PipelineError if it cannot be used."""
    if not state.exists(path):
        return []
    text = storage.read(path, noun="list of pins", remedy="remove it", bytes_max=FILE_BYTES_MAX)
    try:
        return msgspec.json.decode(text, type=list[Pin])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path}: not a list of pins: restore it, or remove it to pin all nodes anew") from error


def save(path: Path, pins: list[Pin]) -> None:
    """Replace the file; PipelineError if it cannot be written."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    storage.replace(path, msgspec.json.format(msgspec.json.encode(pins), indent=1).decode() + "\n", mode=0o600)
