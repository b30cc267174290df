"""The script's end of a channel: a real engine knows what would be right, the script decides what is sent.

What the engine wants to send waits until the script takes it as it is (``take``), altered (``changed``) or not at all
(``skip``); what the node says goes in by ``receive``. ``ScriptedPeer.run`` and ``ScriptedSocket.run`` do both until a
place is reached, so that a script starts at any point of a channel's life with real keys and real signatures.
"""

from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from leyden.bitcoin import Transaction, TxOut
from leyden.channel import Channel, ChannelPolicy, FeeRates, Lifecycle, OpenParams, open_channel, receive_open_channel
from leyden.channel import effects as fx
from leyden.channel import events as ev
from leyden.crypto import sha256
from leyden.hooks.services import ChannelSigner, NodeIdentity
from leyden.invoice import Invoice
from leyden.node.host import run_inline
from leyden.onion import build_onion, decode_failure, make_failure, make_final_payload, onion_ephemeral_key, peel_onion
from leyden.payments.send import make_direct_htlc
from leyden.testing.channel_pair import ChannelEnd
from leyden.types import BlockHeight, FeeRatePerKw, LeydenError, Msat, NodeId, PaymentHash, PaymentSecret, Preimage, Sat
from leyden.wire import (
    ErrorMessage,
    Message,
    OpenChannel,
    UnknownMessage,
    UpdateFailHtlc,
    WarningMessage,
    decode,
    encode,
)
from leyden.wire import failures as wire_failures
from leyden.wire.features import Features

SCRIPT_POLICY = ChannelPolicy(minimum_depth=3, max_dust_exposure_msat=Msat(10**15))
"""A script minds the node's limits, not its own; the node may open to it without waiting for a block."""
FEERATE = FeeRatePerKw(1_000)
"""Of commitments, in sat per 1000 weight: what the simulation's estimator says too."""
_RATES = FeeRates(anchor_channel=FEERATE, non_anchor_channel=FEERATE, close_minimum=FEERATE)
EXPIRY = 100
"""Blocks until an HTLC of a script expires, unless it says otherwise."""


class ScriptError(LeydenError, AssertionError):
    """The node did something else than the script expects."""


