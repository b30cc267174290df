"""What every scripted peer has, whatever carries its bytes: keys, a BOLT 8 session, the messages that came."""

import importlib
from collections import deque
from typing import Any, Self, TypeVar

from leyden.bitcoin import Network
from leyden.crypto import sha256
from leyden.hooks.services import ChannelSigner, NodeIdentity
from leyden.invoice import Invoice, UnsignedInvoice
from leyden.node.channels import common_features
from leyden.node.core import LOCAL_FEATURES
from leyden.node.host import run_inline
from leyden.node.paying import INVOICE_FEATURES, MIN_FINAL_CLTV, sign_invoice
from leyden.testing.scripted_channel import ScriptedChannel, ScriptError
from leyden.transport import InitiatorHandshake, Session
from leyden.types import Msat, NodeId, PaymentHash, PaymentSecret, Preimage
from leyden.wire import Init, Message, Ping, Pong, UnknownMessage, WarningMessage, decode, encode
from leyden.wire.features import Feature, Features, received_features

M = TypeVar("M", bound=Message)


class ScriptKeys:
    """Keys of a made-up node: the same name, the same keys."""

    def __init__(self, name: str) -> None:
        manager: Any = importlib.import_module("leyden_inmemory").InMemoryKeyManager
        keys = manager(sha256(f"secret of {name}".encode()), Network.REGTEST)
        self.identity: NodeIdentity = keys
        self.signer: ChannelSigner = keys.channel_signer


