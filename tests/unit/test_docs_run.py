"""README, Overview, Getting started and the guides do what they say: see ``tests.pages``."""

import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from leyden.hooks.types import ONE_TIME_ALARMS, STANDING_ALARMS

from tests.pages import MARK, MARKED, DocError, Shell, blocks, run_page

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs/overview.md", ROOT / "docs/getting-started.md"]
PAGES += sorted((ROOT / "docs/guides").glob("*.md"))
TUTORIALS = sorted((ROOT / "docs/tutorial").glob("*.md"))
"""Run in an environment of their own: tests/scenario/test_tutorial.py."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short (a Unix socket's path may have 107 bytes) and of mode 0700."""
    with tempfile.TemporaryDirectory(prefix="ld", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_does_what_it_says(page: Path, folder: Path) -> None:
    assert run_page(page.read_text(), folder) > 0


@pytest.mark.parametrize("page", [*PAGES, *TUTORIALS], ids=lambda path: path.stem)
def test_every_block_is_marked(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language in MARKED:
            assert MARK.fullmatch(block.mark), f"{page.name}:{block.line}: {block.mark!r}"


def test_the_guide_and_the_lists_name_every_alarm() -> None:
    """Programs match on these words, and on whether such an alarm stands."""
    raised = set()
    for path in (ROOT / "core/leyden").rglob("*.py"):
        raised |= set(
            re.findall(r'(?:Alarm\(\s*subject=|turn\.alarm\(\s*|^SUBJECT = )"(\w+)"', path.read_text(), re.MULTILINE)
        )
    guide = (ROOT / "docs/guides/coordination.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (stands|happened) \|", guide, re.MULTILINE)
    assert raised == {subject for subject, _ in listed} == STANDING_ALARMS | ONE_TIME_ALARMS
    assert {subject for subject, sort in listed if sort == "stands"} == STANDING_ALARMS
    assert len(raised) > 15


# -- the runner itself -------------------------------------------------------------------------------------------------

PAGE = """\
<!-- file: greet.py -->
```python
import sys
print("hello", sys.argv[1])
```

<!-- append: greet.py -->
```python
print("bye")
```

<!-- run -->
```console
$ NAME=kim
$ python greet.py $NAME
hello k…
bye
$ printf 'one\\ntwo\\nthree\\n'
one
...
$ sleep 1000 &
$ python -c 'print("a",
> "b")'
a b
```

Text between takes no mark away from the next block.

<!-- run -->
```python
print(sum(range(5)))
```
```text
10
```

<!-- not run: it would never end -->
```console
$ cat /dev/zero
```
"""


def test_the_runner_runs_a_page(folder: Path) -> None:
    assert run_page(PAGE, folder) == 6


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("hello k…", "hello K…", "expected:\nhello K"),
        ("NAME=kim", "false", "exit code 1: false"),
        ("\n10\n", "\n11\n", "expected:\n11"),
        ("one\n...", "one\ntwo\nfour", "expected:\none\ntwo\nfour"),
        ("sum(range(5))", "1 / 0", "ZeroDivisionError"),
    ],
)
def test_the_runner_notices(folder: Path, before: str, after: str, message: str) -> None:
    assert before in PAGE
    with pytest.raises(DocError, match=re.escape(message)):
        run_page(PAGE.replace(before, after), folder)


def test_nothing_outlives_its_page(folder: Path) -> None:
    """Not even what ignores SIGTERM."""
    beat = folder / "beat"
    with Shell(folder) as shell:
        assert shell.run("(trap '' TERM; while :; do echo . >> beat; sleep 0.02; done) &")[0] == 0
        assert shell.run("until [ -s beat ]; do sleep 0.02; done")[0] == 0
    size = beat.stat().st_size
    time.sleep(0.2)
    assert beat.stat().st_size == size
