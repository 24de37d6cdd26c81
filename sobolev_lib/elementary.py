r"""Elementary functions of intervals, and one generic rule for every function whose critical points are known.

A continuous function attains its extremes over [lo, hi] at an end or at a critical point inside. So monotone
functions need their two ends, and all others one list of numbers; the slopes of an activation are functions like
any other (Chapter 5).
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.activations import Activation
from sobolev_lib.interval import Interval, abs, is_empty, recip
from sobolev_lib.rounding import ULPS, mode, widen

__all__ = "erf exp log normal_cdf pown range_of sigmoid softplus sqr sqrt tanh".split()


class Extremum(NamedTuple):
    """A local extremum of a function: where it is, its value, and whether it can be the lowest or the highest."""

    where: float
    value: float
    lowest: bool
    highest: bool


def _monotone(function: Callable, x: Interval, rounding: str, name: str, least: float, most: float) -> Interval:
    """Return the range of an increasing function with values in [least, most], from its values at the ends."""
    _check.instance("x", x, Interval)
    lo, hi = widen(function(x.lo), function(x.hi), mode(rounding), ULPS[name])
    return Interval.unchecked(lo.clamp(least, most), hi.clamp(least, most))


def exp(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the exponential."""
    result = _monotone(torch.exp, x, rounding, "exp", 0.0, math.inf)
    return Interval.unchecked(result.lo.clamp(max=torch.finfo(x.dtype).max), result.hi)


