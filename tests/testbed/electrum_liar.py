"""A proxy in front of a real Electrum server that alters what it says.

A lie is a function of (method, params, answer) that returns another answer; ``answer`` is ``None`` where the real
server refuses. It may be asynchronous, may raise ``Silence`` to say nothing or ``Refusal``, or return ``Raw`` bytes
to put on the wire instead. Notices pass it too, with ``notice:`` in front of their method and no params.
"""

import asyncio
import hashlib
import inspect
import json
from collections.abc import Callable
from typing import Any

from leyden.bitcoin import Transaction, TxIn, TxOut
from leyden.crypto import sha256, sha256d
from leyden.types import OutPoint, Sat, Txid

from tests.testbed.electrum_server import ElectrumServer
from tests.testbed.socks import close_writer

Lying = Callable[[str, list[Any], Any], Any]


class Silence(Exception):
    """Say nothing."""


class Raw(bytes):
    """Goes out as it is."""


class Refusal(Exception):
    """Answer with an error of this text and code."""

    def __init__(self, text: str, code: int = 2) -> None:
        super().__init__(text)
        self.code = code


class Liar:
    """Listens on ``port`` of the loopback interface until ``stop``. Set ``lie`` to begin, ``None`` to be honest."""

    def __init__(self, server: ElectrumServer, lie: Lying | None = None) -> None:
        self.server = server
        self.lie = lie
        self.port = 0
        self.asked: list[str] = []
        """Methods that were asked for."""
        self.connections = 0
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def start(self) -> "Liar":
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 26)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        self._stopped = True
        if self._listener is not None:
            self._listener.close()
        await self.hang_up()
        if self._listener is not None:
            await self._listener.wait_closed()

    async def hang_up(self) -> None:
        """End every connection; new ones are taken."""
        while self._tasks:
            await asyncio.sleep(0.01)  # one that is just being made is ended when it is there
            for task in tuple(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._stopped:
            writer.close()
            return
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self.server.port, limit=1 << 26)
        except (OSError, asyncio.CancelledError):  # the real server is away, or we hang up at this very moment
            await close_writer(writer)
            return
        await self._pass_on(reader, writer, *upstream)

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        asked: dict[int, tuple[str, list[Any]]] = {}
        answering = asyncio.ensure_future(self._answer(up_reader, writer, asked))
        try:
            while line := await reader.readline():
                question = json.loads(line)
                asked[question["id"]] = question["method"], question["params"]
                self.asked.append(question["method"])
                up_writer.write(line)
        except (OSError, asyncio.CancelledError):
            pass  # hung up, and the task must not look as if something had failed
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            for end in (writer, up_writer):
                await close_writer(end)

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: dict[int, tuple[str, list[Any]]]
    ) -> None:
        try:
            while line := await reader.readline():
                writer.write(await self._altered(line, asked))
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def _altered(self, line: bytes, asked: dict[int, tuple[str, list[Any]]]) -> bytes:
        message = json.loads(line)
        lie = self.lie
        if lie is None:
            return line
        try:
            if "method" in message:
                message["params"] = await _told(lie, f"notice:{message['method']}", [], message["params"])
            elif "result" in message:
                method, params = asked.pop(message["id"])
                message["result"] = await _told(lie, method, params, message["result"])
            elif (told := await _told(lie, *asked.pop(message["id"]), None)) is not None:
                del message["error"]
                message["result"] = told
        except Silence:
            return b""
        except Refusal as refusal:
            message.pop("result", None)
            message["error"] = {"code": refusal.code, "message": str(refusal)}
        for part in (message.get("result"), message.get("params")):
            if isinstance(part, Raw):
                return part
        return json.dumps(message).encode() + b"\n"


async def _told(lie: Lying, method: str, params: list[Any], answer: Any) -> Any:
    told = lie(method, params, answer)
    return await told if inspect.isawaitable(told) else told


# -- headers -----------------------------------------------------------------------------------------------------------

EASIEST = 0x207FFFFF


def mined(header: bytes, *, valid: bool = True) -> bytes:
    """``header`` with a nonce that meets its difficulty, or one that does not."""
    bits = int.from_bytes(header[72:76], "little")
    target = (bits & 0x7FFFFF) << 8 * ((bits >> 24) - 3)
    for nonce in range(1 << 20):
        tried = header[:76] + nonce.to_bytes(4, "little")
        if (int.from_bytes(sha256d(tried), "little") <= target) is valid:
            return tried
    raise AssertionError("no such nonce")


def with_bits(header: bytes, bits: int) -> bytes:
    return mined(header[:72] + bits.to_bytes(4, "little") + header[76:])


