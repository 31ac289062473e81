"""One node's membership in the cluster of one layer: its state, and its copy of the leader's view.

TRANSITIONS states which event may happen in which state.  This file knows no messages and no timers.
"""

from __future__ import annotations

import enum
from collections.abc import Container
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.address import NodeId
from pipeline.engines.nemo.clusters import Crew

T = TypeVar("T")


class State(enum.Enum):
    """State of a membership.  In state OUT there is no object."""

    OUT = enum.auto()
    MEMBER = enum.auto()
    CONTESTED = enum.auto()
    """Member whose leader another node claims to have replaced, while the leader is being probed."""
    LEADER = enum.auto()


class Event(enum.Enum):
    """Cause of a transition."""

    FOUND = enum.auto()
    """This node starts a cluster: as the first node of the group, or as the first of a new top layer."""
    FOLLOW = enum.auto()
    """A view is accepted in which another node leads."""
    APPOINTED = enum.auto()
    """A view is accepted in which this node leads: a leader hands over its cluster, or a part of it."""
    SUCCEED = enum.auto()
    """The leader is dead, and this node is the first of its successors."""
    RIVAL = enum.auto()
    """Another leader's view arrives, while the present leader is alive as far as this node knows."""
    LEADER_ALIVE = enum.auto()
    """The present leader has answered the probe: the rival is refused."""
    LEADER_DEAD = enum.auto()
    """The present leader has not answered: the rival's view is examined again, and may be accepted."""
    LEAVE = enum.auto()
    """The leader has excluded or redirected this node, or this node leaves, merges or dissolves the cluster."""


_ROWS = """
    state      event         next state
    OUT        FOUND         LEADER
    OUT        FOLLOW        MEMBER
    OUT        APPOINTED     LEADER
    MEMBER     FOLLOW        MEMBER
    MEMBER     APPOINTED     LEADER
    MEMBER     SUCCEED       LEADER
    MEMBER     RIVAL         CONTESTED
    MEMBER     LEAVE         OUT
    CONTESTED  RIVAL         CONTESTED
    CONTESTED  LEADER_ALIVE  MEMBER
    CONTESTED  LEADER_DEAD   MEMBER
    CONTESTED  FOLLOW        MEMBER
    CONTESTED  APPOINTED     LEADER
    CONTESTED  SUCCEED       LEADER
    CONTESTED  LEAVE         OUT
    LEADER     FOLLOW        MEMBER
    LEADER     APPOINTED     LEADER
    LEADER     LEAVE         OUT
"""

TRANSITIONS = {
    (State[state], Event[event]): State[after]
    for state, event, after in (line.split() for line in _ROWS.strip().splitlines()[1:])
}
"""Next state by state and event; a pair that is not in it cannot happen."""


def next_state(state: State, event: Event) -> State:
    """Return the state after an event; AssertionError if the event cannot happen in the state."""
    assert (state, event) in TRANSITIONS, f"{event.name} cannot happen in state {state.name}"
    return TRANSITIONS[state, event]


@dataclass(slots=True)
class ClusterMembership:
    """Membership in the cluster of one layer; all members copy the leader's version of it."""

    layer: int
    leader: NodeId
    version: int
    members: dict[NodeId, Crew]
    """Members, each with the crew of the cluster that it leads in the layer below; the crews are empty in layer 0."""
    crew: Crew
    super_crew: Crew = ()
    """Crew of the cluster above, in which the leader is a member; empty at the top."""
    state: State = State.OUT
    last_heard: dict[NodeId, float] = field(default_factory=dict)
    """Time at which each member was last known to be alive."""
    stamps: dict[NodeId, tuple[float, float]] = field(default_factory=dict)
    """Stamp of each member's last heartbeat, and the time at which it arrived."""
    distances: dict[NodeId, dict[NodeId, float]] = field(default_factory=dict)
    """At the leader: round-trip times in seconds that each member has reported."""

    def apply(self, event: Event) -> None:
        """Go to the next state; AssertionError if the event cannot happen in the present one."""
        self.state = next_state(self.state, event)

    # ---- members

    def add_member(self, node: NodeId, crew: Crew, now: float) -> None:
        """Add a member that is alive now, or replace its crew."""
        self.last_heard[node] = now
        self.members[node] = crew

    def set_member_crew(self, node: NodeId, crew: Crew) -> None:
        """Add a member or replace its crew, which does not mean that it is alive."""
        self.members[node] = crew

    def remove_member(self, node: NodeId) -> None:
        """Remove a member and all data about it."""
        for table in (self.members, self.last_heard, self.stamps, self.distances):
            table.pop(node, None)

    # ---- liveness

    def inherit(self, old: ClusterMembership | None, now: float) -> None:
        """Take over what the replaced membership knows of nodes that are still members; others count as alive now."""
        self.last_heard = dict.fromkeys(self.members, now)
        if old is not None:
            self.last_heard |= _select(old.last_heard, self.members)
            self.stamps |= _select(old.stamps, self.members)
            self.distances |= _select(old.distances, self.members)
        self.last_heard[self.leader] = now

    def mark_alive(self, node: NodeId, now: float) -> None:
        """A member is alive now."""
        self.last_heard[node] = now

    def mark_all_alive(self, now: float) -> None:
        """Every member counts as alive now."""
        self.last_heard = dict.fromkeys(self.members, now)

    def mark_silent(self, node: NodeId, since: float) -> None:
        """A member counts as silent since then."""
        self.last_heard[node] = since

    def record_heartbeat(self, node: NodeId, stamp: float, now: float) -> None:
        """A member's heartbeat has arrived; with stamp 0 it measures nothing."""
        self.last_heard[node] = now
        if stamp:
            self.stamps[node] = stamp, now

    def record_distances(self, node: NodeId, distances: dict[NodeId, float]) -> None:
        """A member has reported its round-trip times in seconds."""
        self.distances[node] = distances

    def silent_members(self, own: NodeId, now: float, grace_s: float) -> list[NodeId]:
        """Return the members, without this node, that have been silent for the grace period."""
        return [node for node in self.members if node != own and now - self.last_heard.get(node, now) >= grace_s]

    # ---- decisions of the leader

    def become_leader(self, own: NodeId, crew_below: Crew, now: float) -> None:
        """This node leads from now on, and every member counts as alive."""
        self.leader = own
        self.members[own] = crew_below
        self.mark_all_alive(now)

    def set_crew(self, crew: Crew) -> None:
        """Replace the crew in a new version."""
        self.crew = crew
        self.version += 1

    def set_super_crew(self, crew: Crew, *, is_new_version: bool = False) -> None:
        """Replace the crew of the cluster above; without a new version, members learn it with the next change."""
        self.super_crew = crew
        self.version += is_new_version

    def raise_version(self, version: int | None = None) -> None:
        """Raise the version by one, or to the version that a member has already accepted."""
        self.version = self.version + 1 if version is None else version


def _select(table: dict[NodeId, T], members: Container[NodeId]) -> dict[NodeId, T]:
    return {node: each for node, each in table.items() if node in members}
