"""Goal: after any failures, once the network is quiet, every member gets every packet of every source exactly once.

Method: hypothesis writes a script of joins, leaves, sources, crashes, restarts, partitions and bad networks for a
cluster of the daemon's own cores on virtual time.  Every engine must have the same properties: delivery once, no loops
(no host sees a packet twice), no packets at hosts that have left, and no state of groups that have ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline import engines
from pipeline.address import ANY_SOURCE, parse
from pipeline.sim.cluster import Cluster, Host
from pipeline.sim.host import endpoint_of
from pipeline.sim.netem import Impairment

GROUPS = [parse("239.1.1.1"), parse("ff15::1")]
SIZE = 6
BAD = Impairment(delay_s=0.01, jitter_s=0.03, loss=0.2, duplicate=0.2, reorder=0.3, reorder_s=0.2)
GOOD = Impairment(delay_s=0.005)
PACKETS = 6


@dataclass(frozen=True)
class Conduct:
    """Permissions of an engine."""

    floods: bool = False
    """True if packets may reach hosts that are not members, which drop them."""
    quiet_s: float = 35.0
    """Time after which everything must work again: sessions call a peer that was away every 30 s at least."""


CONDUCT = {"mesh": Conduct(), "flood": Conduct(floods=True), "nemo": Conduct(quiet_s=90.0)}

Step: TypeAlias = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "join", "leave", "send", "crash", "start", "part", "heal", "bad", "good", "wait"]),
        st.integers(0, SIZE - 1),
        st.integers(0, 3),
    ),
    max_size=25,
)


def test_every_installed_engine_has_a_conduct() -> None:
    """Goal: no installed engine is left out.  Method: the names of CONDUCT and of the entry points."""
    assert set(CONDUCT) == set(engines.names())


def play(cluster: Cluster, steps: list[Step]) -> set[tuple[str, bytes]]:
    """Run the script, and return the memberships at its end as (host, group)."""
    members: set[tuple[str, bytes]] = set()
    for verb, index, number in steps:
        host, group = cluster.hosts[index], GROUPS[number % len(GROUPS)]
        match verb:
            case "join" if host.is_running:
                host.join(group, ANY_SOURCE)
                members.add((host.name, group))
            case "leave" if host.is_running:
                host.leave(group)
                members.discard((host.name, group))
            case "send" if host.is_running:
                host.send(group)
            case "crash" if host.is_running:
                host.crash()
                members -= {(host.name, each) for each in GROUPS}
            case "start" if not host.is_running:
                host.start()
            case "part":
                cluster.network.partition([endpoint_of(each) for each in range(1 + index % (SIZE - 1))])
            case "heal":
                cluster.network.heal()
            case "bad" | "good":
                cluster.network.impairment = BAD if verb == "bad" else GOOD
            case _:
                cluster.run(0.1 * 6**number)
        cluster.run(0.05)
    return members


def settle(cluster: Cluster, conduct: Conduct) -> None:
    cluster.network.heal()
    cluster.network.impairment = GOOD
    cluster.run(conduct.quiet_s)
    assert cluster.is_linked()


def announce_sources(cluster: Cluster, senders: list[Host], conduct: Conduct) -> None:
    """Send a first packet to each group, which registers its source, before the packets that count."""
    for sender in senders:
        for group in GROUPS:
            sender.send(group)
    cluster.run(conduct.quiet_s)


def check_delivery(cluster: Cluster, members: set[tuple[str, bytes]], conduct: Conduct) -> None:
    running = [host for host in cluster.hosts if host.is_running]
    announce_sources(cluster, running, conduct)
    before = [dict(host.drops) for host in cluster.hosts]
    for sender in running:
        for group in GROUPS:
            for _ in range(PACKETS):
                packet = sender.send(group)
                cluster.run(0.2)
                for host in running:
                    expected = host is not sender and (host.name, group) in members
                    assert host.delivered[packet] == expected, f"{sender.name} to {host.name}, {packet}"
    allowed = {"no_route"} | ({"no_entry"} if conduct.floods else set())
    for host, drops in zip(cluster.hosts, before, strict=True):
        new = {reason for reason, count in host.drops.items() if count > drops.get(reason, 0)}
        assert new <= allowed, f"{host.name} drops {new}: a loop, a second path, or a packet without members"


def check_nothing_remains(cluster: Cluster, conduct: Conduct) -> None:
    """Check that no route remains after all members have left and all sources have ended."""
    for host in cluster.hosts:
        if host.is_running:
            for group in GROUPS:
                host.leave(group)
                host.node.deregister_source(group, cluster.clock.now)
                host.drain()
    cluster.run(conduct.quiet_s)
    for host in cluster.hosts:
        if host.is_running:
            assert not [key for key in host.fib if key.group in GROUPS], host.name
            assert not set(host.node.groups()) & set(GROUPS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", engines.names())
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(steps=STEPS, seed=st.integers(0, 1000))
def test_delivery_exactly_once_after_any_failures(engine: str, steps: list[Step], seed: int) -> None:
    """Goal: as above.
    Method: a random script; then packets from every host to every group, and the state after all leaves."""
    cluster = Cluster(SIZE, seed=seed, impairment=GOOD, engine=engine)
    cluster.start(spread_s=0.5)
    members = play(cluster, steps)
    conduct = CONDUCT[engine]
    settle(cluster, conduct)
    check_delivery(cluster, members, conduct)
    check_nothing_remains(cluster, conduct)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", engines.names())
def test_delivery_exactly_once_to_twenty_members(engine: str) -> None:
    """Goal: the same with more nodes than one cluster of nemo has.  Method: 19 members, three sources, no failures."""
    cluster = Cluster(20, seed=1, impairment=GOOD, engine=engine)
    cluster.start(spread_s=2)
    members = set()
    for host in cluster.hosts[:-1]:
        host.join(GROUPS[0], ANY_SOURCE)
        members.add((host.name, GROUPS[0]))
        cluster.run(0.2)
    conduct = CONDUCT[engine]
    cluster.run(conduct.quiet_s)
    senders = [cluster.hosts[0], cluster.hosts[11], cluster.hosts[-1]]
    announce_sources(cluster, senders, conduct)
    duplicates = sum(host.drops["duplicate"] for host in cluster.hosts)
    for sender in senders:
        for _ in range(PACKETS):
            packet = sender.send(GROUPS[0])
            cluster.run(0.5)
            missed = [host.name for host in cluster.hosts[:-1] if host is not sender and host.delivered[packet] != 1]
            assert not missed, f"{sender.name}"
    assert sum(host.drops["duplicate"] for host in cluster.hosts) == duplicates
