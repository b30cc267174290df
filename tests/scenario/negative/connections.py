"""What goes wrong on a connection: handshakes, frames, ``init``, pings, TLV streams, announcements."""

from collections.abc import Callable

from leyden.node import peer as peer_module
from leyden.transport import ACT_TWO_SIZE
from leyden.wire import (
    AnnouncementSignatures,
    ClosingSigned,
    FeeRange,
    Init,
    Message,
    Ping,
    Pong,
    RevokeAndAck,
    UpdateAddHtlc,
    encode,
)
from leyden.wire.features import Feature, Features

from tests.scenario.negative.kit import (
    NO_POINT,
    POINT,
    SIGNATURE,
    Deed,
    O,
    Scene,
    Violation,
    bit_off,
    change,
    go_on,
    high_s,
    say,
)
from tests.scenario.negative.updates import offered, opened
from tests.scenario.sim_kit import BusyNode


def dialled(busy: BusyNode, name: str) -> Scene:
    return Scene(busy, busy.script(name).dial())


def called(busy: BusyNode, name: str) -> Scene:
    """The node has dialled and sent act one."""
    scene = Scene(busy, busy.script(name).listen())
    scene.kept["act one"] = scene.peer.take(50)
    return scene


def half_way(busy: BusyNode, name: str) -> Scene:
    """The script owes act three, which is kept."""
    scene = dialled(busy, name)
    shake = scene.peer.initiator()
    scene.peer.write(shake.act_one())
    scene.kept["act three"] = shake.act_three(scene.peer.ecdh(shake.on_act_two(scene.peer.take(ACT_TWO_SIZE))))
    scene.peer.begin(shake.session())
    return scene


def before_init(busy: BusyNode, name: str) -> Scene:
    """The node has said ``init``, the script has not."""
    return Scene(busy, busy.script(name).connect(init=False))


def connected(busy: BusyNode, name: str) -> Scene:
    return Scene(busy, busy.script(name).connect())


def announcing(busy: BusyNode, name: str) -> Scene:
    """A public channel is six blocks deep, the node has consented, the script is about to."""
    scene = opened(announce=True)(busy, name)
    scene.peer.mine(3)
    scene.peer.run(scene.channel, before=AnnouncementSignatures)
    scene.peer.feed(scene.channel)
    return scene


# -- deeds -------------------------------------------------------------------------------------------------------------


def act_one(change_it: Callable[[bytes], bytes]) -> Deed:
    return lambda scene: scene.peer.write(change_it(scene.peer.initiator().act_one()))


def act_three(change_it: Callable[[bytes], bytes]) -> Deed:
    return lambda scene: scene.peer.write(change_it(scene.kept["act three"]))


def frame(change_it: Callable[[bytes], bytes]) -> Deed:
    return lambda scene: scene.peer.write(change_it(scene.peer.seal(Ping(num_pong_bytes=1, ignored=b""))))


def replace_byte(position: int, value: int | None = None) -> Callable[[bytes], bytes]:
    """One byte of it is another."""

    def done(data: bytes) -> bytes:
        new = data[position] ^ 1 if value is None else value
        return data[:position] + bytes([new]) + data[position + 1 :]

    return done


def key(point: bytes) -> Callable[[bytes], bytes]:
    return lambda act: act[:1] + point + act[34:]


def features(*more: int) -> Deed:
    """An ``init`` with more features than the node can bear."""
    return lambda scene: scene.peer.send(scene.peer.make_init(scene.peer.features | Features.of(*more)))


def networks(*chains: bytes) -> Deed:
    def deed(scene: Scene) -> None:
        scene.peer.send(Init(globalfeatures=b"", features=scene.peer.features.to_bytes(), networks=chains))

    return deed


def again(scene: Scene) -> None:
    """The same node connects a second time, some seconds later: the newer connection stays."""
    scene.busy.simulation.advance(peer_module.PING_INTERVAL / 2)
    newer = scene.busy.script(scene.peer.name).connect()
    newer.ping()
    scene.kept["newer"] = newer


