"""Values of an OverlayNode: its configuration, a row of its links, its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from pipeline import messages
from pipeline.address import Address, NodeId
from pipeline.keys.identity import Signer
from pipeline.messages import NodeRecord
from pipeline.overlay import records
from pipeline.overlay.address_claims import AddressClaims
from pipeline.overlay.directory_view import DirectoryView, FullView
from pipeline.overlay.members import Members, OpenMembers
from pipeline.overlay.sessions import SessionsSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Configuration of a node."""

    name: str
    endpoint: str
    """"ADDR:PORT" on which the node listens; peers replace a wildcard address by the one they see."""
    incarnation: int
    """Greater at each start of the node: the wall clock in milliseconds, or more if the clock was set back."""
    identity: Signer
    is_identity_kept: bool = True
    """False if the identity ends with this process."""
    certificate: bytes = b""
    members: Members = field(default_factory=OpenMembers)
    """The rules of the network: which nodes are members."""
    sender_key: bytes
    """32 random bytes; empty if packets are not sealed."""
    key_epoch: int = 0
    lanes: int = 1
    engine: str = "mesh"
    engine_options: Mapping[str, object] = field(default_factory=dict)
    peers: tuple[str, ...] = ()
    addresses: tuple[tuple[Address, int], ...] = ()
    """Explicit (address, prefix length) pairs; without any, a pair is derived from the name."""
    claims: AddressClaims = field(default_factory=AddressClaims)
    """Rule for the addresses that other nodes may have."""
    view: type[DirectoryView] = FullView
    """Extent of the directory that the node holds; daemons have a full view."""
    share: Callable[[NodeRecord], NodeRecord] = lambda record: record
    """Returns the one object to hold of equal records, so that simulated nodes in one process share them."""


@dataclass(frozen=True, slots=True)
class LinkView:
    """One row of `show links`: a known peer, or a seed (`node_id` None, no name) that has not answered yet."""

    node_id: NodeId | None
    name: str
    endpoint: str
    addresses: tuple[tuple[Address, int], ...]
    is_up: bool
    link: int | None
    """Link index, the row of the link counters in shared memory."""


class NodeSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A checkpoint of a node."""

    sessions: SessionsSnapshot
    address_attempt: int
    engine: str
    engine_state: bytes


def first_record(config: NodeConfig, node_id: NodeId, addresses: tuple[tuple[Address, int], ...]) -> NodeRecord:
    """Return the signed record of a node at its start."""
    record = NodeRecord(
        node_id=node_id,
        name=config.name,
        incarnation=config.incarnation,
        version=1,
        addresses=addresses,
        endpoint=config.endpoint,
        lanes=config.lanes,
        key_epoch=config.key_epoch,
        sender_key=config.sender_key,
        engine=config.engine,
        explicit_addresses=bool(config.addresses),
        public_key=config.identity.public_key,
        protocols=messages.PROTOCOLS,
        is_sealing=bool(config.sender_key),
        is_kept=config.is_identity_kept,
        certificate=config.certificate,
    )
    return records.sign(record, config.identity)


def link_view(record: NodeRecord, link: int, *, is_up: bool) -> LinkView:
    """Return the row of a known peer."""
    return LinkView(record.node_id, record.name, record.endpoint, record.addresses, is_up=is_up, link=link)
