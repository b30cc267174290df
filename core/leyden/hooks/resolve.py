"""All services of a node in one record, chosen by config name."""

from collections.abc import Mapping
from typing import Any

import msgspec

from leyden.hooks.registry import KEY_CAPABILITIES, KINDS, Registry, ServiceContext
from leyden.hooks.services import (
    Broadcaster,
    ChainSource,
    ChannelSigner,
    Destinations,
    FeeEstimator,
    NodeIdentity,
    OnchainSigner,
    PaymentApproval,
    Store,
    Wallet,
)

KEY_MANAGER = "key_manager"
"""Config key that chooses one provider for every key capability; a capability's own key overrides it."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What a ``Node`` runs on."""

    store: Store
    chain_source: ChainSource
    broadcaster: Broadcaster
    fee_estimator: FeeEstimator
    wallet: Wallet
    node_identity: NodeIdentity
    channel_signer: ChannelSigner
    onchain_signer: OnchainSigner
    destinations: Destinations
    payment_approval: PaymentApproval


def plugins_to_enable(extra: tuple[str, ...], choices: Mapping[str, str], installed: tuple[str, ...]) -> list[str]:
    """Plugin names that a config enables: those it lists, and those whose service it chooses by the plugin's name."""
    chosen = [name for name in choices.values() if name in installed]
    return list(dict.fromkeys((*extra, *chosen)))


def resolve_services(
    registry: Registry,
    choices: Mapping[str, str],
    tables: Mapping[str, Mapping[str, object]],
    context: ServiceContext,
) -> Services:
    """Make every service. ``choices`` maps kinds (or ``key_manager``) to names. ``PluginError`` on a problem."""
    made: dict[str, Any] = {kind: registry.make(kind, choice_of(kind, choices), tables, context) for kind in KINDS}
    return Services(**made)


def choice_of(kind: str, choices: Mapping[str, str]) -> str | None:
    """The name chosen for ``kind``: its own key, for key capabilities else ``key_manager``."""
    if kind in choices:
        return choices[kind]
    return choices.get(KEY_MANAGER) if kind in KEY_CAPABILITIES else None
