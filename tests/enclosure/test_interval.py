"""Interval arithmetic against exact rational arithmetic, and the conventions of IEEE 1788."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sobolev_lib.enclosure import interval as iv
from sobolev_lib.enclosure.affine import affine
from sobolev_lib.enclosure.interval import Interval, ball, contains, empty, entire, is_empty, point

F32, F64 = torch.float32, torch.float64
INF = math.inf

numbers = st.floats(-1e6, 1e6).map(lambda x: x if abs(x) > 1e-6 else 0.0)
pairs = st.tuples(numbers, numbers).map(sorted)


def one(lo, hi, dtype=F64):
    return Interval(torch.tensor([lo], dtype=dtype), torch.tensor([hi], dtype=dtype))


def ends(x):
    return x.lo.item(), x.hi.item()


OPERATIONS = {
    "add": (iv.add, lambda a, b: a + b),
    "sub": (iv.sub, lambda a, b: a - b),
    "mul": (iv.mul, lambda a, b: a * b),
}


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=60, deadline=None)
@given(x=pairs, y=pairs)
def test_arithmetic_contains_and_hugs_the_exact_range(name, x, y):
    """The range is attained at the ends; outward rounding may add two units, not more."""
    function, exact = OPERATIONS[name]
    corners = [exact(Fraction(a), Fraction(b)) for a in x for b in y]
    result = function(one(*x), one(*y))
    lo, hi = (Fraction(end) for end in ends(result))
    assert lo <= min(corners) and max(corners) <= hi
    for end, truth in ((lo, min(corners)), (hi, max(corners))):
        assert abs(end - truth) <= Fraction(4 * 2.0**-52) * abs(truth) + Fraction(1e-307)
    nearest = function(one(*x), one(*y), rounding="nearest")
    assert ends(nearest) == (float(min(corners)), float(max(corners)))


@settings(max_examples=60, deadline=None)
@given(x=pairs, y=pairs)
def test_division_by_what_has_no_zero(x, y):
    if y[0] <= 0 <= y[1]:
        return
    corners = [Fraction(a) / Fraction(b) for a in x for b in y]
    lo, hi = (Fraction(end) for end in ends(iv.div(one(*x), one(*y))))
    assert lo <= min(corners) and max(corners) <= hi
    assert ends(iv.div(one(*x), one(*y), rounding="nearest")) == (float(min(corners)), float(max(corners)))


@pytest.mark.parametrize(
    "x, y, quotient",
    [
        ((1, 2), (0, 4), (0.25, INF)),
        ((1, 2), (-4, 0), (-INF, -0.25)),
        ((1, 2), (-1, 1), (-INF, INF)),
        ((-1, 1), (0, 1), (-INF, INF)),
        ((0, 0), (-1, 1), (0, 0)),
        ((1, 2), (-INF, INF), (-INF, INF)),
        ((1, 2), (2, INF), (0, 1)),
    ],
)
def test_extended_division(x, y, quotient):
    assert ends(iv.div(one(*map(float, x)), one(*map(float, y)), rounding="nearest")) == quotient


def test_division_by_zero_alone_is_empty():
    assert is_empty(iv.div(one(1.0, 2.0), one(0.0, 0.0))).all()
    assert is_empty(iv.recip(one(0.0, 0.0))).all()


@pytest.mark.parametrize("dtype", [F32, F64])
def test_overflow_stays_an_interval(dtype):
    largest = torch.finfo(dtype).max
    lo, hi = ends(iv.add(one(largest, largest, dtype), one(largest, largest, dtype)))
    assert lo <= largest and hi == INF
    lo, hi = ends(iv.mul(one(-largest, largest, dtype), one(2, 3, dtype)))
    assert (lo, hi) == (-INF, INF)


def test_zero_times_infinity_is_zero():
    assert ends(iv.mul(one(0.0, 0.0), one(-INF, INF), rounding="nearest")) == (0, 0)
    assert ends(iv.mul(one(0.0, 1.0), one(2.0, INF), rounding="nearest")) == (0, INF)


def test_min_max_abs_are_exact():
    x, y = one(-2.0, 3.0), one(-1.0, 1.0)
    assert ends(iv.min(x, y)) == (-2, 1)
    assert ends(iv.max(x, y)) == (-1, 3)
    assert ends(iv.abs(x)) == (0, 3)
    assert ends(iv.abs(one(-3.0, -2.0))) == (2, 3)
    assert ends(iv.neg(x)) == (-3, 2)


@pytest.mark.parametrize("x, y", [((0, 1), (0, 1)), ((-1, 0), (-3, 0)), ((0, 0), (-2, 5)), ((0, 2), (1, INF))])
def test_products_and_quotients_keep_their_sign(x, y):
    """A zero end is exact, so that the sign is known: [0, 1] * [0, 1] is not negative anywhere."""
    product = iv.mul(one(*map(float, x)), one(*map(float, y)))
    assert product.lo.item() == 0
    assert product.hi.item() == 0 if x == (0, 0) else product.hi.item() >= float(x[0] * y[0])
    assert iv.neg(iv.mul(iv.neg(one(*map(float, x))), one(*map(float, y)))).lo.item() == 0
    if y[0] >= 0:
        assert iv.div(one(*map(float, x)), one(*map(float, y))).lo.item() == 0


def test_zero_ends_stay_and_what_underflows_does_not_become_zero():
    tiny = one(1e-200, 1e-200)
    product = iv.mul(tiny, tiny)
    assert product.lo.item() == 0 < Fraction(1e-200) ** 2 <= Fraction(product.hi.item())
    lo, hi = ends(iv.mul(one(-1e-200, 1.0), tiny))
    assert Fraction(lo) <= -(Fraction(1e-200) ** 2) and hi >= 1e-200
    assert ends(iv.mul(one(1.0, 1e300), one(0.0, 0.0))) == (0, 0)
    assert ends(iv.sub(one(0.5, 1.0), point([0.5])))[0] == 0 and ends(iv.add(one(-1.0, 0.0), one(-2.0, 0.0)))[1] == 0
    assert ends(iv.sqr(one(0.0, 0.0))) == (0, 0) and ends(iv.div(one(0.0, 0.0), one(1.0, 3.0))) == (0, 0)
    assert iv.rad(one(3.0, 3.0)).item() == 0 == iv.width(one(3.0, 3.0)).item()


@pytest.mark.parametrize("dtype", [F32, F64])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_arithmetic_is_as_tight_as_promised_at_every_size(dtype, data):
    """Products, quotients and sums of numbers of every size: at most two numbers beyond the tightest."""
    number = st.floats(width=32 if dtype == F32 else 64, allow_nan=False, allow_infinity=False)
    a, b = data.draw(number), data.draw(number)
    x, y = (point(torch.tensor([v], dtype=dtype)) for v in (a, b))
    a, b = Fraction(a), Fraction(b)
    cases = [(iv.add(x, y), a + b), (iv.sub(x, y), a - b), (iv.mul(x, y), a * b)]
    for result, truth in [*cases, (iv.div(x, y), a / b)] if b else cases:
        for end, side in ((result.lo, -1), (result.hi, 1)):
            assert math.isinf(end.item()) or side * (Fraction(end.item()) - truth) >= 0
            for _ in range(2):
                end = torch.nextafter(end, torch.full_like(end, -side * INF))
            closer = torch.nextafter(end, torch.full_like(end, -side * INF)).item()
            if math.isfinite(closer):
                assert side * (Fraction(closer) - truth) <= 0  # three steps back the truth is lost
    total = iv.add(x, y)
    assert a + b != 0 or ends(total) == (0, 0)


def test_numeric_functions():
    x = Interval([-3.0, 1.0, 2.0], [1.0, 4.0, 2.0])
    assert iv.mid(x).tolist() == [-1, 2.5, 2]
    assert iv.rad(x, rounding="nearest").tolist() == [2, 1.5, 0]
    assert iv.width(x, rounding="nearest").tolist() == [4, 3, 0]
    assert iv.width(x)[2] == 0 and iv.width(x)[0] > 4
    assert iv.mag(x).tolist() == [3, 4, 2]
    assert iv.mig(x).tolist() == [0, 1, 2]


def test_midpoint_and_radius_cover_the_interval():
    x = one(-1.0, math.nextafter(1.0, 2.0))
    middle, radius = iv.mid(x).item(), iv.rad(x).item()
    assert Fraction(middle) - Fraction(radius) <= -1 and Fraction(middle) + Fraction(radius) >= Fraction(x.hi.item())


def test_midpoints_of_unbounded_intervals():
    largest = torch.finfo(F64).max
    assert iv.mid(Interval([-INF, 0.0, -INF], [INF, INF, 5.0])).tolist() == [0, largest, -largest]
    assert iv.mid(point([5e-324, -5e-324])).tolist() == [5e-324, -5e-324]  # half of which is no number


def test_sets():
    x, y = one(0.0, 2.0), one(1.0, 3.0)
    assert ends(iv.hull(x, y)) == (0, 3)
    assert ends(iv.intersection(x, y)) == (1, 2)
    assert is_empty(iv.intersection(x, one(5.0, 6.0))).all()
    assert iv.subset(one(0.5, 1.0), x).all() and not iv.subset(y, x).any()
    assert contains(x, 2.0).all() and not contains(x, 2.1).any()
    assert contains(point(0.1), 0.1) and not contains(ball(1.0, 1e-9), 1.0 + 5e-9)
    assert not contains(Interval(torch.zeros(3), torch.ones(3)), 1.0 + 1e-9).any()  # not rounded to single precision


def test_empty_is_an_ordinary_value():
    nothing, x = empty(1), one(0.0, 2.0)
    for result in (
        iv.add(nothing, x),
        iv.sub(x, nothing),
        iv.mul(nothing, x),
        iv.mul(nothing, entire(1)),
        iv.div(nothing, x),
        iv.div(x, nothing),
        iv.intersection(nothing, x),
        iv.neg(nothing),
        iv.abs(nothing),
        affine(torch.ones(2, 1, dtype=F64), nothing),
    ):
        assert is_empty(result).all()
    assert ends(iv.hull(nothing, x)) == (0, 2)
    assert iv.subset(nothing, x).all() and not iv.subset(x, nothing).any()
    assert not contains(nothing, 0.0).any()
    assert iv.mid(nothing).isnan().all() and iv.mag(nothing).isnan().all() and iv.width(nothing).isnan().all()


def test_entire_is_an_ordinary_value():
    everything, x = entire(1), one(1.0, 2.0)
    for result in (iv.add(everything, x), iv.sub(x, everything), iv.mul(everything, x), iv.div(everything, x)):
        assert ends(result) == (-INF, INF)
    assert contains(everything, 1e300).all() and iv.subset(x, everything).all()
    assert not contains(everything, INF).any() and not contains(everything, -INF).any()


def test_one_empty_row_leaves_the_others_alone():
    x = Interval.unchecked(torch.tensor([[0.0, 1.0], [math.nan, 1.0]]), torch.tensor([[1.0, 2.0], [math.nan, 2.0]]))
    result = affine(torch.ones(1, 2), x, rounding="nearest")
    assert ends(result[0]) == (1, 3) and is_empty(result[1]).all()


@pytest.mark.parametrize("box", [(-INF, INF), (0.0, INF)])
@pytest.mark.parametrize("rounding", ["nearest", "outward"])
def test_an_unbounded_box_has_an_unbounded_affine_image(box, rounding):
    result = affine(torch.tensor([[1.0, 2.0]], dtype=F64), Interval([box[0], 0.0], [box[1], 1.0]), rounding=rounding)
    assert ends(result) == (-INF, INF)


@pytest.mark.parametrize("rounding", ["nearest", "outward"])
def test_affine_is_the_range_over_all_corners(rounding):
    generator = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(*shape, dtype=F64, generator=generator) for shape in ((5, 4), (5,)))
    lo = torch.randn(3, 4, dtype=F64, generator=generator)
    hi = lo + torch.rand(3, 4, dtype=F64, generator=generator)
    corners = torch.stack([torch.where(torch.tensor(c), hi, lo) for c in itertools.product([False, True], repeat=4)])
    values = corners @ weight.T + bias
    result = affine(weight, Interval(lo, hi), bias, rounding=rounding)
    torch.testing.assert_close(result.lo, values.amin(0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.hi, values.amax(0), rtol=1e-12, atol=1e-12)


def test_balls_contain_what_they_should():
    center, radius = 0.1, 0.3
    lo, hi = ends(ball([center], radius))
    assert Fraction(lo) <= Fraction(center) - Fraction(radius) and Fraction(hi) >= Fraction(center) + Fraction(radius)
    assert ends(ball([center], 0.0)) == (center, center)
    lo = ball(torch.tensor(0.7), 0.7).lo.item()  # the center is 0.7 in single precision, the radius is not
    assert Fraction(lo) <= Fraction(torch.tensor(0.7).item()) - Fraction(0.7) < 0


def test_what_is_made_of_tensors_is_a_copy_without_their_graph():
    x = torch.ones(2, dtype=F64, requires_grad=True)
    made = [Interval(x, x), point(x), ball(x, 0.0), ball(x, x)]
    products = [iv.mul(made[1], made[0]), affine(x.expand(3, 2), made[0], torch.ones(3, dtype=F64))]
    assert not any(end.requires_grad for y in (*made, *products) for end in (y.lo, y.hi))
    with torch.no_grad():
        x.fill_(9.0)
    assert [y.lo.tolist() for y in made[:3]] == [[1, 1]] * 3


def test_a_precision_in_which_nothing_can_be_bounded_is_refused():
    x = point(torch.ones(248, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"dtype: got torch.bfloat16 for sums of 256 terms, need one that is precise"):
        affine(torch.ones(1, 248, dtype=torch.bfloat16), x)


def test_a_narrower_dtype_rounds_outward():
    assert ends(one(0.5, 0.75).to(F32)) == (0.5, 0.75)  # what fits stays
    x = one(0.1, 0.2).to(F32)
    assert x.dtype == F32 and x.lo.double().item() < 0.1 and x.hi.double().item() > 0.2


def test_views():
    x = Interval(torch.zeros(2, 3), torch.ones(2, 3))
    assert len(x) == 2 and x[0].shape == (3,) and x.reshape(6).shape == (6,) and x.dtype == F32
    assert repr(x[0]) == "Interval([0, 1], [0, 1], [0, 1])"
    assert repr(x.reshape(3, 2)[:, [0] * 4]) == "Interval(shape=(3, 4), dtype=torch.float32)"


@pytest.mark.parametrize(
    "lo, hi, error, message",
    [
        ([1.0], [0.0], ValueError, r"got lo = 1.0 and hi = 0.0 at \(0,\), need -inf <= lo <= hi <= inf"),
        ([math.nan], [0.0], ValueError, "lo: got NaN in 1 of 1 ends, need numbers"),
        ([0.0], [math.nan], ValueError, "hi: got NaN"),
        ([INF], [INF], ValueError, r"need -inf <= lo <= hi <= inf, lo < inf, hi > -inf"),
        ([0.0, 1.0], [2.0], ValueError, r"got shapes \(2,\) and \(1,\), need the same"),
        (torch.zeros(1), torch.ones(1, dtype=F64), TypeError, "got dtypes torch.float32 and torch.float64"),
        ("a", [1.0], TypeError, "lo: got str"),
    ],
)
def test_what_is_no_interval_is_refused(lo, hi, error, message):
    with pytest.raises(error, match=message):
        Interval(lo, hi)


def test_affine_refuses_what_does_not_fit():
    weight = torch.ones(2, 3, dtype=F64)
    with pytest.raises(ValueError, match=r"x: got shape \(2,\) and torch.float64, need \(..., 3\) and torch.float64"):
        affine(weight, Interval([0.0, 0.0], [1.0, 1.0]))
    with pytest.raises(ValueError, match=r"bias: got shape \(3,\), need \(2,\)"):
        affine(weight, Interval([0.0] * 3, [1.0] * 3), torch.ones(3, dtype=F64))
    with pytest.raises(ValueError, match="weight: got 1 non-finite of 6 values"):
        affine(torch.tensor([[1.0, 2.0, INF], [0.0, 0.0, 0.0]]), Interval([0.0] * 3, [1.0] * 3))
    with pytest.raises(TypeError, match="x: got Tensor, need Interval"):
        affine(weight, torch.zeros(3))
    with pytest.raises(ValueError, match=r"radius: got -1.0, need numbers >= 0"):
        ball([0.0], -1.0)


@pytest.mark.parametrize(
    "function", [iv.add, iv.sub, iv.mul, iv.div, iv.min, iv.max, iv.hull, iv.intersection, iv.subset]
)
def test_pairs_are_checked(function):
    with pytest.raises(TypeError, match="x: got float, need Interval"):
        function(1.0, point([1.0]))
    with pytest.raises(TypeError, match="y: got float, need Interval"):
        function(point([1.0]), 1.0)
    with pytest.raises(TypeError, match=r"x, y: got torch.float64 and torch.float32, need the same"):
        function(point([1.0]), point(torch.ones(1)))


@pytest.mark.parametrize("function", [iv.mid, iv.rad, iv.width, iv.mag, iv.mig, iv.neg, iv.abs, iv.recip, iv.is_empty])
def test_single_arguments_are_checked(function):
    with pytest.raises(TypeError, match="x: got float, need Interval"):
        function(1.0)


def test_dependency_is_not_seen():
    """x - x is not 0: the price of forgetting where an interval came from."""
    x = one(0.0, 1.0)
    assert ends(iv.sub(x, x, rounding="nearest")) == (-1, 1)
    assert ends(iv.sub(point([0.5]), point([0.5]), rounding="nearest")) == (0, 0)
