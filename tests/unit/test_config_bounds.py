"""Bounds of the configuration.  Goal: a configuration that is accepted never exceeds a bound of the objects made of it,
so that no process of a started instance ends because of a value.
Method: every key at its bounds, and the objects that the supervisor and control make of such a configuration.
"""

from __future__ import annotations

import dataclasses

import pytest
from pipeline.shm._native import ffi, lib

from pipeline import limits, messages
from pipeline.config import Config, load
from pipeline.config_checks import (
    GROUP_PREFIXES_MAX,
    MTU_MAX,
    MTU_MIN,
    NODE_PREFIXES_MAX,
    PORT_RANGES_MAX,
    ROBUSTNESS_MAX,
)
from pipeline.engines.nemo.options import Options, read
from pipeline.errors import PipelineError
from pipeline.membership.router import MembershipRouter
from pipeline.overlay import records
from pipeline.overlay.node import OverlayNode
from pipeline.overlay.node_config import NodeConfig
from pipeline.shm.policy import GroupList, Policy
from pipeline.shm.region import Geometry
from pipeline.supervisor import HISTORY_FACTOR
from tests.unit.membership_link import QUERIER_V4, QUERIER_V6
from tests.unit.overlay_net import identity_of

PEERS = tuple(f"192.0.2.{number}" for number in range(limits.SEEDS_MAX))
GROUPS = tuple(f"239.1.{number}.0/24" for number in range(GROUP_PREFIXES_MAX))
PORTS = tuple(str(1000 + 2 * number) for number in range(PORT_RANGES_MAX))
PREFIXES = tuple(f"10.88.{number}.0/24" for number in range(NODE_PREFIXES_MAX))
GROUP_LISTS = ("groups.send_allow", "groups.send_deny", "groups.receive_allow", "groups.receive_deny")


def load_config(**values: object) -> Config:
    """Return a configuration with these values, given as environment variables; keys have "__" for the dot."""
    variables = {
        f"MCAST_PIPELINE_{key.replace('__', '_').upper()}": ",".join(value) if isinstance(value, tuple) else str(value)
        for key, value in values.items()
    }
    return load({"node.name": "n"}, variables, None, require_key=False)


@pytest.mark.parametrize(
    ("key", "most"),
    [
        ("node.peers", PEERS),
        ("overlay.prefixes", PREFIXES),
        ("security.unicast_ports", PORTS),
        *((key, GROUPS) for key in GROUP_LISTS),
    ],
    ids=["node.peers", "overlay.prefixes", "security.unicast_ports", *GROUP_LISTS],
)
def test_lists_are_bounded(key: str, most: tuple[str, ...]) -> None:
    """Goal: a list one longer than its bound is refused with the key in the line."""
    name = key.replace(".", "__")
    assert load_config(**{name: most})
    with pytest.raises(PipelineError, match=key.replace(".", "[._]").upper()):
        load_config(**{name: (*most, {GROUPS: "239.2.0.0", PORTS: "9"}.get(most, "192.0.2.255"))})


def test_repeated_peers_count_once() -> None:
    """Goal: a list that names the same peer twice is not refused for its length."""
    assert len(load_config(node__peers=(*PEERS, *PEERS)).node.peers) == limits.SEEDS_MAX


@pytest.mark.parametrize("engine", ["mesh", "flood", "nemo"])
def test_node_accepts_the_longest_lists(engine: str) -> None:
    """Goal: the overlay node starts with the most peers, both addresses and the largest certificate, with every engine,
    and its record is not longer than others accept."""
    config = load_config(
        node__peers=PEERS, overlay__engine=engine, workers__count=4 * limits.LANES_MAX, node__listen="[::]:65535"
    )
    node = OverlayNode(
        NodeConfig(
            name="n" * limits.NAME_LENGTH_MAX,
            endpoint=config.node.listen,
            incarnation=1,
            identity=identity_of("n"),
            certificate=bytes(limits.CERTIFICATE_BYTES_MAX),
            sender_key=bytes(32),
            key_epoch=255,
            lanes=config.lanes,
            engine=config.overlay.engine,
            peers=config.node.peers,
        ),
        random=lambda: 0.5,
        now=0.0,
    )
    node.start(0.0)
    node.handle_timeout(0.0)
    transmit = node.poll_transmit()
    assert transmit is not None
    frame = messages.decode_frame(transmit[1])
    assert isinstance(frame, messages.Greeting)
    assert records.verify(frame.record, identity_of("m")) is not None


