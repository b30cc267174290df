# mypy: ignore-errors
"""Electrum's channel: signing and verifying one commitment, and payments between two channels in one process."""

from hashlib import sha256
from types import SimpleNamespace

from electrum.lnchannel import Channel, PeerState
from electrum.lnutil import (
    LOCAL,
    REMOTE,
    ChannelConfig,
    ChannelConstraints,
    ChannelKeys,
    ChannelType,
    OnlyPubkeyKeypair,
    Outpoint,
    UpdateAddHtlc,
    keypair_from_privkey,
)
from electrum.version import ELECTRUM_VERSION
from serve import serve, timed, versions_of

ANCHORS = ChannelType.OPTION_STATIC_REMOTEKEY | ChannelType.OPTION_ANCHORS
BASEPOINTS = {
    "multisig_key": "funding",
    "revocation_basepoint": "revocation",
    "payment_basepoint": "payment",
    "delayed_basepoint": "delayed",
    "htlc_basepoint": "htlc",
}
WALLET = SimpleNamespace(
    htlc_fulfilled=lambda *_: None,
    htlc_failed=lambda *_: None,
    save_preimage=lambda *_, **__: None,
    channel_state_changed=lambda *_: None,
)
prepared = {}
ChannelKeys.from_seed = classmethod(lambda _cls, seed, **_: prepared[seed])


def keys_of(secrets):
    """Electrum's keys from secrets of ours instead of those that it derives from a seed."""
    pairs = {name: keypair_from_privkey(secrets[ours]) for name, ours in BASEPOINTS.items()}
    keys = ChannelKeys(channel_seed=secrets["seed"], per_commitment_secret_seed=secrets["seed"], **pairs)
    prepared[secrets["seed"]] = keys
    return keys


def config_of(keys, balance, delay, dust_limit):
    return ChannelConfig(
        **{name: OnlyPubkeyKeypair(getattr(keys, name).pubkey) for name in BASEPOINTS},
        to_self_delay=delay,
        dust_limit_sat=dust_limit,
        max_htlc_value_in_flight_msat=2**60,
        max_accepted_htlcs=966,
        initial_msat=balance,
        reserve_sat=0,
        htlc_minimum_msat=1,
        upfront_shutdown_script=b"",
        announcement_node_sig=b"",
        announcement_bitcoin_sig=b"",
        current_commitment_signature=None,
        current_htlc_signatures=b"",
        current_per_commitment_point=keys.per_commitment_point(0),
        next_per_commitment_point=keys.per_commitment_point(1),
    )


def channel_of(own, other, balances, funding, delay, dust_limit, feerate, is_funder):
    state = {
        "channel_id": "00" * 32,
        "short_channel_id": "0000640000010000",
        "local_config": config_of(own, balances[0], delay, dust_limit),
        "remote_config": config_of(other, balances[1], delay, dust_limit),
        "channel_seed": own.channel_seed.hex(),
        "multisig_privkey": own.multisig_key.privkey.hex(),
        "constraints": ChannelConstraints(
            flags=0, capacity=funding["sat"], is_initiator=is_funder, funding_txn_minimum_depth=3
        ),
        "funding_outpoint": Outpoint(funding["txid"], funding["vout"]),
        "node_id": "02" * 33,
        "onion_keys": {},
        "data_loss_protect_remote_pcp": {},
        "log": {},
        "unfulfilled_htlcs": {},
        "state": "OPEN",
        "revocation_store": {},
        "channel_type": ANCHORS,
    }
    channel = Channel(state, lnworker=WALLET, initial_feerate=feerate)
    channel.hm.channel_open_finished()
    channel.peer_state = PeerState.GOOD
    return channel


def htlc_of(amount, preimage, expiry, id=None):
    return UpdateAddHtlc(
        amount_msat=amount, payment_hash=sha256(preimage).digest(), cltv_abs=expiry, htlc_id=id, timestamp=0
    )


# -- one commitment --------------------------------------------------------------------------------------------------

signer = verifier = None


