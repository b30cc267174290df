"""What meets a screen or a log: no secrets, no tricks in text."""

import io
import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from leyden.hooks.types import Alarm, LoggedEvent
from leyden_cli import plugin
from leyden_cli.addresses import parse_peer, show_host_port
from leyden_cli.commands.base import socket_path
from leyden_cli.config import LogSettings
from leyden_cli.errors import ConfigError
from leyden_cli.logs import plain_values, set_up_logging
from leyden_cli.show import cell, print_facts, print_table
from logging_kit import logging_undone


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Path]:
    with logging_undone(), set_up_logging(LogSettings(level="info", file="node.log"), tmp_path):
        yield tmp_path / "node.log"


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_log_lines_are_json_and_private(log_file: Path) -> None:
    log = structlog.get_logger("x")
    log.debug("hidden")
    log.info("shown", node_id=b"\x02\x03", address=("a", 1), error=ValueError("no"))
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        log.exception("failed")
    logging.getLogger("library").warning("careful %s", "now")
    lines = read(log_file)
    assert [line["event"] for line in lines] == ["shown", "failed", "careful now"]
    assert lines[0]["node_id"] == "0203"
    assert "RuntimeError: broken" in str(lines[1]["exception"])
    assert stat.S_IMODE(log_file.stat().st_mode) == 0o600


def test_secrets_are_not_logged() -> None:
    event = plain_values(
        None, "info", {"event": "x", "preimage": b"\x01" * 32, "payment_secret": b"s", "seed": "words"}
    )
    assert event == {"event": "x", "preimage": "(not logged)", "payment_secret": "(not logged)", "seed": "(not logged)"}


def test_log_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the log"):
        set_up_logging(LogSettings(file="missing/node.log"), tmp_path)


def test_plugin_logs_events(log_file: Path) -> None:
    plugin.leyden_event(LoggedEvent(index=4, time=1, event=Alarm(subject="storage", text="full")))
    (line,) = read(log_file)
    assert line["event"] == "alarm"
    assert (line["index"], line["subject"], line["text"]) == (4, "storage", "full")


def test_cells() -> None:
    assert [cell(value) for value in (None, True, 1234567, "", "a\x1b[2J\u202eb")] == [
        "-",
        "yes",
        "1,234,567",
        "-",
        "a?[2J?b",
    ]


def test_tables_for_programs_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "sat"), [("[red]x", 1000), ("y", None)])
    print_table(("name",), [], "nothing")
    print_facts({"node_id": "02", "height": 3})
    assert capsys.readouterr().out.splitlines() == [
        "name    sat",
        "[red]x  1,000",
        "y       -",
        "nothing",
        "node id  02",
        "height   3",
    ]


def test_tables_for_people_keep_strange_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    print_table(("name",), [("[bold]not markup[/bold]",)])
    assert "[bold]not markup[/bold]" in screen.getvalue()


def test_peer_addresses() -> None:
    node = "02" + "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5"
    assert parse_peer(f"{node}@[::1]:9735") == (bytes.fromhex(node), "::1", 9735)
    assert show_host_port("::1", 9735) == "[::1]:9735"


def test_socket_path_follows_data_dir(tmp_path: Path) -> None:
    assert socket_path(tmp_path) == tmp_path / "leyden.sock"
    (tmp_path / "leyden.toml").write_text('data_dir = "deep"\nunknown = 1')
    assert socket_path(tmp_path) == tmp_path / "deep" / "leyden.sock"
    (tmp_path / "leyden.toml").write_text("broken")
    assert socket_path(tmp_path) == tmp_path / "leyden.sock"
