"""Two nodes, one channel, real payments: the whole of it over TCP, SQLite and a chain with consensus rules."""

import asyncio
from typing import Any

import msgspec
import pytest
from leyden.channel import ChannelError
from leyden.hooks.types import ChannelClosed, PaymentReceived, PaymentSent
from leyden.node import Node, PaymentError
from leyden.types import ChannelId, FeeRatePerKw, Msat, PaymentHash, Sat

from tests.scenario.conftest import World, until, usable


async def pay(payer: Node, payee: Node, amount: int) -> str:
    invoice = await payee.create_invoice(Msat(amount), "coffee")
    return (await payer.pay(invoice.bolt11, timeout=60)).status


async def test_open_pay_both_ways_and_close(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    channel_id = await world.channel(alice, bob)
    assert await pay(alice, bob, 50_000_000) == "succeeded"
    assert await pay(bob, alice, 10_000_000) == "succeeded"
    await until(lambda: alice.channels()[0].htlcs == 0 and bob.channels()[0].htlcs == 0)
    (near,), (far,) = alice.channels(), bob.channels()
    assert (near.local_msat, near.remote_msat) == (960_000_000, 40_000_000)
    assert (far.local_msat, far.remote_msat) == (40_000_000, 960_000_000)

    await alice.close_channel(ChannelId(channel_id))
    await until(lambda: alice.transactions() and any(t["kind"] == "mutual_close" for t in alice.transactions()))
    await world.mine(6)
    await until(lambda: not alice.channels() and not bob.channels())
    await until(lambda: bob.wallet_balance().confirmed == 40_000)
    events = [logged.event for logged in await alice.events()]
    assert sum(isinstance(event, PaymentSent) for event in events) == 1
    assert sum(isinstance(event, PaymentReceived) for event in events) == 1
    closed = [event for event in events if isinstance(event, ChannelClosed)]
    assert [event.how for event in closed] == ["cooperative"]


async def test_thirty_payments_in_flight_at_once(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    await world.channel(alice, bob)
    results = await asyncio.gather(*(pay(alice, bob, 1_000_000 + i) for i in range(30)))
    assert results == ["succeeded"] * 30
    await until(lambda: alice.channels()[0].htlcs == 0 and bob.channels()[0].htlcs == 0)
    assert bob.channels()[0].local_msat == sum(1_000_000 + i for i in range(30))


async def test_a_payment_that_the_payee_does_not_know_fails_for_that_reason(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    await world.channel(alice, bob)
    invoice = await bob.create_invoice(Msat(2_000_000), "", expiry=1)
    await asyncio.sleep(0)
    bob.core.payments._invoices.evict(PaymentHash(bytes.fromhex(invoice.payment_hash)))
    result = await alice.pay(invoice.bolt11, timeout=60)
    assert result.status == "failed"
    assert "incorrect_or_unknown_payment_details" in result.failure
    await until(lambda: alice.channels()[0].htlcs == 0)
    assert alice.channels()[0].local_msat == 1_000_000_000


async def test_an_invoice_is_paid_once(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    await world.channel(alice, bob)
    invoice = await bob.create_invoice(Msat(3_000_000), "once")
    first, second = await asyncio.gather(
        alice.pay(invoice.bolt11, timeout=60), alice.pay(invoice.bolt11, timeout=10), return_exceptions=True
    )
    assert not isinstance(first, BaseException)
    assert isinstance(second, PaymentError)
    with pytest.raises(PaymentError, match="already paid"):
        await alice.pay(invoice.bolt11, timeout=60)
    await until(lambda: bob.channels()[0].local_msat == 3_000_000)


async def test_the_same_key_gets_the_same_answer(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    await world.channel(alice, bob)
    invoice = await bob.create_invoice(Msat(3_000_000), "once")
    first = await alice.pay(invoice.bolt11, key="order 7", timeout=60)
    again = await alice.pay(invoice.bolt11, key="order 7", timeout=60)
    assert first == again
    await until(lambda: bob.channels()[0].local_msat == 3_000_000)


async def test_a_restart_continues_where_the_database_is(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    await world.channel(alice, bob)
    assert await pay(alice, bob, 50_000_000) == "succeeded"
    await world.stop(bob)
    await until(lambda: not usable(alice))
    bob = await world.start("bob")
    await world.connect(alice, bob)
    await until(lambda: usable(alice) and usable(bob))
    assert bob.channels()[0].local_msat == 50_000_000
    assert await pay(bob, alice, 1_000_000) == "succeeded"


async def test_a_forced_close_refuses_what_it_cannot_keep(world: World) -> None:
    """Our commitment is signed already: a limit on its fee must not be accepted and then forgotten."""
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    channel_id = ChannelId(await world.channel(alice, bob))
    limits: list[dict[str, Any]] = [{"max_fee": Sat(500)}, {"feerate": FeeRatePerKw(253)}, {"script": bytes(22)}]
    for limit in limits:
        with pytest.raises(ChannelError, match="a forced close takes no"):
            await alice.close_channel(channel_id, force=True, **limit)
    assert usable(alice)


async def test_force_close_recovers_our_balance(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    channel_id = await world.channel(alice, bob)
    assert await pay(alice, bob, 100_000_000) == "succeeded"
    await until(lambda: alice.channels()[0].htlcs == 0 and bob.channels()[0].htlcs == 0)
    before = alice.wallet_balance().confirmed
    await alice.close_channel(ChannelId(channel_id), force=True)
    await until(lambda: any(t["kind"] == "unilateral_close" for t in alice.transactions()))
    await world.mine(1)
    await until(lambda: any(t["kind"] == "sweep" for t in bob.transactions()))
    await world.mine(1)
    await until(lambda: bob.wallet_balance().confirmed > 99_000)
    await world.mine(150)
    await until(lambda: any(t["kind"] == "sweep" for t in alice.transactions()))
    await world.mine(6)
    await until(lambda: alice.wallet_balance().confirmed > before + 895_000)
    await until(lambda: not alice.channels() and not bob.channels())


class SlowReads:
    """A store whose reads take a moment, so that others run between a look and what follows from it."""

    inline = True

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get(self, key: bytes) -> bytes | None:
        row: bytes | None = await self._store.get(key)
        await asyncio.sleep(0.02)
        return row


async def test_callers_that_look_at_the_same_time_do_not_both_pay(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    await world.channel(alice, bob)
    invoice = await bob.create_invoice(Msat(3_000_000), "once")
    services = alice.core.services
    alice.core.services = msgspec.structs.replace(services, store=SlowReads(services.store))

    async def pay_a_little_later(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return (await alice.pay(invoice.bolt11, timeout=60)).status

    outcomes = await asyncio.gather(*(pay_a_little_later(0.004 * n) for n in range(12)), return_exceptions=True)
    assert outcomes.count("succeeded") == 1
    assert all(isinstance(outcome, PaymentError) for outcome in outcomes if outcome != "succeeded")
    await until(lambda: bob.channels()[0].local_msat == 3_000_000)
    alice.core.services = services
