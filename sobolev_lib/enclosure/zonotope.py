r"""Zonotopes: enclosures that remember where their uncertainty comes from.

A zonotope over m coordinates is the set of :math:`c + G^T \eta + r \circ \zeta`: a center c (n, m), generators G
(n, k, m) of symbols :math:`\eta_k \in [-1, 1]`, the first of which are the inputs, and a rest r (n, m) >= 0, one
symbol for each coordinate. Affine maps are exact, so what cancels in the network cancels in the enclosure. A
nonlinearity is replaced by a line (module ``approximation``), what that misses goes into the rest, and the next affine
map turns each rest into a generator of its own.

Symbols are aligned by position: the same row of two zonotopes of one sweep is the same symbol. So products of what
two factors have in common need not be bounded as if they were independent.

Rounding: what an operation may lose is bounded and put into the rest too, so each result contains the exact image
of its arguments. Chapter 6 derives the operations (affine arithmetic: de Figueiredo & Stolfi, Numerical Algorithms
37, 2004; for networks: Singh et al., *Fast and effective robustness certification*, NeurIPS 2018).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sobolev_lib.enclosure.approximation import Line
from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.enclosure.rounding import enlarge, gamma, widen


class Zonotope(NamedTuple):
    """Center (n, m), generators (n, k, m) and rest (n, m) >= 0."""

    center: Tensor
    generators: Tensor
    rest: Tensor

    @property
    def rows(self) -> int:
        """Number of generators."""
        return self.generators.shape[1]

    def radius(self) -> Tensor:
        """Return the sum of absolute values of all generators and the rest, (n, m)."""
        return self.generators.abs().sum(1) + self.rest


def from_box(box: Interval, outward: bool) -> Zonotope:
    """Return the zonotope of a box (n, d): one symbol for each input."""
    form = from_interval(box, outward)
    return Zonotope(form.center, torch.diag_embed(form.rest), torch.zeros_like(form.rest))


def from_interval(x: Interval, outward: bool, rows: int = 0) -> Zonotope:
    """Return the zonotope of intervals (n, m) whose uncertainty is no one else's, behind ``rows`` symbols of others."""
    center = 0.5 * x.lo + 0.5 * x.hi
    radius = enlarge(torch.maximum(center - x.lo, x.hi - center), 1, outward)
    return Zonotope(center, center.new_zeros(len(center), rows, center.shape[1]), radius)


def enclosure(x: Zonotope, outward: bool) -> Interval:
    """Return intervals around the zonotope."""
    radius = enlarge(x.radius(), x.rows + 1, outward)
    return Interval.unchecked(*widen(x.center - radius, x.center + radius, outward))


def affine_image(weight: Tensor, magnitude: Tensor, bias: Tensor | None, x: Zonotope, outward: bool) -> Zonotope:
    """Return W x + b; the rest of x becomes generators, the rest of the result is what rounding may have lost."""
    center = x.center @ weight.T
    center = center if bias is None else center + bias
    mixed = torch.cat([x.generators @ weight.T, x.rest.unsqueeze(-1) * weight.T], dim=1)
    if not outward:
        return Zonotope(center, mixed, torch.zeros_like(center))
    terms = weight.shape[1] + 8
    lost = enlarge(x.center.abs() + x.radius(), x.rows + 2, True) @ magnitude.T
    lost = lost if bias is None else lost + bias.abs()
    floor = mixed.shape[1] * terms * torch.finfo(center.dtype).tiny
    return Zonotope(center, mixed, enlarge(lost, terms, True) * gamma(terms, center.dtype) + floor)


def image(line: Line, x: Zonotope, outward: bool) -> Zonotope:
    """Return the zonotope of a function of x, given a line around ``x.center`` over the range of x."""
    slope = line.slope.abs()
    rest = slope * x.rest + line.margin
    if outward:  # two roundings of each generator
        rest = enlarge(rest + slope * x.radius() * gamma(8, rest.dtype), x.rows + 64, True)
    return Zonotope(line.offset, line.slope.unsqueeze(1) * x.generators, rest)


def product(x: Zonotope, y: Zonotope, x_range: Interval, y_range: Interval, outward: bool) -> Zonotope:
    r"""Return the zonotope of the elementwise product, given intervals that contain the factors.

    With :math:`x = x_0 + \xi, y = y_0 + \upsilon` the product is
    :math:`x_0 y_0 + y_0 \xi + x_0 \upsilon + \xi \upsilon`, and only the last term is hard. A symbol that the
    factors share contributes :math:`x_k y_k \eta_k^2` with :math:`\eta_k^2 \in [0, 1]`; what is left goes into the
    rest. Where the range of :math:`\xi \upsilon`, from the ranges of the factors, is smaller, it is taken instead.
    """
    long, short = (y, x) if y.rows >= x.rows else (x, y)
    shared = short.rows
    generators = long.generators * short.center.unsqueeze(1)
    generators[:, :shared] += short.generators * long.center.unsqueeze(1)
    common = x.generators[:, :shared] * y.generators[:, :shared]
    x_radius, y_radius = x.radius(), y.radius()
    shift, radius = 0.5 * common.sum(1), x_radius * y_radius - 0.5 * common.abs().sum(1)
    low, high = _range_product(
        [(end - x.center).clamp(-x_radius, x_radius) for end in (x_range.lo, x_range.hi)],
        [(end - y.center).clamp(-y_radius, y_radius) for end in (y_range.lo, y_range.hi)],
    )
    by_range = 0.5 * (high - low) < radius
    shift, radius = torch.where(by_range, 0.5 * (low + high), shift), torch.where(by_range, 0.5 * (high - low), radius)
    center = x.center * y.center + shift
    rest = radius.clamp(min=0) + x.center.abs() * y.rest + y.center.abs() * x.rest
    if outward:
        terms = x.rows + y.rows + 64
        linear = x.center.abs() * (y.center.abs() + y_radius) + y.center.abs() * x_radius + shift.abs()
        lost = linear * gamma(8, center.dtype) + x_radius * y_radius * gamma(terms, center.dtype)
        rest = enlarge(rest + lost, terms, True)
    return Zonotope(center, generators, rest)


def _range_product(xi: list[Tensor], upsilon: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the range of the product of two deviations, each given by its ends."""
    products = torch.stack([a * b for a in xi for b in upsilon])
    return products.amin(0), products.amax(0)


def total(x: Zonotope, y: Zonotope, outward: bool) -> Zonotope:
    """Return the zonotope of x + y."""
    long, short = (y, x) if y.rows >= x.rows else (x, y)
    generators = long.generators.clone()
    generators[:, : short.rows] += short.generators
    center, rest = x.center + y.center, x.rest + y.rest
    if outward:
        size = x.center.abs() + y.center.abs() + x.radius() + y.radius()
        rest = enlarge(rest + size * gamma(4, center.dtype), generators.shape[1] + 8, True)
    return Zonotope(center, generators, rest)
