"""The conformance suite of channel signers, and the channel it plays: a peer of known secrets, states in order.

```python
class TestMySigner(ChannelSignerConformance):
    def make_signer(self):          # each call: a signer over the same seed, as after a restart
        return MySigner(...)
```
"""

import asyncio
from collections.abc import Coroutine
from hashlib import sha256
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from leyden.bitcoin import (
    Transaction,
    TxIn,
    TxOut,
    finalize_transaction,
    funding_script,
    p2wpkh,
    p2wsh,
    sighash_segwit_v0,
)
from leyden.commitment import (
    ChannelKeys,
    CloseShape,
    Commitment,
    Htlc,
    closing_sighash,
    derive_private_key,
    funding_witness,
    make_closing_tx,
    make_commitment,
    make_simple_closing_tx,
    p2wpkh_witness,
    to_local_delayed_witness,
    to_remote_anchors_witness,
    to_remote_script,
    verify_commitment_signatures,
)
from leyden.crypto import (
    FIRST_INDEX,
    ShachainStore,
    commitment_secret,
    ecdsa_sign,
    ecdsa_verify,
    is_valid_point,
    pubkey_create,
)
from leyden.hooks.services import ChannelSigner
from leyden.hooks.signing import (
    ChannelSetup,
    CheckFutureSecret,
    CommitmentSignatures,
    CommitmentView,
    NewChannelKeys,
    ReleaseSecret,
    SecretReleased,
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
from leyden.testing.expectations import expect, expect_equal
from leyden.types import (
    BlockHeight,
    CltvDelta,
    FeeRatePerKw,
    KeysId,
    Msat,
    OutPoint,
    Sat,
    Side,
    Txid,
)

T = TypeVar("T")
CAPACITY = Sat(1_000_000)
FEERATE = FeeRatePerKw(2500)
KEYS_ID = KeysId(sha256(b"conformance").digest())


def run(test: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(test)


class Peer:
    """The other side of the channel, all of whose secrets are known to the test."""

    def __init__(self, name: str = "peer") -> None:
        self.secrets = {field: sha256(f"{name} {field}".encode()).digest() for field in ChannelKeys.__struct_fields__}
        self.keys = ChannelKeys(**{field: pubkey_create(secret) for field, secret in self.secrets.items()})
        self._seed = sha256(f"{name} commitments".encode()).digest()

    def secret(self, number: int) -> bytes:
        return commitment_secret(self._seed, FIRST_INDEX - number)

    def point(self, number: int) -> bytes:
        return pubkey_create(self.secret(number))

    def sign(self, commitment: Commitment) -> CommitmentSignatures:
        """What the peer sends us for our commitment."""
        base = self.secrets["htlc_basepoint"]
        htlc_secret = derive_private_key(base, commitment.keys.point, basepoint=self.keys.htlc_basepoint)
        return CommitmentSignatures(
            signature=ecdsa_sign(self.secrets["funding_pubkey"], commitment.sighash),
            htlc_signatures=tuple(ecdsa_sign(htlc_secret, htlc.sighash) for htlc in commitment.htlcs),
        )


def build(setup: ChannelSetup, owner: Side, view: CommitmentView) -> Commitment:
    """The commitment that a view describes."""
    return make_commitment(
        commitment_params(setup, owner),
        view.number,
        view.per_commitment_point,
        view.owner_msat,
        view.other_msat,
        view.htlcs,
        view.feerate,
    )


class Dance:
    """A channel between ``signer`` and a ``Peer``, stepped through its commitments in the right order.

    Every method is one request; ``step`` is a whole exchange. Tests of refusals call them in the wrong order.
    """

    def __init__(
        self, signer: ChannelSigner, new: NewChannelKeys, *, anchors: bool = True, funder: bool = True
    ) -> None:
        self.signer = signer
        self.peer = Peer()
        self.setup = ChannelSetup(
            keys_id=KEYS_ID,
            anchors=anchors,
            local_is_funder=funder,
            funding_outpoint=OutPoint(Txid(sha256(b"funding").digest()), 1),
            funding_satoshis=CAPACITY,
            push_msat=Msat(0),
            local_to_self_delay=CltvDelta(144),
            remote_to_self_delay=CltvDelta(720),
            local_dust_limit=Sat(546),
            remote_dust_limit=Sat(546),
            local_keys=new.keys,
            remote_keys=self.peer.keys,
        )
        self.points = [new.first_point, new.second_point]

    @classmethod
    async def begin(cls, signer: ChannelSigner, *, anchors: bool = True, funder: bool = True) -> "Dance":
        """A new channel with both commitments 0 signed."""
        dance = cls(signer, await signer.new_channel(KEYS_ID), anchors=anchors, funder=funder)
        await dance.sign_counterparty(0)
        await dance.validate(0)
        return dance

    def view(self, owner: Side, number: int) -> CommitmentView:
        """State ``number``: the more commitments, the more the peer has, and up to three HTLCs in flight."""
        local = owner is Side.LOCAL
        ours, theirs = 600_000_000 - number * 1_000_000, 400_000_000 + number * 1_000_000
        htlcs = tuple(
            Htlc(
                offered_by_owner=(index % 2 == 0) is local,
                amount_msat=Msat(10_000_000 + index),
                payment_hash=sha256(bytes([index])).digest(),
                cltv_expiry=BlockHeight(500 + index),
                id=index,
            )
            for index in range(number % 4)
        )
        for htlc in htlcs:
            if htlc.offered_by_owner is local:
                ours -= htlc.amount_msat
            else:
                theirs -= htlc.amount_msat
        return CommitmentView(
            number=number,
            per_commitment_point=self.points[number] if local else self.peer.point(number),
            feerate=FEERATE,
            owner_msat=Msat(ours if local else theirs),
            other_msat=Msat(theirs if local else ours),
            htlcs=htlcs,
        )

    async def sign_counterparty(self, number: int, view: CommitmentView | None = None) -> CommitmentSignatures:
        return await self.signer.sign_counterparty_commitment(
            SignCounterpartyCommitment(
                request_id=f"sign/{number}", setup=self.setup, view=view or self.view(Side.REMOTE, number)
            )
        )

    async def validate(self, number: int, view: CommitmentView | None = None) -> None:
        view = view or self.view(Side.LOCAL, number)
        signed = self.peer.sign(build(self.setup, Side.LOCAL, view))
        await self.signer.validate_holder_commitment(
            ValidateHolderCommitment(
                request_id=f"validate/{number}",
                setup=self.setup,
                view=view,
                signature=signed.signature,
                htlc_signatures=signed.htlc_signatures,
            )
        )

    async def release(self, number: int) -> SecretReleased:
        request = ReleaseSecret(request_id=f"release/{number}", setup=self.setup, number=number)
        released = await self.signer.release_secret(request)
        if len(self.points) == number + 2:
            self.points.append(released.next_point)
        return released

    async def revoke(self, number: int, secret: bytes | None = None) -> None:
        await self.signer.validate_counterparty_revocation(
            ValidateCounterpartyRevocation(
                request_id=f"revoke/{number}",
                setup=self.setup,
                number=number,
                secret=self.peer.secret(number) if secret is None else secret,
            )
        )

    async def step(self, number: int) -> SecretReleased:
        """Both sides move to state ``number``; our secret of the one before."""
        await self.validate(number)
        released = await self.release(number - 1)
        await self.sign_counterparty(number)
        await self.revoke(number - 1)
        return released

    async def sign_holder(self, number: int, view: CommitmentView | None = None) -> bytes:
        request = SignHolderCommitment(
            request_id=f"holder/{number}", setup=self.setup, view=view or self.view(Side.LOCAL, number)
        )
        return (await self.signer.sign_holder_commitment(request)).signature

    async def close(self, local_sat: int, remote_sat: int, **changes: bytes) -> bytes:
        scripts = {"local_script": p2wpkh(bytes(20)), "remote_script": p2wpkh(b"\x01" * 20), **changes}
        request = SignMutualClose(
            request_id="close", setup=self.setup, local_sat=Sat(local_sat), remote_sat=Sat(remote_sat), **scripts
        )
        return (await self.signer.sign_mutual_close(request)).signature

    @property
    def funding_script(self) -> bytes:
        return funding_script(self.setup.local_keys.funding_pubkey, self.setup.remote_keys.funding_pubkey)

    def finalize(self, tx: Transaction, local_signature: bytes, remote_signature: bytes) -> Transaction:
        """``tx`` with both funding signatures; a kernel, where one watches, gives its verdict."""
        witness = funding_witness(
            self.setup.local_keys.funding_pubkey,
            local_signature,
            self.setup.remote_keys.funding_pubkey,
            remote_signature,
            self.funding_script,
        )
        signed = replace(tx, inputs=(replace(tx.inputs[0], witness=witness),))
        return finalize_transaction(signed, (TxOut(value=CAPACITY, script=p2wsh(self.funding_script)),))


class ChannelSignerConformance:
    """What every ``ChannelSigner`` must do. Subclass and say how to make one."""

    def make_signer(self) -> ChannelSigner:
        """A signer; each call stands for a restart of the same one with an empty journal of channels."""
        raise NotImplementedError("a conformance test of a signer says how to make one")

    def test_keys_are_a_function_of_keys_id(self) -> None:
        async def test() -> None:
            first, again = self.make_signer(), self.make_signer()
            new = await first.new_channel(KEYS_ID)
            expect_equal(await first.new_channel(KEYS_ID), new)
            expect_equal(await again.new_channel(KEYS_ID), new)
            other = await first.new_channel(KeysId(bytes(32)))
            found = [getattr(new.keys, name) for name in ChannelKeys.__struct_fields__]
            found += [new.first_point, new.second_point, other.keys.funding_pubkey, other.first_point]
            expect(all(map(is_valid_point, found)), "keys are compressed points")
            expect_equal(len(set(found)), len(found), "no key twice")

        run(test())

    @pytest.mark.parametrize("anchors", [True, False])
    @pytest.mark.parametrize("funder", [True, False])
    def test_counterparty_commitments_are_signed(self, anchors: bool, funder: bool) -> None:
        async def test() -> None:
            dance = await Dance.begin(self.make_signer(), anchors=anchors, funder=funder)
            for number in range(1, 6):
                await dance.step(number)
                signed = await dance.sign_counterparty(number)
                expect_equal(await dance.sign_counterparty(number), signed, "the same request, the same bytes")
                params = commitment_params(dance.setup, Side.REMOTE)
                commitment = build(dance.setup, Side.REMOTE, dance.view(Side.REMOTE, number))
                verify_commitment_signatures(params, commitment, signed.signature, signed.htlc_signatures)
                expect_equal(len(signed.htlc_signatures), number % 4)

        run(test())

    def test_secrets_fit_the_points_and_each_other(self) -> None:
        async def test() -> None:
            dance = await Dance.begin(self.make_signer())
            store = ShachainStore()
            for number in range(1, 12):
                released = await dance.step(number)
                expect_equal(pubkey_create(released.secret), dance.points[number - 1])
                store = store.insert(FIRST_INDEX - (number - 1), released.secret)
                expect_equal(await dance.release(number - 1), released, "a lost revocation is repeated")

        run(test())

    def test_a_validation_may_be_repeated_before_the_release(self) -> None:
        async def test() -> None:
            dance = await Dance.begin(self.make_signer())
            await dance.validate(1)
            await dance.validate(1)
            changed = replace(dance.view(Side.LOCAL, 1), feerate=FeeRatePerKw(FEERATE + 1))
            await dance.validate(1, changed)
            await dance.release(0)

        run(test())

    @pytest.mark.parametrize("anchors", [True, False])
    def test_holder_commitment_is_signed_and_swept(self, anchors: bool) -> None:
        async def test() -> None:
            dance = await Dance.begin(self.make_signer(), anchors=anchors)
            await dance.step(1)
            commitment = build(dance.setup, Side.LOCAL, dance.view(Side.LOCAL, 1))
            signature = await dance.sign_holder(1)
            expect(
                ecdsa_verify(dance.setup.local_keys.funding_pubkey, commitment.sighash, signature),
                "the signature on our own commitment is good",
            )
            expect_equal(await dance.sign_holder(1), signature, "the same request, the same bytes")
            tx = dance.finalize(commitment.tx, signature, dance.peer.sign(commitment).signature)
            expect(commitment.to_local is not None, "this state has a to_local output")
            sweep, spent = make_sweep(tx, commitment.to_local or 0, dance.setup.local_to_self_delay)
            signed = await dance.signer.sign_sweep(
                SignSweep(
                    request_id="sweep",
                    setup=dance.setup,
                    kind=SweepKind.DELAYED_TO_LOCAL,
                    number=1,
                    tx=sweep,
                    index=0,
                    spent=(spent,),
                )
            )
            witness = to_local_delayed_witness(signed.signature, commitment.to_local_script)
            finalize_transaction(replace(sweep, inputs=(replace(sweep.inputs[0], witness=witness),)), (spent,))
            digest = sighash_segwit_v0(sweep, 0, commitment.to_local_script, spent.value)
            key = commitment.keys.owner_delayed_pubkey
            expect(ecdsa_verify(key, digest, signed.signature), "the sweep's signature is good")

        run(test())

    @pytest.mark.parametrize("anchors", [True, False])
    def test_our_balance_on_the_peers_commitment_is_swept(self, anchors: bool) -> None:
        async def test() -> None:
            dance = await Dance.begin(self.make_signer(), anchors=anchors)
            commitment = build(dance.setup, Side.REMOTE, dance.view(Side.REMOTE, 0))
            expect(commitment.to_remote is not None, "this state has a to_remote output")
            sweep, spent = make_sweep(commitment.tx, commitment.to_remote or 0, CltvDelta(1 if anchors else 0))
            request = SignSweep(
                request_id="sweep",
                setup=dance.setup,
                kind=SweepKind.TO_REMOTE,
                number=0,
                tx=sweep,
                index=0,
                spent=(spent,),
            )
            signature = (await dance.signer.sign_sweep(request)).signature
            key = dance.setup.local_keys.payment_basepoint
            witness = (
                to_remote_anchors_witness(signature, to_remote_script(key))
                if anchors
                else p2wpkh_witness(signature, key)
            )
            finalize_transaction(replace(sweep, inputs=(replace(sweep.inputs[0], witness=witness),)), (spent,))
            script_code = to_remote_script(key) if anchors else p2wpkh(key)
            if anchors:
                digest = sighash_segwit_v0(sweep, 0, script_code, spent.value)
                expect(ecdsa_verify(key, digest, signature), "the sweep's signature is good")
            stranger = replace(request, spent=(TxOut(value=spent.value, script=p2wpkh(bytes(20))),))
            with pytest.raises(SignerRefused):
                await dance.signer.sign_sweep(stranger)

        run(test())

    @pytest.mark.parametrize("remote_sat", [400_000, 0])
    def test_mutual_close_is_signed(self, remote_sat: int) -> None:
        async def test() -> None:
            dance = await Dance.begin(self.make_signer())
            signature = await dance.close(599_000, remote_sat)
            tx = make_closing_tx(
                funding_outpoint=dance.setup.funding_outpoint,
                local_script=p2wpkh(bytes(20)),
                remote_script=p2wpkh(b"\x01" * 20),
                local_msat=Msat(599_000_000),
                remote_msat=Msat(remote_sat * 1000),
                fee=Sat(0),
                local_is_funder=True,
                dust_limit=Sat(546),
            )
            digest = closing_sighash(tx, dance.funding_script, CAPACITY)
            expect(ecdsa_verify(dance.setup.local_keys.funding_pubkey, digest, signature), "the signature is good")
            dance.finalize(tx, signature, ecdsa_sign(dance.peer.secrets["funding_pubkey"], digest))

        run(test())

    @pytest.mark.parametrize("local_is_closer", [True, False])
    def test_simple_close_is_signed_in_every_shape(self, local_is_closer: bool) -> None:
        async def test() -> None:
            dance = await Dance.begin(self.make_signer())
            view = dance.view(Side.LOCAL, 0)
            request = SignSimpleClose(
                request_id="simple",
                setup=dance.setup,
                local_is_closer=local_is_closer,
                local_msat=view.owner_msat,
                remote_msat=view.other_msat,
                local_script=p2wpkh(bytes(20)),
                remote_script=p2wpkh(b"\x01" * 20),
                fee=Sat(321),
                locktime=700_000,
                shapes=(CloseShape.BOTH, CloseShape.CLOSER_ONLY) if local_is_closer else (CloseShape.BOTH,),
            )
            answer = await dance.signer.sign_simple_close(request)
            expect_equal(len(answer.signatures), len(request.shapes))
            close = simple_close_of(request)
            peer = dance.peer.secrets["funding_pubkey"]
            for shape, signature in zip(request.shapes, answer.signatures, strict=True):
                tx = make_simple_closing_tx(close, shape)
                digest = closing_sighash(tx, dance.funding_script, dance.setup.funding_satoshis)
                dance.finalize(tx, signature, ecdsa_sign(peer, digest))
            expect_equal(await dance.signer.sign_simple_close(request), answer, "the same request, the same bytes")

        run(test())

    def test_future_secrets_are_told_from_forged_ones(self) -> None:
        async def test() -> None:
            dance = await Dance.begin(self.make_signer())
            await dance.step(1)
            genuine = (await dance.release(0)).secret
            for secret, expected in ((genuine, True), (sha256(genuine).digest(), False), (bytes(32), False)):
                request = CheckFutureSecret(request_id="check", setup=dance.setup, number=0, secret=secret)
                expect_equal((await dance.signer.check_future_secret(request)).genuine, expected)

        run(test())

    def test_foreign_keys_and_points_are_refused(self) -> None:
        async def test() -> None:
            new = await self.make_signer().new_channel(KEYS_ID)
            dance = Dance(self.make_signer(), new)
            dance.setup = replace(dance.setup, keys_id=KeysId(bytes(32)))
            with pytest.raises(SignerRefused):
                await dance.sign_counterparty(0)
            dance = Dance(self.make_signer(), new)
            foreign = replace(dance.setup.local_keys, htlc_basepoint=Peer().point(0))
            dance.setup = replace(dance.setup, local_keys=foreign)
            with pytest.raises(SignerRefused):
                await dance.sign_counterparty(0)
            dance = await Dance.begin(self.make_signer())
            with pytest.raises(SignerRefused):
                await dance.validate(1, replace(dance.view(Side.LOCAL, 1), per_commitment_point=dance.points[0]))

        run(test())


def make_sweep(tx: Transaction, vout: int, sequence: int) -> tuple[Transaction, TxOut]:
    """A transaction that takes output ``vout`` of ``tx`` to nowhere in particular, and that output."""
    spent = tx.outputs[vout]
    sweep = Transaction(
        version=2,
        inputs=(TxIn(prevout=OutPoint(tx.txid, vout), sequence=sequence),),
        outputs=(TxOut(value=Sat(spent.value - 1000), script=p2wpkh(b"\x07" * 20)),),
        locktime=0,
    )
    return sweep, spent
