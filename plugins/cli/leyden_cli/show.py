"""Output: JSON for programs, tables for people; colours and boxes only on a terminal."""

import sys
from collections.abc import Mapping, Sequence

import click
import msgspec
from leyden.types import clean_text

_LONGEST_CELL = 4096
Cell = str | int | bool | None


def print_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def cell(value: Cell) -> str:
    """A value for people; text loses whatever could disturb a terminal."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
    return clean_text(value, _LONGEST_CELL) or "-"


def print_facts(facts: Mapping[str, Cell]) -> None:
    """One fact per line."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        click.echo(f"{name.replace('_', ' '):<{width}}  {cell(value)}")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], empty: str = "none") -> None:
    """A table on a terminal; elsewhere one line per row, columns aligned by spaces."""
    if not rows:
        click.echo(empty)
    elif sys.stdout.isatty():
        from rich.console import Console  # as slow to import as all that a command needs besides
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, header_style="bold")
        numbers = [all(isinstance(row[index], int) for row in rows) for index in range(len(columns))]
        for title, number in zip(columns, numbers, strict=True):
            table.add_column(Text(title), justify="right" if number else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell(value)) for value in row))
        Console().print(table)
    else:
        lines = [list(columns), *([cell(value) for value in row] for row in rows)]
        widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
        for line in lines:
            click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
