"""Goal: control planes agree after any failures; then each member gets each packet exactly once, other hosts none.

Method: clusters of the daemon's own cores on virtual time.  The network loses, doubles and reorders messages, and is
partitioned; packets follow the forwarding entries.  Every run has one of a few fixed seeds.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pipeline import limits
from pipeline.address import ANY_SOURCE, Address, FilterMode, SourceFilter, derive_addresses, include, parse
from pipeline.overlay.events import NoticeKind
from pipeline.sim.cluster import Cluster, Host
from pipeline.sim.host import endpoint_of
from pipeline.sim.netem import Impairment

GROUPS = [parse("239.1.1.1"), parse("239.1.1.2"), parse("ff15::1"), parse("232.1.1.1")]
BAD = Impairment(delay_s=0.01, jitter_s=0.03, loss=0.2, duplicate=0.2, reorder=0.3, reorder_s=0.2)
GOOD = Impairment()
SEEDS = [1, 2, 3]

Filters = dict[tuple[str, Address], SourceFilter]
"""Source filters of members by (host name, group)."""


def started(size: int, *, seed: int = 1, impairment: Impairment = GOOD, **options: object) -> Cluster:
    cluster = Cluster(size, seed=seed, impairment=impairment, **options)  # type: ignore[arg-type]
    cluster.start()
    cluster.run_until_linked(limit_s=20)
    return cluster


def join(host: Host, group: Address, sources: SourceFilter, filters: Filters) -> None:
    host.join(group, sources)
    filters[host.name, group] = sources


def leave(host: Host, group: Address, filters: Filters) -> None:
    host.leave(group)
    filters.pop((host.name, group), None)


def check_delivery(cluster: Cluster, filters: Filters, groups: list[Address] = GROUPS) -> None:
    """Send a packet from each host to each group over a clean network, and check its delivery at every host."""
    cluster.network.impairment = GOOD
    cluster.run(0.5)
    before = sum((host.drops for host in cluster.hosts), start=type(cluster.hosts[0].drops)())
    running = [host for host in cluster.hosts if host.is_running]
    for sender in running:
        for group in groups:
            packet = sender.send(group)
            cluster.run(0.01)
            source = next(each for each, _ in sender.node.record.addresses if len(each) == len(group))
            for host in running:
                sources = filters.get((host.name, group))
                expected = host is not sender and sources is not None and sources.accepts(source)
                assert host.delivered[packet] == expected, f"{sender.name} to {host.name}"
    after = sum((host.drops for host in cluster.hosts), start=type(cluster.hosts[0].drops)())
    assert (after - before).keys() <= {"no_route"}, "no packet goes to a host without members"


def agreement(cluster: Cluster, filters: Filters) -> Callable[[], bool]:
    """Return a check that each running host knows the members of each group."""

    def check() -> bool:
        running = [host for host in cluster.hosts if host.is_running]
        return all(
            host.node.members(group)
            == sorted(each.name for each in running if each is not host and (each.name, group) in filters)
            for host in running
            for group in GROUPS
        )

    return check


# ---- linking


@pytest.mark.parametrize("size", [2, 3, 12])
def test_cluster_started_together_is_linked_at_once(size: int) -> None:
    """Goal: nodes that start at the same time are linked within 0.5 s.
    Method: clusters of three sizes with a delay of 20 ms."""
    cluster = Cluster(size, seed=1, impairment=Impairment(delay_s=0.02))
    cluster.start()
    assert cluster.run_until_linked(limit_s=10) < 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_gossip_through_one_seed_over_a_bad_network(seed: int) -> None:
    """Goal: ten nodes with one seed are linked within 10 s despite loss and reordering.
    Method: three seeds of the random numbers."""
    cluster = Cluster(10, seed=seed, impairment=BAD)
    cluster.start(spread_s=1.0)
    cluster.run_until_linked(limit_s=10)


def test_chain_of_seeds_links_all_nodes() -> None:
    """Goal: any connected graph of seeds is enough.  Method: each of eight nodes names only the one before it."""
    peers: dict[int, tuple[int, ...]] = {index: (index - 1,) if index else () for index in range(8)}
    cluster = Cluster(8, seed=1, peers=peers)
    cluster.start(spread_s=2.0)
    assert cluster.run_until_linked(limit_s=10) < 2.0


def test_links_stay_up_on_a_lossy_network() -> None:
    """Goal: 2 % loss takes no link down.  Method: five nodes for two minutes."""
    cluster = started(5, impairment=Impairment(delay_s=0.05, jitter_s=0.05, loss=0.02, duplicate=0.05))
    cluster.run(120)
    assert sum(host.flaps for host in cluster.hosts) == 0


def test_64_nodes_link_within_1_s_and_deliver() -> None:
    """Goal: a larger overlay needs no more time, and loses no packet.
    Method: 63 members of one group, one packet, and the drops of all nodes."""
    cluster = Cluster(64, seed=1)
    cluster.start()
    assert cluster.run_until_linked(limit_s=10) < 1.0
    filters: Filters = {}
    for host in cluster.hosts[1:]:
        join(host, GROUPS[0], ANY_SOURCE, filters)
    cluster.run(0.05)
    packet = cluster.hosts[0].send(GROUPS[0])
    cluster.run(0.05)
    assert [host.delivered[packet] for host in cluster.hosts] == [0] + [1] * 63
    for host in cluster.hosts:
        assert not host.drops


# ---- agreement


@pytest.mark.parametrize("seed", SEEDS)
def test_members_are_known_within_2_s_after_a_bad_network(seed: int) -> None:
    """Goal: every node knows all members 2 s after the network works again.
    Method: 200 joins and leaves on a bad network; then members and delivery are compared."""
    cluster = started(5, seed=seed, impairment=BAD)
    generator, filters = random.Random(seed), Filters()
    sources = [address for host in cluster.hosts for address, _ in host.node.record.addresses]
    for _ in range(200):
        host, group = generator.choice(cluster.hosts), generator.choice(GROUPS)
        some = [each for each in generator.sample(sources, 3) if len(each) == len(group)]
        match generator.randrange(4):
            case 0:
                leave(host, group, filters)
            case 1 if some:
                join(host, group, include(some), filters)
            case 2:
                join(host, group, SourceFilter(FilterMode.EXCLUDE, frozenset(some)), filters)
            case _:
                join(host, group, ANY_SOURCE, filters)
        cluster.run(generator.random() * 0.1)
    cluster.network.impairment = GOOD
    cluster.run(0.3)  # messages in flight arrive
    assert cluster.clock.run_while(lambda: not agreement(cluster, filters)(), limit_s=2.0)
    cluster.run(2.0)
    check_delivery(cluster, filters)


def test_join_is_in_remote_tables_after_one_network_delay() -> None:
    """Goal: a join is sent at once.  Method: a delay of 10 ms, and a look at the other node after 11 ms."""
    cluster = started(3, impairment=Impairment(delay_s=0.01))
    filters: Filters = {}
    join(cluster.hosts[1], GROUPS[0], ANY_SOURCE, filters)
    cluster.run(0.011)
    assert cluster.hosts[0].node.members(GROUPS[0]) == ["n1"]
    check_delivery(cluster, filters)


def test_only_accepted_sources_are_sent() -> None:
    """Goal: a node sends a packet only to hosts whose source filter accepts its source.
    Method: INCLUDE and EXCLUDE filters in both families."""
    cluster = started(4)
    filters: Filters = {}
    addresses = [{len(each): each for each, _ in host.node.record.addresses} for host in cluster.hosts]
    join(cluster.hosts[1], GROUPS[3], include([addresses[0][4]]), filters)
    join(cluster.hosts[2], GROUPS[0], SourceFilter(FilterMode.EXCLUDE, frozenset({addresses[0][4]})), filters)
    join(cluster.hosts[3], GROUPS[2], include([addresses[1][16], addresses[2][16]]), filters)
    cluster.run(1)
    check_delivery(cluster, filters)


def test_link_scope_goes_to_all_nodes_and_unicast_to_one() -> None:
    """Goal: link-scope groups are flooded, and an overlay address leads to its node alone.
    Method: one packet to each, without members."""
    cluster = started(4)
    sender, *others = cluster.hosts
    for group in (parse("224.0.0.251"), parse("ff02::fb")):
        packet = sender.send(group)
        cluster.run(0.1)
        assert [host.delivered[packet] for host in others] == [1, 1, 1]
    for address, _ in others[1].node.record.addresses:
        packet = sender.send(address)
        cluster.run(0.1)
        assert [host.delivered[packet] for host in others] == [0, 1, 0]


# ---- failures and restarts


@pytest.mark.parametrize("away_s", [1.0, 10.0, 200.0])
def test_healed_partition_delivers_again(away_s: float) -> None:
    """Goal: both sides link again and agree, however long they were separated.
    Method: a join on one side and a leave on the other side of a partition of 1, 10 and 200 s."""
    cluster = started(6)
    filters: Filters = {}
    for host in cluster.hosts[::2]:
        join(host, GROUPS[0], ANY_SOURCE, filters)
    cluster.run(0.1)
    cluster.network.partition([endpoint_of(index) for index in range(3)])
    cluster.run(away_s)
    join(cluster.hosts[1], GROUPS[1], ANY_SOURCE, filters)
    leave(cluster.hosts[4], GROUPS[0], filters)
    assert cluster.hosts[0].node.members(GROUPS[0]) == (["n2", "n4"] if away_s < limits.LINK_TIMEOUT_S else ["n2"])
    cluster.network.heal()
    assert cluster.run_until_linked(limit_s=max(1.0, 1.25 * limits.RECONNECT_SHARE * away_s)) >= 0
    cluster.run(2)
    check_delivery(cluster, filters)


@pytest.mark.parametrize("is_polite", [True, False])
def test_node_that_ends_and_starts_again_is_linked(is_polite: bool) -> None:
    """Goal: a node that ends, with or without a Goodbye, takes only its own memberships with it.
    Method: one of four nodes ends, and starts again."""
    cluster = started(4)
    filters: Filters = {}
    for host in cluster.hosts:
        join(host, GROUPS[0], ANY_SOURCE, filters)
    cluster.run(1)
    ending = cluster.hosts[2]
    ending.stop() if is_polite else ending.crash()
    del filters[ending.name, GROUPS[0]]
    cluster.run(0.1 if is_polite else limits.LINK_TIMEOUT_S + 0.5)
    assert cluster.is_linked(), "the other nodes have noticed"
    check_delivery(cluster, filters)
    ending.start()
    cluster.run_until_linked(limit_s=1.0)
    join(ending, GROUPS[1], ANY_SOURCE, filters)
    cluster.run(0.1)
    check_delivery(cluster, filters)


def test_quick_restart_is_noticed_before_the_timeout() -> None:
    """Goal: memberships of the former incarnation end although no link has timed out.
    Method: crash and start at the same time."""
    cluster = started(4)
    filters: Filters = {}
    join(cluster.hosts[2], GROUPS[0], ANY_SOURCE, filters)
    cluster.run(1)
    cluster.hosts[2].crash()
    cluster.hosts[2].start()
    filters.clear()
    cluster.run_until_linked(limit_s=0.5)
    cluster.run(0.1)
    check_delivery(cluster, filters)


def test_no_packet_is_lost_while_control_is_away() -> None:
    """Goal: the data plane goes on without control, and the next control process changes nothing.
    Method: two streams while control is away, and after it was restored from its checkpoint."""
    cluster = started(4)
    filters: Filters = {}
    for host in cluster.hosts:
        join(host, GROUPS[0], ANY_SOURCE, filters)
    cluster.run(1)
    flaps = sum(host.flaps for host in cluster.hosts)
    victim = cluster.hosts[1]
    packets: list[tuple[Host, tuple[int, int]]] = []

    def send_for(seconds: float) -> None:
        for _ in range(int(seconds / 0.01)):
            packets.extend((sender, sender.send(GROUPS[0])) for sender in (cluster.hosts[0], victim))
            cluster.run(0.01)

    checkpoint = victim.crash_control()
    streams = {key: entry.stream for key, entry in victim.fib.items()}
    send_for(0.9)
    victim.restore_control(checkpoint)
    send_for(3)
    victim.table.expire_adopted()
    victim.drain()
    send_for(0.5)
    cluster.run(0.1)
    for sender, packet in packets:
        assert [host.delivered[packet] for host in cluster.hosts] == [host is not sender for host in cluster.hosts]
    assert sum(host.flaps for host in cluster.hosts) == flaps, "no peer has noticed"
    assert {key: entry.stream for key, entry in victim.fib.items()} == streams
    check_delivery(cluster, filters)


def test_all_nodes_agree_on_owners_of_conflicting_addresses() -> None:
    """Goal: the same owners on every node.  Method: n1 has the address that n0 derives; n2, n3 share one."""
    cluster = Cluster(4, seed=1)
    taken, shared = derive_addresses("n0", 0)[0], parse("10.77.1.1")
    for index, address in ((1, taken), (2, shared), (3, shared)):
        cluster.hosts[index].give_addresses((address, 16))
    cluster.start(spread_s=1.0)
    cluster.run_until_linked(limit_s=5)
    cluster.run(2)
    first, *others = cluster.hosts
    assert (first.moves, [host.moves for host in others]) == (1, [0, 0, 0])
    assert [host.node.address_owners() for host in cluster.hosts] == [first.node.address_owners()] * 4
    assert first.node.address_owners()[taken] == others[0].node_id
    assert first.node.address_owners()[shared] == others[1].node_id, "it has started before the other"
    assert [[notice.kind for notice in host.notices] for host in others[1:]] == [[NoticeKind.ADDRESS_CONFLICT]] * 2
    packet = first.send(taken)
    cluster.run(0.1)
    assert [host.delivered[packet] for host in cluster.hosts] == [0, 1, 0, 0]


@pytest.mark.parametrize("holders", [(1, 4), (4, 1)], ids=str)
def test_address_stays_with_its_first_holder_after_a_partition(holders: tuple[int, int]) -> None:
    """Goal: when a partition heals, a configured address stays with the node that each node has met with it first.
    Method: n1 and n4 have one address, on two islands.  Either starts first; n4 has the lower node id."""
    cluster = Cluster(5, seed=1, peers={3: (4, 0), 4: (3,)})
    shared = parse("10.77.1.1")
    cluster.network.partition([endpoint_of(index) for index in (0, 1, 2)])
    for index in holders:
        cluster.hosts[index].give_addresses((shared, 16))
    for index in (*holders, 0, 2, 3):
        cluster.hosts[index].start()
        cluster.run(0.5)
    cluster.run(5)
    assert [host.node.address_owners()[shared] for host in cluster.hosts] == [
        cluster.hosts[holder].node_id for holder in (1, 1, 1, 4, 4)
    ]
    cluster.network.heal()
    cluster.run_until_linked(limit_s=20)
    cluster.run(1)
    owners = [host.node.address_owners()[shared] for host in cluster.hosts]
    assert owners == [cluster.hosts[holder].node_id for holder in (1, holders[0], 1, 4, holders[0])]


def test_no_packet_arrives_before_its_key() -> None:
    """Goal: a link is used only when its peer holds the key.  Method: all send while links come up on a bad network."""
    cluster = Cluster(6, seed=4, impairment=BAD)
    cluster.start(spread_s=0.5)
    for _ in range(300):
        for host in cluster.hosts:
            host.send(parse("224.0.0.251"))
        cluster.run(0.01)
    assert sum(host.drops["no_key"] for host in cluster.hosts) == 0
    assert sum(host.received[parse("224.0.0.251")] for host in cluster.hosts) > 1000


def test_run_depends_on_its_seed_only() -> None:
    """Goal: a failing run can be repeated.  Method: the same seed twice, and another one."""

    def trace(seed: int) -> list[object]:
        cluster = started(5, seed=seed, impairment=BAD)
        cluster.hosts[1].join(GROUPS[0], ANY_SOURCE)
        cluster.run(5)
        return [cluster.clock.now, sorted(cluster.network.counters.items()), [len(host.fib) for host in cluster.hosts]]

    assert trace(1) == trace(1)
    assert trace(1) != trace(2)
