"""Goal: a restarted source reaches all members as soon as it is linked, whichever node is the rendezvous.

Method: members and a source on virtual time; the source stops or crashes, starts again and continues to send.
"""

from __future__ import annotations

import pytest

from pipeline.address import ANY_SOURCE, Address, parse
from pipeline.engines.nemo.engine import Nemo
from pipeline.sim.cluster import Cluster

STEP_S = 0.02


def group_of(cluster: Cluster, index: int) -> Address:
    """Return a group whose rendezvous is the host with this index."""
    engine = cluster.hosts[0].node._engine
    assert isinstance(engine, Nemo)
    groups = (parse(f"239.1.1.{number}") for number in range(1, 255))
    return next(group for group in groups if engine._rendezvous.node_for(group) == cluster.hosts[index].node_id)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("end", ["stop", "crash"])
@pytest.mark.parametrize("rendezvous", [0, 1])
def test_restarted_source_reaches_all_members_once_linked(rendezvous: int, end: str, seed: int) -> None:
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
    linked_at = received_at = None
    for step in range(100):
        packet = source.send(group)
        cluster.run(STEP_S)
        if linked_at is None and cluster.is_linked():
            linked_at = step
        if all(host.delivered[packet] for host in members):
            received_at = step
            break
    assert linked_at is not None
    assert received_at is not None
    assert (received_at - linked_at) * STEP_S < 0.2
