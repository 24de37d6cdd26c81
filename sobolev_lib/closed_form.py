r"""Prices and Greeks by formula: the truth that labels and surrogates are measured against.

All values are expected payoffs, not discounted: multiply by :math:`e^{-rT}` for a price. A basket under
``Bachelier`` is one Bachelier asset, :math:`b = w \cdot S` with volatility :math:`|L^\top w|`, so these formulas
cover it. Derived in ``Chapter 2``.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.noise import normal_cdf, normal_pdf

KINDS = ("call", "put", "straddle", "digital")


@dataclass(frozen=True, eq=False)
class Greeks:
    """Value of an option and its derivatives, one per spot.

    Attributes:
        price: expected payoff, not discounted.
        delta: derivative with respect to the spot.
        gamma: second derivative with respect to the spot.
        vega: derivative with respect to the volatility; in Heston's model with respect to the initial variance.
    """

    price: Tensor
    delta: Tensor
    gamma: Tensor
    vega: Tensor


def bachelier(spot, *, strike: float, volatility: float, maturity: float, kind: str = "call") -> Greeks:
    r"""Option on one Bachelier asset, :math:`S_T \sim N(S, v^2 T)`.

    .. math:: C = m\,\Phi(z) + s\,\phi(z), \quad \Delta = \Phi(z), \quad \Gamma = \phi(z) / s, \quad
              \mathcal V = \sqrt{T}\,\phi(z); \qquad m = S - K,\ s = v\sqrt{T},\ z = m / s

    Args:
        spot: spots S of either sign, or values of a basket.
        strike: K.
        volatility: absolute volatility v, 0 allowed.
        maturity: T in years.
        kind: "call", "put", "straddle" or "digital".

    Shape:
        spot of any shape; all results have the same.

    Returns:
        ``Greeks``. Without volatility, those of the payoff itself, with half the jump at a kink.

    Raises:
        ValueError: a non-finite spot, a negative volatility, a maturity that is not positive, an unknown kind.

    Source: Bachelier (1900). ``Chapter 2``.

    >>> round(bachelier(1.0, strike=1.0, volatility=0.2, maturity=1.0).price.item(), 7)  # 0.2 / sqrt(2 pi)
    0.0797885
    """
    spot, strike, volatility, maturity = _arguments(spot, strike, volatility, maturity, kind)
    margin, root = spot - strike, math.sqrt(maturity)
    deviation = volatility * root
    z = _ratio(margin, deviation)
    density = normal_pdf(z)
    bell = density / deviation if deviation > 0 else torch.zeros_like(z)
    if kind == "digital":
        slope = -z * bell / deviation if deviation > 0 else torch.zeros_like(z)
        return Greeks(normal_cdf(z), bell, slope, slope * deviation * root if deviation > 0 else torch.zeros_like(z))
    vega = root * density
    call = Greeks(margin * normal_cdf(z) + deviation * density, normal_cdf(z), bell, vega)
    if kind == "call":
        return call
    put = Greeks(-margin * normal_cdf(-z) + deviation * density, -normal_cdf(-z), bell, vega)
    return put if kind == "put" else _sum(call, put)


def _sum(a: Greeks, b: Greeks) -> Greeks:
    return Greeks(a.price + b.price, a.delta + b.delta, a.gamma + b.gamma, a.vega + b.vega)


def _ratio(margin: Tensor, deviation: float) -> Tensor:
    """Ratio margin / deviation; infinite, or 0 at the kink, if there is no deviation."""
    return margin / deviation if deviation > 0 else torch.where(margin == 0, 0.0, torch.copysign(_INFINITY, margin))


_INFINITY = torch.tensor(math.inf, dtype=torch.float64)


def _arguments(spot, strike: float, volatility: float, maturity: float, kind: str):
    _check.choice("kind", kind, KINDS)
    return (
        _check.tensor("spot", spot, dtype=torch.float64),
        _check.number("strike", strike),
        _check.positive("volatility", volatility, or_zero=True),
        _check.positive("maturity", maturity),
    )
