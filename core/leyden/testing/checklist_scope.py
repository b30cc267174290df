"""What the checklist report demands: areas that are complete, and the lines in them that wait, each with a reason.

A line of any other area is demanded as soon as shipped code names its rule.
"""

REQUIRED_AREAS: tuple[str, ...] = (
    "Opening, v1",
    "Closing",
    "HTLCs and updates",
    "Reconnection",
    "Transactions",
    "Messages, TLV, fundamental types",
    "Init, features, connections",
    "Error, warning, ping, peer storage",
    "Transport",
    "Route blinding",
    "Attribution and fulfilment",
    "DNS seeds",
    "Invoices (BOLT 11)",
)
"""Headings of ``docs/spec/checklist.md`` (without the BOLT in brackets where that is not ambiguous)."""

EXCEPTED: dict[str, str] = {
    "C-078": "nothing is forwarded yet",
    "C-083": "nothing is forwarded yet",
    "C-084": "blinded routes are not offered: an HTLC with a path key is failed as malformed, at once",
    "C-085": "attribution data is not offered: it is built and read, and neither sent nor asked for",
    "C-091": "zero-fee commitments are not offered",
    "C-099": "interactive transactions are not offered: next_funding is ignored",
    "C-100": "splicing is not offered: my_current_funding_locked is ignored",
    "C-147": "peer storage is not offered: a blob is ignored, as a message of an unknown odd type is",
    "C-148": "peer storage is not offered: no blob is kept, none is returned",
    "C-149": "peer storage is not offered: none of ours is sent, and one that comes back is ignored",
}
"""Lines of required areas that belong to features that no node of this version offers."""
