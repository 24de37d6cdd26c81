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

Affine maps are in ``affine``, elementary functions in ``elementary``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.enclosure.rounding import enlarge, mode, widen

__all__ = (
    "abs add ball contains div empty entire hull intersection is_empty "
    "mag max mid mig min mul neg point rad recip sub subset width"
).split()


@dataclass(frozen=True, eq=False)
class Interval:
    r"""The closed intervals :math:`[lo, hi]`, elementwise, of any shape.

    Args:
        lo: Lower ends, a floating-point tensor (numbers and lists become float64).
        hi: Upper ends, same shape and dtype.

    Raises:
        TypeError: The ends differ in dtype, or are not real.
        ValueError: The shapes differ, an end is NaN, ``lo > hi``, ``lo`` is +inf or ``hi`` is -inf.

    Chapter 5, "Operations on sets".

    Example:
        >>> Interval([0.0, -1.0], [1.0, 2.0])
        Interval([0, 1], [-1, 2])
    """

    lo: Tensor
    hi: Tensor

    def __post_init__(self):
        lo = _check.tensor("lo", self.lo, finite=False)
        hi = _check.tensor("hi", self.hi, finite=False)
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

    def reshape(self, *shape: int) -> "Interval":
        """Return the same intervals in another shape."""
        return Interval.unchecked(self.lo.reshape(*shape), self.hi.reshape(*shape))

    def to(self, dtype: torch.dtype) -> "Interval":
        """Return enclosures in another dtype; a narrower one is rounded outward."""
        lo, hi = self.lo.to(dtype), self.hi.to(dtype)
        if torch.finfo(dtype).eps > torch.finfo(self.dtype).eps:
            lo, hi = widen(lo, hi, True)
        return Interval.unchecked(lo, hi)


def point(x) -> Interval:
    """Return the intervals [x, x].

    Chapter 5, "Operations on sets".

    >>> point([1.0, 2.0])
    Interval([1, 1], [2, 2])
    """
    x = _check.tensor("x", x)
    return Interval.unchecked(x, x)


def ball(center, radius) -> Interval:
    """Return [center - radius, center + radius], rounded outward; ``radius`` broadcasts to ``center``.

    Chapter 5, "Operations on sets".

    >>> contains(ball(1.0, 0.5), torch.tensor([0.5, 1.6]))
    tensor([ True, False])
    """
    center = _check.tensor("center", center)
    radius = torch.as_tensor(radius, dtype=center.dtype)
    if not (radius >= 0).all():
        raise ValueError(f"radius: got {radius.min().item()}, need numbers >= 0")
    lo, hi = center - radius, center + radius
    exact = (radius == 0).expand_as(center)  # a point stays a point
    wide = widen(lo, hi, True)
    return Interval.unchecked(torch.where(exact, lo, wide[0]), torch.where(exact, hi, wide[1]))


def empty(*shape: int, dtype: torch.dtype = torch.float64) -> Interval:
    """Return empty intervals of the given shape.

    Chapter 5, "Operations on sets".

    >>> empty(2)
    Interval([nan, nan], [nan, nan])
    """
    nan = torch.full(shape, torch.nan, dtype=dtype)
    return Interval.unchecked(nan, nan)


def entire(*shape: int, dtype: torch.dtype = torch.float64) -> Interval:
    r"""Return :math:`[-\infty, \infty]` in the given shape.

    Chapter 5, "Operations on sets".

    >>> entire(1)
    Interval([-inf, inf])
    """
    infinity = torch.full(shape, torch.inf, dtype=dtype)
    return Interval.unchecked(-infinity, infinity)


def is_empty(x: Interval) -> Tensor:
    """Say which intervals are empty.

    Chapter 5, "Operations on sets".

    >>> is_empty(intersection(point(1.0), point(2.0))).item()
    True
    """
    _check.instance("x", x, Interval)
    return x.lo.isnan()


def mid(x: Interval) -> Tensor:
    """Return the midpoints: 0 for ``entire``, the largest finite number for a half-line, as in IEEE 1788 (12.12.8).

    Chapter 5, "Operations on sets".

    >>> mid(Interval(1.0, 4.0)).item()
    2.5
    """
    _check.instance("x", x, Interval)
    largest = torch.finfo(x.dtype).max
    middle = 0.5 * x.lo.clamp(-largest, largest) + 0.5 * x.hi.clamp(-largest, largest)
    middle = torch.where((x.hi == torch.inf) & (x.lo > -torch.inf), largest, middle)
    return torch.where((x.lo == -torch.inf) & (x.hi < torch.inf), -largest, middle)


