"""Runs the commands and programs of README, Overview, Getting started and the guides as a reader would.

Every fenced block of Bash (``console``), Python or TOML in these pages says in an HTML comment above it what it is:

``<!-- run -->``                 run it: commands stand behind ``$``, what they print stands below them
``<!-- file: NAME -->``          write it to this file, then go on
``<!-- not run: REASON -->``     only to be read

All blocks of a page run in order in one shell and one empty folder. A command must end with exit code 0. In expected
output ``…`` stands for any text, and a line of ``...`` for any lines; a command without output below it may print what
it likes. A Python block that is run must print the ``text`` block that follows it, if one does.
"""

import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs/overview.md", ROOT / "docs/getting-started.md"]
PAGES += sorted((ROOT / "docs/guides").glob("*.md"))
MARKED = ("console", "python", "toml")
COMMAND_SECONDS = 60.0


class Block(NamedTuple):
    """A fenced block, the comment above it, and where it starts."""

    language: str
    mark: str
    text: str
    line: int


class Command(NamedTuple):
    text: str
    expected: str
    line: int


class DocError(Exception):
    pass


def blocks(text: str) -> Iterator[Block]:
    lines = text.splitlines()
    mark, number = "", 0
    while number < len(lines):
        line = lines[number]
        if found := re.fullmatch(r"<!-- (.*) -->", line.strip()):
            mark = found[1]
        elif found := re.fullmatch(r"( *)(`{3,})([a-z]*)(.*)", line):
            indent, fence, language, _ = found.groups()
            begin = number + 1
            number = begin
            while lines[number].strip() != fence:
                number += 1
            body = "".join(entry.removeprefix(indent) + "\n" for entry in lines[begin:number])
            yield Block(language, mark, body, begin)
            mark = ""
        elif line.strip():
            mark = ""
        number += 1


def commands(block: Block) -> list[Command]:
    """``$`` starts a command, ``>`` or a backslash before it goes on with one, anything else is output."""
    found: list[Command] = []
    for offset, line in enumerate(block.text.splitlines()):
        if line.startswith("$ "):
            found.append(Command(line[2:], "", block.line + 1 + offset))
            continue
        if not found:
            raise DocError(f"line {block.line + 1 + offset}: output without a command")
        last = found.pop()
        if line.startswith("> ") or last.text.endswith("\\"):
            found.append(last._replace(text=f"{last.text}\n{line.removeprefix('> ')}"))
        else:
            found.append(last._replace(expected=f"{last.expected}{line}\n"))
    return found


def matches(expected: str, printed: str) -> bool:
    """Line by line without trailing blanks; ``…`` is any text, ``...`` alone any lines."""
    pattern = ""
    for line in expected.splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*"
        else:
            pattern += "[^\n]*".join(re.escape(part) for part in line.rstrip().split("…")) + r"[ ]*\n"
    return re.fullmatch(pattern, printed if printed.endswith("\n") or not printed else printed + "\n") is not None


class Shell:
    """One Bash in a folder of its own; ``run`` gives back output and exit code of a command."""

    def __init__(self, folder: Path) -> None:
        scripts = Path(sys.executable).parent
        environment = {
            "PATH": f"{scripts}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "COLUMNS": "120",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(folder),
        }
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> tuple[int, str]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise DocError("the shell has no pipes")
        token = secrets.token_hex(8)
        stdin.write(f"{{ {command}\n}} </dev/null\n_code=$?; echo; echo {token} $_code\n")
        stdin.flush()
        alarm = threading.Timer(COMMAND_SECONDS, self.close)
        alarm.start()
        printed: list[str] = []
        try:
            for line in stdout:
                if line.startswith(token):
                    text = "".join(printed)
                    return int(line.split()[1]), text[:-1] if text.endswith("\n") else text
                printed.append(line)
        finally:
            alarm.cancel()
        raise DocError(f"no end within {COMMAND_SECONDS:g} s: {command}\n{''.join(printed)}")

    def close(self) -> None:
        """End the shell and everything it started."""
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, kind)
                self._process.wait(5)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def __enter__(self) -> "Shell":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def run_page(text: str, folder: Path) -> int:
    """Run everything on the page; returns the number of commands. ``DocError`` at the first that is not as printed."""
    everything = list(blocks(text))
    done = 0
    with Shell(folder) as shell:
        for block, following in zip(everything, [*everything[1:], None], strict=True):
            if block.mark.startswith("file: "):
                path = folder / block.mark.removeprefix("file: ")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            elif block.mark == "run":
                for command in to_run(block, following):
                    done += 1
                    check(command, *shell.run(command.text))
    return done


def to_run(block: Block, following: Block | None) -> list[Command]:
    if block.language == "console":
        return commands(block)
    if block.language != "python":
        raise DocError(f"line {block.line}: a block of {block.language} cannot be run")
    expected = following.text if following is not None and following.language == "text" else ""
    return [Command(f"python -W error - <<'END_OF_PROGRAM'\n{block.text}END_OF_PROGRAM", expected, block.line)]


def check(command: Command, code: int, printed: str) -> None:
    if code:
        raise DocError(f"line {command.line}: exit code {code}: {command.text}\n{printed}")
    if command.expected and not matches(command.expected, printed):
        raise DocError(f"line {command.line}: {command.text}\nexpected:\n{command.expected}printed:\n{printed}")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short (a Unix socket's path may have 107 bytes) and of mode 0700."""
    with tempfile.TemporaryDirectory(prefix="ld", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_does_what_it_says(page: Path, folder: Path) -> None:
    assert run_page(page.read_text(), folder) > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_block_is_marked(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language in MARKED:
            assert re.fullmatch(r"run|file: \S+|not run: \S.*", block.mark), f"{page.name}:{block.line}: {block.mark!r}"


# -- the runner itself -------------------------------------------------------------------------------------------------

PAGE = """\
<!-- file: greet.py -->
```python
import sys
print("hello", sys.argv[1])
```

<!-- run -->
```console
$ NAME=kim
$ python greet.py $NAME
hello k…
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
