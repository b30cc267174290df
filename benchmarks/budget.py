"""``python -m benchmarks.budget``: where a payment's time goes and how it grows; rewrites the figures of the docs.

Everything in ``docs/performance.md`` between its marks, and the pictures beside it, comes from one run of this program.
Ours and Electrum's runs take turns. ``--short`` measures less, for trying the program out.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from leyden.commitment import verify_commitment_signatures

from benchmarks import picture
from benchmarks.bench_commitment import HTLC_SECRET, as_peers_take_it
from benchmarks.bench_pay_pair import open_pair
from benchmarks.commitment_channel import KNOWN_TO_OTHER, KNOWN_TO_OWNER, PARAMS, POINT, TXID, build, make_htlcs, sign
from benchmarks.electrum_pair import ElectrumPair, fetched
from benchmarks.harness import timed
from benchmarks.peer import Peer
from benchmarks.sampling import OTHER, PARTS

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN, END = "<!-- figures of python -m benchmarks.budget -->", "<!-- end of figures -->"
LOADS = ((1, 1, 300), (10, 10, 1500))
IN_FLIGHT = (1, 2, 5, 10, 20, 50, 100)
ELECTRUM_IN_FLIGHT = (1, 2, 5, 10, 20)
HTLCS = (0, 1, 3, 10, 30, 100, 300, 483)
FEERATE = 253
Table = list[tuple[str, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.budget", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a tenth of the work; the docs stay as they are")
    short: bool = parser.parse_args().short
    pictures = Path(tempfile.mkdtemp(prefix="leyden-pictures-")) if short else DOCS / "performance"
    pictures.mkdir(exist_ok=True)
    sections = [_budget(short), _in_flight(short, pictures), _history(short, pictures), _htlcs(short, pictures)]
    text = "\n\n".join(sections)
    print(text)
    if short:
        print(f"pictures: {pictures}")
        return
    page = DOCS / "performance.md"
    head, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


# -- where it goes -----------------------------------------------------------------------------------------------------


def _budget(short: bool) -> str:
    columns: list[tuple[str, dict[str, float]]] = []
    for channels, in_flight, count in LOADS:
        with open_pair(channels, 0) as pair:
            pair.run(max(20, in_flight), in_flight)
            rounds = [pair.run(count // (10 if short else 1), channels * in_flight, sample=True) for _ in range(3)]
        for node in ("payer", "payee"):
            shares = [_shares(figures["samples"][node], figures["cpu"][node]) for figures in rounds]
            middle = {part: statistics.median(share[part] for share in shares) for part in shares[0]}
            columns.append((f"{channels} x {in_flight}, {node}", middle))
    table: Table = [("us of CPU per payment", *(label for label, _ in columns))]
    for part in (*(name for name, _ in PARTS), OTHER):
        table.append((part, *(f"{middle[part]:,.0f}" for _, middle in columns)))
    table.append(("**sum**", *(f"**{sum(middle.values()):,.0f}**" for _, middle in columns)))
    return f"### Where the CPU time of a payment goes\n\n{_markdown(table)}"


def _shares(samples: dict[str, int], cpu_us: float) -> dict[str, float]:
    ticks = sum(samples.values()) or 1
    return {part: cpu_us * samples.get(part, 0) / ticks for part in (*(name for name, _ in PARTS), OTHER)}


# -- growth ------------------------------------------------------------------------------------------------------------


def _in_flight(short: bool, pictures: Path) -> str:
    """One and ten channels, and Electrum with one, in turns."""
    rates: dict[str, dict[int, list[float]]] = {"1 channel": {}, "10 channels": {}, "Electrum": {}}
    details: dict[tuple[str, int], list[dict[str, Any]]] = {}
    count = 60 if short else 300
    with ExitStack() as stack:
        one, ten = stack.enter_context(open_pair(1, 0)), stack.enter_context(open_pair(10, 0))
        electrum = stack.enter_context(_electrum_pair())
        for _ in range(1 if short else 3):
            for many in IN_FLIGHT:
                for name, pair, total in (("1 channel", one, many), ("10 channels", ten, many * 10)):
                    figures = pair.run(max(count, 5 * total), total)
                    details.setdefault((name, total), []).append(figures)
                    rates[name].setdefault(total, []).append(figures["rate"])
                if electrum is not None and many in ELECTRUM_IN_FLIGHT:
                    figures = electrum.run(5 if short else max(10, 2 * many), many)
                    details.setdefault(("Electrum", many), []).append(figures)
                    rates["Electrum"].setdefault(many, []).append(figures["rate"])
    lines = {
        name: [(total, statistics.median(found)) for total, found in sorted(by_total.items())]
        for name, by_total in rates.items()
        if by_total
    }
    picture.draw(
        pictures / "in_flight.svg",
        "Payments per second by payments in flight",
        "payments in flight, over all channels",
        "payments/s",
        lines,
        log_y=True,
    )
    table: Table = [("load", "payments/s", "us of CPU, both nodes", "p50 ms", "commits per payment and node")]
    for (name, total), found in sorted(details.items()):
        middle = {key: statistics.median(f[key] for f in found) for key in ("rate", "cpu_us", "p50_ms")}
        commits = f"{statistics.median(f['commits'] for f in found):.2f}" if "commits" in found[0] else ""
        cells = (f"{middle['rate']:,.1f}", f"{middle['cpu_us']:,.0f}", f"{middle['p50_ms']:.1f}", commits)
        table.append((f"{name}, {total} in flight", *cells))
    return f"### More in flight\n\n![payments per second](performance/in_flight.svg)\n\n{_markdown(table)}"


@contextmanager
def _electrum_pair() -> Iterator[ElectrumPair | None]:
    if not fetched():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="leyden-bench-") as name:
        pair = ElectrumPair(Path(name))
        try:
            pair.run(2, 1)
            yield pair
        finally:
            pair.close()


def _history(short: bool, pictures: Path) -> str:
    """CPU per payment and memory while one channel settles more and more payments."""
    chunk, chunks = (100, 4) if short else (450, 20)  # as much as one channel can carry
    cpu: list[tuple[float, float]] = []
    memory: list[tuple[float, float]] = []
    with open_pair(1, 0) as pair:
        pair.run(100, 10)
        for number in range(1, chunks + 1):
            figures = pair.run(chunk, 10)
            cpu.append((number * chunk, figures["cpu_us"]))
            memory.append((number * chunk, figures["rss_mib"]))
    picture.draw(
        pictures / "history.svg",
        "CPU per payment after so many payments over one channel",
        "payments settled before, 10 in flight",
        "us, both nodes",
        {"CPU": cpu},
        log_y=False,
    )
    half = len(cpu) // 2
    early, late = (statistics.median(value for _, value in part) for part in (cpu[:half], cpu[half:]))
    return (
        "### A long history\n\n![CPU per payment](performance/history.svg)\n\n"
        f"Over {chunk * chunks:,} payments on one channel, 10 in flight: {early:,.0f} us of CPU per payment in the "
        f"first half, {late:,.0f} us in the second. Memory of the larger node: {memory[0][1]:.1f} MiB after the first "
        f"{chunk:,}, {memory[-1][1]:.1f} MiB after all."
    )


def _htlcs(short: bool, pictures: Path) -> str:
    """Signing and verifying one commitment, ours and Electrum's in turns."""
    lines: dict[str, list[tuple[float, float]]] = {
        "sign": [],
        "verify": [],
        "Electrum, sign": [],
        "Electrum, verify": [],
    }
    peer = Peer.find_electrum("electrum_channel.py")
    try:
        for count in HTLCS[:5] if short else HTLCS:
            for name, value in _commitment(peer, count).items():
                lines[name].append((count, value))
    finally:
        if peer is not None:
            peer.close()
    drawn = {name: points for name, points in lines.items() if points}
    picture.draw(
        pictures / "htlcs.svg",
        "One commitment, by its HTLCs",
        "HTLCs in the commitment",
        "ms of CPU",
        drawn,
        log_y=True,
    )
    table: Table = [("HTLCs", *(f"{name}, ms" for name in drawn))]
    for index, (htlcs, _) in enumerate(lines["sign"]):
        table.append((f"{htlcs:g}", *(f"{points[index][1]:.3g}" for points in drawn.values())))
    return f"### HTLCs in a commitment\n\n![signing and verifying](performance/htlcs.svg)\n\n{_markdown(table)}"


