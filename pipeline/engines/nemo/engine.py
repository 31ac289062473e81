"""The engine `nemo`: Nemo, resilient peer-to-peer multicast without the cost (Birrer and Bustamante, MMCN 2005).

One hierarchy of clusters for each group, of the nodes that want it or send to it:

    layer 2              ●                      leaders of layer 1's clusters, and so on up to one cluster
    layer 1      ●───────●───────●              leaders of layer 0's clusters
    layer 0    ○─●─○   ○─●─○   ○─●─○            all peers, in clusters of k … 3k - 1 that are near each other

    clusters.py     values: crews, centres, splits          joining.py      the way in, and to a closer leader
    group.py        a node's seats, messages about them     recovery.py     NACKs and their answers
    maintenance.py  heartbeats, failures, operations        doubts.py       does a suspected peer live?
    forwarding.py   seats → next hops in turn               rendezvous.py   where a group begins
    routes.py       what of them has changed                talk.py, parameters.py, expiring.py

What is the paper's: clusters, crews of leader and co-leaders, join by descent, leave with successors, heartbeats,
grace, crew lists, probabilities, the order of turns in the crew, the sender's crew, NACKs to the crew after 2 RTT.

Where it is silent, or where forwarding in C asks for it, this is ours:

  - Turns are taken by stream sequence number instead of by each sender's own count, so that all nodes agree which tree
    a packet takes and every node gets it once (forwarding.py says why, and what of the rule that changes).
  - Packets carry no bitmask of what their sender has: gaps are seen in the stream sequence (a whole outage of a path is
    seen with the first packet after it).  A NACK goes to the parent in the tree of the packet's turn and is answered,
    also by who lacks the packet itself: it names whom it would ask, those towards the source first.  Only behind a
    parent that does not answer others are asked, so that a packet is repaired once for each subtree that was cut off
    (recovery.py).
  - Who does not answer a NACK is asked whether it lives, by its cluster's leader or heirs, and replaced if it does not
    say so: a gap in one turn's packets is noticed within seconds while the other turns flow.  A node whose packets stop
    in all turns sees no gap: it asks its leader once a stream that came steadily has been silent for a second or two.
    The paper has the grace period for both.
  - A leader alone says who is in its cluster, in versioned views; co-leaders act in forwarding only.  The first of the
    crew that is alive follows a dead leader; it looks for the leader's place above too, which tells those there that it
    is dead, and is answered by whoever follows it there.  The rendezvous keeps the place of a dead root for a while for
    its heir.
  - Not every node reaches every other: an heir whose leader lives for the others is left by them before it claims the
    group; whom an heir replaces above is asked whether it lives; and the leader of the top cluster makes way for
    another if a node does not reach it.
  - Turns that a small crew leaves over are given so that no node is in the way of all of them (clusters.py), and a
    cluster above layer 0 without a whole crew moves at once, not with 1 %: otherwise whole branches hang on one node.
  - A link that the sessions report down is as good as the grace period: in the daemon that is after 2.5 s.
  - A refinement asks only those leaders whose distance is not known or is better than the present one's.
  - Sources that are no members have a seat like members; source filters are left to the receiving host.
  - Members that the view of this node does not show are not listed by `members`.
  - The missing-packet timer is never below `nack_floor_s`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from pipeline import limits
from pipeline.address import Address, NodeId, SourceFilter, is_link_scope, is_multicast
from pipeline.drop_reasons import MessageRefusal
from pipeline.engines.api import Engine, EngineContext, LinkState, LinkWanted, Output
from pipeline.engines.nemo import maintenance, messages
from pipeline.engines.nemo import options as nemo_options
from pipeline.engines.nemo.clusters import Crew, Seat
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.group import Group
from pipeline.engines.nemo.join import Phase
from pipeline.engines.nemo.rendezvous import Rendezvous
from pipeline.timers import Deadlines

SOURCE_GRACES = 4
"""A source that has not said for so many grace periods that it is one is one no more."""
ANNOUNCED_GRACES = 2
"""Between two times that it says so."""


class _SeatSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    leader: NodeId
    version: int
    members: dict[NodeId, Crew]
    crew: Crew
    super_crew: Crew


class _GroupSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    is_member: bool
    is_source: bool
    seats: list[_SeatSnapshot]


_Snapshot = dict[bytes, _GroupSnapshot]


class Nemo(Engine):
    """One node's engine."""

    repairs = True
    supports_partial_view = True

    def __init__(self, context: EngineContext, now: float) -> None:
        options = nemo_options.read(context.options)
        self._desk = Context(context.node_id, options, context.random, view=context.view)
        self._rendezvous = Rendezvous(self._desk)
        self._groups: dict[Address, Group] = {}
        self._touched: dict[Address, None] = {}
        """Groups that an input may have changed."""
        self._due: Deadlines[Address] = Deadlines()
        self._wanted: Counter[NodeId] = Counter()
        self._peers: dict[Address, frozenset[NodeId]] = {}
        self._sources: dict[Address, dict[NodeId, tuple[int, float]]] = {}
        self._source_count = int(now * 1e3)

    # ---- this node

    def join(self, group: Address, sources: SourceFilter, now: float) -> None:  # noqa: ARG002 (see the docstring)
        """This host wants the group."""
        if not is_link_scope(group):
            self._group(group, now).is_member = True

    def leave(self, group: Address, now: float) -> None:
        """This host wants the group no longer."""
        if group in self._groups:
            self._groups[group].is_member = False
            self._leave_if_idle(group, now)

    def register_source(self, group: Address, now: float) -> None:
        """A program of this host sends to the group."""
        if not is_link_scope(group):
            self._group(group, now).is_source = True
            self._announce(group, now)

    def deregister_source(self, group: Address, now: float) -> None:
        """None does any more."""
        if group in self._groups:
            self._groups[group].is_source = False
            self._leave_if_idle(group, now)

    def _group(self, address: Address, now: float) -> Group:
        group = self._groups.get(address)
        if group is None:
            group = self._groups[address] = Group(address, self._desk, now)
        self._touched[address] = None
        return group

    def _leave_if_idle(self, address: Address, now: float) -> None:  # noqa: ARG002
        group = self._groups[address]
        if group.is_member or group.is_source:
            return
        is_last = group.is_root and len(group.seats[0].members) == 1
        group.leave_from(0)
        group.routes.follow(group.seats)
        entrance = self._rendezvous.of(address)
        if is_last and entrance == self._desk.own:
            self._rendezvous.withdraw(address, self._desk.own)
        elif is_last:
            self._desk.send(entrance, messages.RootReply(address, 0))
        del self._groups[address]
        self._sources.pop(address, None)
        self._due.clear(address)
        self._touched.pop(address, None)
        self._want(address, frozenset())

    # ---- the others

    def handle_link(self, peer: NodeId, state: LinkState, now: float, *, rtt_s: float | None = None) -> None:
        """A link came up, went down, is gone, or has been measured."""
        if rtt_s is not None:
            self._desk.measured(peer, rtt_s)
        if state is LinkState.UP:
            if peer not in self._desk.up:
                self._desk.up.add(peer)
                self._reached(peer, now)
            return
        self._desk.up.discard(peer)
        if state is LinkState.GONE:
            self._rendezvous.forget(peer, now)
        for address, group in self._groups.items():
            if any(peer in seat.members for seat in group.seats.values()):
                maintenance.handle_death(group, peer, now)
                self._touched[address] = None

    def _reached(self, peer: NodeId, now: float) -> None:
        """Who could not be asked before is asked: as the entrance of a group, or as crew above that has not answered.

        The entrance is also told who leads here: others may too.
        """
        for address, group in self._groups.items():
            layer, phase = group.missing_layer, group.descent.phase
            is_entrance = self._rendezvous.of(address) == peer
            is_back = group.buried.has(peer, now)  # it lives, and may still lead there
            group.buried.discard(peer)
            if layer and phase is Phase.JOINING and (is_back or peer in group.seats[layer - 1].super_crew):
                group.send_join(peer, layer, now)
            elif phase is Phase.FINDING and peer == group.descent.unreached:
                group.descent.descend(peer, group.descent.target, now)
            elif is_entrance and phase is Phase.FINDING:
                group.descent.find(peer, group.descent.target, now)
            elif is_entrance and group.is_root:
                group.beat_at = now
            else:
                continue
            self._touched[address] = None

    def handle_gap(
        self, group: Address, origin: NodeId, numbers: tuple[int, ...], now: float, *, via: NodeId | None = None
    ) -> None:
        """What of a stream is missing."""
        if group in self._groups:
            self._groups[group].recovery.handle_gap(origin, numbers, via, now)
            self._touched[group] = None

    def handle_stream_stall(self, group: Address, now: float) -> None:
        """No packet shows a gap where none comes: ask the leader whether it lives."""
        if group in self._groups:
            self._groups[group].ask_leader(now)
            self._touched[group] = None

    def handle_message(self, peer: NodeId, message: bytes, now: float) -> str | None:
        """What another node's engine says."""
        try:
            decoded = messages.decoder.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return MessageRefusal.NEMO_MALFORMED
        if not is_multicast(decoded.group) or len(decoded.group) not in (4, 16):
            return MessageRefusal.NEMO_MALFORMED
        match decoded:
            case messages.RootQuery():
                is_root = decoded.root != 0
                if not is_root and decoded.instead:
                    self._rendezvous.complain(decoded.group, decoded.instead, peer, now)
                root = self._rendezvous.root(
                    decoded.group, peer, now, is_root=is_root, instead=decoded.instead, layers=decoded.layers
                )
                if root and (root != peer or not is_root):
                    self._desk.send(peer, messages.RootReply(decoded.group, root), (root,))
                elif root:
                    self._contest(decoded.group, now)
            case messages.Blocked():
                self._make_way(decoded.group, decoded.node, now)
            case messages.RootReply(root=0):
                self._rendezvous.withdraw(decoded.group, peer)
                self._contest(decoded.group, now)
            case _:
                group = self._groups.get(decoded.group)
                if group is None:
                    self._decline(peer, decoded)
                else:
                    self._tell(group, peer, decoded, now)
                    self._touched[decoded.group] = None
        return None

    def _contest(self, address: Address, now: float) -> None:
        """Another says that it leads the group: if this node does, the rendezvous hears so now."""
        group = self._groups.get(address)
        if group is not None and group.is_root:
            group.beat_at = group.check_at = now
            self._touched[address] = None

    def _make_way(self, address: Address, blocked: NodeId, now: float) -> None:
        if address in self._groups:
            maintenance.yield_lead(self._groups[address], blocked, now)
            self._touched[address] = None

    def _decline(self, peer: NodeId, message: messages.Message) -> None:
        """A peer counts on this node in a group that it has left, or never had."""
        match message:
            case messages.View(layer=layer) | messages.Heartbeat(layer=layer) if message.leader == peer:
                self._desk.send(peer, messages.Leave(message.group, layer, 0, ()))
            case messages.Join(layer=layer) | messages.Heartbeat(layer=layer):
                self._desk.send(peer, messages.Redirect(message.group, layer, 0))
            case _:
                pass

    def _tell(self, group: Group, peer: NodeId, message: messages.Message, now: float) -> None:
        match message:
            case messages.Heartbeat():
                group.handle_beat(peer, message, now)
            case messages.View():
                group.handle_view(peer, message, now)
                group.check_at = now if group.missing_layer is not None else group.check_at
            case messages.Join():
                group.handle_join(peer, message, now)
                self._tell_of_sources(group, peer)
            case messages.Leave():
                group.handle_leave(peer, message, now)
            case messages.Redirect():
                group.handle_redirect(peer, message, now)
            case messages.Query():
                group.handle_query(peer, message)
            case messages.Answer():
                group.descent.handle_answer(peer, message, now)
            case messages.RootReply(root=root):
                self._found_root(group, root, now)
            case messages.Nack():
                group.recovery.handle_nack(peer, message, now)
            case messages.NackReply():
                group.hear(peer, now)
                group.recovery.handle_lack(peer, message, now)
            case messages.Source(origin=origin, count=count):
                self._hear_of_source(group, peer, origin, count, now)

    def _found_root(self, group: Group, root: NodeId, now: float) -> None:
        """The rendezvous knows who leads the top cluster, or with 0 that this will be known soon."""
        if not root:
            return
        own, top = self._desk.own, len(group.seats) - 1
        if group.descent.phase is Phase.FINDING:
            if root != own:
                self._descend(group, root, now)
            elif not group.seats:
                group.found(now)
            else:
                group.descent.stop()
                if group.leads(top):
                    group.seats[top].super_crew = ()
                    group.publish(top)
        elif group.is_root and root != own:
            group.seats[top].super_crew = (own,)  # not the top: a place above is to be looked for
            group.check_at = now

    def _descend(self, group: Group, root: NodeId, now: float) -> None:
        """From the root; if that is out of reach for two searches the rendezvous is told so."""
        descent, own = group.descent, self._desk.own
        if self._desk.is_reachable(root):
            descent.descend(root, descent.target, now)
            return
        if descent.unreached == root and self._rendezvous.of(group.group) == own:
            self._rendezvous.complain(group.group, root, own, now)
        descent.unreached = root
        descent.retry(now)

    # ---- sources, where nodes know each other only by mention

    def _announce(self, address: Address, now: float) -> None:
        self._source_count += 1
        group = self._groups[address]
        group.announce_at = now + ANNOUNCED_GRACES * self._desk.parameters.grace_s
        if self._desk.view.announces_sources and group.seats:
            self._hear_of_source(group, 0, self._desk.own, self._source_count, now)

    def _hear_of_source(self, group: Group, peer: NodeId, origin: NodeId, count: int, now: float) -> None:
        held = self._sources.get(group.group, {})
        self._sources[group.group] = sources = {node: each for node, each in held.items() if each[1] > now}
        is_full = origin not in sources and len(sources) >= limits.NODES_MAX
        if is_full or sources.get(origin, (-1, 0.0))[0] >= count:
            return
        sources[origin] = count, now + SOURCE_GRACES * self._desk.parameters.grace_s
        told: set[NodeId] = set()
        for seat in group.seats.values():
            if self._desk.own in seat.crew or not peer:
                told.update(seat.members)
            elif peer not in seat.crew:
                told.update(seat.crew)
        for node in sorted(told - {peer, origin, self._desk.own}):
            self._desk.send(node, messages.Source(group.group, origin, count), (origin,))

    def _tell_of_sources(self, group: Group, newcomer: NodeId) -> None:
        for origin, (count, _) in self._sources.get(group.group, {}).items():
            self._desk.send(newcomer, messages.Source(group.group, origin, count), (origin,))

    def nodes(self) -> Iterable[NodeId]:
        """Nodes that this engine counts on, beside those that it wants links to."""
        origins = {origin for sources in self._sources.values() for origin in sources}
        seats = [seat for group in self._groups.values() for seat in group.seats.values()]
        crews = {node for seat in seats for crew in (seat.super_crew, *seat.members.values()) for node in crew}
        return {*self._rendezvous.named, *self._rendezvous.roots(), *origins, *crews}

    # ---- time

    def handle_timeout(self, now: float) -> None:
        """Whatever is due in any group."""
        while (address := self._due.pop_expired(now)) is not None:
            group = self._groups[address]
            self._touched[address] = None
            if self._desk.view.announces_sources and group.is_source and group.announce_at <= now:
                self._announce(address, now)
            maintenance.handle_timeout(group, lambda address=address: self._rendezvous.of(address), now)  # type: ignore[misc]
            if group.descent.phase is Phase.FINDING and self._rendezvous.of(address) == self._desk.own:
                root = self._rendezvous.root(address, self._desk.own, now, is_root=False)
                self._found_root(group, root, now)
            elif group.is_root and self._rendezvous.of(address) == self._desk.own:
                root = self._rendezvous.root(
                    address, self._desk.own, now, is_root=True, instead=group.followed, layers=group.height
                )
                self._found_root(group, root, now)

    def poll_timeout(self) -> float | None:
        """When the next group is due."""
        if self._touched:
            self._settle()
        return self._due.next_due()

    # ---- outputs

    def poll_output(self) -> Output | None:
        """Routes first, then messages, as they came."""
        if self._touched:
            self._settle()
        return self._desk.outputs.popleft() if self._desk.outputs else None

    def _settle(self) -> None:
        touched, self._touched = self._touched, {}
        for address in touched:
            group = self._groups[address]
            if group.is_changed:
                group.is_changed = False
                group.routes.follow(group.seats)
                self._want(address, _peers_of(group))
            self._due.set(address, maintenance.poll_timeout(group))

    def _want(self, address: Address, peers: frozenset[NodeId]) -> None:
        """Links to those that this node has to do with."""
        old = self._peers.pop(address, frozenset())
        if peers:
            self._peers[address] = peers
        for node in sorted(peers - old):
            self._wanted[node] += 1
            if self._wanted[node] == 1:
                self._desk.outputs.appendleft(LinkWanted(node, is_wanted=True))
        for node in sorted(old - peers):
            self._wanted[node] -= 1
            if not self._wanted[node]:
                del self._wanted[node]
                self._desk.outputs.append(LinkWanted(node, is_wanted=False))

    # ---- views

    def members(self, group: Address) -> frozenset[NodeId]:
        """Peers in this node's clusters of the group."""
        held = self._groups.get(group)
        if held is None:
            return frozenset()
        return frozenset(node for seat in held.seats.values() for node in seat.members) - {self._desk.own}

    def groups(self) -> Iterable[Address]:
        """Groups that this node takes part in."""
        return tuple(self._groups)

    def group(self, address: Address) -> Group | None:
        """A node's part in a group, for pictures and tests."""
        return self._groups.get(address)

    # ---- a restart of the control process

    def snapshot(self, now: float) -> bytes:  # noqa: ARG002
        """Groups and seats; peers are taken to have been heard just now."""
        state: _Snapshot = {}
        for address, group in self._groups.items():
            seats = [
                _SeatSnapshot(seat.leader, seat.version, seat.members, seat.crew, seat.super_crew)
                for _, seat in sorted(group.seats.items())
            ]
            state[address] = _GroupSnapshot(group.is_member, group.is_source, seats)
        return msgspec.msgpack.encode(state)

    def restore(self, data: bytes, now: float) -> None:
        """Take over a snapshot; ValueError if it is none."""
        try:
            state = msgspec.msgpack.decode(data, type=_Snapshot)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"no checkpoint of nemo: {error}") from error
        for address, saved in state.items():
            group = self._group(address, now)
            group.is_member, group.is_source = saved.is_member, saved.is_source
            for layer, each in enumerate(saved.seats):
                seat = Seat(layer, each.leader, each.version, dict(each.members), each.crew, each.super_crew)
                seat.heard = dict.fromkeys(each.members, now)
                group.seats[layer] = seat
            group.is_changed = True


def _peers_of(group: Group) -> frozenset[NodeId]:
    """Its clusters, and whom it sends to or, as crew, may have to; who only sends to it wants the link by itself."""
    found = {node for seat in group.seats.values() for node in seat.members}
    for seat in group.seats.values():
        if group.own in seat.crew:
            found.update(seat.super_crew)
    return frozenset((found | group.routes.nodes()) - {group.own})
