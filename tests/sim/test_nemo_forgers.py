"""Goal: the effect of forged messages ends with the member that sends them, and they cause no storm of messages.

Method: 20 nodes of one group on virtual time.  One of them sends one kind of forgery to all others for 30 s, together
with its engine's messages or in their place, forwards nothing, and vanishes.  Within REPAIR_S all others and a newcomer
receive every packet of each other, and send no more messages than before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from pipeline.address import ANY_SOURCE, NodeId, parse
from pipeline.engines.nemo import messages, rendezvous
from pipeline.engines.nemo.engine import Nemo
from pipeline.engines.nemo.group import Group
from pipeline.engines.nemo.messages import Message, Redirect, RootQuery, RootReply, View
from pipeline.engines.nemo.options import Options
from pipeline.sim.cluster import Cluster, Host

GROUP = parse("239.1.2.3")
SIZE = 20
OPTIONS = Options()
REPAIR_S = (rendezvous.ROOT_GRACES + 1) * OPTIONS.grace_s
"""Time until the registration of a silent root has expired, and a silent leader has been replaced."""
SETTLE_S = 40.0
"""Time until all nodes have joined and no cluster of these seeds splits any more."""
FORGERY_S = 30.0
STEP_S = 0.5


class Overlay:
    """Nodes of one group; the last one joins later."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.cluster = Cluster(SIZE + 1, seed=seed, engine="nemo")
        *self.honest, self.newcomer = self.cluster.hosts
        self.cluster.start()
        self.newcomer.crash()
        for host in self.honest:
            host.join(GROUP, ANY_SOURCE)
        self.cluster.run(SETTLE_S)
        self.forger = self.honest[0]

    def engine(self, host: Host) -> Nemo:
        engine = host.node._engine
        assert isinstance(engine, Nemo)
        return engine

    def group(self, host: Host) -> Group:
        group = self.engine(host).group(GROUP)
        assert group is not None
        return group

    def ids(self) -> list[NodeId]:
        return [host.node_id for host in self.honest]

    def take_over(self, forger: Host, *, is_deaf: bool) -> None:
        """Make a node the forger: it forwards nothing, and if it is deaf its engine does nothing."""
        self.forger = forger
        self.honest.remove(forger)
        forger._replicate = lambda *_args, **_options: None  # type: ignore[method-assign]
        if is_deaf:
            engine = self.engine(forger)
            engine.handle_message = lambda *_: None  # type: ignore[method-assign]
            engine.handle_timeout = lambda _: None  # type: ignore[method-assign]
            engine.poll_timeout = lambda: None  # type: ignore[method-assign]

    def forge(self, forgery: Forgery) -> None:
        """Send the forgeries for a while, then let the forger vanish."""
        for _ in range(int(FORGERY_S / STEP_S)):
            for host in self.honest:
                for message in forgery(self, host):
                    self.engine(self.forger)._context.send(host.node_id, message)
            self.forger.drain()
            self.cluster.run(STEP_S)
        self.forger.crash()

    def message_rate(self, seconds: float) -> float:
        """Return messages per second of the whole overlay, measured for some seconds."""
        before = self.cluster.network.counters["sent"]
        self.cluster.run(seconds)
        return (self.cluster.network.counters["sent"] - before) / seconds

    def assert_whole(self) -> None:
        """Assert that every node receives the packets of every other one, in every stripe."""
        packets = [(host, host.send(GROUP)) for _ in range(OPTIONS.crew_size) for host in self.honest]
        self.cluster.run(1.0)
        missing = {
            (a.name, b.name) for a, packet in packets for b in self.honest if a is not b and not b.delivered[packet]
        }
        assert not missing


Forgery: TypeAlias = Callable[[Overlay, Host], Iterator[Message]]


def claim_all_leads(overlay: Overlay, host: Host) -> Iterator[Message]:
    """Views in which the forger leads all nodes."""
    for layer in (0, 1):
        yield from views(overlay, host, layer, overlay.forger.node_id, version=messages.VERSION_SANE)


