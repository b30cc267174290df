"""``InMemoryKeyManager``: every key capability of a node, kept in memory."""

from collections.abc import Sequence

import msgspec
from leyden.bitcoin import (
    KeyInfo,
    Network,
    PartialSig,
    Psbt,
    PsbtError,
    PsbtInput,
    TaprootKeyInfo,
    from_base32,
    p2wpkh,
    parse_psbt,
    psbt_digest,
    taproot_output_script,
    taproot_output_secret,
)
from leyden.crypto import (
    NO_AUX,
    ecdh,
    ecdsa_sign,
    ecdsa_sign_recoverable,
    pubkey_create,
    schnorr_sign,
    sha256,
    sig_to_der,
    xonly_create,
)
from leyden.hooks.signing import SignerRefused, SignPsbt
from leyden.hooks.types import Destination, DestinationPurpose
from leyden.types import LeydenError, Msat, NodeId
from leyden.wire import ChannelAnnouncement
from leyden.wire.gossip_signatures import channel_announcement_digest

from leyden_inmemory.bip32 import format_path
from leyden_inmemory.channel import InMemoryChannelKeys
from leyden_inmemory.derivation import KeyTree, destination_path

_SIGHASH_ALL = b"\x01"


class InMemoryKeyManager:
    """Provider of ``NodeIdentity``, ``ChannelSigner`` (``InMemoryChannelKeys``), ``OnchainSigner``, ``Destinations``
    and ``PaymentApproval`` from one seed.

    ``seed`` is the 64-byte seed of a BIP 39 mnemonic, or 32 bytes of entropy used as a BIP 32 seed directly. Its keys
    belong to ``network``. Every method is awaitable and none ever suspends.
    """

    inline = True
    """No method ever suspends: the node may take the answers inside its turn."""

    def __init__(self, seed: bytes, network: Network) -> None:
        if len(seed) not in (32, 64):
            raise LeydenError(f"a seed has 64 bytes (BIP 39) or 32 bytes, this one has {len(seed)}")
        self._tree = KeyTree(seed, network)
        self._node_id = NodeId(pubkey_create(self._tree.node_secret))
        self.channel_signer = InMemoryChannelKeys(self._tree)
        # The manager itself is a ``ChannelSigner`` too, so that one object can be handed around.
        self.new_channel = self.channel_signer.new_channel
        self.sign_counterparty_commitment = self.channel_signer.sign_counterparty_commitment
        self.validate_holder_commitment = self.channel_signer.validate_holder_commitment
        self.release_secret = self.channel_signer.release_secret
        self.validate_counterparty_revocation = self.channel_signer.validate_counterparty_revocation
        self.sign_holder_commitment = self.channel_signer.sign_holder_commitment
        self.sign_mutual_close = self.channel_signer.sign_mutual_close
        self.sign_simple_close = self.channel_signer.sign_simple_close
        self.sign_announcement = self.channel_signer.sign_announcement
        self.sign_sweep = self.channel_signer.sign_sweep
        self.check_future_secret = self.channel_signer.check_future_secret

    def __repr__(self) -> str:
        return f"InMemoryKeyManager(node_id={self._node_id.hex()})"

    @property
    def network(self) -> Network:
        return self._tree.network

    @property
    def stateless(self) -> bool:
        return True

    @property
    def unattended(self) -> bool:
        return True

    # -- NodeIdentity --------------------------------------------------------------------------------------------

    async def node_id(self) -> NodeId:
        return self._node_id

    async def ecdh(self, point: bytes) -> bytes:
        """SHA-256 of the compressed shared point; ``CryptoError`` for an invalid ``point``."""
        return ecdh(self._tree.node_secret, point)

    async def sign_bolt11(self, hrp: str, data: Sequence[int]) -> tuple[bytes, int]:
        """Sign an invoice given as its human-readable part and 5-bit groups (BOLT 11, signature)."""
        return ecdsa_sign_recoverable(
            self._tree.node_secret, sha256(hrp.encode("ascii") + from_base32(bytes(data), pad=True))
        )

    async def sign_gossip(self, message: ChannelAnnouncement) -> bytes:
        """Sign a ``channel_announcement`` with the node key; ``SignerRefused`` unless it names this node."""
        if self._node_id not in (message.node_id_1, message.node_id_2):
            raise SignerRefused("gossip", "the announcement does not name this node")
        return ecdsa_sign(self._tree.node_secret, channel_announcement_digest(message))

    async def host_secret(self, label: str) -> bytes:
        return self._tree.host_secret(label)

    # -- OnchainSigner -------------------------------------------------------------------------------------------

    async def descriptors(self) -> tuple[str, ...]:
        return tuple(self._tree.descriptor(purpose) for purpose in DestinationPurpose)

    async def sign_psbt(self, request: SignPsbt) -> bytes:
        """Sign P2WPKH and taproot key path inputs whose key origin names our root; leave the others as they are.

        ``SignerRefused`` when such an origin does not lead to the key that it stands by or to the script spent, and for
        a PSBT that does not prove what it spends.
        """
        try:
            psbt = parse_psbt(request.psbt)
        except PsbtError as error:
            raise SignerRefused("psbt", str(error)) from None
        inputs = tuple(self._sign_input(psbt, index) for index in range(len(psbt.inputs)))
        return msgspec.structs.replace(psbt, inputs=inputs).serialize()

    def _sign_input(self, psbt: Psbt, index: int) -> PsbtInput:
        entry = psbt.inputs[index]
        try:
            for key in entry.keys:
                if key.origin.fingerprint == self._tree.fingerprint:
                    return self._sign_p2wpkh(psbt, index, key)
            for taproot_key in entry.taproot_keys:
                if taproot_key.origin.fingerprint == self._tree.fingerprint:
                    return self._sign_taproot(psbt, index, taproot_key)
        except PsbtError as error:
            raise SignerRefused("psbt", str(error)) from None
        return entry

    def _sign_p2wpkh(self, psbt: Psbt, index: int, key: KeyInfo) -> PsbtInput:
        entry, secret = psbt.inputs[index], self._secret(key.origin.path)
        pubkey = pubkey_create(secret)
        if key.pubkey != pubkey or psbt.spent_output(index).script != p2wpkh(pubkey):
            raise SignerRefused("path", f"{format_path(key.origin.path)} is not the key of input {index}")
        signature = sig_to_der(ecdsa_sign(secret, psbt_digest(psbt, index))) + _SIGHASH_ALL
        others = (known for known in entry.partial_sigs if known.pubkey != pubkey)
        return msgspec.structs.replace(entry, partial_sigs=(*others, PartialSig(pubkey=pubkey, signature=signature)))

    def _sign_taproot(self, psbt: Psbt, index: int, key: TaprootKeyInfo) -> PsbtInput:
        entry, secret = psbt.inputs[index], self._secret(key.origin.path)
        internal_key = xonly_create(secret)
        if key.xonly != internal_key or psbt.spent_output(index).script != taproot_output_script(internal_key):
            raise SignerRefused("path", f"{format_path(key.origin.path)} is not the key of input {index}")
        signature = schnorr_sign(taproot_output_secret(secret), psbt_digest(psbt, index), NO_AUX)
        return msgspec.structs.replace(entry, tap_key_sig=signature)

    def _secret(self, path: tuple[int, ...]) -> bytes:
        try:
            return self._tree.wallet_secret(path)
        except LeydenError as error:
            raise SignerRefused("path", f"{format_path(path)}: {error}") from None

    # -- Destinations --------------------------------------------------------------------------------------------

    async def destination(self, purpose: DestinationPurpose, index: int) -> Destination:
        """The script of ``m/84'/coin'/account'/chain/index`` (P2WPKH) or ``m/86'/...`` (taproot, key path only)."""
        path = destination_path(self._tree.network, purpose, index)
        pubkey = pubkey_create(self._tree.wallet_secret(path))
        taproot = purpose is DestinationPurpose.RECEIVE_TAPROOT
        return Destination(
            script=taproot_output_script(pubkey[1:]) if taproot else p2wpkh(pubkey),
            purpose=purpose,
            index=index,
            path=path,
            pubkey=pubkey,
            fingerprint=self._tree.fingerprint,
        )

    # -- PaymentApproval -----------------------------------------------------------------------------------------

    async def approve_bolt11(self, invoice: str, amount_msat: Msat) -> bool:
        """Always yes: limits are the business of ``leyden_approve_spend`` and of policy plugins."""
        return True
