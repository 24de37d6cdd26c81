r"""Interval arithmetic on tensors: a tiny data type, and free functions with the names of IEEE 1788.

The fundamental theorem: replace every operation of an expression by its interval version, and the result contains
the expression's value at every point of the box (Moore, *Interval Analysis*, 1966; Chapter 5 derives it). Each
function takes ``rounding="outward"`` (the default: the theorem holds for the computed ends) or ``"nearest"``
(faster, for ranking only).

Conventions of IEEE 1788-2015, section 7 and 10:

- ``entire`` is :math:`[-\infty, \infty]`. An interval may be unbounded; 0 times an unbounded interval is 0.
- The empty interval is an ordinary value, the range of a function over nothing. Its ends are NaN, so that it passes
  through arithmetic and matrix products by itself; ``contains`` answers no, ``hull`` ignores it, ``mid``, ``rad``,
  ``width``, ``mag`` and ``mig`` of it are NaN. It is the only interval with NaN in it.
- Outside its domain a function is cut to the domain: ``sqrt`` of [-4, -1] is empty, of [-1, 4] is [0, 2].

Functions work elementwise on intervals of any shape; two arguments broadcast as torch's tensors do. Each raises
``TypeError`` for what is no ``Interval``, or for two of different dtypes, and ``ValueError`` for an unknown rounding.

How tight: sums, differences, products, quotients and square roots are at most two floating-point numbers wider at each
end than the tightest interval, and ends that are 0 stay 0; functions by twice the error that is known of the computed
one (``rounding.ULPS``), and below 1e-291 in float64 by twice the smallest normal number. Affine maps are in ``affine``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check, _show
from sobolev_lib.enclosure.rounding import ULPS, mode, step, widen_sum

__all__ = ["Interval"]


@dataclass(frozen=True, eq=False)
class Interval:
    r"""The closed intervals :math:`[lo, hi]`, elementwise, of any shape.

    Args:
        lo: Lower ends, a floating-point tensor (numbers and lists become float64). Copied, without its graph.
        hi: Upper ends, same shape and dtype.

    What is indexed or reshaped is a view of the same memory.

    Raises:
        TypeError: The ends differ in dtype, or are not real.
        ValueError: The shapes differ, an end is NaN, ``lo > hi``, ``lo`` is +inf or ``hi`` is -inf.

    Chapter 5, "Operations on sets".

    Example:
        >>> sl.Interval([0.0, -1.0], [1.0, 2.0])
        Interval([0, 1], [-1, 2])
    """

    lo: Tensor
    hi: Tensor

    def __post_init__(self):
        lo = _check.tensor("lo", self.lo, finite=False, copy=True, detach=True)
        hi = _check.tensor("hi", self.hi, finite=False, copy=True, detach=True)
        if lo.dtype != hi.dtype:
            raise TypeError(f"lo, hi: got dtypes {lo.dtype} and {hi.dtype}, need the same")
        if lo.shape != hi.shape:
            raise ValueError(f"lo, hi: got shapes {tuple(lo.shape)} and {tuple(hi.shape)}, need the same")
        for name, end in (("lo", lo), ("hi", hi)):
            if end.isnan().any():
                raise ValueError(f"{name}: got NaN in {int(end.isnan().sum())} of {end.numel()} ends, need numbers")
        wrong = (lo > hi) | (lo == torch.inf) | (hi == -torch.inf)
        if wrong.any():
            first = tuple(wrong.nonzero()[0].tolist())
            raise ValueError(
                f"lo, hi: got lo = {lo[first].item()} and hi = {hi[first].item()} at {first}, "
                "need -inf <= lo <= hi <= inf, lo < inf, hi > -inf (the empty interval is made by `empty`)"
            )
        object.__setattr__(self, "lo", lo)
        object.__setattr__(self, "hi", hi)

    @classmethod
    def unchecked(cls, lo: Tensor, hi: Tensor) -> "Interval":
        """Return [lo, hi] without looking at them: for results whose order is known, empty ones included."""
        self = object.__new__(cls)
        object.__setattr__(self, "lo", lo)
        object.__setattr__(self, "hi", hi)
        return self

    @property
    def shape(self) -> torch.Size:
        """Shape of either end."""
        return self.lo.shape

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the ends."""
        return self.lo.dtype

    def __getitem__(self, index) -> "Interval":
        return Interval.unchecked(self.lo[index], self.hi[index])

    def __len__(self) -> int:
        return len(self.lo)

    def __repr__(self) -> str:
        if self.lo.numel() > 8:
            return f"Interval(shape={tuple(self.shape)}, dtype={self.dtype})"
        pairs = zip(self.lo.flatten().tolist(), self.hi.flatten().tolist(), strict=True)
        return f"Interval({', '.join(f'[{lo:.6g}, {hi:.6g}]' for lo, hi in pairs)})"

    def _repr_html_(self) -> str:
        return _show.points(f"Interval of shape {tuple(self.shape)}", {"lower end": self.lo, "upper end": self.hi})

    def reshape(self, *shape: int) -> "Interval":
        """Return the same intervals in another shape."""
        return Interval.unchecked(self.lo.reshape(*shape), self.hi.reshape(*shape))

    def to(self, dtype: torch.dtype) -> "Interval":
        """Return enclosures in another dtype; a narrower one is rounded outward."""
        lo, hi = self.lo.to(dtype), self.hi.to(dtype)
        below, above = step(lo, hi, torch.finfo(dtype).eps > torch.finfo(self.dtype).eps)
        lo = torch.where(lo.to(self.dtype) > self.lo, below, lo)
        return Interval.unchecked(lo, torch.where(hi.to(self.dtype) < self.hi, above, hi))


