"""The dispatcher: policies, deadlines, isolation, quarantine."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from leyden.hooks import PluginError, WouldDeadlock, hookimpl
from leyden.hooks.contract import contracts
from leyden.hooks.registry import Registry
from leyden.hooks.types import (
    AcceptTerms,
    ChannelReadyEvent,
    IncomingPayment,
    LoggedEvent,
    OpenRequest,
    PeerInfo,
    Refusal,
    SpendRequest,
)
from leyden.node import dispatcher as module
from leyden.node.dispatcher import FAULTS_BEFORE_QUARANTINE, SPENDING, HookDispatcher, refuse_deadlock
from leyden.types import ChannelId, CltvDelta, FeeRatePerKw, Msat, NodeId, PaymentHash, Sat

PEER = PeerInfo(node_id=NodeId(b"\x02" * 33), address="127.0.0.1:9735", inbound=True, features=b"")
OPEN = OpenRequest(
    node_id=NodeId(b"\x02" * 33),
    temporary_channel_id=ChannelId(b"\x07" * 32),
    funding_satoshis=Sat(1_000_000),
    push_msat=Msat(0),
    feerate_per_kw=FeeRatePerKw(253),
    to_self_delay=CltvDelta(144),
    announce=False,
    channel_type=b"",
)
PAYMENT = IncomingPayment(payment_hash=PaymentHash(bytes(32)), amount_msat=Msat(1), invoice_msat=None, label="x")
SPEND = SpendRequest(kind="pay", amount_msat=Msat(1), max_fee_msat=Msat(1), destination="x")
EVENT = LoggedEvent(
    index=1, time=0, event=ChannelReadyEvent(channel_id=ChannelId(bytes(32)), node_id=NodeId(b"\x02" * 33))
)


class Plugin:
    """Stands for a plugin's module."""

    def __init__(self, **hooks: object) -> None:
        self.__dict__.update(hooks)


def plugin(**hooks: Callable[..., Any]) -> Plugin:
    return Plugin(**{name: hookimpl(function) for name, function in hooks.items()})


def make(*plugins: object, **options: Any) -> HookDispatcher:
    registry = Registry(())
    for number, entry in enumerate(plugins):
        registry.enable(f"p{number}", entry)
    return HookDispatcher(registry.manager, registry.failures, **options)


@pytest.fixture
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    short = {
        name: msgspec.structs.replace(contract, deadline=contract.deadline and 0.05)
        for name, contract in contracts().items()
    }
    monkeypatch.setattr(module, "contracts", lambda: short)


def accept_peer(answer: Any) -> Plugin:
    def leyden_accept_peer(peer: PeerInfo) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return plugin(leyden_accept_peer=leyden_accept_peer)


async def test_without_a_plugin_the_policy_of_the_config_answers() -> None:
    hooks = make()
    assert not hooks.asks("leyden_accept_channel")
    assert await hooks.accept_peer(PEER) is None
    assert await hooks.accept_channel(OPEN) is None
    assert await hooks.accept_payment(PAYMENT)
    assert await hooks.approve_spend(SPEND)
    assert hooks.event_consumers() == ()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (True, None),
        (False, "plugin p0 refused"),
        (Refusal(reason="no\x1b[2J thanks\n"), "no?[2J thanks?"),
        (None, "plugin p0 did not answer"),
        ("yes", "plugin p0 failed"),
        (1, "plugin p0 failed"),
        (AcceptTerms(), "plugin p0 failed"),
        (Refusal(reason=7), "plugin p0 failed"),
        (ValueError("secret detail"), "plugin p0 failed"),
        (SystemExit(3), "plugin p0 failed"),
        (asyncio.CancelledError(), "plugin p0 failed"),
    ],
)
async def test_answers_of_one_plugin(answer: Any, reason: str | None) -> None:
    hooks = make(accept_peer(answer))
    assert hooks.asks("leyden_accept_peer")
    assert await hooks.accept_peer(PEER) == reason
    assert hooks.health()[0].faults == (1 if reason == "plugin p0 failed" else 0)


