"""Admission of peers' messages: budgets of control's time, and connections that are cut off for a violation.

A message costs the CPU time that control spends on it and on the outputs that it causes.  That time is known only
afterwards, so a message is admitted while its budgets are not used up, and charged then:

    connection    CONNECTION_SHARE of control's time.  Beyond it messages are dropped and counted.
    address       ADDRESS_SHARE for all its connections, so that a new connection is no new budget.  Dropped as well.
    all peers     PEERS_SHARE.  Beyond it nothing is read until the time is paid back.  ZeroMQ reads from the
                  connections in turn, so that a peer within its own budget loses no message.

A node id proves nothing as long as every member can write any: a budget for each would let one member use up that of
another.  An identity that a connection has proved becomes one more scope in `_budgets_of`.

Messages are handled in turns of at most TURN_S, between which local requests and punts are served.  This module sees
connections, addresses and costs, never the content of a message, and reads no clock but the one that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from pipeline import limits
from pipeline.drop_reasons import MessageRefusal
from pipeline.token_bucket import TokenBucket

CUT_OFF_MAX = 1024
"""Connections that stay cut off.  Beyond it the oldest is admitted again, and cut off at its next violation."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sender:
    """Sender of a message, as far as the sockets know it."""

    connection: bytes
    address: str


class _Budgets:
    """Token buckets by key, in seconds of control's time.  Their number is bounded."""

    def __init__(self, *, share: float, burst_s: float) -> None:
        self._share = share
        self._burst_s = burst_s
        self._buckets: dict[bytes | str, TokenBucket] = {}
        """Least recently used first."""

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, key: bytes | str, now: float) -> TokenBucket:
        """Return the bucket of a key, which is full at its first use."""
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = TokenBucket(rate_per_s=self._share, burst=self._burst_s, now=now)
            if len(self._buckets) >= 2 * limits.NODES_MAX:
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
        self._total = TokenBucket(rate_per_s=limits.PEERS_SHARE, burst=limits.PEERS_BURST_S, now=now)
        self._cut_off: dict[bytes, None] = {}
        self.handling_share = 1.0
        """Share of the last turn that was spent on messages; the rest was spent on their outputs."""

    # ---- before a message

    def pause_s(self, now: float) -> float:
        """Return the time for which no message of any peer may be read."""
        return self._total.time_until_paid(now)

    def admits(self, sender: Sender, now: float) -> bool:
        """Return whether a message of that sender may be handled."""
        if sender.connection in self._cut_off:
            return False
        if all(bucket.level(now) > 0 for bucket in self._budgets_of(sender, now)):
            return True
        self._count(MessageRefusal.MESSAGE_RATE)
        log.warning("peer sends too many messages", peer=sender.address)
        return False

    def _budgets_of(self, sender: Sender, now: float) -> Iterator[TokenBucket]:
        yield self._connections.of(sender.connection, now)
        yield self._addresses.of(sender.address, now)

    # ---- after a message

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
        log.warning("peer cut off", peer=sender.address, reason=reason)

    def _count(self, reason: str) -> None:
        self.refusals[reason] = self.refusals.get(reason, 0) + 1


class Turn:
    """Messages that are handled one after the other, before control serves something else.

    Call `begin_message` and `end_message` around each message, stop when `is_over`, and call `end` when the outputs
    have been carried out.
    """

    def __init__(self, admission: PeerAdmission, now: float, cpu_time: Callable[[], float]) -> None:
        """`cpu_time` returns the CPU time that control has used, in seconds."""
        self._admission = admission
        self._now = now
        self._cpu_time = cpu_time
        self._began = self._at = cpu_time()
        self._sender: Sender | None = None
        self._costs: dict[Sender, float] = {}

    @property
    def is_over(self) -> bool:
        """True if the turn will last for TURN_S with its outputs, judged by those of the last turn."""
        return self._at - self._began >= limits.TURN_S * self._admission.handling_share

    def begin_message(self, sender: Sender) -> None:
        """Note that the time from now on is spent on a message of that sender."""
        self._sender, self._at = sender, self._cpu_time()

    def end_message(self) -> None:
        """Charge the sender for the time since `begin_message`."""
        sender, began = self._sender, self._at
        assert sender is not None, "begin_message was called"
        self._sender, self._at = None, self._cpu_time()
        cost_s = max(self._at - began, limits.MESSAGE_COST_MIN_S)
        self._costs[sender] = self._costs.get(sender, 0.0) + cost_s
        self._admission.charge(sender, cost_s, self._now)

    def end(self) -> None:
        """Charge the outputs to the senders, by their shares of the turn, and the whole turn to all peers."""
        if self._sender is not None:  # an error in a core ended the turn
            self.end_message()
        ended = self._cpu_time()
        handled_s = sum(self._costs.values())
        for sender, cost_s in self._costs.items():
            self._admission.charge(sender, (ended - self._at) * cost_s / handled_s, self._now)
        self._admission.charge_all(ended - self._began, self._now)
        if ended > self._began:
            self._admission.handling_share = (self._at - self._began) / (ended - self._began)
