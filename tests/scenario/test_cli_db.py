"""``leyden db``: check and backup of a real node's database, while it runs and after."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

LEYDEN = [sys.executable, "-m", "leyden_cli"]


def leyden(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LEYDEN, *arguments], capture_output=True, text=True, timeout=120)


def refusal(*arguments: str) -> str:
    """The one line of an error, exit code 1."""
    done = leyden(*arguments)
    assert done.returncode == 1, done
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A node with a past that runs no more."""
    tmp_path.chmod(0o700)
    socket = tmp_path / "c.sock"
    serve = [sys.executable, "-m", "leyden_regtest", "serve", "--dir", str(tmp_path / "chain"), "--socket", str(socket)]
    chain = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
    node = tmp_path / "node"
    started: subprocess.Popen[str] | None = None
    try:
        assert chain.stdout is not None
        assert chain.stdout.readline()
        options = ("--chain-source", "regtest", "--set", f"regtest.socket={socket}", "--listen", "127.0.0.1:0")
        done = leyden("init", "--dir", str(node), *options, "--plugin", "cli")
        assert done.returncode == 0, done.stderr
        started = subprocess.Popen([*LEYDEN, "start", "--dir", str(node)], stdout=subprocess.PIPE, text=True)
        assert started.stdout is not None
        assert started.stdout.readline().startswith("ready")
        assert leyden("invoice", "1000", "--dir", str(node)).returncode == 0
        assert leyden("address", "--dir", str(node)).returncode == 0
        running = leyden("db", "check", "--dir", str(node))
        assert (running.returncode, running.stderr) == (0, "")
        assert leyden("db", "backup", str(tmp_path / "live"), "--dir", str(node)).returncode == 0
        assert json.loads(leyden("info", "--dir", str(node), "--json").stdout)  # it was not fenced
        assert leyden("invoice", "2000", "--dir", str(node)).returncode == 0
    finally:
        for process in (started, chain):
            if process is not None:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=30)
    return node


def change(path: Path, start: bytes, value: bytes | None = None) -> None:
    """Damage every row whose key begins with ``start``, or set its value."""
    connection = sqlite3.connect(path)
    with connection:
        rows = [row for row in connection.execute("SELECT key, value FROM rows").fetchall() if row[0].startswith(start)]
        assert rows
        for key, old in rows:
            connection.execute("UPDATE rows SET value = ? WHERE key = ?", (value or old + b"\x00", key))
    connection.close()


def test_check_and_backup(folder: Path) -> None:
    database, copy = folder / "leyden.sqlite", folder / "copy.sqlite"
    live = folder.parent / "live"
    done = leyden("db", "check", str(live), "--dir", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok: ")

    done = leyden("db", "backup", str(copy), "--dir", str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"wrote {copy} (")
    assert "closing a channel with an old state costs everything in it" in done.stdout
    assert "exists already" in refusal("db", "backup", str(copy), "--dir", str(folder))
    assert leyden("db", "check", str(copy), "--dir", str(folder)).stdout == done_check(folder)

    change(database, b"i")
    change(database, b"mnode_id")
    done = leyden("db", "check", "--dir", str(folder))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert sum(line.startswith("INVOICE ") for line in lines) == 2
    assert any(line.startswith("META ") for line in lines)
    assert "problems in" in done.stderr
    assert "cannot be read" in refusal("start", "--dir", str(folder))
    assert leyden("db", "check", str(copy), "--dir", str(folder)).returncode == 0

    change(database, b"mschema", bytes.fromhex("0100000063"))
    assert "written by a newer Leyden" in refusal("start", "--dir", str(folder))
    database.unlink()
    assert "no database" in refusal("db", "check", "--dir", str(folder))
    assert not database.exists()
    os.rename(copy, database)
    assert leyden("db", "check", "--dir", str(folder)).returncode == 0


def done_check(folder: Path) -> str:
    done = leyden("db", "check", "--dir", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
