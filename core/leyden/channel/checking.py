"""What the rows of a channel say about each other, for ``leyden db check``."""

from collections.abc import Iterator

from leyden.channel.limits import LOCAL, REMOTE
from leyden.channel.state import Channel
from leyden.channel.views import signed_view
from leyden.commitment import make_commitment, verify_commitment_signatures
from leyden.hooks.signing import commitment_params
from leyden.wire.stored import DAMAGES


def check_channel(channel: Channel) -> Iterator[str]:
    """One line for everything that is wrong with a channel just loaded.

    Both balances with what is in flight make up the capacity, HTLCs have ids that were given out, and the peer's
    signatures fit our newest commitment: without them we could not close.
    """
    capacity = channel.config.funding_satoshis * 1000
    settled = channel.local_settled + channel.remote_settled
    if settled != capacity:
        yield f"balances are {settled} msat in all, the capacity is {capacity} msat"
    for offerer, next_id in ((LOCAL, channel.next_local_id), (REMOTE, channel.next_remote_id)):
        for id in channel.htlcs(offerer):
            if id >= next_id:
                yield f"HTLC {id} of {offerer.name.lower()} was never offered, the next one is {next_id}"
    yield from _check_signatures(channel)


def _check_signatures(channel: Channel) -> Iterator[str]:
    signed = channel.funding.signatures
    if signed is None or signed.number != channel.local_number:
        number = None if signed is None else signed.number
        yield f"the peer's signatures are for our commitment {number}, the newest is {channel.local_number}"
        return
    try:
        view, params = signed_view(channel, LOCAL), commitment_params(channel.setup, LOCAL)
        commitment = make_commitment(
            params, view.number, view.per_commitment_point, view.owner_msat, view.other_msat, view.htlcs, view.feerate
        )
        verify_commitment_signatures(params, commitment, signed.signature, signed.htlc_signatures)
    except DAMAGES as error:
        yield f"the peer's signatures do not fit our newest commitment ({error})"
