"""What a violation is, what the node may do about it, and how that is checked.

A ``Violation`` names a rule, a place of the protocol (everything is right up to there), what the script does wrong, and
the reaction that it must get. Whatever the reaction, an unrelated channel of the same node goes on working, and no row
about money changes that the reaction does not need.
"""

import enum
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from leyden.channel import ON_CHAIN, OPENING, Channel, Lifecycle
from leyden.channel.checking import check_channel
from leyden.node import keyspace
from leyden.testing.guard_ledger import take_violations
from leyden.testing.scripted_peer import ScriptedChannel, ScriptedPeer
from leyden.types import OutPoint, Reaction, Rule, Sat, all_rules
from leyden.wire import ErrorMessage, Message, UnknownMessage, UpdateFailHtlc, UpdateFailMalformedHtlc, WarningMessage
from leyden.wire.failures import FailureCode, UnknownFailure

from tests.scenario.sim_kit import BusyNode, channels

ALL = bytes(32)
UNKNOWN = bytes([7]) * 32
POINT = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
NO_POINT = b"\x02" + b"\xff" * 32
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SIGNATURE = bytes([1]) * 64


class Outcome(enum.Enum):
    """What happens to the script, and to its channel."""

    REFUSED = "error under the id of the opening, which is forgotten; the connection stays"
    FAILED = "error that names the channel, which is closed on chain; the connection stays"
    QUIETLY_FAILED = "the channel is closed on chain without a word: the script has said that it gave up"
    ANSWERED = "error under an id that is no channel; nothing fails"
    ASKED_TO_CLOSE = "error that asks for a close; nothing is broadcast, for our state may be old"
    WARNED = "warning; connection and channel stay"
    WARNED_AND_CLOSED = "warning and the end of the connection; the channel comes back on the next"
    CLOSED = "the end of the connection, with or without a warning; channels come back on the next"
    IGNORED = "nothing"
    HTLC_FAILED = "update_fail_htlc with a certain failure"
    HTLC_MALFORMED = "update_fail_malformed_htlc with a certain code"


O = Outcome  # noqa: E741  (the tables are long)
ALLOWED: dict[Reaction, frozenset[Outcome]] = {
    Reaction.FAIL_CHANNEL: frozenset({O.REFUSED, O.FAILED, O.QUIETLY_FAILED}),
    Reaction.ERROR: frozenset({O.REFUSED, O.FAILED, O.ANSWERED, O.ASKED_TO_CLOSE}),
    Reaction.WARN_OR_ERROR: frozenset({O.REFUSED, O.FAILED, O.WARNED_AND_CLOSED, O.WARNED}),
    Reaction.WARN: frozenset({O.WARNED, O.REFUSED}),
    Reaction.WARN_AND_DISCONNECT: frozenset({O.WARNED_AND_CLOSED}),
    Reaction.DISCONNECT: frozenset({O.CLOSED}),
    Reaction.WARN_OR_DROP: frozenset({O.IGNORED, O.WARNED, O.WARNED_AND_CLOSED, O.CLOSED}),
    Reaction.IGNORE: frozenset({O.IGNORED}),
    Reaction.FAIL_HTLC: frozenset({O.HTLC_FAILED, O.HTLC_MALFORMED}),
    Reaction.REFUSE: frozenset({O.HTLC_FAILED}),  # of a document of ours: whoever pays it gets the HTLC back
}
"""What the letter of a rule lets the node do. A duty has no letter: how somebody else's breach of it is met is ours."""

IN_ONIONS = frozenset({"C-130", "C-131", "C-132", "C-133", "C-134", "C-135", "C-136"})
"""Rules of streams, which cost the HTLC and not the connection where the stream is in an onion."""


class Scene:
    """A script at the place where it is going to go wrong."""

    def __init__(self, busy: BusyNode, peer: ScriptedPeer, channel: ScriptedChannel | None = None) -> None:
        self.busy = busy
        self.peer = peer
        self.channel_or_none = channel
        self.kept: dict[str, Any] = {}
        """What a place hands to the violations that begin there."""

    @property
    def channel(self) -> ScriptedChannel:
        if self.channel_or_none is None:
            raise AssertionError("this place has no channel")
        return self.channel_or_none

    @property
    def id(self) -> bytes:
        """The id under which the node knows the channel, or will."""
        theirs = self.theirs()
        return self.channel.id if theirs is None else theirs.channel_id

    def held(self, kind: type[Message]) -> Any:
        message = self.channel.held
        assert isinstance(message, kind), message
        return message

    def theirs(self) -> Channel | None:
        """The node's end of the script's channel."""
        for actor in self.busy.core.channels.of_peer(self.peer.node_id):
            return actor.channel
        return None


Place = Callable[[BusyNode, str], Scene]
Deed = Callable[[Scene], None]


