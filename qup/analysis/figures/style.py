"""How figures look: colours that colour-blind readers can tell apart, one for each arm, in light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1d1f21", "#6a6c6e", "#dcdddf", "#fefefe"
"""Stand-ins that the page replaces by its own colours, so that inlined figures follow light and dark."""
PAPER_OF_FILES = "#ffffff"

KNOWN = {
    "slm_rft": "#0072b2",
    "oracle_refined": "#d55e00",
    "oracle_synthesized": "#b4538a",
    "style_aligned": "#009e73",
    "numina_subset": "#b58900",
    "base": "#7a7c7e",
}
"""Okabe and Ito's palette (jfly.uni-koeln.de/color), yellow darkened to read on white."""
OTHERS = ("#3f8fc4", "#8c564b", "#5b5bb0", "#2f7f4f", "#a83232", "#4b4b4b", "#c2792e", "#7d4fa0")
DARK = {
    "#0072b2": "#56b4e9", "#d55e00": "#f0803c", "#b4538a": "#e39ac4", "#009e73": "#35c99c", "#b58900": "#e6c229", "#7a7c7e": "#a5a8ab",
    "#3f8fc4": "#8ccbf2", "#8c564b": "#c99a8f", "#5b5bb0": "#a3a3e6", "#2f7f4f": "#6fc490", "#a83232": "#ea8a8a", "#4b4b4b": "#bdbdbd",
    "#c2792e": "#e8b06f", "#7d4fa0": "#c39ae0",
}  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "qup",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class Palette:
    """One colour for each arm of a study, the same in every figure."""

    arms: tuple[str, ...]

    def colour(self, arm: str) -> str:
        """The arm's colour; arms of the paper keep theirs in every study."""
        if arm in KNOWN:
            return KNOWN[arm]
        strangers = [name for name in self.arms if name not in KNOWN]
        return OTHERS[strangers.index(arm) % len(OTHERS)] if arm in strangers else MUTED

    def css(self, arm: str) -> str:
        """The same as a CSS value that follows light and dark."""
        return f"var(--c{variable(self.colour(arm))})"


def variable(colour: str) -> str:
    """Name of the page's variable for a colour."""
    return colour.lstrip("#")


def stylesheet() -> str:
    """The page's variables for all colours, light and dark."""
    every = dict.fromkeys([*KNOWN.values(), *OTHERS])
    light = "".join(f"--c{variable(one)}:{one};" for one in every)
    dark = "".join(f"--c{variable(one)}:{DARK[one]};" for one in every)
    return f":root{{{light}}}@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}:root[data-theme=dark]{{{dark}}}@media print{{:root{{{light}}}}}"


@contextmanager
def drawing() -> Iterator[Any]:
    """pyplot-free matplotlib with our settings; yields the Figure class."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        yield Figure


def svg_of(figure: Figure) -> str:
    """The figure as SVG text, the same for the same figure."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with matplotlib.rc_context(_SETTINGS):
        stream = io.StringIO()
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def png_of(figure: Figure) -> bytes:
    """The figure on white, 200 dots an inch."""
    import matplotlib

    with matplotlib.rc_context(_SETTINGS):
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=200, facecolor=PAPER_OF_FILES, metadata={"Software": None})
    return stream.getvalue()


_IDS = re.compile(
    r' id="(?:figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|PathCollection|LineCollection|FillBetweenPolyCollection|QuadMesh|legend|PolyCollection|Poly3D|QuadContourSet|AxesImage|image)_\d+"'
)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)


def inline(svg: str, name: str) -> str:
    """SVG for the page: no header, no fixed size, ids of its own, colours as the page's variables."""
    body = svg[svg.index("<svg") :]
    body = _METADATA.sub("", body)
    body = _IDS.sub("", body)
    body = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(
        r'<svg ([^>]*?)height="[^"]*" ?([^>]*?)width="[^"]*"|<svg ([^>]*?)width="[^"]*" ?([^>]*?)height="[^"]*"',
        lambda m: "<svg " + " ".join(part for part in m.groups() if part),
        body,
        count=1,
    )
    for colour, variable_name in ((INK, "--ink"), (MUTED, "--muted"), (GRID, "--rule"), (PAPER, "--card")):
        body = body.replace(colour, f"var({variable_name})")
    for colour in dict.fromkeys([*KNOWN.values(), *OTHERS]):
        body = body.replace(colour, f"var(--c{variable(colour)})")
    return body.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")


Box = tuple[float, float, float, float]


def spread_labels(
    axes: Axes, labels: Sequence[tuple[float, float, str, str]], spans: Sequence[tuple[float, float, float, float]] = (), size: float = 8.5
) -> None:
    """Writes (x, y, text, colour) beside points, each at the place where it overlaps least with points, labels and `spans`.

    `spans` are (x low, x high, y low, y high) of markers and bars, in data coordinates.
    """
    renderer = _canvas(axes.figure).get_renderer()
    place = axes.transData.transform
    frame = axes.get_window_extent(renderer)
    points = [place((x, y)) for x, y, _, _ in labels]
    marks = [(px - 6, py - 6, px + 6, py + 6) for px, py in points]
    bars = [_padded(*place((low, bottom)), *place((high, top))) for low, high, bottom, top in spans]
    taken: list[Box] = [_bounds(text, renderer) for text in axes.texts]
    for x, y, words, colour in labels:
        best: tuple[float, Any, Box] | None = None
        for rank, (dx, dy, horizontal, vertical) in enumerate(_TRIED):
            text = axes.annotate(
                words, (x, y), xytext=(dx, dy), textcoords="offset points", ha=horizontal, va=vertical, color=colour, fontsize=size, fontweight="bold"
            )  # fmt: skip
            box = _bounds(text, renderer)
            cost = rank * 4.0 + sum(2 * _overlap(box, other) for other in taken) + sum(_overlap(box, other) for other in (*marks, *bars))
            outside = (
                max(0.0, frame.x0 - box[0]) + max(0.0, box[2] - frame.x1 - 4) + max(0.0, frame.y0 - box[1]) + max(0.0, box[3] - frame.y1)
            )
            cost += outside * 60
            if best is None or cost < best[0]:
                if best is not None:
                    best[1].remove()
                best = (cost, text, box)
            else:
                text.remove()
        assert best is not None
        taken.append(best[2])


_TRIED = (
    (8, 5, "left", "bottom"), (8, -5, "left", "top"), (-8, 5, "right", "bottom"), (-8, -5, "right", "top"),
    (0, 10, "center", "bottom"), (0, -10, "center", "top"), (14, 14, "left", "bottom"), (-14, 14, "right", "bottom"),
    (14, -14, "left", "top"), (-14, -14, "right", "top"), (0, 24, "center", "bottom"), (0, -24, "center", "top"),
    (22, 22, "left", "bottom"), (-22, 22, "right", "bottom"), (22, -22, "left", "top"), (-22, -22, "right", "top"),
)  # fmt: skip
"""Places of a label about its point, in points of type, best first."""


def _bounds(text: Any, renderer: Any) -> Box:
    box = text.get_window_extent(renderer)
    return (box.x0, box.y0, box.x1, box.y1)


def _padded(left: float, bottom: float, right: float, top: float) -> Box:
    return (left - 2, bottom - 2, right + 2, top + 2)


def _canvas(figure: Any) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas


def _overlap(a: Box, b: Box) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0
