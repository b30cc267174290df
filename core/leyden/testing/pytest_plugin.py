"""pytest plugin of the project and of plugin authors.

It switches off the rules named in ``LEYDEN_RULE_OFF`` (comma separated; the checklist report uses this), and it asks
libbitcoinkernel for a verdict on every transaction that was finalised during a test: a refused one fails the test at
teardown unless it is marked ``no_kernel_verdict``. With ``--require-kernel-verdicts`` a session without any verdict
fails.
"""

import os
from collections.abc import Generator
from typing import Any

import pytest

import leyden.types.rules  # noqa: F401  (declares every rule)
from leyden.bitcoin import finalize_hooks
from leyden.testing.kernel import KernelMissing, VerdictCollector
from leyden.types import all_rules

_COLLECTOR = pytest.StashKey[VerdictCollector]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-kernel-verdicts",
        action="store_true",
        help="fail the session if no finalised transaction got a verdict of libbitcoinkernel",
    )


def pytest_configure(config: pytest.Config) -> None:
    names = [name for name in os.environ.get("LEYDEN_RULE_OFF", "").split(",") if name]
    rules = all_rules()
    for name in names:
        if name not in rules:
            raise pytest.UsageError(f"LEYDEN_RULE_OFF names {name}, which is no rule")
        rules[name].enabled = False
    config.addinivalue_line("markers", "no_kernel_verdict(reason): a transaction finalised here is expected invalid")
    collector = config.stash[_COLLECTOR] = VerdictCollector()
    finalize_hooks.append(collector.collect)


def pytest_unconfigure(config: pytest.Config) -> None:
    collector = config.stash.get(_COLLECTOR, None)
    if collector is not None and collector.collect in finalize_hooks:
        finalize_hooks.remove(collector.collect)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    result = yield
    collector = item.config.stash[_COLLECTOR]
    if item.get_closest_marker("no_kernel_verdict") is not None:
        collector.discard()
        return result
    try:
        refused = collector.judge()
    except KernelMissing as error:
        pytest.fail(str(error), pytrace=False)
    if refused:
        pytest.fail("\n".join(map(str, refused)), pytrace=False)
    return result


def _workers_share(config: pytest.Config) -> dict[str, Any] | None:
    """The dict that an xdist worker hands to its controller; ``None`` when there is no xdist."""
    share: dict[str, Any] | None = getattr(config, "workeroutput", None)
    return share


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """xdist: add the counts of a worker to those of the controller."""
    judged, refused = getattr(node, "workeroutput", {}).get("kernel_verdicts", (0, 0))
    collector = node.config.stash[_COLLECTOR]
    collector.judged += judged
    collector.refused += refused


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    collector = session.config.stash[_COLLECTOR]
    share = _workers_share(session.config)
    if share is not None:
        share["kernel_verdicts"] = (collector.judged, collector.refused)
    elif session.config.getoption("--require-kernel-verdicts") and not collector.judged and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    collector = config.stash[_COLLECTOR]
    if collector.judged or config.getoption("--require-kernel-verdicts"):
        terminalreporter.write_line(f"kernel verdicts: {collector.judged} transactions, {collector.refused} refused")
