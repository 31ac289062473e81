"""Signed structures of an authority: a signature, then a msgpack map.

    data = signature (64 bytes) ‖ body        the signature is Ed25519 over purpose and body, by the key `authority`

A value that `decode` returns has passed all checks.  Equal values give equal bytes.  Fields that this version does not
know are ignored; the signature covers them, as it covers the body as it was received.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec

from pipeline.drop_reasons import MessageRefusal
from pipeline.errors import WireError
from pipeline.keys.identity import SIGNATURE_BYTES, Signer, is_signed


class _Statement(Protocol):
    @property
    def authority(self) -> bytes:
        """Public key of the authority that signs."""


T = TypeVar("T", bound=_Statement)


class SignedCodec(Generic[T]):
    """Codec of one kind of structure."""

    def __init__(
        self,
        kind: type[T],
        *,
        purpose: bytes,
        bytes_max: int,
        is_sound: Callable[[T], bool],
        refusal: MessageRefusal,
    ) -> None:
        """`purpose` separates the signatures from all others; `is_sound` checks what the type does not express."""
        self._purpose = purpose
        self._bytes_max = bytes_max
        self._is_sound = is_sound
        self._refusal = refusal
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(kind)

    def encode(self, value: T, authority: Signer) -> bytes:
        """Return the signed bytes of a value.  The caller has checked the value."""
        assert value.authority == authority.public_key, "an authority signs its own structures only"
        body = self._encoder.encode(value)
        data = authority.sign(self._purpose, body) + body
        assert self.decode(data) == value, "the values are within their bounds"
        return data

    def decode(self, data: bytes) -> T:
        """Return a value that the authority named in it has signed; WireError for any other bytes."""
        signature, body = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
        if len(data) > self._bytes_max:
            raise WireError(self._refusal)
        try:
            value = self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(self._refusal) from error
        if not self._is_sound(value) or not is_signed(value.authority, self._purpose, body, signature):
            raise WireError(self._refusal)
        return value