async def test_any_veto_wins_and_the_first_in_order_gives_the_reason() -> None:
    hooks = make(accept_peer(True), accept_peer(Refusal(reason="second")), accept_peer(Refusal(reason="third")))
    assert await hooks.accept_peer(PEER) == "second"
    assert await make(accept_peer(True), accept_peer(True)).accept_peer(PEER) is None


async def test_terms_are_merged_to_the_most_careful() -> None:
    def answering(answer: Any) -> Plugin:
        async def leyden_accept_channel(request: OpenRequest) -> Any:
            return answer

        return plugin(leyden_accept_channel=leyden_accept_channel)

    one = AcceptTerms(minimum_depth=3, max_htlc_value_in_flight_msat=Msat(10), to_self_delay=CltvDelta(100))
    two = AcceptTerms(minimum_depth=6, max_htlc_value_in_flight_msat=Msat(5))
    expected = AcceptTerms(minimum_depth=6, max_htlc_value_in_flight_msat=Msat(5), to_self_delay=CltvDelta(100))
    assert await make(answering(one), answering(True), answering(two)).accept_channel(OPEN) == expected
    assert await make(answering(True)).accept_channel(OPEN) == AcceptTerms()
    assert isinstance(await make(answering(one), answering(False)).accept_channel(OPEN), Refusal)
    wrong = AcceptTerms(minimum_depth="three")
    assert await make(answering(wrong)).accept_channel(OPEN) == Refusal(reason="plugin p0 failed")


async def test_plugins_are_asked_at_the_same_time() -> None:
    met = asyncio.Barrier(2)

    async def leyden_approve_spend(request: SpendRequest) -> bool:
        await met.wait()
        return True

    assert await make(*[plugin(leyden_approve_spend=leyden_approve_spend) for _ in range(2)]).approve_spend(SPEND)


@pytest.mark.usefixtures("short_deadlines")
async def test_a_silent_plugin_is_a_no_after_the_deadline() -> None:
    cancelled: list[str] = []

    async def leyden_approve_spend(request: SpendRequest) -> bool:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append("yes")
            raise
        return True

    hooks = make(plugin(leyden_approve_spend=leyden_approve_spend))
    assert await hooks.spend_refusal(SPEND) == "plugin p0 failed"
    assert "no answer within 0.05 s" in hooks.health()[0].last_fault
    await hooks.close()
    assert cancelled == ["yes"]


@pytest.mark.usefixtures("short_deadlines")
async def test_a_plugin_that_ignores_cancellation_holds_up_nobody() -> None:
    release = asyncio.Event()

    async def leyden_accept_payment(payment: IncomingPayment) -> bool:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        raise ValueError("too late to matter")

    hooks = make(plugin(leyden_accept_payment=leyden_accept_payment))
    assert not await hooks.accept_payment(PAYMENT)
    release.set()
    await hooks.close()


@pytest.mark.usefixtures("short_deadlines")
async def test_a_plugin_that_blocks_the_loop_is_found_out() -> None:
    def leyden_accept_payment(payment: IncomingPayment) -> bool:
        time.sleep(0.08)
        return True

    hooks = make(plugin(leyden_accept_payment=leyden_accept_payment))
    assert not await hooks.accept_payment(PAYMENT)
    assert "blocked the node" in hooks.health()[0].last_fault


async def test_quarantine_after_faults_in_a_row_and_the_answer_stays_no() -> None:
    answers: list[Any] = []

    def leyden_accept_peer(peer: PeerInfo) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    hooks = make(plugin(leyden_accept_peer=leyden_accept_peer), accept_peer(True))
    faults: list[Any] = [ValueError(), "wrong"] * FAULTS_BEFORE_QUARANTINE
    answers[:] = [*faults[: FAULTS_BEFORE_QUARANTINE - 1], True, *faults[:FAULTS_BEFORE_QUARANTINE]]
    refusals = [await hooks.accept_peer(PEER) for _ in answers[:]]
    assert refusals.count(None) == 1
    assert answers == []
    health = hooks.health()
    assert health[0].quarantined
    assert health[0].faults == 2 * FAULTS_BEFORE_QUARANTINE - 1
    assert not health[1].quarantined
    assert await hooks.accept_peer(PEER) == "plugin p0 is quarantined"  # it is not called: answers is empty
    assert hooks.health()[0].calls == health[0].calls