def point(x) -> Interval:
    """Return the intervals [x, x].

    Chapter 5, "Operations on sets".

    >>> sl.interval.point([1.0, 2.0])
    Interval([1, 1], [2, 2])
    """
    x = _check.tensor("x", x, copy=True, detach=True)
    return Interval.unchecked(x, x)


def ball(center, radius) -> Interval:
    """Return [center - radius, center + radius], rounded outward; ``radius`` broadcasts to ``center``.

    Chapter 5, "Operations on sets".

    >>> import torch
    >>> sl.interval.contains(sl.interval.ball(1.0, 0.5), torch.tensor([0.5, 1.6]))
    tensor([ True, False])
    """
    center = _check.tensor("center", center, copy=True, detach=True)
    radius = _check.tensor("radius", radius, detach=True, dtype=torch.float64)
    if not (radius >= 0).all():
        raise ValueError(f"radius: got {radius.min().item()}, need numbers >= 0")
    lo, hi = widen_sum(center.double() - radius, center.double() + radius, True)
    wide, exact = Interval.unchecked(lo, hi).to(center.dtype), radius == 0  # a point stays a point
    return Interval.unchecked(torch.where(exact, center, wide.lo), torch.where(exact, center, wide.hi))


def empty(*shape: int, dtype: torch.dtype = torch.float64) -> Interval:
    """Return empty intervals of the given shape.

    Chapter 5, "Operations on sets".

    >>> sl.interval.empty(2)
    Interval([nan, nan], [nan, nan])
    """
    nan = torch.full(shape, torch.nan, dtype=dtype)
    return Interval.unchecked(nan, nan)


def entire(*shape: int, dtype: torch.dtype = torch.float64) -> Interval:
    r"""Return :math:`[-\infty, \infty]` in the given shape.

    Chapter 5, "Operations on sets".

    >>> sl.interval.entire(1)
    Interval([-inf, inf])
    """
    infinity = torch.full(shape, torch.inf, dtype=dtype)
    return Interval.unchecked(-infinity, infinity)


def is_empty(x: Interval) -> Tensor:
    """Say which intervals are empty.

    Chapter 5, "Operations on sets".

    >>> sl.interval.is_empty(sl.interval.intersection(sl.interval.point(1.0), sl.interval.point(2.0))).item()
    True
    """
    _check.instance("x", x, Interval)
    return x.lo.isnan()


def mid(x: Interval) -> Tensor:
    """Return the midpoints: 0 for ``entire``, the largest finite number for a half-line, as in IEEE 1788 (12.12.8).

    Chapter 5, "Operations on sets".

    >>> sl.interval.mid(sl.Interval(1.0, 4.0)).item()
    2.5
    """
    _check.instance("x", x, Interval)
    largest = torch.finfo(x.dtype).max
    middle = 0.5 * x.lo.clamp(-largest, largest) + 0.5 * x.hi.clamp(-largest, largest)
    middle = middle.clamp(x.lo, x.hi)  # half of a subnormal number is not always one
    middle = torch.where((x.hi == torch.inf) & (x.lo > -torch.inf), largest, middle)
    return torch.where((x.lo == -torch.inf) & (x.hi < torch.inf), -largest, middle)


