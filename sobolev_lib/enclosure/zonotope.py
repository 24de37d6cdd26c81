r"""Zonotopes: enclosures that remember where their uncertainty comes from.

A zonotope over m coordinates is the set of :math:`c + p(\varepsilon) + G^T \eta + r \circ \zeta`: a center c (n,
m), a polynomial p in the symbols :math:`\varepsilon \in [-1, 1]^d` of the d inputs, without constant and of low
degree (module ``monomials``), generators G of further symbols :math:`\eta_k \in [-1, 1]`, and a rest r (n, m) >= 0,
one symbol for each coordinate. The polynomial's coefficients are the first rows of ``generators`` (n, k, m). Affine
maps are exact, so what cancels in the network cancels in the enclosure. A nonlinearity is replaced by a polynomial
(module ``approximation``), what that misses goes into the rest, and the next affine map turns each rest into a
generator of its own.

Symbols are aligned by position: the same row of two zonotopes of one sweep is the same symbol. So products of what
two factors have in common need not be bounded as if they were independent.

Rounding: what an operation may lose is bounded and put into the rest too, so each result contains the exact image
of its arguments. Chapter 6 derives the operations (affine arithmetic: de Figueiredo & Stolfi, Numerical Algorithms
37, 2004; for networks: Singh et al., *Fast and effective robustness certification*, NeurIPS 2018; with polynomials:
Kochdumper & Althoff, *Sparse polynomial zonotopes*, IEEE TAC 66, 2021).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sobolev_lib.enclosure.approximation import Fit
from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.enclosure.monomials import Monomials
from sobolev_lib.enclosure.rounding import enlarge, gamma, widen


@dataclass(frozen=True, eq=False)
class Zonotope:
    """Center (n, m), generators (n, k, m), the first for monomials, rest (n, m) >= 0, and the monomials."""

    center: Tensor
    generators: Tensor
    rest: Tensor
    monomials: Monomials

    @property
    def rows(self) -> int:
        """Number of generators."""
        return self.generators.shape[1]

    @property
    def polynomial(self) -> Tensor:
        """Coefficients of the monomials."""
        return self.generators[:, : self.monomials.rows]

    def radii(self) -> tuple[Tensor, Tensor]:
        """Return sums of absolute values, (n, m): of the polynomial's coefficients; of all others and the rest."""
        rows = self.monomials.rows
        return self.generators[:, :rows].abs().sum(1), self.generators[:, rows:].abs().sum(1) + self.rest


def from_box(box: Interval, monomials: Monomials, outward: bool) -> Zonotope:
    """Return the zonotope of a box (n, d): one symbol for each input."""
    form = from_interval(box, monomials, outward)
    form.generators[:, : monomials.inputs] = torch.diag_embed(form.rest)
    return replace(form, rest=torch.zeros_like(form.rest))


def from_interval(x: Interval, monomials: Monomials, outward: bool, rows: int = 0) -> Zonotope:
    """Return the zonotope of intervals (n, m) whose uncertainty is no one else's, with at least ``rows`` rows."""
    center = 0.5 * x.lo + 0.5 * x.hi
    radius = enlarge(torch.maximum(center - x.lo, x.hi - center), 1, outward)
    rows = monomials.rows if rows < monomials.rows else rows
    return Zonotope(center, center.new_zeros(len(center), rows, center.shape[1]), radius, monomials)


def enclosure(x: Zonotope, outward: bool) -> Interval:
    r"""Return intervals around the zonotope.

    A monomial with even exponents lies in [0, 1], any other in [-1, 1]. Moreover
    :math:`g \varepsilon + h \varepsilon^2` is a parabola: on the side away from its far end it reaches only
    :math:`|g| - |h|`, or :math:`g^2 / 4 |h|` if the vertex lies inside.
    """
    spread, others = x.radii()
    radius = enlarge(spread + others, x.rows + 1, outward)
    low, high = radius, radius
    if x.monomials.degree > 1:
        even = x.polynomial[:, x.monomials.even]
        up, down = even.clamp(min=0).sum(1), (-even).clamp(min=0).sum(1)
        linear, bend = x.generators[:, : x.monomials.inputs].abs(), x.generators[:, x.monomials.squares]
        size = bend.abs()
        saved = torch.where(linear < 2 * size, linear - linear.square() / (4 * size), size)
        up, down = up + torch.where(bend > 0, saved, 0.0).sum(1), down + torch.where(bend < 0, saved, 0.0).sum(1)
        low, high = radius - up, radius - down
        if outward:
            slack = radius * gamma(x.rows + 16, radius.dtype)
            low, high = low + slack, high + slack
    return Interval.unchecked(*widen(x.center - low, x.center + high, outward))


def affine_image(weight: Tensor, magnitude: Tensor, bias: Tensor | None, x: Zonotope, outward: bool) -> Zonotope:
    """Return W x + b; the rest of x becomes generators, the rest of the result is what rounding may have lost."""
    center = x.center @ weight.T
    center = center if bias is None else center + bias
    mixed = torch.cat([x.generators @ weight.T, x.rest.unsqueeze(-1) * weight.T], dim=1)
    if not outward:
        return Zonotope(center, mixed, torch.zeros_like(center), x.monomials)
    terms = weight.shape[1] + 8
    spread, others = x.radii()
    lost = enlarge(x.center.abs() + spread + others, x.rows + 2, True) @ magnitude.T
    lost = lost if bias is None else lost + bias.abs()
    floor = mixed.shape[1] * terms * torch.finfo(center.dtype).tiny
    return Zonotope(center, mixed, enlarge(lost, terms, True) * gamma(terms, center.dtype) + floor, x.monomials)


