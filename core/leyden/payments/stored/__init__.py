"""Versions of the rows of payments; ``leyden.payments.records`` alone imports them."""
