"""The control session with one peer: a state table and two timers.  It composes no message and knows no directory.

    state      signal         next       when
    DOWN       UNKNOWN        GREETING   the peer is heard but does not hold our record
    DOWN       OUTDATED       GREETING   it holds an older version of it
    DOWN       ACKNOWLEDGED   UP         it holds the current one: it can open what we send
    GREETING   ACKNOWLEDGED   UP
    UP         OUTDATED       UP         our record changed meanwhile; it is on its way
    UP         UNKNOWN        GREETING   the peer lost us: it timed us out, or forgot us
    any        GOODBYE        DOWN       it ends
    any        SILENCE        DOWN       nothing for LINK_TIMEOUT_S
    any        RESTARTED      DOWN       it is heard in a new life; another signal follows

Heartbeats go out each second; rarely where the data plane's probes are answered, which are signs of life as well.  Each
side judges its own probes, so a peer that probes may speak rarely whatever becomes of ours.  But however well probes
are, a peer that has said nothing for three such pauses is silent.

What a driver calls "up" is UP; a link is up on each side on its own.  Because a node that has timed out its peer says
UNKNOWN, a path that is broken in one direction is soon down in both.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline import limits
from pipeline.messages import NodeRecord, Stamp

JITTER = 0.25
"""Attempts are spread by ± this share, so that nodes that lost each other together do not call in step."""
GREETING_S = 0.5
"""How long a Hello may be on its way: until then it is not said again for the sake of another message."""
LOOKS = 8
"""In the time after which a node is forgotten, at those who are not wanted."""


class PeerState(enum.StrEnum):
    """Of a session."""

    DOWN = "down"
    GREETING = "greeting"
    UP = "up"


class Signal(enum.Enum):
    """What a session hears of its peer."""

    ACKNOWLEDGED = enum.auto()
    OUTDATED = enum.auto()
    UNKNOWN = enum.auto()
    GOODBYE = enum.auto()
    SILENCE = enum.auto()
    RESTARTED = enum.auto()


class Action(enum.Enum):
    """What a session's timers ask for."""

    NOTHING = enum.auto()
    SPEAK = enum.auto()
    SILENT = enum.auto()
    FORGET = enum.auto()


TRANSITIONS: Mapping[tuple[PeerState, Signal], PeerState] = {
    (PeerState.DOWN, Signal.UNKNOWN): PeerState.GREETING,
    (PeerState.DOWN, Signal.OUTDATED): PeerState.GREETING,
    (PeerState.DOWN, Signal.ACKNOWLEDGED): PeerState.UP,
    (PeerState.GREETING, Signal.UNKNOWN): PeerState.GREETING,
    (PeerState.GREETING, Signal.OUTDATED): PeerState.GREETING,
    (PeerState.GREETING, Signal.ACKNOWLEDGED): PeerState.UP,
    (PeerState.UP, Signal.UNKNOWN): PeerState.GREETING,
    (PeerState.UP, Signal.OUTDATED): PeerState.UP,
    (PeerState.UP, Signal.ACKNOWLEDGED): PeerState.UP,
    **{(state, Signal.GOODBYE): PeerState.DOWN for state in PeerState},
    **{(state, Signal.SILENCE): PeerState.DOWN for state in PeerState},
    **{(state, Signal.RESTARTED): PeerState.DOWN for state in PeerState},
}


@dataclass(frozen=True, slots=True)
class Pace:
    """How often sessions speak, and how long they bear silence."""

    heartbeat_s: float = limits.HELLO_INTERVAL_S
    silence_s: float = limits.LINK_TIMEOUT_S
    forget_s: float = limits.NODE_FORGET_S


@dataclass(slots=True)
class Backoff:
    """When to call somebody who does not answer: after a share of the time that he has been away, for ever."""

    random: Callable[[], float]
    since: float
    """When he went away."""
    next_at: float

    def restart(self, now: float, *, delay_s: float = 0.0) -> None:
        """He has just gone away."""
        self.since = now
        self.next_at = now + delay_s

    def called(self, now: float) -> None:
        """An attempt has been made."""
        away_s = (now - self.since) * limits.RECONNECT_SHARE
        wait_s = min(max(away_s, limits.RECONNECT_INTERVAL_MIN_S), limits.RECONNECT_INTERVAL_MAX_S)
        self.next_at = now + wait_s * (1 - JITTER + 2 * JITTER * self.random())


class Seed:
    """An endpoint given by `--peer`, called until the node behind it is known, and again whenever that one is down."""

    def __init__(self, endpoint: str, *, random: Callable[[], float], now: float) -> None:
        self.endpoint = endpoint
        self.node_id: int | None = None
        """Who answered last; this node's own id if the seed is the node itself."""
        self.backoff = Backoff(random, now, now)


