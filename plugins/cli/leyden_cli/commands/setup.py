"""``init``, ``start``, ``plugins``: what needs no running node."""

from pathlib import Path

import click
import msgspec
from leyden.hooks.discovery import installed_plugins

from leyden_cli.commands.base import folder_option
from leyden_cli.config import LOG_LEVELS, load_config
from leyden_cli.folder import config_path
from leyden_cli.initialize import initialize_node
from leyden_cli.logs import set_up_logging
from leyden_cli.run import Ready, run_node
from leyden_cli.services import enabled_plugins, load_registry
from leyden_cli.show import print_json, print_table
from leyden_cli.template import parse_assignment


@click.command()
@folder_option
@click.option("--network", default="regtest", show_default=True, help="regtest, signet or testnet4.")
@click.option("--chain-source", metavar="NAME", help="The plugin service that follows the chain.")
@click.option("--keys", default="inmemory", show_default=True, metavar="NAME", help="Who holds the keys.")
@click.option("--listen", default="127.0.0.1:9735", show_default=True, metavar="HOST:PORT", help="Where peers connect.")
@click.option("--plugin", "plugins", multiple=True, metavar="NAME", help="Enable one more plugin (repeatable).")
@click.option("--set", "assignments", multiple=True, metavar="TABLE.KEY=VALUE", help="A plugin's setting (repeatable).")
@click.option("--restore", is_flag=True, help="Ask for the words of existing keys instead of making new ones.")
def init(
    folder: Path,
    network: str,
    chain_source: str | None,
    keys: str,
    listen: str,
    plugins: tuple[str, ...],
    assignments: tuple[str, ...],
    restore: bool,
) -> None:
    """Make a new node: a commented config, a private folder, new keys.

    The words that restore the keys are shown once, on standard output. Nothing is ever overwritten.
    """
    tables: dict[str, dict[str, object]] = {}
    for text in assignments:
        table, key, value = parse_assignment(text)
        tables.setdefault(table, {})[key] = value
    words = click.prompt("The words", hide_input=True) if restore else None
    path, lines = initialize_node(
        folder,
        network=network,
        listen=listen,
        chain_source=chain_source,
        keys=keys,
        plugins=plugins,
        tables=tables,
        restore=words,
    )
    for line in lines:
        click.echo(line)
    click.echo(f"wrote {path}")
    if chain_source is None:
        click.echo("choose a chain_source there before the first start")


@click.command()
@folder_option
@click.option("--log-level", type=click.Choice(LOG_LEVELS), help="Overrides the config.")
@click.option("--json", "as_json", is_flag=True, help="Print the readiness line as JSON.")
def start(folder: Path, log_level: str | None, as_json: bool) -> None:
    """Run the node until SIGTERM or Ctrl-C.

    Prints one line when it is ready. The log goes to standard error, one JSON object per line.
    """
    config = load_config(config_path(folder))
    log = config.log if log_level is None else msgspec.structs.replace(config.log, level=log_level)
    set_up_logging(log, config.data_dir)

    def ready(facts: Ready) -> None:
        if as_json:
            click.echo(msgspec.json.encode(facts).decode())
        else:
            where = facts.address or f"{facts.node_id} (listens nowhere)"
            click.echo(f"ready: {where} socket {facts.socket}")

    run_node(config, ready)


class InstalledView(msgspec.Struct, frozen=True, kw_only=True):
    """``provides`` is known for enabled plugins only: the others are not imported."""

    plugin: str
    distribution: str
    version: str
    enabled: bool
    provides: tuple[str, ...]
    problem: str


@click.command()
@folder_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins(folder: Path, as_json: bool) -> None:
    """What is installed, what the config enables, and what that provides.

    Needs no running node. Of a plugin that is not enabled, only the package's metadata is read.
    """
    views = _installed(folder)
    if as_json:
        print_json(views)
        return
    rows = [
        (view.plugin, f"{view.distribution} {view.version}", view.enabled, view.problem or ", ".join(view.provides))
        for view in views
    ]
    print_table(("plugin", "distribution", "enabled", "provides"), rows, "no plugin is installed")


def _installed(folder: Path) -> list[InstalledView]:
    installed = installed_plugins()
    enabled: tuple[str, ...] = ()
    provided: dict[str, list[str]] = {}
    failures: dict[str, str] = {}
    if config_path(folder).exists():
        config = load_config(config_path(folder))
        enabled = enabled_plugins(config, installed)
        registry = load_registry(config)
        failures = registry.failures
        for kind, name, plugin in registry.provided():
            provided.setdefault(plugin, []).append(kind if name == plugin else f"{kind} {name!r}")
    return [
        InstalledView(
            plugin=plugin.name,
            distribution=plugin.distribution,
            version=plugin.version,
            enabled=plugin.name in enabled,
            provides=tuple(provided.get(plugin.name, ())),
            problem=failures.get(plugin.name, ""),
        )
        for plugin in installed
    ]
