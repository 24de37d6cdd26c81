"""Certified statements: on functions whose answers are known, and against sampling."""

import math

import pytest
import torch

from sobolev_lib.certificates.references import Reference, bachelier_reference
from sobolev_lib.certificates.verdicts import (
    bounds,
    is_convex,
    is_increasing,
    is_non_negative,
    lipschitz,
    lowest_eigenvalue,
    within,
)
from sobolev_lib.enclosure.interval import Interval, ball, point
from sobolev_lib.network.surrogate import Surrogate

F64 = torch.float64


def layered(layers, activation, shift=0.0):
    """A network with the given weights and zero biases, ``shift`` added to its value."""
    one = torch.ones((), dtype=F64)
    weights = [torch.tensor(w, dtype=F64) for w in layers]
    d = weights[0].shape[1]
    scaling = {
        "input_shift": torch.zeros(d),
        "input_scale": torch.ones(d),
        "output_shift": shift * one,
        "output_scale": one,
    }
    return Surrogate.from_layers(weights, [torch.zeros(len(w)) for w in weights], activation, scaling=scaling)


SOFTPLUS = layered([[[1.0, 1.0], [2.0, -1.0]], [[1.0, 0.5]]], "softplus")  # convex, positive, rising in x_1 only
SINE = layered([[[1.0]], [[1.0]]], "sin")
BOX = Interval([-1.0, -1.0], [1.0, 1.0])


def test_bounds_of_a_sine_are_its_range():
    """sin on [0, 1]: value, slope and second derivative are monotone there."""
    result = bounds(SINE, Interval([0.0], [1.0]), order=2)
    expected = [(0, math.sin(1)), (math.cos(1), 1), (-math.sin(1), 0)]
    for enclosure, (lo, hi) in zip((result.value, result.gradient, result.hessian), expected, strict=True):
        assert enclosure.lo.item() <= lo and hi <= enclosure.hi.item()
        assert enclosure.lo.item() == pytest.approx(lo, abs=1e-3) and enclosure.hi.item() == pytest.approx(hi, abs=1e-3)


