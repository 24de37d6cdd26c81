"""Proved errors: against dense sampling, known errors, and formulas that are wrong."""

import itertools
import math
from fractions import Fraction
from functools import partial

import pytest
import torch

from sobolev_lib.certificates.coordinates import Difference, Frame, _reduced
from sobolev_lib.certificates.error_bound import error_bound
from sobolev_lib.certificates.references import Reference, bachelier_reference, black_scholes_reference
from sobolev_lib.certificates.verdicts import bounds, is_convex, is_increasing, is_non_negative
from sobolev_lib.enclosure.interval import Interval, ball, point, sqr
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.simulation.closed_form import bachelier, black_scholes
from tests.oracles import random_net

F64 = torch.float64
SIZES = [(1, 3), (1, 3, 3), (7, 3, 3), (20, 3, 3), (5, 16), (2, 12, 12), (10, 6, 4, 3), (14, 17, 12)]
TERMS = {"strike": 1.0, "volatility": 0.3, "maturity": 1.0}


def thin(d: int, seed: int, activation: str = "softplus", hidden=(3, 3), spread: float = 1e-2) -> Surrogate:
    """A random network whose first layer sees little but one direction, with a scaling."""
    generator = torch.Generator().manual_seed(seed)
    net = Surrogate([d, *hidden, 1], activation, gain=1.5, generator=generator)
    first = net.weights[0].data
    first.copy_(torch.randn(len(first), 1, generator=generator).double() * torch.rand(d, generator=generator).double())
    first.add_(spread * torch.randn(*first.shape, generator=generator, dtype=F64))
    for bias in net.biases:
        bias.data.normal_(generator=generator)
    net.input_shift.uniform_(-1, 1, generator=generator), net.input_scale.uniform_(0.3, 2, generator=generator)
    net.output_shift.fill_(0.7), net.output_scale.fill_(1.3)
    return net


