"""A small fuzzer of our own, where atheris cannot be installed: mutations of the corpus, by a seed."""

import random
import time
from collections.abc import Iterator, Sequence

from tests.fuzz.target import Target

_INTERESTING = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\xfd\x00\xfd", b"\xfe\xff\xff\xff\xff", b"\xff" * 9, b"\x00" * 32)
_MAX_SIZE = 70_000


def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(6):
            case 0 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case 1:
                out[at:at] = rng.choice(_INTERESTING)
            case 2:
                del out[at : at + rng.randint(1, 8)]
            case 3:
                out[at : at + 8] = rng.randbytes(rng.randint(0, 8))
            case 4:
                out = out[:at] + bytearray(other[rng.randrange(len(other) + 1) :])
            case _:
                out = out[:at]
    return bytes(out[:_MAX_SIZE])


def mutations(corpus: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Without end, and the same ones for the same seed."""
    rng = random.Random(seed)
    seeds = list(corpus) or [b""]
    while True:
        yield mutate(rng, rng.choice(seeds), rng.choice(seeds))


def fuzz(target: Target, corpus: Sequence[bytes], seconds: float, seed: int) -> tuple[int, bytes | None, str]:
    """Inputs tried, and the input and error of the first finding, if any."""
    deadline = time.monotonic() + seconds
    source = mutations(corpus, seed)
    runs = 0
    while time.monotonic() < deadline:
        for _ in range(50):
            data = next(source)
            runs += 1
            try:
                target.run(data)
            except Exception as error:
                return runs, data, f"{type(error).__name__}: {error}"
    return runs, None, ""
