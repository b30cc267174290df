"""Which coins pay for a transaction: an exact match if there is one, else few coins and change.

Sums are kept in thousandths of a satoshi, so that a feerate per 1000 weight units needs no rounding until the end.
"""

from collections.abc import Sequence

import msgspec
from leyden.bitcoin import dust_limit, is_p2tr, write_varint
from leyden.types import FeeRatePerKw, Sat

from leyden_wallet.errors import WalletError
from leyden_wallet.rows import Coin

_OUTPOINT_WEIGHT = 4 * (36 + 1 + 4)
"""Outpoint, empty script, sequence."""
P2WPKH_INPUT_WEIGHT = _OUTPOINT_WEIGHT + 1 + 1 + 72 + 1 + 33
"""With a witness of a signature of at most 72 bytes and the key."""
TAPROOT_INPUT_WEIGHT = _OUTPOINT_WEIGHT + 1 + 1 + 64
"""With a witness of one signature (key path)."""
RELAY_FEERATE = 253
"""Satoshi per 1000 weight units: what nodes ask for taking any transaction, and for each replacement on top."""
MAX_WEIGHT = 400_000
"""Above this no node relays a transaction."""
_OVERHEAD_WEIGHT = 4 * (4 + 4) + 2
_MAX_TRIES = 5_000
"""Steps of the exact search: a few milliseconds at most."""


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """``sum(coins) == amount + change + fee`` to the satoshi; ``change`` 0 means no change output."""

    coins: tuple[Coin, ...]
    change: Sat
    fee: Sat


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be paid, where change would go, and the feerate in satoshi per 1000 weight units.

    ``replaces``: the fee of the transaction that this one is to replace in the mempools.
    """

    amount: Sat
    output_scripts: tuple[bytes, ...]
    change_script: bytes
    feerate: FeeRatePerKw
    replaces: Sat | None = None

    def weight(self, coins: Sequence[Coin], *, change: bool) -> int:
        """Weight of the signed transaction that spends ``coins``, never too low."""
        return self.fixed_weight(len(coins), change=change) + sum(input_weight(coin) for coin in coins)

    def fixed_weight(self, inputs: int, *, change: bool) -> int:
        """Everything but the inputs themselves; their number takes space too."""
        scripts = (*self.output_scripts, self.change_script) if change else self.output_scripts
        counts = len(write_varint(inputs)) + len(write_varint(len(scripts)))
        outputs = sum(8 + len(write_varint(len(script))) + len(script) for script in scripts)
        return _OVERHEAD_WEIGHT + 4 * (counts + outputs)

    def fee(self, coins: Sequence[Coin], *, change: bool) -> Sat:
        """Satoshi, rounded up: never below the feerate. A replacement pays for its own relay on top of the old fee."""
        weight = self.weight(coins, change=change)
        fee = -(-self.feerate * weight // 1000)
        if self.replaces is None:
            return Sat(fee)
        return Sat(max(fee, self.replaces - (-RELAY_FEERATE * weight // 1000)))


def input_weight(coin: Coin) -> int:
    """Weight of the signed input that spends ``coin``, never too low."""
    return TAPROOT_INPUT_WEIGHT if is_p2tr(coin.script) else P2WPKH_INPUT_WEIGHT


def select(coins: Sequence[Coin], payment: Payment) -> Selection | None:
    """Coins for ``payment``, the same ones for the same question; ``None`` if all of them together are not enough."""
    worth_it = [coin for coin in coins if _effective(coin, payment) > 0]
    worth_it.sort(key=lambda coin: (-_effective(coin, payment), coin.outpoint))
    chosen = _exact(worth_it, payment) or _single(worth_it, payment) or _largest_first(worth_it, payment)
    return settle(chosen, payment) if chosen else None


def settle(coins: Sequence[Coin], payment: Payment) -> Selection | None:
    """Pay with exactly these coins: change if it is worth an output, else more fee; ``None`` if they are too few."""
    total = sum(coin.value for coin in coins)
    left = total - payment.amount - payment.fee(coins, change=True)
    change = left if left >= dust_limit(payment.change_script) and left > 0 else 0
    fee = total - payment.amount - change
    if fee < payment.fee(coins, change=change > 0):
        return None
    if payment.weight(coins, change=change > 0) > MAX_WEIGHT:
        raise WalletError(f"{len(coins)} coins make too large a transaction: pay less at once, or join coins first")
    return Selection(coins=tuple(sorted(coins, key=lambda coin: coin.outpoint)), change=Sat(change), fee=Sat(fee))


def _effective(coin: Coin, payment: Payment) -> int:
    """Thousandths of a satoshi that the coin brings after paying for its own input."""
    return 1000 * coin.value - payment.feerate * input_weight(coin)


def _target(coins: Sequence[Coin], payment: Payment, *, change: bool) -> int:
    """What the effective values must reach. The input count is priced as if all coins were used."""
    fixed = payment.fixed_weight(len(coins), change=change)
    return 1000 * payment.amount + payment.feerate * fixed + 999  # the fee is rounded up


def _exact(coins: Sequence[Coin], payment: Payment) -> list[Coin] | None:
    """Depth-first search for the set that leaves the least, and too little for change (branch and bound)."""
    values = [_effective(coin, payment) for coin in coins]
    target = _target(coins, payment, change=False)
    limit = _target(coins, payment, change=True) + 1000 * dust_limit(payment.change_script)
    rest = [0] * (len(values) + 1)
    for i in range(len(values) - 1, -1, -1):
        rest[i] = rest[i + 1] + values[i]
    best: list[int] | None = None
    chosen: list[int] = []
    total, at, tries = 0, 0, 0
    while tries < _MAX_TRIES:
        tries += 1
        if target <= total < limit:
            best, limit = list(chosen), total
            if total == target:
                break
        if total >= target or total + rest[at] < target or at == len(values):
            if not chosen:
                break
            at = chosen.pop()  # take the branch without the last coin taken, and skip its equals
            total -= values[at]
            left_out = values[at]
            at += 1
            while at < len(values) and values[at] == left_out:
                at += 1
            continue
        chosen.append(at)
        total += values[at]
        at += 1
    return [coins[i] for i in best] if best else None


def _single(coins: Sequence[Coin], payment: Payment) -> list[Coin] | None:
    """The smallest coin that pays for everything, change included."""
    needed = _target(coins, payment, change=True) + 1000 * dust_limit(payment.change_script)
    enough = [coin for coin in coins if _effective(coin, payment) >= needed]
    return [enough[-1]] if enough else None


def _largest_first(coins: Sequence[Coin], payment: Payment) -> list[Coin] | None:
    """As few coins as possible; with change if they allow it."""
    chosen: list[Coin] = []
    total = 0
    needed = _target(coins, payment, change=True) + 1000 * dust_limit(payment.change_script)
    for coin in coins:
        chosen.append(coin)
        total += _effective(coin, payment)
        if total >= needed:
            return chosen
    return chosen if total >= _target(coins, payment, change=False) else None