def images(fits: list[list[Fit]], x: Zonotope, outward: bool) -> list[Zonotope]:
    r"""Return the zonotopes of functions of x, for fits of each around ``x.center`` over the range of x.

    With x - c = p + e, p the polynomial, :math:`(x - c)^i` is :math:`p^i` and at most
    :math:`|e| \sum_{j < i} |x - c|^j |p|^{i - 1 - j}` more; what exceeds the degree is bounded. Where all that
    comes to more than the margin of the straight line, the line is taken.
    """
    spread, others = x.radii()
    powers = []
    if len(fits[0]) > 1:
        reach = torch.minimum(fits[0][1].reach, spread + others)
        polynomial = power = x.polynomial
        lost, mixed = torch.zeros_like(spread), torch.ones_like(spread)
        for _ in fits[0][1].powers[2:]:
            power, cut = x.monomials.multiply(power, polynomial, len(powers) + 1)
            lost = cut + spread * lost
            mixed = reach * mixed + spread ** (len(powers) + 1)
            powers.append((power, lost + others * mixed))
    return [_image(fit, x, powers, spread, others, outward) for fit in fits]


def _image(fits: list[Fit], x: Zonotope, powers, spread: Tensor, others: Tensor, outward: bool) -> Zonotope:
    (offset, slope), margin = fits[0].powers, fits[0].margin
    curve = None
    if len(fits) > 1:
        bends = fits[1].powers[2:]
        bent = fits[1].margin + sum(bend.abs() * beyond for bend, (_, beyond) in zip(bends, powers, strict=False))
        curve = sum(bend.unsqueeze(1) * power for bend, (power, _) in zip(bends, powers, strict=False))
        better = bent < margin
        curve = torch.where(better.unsqueeze(1), curve, 0.0)
        offset = torch.where(better, fits[1].powers[0], offset)
        slope = torch.where(better, fits[1].powers[1], slope)
        margin = torch.where(better, bent, margin)
    generators = slope.unsqueeze(1) * x.generators
    rest = slope.abs() * x.rest + margin
    if curve is not None:
        generators[:, : x.monomials.rows] += curve
    if outward:  # roundings: two of each generator; of each coefficient of a power at most 32 for each multiplication
        rest = rest + (slope.abs() * spread + slope.abs() * others) * gamma(8, rest.dtype)
        if curve is not None:
            size = sum(bend.abs() * spread ** (i + 2) for i, bend in enumerate(fits[1].powers[2:]))
            rest = rest + size * gamma(40 * x.monomials.degree, rest.dtype)
        rest = enlarge(rest, x.monomials.degree * x.rows + 64, True)
    return Zonotope(offset, generators, rest, x.monomials)


def product(x: Zonotope, y: Zonotope, x_range: Interval, y_range: Interval, outward: bool) -> Zonotope:
    r"""Return the zonotope of the elementwise product, given intervals that contain the factors.

    With :math:`x = x_0 + \xi, y = y_0 + \upsilon` the product is
    :math:`x_0 y_0 + y_0 \xi + x_0 \upsilon + \xi \upsilon`, and only the last term is hard. The product of both
    polynomials is a polynomial. Any other symbol that the factors share contributes :math:`x_k y_k \eta_k^2` with
    :math:`\eta_k^2 \in [0, 1]`. What is left goes into the rest. Where the range of :math:`\xi \upsilon`, from the
    ranges of the factors, is smaller than what would be left, it is taken instead.
    """
    long, short = (y, x) if y.rows >= x.rows else (x, y)
    first, shared = x.monomials.rows, short.rows
    generators = long.generators * short.center.unsqueeze(1)
    generators[:, :shared] += short.generators * long.center.unsqueeze(1)
    common = x.generators[:, first:shared] * y.generators[:, first:shared]
    curve, lost = x.monomials.multiply(x.polynomial, y.polynomial)
    (x_spread, x_others), (y_spread, y_others) = x.radii(), y.radii()
    radius = lost + x_spread * y_others + x_others * y_spread + (x_others * y_others - 0.5 * common.abs().sum(1))
    shift = 0.5 * common.sum(1)
    x_radius, y_radius = x_spread + x_others, y_spread + y_others
    low, high = _range_product(
        [(end - x.center).clamp(-x_radius, x_radius) for end in (x_range.lo, x_range.hi)],
        [(end - y.center).clamp(-y_radius, y_radius) for end in (y_range.lo, y_range.hi)],
    )
    by_range = 0.5 * (high - low) < radius
    shift, radius = torch.where(by_range, 0.5 * (low + high), shift), torch.where(by_range, 0.5 * (high - low), radius)
    generators[:, :first] += torch.where(by_range.unsqueeze(1), 0.0, curve)
    center = x.center * y.center + shift
    rest = radius.clamp(min=0) + x.center.abs() * y.rest + y.center.abs() * x.rest
    if outward:
        terms = x.rows + y.rows + 64
        linear = x.center.abs() * (y.center.abs() + y_radius) + y.center.abs() * x_radius + shift.abs()
        lost = linear * gamma(8, center.dtype) + x_radius * y_radius * gamma(terms, center.dtype)
        rest = enlarge(rest + lost, terms, True)
    return Zonotope(center, generators, rest, x.monomials)


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
        size = x.center.abs() + y.center.abs() + sum(x.radii()) + sum(y.radii())
        rest = enlarge(rest + size * gamma(4, center.dtype), generators.shape[1] + 8, True)
    return Zonotope(center, generators, rest, x.monomials)
