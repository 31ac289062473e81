"""Fuzz target: members with identities send anything to a node that has links, routes and shared memory.

A script is a row of frames: one byte kind, two bytes length, and bytes that are

    0   a message between nodes, as it is       4   a content that a peer has sealed for the node
    1   a body for the engine, of a peer        5   a record, signed by its owner, in a report of the peer
        whose link is up                        6   a record, signed by its owner, in a Greeting and a Hello of it
    2   such a body of another peer             7   a message of protocol 1
    3   ignored: their number is the time
        that passes

Whatever is sent, the node raises nothing, its outputs end, and honest nodes can open and decode all of them, as they
would cut it off otherwise.  Its decisions are written to real shared memory.
"""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from pipeline import messages
from pipeline.address import ANY_SOURCE, derive_node_id, parse
from pipeline.control.publish import Publisher
from pipeline.engines.nemo import messages as nemo_messages
from pipeline.engines.replica import Advert, Pull, Update
from pipeline.forwarding.route import RouteChanged
from pipeline.forwarding.table import ForwardingTable
from pipeline.messages import (
    Content,
    DirectorySummary,
    DirectoryUpdate,
    EngineMessage,
    Goodbye,
    Greeting,
    Heartbeat,
    Hello,
    Refusal,
    RefusalReason,
    Revocations,
    SealedMessage,
)
from pipeline.overlay import events, records
from pipeline.overlay.node import OverlayNode
from pipeline.overlay.node_config import NodeConfig
from pipeline.shm.region import Geometry, Region
from tests.unit.overlay_net import Forger, identity_of, key_of

GROUP = parse("239.1.2.3")
NAMES = ("n7", "n9")
"""Names of the peers."""
OWNERS = {identity_of(name).public_key: name for name in ("a", *NAMES, "n11")}
"""Nodes that sign what a script says, the node under test included, as a clone of it would."""
PEERS = tuple(derive_node_id(identity_of(name).public_key, 0) for name in NAMES)
KINDS = 8
FRAMES_MAX = 32
DRAINS_MAX = 10_000
"""An input that causes more outputs than this is a finding too."""
STEP_S = 1 / 64
INTERESTING = (
    0, 1, *PEERS, 255, 256, (1 << 32) - 1, 1 << 32, (1 << 53) - 1, 1 << 53, (1 << 62) - 1, (1 << 63) - 1,
)  # fmt: skip


# ---------------------------------------------------------------- the node under test


def peer_of(name: str, engine: str) -> Forger:
    """Return a member with a modified program."""
    number = int(name.removeprefix("n"))
    addresses = ((bytes([10, 77, 0, number]), 16),)
    return Forger(name, at=f"192.0.2.{number}:4747", incarnation=5, addresses=addresses, engine=engine)


def config_of(engine: str) -> NodeConfig:
    """Return the configuration of the node under test."""
    return NodeConfig(
        name="a", endpoint="192.0.2.1:4747", incarnation=1, identity=identity_of("a"), sender_key=bytes(32),
        engine=engine,
    )  # fmt: skip


