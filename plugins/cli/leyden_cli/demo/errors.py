"""What ends the demo early."""

from leyden_cli.errors import CliError


class DemoFailed(CliError):
    """Something did not come out as it must; the text says what."""


def expect(condition: bool, message: str) -> None:
    """``DemoFailed`` unless ``condition`` holds."""
    if not condition:
        raise DemoFailed(message)
