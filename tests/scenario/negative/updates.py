"""What goes wrong in an open channel: HTLCs, signatures, revocations, feerates, errors."""

from typing import Any

from leyden.channel.effects import HtlcReceived
from leyden.crypto import sha256
from leyden.onion import make_final_payload
from leyden.types import BlockHeight, Msat, PaymentSecret
from leyden.wire import (
    ChannelReady,
    ChannelReestablish,
    ClosingSigned,
    CommitmentSigned,
    ErrorMessage,
    FundingCreated,
    FundingSigned,
    Message,
    RevokeAndAck,
    UpdateAddHtlc,
    UpdateFailHtlc,
    UpdateFailMalformedHtlc,
    UpdateFee,
    UpdateFulfillHtlc,
    WarningMessage,
)
from leyden.wire.failures import FailureCode
from leyden.wire.features import Feature

from tests.scenario.negative.kit import (
    ALL,
    NO_POINT,
    POINT,
    SIGNATURE,
    SIGNATURES,
    UNKNOWN,
    Deed,
    O,
    Place,
    Scene,
    Violation,
    bit_off,
    change,
    go_on,
    say,
    spoil,
)
from tests.scenario.sim_kit import BusyNode

DUST = 350_000
"""Of msat: such an HTLC has no output on either commitment."""


def opened(role: str = "propose", without: tuple[Feature, ...] = (), **params: Any) -> Place:
    """An open channel and nothing under way."""

    def place(busy: BusyNode, name: str) -> Scene:
        peer = busy.script(name).without(*without).connect()
        return Scene(busy, peer, peer.open(getattr(peer, role)(**params)))

    return place


def offered(before: type[Message] = UpdateAddHtlc, role: str = "propose", amount: int = 5_000_000, **how: Any) -> Place:
    """The script offers an HTLC and is about to send this message of the dance."""

    def place(busy: BusyNode, name: str) -> Scene:
        scene = opened(role)(busy, name)
        scene.kept["htlc"] = scene.channel.offer(amount, **how)
        scene.peer.run(scene.channel, before=before)
        return scene

    return place


def with_onion(spoiled: Any) -> Place:
    """As ``offered``, but the onion packet is passed through a function."""

    def place(busy: BusyNode, name: str) -> Scene:
        scene = opened()(busy, name)
        digest = sha256(name.encode())
        payload = make_final_payload(Msat(5_000_000), BlockHeight(400), PaymentSecret(bytes(32)), Msat(5_000_000))
        onion = scene.channel.onion(payload, digest)
        scene.channel.offer(5_000_000, payment_hash=digest, onion=spoiled(onion))
        return scene

    return place


def received(role: str = "propose", amount: int = 20_000_000) -> Place:
    """The node pays the script: its HTLC is irrevocably committed, and the script has not made up its mind."""

    def place(busy: BusyNode, name: str) -> Scene:
        scene = opened(role)(busy, name)
        _, scene.kept["preimage"] = scene.peer.let_pay(amount, name)
        scene.peer.run(scene.channel)
        scene.kept["htlc"] = scene.channel.received[-1]
        return scene

    return place


def answering_htlc(how: str) -> Place:
    """The script is about to remove the node's HTLC in one of three ways."""

    def place(busy: BusyNode, name: str) -> Scene:
        scene = received()(busy, name)
        htlc: HtlcReceived = scene.kept["htlc"]
        if how == "fulfil":
            scene.channel.fulfil(htlc.id, scene.kept["preimage"])
        elif how == "fail":
            scene.channel.fail(htlc, bytes(292))
        else:
            scene.channel.fail_malformed(htlc, FailureCode.INVALID_ONION_HMAC)
        return scene

    return place


def answering_signature(busy: BusyNode, name: str) -> Scene:
    """The node has offered an HTLC and signed; the script is about to revoke."""
    scene = opened()(busy, name)
    scene.peer.let_pay(20_000_000, name)
    scene.peer.run(scene.channel, before=RevokeAndAck)
    return scene