def rad(x: Interval, *, rounding: str = "outward") -> Tensor:
    """Return the smallest radius around ``mid`` that covers the interval, rounded up.

    Chapter 5, "Operations on sets".

    >>> sl.interval.rad(sl.Interval(1.0, 4.0), rounding="nearest").item()
    1.5
    """
    _check.instance("x", x, Interval)
    middle = mid(x)
    return _rounded_up(torch.maximum(middle - x.lo, x.hi - middle), rounding)


def width(x: Interval, *, rounding: str = "outward") -> Tensor:
    """Return ``hi - lo``, rounded up (0 for a point).

    Chapter 5, "Operations on sets".

    >>> sl.interval.width(sl.Interval(1.0, 4.0), rounding="nearest").item()
    3.0
    """
    _check.instance("x", x, Interval)
    return _rounded_up(x.hi - x.lo, rounding)


def _rounded_up(size: Tensor, rounding: str) -> Tensor:
    """Round a computed difference up; 0 is exact."""
    return torch.where(size == 0, size, step(size, size, mode(rounding))[1])


def mag(x: Interval) -> Tensor:
    """Return the largest absolute value.

    Chapter 5, "Operations on sets".

    >>> sl.interval.mag(sl.Interval(-3.0, 1.0)).item()
    3.0
    """
    _check.instance("x", x, Interval)
    return torch.maximum(x.lo.abs(), x.hi.abs())


def mig(x: Interval) -> Tensor:
    """Return the smallest absolute value.

    Chapter 5, "Operations on sets".

    >>> sl.interval.mig(sl.Interval([-3.0, 1.0], [1.0, 4.0])).tolist()
    [0.0, 1.0]
    """
    _check.instance("x", x, Interval)
    return torch.maximum(x.lo, -x.hi).clamp(min=0)


def hull(x: Interval, y: Interval) -> Interval:
    """Return the smallest intervals that contain both.

    Chapter 5, "Operations on sets".

    >>> sl.interval.hull(sl.Interval(0.0, 1.0), sl.Interval(3.0, 4.0))
    Interval([0, 4])
    """
    _check_two(x, y)
    return Interval.unchecked(torch.fmin(x.lo, y.lo), torch.fmax(x.hi, y.hi))


def intersection(x: Interval, y: Interval) -> Interval:
    """Return what both have in common, possibly empty.

    Chapter 5, "Operations on sets".

    >>> sl.interval.intersection(sl.Interval(0.0, 2.0), sl.Interval(1.0, 4.0))
    Interval([1, 2])
    """
    _check_two(x, y)
    lo, hi = torch.maximum(x.lo, y.lo), torch.minimum(x.hi, y.hi)
    disjoint = lo > hi
    if disjoint.any():
        lo, hi = lo.masked_fill(disjoint, torch.nan), hi.masked_fill(disjoint, torch.nan)
    return Interval.unchecked(lo, hi)


def subset(x: Interval, y: Interval) -> Tensor:
    """Say which x lie in y; the empty interval lies in every one.

    Chapter 5, "Operations on sets".

    >>> sl.interval.subset(sl.Interval(0.0, 1.0), sl.Interval(0.0, 2.0)).item()
    True
    """
    _check_two(x, y)
    return ((y.lo <= x.lo) & (x.hi <= y.hi)) | is_empty(x)


def contains(x: Interval, value) -> Tensor:
    """Say which values lie in x; ``value`` is a tensor or number that broadcasts. Infinity lies in no interval.

    Chapter 5, "Operations on sets".

    >>> import torch
    >>> sl.interval.contains(sl.Interval(0.0, 1.0), torch.tensor([0.5, 2.0]))
    tensor([ True, False])
    """
    _check.instance("x", x, Interval)
    value = _check.tensor("value", value, finite=False).double()
    return (x.lo.double() <= value) & (value <= x.hi.double()) & (value.abs() < torch.inf)


