"""``python -m tests.fuzz.make_corpus``: the seeds of every target, from the vectors, our strategies and a short story.

Writes ``corpus/NAME/seed-*`` anew, the same for the same code; other files there (what a search found once) stay.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, Phase, given, settings
from leyden.channel.rows import AREAS
from leyden.crypto import pubkey_create
from leyden.invoice.bolt12.text import decode_text as decode_bolt12_text
from leyden.invoice.text import decode_text as decode_bolt11_text
from leyden.node import keyspace
from leyden.testing.story import Deal, Plan, Story
from leyden.testing.wire_strategies import structs
from leyden.types import LeydenError
from leyden.wire import (
    MESSAGES,
    ChannelReestablish,
    ErrorMessage,
    Message,
    OnionMessagePayload,
    Shutdown,
    UpdateFee,
    UpdateFulfillHtlc,
    encode,
)
from leyden.wire.bolt12 import Bolt12Invoice, InvoiceRequest, Offer
from leyden.wire.codec import encode_struct
from leyden.wire.failures import FAILURES, encode_failure
from leyden.wire.onion_payload import EncryptedData, OnionPayload

from tests.fuzz.channels import moments
from tests.fuzz.stored_rows import pack
from tests.fuzz.target import joined
from tests.fuzz.targets import TARGETS

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[0] / "vectors" / "data"
LARGEST = 8_000
Seeds = Iterator[bytes]


def vectors(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text())


def draws(cls: type[msgspec.Struct], write: Callable[[Any], bytes], count: int = 2) -> Seeds:
    """Some encoded values of a declared struct, the same ones every time."""
    found: list[bytes] = []

    @settings(
        max_examples=4 * count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(structs(cls))
    def draw(value: Any) -> None:
        try:
            found.append(write(value))
        except LeydenError:
            pass

    draw()
    yield from sorted(set(found), key=lambda data: (len(data), data))[-count:]


def hexes(value: Any, keys: tuple[str, ...]) -> Seeds:
    """Every text under one of ``keys``, anywhere, as bytes."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name in keys and isinstance(inner, str):
                yield bytes.fromhex(inner)
            else:
                yield from hexes(inner, keys)
    elif isinstance(value, list):
        for inner in value:
            yield from hexes(inner, keys)


# -- per target --------------------------------------------------------------------------------------------------------


def transactions() -> Seeds:
    yield from hexes(vectors("bip143")["cases"][:3], ("tx",))
    yield from hexes(vectors("bip341"), ("tx", "signed_tx"))
    for name in ("static_remotekey", "anchors"):
        yield from islice(hexes(vectors("bolt03_commitment")[name][-4:], ("tx",)), 6)
    yield from islice(hexes(vectors("bolt03_zero_fee"), ("tx",)), 3)
    yield from hexes(vectors("bolt03_dual_funding"), ("parent_tx",))


def blocks() -> Seeds:
    yield from hexes(vectors("bolt03_funding"), ("genesis_block", "coin_block"))


def psbts() -> Seeds:
    yield from hexes(vectors("bip174"), ("hex",))


def texts() -> Seeds:
    found = vectors("bip173")
    for kind in ("bech32", "bech32m", "addresses"):
        for entry in [*found[kind]["valid"], *found[kind]["invalid"]]:
            yield (entry if isinstance(entry, str) else entry[0]).encode()
    yield bytes.fromhex(found["addresses"]["valid"][0][1])
    for output in vectors("bip341")["outputs"][:2]:
        yield output["address"].encode()
        yield bytes.fromhex(output["script"])
    yield vectors("bolt03_funding")["coin"]["address"].encode()
    for query in vectors("bolt10")["queries"]:
        yield query["name"].replace("lseed.bitcoinstats.com", "seed.example").encode()
    yield from (label.encode() for label in vectors("bolt10")["labels"])
    yield from (entry["text"].encode() for entry in vectors("bolt07")["short_channel_ids"])
    yield "a\u202eb\x00\x1b[31m\u00e9".encode()
    yield b"2MzQwSSnBHWHqSAqtTVQ6v47XtaisrJa1Vc"


def bolt11_texts() -> Seeds:
    found = vectors("bolt11_invoices")
    yield from (entry["text"].encode() for entry in [*found["readable"], *found["refused"]])


def bolt11_symbols() -> Seeds:
    for entry in vectors("bolt11_invoices")["readable"]:
        hrp, symbols = decode_bolt11_text(entry["text"])
        amount = hrp.removeprefix("lnbcrt").removeprefix("lnbc").removeprefix("lntb")
        letters = {chr(97 + c % 26): c for c in range(36, 62)}
        yield bytes(int(c) if c.isdigit() else letters[c] for c in amount) + b"\x80" + symbols


