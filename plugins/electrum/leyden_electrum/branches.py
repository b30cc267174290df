"""A server's headers beside ours: where its chain leaves ours, what it has above, and what is older than we have."""

import time

from leyden.bitcoin import HEADER_LENGTH
from leyden.chain import ChainSourceError
from leyden.chain.difficulty import HeaderTip
from leyden.crypto import sha256d

from leyden_electrum.errors import OtherMoment, ServerFault
from leyden_electrum.headers import HeaderStore
from leyden_electrum.server import HEADERS_AT_ONCE, Server, Tip


async def find_fork(server: Server, headers: HeaderStore, high: int) -> int | None:
    """The newest block, at ``high`` or below, that both chains have."""
    step = 16
    while high >= headers.base:
        low = max(headers.base, high - step + 1)
        theirs = await server.headers(low, high - low + 1)
        for height in range(low + len(theirs) // HEADER_LENGTH - 1, low - 1, -1):
            at = (height - low) * HEADER_LENGTH
            if theirs[at : at + HEADER_LENGTH] == headers.header(height):
                return height
        high, step = low - 1, min(step * 4, HEADERS_AT_ONCE)
    return None


async def fetch_branch(server: Server, fork: HeaderTip, tip: Tip) -> tuple[bytes, HeaderTip]:
    """The server's headers above ``fork``, checked. ``ChainSourceError`` if they break a rule."""
    end, parts = fork, bytearray()
    while end.height < tip.height:
        run = await server.headers(end.height + 1, min(tip.height - end.height, HEADERS_AT_ONCE))
        if not run:
            break
        end, _ = end.extended(run, now=int(time.time()))
        parts += run
    if end.hash != sha256d(tip.header):
        raise OtherMoment(f"its headers do not lead to the tip that it names, block {tip.height}")
    return bytes(parts), end


async def extend_down(server: Server, headers: HeaderStore, height: int) -> None:
    """Headers from ``height`` on: a watch looks for something older than where we began."""
    while (base := headers.base) > height:
        first = max(height, base - HEADERS_AT_ONCE, 0)
        older = await server.headers(first, base - first)
        if headers.base != base:
            continue  # somebody else was faster
        try:
            headers.extend_down(older)
        except ChainSourceError as error:
            raise ServerFault(f"its older headers do not lead to block {base}: {error}") from error


async def check_same_chain(server: Server, headers: HeaderStore, height: int) -> None:
    """``OtherMoment`` if the server has changed to another branch meanwhile: then it may be right for that one."""
    theirs = await server.header(height)
    if not headers.base <= height <= headers.height or theirs != headers.header(height):
        raise OtherMoment("it answers for another chain than it named")
