"""The plugin ``cli``: writes every event of the node into its log."""

import msgspec
import structlog
from leyden.hooks import hookimpl
from leyden.hooks.types import LoggedEvent

log = structlog.get_logger("leyden.events")


@hookimpl
def leyden_event(logged: LoggedEvent) -> None:
    facts = msgspec.structs.asdict(logged.event)
    log.info(str(type(logged.event).__struct_config__.tag), index=logged.index, **facts)
