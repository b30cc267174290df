"""``leyden-regtest``: serve a chain, and drive one from the command line."""

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec
from leyden.bitcoin import Network, encode_address
from leyden.types import LeydenError

from leyden_regtest import protocol as p
from leyden_regtest.client import call


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, 2 for a problem that the last line on stderr explains."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "serve":
            return _serve(options)
        print(asyncio.run(_ask(options)))
    except LeydenError as error:
        print(f"leyden-regtest: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="leyden-regtest", description="An embedded regtest chain for Leyden.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="own a chain and serve it until SIGTERM")
    serve.add_argument("--dir", type=Path, required=True, help="the chain's folder (made if new)")
    serve.add_argument("--socket", type=Path, required=True, help="Unix socket to listen on, in a folder of mode 0700")
    serve.add_argument("--blocks", type=int, default=110, help="blocks of a new chain (default 110)")
    serve.add_argument("--feerate", type=int, default=1000, help="constant estimate, sat per 1000 weight")
    verbs = {
        "info": "height, tip, mempool",
        "mine": "mine blocks",
        "faucet": "pay from the faucet",
        "reorg": "replace the newest blocks",
        "stop": "stop the server",
    }
    made = {name: commands.add_parser(name, help=text) for name, text in verbs.items()}
    for verb in made.values():
        verb.add_argument("--socket", type=Path, required=True)
    made["mine"].add_argument("blocks", type=int, nargs="?", default=1)
    made["mine"].add_argument("--address", help="who gets the coinbase (default: the faucet)")
    made["faucet"].add_argument("address")
    made["faucet"].add_argument("sat", type=int)
    made["reorg"].add_argument("depth", type=int)
    made["reorg"].add_argument("--extra", type=int, default=1, help="how much longer the new branch is (default 1)")
    made["reorg"].add_argument("--forget", action="store_true", help="do not return lost transactions to the mempool")
    return parser


def _serve(options: argparse.Namespace) -> int:
    try:
        from leyden_regtest.server import serve
    except ImportError as error:
        print(f"leyden-regtest: the kernel is missing: {error} (pip install py-bitcoinkernel)", file=sys.stderr)
        return 2

    asyncio.run(
        serve(
            options.dir,
            options.socket,
            blocks=options.blocks,
            feerate_per_kw=options.feerate,
            ready=lambda line: print(line, flush=True),
        )
    )
    return 0


async def _ask(options: argparse.Namespace) -> str:
    """Do what a verb asks; the text to print."""
    socket: Path = options.socket
    match options.command:
        case "mine":
            hashes = await call(socket, p.Mine(blocks=options.blocks, address=options.address), list[str])
            return "\n".join(hashes)
        case "faucet":
            paid = await call(socket, p.FaucetPay(address=options.address, sat=options.sat), p.TransactionResult)
            return paid.txid
        case "reorg":
            request = p.Reorg(depth=options.depth, extra=options.extra, forget=options.forget)
            return "\n".join(await call(socket, request, list[str]))
        case "stop":
            await call(socket, p.Stop(), type(None))
            return "stopping"
    info = await call(socket, p.GetInfo(), p.ChainInfo)
    facts = msgspec.structs.asdict(info)
    facts["faucet_address"] = encode_address(bytes.fromhex(info.faucet_script), Network.REGTEST)
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


if __name__ == "__main__":
    sys.exit(main())
