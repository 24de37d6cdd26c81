"""Payoffs and smoothing kernels: biases against quadrature, derivatives far out, conditioning against integration."""

import itertools
import math

import numpy as np
import pytest
import torch

from sobolev_lib.simulation.payoffs import Asian, Blend, Call, Digital, LastStep, Put, Sigmoid, Softplus, Straddle
from tests import exact

KERNELS = [Sigmoid, Softplus, Blend]
# Density of the basket at distance m from the strike, and its derivatives at m = 0: normal, mean 0.07 above,
# deviation 0.2.
MEAN, DEVIATION = 0.07, 0.2


def density(m):
    return torch.exp(-0.5 * ((m - MEAN) / DEVIATION) ** 2) / (DEVIATION * math.sqrt(2 * math.pi))


def density_derivatives():
    """phi, phi', phi'', phi''' at the strike."""
    z, s = MEAN / DEVIATION, DEVIATION  # at m = 0 the standardised argument is -z
    phi = math.exp(-0.5 * z * z) / (s * math.sqrt(2 * math.pi))
    return phi, phi * z / s, phi * (z * z - 1) / s**2, phi * (z**3 - 3 * z) / s**3


def integral(function, width):
    """Integral of function times density over the line, split at the kink."""
    nodes, weights = (torch.tensor(a) for a in np.polynomial.legendre.leggauss(60))
    edges = [-2.0, -0.5, *[width * k for k in (-40, -15, -5, 0, 5, 15, 40)], 0.5, 2.0]
    edges = sorted(set(edges))
    total = 0.0
    for a, b in itertools.pairwise(edges):
        m = 0.5 * (a + b) + 0.5 * (b - a) * nodes
        total += float((0.5 * (b - a) * weights * function(m) * density(m)).sum())
    return total


def bias(payoff, sharp, width):
    return integral(lambda m: payoff(m[:, None]) - sharp(m[:, None]), width)


RAMP_BIAS = {
    Sigmoid: lambda w: -(math.pi**2) / 6 * w**2 * density_derivatives()[0],
    Softplus: lambda w: math.pi**2 / 6 * w**2 * density_derivatives()[0],
    Blend: lambda w: -7 * math.pi**4 / 360 * w**4 * density_derivatives()[2],
}
STEP_BIAS = {
    Sigmoid: lambda w: -(math.pi**2) / 6 * w**2 * density_derivatives()[1],
    Softplus: lambda w: -(math.pi**2) / 6 * w**2 * density_derivatives()[1],
    Blend: lambda w: 7 * math.pi**4 / 360 * w**4 * density_derivatives()[3],
}


def arb_jets(names, points):
    """Derivatives of order 0 to 3 of the named functions at each point."""
    return [[exact.arb_jet(name, point, 3) for name in names] for point in points]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("make", "copies"), [(Call, 1), (Put, 1), (Straddle, 2)])
def test_bias_of_a_smoothed_ramp_is_the_stated_one(kernel, make, copies):
    for width, rest in [(0.02, 0.1), (0.01, 0.025)]:  # what is left is of relative order width^2
        measured = bias(make(strike=0.0, smoothing=kernel(width)), make(strike=0.0), width)
        assert measured == pytest.approx(copies * RAMP_BIAS[kernel](width), rel=rest)


@pytest.mark.parametrize("kernel", KERNELS)
def test_bias_of_a_smoothed_step_is_the_stated_one(kernel):
    for width, rest in [(0.02, 0.2), (0.01, 0.05)]:
        measured = bias(Digital(strike=0.0, smoothing=kernel(width)), Digital(strike=0.0), width)
        assert measured == pytest.approx(STEP_BIAS[kernel](width), rel=rest)


