"""``InMemoryChannelKeys``: the ``ChannelSigner`` that rebuilds what it signs and keeps nothing but caches.

It trusts its host: parameters are signed as they come, as long as they are about keys of its own. Whoever wants rules
puts a guard in front of it.
"""

from collections import OrderedDict

from leyden.bitcoin import funding_script, p2wpkh, p2wpkh_script_code, p2wsh, sighash_segwit_v0
from leyden.commitment import (
    MAX_COMMITMENT_NUMBER,
    Commitment,
    CommitmentError,
    KnownSecrets,
    closing_sighash,
    derive_keys,
    derive_private_key,
    make_closing_tx,
    make_commitment,
    make_simple_closing_tx,
    to_local_script,
    to_remote_script,
)
from leyden.crypto import FIRST_INDEX, SecretGenerator, constant_time_equal, ecdsa_sign, pubkey_create
from leyden.hooks.signing import (
    ChannelSetup,
    CheckFutureSecret,
    CloseSignatures,
    CommitmentSignatures,
    CommitmentView,
    FutureSecret,
    HolderValidated,
    NewChannelKeys,
    ReleaseSecret,
    RevocationValidated,
    SecretReleased,
    SignAnnouncement,
    Signature,
    SignCounterpartyCommitment,
    SignerRefused,
    SignHolderCommitment,
    SignMutualClose,
    SignSimpleClose,
    SignSweep,
    SweepKind,
    ValidateCounterpartyRevocation,
    ValidateHolderCommitment,
    commitment_params,
    simple_close_of,
)
from leyden.types import KeysId, Msat, Sat, Side
from leyden.wire.gossip_signatures import channel_announcement_digest

from leyden_inmemory.derivation import ChannelSecrets, KeyTree

_KEPT_CHANNELS = 10_000
_KEPT_POINTS = 8


class _Channel:
    """Secrets of one channel, the generator of its per-commitment secrets and the points of the last few numbers."""

    __slots__ = ("_generator", "_points", "known_on_remote", "secrets")

    def __init__(self, secrets: ChannelSecrets) -> None:
        self.secrets = secrets
        self.known_on_remote = KnownSecrets(
            other_revocation_base_secret=secrets.revocation, other_htlc_base_secret=secrets.htlc
        )
        self._generator = SecretGenerator(secrets.commitment_seed)
        self._points: OrderedDict[int, bytes] = OrderedDict()

    def __repr__(self) -> str:
        return "_Channel(...)"

    def secret(self, number: int) -> bytes:
        """The per-commitment secret of ``number``, counted upwards from 0 (BOLT 3 counts indices downwards)."""
        if not 0 <= number <= MAX_COMMITMENT_NUMBER:
            raise SignerRefused("number", f"commitment number {number} is outside 0..2^48-1")
        return self._generator.secret(FIRST_INDEX - number)

    def point(self, number: int) -> bytes:
        point = self._points.get(number)
        if point is None:
            point = self._points[number] = pubkey_create(self.secret(number))
            if len(self._points) > _KEPT_POINTS:
                self._points.popitem(last=False)
        return point

    def known_on_local(self, number: int) -> KnownSecrets:
        return KnownSecrets(
            per_commitment_secret=self.secret(number),
            owner_delayed_base_secret=self.secrets.delayed_payment,
            owner_htlc_base_secret=self.secrets.htlc,
        )


