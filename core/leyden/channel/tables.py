"""Which lifecycle handles what: one row for each message, event and command.

``HANDLE`` runs the handler, ``IGNORE`` changes nothing. ``REJECT`` costs the peer a warning and the connection; a local
command is refused with ``ChannelError``. The link has a small table of its own: while it is not up, messages other than
``channel_reestablish`` (and errors) are too late or too early.
"""

import enum

from leyden import wire
from leyden.channel import events as ev
from leyden.channel.state import ON_CHAIN, OPENING, TERMINAL, Lifecycle, Link


class Verdict(enum.Enum):
    HANDLE = "handle"
    IGNORE = "ignore"
    REJECT = "reject"


_L = Lifecycle
ALL = frozenset(Lifecycle)
_OPEN = frozenset({_L.AWAIT_CONFIRMATION, _L.NORMAL})
_OPEN_OR_CLOSING = _OPEN | {_L.CLOSING}
_FUNDED = ALL - OPENING - TERMINAL
_GONE = ON_CHAIN | TERMINAL
"""Late messages of the peer mean nothing any more."""
_NORMAL = frozenset({_L.NORMAL})

_Row = tuple[frozenset[Lifecycle], frozenset[Lifecycle]]
"""Where it is handled, where it is ignored; rejected elsewhere."""

_NONE: frozenset[Lifecycle] = frozenset()
_UPDATE: _Row = (_NORMAL, _GONE)

MESSAGES: dict[type, _Row] = {
    wire.OpenChannel: (_NONE, TERMINAL),
    wire.AcceptChannel: (frozenset({_L.AWAIT_ACCEPT}), TERMINAL),
    wire.FundingCreated: (frozenset({_L.AWAIT_FUNDING_CREATED}), TERMINAL),
    wire.FundingSigned: (frozenset({_L.AWAIT_FUNDING_SIGNED}), TERMINAL),
    wire.ChannelReady: (_OPEN | {_L.FUNDER_VALIDATING}, _GONE | {_L.CLOSING}),
    wire.Shutdown: (_OPEN_OR_CLOSING | OPENING, _GONE),
    wire.ClosingSigned: (_OPEN_OR_CLOSING, _GONE),
    wire.ClosingComplete: (_OPEN_OR_CLOSING, _GONE),
    wire.ClosingSig: (_OPEN_OR_CLOSING, _GONE),
    wire.UpdateAddHtlc: _UPDATE,
    wire.UpdateFulfillHtlc: _UPDATE,
    wire.UpdateFailHtlc: _UPDATE,
    wire.UpdateFailMalformedHtlc: _UPDATE,
    wire.UpdateFee: _UPDATE,
    wire.CommitmentSigned: _UPDATE,
    wire.RevokeAndAck: _UPDATE,
    wire.ChannelReestablish: (_OPEN_OR_CLOSING | _GONE | {_L.FUNDER_VALIDATING}, _NONE),
    wire.ErrorMessage: (OPENING | _OPEN, _GONE | {_L.CLOSING}),
    wire.WarningMessage: (_NONE, ALL),
    wire.AnnouncementSignatures: (_OPEN, ALL - _OPEN),
}

EVENTS: dict[type, _Row] = {
    ev.PeerConnected: (ALL, _NONE),
    ev.PeerDisconnected: (ALL - TERMINAL, TERMINAL),
    ev.TurnEnded: (_OPEN_OR_CLOSING, ALL - _OPEN_OR_CLOSING),
    ev.Restarted: (_FUNDED, ALL - _FUNDED),
    ev.SignerAnswered: (ALL - TERMINAL, TERMINAL),
    ev.SignerFailed: (ALL - TERMINAL, TERMINAL),
    ev.TimerFired: (ALL - TERMINAL, TERMINAL),
    ev.FeerateChanged: (_NORMAL, ALL - _NORMAL),
    ev.BlockConnected: (_FUNDED, ALL - _FUNDED),
    ev.FundingConfirmed: (_FUNDED, ALL - _FUNDED),
    ev.FundingUnconfirmed: (_FUNDED, ALL - _FUNDED),
    ev.FundingRuledOut: (_FUNDED, ALL - _FUNDED),
    ev.FundingSpent: (_FUNDED, ALL - _FUNDED),
    ev.FundingUnspent: (_FUNDED, ALL - _FUNDED),
}

COMMANDS: dict[type, frozenset[Lifecycle]] = {
    ev.ProvideFunding: frozenset({_L.AWAIT_FUNDING}),
    ev.AddHtlc: _NORMAL,
    ev.FulfillHtlc: _NORMAL,
    ev.FailHtlc: _NORMAL,
    ev.FailMalformedHtlc: _NORMAL,
    ev.UpdateFee: _NORMAL,
    ev.Shutdown: _OPEN_OR_CLOSING,
    ev.ForceClose: _OPEN_OR_CLOSING,
    ev.FailChannel: OPENING | _OPEN_OR_CLOSING,
}


def _verdicts(row: _Row) -> dict[Lifecycle, Verdict]:
    handled, ignored = row
    return {
        lifecycle: Verdict.HANDLE
        if lifecycle in handled
        else Verdict.IGNORE
        if lifecycle in ignored
        else Verdict.REJECT
        for lifecycle in Lifecycle
    }


# By name of the lifecycle: hashing an enum member runs Python code.
TABLE: dict[type, dict[str, Verdict]] = {
    kind: {lifecycle.name: verdict for lifecycle, verdict in _verdicts(row).items()}
    for kind, row in (
        *MESSAGES.items(),
        *EVENTS.items(),
        *((kind, (handled, _NONE)) for kind, handled in COMMANDS.items()),
    )
}

_ALWAYS = frozenset({wire.ErrorMessage, wire.WarningMessage})


def message_verdict(kind: type, lifecycle: Lifecycle, link: Link) -> Verdict:
    """What happens to a message of the peer. Types without a row are of no channel: ignored."""
    row = TABLE.get(kind)
    if row is None:
        return Verdict.IGNORE
    if link is Link.UP:
        if kind is wire.ChannelReestablish and lifecycle not in _GONE:
            return Verdict.IGNORE
        return row[lifecycle._name_]
    if kind in _ALWAYS or lifecycle in _GONE:
        return row[lifecycle._name_]
    if link is Link.DOWN:
        return Verdict.IGNORE
    return row[lifecycle._name_] if kind is wire.ChannelReestablish else Verdict.REJECT


def verdict(kind: type, lifecycle: Lifecycle) -> Verdict:
    """What happens to an event or a command."""
    return TABLE[kind][lifecycle._name_]
