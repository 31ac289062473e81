"""Admission of peers' messages, and the turns in which they are handled.

Goal: no peer and no address takes more than its share of control's time, all peers together no more than theirs, and a
peer loses no message within its budget.
Method: the inbox of a control process on virtual time.  Messages are their own cost; a socket is a queue.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import structlog

from pipeline import limits
from pipeline.control.admission import PeerAdmission
from pipeline.control.delayed import Message, Sender
from pipeline.control.inbox import Inbox

HOSTILE = Sender(b"a", "192.0.2.1")
HONEST = Sender(b"b", "192.0.2.2")
IDLE_S = 0.02
"""Time between two passes of the event loop."""


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    """A flood would write a line for each message, as the limits of the log are not set up here."""
    with structlog.testing.capture_logs():
        yield


@dataclass(frozen=True)
class Frame:
    """Frame of a message, as ZeroMQ returns it."""

    bytes: bytes
    address: str = ""

    def get(self, _name: str) -> str:
        return self.address

    def __len__(self) -> int:
        return len(self.bytes)


class Control:
    """Control process on virtual time.  A message costs the seconds that it contains, and its outputs `outputs_s`."""

    def __init__(self, *, outputs_s: float = 0.0) -> None:
        self.now = 100.0
        self.cpu_s = 0.0
        self.outputs_s = outputs_s
        self.socket: deque[list[Frame]] = deque()
        self.handled: list[tuple[Sender, float]] = []
        self.admission = PeerAdmission(self.now)
        self.inbox = Inbox(
            self.admission,
            handle=self.handle,
            carry_out=self.carry_out,
            timers=self,
            clock=lambda: self.now,
            cpu_time=lambda: self.cpu_s,
        )
        self._timer: Callable[[], None] | None = None
        self._timer_at = 0.0
        self._drained = 0

    # ---- what the inbox uses

    def call_later(self, delay: float, callback: Callable[[], None]) -> Control:
        self._timer, self._timer_at = callback, self.now + delay
        return self

    def cancel(self) -> None:
        self._timer = None

    def handle(self, message: Message, _now: float) -> str | None:
        cost_s = float(message.parts[0].bytes)
        self._spend(cost_s)
        self.handled.append((message.sender, cost_s))
        return "forbidden" if cost_s < 0 else None

    def carry_out(self, _now: float) -> None:
        self._spend(self.outputs_s * (len(self.handled) - self._drained))
        self._drained = len(self.handled)

    def _spend(self, cost_s: float) -> None:
        self.cpu_s += max(cost_s, 0.0)
        self.now += max(cost_s, 0.0)

    # ---- what tests use

    def send(self, sender: Sender, *costs_s: float) -> None:
        for cost_s in costs_s:
            self.socket.append([Frame(sender.connection), Frame(str(cost_s).encode(), sender.address)])

    def turn(self) -> int:
        """Let the inbox read from the socket; return the number of messages that it handles."""
        before = len(self.handled)
        self.inbox.handle_batch(1, self._batch())
        return len(self.handled) - before

    def _batch(self) -> Iterator[list[Frame]]:
        for _ in range(256):
            if not self.socket:
                return
            yield self.socket.popleft()

    def run(self, seconds: float, *, flood: tuple[Sender, ...] = (), cost_s: float = 0.0) -> None:
        """Pass time; meanwhile the senders of a flood send without end."""
        end = self.now + seconds
        while self.now < end:
            if flood and len(self.socket) < 256:
                for sender in flood * max(1, 24 // len(flood)):
                    self.send(sender, cost_s)
            if self._timer is not None and self._timer_at <= self.now:
                self._timer()
            if self.socket and self.inbox.pause_s() == 0:
                self.turn()
            self.now += IDLE_S

    def share(self, seconds: float, **flood: object) -> float:
        """Return the share of control's time that a flood takes."""
        began_s, began = self.cpu_s, self.now
        self.run(seconds, **flood)
        return (self.cpu_s - began_s) / (self.now - began)


# ---------------------------------------------------------------- shares


def test_connection_takes_its_share_of_time() -> None:
    """Goal: expensive messages of one connection take its burst at once, and CONNECTION_SHARE after that.
    Method: messages of 50 ms without end, for as long as the burst lasts, and then for 30 s."""
    control = Control()
    control.run(3 * limits.CONNECTION_BURST_S, flood=(HOSTILE,), cost_s=0.05)
    assert control.cpu_s >= limits.CONNECTION_BURST_S
    assert control.share(30, flood=(HOSTILE,), cost_s=0.05) == pytest.approx(limits.CONNECTION_SHARE, rel=0.05)