def test_bounds_hold_for_samples():
    net = Surrogate([3, 8, 8, 1], gain=1.6)
    box = ball(torch.tensor([0.1, 0.2, -0.3], dtype=F64), 0.3)
    x = box.lo + (box.hi - box.lo) * torch.rand(1000, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    result = bounds(net, box, order=2)
    value, gradient = net.value_and_gradient(x)
    for truth, e in ((value, result.value), (gradient, result.gradient), (net.hessian(x), result.hessian)):
        assert (truth >= e.lo[0]).all() and (truth <= e.hi[0]).all()
    assert torch.equal(result.hessian.lo, result.hessian.lo.mT)
    assert bounds(net, box).hessian is None


@pytest.mark.parametrize("norm, expected", [(1, 4.0), (2, 5.0), (math.inf, 7.0)])
def test_the_lipschitz_constant_of_a_linear_network(norm, expected):
    net = layered([[[3.0, -4.0]]], "silu")
    constant = lipschitz(net, BOX, norm=norm).item()
    assert expected <= constant <= expected * (1 + 1e-12)


def test_the_lipschitz_constant_bounds_difference_quotients():
    net = Surrogate([3, 8, 8, 1], gain=1.6)
    box = ball(torch.zeros(3, dtype=F64), 0.3)
    generator = torch.Generator().manual_seed(0)
    x, y = (0.6 * torch.rand(2000, 3, dtype=F64, generator=generator) - 0.3 for _ in range(2))
    for norm in (1, 2, math.inf):
        quotients = (net(x) - net(y)).abs() / torch.linalg.vector_norm(x - y, norm, dim=1)
        loose, tight = (lipschitz(net, box, norm=norm, cells=cells).item() for cells in (1, 1000))
        assert quotients.max() <= tight <= loose


def test_yes():
    assert is_non_negative(SOFTPLUS, BOX).answer == "yes"
    assert is_increasing(SOFTPLUS, BOX, torch.tensor([1.0, 0.0])).answer == "yes"
    assert is_convex(SOFTPLUS, BOX, torch.tensor([1.0, -2.0])).answer == "yes"
    assert is_convex(SOFTPLUS, ball([0.2, 0.1], 0.2)).answer == "yes"


def test_no_comes_with_a_witness():
    shifted = layered([[[1.0, 1.0], [2.0, -1.0]], [[1.0, 0.5]]], "softplus", shift=-1.0)
    verdict = is_non_negative(shifted, BOX)
    assert verdict.answer == "no" and shifted(verdict.witness.unsqueeze(0)).item() < 0
    assert ((BOX.lo <= verdict.witness) & (verdict.witness <= BOX.hi)).all()
    down = layered([[[1.0, 1.0], [2.0, -1.0]], [[1.0, 3.0]]], "softplus")  # falls along the second input where x_1 > 0
    verdict = is_increasing(down, BOX)
    assert verdict.answer == "no" and down.gradient(verdict.witness.unsqueeze(0)).min().item() < 0
    concave = layered([[[1.0, 1.0], [2.0, -1.0]], [[-1.0, 0.5]]], "softplus")
    verdict = is_convex(concave, BOX)
    hessian = concave.hessian(verdict.witness.unsqueeze(0))[0]
    assert verdict.answer == "no" and (verdict.direction @ hessian @ verdict.direction).item() < 0
    verdict = is_convex(concave, BOX, torch.tensor([1.0, 1.0]))
    assert verdict.answer == "no" and concave.hessian(verdict.witness.unsqueeze(0))[0].sum().item() < 0


def test_branching_settles_what_one_box_does_not():
    """The cosine is positive on [-1.5, 1.5], but one cell sees only its slope at the center and a bound of its bend."""
    box = Interval([-1.5], [1.5])
    net = layered([[[1.0], [1.0]], [[1.0, -0.9]]], "sin")  # (1 - 0.9) sin x, seen twice
    verdict = is_increasing(net, box, cells=1)
    assert verdict.answer == "unknown" and verdict.violation > 0 and verdict.left == 1.0
    assert box.lo <= verdict.worst <= box.hi
    verdict = is_increasing(net, box)
    assert verdict.answer == "yes" and 10 < verdict.cells < 1000 and -0.1 * math.cos(1.5) <= verdict.violation < 0


def test_unknown_when_the_budget_is_used_up():
    net = layered([[[1.0]], [[1.0]]], "sin", shift=1.0)  # 1 + sin x touches 0 at -pi / 2
    box = Interval([-2.0], [0.0])
    verdict = is_non_negative(net, box, cells=25)
    assert verdict.answer == "unknown" and verdict.witness is None and verdict.cells <= 25
    assert 0 < verdict.violation < 1e-3 and verdict.worst.item() == pytest.approx(-math.pi / 2, abs=0.1)
    assert is_non_negative(net, box, tolerance=1e-6).answer == "yes"


def test_a_narrow_counterexample_is_found_by_branching():
    """Negative only between 0.2 and 0.2001 of the first input, where no sample lies."""
    box = Interval([0.0], [1.0])
    net = layered([[[2000.0]], [[1.0]]], "sin", shift=1.0 - 1e-6)
    verdict = is_non_negative(net, box, cells=20_000)
    assert verdict.answer == "no" and net(verdict.witness.unsqueeze(0)).item() < 0


@pytest.mark.parametrize("lowest, answer", [(0.1, True), (-1e-12, False), (-0.1, False)])
def test_positive_semidefinite_matrices(lowest, answer):
    """A matrix with known eigenvalues, widened by less than the smallest one."""
    generator = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(5, 5, dtype=F64, generator=generator)).Q
    h = q @ torch.diag(torch.tensor([lowest, 1.0, 2.0, 3.0, 100.0], dtype=F64)) @ q.T
    h = 0.5 * (h + h.T)
    widened = Interval((h - 1e-3 * abs(lowest)).unsqueeze(0), (h + 1e-3 * abs(lowest)).unsqueeze(0))
    found = lowest_eigenvalue(widened)
    assert found.lo <= lowest <= found.hi and found.hi - found.lo < 0.03 * abs(lowest) + 1e-11
    assert (found.lo.item() >= 0) is answer


