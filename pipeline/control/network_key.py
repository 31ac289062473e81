"""Network keys of a running node: which are valid, the rollover to a new one, and the exclusion of nodes.

    reload with [new, old]   both are valid; peers that have the new key are reached by it (io/peers.py)
    end of the grace         the old key ends: a node that has not moved is forgotten with its sender key.  This node
    (network_rollover.py)    renews its own sender key at once, and again when the old key has ended on the others too
    reload with [new]        the same without a grace

An excluded node then has nothing of use: it can make no connection, its datagrams have no key here, and the datagrams
of others are sealed with keys that it has never received.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import structlog

from pipeline.io import keystore
from pipeline.io.peers import PeerSockets
from pipeline.keys import file as key_file
from pipeline.keys.network_rollover import NetworkKeyRollover
from pipeline.keys.sender import SenderKeyRotation
from pipeline.overlay.node import OverlayNode

EXCLUSION_SPREAD_S = 2.0
"""Time in which a revocation list reaches all nodes: until then one of them may send the new key to the excluded."""

log = structlog.get_logger()


class NetworkKeys:
    """Valid network keys of the instance.

    Each has a number: the key that becomes active gets the next higher one, so a peer's newest key is its highest.
    """

    def __init__(
        self, *, sockets: PeerSockets, store: int, node: OverlayNode, rotation: SenderKeyRotation, grace_s: float
    ) -> None:
        self._sockets = sockets
        self._store = store
        self._node = node
        self._rotation = rotation
        self._grace_s = grace_s
        self._rollover = NetworkKeyRollover(grace_s)
        self._keys: list[tuple[int, bytes]] = []
        """Number and key, the active one first."""
        self._moved_peers = 0
        """Peers that have proved to have the active key."""
        self._renew_again_at: float | None = None

    def start(self, now: float) -> None:
        """Open the sockets of the stored keys; without any (`--insecure`) every node may connect."""
        keys = keystore.load(self._store)
        if not keys:
            self._sockets.add(0, None)
            return
        if keystore.is_moving(self._store):
            self._rollover.begin(now, is_alone=True)  # peers that have moved connect at once and start the grace again
        elif len(keys) > 1:
            log.warning("two network keys are valid", remedy="when all have the first: pipeline keygen --retire FILE")
        for number, key in zip(range(len(keys), 0, -1), keys, strict=True):
            self._sockets.add(number, key)
            self._keys.append((number, key))

    def note_messages(self, number: int, now: float) -> None:
        """Note that messages came by the key of that number: a peer may have moved to it."""
        if self._rollover.is_under_way and number == self._keys[0][0]:
            moved_peers = self._node.has_proved(number)
            if moved_peers > self._moved_peers:
                self._moved_peers = moved_peers
                self._rollover.handle_peer_moved(now)

    def reload(self, arguments: Mapping[str, str], now: float) -> str:
        """Take over the keys of a key file that was read again; return an error's text, or an empty one.

        Without keys, as with `--insecure`, there is nothing to do.
        """
        if not self._keys and "keys" not in arguments:
            return ""
        try:
            keys = [base64.b64decode(text, validate=True) for text in arguments.get("keys", "").split()]
        except binascii.Error:
            keys = []
        if not self._keys:
            return "runs with --insecure: it has no key to move from"
        if not 1 <= len(keys) <= key_file.KEYS_MAX or any(len(key) != key_file.KEY_BYTES for key in keys):
            return "no usable keys in the request"
        present = [key for _, key in self._keys]
        if keys == present:
            return ""
        if keys[0] in present:
            self._rearrange(keys, now)
        else:
            self._roll_over(keys, now)
        self._save()
        return ""

    def tick(self, now: float) -> bool:
        """End the old key when it is due; return whether the node may have outputs."""
        if self._renew_again_at is not None and now >= self._renew_again_at:
            self._renew_again_at = None
            self._rotation.renew()
        if not self._rollover.expire(now):
            return False
        self._end_all_but_active(now)
        self._save()
        return True

    def exclude(self, now: float) -> None:
        """Renew the sender key, as a node was excluded; and again when the others have excluded it too."""
        self._rotation.renew()
        self._renew_again_at = now + EXCLUSION_SPREAD_S

    def _save(self) -> None:
        keystore.save(self._store, [key for _, key in self._keys], is_moving=self._rollover.is_under_way)

    # ---------------------------------------------------------------- transitions

    def _roll_over(self, keys: list[bytes], now: float) -> None:
        """Make a new key the active one; the present one stays valid for the grace if it is in the list."""
        if len(self._keys) > 1:
            self._end_all_but_active(now)
        number, old = self._keys[0]
        self._activate(number + 1, keys[0])
        if old not in keys:
            log.warning("the network key was replaced without the old one beside it: links are made anew")
            self._end_all_but_active(now)
            return
        self._begin_rollover(now)
        log.info("moving to a new network key", grace_s=self._grace_s)

    def _rearrange(self, keys: list[bytes], now: float) -> None:
        """Follow a list whose first key is valid already: keys change places, or a second one is added or removed."""
        if keys[0] != self._keys[0][1]:  # it was valid for some time and becomes the active one
            number = self._keys[0][0] + 1
            old_number, key = self._keys.pop(1)
            self._sockets.drop(old_number)
            self._activate(number, key)
            self._begin_rollover(now)
        if len(keys) == 1:
            self._end_all_but_active(now)
        elif len(self._keys) == 1:
            number = self._keys[0][0] - 1
            self._keys.append((number, keys[1]))
            self._sockets.add(number, keys[1])

    def _activate(self, number: int, key: bytes) -> None:
        self._keys.insert(0, (number, key))
        self._moved_peers = 0
        self._sockets.add(number, key)

    def _begin_rollover(self, now: float) -> None:
        self._rollover.begin(now, is_alone=not any(link.is_up for link in self._node.links()))

    def _end_all_but_active(self, now: float) -> None:
        self._rollover.cancel()
        ended, self._keys = self._keys[1:], self._keys[:1]
        if not ended:
            return
        for number, _ in ended:
            self._sockets.drop(number)
        excluded = self._node.exclude_older(self._keys[0][0], now)
        self._rotation.renew()
        self._renew_again_at = now + self._grace_s
        log.info("the old network key has ended", excluded=excluded)
