"""The one error of the cryptographic layer."""

from leyden.types import LeydenError


class CryptoError(LeydenError):
    """An invalid key, point, signature or authentication tag, or an argument of the wrong length.

    The text never contains the bytes in question: they may be secret.
    """
