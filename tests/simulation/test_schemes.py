"""Schemes: orders measured on nested grids with common noise, user-defined SDEs, arguments."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch

from sobolev_lib.simulation.closed_form import black_scholes, heston
from sobolev_lib.simulation.models import Bachelier, BlackScholes, Heston
from sobolev_lib.simulation.noise import antithetic, gaussian
from sobolev_lib.simulation.schemes import EulerMaruyama, Exact, FullTruncation, Milstein, simulate

BATCHES = 20
STUDENT = 3.88  # quantile of Student's t with 19 degrees of freedom for a two-sided level of 1e-3


@dataclass(frozen=True, eq=False)
class RotatedLinear:
    """A user's SDE with general commutative noise: Y = R X with dX_i = sum_j B_ij X_i dW_j, solved by exponentials."""

    dim: int = 2

    rotation = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)
    loadings = torch.tensor([[0.4, 0.2, 0.1], [-0.3, 0.3, 0.2]], dtype=torch.float64)

    def drift(self, t, x):
        return torch.zeros_like(x)

    def diffusion(self, t, x):
        base = x @ self.rotation  # R' y
        return torch.einsum("ik,nk,kj->nij", self.rotation, base, self.loadings)

    def solution(self, x, horizon, z):
        base = x @ self.rotation
        exponent = math.sqrt(horizon) * z @ self.loadings.T - 0.5 * horizon * (self.loadings**2).sum(1)
        return (base * torch.exp(exponent)) @ self.rotation.T


@dataclass(frozen=True, eq=False)
class Noncommutative:
    """Levy's area: dX = dW_1, dY = dW_2, dZ = X dW_2."""

    dim: int = 3

    def drift(self, t, x):
        return torch.zeros_like(x)

    def diffusion(self, t, x):
        one, zero = torch.ones_like(x[:, 0]), torch.zeros_like(x[:, 0])
        rows = [torch.stack(row, dim=1) for row in ([one, zero], [zero, one], [zero, x[:, 0]])]
        return torch.stack(rows, dim=1)


@dataclass(frozen=True, eq=False)
class Forced:
    """A user's SDE in one dimension with time in its drift: dX = 2 t dt, without noise."""

    dim: int = 1

    def drift(self, t, x):
        return torch.full_like(x, 2 * t)

    def diffusion(self, t, x):
        return torch.zeros_like(x)


def coarser(z, factor):
    """Normals of a grid with `factor` times longer steps, made of the same Brownian path: (n, steps, m)."""
    return z.unflatten(1, (-1, factor)).sum(2) / math.sqrt(factor)


def slope_interval(errors, steps):
    """Mean slope of log error against log step over batches, half its confidence interval; errors (batch, level)."""
    x = -torch.log2(torch.tensor(steps, dtype=torch.float64))
    x = x - x.mean()
    slopes = torch.log2(errors.abs()) @ x / (x @ x)
    return float(slopes.mean()), STUDENT * float(slopes.std()) / math.sqrt(len(slopes))


