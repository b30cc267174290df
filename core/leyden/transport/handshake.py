"""The three acts of the Noise_XK handshake, once for each role (BOLT 8, "Authenticated Key Exchange Handshake").

Static secrets stay with the ``NodeIdentity``: where the protocol needs one, the caller passes the answer of its ECDH,
the SHA256 of the compressed shared point (32 bytes). The ephemeral secret is 32 fresh random bytes from the shell; each
handshake object uses it once and forgets it.
"""

import enum

from leyden.crypto import CryptoError, aead_decrypt, aead_encrypt, ecdh, hkdf_two, is_valid_point, pubkey_create, sha256
from leyden.transport.errors import HandshakeFailure, HandshakeOrderError, require_act
from leyden.transport.session import Session
from leyden.types import NodeId
from leyden.types.rules import C_150, C_151, C_152, C_153

ACT_ONE_SIZE = 50
ACT_TWO_SIZE = 50
ACT_THREE_SIZE = 66

_VERSION = b"\x00"
_PROLOGUE = b"lightning"
_START = sha256(b"Noise_XK_secp256k1_ChaChaPoly_SHA256")
_START_PROLOGUE = sha256(_START + _PROLOGUE)
_NONCE_0 = bytes(12)
_NONCE_1 = bytes(4) + (1).to_bytes(8, "little")


class _Step(enum.Enum):
    START = "the start"
    ACT_ONE = "act one"
    ACT_TWO = "act two"
    DONE = "the last act"
    TAKEN = "the session"
    FAILED = "a failed act"


class ActBuffer:
    """Cuts handshake acts out of a TCP stream (C-153): an act is complete at its exact size, what follows stays here.

    ``take(size)`` answers None until enough bytes were fed; ``rest()`` hands over what belongs to the first frames.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> None:
        """Add bytes as they arrived. The caller bounds them: no more than one read of the socket between two acts."""
        self._held += data

    def take(self, size: int) -> bytes | None:
        if len(self._held) < size and C_153.enabled:
            return None
        act, self._held = self._held[:size], self._held[size:]
        return act

    def rest(self) -> bytes:
        """Everything not taken yet, for ``Session.feed``; empties the buffer."""
        held, self._held = self._held, b""
        return held


class _Handshake:
    """The symmetric state that both roles share: transcript hash and chaining key."""

    __slots__ = ("_chaining_key", "_ephemeral_public", "_ephemeral_secret", "_hash", "_keys", "_step", "_temp_key")

    def __init__(self, responder_static: bytes, ephemeral_secret: bytes) -> None:
        self._chaining_key = _START
        self._hash = sha256((_START_PROLOGUE if C_150.enabled else _START) + responder_static)
        self._ephemeral_secret = ephemeral_secret
        self._ephemeral_public = pubkey_create(ephemeral_secret)
        self._temp_key = b""
        self._keys = (b"", b"")
        self._step = _Step.START

    def _enter(self, expected: _Step) -> None:
        """Pessimistic: the object is dead until the step that runs now has succeeded."""
        if self._step is not expected:
            raise HandshakeOrderError(f"this step of the handshake follows {expected.value}, not {self._step.value}")
        self._step = _Step.FAILED

    def _absorb(self, data: bytes) -> None:
        self._hash = sha256(self._hash + data)

    def _mix(self, shared: bytes) -> None:
        self._chaining_key, self._temp_key = hkdf_two(self._chaining_key, shared)

    def _seal(self, plain: bytes, nonce: bytes = _NONCE_0) -> bytes:
        sealed = aead_encrypt(self._temp_key, nonce, self._hash, plain)
        self._absorb(sealed)
        return sealed

    def _open(self, sealed: bytes, nonce: bytes = _NONCE_0) -> bytes | None:
        """The plaintext, or None if the MAC is wrong."""
        try:
            plain = aead_decrypt(self._temp_key, nonce, self._hash, sealed)
        except CryptoError:
            return None
        self._absorb(sealed)
        return plain

    def _finish(self) -> None:
        self._keys = hkdf_two(self._chaining_key, b"")
        self._ephemeral_secret = self._temp_key = b""
        self._step = _Step.DONE

    def _take_keys(self) -> tuple[bytes, bytes]:
        """The initiator's sending key and its receiving key; given away once, so that no two sessions share a nonce."""
        self._enter(_Step.DONE)
        keys, self._keys = self._keys, (b"", b"")
        self._step = _Step.TAKEN
        return keys


