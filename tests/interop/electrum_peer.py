"""Electrum as a ``LightningPeer``: its daemon and the Electrum server that it follows the chain through."""

import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from leyden.bitcoin import Network
from leyden.invoice import parse_invoice

from tests.interop.peer import ChannelKind, NotSupported, Opening, Paid, PeerChannel, PeerRefused
from tests.testbed.bitcoind import Bitcoind
from tests.testbed.electrum import Electrum, ElectrumError
from tests.testbed.electrum_server import ElectrumServer
from tests.testbed.program import PATIENCE

BTC = 100_000_000
LONG = 3600.0
SMALLEST_MSAT = 100
"""It tries to split every payment in up to four parts of whole msat and never ends when there is nothing to split."""
FEE_TARGETS = ("1", "2", "5", "10", "25", "144", "1008")


def _btc(sat: int) -> str:
    return f"{sat / BTC:.8f}"


class ElectrumPeer:
    """See ``tests.interop.peer.LightningPeer``."""

    name = "electrum"

    def __init__(self, folder: Path, bitcoind: Bitcoind) -> None:
        self._server = ElectrumServer(folder / "server", bitcoind)
        # Without forwarding it makes no public channels.
        self.electrum = Electrum(folder / "electrum", self._server, settings={"lightning_forward_payments": True})
        self.home = self.electrum.folder
        self.host = "127.0.0.1"
        self._node_id = ""
        self._payments: dict[str, Future[Paid]] = {}
        self._requests: dict[str, str] = {}
        self._held: set[str] = set()
        self._served = False

    @property
    def version(self) -> str:
        return str(self._rpc("version"))

    @property
    def node_id(self) -> str:
        self._node_id = self._node_id or self.electrum.node_id
        return self._node_id

    @property
    def port(self) -> int:
        return self.electrum.port

    def start(self) -> "ElectrumPeer":
        if not self._served:
            self._server.start()
            self._served = True
        self.electrum.start()
        return self

    def stop(self) -> None:
        self.electrum.stop()

    def close(self) -> None:
        """Everything that ``start`` started."""
        self.electrum.stop()
        self._server.stop()

    def kill(self) -> None:
        self.electrum.kill()

    def log_tail(self, lines: int = 40) -> str:
        text = (self.home / "stdout.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _rpc(self, method: str, *, seconds: float = PATIENCE, **params: Any) -> Any:
        try:
            return self.electrum.rpc(method, timeout=seconds, **params)
        except ElectrumError as error:
            raise PeerRefused(f"electrum {method}: {error}") from None

    # -- chain and wallet ----------------------------------------------------------------------------------------------

    def height(self) -> int:
        return self.electrum.height()

    def new_address(self) -> str:
        return str(self._rpc("createnewaddress"))

    def confirmed_sat(self) -> int:
        return self.electrum.confirmed_sat()

    def set_feerate(self, sat_per_kw: int) -> None:
        """Not below 1250: that is its floor. A funder of an anchor channel then pays half as much again."""
        self._rpc("setconfig", key="test_disable_automatic_fee_eta_update", value=True)
        self._rpc("test_inject_fee_etas", fee_est=str({int(target): sat_per_kw * 4 for target in FEE_TARGETS}))

    # -- peers ---------------------------------------------------------------------------------------------------------

    def connect(self, node_id: str, host: str, port: int) -> None:
        self._rpc("add_peer", connection_string=f"{node_id}@{host}:{port}")

    def disconnect(self, node_id: str) -> None:
        raise NotSupported("Electrum has no command that ends a connection")

    def connected(self) -> list[str]:
        return [peer["node_id"] for peer in self._rpc("list_peers") if peer["initialized"]]

    # -- channels ------------------------------------------------------------------------------------------------------

    def before_open(self, kind: ChannelKind) -> None:
        """It opens and accepts channels without anchors only when told so for a test."""
        self._rpc("setconfig", key="test_ln_open_srk_channels", value=kind is ChannelKind.STATIC_REMOTEKEY)

    def open_channel(self, opening: Opening) -> str:
        if opening.close_address is not None:
            raise NotSupported("Electrum never commits to a shutdown script on opening")
        self.before_open(opening.kind)
        return str(
            self._rpc(
                "open_channel",
                connection_string=f"{opening.node_id}@{opening.host}:{opening.port}",
                amount=_btc(opening.sat),
                push_amount=_btc(opening.push_sat),
                public=opening.public,
            )
        )

    def channels(self) -> list[PeerChannel]:
        public = {channel["channel_point"] for channel in self._rpc("list_channels", public=True)}
        return [
            self._view(channel, channel["channel_point"] in public)
            for channel in self.electrum.channels()
            if channel["state"] not in ("REDEEMED",)
        ]

    def _view(self, channel: dict[str, Any], public: bool) -> PeerChannel:
        inflight = channel["local_unsettled_sent"] or channel["remote_unsettled_sent"]
        htlcs = self._rpc("list_channel_htlcs", channel_point=channel["channel_point"])["inflight"]
        return PeerChannel(
            funding=channel["channel_point"],
            remote_node_id=channel["remote_pubkey"],
            capacity_sat=channel["capacity"],
            local_msat=channel["local_balance"] * 1000,
            remote_msat=channel["remote_balance"] * 1000,
            usable=channel["state"] == "OPEN" and channel["peer_state"] == "GOOD",
            htlcs=max(len(htlcs), int(bool(inflight))),
            public=public,
            short_channel_id=channel["short_channel_id"],
            closing_txid=channel["closing_txid"],
        )

    def close_channel(self, funding: str, *, force: bool = False, sat_per_vbyte: int | None = None) -> None:
        self._rpc("setconfig", key="test_shutdown_fee", value=None if sat_per_vbyte is None else sat_per_vbyte * 169)
        if force:
            self._rpc("close_channel", channel_point=funding, force=True)
            return
        # The command returns when all is agreed; whoever calls has work to do until then.
        work = threading.Thread(target=self._close_quietly, args=(funding,), daemon=True)
        work.start()

    def request_force_close(self, funding: str) -> None:
        """After it lost data it says nothing of a channel until its user asks for this."""
        self._rpc("request_force_close", channel_point=funding)

    def _close_quietly(self, funding: str) -> None:
        try:
            self.electrum.rpc("close_channel", timeout=60, channel_point=funding)
        except (OSError, ElectrumError):
            pass  # the chain tells; the daemon may be killed over its answer

    # -- payments ------------------------------------------------------------------------------------------------------

    def create_invoice(self, msat: int | None, memo: str = "", *, expiry: int = 3600) -> str:
        if msat is not None and msat % 1000:
            raise NotSupported("Electrum's invoices are in whole satoshi")
        made = self._rpc("add_request", amount=_btc((msat or 0) // 1000), memo=memo, expiry=expiry, lightning=True)
        bolt11 = str(made["lightning_invoice"])
        self._requests[parse_invoice(bolt11, Network.REGTEST).payment_hash.hex()] = made["request_id"]
        return bolt11

    def invoice_paid_msat(self, payment_hash: str) -> int:
        if payment_hash in self._held:
            found = self._rpc("check_hold_invoice", payment_hash=payment_hash)
            return int(found["received_amount_sat"]) * 1000 if found["status"] == "settled" else 0
        for payment in self._rpc("lightning_history"):
            if payment["payment_hash"] == payment_hash:
                return int(payment["amount_msat"])
        return 0

    def pay(self, bolt11: str, *, timeout: float = PATIENCE) -> Paid:
        amount = parse_invoice(bolt11, Network.REGTEST).amount_msat
        if amount is not None and amount < SMALLEST_MSAT:
            raise NotSupported("Electrum hangs for ever when it pays a few msat")
        try:
            result = self._rpc("lnpay", seconds=timeout, invoice=bolt11)
        except PeerRefused as error:
            return Paid(ok=False, reason=str(error))
        except TimeoutError:
            return Paid(ok=False, reason="still in flight")
        if not result["success"]:
            return Paid(ok=False, reason="; ".join(str(attempt) for attempt in result["log"]) or "no route")
        return Paid(ok=True, preimage=result["preimage"])

    def start_payment(self, bolt11: str) -> None:
        future: Future[Paid] = Future()
        self._payments[parse_invoice(bolt11, Network.REGTEST).payment_hash.hex()] = future

        def work() -> None:
            try:
                future.set_result(self.pay(bolt11, timeout=LONG))
            except Exception as error:  # the daemon was killed meanwhile
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()

    def payment(self, payment_hash: str) -> Paid | None:
        future = self._payments[payment_hash]
        if not future.done():
            return None
        if future.exception() is None:
            return future.result()
        for channel in self.electrum.channels():
            found = self._rpc("list_channel_htlcs", channel_point=channel["channel_point"])
            if any(htlc["payment_hash"] == payment_hash for htlc in found["inflight"]):
                return None
            if any(htlc["payment_hash"] == payment_hash for htlc in found["settled"]):
                preimage = self._rpc("export_lightning_preimage", payment_hash=payment_hash)
                return Paid(ok=True, preimage=preimage or "")
        return Paid(ok=False, reason="no HTLC of it is left")

    def create_hold_invoice(self, payment_hash: str, msat: int) -> str:
        if msat % 1000:
            raise NotSupported("Electrum's invoices are in whole satoshi")
        made = self._rpc("add_hold_invoice", payment_hash=payment_hash, amount=_btc(msat // 1000))
        self._held.add(payment_hash)
        return str(made["invoice"])

    def settle_hold_invoice(self, preimage: str) -> None:
        self._when_complete("settle_hold_invoice", preimage=preimage)

    def cancel_hold_invoice(self, payment_hash: str) -> None:
        self._when_complete("cancel_hold_invoice", payment_hash=payment_hash)

    def _when_complete(self, method: str, **params: str) -> None:
        """It settles nothing before it has seen the whole payment."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._rpc(method, **params)
                return
            except PeerRefused as error:
                if "incomplete" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
