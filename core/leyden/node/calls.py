"""Callers of the API: work in a turn, an answer once it is durable, and one for everybody when the node stops."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from leyden.node.engine import Engine
from leyden.types import LeydenError

T = TypeVar("T")


class NodeStopped(LeydenError):
    """The node stopped before it could answer. What was begun is durable or never left: ask again after a start."""

    def __init__(self) -> None:
        super().__init__("the node stopped")


class Calls:
    """Everybody who waits for an answer of the node."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: set[asyncio.Future[Any]] = set()
        self._stopping = False

    async def call(self, work: Callable[[], T], /) -> T:
        """Run ``work`` in a turn; the value once that turn is durable."""
        done = self.future()
        self._engine.request(work, lambda value: finish(done, value), lambda error: finish(done, None, error))
        result: T = await done
        return result

    async def begin(self, work: Callable[["asyncio.Future[Any]"], None]) -> Any:
        """Run ``work``, which answers the future that it gets in its own time; if it cannot begin, that says why."""
        done = self.future()
        self._engine.request(lambda: work(done), lambda _: None, lambda error: finish(done, None, error))
        return await done

    def future(self) -> "asyncio.Future[Any]":
        """An answer to come; ``NodeStopped`` if the node stops before it does."""
        if self._stopping:
            raise NodeStopped
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._answered)
        return future

    def _answered(self, future: "asyncio.Future[Any]") -> None:
        self._waiting.discard(future)
        if not future.cancelled():
            future.exception()  # whoever asked may have stopped waiting

    def refuse(self) -> None:
        """The node stops: nobody new may ask."""
        self._stopping = True

    def end(self) -> None:
        """Nothing will be answered any more: whoever still waits gets ``NodeStopped``."""
        for future in list(self._waiting):
            finish(future, None, NodeStopped())


def finish(future: "asyncio.Future[Any]", value: object, error: BaseException | None = None) -> None:
    """Answer unless it was answered, or nobody waits any more."""
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
