"""Whole blocks of bitcoind, as bytes."""

from leyden.bitcoin import HEADER_LENGTH
from leyden.crypto import sha256d
from leyden.hooks.types import BlockConnected
from leyden.types import BlockHash, BlockHeight

from leyden_bitcoind.backend import shown
from leyden_bitcoind.client import RpcClient, RpcUnavailable


class Blocks:
    """Fetches by REST where bitcoind offers it (``-rest``), for there a block is bytes; else by JSON-RPC, where it is
    hexadecimal, which is seven times the work for bitcoind."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client
        self._by_rest = True

    def look_for_rest(self) -> None:
        """Bitcoind may have been started with other options meanwhile."""
        self._by_rest = True

    async def fetch(self, block_hash: BlockHash) -> bytes:
        """Of any branch; errors of ``RpcClient.call_hex``."""
        if self._by_rest:
            found = await self._rest(block_hash)
            if found is not None:
                return found
        raw = await self._client.call_hex("getblock", shown(block_hash), 0)
        if not _is(raw, block_hash):
            raise RpcUnavailable(f"bitcoind gave another block than {shown(block_hash)}")
        self._by_rest = False
        return raw

    async def _rest(self, block_hash: BlockHash) -> bytes | None:
        """``None`` if JSON-RPC has to be asked: it is off, lacks this block, or a proxy lets no such question through.
        Whether bitcoind is away shows there."""
        try:
            found = await self._client.get(f"/rest/block/{shown(block_hash)}.bin")
        except RpcUnavailable:
            return None
        return bytes(found) if found is not None and _is(found, block_hash) else None


def _is(raw: bytes | bytearray, block_hash: BlockHash) -> bool:
    return sha256d(bytes(raw[:HEADER_LENGTH])) == block_hash


def connected(height: int, raw: bytes) -> BlockConnected:
    """A whole block, as bytes: the core parses of it what somebody watches."""
    header = raw[:HEADER_LENGTH]
    return BlockConnected(
        height=BlockHeight(height),
        block_hash=BlockHash(sha256d(header)),
        header=header,
        transactions=(),
        full=True,
        raw=raw,
    )
