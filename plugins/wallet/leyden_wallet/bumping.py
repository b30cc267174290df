"""More fee for a transaction that waits: instead of it (BIP 125), or by a child that pays for both."""

from collections.abc import Iterator, Sequence

import msgspec
from leyden.types import FeeRatePerKw, Sat

from leyden_wallet.rows import Coin
from leyden_wallet.selection import Payment, Selection, settle


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Unconfirmed transactions of ours: their fee, and their weight when signed (at most)."""

    fee: Sat
    weight: int

    def pays(self, feerate: FeeRatePerKw) -> bool:
        return 1000 * self.fee >= feerate * self.weight


def replacement(coins: Sequence[Coin], spare: Sequence[Coin], payment: Payment) -> Selection | None:
    """The same payment with the same coins and, if they are too few, further ones; ``payment.replaces`` is set.

    A replacement must spend what the old one spent (or it is another payment) and may add confirmed coins only.
    """
    return next(_settled(coins, spare, payment), None)


def child(
    coins: Sequence[Coin], spare: Sequence[Coin], payment: Payment, parents: Sequence[Waiting]
) -> Selection | None:
    """Back to ourselves, with a fee that brings this and its parents to the feerate; ``payment`` pays nobody."""
    fee, weight = sum(parent.fee for parent in parents), sum(parent.weight for parent in parents)
    debt = Sat(-(-payment.feerate * weight // 1000) - fee)
    found = _settled(coins, spare, msgspec.structs.replace(payment, amount=debt))
    for selection in found:
        if selection.change:
            return msgspec.structs.replace(selection, fee=Sat(selection.fee + debt))
    return None


def _settled(coins: Sequence[Coin], spare: Sequence[Coin], payment: Payment) -> Iterator[Selection]:
    """With these coins, and with one more after the other, the most valuable first."""
    chosen = list(coins)
    more = sorted(spare, key=lambda coin: (-coin.value, coin.outpoint))
    for extra in (None, *more):
        if extra is not None:
            chosen.append(extra)
        selection = settle(chosen, payment)
        if selection is not None:
            yield selection