def _commitment(peer: Peer | None, count: int) -> dict[str, float]:
    htlcs = make_htlcs(count)
    signed = sign(build(htlcs, KNOWN_TO_OTHER, FEERATE), HTLC_SECRET)
    if peer is not None:
        peer.ask("load", point=POINT.hex(), **as_peers_take_it(htlcs, TXID[::-1].hex(), FEERATE))
    found: dict[str, list[float]] = {}
    repeat = max(1, 40 // (1 + count))
    for _ in range(5):
        ours = timed(lambda: sign(build(htlcs, KNOWN_TO_OTHER, FEERATE), HTLC_SECRET), repeat=repeat)
        found.setdefault("sign", []).append(ours.cpu)
        ours = timed(
            lambda: verify_commitment_signatures(PARAMS, build(htlcs, KNOWN_TO_OWNER, FEERATE), *signed), repeat=repeat
        )
        found.setdefault("verify", []).append(ours.cpu)
        if peer is not None:
            found.setdefault("Electrum, sign", []).append(float(peer.ask("time", repeat=1)[0]))
            found.setdefault("Electrum, verify", []).append(float(peer.ask("time_verify", repeat=1)[0]))
    return {name: statistics.median(values) * 1e3 for name, values in found.items()}


def _markdown(table: Table) -> str:
    head, *rows = table
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


if __name__ == "__main__":
    main()
