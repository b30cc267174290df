"""Opening channels: limits and questions before keys are made, keys before messages, coins before promises."""

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import structlog

from leyden.bitcoin import Transaction, TxOut, finalize_psbt, p2wsh, parse_psbt, take_signatures
from leyden.channel import (
    OPENING,
    Lifecycle,
    OpenParams,
    check_open_channel,
    open_channel,
    receive_open_channel,
)
from leyden.channel.effects import FundingAbandoned, FundingNeeded
from leyden.channel.events import FailChannel, ProvideFunding
from leyden.hooks.services import ChannelSigner, OnchainSigner, Wallet
from leyden.hooks.signing import NewChannelKeys, SignPsbt, SpendPurpose
from leyden.hooks.types import AcceptTerms, FundedTransaction, OpenRequest, Refusal
from leyden.node.batch import Batch, BatchFailed, FundingWish, missing
from leyden.node.channels import ChannelActor, ChannelManager
from leyden.node.fees import FeeCache
from leyden.node.host import Caller, Host, answers_inline
from leyden.node.journal import Journal
from leyden.node.peer import Peer
from leyden.node.reserve import ReserveKeeper
from leyden.types import (
    BlockHeight,
    ChannelId,
    CltvDelta,
    FeeRatePerKw,
    KeysId,
    LeydenError,
    Msat,
    NodeId,
    OutPoint,
    RuleViolation,
    Sat,
    clean_text,
)
from leyden.wire import FundingSigned, OpenChannel
from leyden.wire.features import Feature, Features

log = structlog.get_logger("leyden.opening")

MAX_UNFUNDED_PER_PEER = 4
MAX_UNFUNDED_PEERS = 50
_ANY_FUNDING_SCRIPT = p2wsh(b"")
"""As long as every funding script."""
_UNCONFIRMED = frozenset({Lifecycle.AWAIT_CONFIRMATION, Lifecycle.FORCE_CLOSING})

AskAccept = Callable[[OpenRequest, Callable[[AcceptTerms | Refusal | None], None]], None]


class OpenRefused(LeydenError):
    """The channel was not opened; the text says by whom and why."""


class BatchOpening(msgspec.Struct, frozen=True, kw_only=True):
    """One channel of a batch."""

    peer: Peer
    funding: Sat
    push: Msat = Msat(0)


