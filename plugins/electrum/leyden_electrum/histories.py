"""What a server says of the watched scripts: asked for, fetched, proved, and kept until the stream delivers it."""

import asyncio
from collections.abc import Sequence

from leyden.hooks.types import BlockTransaction
from leyden.types import BlockHash, Txid

from leyden_electrum.branches import check_same_chain, extend_down
from leyden_electrum.errors import OtherMoment, ServerFault, ServerRefused
from leyden_electrum.headers import HeaderStore
from leyden_electrum.proofs import proof_mistake, proved
from leyden_electrum.scripts import ScriptBook, WatchedScript
from leyden_electrum.server import Confirmed, History, Server, script_hash

ASKED_PER_BLOCK = 200
"""Scripts whose status is asked for again at a new tip, besides those that the server speaks of: it need not have told
everything yet. The others follow in turn, and what is found late is delivered late."""
FETCHED_AT_ONCE = 500
"""Transactions that are held in memory while their proofs are checked."""


class Histories:
    """The ``book`` of watched scripts, and the verified transactions that are not delivered yet, by block height."""

    def __init__(self) -> None:
        self.book = ScriptBook()
        self._found: dict[int, dict[Txid, BlockTransaction]] = {}
        self._due: dict[bytes, None] = {}
        """What to ask about because the server spoke of it, or in its turn; until that has been answered."""
        self._asked_at: BlockHash | None = None

    def forget_from(self, height: int) -> None:
        """The blocks from ``height`` on are others now, or have to be delivered again."""
        self._found = {at: found for at, found in self._found.items() if at < height}
        self.book.forget_from(height)

    def ask_all_again(self) -> None:
        """The server is another one: it was asked nothing yet."""
        self.book.ask_all_again()
        self._asked_at = None

    def below(self, height: int) -> list[int]:
        """Blocks below ``height`` of which something was found, in order."""
        return sorted(at for at in self._found if at < height)

    def take(self, height: int) -> tuple[BlockTransaction, ...]:
        """What was found in the block at ``height``, in its order; it counts as delivered."""
        return tuple(sorted(self._found.pop(height, {}).values(), key=lambda one: one.position))

    async def ask(self, server: Server, headers: HeaderStore) -> None:
        """Bring what we know of every script to this tip. Those whose history reaches above it stay doubtful."""
        book = self.book
        if self._asked_at != headers.tip.hash:
            self._due.update(dict.fromkeys(book.next_turn(ASKED_PER_BLOCK)))
            self._asked_at = headers.tip.hash
        touched, server.touched = server.touched, {}
        self._due.update(dict.fromkeys(key for key in touched if key in book))
        spent, server.spent = server.spent, set()
        if spent:
            self._due.update((script_hash(found.script), None) for found in book.values() if spent & {*found.outputs})
        keys = list(book.fresh | book.doubtful | self._due)
        if not keys:
            return
        fresh = [key for key in keys if key in book.fresh]
        scripts = [book[key] for key in keys]
        again = {key: book[key].again_from for key in fresh}
        statuses = await server.follow_scripts([found.script for found in scripts])
        changed = []
        for key, found, status in zip(keys, scripts, statuses, strict=True):
            if key in book.doubtful or found.again_from is not None or found.status != status:
                changed.append((key, found, status))
        ahead = await self._read_histories(server, headers, [one for one in changed if one[2] or one[1].known])
        for key in keys:
            book.doubtful.pop(key, None)
            if key in again and book[key].again_from == again[key]:
                book.fresh.pop(key, None)
                book[key].again_from = None
        for key, found, status in changed:
            if key not in ahead:
                found.status = status
        await self._ask_spenders(server, headers, [book[key] for key in fresh])
        for key in ahead:
            book.doubtful[key] = None
        for key in keys:
            self._due.pop(key, None)

    async def _read_histories(
        self, server: Server, headers: HeaderStore, changed: Sequence[tuple[bytes, WatchedScript, str | None]]
    ) -> set[bytes]:
        """Fetch and verify what is new; the keys of those that reach above our headers."""
        histories = await server.histories([found.script for _, found, _ in changed])
        ahead: set[bytes] = set()
        wanted: dict[Confirmed, list[WatchedScript]] = {}
        for (key, found, status), history in zip(changed, histories, strict=True):
            if history.status != status:
                raise OtherMoment("the history that it tells of a script is not the one whose status it told")
            if any(entry.height > headers.height for entry in history.confirmed):
                ahead.add(key)
            await self._check_complete(server, headers, found, history)
            known = found.known or {}
            again_from = found.again_from if found.again_from is not None else headers.height + 1
            for entry in history.confirmed:
                due = found.since <= entry.height <= headers.height
                if due and (known.get(entry.txid) != entry.height or entry.height >= again_from):
                    wanted.setdefault(entry, []).append(found)
        await self._fetch(server, headers, wanted)
        return ahead

    async def _fetch(self, server: Server, headers: HeaderStore, wanted: dict[Confirmed, list[WatchedScript]]) -> None:
        """Transactions and proofs of ``wanted``; what is proved is kept to be delivered."""
        if wanted:
            await extend_down(server, headers, min(entry.height for entry in wanted))
        entries = list(wanted)
        for at in range(0, len(entries), FETCHED_AT_ONCE):
            part = entries[at : at + FETCHED_AT_ONCE]
            proofs, transactions = await asyncio.gather(
                server.proofs(part), server.transactions([entry.txid for entry in part])
            )
            for entry, proof, tx in zip(part, proofs, transactions, strict=True):
                shown = entry.txid[::-1].hex()
                if isinstance(proof, ServerRefused) or isinstance(tx, ServerRefused):
                    raise OtherMoment(
                        f"it does not prove transaction {shown}, of which it says that it is in block {entry.height}"
                    )
                mistake = proof_mistake(tx, proof, headers.merkle_root(entry.height))
                if mistake:
                    await check_same_chain(server, headers, entry.height)
                    raise ServerFault(f"transaction {shown} is not in block {entry.height} as it says: {mistake}")
                self._found.setdefault(entry.height, {})[entry.txid] = proved(tx, proof)
                for found in wanted[entry]:
                    found.note(entry.txid, entry.height)

    async def _check_complete(
        self, server: Server, headers: HeaderStore, found: WatchedScript, history: History
    ) -> None:
        """What was proved once is in the chain, so whoever leaves it out of a history hides it."""
        told = {entry.txid: entry.height for entry in history.confirmed}
        for txid, height in (found.known or {}).items():
            if told.get(txid) != height:
                await check_same_chain(server, headers, height)
                raise ServerFault(f"it hides transaction {txid[::-1].hex()}, which is in block {height}")

    async def _ask_spenders(self, server: Server, headers: HeaderStore, fresh: Sequence[WatchedScript]) -> None:
        """A second way to learn of spends, where the protocol has it."""
        outputs = [(outpoint, found) for found in fresh for outpoint in found.outputs]
        told = await server.spenders([(outpoint, found.script) for outpoint, found in outputs])
        missing: dict[Confirmed, list[WatchedScript]] = {}
        for (_, found), spender in zip(outputs, told, strict=True):
            if spender is None or not found.since <= spender.height <= headers.height:
                continue
            if (found.known or {}).get(spender.txid) != spender.height:
                missing.setdefault(spender, []).append(found)
        await self._fetch(server, headers, missing)
