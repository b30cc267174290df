"""The table of ``make interop``: names of rows, which failures count, what is written into the document."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop import report
from tests.interop.__main__ import STALLED, Result, as_markdown, as_text, feature_names, table, wait_for, write_into
from tests.interop.not_supported import LIMITS, Limit, limit_of
from tests.interop.peers import PEERS
from tests.testbed.__main__ import COUNTERPARTS


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


def test_a_worker_that_was_killed_is_a_failure_and_may_leave_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "lnd.jsonl"
    path.write_text('{"row": "a", "outcome": "passed", "seconds": 1, "text": ""}\n{"row": "b", "outc')
    found = Result("lnd")
    found.read(path)
    assert list(found.cells) == ["a"]
    found.code = -9
    ((row, text),) = found.failures
    assert row == "the run"
    assert "killed by signal 9" in text


def test_a_run_is_waited_for_as_long_as_its_report_grows(tmp_path: Path) -> None:
    path, lines = tmp_path / "report", 5

    class Worker:
        """One more line each time somebody has waited in vain."""

        def wait(self, seconds: float) -> int:
            text = path.read_text() if path.exists() else ""
            if text.count("a") == lines:
                return 3
            path.write_text(text + "a")
            raise subprocess.TimeoutExpired("worker", seconds)

    assert wait_for(Worker(), path) == 3


@pytest.mark.parametrize("deaf", [False, True])
def test_a_run_that_hangs_is_ended(tmp_path: Path, deaf: bool) -> None:
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    program = f"import time; {ignoring if deaf else ''}\nprint('up', flush=True)\ntime.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == b"up\n"
        code = wait_for(process, tmp_path / "report", stall_seconds=0.1, grace=0.5 if deaf else 60)
    assert code == STALLED
    assert process.returncode == (-9 if deaf else -2)
    found = result("lnd", {"row": "a", "outcome": "passed"})
    found.code = code
    assert "no scenario came to its end" in found.failures[0][1]


def test_every_peer_is_got_ready_before_its_scenarios() -> None:
    for entry in PEERS:
        assert set(entry.counterparts or (entry.name,)) <= set(COUNTERPARTS)


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
