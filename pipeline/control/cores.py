"""Cores of the control process: created from the configuration, or restored from a predecessor's checkpoint.

    load        the checkpoint if there is a usable one, else new cores with an incarnation above the last one
    save_soon   after a change: several changes are saved together
    save        at once: before a new key is announced

The checkpoint holds the soft state of the overlay node and of the membership router, and the interface's addresses.
"""

from __future__ import annotations

import asyncio
import os
import random
import time

import msgspec
import structlog

from pipeline.address import parse_prefix
from pipeline.control.membership_rules import MembershipRules
from pipeline.control.resources import ControlResources
from pipeline.io import keystore
from pipeline.io.checkpoint import Checkpoint
from pipeline.io.credentials import Credentials
from pipeline.io.interface import host_addresses
from pipeline.io.state import IncarnationFile
from pipeline.keys.identity import Identity
from pipeline.membership.querier_address import querier_addresses
from pipeline.membership.router import MembershipRouter
from pipeline.overlay.address_claims import AddressClaims
from pipeline.overlay.members import Members
from pipeline.overlay.node import OverlayNode
from pipeline.overlay.node_config import NodeConfig

SAVE_DELAY_S = 0.2
"""Delay between a change and the checkpoint that holds it."""
SAVE_SHARE = 20
"""A checkpoint waits this many times as long as the last one took, so that saving costs at most 1/20 of a core."""

SAVE_RETRY_S = 5.0
"""Delay before a checkpoint that could not be written is tried again."""

log = structlog.get_logger()


class _State(msgspec.Struct, frozen=True):
    """Contents of the checkpoint."""

    membership: bytes
    overlay: bytes
    addresses: tuple[str, ...]


class Cores:
    """Overlay node and membership router of one instance, with the checkpoint of their state."""

    def __init__(self, resources: ControlResources, now: float) -> None:
        """Create new cores; `load` prefers those of the checkpoint."""
        self.addresses = resources.addresses
        """Addresses of the interface, which a conflict with another node may change."""
        self._incarnations = IncarnationFile(resources.config.node.name)
        self.membership_rules = MembershipRules(resources)
        incarnation = self._incarnations.following(time.time_ns() // 1_000_000)
        rules = self.membership_rules
        self.node = _new_node(resources, rules.credentials, rules.members, incarnation, now)
        self.membership = _new_membership(resources, now)
        self._checkpoint = Checkpoint(resources.checkpoint)
        self._can_keep_incarnation = True
        self._save_timer: asyncio.TimerHandle | None = None
        self._save_took_s = 0.0
        self.save_fault = ""
        """Why the last checkpoint could not be written, or an empty text."""

    @classmethod
    def load(cls, resources: ControlResources, now: float) -> Cores:
        """Return cores that go on from the checkpoint; without a usable one, new cores."""
        cores = cls(resources, now)
        data = cores._checkpoint.load()
        try:
            if data is not None:
                cores._restore(data, now)
        except (msgspec.DecodeError, ValueError) as error:  # a WireError is a ValueError
            log.warning("checkpoint not usable: starting without it", reason=str(error))
            cores = cls(resources, now)
        cores._keep_incarnation()
        return cores

    def _restore(self, data: bytes, now: float) -> None:
        state = msgspec.msgpack.decode(data, type=_State)
        self.node.restore(state.overlay, now)
        self.membership.restore(state.membership, now)
        self.addresses = state.addresses

    def save_soon(self) -> None:
        """Save the state after a delay, unless that is due already."""
        if self._save_timer is None:
            delay_s = max(SAVE_DELAY_S, SAVE_SHARE * self._save_took_s, SAVE_RETRY_S if self.save_fault else 0.0)
            self._save_timer = asyncio.get_running_loop().call_later(delay_s, self.save)

    def save(self) -> None:
        """Save the state now."""
        self._save_timer = None
        now = time.monotonic()
        state = _State(self.membership.snapshot(now), self.node.snapshot(now), self.addresses)
        try:
            self._checkpoint.save(msgspec.msgpack.encode(state))
        except OSError as error:
            self.save_fault = f"the checkpoint of control cannot be written: {(error.strerror or str(error)).lower()}"
            self.save_soon()
        else:
            self.save_fault = ""
        self._save_took_s = time.monotonic() - now
        self._keep_incarnation()

    def _keep_incarnation(self) -> None:
        """Write the node's incarnation into the state directory if it is new; without the directory, log that once."""
        if not self._can_keep_incarnation:
            return
        try:
            self._incarnations.save(self.node.record.incarnation)
        except OSError as error:
            self._can_keep_incarnation = False
            reason = f"{error.filename or 'state directory'}: {error.strerror}"
            log.warning("incarnation not kept: after a clock is set back, links need 3 s more", reason=reason)


def _new_node(
    resources: ControlResources, credentials: Credentials, members: Members, incarnation: int, now: float
) -> OverlayNode:
    config = resources.config
    addresses = tuple(map(parse_prefix, config.tun.addresses))
    return OverlayNode(
        NodeConfig(
            name=config.node.name,
            endpoint=config.node.listen,
            incarnation=incarnation,
            identity=Identity(keystore.load_seed(resources.keystore)),
            is_identity_kept=not keystore.identity_fault(resources.keystore),
            certificate=credentials.certificate_data,
            members=members,
            sender_key=os.urandom(32) if resources.is_sealed else b"",
            key_epoch=os.urandom(1)[0],
            lanes=config.lanes,
            engine=config.overlay.engine,
            engine_options=config.overlay.options.get(config.overlay.engine, {}),
            peers=config.node.peers,
            addresses=addresses,
            claims=AddressClaims((*addresses, *map(parse_prefix, config.overlay.prefixes)), host_addresses()),
        ),
        random=random.random,
        now=now,
    )


def _new_membership(resources: ControlResources, now: float) -> MembershipRouter:
    config = resources.config.membership
    v4, v6 = querier_addresses(config.querier_address, resources.addresses)
    return MembershipRouter(config, querier_v4=v4, querier_v6=v6, mtu=resources.mtu, now=now)
