"""The guarding signer refuses each unsafe order of the dance, and remembers across restarts."""

from collections.abc import Awaitable, Callable, Iterator

import pytest
from leyden.bitcoin import Network, p2wpkh
from leyden.hooks.signing import CommitmentView, SignerUnavailable
from leyden.testing.signer import GuardingSigner, GuardLedger, GuardViolation, take_violations
from leyden.testing.signer_conformance import Dance
from leyden.testing.store import MemoryStore
from leyden.types import CltvDelta, FeeRatePerKw, Msat, Side
from leyden_inmemory import InMemoryKeyManager
from msgspec.structs import replace


@pytest.fixture(autouse=True)
def _nothing_left_over() -> Iterator[None]:
    yield
    assert take_violations() == []


def make_guard(ledger: GuardLedger | None = None) -> GuardingSigner:
    return GuardingSigner(InMemoryKeyManager(bytes(32), Network.REGTEST), ledger)


async def begin(steps: int = 0, *, funder: bool = True) -> Dance:
    dance = await Dance.begin(make_guard(), funder=funder)
    for number in range(1, steps + 1):
        await dance.step(number)
    return dance


async def refused(order: Awaitable[object], message: str) -> None:
    with pytest.raises(GuardViolation, match=message):
        await order
    assert len(take_violations()) == 1, "recorded as well as raised"


Order = Callable[[Dance], Awaitable[object]]

UNSAFE: dict[str, tuple[int, Order, str]] = {
    "release without a successor": (0, lambda d: d.release(0), "secret 0 released, but the newest validated"),
    "release with a gap": (2, lambda d: d.release(3), "secret 3 released after 1"),
    "validation with a gap": (1, lambda d: d.validate(2, renumbered(d, Side.LOCAL, 3)), "validated after 1"),
    "counterparty commitment with a gap": (1, lambda d: d.sign_counterparty(3), "asked for after 1"),
    "counterparty commitment going back": (2, lambda d: d.sign_counterparty(1), "asked for after 2"),
    "counterparty commitment changed": (
        1,
        lambda d: d.sign_counterparty(1, replace(d.view(Side.REMOTE, 1), feerate=FeeRatePerKw(1))),
        "changed after it was asked for",
    ),
    "money from nowhere": (
        0,
        lambda d: d.sign_counterparty(1, replace(d.view(Side.REMOTE, 1), owner_msat=Msat(1))),
        "adds up to",
    ),
    "revocation of the newest": (1, lambda d: d.revoke(1), "revoked, but the newest one signed is 1"),
    "revocation with a gap": (1, lambda d: d.revoke(2), "counterparty revocation 2 after 0"),
    "broadcast of a revoked state": (2, lambda d: d.sign_holder(1), "after its release"),
    "broadcast of an unknown state": (
        1,
        lambda d: d.sign_holder(1, replace(d.view(Side.LOCAL, 1), feerate=FeeRatePerKw(1))),
        "never validated like this",
    ),
    "close with HTLCs": (1, lambda d: d.close(500_000, 400_000), "HTLCs in flight"),
    "close that pays too much": (0, lambda d: d.close(600_001, 400_000), "more than the channel holds"),
}


def renumbered(dance: Dance, owner: Side, number: int) -> CommitmentView:
    """A view whose number runs ahead (the point is our newest, for ours of a later number is not known yet)."""
    return replace(dance.view(owner, number - 1), number=number)


@pytest.mark.parametrize("name", UNSAFE)
async def test_unsafe_orders(name: str) -> None:
    steps, order, message = UNSAFE[name]
    await refused(order(await begin(steps)), message)


async def test_a_violation_is_no_exception() -> None:
    assert not issubclass(GuardViolation, Exception)


async def test_no_release_after_broadcast() -> None:
    dance = await begin(1)
    await dance.sign_holder(1)
    await dance.validate(2)
    await refused(dance.release(1), "after commitment 1 was signed for broadcast")
    await refused(dance.sign_counterparty(2), "after ours was signed for broadcast")


