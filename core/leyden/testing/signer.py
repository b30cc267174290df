"""``GuardingSigner``: wraps any ``ChannelSigner`` under test and refuses unsafe orders; and the conformance suite.

The rules are those of a careful device. Holder commitments: validated in order without gaps, released only after the
next one was validated, never released after being signed for broadcast, never signed after being released.
Counterparty commitments: asked for in order, never changed once asked for, n only after the secret of n - 2, and none
after a mutual close was signed. Secrets must fit their points and each other. Money is conserved in every state.
"""

from msgspec.structs import replace

from leyden.bitcoin import dust_limit
from leyden.commitment import CloseShape, make_commitment, verify_commitment_signatures
from leyden.crypto import FIRST_INDEX, pubkey_create
from leyden.hooks.services import ChannelSigner
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
    SignerUnavailable,
    SignHolderCommitment,
    SignMutualClose,
    SignSimpleClose,
    SignSweep,
    SweepKind,
    ValidateCounterpartyRevocation,
    ValidateHolderCommitment,
    commitment_params,
)
from leyden.testing.guard_ledger import (
    ChannelRecord,
    GuardLedger,
    GuardViolation,
    facts_of,
    record_violation,
    take_violations,
)
from leyden.testing.signer_conformance import ChannelSignerConformance
from leyden.types import KeysId, LeydenError, RuleViolation, Side

__all__ = [
    "ChannelSignerConformance",
    "GuardLedger",
    "GuardViolation",
    "GuardingSigner",
    "take_violations",
]


class GuardingSigner:
    """``ChannelSigner`` around ``inner``; ``GuardViolation`` for an unsafe order.

    ``disabled`` holds names of methods that answer ``SignerUnavailable`` for now, as an unplugged device does.
    """

    def __init__(self, inner: ChannelSigner, ledger: GuardLedger | None = None) -> None:
        self.inner = inner
        self.ledger = ledger if ledger is not None else GuardLedger()
        self.disabled: set[str] = set()
        self.inline = bool(getattr(inner, "inline", False))

    @property
    def stateless(self) -> bool:
        return self.inner.stateless

    async def new_channel(self, keys_id: KeysId) -> NewChannelKeys:
        self._check_enabled("new_channel")
        return await self.inner.new_channel(keys_id)

    async def sign_counterparty_commitment(self, request: SignCounterpartyCommitment) -> CommitmentSignatures:
        self._check_enabled("sign_counterparty_commitment")
        record, view = self._record(request.setup), request.view
        _check_money(request.setup, view)
        if view.number == record.signed_number:
            _require(view == record.signed, f"counterparty commitment {view.number} changed after it was asked for")
        else:
            _require(
                view.number == record.signed_number + 1,
                f"counterparty commitment {view.number} asked for after {record.signed_number}",
            )
            _require(
                view.number <= record.revoked + 2,
                f"counterparty commitment {view.number} asked for, but only {record.revoked} is revoked",
            )
            _require(not record.closing, "a commitment was asked for after a mutual close was signed")
            _require(record.broadcast is None, "a commitment was asked for after ours was signed for broadcast")
            _require(
                record.signed is None or view.per_commitment_point != record.signed.per_commitment_point,
                "the peer's per-commitment point was used twice",
            )
            self._keep(request, replace(record, signed_before=record.signed, signed=view))
        return await self.inner.sign_counterparty_commitment(request)

    async def validate_holder_commitment(self, request: ValidateHolderCommitment) -> HolderValidated:
        self._check_enabled("validate_holder_commitment")
        record, view = self._record(request.setup), request.view
        _check_money(request.setup, view)
        _check_signatures(request)
        if view.number == record.validated_number:
            _require(
                view == record.validated or record.released < view.number - 1,
                f"holder commitment {view.number} changed after {view.number - 1} was released",
            )
            self._keep(request, replace(record, validated=view))
        else:
            _require(
                view.number == record.validated_number + 1,
                f"holder commitment {view.number} validated after {record.validated_number}",
            )
            _require(
                view.number <= record.released + 2,
                f"holder commitment {view.number} validated, but only {record.released} is released",
            )
            self._keep(request, replace(record, validated_before=record.validated, validated=view))
        return await self.inner.validate_holder_commitment(request)

    async def release_secret(self, request: ReleaseSecret) -> SecretReleased:
        self._check_enabled("release_secret")
        record, number = self._record(request.setup), request.number
        _require(number <= record.released + 1, f"secret {number} released after {record.released}")
        _require(
            number < record.validated_number,
            f"secret {number} released, but the newest validated commitment is {record.validated_number}",
        )
        _require(
            record.broadcast is None or number < record.broadcast,
            f"secret {number} released after commitment {record.broadcast} was signed for broadcast",
        )
        self._keep(request, replace(record, released=max(record.released, number)))
        return await self.inner.release_secret(request)

    async def validate_counterparty_revocation(self, request: ValidateCounterpartyRevocation) -> RevocationValidated:
        self._check_enabled("validate_counterparty_revocation")
        record, number = self._record(request.setup), request.number
        if number == record.revoked:
            _require(record.secrets.lookup(FIRST_INDEX - number) == request.secret, f"secret {number} has changed")
        else:
            _require(number == record.revoked + 1, f"counterparty revocation {number} after {record.revoked}")
            _require(
                number < record.signed_number,
                f"counterparty commitment {number} revoked, but the newest one signed is {record.signed_number}",
            )
            view = record.signed_before
            _require(
                view is not None and pubkey_create(request.secret) == view.per_commitment_point,
                f"the secret of counterparty commitment {number} does not fit its point",
            )
            try:
                secrets = record.secrets.insert(FIRST_INDEX - number, request.secret)
            except LeydenError as error:
                raise record_violation(f"the secret of counterparty commitment {number}: {error}") from error
            self._keep(request, replace(record, revoked=number, secrets=secrets))
        return await self.inner.validate_counterparty_revocation(request)

    async def sign_holder_commitment(self, request: SignHolderCommitment) -> Signature:
        self._check_enabled("sign_holder_commitment")
        record, view = self._record(request.setup), request.view
        _require(view.number > record.released, f"commitment {view.number} signed for broadcast after its release")
        _require(
            view in (record.validated, record.validated_before),
            f"commitment {view.number} signed for broadcast was never validated like this",
        )
        lowest = view.number if record.broadcast is None else min(record.broadcast, view.number)
        self._keep(request, replace(record, broadcast=lowest))
        return await self.inner.sign_holder_commitment(request)

    async def sign_mutual_close(self, request: SignMutualClose) -> Signature:
        self._check_enabled("sign_mutual_close")
        record, setup = self._record(request.setup), request.setup
        ours, _ = _final_balances(record)
        ours //= 1000
        if record.validated is not None:
            paid = request.local_sat + request.remote_sat
            _require(paid <= setup.funding_satoshis, "mutual close pays more than the channel holds")
            _require(
                setup.local_is_funder or request.local_sat in (0, ours),
                f"mutual close pays us {request.local_sat} of {ours} sat though the peer pays the fee",
            )
        _require(
            not setup.local_shutdown_script or request.local_script == setup.local_shutdown_script,
            "mutual close pays another script than the one promised at the opening",
        )
        self._keep(request, replace(record, closing=True))
        return await self.inner.sign_mutual_close(request)

    async def sign_simple_close(self, request: SignSimpleClose) -> CloseSignatures:
        self._check_enabled("sign_simple_close")
        record, setup = self._record(request.setup), request.setup
        balances = _final_balances(record)
        asked = (request.local_msat, request.remote_msat)
        _require(balances == asked, f"simple close of balances {asked}, the final commitment has {balances}")
        closer = balances[0] if request.local_is_closer else balances[1]
        _require(request.fee * 1000 <= closer, f"simple close with a fee of {request.fee} sat of {closer} msat")
        _require(
            not setup.local_shutdown_script or request.local_script == setup.local_shutdown_script,
            "simple close pays another script than the one promised at the opening",
        )
        dust = request.local_msat // 1000 < dust_limit(request.local_script)
        left_out = CloseShape.CLOSEE_ONLY if request.local_is_closer else CloseShape.CLOSER_ONLY
        _require(
            request.local_is_closer or dust or left_out not in request.shapes,
            "simple close leaves out our output, which is not dust",
        )
        self._keep(request, replace(record, closing=True))
        return await self.inner.sign_simple_close(request)

    async def sign_announcement(self, request: SignAnnouncement) -> Signature:
        self._check_enabled("sign_announcement")
        self._record(request.setup)
        return await self.inner.sign_announcement(request)

    async def sign_sweep(self, request: SignSweep) -> Signature:
        self._check_enabled("sign_sweep")
        record = self._record(request.setup)
        if request.kind is SweepKind.DELAYED_TO_LOCAL:
            _require(
                record.broadcast is not None and request.number >= record.broadcast,
                f"sweep of holder commitment {request.number}, which was never signed for broadcast",
            )
        return await self.inner.sign_sweep(request)

    async def check_future_secret(self, request: CheckFutureSecret) -> FutureSecret:
        self._check_enabled("check_future_secret")
        return await self.inner.check_future_secret(request)

    def _check_enabled(self, name: str) -> None:
        if name in self.disabled:
            raise SignerUnavailable(f"{name} is switched off by the test")

    def _record(self, setup: ChannelSetup) -> ChannelRecord:
        record = self.ledger.records.get(setup.keys_id)
        if record is None:
            return ChannelRecord(funding_outpoint=setup.funding_outpoint, facts=facts_of(setup))
        _require(record.facts == facts_of(setup), f"the facts of channel {record.funding_outpoint} have changed")
        return record

    def _keep(self, request: "_OfChannel", record: ChannelRecord) -> None:
        self.ledger.records[request.setup.keys_id] = record


