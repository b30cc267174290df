"""Every message of a channel's life with one field altered: the node stands, keeps its books, and serves the others.

What is altered may still be in order. So nothing is said here about the reaction, only about what must hold whatever
the node makes of it.
"""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from leyden.channel import OPENING
from leyden.testing.wire_strategies import values_of
from leyden.wire import (
    AcceptChannel,
    AnnouncementSignatures,
    ChannelReady,
    ChannelReestablish,
    ClosingComplete,
    ClosingSig,
    ClosingSigned,
    CommitmentSigned,
    EncodeError,
    FundingCreated,
    FundingSigned,
    Message,
    OpenChannel,
    RevokeAndAck,
    Shutdown,
    UpdateAddHtlc,
    UpdateFailHtlc,
    UpdateFailMalformedHtlc,
    UpdateFee,
    UpdateFulfillHtlc,
    WireError,
)
from leyden.wire import fields as f
from leyden.wire.layout import ListOf, Nested, codec_of

from tests.scenario.negative.closings import closing, legacy, shutting_down
from tests.scenario.negative.connections import announcing
from tests.scenario.negative.kit import NO_POINT, Place, Scene, check_books
from tests.scenario.negative.openings import answering, proposing
from tests.scenario.negative.updates import (
    answering_htlc,
    answering_signature,
    coming_back,
    offered,
    with_fee,
)
from tests.scenario.sim_kit import BusyNode, channels


def getting_ready(role: Any) -> Place:
    def place(busy: BusyNode, name: str) -> Scene:
        scene: Scene = role()(busy, name)
        scene.peer.run(scene.channel)
        scene.peer.mine(3)
        scene.peer.run(scene.channel, before=ChannelReady)
        return scene

    return place


PLACES: dict[str, tuple[Place, type[Message]]] = {
    "open_channel": (proposing(), OpenChannel),
    "accept_channel": (answering(), AcceptChannel),
    "funding_created": (proposing(FundingCreated), FundingCreated),
    "funding_signed": (answering(FundingSigned), FundingSigned),
    "channel_ready to the fundee": (getting_ready(proposing), ChannelReady),
    "channel_ready to the funder": (getting_ready(answering), ChannelReady),
    "update_add_htlc": (offered(), UpdateAddHtlc),
    "update_add_htlc of the fundee": (offered(role="answer"), UpdateAddHtlc),
    "commitment_signed": (offered(CommitmentSigned, amount=20_000_000), CommitmentSigned),
    "revoke_and_ack": (answering_signature, RevokeAndAck),
    "update_fulfill_htlc": (answering_htlc("fulfil"), UpdateFulfillHtlc),
    "update_fail_htlc": (answering_htlc("fail"), UpdateFailHtlc),
    "update_fail_malformed_htlc": (answering_htlc("report"), UpdateFailMalformedHtlc),
    "update_fee": (with_fee, UpdateFee),
    "shutdown": (shutting_down(), Shutdown),
    "closing_signed": (legacy(), ClosingSigned),
    "closing_complete": (closing(ClosingComplete), ClosingComplete),
    "closing_sig": (closing(ClosingSig), ClosingSig),
    "channel_reestablish": (coming_back(), ChannelReestablish),
    "channel_reestablish after payments": (coming_back(True), ChannelReestablish),
    "announcement_signatures": (announcing, AnnouncementSignatures),
}


def fields_of(kind: type[Message]) -> dict[str, f.Field[Any]]:
    """Every field and record, by name."""
    codec = codec_of(kind)
    return dict(codec.fields) | {record.name: record.field for record in codec.records}


def extremes(field: f.Field[Any]) -> list[Any]:
    """The ends of what a field can carry, and a value that is no good where there are such."""
    match field:
        case f.Int():
            bits = 8 * (field.size or 0) - field.signed
            return [0, 1, (1 << bits) - 1] + ([field.limit] if field.limit is not None else [])
        case f.TruncatedInt():
            return [0, (1 << 8 * field.width) - 1]
        case f.BigSize():
            return [0, (1 << 64) - 1]
        case f.Bytes():
            size = field.size or 0
            return [bytes(size), b"\xff" * size, NO_POINT] if field.name == "point" else [bytes(size), b"\xff" * size]
        case f.VarBytes() | f.RestBytes():
            return [b"", b"\x00", bytes(600)]
        case ListOf():
            item = extremes(field.item)[0]
            return [(), (item,), (item,) * 3] if field.count is None else [(item,) * field.count]
        case Nested():
            first = [extremes(each)[0] for _, each in field.codec.fields]
            names = [name for name, _ in field.codec.fields]
            return [field.codec.cls(**dict(zip(names, first, strict=True)))]
        case _:
            raise TypeError(f"no extremes of {field!r}")


def attempt(busy: BusyNode, name: str, place: Place, field: str, value: Any) -> None:
    """Send the message of the place with one other value, and let the script go on as if nothing had happened."""
    scene = place(busy, name)
    capacity = {channel.channel_id: channel.config.funding_satoshis for channel in channels(busy.node)}
    try:
        data = scene.channel.changed(**{field: value})
    except (WireError, EncodeError):
        return  # our own encoder does not write it; bytes of that kind are in the tests of messages
    scene.peer.send(data)
    if not scene.peer.closed:
        scene.peer.rest()
        scene.busy.simulation.settle()
    busy.pay()
    check_books(busy)
    for channel in channels(busy.node):
        if channel.lifecycle not in OPENING:
            assert capacity.get(channel.channel_id, channel.config.funding_satoshis) == channel.config.funding_satoshis
    busy.dismiss()
    busy.check()
    busy.simulation.mine(1)
    busy.simulation.advance(1)
    busy.check()


@pytest.mark.parametrize("name", PLACES)
def test_extremes_of_each_field(busy: BusyNode, name: str) -> None:
    place, kind = PLACES[name]
    for field, declared in fields_of(kind).items():
        for number, value in enumerate(extremes(declared)):
            attempt(busy, f"{field} {number}", place, field, value)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PLACES)
@given(data=st.data())
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_anything_in_each_field(busy: BusyNode, name: str, data: st.DataObject) -> None:
    """All examples meet the same node, one after the other."""
    place, kind = PLACES[name]
    field = data.draw(st.sampled_from(sorted(fields_of(kind))))
    value = data.draw(values_of(fields_of(kind)[field]))
    attempt(busy, str(busy.paid), place, field, value)


def test_every_message_of_a_channel_has_its_place() -> None:
    """A message that is handled by a channel must be in the list."""
    from leyden.channel.machine import _MESSAGE_HANDLERS
    from leyden.wire import ErrorMessage

    assert {kind for _, kind in PLACES.values()} == _MESSAGE_HANDLERS.keys() - {ErrorMessage} | {OpenChannel}
