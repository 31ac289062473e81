"""Inbox: the turns in which control handles the messages of its peers.

    socket ──▶ admission ──admitted──▶ ┌ turn: messages ─▶ outputs ┐ ──▶ the time is charged to their senders
                    └─delayed──(due)─▶ └───────────────────────────┘

A turn lasts TURN_S and one message at the most.  Between two turns control serves its host: requests of the command
line and punts.  Delayed messages and new ones are handled in alternation, so that neither keep the others out.

This file knows neither what a message contains nor what its outputs are; budgets are in admission.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol

import zmq

from pipeline import limits
from pipeline.control.admission import PeerAdmission
from pipeline.control.delayed import Message, Sender
from pipeline.io.bus import Batch


class Turn:
    """Messages that are handled one after the other, before control serves something else.

    Call `begin_message` and `end_message` around each message, stop when `is_over`, and call `end` when the outputs
    have been carried out.
    """

    def __init__(self, admission: PeerAdmission, now: float, cpu_time: Callable[[], float], *, share: float) -> None:
        """`cpu_time` returns the CPU time that control has used, in seconds.

        `share` is the part of the turn that may be spent on messages, as outputs need the rest.
        """
        self._admission = admission
        self._now = now
        self._cpu_time = cpu_time
        self._share = share
        self._began = self._at = cpu_time()
        self._sender: Sender | None = None
        self._costs: dict[Sender, float] = {}

    @property
    def is_over(self) -> bool:
        """True if the turn will last for TURN_S with its outputs."""
        return self._at - self._began >= limits.TURN_S * self._share

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

    def end(self) -> float:
        """Charge the outputs to the senders, by their shares of the turn, and the whole turn to all peers.

        Returns the share of the turn that was spent on messages.
        """
        if self._sender is not None:  # an error in a core ended the turn
            self.end_message()
        ended = self._cpu_time()
        handled_s = sum(self._costs.values())
        for sender, cost_s in self._costs.items():
            self._admission.charge(sender, (ended - self._at) * cost_s / handled_s, self._now)
        self._admission.charge_all(ended - self._began, self._now)
        return (self._at - self._began) / (ended - self._began) if ended > self._began else 1.0


class Timers(Protocol):
    """Event loop, as far as an inbox uses it."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back after a delay in seconds."""


class Inbox:
    """Messages of peers from the sockets to the overlay node."""

    def __init__(
        self,
        admission: PeerAdmission,
        *,
        handle: Callable[[Message, float], str | None],
        carry_out: Callable[[float], None],
        timers: Timers,
        clock: Callable[[], float],
        cpu_time: Callable[[], float],
    ) -> None:
        """`handle` takes a message and returns the reason if it violates the protocol.

        `carry_out` carries out the outputs of all messages of a turn.
        """
        self._admission = admission
        self._handle = handle
        self._carry_out = carry_out
        self._timers = timers
        self._clock = clock
        self._cpu_time = cpu_time
        self._timer: asyncio.TimerHandle | None = None
        self._handling_share = 1.0
        """Share of the last turn that was spent on messages."""

    def pause_s(self) -> float:
        """Return the time for which no messages may be read."""
        return self._admission.pause_s(self._clock())

    def handle_batch(self, key_number: int, batch: Batch) -> None:
        """Handle messages that came by the network key of that number for one turn; the others stay in the batch."""
        self._take_turn(_read(frames, key_number) for frames in batch)

    def _handle_delayed(self) -> None:
        self._timer = None
        if self.pause_s() == 0:
            self._take_turn(iter(()))
        else:
            self._set_timer()

    def _take_turn(self, received: Iterator[Message]) -> None:
        now = self._clock()
        turn = Turn(self._admission, now, self._cpu_time, share=self._handling_share)
        try:
            for message in self._admitted(received, now):
                turn.begin_message(message.sender)
                reason = self._handle(message, now)
                if reason is not None:
                    self._admission.cut_off(message.sender, reason)
                turn.end_message()
                if turn.is_over:
                    break
            self._carry_out(now)
        finally:
            self._handling_share = turn.end()
            self._set_timer()

    def _admitted(self, received: Iterator[Message], now: float) -> Iterator[Message]:
        """Take messages that may be handled now, delayed ones and received ones in alternation."""
        admitted = (message for message in received if self._admission.admits(message, now))
        delayed = iter(lambda: self._admission.take_delayed(now), None)
        sources = [delayed, admitted]
        while sources:
            source = sources.pop(0)
            message = next(source, None)
            if message is not None:
                sources.append(source)
                yield message

    def _set_timer(self) -> None:
        """Set the timer for delayed messages."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._admission.delayed_due()
        if due is not None:
            now = self._clock()
            delay_s = max(0.0, due - now, self._admission.pause_s(now))
            self._timer = self._timers.call_later(delay_s, self._handle_delayed)


def _read(frames: list[zmq.Frame], key_number: int) -> Message:
    """Return the message in frames of a ROUTER; the first is the connection."""
    identity, *parts = frames
    address = str(parts[-1].get("Peer-Address")) if parts else ""
    return Message(Sender(identity.bytes, address), key_number, parts)
