r"""Zonotopes: affine forms that remember where their uncertainty comes from.

A zonotope over m coordinates is the set of :math:`c + G^T \varepsilon + r \circ \eta` with all noise symbols
:math:`\varepsilon_k, \eta_j \in [-1, 1]`: ``center`` c (n, m), ``generators`` G (n, k, m), and ``rest`` r (n, m), one symbol of its own for
each coordinate. Affine maps are exact, so what cancels in the network cancels in the enclosure. A nonlinearity is replaced by
the best straight line over its interval, and what the line misses goes into ``rest``; the next affine map turns each ``rest``
into a generator of its own.

Symbols are aligned by position: two zonotopes of one sweep share the symbols of their first rows.

Rounding: what an operation may lose is bounded and put into ``rest`` too, so each result contains the exact image of its
arguments. Chapter 6 derives the operations (affine arithmetic: de Figueiredo & Stolfi, Numerical Algorithms 37, 2004;
for networks: Singh et al., *Fast and effective robustness certification*, NeurIPS 2018).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib.activations import Activation
from sobolev_lib.elementary import activation_extrema, jet_error, range_kernel
from sobolev_lib.interval import Interval
from sobolev_lib.rounding import enlarge, gamma, widen

GRID = 12


@dataclass(frozen=True, eq=False)
class Zonotope:
    """Center (n, m), generators (n, k, m) and a rest (n, m) >= 0 of independent symbols."""

    center: Tensor
    generators: Tensor
    rest: Tensor

    @property
    def spread(self) -> Tensor:
        """Sum of the generators' absolute values, (n, m), as computed."""
        return self.generators.abs().sum(1)


@dataclass(frozen=True, eq=False)
class Line:
    r"""A straight line with a margin: :math:`f(z) \in \alpha z + \beta \pm \delta` over the interval it was made for."""

    slope: Tensor
    offset: Tensor
    margin: Tensor


def from_box(box: Interval, outward: bool) -> Zonotope:
    """Return the zonotope of a box (n, d): one symbol for each input."""
    center = 0.5 * box.lo + 0.5 * box.hi
    radius = enlarge(torch.maximum(center - box.lo, box.hi - center), 1, outward)
    return Zonotope(center, torch.diag_embed(radius), torch.zeros_like(center))


def from_interval(x: Interval, outward: bool) -> Zonotope:
    """Return the zonotope of intervals (n, m) whose uncertainty is no one else's."""
    center = 0.5 * x.lo + 0.5 * x.hi
    radius = enlarge(torch.maximum(center - x.lo, x.hi - center), 1, outward)
    return Zonotope(center, center.new_zeros(len(center), 0, center.shape[1]), radius)


def enclosure(x: Zonotope, outward: bool) -> Interval:
    """Return the smallest intervals around the zonotope."""
    radius = enlarge(x.spread + x.rest, x.generators.shape[1] + 1, outward)
    return Interval.unchecked(*widen(x.center - radius, x.center + radius, outward))


def affine_image(weight: Tensor, magnitude: Tensor, bias: Tensor | None, x: Zonotope, outward: bool) -> Zonotope:
    """Return W x + b; the rest of x becomes generators, the rest of the result is what rounding may have lost."""
    center = x.center @ weight.T
    center = center if bias is None else center + bias
    mixed = torch.cat([x.generators @ weight.T, x.rest.unsqueeze(-1) * weight.T], dim=1)
    if not outward:
        return Zonotope(center, mixed, torch.zeros_like(center))
    terms = weight.shape[1] + 8
    size = enlarge(x.center.abs() + x.spread + x.rest, x.generators.shape[1] + 2, True)
    lost = size @ magnitude.T
    lost = lost if bias is None else lost + bias.abs()
    rows = x.generators.shape[1] + weight.shape[1]
    lost = enlarge(lost, terms, True) * gamma(terms, center.dtype) + rows * terms * torch.finfo(center.dtype).tiny
    return Zonotope(center, mixed, lost)


def lines(activation: Activation, z: Interval, order: int, outward: bool) -> list[Line]:
    r"""Return a line for each of :math:`f, \dots, f^{(order)}` over z.

    The slope is that of the chord, the best one where the function is convex or concave. The error
    :math:`e(z) = f(z) - \alpha z` is evaluated on a grid; between two grid points at distance h, with
    :math:`e' \in [-p, q]`, it exceeds the larger of both values by at most :math:`h\, p q / (p + q)` (the tip of the triangle
    between the steepest lines through both), and that shrinks like :math:`h^2`.
    """
    steps = torch.linspace(0, 1, GRID + 1, dtype=z.dtype).view(-1, *[1] * z.lo.ndim)
    grid = torch.minimum(z.lo + (z.hi - z.lo) * steps, z.hi)
    grid[-1] = z.hi
    jet = activation.jet(grid, order + 1)
    cells = Interval.unchecked(grid[:-1], grid[1:])
    return [_line(activation, k, grid, jet, cells, outward) for k in range(order + 1)]


