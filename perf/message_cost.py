"""Cost of peers' messages: the time that control spends on each kind, outputs included.

Method: a real OverlayNode, forwarding table and publisher with shared memory, as control drives them, without sockets.
Each message is encoded first; then it is handled, and all outputs are carried out but sent nowhere.

    python -m perf.message_cost [--nodes 1000] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Iterator

from pipeline.address import ANY_SOURCE, NodeId
from pipeline.control.publish import Publisher
from pipeline.engines import replica
from pipeline.engines.nemo import messages as nemo
from pipeline.forwarding.route import RouteChanged
from pipeline.forwarding.table import ForwardingTable
from pipeline.keys.identity import Identity
from pipeline.messages import (
    AnyNodeMessage,
    DirectorySummary,
    DirectoryUpdate,
    EngineMessage,
    Header,
    Heartbeat,
    Hello,
    NodeRecord,
    encode_unsigned,
)
from pipeline.overlay import events
from pipeline.overlay.node import OverlayNode
from pipeline.overlay.node_config import NodeConfig
from pipeline.shm.region import Geometry, Region

PEER = 9
GROUP = bytes([239, 1, 1, 1])
ANY_SOURCE_VALUE = b"\x01"
"""Value of a group in a map of the engine mesh, for a member without a source filter."""


def record(node_id: NodeId, *, engine: str, version: int = 1) -> NodeRecord:
    """Return the record of an invented node."""
    return NodeRecord(
        node_id=node_id,
        name=f"n{node_id}",
        incarnation=1,
        version=version,
        addresses=((bytes([10, 77, node_id >> 8 & 0xFF, node_id & 0xFF]), 16),),
        endpoint=f"10.9.{node_id >> 8 & 0xFF}.{node_id & 0xFF}:4747",
        lanes=1,
        key_epoch=0,
        sender_key=bytes(32),
        engine=engine,
        explicit_addresses=False,
    )


class Control:
    """The cores of one control process, driven as control/process.py drives them."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.now = 100.0
        config = NodeConfig(
            name="a", identity=Identity.generate(), endpoint="10.8.0.1:4747", incarnation=1,
            sender_key=bytes(32), engine=engine,
            addresses=((bytes([10, 77, 255, 1]), 16),),
        )  # fmt: skip
        self.node = OverlayNode(config, random=random.Random(1).random, now=self.now)
        self.table = ForwardingTable()
        geometry = Geometry.of(
            lanes=1, mtu=1436, host_slots=64, overlay_slots=8, fib_entries=1 << 18, fib_buckets=1 << 16
        )
        self.region = Region.create(f"message-cost-{os.getpid()}", geometry)
        self.publisher = Publisher(self.region, self.node, ingress_bells=(), egress_bells=())
        self.publisher.publish_sender(self.node.record)
        self.node.start(self.now)
        self.node.join(GROUP, ANY_SOURCE, self.now)
        self.drain()

    def close(self) -> None:
        self.region.unlink()
        self.region.close()

    def handle(self, data: bytes) -> float:
        """Handle one message; return the CPU time that it took, in seconds."""
        self.now += 0.001
        began = time.thread_time()
        reason = self.node.handle_message("10.9.0.9", data, self.now)
        self.drain()
        took_s = time.thread_time() - began
        assert reason is None, reason
        return took_s

    def drain(self) -> None:
        while (event := self.node.poll_event()) is not None:
            match event:
                case RouteChanged():
                    self.table.set_route(event)
                case events.RecordChanged(record=changed, link=link):
                    self.table.set_link(changed.node_id, link)
                    self.publisher.publish_record(changed, link)
                case events.RecordGone(record=gone, link=link):
                    self.table.remove_link(gone.node_id)
                    self.publisher.remove_record(gone, link)
                case events.ProbingChanged(record=changed, link=link, is_probed=is_probed):
                    self.publisher.publish_link(changed, link, is_probed=is_probed)
                case events.PeerChanged(record=changed, is_up=up):
                    self.table.set_up(changed.node_id, up=up)
                case events.AddressOwnersChanged(owners=owners):
                    self.table.set_address_owners(owners, own=self.node.record.node_id)
                case _:
                    pass
        while (entry := self.table.poll_change()) is not None:
            self.publisher.publish_entry(entry)
        self.publisher.flush()
        while self.node.poll_transmit() is not None:
            pass


class Attacker:
    """Messages of one member to the node under measurement."""

    def __init__(self, control: Control) -> None:
        self._own = control.node.record
        self._engine = control.engine
        self._number = 0

    def hello(self, node_id: NodeId, *, dialled: str = "", version: int = 1, is_linked: bool = False) -> bytes:
        self._number += 1
        sent = record(node_id, engine=self._engine, version=version)
        acked = self._own.stamp if is_linked else None
        head = Header(sender=node_id, incarnation=1, endpoint=sent.endpoint)
        return encode_unsigned(Hello(number=self._number, record=sent, dialled=dialled, acked_stamp=acked, **head))

    def other(self, kind: type[AnyNodeMessage], **fields: object) -> bytes:
        return encode_unsigned(kind(sender=PEER, incarnation=1, endpoint=record(PEER, engine="").endpoint, **fields))  # type: ignore[arg-type]

    def heartbeat(self) -> bytes:
        self._number += 1
        stamp = self._own.stamp
        return self.other(Heartbeat, number=self._number, acked_stamp=stamp, directory_digest=bytes(8))

    def engine(self, body: object) -> bytes:
        return self.other(EngineMessage, engine=self._engine, body=nemo.encode(body))


