"""``plugin new``: the beginning of a plugin of one's own."""

from pathlib import Path

import click

from leyden_cli.scaffold import PLUGIN_KINDS, make_project


@click.group()
def plugin() -> None:
    """Write plugins. (`leyden plugins` lists those that are installed.)"""


@plugin.command()
@click.argument("kind", type=click.Choice(list(PLUGIN_KINDS)))
@click.argument("name")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    show_default="leyden-NAME",
    help="The new project's folder; it must not exist, or be empty.",
)
def new(kind: str, name: str, folder: Path | None) -> None:
    """Make a project for a plugin called NAME.

    It installs with pip, a node finds it, it works as it is on a regtest chain, and its tests run Leyden's conformance
    kit. Nothing is ever overwritten.
    """
    folder = Path(f"leyden-{name}") if folder is None else folder
    for path in make_project(kind, name, folder):
        click.echo(folder / path)
    click.echo(f"next: cd {folder} && pip install -e '.[test]' && python -m pytest")
