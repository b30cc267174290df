"""What happens in the demo, step by step. Every step checks its outcome; the first wrong one ends the demo."""

import asyncio
import time
from pathlib import Path

from leyden.node.views import ChannelView, InvoiceView, PaymentView

from leyden_cli.addresses import parse_peer
from leyden_cli.demo.books import Books, Side
from leyden_cli.demo.coins import count_coins
from leyden_cli.demo.errors import DemoFailed, expect
from leyden_cli.demo.plugin import HELD, HOLD_VARIABLE, UNWANTED
from leyden_cli.demo.ports import free_port
from leyden_cli.demo.processes import PATIENCE, DemoChain, DemoNode, wait_until
from leyden_cli.demo.progress import Progress, Step
from leyden_cli.errors import CliError
from leyden_cli.initialize import initialize_node

ALICE_SAT = 10_000_000
BOB_SAT = 1_000_000
CHANNEL_SAT = 5_000_000
PUSH_SAT = 1_500_000
DEPTH = 6
PAYMENTS_EACH_WAY = 20
AT_ONCE = 30
HELD_AT_KILL = 20
RACING_AT_KILL = 5
_HEAD_START = 0.004
"""Seconds between the racing payments and the signal: some finish, some begin, some never do."""


class Story:
    """Run it once: ``books = await Story(folder, progress, chain).run()``; ``await end()`` whatever happened."""

    def __init__(self, folder: Path, progress: Progress, chain: DemoChain) -> None:
        self._progress = progress
        self._hold = folder / "hold"
        environment = {HOLD_VARIABLE: str(self._hold)}
        self.chain = chain
        self.alice = DemoNode("alice", folder, environment)
        self.bob = DemoNode("bob", folder, environment)
        self._funding_txid = ""
        self._funding_vout = 0
        self._faucet_txids: list[str] = []
        self.succeeded = 0
        self.failed = 0

    async def run(self) -> Books:
        step = self._progress.step
        with step("start the chain and two nodes, three processes") as notes:
            await self._start(notes)
        with step("fund both wallets from the faucet") as notes:
            before = await self._fund(notes)
        with step("connect") as notes:
            await self._connect(notes)
        with step(f"open a channel of {CHANNEL_SAT:,} sat, {PUSH_SAT:,} of them for bob") as notes:
            await self._open(notes)
        with step(f"{PAYMENTS_EACH_WAY} payments each way, one after the other") as notes:
            await self._pay_in_turn(notes)
        with step("a payment that bob's plugin refuses") as notes:
            await self._be_refused(notes)
        with step(f"{AT_ONCE} payments in flight at once") as notes:
            await self._pay_at_once(notes)
        with step("kill -9 bob with HTLCs in flight") as notes:
            hashes = await self._kill_bob(notes)
        with step("start bob again from his disk") as notes:
            await self._recover(hashes, notes)
        with step("close the channel together") as notes:
            await self._close(notes)
        with step("read the balances back from nodes and chain") as notes:
            books = await self._count(before, notes)
        with step("stop both nodes"):
            await self.alice.stop()
            await self.bob.stop()
        return books

    async def end(self) -> None:
        """Leave no process behind."""
        await self.chain.close()
        for child in (self.alice.child, self.bob.child, self.chain.child):
            await child.kill()

    # -- steps -------------------------------------------------------------------------------------------------------

    async def _start(self, step: Step) -> None:
        await self.chain.start()
        tables = {self.chain.service: self.chain.settings()}
        for node, plugins in ((self.alice, []), (self.bob, ["demo"])):
            initialize_node(
                node.folder,
                chain_source=self.chain.service,
                listen=f"127.0.0.1:{free_port()}",
                plugins=plugins,
                tables=tables,
            )
        await asyncio.gather(self.alice.start(), self.bob.start())
        for node in (self.alice, self.bob):
            self._progress.detail(f"{node.name} {node.ready.address}, process {node.child.pid}, log {node.child.log}")
        step.note(f"alice {self.alice.node_id[:8]}.., bob {self.bob.node_id[:8]}..")

    async def _fund(self, step: Step) -> dict[str, int]:
        for node, sat in ((self.alice, ALICE_SAT), (self.bob, BOB_SAT)):
            self._faucet_txids.append(await self.chain.faucet(await node.client.address(), sat))
        await self._mine(1)
        await self._until_known(ALICE_SAT + BOB_SAT)
        before = {node.name: await self._wallet(node) for node in (self.alice, self.bob)}
        expect(before == {"alice": ALICE_SAT, "bob": BOB_SAT}, f"the wallets hold {before}")
        step.note(f"alice {ALICE_SAT:,} sat, bob {BOB_SAT:,}")
        return before

    async def _connect(self, step: Step) -> None:
        node_id, host, port = parse_peer(self.bob.ready.address or "")
        await self.alice.client.connect_peer(node_id.hex(), host, port)
        step.note(f"alice dialled bob at {host}:{port}")

    async def _open(self, step: Step) -> None:
        await self.alice.client.open_channel(self.bob.node_id, CHANNEL_SAT, push_msat=PUSH_SAT * 1000)
        channel = await self._channel(self.alice)
        txid, _, vout = (channel.funding or "").partition(":")
        self._funding_txid, self._funding_vout = txid, int(vout)
        await wait_until("the funding transaction is broadcast", lambda: self._is_known(txid))
        await self._mine(DEPTH)
        await self._until_usable()
        channel = await self._channel(self.alice)
        expect(channel.remote_msat == PUSH_SAT * 1000, "the push did not arrive")
        step.note(f"channel {channel.short_channel_id}, {DEPTH} blocks deep")

    async def _is_known(self, txid: str) -> bool:
        return await self.chain.transaction(txid) is not None

    async def _pay_in_turn(self, step: Step) -> None:
        began = time.monotonic()
        for number in range(1, PAYMENTS_EACH_WAY + 1):
            for payer, payee, sat in ((self.alice, self.bob, 1000 * number), (self.bob, self.alice, 700 * number)):
                invoice = await payee.client.invoice(sat * 1000, f"payment {number}")
                outcome = await payer.client.pay(invoice.bolt11, timeout=PATIENCE)
                expect(outcome.status == "succeeded", f"{payer.name}'s payment {number} failed: {outcome.failure}")
                self._progress.detail(f"{payer.name} paid {payee.name} {sat:,} sat")
        self.succeeded += 2 * PAYMENTS_EACH_WAY
        step.note(f"{2 * PAYMENTS_EACH_WAY / (time.monotonic() - began):.0f} a second, with their invoices")

    async def _be_refused(self, step: Step) -> None:
        earlier = (await self._channel(self.alice)).local_msat
        invoice = await self.bob.client.invoice(5_000_000, "nobody asked for it", label=UNWANTED)
        outcome = await self.alice.client.pay(invoice.bolt11, timeout=PATIENCE)
        expect(outcome.status == "failed", f"the unwanted payment is {outcome.status}")
        reason, _, _ = outcome.failure.partition(":")
        expect(reason == "incorrect_or_unknown_payment_details", f"refused for another reason: {outcome.failure}")
        await self._until_quiet(self.alice, self.bob)
        expect((await self._channel(self.alice)).local_msat == earlier, "a refused payment cost something")
        self.failed += 1
        step.note(f"came back as {reason}, cost nothing")

    async def _pay_at_once(self, step: Step) -> None:
        """Bob's plugin holds its answer until all of them are in flight: at once means at once."""
        invoices = await self._invoices(AT_ONCE, self.bob, 2000, HELD)
        self._hold.touch()
        paying = asyncio.gather(*(self.alice.client.pay(invoice.bolt11, timeout=PATIENCE) for invoice in invoices))
        await self._until_in_flight(AT_ONCE, self.alice, self.bob)
        self._hold.unlink()
        began = time.monotonic()
        outcomes = await paying
        expect(all(outcome.status == "succeeded" for outcome in outcomes), "one of the payments at once failed")
        self.succeeded += AT_ONCE
        step.note(f"all {AT_ONCE} were in the channel together, settled in {time.monotonic() - began:.2f} s")

    async def _kill_bob(self, step: Step) -> list[tuple[DemoNode, DemoNode, str]]:
        """Some HTLCs certainly in flight on both sides, others wherever the signal finds them."""
        held = await self._invoices(HELD_AT_KILL, self.bob, 3000, HELD)
        racing = await self._invoices(RACING_AT_KILL, self.bob, 4000, "")
        back = await self._invoices(RACING_AT_KILL, self.alice, 5000, "")
        self._hold.touch()
        paying = [_pay(self.alice, invoice) for invoice in held]
        running = asyncio.gather(*paying)
        await self._until_in_flight(HELD_AT_KILL, self.alice, self.bob)
        more = asyncio.gather(
            *(_pay(payer, one) for payer, many in ((self.alice, racing), (self.bob, back)) for one in many)
        )
        await asyncio.sleep(_HEAD_START)
        await self.bob.kill()
        in_flight = (await self._channel(self.alice)).htlcs
        pending = (await self.alice.client.info()).pending_payments
        expect(in_flight >= HELD_AT_KILL and pending >= HELD_AT_KILL, f"only {in_flight} HTLCs were in flight")
        self._hold.unlink()
        running.cancel()
        more.cancel()
        await asyncio.gather(running, more, return_exceptions=True)
        step.note(f"alice is left with {in_flight} HTLCs in flight")
        return [(self.alice, self.bob, one.payment_hash) for one in (*held, *racing)] + [
            (self.bob, self.alice, one.payment_hash) for one in back
        ]

    async def _recover(self, payments: list[tuple[DemoNode, DemoNode, str]], step: Step) -> None:
        await self.bob.start()
        await self._until_usable()
        await self._until_quiet(self.alice, self.bob)
        counts = {"succeeded": 0, "failed": 0, "never begun": 0}
        for payer, payee, payment_hash in payments:
            outcome = await _find_payment(payer, payment_hash)
            paid = await _is_paid(payee, payment_hash)
            status = "never begun" if outcome is None else outcome.status
            expect(status in counts, f"a payment is still {status} after the restart")
            expect(paid == (status == "succeeded"), f"{payer.name} says {status}, {payee.name} has it paid: {paid}")
            counts[status] += 1
        expect(counts["succeeded"] >= HELD_AT_KILL, f"payments in flight were lost: {counts}")
        self.succeeded += counts["succeeded"]
        self.failed += counts["failed"]
        step.note(", ".join(f"{count} {status}" for status, count in counts.items() if count))
        step.note("none pending, the same on both sides")

    async def _close(self, step: Step) -> None:
        channel = await self._channel(self.alice)
        await self.alice.client.close_channel(channel.channel_id)

        async def is_closing() -> bool:
            states = [one.state for node in (self.alice, self.bob) for one in await node.client.channels()]
            return states == ["closing", "closing"]

        async def is_broadcast() -> bool:
            return await self.chain.find_spender(self._funding_txid, self._funding_vout) is not None

        await wait_until("both sides agree on a closing transaction", is_closing)
        await wait_until("the closing transaction is broadcast", is_broadcast)
        await self._mine(DEPTH)

        async def is_closed() -> bool:
            return not await self.alice.client.channels() and not await self.bob.client.channels()

        await wait_until("the closing transaction is deep enough", is_closed)
        step.note(f"{DEPTH} blocks deep, both nodes have closed the channel")

    async def _count(self, before: dict[str, int], step: Step) -> Books:
        coins = await count_coins(self.chain, self._faucet_txids, self._funding_txid, self._funding_vout)
        await self._until_known(coins.unspent)
        sides = [await self._side(node, before[node.name]) for node in (self.alice, self.bob)]
        books = Books(
            funder=sides[0],
            fundee=sides[1],
            pushed=PUSH_SAT,
            funding_fee=coins.funding_fee,
            closing_fee=coins.closing_fee,
            on_chain=coins.unspent,
        )
        books.check()
        step.note(f"closing transaction {coins.closing_txid[:8]}..")
        return books

    # -- asking the nodes --------------------------------------------------------------------------------------------

    async def _mine(self, blocks: int) -> None:
        await self.chain.mine(blocks)
        height = await self.chain.height()

        async def arrived() -> bool:
            return all([(await node.client.info()).height >= height for node in (self.alice, self.bob)])

        await wait_until(f"both nodes know block {height}", arrived)

    async def _channel(self, node: DemoNode) -> ChannelView:
        found = await node.client.channels()
        expect(len(found) == 1, f"{node.name} has {len(found)} channels instead of one")
        expect(not found[0].failure, f"the channel failed: {found[0].failure}")
        return found[0]

    async def _until_known(self, sat: int) -> None:
        """The wallets' coins are worth at least as much: some sources tell of a block before what is in it."""

        async def known() -> bool:
            balances = [await node.client.balance() for node in (self.alice, self.bob)]
            return sum(balance.confirmed_sat for balance in balances) >= sat

        await wait_until(f"the wallets know of {sat:,} sat", known)

    async def _wallet(self, node: DemoNode) -> int:
        """Every coin, in satoshi; nothing may be locked or unconfirmed."""
        coins = await node.client.balance()
        expect(coins.unconfirmed_sat == coins.locked_sat == coins.immature_sat == 0, f"{node.name}: {coins}")
        return coins.confirmed_sat

    async def _side(self, node: DemoNode, before: int) -> Side:
        sent = sum(one.amount_msat + one.fee_msat for one in await node.client.payments() if one.status == "succeeded")
        received = sum(one.received_msat for one in await node.client.invoices())
        expect(sent % 1000 == received % 1000 == 0, "only whole satoshi were paid")
        after = await self._wallet(node)
        return Side(name=node.name, before=before, after=after, sent=sent // 1000, received=received // 1000)

    async def _invoices(self, count: int, payee: DemoNode, sat: int, label: str) -> list[InvoiceView]:
        amounts = range(sat, sat + count)
        return await asyncio.gather(*(payee.client.invoice(one * 1000, "at once", label=label) for one in amounts))

    async def _until_in_flight(self, count: int, *nodes: DemoNode) -> None:
        async def in_flight() -> bool:
            return all([(await self._channel(node)).htlcs >= count for node in nodes])

        await wait_until(f"{count} HTLCs are in flight", in_flight)

    async def _until_quiet(self, *nodes: DemoNode) -> None:
        async def quiet() -> bool:
            htlcs = [(await self._channel(node)).htlcs for node in nodes]
            pending = [(await node.client.info()).pending_payments for node in nodes]
            return not any(htlcs) and not any(pending)

        await wait_until("no HTLC and no payment is pending", quiet)

    async def _until_usable(self) -> None:
        async def usable() -> bool:
            return all([(await self._channel(node)).usable for node in (self.alice, self.bob)])

        await wait_until("the channel is usable on both sides", usable)


async def _pay(payer: DemoNode, invoice: InvoiceView) -> None:
    """Begin a payment of which nobody will learn the outcome here: one of the two nodes is about to die."""
    try:
        await payer.client.pay(invoice.bolt11)
    except CliError:
        pass


async def _find_payment(payer: DemoNode, payment_hash: str) -> PaymentView | None:
    return next((one for one in await payer.client.payments() if one.payment_hash == payment_hash), None)


async def _is_paid(payee: DemoNode, payment_hash: str) -> bool:
    found = [one for one in await payee.client.invoices() if one.payment_hash == payment_hash]
    if len(found) != 1:
        raise DemoFailed(f"{payee.name} forgot an invoice")
    return found[0].status == "paid"
