"""Labels of every model, payoff and smoothing against formulas: values, gradients and Hessian-vector products.

Each comparison of a single number is at 4 standard errors, level 6e-5. There are about 700 of them, many correlated, so
with correct code a choice of seeds fails with probability 0.04 at most; the seeds are fixed, and these do not. Smoothed
payoffs are compared with the formula plus the leading bias that their docstrings state.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sobolev_lib.simulation.closed_form import bachelier, black_scholes, heston
from sobolev_lib.simulation.labels import label
from sobolev_lib.simulation.models import Bachelier, BlackScholes, Heston
from sobolev_lib.simulation.noise import gaussian
from sobolev_lib.simulation.payoffs import Asian, Blend, Call, Digital, LastStep, Put, Sigmoid, Softplus, Straddle
from sobolev_lib.simulation.schemes import EulerMaruyama, Milstein

WIDTH = 0.02
SMOOTHINGS = [None, Sigmoid(WIDTH), Softplus(WIDTH), Blend(WIDTH), LastStep()]
PAYOFFS = {"call": Call, "put": Put, "straddle": Straddle, "digital": Digital}
STRIKE, HORIZON = 1.05, 1.5


def leading_bias(kind, smoothing, price):
    """Stated bias as a function of the spot; the density is the second derivative of the call in the strike."""
    ramp = {Sigmoid: (-(math.pi**2) / 6, 0), Softplus: (math.pi**2 / 6, 0), Blend: (-7 * math.pi**4 / 360, 2)}
    step = {Sigmoid: (-(math.pi**2) / 6, 1), Softplus: (-(math.pi**2) / 6, 1), Blend: (7 * math.pi**4 / 360, 3)}
    if type(smoothing) not in ramp:
        return lambda spot: torch.zeros_like(spot)
    factor, order = (step if kind == "digital" else ramp)[type(smoothing)]
    factor *= (2 if kind == "straddle" else 1) * WIDTH ** (2 if order < 2 else 4)
    stencils = {  # of the derivative 2 + order of the price in the strike
        0: ((1, -2, 1), (-1, 0, 1), 1.0),
        1: ((-1, 2, 0, -2, 1), (-2, -1, 0, 1, 2), 2.0),
        2: ((1, -4, 6, -4, 1), (-2, -1, 0, 1, 2), 1.0),
        3: ((-1, 4, -5, 0, 5, -4, 1), (-3, -2, -1, 0, 1, 2, 3), 2.0),
    }
    weights, shifts, divisor = stencils[order]
    h = 0.02
    return lambda spot: (
        factor
        * sum(w * price(spot, STRIKE + k * h) for w, k in zip(weights, shifts, strict=True))
        / (divisor * h ** (2 + order))
    )


def truth(kind, smoothing, formula, spot):
    """Value, delta and gamma of the smoothed payoff; formula(spot, strike, kind) returns Greeks."""
    spot = torch.tensor([spot], dtype=torch.float64)
    greeks, h = formula(spot, STRIKE, kind), 0.02
    bias = leading_bias(kind, smoothing, lambda s, k: formula(s, k, "call").price)
    up, mid, down = bias(spot + h), bias(spot), bias(spot - h)
    return (
        float(greeks.price + mid),
        float(greeks.delta + (up - down) / (2 * h)),
        float(greeks.gamma + (up - 2 * mid + down) / h**2),
    )


def assert_close(samples, value, gradient, hvp=None, errors=4.0, slack=1e-12):
    """All labels of the single input within the given number of standard errors."""
    gradient = torch.tensor(gradient, dtype=torch.float64)
    assert abs(float(samples.value) - value) <= errors * float(samples.value_error) + slack
    assert ((samples.gradient[0] - gradient).abs() <= errors * samples.gradient_error[0] + slack).all()
    if hvp is not None:
        hvp = torch.tensor(hvp, dtype=torch.float64)
        assert ((samples.hvp[0, 0] - hvp).abs() <= errors * samples.hvp_error[0, 0] + slack).all()


def basket_truth(model, weights, kind, smoothing, x, maturity=HORIZON):
    """Value, gradient and Hessian times (1, -1, 2) of an option on a Bachelier basket."""
    volatility = float((model.cholesky.T @ weights).norm())

    def formula(spot, strike, kind):
        return bachelier(spot, strike=strike, volatility=volatility, maturity=maturity, kind=kind)

    value, delta, gamma = truth(kind, smoothing, formula, float(weights @ x))
    u = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    return value, (delta * weights).tolist(), (gamma * (weights @ u) * weights).tolist()


BASKET = Bachelier(volatility=[0.2, 0.4, 0.3], correlation=[[1, 0.5, 0.2], [0.5, 1, -0.3], [0.2, -0.3, 1]])
WEIGHTS = torch.tensor([0.5, 0.7, -0.2], dtype=torch.float64)
X = torch.tensor([[1.0, 0.9, 0.6]], dtype=torch.float64)
U = [[1.0, -1.0, 2.0]]


def order_of(payoff):
    return min(payoff.smooth_order, 2)


@pytest.mark.parametrize("smoothing", SMOOTHINGS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", PAYOFFS)
@pytest.mark.parametrize(
    "scheme", [{}, {"steps": 2}, {"steps": 3, "scheme": EulerMaruyama()}], ids=["one", "two", "Euler"]
)
def test_bachelier_basket(kind, smoothing, scheme):
    payoff = PAYOFFS[kind](strike=STRIKE, weights=WEIGHTS, smoothing=smoothing)
    order = order_of(payoff)
    samples = label(
        BASKET,
        payoff,
        X,
        horizon=HORIZON,
        noise=gaussian(seed=41),
        order=order,
        paths=60_000,
        directions=U if order == 2 else None,
        **scheme,
    )
    value, gradient, hvp = basket_truth(BASKET, WEIGHTS, kind, smoothing, X[0])
    if order == 0:
        assert abs(float(samples.value) - value) <= 4 * float(samples.value_error)
    else:
        assert_close(samples, value, gradient, hvp if order == 2 else None)


@pytest.mark.parametrize("smoothing", SMOOTHINGS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", PAYOFFS)
def test_asian_on_a_bachelier_basket(kind, smoothing):
    """The mean over M dates is normal, with variance T (M + 1) (2 M + 1) / (6 M^2) instead of T."""
    payoff = Asian(strike=STRIKE, weights=WEIGHTS, smoothing=smoothing, dates=4, kind=kind)
    order = order_of(payoff)
    samples = label(
        BASKET,
        payoff,
        X,
        horizon=HORIZON,
        noise=gaussian(seed=43),
        order=order,
        paths=40_000,
        directions=U if order == 2 else None,
        steps=8 if isinstance(smoothing, LastStep) else None,
    )
    value, gradient, hvp = basket_truth(BASKET, WEIGHTS, kind, smoothing, X[0], HORIZON * 5 * 9 / (6 * 16))
    if order == 0:
        assert abs(float(samples.value) - value) <= 4 * float(samples.value_error)
    else:
        assert_close(samples, value, gradient, hvp if order == 2 else None)


@pytest.mark.parametrize("smoothing", SMOOTHINGS[:-1], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", PAYOFFS)
def test_black_scholes(kind, smoothing):
    """Two correlated assets, of which the payoff sees the first."""
    model = BlackScholes(volatility=[0.25, 0.3], correlation=[[1.0, 0.6], [0.6, 1.0]], rate=0.03)

    def formula(spot, strike, kind):
        return black_scholes(spot, strike=strike, volatility=0.25, maturity=HORIZON, rate=0.03, kind=kind)

    payoff = PAYOFFS[kind](strike=STRIKE, weights=[1.0, 0.0], smoothing=smoothing)
    order = order_of(payoff)
    samples = label(
        model,
        payoff,
        [[0.95, 2.0]],
        horizon=HORIZON,
        noise=gaussian(seed=47),
        order=order,
        paths=60_000,
        directions=[[1.0, 0.5]] if order == 2 else None,
    )
    value, delta, gamma = truth(kind, smoothing, formula, 0.95)
    if order == 0:
        assert abs(float(samples.value) - value) <= 4 * float(samples.value_error)
    else:
        assert_close(samples, value, [delta, 0.0], [gamma, 0.0] if order == 2 else None)


@pytest.mark.parametrize("scheme", [EulerMaruyama(), Milstein()])
def test_black_scholes_by_euler_and_milstein(scheme):
    """Sixty-four steps: the weak error, about 1e-4, is far below the noise."""
    smoothing = LastStep() if isinstance(scheme, EulerMaruyama) else Blend(WIDTH)
    samples = label(
        BlackScholes(volatility=0.25, rate=0.03),
        Call(strike=STRIKE, smoothing=smoothing),
        [[0.95]],
        horizon=HORIZON,
        noise=gaussian(seed=53),
        order=2,
        paths=6000,
        scheme=scheme,
        steps=64,
    )
    greeks = black_scholes(0.95, strike=STRIKE, volatility=0.25, maturity=HORIZON, rate=0.03)
    assert_close(samples, float(greeks.price), [float(greeks.delta)], [float(greeks.gamma)])


HESTON = {"mean_reversion": 2.0, "long_variance": 0.06, "vol_of_variance": 0.3, "spot_variance_correlation": -0.6}
HESTON |= {"rate": 0.02}


def heston_formula(spot, strike, kind, **change):
    return heston(spot, strike=strike, maturity=HORIZON, kind=kind, **{"variance": 0.05} | HESTON | change)


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", SMOOTHINGS[:-1], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", PAYOFFS)
def test_heston(kind, smoothing):
    """Price, delta, the derivative by the initial variance, and gamma."""
    payoff = PAYOFFS[kind](strike=STRIKE, smoothing=smoothing)
    order = order_of(payoff)
    samples = label(
        Heston(**HESTON),
        payoff,
        [[0.95, 0.05]],
        horizon=HORIZON,
        noise=gaussian(seed=59),
        order=order,
        paths=8000,
        steps=48,
        directions=[[1.0, 0.0]] if order == 2 else None,
    )
    value, delta, gamma = truth(kind, smoothing, heston_formula, 0.95)
    assert abs(float(samples.value) - value) <= 4 * float(samples.value_error)
    if order > 0:
        assert abs(float(samples.gradient[0, 0]) - delta) <= 4 * float(samples.gradient_error[0, 0])
        vega = float(heston_formula(0.95, STRIKE, kind).vega)
        assert abs(float(samples.gradient[0, 1]) - vega) <= 4 * float(samples.gradient_error[0, 1])
    if order == 2:
        assert abs(float(samples.hvp[0, 0, 0]) - gamma) <= 4 * float(samples.hvp_error[0, 0, 0])


@pytest.mark.slow
def test_heston_basket_of_which_the_payoff_sees_the_second():
    model = Heston(
        mean_reversion=[1.0, 2.0],
        long_variance=[0.04, 0.06],
        vol_of_variance=[0.2, 0.3],
        spot_variance_correlation=[0.0, -0.6],
        correlation=[[1.0, 0.5], [0.5, 1.0]],
        rate=0.02,
    )
    payoff = Call(strike=STRIKE, weights=[0.0, 1.0], smoothing=Blend(WIDTH))
    x = [[1.0, 0.95, 0.04, 0.05]]
    u = [[1.0, 1.0, 0.0, 0.0]]
    noise = gaussian(seed=61)
    samples = label(model, payoff, x, horizon=HORIZON, noise=noise, order=2, paths=8000, steps=48, directions=u)
    greeks = heston_formula(0.95, STRIKE, "call")
    assert_close(samples, float(greeks.price), [0.0, float(greeks.delta), 0.0, float(greeks.vega)])
    assert abs(float(samples.hvp[0, 0, 1] - greeks.gamma)) <= 4 * float(samples.hvp_error[0, 0, 1])


@pytest.mark.parametrize("smoothing", [None, LastStep(), Blend(WIDTH)], ids=lambda s: type(s).__name__)
def test_vega_of_a_bachelier_basket(smoothing):
    payoff = Call(strike=STRIKE, weights=WEIGHTS, smoothing=smoothing)
    x = torch.cat([X, BASKET.volatility[None]], dim=1)
    samples = label(
        BASKET, payoff, x, horizon=HORIZON, noise=gaussian(seed=67), paths=50_000, steps=2, varying=["volatility"]
    )
    covariance = BASKET.cholesky @ BASKET.cholesky.T
    volatility = float(torch.sqrt(WEIGHTS @ covariance @ WEIGHTS))
    greeks = bachelier(float(X[0] @ WEIGHTS), strike=STRIKE, volatility=volatility, maturity=HORIZON)
    exact = greeks.vega * WEIGHTS * (covariance @ WEIGHTS) / BASKET.volatility / volatility
    assert ((samples.gradient[0, 3:] - exact).abs() <= 4 * samples.gradient_error[0, 3:]).all()


NARROW = WIDTH / 8  # a smoothing whose own bias is below the noise
SCHEMES = {  # of which LastStep needs one with Gaussian steps
    "one exact step": {},
    "two exact steps": {"steps": 2},
    "Euler": {"scheme": EulerMaruyama(), "steps": 64},
    "Milstein": {"scheme": Milstein(), "steps": 32},
}
FAMILIES = {  # model, columns, formula
    "Bachelier": (Bachelier(volatility=9.0), ("volatility", "strike", "horizon"), bachelier),
    "Black-Scholes": (
        BlackScholes(volatility=9.0, rate=9.0),
        ("volatility", "strike", "horizon", "rate"),
        black_scholes,
    ),
}


def assert_greeks(samples, price):
    """Value and gradient of each input against a price's central differences, within 4 standard errors."""
    x = samples.x
    assert ((samples.value - price(*x.T)).abs() <= 4 * samples.value_error).all()
    for j in range(x.shape[1]):
        h = torch.zeros(x.shape[1], dtype=torch.float64)
        h[j] = 1e-4
        exact = (price(*(x + h).T) - price(*(x - h).T)) / 2e-4
        assert ((samples.gradient[:, j] - exact).abs() <= 4 * samples.gradient_error[:, j] + 1e-6).all(), j


