# mypy: ignore-errors
"""The peer's end of ``benchmarks/peer.py``: answers requests line by line. Only the standard library, any Python 3."""

import json
import os
import sys
import time
import traceback


def timed(work, repeat):
    """[CPU seconds, wall seconds] per call of ``work``."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeat):
        work()
    return [(time.process_time() - cpu) / repeat, (time.perf_counter() - wall) / repeat]


def versions_of(*names):
    from importlib.metadata import version

    return {"python": sys.version.split()[0], **{name: version(name) for name in names}}


def serve(operations):
    """Until standard input ends: call ``operations[op](**arguments)`` and write its result."""
    answers = sys.stdout
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  what the peer itself prints must not reach our protocol
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": operations[request.pop("op")](**request)}
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            answer = {"error": f"{type(error).__name__}: {error} ({where.name}, line {where.lineno}: {where.line})"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
