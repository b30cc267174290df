"""A Lightning node of our own few hundred lines around a published library: started, driven, stopped by its pid.

Such a program is a ``LightningPeer``. It gets its settings as JSON in its one argument, obeys commands on a loopback
port (a line of JSON each, answered by one), keeps all it has below its folder and ends when its stdin does.
"""

import hashlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import msgspec

from tests.interop.peer import ChannelKind, Opening, Paid, PeerChannel, PeerRefused
from tests.testbed.bitcoind import Bitcoind, free_port
from tests.testbed.cache import Unavailable
from tests.testbed.program import PATIENCE, Program

DYING_SECONDS = 20
"""Between the end of its connections and its own."""
DATA_LOST = "We have fallen behind"
"""In LDK's last words when it learns that it runs on an old copy of its data."""
NOTHING_HELD = "nothing was paid"
"""How both programs begin their refusal to settle or cancel what no HTLC has come for."""


class PeerDied(Exception):
    """The program is gone although nobody stopped it; the text is the end of its log."""


class PeerProgram:
    """The driver; a subclass names the program and says how it is run."""

    name: str

    def __init__(self, folder: Path, bitcoind: Bitcoind) -> None:
        self.folder = self.home = folder
        self.host = "127.0.0.1"
        self.port = free_port()
        self.bitcoind = bitcoind
        self._control_port = free_port()
        self._program = Program(self.name, folder / "peer.log")
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
        self._program.start([*self.command(), json.dumps(self.settings())])
        try:
            self._program.wait(self._serves, "to serve")
            self._info = self.call("info")
            self._program.wait(lambda: self.height() == self.bitcoind.rpc("getblockcount"), "to have the tip")
        except PeerDied as error:
            if DATA_LOST not in self.log_tail(100):
                self.kill()
                raise Unavailable(f"{self.name} does not start: {error}") from None
        except BaseException:
            self.kill()
            raise
        return self

    def _serves(self) -> bool:
        try:
            socket.create_connection((self.host, self._control_port), PATIENCE).close()
        except OSError:
            if not self._program.runs:
                raise PeerDied(f"{self.name} is gone: {self.log_tail()}") from None
            return False
        return True

    def stop(self) -> None:
        if self._program.started:
            try:
                self.call("stop", timeout=5)
            except (OSError, PeerRefused, PeerDied):
                pass
            self._program.ends_by_itself(PATIENCE)
            self.kill()

    def kill(self) -> None:
        self._program.kill()

    def log_tail(self, lines: int = 40) -> str:
        return self._program.log_tail(lines)

    # -- commands ----------------------------------------------------------------------------------------------------

    def call(self, method: str, *, timeout: float = PATIENCE, **params: Any) -> Any:
        """One command. ``PeerRefused`` with the peer's reason, ``PeerDied`` if it went down over it."""
        question = json.dumps({"method": method, "params": params}).encode() + b"\n"
        try:
            with socket.create_connection((self.host, self._control_port), timeout) as connection:
                connection.sendall(question)
                line = connection.makefile("rb").readline()
        except TimeoutError:
            raise PeerRefused(f"{method}: no answer within {timeout:g} s") from None
        except OSError as error:
            raise self._died(method) or error from None
        if not line:
            raise self._died(method) or PeerDied(f"{self.name} dropped {method}: {self.log_tail()}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerRefused(answer["error"])
        return answer["result"]

    def _died(self, method: str) -> PeerDied | None:
        if not self._program.started:
            return PeerDied(f"{self.name} does not run: {method}")
        code = self._program.ends_by_itself(DYING_SECONDS)
        return None if code is None else PeerDied(f"{self.name} died ({code}) on {method}: {self.log_tail()}")

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

    def open_channel(self, opening: Opening) -> str:
        self.connect(opening.node_id, opening.host, opening.port)
        funding: str = self.call("open_channel", **msgspec.to_builtins(opening))
        self._program.wait(lambda: funding.partition(":")[0] in self.bitcoind.rpc("getrawmempool"), "to broadcast")
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

    def pay(self, bolt11: str, *, timeout: float = PATIENCE) -> Paid:
        payment_hash = self.call("start_payment", bolt11=bolt11)
        deadline = time.monotonic() + timeout
        while (paid := self.payment(payment_hash)) is None:
            if time.monotonic() > deadline:
                return Paid(ok=False, reason=f"still in flight after {timeout:g} s")
            time.sleep(0.02)
        return paid

    def start_payment(self, bolt11: str) -> None:
        self.call("start_payment", bolt11=bolt11)

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
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.call(method, **params)
                return
            except PeerRefused as error:
                if not str(error).startswith(NOTHING_HELD) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