def at_once(scene: Scene) -> None:
    """A second connection at once: it is the newer one that goes, so that two nodes do not chase each other."""
    older, scene.peer = scene.peer, scene.busy.script(scene.peer.name)
    scene.peer.connect(init=False)
    scene.peer.send(scene.peer.make_init())
    older.ping()


def never_pong(scene: Scene) -> None:
    scene.peer.answer_pings = False
    scene.busy.simulation.advance(4 * peer_module.PING_INTERVAL)
    scene.peer.expect(Ping)


def wait(seconds: float) -> Deed:
    return lambda scene: scene.busy.simulation.advance(seconds)


PING = encode(Ping(num_pong_bytes=9, ignored=b"ab"))
STREAMS: list[tuple[str, str, bytes]] = [
    ("C-128", "an unknown even record", b"\x02\x00"),
    ("C-133", "an unknown even record", b"\x02\x00"),
    ("C-130", "records out of order", b"\x03\x00\x01\x00"),
    ("C-130", "a record twice", b"\x01\x00\x01\x00"),
    ("C-131", "a length beyond the end", b"\x01\x05four"),
    ("C-131", "a type that is not minimal", b"\xfd\x00\x01\x00"),
    ("C-131", "a length that is not minimal", b"\x01\xfd\x00\x01x"),
    ("C-131", "a record cut short", b"\x01"),
]
CLOSING_SIGNED = encode(
    ClosingSigned(
        channel_id=bytes(32),
        fee_satoshis=1,
        signature=SIGNATURE,
        fee_range=FeeRange(min_fee_satoshis=0, max_fee_satoshis=1),
    )
)
TOO_SHORT = CLOSING_SIGNED[:-17] + b"\x0f" + CLOSING_SIGNED[-16:-1]
"""A record of a known type, a byte shorter than it can be."""


def add_of(scene: Scene, amount: int) -> bytes:
    held: UpdateAddHtlc = scene.held(UpdateAddHtlc)
    data = bytearray(encode(held))
    data[2 + 32 + 8 : 2 + 32 + 16] = amount.to_bytes(8, "big")
    return bytes(data)


def revocation(_scene: Scene) -> bytes:
    good = RevokeAndAck(channel_id=bytes(32), per_commitment_secret=bytes(32), next_per_commitment_point=POINT)
    return encode(good)[:-33] + NO_POINT


def announced(scene: Scene) -> AnnouncementSignatures:
    message: AnnouncementSignatures = scene.held(AnnouncementSignatures)
    return message


