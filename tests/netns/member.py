"""A member with a modified program: it has the network key and an identity, and sends what a test says.

The messages are made by the forger of the unit tests, and travel over the control port, as those of a node do.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import zmq

from pipeline import limits, messages
from pipeline.io import bus
from pipeline.keys.file import load_network_key
from pipeline.lab.instance import Instance
from pipeline.lab.netns import Host
from pipeline.lab.programs import wait_until
from pipeline.messages import AnyNodeMessage, Greeting, NodeRecord, SealedMessage
from pipeline.overlay import records
from tests.netns.forger import ECHO, PROBE, PROBE_SPACE, SenderKey
from tests.unit.overlay_net import Forger

PORT = 4999


class Member:
    """Context manager: the modified program on a host."""

    def __init__(self, host: Host, key: Path | None, *, name: str = "modified", **fields: Any) -> None:
        """Use the network key in the file `key`, or none; `fields` are those of its record."""
        self.host = host
        self.endpoint = f"{host.underlay}:{PORT}"
        clock_ms = time.time_ns() // 1_000_000
        self.forger = Forger(name, at=self.endpoint, incarnation=clock_ms, is_sealing=key is not None, **fields)
        self.records: dict[str, NodeRecord] = {}
        """Records of the nodes that it has met, and of those that they have reported, by name."""
        self._curve = bus.derive_curve_keys(load_network_key(key)) if key else None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._echoes = 0
        self._senders: dict[str, zmq.Socket[bytes]] = {}
        self._sockets: list[zmq.Socket[bytes]] = []

    def __enter__(self) -> Self:
        with self.host.enter():  # ZeroMQ's threads stay in the network in which the first socket is made
            listener = socket.create_server((self.host.underlay, PORT))
            self._inbox = bus.peer_receiver(self._context, listener.detach(), self.endpoint, self._curve, bus.DOMAIN)
            self._sockets.append(self._inbox)
            self._data = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._data.bind((self.host.underlay, PORT))
            self._data.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()
        for sock in self._sockets:
            sock.close(linger=0)
        self._context.term()

    def connect(self, target: Instance) -> zmq.Socket[bytes]:
        """Return a new connection to a node, over which messages can be sent."""
        with self.host.enter():
            sender = bus.peer_sender(self._context, f"{target.host.underlay}:{limits.PORT}", self._curve)
        self._sockets.append(sender)
        wait_until(lambda: sender.poll(0, zmq.POLLOUT), 10, f"{self.host} is connected to {target}")
        return sender

    def send(self, target: Instance, data: bytes) -> None:
        """Send bytes to a node, over the connection that it keeps to it."""
        if target.name not in self._senders:
            self._senders[target.name] = self.connect(target)
        wait_until(lambda: bus.send(self._senders[target.name], data), 3, f"{target} receives a message")

    def seal(self, target: Instance, message: AnyNodeMessage) -> bytes:
        """Return a message sealed for a node that it has met."""
        return self.forger.seal(SimpleNamespace(record=self.records[target.name]), message)

    def meet(self, target: Instance, *, acknowledges: bool = True) -> None:
        """Become a peer of a node; `acknowledges`: its link is up then."""
        self.send(target, self.forger.envelopes.greeting(self.forger.record, f"{target.host.underlay}:{limits.PORT}"))
        wait_until(lambda: self.read() or target.name in self.records, 3, f"{target} replies to {self.host}")
        stamp = self.records[target.name].stamp if acknowledges else None
        header = self.forger.header()
        hello = messages.Hello(number=self.forger.number + 1, record=self.forger.record, acked_stamp=stamp, **header)
        self.send(target, self.seal(target, hello))

    def answer_probes(self, target: Instance) -> int:
        """Answer the probes of a node that it has met; return their number."""
        keys = self.forger.envelopes.probe_keys(self.forger.record, self.records[target.name])
        own, theirs = (SenderKey(self.forger.record.node_id, 0, 1, key) for key in keys)
        count = 0
        while True:
            try:
                probe, endpoint = self._data.recvfrom(2048)
            except BlockingIOError:
                return count
            if probe[0] & 0xF == PROBE:
                count += 1
                self._echoes += 1
                self._data.sendto(own.datagram(ECHO, PROBE_SPACE, self._echoes, theirs.body_of(probe)), endpoint)

    def read(self) -> None:
        """Take the messages that have arrived, and remember the records in them, with their keys."""
        while self._inbox.poll(0):
            frame = messages.decode_frame(self._inbox.recv_multipart()[-1])
            if isinstance(frame, Greeting):
                self._note(frame.record)
            elif isinstance(frame, SealedMessage):
                if frame.record is not None:
                    self._note(frame.record)
                sender = next((each for each in self.records.values() if each.node_id == frame.sender), None)
                content = sender and self.forger.envelopes.open(self.forger.record, sender, frame)
                for each in content.records if content else ():
                    self._note(each)

    def _note(self, signed: messages.SignedRecord) -> None:
        record = records.verify(signed, self.forger.envelopes.signer)
        assert record is not None, "nodes forward records as they were signed"
        held = self.records.get(record.name)
        if held is None or held.stamp <= record.stamp:
            keyed = records.with_keys(record, (signed.sender_key, signed.second_key)) or record
            self.records[record.name] = records.with_endpoint_seen(keyed, signed.seen)