def rad(x: Interval, *, rounding: str = "outward") -> Tensor:
    """Return the smallest radius around ``mid`` that covers the interval, rounded up.

    Chapter 5, "Operations on sets".

    >>> rad(Interval(1.0, 4.0), rounding="nearest").item()
    1.5
    """
    _check.instance("x", x, Interval)
    middle = mid(x)
    return enlarge(torch.maximum(middle - x.lo, x.hi - middle), 1, mode(rounding))


def width(x: Interval, *, rounding: str = "outward") -> Tensor:
    """Return ``hi - lo``, rounded up (0 for a point).

    Chapter 5, "Operations on sets".

    >>> width(Interval(1.0, 4.0), rounding="nearest").item()
    3.0
    """
    _check.instance("x", x, Interval)
    difference = x.hi - x.lo
    return torch.where(difference == 0, difference, enlarge(difference, 1, mode(rounding)))


def mag(x: Interval) -> Tensor:
    """Return the largest absolute value.

    Chapter 5, "Operations on sets".

    >>> mag(Interval(-3.0, 1.0)).item()
    3.0
    """
    _check.instance("x", x, Interval)
    return torch.maximum(x.lo.abs(), x.hi.abs())


def mig(x: Interval) -> Tensor:
    """Return the smallest absolute value.

    Chapter 5, "Operations on sets".

    >>> mig(Interval([-3.0, 1.0], [1.0, 4.0])).tolist()
    [0.0, 1.0]
    """
    _check.instance("x", x, Interval)
    return torch.maximum(x.lo, -x.hi).clamp(min=0)


def hull(x: Interval, y: Interval) -> Interval:
    """Return the smallest intervals that contain both.

    Chapter 5, "Operations on sets".

    >>> hull(Interval(0.0, 1.0), Interval(3.0, 4.0))
    Interval([0, 4])
    """
    _check_two(x, y)
    return Interval.unchecked(torch.fmin(x.lo, y.lo), torch.fmax(x.hi, y.hi))


def intersection(x: Interval, y: Interval) -> Interval:
    """Return what both have in common, possibly empty.

    Chapter 5, "Operations on sets".

    >>> intersection(Interval(0.0, 2.0), Interval(1.0, 4.0))
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

    >>> subset(Interval(0.0, 1.0), Interval(0.0, 2.0)).item()
    True
    """
    _check_two(x, y)
    return ((y.lo <= x.lo) & (x.hi <= y.hi)) | is_empty(x)


def contains(x: Interval, value) -> Tensor:
    """Say which values lie in x; ``value`` is a tensor or number that broadcasts.

    Chapter 5, "Operations on sets".

    >>> contains(Interval(0.0, 1.0), torch.tensor([0.5, 2.0]))
    tensor([ True, False])
    """
    _check.instance("x", x, Interval)
    value = torch.as_tensor(value)
    return (x.lo <= value) & (value <= x.hi)


def _check_two(x: Interval, y: Interval) -> None:
    """Refuse what is no pair of intervals of one dtype; shapes broadcast as torch's do."""
    _check.instance("x", x, Interval)
    _check.instance("y", y, Interval)
    if x.dtype != y.dtype:
        raise TypeError(f"x, y: got {x.dtype} and {y.dtype}, need the same")


def neg(x: Interval) -> Interval:
    """Return -x, exactly.

    Chapter 5, "Operations on sets".

    >>> neg(Interval(-1.0, 2.0))
    Interval([-2, 1])
    """
    _check.instance("x", x, Interval)
    return Interval.unchecked(-x.hi, -x.lo)


def add(x: Interval, y: Interval, *, rounding: str = "outward") -> Interval:
    """Return x + y.

    Chapter 5, "Operations on sets".

    >>> add(point(1.0), Interval(0.0, 2.0), rounding="nearest")
    Interval([1, 3])
    """
    _check_two(x, y)
    return Interval.unchecked(*widen(x.lo + y.lo, x.hi + y.hi, mode(rounding)))


