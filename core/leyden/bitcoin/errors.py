"""Errors of the Bitcoin layer."""

from leyden.types import LeydenError


class BitcoinError(LeydenError):
    """Bytes or values that are no valid transaction, script, block or address."""


class AddressError(BitcoinError):
    """Text that is no address of the given network, or a script that has no address."""


class Bech32Error(AddressError):
    """Text that is not bech32 or bech32m (BIP 173, BIP 350), or values that cannot be encoded so."""
