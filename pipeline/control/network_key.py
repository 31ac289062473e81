"""The network key of a running node: which keys are good, the move to another, and who is excluded by it.

    reload with [new, old]   both are good; peers that have read the new one are reached by it (io/peers.py)
    the grace is over        the old one ends: who has not moved is forgotten with its sender key, and this node's own
    (network_rollover.py)    sender key is renewed, at once and once more when the others' old key has ended too
    reload with [new]        the same without a grace

What an excluded node still knows is then worth nothing: it can make no connection, its datagrams have no key here, and
those of others are sealed with keys that it has never seen.
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

log = structlog.get_logger()


class NetworkKeys:
    """Of one control process."""

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
        self._proved = 0
        self._renew_again: float | None = None

    def start(self, now: float) -> None:
        """Let in whoever knows one of the keys; without any, everybody."""
        found = keystore.load(self._store)
        if not found:
            self._sockets.add(0, None)
            return
        if keystore.is_moving(self._store):
            self._rollover.begin(now, is_alone=True)  # those who have moved come at once, and begin the grace anew
        elif len(found) > 1:
            log.warning("two network keys are good", mend="when all have the first: pipeline keygen --retire FILE")
        for number, key in zip(range(len(found), 0, -1), found, strict=True):
            self._sockets.add(number, key)
            self._keys.append((number, key))

    def note(self, number: int, now: float) -> None:
        """Messages came by that key: somebody may have moved."""
        if self._rollover.is_under_way and number == self._keys[0][0]:
            proved = self._node.has_proved(number)
            if proved > self._proved:
                self._proved = proved
                self._rollover.handle_peer_moved(now)

    def reload(self, arguments: Mapping[str, str], now: float) -> str:
        """The key file was read again; an error's text, or empty."""
        try:
            wanted = [base64.b64decode(text, validate=True) for text in arguments.get("keys", "").split()]
        except binascii.Error:
            wanted = []
        if not self._keys:
            return "runs with --insecure: it has no key to move from"
        if not 1 <= len(wanted) <= key_file.KEYS_MAX or any(len(key) != key_file.KEY_BYTES for key in wanted):
            return "no usable keys in the request"
        present = [key for _, key in self._keys]
        if wanted == present:
            return ""
        if wanted[0] in present:
            self._keep(wanted, now)
        else:
            self._move(wanted, now)
        self._save()
        return ""

    def look(self, now: float) -> bool:
        """Ends the old key when it is time; whether the node has something to say."""
        if self._renew_again is not None and now >= self._renew_again:
            self._renew_again = None
            self._rotation.renew()
        if not self._rollover.expire(now):
            return False
        self._end_all_but_first(now)
        self._save()
        return True

    def _save(self) -> None:
        keystore.save(self._store, [key for _, key in self._keys], is_moving=self._rollover.is_under_way)

    # ---------------------------------------------------------------- the ways from one list to another

    def _move(self, wanted: list[bytes], now: float) -> None:
        """To a key that is new here; the present one goes on for the grace if it is in the list."""
        if len(self._keys) > 1:
            self._end_all_but_first(now)
        (number, old), self._proved = self._keys[0], 0
        self._keys.insert(0, (number + 1, wanted[0]))
        self._sockets.add(number + 1, wanted[0])
        if old not in wanted:
            log.warning("the network key was replaced without the old one beside it: links are made anew")
            self._end_all_but_first(now)
            return
        is_alone = not any(link.is_up for link in self._node.links())
        self._rollover.begin(now, is_alone=is_alone)
        log.info("moving to a new network key", grace_s=self._grace_s)

    def _keep(self, wanted: list[bytes], now: float) -> None:
        """The first key is known: another one is put beside it, or taken away, or they change places."""
        if wanted[0] != self._keys[0][1]:  # it was let in for some time and is the active one now
            number = self._keys[0][0] + 1
            old_number, key = self._keys.pop(1)
            self._sockets.drop(old_number)
            self._sockets.add(number, key)
            self._keys.insert(0, (number, key))
            self._proved = 0
            self._rollover.begin(now, is_alone=not any(link.is_up for link in self._node.links()))
        if len(wanted) == 1:
            self._end_all_but_first(now)
        elif len(self._keys) == 1:
            number = self._keys[0][0] - 1
            self._keys.append((number, wanted[1]))
            self._sockets.add(number, wanted[1])

    def _end_all_but_first(self, now: float) -> None:
        self._rollover.is_under_way = False
        ended, self._keys = self._keys[1:], self._keys[:1]
        if not ended:
            return
        for number, _ in ended:
            self._sockets.drop(number)
        excluded = self._node.exclude_older(self._keys[0][0], now)
        self._rotation.renew()
        self._renew_again = now + self._grace_s
        log.info("the old network key has ended", excluded=excluded)
