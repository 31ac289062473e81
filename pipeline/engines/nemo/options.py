"""The parameters of Nemo, `[overlay.nemo]` of the configuration; the paper's values are the defaults.

It knows the bounds of each and nothing of who uses them.
"""

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
    """One node's parameters; those of all nodes had better be the same."""

    k: Annotated[int, Meta(ge=2, le=16)] = 3
    """Clusters have k … 3k - 1 peers."""
    crew_size: Annotated[int, Meta(ge=1, le=limits.STRIPES_MAX)] = 3
    """Leader and co-leaders of a cluster."""
    heartbeat_s: Seconds = 10.0
    grace_s: Seconds = 15.0
    """Silence after which a cluster peer is dead."""
    crew_exchange_s: Seconds = 30.0
    """Mean of the exponential time between two crew lists; a change of the crew sends one at once."""
    check_s: Seconds = 1.0
    """Between two looks at the clusters."""
    operation_gap_s: Seconds = 5.0
    """At least so long between two operations on a cluster."""
    merge_probability: Probability = 0.01
    split_probability: Probability = 1.0
    refine_probability: Probability = 0.01
    refine_undersized_probability: Probability = 0.001
    query_s: Seconds = 1.0
    """How long a joining node waits for the answers of one layer, and then for its place."""
    retry_s: Seconds = 3.0
    """After a question to the rendezvous that it has not answered; as long the wish for a dead node's place is good."""
    better_share: Annotated[float, Meta(gt=0, le=1)] = 0.8
    """Another leader is closer, or a centre better, if its latency is at most this share of the present one's."""
    better_floor_s: Seconds = 0.002
    """And less by at least this: between hosts of one network the difference is how busy they are."""
    repair: Literal["nack", "none"] = "nack"
    nack_tries: Annotated[int, Meta(ge=1, le=16)] = 8
    nack_floor_s: Seconds = 0.02
    """The missing-packet timer is 2 RTT to the farthest crew member, and not less: for networks of a millisecond."""
    rendezvous: Annotated[tuple[str, ...], Meta(max_length=limits.NODES_MAX)] = ()
    """Names of the nodes that keep the entrance of every group.  By default each group has one of the nodes in reach,
    by a hash of both."""


def read(options: Mapping[str, object]) -> Options:
    """The parameters in the engine's table of the configuration; ConfigError if one is not usable."""
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