@pytest.mark.parametrize(
    "smoothing", [None, Sigmoid(NARROW), Softplus(NARROW), Blend(NARROW), LastStep()], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize(("model", "columns", "formula"), FAMILIES.values(), ids=FAMILIES)
def test_vega_theta_rho_and_the_strike_of_a_family(model, columns, formula, scheme, smoothing):
    """Each input has its own volatility, strike, horizon and rate."""
    x = torch.tensor([[0.95, 0.25, 1.05, 1.5, 0.03], [1.1, 0.15, 1.0, 0.5, -0.01]], dtype=torch.float64)
    given = {"varying": columns, "noise": gaussian(seed=71), "paths": 6_000, **scheme}
    question = model, Call(strike=9.0, smoothing=smoothing), x[:, : 1 + len(columns)]
    gaussian_steps = "Euler" in repr(scheme) or ("scheme" not in scheme and formula is bachelier)
    if isinstance(smoothing, LastStep) and not gaussian_steps:
        with pytest.raises(ValueError, match="LastStep needs EulerMaruyama"):
            label(*question, **given)
        return
    samples = label(*question, **given)

    def price(spot, volatility, strike, horizon, rate=None):
        terms = {} if rate is None else {"rate": rate}
        return formula(spot, strike=strike, volatility=volatility, maturity=horizon, **terms).price

    assert_greeks(samples, price)


@pytest.mark.parametrize("smoothing", [LastStep(), Softplus(WIDTH)], ids=lambda s: type(s).__name__)
def test_second_derivatives_of_a_bachelier_family(smoothing):
    """Products along spot, volatility, strike and horizon: vanna, volga and the like. Softplus: bias and all."""
    x = torch.tensor([[1.0, 0.3, 1.05, 1.5]], dtype=torch.float64)
    samples = label(
        Bachelier(volatility=9.0),
        Call(strike=9.0, smoothing=smoothing),
        x,
        varying=("volatility", "strike", "horizon"),
        noise=gaussian(seed=72),
        order=2,
        paths=1 if isinstance(smoothing, LastStep) else 60_000,
    )

    def price(point):
        spot, volatility, strike, horizon = point.unbind(-1)
        return bachelier(spot, strike=strike, volatility=volatility, maturity=horizon).price

    exact = torch.autograd.functional.hessian(price, x[0])
    if isinstance(smoothing, LastStep):  # one exact step: no noise is left
        assert torch.allclose(samples.hvp[0], exact, atol=1e-12)
        assert torch.allclose(samples.gradient[0], torch.autograd.functional.jacobian(price, x[0]), atol=1e-13)
    else:
        assert ((samples.hvp[0] - exact).abs() <= 4 * samples.hvp_error[0] + 0.02).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "smoothing", [None, Sigmoid(NARROW), Softplus(NARROW), Blend(NARROW)], ids=lambda s: type(s).__name__
)
def test_a_heston_family(smoothing):
    """Each input has its own parameters; full truncation at 48 steps is biased by less than a standard error here."""
    names = ["mean_reversion", "long_variance", "vol_of_variance", "rate", "strike", "horizon"]
    x = torch.tensor(
        [[0.95, 0.05, 1.5, 0.04, 0.3, 0.03, 1.05, 1.5], [1.05, 0.03, 2.0, 0.06, 0.4, 0.0, 1.0, 0.8]],
        dtype=torch.float64,
    )
    payoff = Call(strike=9.0, smoothing=smoothing)
    samples = label(Heston(**HESTON), payoff, x, varying=names, noise=gaussian(seed=73), paths=6000, steps=48)

    def price(spot, variance, kappa, theta, xi, rate, strike, horizon):
        terms = {"mean_reversion": kappa, "long_variance": theta, "vol_of_variance": xi, "rate": rate}
        rho = HESTON["spot_variance_correlation"]
        terms |= {"strike": strike, "maturity": horizon, "spot_variance_correlation": rho}
        return heston(spot, variance=variance, **terms).price

    assert_greeks(samples, price)


