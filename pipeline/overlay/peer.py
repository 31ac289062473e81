"""The control session with one peer: a state table and two timers.  It composes no message and knows no directory.

    state          signal         next           when
    DOWN           UNKNOWN        INITIALIZING   the peer sends messages but does not hold our record
    DOWN           OUTDATED       INITIALIZING   it holds an older version of our record
    DOWN           ACKNOWLEDGED   PROBING        it holds the current version: it can open our datagrams
    INITIALIZING   ACKNOWLEDGED   PROBING
    PROBING        ECHO           UP             an endpoint of the peer has answered a probe of the data plane
    PROBING, UP    OUTDATED       the same       our record has changed since; the new version is under way
    PROBING, UP    UNKNOWN        INITIALIZING   the peer lost our record: it timed us out, or forgot us
    any            GOODBYE        DOWN           the peer stops
    any            TIMEOUT        DOWN           no message for LINK_TIMEOUT_S
    any            RESTARTED      DOWN           the peer has a new incarnation; another signal follows

The states are those of the three-way handshake of RFC 5303, and PROBING.  Messages acknowledge what any member can
write into a record, also the endpoint of a stranger; an echo comes only from where our datagrams arrive.  A link is up
on each side on its own.  A node that has
timed out its peer reports UNKNOWN to it, so a path that is broken in one direction is soon down in both.

Heartbeats are sent every HELLO_INTERVAL_S; rarely where the probes of the data plane are answered, as probes are signs
of life too.  Each side judges its own probes, so a peer whose probes are answered may send rarely while ours are not.
A peer times out that has sent no message for three such long intervals, whatever its probes show.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline import limits
from pipeline.messages import NodeRecord, Stamp
from pipeline.overlay.envelopes import ReplayWindow

JITTER = 0.25
"""Attempts are spread by ± this share, so that nodes that lost each other together do not call in step."""
HELLO_IN_FLIGHT_S = 0.5
"""Time for which a Hello may be under way; until then no other message causes a second one."""
CHECKS_PER_FORGET = 8
"""Checks of a peer without a kept session, in the time after which it is forgotten."""


class PeerState(enum.StrEnum):
    """State of a session."""

    DOWN = "down"
    INITIALIZING = "initializing"
    PROBING = "probing"
    UP = "up"


class Signal(enum.Enum):
    """Event that a session is given."""

    ACKNOWLEDGED = enum.auto()
    OUTDATED = enum.auto()
    UNKNOWN = enum.auto()
    ECHO = enum.auto()
    GOODBYE = enum.auto()
    TIMEOUT = enum.auto()
    RESTARTED = enum.auto()


class Action(enum.Enum):
    """Action that is due by a session's timers."""

    NOTHING = enum.auto()
    SEND = enum.auto()
    TIME_OUT = enum.auto()
    FORGET = enum.auto()


TRANSITIONS: Mapping[tuple[PeerState, Signal], PeerState] = {
    (PeerState.DOWN, Signal.UNKNOWN): PeerState.INITIALIZING,
    (PeerState.DOWN, Signal.OUTDATED): PeerState.INITIALIZING,
    (PeerState.DOWN, Signal.ACKNOWLEDGED): PeerState.PROBING,
    (PeerState.DOWN, Signal.ECHO): PeerState.DOWN,
    (PeerState.INITIALIZING, Signal.UNKNOWN): PeerState.INITIALIZING,
    (PeerState.INITIALIZING, Signal.OUTDATED): PeerState.INITIALIZING,
    (PeerState.INITIALIZING, Signal.ACKNOWLEDGED): PeerState.PROBING,
    (PeerState.INITIALIZING, Signal.ECHO): PeerState.INITIALIZING,
    (PeerState.PROBING, Signal.UNKNOWN): PeerState.INITIALIZING,
    (PeerState.PROBING, Signal.OUTDATED): PeerState.PROBING,
    (PeerState.PROBING, Signal.ACKNOWLEDGED): PeerState.PROBING,
    (PeerState.PROBING, Signal.ECHO): PeerState.UP,
    (PeerState.UP, Signal.UNKNOWN): PeerState.INITIALIZING,
    (PeerState.UP, Signal.OUTDATED): PeerState.UP,
    (PeerState.UP, Signal.ACKNOWLEDGED): PeerState.UP,
    (PeerState.UP, Signal.ECHO): PeerState.UP,
    **{(state, Signal.GOODBYE): PeerState.DOWN for state in PeerState},
    **{(state, Signal.TIMEOUT): PeerState.DOWN for state in PeerState},
    **{(state, Signal.RESTARTED): PeerState.DOWN for state in PeerState},
}