class NodeUnderTest:
    """A node with two linked peers, which is a member and a source of a group, and the work of control for it."""

    def __init__(self, engine: str) -> None:
        self.now = 0.0
        self.engine = engine
        self.node = OverlayNode(config_of(engine), random=random.Random(1).random, now=0.0)
        self.table = ForwardingTable()
        self.publisher = Publisher(_region(), self.node, ingress_bells=(), egress_bells=())
        self.node.start(0.0)
        self.node.join(GROUP, ANY_SOURCE, 0.0)
        self.node.register_source(GROUP, 0.0)
        self.peers = [peer_of(name, engine) for name in NAMES]
        self.owners = {"a": Forger("a"), "n11": peer_of("n11", engine)} | dict(zip(NAMES, self.peers, strict=True))
        """Members by the name in their first record."""
        for peer in self.peers:
            assert peer.hello(self.node, now=0.1) is None
        self.pass_time(3.0)

    def receive(self, data: bytes) -> None:
        """Receive a message, with any sender in it."""
        self.node.handle_message("192.0.2.7", data, self.now)
        self.drain()

    def receive_engine(self, peer: Forger, body: bytes) -> None:
        """Receive a body for the engine from a peer."""
        self.receive(peer.seal(self.node, EngineMessage(engine=self.engine, body=body, **peer.header())))

    def receive_record(self, body: bytes, *, is_report: bool) -> None:
        """Receive a record that its owner has signed; from then on its owner is the node that it describes."""
        owner, signature = signed(body)
        record = records.verify(messages.SignedRecord(body, signature), identity_of(owner))
        if record is None:  # no record of any form: no honest node reports it
            frame = Greeting(messages.SignedRecord(body[:4096], signature))
            self.receive(messages.encode_frame(frame))
            return
        record = records.with_keys(record, (key_of(owner), b"")) or record
        if is_report:
            update = DirectoryUpdate(records=[record], **self.peers[0].header())
            self.receive(self.peers[0].seal(self.node, update))
            return
        sender = self.owners[owner]
        sender.record = record
        self.receive(sender.envelopes.greeting(record, "192.0.2.1:4747"))
        hello = Hello(number=sender.number, record=record, acked_stamp=self.node.record.stamp, **sender.header())
        self.receive(sender.seal(self.node, hello))

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
            self._read(transmit[1])
        raise AssertionError("messages without end after one message")

    def _read(self, data: bytes) -> None:
        """Read a message of the node as its receiver does."""
        if messages.protocol_of(data) == messages.UNSIGNED_PROTOCOL:
            message: messages.AnyNodeMessage | None = messages.decode_unsigned(data)
        else:
            frame = messages.decode_frame(data)
            attached = frame.record
            if attached is not None:
                record = verified(attached)
                assert record is not None and messages.is_usable(record), "the node's own record"
            message = self._open(frame) if isinstance(frame, SealedMessage) else None
        if isinstance(message, EngineMessage) and message.engine == "nemo":
            nemo_messages.decoder.decode(message.body)

    def _open(self, frame: SealedMessage) -> messages.AnyNodeMessage | None:
        """Open a message for one of the peers, as long as both are those that have exchanged keys."""
        own = self.node.record
        for peer in self.peers:
            record = peer.record
            ends = own.node_id, own.incarnation, record.node_id, record.incarnation
            if (frame.sender, frame.incarnation, frame.receiver, frame.receiver_incarnation) != ends:
                continue
            content = peer.envelopes.open(record, own, frame)
            assert content is not None, "the peer can open it"
            for each in content.records:
                reported = verified(each)
                assert reported is not None
                assert not each.sender_key or records.with_keys(reported, (each.sender_key, each.second_key))
            return messages.decode_message(content.message)
        return None

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
            case events.ProbingChanged(record=record, link=link, is_probed=is_probed):
                self.publisher.publish_link(record, link, is_probed=is_probed)
                if is_probed:
                    self.node.handle_echo(record.node_id, self.now)
            case events.PeerChanged(record=record, is_up=is_up):
                self.table.set_up(record.node_id, up=is_up)
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


@functools.lru_cache(maxsize=1024)
def verified(signed_record: messages.SignedRecord) -> messages.NodeRecord | None:
    """Return the record without keys, as a receiver verifies it."""
    return records.verify(signed_record, identity_of("a"))


def signed(body: bytes) -> tuple[str, bytes]:
    """Return the name of a record's owner and its signature of these bytes."""
    try:
        key = msgspec.msgpack.decode(body).get("public_key")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, AttributeError, ValueError):
        key = b""
    owner = OWNERS.get(key, "n11") if isinstance(key, bytes) else "n11"
    return owner, identity_of(owner).sign(records.PURPOSE, body)


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
        match kind % KINDS:
            case 0:
                under_test.receive(body)
            case 1 | 2 as number:
                under_test.receive_engine(under_test.peers[number - 1], body)
            case 3:
                under_test.pass_time(len(body) * STEP_S)
            case 4:
                under_test.receive(under_test.peers[0].seal_bytes(under_test.node, body))
            case 5 | 6 as number:
                under_test.receive_record(body, is_report=number == 5)
            case _:
                under_test.receive(bytes([messages.UNSIGNED_PROTOCOL]) + body)
    under_test.pass_time(3.0)
    successor = OverlayNode(config_of(engine), random=random.Random(1).random, now=under_test.now)
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


