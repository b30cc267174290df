"""Cells of the interop table that a peer cannot pass, each with its evidence. Everything else has to pass.

A listed scenario runs all the same and has to end with the text in ``says``: it counts as not supported then. If it
passes, or if the peer offers ``feature``, the run fails and the line has to go.
"""

from fnmatch import fnmatchcase

import msgspec
from leyden.wire.features import Feature


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """``row`` is a pattern of row names as the table prints them."""

    peer: str
    row: str
    says: str
    """Part of the error with which the scenario ends."""
    why: str
    """The limit, in words that docs/interop.md can print."""
    feature: Feature | None = None
    """The peer was seen not to offer it in ``init``."""


LIMITS: tuple[Limit, ...] = (
    Limit(
        peer="electrum",
        row="connect: they hang up",
        says="no command that ends a connection",
        why="it has no command that ends a connection",
    ),
    Limit(
        peer="electrum",
        row="pay: 1 msat by them",
        says="hangs for ever",
        why="its search for parts (split_amount_normal in mpp_split.py) never ends for fewer msat than parts",
    ),
    *(
        Limit(
            peer=peer,
            row="fail: expired invoice to them",
            says="nothing expires",
            why="LDK's clock for invoices is the newest block's time, and it gives two hours on top",
        )
        for peer in ("ldk", "ldk_node")
    ),
    *(
        Limit(
            peer="ldk_node",
            row=row,
            says="feerate of its own estimate only",
            why="the crate takes no feerate for a cooperative close",
        )
        for row in ("close: they want *", "legacy close: they pay a high fee")
    ),
    Limit(
        peer="ldk_node",
        row="close: to an address of theirs",
        says="never to another one",
        why="the crate commits to an address of its own wallet",
    ),
    Limit(
        peer="electrum",
        row="close: to an address of theirs",
        says="never commits to a shutdown script",
        why="it sends an empty upfront_shutdown_script",
    ),
    Limit(
        peer="lnd",
        row="fee: update by them*",
        says="every 10 to 60 minutes",
        why="a funder looks at the market every 10 to 60 minutes, at random (constants); seen once by hand",
    ),
)


def limit_of(peer: str, row: str) -> Limit | None:
    return next((limit for limit in LIMITS if limit.peer == peer and fnmatchcase(row, limit.row)), None)