@dataclass(frozen=True, slots=True)
class Pace:
    """Intervals of a node's sessions."""

    heartbeat_s: float = limits.HELLO_INTERVAL_S
    timeout_s: float = limits.LINK_TIMEOUT_S
    forget_s: float = limits.NODE_FORGET_S


@dataclass(slots=True)
class Backoff:
    """Times of the attempts to reach a node that does not answer.

    The interval is a share of the time for which the node has been away.  Attempts never end.
    """

    random: Callable[[], float]
    since: float
    """Time at which the node went away."""
    next_at: float

    def restart(self, now: float, *, delay_s: float = 0.0) -> None:
        """Note that the node has just gone away; the first attempt is due after `delay_s`."""
        self.since = now
        self.next_at = now + delay_s

    def attempt_made(self, now: float) -> None:
        """Schedule the next attempt."""
        away_s = (now - self.since) * limits.RECONNECT_SHARE
        wait_s = min(max(away_s, limits.RECONNECT_INTERVAL_MIN_S), limits.RECONNECT_INTERVAL_MAX_S)
        self.next_at = now + wait_s * (1 - JITTER + 2 * JITTER * self.random())


class Seed:
    """Endpoint given by `--peer`, called until its node is known, and again whenever that node is down."""

    def __init__(self, endpoint: str, *, random: Callable[[], float], now: float) -> None:
        self.endpoint = endpoint
        self.node_id: int | None = None
        """Node that answered last; this node's own id if the seed is this node itself."""
        self.attempts = 0
        """Calls since the seed's node was alive."""
        self.is_refused = False
        """True if the node there has refused this one."""
        self.backoff = Backoff(random, now, now)


