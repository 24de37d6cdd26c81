r"""Polynomials with a margin: an activation over an interval, replaced by something that zonotopes can carry.

Chapter 6.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib.activations import Activation
from sobolev_lib.elementary import activation_extrema, jet_error, range_kernel
from sobolev_lib.interval import Interval
from sobolev_lib.rounding import enlarge, widen

GRID = 12


@dataclass(frozen=True, eq=False)
class Fit:
    r"""A function over an interval, :math:`f(c + s) \in \sum_i \kappa_i s^i \pm \delta` for :math:`|s| \le` ``reach``; ``powers[i]`` is :math:`\kappa_i`."""

    powers: tuple[Tensor, ...]
    margin: Tensor
    reach: Tensor


def fits(
    activation: Activation, z: Interval, center: Tensor, order: int, degree: int, outward: bool
) -> list[list[Fit]]:
    r"""Return for each of :math:`f, \dots, f^{(order)}` a line and, if ``degree`` is above 1, a polynomial of degree 2 or 3.

    The highest coefficients come from mean derivatives over the interval, the slope from the chord of what is left: the best
    line where that is convex or concave. The error e is evaluated on a grid, and bounded between two neighbours at distance
    h: with :math:`e'' \in [-p, q]` it is at most :math:`h^2 p / 8` above the larger and :math:`h^2 q / 8` below the smaller
    value; with only :math:`e' \in [-p, q]` known, at most :math:`h\, p q / (p + q)` beyond either, the tip between the steepest
    lines through both.
    """
    steps = torch.linspace(0, 1, GRID + 1, dtype=z.dtype).view(-1, *[1] * z.lo.ndim)
    grid = torch.minimum(z.lo + (z.hi - z.lo) * steps, z.hi)
    grid[-1] = z.hi
    jet = activation.jet(grid, min(order + 2, 3))
    result = []
    for k in range(order + 1):
        if activation.smooth:
            top = min(degree, len(jet) - k)
            known = min(k + 2, len(jet) - 1)
            result.append([_fit(activation, k, grid, center, jet, a, known, outward) for a in sorted({1, top})])
        elif k == 0:
            result.append([_fit(activation, k, grid, center, jet, 1, 1, outward)])
        else:
            result.append([_constant(jet[k], grid, center, outward)])
    return result


def _fit(
    activation: Activation,
    k: int,
    grid: Tensor,
    center: Tensor,
    jet: list[Tensor],
    degree: int,
    known: int,
    outward: bool,
) -> Fit:
    """Fit one polynomial to the k-th derivative; its error is bounded by the range of derivative number ``known``."""
    low, high = _cell_ranges(activation, known, jet[known], grid, outward)
    s, width, zero = grid - center, grid[-1] - grid[0], torch.zeros_like(center)
    cubic = _mean_slope(jet[k + 2], width) / 6 if degree > 2 else zero
    bend = 0.5 * _mean_slope(jet[k + 1], width) - 1.5 * cubic * (s[0] + s[-1]) if degree > 1 else zero
    values = jet[k] - s.square() * (bend + cubic * s)
    slopes = jet[k + 1] - s * (2 * bend + 3 * cubic * s)
    slope = torch.where(width > 0, (values[-1] - values[0]) / width, slopes[GRID // 2])
    slope = torch.minimum(torch.maximum(slope, slopes.amin(0)), slopes.amax(0))
    if known == k + 2:
        above, below = _sag(grid, low, high, 2 * bend + 6 * cubic * s)
    else:
        above = below = _tip(grid, low, high, slope + 2 * bend * s)
    error = values - slope * s
    upper = (torch.maximum(error[:-1], error[1:]) + above).amax(0)
    lower = (torch.minimum(error[:-1], error[1:]) - below).amin(0)
    margin = 0.5 * (upper - lower)
    if outward:
        ulps, absolute = jet_error(grid.dtype)
        size = (jet[k].abs() + s.square() * (bend.abs() + (cubic * s).abs()) + (slope * s).abs()).amax(0)
        size = size + slope.abs() * center.abs()
        margin = enlarge(margin, 16, True) + size * ((2 * ulps + 24) * torch.finfo(grid.dtype).eps) + 2 * absolute
    reach = enlarge(s.abs().amax(0), 2, outward)
    return Fit((0.5 * (upper + lower), slope, bend, cubic)[: degree + 1], margin, reach)


def _constant(values: Tensor, grid: Tensor, center: Tensor, outward: bool) -> Fit:
    """Fit a constant to a monotone function that jumps, as the slope of a kink does."""
    lo, hi = widen(values.amin(0), values.amax(0), outward)
    reach = enlarge((grid - center).abs().amax(0), 2, outward)
    return Fit((0.5 * (lo + hi), torch.zeros_like(lo)), enlarge(0.5 * (hi - lo), 2, outward), reach)


def _mean_slope(values: Tensor, width: Tensor) -> Tensor:
    """Return the mean over the interval of the derivative of what has these values on the grid; 0 for a point."""
    return torch.where(width > 0, (values[-1] - values[0]) / width, 0.0)


def _sag(grid: Tensor, low: Tensor, high: Tensor, removed: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far above and below its chord a function may go in each cell, given the range of its second derivative.

    What the fitted polynomial contributes, ``removed``, is linear in each cell: its extremes there are at the ends.
    """
    square = (grid[1:] - grid[:-1]).square()
    low = low - torch.maximum(removed[1:], removed[:-1])
    high = high - torch.minimum(removed[1:], removed[:-1])
    return square * (-low).clamp(min=0) / 8, square * high.clamp(min=0) / 8


def _tip(grid: Tensor, low: Tensor, high: Tensor, removed: Tensor) -> Tensor:
    """Return how far beyond its two end values a function may go in each cell, given the range of its first derivative."""
    fall = (torch.maximum(removed[1:], removed[:-1]) - low).clamp(min=0)
    rise = (high - torch.minimum(removed[1:], removed[:-1])).clamp(min=0)
    return (grid[1:] - grid[:-1]) * fall * rise / (fall + rise).clamp(min=torch.finfo(grid.dtype).tiny)


def _cell_ranges(activation: Activation, k: int, values: Tensor, grid: Tensor, outward: bool) -> tuple[Tensor, Tensor]:
    """Return the range of the k-th derivative between each two neighbours of the grid."""
    cells = Interval.unchecked(grid[:-1], grid[1:])
    extrema = activation_extrema(activation, k, grid.dtype)
    low, high = range_kernel(values[:-1], values[1:], cells, extrema, activation.period)
    return widen(low, high, outward, *jet_error(grid.dtype))