async def test_a_plugin_that_failed_to_register_still_vetoes() -> None:
    def leyden_register_services(registry: object) -> None:
        raise ValueError("boom")

    yes = lambda: True  # noqa: E731
    hooks = make(plugin(leyden_accept_peer=yes, leyden_register_services=leyden_register_services))
    assert await hooks.accept_peer(PEER) == "plugin p0 is quarantined"
    assert hooks.health()[0].last_fault == "ValueError: boom"


async def test_events_are_delivered_alone() -> None:
    seen: list[int] = []

    async def good(logged: LoggedEvent) -> None:
        seen.append(logged.index)

    def bad(logged: LoggedEvent) -> None:
        raise ValueError("no")

    def wordy(logged: LoggedEvent) -> Any:
        return "thanks"

    hooks = make(plugin(leyden_event=good), plugin(leyden_event=bad), plugin(leyden_event=wordy), plugin())
    assert hooks.event_consumers() == ("p0", "p1", "p2")
    assert [await hooks.deliver_event(name, EVENT) for name in hooks.event_consumers()] == [True, False, True]
    for _ in range(FAULTS_BEFORE_QUARANTINE + 1):
        assert not await hooks.deliver_event("p1", EVENT)
    assert seen == [1]
    assert [h.faults for h in hooks.health()] == [0, FAULTS_BEFORE_QUARANTINE + 2, 1, 0]
    assert not any(h.quarantined for h in hooks.health())


async def test_start_is_refused_by_name_and_stop_goes_on() -> None:
    order: list[str] = []

    def life(name: str, error: Exception | None = None) -> Plugin:
        async def leyden_start(node: object) -> None:
            order.append(f"start {name}")
            if error is not None:
                raise error

        def leyden_stop() -> None:
            order.append(f"stop {name}")
            if error is not None:
                raise error

        return plugin(leyden_start=leyden_start, leyden_stop=leyden_stop)

    hooks = make(life("a"), life("b", ValueError("no licence")), life("c"))
    with pytest.raises(PluginError, match="plugin 'p1' did not start: ValueError: no licence"):
        await hooks.start(object())
    await hooks.stop()
    assert order == ["start a", "start b", "stop c", "stop b", "stop a"]


async def test_a_call_about_the_question_itself_would_deadlock() -> None:
    found: list[str] = []
    later: list[asyncio.Task[None]] = []

    async def call(what: bytes) -> None:
        try:
            refuse_deadlock(what)
            found.append("free")
        except WouldDeadlock as error:
            found.append(str(error))

    async def leyden_accept_channel(request: OpenRequest) -> bool:
        await call(request.temporary_channel_id)
        await asyncio.gather(call(b"another channel"), call(request.temporary_channel_id))

        async def afterwards() -> None:
            await asyncio.sleep(0.01)
            await call(request.temporary_channel_id)

        later.append(asyncio.get_running_loop().create_task(afterwards()))
        return True

    async def leyden_approve_spend(request: SpendRequest) -> bool:
        refuse_deadlock(SPENDING)
        return True

    hooks = make(plugin(leyden_accept_channel=leyden_accept_channel, leyden_approve_spend=leyden_approve_spend))
    assert await hooks.accept_channel(OPEN) == AcceptTerms()
    await later[0]
    message = "plugin 'p0' calls the node about what leyden_accept_channel asks it: answer the hook first"
    assert found == [message, "free", message, "free"]
    assert not await hooks.approve_spend(SPEND)
    refuse_deadlock(OPEN.temporary_channel_id)


async def test_trace_prints_the_calls(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYDEN_TRACE", "leyden_accept_peer")
    hooks = make(accept_peer(True))
    await hooks.accept_peer(PEER)
    assert "leyden_accept_peer(peer=PeerInfo(" in capsys.readouterr().err
    quiet = make(accept_peer(True), trace="leyden_event")
    await quiet.accept_peer(PEER)
    assert capsys.readouterr().err == ""


async def test_arguments_are_taken_by_name() -> None:
    def leyden_accept_peer() -> bool:
        return True

    assert await make(plugin(leyden_accept_peer=leyden_accept_peer)).accept_peer(PEER) is None
