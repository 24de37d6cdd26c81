r"""Activations and their derivatives over intervals: what ``interval.range_of`` does, but from one jet, and fast.

A continuous function attains its extremes over [lo, hi] at an end or at a critical point inside. Both are known for
each activation and its derivatives, and how far the computed values may be off was counted, operation by operation
(Chapter 5).
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from sobolev_lib.enclosure.interval import Interval, holds_kernel
from sobolev_lib.enclosure.rounding import widen
from sobolev_lib.network.activations import Activation


class Extremum(NamedTuple):
    """A local extremum of a function: where it is, its value, and whether it can be the lowest or the highest."""

    where: float
    value: float
    lowest: bool
    highest: bool


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
        inside = holds_kernel(x, extremum.where, period)
        if inside.any():
            if extremum.lowest:
                lo = torch.where(inside, lo.clamp(max=extremum.value), lo)
            if extremum.highest:
                hi = torch.where(inside, hi.clamp(min=extremum.value), hi)
    return lo, hi


def extrema_of(function: Callable[[Tensor], Tensor], points: Sequence[float], dtype: torch.dtype) -> list[Extremum]:
    """Evaluate a function at its critical points; a neighbour on either side tells a minimum from a maximum."""
    middle = torch.tensor(list(points), dtype=dtype)
    value, left, right = function(middle), function(middle - 0.01), function(middle + 0.01)
    highest, lowest = (value >= left) & (value >= right), (value <= left) & (value <= right)
    unclear = highest == lowest
    rows = zip(points, value.tolist(), (lowest | unclear).tolist(), (highest | unclear).tolist(), strict=True)
    return [Extremum(*row) for row in rows]


# How far computed activations and their derivatives may be off: (r, a) for orders 0 to 3, for an error of at most
# (r |value| + a) eps. Counted from what module ``activations`` computes, to first order in eps: an elementary function
# is off by ULPS[..] times its value, each operation by half of its result, products by powers of 2 not at all. What is
# bounded by a number is bounded over all z, and rounded up; terms of second order are far below that and SAFETY.
#
# sigmoid: s = sigma(z), c = sigma(-z), both off by 2; s + c = 1, p <= 1/4, q <= 0.0963
#     p = s c             4.5 p                    = 2 + 2 + 1/2
#     q = p (c - s)       5.5 |q| + 2 p            c - s is off by 2 (s + c) + |c - s| / 2
#     r = p (1 - 6 p)     5.5 |r| + 30 p^2         6 p is off by 30 p, and 1 - 6 p by half of itself besides
# softplus: max(z, 0) + log1p(exp(-|z|)) is off by 1 + 1 + 1/2; then s, p, q as above
# silu: z s is off by 2.5, z p by 5 |z| p, z q by 6 |z q| + 2 |z| p, z r by 6 |z r| + 30 |z| p^2, so that
#     s + z p             |.| / 2 + 2 s + 5 |z| p                            <= 5.5 |.| + 1.54 (for z > 0 without 1.54)
#     2 p + z q           |.| / 2 + 9 p + 6 |z q| + 2 |z| p                  <= |.| / 2 + 2.73
#     3 q + z r           |.| / 2 + 18 |q| + 6 p + 6 |z r| + 30 |z| p^2      <= |.| / 2 + 4.21
# tanh: t is off by 2, d = 4 sigma(2 z) sigma(-2 z) <= 1 by 4.5
#     -2 t d              7                        = 2 + 4.5 + 1/2
#     d (4 - 6 d)         5.5 |.| + 30 d^2
# sin: 1, as its derivatives. relu: exact.
_SIGMOID = ((2.0, 0.0), (4.5, 0.0), (5.5, 0.5), (5.5, 1.9))
JET_ERRORS = {
    "sigmoid": _SIGMOID,
    "softplus": ((2.5, 0.0), *_SIGMOID[:3]),
    "silu": ((2.5, 0.0), (5.5, 1.6), (0.5, 2.8), (0.5, 4.3)),
    "tanh": ((2.0, 0.0), (4.5, 0.0), (7.0, 0.0), (5.5, 30.0)),
    "sin": ((1.0, 0.0),) * 4,
    "relu": ((0.5, 0.0),) * 4,
}


def jet_error(activation: Activation, k: int, dtype: torch.dtype) -> tuple[float, float]:
    r"""Return how far the computed k-th derivative may be off: r and a, for an error of at most r eps \|value\| + a.

    So r is a number of units in the last place, at most. To a belongs what underflow takes, which is most for
    :math:`z \sigma(z)` where exp(-z) overflows: 178 times the smallest normal number. An activation that is not one of
    ours is taken to be no worse than the worst of ours.
    """
    known = [JET_ERRORS[activation.name]] if activation.name in JET_ERRORS else JET_ERRORS.values()
    relative, absolute = ([errors[k][i] for errors in known] for i in range(2))
    info = torch.finfo(dtype)
    return max(relative), max(absolute) * info.eps + 256 * info.tiny


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
        ranges.append(Interval.unchecked(*widen(lo, hi, outward, *jet_error(activation, k, z.dtype))))
    return ranges
