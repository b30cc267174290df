"""Text that strangers wrote, made safe for a log or a screen."""

import unicodedata

MAX_TEXT = 512
_BANNED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def clean_text(text: str | bytes, limit: int = MAX_TEXT) -> str:
    """Replace controls, bidi marks, separators and undecodable bytes by ``?`` and cut at ``limit`` characters.

    Everything from a peer (errors, aliases, memos) passes through here before it meets a log or a screen (C-223).
    """
    if isinstance(text, bytes):
        text = text[: limit * 4].decode("utf-8", "replace")
    cut = text[:limit]
    return "".join("?" if unicodedata.category(c) in _BANNED else c for c in cut)
