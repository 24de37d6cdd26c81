r"""Formulas with enclosures: what a network is compared with, as functions of intervals.

A reference is a function :math:`V(x) = f(w \cdot x)` of one feature: for a basket option, the basket. It is given with
its derivatives, each a function of intervals, so that differences to a network can be bounded with theirs. Chapter 10.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.enclosure import interval as iv
from sobolev_lib.enclosure.interval import Interval, div, mul, point, sub

__all__ = ["Reference", "bachelier_reference", "black_scholes_reference"]

Function = Callable[[Interval], Interval]


@dataclass(frozen=True, eq=False)
class Reference:
    r"""A function :math:`V(x) = f(w \cdot x)` with enclosures of f and its derivatives.

    Args:
        weights: w, (d,).
        value: f, elementwise from intervals to intervals.
        slope: :math:`f'`.
        curvature: :math:`f''`.

    Where an enclosure is empty, outside of the function's domain, nothing is taken to be known. A function of several
    features is refused: fit a fine network to it, and pass that to ``error_bound``.

    Raises:
        TypeError: A function that is none.
        ValueError: Weights that are no vector of finite numbers.

    Chapter 10, "An error bound in practice".

    Example:
        The square of a sum, with its derivatives, written with the functions of ``sl.interval``.

        >>> iv = sl.interval
        >>> square = sl.Reference([1.0, 1.0], iv.sqr, lambda t: iv.add(t, t), lambda t: iv.point(2.0 + 0 * t.lo))
        >>> square.value(sl.Interval([1.0], [2.0]))
        Interval([1, 4])
    """

    weights: Tensor
    value: Function
    slope: Function
    curvature: Function

    def __post_init__(self):
        weights = _check.tensor("weights", self.weights, shape=("d",), dtype=torch.float64, copy=True, detach=True)
        object.__setattr__(self, "weights", weights)
        for name in ("value", "slope", "curvature"):
            if not callable(getattr(self, name)):
                raise TypeError(f"{name}: got {type(getattr(self, name)).__name__}, need a function of an Interval")

    @property
    def rows(self) -> Tensor:
        """The weights as a matrix, (1, d)."""
        return self.weights[None]


def bachelier_reference(weights, *, strike: float, volatility: float, maturity: float, kind: str = "call") -> Reference:
    r"""Return the Bachelier price of an option on the basket :math:`b = w \cdot x`, with enclosures.

    :math:`C = (b - K)\,\Phi(z) + s\,\varphi(z)`, :math:`z = (b - K) / s`, :math:`s = v \sqrt T`; see ``bachelier``.

    Args:
        weights: w, (d,).
        strike: K.
        volatility: v, absolute, of the basket, positive.
        maturity: T, positive.
        kind: "call" or "put".

    Returns:
        Reference.

    Raises:
        ValueError: A volatility or a maturity that is not positive, another kind.

    Chapter 10, "An error bound in practice".

    Example:
        >>> call = sl.bachelier_reference([1.0], strike=1.0, volatility=0.2, maturity=1.0)
        >>> call.value(sl.interval.point([1.0]))
        Interval([0.0797885, 0.0797885])
    """
    _check.choice("kind", kind, ("call", "put"))
    strike, volatility = _check.number("strike", strike), _check.positive("volatility", volatility)
    s = mul(_constant(volatility), iv.sqrt(_constant(_check.positive("maturity", maturity))))
    sign = 1.0 if kind == "call" else -1.0

    def ratio(b: Interval) -> Interval:
        return div(sub(b, _constant(strike)), s)

    def value(b: Interval) -> Interval:
        margin = _signed(sub(b, _constant(strike)), sign)
        return iv.add(mul(margin, iv.normal_cdf(_signed(ratio(b), sign))), mul(s, iv.normal_pdf(ratio(b))))

    def slope(b: Interval) -> Interval:
        return _signed(iv.normal_cdf(_signed(ratio(b), sign)), sign)

    return Reference(weights, value, slope, lambda b: div(iv.normal_pdf(ratio(b)), s))


def black_scholes_reference(
    weights, *, strike: float, volatility: float, maturity: float, rate: float = 0.0, kind: str = "call"
) -> Reference:
    r"""Return the undiscounted Black-Scholes price as a function of the spot :math:`S = w \cdot x`, with enclosures.

    :math:`C = F\,\Phi(d_1) - K\,\Phi(d_2)`, :math:`F = S e^{rT}`; see ``black_scholes``.

    Args:
        weights: w, (d,): [1.0] for one asset.
        strike: K, positive.
        volatility: v, relative, positive.
        maturity: T, positive.
        rate: r.
        kind: "call" or "put".

    Returns:
        Reference. Over spots that are not positive nothing is enclosed.

    Raises:
        ValueError: A strike, a volatility or a maturity that is not positive, another kind.

    Chapter 10, "An error bound in practice".

    Example:
        >>> call = sl.black_scholes_reference([1.0], strike=1.0, volatility=0.2, maturity=1.0)
        >>> call.value(sl.interval.point([1.0]))
        Interval([0.0796557, 0.0796557])
    """
    _check.choice("kind", kind, ("call", "put"))
    strike, volatility = _check.positive("strike", strike), _check.positive("volatility", volatility)
    maturity = _check.positive("maturity", maturity)
    s = mul(_constant(volatility), iv.sqrt(_constant(maturity)))
    growth = iv.exp(mul(_constant(_check.number("rate", rate)), _constant(maturity)))
    sign = 1.0 if kind == "call" else -1.0

    def d(spot: Interval, half: float) -> Interval:
        return iv.add(div(iv.log(div(mul(spot, growth), _constant(strike))), s), mul(_constant(half), s))

    def value(spot: Interval) -> Interval:
        gain = mul(mul(spot, growth), iv.normal_cdf(_signed(d(spot, 0.5), sign)))
        return _signed(sub(gain, mul(_constant(strike), iv.normal_cdf(_signed(d(spot, -0.5), sign)))), sign)

    def slope(spot: Interval) -> Interval:
        return _signed(mul(growth, iv.normal_cdf(_signed(d(spot, 0.5), sign))), sign)

    def curvature(spot: Interval) -> Interval:
        return div(mul(growth, iv.normal_pdf(d(spot, 0.5))), mul(spot, s))

    return Reference(weights, value, slope, curvature)


def _constant(x: float) -> Interval:
    return point(torch.tensor(x, dtype=torch.float64))


def _signed(x: Interval, sign: float) -> Interval:
    return x if sign > 0 else iv.neg(x)
