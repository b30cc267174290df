"""Payments into blinded paths: prices that suffice, what hops accept, and what they tell when they do not."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.crypto import CryptoError, aead_encrypt, ecdh, pubkey_create, sha256
from leyden.onion import (
    BlindedForward,
    BlindedHtlc,
    BlindedReceipt,
    OnionError,
    PaymentPathHop,
    PeeledPayment,
    advance_blinded_path,
    aggregate_payinfo,
    blinded_ephemeral_key,
    blinded_path_fee,
    build_onion,
    check_path_id,
    hidden_in_path,
    keys,
    make_blinded_hops,
    make_blinded_path,
    make_payment_path,
    onion_ephemeral_key,
    open_recipient_data,
    pad_to_equal_length,
    parse_payload,
    path_key_of,
    peel_payment,
    read_blinded_payment,
    relayed,
)
from leyden.types import MAX_MONEY_MSAT, BlockHeight, CltvDelta, Msat, ShortChannelId
from leyden.wire.codec import UnknownRecord, encode_struct
from leyden.wire.failures import (
    Failure,
    IncorrectOrUnknownPaymentDetails,
    InvalidOnionBlinding,
    InvalidOnionPayload,
)
from leyden.wire.onion_message import BlindedPath
from leyden.wire.onion_payload import EncryptedData, OnionPayload, PaymentConstraints, PaymentRelay

SECRETS = [sha256(b"node %d" % i) for i in range(6)]
NODES = [pubkey_create(secret) for secret in SECRETS]
PATH_KEY, SESSION_KEY, PAYMENT_HASH = b"\x51" * 32, b"\x41" * 32, b"\x42" * 32
HEIGHT = 800_000

millionths = st.integers(0, 3_000_000)
relays = st.builds(
    PaymentRelay,
    cltv_expiry_delta=st.integers(0, 500),
    fee_proportional_millionths=millionths,
    fee_base_msat=st.integers(0, 100_000),
)


def hop_of(
    position: int,
    relay: PaymentRelay | None = None,
    *,
    scid: int | None = 7,
    minimum: int = 1000,
    maximum: int = 10**12,
) -> PaymentPathHop:
    return PaymentPathHop(
        node_id=NODES[position],
        short_channel_id=None if scid is None else ShortChannelId(scid + position),
        relay=relay or PaymentRelay(cltv_expiry_delta=40, fee_proportional_millionths=1000, fee_base_msat=1000),
        htlc_minimum_msat=Msat(minimum),
        htlc_maximum_msat=Msat(maximum),
    )


def path_of(hops: list[PaymentPathHop], final_delta: int = 18) -> Any:
    return make_payment_path(
        PATH_KEY,
        hops,
        NODES[len(hops)],
        path_id=b"invoice 1",
        max_cltv_expiry=BlockHeight(HEIGHT + 100),
        min_final_cltv_expiry_delta=CltvDelta(final_delta),
    )


def opened_path(path: BlindedPath) -> list[EncryptedData]:
    """What each hop reads."""
    path_key, data = path.first_path_key, []
    for secret, hop in zip(SECRETS, path.path, strict=False):
        opened = open_recipient_data(path_key, ecdh(secret, path_key), hop.encrypted_recipient_data)
        data.append(opened.data)
        path_key = opened.next_path_key
    return data


# --- making a path ----------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-182")
def test_what_the_hops_are_told() -> None:
    path, payinfo = path_of([hop_of(0, minimum=5), hop_of(1, scid=None, minimum=2000), hop_of(2)])
    assert path.first_node_id == NODES[0]
    assert len({len(hop.encrypted_recipient_data) for hop in path.path}) == 1
    *forwarding, last = opened_path(path)
    assert [(data.short_channel_id, data.next_node_id) for data in forwarding] == [
        (7, None),
        (None, NODES[2]),
        (9, None),
    ]
    assert all(data.payment_relay == hop_of(0).relay for data in forwarding)
    assert all(data.path_id is None and data.allowed_features is None for data in forwarding)
    limits = [data.payment_constraints for data in (*forwarding, last)]
    assert [limit and limit.max_cltv_expiry for limit in limits] == [HEIGHT + 118 + 40 * n for n in (3, 2, 1, 0)]
    assert {limit and limit.htlc_minimum_msat for limit in limits} == {2000} == {payinfo.htlc_minimum_msat}
    assert (last.path_id, last.payment_relay, last.short_channel_id) == (b"invoice 1", None, None)


@pytest.mark.proves("C-183")
def test_the_delta_includes_the_recipients() -> None:
    _, payinfo = path_of([hop_of(0), hop_of(1)], final_delta=18)
    assert payinfo.cltv_expiry_delta == 98
    assert path_of([])[1].cltv_expiry_delta == 18


@pytest.mark.proves("C-183")
def test_sums_that_no_invoice_can_carry() -> None:
    dear = PaymentRelay(cltv_expiry_delta=40_000, fee_proportional_millionths=0xFFFFFFFF, fee_base_msat=0xFFFFFFFF)
    for relay in (
        PaymentRelay(cltv_expiry_delta=40_000, fee_proportional_millionths=0, fee_base_msat=0),
        PaymentRelay(cltv_expiry_delta=0, fee_proportional_millionths=0xFFFFFFFF, fee_base_msat=0),
        PaymentRelay(cltv_expiry_delta=0, fee_proportional_millionths=0, fee_base_msat=0xFFFFFFFF),
        dear,
    ):
        with pytest.raises(OnionError) as caught:
            aggregate_payinfo([hop_of(0, relay), hop_of(1, relay)], CltvDelta(18))
        assert caught.value.rule.id == "C-183"


@given(path=st.lists(relays, max_size=5), amount=st.integers(0, 10**11))
@settings(deadline=None, max_examples=300)
def test_who_pays_the_price_pays_every_hop(path: list[PaymentRelay], amount: int) -> None:
    """Fees are summed once and taken hop by hop; rounding never leaves the recipient short."""
    try:
        payinfo = aggregate_payinfo([hop_of(0, relay) for relay in path], CltvDelta(18))
    except OnionError:
        return
    left = Msat(amount + blinded_path_fee(Msat(amount), payinfo))
    expiry = BlockHeight(HEIGHT + payinfo.cltv_expiry_delta)
    for relay in path:
        left, expiry = relayed(left, expiry, relay)
    assert left >= amount
    assert expiry == HEIGHT + 18


@pytest.mark.proves("C-183")
def test_prices_round_up() -> None:
    """A third of a millisatoshi for each of two hops is more than nothing."""
    tiny = PaymentRelay(cltv_expiry_delta=0, fee_proportional_millionths=400, fee_base_msat=1)
    payinfo = aggregate_payinfo([hop_of(0, tiny), hop_of(1, tiny)], CltvDelta(0))
    assert (payinfo.fee_base_msat, payinfo.fee_proportional_millionths) == (3, 801)


@given(path=st.lists(st.tuples(relays, st.integers(1, 10**11)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=200)
def test_the_maximum_fits_every_channel(path: list[tuple[PaymentRelay, int]]) -> None:
    hops = [hop_of(0, relay, maximum=maximum) for relay, maximum in path]
    try:
        payinfo = aggregate_payinfo(hops, CltvDelta(18))
    except OnionError:
        return

    def fits(arriving: int) -> bool:
        amount = Msat(arriving + blinded_path_fee(Msat(arriving), payinfo))
        for relay, maximum in path:
            amount, _ = relayed(amount, BlockHeight(10_000), relay)
            if amount > maximum:
                return False
        return True

    largest = payinfo.htlc_maximum_msat
    assert largest == 0 or fits(largest)
    # Nothing is given away but what rounding costs.
    assert not fits(largest + 10 * len(path))


def test_a_path_without_hops_has_no_maximum() -> None:
    assert aggregate_payinfo([], CltvDelta(18)).htlc_maximum_msat == MAX_MONEY_MSAT
    assert aggregate_payinfo([hop_of(0, maximum=5000)], CltvDelta(18)).htlc_maximum_msat == 5000


@given(st.lists(st.integers(0, 600), min_size=1, max_size=6))
@settings(deadline=None, max_examples=200)
def test_padding_to_equal_length(sizes: list[int]) -> None:
    data = [EncryptedData(path_id=bytes(size), padding=b"old") for size in sizes]
    padded = pad_to_equal_length(data)
    lengths = {len(encode_struct(item)) for item in padded}
    assert len(lengths) == 1
    longest = max(len(encode_struct(EncryptedData(path_id=bytes(size)))) for size in sizes)
    assert lengths.pop() - longest in range(4)
    assert [item.path_id for item in padded] == [item.path_id for item in data]


def test_a_path_needs_a_hop_and_keys() -> None:
    with pytest.raises(OnionError):
        make_blinded_path(PATH_KEY, [])
    with pytest.raises(CryptoError):
        make_blinded_path(bytes(32), [(NODES[0], EncryptedData())])
    with pytest.raises(OnionError):
        make_blinded_hops(
            BlindedPath(first_node_id=NODES[0], first_path_key=NODES[1], path=()),
            NODES[0],
            amount_msat=Msat(1),
            cltv_expiry=BlockHeight(1),
            total_msat=Msat(1),
        )


# --- amounts ----------------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-189")
@pytest.mark.parametrize(
    ("amount", "relay", "forwarded"),
    [
        (110_125, (50, 0, 10_000), 100_125),
        (100_125, (75, 150, 100), 100_010),
        (100_010, (25, 100, 0), 100_000),
        (3, (0, 1_000_000, 0), 2),
        (10_001, (0, 2_000_000, 1), 3_334),
    ],
)
def test_amounts_to_forward(amount: int, relay: tuple[int, int, int], forwarded: int) -> None:
    terms = PaymentRelay(cltv_expiry_delta=relay[0], fee_proportional_millionths=relay[1], fee_base_msat=relay[2])
    # The first case has no proportional fee and would be the same without rounding; another amount is not.
    assert relayed(Msat(amount), BlockHeight(HEIGHT), terms) == (forwarded, HEIGHT - relay[0])
    odd = PaymentRelay(cltv_expiry_delta=0, fee_proportional_millionths=1, fee_base_msat=0)
    assert relayed(Msat(5), BlockHeight(HEIGHT), odd)[0] == 5


@pytest.mark.proves("C-189")
@pytest.mark.parametrize(("amount", "expiry"), [(999, HEIGHT), (0, HEIGHT), (1000, 39)])
def test_an_htlc_below_the_terms(amount: int, expiry: int) -> None:
    terms = hop_of(0).relay
    assert relayed(Msat(1000), BlockHeight(40), terms) == (0, 0)
    with pytest.raises(OnionError) as caught:
        relayed(Msat(amount), BlockHeight(expiry), terms)
    assert caught.value.rule.id == "C-189"


# --- hops -------------------------------------------------------------------------------------------------------------


def blob(data: EncryptedData | bytes, position: int = 0) -> bytes:
    plain = data if isinstance(data, bytes) else encode_struct(data)
    return aead_encrypt(keys.rho(ecdh(SECRETS[position], NODES[5])), bytes(12), b"", plain)


FORWARD = EncryptedData(
    short_channel_id=7,
    payment_relay=PaymentRelay(cltv_expiry_delta=40, fee_proportional_millionths=1000, fee_base_msat=1000),
    payment_constraints=PaymentConstraints(max_cltv_expiry=HEIGHT, htlc_minimum_msat=100_000),
)
RECEIVE = EncryptedData(
    path_id=b"invoice 1",
    payment_constraints=PaymentConstraints(max_cltv_expiry=HEIGHT, htlc_minimum_msat=100_000),
)
FINAL = OnionPayload(amt_to_forward=100_000, outgoing_cltv_value=HEIGHT - 20, total_amount_msat=150_000)


def with_(value: Any, **changes: Any) -> Any:
    return type(value)(**{name: getattr(value, name) for name in value.__struct_fields__} | changes)


def read(
    data: EncryptedData | bytes,
    payload: OnionPayload | None = None,
    *,
    final: bool = False,
    introduction: bool = False,
    amount: int = 100_000,
    expiry: int = HEIGHT,
) -> BlindedForward | BlindedReceipt:
    """Hop 0 with path key ``NODES[5]`` reads ``data`` and ``payload``."""
    own = payload or (FINAL if final else OnionPayload())
    own = with_(own, encrypted_recipient_data=blob(data), current_path_key=NODES[5] if introduction else None)
    htlc = BlindedHtlc(
        packet=b"packet",
        amount_msat=Msat(amount),
        cltv_expiry=BlockHeight(expiry),
        path_key=None if introduction else NODES[5],
    )
    peeled = PeeledPayment(payload=own, next_packet=None if final else b"next")
    assert path_key_of(peeled, htlc) == NODES[5]
    return read_blinded_payment(peeled, htlc, NODES[5], ecdh(SECRETS[0], NODES[5]))


def refused(rule: str, call: Callable[[], object], failure: Failure | None = None) -> OnionError:
    with pytest.raises(OnionError) as caught:
        call()
    assert caught.value.rule.id == rule
    assert caught.value.failure == (failure or InvalidOnionBlinding(sha256_of_onion=sha256(b"packet")))
    return caught.value


def test_what_is_accepted() -> None:
    forward = read(FORWARD)
    assert isinstance(forward, BlindedForward)
    assert (forward.short_channel_id, forward.next_node_id) == (7, None)
    assert (forward.amount_msat, forward.cltv_expiry) == (98_902, HEIGHT - 40)
    by_node = read(with_(FORWARD, short_channel_id=None, next_node_id=NODES[1], payment_constraints=None))
    assert isinstance(by_node, BlindedForward)
    assert (by_node.short_channel_id, by_node.next_node_id) == (None, NODES[1])
    assert read(FORWARD, introduction=True) == forward
    assert read(with_(FORWARD, allowed_features=b"\0")) == forward
    assert read(with_(FORWARD, unknown=(UnknownRecord(561, b"x"),))) == forward
    expected = BlindedReceipt(
        amount_msat=Msat(100_000), total_msat=Msat(150_000), cltv_expiry=BlockHeight(HEIGHT - 20), path_id=b"invoice 1"
    )
    assert read(RECEIVE, final=True) == read(RECEIVE, final=True, introduction=True) == expected


@pytest.mark.proves("C-181")
def test_an_override_replaces_the_next_path_key() -> None:
    plain, replaced = read(FORWARD), read(with_(FORWARD, next_path_key_override=NODES[3]))
    assert isinstance(plain, BlindedForward)
    assert isinstance(replaced, BlindedForward)
    assert replaced.path_key == NODES[3] != plain.path_key


@pytest.mark.proves("C-185")
@pytest.mark.parametrize("final", [False, True])
def test_path_keys_and_data_belong_together(final: bool) -> None:
    hidden = InvalidOnionBlinding(sha256_of_onion=sha256(b"packet"))
    open_ = InvalidOnionPayload(type=12, offset=0)
    at_introduction = open_ if final else hidden
    for in_message, in_onion, data, failure in (
        (True, True, True, hidden),
        (False, False, True, open_),
        (True, False, False, hidden),
        (False, True, False, at_introduction),
        (True, True, False, hidden),
    ):
        htlc = BlindedHtlc(
            packet=b"packet",
            amount_msat=Msat(1),
            cltv_expiry=BlockHeight(1),
            path_key=NODES[5] if in_message else None,
        )
        payload = OnionPayload(
            encrypted_recipient_data=b"x" if data else None, current_path_key=NODES[4] if in_onion else None
        )
        peeled = PeeledPayment(payload=payload, next_packet=None if final else b"next")
        refused("C-185", lambda p=peeled, h=htlc: path_key_of(p, h), failure)


def test_a_payment_outside_a_path() -> None:
    htlc = BlindedHtlc(packet=b"packet", amount_msat=Msat(1), cltv_expiry=BlockHeight(1))
    assert path_key_of(PeeledPayment(payload=OnionPayload(amt_to_forward=1), next_packet=None), htlc) is None


@pytest.mark.proves("C-186")
@pytest.mark.parametrize(
    "data",
    [
        b"\x02\x01",  # cut short
        bytes.fromhex("1000"),  # unknown even record
        with_(FORWARD, allowed_features=b"\x01"),
        with_(FORWARD, allowed_features=b"\x02"),  # odd does not make it better
    ],
)
def test_data_that_cannot_be_read(data: EncryptedData | bytes) -> None:
    refused("C-186", lambda: read(data))
    refused("C-186", lambda: read(data, introduction=True))
    # Recipient and introduction node in one hides from nobody.
    refused("C-186", lambda: read(data, final=True, introduction=True), InvalidOnionPayload(type=10, offset=0))


@pytest.mark.proves("C-186")
@pytest.mark.parametrize("position", [0, 20, -1])
def test_data_for_somebody_else(position: int) -> None:
    sealed = bytearray(blob(FORWARD))
    sealed[position] ^= 1
    for broken, secret in ((bytes(sealed), SECRETS[0]), (blob(FORWARD), SECRETS[1]), (b"", SECRETS[0])):
        with pytest.raises(OnionError) as caught:
            open_recipient_data(NODES[5], ecdh(secret, NODES[5]), broken)
        assert caught.value.rule.id == "C-186"
        assert caught.value.failure is None


@pytest.mark.proves("C-187")
@pytest.mark.parametrize("final", [False, True])
def test_limits_of_the_path(final: bool) -> None:
    data = RECEIVE if final else FORWARD
    low = with_(FINAL, amt_to_forward=99_999) if final else None
    refused("C-187", lambda: read(data, final=final, expiry=HEIGHT + 1))
    refused("C-187", lambda: read(data, low, final=final, amount=99_999))


@pytest.mark.proves("C-188")
@pytest.mark.parametrize(
    "extra",
    [
        {"amt_to_forward": 1},
        {"outgoing_cltv_value": 1},
        {"short_channel_id": 1},
        {"payment_metadata": b""},
        {"total_amount_msat": 1},
        {"unknown": (UnknownRecord(65537, b""),)},
    ],
)
def test_a_forwarding_payload_says_nothing_else(extra: dict[str, Any]) -> None:
    refused("C-188", lambda: read(FORWARD, OnionPayload(**extra)))
    refused("C-188", lambda: read(FORWARD, OnionPayload(**extra), introduction=True))


@pytest.mark.proves("C-188")
@pytest.mark.parametrize(
    "change", [{"payment_relay": None}, {"short_channel_id": None}, {"next_node_id": NODES[1]}], ids=str
)
def test_what_forwarding_needs(change: dict[str, Any]) -> None:
    refused("C-188", lambda: read(with_(FORWARD, **change)))


@pytest.mark.proves("C-189")
def test_an_htlc_that_does_not_pay_the_base_fee() -> None:
    data = with_(FORWARD, payment_constraints=None)
    refused("C-189", lambda: read(data, amount=999))
    refused("C-189", lambda: read(data, expiry=39))


@pytest.mark.proves("C-190")
@pytest.mark.parametrize(
    "change",
    [
        {"amt_to_forward": None},
        {"outgoing_cltv_value": None},
        {"total_amount_msat": None},
        {"short_channel_id": 1},
        {"payment_metadata": b"x"},
        {"unknown": (UnknownRecord(5482373485 | 1, b"x"),)},
        {"amt_to_forward": 100_001},
        {"outgoing_cltv_value": HEIGHT + 1},
    ],
    ids=str,
)
def test_what_the_recipient_refuses(change: dict[str, Any]) -> None:
    refused("C-190", lambda: read(RECEIVE, with_(FINAL, **change), final=True))
    refused(
        "C-190",
        lambda: read(RECEIVE, with_(FINAL, **change), final=True, introduction=True),
        InvalidOnionPayload(type=10, offset=0),
    )


@pytest.mark.proves("C-191")
@pytest.mark.parametrize(
    ("received", "made"), [(b"a", b"b"), (None, b"a"), (b"a", None), (b"", b"a"), (None, b""), (b"", None)]
)
def test_a_payment_by_another_path(received: bytes | None, made: bytes | None) -> None:
    htlc = BlindedHtlc(packet=b"packet", amount_msat=Msat(5), cltv_expiry=BlockHeight(9), path_key=NODES[5])
    refused("C-191", lambda: check_path_id(received, made, htlc, BlockHeight(HEIGHT)))
    unknown = IncorrectOrUnknownPaymentDetails(htlc_msat=5, height=HEIGHT)
    plain = with_(htlc, path_key=None)
    refused("C-191", lambda: check_path_id(received, made, plain, BlockHeight(HEIGHT)), unknown)


def test_a_payment_by_its_path() -> None:
    htlc = BlindedHtlc(packet=b"packet", amount_msat=Msat(5), cltv_expiry=BlockHeight(9))
    check_path_id(b"a", b"a", htlc, BlockHeight(HEIGHT))
    check_path_id(None, None, htlc, BlockHeight(HEIGHT))


# --- from one end to the other ----------------------------------------------------------------------------------------


@given(path=st.lists(relays, max_size=4), amount=st.integers(1000, 10**10), override=st.booleans())
@settings(deadline=None, max_examples=40)
def test_a_payment_arrives(path: list[PaymentRelay], amount: int, override: bool) -> None:
    hops = [hop_of(position, relay) for position, relay in enumerate(path)]
    try:
        blinded, payinfo = path_of(hops)
    except OnionError:
        return
    tail = make_blinded_hops(
        blinded, NODES[0], amount_msat=Msat(amount), cltv_expiry=BlockHeight(HEIGHT), total_msat=Msat(amount)
    )
    assert [parse_payload(payload).current_path_key is not None for _, payload in tail] == [True] + [False] * len(path)
    packet, _ = build_onion(SESSION_KEY, tail, PAYMENT_HASH)
    htlc = BlindedHtlc(
        packet=packet,
        amount_msat=Msat(amount + blinded_path_fee(Msat(amount), payinfo)),
        cltv_expiry=BlockHeight(HEIGHT + payinfo.cltv_expiry_delta),
    )
    for position, secret in enumerate(SECRETS[: len(tail)]):
        point = (
            onion_ephemeral_key(htlc.packet)
            if htlc.path_key is None
            else blinded_ephemeral_key(htlc.packet, ecdh(secret, htlc.path_key))
        )
        peeled = peel_payment(htlc, PAYMENT_HASH, ecdh(secret, point))
        path_key = path_key_of(peeled, htlc)
        assert path_key is not None
        result = read_blinded_payment(peeled, htlc, path_key, ecdh(secret, path_key))
        if position < len(path):
            assert isinstance(result, BlindedForward)
            assert peeled.next_packet is not None
            htlc = BlindedHtlc(
                packet=peeled.next_packet,
                amount_msat=result.amount_msat,
                cltv_expiry=result.cltv_expiry,
                path_key=result.path_key,
            )
        else:
            assert isinstance(result, BlindedReceipt)
            assert (result.amount_msat, result.path_id) == (amount, b"invoice 1")


def test_we_are_the_introduction_node_ourselves() -> None:
    path, _ = path_of([hop_of(0), hop_of(1)])
    secret = ecdh(SECRETS[0], path.first_path_key)
    opened = open_recipient_data(path.first_path_key, secret, path.path[0].encrypted_recipient_data)
    rest = advance_blinded_path(path, opened, NODES[1])
    assert (rest.first_node_id, rest.path) == (NODES[1], path.path[1:])
    second = ecdh(SECRETS[1], rest.first_path_key)
    assert (
        open_recipient_data(rest.first_path_key, second, rest.path[0].encrypted_recipient_data).data
        == (opened_path(path)[1])
    )
    alone, _ = path_of([])
    with pytest.raises(OnionError):
        advance_blinded_path(alone, opened, NODES[1])


def test_everything_inside_a_path_is_hidden() -> None:
    packet = b"\0" * 1366
    htlc = BlindedHtlc(packet=packet, amount_msat=Msat(1), cltv_expiry=BlockHeight(1), path_key=NODES[5])
    hidden = InvalidOnionBlinding(sha256_of_onion=sha256(packet))
    with pytest.raises(OnionError) as caught:
        blinded_ephemeral_key(packet, ecdh(SECRETS[0], NODES[5]))
    assert caught.value.failure == hidden
    assert caught.value.sha256_of_onion == sha256(packet)
    with pytest.raises(OnionError) as caught:
        peel_payment(htlc, PAYMENT_HASH, bytes(32))
    assert (caught.value.rule.id, caught.value.failure) == ("C-159", hidden)
    with pytest.raises(OnionError) as caught:
        peel_payment(with_(htlc, path_key=None), PAYMENT_HASH, bytes(32))
    assert caught.value.failure != hidden
    assert hidden_in_path(caught.value, packet).rule is caught.value.rule


@given(data=st.binary(max_size=200), final=st.booleans(), introduction=st.booleans())
@settings(deadline=None, max_examples=100)
def test_garbage_costs_one_htlc(data: bytes, final: bool, introduction: bool) -> None:
    with pytest.raises(OnionError) as caught:
        read(data, final=final, introduction=introduction, amount=0)
    assert caught.value.failure is not None
