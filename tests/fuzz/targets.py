"""Fuzz targets of the Python side: every parser, and the cores as a whole.

A target takes any bytes.  It returns, or raises an error that its callers expect; any other exception is a finding.
Where there is a builder, a parsed message is built again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from pipeline import limits, messages
from pipeline.config import MembershipConfig
from pipeline.errors import WireError
from pipeline.membership.router import MembershipRouter
from pipeline.messages import EngineMessage, Greeting, SignedRecord
from pipeline.overlay import records
from pipeline.overlay.node import OverlayNode
from pipeline.overlay.node_config import NodeConfig
from pipeline.shm.links_keys import read_endpoint
from pipeline.wire import igmp, ip, mld
from tests.fuzz import nemo, overlay_node
from tests.unit.overlay_net import Forger, identity_of

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
    """Decode the bytes as a message of protocol 1, as a frame of protocol 2 and as a message in it."""
    with contextlib.suppress(WireError):
        message = messages.decode_unsigned(data)
        assert messages.decode_unsigned(messages.encode_unsigned(message)) == message
    with contextlib.suppress(WireError):
        frame = messages.decode_frame(data)
        assert messages.decode_frame(messages.encode_frame(frame)) == frame
    with contextlib.suppress(WireError):
        content = messages.decode_message(data)
        assert content is None or messages.decode_message(messages.encode_message(content)) == content


def _local_message(data: bytes) -> None:
    with contextlib.suppress(WireError):
        messages.encode_local(messages.decode_local(data))


def _endpoint(data: bytes) -> None:
    if len(data) >= 28:  # C passes at least this
        read_endpoint(data)


def new_node() -> tuple[OverlayNode, Forger]:
    """Return a node with one linked peer, and that peer."""
    node = new_node_without_peers()
    node.start(0.0)
    peer = Forger("b", at="192.0.2.7:4747", incarnation=5, addresses=((bytes([10, 77, 0, 7]), 16),))
    assert peer.hello(node, now=0.1) is None
    return node, peer


def _node(data: bytes) -> None:
    """Send the bytes to the overlay's control plane in each form in which a peer can.

    As they are, in place of a content, as the body of an engine message, and as the body of the peer's record.
    """
    node, peer = new_node()
    node.handle_message("192.0.2.7", data, 0.2)
    node.handle_message("192.0.2.7", peer.seal_bytes(node, data), 0.2)
    peer.send(node, EngineMessage(engine="mesh", body=data, **peer.header()), 0.3)
    signed = SignedRecord(data[: limits.RECORD_BYTES_MAX], peer.envelopes.signer.sign(records.PURPOSE, data))
    node.handle_message("192.0.2.7", messages.encode_frame(Greeting(signed)), 0.4)
    node.handle_timeout(5.0)
    _drain(node)


def _record(data: bytes) -> None:
    """Verify the bytes as a record of the peer, and sign it again."""
    peer = Forger("b")
    signer = peer.envelopes.signer
    record = records.verify(SignedRecord(data, signer.sign(records.PURPOSE, data)), signer)
    if record is not None and messages.is_usable(record):
        again = records.verify(records.on_wire(records.sign(record, signer), has_keys=False), signer)
        assert again is not None
        assert (again.stamp, again.name, again.endpoint) == (record.stamp, record.name, record.endpoint)


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
    config = NodeConfig(
        name="a", endpoint="192.0.2.1:4747", incarnation=1, identity=identity_of("a"), sender_key=bytes(32)
    )
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
    "record": _record,
}
