"""``leyden start`` as a process of its own, to be killed."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from leyden_cli.client import Client

HOLDING = "tests.interop.holding_leyden"


class LeydenProcess:
    """A node on the folder that ``leyden init`` made; ``holding``: it never decides on received payments."""

    def __init__(self, folder: Path, *, holding: bool = False) -> None:
        self._folder = folder
        self._command = [sys.executable, "-m", HOLDING if holding else "leyden_cli", "start", "--dir", str(folder)]
        self._process: subprocess.Popen[str] | None = None
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            raise RuntimeError("our process does not run")
        return self._client

    async def start(self) -> "LeydenProcess":
        with (self._folder / "process.log").open("a") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 (asyncio's would be reaped only by a loop that runs on)
                [*self._command, "--json"], stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            assert self._process.stdout is not None
            line = await asyncio.to_thread(self._process.stdout.readline)
            assert line, (self._folder / "process.log").read_text()[-2000:]
            self._client = await Client.connect(Path(json.loads(line)["socket"]))
        except BaseException:
            await self.kill()
            raise
        return self

    async def kill(self) -> None:
        """SIGKILL; twice is as good as once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await asyncio.to_thread(process.communicate)
        client, self._client = self._client, None
        if client is not None:
            await client.close()