def joins(count: int) -> Iterator[replica.Update]:
    """Yield the parts of a map that joins that many groups."""
    source = replica.ReplicaSource()
    for number in range(count):
        source.set(b"M" + b"\xee" + number.to_bytes(3, "big"), ANY_SOURCE_VALUE)
    yield from source.updates(replica.Pull(0, 0, anew=True))


def measure_session(engine: str, nodes: int) -> dict[str, list[float]]:
    """Measure the messages of sessions and directory."""
    control = Control(engine)
    attacker = Attacker(control)
    handle = control.handle
    costs = {"first Hello of the peer": [handle(attacker.hello(PEER, is_linked=True))]}
    ids = range(1000, 1000 + nodes)
    costs["Hello with a new record, to an endpoint"] = [
        handle(attacker.hello(each, dialled="10.8.0.1:4747")) for each in ids
    ]
    costs["the last 100 of them"] = costs["Hello with a new record, to an endpoint"][-100:]
    costs["Hello with a newer record, to an endpoint"] = [
        handle(attacker.hello(each, dialled="10.8.0.1:4747", version=2)) for each in ids[:200]
    ]
    costs["Hello with a newer record"] = [handle(attacker.hello(each, version=3)) for each in ids[:200]]
    costs["Hello that links its node"] = [handle(attacker.hello(each, version=3, is_linked=True)) for each in ids[:200]]
    costs["Hello in a full directory"] = [
        handle(attacker.hello(each, dialled="10.8.0.1:4747")) for each in range(5000, 5200)
    ]
    costs["Heartbeat"] = [handle(attacker.heartbeat()) for _ in range(500)]
    summary = attacker.other(DirectorySummary, entries=[(each, 0, 0) for each in ids], is_reply_requested=True)
    costs["DirectorySummary"] = [handle(summary) for _ in range(20)]
    control.close()
    control = Control(engine)
    costs["DirectoryUpdate with 256 new records"] = [
        control.handle(
            attacker.other(DirectoryUpdate, records=[record(each, engine=engine) for each in range(start, start + 256)])
        )
        for start in range(1000, 1768, 256)
    ]
    control.close()
    return costs


def measure_engines(groups: int) -> dict[str, list[float]]:
    """Measure the messages of the engines mesh and nemo."""
    control = Control("mesh")
    attacker = Attacker(control)
    control.handle(attacker.hello(PEER, is_linked=True))
    parts = list(joins(groups))
    taken = [control.handle(attacker.engine(each)) for each in parts]
    costs = {f"mesh Update, all of {groups} groups": [sum(taken)], "mesh Update, one message": taken}
    costs["mesh Advert"] = [control.handle(attacker.engine(replica.Advert(1, 1))) for _ in range(100)]
    for number in range(groups):
        control.node.join(b"\xef\x02" + number.to_bytes(2, "big"), ANY_SOURCE, control.now)
    control.drain()
    costs[f"mesh Pull of {groups} groups"] = [
        control.handle(attacker.engine(replica.Pull(0, 0, anew=True))) for _ in range(10)
    ]
    control.close()
    control = Control("nemo")
    attacker = Attacker(control)
    control.handle(attacker.hello(PEER, is_linked=True))
    costs["nemo Join"] = [control.handle(attacker.engine(nemo.Join(GROUP, 0, (), 0))) for _ in range(500)]
    costs["nemo Query"] = [control.handle(attacker.engine(nemo.Query(GROUP, 0, 0, 1))) for _ in range(500)]
    members: dict[int, tuple[int, ...]] = dict.fromkeys(range(1, 257), ())
    costs["nemo View with 256 members"] = [
        control.handle(attacker.engine(nemo.View(GROUP, 0, version, PEER, members, (), ())))
        for version in range(2, 202)
    ]
    control.close()
    return costs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000, help="invented nodes")
    parser.add_argument("--groups", type=int, default=65536, help="groups that a peer joins")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    found = measure_session("mesh", args.nodes) | measure_engines(args.groups)
    rows = {name: {"mean_us": 1e6 * sum(each) / len(each), "max_us": 1e6 * max(each)} for name, each in found.items()}
    if args.json:
        print(json.dumps(rows, indent=2))
        return
    for name, row in rows.items():
        print(f"{name:45} {row['mean_us']:10.0f} µs {row['max_us']:10.0f} µs")


if __name__ == "__main__":
    main()
