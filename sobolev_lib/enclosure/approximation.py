r"""Lines with a margin: an activation over an interval, replaced by something that zonotopes can carry.

Any line will do, so its coefficients need no proof: it is fitted to the function's values by least squares on Chebyshev
points, which is close to the best uniform fit. What must be proved is the margin. The error e is evaluated on the grid,
and bounded between two neighbours at distance h: with :math:`e'' \in [-p, q]` it is at most :math:`h^2 p / 8` above the
larger and :math:`h^2 q / 8` below the smaller value; with only :math:`e' \in [-p, q]` known, at most
:math:`h\, p q / (p + q)` beyond either, the tip between the steepest lines through both. Chapter 6.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.enclosure.jets import activation_extrema, jet_error, range_kernel
from sobolev_lib.enclosure.rounding import enlarge, widen
from sobolev_lib.network.activations import Activation

CELLS = 24


class Line(NamedTuple):
    r"""A function around c: :math:`f(c + s) \in` ``offset`` + ``slope`` :math:`s \pm` ``margin`` over an interval."""

    offset: Tensor
    slope: Tensor
    margin: Tensor


def lines(activation: Activation, z: Interval, center: Tensor, order: int, outward: bool) -> list[Line]:
    r"""Fit a line to each of :math:`f, \dots, f^{(order)}` over z around ``center``."""
    grid = torch.lerp(z.lo, z.hi, _nodes(z.dtype).view(-1, *[1] * z.lo.ndim))
    grid = torch.minimum(torch.maximum(grid, z.lo), z.hi)
    grid[0], grid[-1] = z.lo, z.hi
    jet = activation.jet(grid, min(order + 2, 3))
    return [
        (_line if activation.smooth or not k else _constant)(activation, k, jet, grid, center, outward)
        for k in range(order + 1)
    ]


@cache
def _nodes(dtype: torch.dtype) -> Tensor:
    """Return the extreme points of a Chebyshev polynomial, from 0 to 1."""
    return 0.5 - 0.5 * torch.cos(torch.arange(CELLS + 1, dtype=dtype) * (math.pi / CELLS))


@cache
def _least_squares(dtype: torch.dtype) -> Tensor:
    """Return the matrix (2, nodes) from values on the nodes, moved to [-1, 1], to mean and slope."""
    t = 2 * _nodes(torch.float64) - 1
    return torch.linalg.pinv(torch.stack([torch.ones_like(t), t], 1)).to(dtype)


def _line(activation: Activation, k: int, jet: list[Tensor], grid: Tensor, center: Tensor, outward: bool) -> Line:
    """Fit a line to the k-th derivative, and bound its error by a further derivative, the highest that is known."""
    known = min(k + 2, len(jet) - 1) if activation.smooth else 1
    low, high = _cell_ranges(activation, known, jet[known], grid, outward)
    values, step = jet[k], grid[1:] - grid[:-1]
    offset, slope = _coefficients(values, jet[k + 1], grid, center)
    if known == k + 2:
        above, below = step.square() * (-low).clamp(min=0) / 8, step.square() * high.clamp(min=0) / 8
    else:
        fall, rise = (slope - low).clamp(min=0), (high - slope).clamp(min=0)
        above = below = step * fall * rise / (fall + rise).clamp(min=torch.finfo(grid.dtype).tiny)
    error = values - (offset + (grid - center) * slope)
    upper = (torch.maximum(error[:-1], error[1:]) + above).amax(0)
    lower = (torch.minimum(error[:-1], error[1:]) - below).amin(0)
    margin, middle = 0.5 * (upper - lower), 0.5 * (upper + lower)
    if outward:
        # Twice the error of the values; 32 units in the last place of all terms, more than the roundings of the line,
        # of its argument, of the differences and of the middle come to.
        ulps, absolute = jet_error(activation, k, grid.dtype)
        reach = (grid - center).abs().amax(0)
        size = values.abs().amax(0) + offset.abs() + reach * slope.abs() + middle.abs()
        size = size + slope.abs() * (center.abs() + grid.abs().amax(0))
        margin = enlarge(margin, 32, True) + size * ((2 * ulps + 32) * torch.finfo(grid.dtype).eps) + 2 * absolute
    return Line(offset + middle, slope, margin)


def _coefficients(values: Tensor, slopes: Tensor, grid: Tensor, center: Tensor) -> tuple[Tensor, Tensor]:
    """Return value at ``center`` and slope of a least-squares fit; for next to nothing, of the tangent."""
    middle, radius = 0.5 * (grid[0] + grid[-1]), 0.5 * (grid[-1] - grid[0])
    small = radius <= 1e-8 * (1 + middle.abs())
    mean, slope = torch.tensordot(_least_squares(values.dtype), values, 1)
    slope = torch.where(small, slopes[CELLS // 2], slope / torch.where(small, 1.0, radius))
    return torch.where(small, values[CELLS // 2], mean) + (center - middle) * slope, slope


def _constant(activation: Activation, k: int, jet: list[Tensor], grid: Tensor, center: Tensor, outward: bool) -> Line:
    """Fit a constant to a function that jumps, as the slope of a kink does."""
    low, high = _cell_ranges(activation, k, jet[k], grid, outward)
    lo, hi = low.amin(0), high.amax(0)
    return Line(0.5 * (lo + hi), torch.zeros_like(lo), enlarge(0.5 * (hi - lo), 4, outward))


def _cell_ranges(activation: Activation, k: int, values: Tensor, grid: Tensor, outward: bool) -> tuple[Tensor, Tensor]:
    """Return the range of the k-th derivative between each two neighbours of the grid."""
    cells = Interval.unchecked(grid[:-1], grid[1:])
    extrema = activation_extrema(activation, k, grid.dtype)
    low, high = range_kernel(values[:-1], values[1:], cells, extrema, activation.period)
    return widen(low, high, outward, *jet_error(activation, k, grid.dtype))
