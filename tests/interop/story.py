"""One scenario: a Leyden node beside the bed, and the channels between it and the peer.

Scenarios wait for states of both sides and of the chain, never for time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

import msgspec
from leyden.bitcoin import Network
from leyden.crypto import sha256
from leyden.hooks.types import Alarm, ChannelClosed, NodeEvent
from leyden.invoice import Invoice, parse_invoice
from leyden.node import Node
from leyden.node.peer import Peer
from leyden.node.views import ChannelView, InvoiceView, PaymentView
from leyden.types import ChannelId, LeydenError, Msat, NodeId, PaymentHash, Sat

from tests.interop.bed import BTC, CAPACITY, PATIENCE, Bed
from tests.interop.peer import ChannelKind, LightningPeer, Opening, Paid, PeerChannel, PeerRefused
from tests.testbed.bitcoind import RpcError
from tests.testbed.leyden import DEPTH, Leyden

T = TypeVar("T")
NO_SUCH_TRANSACTION = -5
"""What bitcoind answers."""


class FromThread:
    """Our node for whoever asks in a thread: its loop answers, for in a turn lists change under their reader."""

    def __init__(self, node: Node, loop: asyncio.AbstractEventLoop) -> None:
        self._node = node
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._node, name)
        if not callable(found):
            return found

        def asked(*arguments: Any, **named: Any) -> Any:
            async def answer() -> Any:
                return found(*arguments, **named)

            return asyncio.run_coroutine_threadsafe(answer(), self._loop).result()

        return asked


class Story:
    """One Leyden node beside the bed. The peer's commands run in a thread, for our node has to answer meanwhile."""

    def __init__(self, bed: Bed, leyden: Leyden) -> None:
        """In the loop of the node."""
        self.bed = bed
        self.leyden = leyden
        self._loop = asyncio.get_running_loop()

    @property
    def node(self) -> Node:
        node = self.leyden.node
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return cast(Node, FromThread(node, self._loop))
        return node

    @property
    def peer(self) -> LightningPeer:
        return self.bed.peer

    @property
    def peer_id(self) -> NodeId:
        return NodeId(bytes.fromhex(self.bed.node_id))

    async def ask(self, command: Callable[..., T], *args: Any, **named: Any) -> T:
        """A command of the driver."""
        return await asyncio.to_thread(command, *args, **named)

    async def until(self, reached: Callable[[], T], what: str, seconds: float = PATIENCE) -> T:
        """``reached`` may ask the peer; what it returned when it was true."""
        return await self.until_we(lambda: asyncio.to_thread(reached), what, seconds)

    async def becomes(self, reached: Callable[[], object], seconds: float) -> bool:
        """Whether it was true in time."""
        try:
            async with asyncio.timeout(seconds):
                while not await asyncio.to_thread(reached):
                    await asyncio.sleep(0.05)
                return True
        except TimeoutError:
            return False

    async def until_we(
        self, asked: Callable[[], Awaitable[T]], what: str, seconds: float = PATIENCE, *, pause: float = 0.05
    ) -> T:
        """As ``until``, for what our node answers asynchronously."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := await asked()):
                    await asyncio.sleep(pause)
                return found
        except TimeoutError:
            raise AssertionError(f"it did not come to this: {what}\n{self.picture()}") from None

    async def at_once(self, reached: Callable[[], object], what: str) -> None:
        """As ``until``, for what passes as fast as messages come and go: it is looked at in every turn of our loop."""

        async def asked() -> object:
            return reached()

        await self.until_we(asked, what, pause=0)

    async def ended(self, paying: Sequence["asyncio.Future[T]"]) -> list[T]:
        """What our payments came to, once all have ended."""
        await self.until(lambda: all(payment.done() for payment in paying), "our payments have ended")
        return [await payment for payment in paying]

    def picture(self) -> str:
        """Both sides, for a failing scenario."""
        lines = []
        try:
            lines += [f"ours: {channel}" for channel in self.node.channels()]
            lines += [f"our transactions: {self.node.transactions()}"]
            lines += [f"theirs: {channel}" for channel in self.theirs()]
        except Exception as error:
            lines.append(f"no more can be seen: {error}")
        return "\n".join([*lines, "the peer's log:", self.peer.log_tail(15)])

    # -- chain -------------------------------------------------------------------------------------------------------

    async def mine(self, count: int = 1) -> None:
        """Mine; both sides have followed when this returns."""
        await asyncio.to_thread(self.bed.bitcoind.mine, count)
        await self.caught_up()

    async def caught_up(self) -> None:
        height = self.bed.height()
        await self.until(lambda: self.node.info().height >= height, "our node follows the chain")
        await self.until(lambda: self.peer.height() >= height, "the peer follows the chain")

    async def in_mempool(self, txid: str) -> dict[str, Any]:
        """The transaction, once bitcoind has it (in a block or not)."""

        tx = await self.until(lambda: self._transaction(txid), f"{txid} is broadcast")
        assert tx is not None
        return tx

    async def spender(self, funding: str) -> dict[str, Any]:
        """The unconfirmed transaction that spends a channel's funding output."""
        found = await self.until(lambda: self._spender(funding), f"a transaction that spends {funding} is broadcast")
        assert found is not None
        return found

    def is_spent(self, funding: str) -> bool:
        return self._spending(funding) is not None

    def _spender(self, funding: str) -> dict[str, Any] | None:
        txid = self._spending(funding)
        return None if txid is None else self._transaction(txid)

    def _spending(self, funding: str) -> str | None:
        """In one question: a peer replaces transactions of its own whenever it likes, between any two."""
        txid, _, vout = funding.partition(":")
        (found,) = self.bed.bitcoind.rpc("gettxspendingprevout", [{"txid": txid, "vout": int(vout)}])
        spending: str | None = found.get("spendingtxid")
        return spending

    def _transaction(self, txid: str) -> dict[str, Any] | None:
        """As bitcoind has it, in its mempool or a block; None for one it does not know, or no longer."""
        try:
            tx: dict[str, Any] = self.bed.bitcoind.rpc("getrawtransaction", txid, 1)
        except RpcError as error:
            if error.code != NO_SUCH_TRANSACTION:
                raise
            return None
        return tx

    async def fund(self, sat: int = 5_000_000) -> None:
        before = self.node.wallet_balance().confirmed
        self.bed.bitcoind.rpc("sendtoaddress", await self.node.new_address(), sat / BTC)
        await self.mine()
        await self.until(lambda: self.node.wallet_balance().confirmed == before + sat, "our coins are there")

    # -- connections ---------------------------------------------------------------------------------------------------

    @property
    def connection(self) -> Peer | None:
        """Our side of the connection with the peer's node, if there is one."""
        return self.node.core.peers.get(self.peer_id)

    async def connect(self, port: int | None = None) -> None:
        await self.node.connect(self.peer_id, self.peer.host, self.peer.port if port is None else port)
        await self.connected()

    async def connect_in(self) -> None:
        """The peer dials us."""
        address = self.node.address
        assert address is not None
        await self.ask(self.peer.connect, self.node.node_id.hex(), *address)
        await self.connected()

    async def connected(self) -> None:
        """On both sides; what the peer offers is kept."""
        own = self.node.node_id.hex()

        def both() -> bool:
            return self.connection is not None and own in self.peer.connected()

        await self.until(both, "both sides are connected")
        if self.connection is not None:
            self.bed.features = self.connection.features

    async def hang_up(self) -> None:
        """We end the connection, and dial again when we are told to only; nobody is connected when this returns."""
        await self.node.disconnect(self.peer_id)
        own = self.node.node_id.hex()
        await self.until(lambda: self.connection is None and own not in self.peer.connected(), "nobody is connected")

    # -- channels ------------------------------------------------------------------------------------------------------

    def theirs(self) -> list[PeerChannel]:
        """The peer's channels with this node."""
        own = self.node.node_id.hex()
        return [channel for channel in self.peer.channels() if channel.remote_node_id == own]

    async def propose(self, kind: ChannelKind) -> None:
        """From now on we propose channels of this kind first; no other, if the peer cannot choose."""
        others = [other.value for other in ChannelKind if other is not kind]
        if getattr(self.peer, "proposes_anchors_first", False):
            others = []
        await self.node.update_channel_policy(channel_types=[kind.value, *others])
        before_open = getattr(self.peer, "before_open", None)
        if before_open is not None:
            await self.ask(before_open, kind)

    async def open(
        self,
        sat: int = CAPACITY,
        *,
        push_sat: int = 0,
        public: bool = False,
        kind: ChannelKind = ChannelKind.ANCHORS,
        port: int | None = None,
    ) -> "Chan":
        """A channel that we fund, usable on both sides."""
        await self.fund(sat + 100_000)
        await self.connect(port)
        await self.propose(kind)
        channel_id = await self.node.open_channel(self.peer_id, Sat(sat), push=Msat(push_sat * 1000), announce=public)
        funding = next(c.funding for c in self.node.channels() if c.channel_id == channel_id.hex())
        assert funding is not None
        return await self._opened(Chan(self, channel_id, funding))

    async def opened_by_peer(
        self,
        sat: int = CAPACITY,
        *,
        push_sat: int = 0,
        public: bool = False,
        kind: ChannelKind = ChannelKind.ANCHORS,
        close_address: str | None = None,
    ) -> "Chan":
        """A channel that the peer funds, usable on both sides."""
        await self.connect()
        await self.propose(kind)
        address = self.node.address
        assert address is not None
        host, port = address
        opening = Opening(
            node_id=self.node.node_id.hex(),
            host=host,
            port=port,
            sat=sat,
            push_sat=push_sat,
            public=public,
            kind=kind,
            close_address=close_address,
        )
        funding = await self.ask(self.peer.open_channel, opening)
        found = await self.until(
            lambda: [c for c in self.node.channels() if c.funding == funding], "our side knows the channel"
        )
        return await self._opened(Chan(self, ChannelId(bytes.fromhex(found[0].channel_id)), funding))

    async def reconnect(self, *channels: "Chan") -> None:
        """Whoever dials first: connected again, and every channel usable."""
        await self.until(self.agree_on_connection, "the lost connection is noticed")
        await self.until_we(self.connect_again, "we are connected again")
        await self.connected()
        for channel in channels:
            await channel.usable()

    async def connect_again(self) -> bool:
        """Whether we are connected, by whoever; the peer may hang up at once."""
        if self.connection is None:
            try:
                await self.node.connect(self.peer_id, self.peer.host, self.peer.port)
            except LeydenError:
                pass  # it dialled us meanwhile, was quick to end it, or has just begun to listen
        return self.connection is not None

    def agree_on_connection(self) -> bool:
        """Both sides agree on whether they are connected."""
        return (self.connection is not None) == (self.node.node_id.hex() in self.peer.connected())

    async def _opened(self, channel: "Chan") -> "Chan":
        txid, _, vout = channel.funding.partition(":")
        tx = await self.in_mempool(txid)
        assert round(tx["vout"][int(vout)]["value"] * BTC) == channel.ours().capacity_sat
        for _ in range(2 * DEPTH):  # a peer may want more blocks than we do
            await self.mine(getattr(self.peer, "minimum_depth", DEPTH))
            if await channel.is_usable(8.0):
                return channel
        await channel.usable()
        return channel

    async def tidy_up(self) -> None:
        """Close what works still: a peer with dozens of channels to nodes that are gone dials them for ever."""
        for view in self.node.channels() if self.leyden.runs else ():
            if view.usable and not view.htlcs and view.funding is not None:
                with suppress(LeydenError):
                    await self.node.close_channel(ChannelId(bytes.fromhex(view.channel_id)))
                    await self.becomes(lambda funding=view.funding: self.is_spent(funding), 2.0)

    # -- payments ------------------------------------------------------------------------------------------------------

    async def invoice(self, msat: int | None, **named: Any) -> InvoiceView:
        return await self.node.create_invoice(None if msat is None else Msat(msat), "tea", **named)

    async def our_invoice(self, payment_hash: str) -> InvoiceView:
        found = await self.node.invoice(bytes.fromhex(payment_hash))
        assert found is not None
        return found

    async def pay_peer(self, msat: int) -> PaymentView:
        """We pay an invoice of the peer; both sides say so."""
        bolt11 = await self.ask(self.peer.create_invoice, msat, "coffee")
        result = await self.node.pay(bolt11, timeout=PATIENCE)
        assert (result.status, result.amount_msat) == ("succeeded", msat), result
        await self.until(lambda: self.peer.invoice_paid_msat(result.payment_hash) == msat, "the peer's invoice is paid")
        return result

    async def paid_by_peer(self, msat: int) -> Paid:
        """The peer pays an invoice of ours; both sides say so."""
        invoice = await self.invoice(msat)
        paid = await self.ask(self.peer.pay, invoice.bolt11)
        assert paid.ok, paid
        assert sha256(bytes.fromhex(paid.preimage)).hex() == invoice.payment_hash
        await self.received(invoice.payment_hash, msat)
        return paid

    async def received(self, payment_hash: str, msat: int) -> None:
        """Our invoice is paid with this amount."""
        record = await self.our_invoice(payment_hash)
        assert (record.status, record.received_msat) == ("paid", msat)

    async def offer(self, invoice: Invoice, msat: int) -> PaymentView:
        """Pay whatever ``invoice`` says without our own checks, and wait for the end."""
        core, payment_hash = self.node.core, invoice.payment_hash
        await self.node._calls.call(lambda: core.payments.send(invoice, Msat(msat), ""))
        return await self.our_payment(payment_hash)

    async def begin_payment(self, bolt11: str) -> None:
        """Offer the HTLC; whoever calls waits for the end."""
        invoice = parse_invoice(bolt11, Network.REGTEST)
        core, amount = self.node.core, invoice.amount_msat
        assert amount is not None
        await self.node._calls.call(lambda: core.payments.send(invoice, amount, ""))

    async def our_payment(self, payment_hash: bytes) -> PaymentView:
        """Our payment once it has ended."""

        async def ended() -> PaymentView | None:
            found = await self.node.payment(PaymentHash(payment_hash))
            return None if found is None or found.status == "pending" else found

        found = await self.until_we(ended, "our payment has ended")
        assert found is not None
        return found

    async def their_payment(self, payment_hash: str) -> Paid:
        """A payment that the peer began, once it has ended."""
        found = await self.until(lambda: self.peer.payment(payment_hash), "the peer's payment has ended")
        assert found is not None
        return found

    async def kept_by_peer(self, channel: "Chan", ended: Sequence[PaymentView]) -> int:
        """In msat, what the payments that succeeded came to, less what the peer took and gave back after its restart.

        Only LND was seen to do so (docs/interop.md), and an alarm of ours has to name each.
        """
        await self.until(lambda: channel.ours().htlcs == 0, "nothing is in flight")
        made = [payment for payment in ended if payment.status == "succeeded"]
        texts = await self.alarms("payment_returned")
        returned = [payment for payment in made if any(payment.payment_hash in text for text in texts)]
        assert not texts or self.bed.entry.name == "lnd", texts
        so_far = [payment for payment in await self.node.payments() if payment.status == "succeeded"]
        named = [payment.payment_hash for payment in so_far if any(payment.payment_hash in text for text in texts)]
        assert len(named) == len(texts), texts  # each once, and none that was not made
        return sum(p.amount_msat for p in made) - sum(p.amount_msat for p in returned)

    async def settle(self, preimage: bytes) -> None:
        """The peer takes what waits for its hold invoice; it may need a moment to see that all is there."""
        await self._once_accepted(self.peer.settle_hold_invoice, preimage.hex())

    async def cancel(self, payment_hash: bytes) -> None:
        """The peer refuses it."""
        await self._once_accepted(self.peer.cancel_hold_invoice, payment_hash.hex())

    async def _once_accepted(self, command: Callable[[str], None], word: str) -> None:
        def done() -> bool:
            try:
                command(word)
            except PeerRefused as error:
                refusals.append(str(error))
                return False
            return True

        refusals: list[str] = []
        try:
            await self.until(done, "the peer decides on its hold invoice")
        except AssertionError as error:
            raise AssertionError(f"{refusals[-1:]}: {error}") from None

    def hold(self) -> "Held":
        """From now on our node decides on received payments when it is told to."""
        return Held(self.node)

    async def events(self) -> list[NodeEvent]:
        return [logged.event for logged in await self.node.events(limit=1000)]

    async def alarms(self, subject: str) -> list[str]:
        """The texts of our alarms of this kind."""
        return [event.text for event in await self.events() if isinstance(event, Alarm) and event.subject == subject]


