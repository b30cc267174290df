"""The human-readable part: network and amount (BOLT 11, human-readable part)."""

import re
from collections.abc import Mapping

from leyden.bitcoin import Network
from leyden.invoice.errors import InvoiceError, refuse_unless
from leyden.types import MAX_MONEY_MSAT, Msat
from leyden.types.rules import C_242, C_243

_PICO_PER_MSAT = 10
_PICO_PER_UNIT: Mapping[str, int] = {"": 10**12, "m": 10**9, "u": 10**6, "n": 10**3, "p": 1}
"""What one unit of each multiplier is worth in 10**-12 bitcoin."""
_MAX_DIGITS = 20
"""21 million BTC in pico-bitcoin; a longer number cannot be an amount and is not converted at all."""
_HRP = re.compile(r"ln([a-z]*)([0-9].*)?", re.DOTALL)
_AMOUNT = re.compile(r"([0-9]+)(.*)", re.DOTALL)


_NETWORKS = {network.invoice_hrp: network for network in Network}


def format_hrp(network: Network, amount_msat: Msat | None) -> str:
    """``lnbc2500u``: the prefix of the network and the shortest spelling of the amount.

    Raises ``InvoiceError`` (C-243) for an amount that is not positive or above 21 million bitcoin.
    """
    prefix = f"ln{network.invoice_hrp}"
    if amount_msat is None:
        return prefix
    refuse_unless(
        0 < amount_msat <= MAX_MONEY_MSAT,
        C_243,
        "invoice amount out of range",
        offered=amount_msat,
        allowed="1 .. 21e17",
    )
    pico = amount_msat * _PICO_PER_MSAT
    for letter, unit in _PICO_PER_UNIT.items():
        if pico % unit == 0:
            return f"{prefix}{pico // unit}{letter}"
    raise InvoiceError(C_243, "invoice amount cannot be spelled", offered=amount_msat)


def parse_hrp(hrp: str, expected: Network | None) -> tuple[Network, Msat | None]:
    """Network and amount (``None``: the payer chooses) of a lower-case human-readable part.

    Raises ``InvoiceError``: C-242 for a prefix of no network of ours, or not ``expected``; C-243 for the amount.
    """
    match = _HRP.fullmatch(hrp)
    if match is None:
        raise InvoiceError(C_242, "not a Lightning invoice", offered=hrp[:12], allowed="ln...")
    currency, amount = match.groups()
    network = _NETWORKS.get(currency)
    if network is None and not C_242.enabled:
        network = expected or Network.MAINNET
    if network is None:
        raise InvoiceError(C_242, "invoice for an unknown network", offered=currency[:12], allowed=", ".join(_NETWORKS))
    if expected is not None:
        refuse_unless(
            network is expected, C_242, "invoice for another network", offered=network.name, allowed=expected.name
        )
    return network, None if amount is None else _parse_amount(amount)


def _parse_amount(text: str) -> Msat:
    match = _AMOUNT.fullmatch(text)
    digits, letter = match.groups() if match else ("", text)
    unit = _PICO_PER_UNIT.get(letter)
    if unit is None or not digits or len(digits) > _MAX_DIGITS:
        raise InvoiceError(C_243, "invoice amount is not a number with one of m, u, n, p", offered=text[:40])
    refuse_unless(digits[0] != "0", C_243, "invoice amount is zero or has a leading zero", offered=text[:40])
    msat, rest = divmod(int(digits) * unit, _PICO_PER_MSAT)
    refuse_unless(rest == 0, C_243, "invoice amount is finer than a millisatoshi", offered=text[:40])
    refuse_unless(msat <= MAX_MONEY_MSAT, C_243, "invoice amount above 21 million bitcoin", offered=text[:40])
    return Msat(msat)
