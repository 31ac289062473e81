"""Puts into shared memory what control decides: forwarding entries, links, keys, this node's own key.

It translates between the cores' values and the tables that the stages read, and knows where each thing stands in
them.  What does not fit a table is left out, said once, and put in when there is room; it never ends control.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from pipeline import limits
from pipeline.address import Address, NodeId, parse
from pipeline.endpoint import split_endpoint
from pipeline.engines.api import Resend
from pipeline.errors import PipelineError
from pipeline.forwarding.route import FibDelete, FibEntry, FibKey, Kind, Side
from pipeline.logs import OnceLogger
from pipeline.messages import NodeRecord
from pipeline.overlay.node import OverlayNode
from pipeline.shm import repair
from pipeline.shm.fib import ForwardingTableWriter
from pipeline.shm.links_keys import LinkFigures, LinksKeysWriter, moved_endpoint
from pipeline.shm.region import Region

Bells: TypeAlias = tuple[int, ...]
"""Eventfds of one stage, by lane."""
NO_FIGURES = LinkFigures(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


class Publisher:
    """Control's writer of the region."""

    def __init__(self, region: Region, node: OverlayNode, *, ingress_bells: Bells, egress_bells: Bells) -> None:
        self.node = node
        self._region = region
        self._fib = ForwardingTableWriter(region)
        self._tables = LinksKeysWriter(region)
        self._ingress_bells, self._egress_bells = ingress_bells, egress_bells
        self._names: dict[int, str] = {}
        self._nodes: dict[int, NodeId] = {}
        """By link."""
        self._up: dict[int, bool] = {}
        self._endpoints: dict[int, str] = {}
        """Where each link's peer says that it listens, by which its datagrams need not come."""
        self._probes: dict[int, tuple[int, int]] = {}
        """Echoes heard and probes answered, as last looked at."""
        self._tables_changed = self._has_orders = False
        self._log_once = OnceLogger()
        self._stored: dict[FibKey, FibKey] = {}
        """Entries that depend on the incoming link, as they stand in shared memory."""
        self._left_out: dict[FibKey, FibEntry] = {}
        """Entries that found no room, to be tried again as others go; no more than control wants at all."""
        standing = [entry.key for entry in self._fib.entries()]
        self._sources: dict[FibKey, None] = {key: None for key in standing if key.kind is Kind.SOURCE}
        """Which node may send from which address, as it stands in the table."""
        self._adopted = {key for key in standing if key.via is not None}
        """A predecessor's entries that depend on the incoming link and have not been set anew."""

    # ---------------------------------------------------------------- writing

    def publish_sender(self, record: NodeRecord) -> None:
        """This node's origin and the key that it seals with."""
        keys = dict(_keys_of(record))
        self._tables.set_sender(record.node_id, keys, active=record.key_epoch)
        self._tables_changed = True
        self.publish_own_addresses(record)

    def publish_own_addresses(self, record: NodeRecord) -> None:
        """Programs of this host may send from these."""
        self._publish_sources(Side.HOST, None, [address for address, _ in record.addresses])

    def publish_record(self, record: NodeRecord, link: int) -> None:
        """A peer's key and endpoint; its link is not up by that."""
        self._names[link], self._nodes[link] = record.name, record.node_id
        with self._refusals():
            for epoch, key in _keys_of(record):
                self._tables.set_key(record.node_id, epoch, key=key, lanes=record.lanes)
        self._forget_keys(record, but={epoch for epoch, _ in _keys_of(record)})
        self._publish_sources(Side.OVERLAY, record.node_id, [address for address, _ in record.addresses])
        self.publish_link(record, link, up=self._up.get(link, False))

    def publish_link(self, record: NodeRecord, link: int, *, up: bool) -> None:
        """Where a peer's datagrams go, and whether probes are sent."""
        host, port = split_endpoint(record.endpoint)
        endpoint: tuple[Address, int] | None = parse(host), port
        known = self._tables.link(link)
        if known and up and self._up.get(link) and self._endpoints.get(link) == record.endpoint:
            endpoint = known.endpoint  # where it was heard last
        self._up[link], self._endpoints[link] = up, record.endpoint
        self._tables.set_link(link, node=record.node_id, up=up, endpoint=endpoint)
        self._tables_changed = True

    def endpoint_of(self, link: int) -> str | None:
        """Where the link's peer listened when it was published last."""
        return self._endpoints.get(link)

    def remove_record(self, record: NodeRecord, link: int) -> None:
        """A peer is forgotten."""
        self._names.pop(link, None)
        self._nodes.pop(link, None)
        self._probes.pop(link, None)
        self._up.pop(link, None)
        self._endpoints.pop(link, None)
        self._tables.clear_link(link)
        self._publish_sources(Side.OVERLAY, record.node_id, [])
        self._forget_keys(record, but=set())
        self._tables_changed = True

    def _forget_keys(self, record: NodeRecord, *, but: set[int]) -> None:
        standing = self._tables.keys()
        for origin, epoch in standing:
            if origin == record.node_id and epoch not in but:
                self._tables.clear_key(origin, epoch)

    def _publish_sources(self, side: Side, origin: NodeId | None, addresses: Iterable[Address]) -> None:
        wanted = {FibKey(side, Kind.SOURCE, address, origin=origin): None for address in addresses}
        standing = [key for key in self._sources if (key.side, key.origin) == (side, origin)]
        with self._refusals():
            for key in wanted.keys() - self._sources.keys():
                self._fib.set(key, ())
                self._sources[key] = None
        for key in standing:
            if key not in wanted:
                self._fib.delete(key)
                del self._sources[key]

    def expire_adopted(self, known: Iterable[NodeId]) -> None:
        """After a restart: addresses of nodes that are not known any more belong to nobody, and what depends on the
        incoming link and has not been wanted again is wanted no more.
        """
        for key in self._adopted:
            self._fib.delete(key)
        self._adopted.clear()
        nodes = set(known)
        for key in [key for key in self._sources if key.origin is not None and key.origin not in nodes]:
            self._fib.delete(key)
            del self._sources[key]

    def endpoint_moved(self, punt: bytes) -> None:
        """A peer was heard, verified, from another address than its link has: answer there."""
        link, endpoint = moved_endpoint(punt)
        known = self._tables.link(link)
        if known is not None:
            self._tables.set_link(link, node=known.node, up=known.up, endpoint=endpoint)
            self._tables_changed = True

    def publish_entry(self, change: FibEntry | FibDelete) -> None:
        """One forwarding entry."""
        if isinstance(change, FibDelete):
            self._left_out.pop(change.key, None)
            stored = change.key if change.key.via is None else self._stored.pop(change.key, None)
            if stored is not None and self._fib.delete(stored) and self._left_out:
                self.publish_entry(next(iter(self._left_out.values())))
            return
        key = self._by_link(change.key)
        if key is None:
            return
        self._left_out[change.key] = change
        with self._refusals():
            self._fib.set(
                key,
                change.links,
                local=change.local,
                stream=change.stream,
                stripes=change.stripes,
                repairs=change.repairs,
            )
            del self._left_out[change.key]

    def publish_resend(self, order: Resend, stream: int | None) -> None:
        """What a peer lacks of a stream, if it has a number, is to be sent to it once more, if the stages have it."""
        link = self.node.link_of(order.peer)
        if link is not None and stream is not None:
            repair.add_request(self._region, link=link, origin=order.origin, stream=stream, numbers=order.numbers)
            self._has_orders = True

    def flush(self) -> None:
        """After a batch: stages may be asleep, and overlay_ingress should see new keys and links now, overlay_egress
        what it is to send once more.
        """
        if self._tables_changed:
            _ring(self._ingress_bells)
        if self._has_orders:
            _ring(self._egress_bells)
        self._tables_changed = self._has_orders = False

    def _by_link(self, key: FibKey) -> FibKey | None:
        """The key with the index of its incoming link instead of the node, as the table has it; None if it has none."""
        if key.via is None:
            return key
        link = self.node.link_of(key.via)
        if link is None:
            return None
        stored = key._replace(via=link)
        before = self._stored.get(key)
        if before is not None and before != stored:
            self._fib.delete(before)  # the node came back with another index
        self._stored[key] = stored
        self._adopted.discard(stored)
        return stored

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except PipelineError as error:
            self._log_once.warning("shared memory", reason=str(error))

    # ---------------------------------------------------------------- reading

    def existing_entries(self) -> list[tuple[FibKey, int]]:
        """What stands in the table, with stream numbers, but for entries by incoming link: see expire_adopted."""
        entries = (entry for entry in self._fib.entries() if entry.key.kind is not Kind.SOURCE)
        return [(entry.key, entry.stream) for entry in entries if entry.key.via is None]

    def used_groups(self) -> set[Address]:
        """Groups that local programs have sent to since this was last asked."""
        used = self._fib.take_used()
        return {key.group for key in used if key.side is Side.HOST and key.kind is Kind.GROUP}

    def node_of(self, link: int) -> NodeId | None:
        """The peer behind a link index."""
        return self._nodes.get(link)

    def names_of(self, links: Iterable[int]) -> list[str]:
        """The peers behind link indices."""
        return [self._names.get(link, f"link {link}") for link in links]

    def probed(self) -> Iterator[tuple[NodeId, LinkFigures, bool]]:
        """Peers that have been heard by probe or echo since this was last asked: their links' figures, and whether this
        node's own probes are answered.
        """
        for link, node in self._nodes.items():
            if not self._up.get(link):
                self._probes.pop(link, None)
                continue
            figures = self._tables.link_figures(link)
            seen = self._probes.get(link)
            self._probes[link] = figures.echoes, figures.answered
            if seen is not None and seen != self._probes[link]:
                has_echo = figures.echoes != seen[0]
                yield node, figures, has_echo and figures.loss_ppm <= 1e6 * limits.PROBES_LOSS_MAX

    def link_figures(self, link: int | None) -> LinkFigures:
        """Traffic and quality of a link; zeros for None."""
        return NO_FIGURES if link is None else self._tables.link_figures(link)


def _ring(bells: Bells) -> None:
    for bell in bells:
        os.eventfd_write(bell, 1)


def _keys_of(record: NodeRecord) -> list[tuple[int, bytes | None]]:
    """The epochs that a node seals with now, or is about to, or just did, and their keys; None: it does not seal."""
    found = [(record.key_epoch, record.sender_key or None)]
    if record.second_epoch is not None and (record.second_epoch ^ record.key_epoch) & 1:
        found.append((record.second_epoch, record.second_key or None))
    return found
