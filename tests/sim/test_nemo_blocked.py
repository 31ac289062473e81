"""Goal: two nodes of a cluster that do not reach each other trouble at most one of them, and all is well after; so it
is when some nodes were cut off.

Method: nemo on virtual time; the path between two nodes is cut in one direction or both for 30 s, or all paths between
some nodes and the rest for 8 s, while the source sends on; each member counts.
"""

from __future__ import annotations

import random

import pytest

from pipeline.address import ANY_SOURCE, parse
from pipeline.engines.nemo.engine import Nemo
from pipeline.sim.cluster import Cluster, Host
from pipeline.sim.host import endpoint_of
from pipeline.sim.netem import Impairment

GROUP = parse("239.1.1.1")
CUT = Impairment(loss=1.0)


def crew(cluster: Cluster) -> list[int]:
    """Indexes of the hosts that are the crew of the only cluster."""
    engine = cluster.hosts[0].node._engine
    assert isinstance(engine, Nemo)
    group = engine.group(GROUP)
    assert group is not None
    by_id = {host.node_id: index for index, host in enumerate(cluster.hosts)}
    return [by_id[node] for node in group.seats[0].crew]


def shares(cluster: Cluster, count: int) -> dict[Host, float]:
    """What share of so many packets, ten a second, each member gets."""
    source, *members = cluster.hosts
    packets = []
    for _ in range(count):
        packets.append(source.send(GROUP))
        cluster.run(0.1)
    cluster.run(1.0)
    return {host: sum(host.delivered[packet] for packet in packets) / count for host in members}


def under_way(size: int, seed: int, *, settled_s: float, apart_s: float = 0.05) -> Cluster:
    """An overlay in which all but the source have joined one after the other, and are found."""
    cluster = Cluster(size, seed=seed, engine="nemo")
    cluster.start()
    cluster.run_until_linked(limit_s=30)
    for host in cluster.hosts[1:]:
        host.join(GROUP, ANY_SOURCE)
        cluster.run(apart_s)
    cluster.hosts[0].send(GROUP)
    cluster.run(settled_s)
    return cluster


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("is_both_ways", [True, False])
@pytest.mark.parametrize(("one", "other"), [("leader", "member"), ("member", "leader"), ("leader", "crew")])
def test_a_blocked_path_harms_one_at_the_most(one: str, other: str, is_both_ways: bool, seed: int) -> None:
    cluster = under_way(8, seed, settled_s=5, apart_s=0.0)
    leading = crew(cluster)
    assert 0 not in leading
    ends = {"leader": leading[0], "crew": leading[1]}
    ends["member"] = next(index for index in range(1, 8) if index not in leading)
    paths = [(endpoint_of(ends[one]), endpoint_of(ends[other]))]
    for sender, receiver in paths + [path[::-1] for path in paths if is_both_ways]:
        cluster.network.impair(sender, receiver, CUT)
    harmed = [host for host, share in shares(cluster, 300).items() if share < 0.95]
    assert len(harmed) <= 1
    assert all(cluster.hosts.index(host) in ends.values() for host in harmed)
    for sender, receiver in paths:
        cluster.network.impair(sender, receiver, Impairment())
        cluster.network.impair(receiver, sender, Impairment())
    cluster.run(20)
    assert set(shares(cluster, 30).values()) == {1.0}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("size", "cut_off"), [(7, 1), (7, 3), (14, 1), (14, 4), (24, 8)])
def test_a_partition_ends(size: int, cut_off: int, seed: int) -> None:
    """Goal: the end of a partition costs those nothing that the source has reached, and the others a second or two."""
    cluster = under_way(size, seed, settled_s=15)
    island = random.Random(seed).sample(cluster.hosts[1:], cut_off)
    cluster.network.partition(
        [host.endpoint for host in island], [host.endpoint for host in cluster.hosts if host not in island]
    )
    apart = shares(cluster, 80)
    cluster.network.heal()
    at_once = shares(cluster, 20)
    assert all(at_once[host] == 1.0 for host, share in apart.items() if share == 1.0)
    assert set(shares(cluster, 100).values()) == {1.0}


@pytest.mark.parametrize("is_both_ways", [True, False])
def test_who_does_not_reach_the_leader_gets_another(is_both_ways: bool) -> None:
    """Goal: a member that does not reach the leader of the only cluster is served all the same, after some seconds."""
    cluster = under_way(8, 1, settled_s=5)
    leading = crew(cluster)
    engine = cluster.hosts[0].node._engine
    assert isinstance(engine, Nemo)
    entrance = engine._rendezvous.of(GROUP)
    blocked = next(i for i in range(1, 8) if i not in leading and cluster.hosts[i].node_id != entrance)
    path = (endpoint_of(blocked), endpoint_of(leading[0]))
    for sender, receiver in [path, path[::-1]][: 1 + is_both_ways]:
        cluster.network.impair(sender, receiver, CUT)
    others = {host: share for host, share in shares(cluster, 150).items() if host is not cluster.hosts[blocked]}
    assert set(others.values()) == {1.0}
    assert set(shares(cluster, 150).values()) == {1.0}


def test_all_leaders_die_at_once() -> None:
    """Goal: the clusters below find together again as soon as the leaders' links are down, not after their graces."""
    cluster = under_way(14, 1, settled_s=15)
    leaders = [host for host in cluster.hosts if len(host.node._engine.group(GROUP).seats) > 1]  # type: ignore[attr-defined]
    assert 2 <= len(leaders) <= 4
    assert cluster.hosts[0] not in leaders
    for host in leaders:
        host.crash()
    shares(cluster, 100)
    assert {share for host, share in shares(cluster, 100).items() if host not in leaders} == {1.0}