def bodies() -> list[bytes]:
    """Return a body of each kind that an engine decodes."""
    own = NodeUnderTest("nemo").node.record.node_id
    one, two = PEERS
    crew, members = (one, own), {one: (one, two), own: (own,), two: ()}
    nemo = [
        nemo_messages.RootQuery(GROUP, one, two, 2),
        nemo_messages.RootQuery(GROUP, 0, 0, 0),
        nemo_messages.RootReply(GROUP, one),
        nemo_messages.RootReply(GROUP, 0),
        nemo_messages.Query(GROUP, 0, 0, 1),
        nemo_messages.Query(GROUP, 0, 1, 2),
        nemo_messages.Blocked(GROUP, two),
        nemo_messages.Answer(GROUP, 0, 1, [one, two, own], 1),
        nemo_messages.Join(GROUP, 0, crew, two),
        nemo_messages.Leave(GROUP, 0, two, crew),
        *(nemo_messages.View(GROUP, layer, 3, each, members, crew, (two,)) for layer in (0, 1) for each in (one, own)),
        nemo_messages.View(GROUP, 0, 9, one, {one: (), own: ()}, (one,), ()),
        nemo_messages.Redirect(GROUP, 0, two),
        nemo_messages.Heartbeat(GROUP, 0, one, 3, crew, 5.0, 4.0, 1.0, {two: 3.0}),
        nemo_messages.Heartbeat(GROUP, 0, own, 3, crew, 5.0, 4.0, 1.0, {two: 3.0}),
        nemo_messages.Source(GROUP, two, 3),
        nemo_messages.Nack(GROUP, own, (1, 2, 3), two),
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


def node_messages() -> list[tuple[int, bytes]]:
    """Return a frame of each kind of message, from peers and from a node of protocol 1, some with records of others."""
    under_test = NodeUnderTest("mesh")
    own, peer = under_test.node.record, under_test.peers[0]
    record, head = peer.record, peer.header()
    other = Forger("n11", at="192.0.2.11:4747")
    second = msgspec.structs.replace(record, version=2, second_epoch=1, second_key=key_of("n7"))
    known = [own, other.record, under_test.peers[1].record]
    greeted = other.envelopes.greeting(other.record, own.endpoint)
    unsigned: messages.Header = {"sender": 11, "incarnation": 5, "endpoint": "192.0.2.11:4747"}
    old = msgspec.structs.replace(records.unsigned(other.record), node_id=11, incarnation=5, name="old")
    hello = Hello(number=1, record=old, acked_stamp=own.stamp, dialled="192.0.2.1:4747", **unsigned)
    kinds: list[messages.AnyNodeMessage] = [
        Hello(number=2, acked_stamp=own.stamp, dialled="192.0.2.1:4747", **head),
        Hello(number=3, acked_stamp=None, dialled_by_peer="192.0.2.1:4747", **head),
        Heartbeat(number=4, acked_stamp=own.stamp, directory_digest=bytes(8), **head),
        Goodbye(number=5, **head),
        DirectorySummary(entries=[(PEERS[0], 5, 1), (8, 1, 1), (own.node_id, 1, 9)], is_reply_requested=True, **head),
        DirectoryUpdate(**head),
        *(Refusal(reason=reason, detail="expired", **head) for reason in RefusalReason),
        Revocations(revocation_list=b"list", **head),
        EngineMessage(engine="mesh", body=b"", **head),
    ]
    older: list[messages.AnyNodeMessage] = [
        hello,
        Heartbeat(number=4, acked_stamp=own.stamp, directory_digest=bytes(8), **unsigned),
        DirectoryUpdate(records=[old, records.unsigned(own)], **unsigned),
        DirectorySummary(entries=[(11, 5, 1), (8, 1, 1)], is_reply_requested=True, **unsigned),
        Goodbye(number=5, **unsigned),
        Goodbye(number=5, **head),
    ]
    attached = [records.on_wire(each, has_keys=True) for each in known]
    contents = [Content(msgspec.Raw(messages.encode_message(each)), attached) for each in kinds]
    bodies_of_records = [records.sign(each, identity_of(each.name)).body for each in (*known, second)]
    return [
        (0, greeted),
        (0, peer.envelopes.greeting(record, "")),
        (0, peer.seal(under_test.node, kinds[0])),
        *((4, msgspec.msgpack.encode(each)) for each in contents),
        *((kind, body) for body in bodies_of_records for kind in (5, 6)),
        *((7, messages.encode_unsigned(each)[1:]) for each in older),
    ]


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
                kind, body = rng.choice(whole)
                row.append(frame(kind, _twisted_body(rng, kind, body)))
        yield b"".join(row)


def seeds() -> list[bytes]:
    """Return a script for each message, unchanged, with time after it."""
    late = frame(3, bytes(200))
    return [frame(*each) + late for each in node_messages()] + [
        frame(kind, body) + late for body in bodies() for kind in (1, 2)
    ]


def _twisted_body(rng: random.Random, kind: int, body: bytes) -> bytes:
    """Return the bytes of a frame with a few values changed; a message as it is begins with a byte of its own."""
    head = body[:1] if kind % KINDS == 0 else b""
    return head + _twist(rng, body[len(head) :])


def twisted_script(rng: random.Random, data: bytes) -> bytes:
    """Return the script with one message changed or sent twice; unchanged if it holds none that can be decoded."""
    row = list(frames(data))
    if not row:
        return data
    at = rng.randrange(len(row))
    kind, body = row[at]
    try:
        new = kind, _twisted_body(rng, kind, body)
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
