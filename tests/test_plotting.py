"""Figures: what is drawn, in which colours, and refusals."""

import itertools
import subprocess
import sys

import matplotlib as mpl
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from sobolev_lib.plotting import PALETTE, draw_network, use_style

LOADED = """
import sys
import sobolev_lib as sl
assert "matplotlib" not in sys.modules
assert {"draw_network", "shrink"} <= set(dir(sl))
sl.use_style()
assert "matplotlib" in sys.modules
"""


def test_matplotlib_is_loaded_by_the_first_figure_and_not_before():
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def axes():
    return Figure().subplots()  # without pyplot: no window, no state


def drawn(ax, kind):
    return [c for c in ax.collections if type(c) is kind]


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_colour_can_be_seen_on_white_and_told_from_the_others():
    for colour in PALETTE.values():
        assert 1.05 / (luminance(colour) + 0.05) > 2.3  # contrast against white, for lines of 2 points
    for a, b in itertools.combinations(PALETTE.values(), 2):
        assert sum((p - q) ** 2 for p, q in zip(to_rgb(a), to_rgb(b), strict=True)) > 0.05


# What red-green blindness leaves of linear RGB (Vienot, Brettel & Mollon 1999, protanopia and deuteranopia).
BLINDNESS = {
    "protanopia": [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
    "deuteranopia": [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
}


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_the_first_three_colours_differ_for_the_colour_blind(blindness):
    matrix = torch.tensor(BLINDNESS[blindness])
    seen = {name: matrix @ torch.tensor(to_rgb(PALETTE[name])) for name in ("exact", "good", "bad", "other")}
    for a, b in itertools.combinations(seen, 2):
        assert (seen[a] - seen[b]).norm() > 0.15, (a, b)


def test_the_style_has_a_white_ground_and_the_palette():
    with mpl.rc_context():
        use_style()
        assert mpl.rcParams["figure.facecolor"] == mpl.rcParams["savefig.facecolor"] == "white"
        assert [entry["color"] for entry in mpl.rcParams["axes.prop_cycle"]][:2] == [PALETTE["good"], PALETTE["bad"]]


def test_a_network_has_its_nodes_and_its_edges():
    ax = axes()
    draw_network(ax, [3, 5, 2, 1])
    assert [len(nodes.get_offsets()) for nodes in drawn(ax, PathCollection)] == [3, 5, 2, 1]
    assert len(drawn(ax, LineCollection)[0].get_segments()) == 3 * 5 + 5 * 2 + 2 * 1


def test_areas_are_proportional_to_the_scores():
    ax = axes()
    draw_network(ax, [2, 3, 1], scores=[torch.tensor([1.0, 4.0, 2.0])])
    areas = drawn(ax, PathCollection)[1].get_sizes()
    assert areas[0] / areas[1] == pytest.approx(0.25) and areas[2] / areas[1] == pytest.approx(0.5)


def test_a_layer_without_significance_is_drawn_small():
    ax = axes()
    draw_network(ax, [2, 3, 1], scores=[torch.zeros(3)])
    areas = drawn(ax, PathCollection)[1].get_sizes()
    assert 0 < areas.max() < 2


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"scores: got lengths \[2\], need \[3\]"):
        draw_network(axes(), [2, 3, 1], scores=[torch.ones(2)])
    with pytest.raises(ValueError, match=r"widths\[1\]: got 0, need an integer >= 1"):
        draw_network(axes(), [2, 0, 1])
