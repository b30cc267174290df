"""The methods of the socket: each reads typed parameters, calls the node and answers with a record."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from leyden.bitcoin import decode_address, encode_address
from leyden.hooks.types import LoggedEvent
from leyden.node import BumpMethod, Node
from leyden.node.dispatcher import HookDispatcher
from leyden.node.views import ChannelView, InvoiceView, NodeInfo, PaymentView, PeerView
from leyden.types import ChannelId, FeeRatePerKw, LeydenError, Msat, NodeId, OutPoint, PaymentHash, Sat, Txid

from leyden_cli.rpc import protocol as p

P = TypeVar("P", bound=p.Params)


class InvalidParams(LeydenError):
    """A parameter that has the right type but makes no sense."""


class NotFound(LeydenError):
    pass


class Method(Generic[P]):
    """How one method reads its parameters and what it does."""

    def __init__(self, params: type[P], run: Callable[[P], Awaitable[object]]) -> None:
        self._decoder = msgspec.json.Decoder(params)
        self._run = run

    def read(self, raw: msgspec.Raw) -> P:
        """``msgspec.ValidationError`` for anything but the declared parameters."""
        return self._decoder.decode(raw)

    async def run(self, params: P) -> object:
        return await self._run(params)


class NodeMethods:
    """Every method of the API, bound to one node. ``stop`` is called when a client asks the node to stop."""

    def __init__(self, node: Node, dispatcher: HookDispatcher, stop: Callable[[], None]) -> None:
        self._node = node
        self._dispatcher = dispatcher
        self._stop = stop
        self.table: Mapping[str, Method[Any]] = {
            "info": Method(p.NoParams, self.info),
            "peers": Method(p.NoParams, self.peers),
            "connect": Method(p.ConnectParams, self.connect),
            "disconnect": Method(p.NodeParams, self.disconnect),
            "open": Method(p.OpenParams, self.open),
            "channels": Method(p.NoParams, self.channels),
            "close": Method(p.CloseParams, self.close),
            "invoice": Method(p.InvoiceParams, self.invoice),
            "invoices": Method(p.NoParams, self.invoices),
            "pay": Method(p.PayParams, self.pay),
            "payment": Method(p.HashParams, self.payment),
            "payments": Method(p.NoParams, self.payments),
            "address": Method(p.AddressParams, self.address),
            "descriptors": Method(p.NoParams, self.descriptors),
            "balance": Method(p.NoParams, self.balance),
            "coins": Method(p.NoParams, self.coins),
            "send": Method(p.SendParams, self.send),
            "bump": Method(p.BumpParams, self.bump),
            "transactions": Method(p.NoParams, self.transactions),
            "events": Method(p.EventsParams, self.events),
            "plugins": Method(p.NoParams, self.plugins),
            "stop": Method(p.NoParams, self.stop),
        }

    async def info(self, _params: p.NoParams) -> NodeInfo:
        return self._node.info()

    async def peers(self, _params: p.NoParams) -> list[PeerView]:
        return self._node.peers()

    async def connect(self, params: p.ConnectParams) -> p.Done:
        await self._node.connect(_node_id(params.node_id), params.host, params.port)
        return p.Done()

    async def disconnect(self, params: p.NodeParams) -> p.Done:
        return p.Done(done=await self._node.disconnect(_node_id(params.node_id)))

    async def open(self, params: p.OpenParams) -> p.OpenResult:
        if params.push_msat > params.funding_sat * 1000:
            raise InvalidParams("push_msat is more than funding_sat")
        channel_id = await self._node.open_channel(
            _node_id(params.node_id),
            Sat(params.funding_sat),
            push=Msat(params.push_msat),
            announce=params.announce,
            funding_feerate=_feerate(params.feerate_per_kw),
            coins=_coins(params.coins),
        )
        return p.OpenResult(channel_id=channel_id.hex())

    async def channels(self, _params: p.NoParams) -> list[ChannelView]:
        return self._node.channels()

    async def close(self, params: p.CloseParams) -> p.Done:
        if params.force and (params.address or params.feerate_per_kw or params.max_fee_sat):
            raise InvalidParams("a forced close takes no address, feerate_per_kw or max_fee_sat: it is signed already")
        network = self._node.core.config.network
        script = b"" if params.address is None else decode_address(params.address, network)
        channel_id = ChannelId(_hex(params.channel_id, 32, "channel_id"))
        feerate = _feerate(params.feerate_per_kw)
        max_fee = None if params.max_fee_sat is None else Sat(params.max_fee_sat)
        await self._node.close_channel(channel_id, force=params.force, script=script, feerate=feerate, max_fee=max_fee)
        return p.Done()

    async def invoice(self, params: p.InvoiceParams) -> InvoiceView:
        amount = None if params.amount_msat is None else Msat(params.amount_msat)
        return await self._node.create_invoice(amount, params.description, expiry=params.expiry, label=params.label)

    async def invoices(self, _params: p.NoParams) -> list[InvoiceView]:
        return await self._node.invoices()

    async def pay(self, params: p.PayParams) -> PaymentView:
        amount = None if params.amount_msat is None else Msat(params.amount_msat)
        return await self._node.pay(params.bolt11, amount, key=params.key, timeout=params.timeout)

    async def payment(self, params: p.HashParams) -> PaymentView:
        found = await self._node.payment(PaymentHash(_hex(params.payment_hash, 32, "payment_hash")))
        if found is None:
            raise NotFound("no payment with this hash")
        return found

    async def payments(self, _params: p.NoParams) -> list[PaymentView]:
        return await self._node.payments()

    async def address(self, params: p.AddressParams) -> p.AddressResult:
        return p.AddressResult(address=await self._node.new_address(taproot=params.type == "p2tr"))

    async def descriptors(self, _params: p.NoParams) -> list[str]:
        return list(await self._node.descriptors())

    async def balance(self, _params: p.NoParams) -> p.BalanceResult:
        coins = self._node.wallet_balance()
        needed, held = self._node.anchor_reserve()
        return p.BalanceResult(
            confirmed_sat=coins.confirmed,
            unconfirmed_sat=coins.unconfirmed,
            immature_sat=coins.immature,
            locked_sat=coins.locked,
            anchor_reserve_sat=needed,
            reserved_sat=min(needed, held),
            channels_msat=sum(channel.local_msat for channel in self._node.channels() if channel.state != "closing"),
        )

    async def coins(self, _params: p.NoParams) -> list[p.CoinView]:
        network = self._node.core.config.network
        return [
            p.CoinView(
                coin=f"{coin.outpoint.txid[::-1].hex()}:{coin.outpoint.vout}",
                value_sat=coin.value,
                address=encode_address(coin.script, network),
                height=coin.height,
                state=coin.state.value,
                claim=coin.claim,
            )
            for coin in self._node.coins()
        ]

    async def send(self, params: p.SendParams) -> p.SendResult:
        feerate, coins = _feerate(params.feerate_per_kw), _coins(params.coins)
        txid = await self._node.send_coins(params.address, Sat(params.amount_sat), feerate=feerate, coins=coins)
        return p.SendResult(txid=txid[::-1].hex())

    async def bump(self, params: p.BumpParams) -> p.BumpResult:
        txid = Txid(_hex(params.txid, 32, "txid")[::-1])
        method = None if params.method is None else BumpMethod(params.method)
        done = await self._node.bump(txid, FeeRatePerKw(params.feerate_per_kw), method)
        return p.BumpResult(txid=done.txid[::-1].hex(), method=done.method.value)

    async def transactions(self, _params: p.NoParams) -> list[p.TransactionView]:
        return msgspec.convert(self._node.transactions(), list[p.TransactionView])

    async def events(self, params: p.EventsParams) -> list[p.EventView]:
        found = await self._node.events(params.after, params.limit)
        if not found and params.wait > 0:
            await self._next_event(params.after, min(params.wait, p.MAX_WAIT))
            found = await self._node.events(params.after, params.limit)
        return [view_event(event) for event in found]

    async def _next_event(self, after: int, seconds: float) -> None:
        """Until there is an event above ``after``, or the time is up."""
        following = self._node.follow(after)
        try:
            async with asyncio.timeout(seconds):
                async for _ in following:
                    return
        except TimeoutError:
            return

    async def plugins(self, _params: p.NoParams) -> list[p.PluginView]:
        return [
            p.PluginView(
                plugin=health.plugin,
                quarantined=health.quarantined,
                calls=health.calls,
                faults=health.faults,
                last_fault=health.last_fault,
            )
            for health in self._dispatcher.health()
        ]

    async def stop(self, _params: p.NoParams) -> p.Done:
        self._stop()
        return p.Done()


def view_event(logged: LoggedEvent) -> p.EventView:
    """An event with ids as hexadecimal, txids reversed as people read them."""
    facts: dict[str, str | int | None] = {}
    for name, value in msgspec.structs.asdict(logged.event).items():
        if isinstance(value, bytes):
            facts[name] = value[::-1].hex() if name.endswith("txid") else value.hex()
        else:
            facts[name] = value
    kind = type(logged.event).__struct_config__.tag
    return p.EventView(index=logged.index, time=logged.time, type=str(kind), facts=facts)


def _hex(text: str, size: int, name: str) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != size:
        raise InvalidParams(f"{name} must be {2 * size} hexadecimal digits")
    return data


def _node_id(text: str) -> NodeId:
    return NodeId(_hex(text, 33, "node_id"))


def _coins(texts: Sequence[str]) -> tuple[OutPoint, ...]:
    """``TXID:VOUT``, the txid as people read it."""
    parts = [text.split(":") for text in texts]
    return tuple(OutPoint(Txid(_hex(txid, 32, "coins")[::-1]), int(vout)) for txid, vout in parts)


def _feerate(value: int | None) -> FeeRatePerKw | None:
    return None if value is None else FeeRatePerKw(value)
