"""Fuzz target: a member that knows the network key sends anything to a node that has links, routes and shared memory.

A script is a row of frames: one byte kind, two bytes length, and bytes that are

    0   a message between nodes              1   a body for the engine, from a peer whose link is up
    2   such a body from another peer        3   ignored: their number is the time that passes

Whatever is sent, the node raises nothing, its outputs end, and honest nodes can decode all of them, as they would cut
it off otherwise.  Its decisions are written to real shared memory.
"""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from pipeline import messages
from pipeline.address import ANY_SOURCE, parse
from pipeline.control.publish import Publisher
from pipeline.engines.nemo import messages as nemo_messages
from pipeline.engines.replica import Advert, Pull, Update
from pipeline.forwarding.route import RouteChanged
from pipeline.forwarding.table import ForwardingTable
from pipeline.messages import DirectorySummary, DirectoryUpdate, EngineMessage, Goodbye, Heartbeat, Hello, NodeRecord
from pipeline.overlay import events
from pipeline.overlay.node import NodeConfig, OverlayNode
from pipeline.shm.region import Geometry, Region

GROUP = parse("239.1.2.3")
PEERS = (7, 9)
FRAMES_MAX = 32
DRAINS_MAX = 10_000
"""An input that causes more outputs than this is a finding too."""
STEP_S = 1 / 64
INTERESTING = (0, 1, 7, 9, 255, 256, (1 << 32) - 1, 1 << 32, (1 << 53) - 1, 1 << 53, (1 << 62) - 1, (1 << 63) - 1)


# ---------------------------------------------------------------- the node under test


def record_of(number: int, engine: str) -> NodeRecord:
    """Return the record of a peer."""
    return NodeRecord(
        node_id=number,
        name=f"n{number}",
        incarnation=5,
        version=1,
        addresses=((bytes([10, 77, 0, number]), 16),),
        endpoint=f"192.0.2.{number}:4747",
        lanes=1,
        key_epoch=0,
        sender_key=bytes([number]) * 32,
        engine=engine,
        explicit_addresses=False,
    )


class NodeUnderTest:
    """A node with two linked peers, which is a member and a source of a group, and the work of control for it."""

    def __init__(self, engine: str) -> None:
        self.now = 0.0
        self.node = OverlayNode(
            NodeConfig(
                name="a", endpoint="192.0.2.1:4747", incarnation=1, sender_key=bytes(32), engine=engine,
            ),
            random=random.Random(1).random,
            now=0.0,
        )  # fmt: skip
        self.table = ForwardingTable()
        self.publisher = Publisher(_region(), self.node, ingress_bells=(), egress_bells=())
        self.node.start(0.0)
        self.node.join(GROUP, ANY_SOURCE, 0.0)
        self.node.register_source(GROUP, 0.0)
        for number in PEERS:
            record = record_of(number, engine)
            head = messages.Header(sender=number, incarnation=5, endpoint=record.endpoint)
            hello = Hello(number=1, record=record, acked_stamp=self.node.record.stamp, **head)
            assert self.node.handle_message("", messages.encode_node(hello), 0.1) is None
        self.pass_time(3.0)

    def receive(self, data: bytes) -> None:
        """Receive a message, with any sender in it."""
        self.node.handle_message("192.0.2.7", data, self.now)
        self.drain()

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        for _ in range(DRAINS_MAX):
            due = self.node.poll_timeout()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.node.handle_timeout(self.now)
            self.drain()
        else:
            raise AssertionError("timeouts without end")
        self.now = end

    def drain(self) -> None:
        """Drain the node as control does, and publish its decisions."""
        for _ in range(DRAINS_MAX):
            event = self.node.poll_event()
            if event is None:
                break
            self._take(event)
        else:
            raise AssertionError("events without end after one message")
        while (entry := self.table.poll_change()) is not None:
            self.publisher.publish_entry(entry)
        self.publisher.flush()
        for _ in range(DRAINS_MAX):
            if (transmit := self.node.poll_transmit()) is None:
                return
            message = messages.decode_node(transmit[1])
            if isinstance(message, EngineMessage) and message.engine == "nemo":
                nemo_messages.decoder.decode(message.body)
        raise AssertionError("messages without end after one message")

    def _take(self, event: events.NodeEvent) -> None:
        match event:
            case RouteChanged():
                self.table.set_route(event)
            case events.RecordChanged(record=record, link=link):
                self.table.set_link(record.node_id, link)
                self.publisher.publish_record(record, link)
            case events.RecordGone(record=record, link=link):
                self.table.remove_link(record.node_id)
                self.publisher.remove_record(record, link)
            case events.PeerChanged(record=record, link=link, is_up=is_up):
                self.table.set_up(record.node_id, up=is_up)
                self.publisher.publish_link(record, link, up=is_up)
            case events.AddressOwnersChanged(owners=owners):
                self.table.set_address_owners(owners, own=self.node.record.node_id)
            case events.Notice(text=text):
                assert text.isprintable()
            case _:
                pass

    def remove_records(self) -> None:
        """Remove the records from shared memory, which all runs share."""
        for link in self.node.links():
            if link.node_id is not None and link.link is not None:
                record = next(each for each in self.node.records() if each.node_id == link.node_id)
                self.publisher.remove_record(record, link.link)