class Violation(msgspec.Struct, frozen=True):
    rule: str
    name: str
    place: Place
    deed: Deed
    outcome: Outcome
    says: str = ""
    """Stands in the text of the error or warning, or in the failure of the HTLC."""
    failure: int = 0
    """The code with which an HTLC must be failed."""
    alone: bool = False
    """It needs a world of its own: it mines many blocks or restarts the node."""
    moves: bool = False
    """Rows of the script's own channel may change (a message that was in order came with it)."""
    about: int = -1
    """The type of message that this is one of the ways to get wrong."""
    off: bool = True
    """Whether it bites when the rule is off: the test then claims to prove it."""

    @property
    def id(self) -> str:
        return f"{self.rule or 'misplaced'} {self.name}"


def rule_of(violation: Violation) -> Rule | None:
    return all_rules()[violation.rule] if violation.rule else None


# -- deeds -------------------------------------------------------------------------------------------------------------


def change(**fields: Any) -> Deed:
    """The message that waits, with other values; a function is given the scene."""

    def deed(scene: Scene) -> None:
        values = {name: value(scene) if callable(value) else value for name, value in fields.items()}
        scene.peer.send(scene.channel.changed(**values))

    return deed


def spoil(field: str, how: Callable[[Any], Any]) -> Deed:
    """The message that waits with one field passed through a function."""

    def deed(scene: Scene) -> None:
        scene.peer.send(scene.channel.changed(**{field: how(getattr(scene.channel.held, field))}))

    return deed


def say(*messages: Callable[[Scene], Message | bytes] | Message | bytes) -> Deed:
    """Something else than what waits."""

    def deed(scene: Scene) -> None:
        scene.peer.send(*(message(scene) if callable(message) else message for message in messages))

    return deed


def go_on(scene: Scene) -> None:
    """Send what waits, and all that follows from it."""
    scene.peer.run(scene.channel)


