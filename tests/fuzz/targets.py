"""Fuzz targets of the Python side: every parser, and the cores as a whole.

A target takes any bytes.  It returns, or raises an error that its callers expect; any other exception is a finding.
Where there is a builder, a parsed message is built again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import msgspec

from pipeline import messages
from pipeline.config import MembershipConfig
from pipeline.errors import WireError
from pipeline.membership.router import MembershipRouter
from pipeline.messages import Hello, NodeRecord
from pipeline.overlay.node import NodeConfig, OverlayNode
from pipeline.shm.links_keys import moved_endpoint
from pipeline.wire import igmp, ip, mld
from tests.fuzz import nemo, overlay_node

SOURCE, GROUP = bytes.fromhex("fe80000000000000" + "00" * 7 + "01"), bytes.fromhex("ff02" + "00" * 13 + "16")
DRAINS_MAX = 10_000
"""Outputs of a core for one input; more of them are a finding, too."""


def _ip(data: bytes) -> None:
    with contextlib.suppress(WireError):
        parsed = ip.parse(data)
        assert len(parsed.source) == len(parsed.destination)


def _igmp(data: bytes) -> None:
    with contextlib.suppress(WireError):
        message = igmp.parse(data)
        if message is not None:
            igmp.build(message)


def _mld(data: bytes) -> None:
    with contextlib.suppress(WireError):
        message = mld.parse(data, source=SOURCE, destination=GROUP)
        if message is not None:
            mld.build(message, source=SOURCE, destination=GROUP)


def _node_message(data: bytes) -> None:
    with contextlib.suppress(WireError):
        message = messages.decode_node(data)
        assert messages.decode_node(messages.encode_node(message)) == message


def _local_message(data: bytes) -> None:
    with contextlib.suppress(WireError):
        messages.encode_local(messages.decode_local(data))


def _endpoint(data: bytes) -> None:
    if len(data) >= 28:  # C passes at least this
        moved_endpoint(data)


def new_node() -> OverlayNode:
    """Return a node with one linked peer."""
    node = OverlayNode(
        NodeConfig(name="a", endpoint="192.0.2.1:4747", incarnation=1, sender_key=bytes(32)),
        random=lambda: 0.5,
        now=0.0,
    )
    node.start(0.0)
    record = NodeRecord(
        node_id=7,
        name="b",
        incarnation=5,
        version=1,
        addresses=((bytes([10, 77, 0, 7]), 16),),
        endpoint="192.0.2.7:4747",
        lanes=1,
        key_epoch=0,
        sender_key=bytes(32),
        engine="mesh",
        explicit_addresses=False,
    )
    hello = Hello(
        sender=7, incarnation=5, endpoint="192.0.2.7:4747", number=1, record=record, acked_stamp=node.record.stamp
    )
    assert node.handle_message("192.0.2.7", messages.encode_node(hello), 0.1) is None
    return node


def _node(data: bytes) -> None:
    """Send the bytes to the overlay's control plane, as a message of a peer and as the body of an engine message."""
    node = new_node()
    node.handle_message("192.0.2.7", data, 0.2)
    envelope = {"type": "engine", "sender": 7, "incarnation": 5, "endpoint": "", "engine": "mesh", "body": data}
    node.handle_message("192.0.2.7", b"\x01" + msgspec.msgpack.encode(envelope), 0.3)
    node.handle_timeout(5.0)
    _drain(node)


def _drain(node: OverlayNode) -> None:
    for _ in range(DRAINS_MAX):
        if node.poll_event() is None and node.poll_transmit() is None:
            return
    raise AssertionError("one message causes too many outputs")


def _membership(data: bytes) -> None:
    """Send the bytes to the membership router, as a packet of a local program."""
    v4 = bytes([10, 77, 255, 254])
    router = MembershipRouter(MembershipConfig(), querier_v4=v4, querier_v6=SOURCE, mtu=1436, now=0.0)
    router.start(0.0)
    router.handle_packet(data, 0.1)
    router.groups(0.2)
    router.restore(router.snapshot(0.3), 0.4)


def _snapshots(data: bytes) -> None:
    """Restore the bytes as a checkpoint, which a process may have written in part."""
    with contextlib.suppress(ValueError):
        new_node_without_peers().restore(data, 0.0)


def new_node_without_peers() -> OverlayNode:
    config = NodeConfig(name="a", endpoint="192.0.2.1:4747", incarnation=1, sender_key=bytes(32))
    return OverlayNode(config, random=lambda: 0.5, now=0.0)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "ip": _ip,
    "igmp": _igmp,
    "mld": _mld,
    "node_message": _node_message,
    "local_message": _local_message,
    "endpoint": _endpoint,
    "node": _node,
    "membership": _membership,
    "snapshot": _snapshots,
    **overlay_node.TARGETS,
    **nemo.TARGETS,
}
