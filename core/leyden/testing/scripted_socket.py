"""The scripted peer over a real socket: for a node that runs in another process, or in this one on asyncio.

    async with ScriptedSocket("mallory", node_id) as peer:
        await peer.connect("127.0.0.1", 9735)
        await peer.send(b"\\x00\\x02")
        print(await peer.expect_closed())

It is ``ScriptedPeer`` with ``await``. Silence cannot be seen on a socket, so ``run`` needs to be told how far to go,
and everything that waits gives up after ``patience`` seconds. For nodes on regtest.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from typing import Any, Self

from leyden.hooks.services import NodeIdentity
from leyden.invoice import Invoice
from leyden.testing.script import M, Script
from leyden.testing.scripted_channel import ScriptedChannel, ScriptError
from leyden.transport import ACT_ONE_SIZE, ACT_THREE_SIZE, ACT_TWO_SIZE, ResponderHandshake, Session
from leyden.types import NodeId, Preimage
from leyden.wire import Init, Message, OpenChannel, Ping, Pong

PATIENCE = 10.0
_READ = 65536


class ScriptedSocket(Script):
    """One connection at a time to the node ``node_id``; the same name is the same script, with the same keys."""

    def __init__(
        self, name: str, node_id: NodeId, *, identity: NodeIdentity | None = None, patience: float = PATIENCE
    ) -> None:
        super().__init__(name, identity, node_id)
        self.patience = patience
        """Seconds to wait for the node, whatever is waited for."""
        self.closed = True
        """The node (or the script) has closed the connection."""
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hang_up()

    # -- connecting ------------------------------------------------------------------------------------------------

    async def dial(self, host: str, port: int) -> "ScriptedSocket":
        """Only the TCP connection."""
        await self.hang_up()
        async with asyncio.timeout(self.patience):
            self.attach(*await asyncio.open_connection(host, port))
        return self

    def attach(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use a connection that is there already, say one that the node has made."""
        self.forget_connection()
        self._reader, self._writer, self.closed = reader, writer, False

    async def connect(self, host: str, port: int, *, init: bool | Init = True) -> "ScriptedSocket":
        """Dial, shake hands and exchange ``init`` (the node's own by default, or another; False: none from us)."""
        await self.dial(host, port)
        shake = self.initiate(secrets.token_bytes(32))
        await self.write(shake.act_one())
        point = shake.on_act_two(await self.take(ACT_TWO_SIZE))
        await self.write(shake.act_three(self.ecdh(point)))
        self.begin(shake.session())
        return await self._exchange_init(init)

    async def accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, init: bool | Init = True
    ) -> "ScriptedSocket":
        """As ``connect``, on a connection that the node has made."""
        await self.hang_up()
        self.attach(reader, writer)
        shake = ResponderHandshake(self.node_id, secrets.token_bytes(32))
        point = shake.on_act_one(await self.take(ACT_ONE_SIZE))
        await self.write(shake.act_two(self.ecdh(point)))
        shake.on_act_three(await self.take(ACT_THREE_SIZE))
        self.begin(shake.session())
        return await self._exchange_init(init)

    def begin(self, session: Session) -> None:
        """From here on the node's bytes are frames (after a handshake that was taken act by act)."""
        self._session = session
        self._answer(self.unseal(b""))

    async def _exchange_init(self, init: bool | Init) -> "ScriptedSocket":
        self.remote_init = await self.expect(Init)
        if init:
            await self.send(self.make_init() if init is True else init)
            for channel in self.channels:
                channel.connected(self.negotiated)
        return self

    # -- out -------------------------------------------------------------------------------------------------------

    @property
    def writer(self) -> asyncio.StreamWriter:
        if self._writer is None:
            raise ScriptError(f"{self.name} has not dialled yet")
        return self._writer

    async def write(self, data: bytes) -> None:
        """Raw bytes on the wire."""
        with contextlib.suppress(OSError):  # the node may have closed already: reading will say so
            self.writer.write(data)
            await self.writer.drain()

    async def send(self, *messages: Message | bytes) -> None:
        """One frame for each message (or for bytes that pretend to be one), all in one write."""
        await self.write(b"".join(self.seal(message) for message in messages))

    async def hang_up(self) -> None:
        """The script closes in an orderly way."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self.closed = True

    def _answer(self, data: bytes) -> None:
        if data and self._writer is not None:
            self._writer.write(data)

    # -- in --------------------------------------------------------------------------------------------------------

    async def take(self, size: int) -> bytes:
        """The next ``size`` raw bytes of the node, before there is a session."""
        while len(self._raw) < size and not self.closed:
            await self._read(size_hint=size)
        return self.take_raw(size)

    async def _read(self, size_hint: int = _READ) -> None:
        """Wait for bytes; the end of the connection is noted in ``closed``."""
        if self._reader is None:
            raise ScriptError(f"{self.name} has not dialled yet")
        data = b""
        try:
            async with asyncio.timeout(self.patience):
                data = await self._reader.read(size_hint)
        except TimeoutError as error:
            raise ScriptError(f"the node is silent for {self.patience:g} s; so far: {list(self._messages)}") from error
        except OSError:
            pass
        if data:
            self._answer(self.unseal(data))
        else:
            self.closed = True

    async def expect(self, kind: type[M]) -> M:
        """The node's next message, which must be a ``kind``."""
        while not self._messages and not self.closed:
            await self._read()
        return self.pop(kind, self.closed)

    async def expect_closed(self, reason: str = "") -> str:
        """The node closes; returns the text of the ``warning`` that it leaves, which must hold ``reason``."""
        while not self.closed:
            await self._read()
        return self.last_warning(reason)

    async def ping(self, size: int = 3) -> None:
        """The node still answers on this connection."""
        await self.send(Ping(num_pong_bytes=size, ignored=b""))
        if (await self.expect(Pong)).ignored != bytes(size):
            raise ScriptError("the pong has another length or content than asked for")

    # -- channels --------------------------------------------------------------------------------------------------

    async def answer(self, height: int) -> ScriptedChannel:
        """Wait for the node's proposal of a channel: ``accept_channel`` waits to be sent. ``height``: of the chain."""
        proposal = await self.expect(OpenChannel)
        channel = self.new_channel(height, time.time())
        channel.answer(proposal)
        return channel

    def propose(self, funding: int, push_msat: int, height: int, **params: Any) -> ScriptedChannel:
        """A channel that the script funds: set its ``on_funding``; ``open_channel`` waits to be sent."""
        channel = self.new_channel(height, time.time())
        channel.propose(funding, push_msat, **params)
        return channel

    async def run(
        self,
        channel: ScriptedChannel,
        *,
        before: type[Message] | None = None,
        until: type[Message] | None = None,
        reached: Callable[[], object] = lambda: False,
    ) -> Message | None:
        """Let the engine talk to the node until it is about to send ``before``, has received ``until``, or ``reached``.

        Returns that message (``before`` is not sent: it waits). ``ScriptError`` if the node says something that the
        engine does not understand, closes, or falls silent.
        """
        while True:
            channel.turn()
            held = channel.held
            if held is not None:
                if before is not None and isinstance(held, before):
                    return held
                await self.send(channel.take())
                continue
            if reached():
                return None
            taken = self.feed(channel)
            found = next((m for m in taken if until is not None and isinstance(m, until)), None)
            if found is not None:
                return found
            if taken:
                continue
            if self._messages or self.closed:
                raise self.missed(channel, before or until or Message)
            await self._read()

    def make_invoice(self, amount: int, name: str = "") -> tuple[Invoice, Preimage]:
        """A signed invoice of the script over ``amount`` msat, and its preimage."""
        return self.invoice(amount, time.time(), name)