def test_cheap_messages_are_limited_by_number() -> None:
    """Goal: a connection may send 1,000 messages a second that cost nothing.
    Method: use up the burst, then count the messages of 10 s."""
    control = Control()
    control.admission.charge(HOSTILE, limits.CONNECTION_BURST_S, control.now)
    control.run(1, flood=(HOSTILE,))
    before = len(control.handled)
    control.run(10, flood=(HOSTILE,))
    assert len(control.handled) - before == pytest.approx(10_000, rel=0.05)
    assert control.admission.refusals["message_rate"] > 0


def test_new_connections_get_no_new_budget() -> None:
    """Goal: the connections of one address take ADDRESS_SHARE together.  Method: 20 connections, and 20 new ones."""
    control = Control()
    old, new = (tuple(Sender(bytes([number]), "192.0.2.1") for number in range(*each)) for each in ((0, 20), (20, 40)))
    control.admission.charge(old[0], limits.ADDRESS_BURST_S, control.now)
    control.run(1, flood=old, cost_s=0.05)
    assert control.share(30, flood=new, cost_s=0.05) == pytest.approx(limits.ADDRESS_SHARE, rel=0.05)


def test_all_peers_take_their_share_of_time() -> None:
    """Goal: many addresses together take PEERS_SHARE, and an honest peer waits less than a second meanwhile.
    Method: 50 addresses send messages of 10 ms without end, an honest peer one of 1 ms a second."""
    control = Control()
    flood = tuple(Sender(bytes([number]), f"198.51.100.{number}") for number in range(50))
    control.admission.charge_all(limits.PEERS_BURST_S, control.now)
    control.run(1, flood=flood, cost_s=0.01)
    began_s, began = control.cpu_s, control.now
    for number in range(1, 20):
        control.socket.insert(min(len(control.socket), 10), [Frame(HONEST.connection), Frame(b"0.001", HONEST.address)])
        control.run(1, flood=flood, cost_s=0.01)
        assert Counter(sender for sender, _ in control.handled)[HONEST] == number
    assert (control.cpu_s - began_s) / (control.now - began) <= limits.PEERS_SHARE * 1.05


def test_connections_of_a_node_share_its_budget() -> None:
    """Goal: connections from many addresses that have proved to be of one node take NODE_SHARE, and no other node does.
    Method: 20 connections of a node, and one of another one."""
    control = Control()
    flood = tuple(Sender(bytes([number]), f"198.51.100.{number}") for number in range(20))
    for sender in flood:
        control.admission.identify(sender, 7)
    control.admission.identify(HONEST, 8)
    control.admission.charge(flood[0], limits.NODE_BURST_S, control.now)
    control.run(1, flood=flood, cost_s=0.05)
    assert control.share(30, flood=flood, cost_s=0.05) == pytest.approx(limits.NODE_SHARE, rel=0.05)
    assert control.admission.admits(Message(HONEST, 1, []), control.now)


# ---------------------------------------------------------------- honest peers


def test_honest_peer_loses_nothing_during_an_attack() -> None:
    """Goal: the budget of one peer is not charged for another one, although their outputs are carried out together.
    Method: messages of both in turn, the hostile ones a hundred times as expensive; count those of the honest one."""
    control = Control()
    for _ in range(4000):
        control.send(HOSTILE, 0.03)
        control.send(HONEST, 0.0003)
        control.run(0.05)
    taken = Counter(sender for sender, _ in control.handled)
    assert taken[HONEST] == 4000
    assert taken[HOSTILE] < 4000


def test_all_groups_of_a_peer_are_handled_at_once() -> None:
    """Goal: 65,536 groups of a peer that are joined and left twice, and a full directory, are not delayed.
    Method: messages with their cost; a message of another peer after them is handled within 60 s of their 30 s."""
    control = Control()
    costs_s = [0.3] * 4 + ([0.45] * 10 + [0.25] * 10) * 2
    control.send(HONEST, *costs_s)
    control.run(60)
    assert len(control.handled) == len(costs_s)
    assert control.admission.delayed_due() is None


def test_messages_beyond_the_budget_are_delayed_in_order() -> None:
    """Goal: a peer beyond its budget loses no message of what it sends at once, and its messages keep their order.
    Method: a debt of 3 s, then DELAYED_MESSAGES_MAX messages; each is handled when its connection has budget again."""
    control = Control()
    control.admission.charge(HONEST, limits.CONNECTION_BURST_S + 3, control.now)
    costs_s = [number / 10_000 for number in range(1, limits.DELAYED_MESSAGES_MAX + 1)]
    control.send(HONEST, *costs_s)
    control.run(29)
    assert control.handled == []
    control.run(5)
    assert control.handled == [(HONEST, cost_s) for cost_s in costs_s]
    assert control.admission.refusals["message_rate"] == 0
    assert control.admission.delayed_due() is None