class Held:
    """Payments to us that wait for a decision, as a plugin would make it."""

    def __init__(self, node: Node) -> None:
        self._engine = node.core.engine
        self.answers: list[Callable[[bool], None]] = []
        node.core.payments._ask_payment = lambda _payment, answer: self.answers.append(answer)

    def decide(self, accept: bool) -> None:
        """For all that wait."""
        answers, self.answers = self.answers, []
        for answer in answers:
            self._engine.post(lambda answer=answer: answer(accept))


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """How a channel ended: the closing transaction and what our event log says."""

    txid: str
    fee_sat: int
    values: tuple[int, ...]
    scripts: tuple[str, ...]
    how: str


class Chan:
    """A channel between our node and the peer, seen from both sides."""

    def __init__(self, story: Story, channel_id: ChannelId, funding: str) -> None:
        self.story = story
        self.channel_id = channel_id
        self.funding = funding

    def ours(self) -> ChannelView:
        found = [c for c in self.story.node.channels() if c.channel_id == self.channel_id.hex()]
        assert found, "our node has this channel no more"
        return found[0]

    def theirs(self) -> PeerChannel | None:
        return next((c for c in self.story.theirs() if c.funding == self.funding), None)

    async def is_usable(self, seconds: float) -> bool:
        return await self.story.becomes(self._both_usable, seconds)

    def _both_usable(self) -> tuple[ChannelView, PeerChannel] | None:
        ours, theirs = self.ours(), self.theirs()
        return (ours, theirs) if ours.usable and theirs is not None and theirs.usable else None

    async def usable(self) -> tuple[ChannelView, PeerChannel]:
        """Both sides as they were seen then."""
        found = await self.story.until(self._both_usable, "the channel is usable on both sides")
        assert found is not None
        return found

    def in_flight(self) -> int:
        """HTLCs that both sides have."""
        theirs = self.theirs()
        return 0 if theirs is None else min(self.ours().htlcs, theirs.htlcs)

    async def balances(self, ours_msat: int, theirs_msat: int) -> None:
        """Seen from both sides, with nothing in flight; a peer may tell whole satoshi only."""

        def settled() -> bool:
            near, far = self.ours(), self.theirs()
            return (
                far is not None
                and near.htlcs == far.htlcs == 0
                and (near.local_msat, near.remote_msat) == (ours_msat, theirs_msat)
                and abs(far.local_msat - theirs_msat) < 1000
                and abs(far.remote_msat - ours_msat) < 1000
            )

        await self.story.until(settled, f"balances of {ours_msat} msat here and {theirs_msat} msat there")

    async def closed_together(self) -> Ends:
        """After a cooperative close was begun: a transaction of it confirms that both know, and the channel is gone.

        With simple close each side makes one, and the one that pays more replaces the other.
        """
        story = self.story
        ours = self.ours()
        await story.spender(self.funding)
        await story.mine(6)
        await story.until(
            lambda: all(c.channel_id != self.channel_id.hex() for c in story.node.channels()), "our channel is gone"
        )
        (closed,) = [
            e for e in await story.events() if isinstance(e, ChannelClosed) and e.channel_id == self.channel_id
        ]
        assert closed.txid is not None
        tx = story.bed.bitcoind.rpc("getrawtransaction", closed.txid[::-1].hex(), 1)
        assert tx["confirmations"] >= 6
        assert self.funding in [f"{i['txid']}:{i['vout']}" for i in tx["vin"]]
        values = tuple(round(out["value"] * BTC) for out in tx["vout"])

        def known() -> bool:
            theirs = self.theirs()
            return theirs is None or theirs.closing_txid == tx["txid"]

        await story.until(known, "the peer knows of the close")
        scripts = tuple(out["scriptPubKey"]["hex"] for out in tx["vout"])
        fee_sat = ours.capacity_sat - sum(values)
        return Ends(txid=tx["txid"], fee_sat=fee_sat, values=values, scripts=scripts, how=closed.how)
