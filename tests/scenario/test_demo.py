"""``leyden demo`` as a user runs it: three processes, real consensus rules, accounts that add up."""

import os
import re
import subprocess
import sys
from pathlib import Path

LAST = re.compile(
    r"demo ok: (\d+) sat before = (\d+) alice \+ (\d+) bob \+ (\d+) funding fee \+ (\d+) closing fee; "
    r"(\d+) sat paid one way, (\d+) the other; (\d+) payments succeeded, (\d+) failed as it should; [\d.]+ s"
)


def test_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "leyden_cli", "demo", "--verbose"],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "TMPDIR": str(tmp_path)} if len(str(tmp_path)) < 60 else None,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    last = LAST.fullmatch(done.stdout.splitlines()[-1])
    assert last is not None, done.stdout
    before, alice, bob, funding_fee, closing_fee, sent, received, succeeded, failed = map(int, last.groups())
    assert before == alice + bob + funding_fee + closing_fee == 11_000_000
    assert bob == 1_000_000 + 1_500_000 + sent - received
    assert funding_fee > 0
    assert closing_fee > 0
    assert succeeded >= 40 + 30 + 20
    assert failed == 1
    assert not list(tmp_path.glob("leyden-*"))
