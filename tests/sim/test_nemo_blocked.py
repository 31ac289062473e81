"""Goal: two nodes of a cluster that do not reach each other harm at most one of them, and a partition leaves no damage.

Method: nemo on virtual time.  The path between two nodes is cut in one direction or both for 30 s, or all paths between
some nodes and the rest for 8 s, while the source sends; each member counts what it receives.
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
    """Return the indexes of the hosts that are the crew of the only cluster."""
    engine = cluster.hosts[0].node._engine
    assert isinstance(engine, Nemo)
    group = engine.group(GROUP)
    assert group is not None
    by_id = {host.node_id: index for index, host in enumerate(cluster.hosts)}
    return [by_id[node] for node in group.hierarchy.memberships[0].crew]


def is_leader(host: Host) -> bool:
    """Return whether the host leads a cluster, so that it has more than one membership."""
    engine = host.node._engine
    assert isinstance(engine, Nemo)
    group = engine.group(GROUP)
    return group is not None and len(group.hierarchy.memberships) > 1


def send_and_measure(cluster: Cluster, count: int) -> dict[Host, float]:
    """Send packets, ten a second.  Return the share that each member receives."""
    source, *members = cluster.hosts
    packets = []
    for _ in range(count):
        packets.append(source.send(GROUP))
        cluster.run(0.1)
    cluster.run(1.0)
    return {host: sum(host.delivered[packet] for packet in packets) / count for host in members}


def joined_cluster(size: int, seed: int, *, settled_s: float, apart_s: float = 0.05) -> Cluster:
    """Return an overlay in which all hosts but the source have joined one after the other, and the source has sent."""
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
def test_blocked_path_harms_at_most_one_of_its_ends(one: str, other: str, is_both_ways: bool, seed: int) -> None:
    cluster = joined_cluster(8, seed, settled_s=5, apart_s=0.0)
    leading = crew(cluster)
    assert 0 not in leading
    ends = {"leader": leading[0], "crew": leading[1]}
    ends["member"] = next(index for index in range(1, 8) if index not in leading)
    paths = [(endpoint_of(ends[one]), endpoint_of(ends[other]))]
    for sender, receiver in paths + [path[::-1] for path in paths if is_both_ways]:
        cluster.network.impair(sender, receiver, CUT)
    harmed = [host for host, share in send_and_measure(cluster, 300).items() if share < 0.95]
    assert len(harmed) <= 1
    assert all(cluster.hosts.index(host) in ends.values() for host in harmed)
    for sender, receiver in paths:
        cluster.network.impair(sender, receiver, Impairment())
        cluster.network.impair(receiver, sender, Impairment())
    cluster.run(20)
    assert set(send_and_measure(cluster, 30).values()) == {1.0}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("size", "cut_off"), [(7, 1), (7, 3), (14, 1), (14, 4), (24, 8)])
def test_partition_leaves_no_damage(size: int, cut_off: int, seed: int) -> None:
    """Goal: after a partition, members that the source reached lose nothing, and the others at most two seconds."""
    cluster = joined_cluster(size, seed, settled_s=15)
    island = random.Random(seed).sample(cluster.hosts[1:], cut_off)
    cluster.network.partition(
        [host.endpoint for host in island], [host.endpoint for host in cluster.hosts if host not in island]
    )
    apart = send_and_measure(cluster, 80)
    cluster.network.heal()
    at_once = send_and_measure(cluster, 20)
    assert all(at_once[host] == 1.0 for host, share in apart.items() if share == 1.0)
    assert set(send_and_measure(cluster, 100).values()) == {1.0}


@pytest.mark.parametrize("is_both_ways", [True, False])
def test_member_that_cannot_reach_the_leader_is_served(is_both_ways: bool) -> None:
    """Goal: a member that cannot reach the leader of the only cluster receives the stream again after some seconds."""
    cluster = joined_cluster(8, 1, settled_s=5)
    leading = crew(cluster)
    engine = cluster.hosts[0].node._engine
    assert isinstance(engine, Nemo)
    rendezvous = engine._rendezvous.node_for(GROUP)
    blocked = next(i for i in range(1, 8) if i not in leading and cluster.hosts[i].node_id != rendezvous)
    path = (endpoint_of(blocked), endpoint_of(leading[0]))
    for sender, receiver in [path, path[::-1]][: 1 + is_both_ways]:
        cluster.network.impair(sender, receiver, CUT)
    others = {
        host: share for host, share in send_and_measure(cluster, 150).items() if host is not cluster.hosts[blocked]
    }
    assert set(others.values()) == {1.0}
    assert set(send_and_measure(cluster, 150).values()) == {1.0}


def test_clusters_survive_the_death_of_all_leaders() -> None:
    """Goal: the clusters below are joined again once the leaders' links are down, before the grace period ends."""
    cluster = joined_cluster(14, 1, settled_s=15)
    leaders = [host for host in cluster.hosts if is_leader(host)]
    assert 2 <= len(leaders) <= 4
    assert cluster.hosts[0] not in leaders
    for host in leaders:
        host.crash()
    send_and_measure(cluster, 100)
    assert {share for host, share in send_and_measure(cluster, 100).items() if host not in leaders} == {1.0}