def bolt12_texts() -> Seeds:
    found = vectors("bolt12")
    yield from (entry["text"].encode() for entry in found["strings"])
    yield from (entry["text"].encode() for entry in found["offers"][::3])
    yield from (entry["text"].encode() for entry in found["signatures"] if entry["stream"] == "invoice_request")


def bolt12_streams() -> Seeds:
    found = vectors("bolt12")
    for prefix, entries in (("lno", found["offers"]), ("lnr", found["signatures"])):
        for entry in entries:
            if "text" in entry:
                try:
                    yield decode_bolt12_text(entry["text"], prefix)
                except LeydenError:
                    continue
    for cls in (Offer, InvoiceRequest, Bolt12Invoice):
        yield from draws(cls, encode_struct, 3)


def fields() -> Seeds:
    found = vectors("bolt01")
    yield from (bytes.fromhex(row[0]) for row in [*found["bigsize"]["good"], *found["bigsize"]["bad"]])
    yield from (bytes.fromhex(row[0]) for row in [*found["tlv"]["good"], *found["tlv"]["bad"]])
    yield from (bytes.fromhex(row[2]) for row in vectors("features")["channel_types"])
    for cls in FAILURES.values():
        yield from draws(cls, encode_failure, 1)
    yield b"\x00" + b"".join((n << 40).to_bytes(8, "big") for n in range(1, 4))
    yield bytes.fromhex("01 01020304 2607 02 20010db8000000000000000000000001 2607") + b"\x05\x09localhost\x26\x07"
    yield b"\x04" + bytes(35) + b"\x26\x07" + b"\x03" + bytes(10) + b"\x26\x07"


def messages() -> Seeds:
    for _, cls in sorted(MESSAGES.items()):
        yield from draws(cls, encode)
    found = vectors("bolt01")["extension"]
    yield from (bytes.fromhex(entry) for entry in found["good"])
    yield from (bytes.fromhex(entry[0]) for entry in found["bad"])
    yield from hexes(vectors("bolt07")["queries"], ("bytes",))


def handshakes() -> Seeds:
    for entry in vectors("bolt08")["handshakes"]:
        yield b"".join(bytes.fromhex(act[1]) for act in entry["acts"] if act[0] != "send" and act[1])


def sessions() -> Seeds:
    yield bytes(40)
    yield bytes(range(256)) * 4
    yield from (bytes.fromhex(frame) for frame in vectors("bolt08")["messages"]["frames"].values())


def onions() -> Seeds:
    yield bytes.fromhex(vectors("bolt04")["packet"]["onion"])
    yield from framed_payloads()


def framed_payloads() -> Seeds:
    for name in ("bolt04", "bolt04_blinded_payment"):
        yield from hexes(vectors(name), ("framed_payload",))


def payloads() -> Seeds:
    for framed in framed_payloads():
        yield framed[3:] if framed[0] == 0xFD else framed[1:]
    yield from draws(OnionPayload, encode_struct, 6)


def recipient_data() -> Seeds:
    for name in ("bolt04_route_blinding", "bolt04_blinded_payment", "bolt04_onion_message"):
        yield from hexes(vectors(name), ("encoded_data",))
    yield from draws(EncryptedData, encode_struct, 4)


def blinded_payments() -> Seeds:
    amounts, total = bytes.fromhex("020301ae2d04030b6e5e"), bytes.fromhex("120249f0")
    for data in [*recipient_data()][:12]:
        for flags in range(4):  # 1: inside the path, 2: not the last hop
            key = b"" if flags & 1 else b"\x0c\x21" + pubkey_create(bytes(31) + b"\x05")
            height = 747_000 if len(data) % 2 else 749_000
            how = bytes((flags,)) + (110_125).to_bytes(7, "big") + height.to_bytes(4, "big")
            yield joined([b"" if flags & 2 else amounts, data[:255], key + (b"" if flags & 2 else total), how])


def onion_messages() -> Seeds:
    for data in hexes(vectors("bolt04_onion_message"), ("encoded_data",)):
        yield joined([b"", data[:255]])
    for payload in draws(OnionMessagePayload, encode_struct, 4):
        yield joined([payload[:255], b"\x06\x02ab"])


def returned() -> Seeds:
    yield from hexes(vectors("bolt04"), ("packet",))
    for hop in vectors("bolt04_attribution")["hops"][::2]:
        for kind in ("failure", "fulfilment_with_payload"):
            entry = hop[kind]
            packet = entry.get("packet", entry.get("payload"))
            yield bytes.fromhex(entry["attribution_data"]) + bytes.fromhex(packet)


