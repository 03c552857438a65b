"""Small charts as inline SVG: curves with error bars, histograms, stacked areas. Colours come from the CSS of the page."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 380, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 24
MAX_POINTS = 300
SMOOTH_FROM = 40
"""Curves with more points than this are drawn pale, with their running mean on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Points (x, y) of one line; `errors` are half-widths of error bars, one per point."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    errors: Sequence[float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps values to pixels."""

    x0: float
    x1: float
    y0: float
    y1: float
    log: bool = False

    def px(self, x: float) -> float:
        return LEFT + (x - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def py(self, y: float) -> float:
        low, high, y = (
            (math.log10(v) for v in (self.y0, self.y1, max(y, self.y0))) if self.log else (self.y0, self.y1, y)
        )
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def line_chart(title: str, curves: Sequence[Curve], *, log: bool = False) -> str:
    """A card with curves over steps; "" if there is nothing to draw."""
    curves = [drawn for curve in curves if (drawn := _drawable(curve, log=log)).x]
    if not curves:
        return ""
    scale = _scale(curves, log=log)
    body = [_axes(scale)]
    for index, curve in enumerate(curves):
        pale = len(curve.x) > SMOOTH_FROM
        body.append(_polyline(scale, curve.x, curve.y, f"c{index % 8}{' pale' if pale else ''}"))
        if pale:
            body.append(_polyline(scale, curve.x, _running_mean(curve.y), f"c{index % 8}"))
        if len(curve.x) <= SMOOTH_FROM or curve.errors:
            body += [_point(scale, curve, i, index) for i in range(len(curve.x))]
    points = json.dumps([[curve.name, [[x, y] for x, y in zip(curve.x, curve.y, strict=True)]] for curve in curves])
    data = f' data-x="{scale.x0},{scale.x1}" data-curves="{html.escape(points)}"'
    return _card(title, "".join(body), [curve.name for curve in curves], data=data)


def histogram(title: str, samples: Mapping[str, Sequence[float]], *, bins: int = 24) -> str:
    """A card with one series of bars per named sample over common bins; heights are shares of the sample."""
    values = [value for sample in samples.values() for value in sample]
    if not values:
        return ""
    low, high = min(values), max(values)
    if low == high or all(float(value).is_integer() for value in values):
        high += 1  # counts: the largest needs a bin
    width = (high - low) / bins
    shares: dict[str, list[float]] = {}
    for name, sample in samples.items():
        counts = [0] * bins
        for value in sample:
            counts[min(bins - 1, int((value - low) / width))] += 1
        shares[name] = [count / max(1, len(sample)) for count in counts]
    scale = Scale(x0=low, x1=high, y0=0, y1=max(max(share) for share in shares.values()) * 1.05)
    body = [_axes(scale)]
    for index, share in enumerate(shares.values()):
        for bin_index, height in enumerate(share):
            if height:
                left, right = scale.px(low + bin_index * width), scale.px(low + (bin_index + 1) * width)
                top = scale.py(height)
                body.append(
                    f'<rect class="f{index % 8}" x="{left:.1f}" y="{top:.1f}" width="{max(1, right - left - 1):.1f}" '
                    f'height="{HEIGHT - BOTTOM - top:.1f}"/>'
                )
    return _card(title, "".join(body), list(shares))


def stacked_chart(title: str, curves: Sequence[Curve]) -> str:
    """A card with stacked areas; all curves have the same x."""
    if not curves or not curves[0].x:
        return ""
    every = math.ceil(len(curves[0].x) / MAX_POINTS)
    x = list(curves[0].x)[::every]
    layers = [[0.0] * len(x)]
    for curve in curves:
        layers.append([below + y for below, y in zip(layers[-1], list(curve.y)[::every], strict=True)])
    scale = Scale(x0=x[0], x1=max(x[-1], x[0] + 1), y0=0, y1=max(layers[-1]) * 1.05 or 1)
    body = [_axes(scale)]
    for index in range(len(curves)):
        upper = [f"{scale.px(a):.1f},{scale.py(b):.1f}" for a, b in zip(x, layers[index + 1], strict=True)]
        lower = [f"{scale.px(a):.1f},{scale.py(b):.1f}" for a, b in zip(x, layers[index], strict=True)]
        body.append(f'<polygon class="f{index % 8}" points="{" ".join(upper + lower[::-1])}"/>')
    return _card(title, "".join(body), [curve.name for curve in curves])


def ticks(low: float, high: float, *, count: int = 4) -> list[float]:
    """About `count` round values between low and high. Example: `ticks(0, 1) == [0.0, 0.25, 0.5, 0.75, 1.0]`."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    start = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(start, math.floor(high / step + 1e-9) + 1)]


def _drawable(curve: Curve, *, log: bool) -> Curve:
    """The finite points, at most MAX_POINTS of them (means of neighbours)."""
    errors = curve.errors or [0.0] * len(curve.x)
    points = [p for p in zip(curve.x, curve.y, errors, strict=True) if math.isfinite(p[1]) and (not log or p[1] > 0)]
    size = max(1, math.ceil(len(points) / MAX_POINTS))
    blocks = [points[i : i + size] for i in range(0, len(points), size)]
    x, y, e = ([sum(p[axis] for p in block) / len(block) for block in blocks] for axis in range(3))
    return Curve(name=curve.name, x=x, y=y, errors=e if curve.errors else None)


def _scale(curves: Sequence[Curve], *, log: bool) -> Scale:
    xs = [x for curve in curves for x in curve.x]
    ys = [y for curve in curves for y in curve.y]
    for curve in curves:
        ys += [y + sign * e for y, e in zip(curve.y, curve.errors or [], strict=False) for sign in (-1, 1)]
    low, high = min(ys), max(ys)
    if log:
        low, high = low / 1.5, high * 1.5
    elif low == high:
        low, high = (min(0.0, 2 * low), max(0.0, 2 * high)) if low else (0.0, 1.0)
    else:
        low, high = low - (high - low) * 0.06, high + (high - low) * 0.06
    return Scale(x0=min(xs), x1=max(max(xs), min(xs) + 1), y0=low, y1=high, log=log)


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, at most five of them; within one or two decades also their multiples by 2 and 5."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 3 else (1,)
    values = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
    return values[:: math.ceil(len(values) / 5)]


def _axes(scale: Scale) -> str:
    y_ticks = _log_ticks(scale.y0, scale.y1) if scale.log else ticks(scale.y0, scale.y1)
    parts: list[str] = []
    for value in y_ticks:
        y = scale.py(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{label(value)}</text>')
    for value in ticks(scale.x0, scale.x1):
        parts.append(
            f'<text class="tick" x="{scale.px(value):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{label(value)}</text>'
        )
    return "".join(parts)


def _polyline(scale: Scale, x: Sequence[float], y: Sequence[float], css: str) -> str:
    points = " ".join(f"{scale.px(a):.1f},{scale.py(b):.1f}" for a, b in zip(x, y, strict=True))
    return f'<polyline class="{css}" points="{points}"/>'


def _point(scale: Scale, curve: Curve, i: int, index: int) -> str:
    x, y = scale.px(curve.x[i]), scale.py(curve.y[i])
    dot = f'<circle class="f{index % 8}" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>'
    if not curve.errors:
        return dot
    low, high = scale.py(curve.y[i] - curve.errors[i]), scale.py(curve.y[i] + curve.errors[i])
    return dot + f'<line class="c{index % 8}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'


def _running_mean(y: Sequence[float]) -> list[float]:
    """Mean over a window of a twentieth of the curve, narrower at both ends."""
    half = max(2, len(y) // 40)
    windows = [y[max(0, i - half) : i + half + 1] for i in range(len(y))]
    return [sum(window) / len(window) for window in windows]


def _card(title: str, body: str, names: Sequence[str], *, data: str = "") -> str:
    keys = "".join(
        f'<span class="key"><i class="b{i % 8}"></i>{html.escape(name)}</span>' for i, name in enumerate(names)
    )
    legend = f'<div class="legend">{keys if len(names) > 1 else ""}<output></output></div>'
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}"{data}>{body}</svg>'
    return f'<figure class="card"><figcaption>{html.escape(title)}</figcaption>{legend}{svg}</figure>'


def label(value: float) -> str:
    """The text at a tick: 0.25, 120, 12k, 2.5e-06."""
    return f"{value / 1000:g}k" if 1e4 <= abs(value) < 1e6 else f"{value:.4g}"
