"""What goes wrong while a channel is closed by agreement: shutdown, legacy and simple close."""

from typing import Any

from leyden.bitcoin import p2wpkh
from leyden.crypto import sha256
from leyden.wire import (
    ClosingComplete,
    ClosingSig,
    ClosingSigned,
    FeeRange,
    Message,
)
from leyden.wire.features import Feature

from tests.scenario.negative.kit import (
    SIGNATURE,
    SIGNATURES,
    Deed,
    O,
    Place,
    Scene,
    Violation,
    change,
    say,
)
from tests.scenario.negative.openings import P2PKH
from tests.scenario.negative.updates import add, opened
from tests.scenario.sim_kit import BusyNode

LEGACY = (Feature.OPTION_SIMPLE_CLOSE,)
NO_UPFRONT = (Feature.OPTION_UPFRONT_SHUTDOWN_SCRIPT,)
ELSEWHERE = p2wpkh(sha256(b"elsewhere")[:20])


def shutting_down(role: str = "propose", without: tuple[Feature, ...] = NO_UPFRONT) -> Place:
    """The script is about to say ``shutdown``."""

    def place(busy: BusyNode, name: str) -> Scene:
        scene = opened(role, without)(busy, name)
        scene.channel.shut_down()
        return scene

    return place


def closing(before: type[Message], role: str = "propose", without: tuple[Feature, ...] = ()) -> Place:
    """Both have said ``shutdown``, and the script is about to send this message."""

    def place(busy: BusyNode, name: str) -> Scene:
        scene = opened(role, without)(busy, name)
        scene.channel.shut_down()
        scene.peer.run(scene.channel, before=before)
        return scene

    return place


def legacy(role: str = "propose") -> Place:
    """The script answers, or names, a fee of the legacy close."""
    return closing(ClosingSigned, role, LEGACY)


def silent(busy: BusyNode, name: str) -> Scene:
    """The script funds the channel, so the first fee of the legacy close is its to name."""
    scene = legacy()(busy, name)
    scene.channel.skip()
    return scene


def wait_for_the_fee(scene: Scene) -> None:
    scene.busy.simulation.advance(scene.busy.node.config.policy.closing_timeout_seconds + 1)


def closing_signed(scene: Scene) -> Message:
    return ClosingSigned(channel_id=scene.id, fee_satoshis=1_000, signature=SIGNATURE)


def of_simple_close(kind: type[ClosingComplete | ClosingSig]) -> Deed:
    """A message that would fit, if it were time for it."""
    return say(
        lambda scene: kind(
            channel_id=scene.id,
            closer_scriptpubkey=ELSEWHERE,
            closee_scriptpubkey=ELSEWHERE,
            fee_satoshis=1_000,
            locktime=0,
            closer_and_closee_outputs=SIGNATURE,
        )
    )


SHAPES = ("closer_output_only", "closee_output_only", "closer_and_closee_outputs")


def every_signature(how: Any) -> Deed:
    """All signatures of the message that waits, passed through a function."""

    def deed(scene: Scene) -> None:
        held = scene.channel.held
        found = {name: getattr(held, name) for name in SHAPES}
        scene.peer.send(scene.channel.changed(**{name: how(value) for name, value in found.items() if value}))

    return deed