def appoint_every_node(overlay: Overlay, host: Host) -> Iterator[Message]:
    """Views in which each receiver leads all nodes."""
    yield from views(overlay, host, 0, host.node_id, version=messages.VERSION_SANE)


def lead_in_circles(overlay: Overlay, host: Host) -> Iterator[Message]:
    """Views in which the next node leads each receiver."""
    ids = overlay.ids()
    after = ids[(ids.index(host.node_id) + 1) % len(ids)]
    yield from views(overlay, host, 0, after, version=version_of(overlay, host, 0) + 5)


def forge_views_of_leaders(overlay: Overlay, host: Host) -> Iterator[Message]:
    """Views in the name of each receiver's leader, with no other member."""
    for layer, each in overlay.group(host).hierarchy.memberships.items():
        version = each.version + (1 << 40)
        yield View(GROUP, layer, version, each.leader, {each.leader: (), host.node_id: ()}, (each.leader,), ())


def claim_the_root(overlay: Overlay, _: Host) -> Iterator[Message]:
    """Replies and registrations in which the forger is the root."""
    yield RootReply(GROUP, overlay.forger.node_id)
    yield RootQuery(GROUP, overlay.forger.node_id, overlay.random.choice(overlay.ids()), messages.LAYERS_MAX - 1)


def redirect_everywhere(overlay: Overlay, host: Host) -> Iterator[Message]:
    """Views of the forger, then redirects to random nodes."""
    for layer in (0, 1):
        elsewhere = overlay.random.choice([*overlay.ids(), overlay.forger.node_id, 4242, 0])
        yield from views(overlay, host, layer, overlay.forger.node_id, version=version_of(overlay, host, layer) + 1)
        yield Redirect(GROUP, layer, elsewhere)


def forge_nothing(_: Overlay, __: Host) -> Iterator[Message]:
    """No message: the forger only forwards nothing."""
    return iter(())


def views(overlay: Overlay, host: Host, layer: int, leader: NodeId, *, version: int) -> Iterator[Message]:
    members = dict.fromkeys((leader, host.node_id, *overlay.ids()), ())
    yield View(GROUP, layer, version, leader, members, (leader,), ())


def version_of(overlay: Overlay, host: Host, layer: int) -> int:
    membership = overlay.group(host).hierarchy.memberships.get(layer)
    return membership.version if membership is not None else 0


def is_member(overlay: Overlay, host: Host) -> bool:
    return not overlay.group(host).hierarchy.leads(0)


def is_root(overlay: Overlay, host: Host) -> bool:
    return overlay.group(host).hierarchy.is_root


def overlay_with(has_role: Callable[[Overlay, Host], bool]) -> tuple[Overlay, Host]:
    """Return the first overlay with a node of that role; n0 has to stay, as the newcomer has no other seed."""
    overlays = (Overlay(seed) for seed in range(1, 9))
    return next((each, host) for each in overlays for host in each.honest[1:] if has_role(each, host))


@pytest.mark.parametrize(
    ("forgery", "has_role"),
    [
        (claim_all_leads, is_member),
        (appoint_every_node, is_root),
        (lead_in_circles, is_member),
        (forge_views_of_leaders, is_root),
        (claim_the_root, is_member),
        (redirect_everywhere, is_root),
        (forge_nothing, is_member),
    ],
)
def test_forgery_lasts_no_longer_than_its_sender(forgery: Forgery, has_role: Callable[[Overlay, Host], bool]) -> None:
    overlay, forger = overlay_with(has_role)
    overlay.assert_whole()
    before = overlay.message_rate(20)
    overlay.take_over(forger, is_deaf=has_role is is_member)
    overlay.forge(forgery)
    overlay.newcomer.start()
    overlay.newcomer.join(GROUP, ANY_SOURCE)
    overlay.honest.append(overlay.newcomer)
    overlay.cluster.run(REPAIR_S)
    assert overlay.message_rate(10) < 1.1 * before
    overlay.assert_whole()
