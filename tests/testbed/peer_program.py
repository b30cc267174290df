"""A Lightning node of our own few hundred lines around a published library: started, driven, stopped by its pid.

Such a program is a ``LightningPeer``. It gets its settings as JSON in its one argument, obeys commands on a loopback
port (a line of JSON each, answered by one), keeps all it has below its folder and ends when its stdin does.
"""

import hashlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.interop.peer import ChannelKind, Paid, PeerChannel, PeerRefused
from tests.testbed.bitcoind import Bitcoind, free_port
from tests.testbed.cache import Unavailable

START_SECONDS = 60
STOP_SECONDS = 20
DATA_LOST = "We have fallen behind"
"""In LDK's last words when it learns that it runs on an old copy of its data."""
HELD_SECONDS = 10
NOTHING_HELD = "nothing was paid"
"""How both programs begin their refusal to settle or cancel what no HTLC has come for."""


class PeerDied(Exception):
    """The program is gone although nobody stopped it; the text is the end of its log."""


class PeerProgram:
    """The driver; a subclass names the program and says how it is run."""

    name: str

    def __init__(self, folder: Path, bitcoind: Bitcoind) -> None:
        self.folder = folder
        self.host = "127.0.0.1"
        self.port = free_port()
        self.bitcoind = bitcoind
        self._control_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._info: dict[str, str] = {}

    def command(self) -> list[str]:
        """How the program is run, without its settings. ``Unavailable`` if it cannot be had."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder / "data"),
            "port": self.port,
            "control_port": self._control_port,
            "rpc_port": self.bitcoind.port,
            "rpc_user": self.bitcoind.user,
            "rpc_password": self.bitcoind.password,
        }

    # -- process -----------------------------------------------------------------------------------------------------

    def start(self) -> "PeerProgram":
        """Returns also when it stopped at once because a peer proved that its data is old: LDK does so on purpose."""
        words = self.command()
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*words, json.dumps(self.settings())], stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._await_control_port()
            self._info = self.call("info")
            self.wait(lambda: self.height() == self.bitcoind.rpc("getblockcount"), START_SECONDS, "to have the tip")
        except PeerDied:
            if DATA_LOST not in self.log_tail(100):
                raise
        except BaseException:
            self.kill()
            raise
        return self

    def _await_control_port(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection((self.host, self._control_port), 1).close()
                return
            except OSError:
                if self._process is None or self._process.poll() is not None:
                    raise Unavailable(f"{self.name} does not start: {self.log_tail()}") from None
                if time.monotonic() > deadline:
                    raise Unavailable(f"{self.name} does not answer: {self.log_tail()}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process is None:
            return
        try:
            self.call("stop", timeout=5)
        except (OSError, PeerRefused, PeerDied):
            pass
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    @property
    def _log(self) -> Path:
        return self.folder / "peer.log"

    def log_tail(self, lines: int = 40) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def save_state(self, copy: Path) -> None:
        """Copy all it has on disk; only while it is not running."""
        self._not_running()
        shutil.copytree(self.folder / "data", copy)

    def restore_state(self, copy: Path) -> None:
        """Put an older copy back, as someone would who restores a backup too late."""
        self._not_running()
        shutil.rmtree(self.folder / "data")
        shutil.copytree(copy, self.folder / "data")

    def _not_running(self) -> None:
        if self._process is not None:
            raise RuntimeError(f"{self.name} runs: stop or kill it first")

    # -- commands ----------------------------------------------------------------------------------------------------

    def call(self, method: str, *, timeout: float = 60.0, **params: Any) -> Any:
        """One command. ``PeerRefused`` with the peer's reason, ``PeerDied`` if it went down over it."""
        question = json.dumps({"method": method, "params": params}).encode() + b"\n"
        try:
            with socket.create_connection((self.host, self._control_port), timeout) as connection:
                connection.sendall(question)
                line = connection.makefile("rb").readline()
        except TimeoutError:
            raise PeerRefused(f"{method}: no answer within {timeout} s") from None
        except OSError as error:
            raise self._died(method) or error from None
        if not line:
            raise self._died(method) or PeerDied(f"{self.name} dropped {method}: {self.log_tail()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerRefused(answer["error"])
        return answer["result"]

    def _died(self, method: str) -> PeerDied | None:
        process = self._process
        if process is None:
            return PeerDied(f"{self.name} does not run: {method}")
        try:
            code = process.wait(2)
        except subprocess.TimeoutExpired:
            return None
        return PeerDied(f"{self.name} died ({code}) on {method}: {self.log_tail()}")

    def wait(self, reached: Callable[[], object], seconds: float = 30.0, what: str = "") -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} takes too long {what}: {self.log_tail()}")
            time.sleep(0.02)

    @property
    def version(self) -> str:
        return self._info["version"]

    @property
    def node_id(self) -> str:
        return self._info["node_id"]

    def height(self) -> int:
        return int(self.call("height"))

    def new_address(self) -> str:
        return str(self.call("new_address"))

    def confirmed_sat(self) -> int:
        return int(self.call("confirmed_sat"))

    def set_feerate(self, sat_per_kw: int) -> None:
        self.call("set_feerate", sat_per_kw=sat_per_kw)

    def connect(self, node_id: str, host: str, port: int) -> None:
        self.call("connect", node_id=node_id, host=host, port=port)

    def disconnect(self, node_id: str) -> None:
        self.call("disconnect", node_id=node_id)

    def connected(self) -> list[str]:
        return list(self.call("connected"))

    def open_channel(
        self,
        node_id: str,
        host: str,
        port: int,
        sat: int,
        *,
        push_sat: int = 0,
        public: bool = False,
        kind: ChannelKind = ChannelKind.ANCHORS,
        close_address: str | None = None,
    ) -> str:
        self.connect(node_id, host, port)
        funding: str = self.call(
            "open_channel",
            node_id=node_id,
            host=host,
            port=port,
            sat=sat,
            push_sat=push_sat,
            public=public,
            kind=kind.value,
            close_address=close_address,
        )
        self.wait(lambda: funding.partition(":")[0] in self.bitcoind.rpc("getrawmempool"), what="to broadcast")
        return funding

    def channels(self) -> list[PeerChannel]:
        return [self._channel(found) for found in self.call("channels")]

    def _channel(self, found: dict[str, Any]) -> PeerChannel:
        known = {name: found[name] for name in PeerChannel.__struct_fields__ if name in found}
        if found.get("kind") is not None:
            known["kind"] = ChannelKind(found["kind"])
        return PeerChannel(**known)

    def close_channel(self, funding: str, *, force: bool = False, sat_per_vbyte: int | None = None) -> None:
        sat_per_kw = None if sat_per_vbyte is None else sat_per_vbyte * 250
        self.call("close_channel", funding=funding, force=force, sat_per_kw=sat_per_kw)

    def create_invoice(self, msat: int | None, memo: str = "", *, expiry: int = 3600) -> str:
        return str(self.call("create_invoice", msat=msat, memo=memo, expiry=expiry, payment_hash=None))

    def invoice_paid_msat(self, payment_hash: str) -> int:
        return int(self.call("invoice_paid_msat", payment_hash=payment_hash))

    def pay(self, bolt11: str, *, timeout: float = 30.0, msat: int | None = None) -> Paid:
        """``msat`` for an invoice that names no amount."""
        payment_hash = self.call("start_payment", bolt11=bolt11, msat=msat)
        deadline = time.monotonic() + timeout
        while (paid := self.payment(payment_hash)) is None:
            if time.monotonic() > deadline:
                return Paid(ok=False, reason=f"still in flight after {timeout} s")
            time.sleep(0.02)
        return paid

    def start_payment(self, bolt11: str) -> None:
        self.call("start_payment", bolt11=bolt11, msat=None)

    def payment(self, payment_hash: str) -> Paid | None:
        found = self.call("payment", payment_hash=payment_hash)
        return None if found is None else Paid(**found)

    def create_hold_invoice(self, payment_hash: str, msat: int) -> str:
        return str(self.call("create_invoice", msat=msat, memo="hold", expiry=3600, payment_hash=payment_hash))

    def settle_hold_invoice(self, preimage: str) -> None:
        payment_hash = hashlib.sha256(bytes.fromhex(preimage)).hexdigest()
        self._when_held("settle_hold_invoice", payment_hash=payment_hash, preimage=preimage)

    def cancel_hold_invoice(self, payment_hash: str) -> None:
        self._when_held("cancel_hold_invoice", payment_hash=payment_hash)

    def _when_held(self, method: str, **params: str) -> None:
        """An HTLC is the node's to claim a moment after it is in the channel, and again a moment after a restart."""
        deadline = time.monotonic() + HELD_SECONDS
        while True:
            try:
                self.call(method, **params)
                return
            except PeerRefused as error:
                if not str(error).startswith(NOTHING_HELD) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