def test_delayed_messages_keep_nobody_out() -> None:
    """Goal: where many delayed messages are due, new messages of others are handled in alternation.
    Method: 30 connections with messages that are due, and ten messages of an honest peer."""
    control = Control()
    for number in range(30):
        sender = Sender(bytes([number]), f"198.51.100.{number}")
        control.admission.charge(sender, limits.CONNECTION_BURST_S + 0.1, control.now)
        control.send(sender, 0.001, 0.001)
    control.run(0.5)
    control.now += 1.0
    control.send(HONEST, *[0.001] * 10)
    control.turn()
    assert Counter(sender for sender, _ in control.handled)[HONEST] == 10


# ---------------------------------------------------------------- turns


def test_turn_ends_in_time() -> None:
    """Goal: a turn lasts TURN_S and one message at the most; messages that are not handled stay in the socket.
    Method: expensive and cheap messages."""
    for cost_s, count in ((0.015, 2), (0.5, 1), (0.0, 256)):
        control = Control()
        control.send(HOSTILE, *[cost_s] * 300)
        assert control.turn() == count
        assert len(control.socket) == 300 - count


def test_turn_leaves_time_for_outputs() -> None:
    """Goal: where outputs take longer than messages, a turn has fewer messages.
    Method: messages of 1 ms whose outputs take 9 ms each."""
    control = Control(outputs_s=0.009)
    control.send(HOSTILE, *[0.001] * 100)
    assert [control.turn(), control.turn()] == [20, 2]


def test_error_in_a_turn_is_charged() -> None:
    """Goal: a message that shows a bug of this program costs its sender time too, and the next one is handled.
    Method: a message that raises after it has used up all budgets."""
    control = Control()
    control.carry_out = lambda _now: None
    control.send(HOSTILE, 2 * limits.CONNECTION_BURST_S, 0.0)
    inner = control.handle

    def raises(message: Message, now: float) -> str | None:
        inner(message, now)
        raise ValueError("a bug")

    control.inbox._handle = raises
    with pytest.raises(ValueError, match="a bug"):
        control.turn()
    assert not control.admission.admits(Message(HOSTILE, 1, []), control.now)
    assert control.inbox.pause_s() > 0


# ---------------------------------------------------------------- bounds


def test_connection_with_a_violation_is_cut_off() -> None:
    """Goal: no further message of a connection is handled, delayed ones included; one refusal is counted.
    Method: a message that violates the protocol behind others that are delayed."""
    control = Control()
    control.admission.charge(HOSTILE, limits.CONNECTION_BURST_S + 0.1, control.now)
    control.send(HOSTILE, 0.0, -1.0, 0.0)
    control.run(2)
    control.send(HOSTILE, 0.0)
    control.run(2)
    assert [cost_s for _, cost_s in control.handled] == [0.0, -1.0]
    assert control.admission.refusals["forbidden"] == 1
    assert control.admission.delayed_due() is None


def test_delayed_messages_are_bounded() -> None:
    """Goal: a connection has DELAYED_MESSAGES_MAX delayed messages, all together DELAYED_BYTES_MAX; others are counted.
    Method: 100 connections without budget send 100 messages of 32 KiB each, in turn."""
    control = Control()
    senders = [Sender(bytes([number]), f"198.51.100.{number}") for number in range(100)]
    for sender in senders:
        control.admission.charge(sender, limits.CONNECTION_BURST_S + 1, control.now)
    for sender in senders:
        for _ in range(100):
            control.admission.admits(Message(sender, 1, [Frame(bytes(32 << 10))]), control.now)
    delayed = control.admission._delayed
    assert max(map(len, delayed._queues.values())) == limits.DELAYED_MESSAGES_MAX
    assert 0.99 * limits.DELAYED_BYTES_MAX < delayed._memory_bytes <= limits.DELAYED_BYTES_MAX
    held = sum(map(len, delayed._queues.values()))
    assert control.admission.refusals["message_rate"] == 10_000 - held
    for connection in list(delayed._queues):
        delayed.clear(connection)
    assert delayed._memory_bytes == 0


def test_tables_of_budgets_are_bounded() -> None:
    """Goal: connections, addresses and nodes fill no memory.  Method: more of each than the bound."""
    control = Control()
    for number in range(5000):
        sender = Sender(number.to_bytes(4), str(number))
        control.admission.identify(sender, number)
        control.admission.admits(Message(sender, 1, []), control.now)
    admission = control.admission
    tables = (admission._connections, admission._addresses, admission._nodes, admission._node_of)
    assert [len(table) for table in tables] == [limits.BUDGETS_MAX] * 4
