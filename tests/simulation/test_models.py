"""Models: drift, diffusion, transition and law belong together; parameters that make no sense are refused."""

import dataclasses
import math
import warnings

import pytest
import torch

from sobolev_lib.simulation.models import Bachelier, BlackScholes, Heston, correlate
from sobolev_lib.simulation.noise import gaussian
from sobolev_lib.simulation.schemes import log_density, simulate

CORRELATION = [[1.0, 0.6, -0.3], [0.6, 1.0, 0.1], [-0.3, 0.1, 1.0]]
VOLATILITY = [0.1, 0.3, 0.2]
BACHELIER = Bachelier(volatility=VOLATILITY, correlation=CORRELATION)
BLACK_SCHOLES = BlackScholes(volatility=VOLATILITY, correlation=CORRELATION, rate=0.05)
HESTON = {"mean_reversion": 1.5, "long_variance": 0.04, "vol_of_variance": 0.3, "spot_variance_correlation": -0.7}


def test_cholesky_factors_the_covariance():
    covariance = torch.tensor(
        [
            [v * w * c for w, c in zip(VOLATILITY, row, strict=True)]
            for v, row in zip(VOLATILITY, CORRELATION, strict=True)
        ],
        dtype=torch.float64,
    )
    assert torch.allclose(BACHELIER.cholesky @ BACHELIER.cholesky.T, covariance, atol=1e-16)
    assert torch.equal(BACHELIER.cholesky, BACHELIER.cholesky.tril())


@pytest.mark.parametrize("model", [BACHELIER, BLACK_SCHOLES])
def test_transition_and_law_agree(model):
    x = torch.tensor([[1.0, 2.0, 0.5], [0.7, 1.0, 3.0]], dtype=torch.float64)
    law = model.law(x, 0.7)
    shocks = correlate(law.factor, gaussian(seed=1)(0, 2, 3))
    y = law.mean + law.scale * shocks
    assert torch.allclose(model.transition(x, 0.7, shocks), torch.exp(y) if law.log else y, rtol=1e-14)


@pytest.mark.parametrize("model", [BACHELIER, BLACK_SCHOLES])
def test_one_row_of_parameters_per_path_gives_the_same_transition(model):
    clone = dataclasses.replace(model)
    object.__setattr__(clone, "volatility", model.volatility.expand(5, 3).clone())
    x, z = torch.ones(5, 3, dtype=torch.float64), gaussian(seed=1)(0, 5, 3)
    assert clone.dim == 3
    assert torch.allclose(clone.transition(x, 0.7, z), model.transition(x, 0.7, z), rtol=1e-15)
    assert torch.equal(clone.diffusion(0.0, x), model.diffusion(0.0, x))


def test_transition_moments():
    n, h = 200_000, 0.7
    x = torch.tensor([[1.0, 2.0, 0.5]], dtype=torch.float64).expand(n, 3)
    arithmetic = simulate(BACHELIER, x, horizon=h, noise=gaussian(seed=2))
    covariance = torch.cov(arithmetic.T)
    exact = h * BACHELIER.cholesky @ BACHELIER.cholesky.T
    deviations = torch.sqrt((exact.diagonal()[:, None] * exact.diagonal() + exact**2) / n)
    assert ((arithmetic.mean(0) - x[0]).abs() < 4.5 * torch.sqrt(exact.diagonal() / n)).all()
    assert ((covariance - exact).abs() < 4.5 * deviations).all()  # 12 comparisons, level 1e-4
    growth = simulate(BLACK_SCHOLES, x, horizon=h, noise=gaussian(seed=2)) / x
    mean = math.exp(0.05 * h)
    deviation = mean * torch.sqrt(torch.expm1(BLACK_SCHOLES.volatility**2 * h) / n)
    assert ((growth.mean(0) - mean).abs() < 4.5 * deviation).all()


def test_transition_without_volatility_is_the_forward():
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    z = torch.ones(1, 2, dtype=torch.float64)
    assert torch.equal(Bachelier(volatility=[0.0, 0.0]).transition(x, 2.0, z), x)
    assert torch.allclose(BlackScholes(volatility=[0.0, 0.0], rate=0.1).transition(x, 2.0, z), x * math.exp(0.2))


def test_infinitesimal_transition_has_the_coefficients():
    """E[dX] / h -> drift and Cov[dX] / h -> b C b, by integrating the transition over a Gauss-Hermite rule."""
    x, h = torch.tensor([[1.5]], dtype=torch.float64), 1e-6
    model = BlackScholes(volatility=0.3, rate=0.07)
    z = torch.tensor([[math.sqrt(3.0)], [0.0], [-math.sqrt(3.0)]], dtype=torch.float64)
    weights = torch.tensor([1 / 6, 2 / 3, 1 / 6], dtype=torch.float64)
    moved = model.transition(x.expand(3, 1), h, z)[:, 0] - x[0, 0]
    assert float(weights @ moved / h) == pytest.approx(float(model.drift(0.0, x)), rel=1e-5)
    assert float(weights @ moved**2 / h) == pytest.approx(float(model.diffusion(0.0, x)) ** 2, rel=1e-5)


