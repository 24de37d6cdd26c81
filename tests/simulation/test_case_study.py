"""The case study's set-up, checked against simulation and finite differences."""

import math

import pytest
import torch

from sobolev_lib.simulation.case_study import PUBLISHED_WEIGHTS, basket_case
from sobolev_lib.simulation.labels import label
from sobolev_lib.simulation.noise import antithetic, gaussian, sobol
from sobolev_lib.simulation.payoffs import Blend


@pytest.mark.parametrize("dim", [1, 2, 7, 20, 100])
def test_basket_has_the_stated_volatility_and_weights_sum_to_one(dim):
    case = basket_case(dim, seed=5, volatility=0.3)
    assert case.dim == dim and case.weights.shape == (dim,)
    assert float(case.weights.sum()) == pytest.approx(1, abs=1e-14) and (case.weights > 0).all()
    covariance = case.model.cholesky @ case.model.cholesky.T
    assert float(case.weights @ covariance @ case.weights) == pytest.approx(0.09, rel=1e-13)


def test_seven_assets_have_the_published_weights():
    assert basket_case(seed=0).weights.tolist() == pytest.approx(PUBLISHED_WEIGHTS, abs=1e-7)
    assert torch.equal(basket_case(seed=0).weights, basket_case(seed=1).weights)
    assert not torch.equal(basket_case(seed=0).model.volatility, basket_case(seed=1).model.volatility)


def test_volatilities_before_scaling_span_less_than_a_factor_of_ten():
    volatility = basket_case(100, seed=2).model.volatility
    assert 5 < float(volatility.max() / volatility.min()) < 10


def test_inputs_spread_by_one_and_a_half_volatilities():
    case = basket_case()
    x = case.inputs(50_000, gaussian(seed=4))
    baskets = x @ case.weights
    # mean 1, deviation 0.3: 5 standard errors, level 6e-7 each
    assert abs(float(baskets.mean()) - 1) < 5 * 0.3 / math.sqrt(len(x))
    assert abs(float(baskets.std()) / 0.3 - 1) < 5 / math.sqrt(2 * len(x))


@pytest.mark.parametrize("noise", [gaussian(seed=4), sobol(seed=4)])
def test_one_noise_serves_inputs_and_paths(noise):
    case, n = basket_case(), 4096
    inputs = (case.inputs(n, noise) - 1) @ case.weights / 0.3
    paths = noise(0, n, 7) @ case.model.cholesky.T @ case.weights / 0.2
    assert abs(float((inputs * paths).mean())) < 5 / math.sqrt(n)


@pytest.mark.parametrize("dim", [1, 7, 100])
def test_test_inputs_fill_the_box(dim):
    x = basket_case(dim).test_inputs()
    half = 0.5 * (1 + 0.5 * math.sqrt((dim - 1) / 12))
    assert x.shape == (4096, dim)
    assert 1 - half <= float(x.min()) < 1 - 0.99 * half and 1 + 0.99 * half < float(x.max()) <= 1 + half
    assert not torch.equal(x, basket_case(dim).test_inputs(seed=1))


@pytest.mark.parametrize("dim", [1, 7])
def test_reference_is_the_mean_of_the_labels(dim):
    case = basket_case(dim, strike=0.95)
    x = case.test_inputs(5)
    samples = label(case.model, case.payoff, x, horizon=case.horizon, noise=gaussian(seed=1), paths=20_000)
    truth = case.reference(x)
    # 5 prices and 5 * dim deltas at 4.5 standard errors: level 3e-4
    assert ((samples.value - truth.price).abs() < 4.5 * samples.value_error).all()
    assert ((samples.gradient - truth.delta).abs() < 4.5 * samples.gradient_error).all()


def test_reference_gamma_is_the_derivative_of_delta_along_the_diagonal():
    case, h = basket_case(seed=3), 1e-5
    x = case.test_inputs(64, seed=2)
    up, down = case.reference(x + h).delta.sum(1), case.reference(x - h).delta.sum(1)
    assert torch.allclose((up - down) / (2 * h), case.reference(x).gamma, rtol=0, atol=2e-8)


def test_smoothing_reaches_the_payoff():
    assert basket_case(smoothing=Blend(width=0.02)).payoff.smoothing == Blend(width=0.02)
    assert basket_case().payoff.smooth_order == 1


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="dim: got 0"):
        basket_case(0)
    with pytest.raises(ValueError, match=r"volatility: got 0\.0"):
        basket_case(volatility=0.0)
    with pytest.raises(ValueError, match="strike: got inf"):
        basket_case(strike=math.inf)
    case = basket_case()
    with pytest.raises(TypeError, match="noise: got Antithetic, need gaussian"):
        case.inputs(2, antithetic(gaussian()))
    with pytest.raises(ValueError, match="count: got 0"):
        case.inputs(0, gaussian())
    with pytest.raises(ValueError, match=r"x: got shape \(2, 3\), need \(n, 7\)"):
        case.reference(torch.zeros(2, 3))
