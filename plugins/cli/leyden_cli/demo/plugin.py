"""The plugin ``demo``: a payee who can refuse a payment, and one who takes his time.

``leyden demo`` enables it on one node. The label of an invoice says what it does: ``unwanted`` payments are refused,
``held`` ones are answered only once the file named by ``LEYDEN_DEMO_HOLD`` is gone.
"""

import asyncio
import os
from pathlib import Path

from leyden.hooks import hookimpl
from leyden.hooks.types import IncomingPayment, Refusal

HOLD_VARIABLE = "LEYDEN_DEMO_HOLD"
UNWANTED = "unwanted"
HELD = "held"
_POLL_SECONDS = 0.02


@hookimpl
async def leyden_accept_payment(payment: IncomingPayment) -> bool | Refusal:
    if payment.label == UNWANTED:
        return Refusal(reason="the demo's payee does not want this one")
    hold = os.environ.get(HOLD_VARIABLE)
    if payment.label == HELD and hold:
        while Path(hold).exists():  # noqa: ASYNC110, ASYNC240 (another process removes the file; one stat is quick)
            await asyncio.sleep(_POLL_SECONDS)
    return True
