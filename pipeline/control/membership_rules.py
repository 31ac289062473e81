"""Rules of membership of a running node, and their files: pins, or certificate and revocation list.

start     identities that were pinned, or certificate and revocation list, are read
tick      new pins are written
reload    certificate and revocation list are read again
forget    a pin is removed, so that another identity may have the name
"""

from __future__ import annotations

import time

import structlog

from pipeline.control.resources import ControlResources
from pipeline.errors import PipelineError
from pipeline.io import credentials, keystore, pins
from pipeline.io.credentials import Credentials
from pipeline.keys.identity import Identity
from pipeline.overlay.certified_members import CertifiedMembers
from pipeline.overlay.members import Members, OpenMembers, Pin
from pipeline.overlay.node import OverlayNode

SAVE_INTERVAL_S = 2.0
"""Time between two writes of the pins, each of which waits for the disk."""

log = structlog.get_logger()


class MembershipRules:
    """The rules of the network for one instance."""

    def __init__(self, resources: ControlResources) -> None:
        """Read the files; ConfigError if they cannot be used."""
        self._config = resources.config
        self._store = resources.keystore
        self._public_key = Identity(keystore.load_seed(resources.keystore)).public_key
        self.credentials: Credentials = credentials.load(self._config, self._public_key)
        self._kept_for: bytes | None = None
        """Network key whose file has the pins; None: there is no file."""
        self.members: Members = self._new_members()
        self._save_at = 0.0
        self._is_fault_logged = False

    def _new_members(self) -> Members:
        found = self.credentials
        if found.authority:
            clock = time.time
            return CertifiedMembers(
                found.authority, clock=lambda: self.credentials.now(clock()), revocation_list=found.revocations_data
            )
        return OpenMembers(self._load_pins(), accepts_unsigned=self._config.security.accept_protocol_1)

    def _load_pins(self) -> list[Pin]:
        keys = keystore.load(self._store)
        for key in keys:
            try:
                found = pins.load(pins.path_for(self._config.node.name, key))
            except (OSError, PipelineError) as error:
                log.warning("pins not usable: all nodes are pinned anew", reason=str(error))
                return []
            if found:
                self._kept_for = key
                return found
        return []

    def log_warnings(self) -> None:
        """Log what the operator should know about identity and certificate."""
        fault = keystore.identity_fault(self._store)
        if fault:
            log.warning("identity not kept: the next start is another node for its peers", reason=fault)
        warning = self.credentials.time_warning(time.time())
        if warning:
            log.warning("certificate out of its period: renew it, or set the clock", reason=warning)

    def tick(self, now: float) -> None:
        """Write the pins if they, or the network key, have changed."""
        members = self.members
        keys = keystore.load(self._store)
        if not isinstance(members, OpenMembers) or not keys or now < self._save_at:
            return
        if not members.is_changed and self._kept_for in (None, keys[0]):
            return
        self._save_at, self._kept_for = now + SAVE_INTERVAL_S, keys[0]
        members.is_changed = False
        try:
            pins.save(pins.path_for(self._config.node.name, keys[0]), members.pins)
        except (OSError, PipelineError) as error:
            if not self._is_fault_logged:
                log.warning("pins not kept: identities are pinned anew at the next start", reason=str(error))
            self._is_fault_logged = True

    def forget(self, name: str, now: float) -> str:
        """Remove the pin of a name; return an error's text, or an empty one."""
        if not isinstance(self.members, OpenMembers):
            return "this network has an authority: it pins no identities"
        if not self.members.forget(name):
            return f"{name}: no identity is pinned to this name"
        self._save_at = 0.0
        self.tick(now)
        return ""

    def reload(self, node: OverlayNode, now: float) -> str:
        """Read certificate and revocation list again; return an error's text, or an empty one."""
        try:
            found = credentials.load(self._config, self._public_key)
        except PipelineError as error:
            return str(error)
        if found.authority != self.credentials.authority:
            return "another authority takes effect at the next start only"
        self.credentials = found
        node.set_certificate(found.certificate_data, now)
        node.take_revocations(found.revocations_data, now)
        self.log_warnings()
        return ""

    def keep_revocations(self, revocation_list: bytes) -> None:
        """Write a list that another node has sent."""
        try:
            credentials.save_revocations(self._config, revocation_list)
        except PipelineError as error:
            log.warning("revocation list not kept: other nodes send it again", reason=str(error))
