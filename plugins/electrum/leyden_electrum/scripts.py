"""The scripts that are watched and what is known of each one's history."""

from collections.abc import Iterable, Sequence

from leyden.hooks.types import Watch
from leyden.types import OutPoint, Txid

from leyden_electrum.server import script_hash


class WatchedScript:
    """``known``: block height of every transaction of its history that was verified, from ``since`` on."""

    __slots__ = ("again_from", "known", "outputs", "script", "since", "status")

    def __init__(self, script: bytes, since: int) -> None:
        self.script = script
        self.since = since
        self.status: str | None = None
        """Of the history that ``known`` was taken from."""
        self.known: dict[Txid, int] | None = None
        self.outputs: tuple[OutPoint, ...] = ()
        self.again_from: int | None = None
        """A watch was added: what is known from this height on has to be delivered again."""

    def note(self, txid: Txid, height: int) -> None:
        """Verified: ``txid`` is in the block at ``height``."""
        if self.known is None:
            self.known = {}
        self.known[txid] = height

    def forget_from(self, height: int) -> bool:
        """Whatever is known from ``height`` on; whether that was anything."""
        if self.known is None:
            return False
        kept = {txid: at for txid, at in self.known.items() if at < height}
        lost = len(kept) < len(self.known)
        self.known = kept or None
        return lost


class ScriptBook:
    """All of them, and which to ask about next."""

    def __init__(self) -> None:
        self._scripts: dict[bytes, WatchedScript] = {}
        self.fresh: dict[bytes, None] = {}
        """Not asked about at this server yet."""
        self.doubtful: dict[bytes, None] = {}
        """Whose history must be read again, whatever its status says."""
        self._turn: list[bytes] = []

    def __len__(self) -> int:
        return len(self._scripts)

    def __getitem__(self, key: bytes) -> WatchedScript:
        return self._scripts[key]

    def __contains__(self, key: bytes) -> bool:
        return key in self._scripts

    def values(self) -> Sequence[WatchedScript]:
        return tuple(self._scripts.values())

    def add(self, watches: Iterable[Watch]) -> None:
        for watch in watches:
            key = script_hash(watch.script)
            since = int(watch.since_height)
            found = self._scripts.get(key)
            if found is None:
                found = self._scripts[key] = WatchedScript(watch.script, since)
            found.since = min(found.since, since)
            found.again_from = since if found.again_from is None else min(found.again_from, since)
            if watch.outpoint is not None and watch.outpoint not in found.outputs:
                found.outputs = (*found.outputs, watch.outpoint)
            self.fresh[key] = None

    def ask_all_again(self) -> None:
        """At another server nothing is followed yet."""
        self.fresh.update(dict.fromkeys(self._scripts))

    def forget_from(self, height: int) -> None:
        """The blocks from ``height`` on are others now, or have to be delivered again."""
        for key, found in self._scripts.items():
            if found.forget_from(height):
                self.doubtful[key] = None

    def next_turn(self, count: int) -> list[bytes]:
        """``count`` scripts, or all if there are not more; in the long run each as often as the others."""
        if len(self._scripts) <= count:
            return list(self._scripts)
        if len(self._turn) < count:
            self._turn += self._scripts
        turn, self._turn = self._turn[:count], self._turn[count:]
        return turn
