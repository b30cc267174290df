"""``InMemoryKeyManager``: every key capability of a node, kept in memory."""

from collections.abc import Sequence

from leyden.bitcoin import Network, Transaction, TxOut, from_base32, p2wpkh, sighash_segwit_v0
from leyden.crypto import ecdh, ecdsa_sign, ecdsa_sign_recoverable, pubkey_create, sha256, sig_to_der
from leyden.hooks.signing import SignerRefused
from leyden.hooks.types import Destination, DestinationPurpose, SpendInput
from leyden.types import LeydenError, Msat, NodeId

from leyden_inmemory.bip32 import format_path
from leyden_inmemory.channel import InMemoryChannelKeys, p2wpkh_script_code
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

    async def host_secret(self, label: str) -> bytes:
        return self._tree.host_secret(label)

    # -- OnchainSigner -------------------------------------------------------------------------------------------

    async def sign_transaction(
        self, tx: Transaction, inputs: Sequence[SpendInput], spent: Sequence[TxOut]
    ) -> tuple[tuple[bytes, ...], ...]:
        """Witness stacks of P2WPKH inputs. ``SignerRefused`` when a path is not ours or leads to another script."""
        if len(spent) != len(tx.inputs):
            raise SignerRefused("spent", f"{len(tx.inputs)} inputs spend {len(tx.inputs)} outputs, {len(spent)} given")
        return tuple(self._sign_input(tx, entry, spent) for entry in inputs)

    def _sign_input(self, tx: Transaction, entry: SpendInput, spent: Sequence[TxOut]) -> tuple[bytes, bytes]:
        if not 0 <= entry.index < len(spent) or spent[entry.index] != entry.output:
            raise SignerRefused("spent", f"input {entry.index} does not spend the output it names")
        try:
            secret = self._tree.wallet_secret(entry.path)
        except LeydenError as error:
            raise SignerRefused("path", f"{format_path(entry.path)}: {error}") from None
        pubkey = pubkey_create(secret)
        if entry.output.script != p2wpkh(pubkey):
            raise SignerRefused("path", f"{format_path(entry.path)} is not the key of input {entry.index}")
        digest = sighash_segwit_v0(tx, entry.index, p2wpkh_script_code(pubkey), entry.output.value)
        return sig_to_der(ecdsa_sign(secret, digest)) + _SIGHASH_ALL, pubkey

    # -- Destinations --------------------------------------------------------------------------------------------

    async def destination(self, purpose: DestinationPurpose, index: int) -> Destination:
        """The P2WPKH script of ``m/84'/coin'/account'/chain/index``: a pure function of purpose and index."""
        path = destination_path(self._tree.network, purpose, index)
        script = p2wpkh(pubkey_create(self._tree.wallet_secret(path)))
        return Destination(script=script, purpose=purpose, index=index, path=path)

    # -- PaymentApproval -----------------------------------------------------------------------------------------

    async def approve_bolt11(self, invoice: str, amount_msat: Msat) -> bool:
        """Always yes: limits are the business of ``leyden_approve_spend`` and of policy plugins."""
        return True
