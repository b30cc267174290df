"""BOLT 2: the numbers it prints, and the messages of its splice flows on the wire.

The flows are message flows of a splicing channel. Here each message is built with the fields that the flow gives,
encoded and read back, and the batches are held against the fundings that are active: how a channel gets there comes
with splicing.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from leyden.bitcoin import dust_limit, p2wsh
from leyden.channel import ChannelPolicy
from leyden.channel.updates import MAX_CLTV_EXPIRY
from leyden.commitment import MAX_HTLCS_PER_SIDE, MAX_HTLCS_PER_SIDE_ZERO_FEE, next_rbf_feerate
from leyden.crypto import pubkey_create, sha256
from leyden.invoice.model import DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA
from leyden.types import MAX_MONEY_SAT, FeeRatePerKw
from leyden.wire import ChannelReestablish, CommitmentSigned, Message, SpliceLocked, StartBatch, decode, encode
from leyden.wire.htlc import FundingLocked, NextFunding

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bolt02.json").read_text())
CHANNEL_ID = b"\x07" * 32
SIGNATURE = b"\x01" * 64
COMMITMENT_SIGNED = 132


@pytest.mark.proves("C-015")
@pytest.mark.parametrize(("previous", "least"), DATA["rbf"])
def test_next_rbf_feerate(previous: int, least: int) -> None:
    assert next_rbf_feerate(FeeRatePerKw(previous)) == least


def test_the_older_rule_never_asks_for_more() -> None:
    for previous, least in DATA["rbf_text"]:
        assert previous * 25 // 24 == least <= next_rbf_feerate(FeeRatePerKw(previous))


def test_cltv_deltas() -> None:
    numbers = DATA["cltv"]
    r, g, s = numbers["R"], numbers["G"], numbers["S"]
    assert 3 * r + 2 * g + 2 * s == numbers["delta"]
    assert 2 * r + g + s == numbers["deadline"] == ChannelPolicy().fulfilled_htlc_margin
    assert numbers["final"] == DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA


def test_limits() -> None:
    limits = DATA["limits"]
    assert limits["max_accepted_htlcs"] == MAX_HTLCS_PER_SIDE
    assert limits["max_accepted_htlcs_zero_fee_commitments"] == MAX_HTLCS_PER_SIDE_ZERO_FEE
    assert limits["funding_satoshis_without_large_channel_lt"] == ChannelPolicy().max_funding + 1
    assert limits["dust_limit_min_sat"] <= ChannelPolicy().dust_limit
    assert dust_limit(p2wsh(b"\x51")) <= limits["dust_limit_min_sat"]
    assert limits["cltv_expiry_lt"] == MAX_CLTV_EXPIRY
    assert limits["max_money_sat"] == MAX_MONEY_SAT
    assert limits["funding_forget_blocks"] == ChannelPolicy().funding_timeout


def txid(name: str) -> bytes:
    return sha256(name.encode())


def message_of(name: str, fields: dict[str, Any]) -> Message | None:
    """The flow's message where it says what stands in it."""
    match name:
        case "start_batch":
            return StartBatch(channel_id=CHANNEL_ID, batch_size=fields["batch_size"], message_type=COMMITMENT_SIGNED)
        case "commitment_signed" if "funding_txid" in fields:
            return CommitmentSigned(
                channel_id=CHANNEL_ID, signature=SIGNATURE, htlc_signature=(), funding_txid=txid(fields["funding_txid"])
            )
        case "splice_locked" if "splice_txid" in fields:
            return SpliceLocked(channel_id=CHANNEL_ID, splice_txid=txid(fields["splice_txid"]))
        case "channel_reestablish":
            asked, locked = fields.get("next_funding"), fields.get("my_current_funding_locked")
            return ChannelReestablish(
                channel_id=CHANNEL_ID,
                next_commitment_number=fields.get("next_commitment_number", 11),
                next_revocation_number=fields.get("next_revocation_number", 10),
                your_last_per_commitment_secret=bytes(32),
                my_current_per_commitment_point=pubkey_create(b"\x01" * 32),
                next_funding=asked
                and NextFunding(next_funding_txid=txid(asked["txid"]), retransmit_flags=asked["retransmit_flags"]),
                my_current_funding_locked=locked
                and FundingLocked(my_current_funding_locked_txid=txid(locked), retransmit_flags=0),
            )
    return None


@pytest.mark.parametrize("flow", DATA["flows"], ids=lambda flow: flow["title"])
def test_splice_flow(flow: dict[str, Any]) -> None:
    seen, batches = 0, 0
    steps = flow["steps"]
    for index, (who, *rest) in enumerate(steps):
        if who in ("active", "reconnect"):
            continue
        name, fields = rest[0], rest[1] if len(rest) > 1 else {}
        message = message_of(name, fields)
        if message is not None:
            assert decode(encode(message)) == message
            seen += 1
        if name == "start_batch":
            size = fields["batch_size"]
            batch = [step for step in steps[index + 1 :] if step[0] == who][:size]  # nothing of its own in between
            assert [(step[0], step[1]) for step in batch] == [(who, "commitment_signed")] * size
            fundings = [step[2]["funding_txid"] for step in batch]
            assert len(set(fundings)) == size  # one commitment for each funding that the sender takes for active
            known = set(flow["fundings"]).union(
                *(set(step[1]["fundings"]) for step in steps[:index] if step[0] == "active")
            )
            assert set(fundings) <= known | {"FundingTx2", "FundingTx2a", "FundingTx2b"}
            batches += 1
    assert seen or batches
