"""The questions and notices of a Leyden node. Each docstring is the whole contract of its hook.

A plugin implements a hook by a function of the same name, marked with ``leyden.hooks.hookimpl``; it takes any of the
arguments by name and may be ``async``. A synchronous one runs on the node's event loop and must return at once.
"""

from typing import TYPE_CHECKING

from leyden.hooks.contract import ResultPolicy, hookspec
from leyden.hooks.types import AcceptTerms

if TYPE_CHECKING:
    from leyden.hooks.registry import PluginServices
    from leyden.hooks.types import IncomingPayment, LoggedEvent, OpenRequest, PeerInfo, Refusal, SpendRequest


@hookspec(policy=ResultPolicy.ANY_VETO, deadline=5.0, accepts=(bool,))
def leyden_accept_peer(peer: "PeerInfo") -> "bool | Refusal | None":
    """May this peer stay connected?

    Called when:
        A peer, dialled or dialling, finished the handshake and sent its ``init``; before any channel message is read.

    Arguments:
        peer: node id, address, direction and feature bits.

    Answer:
        ``True`` to keep the connection, ``Refusal(reason)`` or ``False`` to close it. The reason goes to the log only.

    Deadline:
        5 seconds.

    Result policy:
        Any veto: the peer stays only if every plugin accepts. Without a plugin the config's policy answers.

    Order:
        All at once. The reason reported is that of the first refusing plugin in order of registration.

    On None:
        A refusal.

    On exception:
        A refusal, and a fault counted against the plugin.

    On timeout:
        A refusal, and a fault counted against the plugin.

    On wrong type:
        A refusal, and a fault counted against the plugin.

    Repeated after restart:
        Yes: every connection asks anew.

    Since:
        0.1
    """


@hookspec(policy=ResultPolicy.ANY_VETO, deadline=30.0, accepts=(bool, AcceptTerms))
def leyden_accept_channel(request: "OpenRequest") -> "bool | AcceptTerms | Refusal | None":
    """Do we want the channel that this peer offers to open?

    Called when:
        ``open_channel`` arrived and passed every check of the specification and of the config's bounds.

    Arguments:
        request: the peer and its terms; amounts in the units their names say, delays in blocks.

    Answer:
        ``AcceptTerms(...)`` or ``True`` (the config's terms) to accept, ``Refusal(reason)`` or ``False`` to refuse. The
        reason is sent to the peer, cleaned and cut at 512 characters.

    Deadline:
        30 seconds.

    Result policy:
        Any veto: opened only if every plugin accepts. Terms of several plugins are merged to the most careful ones
        (largest depth, smallest value in flight, longest delay). Without a plugin the config's policy answers.

    Order:
        All at once. The reason reported is that of the first refusing plugin in order of registration.

    On None:
        A refusal of this one channel.

    On exception:
        A refusal of this one channel, and a fault counted against the plugin.

    On timeout:
        A refusal of this one channel, and a fault counted against the plugin.

    On wrong type:
        A refusal of this one channel, and a fault counted against the plugin.

    Repeated after restart:
        No: an opening that was not yet funded is forgotten by a restart, and its peer begins anew.

    Since:
        0.1
    """


@hookspec(policy=ResultPolicy.ANY_VETO, deadline=30.0, accepts=(bool,))
def leyden_accept_payment(payment: "IncomingPayment") -> "bool | Refusal | None":
    """Do we take this payment?

    Called when:
        A complete HTLC set for one of our invoices is irrevocably committed, before its preimage is used.

    Arguments:
        payment: hash, amount received and amount asked in millisatoshi, and the invoice's label.

    Answer:
        ``True`` to claim it, ``Refusal(reason)`` or ``False`` to fail it back. The sender learns only that it failed.

    Deadline:
        30 seconds; less when an HTLC of the set comes near its expiry.

    Result policy:
        Any veto: claimed only if every plugin accepts. Without a plugin every payment that fits its invoice is claimed.

    Order:
        All at once. The reason reported is that of the first refusing plugin in order of registration.

    On None:
        A refusal: the HTLC set is failed back.

    On exception:
        A refusal: the HTLC set is failed back; a fault counted against the plugin.

    On timeout:
        A refusal: the HTLC set is failed back; a fault counted against the plugin.

    On wrong type:
        A refusal: the HTLC set is failed back; a fault counted against the plugin.

    Repeated after restart:
        Yes, until the answer is durable: a plugin may be asked twice about one payment hash and should answer alike.

    Since:
        0.1
    """


