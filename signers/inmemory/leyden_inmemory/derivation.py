"""Where every key comes from: derivation version 1, fixed for ever (README, *Derivation*).

A later scheme gets a new version and a new branch of the tree; version 1 stays readable.
"""

import hashlib
import hmac
from functools import lru_cache

from leyden.bitcoin import KeyOrigin, Network, single_key_descriptor
from leyden.commitment import ChannelKeys
from leyden.crypto import pubkey_create, sha256
from leyden.hooks.types import DestinationPurpose
from leyden.types import KeysId, LeydenError

from leyden_inmemory.bip32 import HARDENED, ExtendedSecret

DERIVATION_VERSION = 1
LIGHTNING_PURPOSE = 9735
WALLET_PURPOSE = 84
"""BIP 84: P2WPKH, so that any wallet restores the coins."""
TAPROOT_PURPOSE = 86
"""BIP 86: taproot with a single key."""

NODE_BRANCH, PAYMENT_BRANCH, CHANNEL_BRANCH, HOST_BRANCH = range(4)
PAYMENT_BASEPOINTS = 1000
"""``payment_basepoint`` is one of so many: a scan over them finds each ``to_remote`` from the seed alone."""

_WALLET_CHAINS = {
    DestinationPurpose.RECEIVE: (WALLET_PURPOSE, HARDENED + 0, 0),
    DestinationPurpose.CHANGE: (WALLET_PURPOSE, HARDENED + 0, 1),
    DestinationPurpose.SHUTDOWN: (WALLET_PURPOSE, HARDENED + 1, 0),
    DestinationPurpose.SWEEP: (WALLET_PURPOSE, HARDENED + 2, 0),
    DestinationPurpose.RECEIVE_TAPROOT: (TAPROOT_PURPOSE, HARDENED + 0, 0),
}
"""BIP 43 purpose, account and chain: what the channel machine hands out never collides with the wallet's own."""


def coin_type(network: Network) -> int:
    """0 for mainnet, 1 for every test network (SLIP 44)."""
    return 0 if network is Network.MAINNET else 1


def lightning_path(network: Network, branch: int) -> tuple[int, ...]:
    """``m/9735'/coin'/version'/branch'``."""
    return (
        HARDENED + LIGHTNING_PURPOSE,
        HARDENED + coin_type(network),
        HARDENED + DERIVATION_VERSION,
        HARDENED + branch,
    )


def destination_path(network: Network, purpose: DestinationPurpose, index: int) -> tuple[int, ...]:
    """``m/84'/coin'/account'/chain/index`` or ``m/86'/...``; ``LeydenError`` for an index that BIP 32 does not have."""
    if not 0 <= index < HARDENED:
        raise LeydenError(f"a destination index lies between 0 and 2**31 - 1, not {index}")
    return (*chain_path(network, purpose), index)


def chain_path(network: Network, purpose: DestinationPurpose) -> tuple[int, int, int, int]:
    """The path above the indexes of a purpose."""
    bip43, account, chain = _WALLET_CHAINS[purpose]
    return (HARDENED + bip43, HARDENED + coin_type(network), account, chain)


def payment_index(keys_id: KeysId) -> int:
    """Which of the static payment keys a channel uses: SHA-256 of ``keys_id``, big-endian, modulo 1000."""
    return int.from_bytes(sha256(keys_id), "big") % PAYMENT_BASEPOINTS


class ChannelSecrets:
    """The secrets of one channel and its public keys."""

    __slots__ = ("commitment_seed", "delayed_payment", "funding", "htlc", "payment", "public", "revocation")

    def __init__(self, channel_root: bytes, payment: bytes, keys_id: KeysId) -> None:
        def derive(label: bytes) -> bytes:
            return hmac.digest(channel_root, keys_id + label, hashlib.sha256)

        self.funding = derive(b"funding")
        self.revocation = derive(b"revocation")
        self.payment = payment
        self.delayed_payment = derive(b"delayed_payment")
        self.htlc = derive(b"htlc")
        self.commitment_seed = derive(b"commitment_seed")
        # A derived value outside the curve order (odds 2**-128) is refused by pubkey_create: take another keys_id.
        self.public = ChannelKeys(
            funding_pubkey=pubkey_create(self.funding),
            revocation_basepoint=pubkey_create(self.revocation),
            payment_basepoint=pubkey_create(self.payment),
            delayed_payment_basepoint=pubkey_create(self.delayed_payment),
            htlc_basepoint=pubkey_create(self.htlc),
        )

    def __repr__(self) -> str:
        return "ChannelSecrets(...)"


class KeyTree:
    """All branches of one seed on one network."""

    def __init__(self, seed: bytes, network: Network) -> None:
        self.network = network
        self._root = ExtendedSecret.from_seed(seed)
        self.fingerprint = self._root.fingerprint()
        """Names the root key in the origins of keys (4 bytes)."""
        self.node_secret = self._branch(NODE_BRANCH).secret
        self._payment = self._branch(PAYMENT_BRANCH)
        self._channel_root = self._branch(CHANNEL_BRANCH).secret
        self._host_root = self._branch(HOST_BRANCH).secret
        self._wallet_secret = lru_cache(maxsize=4096)(self._derive_wallet_secret)
        self._wallet_chain = lru_cache(maxsize=16)(self._root.descend)

    def __repr__(self) -> str:
        return f"KeyTree({self.network.label}, ...)"

    def _branch(self, branch: int) -> ExtendedSecret:
        return self._root.descend(lightning_path(self.network, branch))

    def payment_secret(self, index: int) -> bytes:
        """The secret of the static payment key ``index`` (0 to 999)."""
        return self._payment.child(HARDENED + index).secret

    def channel(self, keys_id: KeysId) -> ChannelSecrets:
        """``LeydenError`` for a ``keys_id`` that is not 32 bytes long."""
        if len(keys_id) != 32:
            raise LeydenError(f"a keys_id has 32 bytes, this one has {len(keys_id)}")
        return ChannelSecrets(self._channel_root, self.payment_secret(payment_index(keys_id)), keys_id)

    def host_secret(self, label: str) -> bytes:
        return hmac.digest(self._host_root, label.encode(), hashlib.sha256)

    def wallet_secret(self, path: tuple[int, ...]) -> bytes:
        """The secret at an on-chain path of ours; ``LeydenError`` outside the trees of BIP 84 and BIP 86."""
        return self._wallet_secret(path)

    def descriptor(self, purpose: DestinationPurpose) -> str:
        """The public descriptor of every script of one purpose, its checksum included."""
        path = chain_path(self.network, purpose)
        parent, account = self._root.descend(path[:2]), self._root.descend(path[:3])
        return single_key_descriptor(
            taproot=purpose is DestinationPurpose.RECEIVE_TAPROOT,
            origin=KeyOrigin(fingerprint=self.fingerprint, path=path[:3]),
            extended_key=account.public_text(parent, path[2], depth=3, mainnet=self.network is Network.MAINNET),
            below=path[3:],
        )

    def _derive_wallet_secret(self, path: tuple[int, ...]) -> bytes:
        purposes = (HARDENED + WALLET_PURPOSE, HARDENED + TAPROOT_PURPOSE)
        if len(path) != 5 or path[0] not in purposes or path[1] != HARDENED + coin_type(self.network):
            raise LeydenError("not an on-chain path of this key manager and network")
        return self._wallet_chain(path[:4]).child(path[4]).secret
