"""Options of Nemo, section `[overlay.nemo]` of the configuration, with their bounds; the defaults are the paper's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pipeline import limits
from pipeline.config import describe_expected, suggest_nearest
from pipeline.config_checks import CHECKS
from pipeline.errors import ConfigError

Seconds = Annotated[float, Meta(gt=0, le=3600)]
Probability = Annotated[float, Meta(ge=0, le=1)]


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of one node; all nodes should have the same."""

    k: Annotated[int, Meta(ge=2, le=16)] = 3
    """Clusters have k … 3k - 1 peers."""
    crew_size: Annotated[int, Meta(ge=1, le=limits.STRIPES_MAX)] = 3
    """Leader and co-leaders of a cluster."""
    heartbeat_s: Seconds = 10.0
    grace_s: Seconds = 15.0
    """Silence after which a cluster peer is dead."""
    crew_exchange_s: Seconds = 30.0
    """Mean time between two crew lists; a change of the crew sends one at once."""
    check_s: Seconds = 1.0
    """Time between two checks of the clusters."""
    operation_gap_s: Seconds = 5.0
    """Shortest time between two operations on a cluster."""
    merge_probability: Probability = 0.01
    split_probability: Probability = 1.0
    refine_probability: Probability = 0.01
    refine_undersized_probability: Probability = 0.001
    query_s: Seconds = 1.0
    """Time for which a joining node waits for the answers of one layer, and then for its membership."""
    retry_s: Seconds = 3.0
    """Time after which an unanswered query to the rendezvous is repeated, and a Join in a dead node's place expires."""
    better_share: Annotated[float, Meta(gt=0, le=1)] = 0.8
    """Another leader is closer, or a centre better, if its latency is at most this share of the present one's …"""
    better_floor_s: Seconds = 0.002
    """… and less by at least this: between hosts of one network the difference is only how busy they are."""
    repair: Literal["nack", "none"] = "nack"
    nack_tries: Annotated[int, Meta(ge=1, le=16)] = 8
    nack_floor_s: Seconds = 0.02
    """Lower bound of the missing-packet timer, which is 2 RTT: for networks with round-trip times of a millisecond."""
    rendezvous: Annotated[tuple[str, ...], Meta(max_length=limits.NODES_MAX)] = ()
    """Names of the nodes that are the rendezvous of every group.  By default a hash chooses one in reach."""


def read(options: Mapping[str, object]) -> Options:
    """Return the options in the engine's table of the configuration; ConfigError if one is not valid."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(Options)}
    values = {}
    for key, value in options.items():
        if key not in kinds:
            raise ConfigError(f"overlay.nemo.{key}: no such key{suggest_nearest(key, list(kinds), 'overlay.nemo.')}")
        try:
            values[key] = msgspec.convert(value, kinds[key], strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(f"overlay.nemo.{key} = {value!r}: {describe_expected(kinds[key], error)}") from error
    found = Options(**values)
    for name in found.rendezvous:
        try:
            CHECKS["node.name"](name)
        except ValueError as error:
            raise ConfigError(f"overlay.nemo.rendezvous: {name!r}: {error}") from None
    if found.grace_s <= found.heartbeat_s:
        raise ConfigError(f"[overlay.nemo]: grace_s {found.grace_s:g} must exceed heartbeat_s {found.heartbeat_s:g}")
    return found