class Peer:
    """Session with one peer.  The owner passes signals to it and calls `next_action` at `due`."""

    __slots__ = (
        "_attempts", "_backoff", "_doubted_since", "_heartbeat_at", "_hello_sent", "_is_called", "_last_message_at",
        "_pace", "_probed_heartbeat_s", "_probes_trusted_until", "_reported_endpoints", "acked_stamp", "is_announced",
        "is_kept", "is_newcomer", "last_number", "last_seen_at", "record", "replied_at", "sent_records", "state",
        "window",
    )  # fmt: skip

    def __init__(
        self, record: NodeRecord, *, random: Callable[[], float], now: float, pace: Pace, is_kept: bool = True
    ) -> None:
        self.record = record
        """Newest known record of the peer."""
        self.is_kept = is_kept
        """False if the peer is only answered: it is then never called, and may be silent."""
        self.sent_records: dict[int, tuple[NodeRecord, float]] = {}
        """Records of other nodes that it was sent with a mention, and until when they are not sent again."""
        self.window = ReplayWindow()
        """Numbers of the sealed messages received."""
        self.replied_at = -math.inf
        """Time of the last reply to a Greeting of the peer."""
        self.is_announced = False
        """True if the peer's record was reported as an event."""
        self.is_newcomer = False
        """True if the peer has called an endpoint, so that it may know no other node."""
        self._reported_endpoints: dict[int, str] = {}
        """Endpoints of a peer whose record names no address, by the node that reports them."""
        self._attempts = 0
        """Attempts to reach the peer since it was alive."""
        self._pace = pace
        self.state = PeerState.DOWN
        self.acked_stamp: Stamp | None = None
        """Version of our record that the peer acknowledged last."""
        self._doubted_since: float | None = None
        """Time since which messages of the peer acknowledge none."""
        self._hello_sent: tuple[Stamp | None, float] = None, now
        """Version of our record in the last Hello to the peer, and when it was sent."""
        self.last_number = -1
        """Number of the latest Hello, Heartbeat or Goodbye received."""
        self.last_seen_at = now
        """Time of the last sign of life, or at which the record was first received."""
        self._last_message_at = now
        """Time of the last message from the peer itself."""
        self._backoff = Backoff(random, now, now)
        self._heartbeat_at = now
        self._is_called = False
        """True if a message to the peer is due, whatever probes show."""
        self._probes_trusted_until = now
        """Until then answered probes show that the peer receives us, and heartbeats may be rare."""
        self._probed_heartbeat_s = pace.heartbeat_s
        """Interval of heartbeats on a side whose probes are answered."""

    @property
    def is_up(self) -> bool:
        """True if packets may be sent to the peer."""
        return self.state is PeerState.UP

    @property
    def is_probed(self) -> bool:
        """True if the peer can open our datagrams, so that probes show whether they arrive."""
        return self.state in (PeerState.PROBING, PeerState.UP)

    @property
    def is_alive(self) -> bool:
        """True if messages arrive from the peer, in one direction at least."""
        return self.state is not PeerState.DOWN

    @property
    def stamp_to_ack(self) -> Stamp | None:
        """Version of the peer's record to acknowledge; None while it is not alive, or its keys are not known."""
        return self.record.stamp if self.is_alive and self.record.has_keys else None

    @property
    def endpoint(self) -> str:
        """Endpoint for the next message.  While the peer is away, those that were reported are tried in turn."""
        if self.is_alive or not self._reported_endpoints:
            return self.record.endpoint
        choices = list(dict.fromkeys((self.record.endpoint, *self._reported_endpoints.values())))
        return choices[self._attempts % len(choices)]

    def endpoint_reported(self, reporter: int, endpoint: str) -> None:
        """Note at which endpoint another node sees the peer; of many reports the oldest are dropped."""
        self._reported_endpoints.pop(reporter, None)
        if len(self._reported_endpoints) >= limits.REPORTED_ENDPOINTS_MAX:
            del self._reported_endpoints[next(iter(self._reported_endpoints))]
        self._reported_endpoints[reporter] = endpoint

    # ---- time

    @property
    def due(self) -> float:
        """Time at which `next_action` is to be called."""
        if self.state is PeerState.DOWN:
            forget_at = self.last_seen_at + self._pace.forget_s
            return min(self._backoff.next_at, forget_at) if self.is_kept else self._rounded_up(forget_at)
        if not self.is_kept:
            return self._rounded_up(self._timeout_at)
        return min(self._next_heartbeat_at if self.is_probed else self._backoff.next_at, self._timeout_at)

    def _rounded_up(self, at: float) -> float:
        """Return a common later time: sessions that are not kept are many, and are checked together."""
        step_s = self._pace.forget_s / CHECKS_PER_FORGET
        return math.ceil(at / step_s) * step_s

    @property
    def _next_heartbeat_at(self) -> float:
        if self._is_called or self._hello_sent[0] not in (None, self.acked_stamp):
            return self._heartbeat_at  # the peer lacks this record: probes acknowledge nothing
        probed_at = self._heartbeat_at - self._pace.heartbeat_s + self._probed_heartbeat_s
        return max(self._heartbeat_at, min(probed_at, self._probes_trusted_until))

    @property
    def _timeout_at(self) -> float:
        without_message_s = max(self._pace.timeout_s, 3 * self._probed_heartbeat_s)
        return min(self.last_seen_at + self._pace.timeout_s, self._last_message_at + without_message_s)

    def has_no_echo(self, now: float) -> bool:
        """Return whether probes of the peer have had no answer for long, although its messages arrive."""
        return self.state is PeerState.PROBING and now - self._backoff.since >= limits.ANSWER_EXPECTED_S

    def next_action(self, now: float) -> Action:
        """Return the action that is due; a message that is sent sets the next time."""
        if self.state is PeerState.DOWN:
            if now >= self.last_seen_at + self._pace.forget_s:
                return Action.FORGET
        elif now >= self._timeout_at:
            return Action.TIME_OUT
        return Action.SEND if now >= self.due else Action.NOTHING

    # ---- signals

    def handle(self, signal: Signal, now: float) -> None:
        """Take a signal."""
        before = self.state
        self.state = TRANSITIONS[before, signal]
        if self.state is PeerState.DOWN:
            self._hello_sent = None, now
        if signal in (Signal.ACKNOWLEDGED, Signal.OUTDATED, Signal.UNKNOWN):
            self.message_received(now)
        if self.state is not before:
            self._enter(now)

    def _enter(self, now: float) -> None:
        """Set the timers of the new state."""
        self._backoff.restart(now, delay_s=limits.RECONNECT_INTERVAL_MIN_S)
        self._doubted_since = None
        if self.state is PeerState.DOWN:
            self.acked_stamp = None
        if self.is_probed and not self._is_called:
            self._heartbeat_at = now + self._pace.heartbeat_s

    def resume(self, acked_stamp: Stamp, now: float) -> None:
        """Restore a session that was up before the control process restarted: the peer has not noticed."""
        self.state = PeerState.UP
        self.acked_stamp = acked_stamp
        self.message_received(now)
        self._heartbeat_at = now

    def begin_incarnation(self) -> None:
        """Forget what belonged to the peer's former incarnation: its message numbers, the records it was sent."""
        self.last_number = -1
        self.window = ReplayWindow()
        self.sent_records.clear()

    def keep(self, now: float, *, is_kept: bool) -> None:
        """Begin to keep the session, or stop.  The peer's silence until now does not count: it had no duty to send."""
        self.is_kept = is_kept
        if is_kept:
            self.message_received(now)
            if not self.is_probed:
                self.call_now(now)

    def postpone_forgetting(self, now: float) -> None:
        """Restart the time after which the peer is forgotten: its record is new, or was mentioned, or is needed."""
        self.last_seen_at = now

    def abandon(self, now: float) -> None:
        """Let the peer, which is away, be forgotten at once."""
        self.last_seen_at = now - self._pace.forget_s

    # ---- messages received

    def message_received(self, now: float) -> None:
        """Note that the peer has sent a message."""
        self.last_seen_at = self._last_message_at = now

    def acked(self, stamp: Stamp) -> None:
        """Note that the peer has acknowledged a version of our record."""
        self.acked_stamp = stamp
        self._doubted_since = None

    def may_mean_former_node(self, now: float) -> bool:
        """Return whether a message without an acknowledgement may be for the node that was at our endpoint before.

        Messages of protocol 1 do not name their receiver.  A Hello in reply brings an acknowledgement, if the peer has
        not lost us.
        """
        if self._doubted_since is None:
            self._doubted_since = now
        return now - self._doubted_since < self._pace.timeout_s

    def probes_received(self, now: float, *, heartbeat_s: float, are_answered: bool) -> None:
        """Note that the data plane received the peer's probes; heartbeats of a probed side are `heartbeat_s` apart.

        `are_answered`: the peer answers our probes, so ours is such a side.
        """
        self.last_seen_at = max(self.last_seen_at, now - limits.PROBES_AGE_S)
        self._probed_heartbeat_s = heartbeat_s
        if are_answered:
            self._probes_trusted_until = now + limits.PROBES_TRUSTED_S

    # ---- messages sent

    def call_now(self, now: float) -> None:
        """Make a message to the peer due at once."""
        self._is_called = True
        self._heartbeat_at = self._probes_trusted_until = self._backoff.next_at = now

    def keepalive_sent(self, now: float) -> None:
        """Note that a Hello or a Heartbeat was sent when it was due."""
        self._heartbeat_at = now + self._pace.heartbeat_s
        self._is_called = False
        self._backoff.attempt_made(now)
        self._attempts += 1

    def other_message_sent(self, now: float) -> None:
        """Note that another message was sent, which is as good a sign of life as a heartbeat."""
        if self.is_probed and not self._is_called:
            self._heartbeat_at = now + self._pace.heartbeat_s

    def hello_sent(self, own: Stamp, now: float) -> None:
        """Note that this version of our record was sent in a Hello."""
        self._hello_sent = own, now
        self._is_called = False

    def hello_lost(self, now: float) -> None:
        """Note that the last Hello need not arrive, so that the next message may cause another one."""
        self._hello_sent = None, now

    def holds(self, own: Stamp, now: float) -> bool:
        """Return whether the peer has this version of our record, or will have it soon."""
        stamp, sent_at = self._hello_sent
        return self.acked_stamp == own or (stamp == own and now < sent_at + HELLO_IN_FLIGHT_S)

    def may_answer_heartbeat(self, now: float) -> bool:
        """Return whether our last heartbeat is old enough to answer one; two nodes that answer at once never end."""
        return self.is_probed and self._heartbeat_at - now < self._pace.heartbeat_s / 2
