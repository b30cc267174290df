"""A line chart as an SVG file, with nothing but the standard library. Fits light and dark pages."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 130, 34, 44
COLOURS = ("#1f77b4", "#d9730d", "#2a9d5c", "#8e5bd0")
GREY = "#888888"


def draw(path: Path, title: str, x_label: str, y_label: str, lines: Mapping[str, Points], *, log_y: bool) -> None:
    """Write the chart; x is logarithmic (0 counts as half of the smallest other), y as asked, else from 0."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    ys = [y for points in lines.values() for _, y in points]
    floor = min(x for x in xs if x > 0) / 2
    across = _scale(math.log10(max(xs[0], floor)), math.log10(xs[-1]), LEFT, WIDTH - RIGHT)
    if log_y:
        low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
        ticks = [10.0**power for power in range(low, high + 1)]
        height = _scale(low, high, HEIGHT - BOTTOM, TOP)
    else:
        step = _step(max(ys))
        ticks = [step * count for count in range(math.ceil(max(ys) / step) + 1)]
        height = _scale(0, ticks[-1], HEIGHT - BOTTOM, TOP)

    def place(x: float, y: float) -> tuple[float, float]:
        return across(math.log10(max(x, floor))), height(math.log10(y) if log_y else y)

    parts = [_text(LEFT, 18, title, "start", 14), _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle")]
    parts.append(_text(LEFT - 56, TOP - 8, y_label, "start"))
    for tick in ticks:
        _, y = place(xs[-1], tick)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{GREY}" stroke-opacity=".35"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{tick:,.6g}", "end"))
    last = -math.inf
    for x in xs:
        at, _ = place(x, ticks[-1])
        if at - last >= 34:
            parts.append(_text(at, HEIGHT - BOTTOM + 18, f"{x:,g}", "middle"))
            last = at
    labels: list[tuple[float, float, str, str]] = []
    for (name, points), colour in zip(lines.items(), COLOURS, strict=False):
        placed = [place(x, y) for x, y in points]
        trail = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{trail}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        labels.append((placed[-1][1] + 4, placed[-1][0] + 8, name, colour))
    lowest = -math.inf
    for y, at, name, colour in sorted(labels):  # top down, and none over another
        lowest = max(y, lowest + 14)
        parts.append(_text(at, lowest, name, "start", colour=colour))
    body = "\n".join(parts)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" role="img" aria-label="{title}">\n{body}\n</svg>\n'
    )


def _scale(low: float, high: float, start: float, end: float) -> "_Scale":
    return _Scale(low, (end - start) / ((high - low) or 1), start)


class _Scale:
    def __init__(self, low: float, slope: float, start: float) -> None:
        self._low, self._slope, self._start = low, slope, start

    def __call__(self, value: float) -> float:
        return self._start + (value - self._low) * self._slope


def _step(most: float) -> float:
    """1, 2 or 5 times a power of ten, so that about five of them reach ``most``."""
    power = 10.0 ** math.floor(math.log10(most / 5))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * 5 >= most)


def _text(x: float, y: float, text: str, anchor: str, size: int = 11, colour: str = GREY) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{text}</text>'
