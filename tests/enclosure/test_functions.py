"""Functions of intervals against python-flint's arb: nothing is lost, and little is added."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sobolev_lib.enclosure import interval as iv
from sobolev_lib.enclosure.interval import Interval, contains, empty, is_empty, point
from tests import exact

F32, F64 = torch.float32, torch.float64
INF = math.inf
arb = exact.flint.arb

FUNCTIONS = {  # name: where to look, arb's function, how many numbers wider than the tightest interval at each end
    "exp": ((-700.0, 700.0), lambda x: x.exp(), 4),
    "expm1": ((-700.0, 700.0), lambda x: x.expm1(), 4),
    "log": ((1e-12, 1e6), lambda x: x.log(), 4),
    "log1p": ((-0.999, 1e6), lambda x: x.log1p(), 4),
    "sqrt": ((0.0, 1e6), lambda x: x.sqrt(), 2),
    "tanh": ((-25.0, 25.0), lambda x: x.tanh(), 6),  # the C library may be off by 2 units
    "atan": ((-1e6, 1e6), lambda x: x.atan(), 4),
    "sin": ((-1e6, 1e6), lambda x: x.sin(), 4),
    "cos": ((-1e6, 1e6), lambda x: x.cos(), 4),
    "erf": ((-6.0, 6.0), lambda x: x.erf(), 4),
    "erfc": ((-6.0, 26.0), lambda x: x.erfc(), 12),  # the C library may be off by 5 units
    "sigmoid": ((-700.0, 40.0), lambda x: 1 / (1 + (-x).exp()), 6),
    "softplus": ((-700.0, 700.0), lambda x: x.exp().log1p(), 7),
    "normal_cdf": ((-36.0, 9.0), lambda x: (-x / arb(2).sqrt()).erfc() / 2, 4000),  # ill conditioned in its tail
    "normal_pdf": ((-36.0, 36.0), lambda x: (-x * x / 2).exp() / (2 * arb.pi()).sqrt(), 4000),
}
INCREASING = "exp expm1 log log1p sqrt tanh atan erf sigmoid softplus normal_cdf".split()


def points(low, high, dtype, count=150):
    """Some from the whole range, some close to 0, where series are switched, and the ends."""
    generator = torch.Generator().manual_seed(count)
    x = low + (high - low) * torch.rand(count, dtype=F64, generator=generator)
    small = torch.logspace(-12, 0, 25, dtype=F64)
    x = torch.cat([x, torch.tensor([low, 0.0, high], dtype=F64), small, -small])
    return x[(x >= low) & (x <= high)].to(dtype)


def steps_beyond(ball, lo, hi, dtype):
    """How many numbers the wider end is beyond the truth; None if the truth is not inside."""
    if not (arb(lo) <= ball and ball <= arb(hi)):
        return None
    size = max(abs(lo), abs(hi), torch.finfo(dtype).tiny)
    unit = 2.0 ** math.floor(math.log2(size)) * torch.finfo(dtype).eps
    return max(float(ball - lo), float(arb(hi) - ball)) / unit


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_point_intervals_contain_arbs_value_and_hardly_more(name, dtype):
    (low, high), truth, most = FUNCTIONS[name]
    if dtype == F32:
        low, high = max(low, -80.0), min(high, 80.0)
    x = points(low, high, dtype)
    result = getattr(iv, name)(Interval(x, x))
    with exact.flint.ctx.workprec(2400):
        for at, lo, hi in zip(x.tolist(), result.lo.tolist(), result.hi.tolist(), strict=True):
            true = truth(arb(at))
            beyond = steps_beyond(true, lo, hi, dtype)
            assert beyond is not None, (at, lo, hi)
            if abs(true) > 1e-290 if dtype == F64 else abs(true) > 1e-30:
                assert beyond <= most + 1, (at, lo, hi)  # one more: the truth itself is between two numbers


@pytest.mark.parametrize("name", INCREASING)
def test_intervals_are_the_hull_of_their_ends(name):
    function, (low, high) = getattr(iv, name), FUNCTIONS[name][0]
    x, y = points(low, high, F64), points(low, high, F64).flip(0)
    lo, hi = torch.minimum(x, y), torch.maximum(x, y)
    result, left, right = function(Interval(lo, hi)), function(Interval(lo, lo)), function(Interval(hi, hi))
    assert torch.equal(result.lo, left.lo) and torch.equal(result.hi, right.hi)


@settings(max_examples=40, deadline=None)
@given(lo=st.floats(-50, 50), span=st.floats(0, 8), t=st.floats(0, 1))
@pytest.mark.parametrize("name", ["sin", "cos", "normal_pdf"])
def test_functions_that_turn_hold_all_their_values_and_no_others(name, lo, span, t):
    function, hi = getattr(iv, name), lo + span
    result = function(Interval([lo], [hi]))
    at = min(max(lo + t * span, lo), hi)
    with exact.flint.ctx.workprec(2400):
        assert steps_beyond(FUNCTIONS[name][1](arb(at)), result.lo.item(), result.hi.item(), F64) is not None
    z = torch.cat([torch.linspace(0, 1, 2001, dtype=F64) * span + lo, torch.tensor([lo, hi], dtype=F64)])
    values = {"sin": z.sin(), "cos": z.cos(), "normal_pdf": (-z * z / 2).exp() / math.sqrt(2 * math.pi)}[name]
    assert result.lo >= values.min() - 1e-5 and result.hi <= values.max() + 1e-5


def test_a_sine_far_out_is_as_tight_as_near_zero():
    """Whether it turns is told by the sign of its slope, not by how far multiples of pi are known."""
    x = 1e15 + torch.arange(40, dtype=F64)
    for function, value in ((iv.sin, x.sin()), (iv.cos, x.cos())):
        result = function(point(x))
        assert ((result.hi - result.lo) <= 6 * torch.finfo(F64).eps * value.abs()).all()
        assert contains(result, value).all()


def test_what_vanishes_vanishes_exactly():
    zero, one = point([0.0]), point([1.0])
    for name in ("expm1", "log1p", "sqrt", "tanh", "atan", "sin", "erf", "sqr"):
        assert (getattr(iv, name)(zero).lo.item(), getattr(iv, name)(zero).hi.item()) == (0, 0), name
    assert (iv.log(one).lo.item(), iv.log(one).hi.item()) == (0, 0)
    assert iv.tanh(Interval([0.0], [1.0])).lo.item() == 0 and iv.pown(Interval([0.0], [2.0]), 3).lo.item() == 0
    assert iv.exp(point([-800.0])).hi.item() > 0 and iv.normal_cdf(point([-40.0])).hi.item() > 0  # these do not


@pytest.mark.parametrize(
    "name, x, expected",
    [
        ("exp", (-INF, INF), (0, INF)),
        ("expm1", (-INF, INF), (-1, INF)),
        ("tanh", (-INF, INF), (-1, 1)),
        ("atan", (-INF, INF), (-math.pi / 2, math.pi / 2)),
        ("sin", (-INF, 0.0), (-1, 1)),
        ("cos", (0.0, INF), (-1, 1)),
        ("sigmoid", (-INF, 0.0), (0, 0.5)),
        ("softplus", (-INF, INF), (0, INF)),
        ("normal_cdf", (-INF, INF), (0, 1)),
        ("normal_pdf", (3.0, INF), (0, math.exp(-4.5) / math.sqrt(2 * math.pi))),
        ("erf", (-INF, INF), (-1, 1)),
        ("erfc", (-INF, INF), (0, 2)),
        ("log", (-1.0, 1.0), (-INF, 0)),
        ("log1p", (-3.0, 0.0), (-INF, 0)),
        ("sqrt", (-1.0, 4.0), (0, 2)),
        ("sqr", (-3.0, 2.0), (0, 9)),
        ("sqr", (-INF, 1.0), (0, INF)),
    ],
)
def test_unbounded_and_cut_to_the_domain(name, x, expected):
    result = getattr(iv, name)(Interval([x[0]], [x[1]]), rounding="nearest")
    assert (result.lo.item(), result.hi.item()) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("name", ["log", "sqrt", "log1p"])
def test_outside_the_domain_is_empty(name):
    assert is_empty(getattr(iv, name)(Interval([-2.0], [-1.0]))).all()


@pytest.mark.parametrize("name", [*FUNCTIONS, "sqr"])
def test_the_range_over_nothing_is_nothing(name):
    assert is_empty(getattr(iv, name)(empty(1))).all()
    with pytest.raises(TypeError, match="x: got float, need Interval"):
        getattr(iv, name)(1.0)


@pytest.mark.parametrize(
    "n, x, expected",
    [
        (3, (-2.0, 3.0), (-8, 27)),
        (4, (-2.0, 1.0), (0, 16)),
        (0, (-2.0, 1.0), (1, 1)),
        (1, (-2.0, 1.0), (-2, 1)),
        (-1, (2.0, 4.0), (0.25, 0.5)),
        (-2, (-2.0, 1.0), (0.25, INF)),
    ],
)
def test_integer_powers(n, x, expected):
    result = iv.pown(Interval([x[0]], [x[1]]), n, rounding="nearest")
    assert (result.lo.item(), result.hi.item()) == expected
    outward = iv.pown(Interval([x[0]], [x[1]]), n)
    assert outward.lo <= result.lo and outward.hi >= result.hi
    assert is_empty(iv.pown(empty(1), n)).all()


@settings(max_examples=200, deadline=None)
@given(x=st.floats(-1e3, 1e3), n=st.integers(-7, 9))
def test_integer_powers_of_points(x, n):
    if n < 0 and x == 0:
        return
    result = iv.pown(point([x]), n)
    lo, hi = result.lo.item(), result.hi.item()
    truth = Fraction(x) ** n
    assert (lo == -INF or Fraction(lo) <= truth) and (hi == INF or truth <= Fraction(hi))
    if 1e-290 < abs(truth) < 1e290:  # beyond, a power or its inverse is near the smallest normal numbers
        assert hi - lo <= 12 * math.ulp(hi)


def test_powers_need_integers():
    with pytest.raises(TypeError, match=r"n: got float 0.5, need an integer"):
        iv.pown(Interval([0.0], [1.0]), 0.5)


@pytest.mark.parametrize(
    "x, y, expected",
    [
        ((0.0, 4.0), (0.5, 0.5), (0, 2)),
        ((0.0, 4.0), (-0.5, -0.5), (0.5, INF)),
        ((0.0, 0.0), (-1.0, 1.0), (0, 0)),
        ((-1.0, 4.0), (0.0, 0.0), (1, 1)),
        ((0.25, 4.0), (-1.0, 2.0), (0.0625, 16)),
        ((1.0, INF), (-1.0, 1.0), (0, INF)),
        ((0.0, 0.5), (0.0, INF), (0, 1)),
        ((-0.0, 0.5), (-1.0, 1.0), (0, INF)),
        ((-0.0, 0.5), (-1.0, -1.0), (2, INF)),
    ],
)
def test_real_powers(x, y, expected):
    result = iv.pow(Interval([x[0]], [x[1]]), Interval([y[0]], [y[1]]), rounding="nearest")
    assert (result.lo.item(), result.hi.item()) == expected


@pytest.mark.parametrize("x, y", [((-2.0, -1.0), (0.0, 1.0)), ((0.0, 0.0), (-1.0, 0.0)), (None, (0.0, 0.0))])
def test_real_powers_of_what_has_none(x, y):
    x = empty(1) if x is None else Interval([x[0]], [x[1]])
    assert is_empty(iv.pow(x, Interval([y[0]], [y[1]]))).all()


@settings(max_examples=200, deadline=None)
@given(x=st.floats(1e-9, 1e9), y=st.floats(-20, 20))
def test_real_powers_of_points(x, y):
    result = iv.pow(point([x]), point([y]))
    with exact.flint.ctx.workprec(300):
        beyond = steps_beyond(arb(x) ** arb(y), result.lo.item(), result.hi.item(), F64)
    assert beyond is not None and beyond <= 5


@settings(max_examples=100, deadline=None)
@given(x=st.floats(-1e6, 1e6), y=st.floats(-1e6, 1e6), z=st.floats(-1e6, 1e6))
def test_multiply_and_add(x, y, z):
    result = iv.fma(point([x]), point([y]), point([z]))
    truth = Fraction(x) * Fraction(y) + Fraction(z)
    assert Fraction(result.lo.item()) <= truth <= Fraction(result.hi.item())


# -- functions of one's own


def slope(z):
    """Of SiLU: s + z s (1 - s)."""
    s = iv.sigmoid(z)
    return iv.add(s, iv.mul(z, iv.mul(s, iv.sigmoid(iv.neg(z)))))


SLOPE = (-2.3993572805154677, 2.3993572805154677)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_a_function_of_ones_own_is_bounded_near_its_zero(dtype):
    """Relative errors alone miss the truth there: the slope of SiLU vanishes at -1.278, and its terms do not."""
    x = torch.linspace(-1.2785, -1.2784, 401, dtype=F64).to(dtype)
    result = iv.range_of(slope, SLOPE, point(x))
    with exact.flint.ctx.workprec(200):
        for at, lo, hi in zip(x.tolist(), result.lo.tolist(), result.hi.tolist(), strict=True):
            s = 1 / (1 + (-arb(at)).exp())
            assert arb(lo) <= s + at * s * (1 - s) and s + at * s * (1 - s) <= arb(hi)
    assert (result.hi - result.lo).max() < 20 * torch.finfo(dtype).eps


def test_a_critical_point_of_ones_own_is_found():
    result = iv.range_of(slope, SLOPE, Interval([2.0, 2.0, -5.0], [3.0, 2.2, 5.0]))
    z = torch.stack([torch.linspace(lo, hi, 100_001, dtype=F64) for lo, hi in ((2, 3), (2, 2.2), (-5, 5))])
    values = z.sigmoid() * (1 + z * (-z).sigmoid())
    assert contains(result, values.T).all()
    assert (result.hi - values.amax(1)).max() < 1e-8 and (values.amin(1) - result.lo).max() < 1e-8


def test_a_periodic_function_of_ones_own():
    lo, hi = torch.tensor([[1.0, 2.0, 4.0, 0.0, 1.6], [2.0, 4.0, 5.0, 7.0, 1.7]], dtype=F64)
    for shift in (0.0, 100.0, -1e6):
        x = Interval(lo + shift, hi + shift)
        result = iv.range_of(iv.sin, (-math.pi / 2, math.pi / 2), x, period=2 * math.pi)
        torch.testing.assert_close(result.lo, iv.sin(x).lo, atol=1e-8, rtol=0)
        torch.testing.assert_close(result.hi, iv.sin(x).hi, atol=1e-8, rtol=0)


def test_a_function_of_ones_own_far_out():
    result = iv.range_of(iv.sigmoid, (), Interval([-INF, 0.0, -INF], [INF, INF, 0.0]))
    assert result.lo.tolist() == pytest.approx([0, 0.5, 0]) and result.hi.tolist() == pytest.approx([1, 1, 0.5])
    assert is_empty(iv.range_of(slope, SLOPE, empty(1))).all()
    with pytest.raises(TypeError, match="x: got float, need Interval"):
        iv.range_of(iv.sin, (), 1.0)