def _check_two(x: Interval, y: Interval) -> None:
    """Refuse what is no pair of intervals of one dtype; shapes broadcast as torch's do."""
    _check.instance("x", x, Interval)
    _check.instance("y", y, Interval)
    if x.dtype != y.dtype:
        raise TypeError(f"x, y: got {x.dtype} and {y.dtype}, need the same")


def neg(x: Interval) -> Interval:
    """Return -x, exactly.

    Chapter 5, "Operations on sets".

    >>> sl.interval.neg(sl.Interval(-1.0, 2.0))
    Interval([-2, 1])
    """
    _check.instance("x", x, Interval)
    return Interval.unchecked(-x.hi, -x.lo)


def add(x: Interval, y: Interval, *, rounding: str = "outward") -> Interval:
    """Return x + y.

    Chapter 5, "Operations on sets".

    >>> sl.interval.add(sl.interval.point(1.0), sl.Interval(0.0, 2.0), rounding="nearest")
    Interval([1, 3])
    """
    _check_two(x, y)
    return Interval.unchecked(*widen_sum(x.lo + y.lo, x.hi + y.hi, mode(rounding)))


def sub(x: Interval, y: Interval, *, rounding: str = "outward") -> Interval:
    """Return x - y; the two are taken to be independent, so x - x is not 0 unless x is a point (Chapter 5).

    Chapter 5, "Operations on sets".

    >>> x = sl.Interval(0.0, 1.0)
    >>> sl.interval.sub(x, x, rounding="nearest")
    Interval([-1, 1])
    """
    _check_two(x, y)
    return Interval.unchecked(*widen_sum(x.lo - y.hi, x.hi - y.lo, mode(rounding)))


def mul(x: Interval, y: Interval, *, rounding: str = "outward") -> Interval:
    """Return x * y.

    Chapter 5, "Operations on sets".

    >>> sl.interval.mul(sl.Interval(-1.0, 2.0), sl.Interval(-3.0, 1.0), rounding="nearest")
    Interval([-6, 3])
    """
    _check_two(x, y)
    return mul_kernel(x, y, mode(rounding))


def mul_kernel(x: Interval, y: Interval, outward: bool) -> Interval:
    """Do the work of ``mul``."""
    a, b, c, d = x.lo * y.lo, x.lo * y.hi, x.hi * y.lo, x.hi * y.hi
    lo, hi = torch.minimum(a, b), torch.maximum(a, b)
    torch.minimum(lo, torch.minimum(c, d), out=lo)
    torch.maximum(hi, torch.maximum(c, d), out=hi)
    finite = torch.isfinite(lo.sum())
    if not finite:  # 0 times an infinite end is 0; what is empty stays empty
        products = torch.stack([p.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf) for p in (a, b, c, d)])
        nothing = is_empty(x) | is_empty(y)
        lo, hi = (end.masked_fill(nothing, torch.nan) for end in (products.amin(0), products.amax(0)))
    if not outward or not lo.numel():
        return Interval.unchecked(lo, hi)
    info, below, above = torch.finfo(lo.dtype), lo.abs(), hi.abs()
    if finite and torch.minimum(below.amin(), above.amin()) >= 2 * info.tiny:
        return Interval.unchecked(lo.sub_(below, alpha=info.eps), hi.add_(above, alpha=info.eps))
    return _with_sign(lo, hi, x, y)


def _with_sign(lo: Tensor, hi: Tensor, x: Interval, y: Interval) -> Interval:
    """Widen computed products or quotients of x and y, but not past 0 where none of them is beyond it."""
    negative = (x.lo < 0) & (y.hi > 0) | (x.hi > 0) & (y.lo < 0)
    positive = (x.lo < 0) & (y.lo < 0) | (x.hi > 0) & (y.hi > 0)
    wide, tiny = widen_sum(lo, hi, True), 2 * torch.finfo(lo.dtype).tiny
    lo, hi = (
        torch.where(end.abs() < tiny, *ends) for end, *ends in zip((lo, hi), step(lo, hi, True), wide, strict=True)
    )
    return Interval.unchecked(torch.where(negative, lo, lo.clamp(min=0)), torch.where(positive, hi, hi.clamp(max=0)))