class Opener:
    """Starts openings in both roles and feeds the ChannelManager with what they need."""

    def __init__(
        self,
        *,
        host: Host,
        caller: Caller,
        journal: Journal,
        channels: ChannelManager,
        signer: ChannelSigner,
        onchain_signer: OnchainSigner,
        wallet: Wallet,
        fees: FeeCache,
        reserve: ReserveKeeper,
        ask_accept: AskAccept,
    ) -> None:
        self._host = host
        self._caller = caller
        self._journal = journal
        self._channels = channels
        self._signer = signer
        self._onchain_signer = onchain_signer
        self._wallet = wallet
        self._fees = fees
        self._reserve = reserve
        self._ask_accept = ask_accept
        self._wishes: dict[str, FundingWish] = {}
        """How openings want to be funded, by claim: forgotten by a restart, as they are."""
        self._asking: set[tuple[NodeId, bytes]] = set()
        self._waiting: dict[ChannelId, tuple[Callable[[ChannelId], None], Callable[[BaseException], None]]] = {}
        self._batches: dict[str, Batch] = {}
        channels.on_funding = self._on_funding
        channels.on_funding_signed = self._on_funding_signed
        channels.on_funding_broadcast = self._on_funding_broadcast

    # -- by us -----------------------------------------------------------------------------------------------------

    def open(
        self,
        peer: Peer,
        funding: Sat,
        push: Msat,
        announce: bool,
        feerate: FeeRatePerKw | None,
        done: Callable[[ChannelId], None],
        failed: Callable[[BaseException], None],
        *,
        zero_conf: bool = False,
        wish: FundingWish | None = None,
    ) -> None:
        """``done`` with the channel id once the funding transaction is out, ``failed`` with the reason otherwise."""
        if why := self._why_not_open(funding):
            failed(OpenRefused(why))
            return
        node_id = peer.node_id
        if node_id is None:
            failed(OpenRefused("the peer is not connected"))
            return
        keys_id = KeysId(self._host.entropy(32))
        params = OpenParams(
            keys_id=keys_id,
            claim_id=f"open:{keys_id.hex()}",
            funding_satoshis=funding,
            push_msat=push,
            announce=announce,
            feerate=feerate,
            zero_conf=zero_conf,
        )

        def started(actor: ChannelActor) -> None:
            if wish is not None:
                self._wishes[params.claim_id] = wish
            self._waiting[actor.channel.config.temporary_channel_id] = (done, failed)

        self._start(params, node_id, started, failed)

    def _why_not_open(self, funding: Sat, channels: int = 1) -> str:
        """Why we cannot fund so many channels with ``funding`` satoshi in all now; empty if we may try."""
        if self._fees.stale:
            return "no fresh fee estimate: check the fee estimator before opening a channel"
        if self._channels.chain_trouble:
            return f"no channel is opened while the chain is degraded: {self._channels.chain_trouble}"
        spendable = self._wallet.balance().spendable
        if funding > spendable:
            return f"not enough coins: {funding} sat asked, {spendable} sat spendable"
        if self._channels.policy.channel_types[:1] == ("anchors",):
            return self._reserve.why_not_open(funding, channels)
        return ""

    def _start(
        self,
        params: OpenParams,
        node_id: NodeId,
        started: Callable[[ChannelActor], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Keys, then ``open_channel``."""

        def with_keys(keys: NewChannelKeys | None, error: BaseException | None) -> None:
            try:
                if keys is None:
                    raise OpenRefused(f"the signer gave no keys: {error}")
                channel, effects = open_channel(params, keys, self._channels.env(node_id))
            except LeydenError as refused:
                failed(refused)
                return
            started(self._channels.add(channel, effects, node_id))

        self._caller.call(self._signer, self._signer.new_channel(params.keys_id), with_keys, "new channel keys")

    def open_batch(
        self,
        openings: Sequence[BatchOpening],
        wish: FundingWish,
        done: Callable[[list[ChannelId]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Open several channels with one transaction: ``done`` with every id, in order, or ``failed`` and none."""
        total = Sat(sum(opening.funding for opening in openings))
        if why := self._why_no_batch(openings, total):
            failed(BatchFailed(why))
            return
        batch = Batch(f"batch:{self._host.entropy(16).hex()}", len(openings), wish, done, failed)
        self._batches[batch.claim_id] = batch
        for opening in openings:
            if self._batches.get(batch.claim_id) is batch:  # else one of them has failed already
                self._open_member(batch, opening)

    def _why_no_batch(self, openings: Sequence[BatchOpening], total: Sat) -> str:
        if not openings:
            return "a batch needs at least one channel"
        if not answers_inline(self._signer) or not answers_inline(self._onchain_signer):
            return "a batch needs signers that answer at once: its channels become durable together"
        if any(opening.peer.node_id is None for opening in openings):
            return "a peer is not connected"
        return self._why_not_open(total, len(openings))

    def _open_member(self, batch: Batch, opening: BatchOpening) -> None:
        params = OpenParams(
            keys_id=KeysId(self._host.entropy(32)),
            claim_id=batch.claim_id,
            funding_satoshis=opening.funding,
            push_msat=opening.push,
        )

        def started(actor: ChannelActor) -> None:
            temporary = actor.channel.config.temporary_channel_id
            batch.members[temporary] = actor
            self._waiting[temporary] = (partial(batch.opened, temporary), lambda why: batch.fail(str(why)))

        node_id = opening.peer.node_id or NodeId(b"")
        self._start(params, node_id, started, lambda refused: self._abandon(batch, str(refused)))

    def _abandon(self, batch: Batch, reason: str) -> None:
        if self._batches.pop(batch.claim_id, None) is not None:
            batch.abandon(self._channels, reason)
            self._journal.merge(self._wallet.release(batch.claim_id))

    def check_batches(self) -> bool:
        """A batch that lost a member fails as a whole; True when one did."""
        failed = False
        for batch in list(self._batches.values()):
            gone = missing(batch, self._channels)
            if gone is not None:
                failed = True
                self._abandon(batch, self._channels.why_gone(gone))
        return failed

    def _on_funding_signed(self, actor: ChannelActor, message: FundingSigned) -> bool:
        batch = self._batches.get(actor.channel.config.claim_id)
        if batch is None or actor.channel.lifecycle is not Lifecycle.AWAIT_FUNDING_SIGNED:
            return False
        if batch.hold(actor, message):
            if why := batch.why_not(self._channels):
                self._abandon(batch, why)
            elif batch.complete(self._channels):
                del self._batches[batch.claim_id]
            else:
                self._abandon(batch, "our signer refused one of the commitments")
        return True

    def _on_funding_broadcast(self, actor: ChannelActor, tx: Transaction) -> bool:
        batch = self._batches.get(actor.channel.config.claim_id)
        if batch is not None:
            batch.withhold(actor, tx)
        return batch is not None

    def _fund_batch(self, batch: Batch, actor: ChannelActor, delivery: FundingNeeded) -> None:
        """When every peer has accepted: one transaction for all."""
        batch.needed[actor.channel.config.temporary_channel_id] = delivery
        if len(batch.needed) < batch.size:
            return
        try:
            funded = self._fund(batch.claim_id, batch.outputs(), batch.wish)
        except LeydenError as error:
            self._abandon(batch, f"funding failed: {error}")
            return

        def signed(tx: Transaction | None, why_not: LeydenError | None) -> None:
            if tx is None:
                self._abandon(batch, str(why_not))
            else:
                batch.provide(self._channels, tx)

        self._sign_funding(batch.claim_id, funded, signed)

    def settle(self, temporary: ChannelId, channel_id: ChannelId | None, reason: str) -> None:
        """The opening that began as ``temporary`` is funded, or ended without."""
        waiting = self._waiting.pop(temporary, None)
        if waiting is not None:
            done, failed = waiting
            if channel_id is not None:
                done(channel_id)
            else:
                failed(OpenRefused(reason))

    def check_waiting(self) -> None:
        """Answer callers whose channel left the opening states (called at the end of each turn)."""
        if not self._waiting:
            return
        live = {actor.config.temporary_channel_id: actor for actor in self._channels.channels()}
        for temporary in list(self._waiting):
            channel = live.get(temporary)
            if channel is None:
                self.settle(temporary, None, self._channels.why_gone(temporary))
            elif channel.lifecycle not in OPENING:
                self.settle(temporary, channel.channel_id, "")

    # -- by the peer -----------------------------------------------------------------------------------------------

    def on_open_channel(self, peer: Peer, message: OpenChannel) -> None:
        """Check, ask, make keys, accept. Nothing of a refused proposal is kept."""
        node_id = peer.node_id
        if node_id is None:
            return
        temporary = ChannelId(message.temporary_channel_id)
        refusal = self._why_not(node_id, message)
        if refusal is not None:
            peer.send_error(temporary, refusal)
            return
        request = OpenRequest(
            node_id=node_id,
            temporary_channel_id=temporary,
            funding_satoshis=Sat(message.funding_satoshis),
            push_msat=Msat(message.push_msat),
            feerate_per_kw=FeeRatePerKw(message.feerate_per_kw),
            to_self_delay=CltvDelta(message.to_self_delay),
            announce=bool(message.channel_flags & 1),
            channel_type=message.channel_type or b"",
        )
        self._asking.add((node_id, temporary))

        def answered(answer: AcceptTerms | Refusal | None) -> None:
            if isinstance(answer, Refusal):
                self._asking.discard((node_id, temporary))
                peer.send_error(temporary, clean_text(answer.reason))
                return
            self._accept(peer, node_id, message, answer)

        self._ask_accept(request, answered)

    def _why_not(self, node_id: NodeId, message: OpenChannel) -> str | None:
        if self._fees.stale or self._channels.chain_trouble:
            return "not accepting channels right now"
        unfunded = self._unfunded()
        for asking, _ in self._asking:
            unfunded[asking] = unfunded.get(asking, 0) + 1
        if unfunded.get(node_id, 0) >= MAX_UNFUNDED_PER_PEER:
            return f"more than {MAX_UNFUNDED_PER_PEER} channels without funding"
        if node_id not in unfunded and len(unfunded) >= MAX_UNFUNDED_PEERS:
            return "too many peers have channels without funding"
        temporary = ChannelId(message.temporary_channel_id)
        if (node_id, temporary) in self._asking:
            return "temporary_channel_id is already being decided on"
        known = self._channels.get(temporary)
        if known is not None and (known.channel.config.local_is_funder or known.channel.lifecycle not in OPENING):
            return "temporary_channel_id is in use"
        try:
            check_open_channel(message, self._channels.env(node_id))
        except RuleViolation as violation:
            return str(violation)
        anchors = Features.from_bytes(message.channel_type or b"").offers(Feature.OPTION_ANCHORS)
        if anchors and (why := self._reserve.why_not_accept(len(self._asking))):
            log.warning("channel_refused", peer=node_id.hex(), reason=why)
            return "not enough coins in reserve for another channel with anchors"
        return None

    def _unfunded(self) -> dict[NodeId, int]:
        """Channels that peers opened and whose funding no block has shown: naming an outpoint costs nothing."""
        counts: dict[NodeId, int] = {}
        for channel in self._channels.channels():
            waiting = channel.lifecycle in _UNCONFIRMED and channel.funding.confirmation is None
            if not channel.config.local_is_funder and (waiting or channel.lifecycle in OPENING):
                counts[channel.config.peer] = counts.get(channel.config.peer, 0) + 1
        return counts

    def _accept(self, peer: Peer, node_id: NodeId, message: OpenChannel, terms: AcceptTerms | None) -> None:
        keys_id = KeysId(self._host.entropy(32))

        def with_keys(keys: NewChannelKeys | None, error: BaseException | None) -> None:
            self._asking.discard((node_id, ChannelId(message.temporary_channel_id)))  # counted until there is a channel
            if keys is None:
                log.warning("no_channel_keys", reason=str(error))
                peer.send_error(message.temporary_channel_id, "not accepting channels right now")
                return
            env = self._channels.env(node_id)
            channel, effects = receive_open_channel(message, keys, env, keys_id=keys_id, terms=terms)
            self._channels.add(channel, effects, node_id)

        self._caller.call(self._signer, self._signer.new_channel(keys_id), with_keys, "new channel keys")

    # -- coins -----------------------------------------------------------------------------------------------------

    def _on_funding(self, actor: ChannelActor, delivery: FundingNeeded | FundingAbandoned) -> None:
        batch = self._batches.get(delivery.claim_id)
        if batch is not None:
            if isinstance(delivery, FundingNeeded):
                self._fund_batch(batch, actor, delivery)
            return  # a member that gives up is found at the end of the turn
        wish = self._wishes.pop(delivery.claim_id, None) or FundingWish()
        if isinstance(delivery, FundingAbandoned):
            self._journal.merge(self._wallet.release(delivery.claim_id))
            return
        try:
            # The new channel is counted already in what the wallet has to keep.
            funded = self._fund(delivery.claim_id, [TxOut(value=delivery.amount, script=delivery.script)], wish)
        except LeydenError as error:
            self._channels.apply(actor, FailChannel(text=f"funding failed: {error}"))
            return

        def signed(tx: Transaction | None, why_not: LeydenError | None) -> None:
            if self._channels.get(actor.channel.channel_id) is not actor:
                self._journal.merge(self._wallet.release(delivery.claim_id))
            elif tx is None:
                log.warning("funding_not_signed", reason=str(why_not))
                told = "the on-chain signer refused the funding transaction"  # the peer reads it, and need not know why
                text = str(why_not) if isinstance(why_not, _CoinTaken) else told
                self._channels.apply(actor, FailChannel(text=text))
            else:
                vout = next(i for i, o in enumerate(tx.outputs) if o.script == delivery.script)
                self._channels.apply(actor, ProvideFunding(tx=tx, vout=vout))

        self._sign_funding(delivery.claim_id, funded, signed)

    def _fund(self, claim_id: str, outputs: Sequence[TxOut], wish: FundingWish) -> FundedTransaction:
        """The errors of ``Wallet.fund``; ``OpenRefused`` if it costs more than was approved."""
        funded, changes = self._wallet.fund(
            claim_id,
            outputs,
            wish.feerate or self._fees.rates.funding,
            BlockHeight(self._channels.height),
            coins=wish.coins,
            keep=self._reserve.keep(),
        )
        self._journal.merge(changes)
        if wish.max_fee is not None and funded.fee > wish.max_fee:
            self._journal.merge(self._wallet.release(claim_id))
            raise OpenRefused(f"a fee of {funded.fee} sat is more than the {wish.max_fee} sat that were approved")
        return funded

    def priced(self, amounts: Sequence[Sat], wish: FundingWish) -> FundingWish:
        """``wish`` with its feerate fixed, and bound to the fee that one transaction for channels of these amounts
        costs now; the errors of ``Wallet.fund``. Nothing stays locked."""
        feerate = wish.feerate or self._fees.rates.funding
        claim_id = f"price:{self._host.entropy(16).hex()}"
        outputs = [TxOut(value=amount, script=_ANY_FUNDING_SCRIPT) for amount in amounts]
        height = BlockHeight(self._channels.height)
        funded, changes = self._wallet.fund(claim_id, outputs, feerate, height, coins=wish.coins)
        self._journal.merge(changes)
        self._journal.merge(self._wallet.release(claim_id))
        return msgspec.structs.replace(wish, feerate=feerate, max_fee=funded.fee)

    def _sign_funding(
        self, claim_id: str, funded: FundedTransaction, done: Callable[[Transaction | None, LeydenError | None], None]
    ) -> None:
        """``done`` with the final transaction, or with ``None`` and why there is none."""

        def signed(answer: bytes | None, error: BaseException | None) -> None:
            try:
                if answer is None:
                    raise OpenRefused(f"the on-chain signer refused the funding transaction: {error}")
                tx = signed_transaction(funded, answer)
                if taken_coins(tx, self._wallet):
                    raise _CoinTaken(
                        "a coin of the funding transaction was spent, or its block taken back, while it was signed for"
                    )
            except LeydenError as bad:
                done(None, bad)
                return
            done(tx, None)

        request = SignPsbt(request_id=claim_id, psbt=funded.psbt, purpose=SpendPurpose.FUNDING)
        self._caller.call(self._onchain_signer, self._onchain_signer.sign_psbt(request), signed, "sign funding")


class _CoinTaken(OpenRefused):
    """While the on-chain signer thought."""


def signed_transaction(funded: FundedTransaction, answer: bytes) -> Transaction:
    """The finalised transaction: what the wallet built with the signatures that came back, each verified.

    ``LeydenError`` if one is missing or wrong, or if the signer answered about another transaction.
    """
    return finalize_psbt(take_signatures(parse_psbt(funded.psbt), parse_psbt(answer)))


def taken_coins(tx: Transaction, wallet: Wallet) -> list[OutPoint]:
    """What ``tx`` spends and the wallet has no more, when the signer has answered. The block that took it was told
    before anybody looked for what excludes ``tx``, which would wait for a block for ever."""
    known = {coin.outpoint for coin in wallet.coins()}
    return [txin.prevout for txin in tx.inputs if txin.prevout not in known]
