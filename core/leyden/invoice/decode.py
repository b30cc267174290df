"""From text to a checked ``Invoice`` (BOLT 11, reader)."""

from functools import lru_cache

from leyden.bitcoin import Network
from leyden.crypto import CryptoError, ecdsa_recover, ecdsa_verify, is_valid_point, sha256
from leyden.invoice.amount import parse_hrp
from leyden.invoice.encode import signing_digest
from leyden.invoice.errors import InvoiceError, refuse_unless
from leyden.invoice.fields import Fields, parse_fields
from leyden.invoice.model import DEFAULT_EXPIRY, DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA, Invoice
from leyden.invoice.symbols import symbols_to_bytes, symbols_to_int
from leyden.invoice.text import decode_text
from leyden.types import CltvDelta, NodeId, PaymentHash, PaymentSecret
from leyden.types.rules import C_241, C_244, C_245, C_247, C_248, C_250, C_251
from leyden.wire.features import FEATURES, Context, Feature, Features, missing_dependencies

_TIMESTAMP_SYMBOLS = 7
_SIGNATURE_SYMBOLS = 104
_SCHEME = "lightning:"
_NOT_YET = {Feature.TRAMPOLINE_ROUTING, Feature.BOLT11_BLINDED_PATH}
"""Features of invoices that ask for another way to pay than ours."""
UNDERSTOOD = frozenset(
    feature
    for feature, info in FEATURES.items()
    if (info.assumed or (info.contexts | info.former) & Context.INVOICE) and feature not in _NOT_YET
)
"""Features that an invoice may require of us."""


def parse_invoice(text: str, network: Network | None = None) -> Invoice:
    """Read and check an invoice, with or without the ``lightning:`` scheme, upper or lower case.

    ``network``: the only network accepted; ``None`` takes any that we know. The result is well formed and signed by
    ``payee``; whether it has expired is a question of time (``require_unexpired``). Raises ``InvoiceError``.
    """
    text = text.strip()
    if text[: len(_SCHEME)].lower() == _SCHEME:
        text = text[len(_SCHEME) :]
    hrp, data = decode_text(text)
    network, amount_msat = parse_hrp(hrp, network)
    if len(data) < _TIMESTAMP_SYMBOLS + _SIGNATURE_SYMBOLS:
        raise InvoiceError(
            C_241, "invoice too short", offered=len(data), allowed=_TIMESTAMP_SYMBOLS + _SIGNATURE_SYMBOLS
        )
    signed = data[:-_SIGNATURE_SYMBOLS]
    fields = parse_fields(signed, _TIMESTAMP_SYMBOLS)
    signature = symbols_to_bytes(data[-_SIGNATURE_SYMBOLS:])
    payee = _check_signature(signing_digest(hrp, signed), signature[:64], signature[64], fields.payee)
    payment_hash, payment_secret = _required(fields)
    _check_description(fields)
    problem = _feature_problem(fields.features)
    refuse_unless(not problem, C_248, problem, offered=fields.features.bits)
    default_delta, default_expiry = (
        (DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA, DEFAULT_EXPIRY) if C_250.enabled else (CltvDelta(0), 0)
    )
    return Invoice(
        network=network,
        amount_msat=amount_msat,
        timestamp=symbols_to_int(data[:_TIMESTAMP_SYMBOLS]),
        payment_hash=payment_hash,
        payment_secret=payment_secret,
        description=fields.description,
        description_hash=fields.description_hash,
        expiry=default_expiry if fields.expiry is None else fields.expiry,
        min_final_cltv_expiry_delta=default_delta
        if fields.min_final_delta is None
        else CltvDelta(fields.min_final_delta),
        features=fields.features,
        route_hints=tuple(fields.route_hints),
        fallbacks=tuple(fields.fallbacks),
        metadata=fields.metadata,
        payee=payee,
        names_payee=fields.payee is not None,
        signature=signature[:64],
        recovery_id=signature[64],
        text=text.lower(),
    )


def require_unexpired(invoice: Invoice, now: int) -> None:
    """Raise ``InvoiceError`` (C-251) when a payment may not start any more at ``now`` (seconds since 1970)."""
    refuse_unless(now <= invoice.expires_at, C_251, "invoice has expired", offered=now, allowed=invoice.expires_at)


def require_description(invoice: Invoice, description: str) -> None:
    """Raise ``InvoiceError`` (C-247) unless ``description`` is the text the invoice stands for, given or hashed."""
    if invoice.description_hash is None:
        refuse_unless(description == invoice.description, C_247, "description is not the invoice's")
        return
    digest = sha256(description.encode())
    refuse_unless(
        digest == invoice.description_hash,
        C_247,
        "description does not hash to the invoice's",
        offered=digest,
        allowed=invoice.description_hash,
    )


def _check_signature(digest: bytes, signature: bytes, recovery_id: int, named: bytes | None) -> NodeId:
    """The payee. With a named key high-S is refused; without one it is accepted, as recovery needs no uniqueness."""
    refuse_unless(recovery_id <= 3, C_244, "invoice recovery id out of range", offered=recovery_id, allowed="0 .. 3")
    if named is not None:
        valid = is_valid_point(named) and ecdsa_verify(named, digest, signature)
        refuse_unless(valid, C_244, "invoice signature does not verify under its key", allowed=named)
        return NodeId(named)
    try:
        return NodeId(ecdsa_recover(digest, signature, recovery_id))
    except CryptoError as error:
        raise InvoiceError(C_244, "invoice signature recovers no key") from error


def _required(fields: Fields) -> tuple[PaymentHash, PaymentSecret]:
    for name, values in (("p", fields.payment_hashes), ("s", fields.payment_secrets)):
        refuse_unless(len(values) <= 1, C_245, f"invoice with several {name} fields", offered=len(values), allowed=1)
        if not values:
            raise InvoiceError(C_245, f"invoice without a valid {name} field")
    return PaymentHash(fields.payment_hashes[0]), PaymentSecret(fields.payment_secrets[0])


def _check_description(fields: Fields) -> None:
    given = (fields.description is not None) + (fields.description_hash is not None)
    refuse_unless(given == 1, C_247, "invoice needs one of description and description hash", offered=given, allowed=1)


@lru_cache(maxsize=256)
def _feature_problem(features: Features) -> str:
    """Why an invoice with these features cannot be paid, or nothing (BOLT 9)."""
    for bit in features:
        if not bit & 1 and bit not in UNDERSTOOD:
            return f"invoice requires feature {Features.of(bit)}, which we do not know"
    for feature, needed in missing_dependencies(features):
        return f"invoice offers {feature.name.lower()} without {needed.name.lower()}"
    return ""
