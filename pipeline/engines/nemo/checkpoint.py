"""Checkpoint of the engine: the groups of a node and its memberships, for a restarted control process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from pipeline.address import Address, NodeId
from pipeline.engines.nemo.cluster_membership import ClusterMembership, Event
from pipeline.engines.nemo.clusters import Crew
from pipeline.engines.nemo.group import Group


class _SavedMembership(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    leader: NodeId
    version: int
    members: dict[NodeId, Crew]
    crew: Crew
    super_crew: Crew


class SavedGroup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """State of one group; memberships from layer 0 up."""

    is_member: bool
    is_source: bool
    seats: list[_SavedMembership]


_Checkpoint = dict[bytes, SavedGroup]


def encode(groups: Iterable[Group]) -> bytes:
    """Return the checkpoint of some groups."""
    checkpoint: _Checkpoint = {
        group.address: SavedGroup(
            group.is_member,
            group.is_source,
            [
                _SavedMembership(each.leader, each.version, each.members, each.crew, each.super_crew)
                for _, each in sorted(group.hierarchy.memberships.items())
            ],
        )
        for group in groups
    }
    return msgspec.msgpack.encode(checkpoint)


def decode(data: bytes) -> Iterator[tuple[Address, SavedGroup]]:
    """Return the saved groups; ValueError if the data is no checkpoint."""
    try:
        checkpoint = msgspec.msgpack.decode(data, type=_Checkpoint)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"no checkpoint of nemo: {error}") from error
    return iter(checkpoint.items())


def restore(group: Group, saved: SavedGroup, now: float) -> None:
    """Put the saved state into a new group; every member counts as alive now."""
    group.restore(is_member=saved.is_member, is_source=saved.is_source)
    own = group.hierarchy.own
    for layer, each in enumerate(saved.seats):
        members = dict(each.members)
        membership = ClusterMembership(layer, each.leader, each.version, members, each.crew, each.super_crew)
        membership.mark_all_alive(now)
        group.hierarchy.enter(membership, Event.APPOINTED if each.leader == own else Event.FOLLOW)
