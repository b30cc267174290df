# mypy: ignore-errors
"""The PyPI package bolt11."""

import bolt11
from serve import serve, timed, versions_of


def decode(text):
    invoice = bolt11.decode(text)
    return {"payment_hash": invoice.payment_hash, "payee": invoice.payee}


def time_encode(text, secret, repeat):
    invoice = bolt11.decode(text)
    return timed(lambda: bolt11.encode(invoice, secret), repeat)


serve(
    {
        "versions": lambda: versions_of("bolt11", "coincurve"),
        "decode_invoice": decode,
        "time_decode_invoice": lambda text, repeat: timed(lambda: bolt11.decode(text), repeat),
        "time_encode_invoice": time_encode,
    }
)
