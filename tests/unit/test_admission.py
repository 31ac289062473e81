"""Admission of peers' messages.

Goal: no peer and no address takes more than its share of control's time, all peers together no more than theirs, and a
peer within its budget loses nothing.
Method: a clock of the test's own, and messages with a given cost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest

from pipeline import limits
from pipeline.control.admission import PeerAdmission, Sender, Turn

HOSTILE = Sender(b"a", "192.0.2.1")
HONEST = Sender(b"b", "192.0.2.2")
IDLE_S = 0.001
"""Time between two turns of a flood."""


class Control:
    """Control process on virtual time: each message takes the CPU for `cost_s`, and its outputs for `outputs_s`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.cpu_s = 0.0
        self.admission = PeerAdmission(self.now)
        self.taken_s: dict[Sender, float] = {}

    def turn(self, messages: Sequence[tuple[Sender, float]], *, outputs_s: float = 0.0) -> int:
        """Handle messages of (sender, cost) for one turn; return how many were read."""
        turn = Turn(self.admission, self.now, lambda: self.cpu_s)
        began_s, read = self.cpu_s, 0
        for sender, cost_s in messages:
            read += 1
            if self.admission.admits(sender, self.now):
                turn.begin_message(sender)
                self.cpu_s += cost_s
                self.taken_s[sender] = self.taken_s.get(sender, 0.0) + cost_s
                turn.end_message()
            if turn.is_over:
                break
        self.cpu_s += outputs_s
        turn.end()
        self.now += self.cpu_s - began_s
        return read

    def flood(self, senders: Sequence[Sender], cost_s: float, seconds: float) -> float:
        """Let senders send without end, served in turn; return the share of control's time that they took."""
        waiting = deque(senders)
        end, began_s = self.now + seconds, self.cpu_s
        while self.now < end:
            waiting.rotate(-self.turn([(sender, cost_s) for sender in waiting]))
            self.now += max(self.admission.pause_s(self.now), IDLE_S)
        return (self.cpu_s - began_s) / seconds


def test_connection_takes_its_share_of_time() -> None:
    """Goal: expensive messages of one connection take CONNECTION_SHARE after the burst.
    Method: messages of 50 ms without end, for as long as the burst lasts, and then for 100 s."""
    control = Control()
    control.flood([HOSTILE], 0.05, 2 * limits.CONNECTION_BURST_S)
    assert control.taken_s[HOSTILE] >= limits.CONNECTION_BURST_S
    assert control.flood([HOSTILE], 0.05, 100) == pytest.approx(limits.CONNECTION_SHARE, rel=0.05)


def test_cheap_messages_are_limited_by_number() -> None:
    """Goal: a connection may send 1,000 messages a second that cost nothing.
    Method: use up the burst, then count the messages of a second."""
    control = Control()
    while control.admission.admits(HOSTILE, control.now):
        control.turn([(HOSTILE, 0.0)] * 256)
    control.now += 1.0
    before = control.admission.refusals["message_rate"]
    for _ in range(16):
        control.turn([(HOSTILE, 0.0)] * 128)
    admitted = 16 * 128 - (control.admission.refusals["message_rate"] - before)
    assert admitted == pytest.approx(1000, abs=130)


def test_new_connections_get_no_new_budget() -> None:
    """Goal: the connections of one address take ADDRESS_SHARE together.
    Method: a new connection for each message."""
    control = Control()
    for number in range(4000):
        control.turn([(Sender(number.to_bytes(4), "192.0.2.1"), 0.05)])
        control.now += 0.05
    began = sum(control.taken_s.values())
    start = control.now
    for number in range(4000, 8000):
        control.turn([(Sender(number.to_bytes(4), "192.0.2.1"), 0.05)])
        control.now += 0.05
    share = (sum(control.taken_s.values()) - began) / (control.now - start)
    assert share == pytest.approx(limits.ADDRESS_SHARE, rel=0.05)


def test_all_peers_take_their_share_of_time() -> None:
    """Goal: many addresses together take PEERS_SHARE, reading included, and an honest peer's messages are all handled.
    Method: 50 addresses send without end, an honest peer one message of 1 ms between theirs."""
    control = Control()
    senders = [Sender(bytes([number]), f"198.51.100.{number}") for number in range(50)]
    control.flood(senders, 0.01, 100)
    assert control.flood([*senders, HONEST], 0.01, 100) <= limits.PEERS_SHARE * 1.05
    assert HONEST in control.taken_s


def test_honest_peer_loses_nothing_during_an_attack() -> None:
    """Goal: the budget of one peer is not charged for another one, although their outputs are carried out together.
    Method: each turn has messages of both and outputs of 10 ms, which only the hostile ones cause."""
    control = Control()
    for _ in range(2000):
        control.turn([(HOSTILE, 0.002), (HONEST, 0.00002)], outputs_s=0.01)
        control.now += 0.1
    assert control.taken_s[HONEST] == pytest.approx(2000 * 0.00002)
    assert control.taken_s[HOSTILE] < 2000 * 0.002


def test_burst_holds_what_honest_peers_send_at_once() -> None:
    """Goal: 65,536 groups and a full directory of one peer are handled at once.
    Method: messages with their cost, in turns."""
    control = Control()
    messages = [(HONEST, 0.2)] * 10 + [(HONEST, 0.3)] * 4
    while messages:
        messages = messages[control.turn(messages) :]
        assert control.admission.pause_s(control.now) == 0
    assert control.admission.refusals["message_rate"] == 0


def test_turn_ends_in_time() -> None:
    """Goal: a turn lasts TURN_S and one message at the most; messages that are not handled stay in the batch.
    Method: expensive and cheap messages."""
    control = Control()
    assert control.turn([(HOSTILE, 0.015)] * 10) == 2
    assert control.turn([(HOSTILE, 0.5)] * 10) == 1
    assert control.turn([(HOSTILE, 0.0)] * 256) == 256


def test_turn_leaves_time_for_outputs() -> None:
    """Goal: where outputs take longer than messages, a turn has fewer messages.
    Method: messages of 1 ms whose outputs take 9 ms each."""
    control = Control()
    read = [control.turn([(HOSTILE, 0.001)] * 20, outputs_s=0.009 * (20 if first else 2)) for first in (True, False)]
    assert read == [20, 2]


def test_error_in_a_turn_is_charged() -> None:
    """Goal: a message that shows a bug of this program costs its sender time too.  Method: end the turn within it."""
    control = Control()
    turn = Turn(control.admission, control.now, lambda: control.cpu_s)
    turn.begin_message(HOSTILE)
    control.cpu_s += 2 * limits.CONNECTION_BURST_S
    turn.end()
    assert not control.admission.admits(HOSTILE, control.now)
    assert control.admission.pause_s(control.now) > 0


def test_tables_of_budgets_are_bounded() -> None:
    """Goal: connections and addresses fill no memory.  Method: more of both than the bound."""
    control = Control()
    for number in range(5000):
        control.admission.admits(Sender(number.to_bytes(4), str(number)), control.now)
    assert len(control.admission._connections) <= 2 * limits.NODES_MAX
    assert len(control.admission._addresses) <= 2 * limits.NODES_MAX
