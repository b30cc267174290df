"""Service protocols: what a plugin object must do to be chosen by name in the config.

A service is resolved once at start. Every method may suspend (``async``) unless it says otherwise; a service that can
answer at once simply never suspends; if it says so with a true attribute ``inline`` (signers: ``stateless``), the core
takes its answer inside the same turn, without a task. Whoever says so must never suspend.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from leyden.bitcoin import Network, Transaction, TxOut
from leyden.hooks.signing import (
    CheckFutureSecret,
    CloseSignatures,
    CommitmentSignatures,
    FutureSecret,
    HolderValidated,
    NewChannelKeys,
    ReleaseSecret,
    RevocationValidated,
    SecretReleased,
    SignAnnouncement,
    Signature,
    SignCounterpartyCommitment,
    SignHolderCommitment,
    SignMutualClose,
    SignPsbt,
    SignSimpleClose,
    SignSweep,
    ValidateCounterpartyRevocation,
    ValidateHolderCommitment,
)
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    BroadcastKind,
    BroadcastResult,
    ChainEvent,
    Deletes,
    Destination,
    DestinationPurpose,
    FeeTarget,
    FundedTransaction,
    Puts,
    RecordChanges,
    SourceInfo,
    UtxoAnswer,
    WalletBalance,
    WalletCoin,
    Watch,
)
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw, KeysId, LeydenError, Msat, NodeId, OutPoint, Sat, Txid
from leyden.wire import ChannelAnnouncement


class StoreError(LeydenError):
    """A commit or read failed. Nothing of the batch is durable; the core drops the turn and degrades."""


class StoreFenced(StoreError):
    """Another writer took the store (the epoch moved on): this process must stop at once."""


class StoreRefused(StoreError):
    """The database belongs to another node or network, is newer than this program, or is no database of ours."""


class Store(Protocol):
    """Ordered key-value rows with atomic commits.

    ``commit`` returns only when the whole batch is durable on disk; on any error nothing of it is.
    Keys sort as bytes; a value is never empty.
    """

    async def open(self, network: Network) -> int:
        """Open or create; take the next epoch by compare-and-set and return it. ``StoreRefused`` if not ours."""
        ...

    async def commit(self, puts: Puts, deletes: Deletes, epoch: int) -> None:
        """Apply all puts and deletes in one atomic, durable step. ``StoreFenced`` if ``epoch`` is not the newest."""
        ...

    async def get(self, key: bytes) -> bytes | None: ...

    async def scan(self, prefix: bytes, after: bytes = b"", limit: int = 0) -> list[tuple[bytes, bytes]]:
        """Rows whose key starts with ``prefix`` and is greater than ``after``, in key order; 0 means no limit."""
        ...

    async def reopen(self) -> None:
        """After a failed commit: close the handle, open a fresh one, keep the epoch."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class StoreMaintenance(Protocol):
    """What a ``Store`` may offer besides, for ``leyden db``: used on a store that was not opened, while a node may run.

    Nothing here changes the store or takes an epoch. ``copy`` names a backup to look at instead. Errors as of ``open``.
    """

    def verify(self, network: Network, copy: Path | None = None) -> tuple[str, ...]:
        """Problems below the rows (pages, indexes, checksums), a line each."""
        ...

    def read_rows(self, network: Network, copy: Path | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Every row in the order of keys, all of one moment."""
        ...

    def back_up(self, network: Network, target: Path) -> None:
        """A consistent, durable copy in the new file ``target``, which a node recognises as a copy when it starts on
        it. ``StoreRefused`` if the file exists or the store is damaged; no half copy is left behind."""
        ...


@runtime_checkable
class StorePeek(Protocol):
    """What a ``Store`` may offer besides: a look before it is opened, so that a start that must be refused takes no
    epoch from a node that runs."""

    def peek(self, network: Network, key: bytes) -> bytes | None:
        """One row, ``None`` if it or the whole store does not exist yet. Nothing is changed; errors as of ``open``."""
        ...


class ChainSource(Protocol):
    """An ordered stream of blocks: whole ones, or headers with the transactions that match the watches.

    The core puts what comes into strict order, checks work, linkage and what bodies and merkle branches prove, and asks
    again where something is missing: what comes twice or late is harmless, what is false is reported and not taken.
    """

    @property
    def info(self) -> SourceInfo: ...

    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
        """Begin after the newest block of ``locator`` (newest first) that is in the best chain, announcing a fork
        point if it is not the first; with an empty locator begin with the block at ``birth_height``.

        Called again while it runs, the stream goes back to this ``locator``. An error means that the source can never
        work like this (wrong network, wrong password); a backend that is away is no error, ``events`` waits for it.
        """
        ...

    def events(self) -> AsyncIterator[ChainEvent]:
        """Connect one by one or disconnect to a named fork point; ``SourceSynced`` when the tip is reached.
        Ends only on ``stop``; a lost backend is retried inside and may be told with ``SourceTrouble``."""
        ...

    async def watch(self, watches: Sequence[Watch]) -> BlockHeight:
        """Note these for ever; the answer is ``active_from``: the event stream is complete for them from there on.

        It does not wait for a backend: noting is enough, as long as no block from ``active_from`` on is delivered
        before the backend was asked about these watches. Called before ``start`` the stream is complete from its first
        block. The same watch twice is harmless, and before each ``start`` all come again.

        Blocks that are older, from ``since_height`` on, are looked at again: by the core with ``get_block`` if the
        source has ``full_blocks``. Else the source delivers ``HistoryFound`` for them, in the order of heights, when a
        watch comes late and with each ``start``, and ``SourceSynced`` after the last.
        """
        ...

    async def get_block(self, block_hash: BlockHash) -> BlockConnected:
        """The whole block, of any branch. A ``LeydenError`` if there is none, or if the source has no whole blocks."""
        ...

    async def find_utxo(self, outpoint: OutPoint) -> UtxoAnswer:
        """As of the source's tip, confirmed outputs only."""
        ...

    async def stop(self) -> None: ...


class Broadcaster(Protocol):
    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        """Submit once (parents first); already known is accepted. Never raises for a refusal."""
        ...


class FeeEstimator(Protocol):
    async def estimate(self, target: FeeTarget) -> FeeRatePerKw | None:
        """Sat per 1000 weight, or ``None`` when there is no estimate. The core caches and bounds it, compares it with
        the estimate before, and asks the next estimator where this one has none."""
        ...


class NodeIdentity(Protocol):
    """Node key. ``request_id`` is stable over retries; answers are the same bytes for the same request."""

    async def node_id(self) -> NodeId: ...

    async def ecdh(self, point: bytes) -> bytes:
        """SHA-256 of the compressed shared point of ``point`` (33 bytes) and the node key (BOLT 4, BOLT 8)."""
        ...

    async def sign_bolt11(self, hrp: str, data: Sequence[int]) -> tuple[bytes, int]:
        """64-byte signature and recovery id of a BOLT 11 invoice given as its parts (data in 5-bit groups)."""
        ...

    async def sign_gossip(self, message: ChannelAnnouncement) -> bytes:
        """64-byte signature of a gossip message that names this node (BOLT 7)."""
        ...

    async def host_secret(self, label: str) -> bytes:
        """32 bytes bound to ``label``, released to the host by design (payment secrets and the like)."""
        ...


class ChannelSigner(Protocol):
    """Keys of channels, found by ``keys_id``. Refuses by ``SignerRefused``, is absent by ``SignerUnavailable``.

    ``stateless``: the same question always gets the same answer and nothing must be durable before it is asked; the
    core then asks inside the turn. Otherwise requests leave only after the commit that records them.
    """

    @property
    def stateless(self) -> bool: ...

    async def new_channel(self, keys_id: KeysId) -> NewChannelKeys: ...

    async def sign_counterparty_commitment(self, request: SignCounterpartyCommitment) -> CommitmentSignatures: ...

    async def validate_holder_commitment(self, request: ValidateHolderCommitment) -> HolderValidated: ...

    async def release_secret(self, request: ReleaseSecret) -> SecretReleased: ...

    async def validate_counterparty_revocation(
        self, request: ValidateCounterpartyRevocation
    ) -> RevocationValidated: ...

    async def sign_holder_commitment(self, request: SignHolderCommitment) -> Signature: ...

    async def sign_mutual_close(self, request: SignMutualClose) -> Signature: ...

    async def sign_simple_close(self, request: SignSimpleClose) -> CloseSignatures: ...

    async def sign_announcement(self, request: SignAnnouncement) -> Signature:
        """Only for an announcement that names the channel's own two funding keys."""
        ...

    async def sign_sweep(self, request: SignSweep) -> Signature: ...

    async def check_future_secret(self, request: CheckFutureSecret) -> FutureSecret: ...


class OnchainSigner(Protocol):
    @property
    def unattended(self) -> bool: ...

    async def descriptors(self) -> Sequence[str]:
        """Public descriptors with checksum (BIP 380) of every script it signs for: another wallet can watch them."""
        ...

    async def sign_psbt(self, request: SignPsbt) -> bytes:
        """The PSBT with a signature for every input whose key is of this signer; the others are left as they are.

        P2WPKH gets a partial signature (SIGHASH_ALL), a taproot key path its 64 bytes (SIGHASH_DEFAULT). Nothing else
        of the PSBT changes. ``SignerRefused`` for a key that is not where its origin says, a script that is not of
        that key, or a version 0 input without the transaction that it spends.
        """
        ...


class NoDestination(LeydenError):
    """The key manager has no keys for scripts of this purpose."""


class Destinations(Protocol):
    async def destination(self, purpose: DestinationPurpose, index: int) -> Destination:
        """A pure function of purpose and index. ``NoDestination`` for a purpose that these keys do not serve:
        only ``RECEIVE_TAPROOT`` may be left out."""
        ...


class PaymentApproval(Protocol):
    async def approve_bolt11(self, invoice: str, amount_msat: Msat) -> bool:
        """Asked before any HTLC is offered."""
        ...


NOTHING_KEPT = Sat(0)


class Wallet(Protocol):
    """On-chain coins. Synchronous methods are called inside a turn; what they change is returned as rows and becomes
    durable with that turn's commit. ``load`` rebuilds from rows at start and after a failed commit.
    All rows live under the key prefix that ``load`` was given."""

    async def load(self, prefix: bytes, rows: Sequence[tuple[bytes, bytes]], destinations: Destinations) -> None: ...

    async def top_up(self) -> None:
        """Derive scripts ahead (the look-ahead) so that synchronous methods never wait for a device."""
        ...

    def scripts(self) -> Sequence[bytes]:
        """Every script to watch; more may come, none leaves."""
        ...

    def next_destination(self, purpose: DestinationPurpose) -> tuple[Destination, RecordChanges]:
        """Hand out a script that was never handed out before."""
        ...

    def owns(self, script: bytes) -> bool: ...

    def on_block_connected(self, block: BlockConnected) -> RecordChanges: ...

    def on_blocks_disconnected(self, event: BlocksDisconnected) -> RecordChanges: ...

    def on_unconfirmed(self, tx: Transaction) -> RecordChanges:
        """A transaction of our own that we are about to broadcast."""
        ...

    def fund(
        self,
        claim_id: str,
        outputs: Sequence[TxOut],
        feerate: FeeRatePerKw,
        locktime: BlockHeight,
        *,
        coins: Sequence[OutPoint] = (),
        keep: Sat = NOTHING_KEPT,
    ) -> tuple[FundedTransaction, RecordChanges]:
        """Choose confirmed coins (and our own unconfirmed change), lock them under ``claim_id`` and build the
        transaction. Asking again with the same claim returns the same coins. ``InsufficientFunds`` otherwise.

        With ``coins`` exactly these are spent; ``CoinUnavailable`` if one of them cannot be. ``ReserveNeeded`` if less
        than ``keep`` satoshi would be left: confirmed coins that no claim holds, and the change of this transaction if
        it spends confirmed coins only (a wallet with one coin could not do anything otherwise).
        """
        ...

    def replace(
        self, claim_id: str, txid: Txid, feerate: FeeRatePerKw, locktime: BlockHeight, *, keep: Sat = NOTHING_KEPT
    ) -> tuple[FundedTransaction, RecordChanges]:
        """The payments of an unconfirmed transaction of ours again, with more fee (BIP 125). ``CannotBump`` says why
        not: it is not ours alone, something builds on it, or it pays that feerate already. ``ReserveNeeded`` only if
        it had to take further coins. Once the new claim is released, the claim of ``txid`` holds its coins as before.
        """
        ...

    def accelerate(
        self, claim_id: str, txid: Txid, feerate: FeeRatePerKw, locktime: BlockHeight, *, keep: Sat = NOTHING_KEPT
    ) -> tuple[FundedTransaction, RecordChanges]:
        """A transaction that spends the change of ``txid`` and pays for both (child pays for parent); errors as of
        ``replace``."""
        ...

    def coins(self) -> Sequence[WalletCoin]:
        """Every unspent output that counts, in the order of outpoints."""
        ...

    def spent_coins(self) -> Sequence[tuple[OutPoint, bytes]]:
        """Coins, with their scripts, that a transaction spends which a reorg may still take back: unconfirmed, or
        fewer than 144 blocks deep. They are watched from the start on, for a spending need not show the script."""
        ...

    def release(self, claim_id: str) -> RecordChanges:
        """Its coins are free again."""
        ...

    def claims(self) -> tuple[str, ...]:
        """Claims that hold coins; at start the core releases those that a crash forgot: neither a channel nor a
        transaction that it repeats has them."""
        ...

    def balance(self) -> WalletBalance: ...

    def history(self) -> Mapping[Txid, Sat]:
        """Net effect on our coins of each known transaction, satoshi."""
        ...


@runtime_checkable
class WalletMaintenance(Protocol):
    """What a ``Wallet`` may offer besides, for ``leyden db check``: used on a wallet that was not loaded."""

    def check_rows(self, prefix: bytes, rows: Iterable[tuple[bytes, bytes]]) -> Iterable[str]:
        """What is wrong with rows of this wallet, a line each; never raises for what is in them."""
        ...


class InsufficientFunds(LeydenError):
    def __init__(self, needed: Sat, available: Sat) -> None:
        self.needed = needed
        self.available = available
        super().__init__(f"not enough coins: {needed} sat needed with fees, {available} sat spendable")


class ReserveNeeded(LeydenError):
    """The coins are there, but anchor channels need them: without fees a commitment may confirm too late."""

    def __init__(self, keep: Sat, left: Sat) -> None:
        self.keep = keep
        self.left = left
        super().__init__(
            f"{max(left, 0)} sat of confirmed coins would be left, and anchor channels need {keep} sat in reserve: "
            "spend less, add coins, or wait until coins confirm"
        )


class CoinUnavailable(LeydenError):
    """A coin that was asked for by name is not ours, is spent, or may not be spent now."""


class CannotBump(LeydenError):
    """This transaction cannot get more fee, or not in this way; the text says why."""