class Snapshots(Story):
    """Keeps what both nodes have on disk with HTLCs in flight both ways, and after everything is over."""

    def __init__(self, folder: Path) -> None:
        super().__init__(1, folder, Plan())
        self.disks: list[dict[bytes, bytes]] = []

    def keep(self) -> None:
        self.disks += [dict(node.disk.rows) for node in self.nodes]

    def _land(self, deals: list[Deal]) -> None:
        self.keep()
        super()._land(deals)

    def _close(self) -> None:
        super()._close()
        self.keep()


def disks() -> list[dict[bytes, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        snapshots = Snapshots(Path(folder))
        snapshots.tell()
    return snapshots.disks


def rows(found: Sequence[dict[bytes, bytes]]) -> Seeds:
    """Up to three different rows of every area, the wallet's by their second byte."""
    by_area: dict[bytes, set[bytes]] = {}
    for disk in found:
        for key, value in sorted(disk.items()):
            by_area.setdefault(key[:2] if key[:1] == keyspace.WALLET else key[:1], set()).add(value)
    for _, values in sorted(by_area.items()):
        yield from sorted(values, key=lambda row: (len(row), row))[:: max(1, len(values) // 3)][:4]


def channel_rows(found: Sequence[dict[bytes, bytes]]) -> Seeds:
    for disk in found:
        ids = sorted({key[1:33] for key in disk if key[:1] == keyspace.CHANNEL_CONFIG})
        for channel_id in ids:
            own = sorted(key for key in disk if key[:1] in AREAS and key[1:33] == channel_id)
            yield pack([(AREAS.index(key[:1]), key[33] if key[33:] else 0, disk[key]) for key in own])


def channel_messages() -> Seeds:
    """What comes next in every moment; every third of them with something that does not belong there."""
    stray = [encode(draw) for draw in _of_one_channel()]
    for number, moment in enumerate(moments()):
        heard = list(moment.coming)
        if number % 3 == 2:
            heard.insert(len(heard) // 2, stray[number % len(stray)])
        yield bytes((number,)) + b"".join(len(data).to_bytes(2, "big") + data for data in heard) + bytes(2)
    yield bytes((len(moments()) - 1,)) + b"\xff\xff" + bytes(2)


def _of_one_channel() -> list[Message]:
    channel_id = moments()[-1].channel.channel_id
    return [
        UpdateFee(channel_id=channel_id, feerate_per_kw=1_000_000),
        UpdateFulfillHtlc(channel_id=channel_id, id=0, payment_preimage=bytes(32)),
        ErrorMessage(channel_id=channel_id, data=b"error"),
        Shutdown(channel_id=channel_id, scriptpubkey=b"\x00\x14" + bytes(20)),
        ChannelReestablish(
            channel_id=channel_id,
            next_commitment_number=9,
            next_revocation_number=8,
            your_last_per_commitment_secret=bytes(32),
            my_current_per_commitment_point=pubkey_create(bytes(31) + b"\x05"),
        ),
    ]


def header_rows(found: Sequence[dict[bytes, bytes]]) -> Seeds:
    disk = found[0]
    own = sorted(key for key in disk if key[:1] == keyspace.CHAIN)
    own[12:-1] = []
    yield own[0][1:5] + pack([(0, 0, disk[key]) for key in own])


# -- all of it ---------------------------------------------------------------------------------------------------------


def write(name: str, seeds: Iterable[bytes]) -> tuple[int, int]:
    folder = HERE / "corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("seed-*"):
        old.unlink()
    different = {hashlib.sha256(seed).hexdigest()[:12]: seed for seed in seeds if len(seed) <= LARGEST}
    for label, seed in different.items():
        (folder / f"seed-{label}").write_bytes(seed)
    return len(different), sum(map(len, different.values()))


def main() -> None:
    stored = disks()
    seeds: dict[str, Seeds] = {
        "blinded_payment": blinded_payments(),
        "block": blocks(),
        "bolt11": bolt11_texts(),
        "bolt11_symbols": bolt11_symbols(),
        "bolt12": bolt12_streams(),
        "bolt12_text": bolt12_texts(),
        "channel_messages": channel_messages(),
        "channel_rows": channel_rows(stored),
        "fields": fields(),
        "handshake": handshakes(),
        "header_rows": header_rows(stored),
        "message": messages(),
        "onion": onions(),
        "onion_message": onion_messages(),
        "onion_payload": payloads(),
        "psbt": psbts(),
        "recipient_data": recipient_data(),
        "returned": returned(),
        "rows": rows(stored),
        "session": sessions(),
        "text": texts(),
        "transaction": transactions(),
    }
    total = 0
    for name in TARGETS:
        count, size = write(name, seeds[name])
        total += size
        print(f"{name:18} {count:>4} seeds {size:>8,} bytes")
    print(f"{total:,} bytes")


if __name__ == "__main__":
    main()
