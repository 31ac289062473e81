"""Admission of peers' messages: budgets of control's time, and connections that are cut off for a violation.

A message costs the CPU time that control spends on it and on the outputs that it causes.  That time is known only
afterwards, so a message is admitted while none of its budgets is in debt, and charged then:

    connection    CONNECTION_SHARE of control's time.  Beyond it messages are delayed (delayed.py).
    address       ADDRESS_SHARE for all its connections, so that a new connection is no new budget.
    node          NODE_SHARE for all connections that have proved to be of that node.
    all peers     PEERS_SHARE.  Beyond it nothing is read until the time is paid back.  ZeroMQ reads from the
                  connections in turn, so that a peer within its own budgets loses no message.

A node id that a message only contains proves nothing: a budget for each would let one member use up that of another.
`identify` is for ids that are proved.

This module sees connections, addresses, nodes and costs, never the content of a message, and reads no clock.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import structlog

from pipeline import limits
from pipeline.address import NodeId
from pipeline.control.delayed import DelayedMessages, Message, Sender
from pipeline.drop_reasons import MessageRefusal
from pipeline.token_bucket import TokenBucket

CUT_OFF_MAX = 1024
"""Connections that stay cut off.  Beyond it the oldest is admitted again, and cut off at its next violation."""

log = structlog.get_logger()


class _Budgets:
    """Token buckets by key, in seconds of control's time.  Their number is bounded."""

    def __init__(self, *, share: float, burst_s: float) -> None:
        self._share = share
        self._burst_s = burst_s
        self._buckets: dict[Hashable, TokenBucket] = {}
        """Least recently used first."""

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, key: Hashable, now: float) -> TokenBucket:
        """Return the bucket of a key, which is full at its first use."""
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = TokenBucket(rate_per_s=self._share, burst=self._burst_s, now=now)
            if len(self._buckets) >= limits.BUDGETS_MAX:
                del self._buckets[next(iter(self._buckets))]
        self._buckets[key] = bucket
        return bucket


class PeerAdmission:
    """Filter before the overlay node, with a counter for each reason of refusal."""

    def __init__(self, now: float) -> None:
        self.refusals: dict[str, int] = dict.fromkeys(map(str, MessageRefusal), 0)
        """Messages that were refused, by reason; those of a connection that is cut off already are not counted."""
        self._connections = _Budgets(share=limits.CONNECTION_SHARE, burst_s=limits.CONNECTION_BURST_S)
        self._addresses = _Budgets(share=limits.ADDRESS_SHARE, burst_s=limits.ADDRESS_BURST_S)
        self._nodes = _Budgets(share=limits.NODE_SHARE, burst_s=limits.NODE_BURST_S)
        self._total = TokenBucket(rate_per_s=limits.PEERS_SHARE, burst=limits.PEERS_BURST_S, now=now)
        self._node_of: dict[bytes, NodeId] = {}
        """Nodes that connections have proved to be of, the longest known first."""
        self._cut_off: dict[bytes, None] = {}
        self._delayed = DelayedMessages()

    # ---- before a message

    def pause_s(self, now: float) -> float:
        """Return the time for which no message of any peer may be read or handled."""
        return self._total.time_until_paid(now)

    def admits(self, message: Message, now: float) -> bool:
        """Return whether a message may be handled now; if not, it is delayed, or dropped where there is no room."""
        sender = message.sender
        if sender.connection in self._cut_off:
            return False
        is_first = not self._delayed.has(sender.connection)
        wait_s = self._wait_s(sender, now) if is_first else 0.0
        if is_first and wait_s == 0:
            return True
        if not self._delayed.add(message, now + wait_s):
            self._count(MessageRefusal.MESSAGE_RATE)
            log.warning("peer sends too many messages", peer=sender.address)
        return False

    def take_delayed(self, now: float) -> Message | None:
        """Return the next delayed message that may be handled now."""
        while (connection := self._delayed.pop_due(now)) is not None:
            wait_s = self._wait_s(self._delayed.sender(connection), now)
            self._delayed.set_due(connection, now + wait_s)
            if wait_s == 0:
                return self._delayed.take(connection)
        return None

    def delayed_due(self) -> float | None:
        """Return the time at which `take_delayed` may have a message."""
        return self._delayed.next_due()

    def _wait_s(self, sender: Sender, now: float) -> float:
        return max(bucket.time_until_paid(now) for bucket in self._budgets_of(sender, now))

    def _budgets_of(self, sender: Sender, now: float) -> Iterator[TokenBucket]:
        yield self._connections.of(sender.connection, now)
        yield self._addresses.of(sender.address, now)
        node = self._node_of.get(sender.connection)
        if node is not None:
            yield self._nodes.of(node, now)

    # ---- after a message

    def identify(self, sender: Sender, node: NodeId) -> None:
        """Note that a connection has proved to be of a node: its messages need the node's budget from now on."""
        if self._node_of.get(sender.connection) != node:
            if len(self._node_of) >= limits.BUDGETS_MAX:
                del self._node_of[next(iter(self._node_of))]
            self._node_of[sender.connection] = node

    def charge(self, sender: Sender, cost_s: float, now: float) -> None:
        """Charge the budgets of a sender for time that was spent on its messages."""
        for bucket in self._budgets_of(sender, now):
            bucket.charge(cost_s, now)

    def charge_all(self, cost_s: float, now: float) -> None:
        """Charge the common budget of all peers for time that was spent on reading and on handling messages."""
        self._total.charge(cost_s, now)

    def cut_off(self, sender: Sender, reason: str) -> None:
        """Read no more messages of a connection that has sent one which violates the protocol."""
        self._count(reason)
        while len(self._cut_off) >= CUT_OFF_MAX:
            del self._cut_off[next(iter(self._cut_off))]
        self._cut_off[sender.connection] = None
        self._delayed.clear(sender.connection)
        log.warning("peer cut off", peer=sender.address, reason=reason)

    def _count(self, reason: str) -> None:
        self.refusals[reason] = self.refusals.get(reason, 0) + 1