def _line(activation: Activation, k: int, grid: Tensor, jet: list[Tensor], cells: Interval, outward: bool) -> Line:
    values, slopes = jet[k], jet[k + 1]
    width = grid[-1] - grid[0]
    slope = torch.where(width > 0, (values[-1] - values[0]) / width, slopes[GRID // 2])
    slope = torch.minimum(torch.maximum(slope, slopes.amin(0)), slopes.amax(0))
    extrema = activation_extrema(activation, k + 1, grid.dtype)
    least, most = range_kernel(slopes[:-1], slopes[1:], cells, extrema, activation.period)
    least, most = widen(least, most, outward, *jet_error(grid.dtype))
    fall, rise = (slope - least).clamp(min=0), (most - slope).clamp(min=0)
    tip = (cells.hi - cells.lo) * fall * rise / (fall + rise).clamp(min=torch.finfo(grid.dtype).tiny)
    error = values - slope * grid
    upper = (torch.maximum(error[:-1], error[1:]) + tip).amax(0)
    lower = (torch.minimum(error[:-1], error[1:]) - tip).amin(0)
    offset, margin = 0.5 * (upper + lower), 0.5 * (upper - lower)
    if outward:
        ulps, absolute = jet_error(grid.dtype)
        size = values.abs().amax(0) + slope.abs() * torch.maximum(grid[0].abs(), grid[-1].abs()) + margin
        margin = enlarge(margin, 8, True) + size * ((2 * ulps + 8) * torch.finfo(grid.dtype).eps) + 2 * absolute
    return Line(slope, offset, margin)


def image(line: Line, x: Zonotope, outward: bool) -> Zonotope:
    """Return the zonotope of f(x) for the line of f over the range of x."""
    center = line.slope * x.center + line.offset
    rest = line.slope.abs() * x.rest + line.margin
    if outward:
        lost = 4 * torch.finfo(center.dtype).eps * (line.slope.abs() * (x.center.abs() + x.spread) + line.offset.abs())
        rest = enlarge(rest + lost, x.generators.shape[1] + 6, True)
    return Zonotope(center, line.slope.unsqueeze(1) * x.generators, rest)


def product(x: Zonotope, y: Zonotope, x_range: Interval, y_range: Interval, outward: bool) -> Zonotope:
    r"""Return the zonotope of the elementwise product, given intervals that contain the factors.

    With :math:`x = x_0 + \xi, y = y_0 + \upsilon` the product is :math:`x_0 y_0 + y_0 \xi + x_0 \upsilon + \xi \upsilon`. Only the last
    term is not affine; two enclosures of it are intersected: from the ranges of both factors, and from the symbols they
    share, :math:`\xi\upsilon = \sum_k x_k y_k \varepsilon_k^2 + \dots` with :math:`\varepsilon_k^2 \in [0, 1]`.
    """
    shared = min(x.generators.shape[1], y.generators.shape[1])
    long, short = (y, x) if y.generators.shape[1] >= x.generators.shape[1] else (x, y)
    generators = long.generators * short.center.unsqueeze(1)
    generators[:, :shared] += short.generators * long.center.unsqueeze(1)
    common = x.generators[:, :shared] * y.generators[:, :shared]
    half, total = 0.5 * common.sum(1), 0.5 * common.abs().sum(1)
    x_radius, y_radius = x.spread + x.rest, y.spread + y.rest
    radius = x_radius * y_radius - total
    by_range = _range_product(
        [(end - x.center).clamp(-x_radius, x_radius) for end in (x_range.lo, x_range.hi)],
        [(end - y.center).clamp(-y_radius, y_radius) for end in (y_range.lo, y_range.hi)],
    )
    low, high = torch.fmax(half - radius, by_range[0]), torch.fmin(half + radius, by_range[1])
    shift, radius = 0.5 * (low + high), 0.5 * (high - low).clamp(min=0)
    center = x.center * y.center + shift
    rest = radius + x.center.abs() * y.rest + y.center.abs() * x.rest
    if outward:
        rows = x.generators.shape[1] + y.generators.shape[1] + 8
        size = (x.center.abs() + x_radius) * (y.center.abs() + y_radius)
        rest = enlarge(rest + size * gamma(2 * rows + 32, center.dtype), 2 * rows + 32, True)
    return Zonotope(center, generators, rest)


def _range_product(xi: list[Tensor], upsilon: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the range of the product of two deviations, each given by its ends."""
    products = torch.stack([a * b for a in xi for b in upsilon])
    return products.amin(0), products.amax(0)


def total(x: Zonotope, y: Zonotope, outward: bool) -> Zonotope:
    """Return the zonotope of x + y."""
    long, short = (y, x) if y.generators.shape[1] >= x.generators.shape[1] else (x, y)
    generators = long.generators.clone()
    generators[:, : short.generators.shape[1]] += short.generators
    center, rest = x.center + y.center, x.rest + y.rest
    if outward:
        size = x.center.abs() + x.spread + y.center.abs() + y.spread
        terms = generators.shape[1] + 8
        rest = enlarge(rest + size * gamma(terms, center.dtype), terms, True)
    return Zonotope(center, generators, rest)