def test_a_family_of_ones_own():
    """A model and a payoff of the user's own, whose attributes are read anew in each call: one step by hand."""

    class Own:
        dim, speed, level = 1, 1.0, torch.tensor([0.0], dtype=torch.float64)

        def drift(self, t, x):
            return self.speed * (self.level - x)

        def diffusion(self, t, x):
            return 0.3 + 0 * x

    class Power:
        shift = 0.0

        def __call__(self, states):
            return (states[:, 0] - self.shift) ** 2

    x = torch.tensor([[1.0, 0.5, 0.2, 0.1, 2.0], [2.0, 0.25, 0.4, -0.1, 1.0]], dtype=torch.float64)
    names = ("speed", "level", "shift", "horizon")
    samples = label(Own(), Power(), x, varying=names, noise=gaussian(seed=1), paths=4000, steps=1, antithetic=False)
    point = x.clone().requires_grad_()
    spot, speed, level, shift, horizon = point.unbind(1)
    value = (spot + speed * (level - spot) * horizon - shift) ** 2 + 0.09 * horizon
    (gradient,) = torch.autograd.grad(value.sum(), point)
    assert ((samples.value - value.detach()).abs() <= 4 * samples.value_error).all()
    assert ((samples.gradient - gradient).abs() <= 4 * samples.gradient_error + 1e-12).all()


