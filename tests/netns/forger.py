"""Datagrams that a member with a modified program seals in the name of another node.

Sender keys are symmetric and every member has all of them; the forger reads them from the shared memory of a member's
own instance.  The seal is the standard one (mp_seal.h), made by libcrypto.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import struct
from dataclasses import dataclass
from typing import Any

from pipeline.shm._native import ffi, lib

from pipeline.lab.instance import Instance
from pipeline.shm.region import Region

DATA, PROBE, ECHO = 1, 2, 3
SEALED = 1
HEADER_BYTES, TAG_BYTES = 20, 16
EVP_CTRL_GCM_GET_TAG = 0x10
PROBE_SPACE = 16


@dataclass(frozen=True, slots=True)
class SenderKey:
    """Sender key of a node; secret None: the node does not seal."""

    origin: int
    epoch: int
    lanes: int
    secret: bytes | None

    def datagram(self, kind: int, space: int, number: int, body: bytes) -> bytes:
        """Return a datagram of this origin with the number of one of its sequence spaces."""
        flags = SEALED if self.secret is not None else 0
        nonce = struct.pack("!IQ", self.origin, space << 56 | number)
        start, end = struct.pack("!BB", 0x10 | kind, flags), struct.pack("!B", self.epoch) + nonce + bytes(4)
        header = start + b"\x09" + end
        return header + (body if self.secret is None else _seal(self.secret, nonce, start + b"\0" + end, body))

    def body_of(self, datagram: bytes) -> bytes:
        """Return the body of a datagram of this origin, whose tag is not checked."""
        body = datagram[HEADER_BYTES:]
        return body if self.secret is None else _decrypt(self.secret, datagram[4:16], body[:-TAG_BYTES])


def key_of(origin: Instance, member: Instance) -> SenderKey:
    """Return the present sender key of a node, as a member has it."""
    status = origin.request("status")
    wanted = (int(status["node_id"], 16), status["key_epoch"])
    region = Region.attach(member.name)
    try:
        record = ffi.new("struct mp_key *")
        for index in range(lib.MP_KEYS_MAX):
            if lib.mp_key_read(region.native, index, record) and (record.origin, record.epoch) == wanted:
                secret = bytes(ffi.buffer(record.key)) if record.sealed else None
                return SenderKey(*wanted, record.lanes, secret)
    finally:
        region.close()
    raise LookupError(f"{member} has no key of {origin}")


def _libcrypto() -> Any:
    crypto = ctypes.CDLL(ctypes.util.find_library("crypto"))
    crypto.EVP_CIPHER_CTX_new.restype = crypto.EVP_aes_256_gcm.restype = ctypes.c_void_p
    return crypto


_crypto = _libcrypto()


def _seal(key: bytes, nonce: bytes, associated: bytes, body: bytes) -> bytes:
    context = ctypes.c_void_p(_crypto.EVP_CIPHER_CTX_new())
    sealed, tag, length = ctypes.create_string_buffer(len(body)), ctypes.create_string_buffer(TAG_BYTES), ctypes.c_int()
    size = ctypes.byref(length)
    done = [
        _crypto.EVP_EncryptInit_ex(context, ctypes.c_void_p(_crypto.EVP_aes_256_gcm()), None, key, nonce),
        _crypto.EVP_EncryptUpdate(context, None, size, associated, len(associated)),
        _crypto.EVP_EncryptUpdate(context, sealed, size, body, len(body)),
        _crypto.EVP_EncryptFinal_ex(context, None, size),
        _crypto.EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, tag),
    ]
    _crypto.EVP_CIPHER_CTX_free(context)
    assert done == [1] * len(done), "libcrypto seals"
    return sealed.raw + tag.raw


def _decrypt(key: bytes, nonce: bytes, sealed: bytes) -> bytes:
    context = ctypes.c_void_p(_crypto.EVP_CIPHER_CTX_new())
    body, length = ctypes.create_string_buffer(len(sealed)), ctypes.c_int()
    done = [
        _crypto.EVP_DecryptInit_ex(context, ctypes.c_void_p(_crypto.EVP_aes_256_gcm()), None, key, nonce),
        _crypto.EVP_DecryptUpdate(context, body, ctypes.byref(length), sealed, len(sealed)),
    ]
    _crypto.EVP_CIPHER_CTX_free(context)
    assert done == [1] * len(done), "libcrypto decrypts"
    return body.raw
