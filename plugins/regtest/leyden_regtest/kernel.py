"""The chainstate of libbitcoinkernel: real consensus rules for blocks, nothing else.

The kernel has habits that this module hides: a block that breaks a consensus rule does not raise (only a callback
tells), exceptions in callbacks vanish, reasons exist only as log lines, and nothing is durable before a clean close.
"""

import collections
from pathlib import Path

import pbk
from leyden.types import BlockHash

from leyden_regtest.errors import BlockRefused, ChainError

_LOG_LINES: collections.deque[str] = collections.deque(maxlen=64)
_log_connection: "pbk.LoggingConnection | None" = None


def _keep_line(line: str) -> None:
    _LOG_LINES.append(line)


def _capture_log() -> None:
    """Take the kernel's log off stdout, once per process; the last lines serve to explain a refusal."""
    global _log_connection
    if _log_connection is None:
        _log_connection = pbk.LoggingConnection(_keep_line)


def _reason() -> str:
    for line in _LOG_LINES:
        for mark in ("Block validation error: ", "AcceptBlock FAILED (", "ProcessNewBlock: "):
            _, found, rest = line.partition(mark)
            if found:
                return rest.strip().rstrip(")")
    return "no reason in the kernel's log"


class Chainstate:
    """One regtest chainstate in ``folder``; the folder is used exclusively until ``close``."""

    def __init__(self, folder: Path) -> None:
        _capture_log()
        self._invalid = False
        self._connected: list[tuple[bool, BlockHash]] = []
        self._callbacks = pbk.ValidationInterfaceCallbacks(
            block_checked=self._on_checked,
            block_connected=lambda _, block, entry: self._connected.append((True, BlockHash(bytes(block.block_hash)))),
            block_disconnected=lambda _, block, entry: self._connected.append(
                (False, BlockHash(bytes(block.block_hash)))
            ),
        )
        try:
            context = pbk.make_context(pbk.ChainType.REGTEST, self._callbacks)
            options = pbk.ChainstateManagerOptions(context, str(folder.absolute()), str((folder / "blocks").absolute()))
            options.set_worker_threads_num(0)
            self._manager: pbk.ChainstateManager | None = pbk.ChainstateManager(options)
        except RuntimeError as error:
            raise ChainError(
                f"{folder}: the kernel cannot open its chain state (in use by another process?)"
            ) from error

    def _on_checked(self, _: object, block: "pbk.Block", state: "pbk.BlockValidationState") -> None:
        if state.validation_mode != pbk.ValidationMode.VALID:
            self._invalid = True

    def _open(self) -> "pbk.ChainstateManager":
        if self._manager is None:
            raise ChainError("the chain is closed")
        return self._manager

    def submit(self, raw_block: bytes) -> list[tuple[bool, BlockHash]]:
        """Process one block.

        Returns the steps of the active chain in order, ``(connected?, hash)``: none for a block on a branch that
        is not the best. Raises ``BlockRefused`` if a consensus rule is broken, by this block or by one of the branch
        that it would have made the best one.
        """
        manager = self._open()
        self._invalid = False
        self._connected.clear()
        _LOG_LINES.clear()
        try:
            manager.process_block(pbk.Block(raw_block))
        except (RuntimeError, pbk.ProcessBlockException) as error:
            raise BlockRefused(f"block refused: {_reason()}") from error
        if self._invalid:
            raise BlockRefused(f"block refused: {_reason()}")
        return list(self._connected)

    def knows(self, block_hash: bytes) -> bool:
        return pbk.BlockHash(block_hash) in self._open().block_tree_entries

    @property
    def height(self) -> int:
        return int(self._open().get_active_chain().height)

    def hash_at(self, height: int) -> BlockHash:
        """Hash of the block of the active chain at ``height``; ``ChainError`` outside of 0..tip."""
        chain = self._open().get_active_chain()
        if not 0 <= height <= chain.height:
            raise ChainError(f"no block at height {height}: the tip is at {chain.height}")
        return BlockHash(bytes(chain.block_tree_entries[height].block_hash))

    def block_at(self, height: int) -> bytes:
        manager = self._open()
        return bytes(manager.blocks[manager.get_active_chain().block_tree_entries[height]])

    def close(self) -> None:
        """Flush to disk and release the folder; calling it again does nothing."""
        manager, self._manager = self._manager, None
        if manager is not None:
            manager.__exit__(None, None, None)
