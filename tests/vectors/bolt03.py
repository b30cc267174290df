"""The channel of BOLT 3, appendices C and F, as Leyden values."""

import json
from pathlib import Path
from typing import Any

from leyden.commitment import ChannelKeys, Commitment, CommitmentParams, Htlc, make_commitment
from leyden.types import BlockHeight, CltvDelta, FeeRatePerKw, Msat, OutPoint, Sat, Txid

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bolt03_commitment.json").read_text())
SECRETS: dict[str, bytes] = {name: bytes.fromhex(value) for name, value in DATA["secrets"].items()}
PREIMAGES: dict[int, bytes] = {htlc["id"]: bytes.fromhex(htlc["preimage"]) for htlc in DATA["htlcs"]}
POINT = bytes.fromhex(DATA["derived"]["point"])
NUMBER: int = DATA["commitment_number"]


def all_cases() -> list[tuple[bool, dict[str, Any]]]:
    """(anchors, case) for every commitment of both appendices."""
    return [(kind == "anchors", case) for kind in ("static_remotekey", "anchors") for case in DATA[kind]]


def case_id(value: object) -> str:
    if isinstance(value, dict):
        return str(value["name"])
    return "anchors" if value else "static_remotekey"


def _keys(side: dict[str, str]) -> ChannelKeys:
    # The vectors leave out what the owner's commitment does not use: any point does there.
    return ChannelKeys(
        funding_pubkey=bytes.fromhex(side["funding"]),
        revocation_basepoint=bytes.fromhex(side.get("revocation", side["payment"])),
        payment_basepoint=bytes.fromhex(side["payment"]),
        delayed_payment_basepoint=bytes.fromhex(side.get("delayed", side["payment"])),
        htlc_basepoint=bytes.fromhex(side["htlc"]),
    )


def make_params(anchors: bool, dust_limit: int = 546) -> CommitmentParams:
    funding = DATA["funding"]
    return CommitmentParams(
        anchors=anchors,
        funding_outpoint=OutPoint(Txid(bytes.fromhex(funding["txid"])[::-1]), funding["vout"]),
        funding_value=Sat(funding["sat"]),
        owner_keys=_keys(DATA["owner"]),
        other_keys=_keys(DATA["other"]),
        owner_is_funder=True,
        to_self_delay=CltvDelta(DATA["to_self_delay"]),
        owner_dust_limit=Sat(dust_limit),
    )


def make_htlcs(ids: list[int]) -> tuple[Htlc, ...]:
    return tuple(
        Htlc(
            offered_by_owner=htlc["offered"],
            amount_msat=Msat(htlc["msat"]),
            payment_hash=bytes.fromhex(htlc["hash"]),
            cltv_expiry=BlockHeight(htlc["expiry"]),
            id=htlc["id"],
        )
        for htlc in DATA["htlcs"]
        if htlc["id"] in ids
    )


def build(anchors: bool, case: dict[str, Any]) -> Commitment:
    """The owner's commitment of a case."""
    owner_msat, other_msat = case["balances_msat"]
    return make_commitment(
        make_params(anchors, case["dust_limit"]),
        NUMBER,
        POINT,
        Msat(owner_msat),
        Msat(other_msat),
        make_htlcs(case["htlcs"]),
        FeeRatePerKw(case["feerate"]),
    )


def find_case(anchors: bool, words: str) -> dict[str, Any]:
    return next(case for with_anchors, case in all_cases() if with_anchors is anchors and words in case["name"])
