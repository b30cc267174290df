"""On-chain coins for Leyden: P2WPKH and taproot, fed by whatever chain source runs."""

from leyden_wallet.errors import WalletError
from leyden_wallet.wallet import OnchainWallet

__all__ = ["OnchainWallet", "WalletError"]
