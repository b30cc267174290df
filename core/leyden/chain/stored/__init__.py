"""Versions of the rows of the chain; ``leyden.chain.rows`` alone imports them."""