@functools.cache
def _region() -> Region:
    geometry = Geometry.of(lanes=1, mtu=1436, host_slots=64, overlay_slots=8, fib_entries=1024, fib_buckets=256)
    region = Region.create(f"fuzz-{os.getpid()}", geometry)
    region.unlink()
    return region


def run_script(engine: str, data: bytes) -> None:
    """Run a script; a finding raises."""
    under_test = NodeUnderTest(engine)
    for kind, body in frames(data):
        match kind % 4:
            case 0:
                under_test.receive(body)
            case 3:
                under_test.pass_time(len(body) * STEP_S)
            case number:
                under_test.receive(engine_message(PEERS[number - 1], engine, body))
    under_test.pass_time(3.0)
    successor = OverlayNode(
        NodeConfig(name="a", endpoint="192.0.2.1:4747", incarnation=1, sender_key=bytes(32), engine=engine),
        random=random.Random(1).random,
        now=under_test.now,
    )
    successor.restore(under_test.node.snapshot(under_test.now), under_test.now)
    under_test.remove_records()


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    f"overlay_node_{engine}": functools.partial(run_script, engine) for engine in ("mesh", "nemo", "flood")
}


# ---------------------------------------------------------------- scripts


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the frames of a script as (kind, body)."""
    at = 0
    for _ in range(FRAMES_MAX):
        if at + 3 > len(data):
            return
        length = data[at + 1] << 8 | data[at + 2]
        yield data[at], data[at + 3 : at + 3 + length]
        at += 3 + length


def frame(kind: int, body: bytes) -> bytes:
    """Return the bytes of a frame."""
    body = body[:0xFFFF]
    return bytes([kind]) + len(body).to_bytes(2) + body


def engine_message(sender: int, engine: str, body: bytes) -> bytes:
    """Return a message between nodes that carries this body for the engine."""
    head = messages.Header(sender=sender, incarnation=5, endpoint=f"192.0.2.{sender}:4747")
    return messages.encode_node(EngineMessage(engine=engine, body=body, **head))


def bodies() -> list[bytes]:
    """Return a body of each kind that an engine decodes."""
    own = NodeUnderTest("nemo").node.record.node_id
    crew, members = (7, own), {7: (7, 9), own: (own,), 9: ()}
    nemo = [
        nemo_messages.RootQuery(GROUP, 7, 9, 2),
        nemo_messages.RootQuery(GROUP, 0, 0, 0),
        nemo_messages.RootReply(GROUP, 7),
        nemo_messages.RootReply(GROUP, 0),
        nemo_messages.Query(GROUP, 0, 0, 1),
        nemo_messages.Query(GROUP, 0, 1, 2),
        nemo_messages.Blocked(GROUP, 9),
        nemo_messages.Answer(GROUP, 0, 1, [7, 9, own], 1),
        nemo_messages.Join(GROUP, 0, crew, 9),
        nemo_messages.Leave(GROUP, 0, 9, crew),
        *(nemo_messages.View(GROUP, layer, 3, leader, members, crew, (9,)) for layer in (0, 1) for leader in (7, own)),
        nemo_messages.View(GROUP, 0, 9, 7, {7: (), own: ()}, (7,), ()),
        nemo_messages.Redirect(GROUP, 0, 9),
        nemo_messages.Heartbeat(GROUP, 0, 7, 3, crew, 5.0, 4.0, 1.0, {9: 3.0}),
        nemo_messages.Heartbeat(GROUP, 0, own, 3, crew, 5.0, 4.0, 1.0, {9: 3.0}),
        nemo_messages.Source(GROUP, 9, 3),
        nemo_messages.Nack(GROUP, own, (1, 2, 3), 9),
        nemo_messages.NackReply(GROUP, own, (1, 2, 3), crew, is_circular=False),
    ]
    sources = parse("10.77.0.9") + parse("10.77.0.7")
    mesh = [
        Update(0, 2, 0, 0, [(b"M" + GROUP, b"\1"), (b"P" + GROUP, b"")]),
        Update(0, 3, 1, 3, [(b"M" + GROUP, b"\0" + sources)]),
        Update(3, 4, 0, 0, [(b"M" + GROUP, None)]),
        Advert(2, 12345),
        Pull(0, 0, anew=True),
    ]
    return [msgspec.msgpack.encode(each) for each in (*nemo, *mesh)]


def node_messages() -> list[bytes]:
    """Return a message of each kind, from a peer, some with the record of the receiver."""
    own, record = NodeUnderTest("mesh").node.record, record_of(7, "mesh")
    head = messages.Header(sender=7, incarnation=5, endpoint="192.0.2.7:4747")
    newer = msgspec.structs.replace(record, version=2, second_epoch=1, second_key=bytes(32))
    kinds: list[messages.AnyNodeMessage] = [
        Hello(number=2, record=newer, acked_stamp=own.stamp, dialled="192.0.2.1:4747", **head),
        Hello(number=3, record=newer, acked_stamp=None, dialled_by_peer="192.0.2.1:4747", **head),
        Heartbeat(number=4, acked_stamp=own.stamp, directory_digest=bytes(8), **head),
        Goodbye(number=5, **head),
        DirectorySummary(entries=[(7, 5, 1), (8, 1, 1), (own.node_id, 1, 9)], is_reply_requested=True, **head),
        DirectoryUpdate(records=[own, record_of(11, "mesh"), record_of(9, "nemo")], **head),
    ]
    return [messages.encode_node(each) for each in kinds]


def scripts(rng: random.Random) -> Iterator[bytes]:
    """Yield scripts of well-formed messages with changed values, without end."""
    whole, known = node_messages(), bodies()
    while True:
        row = []
        for _ in range(rng.choice((1, 2, 4, 8))):
            kind = rng.randrange(4)
            if kind == 3:
                row.append(frame(3, bytes(rng.choice((8, 64, 200)))))
            elif kind:
                row.append(frame(kind, _twist(rng, rng.choice(known))))
            else:
                chosen = rng.choice(whole)
                row.append(frame(0, chosen[:1] + _twist(rng, chosen[1:])))
        yield b"".join(row)


def seeds() -> list[bytes]:
    """Return a script for each message, unchanged, with time after it."""
    late = frame(3, bytes(200))
    return [frame(0, message) + late for message in node_messages()] + [
        frame(kind, body) + late for body in bodies() for kind in (1, 2)
    ]


def twisted_script(rng: random.Random, data: bytes) -> bytes:
    """Return the script with one message changed or sent twice; unchanged if it holds none that can be decoded."""
    row = list(frames(data))
    if not row:
        return data
    at = rng.randrange(len(row))
    kind, body = row[at]
    head = body[:1] if kind % 4 == 0 else b""
    try:
        new = kind, head + _twist(rng, body[len(head) :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError, TypeError):
        new = kind, body  # bytes of the fuzzer that are no message
    row[at : at + rng.randrange(2)] = [new]
    return b"".join(frame(*each) for each in row)


def _twist(rng: random.Random, data: bytes) -> bytes:
    """Return the message with a few of its values changed, its form kept."""
    value = msgspec.msgpack.decode(data, strict=False)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        value = _changed(rng, value)
    return msgspec.msgpack.encode(value)


def _changed(rng: random.Random, value: Any) -> Any:
    """Return the value with one value in it changed."""
    match value:
        case dict() if value:
            key = rng.choice(list(value))
            return value | {key: _changed(rng, value[key])}
        case list() if value:
            at = rng.randrange(len(value))
            new = list(value)
            if rng.random() < 0.2:
                new[at:at] = [value[at]] * rng.choice((1, 2, 300))
            elif rng.random() < 0.1:
                del new[at]
            else:
                new[at] = _changed(rng, value[at])
            return new
        case bool():
            return not value
        case int():
            return rng.choice((*INTERESTING, value + 1, value + (1 << 20), rng.getrandbits(32)))
        case float():
            return rng.choice((0.0, 1e9, value + 1))
        case str():
            return rng.choice(("", "b", "nemo", "x" * 63, "192.0.2.9:4747", "0.0.0.0:1", "[::]:1", "\x1b[2J", "n7"))
        case bytes():
            return rng.choice((b"", value[:-1], value + b"\0", rng.randbytes(len(value)), GROUP, b"M" + GROUP))
        case _:
            return rng.choice((0, b"", "", [], {}, None))
