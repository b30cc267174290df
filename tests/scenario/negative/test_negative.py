"""The negative side of the checklist: each violation gets the reaction of its rule, and hurts nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from leyden.types import Reaction

from tests.scenario.negative.closings import CLOSINGS
from tests.scenario.negative.connections import CONNECTIONS
from tests.scenario.negative.kit import ALLOWED, IN_ONIONS, O, Violation, commit, rule_of
from tests.scenario.negative.messages import TYPES
from tests.scenario.negative.openings import OPENINGS
from tests.scenario.negative.updates import RECONNECTIONS, UPDATES
from tests.scenario.sim_kit import BusyNode

VIOLATIONS: tuple[Violation, ...] = (*OPENINGS, *UPDATES, *RECONNECTIONS, *CLOSINGS, *CONNECTIONS, *TYPES)


class Stage:
    """The world that violations share: one node must take them all. A test that fails leaves a new one behind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._busy: BusyNode | None = None

    def busy(self) -> BusyNode:
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
def test_violation(stage: Stage, expected_errors: set[str], violation: Violation) -> None:
    expected_errors.update(violation.errors)
    if violation.alone:
        stage.drop()
    busy = stage.busy()
    try:
        commit(violation, busy, f"{violation.id} {busy.paid}")
        busy.dismiss()
        busy.check()
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


def test_names_are_used_once() -> None:
    names = [violation.id for violation in VIOLATIONS]
    assert len(set(names)) == len(names)