def strong_errors(model, scheme, exact, x, steps, sources, n=500):
    """Root mean square error at time 1, by batch and level."""
    rows = []
    for batch in range(BATCHES):
        z = gaussian(seed=17)(batch * n, n, steps[-1] * sources).view(n, steps[-1], sources)
        start = torch.tensor([x], dtype=torch.float64).expand(n, -1)
        truth = exact(start, z)
        level = []
        for count in steps:
            normals = coarser(z, steps[-1] // count)
            moved = simulate(model, start, horizon=1.0, normals=normals, scheme=scheme, steps=count)
            level.append((moved - truth).square().sum(1).mean().sqrt())
        rows.append(torch.stack(level))
    return torch.stack(rows)


GBM = BlackScholes(volatility=[0.5, 0.4], correlation=[[1.0, 0.6], [0.6, 1.0]], rate=0.1)


def exact_gbm(x, z):
    return simulate(GBM, x, horizon=1.0, normals=coarser(z, z.shape[1]))


def exact_linear(x, z):
    return RotatedLinear().solution(x, 1.0, coarser(z, z.shape[1])[:, 0])


@pytest.mark.parametrize(
    ("scheme", "model", "exact", "sources", "order"),
    [
        (EulerMaruyama(), GBM, exact_gbm, 2, 0.5),
        (Milstein(), GBM, exact_gbm, 2, 1.0),
        (EulerMaruyama(), RotatedLinear(), exact_linear, 3, 0.5),
    ],
    ids=["Euler diagonal", "Milstein diagonal", "Euler general"],
)
def test_strong_order(scheme, model, exact, sources, order):
    assert scheme.strong_order == order
    steps = [8, 16, 32, 64]
    slope, half = slope_interval(strong_errors(model, scheme, exact, [1.0, 1.2], steps, sources), steps)
    # The interval at level 1e-3, widened by what the next term of the expansion contributes on these grids.
    assert abs(slope - order) < half + 0.04 and half < 0.1


def test_euler_has_strong_order_one_for_additive_noise():
    @dataclass(frozen=True, eq=False)
    class OrnsteinUhlenbeck:
        dim: int = 1

        def drift(self, t, x):
            return -x

        def diffusion(self, t, x):
            return torch.full_like(x, 0.5)

    steps = [4, 8, 16, 32, 512]
    model = OrnsteinUhlenbeck()

    def fine(x, z):
        return simulate(model, x, horizon=1.0, normals=z, scheme=EulerMaruyama(), steps=512)

    errors = strong_errors(model, EulerMaruyama(), fine, [1.0], steps, 1, n=200)[:, :-1]
    slope, half = slope_interval(errors, steps[:-1])
    assert abs(slope - 1) < half + 0.08  # the reference's own error is a sixteenth of the smallest one measured


@pytest.mark.parametrize("scheme", [EulerMaruyama(), Milstein()])
def test_weak_order_on_the_second_moment(scheme):
    """Bias of E S_T^2 with the exact solution on the same path as control variate."""
    model, steps, n = BlackScholes(volatility=0.3, rate=0.3), [2, 4, 8, 16], 20_000
    errors = []
    for batch in range(BATCHES):
        z = gaussian(seed=23)(batch * n, n, 16).view(n, 16, 1)
        x = torch.ones(n, 1, dtype=torch.float64)
        truth = model.transition(x, 1.0, coarser(z, 16)[:, 0]) ** 2
        paths = [simulate(model, x, horizon=1.0, normals=coarser(z, 16 // k), scheme=scheme, steps=k) for k in steps]
        errors.append(torch.stack([(path**2 - truth).mean() for path in paths]))
    slope, half = slope_interval(torch.stack(errors), steps)
    assert abs(slope - 1) < half + 0.1 and half < 0.1
    # The bias is known: E S_T^2 of Euler's scheme is ((1 + r h)^2 + v^2 h)^k.
    if isinstance(scheme, EulerMaruyama):
        exact = math.exp(0.6 + 0.09)
        for column, k in enumerate(steps):
            bias = ((1 + 0.3 / k) ** 2 + 0.09 / k) ** k - exact
            measured = torch.stack(errors)[:, column]
            assert abs(float(measured.mean()) - bias) < STUDENT * float(measured.std()) / math.sqrt(BATCHES)


HESTON = Heston(mean_reversion=2.0, long_variance=0.09, vol_of_variance=0.4, spot_variance_correlation=-0.6, rate=0.02)


def level_differences(model, x, steps, function, n):
    """Mean of function(coarse) - function(fine) on common noise, by batch and level."""
    rows = []
    for batch in range(BATCHES):
        z = antithetic(gaussian(seed=29))(batch * n, n, steps[-1] * 2).view(n, steps[-1], 2)
        start = torch.tensor([x], dtype=torch.float64).expand(n, -1)
        paths = [
            simulate(model, start, horizon=1.0, normals=coarser(z, steps[-1] // count), steps=count) for count in steps
        ]
        rows.append(torch.stack([function(a, b).mean() for a, b in itertools.pairwise(paths)]))
    return torch.stack(rows)


@pytest.mark.slow
def test_full_truncation_has_strong_order_one_half_under_the_feller_condition():
    steps = [64, 128, 256, 512]  # on coarser grids the error of the drift, of order one, still shows
    squares = level_differences(HESTON, [1.0, 0.09], steps, lambda a, b: (a - b).square().sum(1), n=400)
    slope, half = slope_interval(squares.sqrt(), steps[:-1])
    assert abs(slope - FullTruncation.strong_order) < half + 0.04 and half < 0.05


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Feller condition violated")
def test_full_truncation_loses_strong_order_when_the_feller_condition_is_violated():
    model = Heston(mean_reversion=2.0, long_variance=0.09, vol_of_variance=1.2, spot_variance_correlation=-0.6)
    steps = [64, 128, 256, 512]
    squares = level_differences(model, [1.0, 0.09], steps, lambda a, b: (a - b).square().sum(1), n=400)
    slope, half = slope_interval(squares.sqrt(), steps[:-1])
    assert slope + half < 0.4


@pytest.mark.slow
def test_full_truncation_has_weak_order_one():
    """For the square of the variance, level against level."""
    model = Heston(mean_reversion=3.0, long_variance=0.04, vol_of_variance=0.2, spot_variance_correlation=-0.6)
    steps = [16, 32, 64, 128]
    errors = level_differences(model, [1.0, 0.3], steps, lambda a, b: a[:, 1] ** 2 - b[:, 1] ** 2, n=1000)
    slope, half = slope_interval(errors, steps[:-1])
    assert abs(slope - 1) < half + 0.1 and half < 0.2


@pytest.mark.slow
def test_full_truncation_has_weak_order_one_for_a_price():
    """Against Fourier's price of a call, with the spot and a spot of known variance as control variates."""
    terms = {"mean_reversion": 1.0, "long_variance": 0.04, "vol_of_variance": 0.25, "spot_variance_correlation": -0.6}
    model, start, strike, n, steps = Heston(**terms), 0.5, 1.0, 10_000, [4, 8, 16, 32]
    truth = float(heston([1.0], strike=strike, variance=start, maturity=1.0, **terms).price)
    h = 1 / steps[-1]
    variance = 0.04 + (start - 0.04) * torch.exp(-h * torch.arange(steps[-1], dtype=torch.float64))
    volatility = math.sqrt(h * float(variance.sum()))
    known = float(black_scholes([1.0], strike=strike, volatility=volatility, maturity=1.0).price)
    x = torch.tensor([[1.0, start]], dtype=torch.float64).expand(n, 2)
    rows = []
    for batch in range(BATCHES):
        z = antithetic(gaussian(seed=31))(batch * n, n, steps[-1] * 2).view(n, steps[-1], 2)
        control = torch.exp(z[:, :, 0] @ (h * variance).sqrt() - 0.5 * volatility**2)
        row = []
        for count in steps:
            spot = simulate(model, x, horizon=1.0, normals=coarser(z, steps[-1] // count), steps=count)[:, 0]
            # Spots are martingales; only the intercept of the regression is not known beforehand.
            columns = [torch.ones(n), spot - 1, control - 1, (control - strike).clamp(min=0) - known]
            pairs = torch.stack([*columns, (spot - strike).clamp(min=0)], dim=1).view(-1, 2, 5).mean(1)
            row.append(torch.linalg.lstsq(pairs[:, :4], pairs[:, 4:]).solution[0, 0] - truth)
        rows.append(torch.stack(row))
    errors = torch.stack(rows)
    slope, half = slope_interval(errors, steps)
    assert abs(slope - 1) < half + 0.1 and half < 0.1
    # Two levels, extrapolated as of order one, meet the price, which the finer one misses by 10 deviations.
    extrapolated = 2 * errors[:, -1] - errors[:, -2]
    assert abs(float(extrapolated.mean())) < STUDENT * float(extrapolated.std()) / math.sqrt(BATCHES) + 5e-5
    assert float(errors[:, -1].mean()) > 10 * float(errors[:, -1].std()) / math.sqrt(BATCHES)


def test_full_truncation_sees_a_negative_variance_as_zero():
    """By hand: no noise in either component, spot with the rate alone, variance pulled up by kappa theta."""
    moved = simulate(HESTON, [[2.0, -0.3]], horizon=0.5, normals=[[1.0, -2.0]], steps=1)[0]
    assert moved.tolist() == pytest.approx([2 * math.exp(0.01), -0.3 + 2.0 * 0.09 * 0.5], rel=1e-14)


def test_full_truncation_keeps_martingale_and_positivity():
    n = 100_000
    model = Heston(
        mean_reversion=[2.0, 1.0], long_variance=0.04, vol_of_variance=[0.3, 0.2], spot_variance_correlation=-0.6
    )
    x = torch.tensor([[1.0, 2.0, 0.09, 0.01]], dtype=torch.float64).expand(n, 4)
    moved = simulate(model, x, horizon=1.0, noise=gaussian(seed=3), steps=10)
    assert (moved[:, :2] > 0).all()
    error = moved[:, :2].std(0) / math.sqrt(n)
    assert ((moved[:, :2].mean(0) - x[0, :2]).abs() < 4 * error).all()  # given v+, the log-Euler step has mean one
    mean = 0.04 + (x[0, 2:] - 0.04) * (1 - model.mean_reversion / 10) ** 10
    # Truncation moves the mean only where the variance is negative, which is rare here.
    assert ((moved[:, 2:].mean(0) - mean).abs() < 4 * moved[:, 2:].std(0) / math.sqrt(n) + 1e-4).all()


@pytest.mark.filterwarnings("ignore:Feller condition violated")
def test_violated_feller_condition_gives_no_nans():
    model = Heston(mean_reversion=0.5, long_variance=0.02, vol_of_variance=1.0, spot_variance_correlation=-0.9)
    x = torch.tensor([[1.0, 0.02]], dtype=torch.float64).expand(2000, 2).clone().requires_grad_()
    for scheme in (FullTruncation(), EulerMaruyama()):
        moved = simulate(model, x, horizon=1.0, noise=gaussian(seed=3), scheme=scheme, steps=50)
        (gradient,) = torch.autograd.grad(moved[:, 0].sum(), x)
        assert (moved[:, 1] < 0).any() and torch.isfinite(moved).all() and torch.isfinite(gradient).all()


def test_general_and_diagonal_noise_give_the_same_paths():
    @dataclass(frozen=True, eq=False)
    class General:
        dim: int = 2

        def drift(self, t, x):
            return GBM.drift(t, x)

        def diffusion(self, t, x):
            return GBM.diffusion(t, x)[:, :, None] * GBM.factor

    z = gaussian(seed=5)(0, 50, 8)
    x = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    ours, theirs = (
        simulate(m, x, horizon=1.0, normals=z, scheme=EulerMaruyama(), steps=4) for m in (GBM, General())
    )
    assert torch.allclose(ours, theirs, rtol=1e-14)


def test_milstein_is_differentiable_to_second_order():
    x = torch.tensor([[1.0], [1.5]], dtype=torch.float64, requires_grad=True)
    model = BlackScholes(volatility=0.4)
    z = gaussian(seed=1)(0, 2, 3)
    moved = simulate(model, x, horizon=1.0, normals=z, scheme=Milstein(), steps=3)
    (first,) = torch.autograd.grad((moved**2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    # The scheme is linear in x: X_T = c x.
    assert torch.allclose(first, 2 * moved**2 / x) and torch.allclose(second, 2 * (moved / x) ** 2)


def test_exact_steps_compose():
    z = gaussian(seed=1)(0, 100, 8)
    for model in (Bachelier(volatility=[0.5, 0.4], correlation=[[1.0, 0.6], [0.6, 1.0]]), GBM):
        x = torch.ones(100, 2, dtype=torch.float64)
        path = simulate(model, x, horizon=2.0, normals=z, steps=4, path=True)
        assert path.shape == (100, 5, 2) and torch.equal(path[:, 0], x)
        last = simulate(model, x, horizon=2.0, normals=z, steps=4)
        assert torch.equal(path[:, -1], last)
        single = simulate(model, x, horizon=2.0, normals=coarser(z.view(100, 4, 2), 4)[:, 0])
        assert torch.allclose(last, single, rtol=1e-13)


def test_euler_is_exact_for_bachelier():
    model = Bachelier(volatility=[0.5, 0.4], correlation=[[1.0, 0.6], [0.6, 1.0]])
    x, z = torch.ones(10, 2, dtype=torch.float64), gaussian(seed=1)(0, 10, 6)
    euler = simulate(model, x, horizon=1.0, normals=z, scheme=EulerMaruyama(), steps=3)
    assert torch.allclose(euler, simulate(model, x, horizon=1.0, normals=z, steps=3), atol=1e-15)


def test_time_is_that_of_the_beginning_of_the_step():
    path = simulate(
        Forced(), [[0.0]], horizon=2.0, normals=torch.zeros(1, 4), scheme=EulerMaruyama(), steps=4, path=True
    )
    assert path[0, :, 0].tolist() == [0.0, 0.0, 0.5, 1.5, 3.0]


def test_noise_gives_the_same_paths_as_its_normals():
    x = torch.ones(5, 2, dtype=torch.float64)
    by_noise = simulate(GBM, x, horizon=1.0, noise=gaussian(seed=2), scheme=EulerMaruyama(), steps=3)
    z = gaussian(seed=2)(0, 5, 6)
    assert torch.equal(by_noise, simulate(GBM, x, horizon=1.0, normals=z, scheme=EulerMaruyama(), steps=3))
    assert torch.equal(
        by_noise, simulate(GBM, x, horizon=1.0, normals=z.view(5, 3, 2), scheme=EulerMaruyama(), steps=3)
    )


def test_default_schemes():
    z = torch.zeros(1, 2)
    assert simulate(GBM, [[1.0, 1.0]], horizon=1.0, normals=z)[0, 0].item() == pytest.approx(math.exp(0.1 - 0.125))
    spot = simulate(HESTON, [[1.0, 0.09]], horizon=1.0, normals=z, steps=1)[0, 0].item()
    assert spot == pytest.approx(math.exp(0.02 - 0.045))  # log-Euler, not Euler
    assert simulate(Forced(), [[1.0]], horizon=1.0, normals=[[0.0]], steps=1).item() == 1.0


ONE = [[1.0, 1.0]]
ARGUMENTS = {"horizon": 1.0, "noise": gaussian()}


class Shapeless:
    """A model whose coefficients have the wrong shapes."""

    dim, factor = 2, None

    def __init__(self, drift=(3, 2), diffusion=(3, 2), factor=None):  # it is asked for three rows
        self.shapes, self.factor = (drift, diffusion), factor

    def drift(self, t, x):
        return torch.ones(self.shapes[0], dtype=torch.float64)

    def diffusion(self, t, x):
        return torch.ones(self.shapes[1], dtype=torch.float64)


@pytest.mark.parametrize(
    ("model", "x", "change", "error", "match"),
    [
        (GBM, ONE, {"noise": None}, TypeError, "noise, normals: got both or neither"),
        (GBM, ONE, {"normals": [[0.0, 0.0]]}, TypeError, "noise, normals: got both or neither"),
        (GBM, ONE, {"noise": 3}, TypeError, "noise: got 3, need a noise such as"),
        (GBM, ONE, {"noise": None, "normals": [[0.0]]}, ValueError, r"normals: got shape \(1, 1\), need \(1, 2\)"),
        (GBM, ONE, {"steps": 0}, ValueError, "steps: got 0, need an integer >= 1"),
        (GBM, ONE, {"horizon": -1.0}, ValueError, r"horizon: got -1\.0"),
        (GBM, [[1.0, -1.0]], {}, ValueError, "x: got a price of -1, need positive prices"),
        (GBM, [[1.0, math.inf]], {}, ValueError, "x: got 1 non-finite of 2 values"),
        (GBM, [1.0, 1.0], {}, ValueError, r"x: got shape \(2,\), need \(n, 2\)"),
        (GBM, ONE, {"scheme": "milstein"}, TypeError, "scheme: got 'milstein', need an object such as"),
        (GBM, ONE, {"scheme": FullTruncation(), "steps": 1}, ValueError, "scheme: got FullTruncation for BlackScholes"),
        (HESTON, ONE, {"scheme": Exact()}, ValueError, "scheme: got Exact for Heston without transition"),
        (
            HESTON,
            ONE,
            {"scheme": Milstein(), "steps": 1},
            ValueError,
            "got Milstein and a deviation of .* diagonal diffusion",
        ),
        (HESTON, ONE, {}, ValueError, "steps: got None, need the number of steps that FullTruncation"),
        (Noncommutative(), [[1.0, 1.0, 1.0]], {"scheme": Milstein(), "steps": 1}, ValueError, "a deviation of inf"),
        (
            Shapeless(drift=(2,)),
            ONE,
            {"steps": 1},
            ValueError,
            r"model\.drift\(t, x\): got shape \(2,\), need \(3, 2\)",
        ),
        (Shapeless(diffusion=(1, 1)), ONE, {"steps": 1}, ValueError, r"model\.diffusion\(t, x\): got shape \(1, 1\)"),
        (
            Shapeless(diffusion=(1, 3, 2)),
            ONE,
            {"steps": 1},
            ValueError,
            r"model\.diffusion\(t, x\): got shape \(1, 3, 2\)",
        ),
        (
            Shapeless(diffusion=(2, 2)),  # a matrix is no row for each of two inputs
            [[1.0, 1.0]] * 2,
            {"steps": 1},
            ValueError,
            r"model\.diffusion\(t, x\): got shape \(2, 2\), need \(3, 2\)",
        ),
        (
            Shapeless(factor=torch.eye(3)),
            ONE,
            {"steps": 1},
            ValueError,
            r"model\.factor: got shape \(3, 3\), need \(2, 2\)",
        ),
        (
            Shapeless(diffusion=(3, 2, 2), factor=torch.eye(2)),
            ONE,
            {"steps": 1},
            ValueError,
            "need only one of the two",
        ),
        ("bachelier", ONE, {}, TypeError, "model: got str without dim"),
        (Noncommutative, ONE, {}, TypeError, r"model: got the class Noncommutative, need an object of it"),
    ],
)
def test_bad_input_is_refused(model, x, change, error, match):
    with pytest.raises(error, match=match):
        simulate(model, x, **ARGUMENTS | change)


class Constant:
    """A user's first try: numbers instead of tensors."""

    dim = 1

    def __init__(self, drift=0.0, diffusion=0.3):
        self.values = drift, diffusion

    def drift(self, t, x):
        return 0 * x if self.values[0] == 0 else self.values[0]

    def diffusion(self, t, x):
        return self.values[1]


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (Constant(), r"model\.diffusion\(t, x\): got float, need Tensor"),
        (Constant(drift=0.1), r"model\.drift\(t, x\): got float, need Tensor"),
        (Constant(diffusion=None), r"model\.diffusion\(t, x\): got NoneType, need Tensor"),
    ],
)
def test_coefficients_that_are_no_tensors_are_refused_by_name(model, match):
    with pytest.raises(TypeError, match=match):
        simulate(model, [[1.0]], horizon=1.0, noise=gaussian(), steps=2)


def test_a_model_may_name_its_scheme():
    class Named(BlackScholes):
        scheme = Milstein()

    x, given = [[1.0]], {"horizon": 1.0, "noise": gaussian(seed=2), "steps": 3}
    named, plain = Named(volatility=0.3), BlackScholes(volatility=0.3)
    assert torch.equal(simulate(named, x, **given), simulate(plain, x, scheme=Milstein(), **given))
    assert torch.equal(simulate(named, x, scheme=Exact(), **given), simulate(plain, x, **given))


def test_simulation_does_not_depend_on_autograds_mode():
    x, given = torch.ones(3, 1).double(), {"horizon": 1.0, "noise": gaussian(seed=2), "steps": 3}
    plain = simulate(BlackScholes(volatility=0.3), x, scheme=Milstein(), **given)
    for mode in (torch.inference_mode(), torch.no_grad()):
        with mode:
            assert torch.equal(simulate(BlackScholes(volatility=0.3), x.clone(), scheme=Milstein(), **given), plain)
