"""The negative side of the checklist: each violation gets the reaction of its rule, and hurts nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from leyden.testing.checklist import read_checklist
from leyden.types import Reaction, all_rules
from leyden.wire import MESSAGES, Message

from tests.scenario.negative.closings import CLOSINGS
from tests.scenario.negative.connections import CONNECTIONS, UNKNOWN_TYPES
from tests.scenario.negative.kit import ALLOWED, IN_ONIONS, O, Violation, commit, rule_of
from tests.scenario.negative.messages import TYPES, swallows
from tests.scenario.negative.openings import OPENINGS
from tests.scenario.negative.payments import PAYMENTS
from tests.scenario.negative.updates import RECONNECTIONS, UPDATES
from tests.scenario.sim_kit import BusyNode, channels

VIOLATIONS: tuple[Violation, ...] = (*OPENINGS, *UPDATES, *RECONNECTIONS, *CLOSINGS, *PAYMENTS, *CONNECTIONS, *TYPES)

MOST_CHANNELS = 20
ROOT = Path(__file__).parents[3]


class Stage:
    """The world that violations share: one node takes many of them. A test that fails leaves a new one behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._busy: BusyNode | None = None

    def busy(self) -> BusyNode:
        if self._busy is not None and len(channels(self._busy.node)) > MOST_CHANNELS:
            self.drop()  # blocks take longer with every channel
        if self._busy is None:
            self._count += 1
            self._busy = BusyNode(self._folder / str(self._count))
        return self._busy

    def drop(self) -> None:
        if self._busy is not None:
            self._busy.close()
            self._busy = None


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("stage"))
    yield made
    made.drop()


def cases() -> list[object]:
    return [
        pytest.param(v, id=v.id, marks=[pytest.mark.proves(v.rule)] if v.rule and v.off else []) for v in VIOLATIONS
    ]


@pytest.mark.parametrize("violation", cases())
def test_violation(stage: Stage, violation: Violation) -> None:
    if violation.alone:
        stage.drop()
    busy = stage.busy()
    try:
        commit(violation, busy, f"{violation.id} {busy.paid}")
        busy.dismiss()
        busy.check()
        busy.simulation.advance(1)  # or its pings would be too many
    except BaseException:
        stage.drop()
        raise
    if violation.alone:
        stage.drop()


def test_the_reactions_are_those_of_the_rules() -> None:
    for violation in VIOLATIONS:
        rule = rule_of(violation)
        if rule is not None and rule.reaction is not Reaction.DUTY:
            in_onion = violation.rule in IN_ONIONS and violation.outcome is O.HTLC_FAILED
            assert in_onion or violation.outcome in ALLOWED[rule.reaction], violation.id


NOT_HEARD: dict[str, str] = {
    "C-015": "interactive transactions are built and read, not negotiated",
    "C-185": "blinded paths are built and read, the node makes none",
    "C-186": "blinded paths are built and read, the node makes none",
    "C-187": "blinded paths are built and read, the node makes none",
    "C-188": "blinded paths are built and read, the node makes none",
    "C-190": "blinded paths are built and read, the node makes none",
    "C-191": "blinded paths are built and read, the node makes none",
    "C-203": "onion messages are built and read, the node hears none",
    "C-204": "onion messages are built and read, the node hears none",
    "C-213": "gossip is read and checked, the node hears none",
    "C-219": "gossip is read and checked, the node hears none",
    "C-226": "gossip is read and checked, the node hears none",
    "C-230": "gossip queries are read and checked, the node hears none",
}
"""Rules with a reaction that code obeys and no message to this node can break: they are about HTLCs, onions and gossip
that it leaves alone. Tests of the layers below prove them."""
OF_MESSAGES = (Reaction.DUTY, Reaction.REFUSE, Reaction.UNROUTABLE)
"""Reactions to something else than a peer's message: our own duty, documents, routes."""


def test_every_rule_with_a_reaction_is_broken_here() -> None:
    """A rule that gets built, or an area that becomes complete, needs its violations."""
    lines = {line.id: line for line in read_checklist(ROOT)}
    broken = {violation.rule for violation in VIOLATIONS}
    demanded = {
        rule.id for rule in all_rules().values() if rule.reaction not in OF_MESSAGES and lines[rule.id].required
    }
    assert demanded - broken == NOT_HEARD.keys()


def test_every_rule_has_a_violation_that_bites() -> None:
    """One at least that goes otherwise once the rule is off: the report on the checklist tries them all."""
    biting = {violation.rule for violation in VIOLATIONS if violation.off}
    assert {violation.rule for violation in VIOLATIONS} - biting == set()


@pytest.mark.parametrize("kind", MESSAGES.values(), ids=lambda kind: kind.NAME)
def test_every_type_of_message_goes_wrong_here(kind: type[Message]) -> None:
    """Cut short, with a bad stream, at the wrong time and in the wrong place."""
    ways = {violation.rule for violation in TYPES if violation.about == kind.TYPE}
    assert "C-127" in ways
    assert "C-137" in ways or kind.NAME == "init"
    assert "" in ways or kind.NAME == "ping"
    assert {"C-130", "C-131", "C-133"} <= ways or swallows(kind)


def test_unknown_types_are_unknown() -> None:
    assert not set(UNKNOWN_TYPES) & MESSAGES.keys()


def test_names_are_used_once() -> None:
    names = [violation.id for violation in VIOLATIONS]
    assert len(set(names)) == len(names)
