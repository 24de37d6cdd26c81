"""Ranges of activations and their derivatives, against python-flint's arb and long double."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sobolev_lib.enclosure import jets
from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.enclosure.rounding import ULPS
from sobolev_lib.network.activations import ACTIVATIONS
from tests import exact

F32, F64 = torch.float32, torch.float64
INF = math.inf
EPS = torch.finfo(F64).eps

SMOOTH = [name for name, activation in ACTIVATIONS.items() if activation.smooth]


class Counted:
    """A value and how far its computation may be off, in eps: running error analysis, to first order."""

    def __init__(self, value, error=0.0):
        self.value, self.error = value, error + 0 * value

    def __add__(self, other):
        total = self.value + other.value
        return Counted(total, self.error + other.error + total.abs() / 2)

    def __sub__(self, other):
        return self + other.times(-1)

    def __mul__(self, other):
        product = self.value * other.value
        return Counted(product, self.value.abs() * other.error + other.value.abs() * self.error + product.abs() / 2)

    def times(self, power):
        """Multiply by a power of 2 of either sign, exactly."""
        return Counted(power * self.value, abs(power) * self.error)

    def apply(self, value, slope, ulps):
        """Apply a function that is off by ``ulps`` itself."""
        return Counted(value, slope.abs() * self.error + ulps * value.abs())


def counted_jet(name, z):
    """What module ``activations`` computes, operation by operation."""
    x, one = Counted(z), Counted(torch.ones_like(z))
    number = lambda c, error=0.0: Counted(c * one.value, error * c)  # noqa: E731
    sigmoid = lambda y: y.apply(torch.sigmoid(y.value), 0 * y.value, ULPS["sigmoid"])  # noqa: E731
    scaled = x.times(2) if name == "tanh" else x
    s, c = sigmoid(scaled), sigmoid(scaled.times(-1))
    p = s * c
    if name == "tanh":
        t, d = x.apply(z.tanh(), 0 * z, ULPS["tanh"]), p.times(4)
        return [t, d, t.times(-2) * d, d * (number(4.0) - number(6.0) * d)]
    q, r = p * (c - s), p * (one - number(6.0) * p)
    if name == "silu":
        return [x * s, s + x * p, p.times(2) + x * q, number(3.0) * q + x * r]
    softplus = x.apply(torch.logaddexp(z, 0 * z), 0 * z, ULPS["softplus"])
    return [s, p, q, r] if name == "sigmoid" else [softplus, s, p, q]


@pytest.mark.parametrize("name", sorted(set(SMOOTH) - {"sin"}))
def test_rounding_errors_are_counted_right(name):
    """The table of errors against running error analysis: neither too small, nor much too large."""
    for k, counted in enumerate(counted_jet(name, torch.linspace(-38, 38, 40_001, dtype=F64))):
        relative, absolute = jets.JET_ERRORS[name][k]
        left = counted.error - relative * counted.value.abs()
        assert (left <= absolute + 1e-12 * counted.error).all(), k
        assert left.max() > 0.8 * absolute if absolute else left.max() > -0.2 * counted.error.max(), k


def arguments(activation, count):
    """Half of them all over the place, a quarter close to zeros and critical points, a quarter extreme."""
    generator = torch.Generator().manual_seed(1)
    near = sorted({c for k in range(4) for c in activation.critical[k]} | {0.0})
    u = torch.rand(5, count // 4, dtype=F64, generator=generator)
    near = torch.tensor(near, dtype=F64)[torch.arange(count // 4) % len(near)]
    z = torch.cat(
        [
            60 * u[0] - 30,
            8 * u[1] - 4,
            near + (2 * u[2].round() - 1) * 10 ** (-17 * u[3] + 0.5),
            (2 * u[2].round() - 1) * torch.where(u[4] < 0.5, 40 + 720 * u[3], 10 ** (600 * u[3] - 300)),
        ]
    )
    return z


def arb_activation(name, z):
    """Derivatives of order 0 to 3 at z, each a small ball, without cancellation of tails."""
    if name == "sin":
        s, c = z.sin(), z.cos()
        return s, c, -s, -c
    e = (-abs(2 * z if name == "tanh" else z)).exp()
    large, small = 1 / (1 + e), e / (1 + e)
    s, c = (small, large) if z < 0 else (large, small)
    p = s * c
    if name == "tanh":
        return z.tanh(), 4 * p, -8 * p * z.tanh(), 16 * p * (1 - 6 * p)
    q, r = p * (c - s), p * (1 - 6 * p)
    if name == "silu":
        return z * s, s + z * p, 2 * p + z * q, 3 * q + z * r
    return (s, p, q, r) if name == "sigmoid" else (e.log1p() + (z if z > 0 else 0), s, p, q)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOOTH)
def test_computed_activations_are_as_close_as_counted(name):
    """The bound that widening rests on, before its safety factor: it holds, and by no more than a factor of 100."""
    activation = ACTIVATIONS[name]
    z = arguments(activation, 100_000)
    assert len(z) >= 100_000
    computed = torch.stack(activation.jet(z, 3), 1)
    errors = [jets.jet_error(activation, k, F64) for k in range(4)]
    worst = [0.0] * 4
    with exact.flint.ctx.workprec(200):
        for at, values in zip(z.tolist(), computed.tolist(), strict=True):
            truth = arb_activation(name, exact.flint.arb(at))
            for k, (value, true) in enumerate(zip(values, truth, strict=True)):
                relative, absolute = errors[k]
                off = float(abs(true - value))
                worst[k] = max(worst[k], off / (relative * EPS * abs(value) + absolute))
    assert all(0.01 < share <= 1 for share in worst), worst


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_in_single_precision_are_as_close_as_counted(name):
    activation = ACTIVATIONS[name]
    z = arguments(activation, 200_000).float()
    z = z[z.isfinite() & (z.abs() < 1e15)]
    order = 3 if activation.smooth else 1
    for k, (value, true) in enumerate(zip(activation.jet(z, order), activation.jet(z.double(), order), strict=True)):
        relative, absolute = jets.jet_error(activation, k, F32)
        bound = relative * torch.finfo(F32).eps * value.double().abs() + absolute
        assert ((value.double() - true).abs() <= bound).all(), k


def test_the_error_of_other_activations_is_the_largest_of_ours():
    other = replace(ACTIVATIONS["sin"], name="cosine")
    assert jets.jet_error(other, 3, F64) == (5.5, 30 * EPS + 256 * torch.finfo(F64).tiny)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_ranges_hold_at_and_around_critical_points(name, dtype):
    """Intervals that end just before, at, or just after each critical point; sampled inside in long double."""
    activation = ACTIVATIONS[name]
    eps = torch.finfo(dtype).eps
    marks = sorted({c for k in range(4) for c in activation.critical[k]} | {0.0, -40.0, 40.0, -3.0, 5.0})
    shifts = [0.0, -eps, eps, -1e-3, 1e-3]
    starts = torch.tensor([m + s for m in marks for s in shifts], dtype=dtype)
    lo, hi = (t.flatten() for t in torch.meshgrid(starts, starts, indexing="ij"))
    lo, hi = torch.minimum(lo, hi), torch.maximum(lo, hi)
    ranges = jets.jet_ranges(activation, Interval(lo, hi), 3 if activation.smooth else 1, True)
    inner = [torch.lerp(lo.double(), hi.double(), t) for t in torch.linspace(0, 1, 33, dtype=F64)]
    inner += [torch.clamp(torch.full_like(lo, m), lo, hi).double() for m in marks]
    z = torch.minimum(torch.maximum(torch.stack(inner), lo.double()), hi.double())
    with np.errstate(all="ignore"):
        truth = exact.JETS[name](exact.long(z))
    for k, enclosure in enumerate(ranges):
        assert exact.outside(truth[k], enclosure) == 0, k
        sampled = torch.from_numpy((truth[k].max(0) - truth[k].min(0)).astype(float))
        slack = (enclosure.hi - enclosure.lo).double() - sampled
        assert (slack < 0.03 + 40 * eps * (1 + enclosure.hi.abs())).all(), k  # sampling misses a little of the range


def test_a_critical_point_inside_is_found():
    """The slope of SiLU near 2.4 exceeds its values at both ends."""
    slope = jets.jet_ranges(ACTIVATIONS["silu"], Interval([2.0], [3.0]), 1, False)[1]
    assert slope.hi.item() == pytest.approx(1.0998393, abs=1e-6)
    assert slope.lo.item() == pytest.approx(1.0881042, abs=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_ranges_over_unbounded_intervals(name):
    activation = ACTIVATIONS[name]
    x = Interval([-INF, 0.0, -INF], [INF, INF, 0.0])
    ranges = jets.jet_ranges(activation, x, 2 if activation.smooth else 1, True)
    z = torch.linspace(-50, 50, 4001, dtype=F64)
    for k, enclosure in enumerate(ranges):
        values = activation.jet(z, k)[k]
        assert not enclosure.lo.isnan().any() and not enclosure.hi.isnan().any()
        assert enclosure.lo[0] <= values.min() and values.max() <= enclosure.hi[0]
        if k or name in ("tanh", "sigmoid", "sin"):
            assert enclosure.hi[0] < 2 and enclosure.lo[0] > -2
        else:
            assert enclosure.hi[0] == INF
