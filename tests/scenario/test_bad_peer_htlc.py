"""A friend with a real channel who offers rubbish: onions nobody can read, signatures that are wrong, and silence."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.channel import Lifecycle
from leyden.channel.events import AddHtlc
from leyden.crypto import sha256
from leyden.hooks.signing import CommitmentSignatures
from leyden.node.peer import Peer
from leyden.onion import build_onion
from leyden.testing.simulation import SimNode
from leyden.types import BlockHeight, Msat, PaymentHash
from leyden.wire import Message, UpdateFailHtlc, UpdateFailMalformedHtlc, WarningMessage
from leyden.wire.failures import BADONION, FailureCode

from tests.scenario.sim_kit import BusyNode, channels

HASH = PaymentHash(sha256(b"a payment nobody asked for"))
SESSION = bytes([9]) * 32


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[BusyNode]:
    made = BusyNode(tmp_path)
    yield made
    made.bystander.ping()
    made.close()


@pytest.fixture
def said(busy: BusyNode, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """What the node sends to its friend."""
    sent: list[Message] = []
    original = Peer.send

    def send(self: Peer, message: Message) -> None:
        if self.node_id == busy.friend.node_id and self._owner is busy.core.peers:
            sent.append(message)
        original(self, message)

    monkeypatch.setattr(Peer, "send", send)
    return sent


def offer(busy: BusyNode, node: SimNode, onion: bytes, *, expiry: int = 100, amount: int = 2_000_000) -> None:
    """``node`` offers an HTLC with any onion, as nobody's payment."""
    core = node.core
    actor = core.channels.get(busy.channel_id)
    if actor is None:
        raise AssertionError("no channel")
    command = AddHtlc(
        amount_msat=Msat(amount),
        payment_hash=HASH,
        cltv_expiry=BlockHeight(core.chain.height + expiry),
        onion_routing_packet=onion,
    )

    def add() -> None:
        core.channels.apply(actor, command)

    core.engine.post(add)
    busy.simulation.settle()


def htlcs(busy: BusyNode) -> int:
    return sum(
        len(c.local_htlcs) + len(c.remote_htlcs) for node in busy.simulation.nodes.values() for c in channels(node)
    )


def onion_for(busy: BusyNode, payload: bytes) -> bytes:
    return build_onion(SESSION, [(busy.node.node_id, payload)], HASH)[0]


@pytest.mark.proves("C-075")
@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda onion: b"\x01" + onion[1:], FailureCode.INVALID_ONION_VERSION),
        (lambda onion: onion[:1] + bytes(33) + onion[34:], FailureCode.INVALID_ONION_KEY),
        (lambda onion: onion[:-1] + bytes([onion[-1] ^ 1]), FailureCode.INVALID_ONION_HMAC),
        (lambda onion: onion[:200] + bytes([onion[200] ^ 1]) + onion[201:], FailureCode.INVALID_ONION_HMAC),
    ],
    ids=["version", "key", "hmac", "body"],
)
def test_an_onion_nobody_can_open(busy: BusyNode, said: list[Message], spoil: Any, code: FailureCode) -> None:
    onion = spoil(onion_for(busy, bytes.fromhex("02021000040164")))
    offer(busy, busy.friend, onion)
    (answer,) = [message for message in said if isinstance(message, UpdateFailMalformedHtlc)]
    assert answer.failure_code == code
    assert answer.failure_code & BADONION
    assert answer.sha256_of_onion == sha256(onion)
    assert htlcs(busy) == 0
    busy.check()


@pytest.mark.proves("C-075")
@pytest.mark.parametrize(
    "payload", [b"\x02\x01\x01\x02\x01\x01", b"\x02\x05ab", b"\x10\x01\x00", b"\x04\x01\x01"], ids=range(4)
)
def test_a_payload_nobody_can_read(busy: BusyNode, said: list[Message], payload: bytes) -> None:
    offer(busy, busy.friend, onion_for(busy, payload))
    assert any(isinstance(message, UpdateFailHtlc) for message in said)
    assert htlcs(busy) == 0
    busy.check()


def test_random_bytes_as_onions(busy: BusyNode) -> None:
    for _ in range(10):
        offer(busy, busy.friend, busy.simulation.random.randbytes(1366))
    assert htlcs(busy) == 0
    busy.check()


class LyingSigner:
    """Passes every question on and spoils one kind of signature."""

    stateless = True

    def __init__(self, signer: Any, field: str) -> None:
        self._signer = signer
        self._field = field
        self.lies = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._signer, name)

    async def sign_counterparty_commitment(self, request: Any) -> CommitmentSignatures:
        answer: CommitmentSignatures = await self._signer.sign_counterparty_commitment(request)
        if not self.lies:
            return answer
        if self._field == "signature":
            return msgspec.structs.replace(answer, signature=spoiled(answer.signature))
        if self._field == "count":
            return msgspec.structs.replace(answer, htlc_signatures=())
        return msgspec.structs.replace(answer, htlc_signatures=tuple(map(spoiled, answer.htlc_signatures)))


def spoiled(signature: bytes) -> bytes:
    return signature[:40] + bytes([signature[40] ^ 1]) + signature[41:]


@pytest.mark.proves("C-088")
@pytest.mark.parametrize("field", ["signature", "htlc_signatures", "count"])
def test_a_friend_who_signs_wrongly(busy: BusyNode, said: list[Message], field: str) -> None:
    """Warning and disconnect: nothing of the bad commitment is kept, and an honest friend goes on where it was."""
    liars: list[LyingSigner] = []

    def lie(signer: Any) -> Any:
        liars.append(LyingSigner(signer, field))
        return liars[-1]

    busy.friend.wrap_signer = lie
    busy.friend.kill()
    busy.friend.start()
    busy.simulation.connect(busy.node, busy.friend)
    busy.check()
    number = busy.channel.local_number
    liars[-1].lies = True
    offer(busy, busy.friend, onion_for(busy, b"\x04\x01\x01"), amount=50_000_000)
    assert busy.channel.local_number == number
    assert any(isinstance(message, WarningMessage) for message in said)
    assert busy.friend.node_id not in {peer.node_id for peer in busy.core.peers.connected()}
    assert busy.channel.lifecycle is Lifecycle.NORMAL
    busy.friend.wrap_signer = lambda signer: signer
    busy.friend.kill()
    busy.friend.start()
    busy.simulation.connect(busy.node, busy.friend)
    assert htlcs(busy) == 0
    busy.check()


@pytest.mark.proves("C-080")
def test_a_friend_who_sits_on_our_htlc(busy: BusyNode) -> None:
    """Past its expiry and grace the channel goes on chain, whether the friend answers pings or not."""
    busy.friend.core.payments._decide = lambda mail: None  # type: ignore[method-assign]  # sits on it
    offer(busy, busy.node, onion_for(busy, b"\x04\x01\x01"), expiry=30)
    assert len(busy.channel.local_htlcs) == 1
    grace = busy.node.config.policy.offered_htlc_grace
    busy.simulation.mine(30 + grace - 1)
    assert busy.channel.lifecycle is Lifecycle.NORMAL
    busy.simulation.mine(1)
    assert busy.channel.lifecycle is not Lifecycle.NORMAL
    assert "expired" in busy.channel.failure
