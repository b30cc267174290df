"""What the checklist report demands: areas that must be proved, and the lines in them that wait, each with a reason."""

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
    "Invoices (BOLT 11)",
)
"""Headings of ``docs/spec/checklist.md`` (without the BOLT in brackets where that is not ambiguous)."""

EXCEPTED: dict[str, str] = {
    "C-078": "forwarding is not built",
    "C-083": "forwarding is not built",
    "C-084": "route blinding is not offered",
    "C-085": "attribution data is not offered",
    "C-091": "zero-fee commitments are not offered",
    "C-099": "interactive transactions are not built",
    "C-100": "splicing is not built",
    "C-112": "zero-fee commitments are not offered",
    "C-147": "peer storage is not offered",
    "C-148": "peer storage is not offered",
    "C-149": "peer storage is not offered",
}
"""Lines of required areas that belong to features that no node of this version offers."""
