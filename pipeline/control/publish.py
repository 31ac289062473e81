"""Writer of shared memory: forwarding entries, links, keys of peers, and this node's own key.

It translates between the values of the cores and the tables that the stages read, and knows what each table holds at
present.  What finds no room is left out, makes the instance degraded (health.py), and is written when there is room.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from pipeline import limits
from pipeline.address import Address, NodeId, parse, show
from pipeline.endpoint import is_wildcard, split_endpoint
from pipeline.engines.api import Resend
from pipeline.errors import PipelineError
from pipeline.forwarding.route import FibDelete, FibEntry, FibKey, Kind, Side
from pipeline.messages import NodeRecord
from pipeline.overlay.node import OverlayNode
from pipeline.shm import repair
from pipeline.shm.fib import ForwardingTableWriter
from pipeline.shm.links_keys import LinkFigures, LinkRecord, LinksKeysWriter, UdpEndpoint, read_endpoint
from pipeline.shm.region import Region

Bells: TypeAlias = tuple[int, ...]
"""Eventfds of one stage, by lane."""
RETRIES_MAX = 4096
"""Entries that one call of `retry` writes, in some 50 ms."""
NO_FIGURES = LinkFigures(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@dataclass(slots=True)
class _PublishedLink:
    """A link as it is in shared memory, with the name of its peer."""

    node_id: NodeId
    name: str
    is_probed: bool = False
    endpoint: str | None = None
    """Endpoint in the peer's record.  The peer's datagrams may come from another one, behind a NAT for instance."""
    probe_keys: tuple[bytes, bytes] | None = field(default=None, repr=False)
    probes: tuple[int, int] | None = None
    """Echoes received and probes answered at the last call of `probed_peers`."""


class Publisher:
    """The only writer of the region's tables."""

    def __init__(
        self,
        region: Region,
        node: OverlayNode,
        *,
        ingress_bells: Bells,
        egress_bells: Bells,
        is_known_host: Callable[[str], bool] = lambda _host: False,
    ) -> None:
        self._node = node
        self._is_known_host = is_known_host
        """Whether a host is no stranger (io/dials.py)."""
        self._region = region
        self._fib = ForwardingTableWriter(region)
        self._links_keys = LinksKeysWriter(region)
        self._ingress_bells, self._egress_bells = ingress_bells, egress_bells
        self._links: dict[int, _PublishedLink] = {}
        self._has_new_links_keys = self._has_new_requests = False
        self._stored: dict[FibKey, FibKey] = {}
        """Keys, as in shared memory, of the entries that depend on the incoming link."""
        self._left_out: dict[FibKey, FibEntry] = {}
        """Entries for which there was no room; they are written when there is room."""
        self._incomplete: dict[int | None, NodeRecord] = {}
        """Records by link, or None for this node's own, for whose keys or addresses there was no room."""
        self._refusal = ""
        """Why there was no room for the last entry or record that was left out."""
        present = [entry.key for entry in self._fib.entries()]
        self._sources: dict[tuple[Side, NodeId | None], set[FibKey]] = {}
        """Entries in the table that allow a node to send from an address, by side and node."""
        for key in present:
            if key.kind is Kind.SOURCE:
                self._sources.setdefault((key.side, key.origin), set()).add(key)
        self._adopted = {key for key in present if key.via is not None}
        """Entries of a predecessor that depend on the incoming link and were not set again so far."""

    # ---------------------------------------------------------------- writing: nodes and links

    def publish_sender(self, record: NodeRecord) -> None:
        """Write this node's origin and sender keys."""
        keys = dict(_keys_of(record))
        self._links_keys.set_sender(record.node_id, keys, active=record.key_epoch)
        self._has_new_links_keys = True
        self.publish_own_addresses(record)

    def publish_own_addresses(self, record: NodeRecord) -> None:
        """Write the addresses from which programs of this host may send."""
        self._incomplete.pop(None, None)
        with self._keep_refused(None, record):
            self._publish_sources(Side.HOST, None, [address for address, _ in record.addresses])

    def publish_record(self, record: NodeRecord, link: int, *, probe_keys: tuple[bytes, bytes] | None = None) -> None:
        """Write a peer's keys and addresses; its endpoint becomes a candidate if it is new."""
        published = self._link(record, link)
        published.probe_keys = probe_keys
        published.node_id, published.name = record.node_id, record.name
        self._incomplete.pop(link, None)
        with self._keep_refused(link, record):
            for epoch, key in _keys_of(record):
                self._links_keys.set_key(record.node_id, epoch, key=key, lanes=record.lanes)
        self._clear_keys(record, but={epoch for epoch, _ in _keys_of(record)})
        with self._keep_refused(link, record):
            self._publish_sources(Side.OVERLAY, record.node_id, [address for address, _ in record.addresses])
        self.publish_link(record, link, is_probed=published.is_probed)

    def publish_link(self, record: NodeRecord, link: int, *, is_probed: bool) -> None:
        """Write whether the link is probed, and the endpoint of the record, to which only probes go at first.

        An endpoint that has answered stays while the link is probed, until another one answers.
        """
        published = self._link(record, link)
        stored = self._links_keys.link(link)
        continues = stored is not None and stored.node == record.node_id and is_probed and published.is_probed
        endpoint = stored.endpoint if stored is not None and continues else None
        if stored is not None and continues and published.endpoint in (None, record.endpoint):
            candidate = stored.candidate
        else:
            candidate = _udp_endpoint(record.endpoint)
        published.is_probed, published.endpoint = is_probed, record.endpoint
        if candidate == endpoint:
            candidate = None
        self._set_link(
            link, LinkRecord(record.node_id, is_probed, endpoint, candidate, probe_keys=published.probe_keys)
        )

    def _set_link(self, link: int, record: LinkRecord) -> None:
        candidate = record.candidate
        is_host_known = candidate is not None and self._is_known_host(show(candidate.address))
        self._links_keys.set_link(link, replace(record, is_host_known=is_host_known))
        self._has_new_links_keys = True

    def _link(self, record: NodeRecord, link: int) -> _PublishedLink:
        published = self._links.get(link)
        if published is None:
            stored = self._links_keys.link(link)  # of a predecessor: its session may be restored
            is_probed = stored is not None and stored.node == record.node_id and stored.up
            published = self._links[link] = _PublishedLink(record.node_id, record.name, is_probed)
            published.probe_keys = stored.probe_keys if is_probed and stored is not None else None
        return published

    def take_answered_endpoint(self, punt: bytes) -> NodeId | None:
        """Send a peer's datagrams to the endpoint that has answered a probe; return the peer, None if unknown."""
        link, endpoint = read_endpoint(punt)
        stored = self._links_keys.link(link)
        if stored is None or not stored.up:
            return None
        # A link without an endpoint needs no other candidate now: behind a NAT that of the record never answers.
        candidate = stored.candidate if stored.endpoint is not None and stored.candidate != endpoint else None
        self._set_link(link, replace(stored, endpoint=endpoint, candidate=candidate))
        return stored.node

    def take_candidate(self, punt: bytes) -> None:
        """Probe the endpoint from which a verified datagram of a peer came."""
        link, candidate = read_endpoint(punt)
        stored = self._links_keys.link(link)
        if stored is not None and stored.up and candidate != stored.endpoint:
            self._set_link(link, replace(stored, candidate=candidate))

    def remove_record(self, record: NodeRecord, link: int) -> None:
        """Remove a peer with its link, keys and addresses."""
        self._links.pop(link, None)
        self._incomplete.pop(link, None)
        self._links_keys.clear_link(link)
        self._publish_sources(Side.OVERLAY, record.node_id, [])
        self._clear_keys(record, but=set())
        self._has_new_links_keys = True

    def _clear_keys(self, record: NodeRecord, *, but: set[int]) -> None:
        for epoch in self._links_keys.epochs_of(record.node_id):
            if epoch not in but:
                self._links_keys.clear_key(record.node_id, epoch)

    def _publish_sources(self, side: Side, origin: NodeId | None, addresses: Iterable[Address]) -> None:
        new = {FibKey(side, Kind.SOURCE, address, origin=origin) for address in addresses}
        present = self._sources.setdefault((side, origin), set())
        for key in present - new:
            self._fib.delete(key)
            present.discard(key)
        try:
            for key in new - present:
                self._fib.set(key, ())
                present.add(key)
        finally:
            if not present:
                del self._sources[side, origin]

    # ---------------------------------------------------------------- writing: entries and requests

    def publish_entry(self, change: FibEntry | FibDelete) -> None:
        """Write or delete one forwarding entry."""
        if isinstance(change, FibDelete):
            self._left_out.pop(change.key, None)
            stored = change.key if change.key.via is None else self._stored.pop(change.key, None)
            if stored is not None and self._fib.delete(stored) and self._left_out:
                self.publish_entry(next(iter(self._left_out.values())))
            return
        key = self._stored_key(change.key)
        if key is None:
            return
        self._left_out[change.key] = change
        try:
            self._fib.set(
                key,
                change.links,
                local=change.local,
                stream=change.stream,
                stripes=change.stripes,
                repairs=change.repairs,
            )
            del self._left_out[change.key]
        except PipelineError as error:
            self._refusal = str(error)

    def _stored_key(self, key: FibKey) -> FibKey | None:
        """Return the key as the table has it: with the incoming link's index in place of the peer; None without one."""
        if key.via is None:
            return key
        link = self._node.link_of(key.via)
        if link is None:
            return None
        stored = key._replace(via=link)
        before = self._stored.get(key)
        if before is not None and before != stored:
            self._fib.delete(before)  # the peer has returned with another index
        self._stored[key] = stored
        self._adopted.discard(stored)
        return stored

    def publish_repair_request(self, request: Resend, stream: int | None) -> None:
        """Request the stages to retransmit datagrams of a stream to a peer that lacks them.

        They retransmit those that they still have.  A stream without a number is not kept.
        """
        link = self._node.link_of(request.peer)
        if link is not None and stream is not None:
            repair.add_request(self._region, link=link, origin=request.origin, stream=stream, numbers=request.numbers)
            self._has_new_requests = True

    def flush(self) -> None:
        """Wake the stages after a batch: overlay_ingress reads links and keys, overlay_egress repair requests."""
        if self._has_new_links_keys:
            _ring(self._ingress_bells)
        if self._has_new_requests:
            _ring(self._egress_bells)
        self._has_new_links_keys = self._has_new_requests = False

    def expire_adopted(self, known: Iterable[NodeId]) -> None:
        """Delete entries of a predecessor that were not set again: of unknown nodes, and by incoming link."""
        for key in self._adopted:
            self._fib.delete(key)
        self._adopted.clear()
        nodes = {None, *known}
        for side, origin in [each for each in self._sources if each[1] not in nodes]:
            self._publish_sources(side, origin, [])

    # ---------------------------------------------------------------- what found no room

    @contextlib.contextmanager
    def _keep_refused(self, link: int | None, record: NodeRecord) -> Iterator[None]:
        """Keep a record for `retry` if the block finds no room."""
        try:
            yield
        except PipelineError as error:
            self._refusal = str(error)
            self._incomplete[link] = record

    @property
    def fault(self) -> str:
        """Return what is not written and why, or an empty text."""
        if not self._left_out and not self._incomplete:
            return ""
        left_out, records = len(self._left_out), len(self._incomplete)
        return f"{left_out} forwarding entries and {records} node records are not written: {self._refusal}"

    def retry(self) -> None:
        """Write what found no room before, until there is none: space in /dev/shm may be freed at any time."""
        for link, record in list(self._incomplete.items()):
            if link is None:
                self.publish_own_addresses(record)
            else:
                self.publish_record(record, link, probe_keys=self._link(record, link).probe_keys)
            if link in self._incomplete:  # and now the last one, so another is the first next time
                break
        for entry in list(itertools.islice(self._left_out.values(), RETRIES_MAX)):
            self.publish_entry(entry)
            if entry.key in self._left_out:
                break
        self.flush()

    # ---------------------------------------------------------------- reading

    def existing_entries(self) -> list[tuple[FibKey, int]]:
        """Return keys and stream numbers of the table's entries, but for sources and entries by incoming link."""
        entries = (entry for entry in self._fib.entries() if entry.key.kind is not Kind.SOURCE)
        return [(entry.key, entry.stream) for entry in entries if entry.key.via is None]

    def take_used_groups(self) -> set[Address]:
        """Return the groups to which local programs have sent since the last call."""
        used = self._fib.take_used()
        return {key.group for key in used if key.side is Side.HOST and key.kind is Kind.GROUP}

    def endpoint_of(self, link: int) -> str | None:
        """Return the endpoint in the record of the link's peer, as it was published last."""
        published = self._links.get(link)
        return published.endpoint if published is not None else None

    def has_endpoint(self, endpoint: str) -> bool:
        """Return whether a peer has this endpoint in its record."""
        return any(published.endpoint == endpoint for published in self._links.values())

    def node_of(self, link: int) -> NodeId | None:
        """Return the peer of a link index."""
        published = self._links.get(link)
        return published.node_id if published is not None else None

    def names_of(self, links: Iterable[int]) -> list[str]:
        """Return the names of the peers of link indices."""
        return [self._links[link].name if link in self._links else f"link {link}" for link in links]

    def probed_peers(self) -> Iterator[tuple[NodeId, LinkFigures, bool]]:
        """Yield the peers whose probes or echoes have arrived since the last call.

        Each comes with the figures of its link, and whether this node's own probes are answered.
        """
        for link, published in self._links.items():
            if not published.is_probed:
                published.probes = None
                continue
            figures = self._links_keys.link_figures(link)
            before, published.probes = published.probes, (figures.echoes, figures.answered)
            if before is not None and before != published.probes:
                has_echo = figures.echoes != before[0]
                yield published.node_id, figures, has_echo and figures.loss_ppm <= 1e6 * limits.PROBES_LOSS_MAX

    def link_figures(self, link: int | None) -> LinkFigures:
        """Return traffic and quality of a link; zeros for None."""
        return NO_FIGURES if link is None else self._links_keys.link_figures(link)


def _ring(bells: Bells) -> None:
    for bell in bells:
        os.eventfd_write(bell, 1)


def _udp_endpoint(text: str) -> UdpEndpoint | None:
    """Return the endpoint of a record; None for a wildcard, to which nothing can be sent."""
    host, port = split_endpoint(text)
    return None if is_wildcard(text) else UdpEndpoint(parse(host), port)


def _keys_of(record: NodeRecord) -> list[tuple[int, bytes | None]]:
    """Return epochs and keys of a node: the present one and, during a rotation, the next or the previous one.

    None stands for a node that does not seal.  Shared memory has one place for even epochs and one for odd, so a second
    epoch of the same parity is left out.
    """
    keys = [(record.key_epoch, record.sender_key or None)]
    if record.second_epoch is not None and (record.second_epoch ^ record.key_epoch) & 1:
        keys.append((record.second_epoch, record.second_key or None))
    return keys
