"""Plots of the report as inline SVG. Colours are CSS variables of the page, so that light and dark both work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]
NUM_COLOURS = 5  # --series-0 to --series-4 of the page; lines beyond are dashed


@dataclass(frozen=True)
class Mark:
    """A point of a scatter plot."""

    name: str
    x: float
    y: float
    style: str  # class of the page


@dataclass(frozen=True)
class Scale:
    """Linear map from data to pixels."""

    low: float
    high: float
    start: float  # px
    end: float  # px

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def build_scale(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale that holds all values with a little room, even where they are all equal."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
    return Scale(low - room, high + room, start, end)


def whisker(mean: float, low: float | None, high: float | None, values: Sequence[float], label: str) -> str:
    """One row of an interval plot: a line from low to high with a dot at the mean.

    Args:
        mean: The estimate.
        low: Lower bound, or None.
        high: Upper bound, or None.
        values: All bounds and means of the plot, so that its rows share one axis.
        label: Read out in place of the picture.
    """
    scale = build_scale([*values, 0.0], 4, 176)
    parts = [f'<line class="axis" x1="{scale(0):.1f}" x2="{scale(0):.1f}" y1="0" y2="24"/>']
    if low is not None and high is not None:
        a, b = scale(low), scale(high)
        parts.append(f'<line class="whisker" x1="{a:.1f}" x2="{b:.1f}" y1="12" y2="12"/>')
        parts += [f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="6" y2="18"/>' for x in (a, b)]
    parts.append(f'<circle class="dot" cx="{scale(mean):.1f}" cy="12" r="3"/>')
    return (
        f'<svg class="row" viewBox="0 0 180 24" width="180" height="24" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def line_chart(series: Mapping[str, Points], x_label: str, y_label: str, diagonal: bool = False) -> str:
    """Lines with axes, end values of the axes, and a legend. Series without a point are left out.

    Args:
        series: Points (x, y) by name, x ascending.
        x_label: Under the chart.
        y_label: Above the chart.
        diagonal: Draw x = y on one common scale, with a dot at each point.
    """
    series = {name: points for name, points in series.items() if points}
    if not series:
        return ""
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    across = build_scale([0.0, *xs, *ys] if diagonal else xs, 52, 470)
    up = build_scale([0.0, *xs, *ys] if diagonal else ys, 200, 24)
    parts = [
        '<line class="axis" x1="52" x2="470" y1="200" y2="200"/><line class="axis" x1="52" x2="52" y1="24" y2="200"/>',
        _text(52, 14, y_label, "start"),
        _text(261, 232, x_label, "middle"),
        *_ticks(across, xs, 216, True),
        *_ticks(up, ys, 47, False),
    ]
    if diagonal:
        low, high = across.low, across.high
        ends = f'x1="{across(low):.1f}" x2="{across(high):.1f}" y1="{up(low):.1f}" y2="{up(high):.1f}"'
        parts.append(f'<line class="diagonal" {ends}/>')
    for number, points in enumerate(series.values()):
        dashes = ";stroke-dasharray:5 4" if number >= NUM_COLOURS else ""
        colour = f"stroke:var(--series-{number % NUM_COLOURS}){dashes}"
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="line" style="{colour}" points="{path}"/>')
        if diagonal:
            fill = f"fill:var(--series-{number % NUM_COLOURS})"
            parts += [
                f'<circle style="{fill}" cx="{across(x):.1f}" cy="{up(y):.1f}" r="3"/>' for x, y in points
            ]
    label = escape(f"{y_label} by {x_label}: {', '.join(series)}")
    chart = f'<svg class="chart" viewBox="0 0 480 240" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return f"<figure>{chart}<figcaption>{_legend(list(series))}</figcaption></figure>"


def scatter(points: Sequence[Mark], x_label: str, y_label: str) -> str:
    """Points with axes, each led by a line to its name in a column on the right, where none lies on another."""
    if not points:
        return ""
    points = sorted(points, key=lambda point: (-point.y, -point.x))
    xs, ys = [p.x for p in points], [p.y for p in points]
    bottom = max(240, 16 * len(points) + 16)
    across, up = build_scale(xs, 72, 270), build_scale(ys, bottom, 24)
    parts = [
        f'<line class="axis" x1="64" x2="274" y1="{bottom + 8}" y2="{bottom + 8}"/>',
        f'<line class="axis" x1="64" x2="64" y1="24" y2="{bottom + 8}"/>',
        _text(64, 14, y_label, "start"),
        _text(169, bottom + 40, x_label, "middle"),
        *_ticks(across, xs, bottom + 24, True),
        *_ticks(up, ys, 59, False),
    ]
    for point, level in zip(points, _apart([up(point.y) for point in points], 16, bottom + 8), strict=True):
        x, y = across(point.x), up(point.y)
        parts.append(f'<line class="lead" x1="{x:.1f}" x2="296" y1="{y:.1f}" y2="{level:.1f}"/>')
        parts.append(f'<circle class="mark {point.style}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(f'<text class="{point.style}" x="300" y="{level + 4:.1f}">{escape(point.name)}</text>')
    label = escape(f"{y_label} by {x_label}: {', '.join(point.name for point in points)}")
    return (
        f'<figure><svg class="chart" viewBox="0 0 480 {bottom + 48}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _apart(levels: Sequence[float], gap: float, lowest: float) -> list[float]:
    """Levels from the top down, at least ``gap`` apart, none below ``lowest``, moved as little as need be."""
    out: list[float] = []
    for level in levels:
        out.append(max(level, out[-1] + gap) if out else level)
    for place in range(len(out) - 1, -1, -1):
        limit = lowest if place == len(out) - 1 else out[place + 1] - gap
        out[place] = min(out[place], limit)
    return out


def histogram(edges: Sequence[float], counts: Sequence[int], x_label: str, y_label: str) -> str:
    """Bars of equal width, each named by its lower edge and topped by its count."""
    if not counts:
        return ""
    width, tallest = 420 / len(counts), max(max(counts), 1)
    parts = ['<line class="axis" x1="52" x2="472" y1="200" y2="200"/>', _text(52, 14, y_label, "start")]
    for number, count in enumerate(counts):
        left, height = 52 + number * width, 160 * count / tallest
        across, up = (
            f'x="{left + 1:.1f}" width="{width - 2:.1f}"',
            f'y="{200 - height:.1f}" height="{height:.1f}"',
        )
        parts.append(f'<rect class="bar" {across} {up}/>')
        parts.append(_text(left + width / 2, 194 - height, f"{count:,}" if count else "", "middle"))
        parts.append(_text(left, 216, f"{edges[number]:g}", "middle"))
    parts.append(_text(262, 234, x_label, "middle"))
    label = escape(f"{y_label} by {x_label}")
    return (
        f'<figure><svg class="chart" viewBox="0 0 480 240" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg></figure>"
    )


def _legend(names: Sequence[str]) -> str:
    return " ".join(
        f'<span class="key"><span class="swatch" style="background:{_swatch(number)}"></span>{escape(name)}</span>'
        for number, name in enumerate(names)
    )


def _swatch(number: int) -> str:
    colour = f"var(--series-{number % NUM_COLOURS})"
    dashed = f"repeating-linear-gradient(90deg,{colour} 0 4px,transparent 4px 6px)"
    return dashed if number >= NUM_COLOURS else colour


def _ticks(scale: Scale, values: Sequence[float], place: float, horizontal: bool) -> list[str]:
    """The least and the greatest value at the axis; the greatest alone where both would lie on one another."""
    low, high = min(values), max(values)
    kept = [high] if abs(scale(high) - scale(low)) < (60 if horizontal else 14) else [low, high]
    texts = [(scale(v), f"{v:,.0f}" if abs(v) >= 100 else f"{v:.2g}") for v in kept]
    if horizontal:
        return [_text(at, place, text, "middle") for at, text in texts]
    return [_text(place, at + 4, text, "end") for at, text in texts]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
