"""``Client``: the typed calls of a running node's socket, many in flight over one connection."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeVar

import msgspec
from leyden.node.views import ChannelView, InvoiceView, NodeInfo, PaymentView, PeerView

from leyden_cli.errors import CliError, NoNode
from leyden_cli.rpc import protocol as p

T = TypeVar("T")
_MAX_REPLY = 64 * 1024 * 1024
_replies = msgspec.json.Decoder(p.Reply)


class CallFailed(CliError):
    """The node answered with an error: its ``code`` (``leyden_cli.rpc.protocol``) and the ``kind`` of the refusal."""

    def __init__(self, message: str, code: int, kind: str) -> None:
        super().__init__(message)
        self.code = code
        self.kind = kind


class Client:
    """``async with await Client.connect(path) as client: await client.info()``.

    Every call raises ``CallFailed`` with the node's refusal and ``NoNode`` when the connection is lost.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._last_id = 0
        self._waiting: dict[int, asyncio.Future[p.Reply]] = {}
        self._gone: CliError | None = None
        self._reading = asyncio.get_running_loop().create_task(self._read(reader))

    @classmethod
    async def connect(cls, path: Path) -> "Client":
        """``NoNode`` if nobody listens at ``path``."""
        try:
            return cls(*await asyncio.open_unix_connection(str(path), limit=_MAX_REPLY))
        except OSError as error:
            raise NoNode(f"no node answers on {path}: {error.strerror or error} (start one: `leyden start`)") from None

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass

    async def call(self, method: str, params: p.Params, result: type[T]) -> T:
        """Any method by name; ``result`` is the type of the answer."""
        if self._gone is not None:
            raise self._gone
        self._last_id += 1
        number = self._last_id
        request = p.Request(jsonrpc="2.0", method=method, params=msgspec.Raw(msgspec.json.encode(params)), id=number)
        waiting: asyncio.Future[p.Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            self._writer.write(msgspec.json.encode(request) + b"\n")
            await self._writer.drain()
            reply = await waiting
        except OSError as error:
            raise NoNode(f"the node hung up: {error}") from None
        finally:
            self._waiting.pop(number, None)
        if reply.error is not None:
            kind = reply.error.data.kind if reply.error.data is not None else ""
            raise CallFailed(reply.error.message, reply.error.code, kind)
        try:
            return msgspec.json.decode(reply.result, type=result)
        except msgspec.ValidationError as error:
            raise CliError(f"the node answers in another version's words: {error}") from None

    async def _read(self, reader: asyncio.StreamReader) -> None:
        reason = "the node hung up"
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                self._on_reply(_replies.decode(line))
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            reason = f"the connection to the node broke: {error}"
        finally:
            self._gone = NoNode(reason)
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(self._gone)

    def _on_reply(self, reply: p.Reply) -> None:
        waiting = self._waiting.get(reply.id) if isinstance(reply.id, int) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    # -- the methods ---------------------------------------------------------------------------------------------------

    async def info(self) -> NodeInfo:
        return await self.call("info", p.NoParams(), NodeInfo)

    async def peers(self) -> list[PeerView]:
        return await self.call("peers", p.NoParams(), list[PeerView])

    async def connect_peer(self, node_id: str, host: str, port: int) -> None:
        """Returns when both nodes have accepted the connection."""
        await self.call("connect", p.ConnectParams(node_id=node_id, host=host, port=port), p.Done)

    async def disconnect(self, node_id: str) -> bool:
        """Whether the peer was connected, or about to be; it is not dialled again before ``connect_peer``."""
        return (await self.call("disconnect", p.NodeParams(node_id=node_id), p.Done)).done

    async def open_channel(
        self,
        node_id: str,
        funding_sat: int,
        *,
        push_msat: int = 0,
        announce: bool = False,
        feerate_per_kw: int | None = None,
        coins: Sequence[str] = (),
    ) -> str:
        """The channel id, once the funding transaction is durable and broadcast."""
        params = p.OpenParams(
            node_id=node_id,
            funding_sat=funding_sat,
            push_msat=push_msat,
            announce=announce,
            feerate_per_kw=feerate_per_kw,
            coins=list(coins),
        )
        return (await self.call("open", params, p.OpenResult)).channel_id

    async def channels(self) -> list[ChannelView]:
        return await self.call("channels", p.NoParams(), list[ChannelView])

    async def close_channel(
        self,
        channel_id: str,
        *,
        force: bool = False,
        address: str | None = None,
        feerate_per_kw: int | None = None,
        max_fee_sat: int | None = None,
    ) -> None:
        """Returns when the decision to close is durable; follow ``channels`` or ``events`` for the end."""
        params = p.CloseParams(
            channel_id=channel_id,
            force=force,
            address=address,
            feerate_per_kw=feerate_per_kw,
            max_fee_sat=max_fee_sat,
        )
        await self.call("close", params, p.Done)

    async def invoice(
        self, amount_msat: int | None, description: str = "", *, expiry: int = 3600, label: str = ""
    ) -> InvoiceView:
        params = p.InvoiceParams(amount_msat=amount_msat, description=description, expiry=expiry, label=label)
        return await self.call("invoice", params, InvoiceView)

    async def invoices(self) -> list[InvoiceView]:
        return await self.call("invoices", p.NoParams(), list[InvoiceView])

    async def pay(
        self, bolt11: str, amount_msat: int | None = None, *, key: str = "", timeout: float | None = None
    ) -> PaymentView:
        """The payment in its final state, which may be *failed*; ``CallFailed`` if it could not be begun."""
        params = p.PayParams(bolt11=bolt11, amount_msat=amount_msat, key=key, timeout=timeout)
        return await self.call("pay", params, PaymentView)

    async def payment(self, payment_hash: str) -> PaymentView:
        return await self.call("payment", p.HashParams(payment_hash=payment_hash), PaymentView)

    async def payments(self) -> list[PaymentView]:
        return await self.call("payments", p.NoParams(), list[PaymentView])

    async def address(self, kind: Literal["p2wpkh", "p2tr"] = "p2wpkh") -> str:
        return (await self.call("address", p.AddressParams(type=kind), p.AddressResult)).address

    async def descriptors(self) -> list[str]:
        """Public, with checksum: for another wallet to watch the same coins."""
        return await self.call("descriptors", p.NoParams(), list[str])

    async def balance(self) -> p.BalanceResult:
        return await self.call("balance", p.NoParams(), p.BalanceResult)

    async def coins(self) -> list[p.CoinView]:
        return await self.call("coins", p.NoParams(), list[p.CoinView])

    async def send(
        self, address: str, amount_sat: int, *, feerate_per_kw: int | None = None, coins: Sequence[str] = ()
    ) -> str:
        """The txid, once the transaction is durable and broadcast. ``coins`` (``TXID:VOUT``): exactly these."""
        params = p.SendParams(address=address, amount_sat=amount_sat, feerate_per_kw=feerate_per_kw, coins=list(coins))
        return (await self.call("send", params, p.SendResult)).txid

    async def bump(
        self, txid: str, feerate_per_kw: int, *, method: Literal["rbf", "cpfp"] | None = None
    ) -> p.BumpResult:
        """More fee for an unconfirmed transaction of the node."""
        params = p.BumpParams(txid=txid, feerate_per_kw=feerate_per_kw, method=method)
        return await self.call("bump", params, p.BumpResult)

    async def transactions(self) -> list[p.TransactionView]:
        return await self.call("transactions", p.NoParams(), list[p.TransactionView])

    async def events(self, after: int = 0, *, limit: int = 100, wait: float = 0.0) -> list[p.EventView]:
        """At most ``limit`` events above ``after``; if there is none, those of the next ``wait`` seconds."""
        return await self.call("events", p.EventsParams(after=after, limit=limit, wait=wait), list[p.EventView])

    async def plugins(self) -> list[p.PluginView]:
        return await self.call("plugins", p.NoParams(), list[p.PluginView])

    async def stop(self) -> None:
        """Returns when the node has begun to stop."""
        await self.call("stop", p.NoParams(), p.Done)
