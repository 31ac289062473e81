"""Goal: what a member says that lies lasts no longer than the member, and provokes no storm while it speaks.

Method: 20 nodes of one group on virtual time; one of them says a kind of lie to all others for 30 s, beside what its
engine says or in its place, forwards nothing, and vanishes.  Within REPAIR_S all others and a newcomer get every packet
of each other, and talk no more than before.
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
PARAMETERS = Options()
REPAIR_S = (rendezvous.GRACES + 1) * PARAMETERS.grace_s
"""Until the rendezvous believes in a root no more that is silent, and those below a silent leader have another."""
LIES_S = 30.0
STEP_S = 0.5


class Overlay:
    """Nodes of one group, the last of which is not there yet."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.cluster = Cluster(SIZE + 1, seed=seed, engine="nemo")
        *self.honest, self.newcomer = self.cluster.hosts
        self.cluster.start()
        self.newcomer.crash()
        for host in self.honest:
            host.join(GROUP, ANY_SOURCE)
        self.cluster.run(30)
        self.liar = self.honest[0]

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

    def stripe(self, liar: Host, *, is_deaf: bool) -> None:
        """One of them lies from now on, and forwards nothing."""
        self.liar = liar
        self.honest.remove(liar)
        liar._replicate = lambda *_args, **_options: None  # type: ignore[method-assign]
        if is_deaf:
            engine = self.engine(liar)
            engine.handle_message = lambda *_: None  # type: ignore[method-assign]
            engine.handle_timeout = lambda _: None  # type: ignore[method-assign]
            engine.poll_timeout = lambda: None  # type: ignore[method-assign]

    def lies(self, lie: Lie) -> None:
        """So it does, and vanishes."""
        for _ in range(int(LIES_S / STEP_S)):
            for host in self.honest:
                for message in lie(self, host):
                    self.engine(self.liar)._desk.send(host.node_id, message)
            self.liar.drain()
            self.cluster.run(STEP_S)
        self.liar.crash()

    def talked(self, seconds: float) -> float:
        """Messages in a second."""
        before = self.cluster.network.counters["sent"]
        self.cluster.run(seconds)
        return (self.cluster.network.counters["sent"] - before) / seconds

    def assert_whole(self) -> None:
        """Everybody gets all from everybody, in every turn."""
        packets = [(host, host.send(GROUP)) for _ in range(PARAMETERS.crew_size) for host in self.honest]
        self.cluster.run(1.0)
        lacking = {
            (a.name, b.name) for a, packet in packets for b in self.honest if a is not b and not b.delivered[packet]
        }
        assert not lacking


Lie: TypeAlias = Callable[[Overlay, Host], Iterator[Message]]


def usurps(overlay: Overlay, host: Host) -> Iterator[Message]:
    """I lead you all."""
    for layer in (0, 1):
        yield from views(overlay, host, layer, overlay.liar.node_id, version=messages.VERSION_SANE)


def makes_leaders(overlay: Overlay, host: Host) -> Iterator[Message]:
    """You lead them all."""
    yield from views(overlay, host, 0, host.node_id, version=messages.VERSION_SANE)


def makes_circles(overlay: Overlay, host: Host) -> Iterator[Message]:
    """The next one leads you."""
    ids = overlay.ids()
    after = ids[(ids.index(host.node_id) + 1) % len(ids)]
    yield from views(overlay, host, 0, after, version=version_of(overlay, host, 0) + 5)


def speaks_for_leaders(overlay: Overlay, host: Host) -> Iterator[Message]:
    """Your leader has nobody but you."""
    for layer, seat in overlay.group(host).seats.items():
        version = seat.version + (1 << 40)
        yield View(GROUP, layer, version, seat.leader, {seat.leader: (), host.node_id: ()}, (seat.leader,), ())


def claims_the_root(overlay: Overlay, _: Host) -> Iterator[Message]:
    """All begins with me."""
    yield RootReply(GROUP, overlay.liar.node_id)
    yield RootQuery(GROUP, overlay.liar.node_id, overlay.random.choice(overlay.ids()), messages.LAYERS_MAX - 1)


def sends_away(overlay: Overlay, host: Host) -> Iterator[Message]:
    """Whom you look for is elsewhere."""
    for layer in (0, 1):
        elsewhere = overlay.random.choice([*overlay.ids(), overlay.liar.node_id, 4242, 0])
        yield from views(overlay, host, layer, overlay.liar.node_id, version=version_of(overlay, host, layer) + 1)
        yield Redirect(GROUP, layer, elsewhere)


def is_only_silent(_: Overlay, __: Host) -> Iterator[Message]:
    """Nothing; it only forwards nothing."""
    return iter(())


def views(overlay: Overlay, host: Host, layer: int, leader: NodeId, *, version: int) -> Iterator[Message]:
    members = dict.fromkeys((leader, host.node_id, *overlay.ids()), ())
    yield View(GROUP, layer, version, leader, members, (leader,), ())


def version_of(overlay: Overlay, host: Host, layer: int) -> int:
    seat = overlay.group(host).seats.get(layer)
    return seat.version if seat is not None else 0


def is_member(overlay: Overlay, host: Host) -> bool:
    return not overlay.group(host).leads(0)


def is_root(overlay: Overlay, host: Host) -> bool:
    return overlay.group(host).is_root


@pytest.mark.parametrize(
    ("lie", "is_who"),
    [
        (usurps, is_member),
        (makes_leaders, is_root),
        (makes_circles, is_member),
        (speaks_for_leaders, is_root),
        (claims_the_root, is_member),
        (sends_away, is_root),
        (is_only_silent, is_member),
    ],
)
def test_a_lie_lasts_no_longer_than_the_liar(lie: Lie, is_who: Callable[[Overlay, Host], bool]) -> None:
    overlay = Overlay(seed=1)
    overlay.assert_whole()
    before = overlay.talked(20)
    liar = next(host for host in overlay.honest if is_who(overlay, host))
    overlay.stripe(liar, is_deaf=is_who is is_member)
    overlay.lies(lie)
    overlay.newcomer.start()
    overlay.newcomer.join(GROUP, ANY_SOURCE)
    overlay.honest.append(overlay.newcomer)
    overlay.cluster.run(REPAIR_S)
    assert overlay.talked(10) < 1.1 * before
    overlay.assert_whole()
