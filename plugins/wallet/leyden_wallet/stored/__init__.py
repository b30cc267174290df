"""Versions of the wallet's rows; ``leyden_wallet.rows`` alone imports them."""