@pytest.mark.parametrize("kernel", KERNELS)
def test_smoothing_has_right_derivatives_far_from_the_strike(kernel):
    m = torch.tensor([-1e6, -800.0, -710.0, -30.0, 30.0, 710.0, 800.0, 1e6], dtype=torch.float64, requires_grad=True)
    for function, slope in [(kernel(width=1.0).ramp, (m > 0).double()), (kernel(width=1.0).step, torch.zeros_like(m))]:
        (first,) = torch.autograd.grad(function(m).sum(), m, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), m)
        assert torch.allclose(first, slope.detach(), atol=1e-10)
        assert torch.allclose(second, torch.zeros_like(m), atol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
def test_second_derivatives_against_arb(kernel):
    """Around 20 as well, where some of torch's softplus functions turn into the identity: a jump by 2e-9."""
    margins, width = [-40.0, -25.0, -3.0, -0.5, 0.0, 0.25, 2.0, 19.0, 21.0, 25.0, 33.0], 0.5
    names = {Sigmoid: ["silu"], Softplus: ["softplus"], Blend: ["silu", "softplus"]}[kernel]
    ramp = [[sum(float(jet[k]) for jet in jets) / len(jets) for k in range(4)] for jets in arb_jets(names, margins)]
    step = [jet[1:] for jet in ramp] if kernel is Blend else [jet for (jet,) in arb_jets(["sigmoid"], margins)]
    for function, truth, power in ((kernel(width).ramp, ramp, 1), (kernel(width).step, step, 0)):
        x = (width * torch.tensor(margins, dtype=torch.float64)).requires_grad_()
        values = function(x)
        for k in range(3):
            expected = torch.tensor([float(jet[k]) for jet in truth], dtype=torch.float64) * width ** (power - k)
            assert torch.allclose(values.detach(), expected, rtol=1e-9, atol=1e-13), (function, k)
            if k < 2:
                (values,) = torch.autograd.grad(values.sum(), x, create_graph=True)


def test_softplus_is_convex_and_above_and_sigmoid_dips_by_the_stated_amount():
    m = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    soft, sig = Softplus(width=0.1).ramp(m), Sigmoid(width=0.1).ramp(m)
    assert (soft >= torch.relu(m)).all() and (soft[2:] - 2 * soft[1:-1] + soft[:-2] > -1e-15).all()
    assert float(sig.min()) == pytest.approx(-0.0278, abs=5e-5)


@pytest.mark.parametrize("kernel", [Softplus, Blend])
def test_step_is_the_derivative_of_the_ramp(kernel):
    m = torch.linspace(-1, 1, 101, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(kernel(width=0.1).ramp(m).sum(), m)
    assert torch.allclose(slope, kernel(width=0.1).step(m), atol=1e-14)


@pytest.mark.parametrize("smoothing", [None, *[kernel(width=0.1) for kernel in KERNELS]])
def test_put_call_parity_and_straddle(smoothing):
    s = torch.randn(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    terms = {"strike": 0.3, "weights": [0.5, -1.0], "smoothing": smoothing}
    margin = s @ torch.tensor([0.5, -1.0], dtype=torch.float64) - 0.3
    assert torch.allclose(Call(**terms)(s) - Put(**terms)(s), margin, atol=1e-14)
    assert torch.allclose(Call(**terms)(s) + Put(**terms)(s), Straddle(**terms)(s), atol=1e-14)


def test_sharp_payoffs_at_and_around_the_strike():
    s = torch.tensor([[0.5], [1.0], [1.5]], dtype=torch.float64)
    assert Call(strike=1.0)(s).tolist() == [0, 0, 0.5]
    assert Put(strike=1.0)(s).tolist() == [0.5, 0, 0]
    assert Straddle(strike=1.0)(s).tolist() == [0.5, 0, 0.5]
    assert Digital(strike=1.0)(s).tolist() == [0, 0, 1]


def test_asian_averages_over_the_dates():
    s = torch.tensor([[[1.0, 0.0], [2.0, 4.0], [3.0, -1.0]]], dtype=torch.float64)
    for kind, value in [("call", 1.0), ("put", 0.0), ("straddle", 1.0), ("digital", 1.0)]:
        assert Asian(strike=2.0, dates=3, weights=[1.0, 1.0], kind=kind)(s).item() == pytest.approx(value)


@pytest.mark.parametrize("make", [Call, Put, Straddle, Digital])
def test_conditional_expectation_is_the_integral(make):
    payoff = make(strike=0.0, smoothing=LastStep())
    mean, deviation = torch.tensor([MEAN], dtype=torch.float64), torch.tensor([DEVIATION], dtype=torch.float64)
    exact = integral(lambda m: make(strike=0.0)(m[:, None]), 0.01)
    assert float(payoff.expected(mean, deviation)) == pytest.approx(exact, abs=1e-12)


def test_smooth_order():
    assert [make(strike=1.0).smooth_order for make in (Call, Put, Straddle, Digital)] == [1, 1, 1, 0]
    assert Asian(strike=1.0, dates=2).smooth_order == 1
    assert all(
        Digital(strike=1.0, smoothing=s).smooth_order == 2 for s in (Sigmoid(1), Softplus(1), Blend(1), LastStep())
    )


def test_bad_input_is_refused():
    for kernel in KERNELS:
        with pytest.raises(ValueError, match=r"width: got 0\.0"):
            kernel(width=0.0)
    with pytest.raises(ValueError, match="strike: got nan"):
        Call(strike=math.nan)
    with pytest.raises(ValueError, match=r"weights: got shape \(1, 2\), need \(d,\)"):
        Put(strike=1.0, weights=[[1, 2]])
    with pytest.raises(ValueError, match=r"weights: got \[0\.0, 0\.0\], need at least one that is not 0"):
        Digital(strike=1.0, weights=[0, 0])
    with pytest.raises(TypeError, match=r"smoothing: got Blend, need Sigmoid\(width\)"):
        Straddle(strike=1.0, smoothing=Blend)
    with pytest.raises(TypeError, match="smoothing: got float"):
        Call(strike=1.0, smoothing=0.02)
    with pytest.raises(ValueError, match="dates: got 0"):
        Asian(strike=1.0, dates=0)
    with pytest.raises(ValueError, match="kind: got 'barrier', need one of 'call', 'put', 'straddle', 'digital'"):
        Asian(strike=1.0, dates=2, kind="barrier")
    with pytest.raises(ValueError, match="smoothing: got LastStep, which needs the step before"):
        Call(strike=1.0, smoothing=LastStep())(torch.zeros(1, 1, dtype=torch.float64))
