"""Every scenario runs with every peer: a bed per peer, a fresh node per scenario, a line of the report per cell."""

import os
from collections.abc import AsyncIterator, Generator, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.interop import report
from tests.interop.bed import Bed
from tests.interop.not_supported import limit_of
from tests.interop.peer import NotSupported
from tests.interop.peers import PEERS, find
from tests.interop.story import Story
from tests.testbed import Unavailable
from tests.testbed.leyden import Leyden

HERE = Path(__file__).parent
LIMIT_SECONDS = 600
"""For a scenario with its set-up, whatever it says itself: a limit for what hangs, not for a machine that is busy."""
_beds: dict[str, Bed] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.interop)
            item.add_marker(pytest.mark.timeout(LIMIT_SECONDS), append=False)
    items.sort(key=lambda item: HERE in item.path.parents and item.get_closest_marker("last") is not None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """First the peer, so that all scenarios of one peer follow each other."""
    if "bed" in metafunc.fixturenames:
        names = report.chosen_peers([entry.name for entry in PEERS])
        metafunc.parametrize("bed", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    name: str = request.param
    entry = find(name)
    try:
        made = Bed(entry, tmp_path_factory.mktemp(name)).start()
    except (Unavailable, ImportError) as error:
        report.write({"peer": name, "unavailable": str(error)})
        if os.environ.get("CI") and entry.required():
            raise
        pytest.skip(f"{name} cannot be had: {error}")
    report.write({"peer": name, "version": made.version, "what": entry.what})
    _beds[name] = made
    yield made
    del _beds[name]
    report.write({"peer": name, "features": f"{made.features.bits:x}"})
    made.stop()


@pytest.fixture
async def leyden(bed: Bed, tmp_path: Path) -> AsyncIterator[Leyden]:
    made = Leyden(tmp_path / "leyden", bed.bitcoind)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def story(bed: Bed, leyden: Leyden) -> AsyncIterator[Story]:
    made = Story(bed, leyden)
    yield made
    await made.tidy_up()


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What we logged; shown when a scenario fails, and an error is a failure."""
    with structlog.testing.capture_logs() as entries:
        yield entries
    for entry in entries:
        print(entry)
    errors = [entry for entry in entries if entry["log_level"] in ("error", "critical")]
    assert not errors


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A cell that a peer cannot do counts as such only if it is on the list; one on the list must not pass."""
    made = yield
    peer = _peer_of(item)
    if peer is None:
        return made
    row = report.row_of(item.nodeid, peer)
    if call.when == "call":
        _judge(made, call, peer, row)
    report.add(made, peer, row)
    return made


def _judge(made: pytest.TestReport, call: pytest.CallInfo[None], peer: str, row: str) -> None:
    bed, limit = _beds.get(peer), limit_of(peer, row)
    error = None if call.excinfo is None else call.excinfo.value
    if limit is None:
        if isinstance(error, NotSupported):
            made.longrepr = f"not on the list of what {peer} does not support: {error}"
        return
    sends = limit.feature is not None and bed is not None and bed.features.offers(limit.feature)
    if error is None:
        made.outcome = "failed"
        made.longrepr = f"passes, though tests/interop/not_supported.py lists it: {limit.why}"
    elif sends:
        made.longrepr = f"{peer} offers {limit.feature}, so this has to work: {made.longreprtext}"
    elif limit.says in str(error):
        made.outcome = "skipped"
        made.longrepr = (str(HERE), 0, f"{report.NOT_SUPPORTED}{limit.why}")


def _peer_of(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("bed")
