"""Outward rounding: what is widened covers the truth, computed in exact rational arithmetic."""

import math
from fractions import Fraction

import pytest
import torch

from sobolev_lib.enclosure import rounding
from sobolev_lib.enclosure.affine import affine
from sobolev_lib.enclosure.interval import Interval, point
from sobolev_lib.enclosure.rounding import ULPS, check_matmul, enlarge, gamma, mode, widen

F32, F64 = torch.float32, torch.float64


@pytest.mark.parametrize("dtype", [F32, F64])
def test_widening_moves_each_end_past_the_next_number(dtype):
    x = torch.tensor([0.0, 1.0, -1.0, 1.9999999, 2.0, 1e-30, -3e20, torch.finfo(dtype).tiny], dtype=dtype)
    lo, hi = widen(x, x, True)
    assert (lo <= torch.nextafter(x, torch.full_like(x, -math.inf))).all()
    assert (hi >= torch.nextafter(x, torch.full_like(x, math.inf))).all()
    assert (hi - lo <= 6 * torch.finfo(dtype).eps * x.abs() + 8 * torch.finfo(dtype).tiny).all()


def test_nearest_leaves_ends_alone():
    x = torch.tensor([0.1, -3.0])
    lo, hi = widen(x, x, False)
    assert lo is x and hi is x


def test_an_end_that_overflowed_is_brought_back():
    """A lower end of +inf would claim that nothing finite is in the interval."""
    infinity = torch.tensor([math.inf], dtype=F64)
    lo, hi = widen(infinity, infinity, True)
    assert lo.item() < math.inf and hi.item() == math.inf
    lo, hi = widen(-infinity, -infinity, True)
    assert lo.item() == -math.inf and hi.item() > -math.inf


@pytest.mark.parametrize("n", [1, 10, 1000])
def test_gamma_bounds_what_n_roundings_take_away(n):
    exact = 1 / (1 - Fraction(1, 2**53)) ** n
    assert 1 + Fraction(gamma(n, F64)) >= exact
    x = torch.rand(20, dtype=F64, generator=torch.Generator().manual_seed(n)) + 0.5
    for before, after in zip(x.tolist(), enlarge(x, n, True).tolist(), strict=True):
        assert Fraction(after) >= Fraction(before) * exact


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("size", [3, 128, 500])
def test_a_matrix_product_lies_in_its_enclosure(dtype, size):
    """With cancellation, so that the result is all rounding error; the truth is rational arithmetic."""
    generator = torch.Generator().manual_seed(size)
    weight = torch.randn(4, size, dtype=dtype, generator=generator)
    weight[:, -1] = 1.0
    x = torch.randn(size, dtype=dtype, generator=generator)
    x[-1] = -(weight[0, :-1] @ x[:-1])
    bias = torch.randn(4, dtype=dtype, generator=generator)
    for shift, result in ((0 * bias, affine(weight, point(x))), (bias, affine(weight, point(x), bias))):
        for row, b, lo, hi in zip(weight.tolist(), shift.tolist(), result.lo.tolist(), result.hi.tolist(), strict=True):
            truth = sum((Fraction(w) * Fraction(v) for w, v in zip(row, x.tolist(), strict=True)), Fraction(b))
            assert Fraction(lo) <= truth <= Fraction(hi)


def test_one_ulp_is_not_enough_for_a_matrix_product():
    """Why gamma_n and not nextafter: many results of a product of length 512 are off by more than one unit."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 512, dtype=F64, generator=generator)
    x = torch.randn(512, dtype=F64, generator=generator)
    off = 0
    for row, value in zip(weight.tolist(), (weight @ x).tolist(), strict=True):
        truth = sum(Fraction(w) * Fraction(v) for w, v in zip(row, x.tolist(), strict=True))
        off += abs(Fraction(value) - truth) > Fraction(math.ulp(value))
    assert off > 6


def test_products_that_underflow_are_covered():
    tiny = torch.full((3,), 1e-200, dtype=F64)
    result = affine(tiny.reshape(1, 3), point(tiny))
    assert result.lo.item() <= 0 < Fraction(3) * Fraction(1e-200) ** 2 <= Fraction(result.hi.item())


def test_the_table_names_its_bounds():
    assert all(value >= 0.5 for value in ULPS.values())
    assert rounding.SAFETY >= 2


def test_only_two_modes():
    assert mode("outward") and not mode("nearest")
    with pytest.raises(ValueError, match="rounding: got 'up', need one of 'nearest', 'outward'"):
        mode("up")


def test_reduced_precision_products_are_refused():
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with pytest.raises(ValueError, match="float32 matmul precision 'medium', need 'highest'"):
            affine(torch.ones(1, 1), Interval(torch.zeros(1), torch.ones(1)))
        check_matmul(F64)
    finally:
        torch.set_float32_matmul_precision(before)
