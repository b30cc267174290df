"""The table of ``make interop``: names of rows, which failures count, what is written into the document."""

from pathlib import Path

import pytest

from tests.interop import report
from tests.interop.__main__ import Result, as_markdown, as_text, feature_names, table, write_into
from tests.interop.not_supported import LIMITS, Limit, limit_of
from tests.interop.peers import PEERS


@pytest.mark.parametrize(
    ("nodeid", "row"),
    [
        ("tests/interop/test_pay.py::test_both_ways[lnd]", "pay: both ways"),
        ("tests/interop/test_open.py::test_by_us[lnd-private-anchors]", "open: by us (private, anchors)"),
        ("tests/interop/test_close.py::test_by_them[electrum-they opened]", "close: by them (they opened)"),
        ("tests/interop/test_data_loss.py::test_ours[ldk_node]", "data loss: ours"),
    ],
)
def test_a_row_is_named_after_its_scenario(nodeid: str, row: str) -> None:
    peer = nodeid.partition("[")[2].removesuffix("]").partition("-")[0]
    assert report.row_of(nodeid, peer) == row


def result(name: str, *lines: dict[str, object]) -> Result:
    found = Result(name)
    for line in lines:
        found._take({"seconds": 1.0, "text": "why", **line})
    return found


def test_a_failed_tear_down_takes_the_pass_away() -> None:
    found = result("lnd", {"row": "a", "outcome": "passed"}, {"row": "a", "outcome": "failed"})
    assert found.failures == [("a", "why")]
    found = result("lnd", {"row": "a", "outcome": "failed"}, {"row": "a", "outcome": "passed"})
    assert found.failures == [("a", "why")]


def test_a_run_that_ended_without_a_word_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    found = result("lnd", {"row": "a", "outcome": "passed"})
    found.code = 2
    assert found.failures
    found = result("lnd", {"row": "a", "outcome": "not supported"})
    assert not found.failures


def test_in_ci_a_peer_that_cannot_be_had_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    found = result("lnd", {"unavailable": "no go"})
    monkeypatch.delenv("CI", raising=False)
    assert not found.failures
    monkeypatch.setenv("CI", "1")
    assert found.failures


def test_the_table_has_a_line_for_every_scenario_of_any_peer(tmp_path: Path) -> None:
    lines = table([result("a", {"row": "x", "outcome": "passed"}), result("b", {"row": "y", "outcome": "failed"})])
    assert [line[0] for line in lines] == ["scenario", "x", "y", "minutes"]
    assert lines[1] == ["x", "pass", ""]
    assert "FAIL" in as_text(lines)
    document = tmp_path / "interop.md"
    document.write_text("before\n<!-- table: make interop writes it -->\nold\n<!-- end of the table -->\nafter\n")
    write_into(document, lines)
    write_into(document, lines)
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert text.count(as_markdown(lines)) == 1
    assert "old" not in text


def test_features_have_their_names() -> None:
    assert feature_names("3001") == "option_data_loss_protect!, option_static_remotekey!"
    assert feature_names(f"{1 << 1001:x}") == "1000"


def test_limits_are_about_peers_that_exist_and_say_why() -> None:
    names = {entry.name for entry in PEERS}
    for limit in LIMITS:
        assert limit.peer in names
        assert limit.says
        assert limit.why
    assert limit_of("nobody", "a row") is None
    assert isinstance(limit_of("electrum", "connect: they hang up"), Limit)
