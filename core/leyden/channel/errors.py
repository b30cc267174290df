"""What can be wrong with a command given to a channel."""

import enum

from leyden.types import LeydenError


class ErrorCode(enum.Enum):
    """Why a local command was refused. The state is unchanged in every case."""

    WRONG_STATE = "wrong_state"
    """The lifecycle does not allow this command."""
    NOT_CONNECTED = "not_connected"
    """The peer is away or has not reestablished yet."""
    CLOSING = "closing"
    """A shutdown was sent or received: no new HTLC, no fee change."""
    UNKNOWN_HTLC = "unknown_htlc"
    HTLC_NOT_COMMITTED = "htlc_not_committed"
    """Not irrevocably committed yet, or already being removed."""
    WRONG_PREIMAGE = "wrong_preimage"
    AMOUNT_TOO_SMALL = "amount_too_small"
    BAD_EXPIRY = "bad_expiry"
    BAD_ONION = "bad_onion"
    TOO_MANY_HTLCS = "too_many_htlcs"
    IN_FLIGHT_LIMIT = "in_flight_limit"
    INSUFFICIENT_BALANCE = "insufficient_balance"
    DUST_EXPOSURE = "dust_exposure"
    NOT_FUNDER = "not_funder"
    BAD_FEERATE = "bad_feerate"
    BAD_FUNDING = "bad_funding"
    BAD_SCRIPT = "bad_script"
    BAD_FAILURE = "bad_failure"
    BAD_PARAMETERS = "bad_parameters"


class ChannelError(LeydenError):
    """An illegal command. ``details`` carries what was offered and what is allowed."""

    def __init__(self, code: ErrorCode, message: str, **details: object) -> None:
        self.code = code
        self.message = message
        self.details = details
        values = ", ".join(f"{k}={v.hex() if isinstance(v, bytes) else v}" for k, v in details.items())
        super().__init__(message + (f" ({values})" if values else ""))