class InitiatorHandshake(_Handshake):
    """The side that dials and knows whom. ``act_one`` -> ``on_act_two`` -> ``act_three`` -> ``session``."""

    __slots__ = ("_local_static", "_remote_static")

    def __init__(self, local_static_public: bytes, remote_static: bytes, ephemeral_secret: bytes) -> None:
        """Keys are 33 bytes, the secret 32. ``CryptoError``: ``ephemeral_secret`` is no valid secret."""
        super().__init__(remote_static, ephemeral_secret)
        self._local_static = local_static_public
        self._remote_static = remote_static

    def act_one(self) -> bytes:
        """The 50 bytes that open the connection. ``CryptoError``: the node id we were told to dial is no point."""
        self._enter(_Step.START)
        self._absorb(self._ephemeral_public)
        self._mix(ecdh(self._ephemeral_secret, self._remote_static))
        tag = self._seal(b"")
        self._step = _Step.ACT_ONE
        return _VERSION + self._ephemeral_public + tag

    def on_act_two(self, data: bytes) -> bytes:
        """Take the responder's 50 bytes; returns its ephemeral key, on which the caller runs the static ECDH.

        Raises:
            TransportError: C-153 wrong size; C-151 wrong version, key that is no point, or wrong MAC.
        """
        self._enter(_Step.ACT_ONE)
        require_act(
            len(data) == ACT_TWO_SIZE, C_153, HandshakeFailure.ACT2_READ_FAILED, "act two has 50 bytes", got=len(data)
        )
        require_act(
            data[:1] == _VERSION, C_151, HandshakeFailure.ACT2_BAD_VERSION, "unknown handshake version", got=data[:1]
        )
        ephemeral, tag = data[1:34], data[34:]
        require_act(is_valid_point(ephemeral), C_151, HandshakeFailure.ACT2_BAD_PUBKEY, "bad ephemeral key")
        self._absorb(ephemeral)
        self._mix(ecdh(self._ephemeral_secret, ephemeral))
        require_act(self._open(tag) is not None, C_151, HandshakeFailure.ACT2_BAD_TAG, "bad MAC")
        self._step = _Step.ACT_TWO
        return ephemeral

    def act_three(self, static_shared: bytes) -> bytes:
        """The last 66 bytes. ``static_shared``: ECDH of our static secret with what ``on_act_two`` returned."""
        self._enter(_Step.ACT_TWO)
        sealed_static = self._seal(self._local_static, _NONCE_1)
        self._mix(static_shared)
        tag = self._seal(b"")
        self._finish()
        return _VERSION + sealed_static + tag

    def session(self) -> Session:
        """The encrypted session that follows the last act (once)."""
        ours, theirs = self._take_keys()
        return Session(send_key=ours, receive_key=theirs, chaining_key=self._chaining_key)


class ResponderHandshake(_Handshake):
    """The side that listens. ``on_act_one`` -> ``act_two`` -> ``on_act_three`` (learns who dialled) -> ``session``."""

    __slots__ = ("_remote_ephemeral", "_tag_one")

    def __init__(self, local_static_public: bytes, ephemeral_secret: bytes) -> None:
        """The key is 33 bytes, the secret 32. ``CryptoError``: ``ephemeral_secret`` is no valid secret."""
        super().__init__(local_static_public, ephemeral_secret)
        self._remote_ephemeral = b""
        self._tag_one = b""

    def on_act_one(self, data: bytes) -> bytes:
        """Take the initiator's 50 bytes; returns its ephemeral key, on which the caller runs the static ECDH.

        The MAC of this act needs that answer and is checked by ``act_two``, before anything is sent.

        Raises:
            TransportError: C-153 wrong size; C-151 wrong version or a key that is no point.
        """
        self._enter(_Step.START)
        require_act(
            len(data) == ACT_ONE_SIZE, C_153, HandshakeFailure.ACT1_READ_FAILED, "act one has 50 bytes", got=len(data)
        )
        require_act(
            data[:1] == _VERSION, C_151, HandshakeFailure.ACT1_BAD_VERSION, "unknown handshake version", got=data[:1]
        )
        self._remote_ephemeral, self._tag_one = data[1:34], data[34:]
        require_act(
            is_valid_point(self._remote_ephemeral), C_151, HandshakeFailure.ACT1_BAD_PUBKEY, "bad ephemeral key"
        )
        self._absorb(self._remote_ephemeral)
        self._step = _Step.ACT_ONE
        return self._remote_ephemeral

    def act_two(self, static_shared: bytes) -> bytes:
        """Check act one's MAC and answer with 50 bytes.

        ``static_shared``: ECDH of our static secret with what ``on_act_one`` returned.

        Raises:
            TransportError: C-151, the initiator does not know our node id (wrong MAC): nothing may be sent.
        """
        self._enter(_Step.ACT_ONE)
        self._mix(static_shared)
        require_act(self._open(self._tag_one) is not None, C_151, HandshakeFailure.ACT1_BAD_TAG, "bad MAC")
        self._absorb(self._ephemeral_public)
        self._mix(ecdh(self._ephemeral_secret, self._remote_ephemeral))
        tag = self._seal(b"")
        self._step = _Step.ACT_TWO
        return _VERSION + self._ephemeral_public + tag

    def on_act_three(self, data: bytes) -> NodeId:
        """Take the last 66 bytes; returns the initiator's proven node id.

        Raises:
            TransportError: C-153 wrong size; C-152 wrong version, either MAC wrong, or a static key that is no point.
        """
        self._enter(_Step.ACT_TWO)
        require_act(
            len(data) == ACT_THREE_SIZE,
            C_153,
            HandshakeFailure.ACT3_READ_FAILED,
            "act three has 66 bytes",
            got=len(data),
        )
        require_act(
            data[:1] == _VERSION, C_152, HandshakeFailure.ACT3_BAD_VERSION, "unknown handshake version", got=data[:1]
        )
        static = self._open(data[1:50], _NONCE_1)
        require_act(static is not None, C_152, HandshakeFailure.ACT3_BAD_CIPHERTEXT, "bad MAC on the static key")
        remote_static = static or b""
        require_act(is_valid_point(remote_static), C_152, HandshakeFailure.ACT3_BAD_PUBKEY, "bad static key")
        self._mix(ecdh(self._ephemeral_secret, remote_static))
        require_act(self._open(data[50:]) is not None, C_152, HandshakeFailure.ACT3_BAD_TAG, "bad MAC")
        self._finish()
        return NodeId(remote_static)

    def session(self) -> Session:
        """The encrypted session that follows the last act (once)."""
        theirs, ours = self._take_keys()
        return Session(send_key=ours, receive_key=theirs, chaining_key=self._chaining_key)