def load(owner, other, funding, balances, feerate, number, delay, dust_limit, htlcs, point):
    """The other side's channel signs the owner's commitment ``number``; the owner's channel verifies it."""
    global signer, verifier
    secrets = [{name: bytes.fromhex(secret) for name, secret in side.items()} for side in (owner, other)]
    keys = [keys_of(side) for side in secrets]
    offered = [sum(amount for by_owner, amount, *_ in htlcs if by_owner == side) for side in (True, False)]
    whole = [balance + sum for balance, sum in zip(balances, offered, strict=True)]
    shape = (funding, delay, dust_limit, feerate)
    verifier = channel_of(keys[0], keys[1], whole, *shape, True)
    signer = channel_of(keys[1], keys[0], whole[::-1], *shape, False)
    for channel, own in ((verifier, True), (signer, False)):
        for side in (LOCAL, REMOTE):
            channel.hm.log[side]["ctn"] = number - 1
        ids = {True: 0, False: 0}
        for by_owner, amount, preimage, expiry in htlcs:
            by_us = by_owner == own
            htlc = htlc_of(amount, bytes.fromhex(preimage), expiry, ids[by_us])
            ids[by_us] += 1
            (channel.hm.send_htlc if by_us else channel.hm.recv_htlc)(htlc)
            side = LOCAL if by_us else REMOTE
            channel.hm.log[side]["locked_in"][htlc.htlc_id] = {LOCAL: number, REMOTE: number}
    signer.config[REMOTE].next_per_commitment_point = bytes.fromhex(point)


def sign():
    signed = signer.sign_next_commitment()
    signer.hm._set_revack_pending(REMOTE, False)  # once more, please
    return signed


def verify(signature, htlc_signatures):
    verifier.receive_new_commitment(signature, htlc_signatures)
    verifier.hm._set_revack_pending(LOCAL, False)


def output():
    """Txid and signatures, to compare."""
    signature, htlc_signatures = sign()
    return {
        "txid": signer.get_next_commitment(REMOTE).txid(),
        "signature": signature.hex(),
        "htlc_signatures": [entry.hex() for entry in htlc_signatures],
    }


def accepts(signature, htlc_signatures):
    """Whether Electrum finds these signatures valid."""
    verify(bytes.fromhex(signature), [bytes.fromhex(entry) for entry in htlc_signatures])
    return True


def time_verify(repeat):
    signed = sign()
    return timed(lambda: verify(*signed), repeat)


# -- payments --------------------------------------------------------------------------------------------------------

alice = bob = None
paid = 0


def open_pair():
    global alice, bob
    keys = [
        keys_of({name: sha256(f"{side} {name}".encode()).digest() for name in (*BASEPOINTS.values(), "seed")})
        for side in ("alice", "bob")
    ]
    funding = {"txid": "11" * 32, "vout": 0, "sat": 16_000_000}
    half = [8_000_000_000, 8_000_000_000]
    alice = channel_of(*keys, half, funding, 144, 354, 500, True)
    bob = channel_of(*reversed(keys), half, funding, 144, 354, 500, False)


def commit(one, two):
    """``one`` has something to commit to; both commitments are new afterwards."""
    two.receive_new_commitment(*one.sign_next_commitment())
    one.receive_revocation(two.revoke_current_commitment())
    one.receive_new_commitment(*two.sign_next_commitment())
    two.receive_revocation(one.revoke_current_commitment())


def pay(count):
    """``count`` payments from one side to the other, in two rounds of commitments; direction alternates."""
    global paid
    payer, payee = (alice, bob) if paid % 2 == 0 else (bob, alice)
    paid += 1
    preimages = {}
    for index in range(count):
        preimage = sha256(paid.to_bytes(8, "big") + index.to_bytes(4, "big")).digest()
        added = payer.add_htlc(htlc_of(1_000_000, preimage, 700))
        payee.receive_htlc(added)
        preimages[added.htlc_id] = preimage
    commit(payer, payee)
    for htlc_id, preimage in preimages.items():
        payee.settle_htlc(preimage, htlc_id)
        payer.receive_htlc_settle(preimage, htlc_id)
    commit(payee, payer)


def time_pay(count, repeat):
    cpu, wall = timed(lambda: pay(count), repeat)
    return [cpu / count, wall / count]


serve(
    {
        "versions": lambda: {**versions_of("electrum-ecc"), "electrum": ELECTRUM_VERSION},
        "load": load,
        "output": output,
        "accepts": accepts,
        "time": lambda repeat: timed(sign, repeat),
        "time_verify": time_verify,
        "open_pair": open_pair,
        "time_pay": time_pay,
    }
)