class Peer:
    """One session.  The owner feeds signals and asks `next_action` at `due`."""

    __slots__ = (
        "_backoff", "_greeted", "_heartbeat_at", "_pace", "_rest_s", "_said_at", "_trusted_until",
        "acknowledged", "away_since", "is_wanted", "number_heard", "record", "state", "told",
    )  # fmt: skip

    def __init__(
        self, record: NodeRecord, *, random: Callable[[], float], now: float, pace: Pace, is_wanted: bool = True
    ) -> None:
        self.record = record
        """The newest that is known of the node."""
        self.is_wanted = is_wanted
        """If not, it is answered, but not called and not missed."""
        self.told: dict[int, tuple[NodeRecord, float]] = {}
        """Records of others that it has been sent for a mention, and when."""
        self._pace = pace
        self.state = PeerState.DOWN
        self.acknowledged: Stamp | None = None
        """Our record as the peer last said it holds it."""
        self._greeted: tuple[Stamp | None, float] = None, now
        """What it has been sent of our record in a Hello, and when."""
        self.number_heard = -1
        """Of the latest Hello, Heartbeat or Goodbye."""
        self.away_since = now
        """When the node was last heard, or first heard of."""
        self._said_at = now
        """When it last said something itself."""
        self._backoff = Backoff(random, now, now)
        self._heartbeat_at = now
        self._trusted_until = now
        """Until then our probes say that it hears us, and our heartbeats may be `_rest_s` apart."""
        self._rest_s = pace.heartbeat_s
        """Between heartbeats of a side whose probes are answered."""

    @property
    def is_up(self) -> bool:
        """Whether packets may be sent to it."""
        return self.state is PeerState.UP

    @property
    def is_heard(self) -> bool:
        """Whether the node is alive, as far as we know."""
        return self.state is not PeerState.DOWN

    @property
    def known_to_peer(self) -> Stamp | None:
        """What we tell the peer to hold of its record; nothing while it is not heard."""
        return self.record.stamp if self.is_heard else None

    @property
    def due(self) -> float:
        """When `next_action` is to be asked."""
        if self.state is PeerState.DOWN:
            forget_at = self.away_since + self._pace.forget_s
            return min(self._backoff.next_at, forget_at) if self.is_wanted else self._together(forget_at)
        if not self.is_wanted:
            return self._together(self._silent_at)
        return min(self._next_heartbeat_at if self.is_up else self._backoff.next_at, self._silent_at)

    def _together(self, at: float) -> float:
        """A while later: there are many whom nobody misses, and they are looked at together."""
        step_s = self._pace.forget_s / LOOKS
        return math.ceil(at / step_s) * step_s

    @property
    def _next_heartbeat_at(self) -> float:
        rested_at = self._heartbeat_at - self._pace.heartbeat_s + self._rest_s
        return max(self._heartbeat_at, min(rested_at, self._trusted_until))

    @property
    def _silent_at(self) -> float:
        return min(self.away_since + self._pace.silence_s, self._said_at + max(self._pace.silence_s, 3 * self._rest_s))

    def handle(self, signal: Signal, now: float) -> bool:
        """Feed a signal.  Returns whether the link went up or down."""
        before = self.state
        self.state = TRANSITIONS[before, signal]
        if self.state is PeerState.DOWN:
            self._greeted = None, now
        if signal in (Signal.ACKNOWLEDGED, Signal.OUTDATED, Signal.UNKNOWN):
            self.heard(now)
        if self.state is not before:
            self._enter(now)
        return (before is PeerState.UP) is not self.is_up

    def next_action(self, now: float) -> Action:
        """What is due now; speaking sets the next time."""
        if self.state is PeerState.DOWN:
            if now >= self.away_since + self._pace.forget_s:
                return Action.FORGET
        elif now >= self._silent_at:
            return Action.SILENT
        return Action.SPEAK if now >= self.due else Action.NOTHING

    def heard(self, now: float) -> None:
        """It has said something."""
        self.away_since = self._said_at = now

    def probed(self, now: float, *, rest_s: float, are_answered: bool) -> None:
        """The data plane has heard it, so its heartbeats may be `rest_s` apart; and if it hears us, ours."""
        self.away_since = max(self.away_since, now - limits.PROBES_AGE_S)
        self._rest_s = rest_s
        if are_answered:
            self._trusted_until = now + limits.PROBES_TRUSTED_S

    def spoke(self, now: float) -> None:
        """A Hello or a Heartbeat has been sent."""
        self._heartbeat_at = now + self._pace.heartbeat_s
        self._backoff.called(now)

    def greeted(self, own: Stamp | None, now: float) -> None:
        """A Hello with that record of ours has been sent; None: and has not come."""
        self._greeted = own, now

    def holds(self, own: Stamp, now: float) -> bool:
        """Whether it has that record of ours, or will have it soon."""
        greeting, at = self._greeted
        return self.acknowledged == own or (greeting == own and now < at + GREETING_S)

    def said_more(self, now: float) -> None:
        """Something else than a Hello or a Heartbeat has been sent, which is as good a sign of life."""
        if self.is_up:
            self._heartbeat_at = now + self._pace.heartbeat_s

    def may_echo(self, now: float) -> bool:
        """Whether the last heartbeat was long enough ago to answer one (two that answer at once would never end)."""
        return self.is_up and self._heartbeat_at - now < self._pace.heartbeat_s / 2

    def resume(self, acknowledged: Stamp, now: float) -> None:
        """After a restart of this control process: the link is up, as the peer believes."""
        self.state = PeerState.UP
        self.acknowledged = acknowledged
        self.heard(now)
        self._heartbeat_at = now

    def want(self, now: float, *, is_wanted: bool) -> None:
        """From now on it is called, and missed if it is silent; until now it was not expected to speak.  Or no more."""
        self.is_wanted = is_wanted
        if is_wanted:
            self.heard(now)
            if not self.is_up:
                self.call_now(now)

    def call_now(self, now: float) -> None:
        """Something is to be said at once."""
        self._heartbeat_at = self._trusted_until = self._backoff.next_at = now

    def _enter(self, now: float) -> None:
        """Timers of the new state: a peer that is greeted or lost is called at once, one that said goodbye is not."""
        self._backoff.restart(now, delay_s=limits.RECONNECT_INTERVAL_MIN_S)
        if self.state is PeerState.DOWN:
            self.acknowledged = None
        if self.is_up:
            self._heartbeat_at = now + self._pace.heartbeat_s
