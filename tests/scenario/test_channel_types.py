"""The whole story of two nodes over channels of the other types, with and without a crash in it."""

import pytest
from leyden.testing.crash import tell
from leyden.testing.story import Plan, parse_plan


def test_the_story_over_a_channel_without_anchors() -> None:
    wrong, points = tell(1, Plan(static=True))
    assert not wrong
    assert points


@pytest.mark.parametrize("text", ["alice@40,static", "bob@101,static", "alice@60+,static", "bob#30!,static"])
def test_a_crash_over_a_channel_without_anchors(text: str) -> None:
    plan = parse_plan(text)
    assert plan.static
    assert str(plan) == text
    assert tell(1, plan)[0] == ""
