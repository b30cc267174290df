"""Peers run in their own interpreter (``benchmarks/setup`` makes it) and talk JSON lines over standard streams."""

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.harness import Bench, Contender, Sample
from tests.testbed import electrum

HERE = Path(__file__).parent
ENVIRONMENTS = HERE / ".peers"


class PeerFailed(Exception):
    """The peer's process ended or reported an error."""


class Peer:
    """A process that answers ``{"op": ..., ...}`` with ``{"result": ...}``; see ``benchmarks/peers/serve.py``."""

    def __init__(self, interpreter: Path, script: Path) -> None:
        self._process = subprocess.Popen(
            [str(interpreter), str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._last_words: list[str] = []
        threading.Thread(target=self._drain, daemon=True).start()

    @classmethod
    def find(cls, environment: str, script: str) -> "Peer | None":
        """Start ``benchmarks/peers/<script>`` with the peer's interpreter; None if it was never set up."""
        interpreter = ENVIRONMENTS / environment / "bin" / "python"
        if not interpreter.exists():
            return None
        return cls(interpreter, HERE / "peers" / script)

    @classmethod
    def find_electrum(cls, script: str) -> "Peer | None":
        """The same with the test bed's Electrum; None if ``python -m tests.testbed electrum`` never fetched it."""
        interpreter = electrum.installed()
        return None if interpreter is None else cls(interpreter, HERE / "peers" / script)

    def _drain(self) -> None:
        # Read what it prints as it comes, or a talkative peer would block on a full pipe.
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._last_words = [*self._last_words[-4:], line.rstrip()]

    def ask(self, op: str, **arguments: object) -> Any:
        """One request and its result."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise PeerFailed(f"peer ended: {' | '.join(self._last_words)}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer["result"]

    def contender(self, op: str, **arguments: object) -> Contender:
        """A contender whose ``op`` returns [CPU seconds, wall seconds] per operation, measured in the peer."""

        def run() -> Sample:
            cpu, wall = self.ask(op, **arguments)
            return Sample(cpu, wall)

        return run

    def versions(self) -> dict[str, str]:
        """Python and distributions of the peer, which its script names."""
        return dict(self.ask("versions"))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


@contextmanager
def started(bench: Bench, peers: Mapping[str, Peer | None]) -> Iterator[Mapping[str, Peer | None]]:
    """The peers as they were given, with their versions in the result; their processes end with the block."""
    with ExitStack() as stack:
        for name, peer in peers.items():
            if peer is not None:
                stack.enter_context(peer)
                bench.versions |= {f"{name}'s {key}": value for key, value in peer.versions().items()}
        yield peers
