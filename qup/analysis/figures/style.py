"""How figures look: colours that colour-blind readers can tell apart, one for each arm, in light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "*": "★"}
"""Shapes that tell arms apart without colour, and the characters that stand for them on the page."""
BASE_MARKER = ("h", "⬢")
DASHES: Any = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
"""Lines that tell arms apart without colour."""

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
    """One colour and one shape for each arm of a study, the same in every figure."""

    arms: tuple[str, ...]

    def colour(self, arm: str) -> str:
        """The arm's colour; arms of the paper keep theirs in every study."""
        if arm in KNOWN:
            return KNOWN[arm]
        strangers = [name for name in self.arms if name not in KNOWN]
        return OTHERS[strangers.index(arm) % len(OTHERS)] if arm in strangers else MUTED

    def marker(self, arm: str) -> str:
        """The arm's shape, as matplotlib calls it."""
        return self._shape(arm)[0]

    def glyph(self, arm: str) -> str:
        """The arm's shape as a character."""
        return self._shape(arm)[1]

    def dashes(self, arm: str) -> Any:
        """How the arm's lines are broken."""
        return DASHES[self._place(arm) % len(DASHES)]

    def _shape(self, arm: str) -> tuple[str, str]:
        if arm.partition(" ")[0] == "base":
            return BASE_MARKER
        return list(MARKERS.items())[self._place(arm) % len(MARKERS)]

    def _place(self, arm: str) -> int:
        trained = [name for name in self.arms if name.partition(" ")[0] != "base"]
        return trained.index(arm) if arm in trained else 0

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


def png_of(figure: Figure, source: str) -> bytes:
    """The figure on white, 200 dots an inch, laid out as it is; `source` is what it says of itself in its metadata.

    The last that is drawn of it: it stays white and so large. `savefig` would draw it twice more, and lay it out each time.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with matplotlib.rc_context(_SETTINGS):
        stream = io.BytesIO()
        figure.set(dpi=200, facecolor=PAPER_OF_FILES)
        figure.set_layout_engine("none")
        FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None, "Source": source})
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
