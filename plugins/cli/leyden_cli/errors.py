"""What the command line says when it gives up, and the exit codes."""

from leyden.types import LeydenError

EXIT_REFUSED = 1
"""The node refused or failed to do it; also: the node had to stop."""
EXIT_USAGE = 2
"""Wrong arguments or config, a missing plugin, mainnet."""
EXIT_NO_NODE = 3
"""No node answers on the socket."""
EXIT_TIMEOUT = 4
"""Time ran out; what was begun goes on."""
EXIT_PAYMENT_FAILED = 5
"""The payment reached its final state, and that is *failed*."""


class CliError(LeydenError):
    """One line for stderr and the exit code that goes with it."""

    exit_code = EXIT_REFUSED


class ConfigError(CliError):
    """The config cannot be used; the text names the file and what to change."""

    exit_code = EXIT_USAGE


class NoNode(CliError):
    """Nobody answers on the socket."""

    exit_code = EXIT_NO_NODE


class TimeRanOut(CliError):
    exit_code = EXIT_TIMEOUT


class PaymentDidNotSucceed(CliError):
    exit_code = EXIT_PAYMENT_FAILED