FIRST: dict[str, Message | bytes] = {
    "ping": Ping(num_pong_bytes=1, ignored=b""),
    "an odd type": b"\x7f\xff",
    "error": b"\x00\x11" + bytes(34),
    "open_channel": b"\x00\x20" + bytes(319),
}
UNKNOWN_TYPES = (4, 20, 30, 250, 32_768, 65_534)
LEADING_ZERO = b"\x02\x02\x00\x01\x04\x02\x01\x90"
CONNECTIONS: tuple[Violation, ...] = (
    # BOLT 8
    Violation("C-151", "act one of tomorrow", dialled, act_one(replace_byte(0, 1)), O.CLOSED),
    Violation("C-151", "act one without a key", dialled, act_one(key(NO_POINT)), O.CLOSED, off=False),
    Violation("C-151", "act one with a wrong MAC", dialled, act_one(replace_byte(49)), O.CLOSED),
    Violation("C-151", "act two of zeros", called, lambda s: s.peer.write(bytes(50)), O.CLOSED, off=False),
    Violation(
        "C-151", "act two of words", called, lambda s: s.peer.write(b"HTTP/1.1 200 OK".ljust(60)), O.CLOSED, off=False
    ),
    Violation("C-152", "act three of tomorrow", half_way, act_three(replace_byte(0, 1)), O.CLOSED),
    Violation("C-152", "act three with another key", half_way, act_three(replace_byte(5)), O.CLOSED, off=False),
    Violation("C-152", "act three with a wrong MAC", half_way, act_three(replace_byte(65)), O.CLOSED),
    Violation("", "act one alone", dialled, wait(peer_module.HANDSHAKE_TIMEOUT + 1), O.CLOSED),
    Violation("C-156", "a wrong MAC of the length", connected, frame(replace_byte(17)), O.CLOSED),
    Violation("C-156", "a wrong MAC of the body", connected, frame(replace_byte(-1)), O.CLOSED),
    Violation("C-156", "another length", connected, frame(replace_byte(0)), O.CLOSED),
    # init
    *(
        Violation("C-137", f"{name} first", before_init, say(first), O.CLOSED, off=name != "open_channel")
        for name, first in FIRST.items()
    ),
    Violation("", "no init", before_init, wait(peer_module.HANDSHAKE_TIMEOUT + 1), O.CLOSED),
    Violation("C-138", "an unknown even feature", before_init, features(1_000), O.CLOSED, "C-138"),
    Violation(
        "C-138", "a feature that we do not have", before_init, features(Feature.OPTION_DUAL_FUND), O.CLOSED, "C-138"
    ),
    Violation(
        "C-138",
        "a feature without what it needs",
        before_init,
        features(Feature.OPTION_SIMPLE_CLOSE + 1, Feature.OPTION_ONION_MESSAGES_ONLY_CHANNELS + 1),
        O.CLOSED,
        "C-138",
    ),
    Violation("C-140", "another chain", before_init, networks(bytes(32)), O.CLOSED, "C-140"),
    Violation("C-140", "no chain", before_init, networks(), O.CLOSED, "C-140"),
    Violation("C-141", "a second connection", connected, again, O.CLOSED),
    Violation("C-141", "a second connection at once", connected, at_once, O.CLOSED),
    # messages
    *(
        Violation("C-127", f"type {kind}", connected, say(kind.to_bytes(2, "big") + b"content"), O.CLOSED, "C-127")
        for kind in UNKNOWN_TYPES
    ),
    Violation("C-127", "a ping cut short", connected, say(PING[:-1]), O.CLOSED, "C-127"),
    *(Violation(rule, name, connected, say(PING + stream), O.CLOSED, "C-1") for rule, name, stream in STREAMS),
    Violation("C-132", "a record too short", connected, say(TOO_SHORT), O.CLOSED, "C-132"),
    Violation("C-134", "a leading zero", offered(payload=LEADING_ZERO), go_on, O.HTLC_FAILED, failure=0x4016),
    *(
        Violation(
            "C-135", f"an HTLC of {amount} msat", offered(), say(lambda s, a=amount: add_of(s, a)), O.CLOSED, "C-135"
        )
        for amount in (21_000_000 * 10**11 + 1, 2**64 - 1)
    ),
    Violation("C-136", "a revocation without a point", connected, say(revocation), O.CLOSED, "C-136"),
    Violation("C-146", "a pong unasked", connected, say(Pong(ignored=b"")), O.CLOSED, "C-146"),
    Violation("C-146", "a pong of another length", connected, say(Pong(ignored=bytes(8))), O.CLOSED, "C-146"),
    Violation("", "no pong", connected, never_pong, O.CLOSED),
    # BOLT 7
    Violation(
        "C-211",
        "another short channel id",
        announcing,
        change(short_channel_id=lambda s: announced(s).short_channel_id + 1),
        O.WARNED,
        "another short_channel_id",
    ),
    *(
        Violation(
            "C-211",
            f"{name} of the {field}",
            announcing,
            change(**{field: lambda s, field=field, how=how: how(getattr(announced(s), field))}),
            O.WARNED_AND_CLOSED,
            f"wrong {field}",
        )
        for field in ("node_signature", "bitcoin_signature")
        for name, how in (("a flipped bit", bit_off), ("high S", high_s))
    ),
)
