"""Identity file of a node: the seed of its key pair, made at the first start and never changed.

    [node] identity = FILE       set by the configuration
    STATE_DIRECTORY/identity     without it (state.py)

A node whose state directory cannot be written runs all the same, with an identity in memory that ends with it.  For its
peers each start is then another node.  A configured file that cannot be made or used is an error.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from pipeline.config import NodeSection
from pipeline.errors import ConfigError, PipelineError
from pipeline.io import state
from pipeline.keys import identity, storage

_NAME = "identity"
_TAG = "node-identity"
_COMMENT = "identity of a node of mcast-pipeline: keep this file on its host and show it to nobody"


def path_of(node: NodeSection) -> Path:
    """Return the path of a node's identity file."""
    return Path(node.identity) if node.identity else state.directory(node.name) / _NAME


def load(path: Path) -> bytes:
    """Return the seed in an identity file; ConfigError if the file is missing, malformed or readable by others."""
    data = storage.read(path, noun="identity", remedy="the first pipeline launch of this node makes it")
    seed = b""
    with contextlib.suppress(ValueError):
        seed = storage.from_text(data, tag=_TAG)
    if len(seed) != identity.SEED_BYTES:
        raise ConfigError(f"{path}: not the identity of a node: restore it, or remove it to get a new one")
    return seed


def load_or_make(node: NodeSection) -> tuple[bytes, str]:
    """Return the seed of the node, from its file or new, and why it could not be kept; that is empty as a rule."""
    path = path_of(node)
    try:
        if not state.exists(path):
            return _make(path), ""
    except (OSError, PipelineError) as error:
        reason = f"{path}: {storage.reason(error)}" if isinstance(error, OSError) else str(error)
        if node.identity:
            raise ConfigError(f"{reason}: cannot make the identity of this node") from error
        return identity.new_seed(), reason
    return load(path), ""


def _make(path: Path) -> bytes:
    """Make the file, and return its seed or that of a start that was faster."""
    seed = identity.new_seed()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        storage.create(path, storage.to_text(_COMMENT, seed, tag=_TAG))
    except PipelineError:
        if state.exists(path):
            return load(path)
        raise
    return seed
