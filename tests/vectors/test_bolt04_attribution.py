"""BOLT 4: attribution data of a failure and of a fulfilment, and the fulfilment payload, over five hops."""

import json
from pathlib import Path
from typing import Any

import pytest
from leyden.crypto import hmac_sha256
from leyden.onion import (
    decode_attributed_failure,
    decode_failure,
    decode_fulfilment,
    derive_session_secrets,
    keys,
    make_fulfilment,
    wrap_attributed_failure,
    wrap_failure,
    wrap_fulfilment,
)
from leyden.onion.attribution import add_attribution
from leyden.wire import AttributionData
from leyden.wire.codec import decode_struct, encode_struct

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bolt04_attribution.json").read_text())
HOPS = DATA["hops"]
SECRETS = [bytes.fromhex(hop["shared_secret"]) for hop in HOPS]
TIMES = tuple(hop["hold_time_ms"] for hop in HOPS)
MESSAGE = bytes.fromhex(DATA["failure_message"])
PAYLOAD = bytes.fromhex(DATA["payload"])
LAST = len(HOPS) - 1


def data_of(record: dict[str, str]) -> AttributionData:
    return decode_struct(AttributionData, bytes.fromhex(record["attribution_data"]))


def test_secrets_and_keys() -> None:
    route = [bytes.fromhex(hop["public_key"]) for hop in HOPS]
    assert list(derive_session_secrets(bytes.fromhex(DATA["session_key"]), route)[1]) == SECRETS
    assert [keys.ammag(secret).hex() for secret in SECRETS] == [hop["ammag"] for hop in HOPS]
    assert keys.um(SECRETS[LAST]).hex() == DATA["um_of_last"]


def test_failure_of_the_last_hop() -> None:
    """The vector pads to 1024, so its packet is put together here."""
    size, padded = len(MESSAGE), DATA["padded_to"]
    body = size.to_bytes(2, "big") + MESSAGE + (padded - size).to_bytes(2, "big") + bytes(padded - size)
    plain = hmac_sha256(keys.um(SECRETS[LAST]), body) + body
    assert plain.hex() == DATA["packet_before_hiding"]
    assert wrap_failure(SECRETS[LAST], plain).hex() == HOPS[LAST]["failure"]["packet"]
    made = add_attribution(SECRETS[LAST], plain, TIMES[LAST], None)
    assert encode_struct(made).hex() == HOPS[LAST]["failure"]["attribution_data"]


@pytest.mark.proves("C-198")
@pytest.mark.parametrize("hop", range(LAST))
def test_failure_on_its_way_back(hop: int) -> None:
    below = HOPS[hop + 1]["failure"]
    packet, attribution = wrap_attributed_failure(
        SECRETS[hop], bytes.fromhex(below["packet"]), data_of(below), hold_time_ms=TIMES[hop]
    )
    assert packet.hex() == HOPS[hop]["failure"]["packet"]
    assert encode_struct(attribution).hex() == HOPS[hop]["failure"]["attribution_data"]


@pytest.mark.proves("C-199")
def test_origin_reads_the_failure() -> None:
    packet = bytes.fromhex(HOPS[0]["failure"]["packet"])
    read = decode_attributed_failure(SECRETS, packet, data_of(HOPS[0]["failure"]))
    assert (read.hop, read.message) == (LAST, MESSAGE) == decode_failure(SECRETS, packet)
    assert (read.hold_times_ms, read.suspect) == (TIMES, None)
    # The order that is printed beside the vector is not the one that its bytes hold; a wrong secret verifies nothing.
    assert TIMES == (500, 400, 300, 200, 100)
    assert decode_attributed_failure(SECRETS[::-1], packet, data_of(HOPS[0]["failure"])).suspect == 0


@pytest.mark.proves("C-200")
@pytest.mark.parametrize(("case", "payload"), [("fulfilment", None), ("fulfilment_with_payload", PAYLOAD)])
def test_fulfilment(case: str, payload: bytes | None) -> None:
    for hop in range(LAST, -1, -1):
        if hop == LAST:
            made = make_fulfilment(SECRETS[hop], hold_time_ms=TIMES[hop], payload=payload)
        else:
            below = HOPS[hop + 1][case]
            sent = bytes.fromhex(below["payload"]) if payload is not None else None
            made = wrap_fulfilment(SECRETS[hop], data_of(below), sent, hold_time_ms=TIMES[hop])
        assert encode_struct(made.attribution_data).hex() == HOPS[hop][case]["attribution_data"]
        assert (made.payload.hex() if made.payload is not None else None) == HOPS[hop][case].get("payload")


@pytest.mark.proves("C-201")
def test_origin_reads_the_fulfilment() -> None:
    first = HOPS[0]["fulfilment_with_payload"]
    read = decode_fulfilment(SECRETS, data_of(first), bytes.fromhex(first["payload"]))
    assert (read.hold_times_ms, read.suspect, read.payload) == (TIMES, None, PAYLOAD)
    relayed = wrap_fulfilment(
        SECRETS[3],
        data_of(HOPS[4]["fulfilment_with_payload"]),
        bytes.fromhex(HOPS[4]["fulfilment_with_payload"]["payload"]),
        hold_time_ms=TIMES[3],
    )
    assert relayed.payload is not None
    assert relayed.payload.hex() == HOPS[3]["fulfilment_with_payload"]["payload"]
    without = decode_fulfilment(SECRETS, data_of(HOPS[0]["fulfilment"]), None)
    assert (without.hold_times_ms, without.suspect, without.payload) == (TIMES, None, None)