def recip(x: Interval, *, rounding: str = "outward") -> Interval:
    r"""Return 1 / x: a half-line where an end of x is 0, entire where 0 is inside, empty where x is [0, 0].

    Chapter 5, "Operations on sets".

    >>> sl.interval.recip(sl.Interval([2.0, 0.0], [4.0, 2.0]), rounding="nearest")
    Interval([0.25, 0.5], [0.5, inf])
    """
    _check.instance("x", x, Interval)
    return div(point(torch.ones_like(x.lo)), x, rounding=rounding)


def div(x: Interval, y: Interval, *, rounding: str = "outward") -> Interval:
    r"""Return x / y, extended: the hull of all quotients with a denominator other than 0.

    Chapter 5, "Operations on sets".

    >>> sl.interval.div(sl.interval.point(1.0), sl.Interval([-1.0, 0.0, 1.0], [1.0, 2.0, 2.0]), rounding="nearest")
    Interval([-inf, inf], [0.5, inf], [0.5, 1])
    """
    _check_two(x, y)
    below, above = torch.where(y.lo == 0, 0.0, y.lo), torch.where(y.hi == 0, -0.0, y.hi)  # a zero end has its side
    quotients = torch.stack([x.lo / below, x.lo / above, x.hi / below, x.hi / above])
    quotients = torch.where(quotients.isnan(), 0.0, quotients)  # 0 / 0 adds nothing; 0 is a limit of inf / inf
    result = Interval.unchecked(quotients.amin(0), quotients.amax(0))
    if mode(rounding):
        result = _with_sign(result.lo, result.hi, x, y)
    across = (y.lo < 0) & (y.hi > 0) & ((x.lo != 0) | (x.hi != 0))
    lo, hi = torch.where(across, -torch.inf, result.lo), torch.where(across, torch.inf, result.hi)
    nothing = is_empty(x) | is_empty(y) | ((y.lo == 0) & (y.hi == 0))
    return Interval.unchecked(lo.masked_fill(nothing, torch.nan), hi.masked_fill(nothing, torch.nan))


def fma(x: Interval, y: Interval, z: Interval, *, rounding: str = "outward") -> Interval:
    """Return x * y + z, each of the two operations rounded.

    Chapter 5, "Operations on sets".

    >>> sl.interval.fma(sl.Interval(1.0, 2.0), sl.interval.point(3.0), sl.interval.point(1.0), rounding="nearest")
    Interval([4, 7])
    """
    return add(mul(x, y, rounding=rounding), z, rounding=rounding)


def min(x: Interval, y: Interval) -> Interval:
    """Return the range of the smaller of both, exactly.

    Chapter 5, "Operations on sets".

    >>> sl.interval.min(sl.Interval(0.0, 3.0), sl.Interval(1.0, 2.0))
    Interval([0, 2])
    """
    _check_two(x, y)
    return Interval.unchecked(torch.minimum(x.lo, y.lo), torch.minimum(x.hi, y.hi))


def max(x: Interval, y: Interval) -> Interval:
    """Return the range of the larger of both, exactly.

    Chapter 5, "Operations on sets".

    >>> sl.interval.max(sl.Interval(0.0, 3.0), sl.Interval(1.0, 2.0))
    Interval([1, 3])
    """
    _check_two(x, y)
    return Interval.unchecked(torch.maximum(x.lo, y.lo), torch.maximum(x.hi, y.hi))


def abs(x: Interval) -> Interval:
    """Return the range of the absolute value, exactly.

    Chapter 5, "Operations on sets".

    >>> sl.interval.abs(sl.Interval(-3.0, 1.0))
    Interval([0, 3])
    """
    _check.instance("x", x, Interval)
    return Interval.unchecked(mig(x), mag(x))


def _increasing(
    function: Callable, x: Interval, rounding: str, name: str, least: float, most: float, root: float = math.nan
) -> Interval:
    """Return the range of an increasing function with values in [least, most] and an exact zero at ``root``."""
    _check.instance("x", x, Interval)
    lo, hi = step(function(x.lo), function(x.hi), mode(rounding), ULPS[name])
    lo, hi = (torch.where(at == root, 0.0, end).clamp(least, most) for at, end in ((x.lo, lo), (x.hi, hi)))
    return Interval.unchecked(lo, hi)