@hookspec(policy=ResultPolicy.ANY_VETO, deadline=60.0, accepts=(bool,))
def leyden_approve_spend(request: "SpendRequest") -> "bool | Refusal | None":
    """May the node spend this?

    Called when:
        A caller of the API asks for an outgoing payment, an on-chain send or a channel, before anything is signed or
        offered. Never for claims, justice, fee bumps or the return of a peer's funds: safety asks nobody.

    Arguments:
        request: kind, amount and largest fee in millisatoshi, destination and who asked. What is spent is never more
            than amount and largest fee together, until a fee bump is asked for.

    Answer:
        ``True`` to go ahead, ``Refusal(reason)`` or ``False`` to refuse. The reason is given to the caller.

    Deadline:
        60 seconds.

    Result policy:
        Any veto: spent only if every plugin accepts. Without a plugin the caller's word is enough.

    Order:
        All at once. The reason reported is that of the first refusing plugin in order of registration.

    On None:
        A refusal.

    On exception:
        A refusal, and a fault counted against the plugin.

    On timeout:
        A refusal, and a fault counted against the plugin.

    On wrong type:
        A refusal, and a fault counted against the plugin.

    Repeated after restart:
        No: a spend that was not approved before the restart was never begun.

    Since:
        0.1
    """


@hookspec(policy=ResultPolicy.EACH_ALONE, deadline=30.0)
def leyden_event(logged: "LoggedEvent") -> None:
    """Something happened; here is its entry of the event log.

    Called when:
        After the commit that made the event durable; each plugin has a cursor of its own in the log.

    Arguments:
        logged: the event with its index (from 1, without gaps) and the unix time of the turn that wrote it.

    Answer:
        Nothing. Returning means that this plugin is done with the event and its cursor may move on.

    Deadline:
        30 seconds.

    Result policy:
        Each alone: a plugin that fails holds up nobody else.

    Order:
        By index, one at a time per plugin; between plugins none.

    On None:
        The cursor moves on.

    On exception:
        The cursor stays; the event is given again to this plugin alone, later; a fault is counted.

    On timeout:
        As for an exception.

    On wrong type:
        The cursor moves on; a fault is counted.

    Repeated after restart:
        Yes, from the cursor: at least once, so the last event before a crash may come twice. Compare ``index``.

    Since:
        0.1
    """


@hookspec(policy=ResultPolicy.EACH_ALONE, deadline=None, is_async=False)
def leyden_register_services(registry: "PluginServices") -> None:
    """Tell which services this plugin can provide.

    Called when:
        Once, directly after the plugin was imported and before any service is made. Synchronous.

    Arguments:
        registry: ``registry.add("store", "sqlite", factory, Settings)`` for each service.

    Answer:
        Nothing; what counts is what was added. Add factories, do not open anything yet.

    Deadline:
        None: a synchronous function cannot be interrupted; it returns at once.

    Result policy:
        Each alone: one plugin's failure takes away only its own services.

    Order:
        As the config names the plugins.

    On None:
        What was added counts.

    On exception:
        What it added is dropped and the plugin is quarantined; a config that needs it then refuses to start, naming it.

    On timeout:
        Does not occur.

    On wrong type:
        As for an exception.

    Repeated after restart:
        Yes: nothing of it is stored.

    Since:
        0.1
    """


@hookspec(policy=ResultPolicy.EACH_ALONE, deadline=30.0)
def leyden_start(node: object) -> None:
    """The node is about to connect to peers.

    Called when:
        Once per run: the store is open, state is loaded and the chain has reached its tip; no peer was heard yet.

    Arguments:
        node: the running ``Node``; calls on its public API are allowed from here on.

    Answer:
        Nothing.

    Deadline:
        30 seconds.

    Result policy:
        Each alone, but one failure refuses the start.

    Order:
        One after the other, as the config names the plugins.

    On None:
        The start goes on.

    On exception:
        The start is refused in one line that names the plugin.

    On timeout:
        As for an exception.

    On wrong type:
        As for an exception.

    Repeated after restart:
        Yes: every run starts.

    Since:
        0.1
    """


@hookspec(policy=ResultPolicy.EACH_ALONE, deadline=10.0)
def leyden_stop() -> None:
    """The node is stopping.

    Called when:
        Once per orderly stop, after the peers were disconnected and before the store closes. Not after a crash.

    Arguments:
        None.

    Answer:
        Nothing.

    Deadline:
        10 seconds.

    Result policy:
        Each alone.

    Order:
        One after the other, in the reverse of the order of the starts.

    On None:
        The stop goes on.

    On exception:
        Logged; the stop goes on.

    On timeout:
        Logged; the stop goes on.

    On wrong type:
        Logged; the stop goes on.

    Repeated after restart:
        Yes: every orderly stop.

    Since:
        0.1
    """
