r"""Polynomials with a margin: an activation over an interval, replaced by something that zonotopes can carry.

Any polynomial will do, so its coefficients need no proof: they are fitted to the function's values by least squares
on Chebyshev points, which is close to the best uniform fit. What must be proved is the margin. The error e is
evaluated on the grid, and bounded between two neighbours at distance h: with :math:`e'' \in [-p, q]` it is at most
:math:`h^2 p / 8` above the larger and :math:`h^2 q / 8` below the smaller value; with only :math:`e' \in [-p, q]`
known, at most :math:`h\, p q / (p + q)` beyond either, the tip between the steepest lines through both. Chapter 6.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.enclosure.jets import activation_extrema, jet_error, range_kernel
from sobolev_lib.enclosure.rounding import enlarge, widen
from sobolev_lib.network.activations import Activation

CELLS = 24


@dataclass(frozen=True, eq=False)
class Fit:
    r"""A function around c: :math:`f(c + s) \in \sum_i \kappa_i s^i \pm \delta` for :math:`|s| \le` ``reach``.

    ``powers[i]`` is :math:`\kappa_i`, ``margin`` is :math:`\delta`.
    """

    powers: list[Tensor]
    margin: Tensor
    reach: Tensor


def fits(
    activation: Activation, z: Interval, center: Tensor, order: int, degree: int, outward: bool
) -> list[list[Fit]]:
    r"""Fit each of :math:`f, \dots, f^{(order)}` over z around ``center``: a line and, above degree 1, a polynomial."""
    grid = torch.lerp(z.lo, z.hi, _nodes(z.dtype).view(-1, *[1] * z.lo.ndim))
    grid = torch.minimum(torch.maximum(grid, z.lo), z.hi)
    grid[0], grid[-1] = z.lo, z.hi
    jet = activation.jet(grid, min(order + 2, 3))
    result = []
    for k in range(order + 1):
        if k and not activation.smooth:
            result.append([_constant(activation, k, jet[k], grid, center, outward)])
            continue
        known = min(k + 2, len(jet) - 1) if activation.smooth else 1  # the derivative that bounds the error
        low, high = _cell_ranges(activation, known, jet[known], grid, outward)
        degrees = (1, degree) if degree > 1 and activation.smooth else (1,)
        error = jet_error(activation, k, grid.dtype) if outward else None
        result.append([_fit(jet, k, known, low, high, grid, center, a, error) for a in degrees])
    return result


@cache
def _nodes(dtype: torch.dtype) -> Tensor:
    """Return the extreme points of a Chebyshev polynomial, from 0 to 1."""
    return 0.5 - 0.5 * torch.cos(torch.arange(CELLS + 1, dtype=dtype) * (math.pi / CELLS))


@cache
def _least_squares(degree: int, dtype: torch.dtype) -> Tensor:
    """Return the matrix (degree + 1, nodes) from values on the nodes, moved to [-1, 1], to coefficients."""
    t = 2 * _nodes(torch.float64) - 1
    return torch.linalg.pinv(torch.stack([t**i for i in range(degree + 1)], 1)).to(dtype)


def _fit(jet, k: int, known: int, low: Tensor, high: Tensor, grid: Tensor, center: Tensor, degree: int, rounded):
    """Fit one polynomial to the k-th derivative; derivative number ``known`` lies in [low, high] in each cell.

    ``rounded`` says how far the values may be off, see ``jet_error``; None for rounding to nearest.
    """
    values, s = jet[k], grid - center
    powers = _coefficients(values, jet[k + 1], grid, center, degree)
    removed = powers
    for _ in range(known - k):
        removed = _derivative(removed)
    curvature = _derivative(_derivative(removed))
    reach = s.abs().amax(0)
    step = grid[1:] - grid[:-1]
    ends, sag = _value(removed, s), step.square() * _value([c.abs() for c in curvature], reach) / 8
    fall = (torch.maximum(ends[1:], ends[:-1]) + sag - low).clamp(min=0)
    rise = (high - torch.minimum(ends[1:], ends[:-1]) + sag).clamp(min=0)
    if known == k + 2:
        above, below = step.square() * fall / 8, step.square() * rise / 8
    else:
        above = below = step * fall * rise / (fall + rise).clamp(min=torch.finfo(grid.dtype).tiny)
    error = values - _value(powers, s)
    upper = (torch.maximum(error[:-1], error[1:]) + above).amax(0)
    lower = (torch.minimum(error[:-1], error[1:]) - below).amin(0)
    margin, middle = 0.5 * (upper - lower), 0.5 * (upper + lower)
    if rounded:
        # Twice the error of the values; 32 units in the last place of all terms for Horner's rule (2 per degree, of
        # half a unit each), the rounding of s (half a unit, times the degree), of the differences and the middle.
        ulps, absolute = rounded
        size = values.abs().amax(0) + _value([c.abs() for c in powers], reach) + middle.abs()
        size = size + powers[1].abs() * (center.abs() + grid.abs().amax(0))
        margin = enlarge(margin, 32, True) + size * ((2 * ulps + 32) * torch.finfo(grid.dtype).eps) + 2 * absolute
    return Fit([powers[0] + middle, *powers[1:]], margin, enlarge(reach, 2, rounded is not None))


def _coefficients(values: Tensor, slopes: Tensor, grid: Tensor, center: Tensor, degree: int) -> list[Tensor]:
    """Return the powers of a least-squares fit around ``center``; for next to nothing, of the tangent."""
    middle, radius = 0.5 * (grid[0] + grid[-1]), 0.5 * (grid[-1] - grid[0])
    small = radius <= 1e-8 * (1 + middle.abs())
    radius = torch.where(small, 1.0, radius)
    matrix = _least_squares(degree, values.dtype)
    scaled = torch.tensordot(matrix, values, 1)
    powers = [torch.where(small, 0.0, scaled[i] / radius**i) for i in range(degree + 1)]
    half = CELLS // 2
    powers[0] = torch.where(small, values[half], powers[0])
    powers[1] = torch.where(small, slopes[half], powers[1])
    shift = center - middle
    for i in range(degree):  # from powers of z - middle to powers of z - center, by repeated synthetic division
        for j in range(degree - 1, i - 1, -1):
            powers[j] = powers[j] + shift * powers[j + 1]
    return powers


def _derivative(powers: list[Tensor]) -> list[Tensor]:
    return [i * c for i, c in enumerate(powers)][1:] or [torch.zeros_like(powers[0])]


def _value(powers: list[Tensor], s: Tensor) -> Tensor:
    result = powers[-1]
    for c in reversed(powers[:-1]):
        result = c + s * result
    return result.expand_as(s)


def _constant(activation: Activation, k: int, values: Tensor, grid: Tensor, center: Tensor, outward: bool) -> Fit:
    """Fit a constant to a function that jumps, as the slope of a kink does."""
    low, high = _cell_ranges(activation, k, values, grid, outward)
    lo, hi = low.amin(0), high.amax(0)
    reach = enlarge((grid - center).abs().amax(0), 2, outward)
    return Fit([0.5 * (lo + hi), torch.zeros_like(lo)], enlarge(0.5 * (hi - lo), 4, outward), reach)


def _cell_ranges(activation: Activation, k: int, values: Tensor, grid: Tensor, outward: bool) -> tuple[Tensor, Tensor]:
    """Return the range of the k-th derivative between each two neighbours of the grid."""
    cells = Interval.unchecked(grid[:-1], grid[1:])
    extrema = activation_extrema(activation, k, grid.dtype)
    low, high = range_kernel(values[:-1], values[1:], cells, extrema, activation.period)
    return widen(low, high, outward, *jet_error(activation, k, grid.dtype))
