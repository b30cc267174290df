"""Runs a page of the documentation as a reader would: its commands, its programs, its files.

Every fenced block of Bash (``console``), Python or TOML says in an HTML comment above it what it is:

``<!-- run -->``                 run it: commands stand behind ``$``, what they print stands below them
``<!-- file: NAME -->``          write it to this file, then go on
``<!-- append: NAME -->``        add it to the end of this file
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
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

MARKED = ("console", "python", "toml")
MARK = re.compile(r"run|(file|append): \S+|not run: \S.*")
PATIENCE = 120.0
"""Seconds for one command."""


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

    def __init__(self, folder: Path, variables: Mapping[str, str] | None = None, patience: float = PATIENCE) -> None:
        scripts = Path(sys.executable).parent
        self._patience = patience
        environment = {
            "PATH": f"{scripts}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "COLUMNS": "120",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(folder),
            **(variables or {}),
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
        alarm = threading.Timer(self._patience, self.close)
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
        raise DocError(f"no end within {self._patience:g} s: {command}\n{''.join(printed)}")

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


def run_page(text: str, folder: Path, variables: Mapping[str, str] | None = None, patience: float = PATIENCE) -> int:
    """Run everything on the page; returns the number of commands. ``DocError`` at the first that is not as printed.

    Files lie where the shell is when it comes to them. A command may take ``patience`` seconds.
    """
    everything = list(blocks(text))
    done = 0
    with Shell(folder, variables, patience) as shell:
        for block, following in zip(everything, [*everything[1:], None], strict=True):
            if block.mark == "run":
                for command in to_run(block, following):
                    done += 1
                    check(command, *shell.run(command.text))
            else:
                write_file(block, Path(shell.run("pwd")[1].strip()))
    return done


def write_file(block: Block, folder: Path) -> None:
    """Write a block to the file that its mark names, or add it there; other blocks are only to be read."""
    kind, _, name = block.mark.partition(": ")
    path = folder / name
    if kind == "file":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
    elif kind == "append":
        with path.open("a") as file:
            file.write(block.text)


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
