r"""Prices and Greeks by formula: the truth that labels and surrogates are measured against.

All values are expected payoffs, not discounted: multiply by :math:`e^{-rT}` for a price. A basket under
``Bachelier`` is one Bachelier asset, :math:`b = w \cdot S` with volatility :math:`|L^\top w|`, so these formulas
cover it. Each number may be one for all or one per spot, in shapes that fit together. Derived in Chapter 2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sobolev_lib import _check, _show
from sobolev_lib.simulation.noise import normal_cdf, normal_pdf

__all__ = ["Greeks", "bachelier", "black_scholes", "heston"]

KINDS = ("call", "put", "straddle", "digital")


@dataclass(frozen=True, eq=False)
class Greeks:
    """Value of an option and its derivatives, one per spot.

    Attributes:
        price: expected payoff, not discounted.
        delta: derivative with respect to the spot.
        gamma: second derivative with respect to the spot.
        vega: derivative with respect to the volatility; in Heston's model with respect to the initial variance.

    Chapter 9, "What a wrong delta costs".

    >>> greeks = sl.bachelier([1.0, 9.0], strike=1.0, volatility=0.2, maturity=1.0)
    >>> greeks.delta  # at the strike, and far above it
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """

    price: Tensor
    delta: Tensor
    gamma: Tensor
    vega: Tensor

    def _repr_html_(self) -> str:
        return _show.points("Price and derivatives", vars(self))


def bachelier(spot, *, strike, volatility, maturity, kind: str = "call") -> Greeks:
    r"""Option on one Bachelier asset, :math:`S_T \sim N(S, v^2 T)`.

    .. math:: C = m\,\Phi(z) + s\,\varphi(z), \quad \Delta = \Phi(z), \quad \Gamma = \varphi(z) / s, \quad
              \mathcal V = \sqrt{T}\,\varphi(z)

    with :math:`m = S - K`, :math:`s = v\sqrt{T}` and :math:`z = m / s`.

    Args:
        spot: spots S of either sign, or values of a basket.
        strike: the fixed price K, of either sign.
        volatility: absolute volatility v, 0 allowed.
        maturity: T in years.
        kind: "call", "put", "straddle" or "digital".

    Shape:
        spot and numbers of any shapes that broadcast; all results have the common one.

    Returns:
        ``Greeks``. Without volatility, those of the payoff itself, with half the jump at a kink.

    Raises:
        ValueError: a non-finite spot, a negative volatility, a maturity that is not positive, an unknown kind.

    Source: Bachelier (1900). Chapter 2, "No bias: integrate the last step".

    >>> round(sl.bachelier(1.0, strike=1.0, volatility=0.2, maturity=1.0).price.item(), 7)  # 0.2 / sqrt(2 pi)
    0.0797885
    """
    given = {"spot": spot, "strike": strike, "volatility": volatility, "maturity": maturity}
    spot, strike, volatility, maturity = _arguments(kind, given, ["maturity"], ["volatility"])
    margin, root = spot - strike, torch.sqrt(maturity)
    deviation, alive = volatility * root, volatility > 0
    safe = torch.where(alive, deviation, 1.0)
    limit = torch.where(margin == 0, 0.0, torch.copysign(torch.full_like(margin, math.inf), margin))
    z = torch.where(alive, margin / safe, limit)
    density = normal_pdf(z)
    bell = torch.where(alive, density / safe, 0.0)
    if kind == "digital":
        slope = torch.where(alive, -margin / safe * bell / safe, 0.0)
        return Greeks(normal_cdf(z), bell, slope, slope * deviation * root)
    vega = root * density
    call = Greeks(margin * normal_cdf(z) + deviation * density, normal_cdf(z), bell, vega)
    put = Greeks(-margin * normal_cdf(-z) + deviation * density, -normal_cdf(-z), bell, vega)
    return _of_kind(kind, call, put)


def black_scholes(spot, *, strike, volatility, maturity, rate=0.0, kind: str = "call") -> Greeks:
    r"""Option on one Black-Scholes asset, lognormal with :math:`E\,S_T = F = S e^{rT}` and :math:`s = v\sqrt{T}`.

    .. math:: C = F\,\Phi(d_1) - K\,\Phi(d_2), \quad \Delta = e^{rT}\,\Phi(d_1), \quad
              \Gamma = e^{rT}\,\frac{\varphi(d_1)}{S s}, \quad \mathcal V = F \sqrt{T}\,\varphi(d_1)

    with :math:`d_{1,2} = \log(F/K) / s \pm s / 2`.

    Args:
        spot: spots S, positive.
        strike: K, positive.
        volatility: relative volatility v, positive.
        maturity: T in years.
        rate: drift r of the spot per year; nothing is discounted.
        kind: "call", "put", "straddle" or "digital".

    Shape:
        spot and numbers of any shapes that broadcast; all results have the common one.

    Returns:
        ``Greeks``.

    Raises:
        ValueError: a spot, strike, volatility or maturity that is not positive and finite, an unknown kind.

    Source: Black and Scholes (1973). Chapter 2.

    >>> round(sl.black_scholes(1.0, strike=1.0, volatility=0.2, maturity=1.0).price.item(), 7)  # 2 Phi(0.1) - 1
    0.0796557
    """
    given = {"spot": spot, "strike": strike, "volatility": volatility, "maturity": maturity}
    spot, strike, volatility, maturity, rate = _arguments(kind, given | {"rate": rate}, list(given))
    growth, root = torch.exp(rate * maturity), torch.sqrt(maturity)
    deviation, forward = volatility * root, growth * spot
    d1 = torch.log(forward / strike) / deviation + 0.5 * deviation
    d2 = d1 - deviation
    if kind == "digital":
        slope = normal_pdf(d2) / (spot * deviation)
        return Greeks(normal_cdf(d2), slope, -slope * d1 / (spot * deviation), -normal_pdf(d2) * d1 / volatility)
    gamma = growth * normal_pdf(d1) / (spot * deviation)
    vega = forward * root * normal_pdf(d1)
    call = Greeks(forward * normal_cdf(d1) - strike * normal_cdf(d2), growth * normal_cdf(d1), gamma, vega)
    put = Greeks(strike * normal_cdf(-d2) - forward * normal_cdf(-d1), -growth * normal_cdf(-d1), gamma, vega)
    return _of_kind(kind, call, put)


def heston(
    spot,
    *,
    strike,
    variance,
    mean_reversion,
    long_variance,
    vol_of_variance,
    spot_variance_correlation,
    maturity,
    rate=0.0,
    kind: str = "call",
) -> Greeks:
    r"""Option on one Heston asset, by Fourier inversion along Lewis's contour.

    .. math:: C = F - \frac{\sqrt{FK}}{\pi} \int_0^\infty \mathrm{Re}\Bigl[e^{iuk}\,\psi(u - \tfrac i2)\Bigr]
              \frac{du}{u^2 + \frac14}, \qquad k = \log(F/K), \quad F = S e^{rT}

    with the characteristic function :math:`\psi` of :math:`\log(S_T/F)`, in a form that crosses no branch cut (the
    "little trap") and loses no digits for a small vol of variance. The integral is cut where :math:`|\psi|` falls below
    1e-18; the number of Gauss-Legendre panels is doubled until the price and its derivatives stand still.

    Args:
        spot: spots S, positive.
        strike: K, positive.
        variance: initial variance v, not negative.
        mean_reversion: kappa, positive.
        long_variance: theta, not negative; v and theta not both 0.
        vol_of_variance: xi, positive.
        spot_variance_correlation: rho, between -1 and 1 exclusive.
        maturity: T in years.
        rate: drift r of the spot per year; nothing is discounted.
        kind: "call", "put", "straddle" or "digital".

    Shape:
        spot and numbers of any shapes that broadcast; all results have the common one.

    Returns:
        ``Greeks``, vega being the derivative with respect to the initial variance. The price has an absolute error of
        about 1e-13 times the forward, and so no relative accuracy far out of the money.

    Raises:
        ValueError: a parameter out of range, an unknown kind.
        ArithmeticError: the integral does not converge, which takes an extreme correlation or a tiny maturity.

    Source: Lewis, "Option Valuation under Stochastic Volatility" (2000), chapter 2; Albrecher, Mayer, Schoutens,
    Tistaert, "The little Heston trap", Wilmott (2007). Chapter 1, "Your own equation, and where the theorem ends".

    >>> terms = dict(mean_reversion=1.0, long_variance=0.04, vol_of_variance=1e-6, spot_variance_correlation=0.0)
    >>> round(sl.heston(1.0, strike=1.0, variance=0.04, maturity=1.0, **terms).price.item(), 7)  # Black-Scholes at 0.2
    0.0796557
    """
    given = {"spot": spot, "strike": strike, "variance": variance, "maturity": maturity, "rate": rate}
    given |= {"mean_reversion": mean_reversion, "long_variance": long_variance, "vol_of_variance": vol_of_variance}
    given |= {"spot_variance_correlation": spot_variance_correlation}
    positive = ["spot", "strike", "maturity", "mean_reversion", "vol_of_variance"]
    checked = _arguments(kind, given, positive, ["variance", "long_variance"])  # no graph goes through all of them
    spot, strike, variance, maturity, rate, kappa, theta, xi, rho = (t.detach() for t in checked)
    if not (rho.abs() < 1).all():
        worst = float(rho.flatten()[rho.abs().argmax()])
        raise ValueError(f"spot_variance_correlation: got {worst}, need a number between -1 and 1, exclusive")
    if ((variance == 0) & (theta == 0)).any():
        raise ValueError("variance: got 0 and long_variance 0, need one of them positive")
    growth = torch.exp(rate * maturity)
    forward = growth * spot
    k, terms = torch.log(forward / strike), torch.stack([kappa, theta, xi, rho, maturity], dim=-1)
    terms, group = terms.reshape(-1, 5).unique(dim=0, return_inverse=True)
    integrals = torch.empty(6, k.numel(), dtype=torch.float64)
    for i, one in enumerate(terms.tolist()):  # the initial variance does not change the exponent's two functions
        rows = group == i
        integrals[:, rows] = _lewis_integrals(k.reshape(-1)[rows], variance.reshape(-1)[rows], tuple(one))
    return _heston_greeks(kind, forward, strike, growth, [values.reshape(spot.shape) for values in integrals])


def _heston_greeks(kind: str, forward: Tensor, strike: Tensor, growth: Tensor, integrals: list[Tensor]) -> Greeks:
    """Greeks by the spot from the integrals over the contour: derivatives of C(F, K), homogeneous of degree 1."""
    i0, i1, j0, j1, v0, v1 = (values / math.pi for values in integrals)
    root = torch.sqrt(strike / forward)
    price, delta = forward - root * forward * i0, 1 - root * (0.5 * i0 + i1)
    gamma, speed = root / forward * j0, root / forward**2 * (j1 - 1.5 * j0)
    vega, vanna = -root * forward * v0, -root * (0.5 * v0 + v1)
    if kind == "digital":  # -dC/dK = (F dC/dF - C) / K
        second = (gamma + forward * speed) / strike
        terms = (forward * delta - price) / strike, growth * forward * gamma / strike, growth**2 * second
        return Greeks(*terms, (forward * vanna - vega) / strike)
    call = Greeks(price, growth * delta, growth**2 * gamma, vega)
    return _of_kind(kind, call, Greeks(price - (forward - strike), growth * (delta - 1), call.gamma, vega))


def _heston_exponent(u: Tensor, terms: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """A and D with log psi(u - i/2) = A + D v."""
    kappa, theta, xi, rho, maturity = terms
    q = u**2 + 0.25
    beta = kappa - rho * xi * torch.complex(torch.full_like(u, 0.5), u)
    d = torch.sqrt(beta**2 + xi**2 * q)
    decay = 1 - torch.exp(-d * maturity)
    # beta - d = -xi^2 q / (beta + d): the difference itself would cancel, and be divided by xi^2.
    ratio = q / (beta + d)
    g = -(xi**2) * ratio / (beta + d)
    logarithm = torch.log1p(g * decay / (1 - g))
    return -kappa * theta * (ratio * maturity + 2 / xi**2 * logarithm), -ratio * decay / (1 - g * (1 - decay))


def _lewis_integrals(k: Tensor, variance: Tensor, terms: tuple[float, ...]) -> Tensor:
    """The six integrals of Re[w e^(iuk) psi], (6, n), w being 1/q, iu/q, 1, iu, D/q and iuD/q with q = u^2 + 1/4."""
    end = 1.0
    while _envelope(end, float(variance.min()), terms) > 1e-18:
        end *= 1.25
        if end > 1e9:
            raise ArithmeticError("heston: the characteristic function decays too slowly to be integrated")
    nodes, weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(32))
    previous = None
    for panels in [2**level for level in range(3, 16)]:
        starts = torch.arange(panels, dtype=torch.float64)[:, None]
        u = ((starts + 0.5 * (1 + nodes)) * (end / panels)).reshape(-1)
        integrals, size = _sum_over_contour(u, (0.5 * end / panels * weights).repeat(panels), k, variance, terms)
        if previous is not None and ((integrals - previous).abs() <= 1e-13 * size[:, None]).all():
            return integrals
        previous = integrals
    raise ArithmeticError(f"heston: the integral up to u = {end:.3g} did not converge")


def _envelope(u: float, variance: float, terms: tuple[float, ...]) -> float:
    """Size of the characteristic function at u - i/2, times u."""
    a, d = _heston_exponent(torch.tensor(u, dtype=torch.float64), terms)
    return u * math.exp(float((a + d * variance).real))


def _sum_over_contour(u: Tensor, weights: Tensor, k: Tensor, variance: Tensor, terms: tuple) -> tuple[Tensor, Tensor]:
    """Weighted sums (6, n), and the sums of the absolute values (6,) that bound their rounding errors."""
    a, d = _heston_exponent(u, terms)
    q, iu = u**2 + 0.25, torch.complex(torch.zeros_like(u), u)
    sums, size = [], torch.zeros(6, dtype=torch.float64)
    known: dict[float, Tensor] = {}
    for x, v in zip(k, variance.tolist(), strict=True):
        if v not in known:
            base = weights * torch.exp(a + d * v)
            known = {v: torch.stack([base / q, iu * base / q, base, iu * base, d * base / q, iu * d * base / q])}
            size = torch.maximum(size, known[v].abs().sum(1))
        sums.append(known[v].real @ torch.cos(u * x) - known[v].imag @ torch.sin(u * x))
    return torch.stack(sums, dim=1), size


def _of_kind(kind: str, call: Greeks, put: Greeks) -> Greeks:
    straddle = Greeks(*(a + b for a, b in zip(vars(call).values(), vars(put).values(), strict=True)))
    return {"call": call, "put": put, "straddle": straddle}[kind]


def _arguments(kind: str, given: dict, positive: Sequence[str], or_zero: Sequence[str] = ()) -> tuple[Tensor, ...]:
    """The numbers as tensors of one shape, in the order given."""
    _check.choice("kind", kind, KINDS)
    tensors = {name: _check.tensor(name, value, dtype=torch.float64) for name, value in given.items()}
    for name, tensor in tensors.items():
        if (name in positive and not (tensor > 0).all()) or (name in or_zero and not (tensor >= 0).all()):
            needed = "> 0" if name in positive else ">= 0"
            raise ValueError(f"{name}: got {float(tensor.min()):.6g}, need finite numbers {needed}")
    try:
        return torch.broadcast_tensors(*tensors.values())
    except RuntimeError:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise ValueError(f"spot: got shapes {shapes}, need shapes that broadcast") from None