def _domain(x: Interval, least: float, closed: bool) -> Interval:
    """Cut x to the numbers above ``least``; empty where nothing is left."""
    _check.instance("x", x, Interval)
    nothing = x.hi < least if closed else x.hi <= least
    lo, hi = x.lo.clamp(min=least), x.hi
    return Interval.unchecked(lo.masked_fill(nothing, torch.nan), hi.masked_fill(nothing, torch.nan))


def exp(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the exponential.

    Chapter 5, "Operations on sets".

    >>> import torch
    >>> sl.interval.exp(sl.Interval(-torch.inf, 0.0), rounding="nearest")
    Interval([0, 1])
    """
    return _increasing(torch.exp, x, rounding, "exp", 0.0, math.inf)


def expm1(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of exp(x) - 1, without cancellation near 0.

    Chapter 5, "Operations on sets".

    >>> import torch
    >>> sl.interval.expm1(sl.Interval(-torch.inf, 0.0))
    Interval([-1, 0])
    """
    return _increasing(torch.expm1, x, rounding, "expm1", -1.0, math.inf, 0.0)


def log(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the natural logarithm over the positive part of x.

    Chapter 5, "Operations on sets".

    >>> sl.interval.log(sl.Interval(-1.0, 1.0))
    Interval([-inf, 0])
    """
    return _increasing(torch.log, _domain(x, 0.0, False), rounding, "log", -math.inf, math.inf, 1.0)


def log1p(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of log(1 + x) over the part of x above -1, without cancellation near 0.

    Chapter 5, "Operations on sets".

    >>> sl.interval.log1p(sl.Interval(-2.0, 0.0))
    Interval([-inf, 0])
    """
    return _increasing(torch.log1p, _domain(x, -1.0, False), rounding, "log1p", -math.inf, math.inf, 0.0)


def sqrt(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the square root over the non-negative part of x.

    Chapter 5, "Operations on sets".

    >>> sl.interval.sqrt(sl.Interval([-1.0, 4.0], [9.0, 9.0]), rounding="nearest")
    Interval([0, 3], [2, 3])
    """
    return _increasing(torch.sqrt, _domain(x, 0.0, True), rounding, "exact", 0.0, math.inf, 0.0)


def tanh(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the hyperbolic tangent.

    Chapter 5, "Operations on sets".

    >>> import torch
    >>> sl.interval.tanh(sl.Interval(0.0, torch.inf))
    Interval([0, 1])
    """
    return _increasing(torch.tanh, x, rounding, "tanh", -1.0, 1.0, 0.0)


def atan(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the inverse tangent.

    Chapter 5, "Operations on sets".

    >>> sl.interval.atan(sl.Interval(0.0, 1.0), rounding="nearest")
    Interval([0, 0.785398])
    """
    return _increasing(torch.atan, x, rounding, "atan", -2.0, 2.0, 0.0)


def sigmoid(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of 1 / (1 + exp(-x)).

    Chapter 5, "Operations on sets".

    >>> import torch
    >>> sl.interval.sigmoid(sl.Interval(-torch.inf, 0.0), rounding="nearest")
    Interval([0, 0.5])
    """
    return _increasing(torch.sigmoid, x, rounding, "sigmoid", 0.0, 1.0)


def softplus(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of log(1 + exp(x)).

    Chapter 5, "Operations on sets".

    >>> import torch
    >>> sl.interval.softplus(sl.Interval(-torch.inf, 0.0), rounding="nearest")
    Interval([0, 0.693147])
    """
    zero = torch.zeros((), dtype=_check.instance("x", x, Interval).dtype)
    return _increasing(lambda z: torch.logaddexp(z, zero), x, rounding, "softplus", 0.0, math.inf)


def erf(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the error function.

    Chapter 5, "Operations on sets".

    >>> import torch
    >>> sl.interval.erf(sl.Interval(0.0, torch.inf))
    Interval([0, 1])
    """
    return _increasing(torch.erf, x, rounding, "erf", -1.0, 1.0, 0.0)


def erfc(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of 1 - erf(x), which falls, with its right tail.

    Chapter 5, "Operations on sets".

    >>> import torch
    >>> sl.interval.erfc(sl.Interval(0.0, torch.inf), rounding="nearest")
    Interval([0, 1])
    """
    return _increasing(lambda z: torch.erfc(-z), neg(x), rounding, "erfc", 0.0, 2.0)


def normal_cdf(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the standard normal distribution function, with its left tail: erfc(-x / sqrt(2)) / 2.

    Chapter 5, "Operations on sets".

    >>> import torch
    >>> sl.interval.normal_cdf(sl.Interval(-torch.inf, 0.0), rounding="nearest")
    Interval([0, 0.5])
    """
    result = erfc(neg(mul(x, _constant(_ROOT_HALF, x), rounding=rounding)), rounding=rounding)
    return Interval.unchecked(0.5 * result.lo, 0.5 * result.hi)


def normal_pdf(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the standard normal density, exp(-x^2 / 2) / sqrt(2 pi).

    Chapter 5, "Operations on sets".

    >>> import torch
    >>> sl.interval.normal_pdf(sl.Interval(-1.0, torch.inf), rounding="nearest")
    Interval([0, 0.398942])
    """
    square = sqr(x, rounding=rounding)
    bell = exp(Interval.unchecked(-0.5 * square.hi, -0.5 * square.lo), rounding=rounding)
    return mul(bell, _constant(_DENSITY, x), rounding=rounding)


# Between this and the next number: sqrt(1/2) and 1 / sqrt(2 pi), cut off after 53 bits.
_ROOT_HALF, _DENSITY = 0.7071067811865475, 0.39894228040143265


def _constant(value: float, x: Interval) -> Interval:
    """Return the enclosure of a constant, given the double below it, in the dtype of x."""
    ends = torch.tensor([value, math.nextafter(value, math.inf)], dtype=torch.float64)
    return Interval.unchecked(*ends).to(_check.instance("x", x, Interval).dtype)


def sin(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the sine.

    Chapter 5, "Operations on sets".

    >>> sl.interval.sin(sl.Interval([0.0, 1.0], [1.0, 2.0]), rounding="nearest")
    Interval([0, 0.841471], [0.841471, 1])
    """
    return _wave(torch.sin, torch.cos, x, mode(rounding), "sin")


def cos(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the cosine.

    Chapter 5, "Operations on sets".

    >>> sl.interval.cos(sl.Interval(1.0, 4.0), rounding="nearest")
    Interval([-1, 0.540302])
    """
    return _wave(torch.cos, lambda z: -torch.sin(z), x, mode(rounding), "cos")


def _wave(function: Callable, slope: Callable, x: Interval, outward: bool, name: str) -> Interval:
    """Return the range of a sine, which has turned between two points if the signs of its slope or their distance tell.

    Over less than half a period it turns at most once, where the slope changes sign, over less than a period at most
    twice. A difference that is rounded to nearest is not below a number that the exact one exceeds.
    """
    _check.instance("x", x, Interval)
    left, right, span = slope(x.lo) >= 0, slope(x.hi) >= 0, x.hi - x.lo
    twice = ((left == right) & (span >= math.pi)) | (span >= 2 * math.pi)
    ends = torch.stack([function(x.lo), function(x.hi)])
    exact = ends.amin(0), ends.amax(0)
    lo, hi = (
        torch.where(end == 0, end, wide) for end, wide in zip(exact, step(*exact, outward, ULPS[name]), strict=True)
    )
    lo, hi = torch.where(twice | ~left & right, -1.0, lo), torch.where(twice | left & ~right, 1.0, hi)
    return Interval.unchecked(lo.clamp(-1, 1), hi.clamp(-1, 1))


def sqr(x: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of the square, never negative, unlike ``mul(x, x)``.

    Chapter 5, "Operations on sets".

    >>> sl.interval.sqr(sl.Interval(-1.0, 2.0), rounding="nearest")
    Interval([0, 4])
    """
    return pown(x, 2, rounding=rounding)


def pown(x: Interval, n: int, *, rounding: str = "outward") -> Interval:
    """Return the range of the n-th power, n an integer of either sign (negative: the reciprocal, extended).

    Chapter 5, "Operations on sets".

    >>> sl.interval.pown(sl.Interval(-2.0, 3.0), 3, rounding="nearest")
    Interval([-8, 27])
    """
    _check.instance("x", x, Interval)
    n = _check.count("n", n, least=-(2**31), most=2**31)
    if n < 0:
        return recip(pown(x, -n, rounding=rounding), rounding=rounding)
    base = abs(x) if n % 2 == 0 else x
    if n < 2:
        return x if n else Interval.unchecked(*(torch.where(is_empty(x), end, 1.0) for end in (x.lo, x.hi)))
    lo, hi = step(base.lo.pow(n), base.hi.pow(n), mode(rounding), ULPS["exact" if n == 2 else "pow"])
    lo, hi = torch.where(base.lo == 0, 0.0, lo), torch.where(base.hi == 0, 0.0, hi)
    return Interval.unchecked(lo.clamp(min=0) if n % 2 == 0 else lo, hi)


def pow(x: Interval, y: Interval, *, rounding: str = "outward") -> Interval:
    """Return the range of x to the power y over the positive part of x, and over 0 for positive y.

    Chapter 5, "Operations on sets".

    >>> sl.interval.pow(sl.Interval(-1.0, 4.0), sl.interval.point([0.5, -0.5]), rounding="nearest")
    Interval([0, 2], [0.5, inf])
    """
    _check_two(x, y)
    above = torch.where(x.lo <= 0, 0.0, x.lo)  # -0.0 has powers of its own
    corners = torch.stack([base.pow(end) for base in (above, x.hi) for end in (y.lo, y.hi)])
    lo, hi = step(corners.amin(0), corners.amax(0), mode(rounding), ULPS["pow"])
    lo, hi = torch.where(x.hi == 0, 0.0, lo.clamp(min=0)), torch.where(x.hi == 0, 0.0, hi)
    nothing = (x.hi < 0) | ((x.hi == 0) & (y.hi <= 0)) | is_empty(x) | is_empty(y)
    return Interval.unchecked(lo.masked_fill(nothing, torch.nan), hi.masked_fill(nothing, torch.nan))


def holds_kernel(x: Interval, where: float, period: float | None) -> Tensor:
    """Say where x holds a point or a repetition of it; on the edge counts, so that rounding cannot lose it."""
    slack = 4 * torch.finfo(x.dtype).eps
    if period is None:
        return (x.lo <= where + slack * math.fabs(where)) & (x.hi >= where - slack * math.fabs(where))
    tolerance = slack * (x.lo.abs() + period)
    first = where + period * torch.ceil((x.lo - tolerance - where) / period)
    return (first <= x.hi + tolerance) | ~torch.isfinite(first)


def range_of(
    function: Callable[[Interval], Interval], critical: Sequence[float], x: Interval, *, period: float | None = None
) -> Interval:
    r"""Return the range of a continuous function over x, given where its local extrema are.

    The function is evaluated in interval arithmetic, at the ends of x and around each critical point inside, so that
    what it may be off is bounded there, near its zeros too; its dependency costs nothing, because those intervals are
    points or nearly so.

    Args:
        function: Of intervals, elementwise, made of the functions of this module.
        critical: Where it has local extrema, to within 4 units in the last place.
        x: Intervals of any shape.
        period: If not None, function and critical points repeat after it.

    Chapter 5, "Operations on sets".

    Example:
        The slope of SiLU near its highest point.

        >>> iv = sl.interval
        >>> def slope(z):
        ...     s = iv.sigmoid(z)
        ...     return iv.add(s, iv.mul(z, iv.mul(s, iv.sigmoid(iv.neg(z)))))
        >>> iv.range_of(slope, (-2.3993572805154677, 2.3993572805154677), sl.Interval(2.0, 3.0))
        Interval([1.0881, 1.09984])
    """
    largest = torch.finfo(_check.instance("x", x, Interval).dtype).max
    left = function(Interval.unchecked(x.lo, x.lo.clamp(min=-largest)))  # where an end is infinite, all that is far out
    right = function(Interval.unchecked(x.hi.clamp(max=largest), x.hi))
    result = hull(left, right)
    for where in critical:
        inside, slack = holds_kernel(x, where, period), 4 * torch.finfo(x.dtype).eps * math.fabs(where)
        value = hull(result, function(ball(torch.tensor(where, dtype=x.dtype), slack)))
        result = Interval.unchecked(
            *(torch.where(inside, *ends) for ends in ((value.lo, result.lo), (value.hi, result.hi)))
        )
    return result