def with_fee(busy: BusyNode, name: str) -> Scene:
    scene = opened()(busy, name)
    scene.channel.update_fee(1_500)
    return scene


# -- deeds -------------------------------------------------------------------------------------------------------------


def raw(make: Any) -> Deed:
    """A message made from the id of the channel, instead of what waits."""
    return say(lambda scene: make(scene.id))


def add(scene: Scene, **fields: Any) -> Message:
    values: dict[str, Any] = {
        "channel_id": scene.id,
        "id": scene.channel.channel.next_local_id,
        "amount_msat": 5_000_000,
        "payment_hash": sha256(scene.peer.name.encode()),
        "cltv_expiry": scene.channel.height + 100,
        "onion_routing_packet": bytes(1366),
    }
    return UpdateAddHtlc(**(values | fields))


def more_than_allowed(scene: Scene) -> None:
    """One HTLC more than the node accepts; all the others are in order."""
    limit = scene.busy.node.config.policy.max_accepted_htlcs
    scene.peer.send(*(add(scene, id=number, amount_msat=1_000_000) for number in range(limit + 1)))


def too_much_in_flight(scene: Scene) -> None:
    """The engine knows the limit, so the message is made by hand: a millisatoshi above what is allowed."""
    scene.peer.send(add(scene, amount_msat=int(scene.channel.channel.config.remote.max_in_flight_msat) + 1))


def twice(scene: Scene) -> None:
    """The same HTLC again."""
    message = scene.channel.take()
    scene.peer.send(message, message)


