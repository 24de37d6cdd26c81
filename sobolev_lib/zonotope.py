r"""Zonotopes: affine forms that remember where their uncertainty comes from, to second order in the inputs.

A zonotope over m coordinates is the set of :math:`c + G^T \varepsilon + r \circ \eta` with all noise symbols
:math:`\varepsilon_k, \eta_j \in [-1, 1]`: ``center`` c (n, m), ``generators`` G (n, k, m), and ``rest`` r (n, m), one symbol of its
own for each coordinate. Affine maps are exact, so what cancels in the network cancels in the enclosure. A nonlinearity is
replaced by a polynomial, and what that misses goes into ``rest``; the next affine map turns each ``rest`` into a generator.

Symbols are aligned by position, the same row of two zonotopes of one sweep is the same symbol. The first d rows belong to the
inputs. With ``inputs = d > 0`` the next :math:`d (d + 1) / 2` rows belong to their products: :math:`2 \varepsilon_j^2 - 1` for each j, then
:math:`\varepsilon_j \varepsilon_k` for j < k. They lie in [-1, 1] like all others, so every rule for symbols holds for them; but products
of what is linear in the inputs need not go into ``rest``, and what does is of third order in the size of the box.

Rounding: what an operation may lose is bounded and put into ``rest`` too, so each result contains the exact image of its
arguments. Chapter 6 derives the operations (affine arithmetic: de Figueiredo & Stolfi, Numerical Algorithms 37, 2004; for
networks: Singh et al., *Fast and effective robustness certification*, NeurIPS 2018; dependent symbols: Kochdumper & Althoff,
*Sparse polynomial zonotopes*, IEEE TAC 66, 2021).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sobolev_lib.interval import Interval
from sobolev_lib.line import Line
from sobolev_lib.rounding import enlarge, gamma, widen


@dataclass(frozen=True, eq=False)
class Zonotope:
    """Center (n, m), generators (n, k, m), rest (n, m) >= 0 and the number of inputs whose products have rows."""

    center: Tensor
    generators: Tensor
    rest: Tensor
    inputs: int = 0

    @property
    def spread(self) -> Tensor:
        """Sum of the generators' absolute values, (n, m), as computed."""
        return self.generators.abs().sum(1)

    @property
    def rows(self) -> int:
        """Number of generators."""
        return self.generators.shape[1]


def from_box(box: Interval, outward: bool, quadratic: bool) -> Zonotope:
    """Return the zonotope of a box (n, d): one symbol for each input, and rows for their products if asked for."""
    form = from_interval(box, outward)
    linear = torch.diag_embed(form.rest)
    n, d = form.center.shape
    rows = d * (d + 1) // 2 if quadratic else 0
    generators = torch.cat([linear, linear.new_zeros(n, rows, d)], 1)
    return Zonotope(form.center, generators, torch.zeros_like(form.rest), d if quadratic else 0)


def from_interval(x: Interval, outward: bool) -> Zonotope:
    """Return the zonotope of intervals (n, m) whose uncertainty is no one else's."""
    center = 0.5 * x.lo + 0.5 * x.hi
    radius = enlarge(torch.maximum(center - x.lo, x.hi - center), 1, outward)
    return Zonotope(center, center.new_zeros(len(center), 0, center.shape[1]), radius)


def padded(x: Zonotope, rows: int) -> Zonotope:
    """Return the same zonotope with zero generators added up to ``rows``."""
    n, k, m = x.generators.shape
    return replace(x, generators=torch.cat([x.generators, x.generators.new_zeros(n, rows - k, m)], 1))


def enclosure(x: Zonotope, outward: bool) -> Interval:
    r"""Return intervals around the zonotope.

    With rows for products, each :math:`g \varepsilon + h (2 \varepsilon^2 - 1)` is a parabola, whose range is narrower than
    :math:`\pm (|g| + |h|)`: its far end is there, the near end is :math:`|h| - |g|` or, if the vertex lies inside, the vertex.
    """
    d = x.inputs
    radius = enlarge(x.spread + x.rest, x.rows + 1, outward)
    low = high = radius
    if d and x.rows:
        linear, bend = x.generators[:, :d].abs(), x.generators[:, d : 2 * d]
        size = bend.abs()
        inside = linear < 4 * size
        saved = torch.where(inside, linear - linear.square() / (8 * size), 2 * size)  # how much nearer than -|g| - |h|
        saved = saved * (1 - 16 * torch.finfo(saved.dtype).eps)
        low = radius - torch.where(bend > 0, saved, 0.0).sum(1)
        high = radius - torch.where(bend < 0, saved, 0.0).sum(1)
        low, high = (side + radius * gamma(d + 4, side.dtype) if outward else side for side in (low, high))
    return Interval.unchecked(*widen(x.center - low, x.center + high, outward))


def affine_image(weight: Tensor, magnitude: Tensor, bias: Tensor | None, x: Zonotope, outward: bool) -> Zonotope:
    """Return W x + b; the rest of x becomes generators, the rest of the result is what rounding may have lost."""
    center = x.center @ weight.T
    center = center if bias is None else center + bias
    mixed = torch.cat([x.generators @ weight.T, x.rest.unsqueeze(-1) * weight.T], dim=1)
    if not outward:
        return Zonotope(center, mixed, torch.zeros_like(center), x.inputs)
    terms = weight.shape[1] + 8
    size = enlarge(x.center.abs() + x.spread + x.rest, x.rows + 2, True)
    lost = size @ magnitude.T
    lost = lost if bias is None else lost + bias.abs()
    floor = mixed.shape[1] * terms * torch.finfo(center.dtype).tiny
    return Zonotope(center, mixed, enlarge(lost, terms, True) * gamma(terms, center.dtype) + floor, x.inputs)


