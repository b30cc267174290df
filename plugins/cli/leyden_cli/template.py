"""The config that ``leyden init`` writes: complete enough to start, and it explains itself."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence

from leyden_cli.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_HEAD = """\
# Config of a Leyden node. Lines that begin with # are comments; what they show is the default.
# An unknown key is an error. `leyden plugins` shows what is installed and what it provides.

network = {network:<21} # regtest, signet, testnet4 (mainnet is refused for now)
# data_dir = "."                # relative to this file
listen = {listen:<22} # HOST:PORT for peers; "" listens nowhere
# connect = []                  # peers to dial at start: ["NODE_ID@HOST:PORT"]
# birth_height = 0              # the wallet's coins are not older than this block

# The services of the node, each by the name under which a plugin provides it.
{chain_source}
# A list there names several sources: the first is followed, the next take over while it cannot be.
# chain_verifier = []           # sources that are compared with it: where they disagree, payments stop
# broadcaster = [...]           # default: the chain sources
# fee_estimator = [...]         # default: the chain sources; asked in this order
# store = "sqlite"
# wallet = "wallet"
keys = {keys:<24} # all five key capabilities; one of them alone:
# node_identity, channel_signer, onchain_signer, destinations, payment_approval = ...
{plugins}
"""
_TAIL = """
# Terms and limits of channels: the fields of leyden.channel.ChannelPolicy.
# [channel]
# minimum_depth = 6           # confirmations of a funding transaction
# to_self_delay = 144         # blocks that the peer waits after closing alone
# min_funding = 20000         # smallest channel accepted, satoshi
# trusted_zero_conf = ["02..."]   # node ids whose channels count before they are in a block
# channel_types = ["anchors", "static_remotekey"]   # accepted; the first that the peer has is proposed

# When the view of the chain counts as degraded: no opens, no payments, an alarm.
# [chain]
# max_tip_age_minutes = ...   # of the newest block: 90, on regtest 0, which is any age
# trouble_seconds = 60        # how long the source may be away or behind
# failover_seconds = 30       # how long until the next source takes over, if there is one

# Confirmed coins that stay in the wallet, to close channels with anchors in time.
# [anchor_reserve]
# per_channel = 10000         # satoshi
# most = 100000               # for all channels together
# to_accept = true            # refuse channels of peers while the reserve is not there

# [log]
# level = "info"              # debug, info, warning, error
# file = "leyden.log"         # relative to the data folder; without it stderr
"""


def parse_assignment(text: str) -> tuple[str, str, object]:
    """``TABLE.KEY=VALUE``; the value is TOML, or a text if it is none."""
    target, equals, value = text.partition("=")
    table, dot, key = target.partition(".")
    if not equals or not dot or not _NAME.fullmatch(table) or not _NAME.fullmatch(key):
        raise ConfigError(f"--set takes TABLE.KEY=VALUE, such as regtest.socket=/path, not {text[:80]!r}")
    try:
        return table, key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return table, key, value


def write_config(
    *,
    network: str,
    listen: str,
    chain_source: str | None,
    keys: str,
    plugins: Sequence[str],
    tables: Mapping[str, Mapping[str, object]],
) -> str:
    """The text of a new config."""
    text = _HEAD.format(
        network=_value(network),
        listen=_value(listen),
        chain_source=f"chain_source = {_value(chain_source)}" if chain_source else '# chain_source = "..."',
        keys=_value(keys),
        plugins=f"plugins = {_value(list(plugins))}" if plugins else "# plugins = []                # more to enable",
    )
    for name, table in tables.items():
        text += f"\n[{name}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in table.items())
    return text + _TAIL


def _value(value: object) -> str:
    """JSON's spelling is TOML's for everything but dates, which no setting uses."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool | int | float | list):
        return json.dumps(value)
    raise ConfigError(f"--set takes texts, numbers, yes or no and lists, not {type(value).__name__}")
