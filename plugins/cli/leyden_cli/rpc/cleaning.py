"""Answers made safe: text in them may have been written by a peer."""

import msgspec
from leyden.types import clean_text

_LONGEST = 65_536
"""Characters; invoices are long, and nothing a node stores comes near this."""


def clean_values(value: object) -> object:
    """``value`` as plain JSON types, every text in it free of controls, separators and direction marks."""
    return _clean(msgspec.to_builtins(value))


def _clean(value: object) -> object:
    if isinstance(value, str):
        return value if value.isascii() and value.isprintable() else clean_text(value, _LONGEST)
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value
