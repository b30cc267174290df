"""The accounts of the demo: what each side must own at the end, to the satoshi."""

from collections.abc import Callable

import msgspec

from leyden_cli.demo.errors import expect


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One node's money in satoshi; ``received`` and ``sent`` as this node's own records have it."""

    name: str
    before: int
    after: int
    sent: int
    received: int


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """``funder`` opened the channel, gave ``pushed`` away at once and paid both fees. All in satoshi.

    ``on_chain`` is the sum of both nodes' unspent outputs as the chain server knows them.
    """

    funder: Side
    fundee: Side
    pushed: int
    funding_fee: int
    closing_fee: int
    on_chain: int

    def check(self) -> None:
        """``DemoFailed`` on the first sum that does not come out."""
        funder, fundee = self.funder, self.fundee
        same = "the two nodes disagree about what was paid"
        expect(funder.sent == fundee.received and fundee.sent == funder.received, same)
        expect(self.funding_fee > 0 and self.closing_fee > 0, "a fee is missing")
        for side, owed in (
            (funder, -self.pushed - self.funding_fee - self.closing_fee),
            (fundee, self.pushed),
        ):
            due = side.before - side.sent + side.received + owed
            expect(side.after == due, f"{side.name} has {side.after:,} sat and must have {due:,}")
        total = funder.after + fundee.after
        expect(self.on_chain == total, f"the nodes own {total:,} sat, the chain says {self.on_chain:,}")

    def rows(self) -> list[tuple[str, str, str, str]]:
        """The table: what, funder, fundee, both together."""
        funder, fundee = self.funder, self.fundee
        both = funder.before + fundee.before
        fees = self.funding_fee + self.closing_fee

        def moved(what: str, sat: int, to_fundee: Callable[[int], int]) -> tuple[str, str, str, str]:
            return what, f"{-to_fundee(sat):+,}", f"{to_fundee(sat):+,}", ""

        return [
            ("before", f"{funder.before:,}", f"{fundee.before:,}", f"{both:,}"),
            moved(f"pushed to {fundee.name} at the opening", self.pushed, lambda sat: sat),
            moved(f"{funder.name} paid {fundee.name}", funder.sent, lambda sat: sat),
            moved(f"{fundee.name} paid {funder.name}", fundee.sent, lambda sat: -sat),
            ("fee of the funding transaction", f"{-self.funding_fee:+,}", "", f"{-self.funding_fee:+,}"),
            ("fee of the closing transaction", f"{-self.closing_fee:+,}", "", f"{-self.closing_fee:+,}"),
            ("after", f"{funder.after:,}", f"{fundee.after:,}", f"{both - fees:,}"),
            ("unspent on the chain", "", "", f"{self.on_chain:,}"),
        ]

    def summary(self) -> str:
        funder, fundee = self.funder, self.fundee
        return (
            f"{funder.before + fundee.before} sat before = {funder.after} {funder.name} + {fundee.after} {fundee.name} "
            f"+ {self.funding_fee} funding fee + {self.closing_fee} closing fee; "
            f"{funder.sent} sat paid one way, {fundee.sent} the other"
        )