def dust(scene: Scene) -> None:
    """More value without outputs than the node bears: what is too much comes back, the rest is judged as usual."""
    for _ in range(int(scene.busy.node.config.policy.max_dust_exposure_msat // DUST) + 1):
        scene.channel.offer(DUST)
    go_on(scene)


def expire(scene: Scene) -> None:
    """Hold on to the node's HTLC until its time is over."""
    htlc: HtlcReceived = scene.kept["htlc"]
    grace = scene.busy.node.config.policy.offered_htlc_grace
    scene.busy.simulation.mine(htlc.cltv_expiry + grace - scene.busy.simulation.chain.height)


def keep_what_was_fulfilled(scene: Scene) -> None:
    """Take the preimage of the node and never let go of the HTLC."""
    scene.peer.run(scene.channel, until=UpdateFulfillHtlc)
    margin = scene.busy.node.config.policy.fulfilled_htlc_margin
    htlc = scene.channel.channel.local_htlcs[scene.kept["htlc"]]
    scene.peer.rest()
    scene.busy.simulation.mine(htlc.cltv_expiry - margin - scene.busy.simulation.chain.height)


def paying(busy: BusyNode, name: str) -> Scene:
    scene = opened()(busy, name)
    scene.kept["htlc"] = scene.channel.pay(scene.peer.let_invoice(30_000_000))
    return scene


BAD_ONIONS: dict[str, tuple[Any, FailureCode]] = {
    "a version of tomorrow": (lambda onion: b"\x01" + onion[1:], FailureCode.INVALID_ONION_VERSION),
    "no key": (lambda onion: onion[:1] + NO_POINT + onion[34:], FailureCode.INVALID_ONION_KEY),
    "another key": (lambda onion: onion[:1] + POINT + onion[34:], FailureCode.INVALID_ONION_HMAC),
    "a flipped bit": (bit_off, FailureCode.INVALID_ONION_HMAC),
    "another HMAC": (lambda onion: onion[:-1] + bytes([onion[-1] ^ 1]), FailureCode.INVALID_ONION_HMAC),
}
BAD_PAYLOADS: dict[str, bytes] = {
    "records out of order": b"\x04\x01\x01\x02\x01\x01",
    "a record beyond the end": b"\x02\x05ab",
    "an unknown even record": b"\x02\x01\x01\x04\x01\x01\x14\x01\x00",
    "no amount": b"\x04\x01\x01",
    "no expiry": b"\x02\x01\x01",
}
BIG = 20_000_000


def first_htlc_signature(how: Any) -> Deed:
    return spoil("htlc_signature", lambda signatures: (how(signatures[0]), *signatures[1:]))


UPDATES: tuple[Violation, ...] = (
    # update_add_htlc
    Violation("C-071", "no amount", offered(), change(amount_msat=0), O.WARNED_AND_CLOSED, "below our minimum"),
    Violation(
        "C-071", "an expiry in seconds", offered(), change(cltv_expiry=500_000_000), O.WARNED_AND_CLOSED, "height"
    ),
    Violation("C-072", "one HTLC too many", opened(), more_than_allowed, O.WARNED_AND_CLOSED, "too many HTLCs"),
    Violation(
        "C-072", "too much in flight", opened(), too_much_in_flight, O.WARNED_AND_CLOSED, "too much value in flight"
    ),
    Violation(
        "C-073",
        "a reserve not kept",
        offered(),
        change(amount_msat=700_000_000 - 10_000_000),
        O.WARNED_AND_CLOSED,
        "keep its reserve",
    ),
    Violation(
        "C-073",
        "a fundee's reserve not kept",
        offered(role="answer"),
        change(amount_msat=300_000_000 - 9_999_999),
        O.WARNED_AND_CLOSED,
        "keep its reserve",
    ),
    Violation("C-074", "an id left out", offered(), change(id=1), O.WARNED_AND_CLOSED, "wrong HTLC id"),
    Violation("C-074", "the same id twice", offered(), twice, O.WARNED_AND_CLOSED, "wrong HTLC id"),
    # what the HTLC says
    *(
        Violation("C-075", name, with_onion(spoiled), go_on, O.HTLC_MALFORMED, failure=code)
        for name, (spoiled, code) in BAD_ONIONS.items()
    ),
    *(
        Violation("C-162", name, offered(payload=payload), go_on, O.HTLC_FAILED, failure=0x4016)
        for name, payload in BAD_PAYLOADS.items()
    ),
    Violation(
        "C-086",
        "dust above the limit",
        opened(),
        dust,
        O.HTLC_FAILED,
        failure=FailureCode.TEMPORARY_CHANNEL_FAILURE,
        moves=True,
    ),
    # removing
    Violation(
        "C-082", "a fulfil of nothing", answering_htlc("fulfil"), change(id=77), O.WARNED_AND_CLOSED, "no such HTLC"
    ),
    Violation(
        "C-082", "a failure of nothing", answering_htlc("fail"), change(id=77), O.WARNED_AND_CLOSED, "no such HTLC"
    ),
    Violation(
        "C-082",
        "a malformed report of nothing",
        answering_htlc("report"),
        change(id=77),
        O.WARNED_AND_CLOSED,
        "no such",
    ),
    Violation(
        "C-082",
        "a wrong preimage",
        answering_htlc("fulfil"),
        change(payment_preimage=bytes(32)),
        O.WARNED_AND_CLOSED,
        "does not hash",
    ),
    Violation(
        "C-082",
        "a report without BADONION",
        answering_htlc("report"),
        change(failure_code=0x4016),
        O.WARNED_AND_CLOSED,
        "BADONION",
    ),
    Violation(
        "C-082",
        "an HTLC of its own",
        offered(CommitmentSigned),
        raw(lambda id: UpdateFulfillHtlc(channel_id=id, id=0, payment_preimage=bytes(32))),
        O.WARNED_AND_CLOSED,
        "no such HTLC",
    ),
    Violation(
        "C-082",
        "a failure before it is committed",
        answering_signature,
        raw(lambda id: UpdateFailHtlc(channel_id=id, id=0, reason=bytes(292))),
        O.WARNED_AND_CLOSED,
        "cannot be removed now",
    ),
    Violation("C-080", "an HTLC past its time", received(), expire, O.FAILED, "expired", alone=True, moves=True),
    Violation(
        "C-080",
        "a fulfilled HTLC kept",
        paying,
        keep_what_was_fulfilled,
        O.FAILED,
        "was fulfilled",
        alone=True,
        moves=True,
    ),
    # signing and revoking
    *(
        Violation(
            "C-088",
            name,
            offered(CommitmentSigned),
            spoil("signature", how),
            O.WARNED_AND_CLOSED,
            "commitment signature",
        )
        for name, how in SIGNATURES
    ),
    *(
        Violation(
            "C-088",
            f"{name} of an HTLC",
            offered(CommitmentSigned, amount=BIG),
            first_htlc_signature(how),
            O.WARNED_AND_CLOSED,
            "bad HTLC signature",
        )
        for name, how in SIGNATURES
    ),
    Violation(
        "C-088",
        "an HTLC without signature",
        offered(CommitmentSigned, amount=BIG),
        change(htlc_signature=()),
        O.WARNED_AND_CLOSED,
        "wrong number of HTLC signatures",
    ),
    Violation(
        "C-088",
        "one signature too many",
        offered(CommitmentSigned, amount=BIG),
        change(htlc_signature=lambda s: s.held(CommitmentSigned).htlc_signature * 2),
        O.WARNED_AND_CLOSED,
        "wrong number of HTLC signatures",
    ),
    Violation(
        "",
        "a signature twice",
        offered(CommitmentSigned),
        lambda s: s.peer.send(*[s.channel.take()] * 2),
        O.WARNED_AND_CLOSED,
        "bad commitment signature",
        moves=True,
        off=False,
    ),
    Violation(
        "C-089",
        "another secret",
        answering_signature,
        change(per_commitment_secret=bytes([5]) * 32),
        O.FAILED,
        "secret",
    ),
    Violation("C-089", "no secret", answering_signature, change(per_commitment_secret=bytes(32)), O.FAILED, "secret"),
    Violation(
        "",
        "a revocation unasked",
        opened(),
        raw(lambda id: RevokeAndAck(channel_id=id, per_commitment_secret=bytes(32), next_per_commitment_point=POINT)),
        O.WARNED_AND_CLOSED,
        "revoke_and_ack without",
    ),
    # feerates
    Violation("C-090", "a fee too low", with_fee, change(feerate_per_kw=252), O.WARNED_AND_CLOSED, "feerate too low"),
    Violation("C-090", "a fee too high", with_fee, change(feerate_per_kw=10_001), O.WARNED_AND_CLOSED, "too high"),
    Violation(
        "C-090",
        "a fee beyond its means",
        opened(funding=100_000, push_msat=88_000_000),
        raw(lambda id: UpdateFee(channel_id=id, feerate_per_kw=10_000)),
        O.WARNED_AND_CLOSED,
        "cannot pay this feerate",
    ),
    Violation(
        "C-090",
        "a fee of the other side",
        opened("answer"),
        raw(lambda id: UpdateFee(channel_id=id, feerate_per_kw=1_500)),
        O.WARNED_AND_CLOSED,
        "does not pay",
    ),
    # errors and strangers
    Violation(
        "C-142", "an error", opened(), raw(lambda id: ErrorMessage(channel_id=id, data=b"fire")), O.QUIETLY_FAILED
    ),
    Violation(
        "C-142",
        "an error about everything",
        opened(),
        say(ErrorMessage(channel_id=ALL, data=b"fire")),
        O.QUIETLY_FAILED,
    ),
    Violation(
        "",
        "an error about a stranger's channel",
        opened(),
        say(lambda s: ErrorMessage(channel_id=s.busy.channel_id, data=b"fire")),
        O.IGNORED,
        off=False,
    ),
    Violation("C-143", "a warning", opened(), raw(lambda id: WarningMessage(channel_id=id, data=b"smoke")), O.IGNORED),
    *(
        Violation("C-144", f"{message.NAME} of nobody", opened(), say(message), O.ANSWERED, "no such channel")
        for message in (
            ChannelReady(channel_id=UNKNOWN, second_per_commitment_point=POINT),
            CommitmentSigned(channel_id=UNKNOWN, signature=SIGNATURE, htlc_signature=()),
            FundingCreated(
                temporary_channel_id=UNKNOWN, funding_txid=UNKNOWN, funding_output_index=0, signature=SIGNATURE
            ),
            FundingSigned(channel_id=UNKNOWN, signature=SIGNATURE),
            UpdateFailMalformedHtlc(channel_id=UNKNOWN, id=0, sha256_of_onion=UNKNOWN, failure_code=0x8004),
            ClosingSigned(channel_id=UNKNOWN, fee_satoshis=1, signature=SIGNATURE),
        )
    ),
    Violation(
        "C-144",
        "the unrelated channel",
        opened(),
        say(lambda s: UpdateFee(channel_id=s.busy.channel_id, feerate_per_kw=1_500)),
        O.ANSWERED,
        "no such channel",
    ),
)


# -- reconnecting ------------------------------------------------------------------------------------------------------


def coming_back(moved: bool = False) -> Place:
    """The channel was used (or not), the connection is new, and the script is about to say where it stands."""

    def place(busy: BusyNode, name: str) -> Scene:
        scene = opened()(busy, name)
        if moved:
            scene.channel.pay(scene.peer.let_invoice(2_000_000))
            scene.peer.run(scene.channel)
        scene.peer.vanish()
        scene.peer.reconnect()
        theirs = scene.peer.expect(ChannelReestablish)
        scene.kept["theirs"] = theirs
        return scene

    return place


def outdated(busy: BusyNode, name: str) -> Scene:
    """The node runs from an old copy of its store: the script knows more of the channel than the node."""
    scene = opened()(busy, name)
    old = busy.node.disk.copy()
    scene.channel.pay(scene.peer.let_invoice(2_000_000))
    scene.peer.run(scene.channel)
    scene.peer.vanish()
    busy.node.kill()
    busy.node.disk = old
    busy.node.start()
    busy.simulation.connect(busy.node, busy.friend)
    busy.bystander.connect()
    scene.peer.reconnect()
    scene.peer.expect(ChannelReestablish)
    return scene


def next_number(offset: int) -> Any:
    return lambda scene: scene.held(ChannelReestablish).next_commitment_number + offset


def next_revocation(offset: int) -> Any:
    return lambda scene: max(0, scene.held(ChannelReestablish).next_revocation_number + offset)


RECONNECTIONS: tuple[Violation, ...] = (
    Violation("C-094", "a wish to close", coming_back(True), change(next_commitment_number=0), O.QUIETLY_FAILED),
    Violation(
        "C-095",
        "a commitment ahead",
        coming_back(True),
        change(next_commitment_number=next_number(1)),
        O.FAILED,
        "impossible next_commitment_number",
    ),
    Violation(
        "C-095",
        "a commitment behind",
        coming_back(True),
        change(next_commitment_number=next_number(-1)),
        O.FAILED,
        "impossible next_commitment_number",
    ),
    Violation(
        "C-095",
        "the last commitment of all",
        coming_back(),
        change(next_commitment_number=2**64 - 1),
        O.FAILED,
        "impossible",
    ),
    Violation(
        "C-095",
        "a revocation behind",
        coming_back(True),
        change(next_revocation_number=0, your_last_per_commitment_secret=bytes(32)),
        O.FAILED,
        "impossible next_revocation_number",
    ),
    Violation(
        "C-095",
        "a revocation beyond numbers",
        coming_back(True),
        change(next_revocation_number=2**48),
        O.FAILED,
        "impossible next_revocation_number",
    ),
    Violation(
        "C-095",
        "a bluff",
        coming_back(True),
        change(next_revocation_number=next_revocation(3)),
        O.FAILED,
        "your_last_per_commitment_secret",
    ),
    Violation(
        "C-095",
        "another secret",
        coming_back(True),
        change(your_last_per_commitment_secret=bytes([3]) * 32),
        O.FAILED,
        "your_last_per_commitment_secret",
    ),
    Violation("C-097", "proof that we are behind", outdated, change(), O.ASKED_TO_CLOSE, "old", alone=True),
    Violation(
        "",
        "an update before channel_reestablish",
        coming_back(),
        raw(lambda id: UpdateFee(channel_id=id, feerate_per_kw=1_500)),
        O.WARNED_AND_CLOSED,
        "not expected",
    ),
)
