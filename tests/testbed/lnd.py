"""A real LND on regtest: built from its Go module, driven over REST, stopped by its pid.

Everything the node keeps is below ``home``: copied while it is stopped and put back later, it is an old backup.
"""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.interop.peer import ChannelKind, NotSupported, Opening, Paid, PeerChannel, PeerRefused
from tests.testbed import golang
from tests.testbed.bitcoind import Bitcoind, free_port
from tests.testbed.cache import Unavailable
from tests.testbed.lnd_rest import Rest, b64, b64_path
from tests.testbed.program import PATIENCE, Program

NAME = "lnd"
SOURCES = Path(__file__).parent / NAME
TAGS = ("chainrpc", "dev", "invoicesrpc", "lowscrypt", "peersrpc", "signrpc", "walletrpc")
"""The RPCs that are not compiled in otherwise. ``dev`` adds ``--hodl.*``, which stalls HTLCs at chosen points;
``lowscrypt`` spares its wallet two seconds and 200 MB at each start."""
CLOSE_SECONDS = 3
CONFLICTS = ("insufficient fee", "txn-mempool-conflict", "already spent")
TIP_HOURS = 2
"""With an older tip it waits for news for ever."""
MIN_FEERATE = 253
FEERATE = 1_000
FEE_TARGETS = ("1", "2", "3", "6", "12", "25", "144", "1008")
FEE_LIMIT_MSAT = 1_000_000_000
OPTIONS = (
    *("--noseedbackup", "--no-macaroons", "--no-rest-tls", "--nobootstrap", "--maxpendingchannels=20"),
    *("--bitcoind.rpcpolling", "--bitcoind.blockpollinginterval=100ms", "--bitcoind.txpollinginterval=100ms"),
    *("--bitcoin.defaultchanconfs=3", "--bitcoin.minhtlcout=1", "--minbackoff=1s", "--maxbackoff=1s"),
    *("--trickledelay=50", "--gossip.sub-batch-delay=5ms", "--caches.rpc-graph-cache-duration=100ms"),
    *("--sweeper.batchwindowduration=1s", "--db.batch-commit-interval=10ms"),
    *("--logging.file.disable", "--debuglevel=debug,BTWL=info,BTCN=info,RPCC=info,RPCS=info,NTFN=info"),
)
PROTOCOL = (
    *("--protocol.wumbo-channels", "--protocol.option-scid-alias", "--protocol.zero-conf"),
    *("--accept-keysend", "--accept-amp"),
)
SIMPLE_CLOSE = "--protocol.rbf-coop-close"


def command() -> list[str]:
    """How to run LND; built on first use."""
    return [str(golang.build(NAME, SOURCES, TAGS))]


