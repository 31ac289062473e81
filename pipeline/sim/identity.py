"""Identities of simulated nodes: the operations of keys/identity.py at no cost, as nobody in a simulation forges.

Messages have the sizes and the form of sealed ones.
"""

from __future__ import annotations

import hashlib

from pipeline.keys.identity import SEAL_BYTES, SIGNATURE_BYTES


class SimulatedIdentity:
    """Identity of the simulated node of a name."""

    def __init__(self, name: str) -> None:
        self.public_key = hashlib.blake2b(name.encode(), digest_size=32).digest()

    def sign(self, purpose: bytes, data: bytes) -> bytes:  # noqa: ARG002
        """Return a mark in place of a signature."""
        return bytes(SIGNATURE_BYTES - 1) + b"\1"

    def is_signed(self, public_key: bytes, purpose: bytes, data: bytes, signature: bytes) -> bool:  # noqa: ARG002
        """Return True for a mark."""
        return len(signature) == SIGNATURE_BYTES

    def pair_key(self, public_key: bytes) -> bytes | None:
        """Return a key that both nodes compute."""
        return bytes(one ^ other for one, other in zip(self.public_key, public_key, strict=True))

    def seal(self, key: bytes, text: bytes, header: bytes) -> bytes:  # noqa: ARG002
        """Return the text with the bytes of a seal before it."""
        return bytes(SEAL_BYTES) + text

    def open(self, key: bytes, sealed: bytes, header: bytes) -> bytes | None:  # noqa: ARG002
        """Return the text."""
        return sealed[SEAL_BYTES:]
