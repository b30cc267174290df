"""Encrypted frames and key rotation (BOLT 8, "Lightning Message Specification").

A frame is the encrypted 2-byte length and its MAC, then the encrypted body and its MAC. This is the hot path of every
byte that a peer sends or receives: cipher objects are kept, chunks are decrypted where they lie, and a byte is copied a
bounded number of times however the stream was cut.
"""

from collections.abc import Callable
from typing import Any, cast

from leyden.crypto import Aead, CryptoError, hkdf_two
from leyden.transport.errors import TransportError
from leyden.types import Rule
from leyden.types.rules import C_154, C_155, C_156

MAX_MESSAGE_SIZE = 65535
"""Bytes of a message, its 2-byte type included: what the length of a frame can say."""

_MIN_MESSAGE_SIZE = 2
_MAC_SIZE = 16
_HEADER_SIZE = 2 + _MAC_SIZE
_ROTATE_AT = 1000
"""Encryptions under one key; two per message."""


_Decrypt = Callable[[int, bytes, memoryview], bytes]
"""``Aead.decrypt`` as it is: any buffer will do, which spares a copy of every body."""


class _Direction:
    """Key, counter and chaining key of one direction; rotates on its own."""

    __slots__ = ("_chaining_key", "_key", "aead", "nonce")

    def __init__(self, key: bytes, chaining_key: bytes) -> None:
        self._key = key
        self._chaining_key = chaining_key
        self.aead = Aead(key)
        self.nonce = 0

    def rotate(self) -> None:
        """Replace the key; the old one is not kept anywhere."""
        if C_155.enabled:
            self._chaining_key, self._key = hkdf_two(self._chaining_key, self._key)
            self.aead = Aead(self._key)
            self.nonce = 0


class Session:
    """Both directions of one connection after the handshake. Mutable, owned by one connection, never stored."""

    __slots__ = ("_dead", "_in_body", "_needed", "_pending", "_receive", "_send")

    def __init__(self, *, send_key: bytes, receive_key: bytes, chaining_key: bytes) -> None:
        """Three times 32 bytes, from the end of the handshake."""
        self._send = _Direction(send_key, chaining_key)
        self._receive = _Direction(receive_key, chaining_key)
        self._pending = bytearray()
        self._needed = _HEADER_SIZE
        self._in_body = False
        self._dead = False

    def encrypt(self, message: bytes) -> bytes:
        """The frame of one message (type included, 2 to 65535 bytes).

        Raises:
            TransportError: C-154, the message does not fit a frame; nothing was used up.
        """
        size = len(message)
        if not _MIN_MESSAGE_SIZE <= size <= MAX_MESSAGE_SIZE and C_154.enabled:
            raise TransportError(C_154, "a message has 2 to 65535 bytes", size=size)
        out = self._send
        nonce = out.nonce
        if nonce >= _ROTATE_AT:
            out.rotate()
            nonce = out.nonce
        out.nonce = nonce + 2
        encrypt = out.aead.encrypt
        return encrypt(nonce, b"", size.to_bytes(2, "big")) + encrypt(nonce + 1, b"", message)

    def feed(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take bytes as the socket gave them; returns every message that is now complete, in order.

        ``data`` may be reused after the call. At most one frame (65569 bytes) is held between calls.

        Raises:
            TransportError: C-156, a wrong MAC or a body too short for a type. Close the connection at once; its
                ``messages`` are those that came before the bad frame in this call. Every later call raises again.
        """
        if self._dead:
            raise TransportError(C_156, "this session ended with an earlier error")
        pending = self._pending
        if pending:
            pending += data
            if len(pending) < self._needed:
                return []
            data = bytes(pending)
            pending.clear()
        messages: list[bytes] = []
        view = memoryview(data)
        used = self._decrypt_all(view, messages)
        if used < len(view):
            pending += view[used:]
        return messages

    def _decrypt_all(self, view: memoryview, messages: list[bytes]) -> int:
        """Decrypt every complete part of a frame in ``view``; returns how many bytes were consumed."""
        receive = self._receive
        decrypt = cast("_Decrypt", receive.aead.decrypt)
        nonce, needed, in_body = receive.nonce, self._needed, self._in_body
        at, end, size = 0, needed, len(view)
        try:
            while end <= size:
                if in_body:
                    messages.append(decrypt(nonce + 1, b"", view[at:end]))
                    nonce += 2
                    needed = _HEADER_SIZE
                    in_body = False
                else:
                    if nonce >= _ROTATE_AT:
                        receive.nonce = nonce
                        receive.rotate()
                        nonce = receive.nonce
                        decrypt = cast("_Decrypt", receive.aead.decrypt)
                    length = int.from_bytes(decrypt(nonce, b"", view[at:end]), "big")
                    if length < _MIN_MESSAGE_SIZE:
                        self._refuse(C_156, "a body too short for a message type", messages, size=length)
                    needed = length + _MAC_SIZE
                    in_body = True
                at = end
                end += needed
        except CryptoError:
            self._refuse(C_156, "wrong MAC", messages, part="body" if in_body else "length")
        receive.nonce, self._needed, self._in_body = nonce, needed, in_body
        return at

    def _refuse(self, broken: Rule, message: str, messages: list[bytes], **details: Any) -> None:
        if broken.enabled:
            self._dead = True
            self._pending.clear()
            raise TransportError(broken, message, messages=tuple(messages), **details)