class _Fees:
    """What LND asks for feerates: a file of a web server. Commitments with anchors never have more than 2500."""

    def __init__(self) -> None:
        self.port = free_port()
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                targets = dict.fromkeys(FEE_TARGETS, FEERATE * 4)  # sat/kvB
                body = json.dumps({"fee_by_block_target": targets, "min_relay_feerate": MIN_FEERATE * 4}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        if self._server is None:
            self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


class Lnd:
    """See ``tests.interop.peer.LightningPeer``. ``protocol`` and ``options`` stand on its command line."""

    name = NAME

    def __init__(
        self,
        folder: Path,
        bitcoind: Bitcoind,
        *,
        options: tuple[str, ...] = (),
        protocol: tuple[str, ...] = PROTOCOL,
    ) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.host = "127.0.0.1"
        self.port, self.rest_port, self._rpc_port = free_port(), free_port(), free_port()
        self.rest = Rest(self.rest_port)
        self._bitcoind = bitcoind
        self._options = (*OPTIONS, *protocol, *options)
        self._simple_close = True
        self._fees = _Fees()
        self._program = Program("LND", folder / "stdout.log")
        self._info: dict[str, Any] = {}
        self._charted: set[str] = set()

    # -- the process ---------------------------------------------------------------------------------------------------

    def start(self) -> "Lnd":
        words = command()
        self._charted.clear()
        self._fees.start()
        self._fresh_tip()
        bitcoind = self._bitcoind
        flags = [
            f"--lnddir={self.home}",
            "--bitcoin.regtest",
            "--bitcoin.node=bitcoind",
            f"--bitcoind.rpchost=127.0.0.1:{bitcoind.port}",
            f"--bitcoind.rpcuser={bitcoind.user}",
            f"--bitcoind.rpcpass={bitcoind.password}",
            f"--listen={self.host}:{self.port}",
            f"--restlisten=127.0.0.1:{self.rest_port}",
            f"--rpclisten=127.0.0.1:{self._rpc_port}",
            f"--fee.url=http://127.0.0.1:{self._fees.port}/",
            "--alias=lnd",
        ]
        flags += [*self._options, *([SIMPLE_CLOSE] if self._simple_close else [])]
        self._program.start([*words, *flags])
        try:
            self._program.wait(self._ready, "to serve")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        self._program.end()
        self._fees.stop()

    def kill(self) -> None:
        self._program.kill()
        self._fees.stop()

    def offer_simple_close(self, offer: bool) -> None:
        """Whether it offers ``option_simple_close``, which by its own default it does not; by a restart."""
        if offer is not self._simple_close:
            self._simple_close = offer
            self.stop()
            self.start()

    def log_tail(self, lines: int = 40) -> str:
        return self._program.log_tail(lines)

    def _fresh_tip(self) -> None:
        rpc = self._bitcoind.rpc
        if rpc("getblockheader", rpc("getbestblockhash"))["time"] < time.time() - TIP_HOURS * 3600 + 600:
            self._bitcoind.mine()

    def _ready(self) -> bool:
        try:
            return self.rest.call("GET", "/v1/state")["state"] == "SERVER_ACTIVE" and self._has_tip()
        except (OSError, PeerRefused):
            if not self._program.runs:
                raise Unavailable(f"LND does not start: {self.log_tail(10)}") from None
            return False

    def _has_tip(self) -> bool:
        info = self._info = self.rest.call("GET", "/v1/getinfo")
        return bool(info["synced_to_chain"]) and int(info["block_height"]) >= self._bitcoind.rpc("getblockcount")

    # -- what it is ----------------------------------------------------------------------------------------------------

    @property
    def version(self) -> str:
        return str(self._info["version"]).split(" ")[0]

    @property
    def node_id(self) -> str:
        return str(self._info["identity_pubkey"])

    # -- chain and wallet ----------------------------------------------------------------------------------------------

    def height(self) -> int:
        """0 until its wallet has followed as well."""
        info = self.rest.call("GET", "/v1/getinfo")
        return int(info["block_height"]) if info["synced_to_chain"] else 0

    def new_address(self) -> str:
        return str(self.rest.call("GET", "/v1/newaddress?type=WITNESS_PUBKEY_HASH")["address"])

    def confirmed_sat(self) -> int:
        return int(self.rest.call("GET", "/v1/balance/blockchain")["confirmed_balance"])

    def set_feerate(self, sat_per_kw: int) -> None:
        raise NotSupported(
            "LND looks at the feerate of an open channel every 10 to 60 minutes, at random: "
            "constants of its htlcswitch, DefaultMinLinkFeeUpdateTimeout and DefaultMaxLinkFeeUpdateTimeout"
        )

    # -- peers ---------------------------------------------------------------------------------------------------------

    def connect(self, node_id: str, host: str, port: int) -> None:
        try:
            address = {"pubkey": node_id, "host": f"{host}:{port}"}
            self.rest.call("POST", "/v1/peers", {"addr": address, "perm": False, "timeout": "60"})
        except PeerRefused as error:
            if "already connected" not in str(error):
                raise
        self._program.wait(lambda: node_id in self.connected(), "to connect")

    def disconnect(self, node_id: str) -> None:
        self.rest.call("DELETE", f"/v1/peers/{node_id}")

    def connected(self) -> list[str]:
        """Those whose ``init`` it has."""
        peers = self.rest.call("GET", "/v1/peers")["peers"]
        return [peer["pub_key"] for peer in peers if peer["features"]]

    # -- channels ------------------------------------------------------------------------------------------------------

    def open_channel(self, opening: Opening) -> str:
        self._program.wait(self._has_tip, "to follow the chain")
        if opening.node_id not in self.connected():
            self.connect(opening.node_id, opening.host, opening.port)
        asked: dict[str, Any] = {
            "node_pubkey": b64(opening.node_id),
            "local_funding_amount": str(opening.sat),
            "push_sat": str(opening.push_sat),
            "private": not opening.public,
            "commitment_type": opening.kind.name.replace("STATIC_REMOTEKEY", "STATIC_REMOTE_KEY"),
            "spend_unconfirmed": True,
        }
        if opening.close_address is not None:
            asked["close_address"] = opening.close_address
        point = self.rest.call("POST", "/v1/channels", asked)
        txid = base64.b64decode(point["funding_txid_bytes"])[::-1].hex()
        return f"{txid}:{point['output_index']}"

    def channels(self) -> list[PeerChannel]:
        pending = self.rest.call("GET", "/v1/channels/pending")
        opened = self.rest.call("GET", "/v1/channels")["channels"]
        found = [_opened(channel, channel["active"] and self._in_graph(channel["chan_id"])) for channel in opened]
        for kind in ("pending_open_channels", "waiting_close_channels", "pending_force_closing_channels"):
            found += [_unopened(entry) for entry in pending[kind]]
        return found

    def _in_graph(self, channel: str) -> bool:
        """An active channel reaches the map that it finds ways on a little later; until then it pays nothing."""
        if channel not in self._charted:
            try:
                edge = self.rest.call("GET", f"/v1/graph/edge/{channel}")
            except PeerRefused:
                return False
            own = "node1_policy" if edge["node1_pub"] == self.node_id else "node2_policy"
            if edge[own] is None:
                return False
            self._charted.add(channel)
        return True

    def close_channel(self, funding: str, *, force: bool = False, sat_per_vbyte: int | None = None) -> None:
        txid, _, vout = funding.partition(":")
        words = {"force": "true"} if force else {"no_wait": "true"}
        if sat_per_vbyte is not None:
            words["sat_per_vbyte"] = str(sat_per_vbyte)
        path = f"/v1/channels/{txid}/{vout}?" + "&".join(f"{key}={value}" for key, value in words.items())
        begun, problems = threading.Event(), []

        def follow() -> None:
            """It gives up what nobody listens to."""
            try:
                with self.rest.stream("DELETE", path, timeout=600) as said:
                    for update in said:
                        if "close_instant" not in update or update["close_instant"]["num_pending_htlcs"]:
                            begun.set()
            except PeerRefused as error:
                # It tells the other side that it gives the channel up, which may be first to broadcast: as good.
                if not force or not any(words in str(error) for words in CONFLICTS):
                    problems.append(error)
            except OSError:
                pass  # stopped meanwhile
            begun.set()

        threading.Thread(target=follow, daemon=True).start()
        begun.wait(CLOSE_SECONDS)
        if problems:
            raise problems[0]

    # -- payments ------------------------------------------------------------------------------------------------------

    def create_invoice(self, msat: int | None, memo: str = "", *, expiry: int = 3600) -> str:
        asked = {"value_msat": str(msat or 0), "memo": memo, "expiry": str(expiry)}
        return str(self.rest.call("POST", "/v1/invoices", asked)["payment_request"])

    def invoice_paid_msat(self, payment_hash: str) -> int:
        invoice = self.rest.call("GET", f"/v1/invoice/{payment_hash}")
        return int(invoice["amt_paid_msat"]) if invoice["state"] == "SETTLED" else 0

    def pay(self, bolt11: str, *, timeout: float = PATIENCE) -> Paid:
        asked = self._payment(bolt11, timeout) | {"no_inflight_updates": True}
        try:
            with self.rest.stream("POST", "/v2/router/send", asked, timeout=timeout) as said:
                for update in said:
                    ended = _ended(update)
                    if ended is not None:
                        return ended
        except PeerRefused as error:
            return Paid(ok=False, reason=str(error))
        except TimeoutError:
            return Paid(ok=False, reason="still in flight")
        raise ConnectionError("LND ended a payment's news before the payment ended")

    def start_payment(self, bolt11: str) -> None:
        with self.rest.stream("POST", "/v2/router/send", self._payment(bolt11, 60)) as said:
            next(said, None)

    def _payment(self, bolt11: str, timeout: float) -> dict[str, Any]:
        # It would not try again for a while where a payment failed before; every payment of a test stands for itself.
        self.rest.call("POST", "/v2/router/mc/reset", {})
        return {
            "payment_request": bolt11,
            "fee_limit_msat": str(FEE_LIMIT_MSAT),
            "timeout_seconds": max(1, int(timeout)),
        }

    def payment(self, payment_hash: str) -> Paid | None:
        with self.rest.stream("GET", f"/v2/router/track/{b64_path(payment_hash)}") as said:
            update = next(said, None)
        return None if update is None else _ended(update)

    def create_hold_invoice(self, payment_hash: str, msat: int) -> str:
        asked = {"hash": b64(payment_hash), "value_msat": str(msat)}
        return str(self.rest.call("POST", "/v2/invoices/hodl", asked)["payment_request"])

    def settle_hold_invoice(self, preimage: str) -> None:
        """It settles nothing before it has seen the whole payment."""

        def settled() -> bool:
            try:
                self.rest.call("POST", "/v2/invoices/settle", {"preimage": b64(preimage)})
            except PeerRefused as error:
                if "still open" not in str(error):
                    raise
                return False
            return True

        self._program.wait(settled, "to see the payment")

    def cancel_hold_invoice(self, payment_hash: str) -> None:
        self.rest.call("POST", "/v2/invoices/cancel", {"payment_hash": b64(payment_hash)})


def _kind(commitment_type: str) -> ChannelKind | None:
    found = {"STATIC_REMOTE_KEY": ChannelKind.STATIC_REMOTEKEY, "ANCHORS": ChannelKind.ANCHORS}
    return found.get(commitment_type)


def _balances(channel: dict[str, Any], funder: bool, in_flight: int = 0) -> tuple[int, int]:
    """It tells whole satoshi, and takes the commitment's fee and the anchors off the funder's share: put them back."""
    capacity, local, remote = (int(channel[key]) for key in ("capacity", "local_balance", "remote_balance"))
    if funder:
        local = capacity - in_flight - remote
    else:
        remote = capacity - in_flight - local
    return local * 1000, remote * 1000


def _opened(channel: dict[str, Any], usable: bool) -> PeerChannel:
    htlcs = channel["pending_htlcs"]
    return _seen(
        channel,
        channel["remote_pubkey"],
        bool(channel["initiator"]),
        sum(int(htlc["amount"]) for htlc in htlcs),
        usable=usable,
        htlcs=len(htlcs),
        short_channel_id=_short_channel_id(int(channel["chan_id"])),
    )


def _unopened(entry: dict[str, Any]) -> PeerChannel:
    """A channel that is not open yet, or not any more."""
    channel = entry["channel"]
    funder = channel["initiator"] == "INITIATOR_LOCAL"
    closing_txid = entry.get("closing_txid") or None
    return _seen(channel, channel["remote_node_pub"], funder, usable=False, closing_txid=closing_txid)


def _seen(channel: dict[str, Any], node_id: str, funder: bool, in_flight: int = 0, **more: Any) -> PeerChannel:
    local, remote = _balances(channel, funder, in_flight)
    return PeerChannel(
        funding=channel["channel_point"],
        remote_node_id=node_id,
        capacity_sat=int(channel["capacity"]),
        local_msat=local,
        remote_msat=remote,
        kind=_kind(channel["commitment_type"]),
        public=not channel["private"],
        peer_is_funder=funder,
        **more,
    )


def _short_channel_id(number: int) -> str:
    return f"{number >> 40}x{number >> 16 & 0xFFFFFF}x{number & 0xFFFF}"


def _ended(update: dict[str, Any]) -> Paid | None:
    """The end of a payment, with what it heard of each attempt that failed."""
    if update["status"] == "SUCCEEDED":
        return Paid(ok=True, preimage=update["payment_preimage"])
    if update["status"] != "FAILED":
        return None
    heard = [attempt["failure"]["code"] for attempt in update["htlcs"] if attempt.get("failure")]
    return Paid(ok=False, reason="; ".join([update["failure_reason"], *heard]))