def log(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the natural logarithm over the positive part of x."""
    return _monotone(torch.log, _domain(x, lambda hi: hi > 0), rounding, "log", -math.inf, math.inf)


def sqrt(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the square root over the non-negative part of x.

    >>> sqrt(Interval([-1.0, 4.0], [9.0, 9.0]), rounding="nearest")
    Interval([0, 3], [2, 3])
    """
    return _monotone(torch.sqrt, _domain(x, lambda hi: hi >= 0), rounding, "exact", 0.0, math.inf)


def _domain(x: Interval, defined: Callable[[Tensor], Tensor]) -> Interval:
    """Cut x to the non-negative numbers; empty where nothing is left."""
    _check.instance("x", x, Interval)
    nothing = ~defined(x.hi)
    return Interval.unchecked(x.lo.clamp(min=0).masked_fill(nothing, torch.nan), x.hi.masked_fill(nothing, torch.nan))


def tanh(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the hyperbolic tangent."""
    return _monotone(torch.tanh, x, rounding, "tanh", -1.0, 1.0)


def sigmoid(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of 1 / (1 + exp(-x))."""
    return _monotone(torch.sigmoid, x, rounding, "sigmoid", 0.0, 1.0)


def softplus(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of log(1 + exp(x))."""
    zero = torch.zeros((), dtype=x.dtype)
    return _monotone(lambda z: torch.logaddexp(z, zero), x, rounding, "softplus", 0.0, math.inf)


def erf(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the error function."""
    return _monotone(torch.erf, x, rounding, "erf", -1.0, 1.0)


def normal_cdf(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the standard normal distribution function, with its left tail: erfc(-x / sqrt(2)) / 2."""
    _check.instance("x", x, Interval)
    outward = mode(rounding)
    root = 1 / math.sqrt(2.0)
    lo, hi = widen(x.lo * root, x.hi * root, outward, ulps=1.5)  # the constant and the product are rounded
    lo, hi = widen(0.5 * torch.erfc(-lo), 0.5 * torch.erfc(-hi), outward, ULPS["erfc"])
    return Interval.unchecked(lo.clamp(0.0, 1.0), hi.clamp(0.0, 1.0))


def sqr(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the square, never negative, unlike ``mul(x, x)``.

    >>> sqr(Interval(-1.0, 2.0), rounding="nearest")
    Interval([0, 4])
    """
    return pown(x, 2, rounding=rounding)


def pown(x: Interval, n: int, *, rounding: str = "outward") -> Interval:
    """Return the range of the n-th power, n an integer of either sign (negative: the reciprocal, extended)."""
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n: got {type(n).__name__} {n!r}, need an integer")
    if n < 0:
        return recip(pown(x, -n, rounding=rounding), rounding=rounding)
    if n == 0:
        return Interval.unchecked(x.lo.pow(0).where(~is_empty(x), x.lo), x.hi.pow(0).where(~is_empty(x), x.hi))
    even = n % 2 == 0
    base = abs(x) if even else x
    ulps = ULPS["exact"] if n == 2 else 2 * ULPS["pow"]
    lo, hi = (base.lo, base.hi) if n == 1 else widen(base.lo.pow(n), base.hi.pow(n), mode(rounding), ulps)
    return Interval.unchecked(lo.clamp(min=0) if even else lo, hi)


def range_of(
    function: Callable[[Tensor], Tensor],
    critical: Sequence[float],
    x: Interval,
    *,
    period: float | None = None,
    ulps: float = 0.5,
    absolute: float = 0.0,
    rounding: str = "outward",
) -> Interval:
    r"""Return the range of a continuous function over x, given where its local extrema are.

    Args:
        function: Elementwise on tensors.
        critical: Its local extrema, to the precision of a float64. An extremum that is off by :math:`\delta`
            changes the value by :math:`O(\delta^2)`, far below a unit in the last place.
        x: Intervals of any shape. The value at an infinite end is the function's, or if that is not a number the
            value far out.
        period: If not None, the critical points repeat at its integer multiples.
        ulps: How many units in the last place of its value the computed function may be off.
        absolute: How much it may be off in addition, as near a zero of the function.
        rounding: ``"outward"`` or ``"nearest"``.

    Example:
        >>> range_of(torch.cos, (0.0, math.pi), Interval(1.0, 4.0), period=2 * math.pi, rounding="nearest")
        Interval([-1, 0.540302])
    """
    _check.instance("x", x, Interval)
    extrema = extrema_of(function, critical, x.dtype)
    left, right = (_values(lambda z: [function(z)], end)[0] for end in (x.lo, x.hi))
    return Interval.unchecked(*widen(*range_kernel(left, right, x, extrema, period), mode(rounding), ulps, absolute))


def _values(functions: Callable[[Tensor], list[Tensor]], x: Tensor) -> list[Tensor]:
    """Return values at x; where one is no number, as in inf * 0, the value at the nearest harmless argument."""
    values = functions(x)
    if not torch.isfinite(sum(value.sum() for value in values)):
        far = math.sqrt(torch.finfo(x.dtype).max) / 4
        harmless = functions(x.clamp(-far, far))
        values = [torch.where(value.isnan(), other, value) for value, other in zip(values, harmless, strict=True)]
    return values


def range_kernel(
    left: Tensor, right: Tensor, x: Interval, extrema: Sequence[Extremum], period: float | None
) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest of the values at the ends and at the critical points inside x."""
    lo, hi = torch.minimum(left, right), torch.maximum(left, right)
    for extremum in extrema:
        inside = _inside(x, extremum.where, period)
        if inside.any():
            if extremum.lowest:
                lo = torch.where(inside, lo.clamp(max=extremum.value), lo)
            if extremum.highest:
                hi = torch.where(inside, hi.clamp(min=extremum.value), hi)
    return lo, hi


def _inside(x: Interval, where: float, period: float | None) -> Tensor:
    """Say where x holds the point or a repetition of it; on the edge counts, so that rounding cannot lose it."""
    slack = 4 * torch.finfo(x.dtype).eps
    if period is None:
        return (x.lo <= where + slack * math.fabs(where)) & (x.hi >= where - slack * math.fabs(where))
    tolerance = slack * (x.lo.abs() + period)
    first = where + period * torch.ceil((x.lo - tolerance - where) / period)
    return (first <= x.hi + tolerance) | ~torch.isfinite(first)


def extrema_of(function: Callable[[Tensor], Tensor], points: Sequence[float], dtype: torch.dtype) -> list[Extremum]:
    """Evaluate a function at its critical points; a neighbour on either side tells a minimum from a maximum."""
    middle = torch.tensor(list(points), dtype=dtype)
    value, left, right = function(middle), function(middle - 0.01), function(middle + 0.01)
    highest, lowest = (value >= left) & (value >= right), (value <= left) & (value <= right)
    unclear = highest == lowest
    rows = zip(points, value.tolist(), (lowest | unclear).tolist(), (highest | unclear).tolist(), strict=True)
    return [Extremum(*row) for row in rows]


def jet_error(k: int, dtype: torch.dtype) -> tuple[float, float]:
    r"""Return how far a computed k-th derivative of an activation may be off: units in the last place, plus absolutely.

    Counted from the table for each activation, and rounded up over all of them. For the value: erfc (5) and two
    products. For derivatives, sums cancel, so that the error is absolute: with :math:`\sigma` off by 2 units,
    :math:`\sigma(z) \sigma(-z)` is off by 4.5; the worst is :math:`\tanh^{(3)} = d (4 - 6 d)` with d the slope, off by
    :math:`|4 - 12 d| \cdot 4.5 \le 36`.
    """
    return 6.0, (4.0, 8.0, 8.0, 40.0)[k] * torch.finfo(dtype).eps


@cache
def activation_extrema(activation: Activation, k: int, dtype: torch.dtype) -> list[Extremum]:
    """Return the extrema of the k-th derivative."""
    return extrema_of(activation.derivative(k), activation.critical[k], dtype)


def jet_ranges(activation: Activation, z: Interval, order: int, outward: bool) -> list[Interval]:
    r"""Return the ranges of :math:`f, f', \dots, f^{(order)}` over z."""
    left, right = (_values(lambda x: activation.jet(x, order), end) for end in (z.lo, z.hi))
    ranges = []
    for k in range(order + 1):
        extrema = activation_extrema(activation, k, z.dtype)
        lo, hi = range_kernel(left[k], right[k], z, extrema, activation.period)
        ranges.append(Interval.unchecked(*widen(lo, hi, outward, *jet_error(k, z.dtype))))
    return ranges
