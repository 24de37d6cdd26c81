r"""Affine maps of boxes in midpoint-radius form: two matrix products, whatever the signs.

Products of the ends with the positive and the negative part of the matrix would do as well, but the bound of their
rounding errors would cost more products. Chapter 5.
"""

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.enclosure.interval import Interval, is_empty
from sobolev_lib.enclosure.rounding import check_matmul, enlarge, gamma, mode

__all__ = ["affine"]


def affine(weight: Tensor, x: Interval, bias: Tensor | None = None, *, rounding: str = "outward") -> Interval:
    r"""Return the range of :math:`W x + b` over a box, by two matrix products whatever the signs.

    With :math:`m, r` the midpoint and radius of x, the range is :math:`W m + b \pm |W| r`, exactly (Rump, *Fast and
    parallel interval arithmetic*, BIT 39, 1999). Outward rounding adds :math:`\gamma_n (|W| |m| + |b|)` to the
    radius without a third product, because :math:`|W| r + \gamma |W| |m| = |W| (r + \gamma |m|)`.

    Args:
        weight: W, (out, in), finite.
        x: Box, (..., in). A box with an empty side is empty; an unbounded one gives ``entire``.
        bias: b, (out,), or None for 0.
        rounding: ``"outward"`` or ``"nearest"``.

    Returns:
        Interval (..., out).

    Raises:
        TypeError: `x` is not an ``Interval``.
        ValueError: Wrong shapes, dtypes that differ, weights or biases that are not finite, an unknown rounding.

    Chapter 5, "Overestimation of a real network".

    Example:
        >>> import torch
        >>> sl.affine(torch.tensor([[1.0, -2.0]]), sl.Interval(torch.zeros(2), torch.ones(2)), rounding="nearest")
        Interval([-2, 1])
    """
    weight = _check.tensor("weight", weight, shape=("out", "in"), detach=True)
    _check.instance("x", x, Interval)
    if not x.shape or x.shape[-1] != weight.shape[1] or x.dtype != weight.dtype:
        raise ValueError(
            f"x: got shape {tuple(x.shape)} and {x.dtype}, need (..., {weight.shape[1]}) and {weight.dtype}"
        )
    if bias is not None:
        bias = _check.tensor("bias", bias, shape=(weight.shape[0],), dtype=weight.dtype, detach=True)
    return affine_kernel(weight, weight.abs(), bias, x, mode(rounding))


def affine_kernel(weight: Tensor, magnitude: Tensor, bias: Tensor | None, x: Interval, outward: bool) -> Interval:
    """Do the work of ``affine`` for checked arguments and ``magnitude = |weight|``."""
    middle = 0.5 * x.lo + 0.5 * x.hi
    radius = x.hi - middle
    center = middle @ weight.T if bias is None else torch.addmm(bias, middle.reshape(-1, middle.shape[-1]), weight.T)
    center = center.reshape(*x.shape[:-1], len(weight))
    if outward:
        check_matmul(x.dtype)
        terms = weight.shape[1] + 8
        bound = gamma(terms, x.dtype)
        radius = torch.maximum(radius, middle - x.lo).mul_(1 + 2 * bound).add_(middle.abs(), alpha=bound)
        error = center.abs() if bias is None else center.abs() + bias.abs()
        radius = enlarge((radius @ magnitude.T).add_(error, alpha=bound), terms, True)
    else:
        radius = radius @ magnitude.T
    lo, hi = center - radius, center + radius
    if not torch.isfinite(lo.sum() + hi.sum()):  # a sum is the cheapest way to find a NaN; when it overflows, no harm
        lo, hi = _unbounded_or_empty(lo, hi, x)
    return Interval.unchecked(lo, hi)


def _unbounded_or_empty(lo: Tensor, hi: Tensor, x: Interval) -> tuple[Tensor, Tensor]:
    """Replace NaN by what it stands for: nothing where the box is empty, everything where it is unbounded."""
    undefined = lo.isnan() | hi.isnan()
    lo, hi = lo.masked_fill(undefined, -torch.inf), hi.masked_fill(undefined, torch.inf)
    nothing = is_empty(x).any(-1, keepdim=True)
    return lo.masked_fill(nothing, torch.nan), hi.masked_fill(nothing, torch.nan)