async def test_three_open_states_are_too_many() -> None:
    dance = await begin(1)
    await dance.validate(2)
    dance.points.append(dance.peer.point(9))
    await refused(dance.validate(3), "only 0 is released")
    await dance.sign_counterparty(2)
    await refused(dance.sign_counterparty(3), "only 0 is revoked")


async def test_a_released_state_no_longer_changes() -> None:
    dance = await begin()
    await dance.validate(1)
    changed = replace(dance.view(Side.LOCAL, 1), feerate=FeeRatePerKw(1000))
    await dance.validate(1, changed)
    await dance.validate(1)
    await dance.release(0)
    await dance.validate(1)
    await refused(dance.validate(1, changed), "changed after 0 was released")


async def test_secrets_must_fit() -> None:
    dance = await begin()
    await dance.sign_counterparty(1)
    await refused(dance.revoke(0, bytes(31) + b"\x01"), "does not fit its point")
    await dance.revoke(0)
    await dance.revoke(0)
    await refused(dance.revoke(0, bytes(32)), "has changed")


async def test_a_point_used_twice() -> None:
    dance = await begin()
    view = replace(dance.view(Side.REMOTE, 1), per_commitment_point=dance.peer.point(0))
    await refused(dance.sign_counterparty(1, view), "used twice")


async def test_signatures_are_checked_again() -> None:
    dance = await begin()
    dance.peer.secrets["funding_pubkey"] = bytes(31) + b"\x05"
    await refused(dance.validate(1), "bad signatures")


async def test_closing() -> None:
    dance = await begin(funder=False)
    await refused(dance.close(599_999, 300_000), "the peer pays the fee")
    await dance.close(600_000, 300_000)
    await refused(dance.sign_counterparty(1), "after a mutual close")
    dance.setup = replace(dance.setup, local_shutdown_script=p2wpkh(b"\x09" * 20))
    await refused(dance.close(600_000, 300_000), "another script")


async def test_facts_never_change() -> None:
    dance = await begin(1)
    dance.setup = replace(dance.setup, remote_to_self_delay=CltvDelta(1))
    await refused(dance.sign_counterparty(1), "facts")


async def test_the_ledger_outlives_the_signer() -> None:
    dance = await begin(2)
    assert isinstance(dance.signer, GuardingSigner)
    dance.signer = make_guard(dance.signer.ledger.durable_image())
    await refused(dance.sign_holder(1), "after its release")
    await dance.step(3)


async def test_what_was_not_committed_was_never_asked() -> None:
    store = MemoryStore()
    epoch = await store.open(Network.REGTEST)
    ledger = GuardLedger()
    ledger.follow(store)
    dance = await Dance.begin(make_guard(ledger))
    await store.commit((), (), epoch)
    other = replace(dance.view(Side.REMOTE, 1), feerate=FeeRatePerKw(1000))

    await dance.sign_counterparty(1)  # a crash before the commit: the restarted node may ask for something else
    restarted = Dance(make_guard(ledger.durable_image()), await dance.signer.new_channel(dance.setup.keys_id))
    await restarted.sign_counterparty(1, other)

    store.fail_next()
    with pytest.raises(Exception, match="asked for by the test"):
        await store.commit((), (), epoch)
    await dance.sign_counterparty(1, other)  # a failed commit: the same node may, too
    await store.reopen()
    await store.commit((), (), epoch)
    await refused(dance.sign_counterparty(1), "changed after it was asked for")

    await dance.revoke(0)
    store.fail_next(durable=True)  # the commit failed for the node only
    with pytest.raises(Exception, match="asked for by the test"):
        await store.commit((), (), epoch)
    assert ledger.durable_image().records[dance.setup.keys_id].revoked == 0


async def test_operations_can_be_switched_off() -> None:
    dance = await begin()
    assert isinstance(dance.signer, GuardingSigner)
    dance.signer.disabled.add("release_secret")
    await dance.validate(1)
    with pytest.raises(SignerUnavailable):
        await dance.release(0)
    dance.signer.disabled.clear()
    await dance.release(0)
