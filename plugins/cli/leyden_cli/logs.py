"""Structured logging: one JSON object per line, on stderr or in a file of mode 0600."""

import logging
import os
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import TextIO

import msgspec
import structlog

from leyden_cli.config import LogSettings
from leyden_cli.errors import ConfigError

_SECRET_WORDS = ("secret", "seed", "mnemonic", "preimage", "private", "passphrase")
_encoder = msgspec.json.Encoder(enc_hook=str)
EventDict = MutableMapping[str, object]


def set_up_logging(settings: LogSettings, folder: Path) -> TextIO:
    """Everything that structlog or the standard library logs from now on goes to the stream that is returned.

    Below ``level`` nothing is formatted.
    """
    stream = sys.stderr if settings.file is None else _open_private(folder / settings.file)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            plain_values,
            structlog.processors.JSONRenderer(serializer=lambda event, **_: _encoder.encode(event).decode()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[_ToStructlog()], force=True)
    return stream


def plain_values(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Bytes become hexadecimal; whatever is called a secret is not written at all."""
    for key, value in event.items():
        if any(word in key for word in _SECRET_WORDS):
            event[key] = "(not logged)"
        elif isinstance(value, bytes):
            event[key] = value.hex()
    return event


class _ToStructlog(logging.Handler):
    """What libraries say through the standard library's logging joins the same stream."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).log(record.levelno, record.getMessage(), exc_info=record.exc_info or None)


def _open_private(path: Path) -> TextIO:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write the log {path}: {error.strerror}") from None
    return os.fdopen(descriptor, "a", buffering=1, encoding="utf-8")
