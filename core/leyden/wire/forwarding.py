"""What a hop charges, and what a sender must offer so that every hop gets it (BOLT 7, HTLC fees, routing example)."""

from collections.abc import Sequence

from msgspec import Struct

from leyden.types import CltvDelta, Msat
from leyden.types.rules import C_237, C_238

_MILLION = 1_000_000


class HopTerms(Struct, frozen=True, kw_only=True):
    """Terms of a channel in one direction, from its ``channel_update``: millisatoshi, millionths, blocks."""

    fee_base_msat: Msat
    fee_proportional_millionths: int
    cltv_expiry_delta: CltvDelta

    def fee(self, forwarded_msat: Msat) -> Msat:
        """The fee in millisatoshi for sending ``forwarded_msat`` on, rounded down (C-237)."""
        amount = forwarded_msat
        if not C_237.enabled:
            amount = Msat(0)
        return Msat(self.fee_base_msat + amount * self.fee_proportional_millionths // _MILLION)

    def is_paid_by(self, incoming_msat: Msat, forwarded_msat: Msat) -> bool:
        """The difference of the two amounts is at least the fee (C-237)."""
        return incoming_msat - forwarded_msat >= self.fee(forwarded_msat)


class HopOffer(Struct, frozen=True, kw_only=True):
    """What one HTLC of a route carries: ``amount_msat``, and its expiry in blocks above the present height."""

    amount_msat: Msat
    cltv_delta: CltvDelta


def route_offers(channels: Sequence[HopTerms], amount_msat: Msat, final_cltv_delta: CltvDelta) -> tuple[HopOffer, ...]:
    """The HTLC in each channel of a route, ours first, so that ``amount_msat`` arrives (C-238).

    ``final_cltv_delta`` is what the payee wants plus any shadow offset. The first channel is our own: for it we charge
    neither fee nor delta, so its terms do not matter. A hop's onion payload has the values of the channel behind it.
    """
    offers = [HopOffer(amount_msat=amount_msat, cltv_delta=final_cltv_delta)]
    charged = channels[1:] if C_238.enabled else channels
    for terms in reversed(charged):
        last = offers[-1]
        offers.append(
            HopOffer(
                amount_msat=Msat(last.amount_msat + terms.fee(last.amount_msat)),
                cltv_delta=CltvDelta(last.cltv_delta + terms.cltv_expiry_delta),
            )
        )
    return tuple(reversed(offers))