BAD_SCRIPTS = {
    "one byte": b"\x51",
    "P2PKH": P2PKH,
    "a witness program of version 0 and 31 bytes": b"\x00\x1f" + bytes(31),
    "an OP_RETURN of two pushes": b"\x6a\x06" + bytes(6) + b"\x06" + bytes(6),
    "an OP_RETURN of 81 bytes": b"\x6a\x4c\x51" + bytes(81),
    "nothing": b"",
}
CLOSINGS: tuple[Violation, ...] = (
    *(
        Violation("C-062", name, shutting_down(), change(scriptpubkey=script), O.WARNED, "not allowed")
        for name, script in BAD_SCRIPTS.items()
    ),
    Violation(
        "C-062",
        "a witness program of version 1 without anysegwit",
        shutting_down(without=(*NO_UPFRONT, *LEGACY, Feature.OPTION_SHUTDOWN_ANYSEGWIT)),
        change(scriptpubkey=b"\x51\x20" + bytes(32)),
        O.WARNED,
        "not allowed",
    ),
    Violation(
        "C-062",
        "an OP_RETURN without simple close",
        shutting_down(without=(*NO_UPFRONT, *LEGACY)),
        change(scriptpubkey=b"\x6a\x06" + bytes(6)),
        O.WARNED,
        "not allowed",
    ),
    Violation(
        "C-063",
        "not the upfront script",
        shutting_down(without=()),
        change(scriptpubkey=ELSEWHERE),
        O.CLOSED,
    ),
    Violation(
        "C-063",
        "not the upfront script, from a fundee",
        shutting_down("answer", ()),
        change(scriptpubkey=ELSEWHERE),
        O.CLOSED,
    ),
    Violation(
        "C-061",
        "an HTLC after shutdown",
        shutting_down(),
        lambda s: s.peer.send(s.channel.take(), add(s)),
        O.WARNED_AND_CLOSED,
        "after shutdown",
        moves=True,
    ),
    # legacy
    *(
        Violation(
            "C-070",
            f"{name} of a {who}",
            legacy(role),
            change(signature=lambda s, how=how: how(s.held(ClosingSigned).signature)),
            O.WARNED_AND_CLOSED,
            "bad signature on the closing transaction",
        )
        for role, who in (("propose", "funder"), ("answer", "fundee"))
        for name, how in SIGNATURES
    ),
    Violation(
        "C-069",
        "a fee beyond its means",
        legacy(),
        change(fee_satoshis=700_001),
        O.FAILED,
        "closing fee cannot be paid",
    ),
    Violation("C-069", "no fee in time", silent, wait_for_the_fee, O.FAILED, "no closing fee was agreed in time"),
    Violation(
        "C-069",
        "a range that cannot be met",
        legacy(),
        change(fee_range=FeeRange(min_fee_satoshis=0, max_fee_satoshis=1)),
        O.FAILED,
        "fee ranges do not overlap",
    ),
    Violation(
        "", "closing_signed before shutdown", opened(without=LEGACY), say(closing_signed), O.WARNED_AND_CLOSED, "before"
    ),
    Violation("", "closing_signed although simple", opened(), say(closing_signed), O.WARNED_AND_CLOSED, "simple_close"),
    # simple
    *(
        Violation(
            "C-065",
            name,
            closing(ClosingComplete),
            every_signature(how),
            O.WARNED_AND_CLOSED,
            "bad signature",
        )
        for name, how in SIGNATURES
    ),
    Violation(
        "C-065",
        "a fee above its balance",
        closing(ClosingComplete),
        change(fee_satoshis=700_001),
        O.WARNED_AND_CLOSED,
        "above the closer's balance",
    ),
    Violation(
        "C-065",
        "no signature at all",
        closing(ClosingComplete),
        change(**dict.fromkeys(SHAPES)),
        O.WARNED_AND_CLOSED,
        "that is due is missing",
    ),
    Violation(
        "C-066",
        "another script for us",
        closing(ClosingComplete),
        change(closee_scriptpubkey=ELSEWHERE),
        O.WARNED_AND_CLOSED,
        "does not pay our script",
    ),
    Violation(
        "C-066",
        "a script that is not allowed",
        closing(ClosingComplete, without=NO_UPFRONT),
        change(closer_scriptpubkey=P2PKH),
        O.WARNED_AND_CLOSED,
        "not allowed",
    ),
    Violation(
        "C-066",
        "not the upfront script",
        closing(ClosingComplete),
        change(closer_scriptpubkey=ELSEWHERE),
        O.WARNED_AND_CLOSED,
        "not the upfront one",
    ),
    *(
        Violation(
            "C-067",
            name,
            closing(ClosingSig),
            every_signature(how),
            O.WARNED_AND_CLOSED,
            "bad signature in closing_sig",
        )
        for name, how in SIGNATURES
    ),
    *(
        Violation(
            "C-067", f"another {field}", closing(ClosingSig), change(**{field: value}), O.WARNED_AND_CLOSED, field
        )
        for field, value in {
            "closer_scriptpubkey": ELSEWHERE,
            "closee_scriptpubkey": ELSEWHERE,
            "fee_satoshis": 1,
            "locktime": 7,
        }.items()
    ),
    Violation(
        "C-067",
        "no signature",
        closing(ClosingSig),
        change(**dict.fromkeys(SHAPES)),
        O.WARNED_AND_CLOSED,
        "exactly one signature",
    ),
    Violation(
        "C-067",
        "three signatures",
        closing(ClosingSig),
        change(**dict.fromkeys(SHAPES, SIGNATURE)),
        O.WARNED_AND_CLOSED,
        "exactly one signature",
    ),
    Violation(
        "C-067",
        "a shape that was not offered",
        closing(ClosingSig),
        change(closer_output_only=None, closee_output_only=SIGNATURE, closer_and_closee_outputs=None),
        O.WARNED_AND_CLOSED,
        "not offered",
    ),
    Violation(
        "",
        "closing_complete before shutdown",
        opened(),
        of_simple_close(ClosingComplete),
        O.WARNED_AND_CLOSED,
        "before",
    ),
    Violation("", "closing_sig before shutdown", opened(), of_simple_close(ClosingSig), O.WARNED_AND_CLOSED, "before"),
)
