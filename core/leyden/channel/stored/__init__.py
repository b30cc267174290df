"""Versions of the rows of a channel; ``leyden.channel.rows`` alone imports them."""
