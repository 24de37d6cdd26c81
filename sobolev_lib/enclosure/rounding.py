r"""Outward rounding behind one seam: every bound that the interval modules widen is widened here.

Two modes, one argument. ``"nearest"`` leaves results as the processor rounds them: good for ranking, proves
nothing. ``"outward"`` widens each result by a bound of its rounding error, so that the enclosure is a theorem about
real numbers. Nothing here touches the processor's rounding mode: torch's kernels run on threads and vector units
that need not obey it, and a result of a long sum may be off by many units in the last place, so moving it by one
would prove nothing (Chapter 5). Instead:

- sums, differences, products, quotients and square roots are off by at most half a unit in the last place (IEEE
  754);
- elementary functions by at most ``ULPS``, the larger of what SLEEF documents for its vector functions and what the
  GNU C library reports for its scalar ones, doubled by ``SAFETY``;
- inner products of length n by :math:`\gamma_n |w|\cdot|x|`, :math:`\gamma_n = n u / (1 - n u)`, in whatever order,
  blocked or fused, the library sums (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section
  3.1).

Zero is exact where it can be: a sum that rounds to 0 is 0, and a product has the sign of its factors. Underflow of
all else is covered by adding the smallest normal number. Torch keeps denormals unless told otherwise;
``torch.set_flush_denormal(True)`` voids the theorem for what is smaller than 1e-300.
"""

import math

import torch
from torch import Tensor

from sobolev_lib import _check

MODES = ("nearest", "outward")

SAFETY = 2.0

# Largest known error in units in the last place, for float32 and float64 alike. SLEEF: its "Math library reference"
# (the bound is in the function's name: u10 is 1.0, u15 is 1.5). glibc: "Known Maximum Errors in Math Functions" in the
# manual of the GNU C library. Torch uses the first on vector units and the second without them.
ULPS = {
    "exact": 0.5,  # IEEE 754: + - * / sqrt
    "exp": 1.0,  # SLEEF 1.0, glibc 1
    "log": 1.0,  # SLEEF 1.0, glibc 1
    "log1p": 1.0,  # SLEEF 1.0, glibc 1
    "expm1": 1.0,  # SLEEF 1.0, glibc 1
    "sin": 1.0,  # SLEEF 1.0, glibc 1
    "cos": 1.0,  # SLEEF 1.0, glibc 1
    "atan": 1.0,  # SLEEF 1.0, glibc 1
    "tanh": 2.0,  # SLEEF 1.0, glibc 2
    "erf": 1.0,  # SLEEF 1.0, glibc 1
    "erfc": 5.0,  # SLEEF 1.5, glibc 5
    "pow": 1.0,  # SLEEF 1.0, glibc 1
}
ULPS["sigmoid"] = ULPS["exp"] + 2 * ULPS["exact"]  # 1 / (1 + exp(-x)): every term is positive, errors add up at most
ULPS["softplus"] = ULPS["exp"] + ULPS["log1p"] + ULPS["exact"]  # max(x, 0) + log1p(exp(-|x|)), the same argument


def mode(rounding: str) -> bool:
    """Return True for ``"outward"``, False for ``"nearest"``."""
    return _check.choice("rounding", rounding, MODES) == "outward"


def widen(lo: Tensor, hi: Tensor, outward: bool, ulps: float = 0.5, absolute: float = 0.0) -> tuple[Tensor, Tensor]:
    r"""Move both ends outward by at least ``ulps`` units in the last place plus ``absolute``.

    ``SAFETY * ulps * eps * |x|`` is at least ``SAFETY * ulps`` units in the last place of x, and what is beyond
    ``ulps`` covers the rounding of this very subtraction, because ``ulps`` is at least one half. A lower end that
    overflowed to +inf is brought back to the largest finite number, the true lower bound.
    """
    if not outward:
        return lo, hi
    info = torch.finfo(lo.dtype)
    scale, floor = SAFETY * ulps * info.eps, 2 * info.tiny + SAFETY * absolute
    below, above = lo.abs().mul_(scale).add_(floor), hi.abs().mul_(scale).add_(floor)
    return lo.clamp(max=info.max).sub_(below), hi.clamp(min=info.min).add_(above)


def widen_sum(lo: Tensor, hi: Tensor, outward: bool) -> tuple[Tensor, Tensor]:
    r"""Move the ends of computed sums outward past their one rounding.

    :math:`\\epsilon |x|` is between one and two units in the last place. Nothing is added for underflow: a sum in the
    range of subnormal numbers is exact, and so is one that comes out as 0.
    """
    if not outward:
        return lo, hi
    info = torch.finfo(lo.dtype)
    lo, hi = lo.clamp(max=info.max), hi.clamp(min=info.min)
    return lo.sub(lo.abs(), alpha=info.eps), hi.add(hi.abs(), alpha=info.eps)


def step(lo: Tensor, hi: Tensor, outward: bool, ulps: float = 0.5) -> tuple[Tensor, Tensor]:
    """Move both ends outward by ``SAFETY * ulps`` floating-point numbers, the tightest bound of what was computed.

    From 0 and from numbers that underflowed the next one is the smallest subnormal number, which is right for
    arithmetic; functions may lose more there, and get twice the smallest normal number. An end that overflowed to the
    wrong side comes back to the largest finite number by itself.
    """
    if not outward:
        return lo, hi
    below, above = lo.new_tensor(-math.inf), lo.new_tensor(math.inf)
    for _ in range(math.ceil(SAFETY * ulps)):
        lo, hi = torch.nextafter(lo, below), torch.nextafter(hi, above)
    floor = 2 * torch.finfo(lo.dtype).tiny if ulps > ULPS["exact"] else 0.0
    return lo - floor, hi + floor


def enlarge(radius: Tensor, operations: int, outward: bool) -> Tensor:
    r"""Return an upper bound of a non-negative quantity that ``operations`` roundings may have made too small.

    Each rounding takes away a factor of at least :math:`1 - u`, so :math:`1 + \gamma_n` puts all of them back;
    doubling it covers the rounding of the product.
    """
    if not outward:
        return radius
    info = torch.finfo(radius.dtype)
    return radius * (1 + 2 * gamma(operations + 1, radius.dtype)) + (operations + 2) * info.tiny


def gamma(n: int, dtype: torch.dtype) -> float:
    r"""Return :math:`\gamma_n = n u / (1 - n u)` for the unit roundoff u of ``dtype``, rounded up.

    >>> import torch
    >>> from sobolev_lib.enclosure.rounding import gamma
    >>> round(gamma(128, torch.float64) / 2**-53, 3)
    128.0
    """
    roundoff = torch.finfo(dtype).eps / 2
    if 2 * n * roundoff > 1:
        raise ValueError(f"dtype: got {dtype} for sums of {n} terms, need one that is precise enough to bound them")
    return 1.000001 * n * roundoff / (1 - n * roundoff)


def check_matmul(dtype: torch.dtype) -> None:
    """Refuse matrix products that a global switch has made less precise than their dtype."""
    precision = torch.get_float32_matmul_precision()
    if dtype == torch.float32 and precision != "highest":
        raise ValueError(f"rounding: got 'outward' with float32 matmul precision {precision!r}, need 'highest'")
