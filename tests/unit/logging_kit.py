"""For tests that set up logging as a node does: what comes after them in this process logs as before."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from structlog._config import BoundLoggerLazyProxy  # no public name tells which loggers were used


@contextmanager
def logging_undone() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        yield
    finally:
        structlog.reset_defaults()
        for module in list(sys.modules.values()):
            logger = vars(module).get("log")
            if isinstance(logger, BoundLoggerLazyProxy):  # used meanwhile, it would keep a stream that is closed by now
                vars(logger).pop("bind", None)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