@pytest.mark.parametrize("log", [False, True])
def test_log_density_against_torch(log):
    model = BLACK_SCHOLES if log else BACHELIER
    x = torch.tensor([[1.0, 2.0, 0.5], [0.7, 1.0, 3.0]], dtype=torch.float64)
    law, y = model.law(x, 0.7), torch.tensor([[1.1, 1.7, 0.6], [0.6, 1.2, 2.5]], dtype=torch.float64)
    loading = law.scale[:, :, None] * law.factor
    oracle = torch.distributions.MultivariateNormal(law.mean, scale_tril=loading)
    exact = oracle.log_prob(y.log() if log else y)
    ours = log_density(law, y)
    assert float(ours[0] - ours[1]) == pytest.approx(float(exact[0] - exact[1]), rel=1e-12)
    general = dataclasses.replace(law, scale=loading, factor=None)
    assert torch.allclose(log_density(general, y) - ours, (log_density(general, y) - ours)[0].expand(2), atol=1e-12)


def test_heston_coefficients_and_correlation():
    model = Heston(
        mean_reversion=[1.0, 2.0],
        long_variance=[0.04, 0.09],
        vol_of_variance=[0.2, 0.5],
        spot_variance_correlation=[-0.5, 0.3],
        correlation=[[1.0, 0.4], [0.4, 1.0]],
        rate=0.1,
    )
    assert (model.assets, model.dim, model.positive) == (2, 4, 2)
    x = torch.tensor([[1.0, 2.0, 0.09, -0.01]], dtype=torch.float64)
    assert model.drift(0.0, x)[0].tolist() == pytest.approx([0.1, 0.2, -0.05, 0.18])
    assert model.diffusion(0.0, x)[0].tolist() == pytest.approx([0.3, 0.0, 0.06, 0.0])
    full = model.factor @ model.factor.T
    assert torch.allclose(full.diagonal(), torch.ones(4, dtype=torch.float64))
    assert float(full[0, 1]) == pytest.approx(0.4)
    assert float(full[0, 2]) == pytest.approx(-0.5) and float(full[1, 3]) == pytest.approx(0.3)
    assert float(full[0, 3]) == pytest.approx(0.3 * 0.4) and float(full[2, 3]) == pytest.approx(-0.5 * 0.3 * 0.4)


def test_heston_diffusion_has_a_finite_derivative_at_zero_variance():
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(Heston(**HESTON).diffusion(0.0, x).sum(), x)
    assert gradient.tolist() == [[0.0, 0.0]]


def test_heston_broadcasts_numbers():
    model = Heston(mean_reversion=[1.0, 2.0], long_variance=0.04, vol_of_variance=0.1, spot_variance_correlation=0.0)
    assert model.long_variance.tolist() == [0.04, 0.04]


def test_feller_condition_warns_and_says_what_follows():
    with pytest.warns(UserWarning, match=r"Feller condition violated.*twice the steps.*heavy tails"):
        Heston(**HESTON | {"vol_of_variance": 0.4})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Heston(**HESTON | {"vol_of_variance": 0.34})


@pytest.mark.parametrize("make", [Bachelier, BlackScholes])
@pytest.mark.parametrize(
    ("volatility", "correlation", "match"),
    [
        ([0.2, -0.1], None, r"volatility: got \[0\.2, -0\.1\], need at least one number, none negative"),
        ([], None, r"volatility: got \[\]"),
        ([[0.2]], None, r"volatility: got shape \(1, 1\), need \(d,\)"),
        ([math.nan], None, "volatility: got 1 non-finite"),
        ([0.2, 0.1], [[1.0]], r"correlation: got shape \(1, 1\), need \(2, 2\)"),
        ([0.2, 0.1], [[1.0, 0.5], [0.4, 1.0]], r"correlation: got a matrix that differs from its transpose by 0\.1"),
        ([0.2, 0.1], [[1.0, 0.5], [0.5, 0.9]], r"correlation: got a diagonal that differs from 1 by 0\.1"),
        ([0.2, 0.1], [[1.0, 1.5], [1.5, 1.0]], r"correlation: got smallest eigenvalue -0\.5, need a positive definite"),
        ([0.2, 0.1], [[1.0, 1.0], [1.0, 1.0]], "correlation: got smallest eigenvalue .*, need a positive definite"),
    ],
)
def test_bad_parameters_are_refused(make, volatility, correlation, match):
    with pytest.raises(ValueError, match=match):
        make(volatility=volatility, correlation=correlation)


def test_bad_heston_parameters_are_refused():
    with pytest.raises(ValueError, match=r"mean_reversion: got \[-1\.0\]"):
        Heston(**HESTON | {"mean_reversion": -1.0})
    with pytest.raises(ValueError, match=r"long_variance: got shape \(2,\), need \(1,\)"):
        Heston(**HESTON | {"long_variance": [0.04, 0.04]})
    with pytest.raises(ValueError, match=r"spot_variance_correlation: got \[1\.0\], need numbers between -1 and 1"):
        Heston(**HESTON | {"spot_variance_correlation": 1.0})
    with pytest.raises(ValueError, match="rate: got nan"):
        Heston(**HESTON, rate=math.nan)
    with pytest.raises(TypeError, match="volatility: got str"):
        Bachelier(volatility="high")
