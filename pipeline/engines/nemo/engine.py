"""Engine `nemo`: Nemo, resilient peer-to-peer multicast without the cost (Birrer and Bustamante, MMCN 2005).

The package's docstring describes the protocol; this file is its face to the overlay: it hands inputs to groups, and
collects their outputs.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pipeline.address import Address, NodeId, SourceFilter, is_link_scope, is_multicast
from pipeline.drop_reasons import MessageRefusal
from pipeline.engines.api import Engine, EngineContext, LinkState, Output
from pipeline.engines.nemo import checkpoint, messages
from pipeline.engines.nemo import options as nemo_options
from pipeline.engines.nemo.context import Context
from pipeline.engines.nemo.group import Group
from pipeline.engines.nemo.links import LinkDemand
from pipeline.engines.nemo.rendezvous import Rendezvous
from pipeline.timers import Deadlines


class Nemo(Engine):
    """Nemo at one node."""

    repairs = True
    supports_partial_view = True

    def __init__(self, context: EngineContext, now: float) -> None:
        options = nemo_options.read(context.options)
        self._context = Context(context.node_id, options, context.random, view=context.view, now=now)
        self._rendezvous = Rendezvous(self._context)
        self._links = LinkDemand(self._context)
        self._groups: dict[Address, Group] = {}
        self._touched: dict[Address, None] = {}
        """Groups that an input may have changed."""
        self._due: Deadlines[Address] = Deadlines()

    # ---- this host

    def join(self, group: Address, sources: SourceFilter, now: float) -> None:  # noqa: ARG002
        """This host joins the group; the receiving host applies the source filter."""
        if not is_link_scope(group):
            self._open(group, now).set_member(is_member=True)

    def leave(self, group: Address, now: float) -> None:  # noqa: ARG002
        """This host leaves the group."""
        if group in self._groups:
            self._groups[group].set_member(is_member=False)
            self._close_if_unused(group)

    def register_source(self, group: Address, now: float) -> None:
        """A program of this host sends to the group."""
        if not is_link_scope(group):
            self._open(group, now).set_source(now, is_source=True)

    def deregister_source(self, group: Address, now: float) -> None:
        """No program of this host sends to the group any more."""
        if group in self._groups:
            self._groups[group].set_source(now, is_source=False)
            self._close_if_unused(group)

    def _open(self, address: Address, now: float) -> Group:
        """Return the group's state, which is created if it does not exist."""
        group = self._groups.get(address)
        if group is None:
            group = self._groups[address] = Group(address, self._context, self._rendezvous, now)
        self._touched[address] = None
        return group

    def _close_if_unused(self, address: Address) -> None:
        group = self._groups[address]
        if group.is_member or group.is_source:
            return
        group.leave()
        del self._groups[address]
        self._due.clear(address)
        self._touched.pop(address, None)
        self._links.set(address, frozenset())

    # ---- other nodes

    def handle_link(self, peer: NodeId, state: LinkState, now: float, *, rtt_s: float | None = None) -> None:
        """A link came up, went down, is gone, or has been measured."""
        if rtt_s is not None:
            self._context.record_rtt(peer, rtt_s)
        up = self._context.up
        if state is LinkState.UP:
            if peer not in up:
                up.add(peer)
                for address, group in self._groups.items():
                    if group.handle_link_up(peer, now):
                        self._touched[address] = None
            return
        up.discard(peer)
        if state is LinkState.GONE:
            self._rendezvous.handle_gone(peer, now)
        for address, group in self._groups.items():
            if group.handle_link_down(peer, now):
                self._touched[address] = None

    def handle_message(self, peer: NodeId, message: bytes, now: float) -> str | None:
        """Handle a message of another node's engine.  Returns a reason word if it is malformed."""
        try:
            decoded = messages.decoder.decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return MessageRefusal.NEMO_MALFORMED
        address = decoded.group
        if not is_multicast(address) or len(address) not in (4, 16):
            return MessageRefusal.NEMO_MALFORMED
        group = self._groups.get(address)
        match decoded:
            case messages.RootQuery():
                self._handle_root_query(peer, decoded, now)
            case messages.Blocked(node=node):
                if group is not None:
                    group.handle_blocked(node, now)
            case messages.RootReply(root=0):
                self._rendezvous.withdraw(address, peer)
                if group is not None:
                    group.register_root(now)
            case _ if group is not None:
                group.handle_message(peer, decoded, now)
            case _:
                self._decline(peer, decoded)
        if group is not None:
            self._touched[address] = None
        return None

    def _handle_root_query(self, peer: NodeId, query: messages.RootQuery, now: float) -> None:
        """A node queries this rendezvous for a root, or registers as root."""
        address, is_root = query.group, query.root != 0
        if not is_root and query.superseded:
            self._rendezvous.handle_unreachable(address, query.superseded, peer, now)
        root = self._rendezvous.find_root(
            address, peer, now, is_root=is_root, superseded=query.superseded, layers=query.layers
        )
        if root and (root != peer or not is_root):
            self._context.send(peer, messages.RootReply(address, root), (root,))
        elif root and address in self._groups:
            self._groups[address].register_root(now)

    def _decline(self, peer: NodeId, message: messages.Message) -> None:
        """A peer assumes that this node is in a group that it has left or never joined."""
        match message:
            case messages.View(layer=layer) | messages.Heartbeat(layer=layer) if message.leader == peer:
                self._context.send(peer, messages.Leave(message.group, layer, 0, ()))
            case messages.Join(layer=layer) | messages.Heartbeat(layer=layer):
                self._context.send(peer, messages.Redirect(message.group, layer, 0))
            case _:
                pass

    # ---- losses

    def handle_gap(
        self, group: Address, origin: NodeId, numbers: tuple[int, ...], now: float, *, via: NodeId | None = None
    ) -> None:
        """The missing datagrams of a stream have changed."""
        if group in self._groups:
            self._groups[group].handle_gap(origin, numbers, via, now)
            self._touched[group] = None

    def handle_stream_stall(self, group: Address, now: float) -> None:
        """A steady stream has stopped."""
        if group in self._groups:
            self._groups[group].handle_stream_stall(now)
            self._touched[group] = None

    # ---- time and outputs

    def handle_timeout(self, now: float) -> None:
        """Do what is due in any group."""
        while (address := self._due.pop_expired(now)) is not None:
            self._touched[address] = None
            self._groups[address].handle_timeout(now)

    def poll_timeout(self) -> float | None:
        """Return the time at which the next group is due."""
        if self._touched:
            self._settle()
        return self._due.next_due()

    def poll_output(self) -> Output | None:
        """Return the next output; requests for links come first."""
        if self._touched:
            self._settle()
        return self._context.outputs.popleft() if self._context.outputs else None

    def _settle(self) -> None:
        """Put out routes and links of the groups that an input may have changed, and read their next due time."""
        touched, self._touched = self._touched, {}
        for address in touched:
            group = self._groups[address]
            if group.hierarchy.take_change():
                group.routes.update(group.hierarchy.memberships)
                self._links.set(address, group.peers())
            self._due.set(address, group.poll_timeout())

    # ---- views

    def members(self, group: Address) -> frozenset[NodeId]:
        """Return the other nodes in this node's clusters of the group; members out of its view are not listed."""
        if group not in self._groups:
            return frozenset()
        memberships = self._groups[group].hierarchy.memberships.values()
        return frozenset(node for each in memberships for node in each.members) - {self._context.own}

    def groups(self) -> Iterable[Address]:
        """Return the groups in which this node takes part."""
        return tuple(self._groups)

    def group(self, address: Address) -> Group | None:
        """Return this node's part in a group, for pictures and tests."""
        return self._groups.get(address)

    def nodes(self) -> Iterable[NodeId]:
        """Return the nodes that this engine depends on, beside those that it requests links to."""
        origins = {origin for group in self._groups.values() for origin in group.sources.origins()}
        memberships = [each for group in self._groups.values() for each in group.hierarchy.memberships.values()]
        crews = {node for each in memberships for crew in (each.super_crew, *each.members.values()) for node in crew}
        return {*self._rendezvous.named(), *self._rendezvous.roots(), *origins, *crews}

    # ---- a restart of the control process

    def snapshot(self, now: float) -> bytes:  # noqa: ARG002
        """Return groups and memberships."""
        return checkpoint.encode(self._groups.values())

    def restore(self, data: bytes, now: float) -> None:
        """Take over a snapshot; ValueError if it is none."""
        for address, saved in checkpoint.decode(data):
            checkpoint.restore(self._open(address, now), saved, now)
