"""Crash test: two nodes, one story, and a process that dies at every point of it.

``python -m leyden.testing.crash --seed 1`` first tells the story once without a crash and counts the points at which a
process can die: before and after every commit, every write to a socket and every reply of the signer. Then the story is
told again for each point: the node dies there, starts from its last synced image, and the story must come to its end
all the same: no satoshi lost, no payment in two minds, no channel closed unasked, no unsafe order to a signer.
Random instants follow (two deaths, both nodes at once, blocks lost, commits that fail), then every commit that fails,
and the same with signers that keep state, take their time and are sometimes away, and over a channel without anchors.
"""

import argparse
import concurrent.futures
import random
import sys
import tempfile
import time
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from leyden.testing.story import Lost, Plan, Story, parse_plan

Points = dict[str, list[str]]


def tell(seed: int, plan: Plan) -> tuple[str, Points]:
    """One story; empty text if it came to its end, else what went wrong."""
    with tempfile.TemporaryDirectory(prefix="leyden-crash-") as folder:
        story = Story(seed, Path(folder) / "chain", plan)
        try:
            points = story.tell()
        except Lost as error:
            return f"{plan} [{'; '.join(story.happened)}]: {error}", {}
        except Exception as error:
            return f"{plan} [{'; '.join(story.happened)}]: {type(error).__name__}: {error}", {}
        return "", points


def make_plans(points: Points, seed: int, instants: int, every: int) -> list[Plan]:
    """A crash at each point (each ``every``-th, starting with the seed), failing commits, then random instants."""
    plans = [
        Plan(deaths=((node, index),))
        for node, passed in points.items()
        for index in range(1 + seed % every, len(passed) + 1, every)
    ]
    for node, passed in points.items():
        commits = sum(point == "commit:before" for point in passed)
        for index in range(2 + seed % every, commits + 1, every):
            plans += [Plan(failures=((node, index, count),)) for count in ((1, 5, 0) if every == 1 else (index % 2,))]
    rng = random.Random(seed)
    plans += [_random_plan(rng, points) for _ in range(instants)]
    return plans


def _random_plan(rng: random.Random, points: Points) -> Plan:
    """Two things go wrong, anywhere."""
    names = list(points)

    def anywhere() -> tuple[str, int]:
        name = rng.choice(names)
        return name, rng.randint(1, len(points[name]))

    match rng.randrange(4):
        case 0:
            return Plan(deaths=(anywhere(), anywhere()))
        case 1:
            return Plan(deaths=tuple((name, rng.randint(1, len(points[name]))) for name in names))
        case 2:
            return Plan(together=(anywhere(),), reorgs=((*anywhere(), rng.randint(1, 3)),))
        case _:
            node, index = anywhere()
            return Plan(deaths=(anywhere(),), failures=((node, 2 + index // 6, rng.choice((0, 1, 2))),))


def make_device_plans(points: Points, seed: int, every: int) -> list[Plan]:
    """Deaths and lost blocks with slow signers; the points shift a little, for their answers take time."""
    rng = random.Random(seed + 1)
    plans = [Plan(device=True)]
    for node, passed in points.items():
        for index in range(1 + seed % every, len(passed) + 1, every):
            reorgs = ((node, index + 3, 1),) if rng.random() < 0.2 else ()
            plans.append(Plan(deaths=((node, index),), reorgs=reorgs, device=True))
    return plans


def make_static_plans(points: Points, seed: int, every: int) -> list[Plan]:
    """Deaths in the story of a channel without anchors."""
    return [Plan(static=True)] + [
        Plan(deaths=((node, index),), static=True)
        for node, passed in points.items()
        for index in range(1 + (seed + every // 2) % every, len(passed) + 1, every)
    ]


def _drop(_logger: object, _method: str, _event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    raise structlog.DropEvent


def _init_worker() -> None:
    """What nodes log while they are killed is of no interest."""
    structlog.configure(processors=[_drop])


def _tell(task: tuple[int, Plan]) -> str:
    return tell(*task)[0]


def run(seed: int, plans: Sequence[Plan], jobs: int) -> int:
    """Tell them all; prints failures as they come and returns how many there were."""
    failed = 0
    with concurrent.futures.ProcessPoolExecutor(jobs, initializer=_init_worker) as pool:
        for number, wrong in enumerate(pool.map(_tell, [(seed, plan) for plan in plans], chunksize=4), start=1):
            if wrong:
                failed += 1
                print(f"FAILED {wrong}", flush=True)
            if number % 100 == 0:
                print(f"{number} of {len(plans)} stories, {failed} failed", flush=True)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m leyden.testing.crash", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--instants", type=int, default=100, help="stories in which two things go wrong anywhere")
    parser.add_argument("--every", type=int, default=1, help="only each n-th point")
    parser.add_argument("--quick", action="store_true", help="each 17th point and 16 instants")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", help="one plan, e.g. alice@17 or alice@17+,bob@30~2,device; see leyden.testing.story")
    options = parser.parse_args(arguments)
    _init_worker()
    if options.only:
        wrong, _ = tell(options.seed, parse_plan(options.only))
        print(wrong or "the story came to its end")
        return 1 if wrong else 0
    started = time.monotonic()
    wrong, points = tell(options.seed, Plan())
    if wrong:
        print(f"the story fails without a crash: {wrong}")
        return 1
    kinds: dict[str, int] = {}
    for passed in points.values():
        for point in passed:
            kinds[point] = kinds.get(point, 0) + 1
    print(f"seed {options.seed}: points " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    every, instants = (17, 16) if options.quick else (options.every, options.instants)
    plans = make_plans(points, options.seed, instants, every)
    plans += make_device_plans(points, options.seed, every * 4)
    plans += make_static_plans(points, options.seed, every * 4)
    failed = run(options.seed, plans, options.jobs)
    seconds = time.monotonic() - started
    print(f"crash test: {len(plans)} stories in {seconds:.0f} s, {len(plans) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
