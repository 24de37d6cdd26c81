"""The book's figures: one style, one colour-blind safe palette, and the drawing of a network."""

import itertools
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from torch import Tensor

from sobolev_lib import _check

__all__ = ["PALETTE", "draw_network", "use_style"]

# Okabe & Ito (2008), in an order in which the grey values differ as well.
PALETTE = {
    "exact": "#000000",
    "good": "#0072b2",
    "bad": "#d55e00",
    "other": "#009e73",
    "fourth": "#cc79a7",
    "soft": "#999999",
}
"""The book's colours by role: ``exact`` for the truth, ``good`` and ``bad`` for what is right and wrong, ``other`` and
``fourth`` for further things that are compared, ``soft`` for the background."""


def use_style() -> None:
    """Set the book's figure style: white ground (also in dark mode), no frames, direct labels instead of legends.

    >>> import matplotlib as mpl
    >>> sl.use_style()
    >>> mpl.rcParams["figure.facecolor"]
    'white'
    """
    style.use("sobolev_lib.book")
    colours = [PALETTE[name] for name in ("good", "bad", "other", "fourth", "soft")]
    mpl.rcParams["axes.prop_cycle"] = mpl.cycler(color=colours)


def draw_network(
    axes: Axes, widths: Sequence[int], *, scores: Sequence[Tensor] | None = None, colour: str = PALETTE["good"]
) -> None:
    """Draw a network as columns of nodes, inputs on the left; a hidden node's area is its significance.

    Args:
        axes: Where to draw.
        widths: Of all layers.
        scores: One tensor (m_l,) for each hidden layer; default: all alike.
        colour: Of the nodes.

    Raises:
        ValueError: Scores that do not fit the widths.

    Chapter 0, "The method and its result".

    >>> import matplotlib.pyplot as plt
    >>> fig, axes = plt.subplots()
    >>> sl.draw_network(axes, [2, 3, 1])
    >>> len(axes.collections)  # the lines, and a column of nodes for each layer
    4
    >>> plt.close(fig)
    """
    widths = [_check.count(f"widths[{i}]", width) for i, width in enumerate(widths)]
    if scores is not None and [len(s) for s in scores] != widths[1:-1]:
        raise ValueError(f"scores: got lengths {[len(s) for s in scores]}, need {widths[1:-1]}")
    heights = [(np.arange(width) - (width - 1) / 2) * min(0.25, 2 / max(width, 2)) for width in widths]
    segments = []
    for column, (left, right) in enumerate(itertools.pairwise(heights)):
        segments += [[(column, a), (column + 1, b)] for a in left for b in right]
    lines = LineCollection(segments, colors=PALETTE["soft"], linewidths=min(0.8, 300 / len(segments) + 0.1))
    lines.set(alpha=min(0.7, 1500 / len(segments)), rasterized=True)  # many lines show as a light veil
    axes.add_collection(lines)
    biggest = min(90.0, 5000 / max(widths))
    for column, height in enumerate(heights):
        area = np.full(len(height), 0.5 * biggest)
        if scores is not None and 0 < column < len(widths) - 1:
            score = scores[column - 1].detach().numpy()
            area = biggest * np.maximum(score / max(score.max(), np.finfo(float).tiny), 0.01)
        axes.scatter(np.full(len(height), column), height, s=area, color=colour, zorder=2, linewidths=0)
    axes.set_xlim(-0.4, len(widths) - 0.6)
    axes.set_ylim(-1.15, 1.15)
    axes.axis("off")