class Script:
    """Keys, session and messages of a scripted peer; how bytes move is for ``ScriptedPeer`` and ``ScriptedSocket``."""

    def __init__(self, name: str, identity: NodeIdentity | None, node_id: NodeId) -> None:
        keys = ScriptKeys(name)
        self.name = name
        self.identity = identity or keys.identity
        self.signer = keys.signer
        self.node_id = run_inline(self.identity.node_id())
        self.remote_node_id = node_id
        self.answer_pings = True
        """Answer the node's own pings, which then do not show up in ``expect``."""
        self.features = LOCAL_FEATURES
        self.remote_init: Init | None = None
        self.channels: list[ScriptedChannel] = []
        self._session: Session | None = None
        self._raw = bytearray()
        self._messages: deque[Message | UnknownMessage] = deque()

    @property
    def session(self) -> Session:
        if self._session is None:
            raise ScriptError(f"{self.name} has no session yet")
        return self._session

    @property
    def negotiated(self) -> Features:
        """What both sides offer."""
        if self.remote_init is None:
            return Features()
        theirs = received_features(self.remote_init.globalfeatures, self.remote_init.features)
        return common_features(self.features, theirs)

    def without(self, *features: Feature) -> Self:
        """From the next connection on the script does not offer these."""
        unwanted = {feature | 1 for feature in features}
        self.features = Features.of(*(bit for bit in self.features if bit | 1 not in unwanted))
        return self

    def forget_connection(self) -> None:
        """The connection is gone: a new one starts from nothing, channels wait for it."""
        self._session = self.remote_init = None
        self._raw.clear()
        self._messages.clear()
        for channel in self.channels:
            channel.disconnected()

    # -- handshake and init ----------------------------------------------------------------------------------------

    def initiate(self, entropy: bytes) -> InitiatorHandshake:
        return InitiatorHandshake(self.node_id, self.remote_node_id, entropy)

    def ecdh(self, point: bytes) -> bytes:
        """With the script's static key (what the handshake asks for)."""
        return run_inline(self.identity.ecdh(point))

    def make_init(self, features: Features | None = None) -> Init:
        """An ``init`` that the node accepts, or one with other features."""
        chosen = self.features if features is None else features
        return Init(globalfeatures=b"", features=chosen.to_bytes(), networks=(Network.REGTEST.chain_hash,))

    # -- frames ----------------------------------------------------------------------------------------------------

    def seal(self, message: Message | bytes) -> bytes:
        """The encrypted frame; the session moves on, so it has to be written next."""
        return self.session.encrypt(message if isinstance(message, bytes) else encode(message))

    def unseal(self, data: bytes) -> bytes:
        """Take bytes of the node: messages are kept for ``pop``; what has to be written in answer is returned."""
        self._raw += data
        if self._session is None:
            return b""
        data = bytes(self._raw)
        self._raw.clear()
        answer = b""
        for plain in self._session.feed(data):
            message = decode(plain)
            if isinstance(message, Ping) and self.answer_pings:
                answer += self.seal(Pong(ignored=bytes(message.num_pong_bytes)))
            else:
                self._messages.append(message)
        return answer

    def take_raw(self, size: int) -> bytes:
        """The next ``size`` raw bytes of the node, before there is a session."""
        if len(self._raw) < size:
            raise ScriptError(f"the node wrote {len(self._raw)} bytes, {size} were due")
        data = bytes(self._raw[:size])
        del self._raw[:size]
        return data

    # -- messages --------------------------------------------------------------------------------------------------

    def pop(self, kind: type[M], closed: bool) -> M:
        """The node's next message, which must be a ``kind``."""
        if not self._messages:
            raise ScriptError(f"expected {kind.__name__}, the node {'closed' if closed else 'is silent'}")
        message = self._messages.popleft()
        if not isinstance(message, kind):
            raise ScriptError(f"expected {kind.__name__}, got {message}")
        return message

    def rest(self) -> list[Message | UnknownMessage]:
        """Everything that the node has said and nobody has looked at."""
        found = list(self._messages)
        self._messages.clear()
        return found

    def last_warning(self, reason: str) -> str:
        """The node has closed and left nothing but a ``warning``, or nothing; ``reason`` must be in it."""
        text = ""
        if self._messages:
            last = self._messages.pop()
            if not isinstance(last, WarningMessage) or self._messages:
                raise ScriptError(f"expected nothing but a warning before the end, got {[*self._messages, last]}")
            text = last.data.decode()
        if reason not in text:
            raise ScriptError(f"expected {reason} in the last warning, got {text or 'none'}")
        return text

    # -- channels --------------------------------------------------------------------------------------------------

    def new_channel(self, height: int, now: float) -> ScriptedChannel:
        channel = ScriptedChannel(
            f"{self.name} {len(self.channels)}",
            signer=self.signer,
            identity=self.identity,
            node=self.remote_node_id,
            features=self.negotiated,
            height=height,
            now=int(now),
        )
        self.channels.append(channel)
        return channel

    def feed(self, channel: ScriptedChannel) -> list[Message]:
        """Give the engine what came for it, up to the first message that is for nobody or for the script."""
        taken: list[Message] = []
        while self._messages:
            message = self._messages[0]
            if isinstance(message, UnknownMessage) or not channel.concerns(message):
                break
            taken.append(message)
            self._messages.popleft()
        if taken:
            channel.receive(taken)
        return taken

    def missed(self, channel: ScriptedChannel, wanted: type[Message]) -> ScriptError:
        """The place was not reached: what happened instead."""
        said = self._messages[0] if self._messages else "nothing"
        return ScriptError(
            f"{wanted.__name__} never came: the script's end is {channel.channel.lifecycle.value}, the node said {said}"
        )

    def invoice(self, amount: int, now: float, name: str = "") -> tuple[Invoice, Preimage]:
        """A signed invoice of the script over ``amount`` msat, and its preimage."""
        return make_invoice(self.identity, amount, now, sha256(f"{self.name} {name} {amount}".encode()))


def make_invoice(identity: NodeIdentity, amount: int, now: float, entropy: bytes) -> tuple[Invoice, Preimage]:
    """A signed regtest invoice of ``identity`` over ``amount`` msat, and its preimage, both made from ``entropy``."""
    preimage = Preimage(sha256(b"preimage" + entropy))
    unsigned = UnsignedInvoice(
        network=Network.REGTEST,
        amount_msat=Msat(amount),
        timestamp=int(now),
        payment_hash=PaymentHash(sha256(preimage)),
        payment_secret=PaymentSecret(sha256(b"secret" + entropy)),
        description="scripted",
        expiry=3600,
        min_final_cltv_expiry_delta=MIN_FINAL_CLTV,
        features=INVOICE_FEATURES,
        payee=run_inline(identity.node_id()),
    )
    return run_inline(sign_invoice(identity, unsigned)), preimage


__all__ = ["M", "Script", "ScriptError", "ScriptKeys", "make_invoice"]