class FalseHeader:
    """The block at ``height`` is shown as ``forge(header)``, as the tip and among headers."""

    def __init__(self, height: int, forge: Callable[[bytes], bytes]) -> None:
        self.height = height
        self.forge = forge

    def __call__(self, method: str, params: list[Any], answer: Any) -> Any:
        if method == "blockchain.headers.subscribe" and answer["height"] == self.height:
            return {**answer, "hex": self._forged(answer["hex"])}
        if method == "blockchain.block.headers":
            place = self.height - params[0]
            if 0 <= place < answer["count"]:
                if "headers" in answer:
                    shown = list(answer["headers"])
                    shown[place] = self._forged(shown[place])
                    return {**answer, "headers": shown}
                whole = answer["hex"]
                at = place * 160
                return {**answer, "hex": whole[:at] + self._forged(whole[at : at + 160]) + whole[at + 160 :]}
        return answer

    def _forged(self, shown: str) -> str:
        return self.forge(bytes.fromhex(shown)).hex()


class OldTip:
    """Nothing above ``height`` exists."""

    def __init__(self, server: ElectrumServer, height: int) -> None:
        self.server = server
        self.height = height

    def __call__(self, method: str, params: list[Any], answer: Any) -> Any:
        if method == "blockchain.headers.subscribe" and answer["height"] > self.height:
            found = self.server.ask(("blockchain.block.header", [self.height]))
            return {"height": self.height, "hex": found}
        if method.startswith("notice:"):
            raise Silence
        if method == "blockchain.block.headers":
            count = max(0, min(answer["count"], self.height + 1 - params[0]))
            if "headers" in answer:
                return {**answer, "count": count, "headers": answer["headers"][:count]}
            return {**answer, "count": count, "hex": answer["hex"][: count * 160]}
        return _without(self.server, method, params, answer, lambda entry: entry["height"] > self.height)


class Hiding:
    """Transactions with these ids (as shown) are in no history; without any, histories are empty."""

    def __init__(self, server: ElectrumServer, *txids: str) -> None:
        self.server = server
        self.txids = txids

    def __call__(self, method: str, params: list[Any], answer: Any) -> Any:
        if method.startswith("notice:") and "headers" not in method:
            raise Silence
        return _without(
            self.server, method, params, answer, lambda entry: not self.txids or entry["tx_hash"] in self.txids
        )


def _without(
    server: ElectrumServer, method: str, params: list[Any], answer: Any, hidden: Callable[[dict[str, Any]], bool]
) -> Any:
    """Histories without the entries that are ``hidden``, and the statuses that belong to them."""
    if method.endswith(".get_history"):
        if isinstance(answer, dict):
            return {"history": [entry for entry in answer["history"] if not hidden(entry)]}
        return [entry for entry in answer if not hidden(entry)]
    if method in ("blockchain.scripthash.subscribe", "blockchain.scriptpubkey.subscribe"):
        whole = server.ask((method.replace("subscribe", "get_history"), params))
        entries = whole["history"] if isinstance(whole, dict) else whole
        return status([entry for entry in entries if not hidden(entry)])
    return answer


def status(entries: list[dict[str, Any]]) -> str | None:
    if not entries:
        return None
    text = "".join(f"{entry['tx_hash']}:{entry['height']}:" for entry in entries)
    return hashlib.sha256(text.encode()).hexdigest()


class Instead:
    """Another answer to one method; ``change(params, answer)`` makes it."""

    def __init__(self, method: str, change: Callable[[list[Any], Any], Any]) -> None:
        self.method = method
        self.change = change

    def __call__(self, method: str, params: list[Any], answer: Any) -> Any:
        return self.change(params, answer) if method == self.method and answer is not None else answer


class Invention:
    """A payment that nobody made enters the history of ``script``, with status, bytes and a proof."""

    def __init__(self, server: ElectrumServer, script: bytes, height: int) -> None:
        self.server = server
        self.scripthash = sha256(script)[::-1].hex()
        self.fake = Transaction(
            version=2,
            inputs=(TxIn(prevout=OutPoint(Txid(b"\x17" * 32), 7), sequence=0),),
            outputs=(TxOut(value=Sat(5_000_000), script=script),),
            locktime=0,
        )
        self.entry = {"tx_hash": self.fake.txid[::-1].hex(), "height": height}

    def __call__(self, method: str, params: list[Any], answer: Any) -> Any:
        match method:
            case "blockchain.scripthash.get_history" if params[0] == self.scripthash:
                return [*answer, self.entry]
            case "blockchain.scripthash.subscribe" if params[0] == self.scripthash:
                return status([*self.server.ask(("blockchain.scripthash.get_history", params)), self.entry])
            case "blockchain.transaction.get" if params[0] == self.entry["tx_hash"]:
                return self.fake.serialize().hex()
            case "blockchain.transaction.get_merkle" if params[0] == self.entry["tx_hash"]:
                return {"block_height": self.entry["height"], "merkle": [], "pos": 0}
        return answer


class Unproved(Invention):
    """The same without a proof."""

    def __call__(self, method: str, params: list[Any], answer: Any) -> Any:
        if method == "blockchain.transaction.get_merkle":
            return answer
        return super().__call__(method, params, answer)


class Refused:
    """Errors where the honest server has answers."""

    def __init__(self, method: str) -> None:
        self.method = method

    def __call__(self, method: str, params: list[Any], answer: Any) -> Any:
        if method == self.method:
            raise Refusal("I would rather not")
        return answer