@pytest.mark.parametrize("off, answer", [(0.9, True), (1.1, False)])
def test_entries_off_the_diagonal_count(off, answer):
    """The unit matrix, with off-diagonal entries in [-off, off]: its lowest eigenvalue is 1 - off."""
    spread = off * (1 - torch.eye(2, dtype=F64))
    matrix = Interval((torch.eye(2, dtype=F64) - spread).unsqueeze(0), (torch.eye(2, dtype=F64) + spread).unsqueeze(0))
    found = lowest_eigenvalue(matrix)
    assert (found.lo.item() >= 0) is answer and found.lo.item() == pytest.approx(1 - off)


def test_unbounded_hessians_prove_nothing():
    entire = Interval(torch.full((1, 2, 2), -math.inf), torch.full((1, 2, 2), math.inf))
    assert lowest_eigenvalue(entire).lo.item() == -math.inf


def test_no_says_by_how_much():
    """sin x + 0.5 falls to -0.5, its slope to -1, its second derivative to -1 (at pi / 2)."""
    net, box = layered([[[1.0]], [[1.0]]], "sin", shift=0.5), Interval([-4.0], [4.0])
    for ask, depth in ((is_non_negative, 0.5), (is_increasing, 1.0), (is_convex, 1.0)):
        verdict = ask(net, box)
        assert verdict.answer == "no" and 0 < verdict.violation <= depth + 1e-12
        assert ask(net, box, tolerance=1.01 * depth).answer == "yes"
        assert ask(net, box, tolerance=0.99 * depth).answer == "no"


def test_within_numbers_and_formulas():
    """softplus lies between max(0, z) and max(0, z) + log 2, its slope between 0 and 1."""
    net, box = layered([[[1.0]], [[1.0]]], "softplus"), Interval([-3.0], [3.0])
    identity = Reference([1.0], lambda z: z, lambda z: point(1.0 + 0 * z.lo), lambda z: point(0.0 * z.lo))
    assert within(net, (0.0, identity), None, box).answer == "yes"
    assert within(net, None, identity, box).answer == "no"
    assert within(net, None, identity, Interval([2.0], [3.0]), tolerance=0.15).answer == "yes"
    assert within(net, 0.0, 1.0, box, of="gradient").answer == "yes"
    verdict = within(net, 0.0, 0.9, box, of="gradient")
    assert verdict.answer == "no" and net.gradient(verdict.witness[None]).item() > 0.9
    assert within(net, torch.zeros(1), None, box, of="gradient", direction=[-1.0]).answer == "no"


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: is_convex(SOFTPLUS, ball(torch.zeros(2, 2), 1.0)),
            ValueError,
            r"box: got shape \(2, 2\), need \(2,\)",
        ),
        (lambda: is_increasing(SOFTPLUS, Interval([0.0, 0.0], [1.0, math.inf])), ValueError, "need a bounded one"),
        (lambda: is_increasing(SOFTPLUS, BOX, torch.ones(3)), ValueError, r"direction: got shape \(3,\), need \(2,\)"),
        (lambda: is_non_negative(SOFTPLUS, BOX, tolerance=-1.0), ValueError, "tolerance: got -1.0"),
        (lambda: is_non_negative(SOFTPLUS, BOX, cells=0), ValueError, "cells: got 0, need an integer >= 1"),
        (lambda: is_convex(SOFTPLUS, BOX, torch.zeros(2)), ValueError, "direction: got zero, need a direction"),
        (lambda: is_convex(layered([[[1.0]], [[1.0]]], "relu"), Interval([0.0], [1.0])), ValueError, "at order 2"),
        (lambda: within(SOFTPLUS, None, None, BOX), ValueError, "lower, upper: got None for both"),
        (lambda: within(SOFTPLUS, 0.0, None, BOX, of="curvature"), ValueError, "of: got 'curvature'"),
        (lambda: within(SOFTPLUS, torch.zeros(3), None, BOX, of="gradient"), ValueError, "lower: got 3 numbers, need"),
        (
            lambda: within(SOFTPLUS, None, bachelier_reference([1.0], strike=1, volatility=1, maturity=1), BOX),
            ValueError,
            "upper: got one of 1 inputs, need 2",
        ),
        (lambda: is_non_negative(torch.nn.Linear(2, 1), BOX), TypeError, "net: got Linear, need Surrogate"),
        (lambda: lipschitz(SOFTPLUS, BOX, norm=3), ValueError, "norm: got 3, need one of 1, 2, inf"),
        (lambda: bounds(SOFTPLUS, BOX, order=0), ValueError, "order: got 0, need an integer from 1 to 2"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
