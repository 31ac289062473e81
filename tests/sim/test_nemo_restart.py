"""Goal: a node that is restarted while it sends is served as soon as it is linked, whoever keeps the group's entrance.

Method: members and a source on virtual time; the source ends, politely or not, starts again and sends on.
"""

from __future__ import annotations

import pytest

from pipeline.address import ANY_SOURCE, Address, parse
from pipeline.engines.nemo.engine import Nemo
from pipeline.sim.cluster import Cluster

STEP_S = 0.02


def group_of(cluster: Cluster, index: int) -> Address:
    """A group whose rendezvous is that host."""
    engine = cluster.hosts[0].node._engine
    assert isinstance(engine, Nemo)
    groups = (parse(f"239.1.1.{number}") for number in range(1, 255))
    return next(group for group in groups if engine._rendezvous.of(group) == cluster.hosts[index].node_id)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("end", ["stop", "crash"])
@pytest.mark.parametrize("rendezvous", [0, 1])
def test_a_source_is_restarted(rendezvous: int, end: str, seed: int) -> None:
    cluster = Cluster(6, seed=seed, engine="nemo")
    cluster.start()
    cluster.run_until_linked(limit_s=20)
    source, *members = cluster.hosts
    group = group_of(cluster, rendezvous)
    for host in members:
        host.join(group, ANY_SOURCE)
    source.send(group)
    cluster.run(5)
    getattr(source, end)()
    cluster.run(0.4)
    source.start()
    linked_at = served_at = None
    for step in range(100):
        packet = source.send(group)
        cluster.run(STEP_S)
        if linked_at is None and cluster.is_linked():
            linked_at = step
        if all(host.delivered[packet] for host in members):
            served_at = step
            break
    assert linked_at is not None
    assert served_at is not None
    assert (served_at - linked_at) * STEP_S < 0.2
