"""One node of ``pay_pair`` in a process of its own, told what to do by JSON lines on stdin."""

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import structlog
from leyden.bitcoin import Network
from leyden.channel import ChannelPolicy
from leyden.node import NO_RESERVE, Node, NodeConfig, Services
from leyden.types import ChannelId, Msat, NodeId, Sat
from leyden_inmemory import InMemoryKeyManager
from leyden_regtest.client import RegtestClient
from leyden_sqlite.store import SqliteStore
from leyden_wallet.wallet import OnchainWallet

from benchmarks.sampling import Sampler

SAMPLER = Sampler()


class SlowStore:
    """A store on a disk whose sync takes ``delay`` seconds longer."""

    inline = True

    def __init__(self, store: SqliteStore, delay: float) -> None:
        self._store = store
        self._delay = delay

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, puts: Any, deletes: Any, epoch: int) -> None:
        await self._store.commit(puts, deletes, epoch)
        time.sleep(self._delay)  # noqa: ASYNC251  (a slow sync blocks the loop thread, as a real one does)


async def main(folder: Path, socket: Path, seed: str, delay_ms: float) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    keys, chain = InMemoryKeyManager(bytes.fromhex(seed), Network.REGTEST), RegtestClient(socket)
    store: Any = SqliteStore(folder / "node.sqlite")  # Any: a SlowStore hands on what it has no method for
    if delay_ms:
        store = SlowStore(store, delay_ms / 1000)
    services = Services(
        store=store,
        chain_source=chain,
        broadcasters=[chain],
        fee_estimators=[chain],
        wallet=OnchainWallet(),
        node_identity=keys,
        channel_signer=keys.channel_signer,
        onchain_signer=keys,
        destinations=keys,
        payment_approval=keys,
    )
    policy = ChannelPolicy(minimum_depth=1, max_accepted_htlcs=483, max_dust_exposure_msat=Msat(5_000_000_000))
    config = NodeConfig(network=Network.REGTEST, listen=("127.0.0.1", 0), policy=policy, anchor_reserve=NO_RESERVE)
    node = await Node.start(config, services)
    loop = asyncio.get_running_loop()
    while True:
        line = await loop.run_in_executor(None, sys.stdin.readline)
        if not line:
            break
        command, *arguments = json.loads(line)
        print(json.dumps(await answer(node, command, arguments)), flush=True)
    await node.stop()


def _is_answered(transaction: dict[str, str | int]) -> bool:
    return any(transaction[said] for said in ("confirmed_height", "accepted_by", "refused"))


async def answer(node: Node, command: str, arguments: list[Any]) -> Any:
    match command:
        case "info":
            return {"address": node.info().address, "deposit": await node.new_address(), "height": node.info().height}
        case "connect":
            node_id, _, address = arguments[0].partition("@")
            host, _, port = address.rpartition(":")
            await node.connect(NodeId(bytes.fromhex(node_id)), host, int(port))
        case "open":
            channel_id = await node.open_channel(NodeId(bytes.fromhex(arguments[0])), Sat(arguments[1]))
            # Whoever mines next must find the funding transaction in the mempool.
            while any(not _is_answered(each) for each in node.transactions()):  # noqa: ASYNC110 (no event tells)
                await asyncio.sleep(0.01)
            return channel_id.hex()
        case "usable":
            return sum(channel.usable for channel in node.channels())
        case "balance":
            return node.wallet_balance().confirmed
        case "invoices":
            made = [await node.create_invoice(Msat(arguments[1]), "pay_pair") for _ in range(arguments[0])]
            return [invoice.bolt11 for invoice in made]
        case "pay":
            return await pay_all(node, *arguments)
        case "usage":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            return {"cpu": usage.ru_utime + usage.ru_stime, "rss_mib": _rss_mib(), "commits": node.core.engine.commits}
        case "sample":
            SAMPLER.start()
        case "samples":
            SAMPLER.stop()
            return SAMPLER.take()
        case "close":
            await node.close_channel(ChannelId(bytes.fromhex(arguments[0])))
    return None


async def pay_all(node: Node, invoices: list[str], in_flight: int) -> dict[str, Any]:
    """Pay every invoice with ``in_flight`` workers; seconds of each payment."""
    queue, latencies = list(reversed(invoices)), []

    async def worker() -> None:
        while queue:
            bolt11 = queue.pop()
            began = time.perf_counter()
            result = await node.pay(bolt11)
            if result.status != "succeeded":
                raise SystemExit(f"a payment failed: {result.failure}")
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return {"seconds": time.perf_counter() - began, "latencies": latencies}


def _rss_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])))