@pytest.mark.parametrize(
    ("varying", "match"),
    [
        (["spot_variance_correlation"], "varying: got 'spot_variance_correlation', which drift, diffusion"),
        (["rate", "rate"], "varying: got 'rate', need, each once"),
        (["correlation"], "varying: got 'correlation', need"),
        (["dim"], "varying: got 'dim', need"),
        (["weights"], "varying: got 'weights', need"),
        (["horizon"], r"horizon: got 1\.0, need a number, or None and 'horizon' among varying"),
    ],
)
def test_columns_that_are_no_parameters_are_refused(varying, match):
    x = torch.tensor([[1.0, 0.05, *[0.1] * len(varying)]], dtype=torch.float64)
    with pytest.raises(ValueError, match=match):
        label(Heston(**HESTON), Call(strike=1.0), x, horizon=1.0, noise=gaussian(), steps=2, varying=varying)


def test_horizons_are_positive_and_names_are_a_sequence():
    with pytest.raises(ValueError, match=r"x: got a horizon of 0, need positive"):
        label(Bachelier(volatility=0.2), Call(strike=1.0), [[1.0, 0.0]], noise=gaussian(), varying=["horizon"])
    with pytest.raises(TypeError, match="varying: got the text 'horizon'"):
        label(Bachelier(volatility=0.2), Call(strike=1.0), [[1.0, 1.0]], noise=gaussian(), varying="horizon")


