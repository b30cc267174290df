"""Asking plugins: asynchronous, with deadlines, isolated from each other and from the node.

pluggy finds the implementations; calling them is done here, because its calls know neither ``await`` nor time. What
each hook promises is in ``leyden.hooks.hookspecs``.
"""

import asyncio
import contextvars
import os
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
import pluggy
import structlog
from pluggy import HookImpl

from leyden.hooks.contract import HookContract, contracts
from leyden.hooks.errors import PluginError, WouldDeadlock
from leyden.hooks.types import (
    AcceptTerms,
    IncomingPayment,
    LoggedEvent,
    OpenRequest,
    PeerInfo,
    Refusal,
    SpendRequest,
)
from leyden.types import clean_text

log = structlog.get_logger("leyden.hooks")

FAULTS_BEFORE_QUARANTINE = 3
"""So many faults of a plugin in a row, on hooks that ask it something, and it is not asked again before a restart."""
SPENDING = b"leyden_approve_spend"
"""What ``leyden_approve_spend`` is about, for ``refuse_deadlock``: no spend may be begun from inside it."""
_LAST_GRACE = 1.0


class _Question:
    """One call of a hook, visible to everything the plugin calls from inside it while it lasts."""

    __slots__ = ("about", "active", "hook", "plugin")

    def __init__(self, hook: str, plugin: str, about: frozenset[bytes]) -> None:
        self.hook = hook
        self.plugin = plugin
        self.about = about
        self.active = True


_QUESTIONS: contextvars.ContextVar[tuple[_Question, ...]] = contextvars.ContextVar("leyden_questions", default=())


def refuse_deadlock(subject: bytes) -> None:
    """Called by the node's API with the channel id, node id or payment hash it is about to work on.

    ``WouldDeadlock`` if the call comes from inside a hook that is being asked about that very thing: the node waits for
    the hook's answer and the hook would wait for the node.
    """
    for question in _QUESTIONS.get():
        if question.active and subject in question.about:
            raise WouldDeadlock(
                f"plugin {question.plugin!r} calls the node about what {question.hook} asks it: answer the hook first"
            )


class PluginHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How a plugin has behaved in this run. ``faults`` counts exceptions, timeouts and wrong answers."""

    plugin: str
    quarantined: bool
    calls: int
    faults: int
    last_fault: str


class _Record:
    """Mutable tally behind ``PluginHealth``."""

    __slots__ = ("calls", "faults", "in_a_row", "last_fault", "quarantined")

    def __init__(self) -> None:
        self.calls = 0
        self.faults = 0
        self.in_a_row = 0
        self.last_fault = ""
        self.quarantined = False


class _Fault(msgspec.Struct, frozen=True):
    """The plugin did not answer properly."""

    reason: str


class _Answer(msgspec.Struct, frozen=True):
    value: object


class HookDispatcher:
    """Calls the hooks of the plugins registered with ``manager``.

    ``failures`` are the plugins already quarantined while they registered (name to reason). Call ``close`` at the end.
    """

    def __init__(
        self, manager: pluggy.PluginManager, failures: Mapping[str, str] | None = None, *, trace: str | None = None
    ) -> None:
        self._manager = manager
        self._contracts = contracts()
        self._order = {name: place for place, (name, _) in enumerate(manager.list_name_plugin())}
        self._records = {name: _Record() for name in self._order}
        self._tasks: set[asyncio.Task[object]] = set()
        traced = os.environ.get("LEYDEN_TRACE", "") if trace is None else trace
        self._traced = {name.strip() for name in traced.split(",") if name.strip()}
        for name, reason in (failures or {}).items():
            record = self._records.setdefault(name, _Record())
            record.faults, record.last_fault, record.quarantined = 1, reason, True

    # -- questions -----------------------------------------------------------------------------------------------

    def asks(self, hook: str) -> bool:
        """Whether any plugin answers this hook; a quarantined one counts, its answer is no."""
        return bool(self._implementations(hook))

    async def accept_peer(self, info: PeerInfo) -> str | None:
        """The reason of a refusal, or ``None``: the peer may stay (also when no plugin is asked)."""
        answer = await self._ask("leyden_accept_peer", {"peer": info}, about=(info.node_id,))
        return answer.reason if isinstance(answer, Refusal) else None

    async def accept_channel(self, request: OpenRequest) -> AcceptTerms | Refusal | None:
        """The plugins' joint answer; ``None`` when there is no plugin and the config's policy decides."""
        answer = await self._ask("leyden_accept_channel", {"request": request}, about=(request.temporary_channel_id,))
        if answer is None or isinstance(answer, Refusal):
            return answer
        return _most_careful([terms for terms in answer if isinstance(terms, AcceptTerms)])

    async def accept_payment(self, payment: IncomingPayment) -> bool:
        """Whether to claim the payment; yes without a plugin."""
        answer = await self._ask("leyden_accept_payment", {"payment": payment}, about=(payment.payment_hash,))
        return not isinstance(answer, Refusal)

    async def approve_spend(self, request: SpendRequest) -> bool:
        """Whether the spend may go ahead; yes without a plugin."""
        return await self.spend_refusal(request) is None

    async def spend_refusal(self, request: SpendRequest) -> str | None:
        """Why the spend is refused, or ``None``."""
        answer = await self._ask("leyden_approve_spend", {"request": request}, about=(SPENDING,))
        return answer.reason if isinstance(answer, Refusal) else None

    # -- notices -------------------------------------------------------------------------------------------------

    def event_consumers(self) -> tuple[str, ...]:
        """Plugins that want events; each has a cursor of this name."""
        return tuple(dict.fromkeys(impl.plugin_name for impl in self._implementations("leyden_event")))

    async def deliver_event(self, consumer: str, event: LoggedEvent) -> bool:
        """Give one event to one plugin. False: it failed (or is quarantined) and must get it again later.

        Faults are counted but do not quarantine: being told again is the remedy.
        """
        if self._is_quarantined(consumer):
            return False
        contract = self._contracts["leyden_event"]
        done = True
        for impl in self._implementations("leyden_event"):
            if impl.plugin_name == consumer:
                outcome = await self._call(impl, contract, {"logged": event}, frozenset(), counts=False)
                if isinstance(outcome, _Answer) and outcome.value is not None:
                    self._note(consumer, contract, f"returned {type(outcome.value).__name__}", counts=False)
                done = done and isinstance(outcome, _Answer)
        return done

    async def start(self, node: object) -> None:
        """``leyden_start`` of every plugin in order; ``PluginError`` names the one that refuses or fails."""
        contract = self._contracts["leyden_start"]
        for impl in self._implementations("leyden_start"):
            outcome = await self._call(impl, contract, {"node": node}, frozenset())
            if isinstance(outcome, _Fault):
                raise PluginError(f"plugin {impl.plugin_name!r} did not start: {outcome.reason}")
            if outcome.value is not None:
                raise PluginError(f"plugin {impl.plugin_name!r} did not start: it returned a value")

    async def stop(self) -> None:
        """``leyden_stop`` of every plugin in reverse order; failures are logged."""
        contract = self._contracts["leyden_stop"]
        for impl in reversed(self._implementations("leyden_stop")):
            await self._call(impl, contract, {}, frozenset())

    async def close(self) -> None:
        """Cancel calls that outlived their deadline and wait a moment for them."""
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_GRACE)
        for task in self._tasks:
            log.error("a plugin does not end its call", task=task.get_name())

    def health(self) -> tuple[PluginHealth, ...]:
        """Every registered plugin, in order of registration."""
        return tuple(
            PluginHealth(
                plugin=name,
                quarantined=record.quarantined,
                calls=record.calls,
                faults=record.faults,
                last_fault=record.last_fault,
            )
            for name, record in self._records.items()
        )

    # -- calling -------------------------------------------------------------------------------------------------

    async def _ask(
        self, hook: str, arguments: Mapping[str, Any], about: tuple[bytes, ...]
    ) -> list[Any] | Refusal | None:
        """All acceptances, the first refusal in order of registration, or ``None`` when nobody is asked."""
        implementations = self._implementations(hook)
        if not implementations:
            return None
        contract = self._contracts[hook]
        subjects = frozenset(about)
        outcomes = await asyncio.gather(
            *(self._verdict(impl, contract, arguments, subjects) for impl in implementations)
        )
        for outcome, impl in zip(outcomes, implementations, strict=True):
            if isinstance(outcome, Refusal):
                log.info("a plugin refuses", hook=hook, plugin=impl.plugin_name, reason=outcome.reason)
                return outcome
        return list(outcomes)

    async def _verdict(
        self, impl: HookImpl, contract: HookContract, arguments: Mapping[str, Any], about: frozenset[bytes]
    ) -> object:
        """An acceptance as the plugin gave it, or a ``Refusal``: silence and faults are a no."""
        plugin = impl.plugin_name
        if self._is_quarantined(plugin):
            return Refusal(reason=f"plugin {plugin} is quarantined")
        outcome = await self._call(impl, contract, arguments, about)
        if isinstance(outcome, _Fault):
            return Refusal(reason=f"plugin {plugin} failed")
        answer = _judge(plugin, contract, outcome.value)
        if answer is None:
            self._note(plugin, contract, f"answered with a wrong {type(outcome.value).__name__}", counts=True)
            return Refusal(reason=f"plugin {plugin} failed")
        self._records[plugin].in_a_row = 0
        return answer

    async def _call(
        self,
        impl: HookImpl,
        contract: HookContract,
        arguments: Mapping[str, Any],
        about: frozenset[bytes],
        *,
        counts: bool = True,
    ) -> _Answer | _Fault:
        """One implementation, within its deadline. Never raises what the plugin raises."""
        plugin = impl.plugin_name
        record = self._records[plugin]
        record.calls += 1
        question = _Question(contract.name, plugin, about)
        context = contextvars.copy_context()
        context.run(_QUESTIONS.set, (*_QUESTIONS.get(), question))
        loop = asyncio.get_running_loop()
        started = loop.time()
        task = loop.create_task(_invoke(impl, arguments), name=f"{contract.name} of {plugin}", context=context)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            await asyncio.wait({task}, timeout=contract.deadline)
        finally:
            question.active = False
            if not task.done():
                task.cancel()
        took = loop.time() - started
        outcome = _outcome(task, contract, took)
        self._trace(contract.name, plugin, arguments, outcome, took)
        if isinstance(outcome, _Fault):
            self._note(plugin, contract, outcome.reason, counts=counts)
        return outcome

    def _note(self, plugin: str, contract: HookContract, reason: str, *, counts: bool) -> None:
        """Count a fault; too many in a row quarantine the plugin."""
        record = self._records[plugin]
        record.faults += 1
        record.last_fault = f"{contract.name}: {reason}"
        log.warning("a plugin misbehaves", hook=contract.name, plugin=plugin, fault=reason)
        if not counts:
            return
        record.in_a_row += 1
        if record.in_a_row >= FAULTS_BEFORE_QUARANTINE and not record.quarantined:
            record.quarantined = True
            log.warning("plugin quarantined until the next start", plugin=plugin, fault=record.last_fault)

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # the outcome was judged; what an abandoned call raises later concerns nobody

    def _implementations(self, hook: str) -> list[HookImpl]:
        found = getattr(self._manager.hook, hook).get_hookimpls()
        return sorted(found, key=lambda impl: self._order.get(impl.plugin_name, len(self._order)))

    def _is_quarantined(self, plugin: str) -> bool:
        record = self._records.get(plugin)
        return record is not None and record.quarantined

    def _trace(self, hook: str, plugin: str, arguments: Mapping[str, Any], outcome: object, took: float) -> None:
        if hook in self._traced or "*" in self._traced:
            given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            print(f"{hook}({given}) {plugin}: {outcome!r} [{took * 1000:.1f} ms]", file=sys.stderr)


async def _invoke(impl: HookImpl, arguments: Mapping[str, Any]) -> object:
    try:
        answer = impl.function(*(arguments[name] for name in impl.argnames))
        if asyncio.iscoroutine(answer) or isinstance(answer, asyncio.Future):
            return await answer
        return answer
    except SystemExit as error:  # would stop the event loop
        raise PluginError("tried to end the process") from error


def _outcome(task: asyncio.Task[object], contract: HookContract, took: float) -> _Answer | _Fault:
    late = contract.deadline is not None and took > contract.deadline
    if not task.done() or (late and task.cancelled()):
        return _Fault(f"no answer within {contract.deadline:g} s")
    if task.cancelled():
        return _Fault("cancelled itself")
    error = task.exception()
    if error is not None:
        return _Fault(clean_text(f"{type(error).__name__}: {error}", 200))
    if late:
        return _Fault(f"blocked the node for {took:.1f} s")
    return _Answer(task.result())


def _judge(plugin: str, contract: HookContract, value: object) -> object | None:
    """The acceptance or ``Refusal`` that ``value`` means; ``None`` if it is no answer to this hook."""
    if value is None:
        return Refusal(reason=f"plugin {plugin} did not answer")
    if value is False:
        return Refusal(reason=f"plugin {plugin} refused")
    if isinstance(value, Refusal) and isinstance(value.reason, str):
        return Refusal(reason=clean_text(value.reason))
    if value is True and bool in contract.accepts:
        return value
    if isinstance(value, contract.accepts) and isinstance(value, msgspec.Struct) and _is_sound(value):
        return value
    return None


def _is_sound(value: msgspec.Struct) -> bool:
    """Whether the fields of a record have the types they are declared with (making one does not check that)."""
    try:
        msgspec.convert(msgspec.to_builtins(value), type(value))
    except (msgspec.ValidationError, TypeError):
        return False
    return True


def _most_careful(terms: list[AcceptTerms]) -> AcceptTerms:
    """One set of terms that satisfies all: most confirmations, least in flight, longest delay."""
    depths = [t.minimum_depth for t in terms if t.minimum_depth is not None]
    in_flight = [t.max_htlc_value_in_flight_msat for t in terms if t.max_htlc_value_in_flight_msat is not None]
    delays = [t.to_self_delay for t in terms if t.to_self_delay is not None]
    return AcceptTerms(
        minimum_depth=max(depths, default=None),
        max_htlc_value_in_flight_msat=min(in_flight, default=None),
        to_self_delay=max(delays, default=None),
    )
