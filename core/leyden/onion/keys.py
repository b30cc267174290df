"""The keys that one shared secret yields (BOLT 4, "Key Generation"): HMAC-SHA256 under the name of the key's use."""

from leyden.crypto import HmacKey

rho = HmacKey(b"rho").digest
"""Stream that hides the payloads."""
mu = HmacKey(b"mu").digest
"""MAC of a packet."""
pad = HmacKey(b"pad").digest
"""Stream that fills the space behind the payloads; from the session key, not from a shared secret."""
um = HmacKey(b"um").digest
"""MAC of a returned failure."""
ammag = HmacKey(b"ammag").digest
"""Stream that hides a returned failure."""
ammagext = HmacKey(b"ammagext").digest
"""Stream that hides attribution data."""
fulfillment = HmacKey(b"fulfillment").digest
"""AEAD key of what the recipient sends back with the preimage."""
blinded_node_id = HmacKey(b"blinded_node_id").digest
"""Factor between a node's public key and its key in one blinded path."""
