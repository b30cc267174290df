"""Identifiers that people read and type."""

import pytest
from leyden.types import RuleViolation, ShortChannelId, format_short_channel_id, parse_short_channel_id


@pytest.mark.proves("C-208")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "1x2",
        "1x2x3x4",
        "ax2x3",
        "-1x2x3",
        " 1x2x3",
        "1x2x3\n",
        "¹x2x3",
        "16777216x0x0",
        "0x16777216x0",
        "0x0x65536",
    ],
)
def test_what_is_no_short_channel_id(text: str) -> None:
    with pytest.raises(RuleViolation, match="short channel id") as caught:
        parse_short_channel_id(text)
    assert caught.value.rule.id == "C-208"


@pytest.mark.parametrize(
    ("text", "number"), [("539268x845x1", 0x83A8400034D0001), ("0x0x0", 0), ("16777215x16777215x65535", 2**64 - 1)]
)
def test_both_forms(text: str, number: int) -> None:
    assert parse_short_channel_id(text) == number
    assert format_short_channel_id(ShortChannelId(number)) == text