def inside(box: Interval, n: int, seed: int = 0) -> torch.Tensor:
    """Random points of a box, a tenth of them in its corners."""
    u = torch.rand(n, len(box), dtype=F64, generator=torch.Generator().manual_seed(seed))
    u[: n // 10] = u[: n // 10].round()
    return torch.minimum(torch.lerp(box.lo, box.hi, u), box.hi)


def errors(net, reference, x, v):
    """Errors of value (n,), gradient (n, d) and curvature (n,) in floating point."""
    value, gradient = net.value_and_gradient(x)
    curvature = (net.hvp(x, v[None])[:, 0] * v).sum(1)
    if isinstance(reference, Surrogate):
        truth = errors(reference, None, x, v)
    elif reference is None:
        return value, gradient, curvature
    else:
        w, greeks = reference
        truth = greeks.price, greeks.delta[:, None] * w, greeks.gamma * (w @ v) ** 2
    return value - truth[0], gradient - truth[1], curvature - truth[2]


def check(net, reference, truth, box, v, n, **options):
    """No sampled error exceeds the bound, and the largest one seen is at the point that is named."""
    found = error_bound(net, reference, box, direction=v, **options)
    sampled = errors(net, truth(inside(box, n)), inside(box, n), v)
    for name, error in zip(("value", "gradient", "curvature"), sampled, strict=True):
        extreme = getattr(found, name)
        assert error.abs().max() <= extreme.bound * (1 + 1e-12) + 1e-13, name
        assert extreme.seen <= extreme.bound
        there = errors(net, truth(extreme.where[None]), extreme.where[None], v)
        named = dict(zip(("value", "gradient", "curvature"), there, strict=True))[name].abs().max()
        assert named.item() == pytest.approx(extreme.seen, rel=1e-6, abs=1e-12)
    return found


def basket(d: int, seed: int):
    w = torch.rand(d, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return w / w.sum()


@pytest.mark.parametrize(
    "d, activation", [(1, "sin"), (1, "sigmoid"), (2, "silu"), (2, "tanh"), (7, "softplus"), (7, "silu")]
)
def test_bounds_hold_and_are_close(d, activation):
    w, net, box = basket(d, d), thin(d, d, activation, spread=1e-3), ball(torch.ones(d, dtype=F64), 0.6)
    v = torch.ones(d, dtype=F64)

    def truth(x):
        return w, bachelier(x @ w, **TERMS)

    found = check(net, bachelier_reference(w, **TERMS), truth, box, v, 5000)
    assert all(e.bound <= 1.06 * e.seen for e in (found.value, found.gradient))
    assert found.curvature.bound <= 1.3 * found.curvature.seen


@pytest.mark.parametrize("hidden", [(), (4,), (20,), (6, 6, 6)])
def test_any_first_layer(hidden):
    """Linear, thin, wider than its inputs and deep; Black-Scholes on one asset and on a basket."""
    for d in (1, 3):
        w, net, box = basket(d, 1), thin(d, 1, "silu", hidden, 0.1), ball(torch.ones(d, dtype=F64), 0.4)

        def truth(x, w=w):
            return w, black_scholes(x @ w, **TERMS)

        check(net, black_scholes_reference(w, **TERMS), truth, box, basket(d, 2), 2000, cells=100)


def test_another_network():
    net = thin(4, 0, spread=1e-3)
    other = net.copy()
    other.weights[1].data.mul_(1.01)
    found = check(net, other, lambda x: other, ball(torch.zeros(4, dtype=F64), 1.0), basket(4, 3), 4000, cells=1500)
    assert found.value.bound < 1.06 * found.value.seen < 0.2


def test_single_precision_against_double():
    net = thin(3, 0)
    rounded = Surrogate.from_layers(
        [w.float() for w in net.weights],
        [b.float() for b in net.biases],
        "softplus",
        scaling={name: b.float() for name, b in net.named_buffers()},
    )
    found = error_bound(net, rounded, ball(torch.zeros(3, dtype=F64), 1.0), of=("value",), cells=500)
    assert 1e-9 < found.value.seen < 1e-6 and found.value.bound < 1e-2  # two functions: what they share is not seen


def test_a_function_of_ones_own():
    """The square of a sum, against itself as a network of no use: the error is the value, at most 4."""
    square = Reference([1.0, 1.0], sqr, lambda t: Interval(2 * t.lo, 2 * t.hi), lambda t: point(2.0 + 0 * t.lo))
    zero = Surrogate([2, 1, 1])
    zero.weights[1].data.zero_()
    found = error_bound(zero, square, Interval([-1.0, -1.0], [1.0, 1.0]), direction=[1.0, 0.0])
    assert 4 <= found.value.bound <= 4.21 and found.value.where.abs().tolist() == [1, 1]
    assert 4 <= found.gradient.bound <= 4.21 and found.curvature.bound == pytest.approx(2.0)


def test_a_wrong_coefficient_is_caught():
    """A curvature that is 1 % off contradicts the slopes: the proved bound is below errors that are there."""
    w, net, box = basket(2, 0), thin(2, 1), ball(torch.ones(2, dtype=F64), 0.4)
    right = bachelier_reference(w, **TERMS)
    factor = point(torch.tensor(1.01, dtype=F64))
    wrong = Reference(
        w,
        lambda b: Interval.unchecked(right.value(b).lo * 1.01, right.value(b).hi * 1.01),
        right.slope,
        right.curvature,
    )

    def truth(x):
        return w, bachelier(x @ w, **TERMS)

    assert factor.lo > 1
    with pytest.raises(AssertionError):
        check(net, wrong, truth, box, torch.ones(2, dtype=F64), 5000)


def test_cells_outside_of_the_image_are_discarded_and_no_others():
    place = Difference([thin(5, 3, spread=0.5)], ball(torch.zeros(5, dtype=F64), 1.0), "value")
    frame = place.frame
    e = 2 * torch.rand(4000, 5, dtype=F64, generator=torch.Generator().manual_seed(0)) - 1
    cells = Interval.unchecked(e.sign() @ frame.basis - 1e-3, e.sign() @ frame.basis + 1e-3)
    cut = torch.ones(4000, frame.basis.shape[1], dtype=torch.bool)
    assert not frame.misses(cells, cut).any()
    far = Interval.unchecked(-frame.reach[None], frame.reach[None])
    corner = Interval.unchecked(0.99 * far.hi, far.hi)
    assert frame.misses(corner, cut[:1]).item()


def test_a_budget_of_one_cell_says_what_is_left():
    net, w = thin(3, 0), basket(3, 0)
    found = error_bound(net, bachelier_reference(w, **TERMS), ball(torch.ones(3, dtype=F64), 0.5), cells=1).value
    assert found.cells == 1 and found.left == 1.0 and found.bound > 1.05 * found.seen


def check_verdicts(net, box, v, x):
    """No point contradicts a yes, every no holds at its witness; tolerances at which either may come."""
    asked = partial(is_non_negative, net, box), partial(is_increasing, net, box, v), partial(is_convex, net, box, v)

    def quantities(at):
        value, gradient, curvature = errors(net, None, at, v)
        return value, gradient @ v, curvature

    for k, (ask, found) in enumerate(zip(asked, quantities(x), strict=True)):
        lowest, highest = found.min().item(), found.max().item()
        for share in (-0.2, 0.2):
            tolerance = max(0.0, -lowest - share * (highest - lowest))
            verdict = ask(tolerance=tolerance, cells=100)
            if verdict.answer == "yes":
                assert lowest >= -tolerance - 1e-12
            elif verdict.answer == "no":
                assert quantities(verdict.witness[None])[k].item() < -tolerance + 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("widths", SIZES)
def test_a_million_points_stay_inside(widths):
    """Networks of 10 to 484 parameters, thin and not; errors, ranges and verdicts of value, gradient and curvature."""
    d, n, v = widths[0], 1 + 1_000_000 // (6 * len(SIZES)), torch.ones(widths[0], dtype=F64)
    for seed in range(2):
        for activation, spread in (("softplus", 1e-2), ("silu", 0.3), ("tanh", 1e-2)):
            w, net, box = basket(d, seed), thin(d, seed, activation, widths[1:], spread), ball(v, 0.5)

            def truth(x, w=w):
                return w, bachelier(x @ w, **TERMS)

            check(net, bachelier_reference(w, **TERMS), truth, box, v, n, cells=300)
            x, proved = inside(box, n, 1), bounds(net, box, cells=100)
            value, gradient = net.value_and_gradient(x)
            assert (value >= proved.value.lo - 1e-14).all() and (value <= proved.value.hi + 1e-14).all()
            assert (gradient >= proved.gradient.lo - 1e-13).all() and (gradient <= proved.gradient.hi + 1e-13).all()
            check_verdicts(net, box, v / v.norm(), x)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda net, box: error_bound(net, math.sin, box),
            TypeError,
            "reference: got builtin_function_or_method, need",
        ),
        (lambda net, box: error_bound(net, Surrogate([3, 2, 1]), box), ValueError, "reference: got one of 3 inputs"),
        (lambda net, box: error_bound(net, net, box[:1]), ValueError, r"box: got shape \(1,\), need \(2,\)"),
        (lambda net, box: error_bound(net, net, box, cells=0), ValueError, "cells: got 0, need an integer >= 1"),
        (lambda net, box: error_bound(net, net, box, of=("curvature",)), ValueError, "direction: got None, need one"),
        (lambda net, box: error_bound(net, net, box, of=("theta",)), ValueError, "of: got 'theta', need one of"),
        (lambda net, box: error_bound(net, net, box, tolerance=-1.0), ValueError, "tolerance: got -1.0"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(thin(2, 0), Interval([0.0, 0.0], [1.0, 1.0]))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_slack_covers_what_the_coordinates_lose_by_rounding(seed):
    """In exact arithmetic, at corners: pre-activations are M zeta + z up to the slack, and not without it."""
    net, x = random_net((4, 3, 1), seed=seed)
    box = Interval(x[0] - 0.3, x[0] + 0.7)
    frame = Frame(box, [net])
    view = _reduced(net, frame, None, False, False).view
    exact = lambda t: [[Fraction(v) for v in row] for row in t.detach().double().tolist()]  # noqa: E731
    rows, matrix, basis = exact(net.weights[0]), exact(view.matrix), exact(frame.basis)
    center, radius, shift, scale, bias, middle, slack = (
        exact(t[None])[0]
        for t in (frame.center, frame.radius, net.input_shift, net.input_scale, net.biases[0], view.middle, view.slack)
    )
    worst = 0
    for signs in itertools.product([-1, 1], repeat=4):
        zeta = [sum(basis[j][i] * e for j, e in enumerate(signs)) for i in range(len(basis[0]))]
        u = [(c + r * e - m) / s for c, r, e, m, s in zip(center, radius, signs, shift, scale, strict=True)]
        for k, row in enumerate(rows):
            seen = sum(w * v for w, v in zip(row, u, strict=True)) + bias[k]
            said = sum(w * v for w, v in zip(matrix[k], zeta, strict=True)) + middle[k]
            assert abs(seen - said) <= slack[k]
            worst = max(worst, abs(seen - said))
    assert worst > 0