class ScriptedChannel:
    """One channel with ``node``. ``end`` is the engine: its state, events and deliveries are there to look at."""

    def __init__(
        self,
        name: str,
        *,
        signer: ChannelSigner,
        identity: NodeIdentity,
        node: NodeId,
        features: Features,
        height: int,
        now: int,
    ) -> None:
        self.name = name
        self.node = node
        policy = replace(SCRIPT_POLICY, trusted_zero_conf=(node.hex(),))
        self.end = ChannelEnd(name, signer, policy, features)
        self.end.identity = identity
        self.end.env = replace(
            self.end.env,
            height=BlockHeight(height),
            now=now,
            peer=node,
            node_id=run_inline(identity.node_id()),
            feerates=_RATES,
        )
        self.on_funding: Callable[[bytes, Sat], Transaction] = _no_coins
        """Makes the transaction that pays an amount to a script, where the script funds the channel."""
        self.funding_tx: Transaction | None = None
        self.heard: list[Message] = []
        """Everything that the engine was given, in order."""
        self.offered: dict[int, PaymentHash] = {}
        """The payment hash of each HTLC that the script has offered, by id."""
        self._identity = identity
        self._secrets: dict[bytes, bytes] = {}

    # -- opening ---------------------------------------------------------------------------------------------------

    def propose(self, funding: int, push_msat: int, **params: Any) -> None:
        """``open_channel`` waits to be sent; ``params`` as in ``OpenParams``."""
        wanted = OpenParams(
            keys_id=self.end.keys_id,
            claim_id="script",
            funding_satoshis=Sat(funding),
            push_msat=Msat(push_msat),
            **params,
        )
        self.end.take(*open_channel(wanted, self.end.new_keys(), self.end.fresh_env()))

    def answer(self, proposal: OpenChannel) -> None:
        """``accept_channel`` waits to be sent (or an error: the engine is as strict as the node)."""
        env = self.end.fresh_env()
        self.end.take(*receive_open_channel(proposal, self.end.new_keys(), env, keys_id=self.end.keys_id))

    def confirm(self, height: int, tx_index: int = 1) -> None:
        """The funding transaction is in the block at ``height``."""
        setup, script = self.channel.setup, self.channel.funding.script
        output = TxOut(value=setup.funding_satoshis, script=script)
        self.end.do(ev.FundingConfirmed(height=BlockHeight(height), tx_index=tx_index, output=output))

    def bury(self, height: int, tip: int) -> None:
        """The funding transaction is in the block at ``height``, and the chain has grown to ``tip``."""
        self.confirm(height)
        for each in range(height, tip + 1):
            self.block(each)

    def block(self, height: int) -> None:
        """The chain has grown to ``height``."""
        self.end.env = replace(self.end.env, height=BlockHeight(height))
        if self.end.channel_or_none is not None:
            self.end.do(ev.BlockConnected(height=BlockHeight(height)))

    # -- looking ---------------------------------------------------------------------------------------------------

    @property
    def channel(self) -> Channel:
        """The engine's state."""
        return self.end.channel

    @property
    def id(self) -> bytes:
        """The channel id, or the temporary one."""
        return self.channel.channel_id

    @property
    def height(self) -> int:
        """Of the chain, as far as the engine was told."""
        return self.end.env.height

    @property
    def is_open(self) -> bool:
        return self.channel.lifecycle is Lifecycle.NORMAL and self.channel.is_usable

    @property
    def held(self) -> Message | None:
        """What the engine sends next."""
        if not self.end.sent:
            return None
        message = decode(self.end.sent[0])
        return None if isinstance(message, UnknownMessage) else message

    def concerns(self, message: Message) -> bool:
        """Whether it is the engine's business; errors and warnings are the script's."""
        if isinstance(message, ErrorMessage | WarningMessage) or self.end.channel_or_none is None:
            return False
        named = getattr(message, "channel_id", None) or getattr(message, "temporary_channel_id", None)
        return named in (self.id, self.channel.config.temporary_channel_id)

    @property
    def received(self) -> list[fx.HtlcReceived]:
        """HTLCs of the node that were irrevocably committed, whatever became of them since."""
        return [delivery for delivery in self.end.deliveries if isinstance(delivery, fx.HtlcReceived)]

    # -- out -------------------------------------------------------------------------------------------------------

    def take(self) -> bytes:
        """The next message as the engine means it."""
        if not self.end.sent:
            raise ScriptError(f"{self.name} has nothing to send")
        return self.end.sent.popleft()

    def changed(self, **fields: Any) -> bytes:
        """The next message with other values; the engine believes that it sent its own."""
        message = self.held
        data = self.take()
        return data if message is None else encode(replace(message, **fields))

    def skip(self) -> None:
        """The next message is never sent."""
        self.take()

    # -- in --------------------------------------------------------------------------------------------------------

    def receive(self, messages: Iterable[Message]) -> None:
        """Messages of the node, and the end of the turn in which they came."""
        for message in messages:
            self.heard.append(message)
            self.end.do(ev.MessageReceived(message=message))
        self._fund()
        self.turn()

    def turn(self) -> None:
        """The engine may sign for what it has gathered."""
        if self.end.channel_or_none is not None:
            self.end.do(ev.TurnEnded())

    def _fund(self) -> None:
        for needed in [d for d in self.end.deliveries if isinstance(d, fx.FundingNeeded)]:
            self.end.deliveries.remove(needed)
            self.funding_tx = tx = self.on_funding(needed.script, needed.amount)
            vout = next(i for i, output in enumerate(tx.outputs) if output.script == needed.script)
            self.end.do(ev.ProvideFunding(tx=tx, vout=vout))

    def connected(self, features: Features) -> None:
        """A new connection: ``channel_reestablish`` waits to be sent."""
        self.end.sent.clear()
        self.end.env = replace(self.end.env, features=features)
        self.end.do(ev.PeerConnected(features=features))

    def disconnected(self) -> None:
        self.end.sent.clear()
        self.end.do(ev.PeerDisconnected())

    # -- updates ---------------------------------------------------------------------------------------------------

    def offer(
        self,
        amount: int,
        *,
        expiry: int = 0,
        payment_hash: bytes = b"",
        payload: bytes | None = None,
        onion: bytes | None = None,
    ) -> int:
        """Offer an HTLC of ``amount`` msat; returns its id. ``update_add_htlc`` waits to be sent.

        Unless told otherwise it expires ``EXPIRY`` blocks from now and its onion is right, but no invoice asks for it.
        """
        height = BlockHeight(expiry or self.height + EXPIRY)
        digest = PaymentHash(payment_hash or sha256(f"hash {self.name} {self.channel.next_local_id}".encode()))
        if payload is None:
            payload = make_final_payload(Msat(amount), height, PaymentSecret(bytes(32)), Msat(amount))
        return self._add(Msat(amount), digest, height, self.onion(payload, digest) if onion is None else onion)

    def onion(self, payload: bytes, payment_hash: bytes) -> bytes:
        """An onion packet whose only hop is the node."""
        key = sha256(b"session" + payment_hash + payload)
        packet, secrets = build_onion(key, [(self.node, payload)], PaymentHash(payment_hash))
        self._secrets[payment_hash] = secrets[0]
        return packet

    def pay(self, invoice: Invoice, amount: int = 0) -> int:
        """Offer the HTLC that pays an invoice of the node; returns its id."""
        wanted = Msat(amount or invoice.amount_msat or 0)
        key = sha256(b"session" + invoice.payment_hash)
        htlc = make_direct_htlc(invoice, wanted, BlockHeight(self.height), key)
        self._secrets[htlc.payment_hash] = htlc.shared_secret
        return self._add(htlc.amount_msat, htlc.payment_hash, htlc.cltv_expiry, htlc.onion_routing_packet)

    def _add(self, amount: Msat, payment_hash: PaymentHash, expiry: BlockHeight, onion: bytes) -> int:
        command = ev.AddHtlc(
            amount_msat=amount, payment_hash=payment_hash, cltv_expiry=expiry, onion_routing_packet=onion
        )
        added = next(effect.id for effect in self.end.do(command) if isinstance(effect, fx.HtlcAdded))
        self.offered[added] = payment_hash
        return added

    def fulfil(self, id: int, preimage: bytes) -> None:
        """``update_fulfill_htlc`` waits to be sent."""
        self.end.do(ev.FulfillHtlc(id=id, preimage=Preimage(preimage)))

    def fail(self, htlc: fx.HtlcReceived, failure: wire_failures.Failure | bytes) -> None:
        """``update_fail_htlc`` waits to be sent: a failure as the payee would wrap it, or any bytes."""
        if not isinstance(failure, bytes):
            failure = make_failure(self._shared_secret(htlc), wire_failures.encode_failure(failure))
        self.end.do(ev.FailHtlc(id=htlc.id, reason=failure))

    def fail_malformed(self, htlc: fx.HtlcReceived, code: int) -> None:
        """``update_fail_malformed_htlc`` waits to be sent."""
        digest = sha256(htlc.onion_routing_packet)
        self.end.do(ev.FailMalformedHtlc(id=htlc.id, sha256_of_onion=digest, failure_code=code))

    def update_fee(self, feerate: int) -> None:
        """``update_fee`` waits to be sent (the script must be the funder)."""
        self.end.do(ev.UpdateFee(feerate=FeeRatePerKw(feerate)))

    def shut_down(self, script: bytes = b"") -> None:
        """``shutdown`` waits to be sent, once nothing of the script's is in flight."""
        self.end.do(ev.Shutdown(script=script))

    # -- onions ----------------------------------------------------------------------------------------------------

    def payload(self, htlc: fx.HtlcReceived) -> bytes:
        """What the node's onion says to the script."""
        return peel_onion(htlc.onion_routing_packet, htlc.payment_hash, self._shared_secret(htlc)).payload

    def _shared_secret(self, htlc: fx.HtlcReceived) -> bytes:
        return run_inline(self._identity.ecdh(onion_ephemeral_key(htlc.onion_routing_packet)))

    def failure(self, message: UpdateFailHtlc) -> wire_failures.Failure | wire_failures.UnknownFailure:
        """What the node says about an HTLC that the script had offered; ``ScriptError`` if nobody can read it."""
        found = decode_failure([self._secrets[self.offered[message.id]]], message.reason)
        if found is None:
            raise ScriptError("the failure cannot be decrypted")
        return wire_failures.decode_failure(found[1])


def _no_coins(_script: bytes, _amount: Sat) -> Transaction:
    raise ScriptError("the script has no coins: let the node fund the channel, or set on_funding")
