r"""Lines and parabolas with a margin: an activation over an interval, replaced by something that zonotopes can carry.

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
class Line:
    r"""Two enclosures of a function over an interval around c: :math:`f(z) \in \alpha z + \beta \pm \delta`, and one with a bend.

    Attributes:
        slope, offset, margin: :math:`\alpha, \beta, \delta`.
        bend: :math:`\kappa` in :math:`f(z) \in \kappa (z - c)^2 + \alpha' z + \beta' \pm \delta'`.
        curved_slope, curved_offset, curved_margin: :math:`\alpha', \beta', \delta'`.
    """

    slope: Tensor
    offset: Tensor
    margin: Tensor
    bend: Tensor
    curved_slope: Tensor
    curved_offset: Tensor
    curved_margin: Tensor


def lines(activation: Activation, z: Interval, center: Tensor, order: int, outward: bool) -> list[Line]:
    r"""Return lines and parabolas around ``center`` for :math:`f, \dots, f^{(order)}` over z, order 1 or 2.

    The slope is that of the chord, the best one where the function is convex or concave, the bend half the mean second
    derivative. The error e of either is evaluated on a grid, and bounded between two neighbours at distance h: with
    :math:`e'' \in [-p, q]` it is at most :math:`h^2 p / 8` above the larger and :math:`h^2 q / 8` below the smaller value; with
    only :math:`e' \in [-p, q]` known, at most :math:`h\, p q / (p + q)` beyond either, the tip between the steepest lines.
    """
    steps = torch.linspace(0, 1, GRID + 1, dtype=z.dtype).view(-1, *[1] * z.lo.ndim)
    grid = torch.minimum(z.lo + (z.hi - z.lo) * steps, z.hi)
    grid[-1] = z.hi
    jet = activation.jet(grid, min(order + 2, 3))
    line = _smooth_line if activation.smooth else _rough_line
    return [line(activation, k, grid, center, jet, outward) for k in range(order + 1)]


def _smooth_line(activation: Activation, k: int, grid: Tensor, center: Tensor, jet: list[Tensor], outward: bool) -> Line:
    values, slopes, shifted = jet[k], jet[k + 1], grid - center
    second = k + 2 < len(jet)
    low, high = _cell_ranges(activation, k + 1 + second, jet[k + 1 + second], grid, outward)
    straight = _fit(grid, values, slopes, (low, high), second, values.abs().amax(0), outward)
    width = grid[-1] - grid[0]
    bend = torch.where(width > 0, 0.5 * (slopes[-1] - slopes[0]) / width, 0.0)
    square, tilt = bend * shifted.square(), 2 * bend * shifted
    size = values.abs().amax(0) + 8 * square.abs().amax(0)
    turn = (2 * bend, 2 * bend) if second else (torch.maximum(tilt[1:], tilt[:-1]), torch.minimum(tilt[1:], tilt[:-1]))
    derivative = (low - turn[0], high - turn[1])
    return Line(*straight, bend, *_fit(grid, values - square, slopes - tilt, derivative, second, size, outward))


def _rough_line(activation: Activation, k: int, grid: Tensor, center: Tensor, jet: list[Tensor], outward: bool) -> Line:
    """Return a line for a function with a kink, and a constant for its slope, which jumps."""
    values, slopes = jet[k], jet[k + 1]
    if k == 0:
        derivative = _cell_ranges(activation, 1, slopes, grid, outward)
        straight = _fit(grid, values, slopes, derivative, False, values.abs().amax(0), outward)
    else:
        lo, hi = widen(values.amin(0), values.amax(0), outward)
        straight = (torch.zeros_like(lo), 0.5 * (lo + hi), enlarge(0.5 * (hi - lo), 2, outward))
    return Line(*straight, torch.zeros_like(center), *straight)


def _fit(
    grid: Tensor,
    values: Tensor,
    slopes: Tensor,
    derivative: tuple[Tensor, Tensor],
    second: bool,
    size: Tensor,
    outward: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return slope, offset and margin, given the range of the first or second derivative in each cell of the grid."""
    width, step, (low, high) = grid[-1] - grid[0], grid[1:] - grid[:-1], derivative
    slope = torch.where(width > 0, (values[-1] - values[0]) / width, slopes[GRID // 2])
    slope = torch.minimum(torch.maximum(slope, slopes.amin(0)), slopes.amax(0))
    if second:
        above, below = ((step * step * p.clamp(min=0)) / 8 for p in (-low, high))
    else:
        fall, rise = (slope - low).clamp(min=0), (high - slope).clamp(min=0)
        above = below = step * fall * rise / (fall + rise).clamp(min=torch.finfo(grid.dtype).tiny)
    error = values - slope * grid
    upper = (torch.maximum(error[:-1], error[1:]) + above).amax(0)
    lower = (torch.minimum(error[:-1], error[1:]) - below).amin(0)
    offset, margin = 0.5 * (upper + lower), 0.5 * (upper - lower)
    if outward:
        ulps, absolute = jet_error(grid.dtype)
        size = size + slope.abs() * torch.maximum(grid[0].abs(), grid[-1].abs())
        margin = enlarge(margin, 16, True) + size * ((2 * ulps + 8) * torch.finfo(grid.dtype).eps) + 2 * absolute
    return slope, offset, margin


def _cell_ranges(activation: Activation, k: int, values: Tensor, grid: Tensor, outward: bool) -> tuple[Tensor, Tensor]:
    """Return the range of the k-th derivative between each two neighbours of the grid."""
    cells = Interval.unchecked(grid[:-1], grid[1:])
    extrema = activation_extrema(activation, k, grid.dtype)
    low, high = range_kernel(values[:-1], values[1:], cells, extrema, activation.period)
    return widen(low, high, outward, *jet_error(grid.dtype))
