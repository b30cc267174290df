"""Payments that have to fail, in both directions, each for its own reason; the channel goes on."""

import time
from collections.abc import Callable

import msgspec
import pytest
from leyden.bitcoin import Network
from leyden.crypto import sha256
from leyden.invoice import Invoice, attach_signature, encode_invoice, parse_invoice
from leyden.node import paying, payments
from leyden.node.payments import PaymentError
from leyden.onion import OnionError
from leyden.payments import make_direct_htlc
from leyden.types import CltvDelta, Msat, PaymentHash, PaymentSecret
from leyden.types.rules import C_159
from leyden.wire.failures import InvalidOnionHmac

from tests.interop.bed import CAPACITY
from tests.interop.peer import NotSupported
from tests.interop.story import Chan, Story

HALF = CAPACITY * 500
AMOUNT = 5_000_000
UNKNOWN = "incorrect_or_unknown_payment_details"
EXPIRED_SECONDS = 4
"""After the end of an invoice; LND takes money for it until a timer of its own has cancelled it."""
OTHER_CODES = {("electrum", "key"): "invalid_onion_version"}
"""Peers that name another fault of a broken onion than BOLT 4 does (docs/interop.md)."""


async def half_each(story: Story) -> Chan:
    return await story.open(push_sat=CAPACITY // 2)


async def peers_invoice(story: Story, msat: int | None = AMOUNT, *, expiry: int = 3600) -> Invoice:
    bolt11 = await story.ask(story.peer.create_invoice, msat, "coffee", expiry=expiry)
    return parse_invoice(bolt11, Network.REGTEST)


async def refused_by_peer(
    story: Story, channel: Chan, invoice: Invoice, msat: int = AMOUNT, why: str = UNKNOWN
) -> None:
    """We offer the HTLC, the peer fails it with a reason that we can read, and both have their money back."""
    ended = await story.offer(invoice, msat)
    assert ended.status == "failed"
    assert why in ended.failure, ended
    await channel.balances(HALF, HALF)


async def still_works(story: Story, channel: Chan) -> None:
    await story.pay_peer(1_000_000)
    await story.paid_by_peer(1_000_000)
    await channel.balances(HALF, HALF)


async def test_unknown_hash_to_them(story: Story) -> None:
    channel = await half_each(story)
    invoice = await peers_invoice(story)
    await refused_by_peer(story, channel, msgspec.structs.replace(invoice, payment_hash=PaymentHash(bytes(31) + b"u")))
    await still_works(story, channel)


async def test_wrong_secret_to_them(story: Story) -> None:
    channel = await half_each(story)
    invoice = msgspec.structs.replace(await peers_invoice(story), payment_secret=PaymentSecret(bytes(32)))
    await refused_by_peer(story, channel, invoice)


async def test_wrong_amount_to_them(story: Story) -> None:
    """Too little, and more than twice as much (C-172)."""
    channel = await half_each(story)
    invoice = await peers_invoice(story)
    await refused_by_peer(story, channel, invoice, AMOUNT - 1_000)
    with pytest.raises(PaymentError, match="not between"):
        await story.node.pay(invoice.text, Msat(AMOUNT * 3))


async def test_expiring_too_soon_to_them(story: Story) -> None:
    channel = await half_each(story)
    invoice = msgspec.structs.replace(await peers_invoice(story), min_final_cltv_expiry_delta=CltvDelta(5))
    await refused_by_peer(story, channel, invoice, why="")


async def test_expired_invoice_to_them(story: Story) -> None:
    """We do not even begin; whoever sends all the same gets its money back."""
    channel = await half_each(story)
    invoice = await peers_invoice(story, expiry=1)
    if invoice.timestamp > time.time() + 5:
        raise NotSupported(f"nothing expires: its clock is {invoice.timestamp - time.time():.0f} seconds ahead")
    await story.until(lambda: time.time() > invoice.expires_at + EXPIRED_SECONDS, "the invoice has expired")
    with pytest.raises(PaymentError, match="expired"):
        await story.node.pay(invoice.text)
    ended = await story.offer(msgspec.structs.replace(invoice, expiry=3600), AMOUNT)
    if ended.status == "succeeded":
        raise NotSupported("nothing expires: it took the money")
    assert UNKNOWN in ended.failure, ended
    await channel.balances(HALF, HALF)


async def test_cancelled_by_them(story: Story) -> None:
    channel = await half_each(story)
    preimage = bytes(31) + b"c"
    bolt11 = await story.ask(story.peer.create_hold_invoice, sha256(preimage).hex(), AMOUNT)
    await story.begin_payment(bolt11)
    await story.until(lambda: channel.in_flight() == 1, "the HTLC is in flight")
    await story.cancel(sha256(preimage))
    ended = await story.our_payment(sha256(preimage))
    assert ended.status == "failed", ended
    assert UNKNOWN in ended.failure
    await channel.balances(HALF, HALF)


@pytest.mark.parametrize("broken", ["version", "key", "hmac"])
async def test_malformed_onion_to_them(story: Story, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer answers ``update_fail_malformed_htlc``, and its code is the right one."""
    channel = await half_each(story)
    damage: dict[str, Callable[[bytes], bytes]] = {
        "version": lambda onion: b"\x01" + onion[1:],
        "key": lambda onion: onion[:1] + bytes(33) + onion[34:],
        "hmac": lambda onion: onion[:-1] + bytes([onion[-1] ^ 1]),
    }

    def damaged(*arguments: object) -> object:
        htlc = make_direct_htlc(*arguments)
        return msgspec.structs.replace(htlc, onion_routing_packet=damage[broken](htlc.onion_routing_packet))

    code = OTHER_CODES.get((story.peer.name, broken), f"invalid_onion_{broken}")
    with monkeypatch.context() as patch:
        patch.setattr(payments, "make_direct_htlc", damaged)
        await refused_by_peer(story, channel, await peers_invoice(story), why=code)
    await still_works(story, channel)


async def test_disconnected(story: Story) -> None:
    """Nobody can pay over a dead link; both say so, and both can once it is back."""
    channel = await half_each(story)
    invoice = await peers_invoice(story)
    ours = await story.invoice(AMOUNT)
    await story.hang_up()
    with pytest.raises(PaymentError, match="no usable channel"):
        await story.node.pay(invoice.text)
    paid = await story.ask(story.peer.pay, ours.bolt11, timeout=5.0)
    assert not paid.ok
    await story.reconnect(channel)
    await still_works(story, channel)


# -- to us --------------------------------------------------------------------------------------------------------


async def forged(story: Story, bolt11: str, **changes: object) -> str:
    """An invoice signed by us that says something else than what our node knows."""
    invoice = parse_invoice(bolt11, Network.REGTEST)
    unsigned = msgspec.structs.replace(invoice, **changes)
    hrp, data = encode_invoice(unsigned)
    signature, recovery_id = await story.node.core.services.node_identity.sign_bolt11(hrp, data)
    return attach_signature(unsigned, hrp, data, signature, recovery_id).text


async def refused_by_us(story: Story, channel: Chan, bolt11: str) -> None:
    """The peer hears that we refuse; its payment fails, and both have their money back."""
    paid = await story.ask(story.peer.pay, bolt11)
    assert not paid.ok, paid
    await channel.balances(HALF, HALF)


async def test_unknown_hash_to_us(story: Story) -> None:
    channel = await half_each(story)
    known = await story.invoice(AMOUNT)
    await refused_by_us(story, channel, await forged(story, known.bolt11, payment_hash=PaymentHash(bytes(31) + b"x")))
    await still_works(story, channel)


async def test_wrong_secret_to_us(story: Story) -> None:
    channel = await half_each(story)
    known = await story.invoice(AMOUNT)
    await refused_by_us(story, channel, await forged(story, known.bolt11, payment_secret=PaymentSecret(bytes(32))))
    assert (await story.our_invoice(known.payment_hash)).status == "unpaid"


@pytest.mark.parametrize("amount", [AMOUNT - 1_000, AMOUNT * 2 + 1_000], ids=["too little", "too much"])
async def test_wrong_amount_to_us(story: Story, amount: int) -> None:
    channel = await half_each(story)
    known = await story.invoice(AMOUNT)
    await refused_by_us(story, channel, await forged(story, known.bolt11, amount_msat=Msat(amount)))
    assert (await story.our_invoice(known.payment_hash)).status == "unpaid"


async def test_expiring_too_soon_to_us(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """We want more blocks than the invoice says; payers add some of their own to hide where a route ends."""
    channel = await half_each(story)
    with monkeypatch.context() as patch:
        patch.setattr(paying, "MIN_FINAL_CLTV", CltvDelta(1_900))
        known = await story.invoice(AMOUNT)
    await refused_by_us(story, channel, await forged(story, known.bolt11, min_final_cltv_expiry_delta=CltvDelta(42)))


async def test_expired_invoice_to_us(story: Story) -> None:
    """Expired as both know it: the payer does not begin. As only we know it: we refuse."""
    channel = await half_each(story)
    known = await story.invoice(AMOUNT, expiry=1)
    await story.until(lambda: time.time() > known.expires_at + 1, "the invoice has expired")
    await refused_by_us(story, channel, known.bolt11)
    await refused_by_us(story, channel, await forged(story, known.bolt11, expiry=3600))


async def test_malformed_onion_to_us(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """We claim that we cannot read it; the peer has to digest ``update_fail_malformed_htlc``."""
    channel = await half_each(story)
    invoice = await story.invoice(AMOUNT)

    def unreadable(packet: bytes) -> bytes:
        raise OnionError(C_159, "wrong", failure=InvalidOnionHmac(sha256_of_onion=sha256(packet)))

    with monkeypatch.context() as patch:
        patch.setattr(payments, "onion_ephemeral_key", unreadable)
        await refused_by_us(story, channel, invoice.bolt11)
    await still_works(story, channel)


async def test_refused_by_a_plugin(story: Story) -> None:
    channel = await half_each(story)
    held = story.hold()
    invoice = await story.invoice(AMOUNT)
    await story.ask(story.peer.start_payment, invoice.bolt11)
    await story.until(lambda: bool(held.answers), "the payment waits for a decision")
    held.decide(False)
    assert not (await story.their_payment(invoice.payment_hash)).ok
    await channel.balances(HALF, HALF)