def test_policy_accepts_the_longest_lists() -> None:
    """Goal: the stages' policy has room for every range of every list."""
    config = load_config(**{key.replace(".", "__"): GROUPS for key in GROUP_LISTS})
    policy = Policy(config.groups, config.security)
    assert policy.native.receive_deny.count == GROUP_PREFIXES_MAX
    assert not GroupList(config.groups).allows(bytes([239, 1, 0, 1]))


def test_policy_has_the_listed_ports() -> None:
    """Goal: the stages get exactly the ports of the configuration, and by default no limit.
    Method: single ports and ranges, with those at both ends; the bits are read back."""
    config = load_config(security__unicast="none", security__unicast_ports=("1", "100 - 102", "65534-65535", "101"))
    native = Policy(config.groups, config.security).native
    bits = int.from_bytes(bytes(native.unicast_port), "little")
    assert [port for port in range(65536) if bits >> port & 1] == [1, 100, 101, 102, 65534, 65535]
    assert (native.unicast, native.has_unicast_ports) == (lib.MP_UNICAST_NONE, 1)
    default = Policy(Config().groups, Config().security).native
    assert (default.unicast, default.has_unicast_ports, any(default.unicast_port)) == (lib.MP_UNICAST_ALL, 0, False)


@pytest.mark.parametrize(("mtu", "host", "overlay"), [(MTU_MIN, 64, 8), (MTU_MAX, 65536, 1024)])
@pytest.mark.parametrize("lanes", [1, limits.LANES_MAX])
@pytest.mark.parametrize("factor", [1, HISTORY_FACTOR])
def test_region_accepts_the_smallest_and_largest_rings(
    mtu: int, host: int, overlay: int, lanes: int, factor: int
) -> None:
    """Goal: shared memory has a layout for all ring sizes, also where the engine repairs and rings are longer.
    Method: only the size of the region is computed."""
    config = load_config(tun__mtu=mtu, rings__host_slots=host, rings__overlay_slots=overlay)
    geometry = Geometry.of(
        lanes=lanes,
        mtu=mtu,
        host_slots=config.rings.host_slots * factor,
        overlay_slots=config.rings.overlay_slots * factor,
    )
    assert lib.mp_region_size(ffi.new("struct mp_geometry *", dataclasses.asdict(geometry))) > 0


@pytest.mark.parametrize("robustness", [1, 7, 8, ROBUSTNESS_MAX])
def test_membership_router_accepts_every_robustness(robustness: int) -> None:
    """Goal: the router starts and sends queries with each value of the robustness."""
    config = load_config(membership__robustness=robustness, membership__query_interval_s=31744).membership
    router = MembershipRouter(config, querier_v4=QUERIER_V4, querier_v6=QUERIER_V6, mtu=MTU_MIN, now=0.0)
    router.start(0.0)
    assert router.poll_transmit() is not None


def test_nemo_accepts_its_largest_options() -> None:
    """Goal: the longest crew fits the stripes of a stream, the most rendezvous nodes the nodes of an overlay."""
    options = read({"k": 16, "crew_size": limits.STRIPES_MAX, "rendezvous": ["a"] * limits.NODES_MAX})
    assert options.crew_size == lib.MP_STRIPES_MAX
    assert Options().rendezvous == ()