def image(line: Line, x: Zonotope, outward: bool) -> Zonotope:
    r"""Return the zonotope of f(x) for a line or parabola of f over the range of x, centred at ``x.center``.

    With x = c + l + (the rest), l linear in the inputs, the square :math:`(x - c)^2` is :math:`l^2`, which has rows, and at most
    :math:`R^2 - L^2` more, R and L the radii of x and l. Where that is worse than the straight line, the line is taken.
    """
    eps = torch.finfo(x.center.dtype).eps
    spread = x.spread
    bend, slope, offset, margin = line.bend, line.slope, line.offset, line.margin
    if x.inputs:
        linear = x.generators[:, : x.inputs].abs().sum(1)
        beyond = ((spread + x.rest).square() - linear.square()).clamp(min=0)
        curved = line.bend.abs() * beyond + line.curved_margin
        better = curved < margin
        bend = torch.where(better, bend, 0.0)
        slope = torch.where(better, line.curved_slope, slope)
        offset = torch.where(better, line.curved_offset, offset)
        margin = torch.where(better, curved, margin)
    center = slope * x.center + offset
    generators = slope.unsqueeze(1) * x.generators
    rest = slope.abs() * x.rest + margin
    lost = slope.abs() * (x.center.abs() + spread) + offset.abs()
    if x.inputs:
        parts = x.generators[:, : x.inputs]
        center = center + _add_products(generators, bend.unsqueeze(1) * parts, parts)
        lost = lost + bend.abs() * (spread + x.rest).square()
    if outward:
        rest = enlarge(rest + lost * gamma(2 * x.rows + 16, center.dtype), x.rows + 16, True)
    return Zonotope(center, generators, rest, x.inputs)


def _add_products(generators: Tensor, x: Tensor, y: Tensor) -> Tensor:
    r"""Add the product of two forms linear in the inputs, (n, d, m) each, to the rows of products; return its constant.

    :math:`\varepsilon_j^2 = (1 + (2 \varepsilon_j^2 - 1)) / 2`.
    """
    d = x.shape[1]
    half = 0.5 * x * y
    generators[:, d : 2 * d] += half
    j, k = torch.triu_indices(d, d, 1)
    generators[:, 2 * d : d + d * (d + 1) // 2] += torch.addcmul(x[:, j] * y[:, k], x[:, k], y[:, j])
    return half.sum(1)


def product(x: Zonotope, y: Zonotope, x_range: Interval, y_range: Interval, outward: bool) -> Zonotope:
    r"""Return the zonotope of the elementwise product, given intervals that contain the factors.

    With :math:`x = x_0 + \xi, y = y_0 + \upsilon` the product is :math:`x_0 y_0 + y_0 \xi + x_0 \upsilon + \xi \upsilon`, and only the
    last term is not affine. What both factors have linear in the inputs has rows for its product. Of the others, a symbol
    they share contributes :math:`x_k y_k \varepsilon_k^2` with :math:`\varepsilon_k^2 \in [0, 1]`. All that is left goes into ``rest``. Where the
    range of :math:`\xi \upsilon`, from the ranges of the factors, is smaller than what would be left, it is taken instead.
    """
    long, short = (y, x) if y.rows >= x.rows else (x, y)
    shared, d = short.rows, max(x.inputs, y.inputs)
    generators = long.generators * short.center.unsqueeze(1)
    generators[:, :shared] += short.generators * long.center.unsqueeze(1)
    first = d if shared else 0
    common = x.generators[:, first:shared] * y.generators[:, first:shared]
    x_parts, y_parts = x.generators[:, :first], y.generators[:, :first]
    x_radius, y_radius = x.spread + x.rest, y.spread + y.rest
    explained = x_parts.abs().sum(1) * y_parts.abs().sum(1) + 0.5 * common.abs().sum(1)
    radius, shift = (x_radius * y_radius - explained).clamp(min=0), 0.5 * common.sum(1)
    low, high = _range_product(
        [(end - x.center).clamp(-x_radius, x_radius) for end in (x_range.lo, x_range.hi)],
        [(end - y.center).clamp(-y_radius, y_radius) for end in (y_range.lo, y_range.hi)],
    )
    by_range = 0.5 * (high - low) < radius
    shift, radius = torch.where(by_range, 0.5 * (low + high), shift), torch.where(by_range, 0.5 * (high - low), radius)
    if first:
        shift = shift + _add_products(generators, torch.where(by_range, 0.0, 1.0).unsqueeze(1) * x_parts, y_parts)
    center = x.center * y.center + shift
    rest = radius + x.center.abs() * y.rest + y.center.abs() * x.rest
    if outward:
        rows = x.rows + y.rows + 8
        size = (x.center.abs() + x_radius) * (y.center.abs() + y_radius)
        rest = enlarge(rest + size * gamma(2 * rows + 32, center.dtype), 2 * rows + 32, True)
    return Zonotope(center, generators, rest, d)


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
        size = x.center.abs() + x.spread + y.center.abs() + y.spread
        terms = generators.shape[1] + 8
        rest = enlarge(rest + size * gamma(terms, center.dtype), terms, True)
    return Zonotope(center, generators, rest, max(x.inputs, y.inputs))
