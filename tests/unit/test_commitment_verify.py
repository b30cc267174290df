"""What a ``commitment_signed`` may carry: C-087 and C-088 at the level of one commitment."""

from collections.abc import Callable

import pytest
from commitment_kit import OTHER, OWNER, POINT, make_htlc, make_params
from leyden.commitment import Commitment, make_commitment, verify_commitment_signatures
from leyden.crypto import ORDER, ecdsa_sign
from leyden.types import FeeRatePerKw, Msat, RuleViolation
from leyden.types.rules import C_088

AMOUNTS = (40_000_000, 30_000_000, 10_000_000, 20_000_000)


def build(anchors: bool = True, amounts: tuple[int, ...] = AMOUNTS) -> Commitment:
    htlcs = [make_htlc(i, offered=bool(i % 2), amount_msat=amount) for i, amount in enumerate(amounts)]
    balances = Msat(5_000_000_000), Msat(4_000_000_000)
    return make_commitment(make_params(anchors=anchors), 3, POINT, *balances, htlcs, FeeRatePerKw(1000))


def signatures(commitment: Commitment) -> tuple[bytes, list[bytes]]:
    secret = OTHER.htlc_at(POINT)
    return (
        ecdsa_sign(OTHER.funding, commitment.sighash),
        [ecdsa_sign(secret, entry.sighash) for entry in commitment.htlcs],
    )


def high_s(signature: bytes) -> bytes:
    return signature[:32] + (ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")


def flip(signature: bytes) -> bytes:
    return bytes((signature[0] ^ 1,)) + signature[1:]


@pytest.mark.parametrize("anchors", [False, True])
@pytest.mark.parametrize("amounts", [(), AMOUNTS])
def test_good_signatures_pass(anchors: bool, amounts: tuple[int, ...]) -> None:
    commitment = build(anchors, amounts)
    verify_commitment_signatures(commitment.params, commitment, *signatures(commitment))


@pytest.mark.proves("C-087", "C-101")
def test_htlc_signatures_go_by_output_and_not_by_id() -> None:
    commitment = build()
    assert [entry.htlc.id for entry in commitment.htlcs] == [2, 3, 1, 0]
    assert [entry.output_index for entry in commitment.htlcs] == [2, 3, 4, 5]


@pytest.mark.proves("C-088")
@pytest.mark.parametrize("broken", [flip, high_s, lambda s: s[:63], lambda s: bytes(64), lambda s: b"\xff" * 64])
def test_bad_commitment_signature(broken: Callable[[bytes], bytes]) -> None:
    commitment = build()
    signature, htlc_signatures = signatures(commitment)
    with pytest.raises(RuleViolation, match="bad commitment signature") as caught:
        verify_commitment_signatures(commitment.params, commitment, broken(signature), htlc_signatures)
    assert caught.value.rule is C_088


@pytest.mark.proves("C-088")
@pytest.mark.parametrize("broken", [flip, high_s, lambda s: s + b"\0", lambda s: bytes(64)])
@pytest.mark.parametrize("position", range(4))
def test_bad_htlc_signature(broken: Callable[[bytes], bytes], position: int) -> None:
    commitment = build()
    signature, htlc_signatures = signatures(commitment)
    htlc_signatures[position] = broken(htlc_signatures[position])
    with pytest.raises(RuleViolation, match="bad HTLC signature") as caught:
        verify_commitment_signatures(commitment.params, commitment, signature, htlc_signatures)
    assert caught.value.details["htlc_id"] == commitment.htlcs[position].htlc.id


@pytest.mark.proves("C-088")
def test_wrong_number_of_htlc_signatures() -> None:
    commitment = build()
    signature, good = signatures(commitment)
    for wrong in ([], good[:-1], [*good, good[0]]):
        with pytest.raises(RuleViolation, match="wrong number") as caught:
            verify_commitment_signatures(commitment.params, commitment, signature, wrong)
        assert caught.value.details == {"offered": len(wrong), "allowed": 4}


@pytest.mark.proves("C-088")
def test_swapped_htlc_signatures_and_wrong_keys() -> None:
    commitment = build()
    signature, good = signatures(commitment)
    with pytest.raises(RuleViolation):
        verify_commitment_signatures(commitment.params, commitment, signature, [good[1], good[0], *good[2:]])
    with pytest.raises(RuleViolation):
        verify_commitment_signatures(commitment.params, commitment, ecdsa_sign(OWNER.funding, commitment.sighash), good)
