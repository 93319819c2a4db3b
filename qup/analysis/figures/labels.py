"""Labels beside points: each nearest to its own, with a line that leads to it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from qup.analysis.figures.style import MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Box = tuple[float, float, float, float]
"""Left, bottom, right, top in pixels."""
LED = 12.0
"""Labels further from their point than so many points of type are led to it by a line."""

APART = 1.6
"""So many times as far as its own point any other must be, or a line leads to its own."""


def spread_labels(
    axes: Axes, labels: Sequence[tuple[float, float, str, str]], spans: Sequence[tuple[float, float, float, float]] = (), size: float = 8.5
) -> None:
    """Writes (x, y, text, colour) beside points, each where it covers no point, label or span, as near as that allows.

    `spans` are (x low, x high, y low, y high) of bars, in data coordinates. A label that stands apart from its point has a
    thin line to it. Axes must have their final limits.
    """
    renderer = _laid_out(axes.figure)
    place = axes.transData.transform
    frame = axes.get_window_extent(renderer)
    points = [tuple(float(one) for one in place((x, y))) for x, y, _, _ in labels]
    marks = [(px - 7, py - 7, px + 7, py + 7) for px, py in points]
    bars = [_padded(*place((low, bottom)), *place((high, top))) for low, high, bottom, top in spans]
    taken: list[Box] = [_bounds(text, renderer) for text in axes.texts]
    a_point = axes.figure.dpi / 72
    for mine, (x, y, words, colour) in enumerate(labels):
        write = partial(axes.annotate, words, (x, y), textcoords="offset points", color=colour, fontsize=size, fontweight="bold")
        text = write(xytext=(0, 0), ha="left", va="bottom")
        left, bottom, right, top = _bounds(text, renderer)
        text.remove()
        best: tuple[float, int, Box] | None = None
        for rank, (dx, dy, horizontal, vertical) in enumerate(_TRIED):
            x0 = points[mine][0] + dx * a_point - _BEFORE[horizontal] * (right - left)
            y0 = points[mine][1] + dy * a_point - _BEFORE[vertical] * (top - bottom)
            box = (x0, y0, x0 + right - left, y0 + top - bottom)
            cost = rank * 4.0 + sum(20 * _overlap(box, other) for other in (*taken, *marks)) + sum(_overlap(box, other) for other in bars)
            cost += 60 * max(0.0, frame.x0 - box[0]) + 60 * max(0.0, box[2] - frame.x1 - 4)
            cost += 60 * max(0.0, frame.y0 - box[1]) + 60 * max(0.0, box[3] - frame.y1)
            others = [_gap(box, point) for index, point in enumerate(points) if index != mine]
            if not _led(dx, dy) and others and min(others) <= APART * _gap(box, points[mine]):
                cost += 2000
            if best is None or cost < best[0]:
                best = (cost, rank, box)
        assert best is not None
        dx, dy, horizontal, vertical = _TRIED[best[1]]
        line = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4} if _led(dx, dy) else None
        write(xytext=(dx, dy), ha=horizontal, va=vertical, arrowprops=line)
        taken.append(best[2])


_SIDES = ((1, 1, "left", "bottom"), (1, -1, "left", "top"), (-1, 1, "right", "bottom"), (-1, -1, "right", "top"), (0, 1, "center", "bottom"), (0, -1, "center", "top"))  # fmt: skip
_TRIED = tuple(
    (dx * out, dy * (out if out > 8 else 5 if dx else 10), horizontal, vertical)
    for out in (8, 16, 26, 40, 56, 74)
    for dx, dy, horizontal, vertical in _SIDES
)
"""Places of a label about its point, in points of type, best first."""
_BEFORE = {"left": 0.0, "center": 0.5, "right": 1.0, "bottom": 0.0, "top": 1.0}
"""The share of a label's width or height that lies before the place it is aligned at."""


def _led(dx: float, dy: float) -> bool:
    return max(abs(dx), abs(dy)) > LED


def _bounds(text: Any, renderer: Any) -> Box:
    from matplotlib.text import Annotation, Text

    if isinstance(text, Annotation):
        text.update_positions(renderer)
    box = Text.get_window_extent(text, renderer)
    return (box.x0, box.y0, box.x1, box.y1)


def _padded(left: float, bottom: float, right: float, top: float) -> Box:
    return (left - 2, bottom - 2, right + 2, top + 2)


def _laid_out(figure: Any) -> Any:
    """The renderer that a figure's texts are measured by, once the figure has its final layout."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    return canvas.get_renderer()


def _overlap(a: Box, b: Box) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def _gap(box: Box, point: tuple[float, ...]) -> float:
    """Distance of a point from a box, 0 within."""
    x, y = max(box[0] - point[0], point[0] - box[2], 0.0), max(box[1] - point[1], point[1] - box[3], 0.0)
    return float((x * x + y * y) ** 0.5)
