"""What goes wrong with an HTLC that pays an invoice, or says so: it comes back, and the invoice stays unpaid."""

from typing import Any

import msgspec
from leyden.onion import make_final_payload, parse_payload
from leyden.types import BlockHeight, Msat
from leyden.types.rules import C_157
from leyden.wire import UpdateAddHtlc
from leyden.wire.codec import encode_struct
from leyden.wire.failures import FailureCode
from leyden.wire.onion_payload import PaymentData

from tests.scenario.negative.kit import POINT, O, Place, Scene, Violation, go_on
from tests.scenario.negative.updates import BAD_ONIONS, offered, opened, with_onion
from tests.scenario.sim_kit import BusyNode

AMOUNT = 10_000_000
SECRET = bytes([9]) * 32


def paying(*, carries: int = AMOUNT, expiry: int = 0, secret: bytes = b"", total: int = 0, **fields: Any) -> Place:
    """The script pays an invoice of the node over ``AMOUNT``, with something in the payload that is not right."""

    def place(busy: BusyNode, name: str) -> Scene:
        scene = opened()(busy, name)
        invoice = scene.peer.let_invoice(AMOUNT)
        height = BlockHeight(expiry or scene.channel.height + 100)
        right = make_final_payload(Msat(carries), height, invoice.payment_secret, Msat(carries))
        data = PaymentData(payment_secret=secret or invoice.payment_secret, total_msat=total or carries)
        payload = msgspec.structs.replace(parse_payload(right), **({"payment_data": data} | fields))
        scene.channel.offer(carries, expiry=height, payment_hash=invoice.payment_hash, payload=encode_struct(payload))
        return scene

    return place


def paid(busy: BusyNode, name: str) -> Scene:
    """The script has paid an invoice and is about to pay it again."""
    scene = opened()(busy, name)
    invoice = scene.peer.let_invoice(AMOUNT)
    scene.channel.pay(invoice)
    scene.peer.run(scene.channel)
    scene.channel.pay(invoice)
    return scene


def closer(blocks: int) -> Place:
    """The HTLC expires so many blocks from now."""

    def place(busy: BusyNode, name: str) -> Scene:
        return paying(expiry=busy.simulation.chain.height + blocks)(busy, name)

    return place


def of_length(size: int) -> Place:
    """An onion whose payload is too short to be one: its writer has to look away."""

    def place(busy: BusyNode, name: str) -> Scene:
        scene = opened()(busy, name)
        C_157.enabled = False
        try:
            scene.channel.offer(AMOUNT, payload=bytes(size))
        finally:
            C_157.enabled = True
        return scene

    return place


def expired(busy: BusyNode, name: str) -> Scene:
    scene = paying()(busy, name)
    busy.simulation.advance(3_601)
    scene.peer.rest()
    return scene


def in_a_blinded_path(scene: Scene) -> None:
    """A path key beside the onion: the node makes no blinded paths."""
    scene.held(UpdateAddHtlc)
    scene.peer.send(scene.channel.changed(blinded_path=POINT))
    go_on(scene)


UNKNOWN_DETAILS = FailureCode.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS
NEXT = FailureCode.UNKNOWN_NEXT_PEER
WRONG_AMOUNT, WRONG_EXPIRY = FailureCode.FINAL_INCORRECT_HTLC_AMOUNT, FailureCode.FINAL_INCORRECT_CLTV_EXPIRY
H = O.HTLC_FAILED
PAYMENTS: tuple[Violation, ...] = (
    Violation("C-163", "a channel to nowhere", paying(short_channel_id=7), go_on, H, failure=NEXT),
    Violation("C-170", "less than it says", paying(amt_to_forward=AMOUNT + 1), go_on, H, failure=WRONG_AMOUNT),
    Violation("C-170", "sooner than it says", paying(outgoing_cltv_value=100_000), go_on, H, failure=WRONG_EXPIRY),
    Violation("C-171", "a hash that nobody knows", offered(), go_on, H, failure=UNKNOWN_DETAILS, off=False),
    Violation("C-171", "another secret", paying(secret=SECRET), go_on, H, failure=UNKNOWN_DETAILS),
    Violation("C-171", "no secret", paying(payment_data=None), go_on, H, failure=UNKNOWN_DETAILS),
    Violation("C-171", "metadata", paying(payment_metadata=b"what"), go_on, H, failure=UNKNOWN_DETAILS),
    Violation("C-171", "too little", paying(carries=AMOUNT - 1), go_on, H, failure=UNKNOWN_DETAILS),
    Violation("C-171", "too late", closer(41), go_on, H, failure=UNKNOWN_DETAILS),
    Violation("C-172", "far too much", paying(carries=2 * AMOUNT + 1), go_on, H, failure=UNKNOWN_DETAILS),
    Violation("C-172", "an invoice that is paid", paid, go_on, H, failure=UNKNOWN_DETAILS, off=False),
    Violation("C-176", "a part of more", paying(total=2 * AMOUNT), go_on, H, failure=UNKNOWN_DETAILS),
    Violation("C-251", "an invoice that has expired", expired, go_on, H, failure=UNKNOWN_DETAILS),
    Violation(
        "",
        "a path key",
        offered(),
        in_a_blinded_path,
        O.HTLC_MALFORMED,
        failure=FailureCode.INVALID_ONION_BLINDING,
    ),
    *(
        Violation("C-159", name, with_onion(spoiled), go_on, O.HTLC_MALFORMED, failure=code)
        for name, (spoiled, code) in BAD_ONIONS.items()
    ),
    *(
        Violation(
            "C-160",
            f"a payload of {size} bytes",
            of_length(size),
            go_on,
            H,
            "type=0,",
            failure=FailureCode.INVALID_ONION_PAYLOAD,
            off=size == 0,
        )
        for size in (0, 1)
    ),
)
