"""One Electrum server: what it can be asked, in our types, whichever version of the protocol it speaks.

Nothing here is believed: the callers check headers, proofs and transactions.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from leyden.bitcoin import HEADER_LENGTH, BitcoinError, Network, Transaction, parse_transaction
from leyden.types import OutPoint, Txid

from leyden_electrum.address import ServerAddress
from leyden_electrum.dial import Dialer
from leyden_electrum.errors import ServerFault, ServerRefused, ServerUnusable
from leyden_electrum.session import Params, Session

T = TypeVar("T")
CLIENT = "leyden 0.1"
OLDEST, NEWEST = "1.4", "1.7"
HEADERS_AT_ONCE = 2016
MAX_HEIGHT = (1 << 31) - 1
PACKAGES_SINCE = (1, 6)
SCRIPTS_SINCE = (1, 7)
"""From this protocol on scripts are named by themselves instead of by their hash, and outputs can be followed."""


class Tip(msgspec.Struct, frozen=True, kw_only=True):
    """The block with which the server's chain ends."""

    height: int
    header: bytes


class Confirmed(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction of a script's history and the block it is said to be in."""

    txid: Txid
    height: int


class History(msgspec.Struct, frozen=True, kw_only=True):
    """``confirmed`` is in blocks; ``status`` is what the whole history, mempool included, hashes to."""

    confirmed: tuple[Confirmed, ...]
    status: str | None


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Where a transaction is said to be in its block; ``branch`` lowest first, in internal byte order."""

    position: int
    branch: tuple[bytes, ...]


class _TipAnswer(msgspec.Struct):
    height: int
    hex: str


class _HeadersAnswer(msgspec.Struct):
    count: int
    hex: str | None = None
    headers: list[str] | None = None


class _Entry(msgspec.Struct):
    tx_hash: str
    height: int


class _HistoryAnswer(msgspec.Struct):
    history: list[_Entry]


class _ProofAnswer(msgspec.Struct):
    merkle: list[str]
    pos: int


class _Features(msgspec.Struct):
    genesis_hash: str = ""


class _OutputStatus(msgspec.Struct):
    spender_txhash: str | None = None
    spender_height: int = 0


class MempoolInfo(msgspec.Struct):
    """In bitcoin per 1000 vbytes."""

    mempoolminfee: float = 0.0
    minrelaytxfee: float = 0.0


class PackageAnswer(msgspec.Struct):
    success: bool


_status_decoder = msgspec.json.Decoder(str | None)


def script_hash(script: bytes) -> bytes:
    """SHA-256, as it is computed; the protocol shows it reversed."""
    return hashlib.sha256(script).digest()


def status_of(entries: Sequence[tuple[str, int]]) -> str | None:
    """What a history of (txid as shown, height) hashes to; ``None`` for an empty one."""
    if not entries:
        return None
    return hashlib.sha256("".join(f"{txid}:{height}:" for txid, height in entries).encode()).hexdigest()


class Server:
    """A connection that has agreed on a protocol. ``on_change()`` is called after every notice and at the end.

    Errors of all requests: ``ServerUnavailable``, ``ServerFault``, and ``ServerRefused`` where the docstring says so.
    """

    def __init__(self, address: ServerAddress, timeout_seconds: float, on_change: Callable[[], None]) -> None:
        self.address = address
        self.session = Session(self._on_notice, on_change, timeout_seconds)
        self.software = ""
        self.protocol: tuple[int, ...] = ()
        self.tip: Tip | None = None
        """The newest that the server told, once ``follow_tip`` was called."""
        self.touched: dict[bytes, str | None] = {}
        """Script hashes whose status the server has told unasked, and that status; taken by whoever looks."""
        self.spent: set[OutPoint] = set()
        """Followed outputs of which the server said something unasked."""
        self._on_change = on_change

    @classmethod
    async def connect(
        cls,
        dialer: Dialer,
        address: ServerAddress,
        network: Network,
        on_change: Callable[[], None],
        *,
        timeout_seconds: float = 30.0,
    ) -> "Server":
        """Dial, agree on a version, check the network. Also ``ServerUnusable``."""
        server = cls(address, timeout_seconds, on_change)
        await dialer.connect(address, lambda: server.session, timeout_seconds)
        try:
            await server._greet(network)
        except BaseException:
            await server.close()
            raise
        return server

    async def _greet(self, network: Network) -> None:
        try:
            self.software, version = await self.session.call(
                "server.version", (CLIENT, (OLDEST, NEWEST)), tuple[str, str]
            )
        except ServerRefused as error:
            raise ServerUnusable(f"it does not speak protocol {OLDEST} to {NEWEST}: {error.message}") from error
        self.protocol = _version(version)
        if not _version(OLDEST) <= self.protocol < (2,):
            raise ServerUnusable(f"it speaks protocol {version[:20]}, we speak {OLDEST} to {NEWEST}")
        try:
            features = await self.session.call("server.features", (), _Features)
        except ServerRefused:
            return  # the headers will tell
        if features.genesis_hash not in ("", network.chain_hash[::-1].hex()):
            raise ServerUnusable(f"it is on another network than this node ({network.label})")

    async def close(self) -> None:
        await self.session.close()

    # -- what it says unasked ----------------------------------------------------------------------------------------

    def _on_notice(self, method: str, params: msgspec.Raw) -> None:
        try:
            match method:
                case "blockchain.headers.subscribe":
                    (told,) = msgspec.json.decode(params, type=tuple[_TipAnswer])
                    self.tip = _tip(told)
                case "blockchain.scripthash.subscribe" | "blockchain.scriptpubkey.subscribe":
                    shown, status = msgspec.json.decode(params, type=tuple[str, str | None])
                    self.touched[bytes.fromhex(shown)[::-1]] = status
                case "blockchain.outpoint.subscribe":
                    txid, vout, _ = msgspec.json.decode(params, type=tuple[str, int, _OutputStatus])
                    self.spent.add(OutPoint(_txid(txid), vout))
                case _:
                    return
        except (msgspec.MsgspecError, ValueError, ServerFault):
            return  # whoever asks next gets the truth or finds the fault
        self._on_change()

    # -- headers -----------------------------------------------------------------------------------------------------

    async def follow_tip(self) -> Tip:
        """The tip now, and notices of later ones."""
        self.tip = _tip(await self.session.call("blockchain.headers.subscribe", (), _TipAnswer))
        return self.tip

    async def headers(self, first: int, count: int) -> bytes:
        """Up to ``count`` headers from height ``first``, 80 bytes each; fewer where the chain ends."""
        found = bytearray()
        while count > 0:
            at = first + len(found) // HEADER_LENGTH
            answer = await self.session.call(
                "blockchain.block.headers", (at, min(count, HEADERS_AT_ONCE)), _HeadersAnswer
            )
            raw = _unhex(answer.hex if answer.headers is None else "".join(answer.headers), "headers")
            if len(raw) != answer.count * HEADER_LENGTH or answer.count > min(count, HEADERS_AT_ONCE):
                raise ServerFault(f"it was asked for headers from {at} on and sends {len(raw)} bytes")
            if not raw:
                break
            found += raw
            count -= answer.count
        return bytes(found)

    async def header(self, height: int) -> bytes:
        """The header at ``height``, empty above the tip."""
        return await self.headers(height, 1)

    # -- scripts -----------------------------------------------------------------------------------------------------

    def _script_call(self, what: str, script: bytes) -> tuple[str, Params]:
        if self.protocol >= SCRIPTS_SINCE:
            return f"blockchain.scriptpubkey.{what}", (script.hex(),)
        return f"blockchain.scripthash.{what}", (script_hash(script)[::-1].hex(),)

    async def _ask_scripts(self, what: str, scripts: Sequence[bytes]) -> list[msgspec.Raw | ServerRefused]:
        calls = [self._script_call(what, script) for script in scripts]
        if not calls:
            return []
        return await self.session.call_many(calls[0][0], [params for _, params in calls], msgspec.Raw)

    async def follow_scripts(self, scripts: Sequence[bytes]) -> list[str | None]:
        """The status of each history, and notices when it changes."""
        answers = await self._ask_scripts("subscribe", scripts)
        return [_status(_answered(answer)) for answer in answers]

    async def histories(self, scripts: Sequence[bytes]) -> list[History]:
        answers = await self._ask_scripts("get_history", scripts)
        wrapped = self.protocol >= SCRIPTS_SINCE
        histories = []
        for answer in answers:
            raw = _answered(answer)
            entries = (
                _decode(raw, _HistoryAnswer, "a history").history
                if wrapped
                else _decode(raw, list[_Entry], "a history")
            )
            confirmed = tuple(
                Confirmed(txid=_txid(entry.tx_hash), height=entry.height)
                for entry in entries
                if 0 < entry.height <= MAX_HEIGHT
            )
            status = status_of([(entry.tx_hash, entry.height) for entry in entries])
            histories.append(History(confirmed=confirmed, status=status))
        return histories

    async def spenders(self, outputs: Sequence[tuple[OutPoint, bytes]]) -> list[Confirmed | None]:
        """Who spends these outputs (each with its script) in a block, and notices of changes. Only servers of protocol
        1.7 know; from others ``None`` each. Some that know the mempool alone say ``None`` too."""
        if self.protocol < SCRIPTS_SINCE or not outputs:
            return [None] * len(outputs)
        calls = [(outpoint.txid[::-1].hex(), outpoint.vout, script.hex()) for outpoint, script in outputs]
        answers = await self.session.call_many("blockchain.outpoint.subscribe", calls, _OutputStatus)
        return [
            None
            if isinstance(answer, ServerRefused) or answer.spender_txhash is None or answer.spender_height <= 0
            else Confirmed(txid=_txid(answer.spender_txhash), height=answer.spender_height)
            for answer in answers
        ]

    # -- transactions ------------------------------------------------------------------------------------------------

    async def proofs(self, entries: Sequence[Confirmed]) -> list[Proof | ServerRefused]:
        """Merkle proofs, refusals among them."""
        calls = [(entry.txid[::-1].hex(), entry.height) for entry in entries]
        answers = await self.session.call_many("blockchain.transaction.get_merkle", calls, _ProofAnswer)
        return [
            answer
            if isinstance(answer, ServerRefused)
            else Proof(
                position=answer.pos, branch=tuple(_unhex(node, "a merkle proof")[::-1] for node in answer.merkle)
            )
            for answer in answers
        ]

    async def transactions(self, txids: Sequence[Txid]) -> list[Transaction | ServerRefused]:
        """Transactions that have the ids asked for, refusals among them."""
        calls = [(txid[::-1].hex(),) for txid in txids]
        answers = await self.session.call_many("blockchain.transaction.get", calls, str)
        return [
            answer if isinstance(answer, ServerRefused) else _transaction(answer, txid)
            for txid, answer in zip(txids, answers, strict=True)
        ]

    async def broadcast(self, tx: Transaction) -> None:
        """``ServerRefused`` with the words of its node."""
        await self.session.call("blockchain.transaction.broadcast", (tx.serialize().hex(),), str)

    async def broadcast_package(self, package: Sequence[Transaction]) -> PackageAnswer:
        """From protocol 1.6 on; also ``ServerRefused``."""
        raw = tuple(tx.serialize().hex() for tx in package)
        return await self.session.call("blockchain.transaction.broadcast_package", (raw,), PackageAnswer)

    # -- fees --------------------------------------------------------------------------------------------------------

    async def estimate_fee(self, blocks: int) -> float:
        """Bitcoin per 1000 vbytes to be in the next ``blocks``, -1 without an estimate; also ``ServerRefused``."""
        return await self.session.call("blockchain.estimatefee", (blocks,), float)

    async def minimum_fee(self) -> float:
        """Bitcoin per 1000 vbytes that its node relays at least; also ``ServerRefused``."""
        if self.protocol < PACKAGES_SINCE:
            return await self.session.call("blockchain.relayfee", (), float)
        info = await self.session.call("mempool.get_info", (), MempoolInfo)
        return max(info.mempoolminfee, info.minrelaytxfee)

    @property
    def takes_packages(self) -> bool:
        return self.protocol >= PACKAGES_SINCE


def _version(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    if not 1 <= len(parts) <= 4 or not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise ServerFault(f"it names protocol version {text[:20]!r}")
    return tuple(int(part) for part in parts)


def _tip(told: _TipAnswer) -> Tip:
    header = _unhex(told.hex, "a tip")
    if len(header) != HEADER_LENGTH or not 0 <= told.height <= MAX_HEIGHT:
        raise ServerFault("it names a tip that is no block")
    return Tip(height=told.height, header=header)


def _answered(answer: msgspec.Raw | ServerRefused) -> msgspec.Raw:
    """A server that refuses to tell a history (too long, too many) cannot serve us, or not now."""
    if isinstance(answer, ServerRefused):
        raise answer.as_trouble()
    return answer


def _decode(raw: msgspec.Raw, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ServerFault(f"{what} that it sends makes no sense: {error}") from error


def _status(raw: msgspec.Raw) -> str | None:
    try:
        status: str | None = _status_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ServerFault(f"a status that it sends makes no sense: {error}") from error
    return status


def _unhex(text: str | None, what: str) -> bytes:
    try:
        return bytes.fromhex(text or "")
    except ValueError:
        raise ServerFault(f"{what} that it sends is not hexadecimal") from None


def _txid(shown: str) -> Txid:
    raw = _unhex(shown, "a transaction id")
    if len(raw) != 32:
        raise ServerFault("a transaction id that it sends does not have 32 bytes")
    return Txid(raw[::-1])


def _transaction(shown: str, txid: Txid) -> Transaction:
    try:
        tx = parse_transaction(_unhex(shown, "a transaction"))
    except BitcoinError as error:
        raise ServerFault(f"the transaction {txid[::-1].hex()} that it sends is none: {error}") from error
    if tx.txid != txid:
        raise ServerFault(f"asked for transaction {txid[::-1].hex()} it sends {tx.txid[::-1].hex()}")
    return tx