def bit_off(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


def high_s(signature: bytes) -> bytes:
    """The other signature that libraries without the rule of low S would take as well."""
    return signature[:32] + (ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")


SIGNATURES = (("a wrong signature", bit_off), ("high S", high_s), ("zeros", lambda _: bytes(64)))
"""Ways to spoil a signature."""


# -- checking ----------------------------------------------------------------------------------------------------------

_MONEY = (keyspace.PAYMENT, keyspace.INVOICE, keyspace.PREIMAGE, keyspace.MAILBOX)
_OF_CHANNELS = b"".join(keyspace.CHANNEL_AREAS)


_TOUCHED = frozenset({O.FAILED, O.QUIETLY_FAILED, O.ASKED_TO_CLOSE, O.REFUSED, O.HTLC_FAILED, O.HTLC_MALFORMED})
"""Reactions that have to change rows of the script's own channel."""


class Ledger:
    """Every row about money, and the coins, as they were before."""

    def __init__(self, scene: Scene) -> None:
        self._core = scene.busy.core
        self._disk = scene.busy.node.disk
        self._scene = scene
        self._money, self._own, self._coins = self._read()

    def _read(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes], set[tuple[OutPoint, Sat]]]:
        own = self._scene.theirs()
        mine = b"" if own is None else own.channel_id
        money: dict[bytes, bytes] = {}
        ours: dict[bytes, bytes] = {}
        for key, value in self._disk.rows.items():
            if key[:1] in _OF_CHANNELS:
                (ours if mine and key[1:33] == mine else money)[key] = value
            elif key[:1] in _MONEY:
                money[key] = value
        coins = {(coin.outpoint, coin.value) for coin in self._core.services.wallet.coins()}
        return money, ours, coins

    def check(self, violation: Violation) -> None:
        money, own, coins = self._read()
        touched = violation.outcome in _TOUCHED
        if not violation.moves:
            _same(self._money, money)
            assert coins == self._coins
            if violation.outcome is O.REFUSED:
                assert self._core.services.wallet.balance().locked == 0, "coins of the opening are still held back"
        if not touched and not violation.moves:
            _same(self._own, own)


def _same(before: dict[bytes, bytes], after: dict[bytes, bytes]) -> None:
    changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
    assert not changed, f"rows changed: {[(key[:1], key[1:].hex()) for key in changed]}"


def check_books(busy: BusyNode) -> None:
    """Every channel of the node adds up, and no signer was asked for what it must not sign."""
    for channel in channels(busy.node):
        if channel.lifecycle not in OPENING:
            assert list(check_channel(channel)) == []
    assert not take_violations()


def commit(violation: Violation, busy: BusyNode, name: str) -> None:
    """Go to the place, do wrong, and look at everything that happens."""
    scene = violation.place(busy, name)
    before = scene.theirs()
    named = ALL if scene.channel_or_none is None else scene.id
    ledger = Ledger(scene)
    assert not scene.peer.rest(), "the place is not quiet"
    violation.deed(scene)
    busy.simulation.settle()
    said = scene.peer.rest()
    _check_said(violation, scene, said, named)
    if violation.outcome is O.REFUSED and before is None:  # a proposal: the refusal names the rule
        (refusal,) = said
        assert isinstance(refusal, ErrorMessage)
        assert f"[{violation.rule}]" in refusal.data.decode()
    _check_channel(violation, scene, before)
    ledger.check(violation)
    busy.pay()
    if violation.outcome in (O.CLOSED, O.WARNED_AND_CLOSED) and before is not None and _is_funded(before):
        _comes_back(scene)


def _check_said(violation: Violation, scene: Scene, said: Iterable[Message | UnknownMessage], named: bytes) -> None:
    outcome, messages = violation.outcome, list(said)
    ends = outcome in (O.CLOSED, O.WARNED_AND_CLOSED)
    assert scene.peer.closed is ends, (messages, violation.outcome.value)
    if violation.moves:
        messages = [message for message in messages if isinstance(message, ErrorMessage | WarningMessage)]
    if outcome in (O.HTLC_FAILED, O.HTLC_MALFORMED):
        assert not messages
        _check_failure(violation, scene)
        return
    wanted: type[Message] | None = ErrorMessage
    if outcome in (O.WARNED, O.WARNED_AND_CLOSED, O.CLOSED):
        wanted = WarningMessage
    elif outcome in (O.IGNORED, O.QUIETLY_FAILED):
        wanted = None
    if outcome is O.CLOSED and not messages:
        assert not violation.says, "closed without a warning"
        return
    assert [type(message) for message in messages] == ([] if wanted is None else [wanted]), messages
    for message in messages:
        assert isinstance(message, ErrorMessage | WarningMessage)
        assert violation.says in message.data.decode()
        assert violation.says, f"what does it say? {message.data!r}"
        if outcome is O.ANSWERED:
            assert message.channel_id in {UNKNOWN, scene.busy.channel_id, named} - {ALL}, message  # as the script said
        else:
            assert message.channel_id in ((named,) if wanted is ErrorMessage else (named, ALL)), message
    if not ends:
        scene.peer.ping()


def _check_failure(violation: Violation, scene: Scene) -> None:
    """The newest HTLC of the script came back for that reason, and the channel goes on."""
    channel = scene.channel
    kind = UpdateFailHtlc if violation.outcome is O.HTLC_FAILED else UpdateFailMalformedHtlc
    newest = max(channel.offered)
    (answer,) = [m for m in channel.heard if isinstance(m, UpdateFailHtlc | UpdateFailMalformedHtlc) and m.id == newest]
    assert isinstance(answer, kind), answer
    if isinstance(answer, UpdateFailMalformedHtlc):
        assert answer.failure_code == violation.failure, FailureCode(answer.failure_code)
    else:
        failure = channel.failure(answer)
        code = failure.code if isinstance(failure, UnknownFailure) else failure.CODE
        assert code == violation.failure, failure
        assert violation.says in repr(failure)
    assert not channel.channel.local_htlcs
    assert channel.is_open


def _is_funded(channel: Channel) -> bool:
    return channel.lifecycle not in OPENING


def _check_channel(violation: Violation, scene: Scene, before: Channel | None) -> None:
    after, outcome = scene.theirs(), violation.outcome
    if outcome is O.REFUSED:
        assert after is None, after.lifecycle
    elif outcome in (O.FAILED, O.QUIETLY_FAILED):
        assert after is not None
        assert after.lifecycle is Lifecycle.FORCE_CLOSING
        outpoint = after.setup.funding_outpoint
        assert scene.busy.simulation.chain.spender_of(OutPoint(*outpoint)) is not None, "nothing was broadcast"
    elif outcome is O.ASKED_TO_CLOSE:
        assert after is not None
        assert after.lifecycle is Lifecycle.DATA_LOSS
        assert scene.busy.simulation.chain.spender_of(after.setup.funding_outpoint) is None
    elif before is not None and _is_funded(before):
        assert after is not None
        assert after.lifecycle is before.lifecycle
        assert after.lifecycle not in ON_CHAIN
        if not violation.moves:
            assert (after.local_settled, after.remote_settled) == (before.local_settled, before.remote_settled)
    elif outcome is O.CLOSED:
        assert after is None or _is_funded(after), "an opening does not survive its connection"


def _comes_back(scene: Scene) -> None:
    """The state was sound: on the next connection the same channel goes on."""
    scene.peer.reconnect()
    scene.peer.run(scene.channel)
    scene.peer.mine(3)
    scene.peer.run(scene.channel)
    assert scene.peer.rest() == []
    theirs = scene.theirs()
    assert theirs is not None
    assert theirs.is_usable or theirs.lifecycle is Lifecycle.CLOSING, theirs.lifecycle
