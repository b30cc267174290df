# mypy: ignore-errors
"""lnprototest's commitment: the remote side builds and signs the local side's transaction and its HTLC transactions."""

import lnprototest.commit_tx as commit_tx
from lnprototest.commit_tx import HTLC, Commitment
from lnprototest.funding import Funding
from lnprototest.keyset import KeySet
from lnprototest.utils import Side
from serve import serve, timed, versions_of

# Its debug output is formatted all the same, but goes nowhere.
commit_tx.print = lambda *values: None

current = None


def _keyset(side):
    return KeySet(side["revocation"], side["payment"], side["htlc"], side["delayed"], side["seed"])


def load(owner, other, funding, balances, feerate, number, delay, dust_limit, htlcs):
    """Make one commitment; secrets are hex. Balances are those without HTLCs."""
    global current
    current = Commitment(
        funding=Funding(
            funding["txid"], funding["vout"], funding["sat"], "01", owner["funding"], "02", other["funding"]
        ),
        opener=Side.local,
        local_keyset=_keyset(owner),
        remote_keyset=_keyset(other),
        local_to_self_delay=delay,
        remote_to_self_delay=delay,
        local_amount=0,
        remote_amount=0,
        local_dust_limit=dust_limit,
        remote_dust_limit=dust_limit,
        feerate=feerate,
        option_static_remotekey=True,
        option_anchor_outputs=True,
    )
    current.commitnum = number
    for id, (offered, amount_msat, preimage, expiry) in enumerate(htlcs):
        side = Side.local if offered else Side.remote
        current.add_htlc(HTLC(side, amount_msat, preimage, expiry, "00" * 1366), id)
    current.amounts = list(balances)
    return None


def build_and_sign():
    tx, _ = current._unsigned_tx(Side.local)
    signature = current.remote_sig(tx).to_bin()
    return tx, signature, [sig.to_bin() for sig in current.htlc_sigs(Side.remote, Side.local)]


def output():
    """Txid and signatures, to compare."""
    tx, signature, htlc_signatures = build_and_sign()
    return {
        "txid": tx.GetTxid().hex(),
        "signature": signature.hex(),
        "htlc_signatures": [htlc_signature.hex() for htlc_signature in htlc_signatures],
    }


serve(
    {
        "versions": lambda: versions_of("lnprototest", "coincurve", "python-bitcoinlib"),
        "load": load,
        "output": output,
        "time": lambda repeat: timed(build_and_sign, repeat),
    }
)
