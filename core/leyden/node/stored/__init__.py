"""Versions of the rows that the node itself writes; ``leyden.node.rows`` alone imports them."""