_OfChannel = (
    SignCounterpartyCommitment
    | ValidateHolderCommitment
    | ReleaseSecret
    | ValidateCounterpartyRevocation
    | SignHolderCommitment
    | SignMutualClose
    | SignSimpleClose
)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise record_violation(message)


def _final_balances(record: ChannelRecord) -> tuple[int, int]:
    """Ours and the peer's in millisatoshi, in a channel that is ready for a close by agreement."""
    view = record.validated
    if view is None:
        raise record_violation("mutual close of a channel without a commitment")
    views = [view] + ([record.signed] if record.signed is not None else [])
    _require(not any(each.htlcs for each in views), "mutual close with HTLCs in flight")
    return view.owner_msat, view.other_msat


def _check_money(setup: ChannelSetup, view: CommitmentView) -> None:
    total = view.owner_msat + view.other_msat + sum(htlc.amount_msat for htlc in view.htlcs)
    _require(
        total == setup.funding_satoshis * 1000 and min(view.owner_msat, view.other_msat) >= 0,
        f"commitment {view.number} adds up to {total} msat in a channel of {setup.funding_satoshis} sat",
    )


def _check_signatures(request: ValidateHolderCommitment) -> None:
    params, view = commitment_params(request.setup, Side.LOCAL), request.view
    commitment = make_commitment(
        params, view.number, view.per_commitment_point, view.owner_msat, view.other_msat, view.htlcs, view.feerate
    )
    try:
        verify_commitment_signatures(params, commitment, request.signature, request.htlc_signatures)
    except RuleViolation as error:
        raise record_violation(f"holder commitment {view.number} validated with bad signatures: {error}") from error