class InMemoryChannelKeys:
    """``ChannelSigner`` over one key tree. Every method is awaitable and none ever suspends.

    ``SignerRefused`` answers requests about keys that are not derived from the request's ``keys_id``, points that are
    not ours, or transactions that do not spend what they say.
    """

    def __init__(self, tree: KeyTree) -> None:
        self._tree = tree
        self._channels: OrderedDict[KeysId, _Channel] = OrderedDict()

    def __repr__(self) -> str:
        return "InMemoryChannelKeys(...)"

    @property
    def stateless(self) -> bool:
        return True

    async def new_channel(self, keys_id: KeysId) -> NewChannelKeys:
        """Public keys and the first two points; asking again gives the same."""
        channel = self._find(keys_id)
        return NewChannelKeys(keys=channel.secrets.public, first_point=channel.point(0), second_point=channel.point(1))

    async def sign_counterparty_commitment(self, request: SignCounterpartyCommitment) -> CommitmentSignatures:
        setup, view = request.setup, request.view
        channel = self._open(setup)
        secrets = channel.secrets
        params = commitment_params(setup, Side.REMOTE)
        derive_keys(params, view.per_commitment_point, channel.known_on_remote, with_htlcs=bool(view.htlcs))
        commitment = _build(setup, Side.REMOTE, view)
        signature = ecdsa_sign(secrets.funding, commitment.sighash)
        if not commitment.htlcs:
            return CommitmentSignatures(signature=signature, htlc_signatures=())
        htlc_secret = derive_private_key(
            secrets.htlc, view.per_commitment_point, basepoint=secrets.public.htlc_basepoint
        )
        return CommitmentSignatures(
            signature=signature,
            htlc_signatures=tuple([ecdsa_sign(htlc_secret, htlc.sighash) for htlc in commitment.htlcs]),
        )

    async def validate_holder_commitment(self, request: ValidateHolderCommitment) -> HolderValidated:
        """Nothing to remember; the core has verified the signatures. Only the point is checked to be ours."""
        self._own_point(request.setup, request.view)
        return HolderValidated()

    async def release_secret(self, request: ReleaseSecret) -> SecretReleased:
        channel = self._open(request.setup)
        return SecretReleased(secret=channel.secret(request.number), next_point=channel.point(request.number + 2))

    async def validate_counterparty_revocation(self, request: ValidateCounterpartyRevocation) -> RevocationValidated:
        return RevocationValidated()

    async def sign_holder_commitment(self, request: SignHolderCommitment) -> Signature:
        setup, view = request.setup, request.view
        channel = self._own_point(setup, view)
        known = channel.known_on_local(view.number)
        derive_keys(commitment_params(setup, Side.LOCAL), view.per_commitment_point, known, with_htlcs=bool(view.htlcs))
        commitment = _build(setup, Side.LOCAL, view)
        return Signature(signature=ecdsa_sign(channel.secrets.funding, commitment.sighash))

    async def sign_mutual_close(self, request: SignMutualClose) -> Signature:
        """Sign the closing transaction with these outputs; an output of 0 sat is left out (BOLT 3)."""
        setup = request.setup
        channel = self._open(setup)
        if request.local_sat + request.remote_sat > setup.funding_satoshis:
            raise SignerRefused("close_value", "the closing transaction would pay more than the channel holds")
        tx = make_closing_tx(
            funding_outpoint=setup.funding_outpoint,
            local_script=request.local_script,
            remote_script=request.remote_script,
            local_msat=Msat(request.local_sat * 1000),
            remote_msat=Msat(request.remote_sat * 1000),
            fee=Sat(0),  # the values are those after fees
            local_is_funder=setup.local_is_funder,
            dust_limit=Sat(1),  # whoever asks has left out dust as 0
        )
        script = funding_script(setup.local_keys.funding_pubkey, setup.remote_keys.funding_pubkey)
        digest = closing_sighash(tx, script, setup.funding_satoshis)
        return Signature(signature=ecdsa_sign(channel.secrets.funding, digest))

    async def sign_simple_close(self, request: SignSimpleClose) -> CloseSignatures:
        """Sign every shape that is asked for; ``SignerRefused`` where the values do not add up."""
        setup = request.setup
        channel = self._open(setup)
        if request.local_msat + request.remote_msat != setup.funding_satoshis * 1000:
            raise SignerRefused("close_value", "both balances together are not what the channel holds")
        close = simple_close_of(request)
        script = funding_script(setup.local_keys.funding_pubkey, setup.remote_keys.funding_pubkey)
        try:
            txs = [make_simple_closing_tx(close, shape) for shape in request.shapes]
        except CommitmentError as error:
            raise SignerRefused("close_value", str(error)) from None
        digests = [closing_sighash(tx, script, setup.funding_satoshis) for tx in txs]
        return CloseSignatures(signatures=tuple(ecdsa_sign(channel.secrets.funding, digest) for digest in digests))

    async def sign_announcement(self, request: SignAnnouncement) -> Signature:
        """Sign with the funding key; ``SignerRefused`` unless both keys of the channel are named."""
        setup, message = request.setup, request.announcement
        channel = self._open(setup)
        named = {message.bitcoin_key_1, message.bitcoin_key_2}
        if named != {setup.local_keys.funding_pubkey, setup.remote_keys.funding_pubkey}:
            raise SignerRefused("gossip", "the announcement does not name the keys of this channel")
        return Signature(signature=ecdsa_sign(channel.secrets.funding, channel_announcement_digest(message)))

    async def sign_sweep(self, request: SignSweep) -> Signature:
        """Sign an input that spends ``to_local`` (after its delay) or ``to_remote``: the script spent is rebuilt."""
        channel = self._open(request.setup)
        if request.index >= len(request.tx.inputs) or len(request.spent) != len(request.tx.inputs):
            raise SignerRefused("sweep_shape", "a sweep names an input of its transaction and every output spent")
        secret, script, script_code = self._sweep_key(channel, request)
        spent = request.spent[request.index]
        if spent.script != script:
            raise SignerRefused("sweep_script", f"input {request.index} does not spend {request.kind.value} of ours")
        digest = sighash_segwit_v0(request.tx, request.index, script_code, spent.value)
        return Signature(signature=ecdsa_sign(secret, digest))

    async def check_future_secret(self, request: CheckFutureSecret) -> FutureSecret:
        expected = self._open(request.setup).secret(request.number)
        return FutureSecret(genuine=constant_time_equal(expected, request.secret))

    def _sweep_key(self, channel: _Channel, request: SignSweep) -> tuple[bytes, bytes, bytes]:
        """Secret key, output script and script code of what a sweep spends."""
        setup, secrets = request.setup, channel.secrets
        if request.kind is SweepKind.TO_REMOTE:
            pubkey = secrets.public.payment_basepoint
            if not setup.anchors:
                return secrets.payment, p2wpkh(pubkey), p2wpkh_script_code(pubkey)
            witness_script = to_remote_script(pubkey)
            return secrets.payment, p2wsh(witness_script), witness_script
        point = channel.point(request.number)
        keys = derive_keys(
            commitment_params(setup, Side.LOCAL), point, channel.known_on_local(request.number), with_htlcs=False
        )
        witness_script = to_local_script(keys.revocation_pubkey, setup.local_to_self_delay, keys.owner_delayed_pubkey)
        secret = derive_private_key(secrets.delayed_payment, point, basepoint=secrets.public.delayed_payment_basepoint)
        return secret, p2wsh(witness_script), witness_script

    def _find(self, keys_id: KeysId) -> _Channel:
        channel = self._channels.get(keys_id)
        if channel is None:
            channel = self._channels[keys_id] = _Channel(self._tree.channel(keys_id))
            if len(self._channels) > _KEPT_CHANNELS:
                self._channels.popitem(last=False)
        return channel

    def _open(self, setup: ChannelSetup) -> _Channel:
        channel = self._find(setup.keys_id)
        if channel.secrets.public != setup.local_keys:
            raise SignerRefused("wrong_keys", "the channel's local keys are not derived from this seed and keys_id")
        return channel

    def _own_point(self, setup: ChannelSetup, view: CommitmentView) -> _Channel:
        channel = self._open(setup)
        if channel.point(view.number) != view.per_commitment_point:
            raise SignerRefused("wrong_point", f"that is not our per-commitment point of number {view.number}")
        return channel


def _build(setup: ChannelSetup, owner: Side, view: CommitmentView) -> Commitment:
    return make_commitment(
        commitment_params(setup, owner),
        view.number,
        view.per_commitment_point,
        view.owner_msat,
        view.other_msat,
        view.htlcs,
        view.feerate,
    )