def sub(x: Interval, y: Interval, *, rounding: str = "outward") -> Interval:
    """Return x - y; the two are taken to be independent, so x - x is not 0 unless x is a point (Chapter 5).

    Chapter 5, "Operations on sets".

    >>> x = Interval(0.0, 1.0)
    >>> sub(x, x, rounding="nearest")
    Interval([-1, 1])
    """
    _check_two(x, y)
    return Interval.unchecked(*widen(x.lo - y.hi, x.hi - y.lo, mode(rounding)))


def mul(x: Interval, y: Interval, *, rounding: str = "outward") -> Interval:
    """Return x * y.

    Chapter 5, "Operations on sets".

    >>> mul(Interval(-1.0, 2.0), Interval(-3.0, 1.0), rounding="nearest")
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
    if not torch.isfinite(lo.sum()):  # 0 times an infinite end is 0; what is empty stays empty
        products = torch.stack([p.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf) for p in (a, b, c, d)])
        nothing = is_empty(x) | is_empty(y)
        lo, hi = (end.masked_fill(nothing, torch.nan) for end in (products.amin(0), products.amax(0)))
    return Interval.unchecked(*widen(lo, hi, outward))


def recip(x: Interval, *, rounding: str = "outward") -> Interval:
    r"""Return 1 / x: a half-line where an end of x is 0, entire where 0 is inside, empty where x is [0, 0].

    Chapter 5, "Operations on sets".

    >>> recip(Interval([2.0, 0.0], [4.0, 2.0]), rounding="nearest")
    Interval([0.25, 0.5], [0.5, inf])
    """
    _check.instance("x", x, Interval)
    lo, hi = 1 / x.hi, 1 / x.lo
    zero = (x.lo <= 0) & (x.hi >= 0)
    if zero.any():
        lo = torch.where(zero, torch.where(x.lo < 0, -torch.inf, lo), lo)
        hi = torch.where(zero, torch.where(x.hi > 0, torch.inf, hi), hi)
        nothing = (x.lo == 0) & (x.hi == 0)
        lo, hi = lo.masked_fill(nothing, torch.nan), hi.masked_fill(nothing, torch.nan)
    return Interval.unchecked(*widen(lo, hi, mode(rounding)))


def div(x: Interval, y: Interval, *, rounding: str = "outward") -> Interval:
    r"""Return x / y, extended: the hull of all quotients with a denominator other than 0.

    Chapter 5, "Operations on sets".

    >>> div(point(1.0), Interval([-1.0, 0.0, 1.0], [1.0, 2.0, 2.0]), rounding="nearest")
    Interval([-inf, inf], [0.5, inf], [0.5, 1])
    """
    _check_two(x, y)
    reciprocal = recip(y, rounding=rounding)
    inner = mul(x, reciprocal, rounding=rounding)
    inside = (y.lo > 0) | (y.hi < 0)
    if not inside.any():
        return inner
    quotients = torch.stack([x.lo / y.lo, x.lo / y.hi, x.hi / y.lo, x.hi / y.hi])  # one rounding instead of two
    lo, hi = widen(quotients.amin(0), quotients.amax(0), mode(rounding))
    sharp = inside & ~lo.isnan()
    return Interval.unchecked(torch.where(sharp, lo, inner.lo), torch.where(sharp, hi, inner.hi))


def min(x: Interval, y: Interval) -> Interval:
    """Return the range of the smaller of both, exactly.

    Chapter 5, "Operations on sets".

    >>> min(Interval(0.0, 3.0), Interval(1.0, 2.0))
    Interval([0, 2])
    """
    _check_two(x, y)
    return Interval.unchecked(torch.minimum(x.lo, y.lo), torch.minimum(x.hi, y.hi))


def max(x: Interval, y: Interval) -> Interval:
    """Return the range of the larger of both, exactly.

    Chapter 5, "Operations on sets".

    >>> max(Interval(0.0, 3.0), Interval(1.0, 2.0))
    Interval([1, 3])
    """
    _check_two(x, y)
    return Interval.unchecked(torch.maximum(x.lo, y.lo), torch.maximum(x.hi, y.hi))


def abs(x: Interval) -> Interval:
    """Return the range of the absolute value, exactly.

    Chapter 5, "Operations on sets".

    >>> abs(Interval(-3.0, 1.0))
    Interval([0, 3])
    """
    _check.instance("x", x, Interval)
    return Interval.unchecked(mig(x), mag(x))
