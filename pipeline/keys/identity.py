"""Identity of a node: an Ed25519 key pair, the node id that follows from it, and keys shared with other identities.

    seed (32 random bytes) ──▶ Ed25519 key pair ──▶ public key ──▶ node id
                                     └─ X25519 ──with the public key of another node──▶ pair key
                                                  └─ with both incarnations ──▶ one message key and one probe key
                                                                                 in each direction

A pair key is known to two identities only: what it opens was sealed by the other one.  Algorithms: RFC 8032 (Ed25519),
RFC 7748 (X25519), XChaCha20-Poly1305, BLAKE2b.  Nonces are random, 24 bytes, so that neither a restart nor a snapshot
of a virtual machine repeats one.  This module knows no files and no messages.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Protocol

import nacl.bindings as sodium
import nacl.exceptions

SEED_BYTES = 32
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
NONCE_BYTES = 24
SEAL_BYTES = NONCE_BYTES + 16
"""Bytes by which a sealed text is longer than the text: the nonce and the tag."""


class Signer(Protocol):
    """The operations of an identity that the overlay uses; simulations have a cheaper one."""

    @property
    def public_key(self) -> bytes:
        """The public key, which is the same at each start."""

    def sign(self, purpose: bytes, data: bytes) -> bytes:
        """Return a signature of `data` that is valid for this purpose only."""

    def is_signed(self, public_key: bytes, purpose: bytes, data: bytes, signature: bytes) -> bool:
        """Return whether the owner of `public_key` has signed `data` for this purpose."""

    def pair_key(self, public_key: bytes) -> bytes | None:
        """Return the key that this identity and the owner of `public_key` share, or None if there can be none."""

    def seal(self, key: bytes, text: bytes, header: bytes) -> bytes:
        """Return the text sealed together with the header, which stays outside."""

    def open(self, key: bytes, sealed: bytes, header: bytes) -> bytes | None:
        """Return the text, or None if text, header or key are others than those that were sealed."""


class Identity:
    """The identity of this node."""

    def __init__(self, seed: bytes) -> None:
        """Create the identity of a seed of SEED_BYTES."""
        self.public_key, self._secret_key = sodium.crypto_sign_seed_keypair(seed)
        self._exchange_key = sodium.crypto_sign_ed25519_sk_to_curve25519(self._secret_key)

    @classmethod
    def generate(cls) -> Identity:
        """Return a new identity."""
        return cls(new_seed())

    def sign(self, purpose: bytes, data: bytes) -> bytes:
        """Return a signature of `data` that is valid for this purpose only."""
        signed: bytes = sodium.crypto_sign(_tagged(purpose, data), self._secret_key)
        return signed[:SIGNATURE_BYTES]

    def is_signed(self, public_key: bytes, purpose: bytes, data: bytes, signature: bytes) -> bool:
        """Return whether the owner of `public_key` has signed `data` for this purpose."""
        return is_signed(public_key, purpose, data, signature)

    def pair_key(self, public_key: bytes) -> bytes | None:
        """Return the key that this identity and the owner of `public_key` share.

        None if `public_key` is no key, or one of small order.
        """
        try:
            exchange_key = sodium.crypto_sign_ed25519_pk_to_curve25519(public_key)
            key: bytes = sodium.crypto_scalarmult(self._exchange_key, exchange_key)
        except (nacl.exceptions.CryptoError, ValueError):
            return None
        return key

    def seal(self, key: bytes, text: bytes, header: bytes) -> bytes:
        """Return the text sealed together with the header, which stays outside."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed: bytes = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(text, header, nonce, key)
        return nonce + sealed

    def open(self, key: bytes, sealed: bytes, header: bytes) -> bytes | None:
        """Return the text, or None if text, header or key are others than those that were sealed."""
        if len(sealed) < SEAL_BYTES:
            return None
        nonce, sealed = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            text: bytes = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, header, nonce, key)
        except nacl.exceptions.CryptoError:
            return None
        return text


def new_seed() -> bytes:
    """Return the random seed of a new identity."""
    return secrets.token_bytes(SEED_BYTES)


def is_signed(public_key: bytes, purpose: bytes, data: bytes, signature: bytes) -> bool:
    """Return whether the owner of `public_key` has signed `data` for this purpose."""
    if len(public_key) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        sodium.crypto_sign_open(signature + _tagged(purpose, data), public_key)
    except nacl.exceptions.CryptoError:
        return False
    return True


def derive_key(pair_key: bytes, purpose: bytes, *context: bytes) -> bytes:
    """Return 32 bytes for one purpose and context; they reveal nothing of those for another."""
    data = b"".join(len(each).to_bytes(2) + each for each in (purpose, *context))
    return hashlib.blake2b(data, key=pair_key, digest_size=32, person=b"mcast-pipeline").digest()


def fingerprint(public_key: bytes) -> str:
    """Return the first eight bytes of a hash of the key, for logs and tables."""
    return hashlib.blake2b(public_key, digest_size=8, person=b"mcast-pipeline").hexdigest()


def _tagged(purpose: bytes, data: bytes) -> bytes:
    return b"mcast-pipeline/" + purpose + b"\0" + data