LIKELIHOODS = {
    "Bachelier exact": (Bachelier(volatility=0.3), {}),
    "Bachelier two steps": (Bachelier(volatility=0.3), {"steps": 2}),
    "Black-Scholes exact": (BlackScholes(volatility=0.3, rate=0.03), {}),
    "Black-Scholes Euler": (BlackScholes(volatility=0.3, rate=0.03), {"scheme": EulerMaruyama(), "steps": 16}),
}


@pytest.mark.parametrize("kind", ["digital", "call"])
@pytest.mark.parametrize(("model", "scheme"), LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_likelihood_ratio_to_second_order(model, scheme, kind):
    samples = label(
        model,
        PAYOFFS[kind](strike=STRIKE),
        [[0.95]],
        horizon=HORIZON,
        noise=gaussian(seed=79),
        order=2,
        paths=40_000,
        estimator="likelihood_ratio",
        **scheme,
    )
    if isinstance(model, Bachelier):
        greeks = bachelier(0.95, strike=STRIKE, volatility=0.3, maturity=HORIZON, kind=kind)
    else:
        greeks = black_scholes(0.95, strike=STRIKE, volatility=0.3, maturity=HORIZON, rate=0.03, kind=kind)
    # Sixteen Euler steps are biased by less than one standard error here.
    assert_close(samples, float(greeks.price), [float(greeks.delta)], [float(greeks.gamma)], errors=4.5)


def test_likelihood_ratio_in_many_dimensions():
    payoff = Digital(strike=STRIKE, weights=WEIGHTS)
    noise = gaussian(seed=83)
    samples = label(
        BASKET,
        payoff,
        X,
        horizon=HORIZON,
        noise=noise,
        order=2,
        paths=50_000,
        directions=U,
        estimator="likelihood_ratio",
    )
    assert_close(samples, *basket_truth(BASKET, WEIGHTS, "digital", None, X[0]))


@dataclass(frozen=True, eq=False)
class OrnsteinUhlenbeck:
    """A user's SDE, dX = (A - 1) X dt + b dW with two Brownian motions for two components."""

    speed: float = 1.0
    dim: int = 2

    def drift(self, t, x):
        return -self.speed * x + 0.3 * x.flip(1)

    def diffusion(self, t, x):
        loadings = torch.tensor([[0.3, 0.1, 0.0], [0.0, 0.2, 0.2]], dtype=torch.float64)
        return loadings.expand(len(x), 2, 3)


def test_users_sde_and_payoff():
    """Euler's scheme is linear here, so the labels of a quadratic payoff are known without noise in the derivatives."""
    x = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
    samples = label(
        OrnsteinUhlenbeck(),
        lambda s: (s[:, 0] + 2 * s[:, 1]) ** 2,
        torch.cat([x, torch.ones(2, 1)], dim=1),
        horizon=1.0,
        noise=gaussian(seed=1),
        order=2,
        steps=4,
        varying=["speed"],
    )
    step = torch.eye(2, dtype=torch.float64) * 0.75 + 0.25 * torch.tensor([[0.0, 0.3], [0.3, 0.0]])
    loading = torch.linalg.matrix_power(step, 4).T @ torch.tensor([1.0, 2.0], dtype=torch.float64)
    # The gradient's noise is odd in z and cancels over the pair; the Hessian has none.
    assert torch.allclose(samples.gradient[:, :2], 2 * (x @ loading)[:, None] * loading, atol=1e-13)
    assert torch.allclose(samples.hvp[:, :2, :2], (2 * loading[:, None] * loading).expand(2, 2, 2), atol=1e-13)
    h = 1e-5

    def mean_part(speed):
        moved = torch.eye(2, dtype=torch.float64) * (1 - speed / 4) + 0.25 * torch.tensor([[0.0, 0.3], [0.3, 0.0]])
        return torch.linalg.matrix_power(moved, 4).T @ torch.tensor([1.0, 2.0], dtype=torch.float64)

    up, down = (
        label(
            OrnsteinUhlenbeck(speed=1 + s),
            lambda y: (y[:, 0] + 2 * y[:, 1]) ** 2,
            x,
            horizon=1.0,
            noise=gaussian(seed=1),
            steps=4,
        ).value
        for s in (h, -h)
    )
    assert torch.allclose(samples.gradient[:, 2], (up - down) / (2 * h), atol=1e-8)


def test_users_sde_with_the_last_step_integrated():
    """Conditioning with general noise: one step has the closed form of its Gaussian law."""
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    model, payoff = OrnsteinUhlenbeck(), Call(strike=1.0, weights=[0.5, 0.5], smoothing=LastStep())
    samples = label(model, payoff, x, horizon=0.5, noise=gaussian(), steps=1, scheme=EulerMaruyama())
    mean = (x + 0.5 * model.drift(0.0, x)) @ payoff.weights
    loading = payoff.weights @ model.diffusion(0.0, x)[0]
    exact = bachelier(mean, strike=1.0, volatility=float(loading.norm()), maturity=0.5)
    assert torch.allclose(samples.value, exact.price, atol=1e-15)


@dataclass(frozen=True, eq=False)
class Rising:
    """A user's SDE whose volatility depends on time: dX = (1 + 3 t) dW."""

    dim: int = 1

    def drift(self, t, x):
        return torch.zeros_like(x)

    def diffusion(self, t, x):
        return torch.full_like(x, 1 + 3 * t)


def test_the_last_step_is_integrated_with_the_volatility_of_its_beginning():
    payoff, z = Call(strike=0.5, smoothing=LastStep()), gaussian(seed=2)(0, 1, 3)[0]
    arguments = {"horizon": 1.0, "noise": gaussian(seed=2), "steps": 4, "antithetic": False}
    samples = label(Rising(), payoff, [[1.0]], scheme=EulerMaruyama(), **arguments)
    before = 1.0 + 0.5 * float(z @ torch.tensor([1.0, 1.75, 2.5], dtype=torch.float64))
    exact = bachelier([before], strike=0.5, volatility=3.25, maturity=0.25)
    assert torch.allclose(samples.value, exact.price, rtol=1e-13)
    assert torch.allclose(samples.gradient[:, 0], exact.delta, rtol=1e-13)


WRONG = {  # payoff, order, what is seen; the first three as first users wrote them
    "digital": (lambda s: (s[:, 0] > 1.0).double(), 1, "torch cannot differentiate at order 1"),
    "call at order 2": (lambda s: torch.relu(s[:, 0] - 1.0), 2, "has a kink, where its slope jumps by"),
    "asset or nothing": (lambda s: s[:, 0] * (s[:, 0] > 1.0), 1, "a payoff that jumps by"),
    "two jumps that cancel": (lambda s: s[:, 0] + ((s[:, 0] - 1).abs() < 0.1), 1, "a payoff that jumps by"),
    "small jump": (lambda s: s[:, 0] ** 2 + 1e-3 * (s[:, 0] > 1.03), 1, "a payoff that jumps by 0.001"),
    "digital at order 2": (lambda s: s[:, 0] * (s[:, 0] > 1.0), 2, "order 1 miss it"),
    "best of": (lambda s: torch.maximum(s[:, 0], s[:, 0].square()), 2, "has a kink"),
    "NumPy": (lambda s: torch.from_numpy(np.maximum(s.detach().numpy()[:, 0] - 1, 0)), 1, "torch cannot differentiate"),
}


@pytest.mark.parametrize(("payoff", "order", "match"), WRONG.values(), ids=WRONG)
def test_jumps_and_kinks_of_ones_own_payoff_are_found(payoff, order, match):
    with pytest.raises(ValueError, match=match):
        label(Bachelier(volatility=0.3), payoff, [[1.0], [1.2]], horizon=1.0, noise=gaussian(), order=order)
    label(Bachelier(volatility=0.3), payoff, [[1.0]], horizon=1.0, noise=gaussian(), order=0)


class Barrier:
    """Down and out; `observes_start` as well, so that a start below the barrier pays nothing."""

    dates, observes_start = 4, True

    def __call__(self, states):
        assert states.shape[1:] == (5, 1)
        return torch.relu(states[:, -1, 0] - 1.0) * (states[:, :, 0].amin(1) > 0.8)


class DeclaredBarrier(Barrier):
    """Its author knows that it jumps, and wants the biased derivative."""

    smooth_order = 1


def test_a_barrier_jumps_unless_its_author_says_otherwise():
    given = {"horizon": 1.0, "noise": gaussian(), "paths": 50_000, "order": 1}
    x = [[1.0], [0.7]]
    with pytest.raises(ValueError, match="a payoff that jumps by"):
        label(BlackScholes(volatility=0.2), Barrier(), x, **given)
    samples = label(BlackScholes(volatility=0.2), DeclaredBarrier(), x, **given)
    assert float(samples.value[1]) == 0.0  # knocked out at the start
    assert samples.source == "Exact(), 4 steps"


SMOOTH = {
    "call": (lambda s: torch.relu(s[:, 0] - 1.0), 1),
    "put on the best": (lambda s: torch.relu(1.1 - s.amax(1)), 1),
    "narrow sigmoid": (lambda s: torch.sigmoid((s[:, 0] - 1.0) / 1e-5), 2),
    "square": (lambda s: s[:, 0] ** 2, 2),
    "huber": (lambda s: torch.nn.functional.huber_loss(s[:, 0], torch.ones_like(s[:, 0]), reduction="none"), 2),
    "steep": (lambda s: torch.exp(40 * s[:, 0]), 2),
    "linear": (lambda s: 3.0 * s[:, 0], 2),
    "root": (lambda s: torch.sqrt(s[:, 0]), 2),
}


@pytest.mark.parametrize(("payoff", "order"), SMOOTH.values(), ids=SMOOTH)
def test_payoffs_that_are_smooth_enough_are_not_refused(payoff, order):
    found = label(BlackScholes(volatility=0.3), payoff, [[1.0], [1.2]], horizon=1.0, noise=gaussian(), order=order)
    assert found.gradient.isfinite().all() and (found.hvp is not None) == (order == 2)


def test_rows_that_depend_on_each_other_are_refused():
    class Coupled(OrnsteinUhlenbeck):
        def drift(self, t, x):
            return x - x.mean(0)

    x = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
    given = {"horizon": 1.0, "noise": gaussian(), "steps": 2}
    with pytest.raises(ValueError, match=r"model, payoff: got values that differ by .* row i"):
        label(Coupled(), lambda s: s[:, 0], x, **given)
    with pytest.raises(ValueError, match=r"model, payoff: got values that differ by .* row i"):
        label(OrnsteinUhlenbeck(), lambda s: s[:, 0] - s[:, 0].mean(), x, **given)
    with pytest.raises(ValueError, match=r"model, payoff: got values that differ by"):
        label(Coupled(), lambda s: s[:, 0], x[:1], order=0, **given)


def test_no_scheme_is_inferred_from_the_number_of_assets():
    """Black-Scholes with the rate as a second, constant state: Euler-Maruyama, whose derivative by r is right."""

    class Rate:
        dim, assets = 2, 1

        def drift(self, t, x):
            return torch.stack([x[:, 1] * x[:, 0], 0 * x[:, 1]], dim=1)

        def diffusion(self, t, x):
            return torch.stack([0.2 * x[:, 0], 0 * x[:, 1]], dim=1)

    samples = label(
        Rate(), lambda s: torch.relu(s[:, 0] - 1.0), [[1.0, -0.05]], horizon=1.0, noise=gaussian(), steps=32, paths=8000
    )
    exact = black_scholes(1.0, strike=1.0, volatility=0.2, maturity=1.0, rate=-0.05)
    assert samples.source == "EulerMaruyama(), 32 steps"
    assert_close(samples, float(exact.price), [float(exact.delta), float(exact.delta)])  # d/dr is T S delta
    heston_labels = label(Heston(**HESTON), Call(strike=1.0), [[1.0, 0.04]], horizon=1.0, noise=gaussian(), steps=4)
    assert heston_labels.source == "FullTruncation(), 4 steps"


def test_a_last_step_without_noise_has_the_payoffs_own_limit():
    for volatility, payoff in [(0.0, Call), (0.0, Digital)]:
        samples = label(
            Bachelier(volatility=volatility),
            payoff(strike=1.0, smoothing=LastStep()),
            [[0.9], [1.0], [1.2]],
            horizon=1.0,
            noise=gaussian(),
            order=2,
        )
        exact = bachelier([0.9, 1.0, 1.2], strike=1.0, volatility=0.0, maturity=1.0, kind=payoff.__name__.lower())
        assert torch.equal(samples.value, exact.price)
        assert torch.equal(samples.gradient[:, 0], exact.delta)
        assert torch.equal(samples.hvp[:, 0, 0], exact.gamma)
    with pytest.raises(ValueError, match="estimator: got likelihood_ratio for a step without noise"):
        label(
            Bachelier(volatility=0.0),
            Call(strike=1.0),
            [[1.0]],
            horizon=1.0,
            noise=gaussian(),
            estimator="likelihood_ratio",
        )


def test_last_step_of_heston_where_the_variance_hits_zero():
    given = {"horizon": 1.0, "noise": gaussian(seed=3), "paths": 4000, "scheme": EulerMaruyama(), "steps": 8}
    with pytest.warns(UserWarning, match="Feller"):
        model = Heston(mean_reversion=1.0, long_variance=0.04, vol_of_variance=0.6, spot_variance_correlation=-0.7)
    labels = [label(model, Call(strike=1.0, smoothing=s), [[1.0, 0.02]], **given) for s in (LastStep(), None)]
    errors = labels[0].gradient_error + labels[1].gradient_error
    assert ((labels[0].gradient - labels[1].gradient).abs() < 4 * errors).all()


def test_labels_that_are_not_finite_never_leave():
    with pytest.raises(ValueError, match="gradient: got non-finite labels in 1 of 2 rows, the first of them row 1"):
        label(Bachelier(volatility=0.0), lambda s: torch.sqrt(s[:, 0]), [[1.0], [0.0]], horizon=1.0, noise=gaussian())


@pytest.mark.parametrize(
    ("model", "change", "match"),
    [
        (BlackScholes(volatility=0.2), {"payoff": Call(strike=1.0, smoothing=LastStep())}, "steps are lognormal"),
        (
            BlackScholes(volatility=0.2),
            {"payoff": Call(strike=1.0, smoothing=LastStep()), "scheme": Milstein(), "steps": 2},
            "steps have no density; smoothing LastStep needs",
        ),
        (
            BlackScholes(volatility=0.2),
            {"estimator": "likelihood_ratio", "scheme": Milstein(), "steps": 2},
            "steps have no density; estimator likelihood_ratio needs",
        ),
        (
            Bachelier(volatility=0.2),
            {"estimator": "likelihood_ratio", "payoff": Call(strike=1.0, smoothing=LastStep())},
            "got likelihood_ratio with smoothing LastStep",
        ),
        (
            Bachelier(volatility=0.2),
            {"payoff": Asian(strike=1.0, dates=3), "steps": 4},
            "steps: got 4, need a multiple",
        ),
        (
            Bachelier(volatility=0.2),
            {"varying": ["strike"], "estimator": "likelihood_ratio"},
            "estimator: got likelihood_ratio beside varying",
        ),
    ],
)
def test_combinations_that_have_no_estimator_are_refused(model, change, match):
    arguments = {"payoff": Call(strike=1.0)} | change
    with pytest.raises(ValueError, match=match):
        label(model, arguments.pop("payoff"), [[1.0]], horizon=1.0, noise=gaussian(), **arguments)


def test_likelihood_ratio_needs_as_many_brownian_motions_as_components():
    with pytest.raises(ValueError, match=r"estimator: got likelihood_ratio, diffusion \(2, 3\), need a square one"):
        label(
            OrnsteinUhlenbeck(),
            Digital(strike=1.0, weights=[1, 1]),
            [[1.0, 1.0]],
            horizon=1.0,
            noise=gaussian(),
            steps=2,
            estimator="likelihood_ratio",
        )
