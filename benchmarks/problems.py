"""The problem suite as data: models, payoffs, laws of the inputs, and a truth for value, gradient and curvature.

Each problem is the expected payoff of a stochastic model as a function of its initial state. Labels are single pairs of
antithetic paths. The truth is a formula, or, where there is none, a Monte Carlo mean of the same scheme that is
stored in `results/references.json` with its standard errors:

    python -m benchmarks.problems          # makes that file anew: two minutes of processor time
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import sobolev_lib as sl
from benchmarks.report import write_whole
from sobolev_lib.simulation.models import Law

REFERENCES = Path(__file__).resolve().parents[1] / "results" / "references.json"
TEST_SEED = 2**31 - 1  # of the test points; labels use others


@dataclass(frozen=True, eq=False)
class Problem:
    """One problem of the suite.

    Attributes:
        name: A short name.
        model: The stochastic model.
        payoff: What is averaged.
        inputs: The law of the inputs: count and seed, or a noise in its place, to (count, d).
        direction: The direction (d,) of the curvature u'Hu that is measured.
        exact: Value as a function of x that autograd can differentiate, or "heston", or None: stored Monte Carlo.
        horizon: Time to the payoff.
        steps: Of a path; None leaves the choice to `label`.
        scheme: Of a path; None leaves the choice to `label`.
        labels: Number of labels, held-out ones included.
        test: Number of test points.
    """

    name: str
    model: object
    payoff: Callable
    inputs: Callable[[int, object], Tensor]
    direction: Tensor
    exact: Callable[[Tensor], Tensor] | None
    horizon: float = 1.0
    steps: int | None = None
    scheme: object = None
    labels: int = 2**13
    test: int = 1024

    @property
    def dim(self) -> int:
        """Number of inputs."""
        return len(self.direction)

    def draw(self, count: int, seed: int, order: int = 1) -> sl.Samples:
        """Return labels of single antithetic pairs of pseudo-random paths at inputs from their law."""
        return self.label(self.inputs(count, seed), sl.gaussian(seed=seed), order=order)

    def draw_sobol(self, count: int, seed: int, order: int = 1) -> sl.Samples:
        """Return the same with inputs and paths from one scrambled Sobol' sequence."""
        noise = sl.sobol(seed=seed)
        x = self.inputs(count, noise)
        first = 0 if self.name.startswith("case study") else self.dim  # its inputs take the columns behind the path's
        return self.label(x, replace(noise, skip=noise.skip + first), order=order)

    def label(self, x: Tensor, noise, **options) -> sl.Samples:
        """Return labels of the given inputs."""
        how = {"horizon": self.horizon, "steps": self.steps, "scheme": self.scheme}
        return sl.label(self.model, self.payoff, x, noise=noise, **how, **options)

    @cached_property
    def truth(self) -> dict[str, Tensor]:
        """Test points x (n, d) and the true value (n,), gradient (n, d) and curvature (n,) there."""
        x = self.inputs(self.test, TEST_SEED)
        if self.exact is None:
            stored = json.loads(REFERENCES.read_text(encoding="utf-8"))[self.name]
            found = {key: torch.tensor(stored[key], dtype=torch.float64) for key in QUANTITIES}
            return {"x": x, **found, "value": found["value"][:, 0], "curvature": found["curvature"][:, 0]}
        return {"x": x} | dict(zip(QUANTITIES, self.exact(x, self.direction), strict=True))

    def errors(self, net: sl.Surrogate) -> dict[str, float]:
        """Return root mean square errors over the test points, relative to the root mean square of the truth.

        Gradients are compared per standard deviation of each input, so that units do not matter.
        """
        truth = self.truth
        with torch.no_grad():
            value, gradient, hvp = net.taylor(truth["x"], order=2, directions=self.direction[None])
        found = {"value": value, "gradient": gradient, "curvature": hvp[:, 0] @ self.direction}
        spread = {"value": 1.0, "gradient": truth["x"].std(0), "curvature": 1.0}
        scaled = {key: (spread[key] * (found[key] - truth[key]), spread[key] * truth[key]) for key in QUANTITIES}
        return {key: (gap.square().mean() / size.square().mean()).sqrt().item() for key, (gap, size) in scaled.items()}


QUANTITIES = ("value", "gradient", "curvature")


def vector(*numbers: float) -> Tensor:
    """Return a float64 vector."""
    return torch.tensor(numbers, dtype=torch.float64)


def box(low: Tensor, high: Tensor) -> Callable[[int, object], Tensor]:
    """Return the law of inputs that are uniform in a box."""

    def inputs(count: int, seed) -> Tensor:
        if callable(seed):  # a noise: its first d columns
            return low + (high - low) * cdf(seed(0, count, len(low)))
        generator = torch.Generator().manual_seed(seed)
        return low + (high - low) * torch.rand(count, len(low), dtype=torch.float64, generator=generator)

    return inputs


def differentiated(value: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]]:
    """Return the function from points and a direction u to value, gradient and u'Hu, by autograd."""

    def exact(x: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        x = x.clone().requires_grad_()
        price = value(x)
        (gradient,) = torch.autograd.grad(price.sum(), x, create_graph=True)
        (product,) = torch.autograd.grad((gradient @ u).sum(), x)
        return price.detach(), gradient.detach(), product @ u

    return exact


def cdf(z: Tensor) -> Tensor:
    """Standard normal distribution function."""
    return torch.special.ndtr(z)


def mean_ramp(margin: Tensor, deviation) -> Tensor:
    """Mean positive part of a normal margin."""
    z = margin / deviation
    return margin * cdf(z) + deviation * torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def black(forward: Tensor, strike, deviation) -> Tensor:
    """Mean of (F e^(s z - s^2 / 2) - K)^+."""
    upper = torch.log(forward / strike) / deviation + 0.5 * deviation
    return forward * cdf(upper) - strike * cdf(upper - deviation)


def basket(dim: int, *, seed: int = 0, weights=None, unit: float = 1.0, volatility: float = 0.2, steps: int = 4):
    """Return a call on a basket of correlated Bachelier assets in any unit of money, last step integrated."""
    case = sl.basket_case(dim, seed=seed, weights=weights, volatility=volatility)
    w, strike, ones = case.weights, unit * case.strike, torch.ones(dim, dtype=torch.float64)
    half = 0.5 * (1 + 0.5 * math.sqrt((dim - 1) / 12))  # of the box of the case study's test inputs
    return Problem(
        f"basket, d = {dim}",
        sl.Bachelier(volatility=unit * case.model.volatility, correlation=case.model.correlation),
        sl.Call(strike=strike, weights=w, smoothing=sl.LastStep()),
        box(unit * (1 - half) * ones, unit * (1 + half) * ones),
        unit * ones,
        differentiated(lambda x: mean_ramp(x @ w - strike, unit * volatility)),
        steps=steps,
    )


def case_study() -> Problem:
    """Return the case study itself: its law of inputs, its smoothing, its test points."""
    case = sl.basket_case(smoothing=sl.Blend(width=0.02))

    def inputs(count: int, seed) -> Tensor:
        if seed == TEST_SEED:
            return case.test_inputs(count)
        return case.inputs(count, seed if callable(seed) else sl.gaussian(seed=seed))

    exact = differentiated(lambda x: mean_ramp(x @ case.weights - case.strike, case.volatility))
    ones = torch.ones(7, dtype=torch.float64)
    return Problem("case study, d = 7", case.model, case.payoff, inputs, ones, exact)


def geometric(kind: str) -> Problem:
    """Return an option on the geometric mean of five Black-Scholes assets, which is lognormal."""
    volatility, rate = vector(0.15, 0.2, 0.25, 0.3, 0.35), 0.02
    w, ones = vector(0.1, 0.15, 0.2, 0.25, 0.3), torch.ones(5, dtype=torch.float64)
    correlation = 0.4 + 0.6 * torch.eye(5, dtype=torch.float64)
    sign = 1.0 if kind == "call" else -1.0
    loading = w * volatility
    deviation = (loading @ correlation @ loading).sqrt()
    growth = math.exp(rate - 0.5 * float(w @ volatility**2) + 0.5 * float(deviation) ** 2)

    def payoff(states: Tensor) -> Tensor:
        return torch.relu(sign * (torch.exp(torch.log(states) @ w) - 1.0))

    def value(x: Tensor) -> Tensor:
        forward = growth * torch.exp(torch.log(x) @ w)
        call = black(forward, 1.0, deviation)
        return call if kind == "call" else call - forward + 1.0

    model = sl.BlackScholes(volatility=volatility, correlation=correlation, rate=rate)
    return Problem(f"Black-Scholes {kind}", model, payoff, box(0.6 * ones, 1.5 * ones), ones, differentiated(value))


def heston(kind: str, unit: float) -> Problem:
    """Return an option in Heston's model with spot and variance as inputs."""
    terms = {"mean_reversion": 1.5, "long_variance": 0.06, "vol_of_variance": 0.4, "spot_variance_correlation": -0.6}

    def exact(x: Tensor, u: Tensor) -> tuple[Tensor, ...]:
        found = [
            sl.heston(spot[None], variance=float(v), strike=unit, maturity=1.0, kind=kind, **terms) for spot, v in x
        ]
        price, delta, gamma, vega = (torch.cat([getattr(g, n) for g in found]) for n in GREEKS)
        return price, torch.stack([delta, vega], 1), gamma * unit**2  # along (unit, 0)

    payoff = (sl.Call if kind == "call" else sl.Put)(strike=unit)
    inputs = box(vector(0.6 * unit, 0.01), vector(1.5 * unit, 0.2))
    where = {"steps": 16, "scheme": sl.FullTruncation(), "test": 256}
    return Problem(f"Heston {kind}", sl.Heston(**terms), payoff, inputs, vector(unit, 0.0), exact, **where)


GREEKS = ("price", "delta", "gamma", "vega")


def best_of_two() -> Problem:
    """Return a call on the better of two baskets of three Bachelier assets: curved in two directions."""
    case, zeros = sl.basket_case(6), torch.zeros(3, dtype=torch.float64)
    first, second = torch.cat([vector(0.5, 0.3, 0.2), zeros]), torch.cat([zeros, vector(0.2, 0.3, 0.5)])
    strike, ones = 1.1, torch.ones(6, dtype=torch.float64)
    (s, t), rho = _moments(case.model, first, second)
    nodes, weights = _gauss_legendre(96)

    def value(x: Tensor) -> Tensor:
        a, b = x @ first, x @ second
        kink = ((strike - a) / s).clamp(-9, 9)[:, None]
        total = 0.0
        for low, high in ((-9.0, kink), (kink, 9.0)):  # given the first basket, the second is normal
            z = low + (high - low) * nodes
            floor = torch.clamp(a[:, None] + s * z, min=strike)
            inner = floor + mean_ramp(b[:, None] + rho * t * z - floor, t * math.sqrt(1 - rho**2))
            density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
            total = total + ((high - low) * weights * density * inner).sum(1)
        return total - strike

    def payoff(states: Tensor) -> Tensor:
        return torch.relu(torch.maximum(states @ first, states @ second) - strike)

    u = torch.cat([torch.ones(3, dtype=torch.float64), zeros])
    return Problem("best of two", case.model, payoff, box(0.4 * ones, 1.6 * ones), u, differentiated(value))


def _moments(model: sl.Bachelier, first: Tensor, second: Tensor) -> tuple[tuple[float, float], float]:
    """Return the deviations of two baskets, and their correlation."""
    a, b = first @ model.cholesky, second @ model.cholesky
    return (float(a.norm()), float(b.norm())), float(a @ b / a.norm() / b.norm())


def _gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Return nodes and weights on [0, 1]."""
    nodes, weights = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(count))
    return 0.5 * (1 + nodes), 0.5 * weights


def digital() -> Problem:
    """Return a digital on a basket of four Bachelier assets, last step integrated."""
    case, ones = sl.basket_case(4, seed=1), torch.ones(4, dtype=torch.float64)
    w, s = case.weights, case.volatility
    payoff = sl.Digital(strike=1.0, weights=w, smoothing=sl.LastStep())
    exact = differentiated(lambda x: cdf((x @ w - 1.0) / s))
    return Problem("digital", case.model, payoff, box(0.4 * ones, 1.6 * ones), ones, exact, steps=4)


def asian() -> Problem:
    """Return an Asian call on a basket of three Bachelier assets: the mean over dates is normal."""
    case, dates, ones = sl.basket_case(3, seed=2), 12, torch.ones(3, dtype=torch.float64)
    w = case.weights
    s = case.volatility * math.sqrt((dates + 1) * (2 * dates + 1) / (6 * dates**2))
    payoff = sl.Asian(strike=1.0, dates=dates, weights=w, smoothing=sl.LastStep())
    exact = differentiated(lambda x: mean_ramp(x @ w - 1.0, s))
    return Problem("Asian", case.model, payoff, box(0.5 * ones, 1.5 * ones), ones, exact, steps=dates)


class OrnsteinUhlenbeck:
    """Mean-reverting Gaussian states, with their exact law: dX_i = k_i (m - X_i) dt + v_i dB_i, independent."""

    dim = 10
    level = 1.0
    rates = torch.linspace(0.3, 2.0, 10, dtype=torch.float64)
    volatility = torch.linspace(0.6, 0.3, 10, dtype=torch.float64)

    def drift(self, t: float, x: Tensor) -> Tensor:
        """Towards the level."""
        return self.rates * (self.level - x)

    def diffusion(self, t: float, x: Tensor) -> Tensor:
        """Constant."""
        return self.volatility.expand_as(x)

    def law(self, x: Tensor, step: float) -> Law:
        """Normal."""
        decay = torch.exp(-self.rates * step)
        scale = self.volatility * torch.sqrt((1 - decay**2) / (2 * self.rates))
        return Law(self.level + (x - self.level) * decay, scale.expand_as(x))

    def transition(self, x: Tensor, step: float, shocks: Tensor) -> Tensor:
        """A draw from the law."""
        law = self.law(x, step)
        return law.mean + law.scale * shocks


def ornstein_uhlenbeck() -> Problem:
    """Return a call on the mean of ten Ornstein-Uhlenbeck states."""
    model, ones = OrnsteinUhlenbeck(), torch.ones(10, dtype=torch.float64)
    w = ones / 10

    def value(x: Tensor) -> Tensor:
        law = model.law(x, 1.0)
        return mean_ramp(law.mean @ w - 1.0, (w * law.scale[0]).norm())

    payoff = sl.Call(strike=1.0, weights=w, smoothing=sl.LastStep())
    inputs = box(0 * ones, 2 * ones)
    return Problem("Ornstein-Uhlenbeck", model, payoff, inputs, ones, differentiated(value), steps=4)


class Epidemic:
    """Susceptible and infected shares of 10,000 people; rates of contact, recovery and lost immunity are states too."""

    dim = 5
    people = 1e4

    def flows(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Infections, recoveries and losses of immunity per unit of time."""
        s, i, contact, recovery, loss = x.unbind(1)
        return contact * s * i, recovery * i, loss * (1 - s - i)

    def drift(self, t: float, x: Tensor) -> Tensor:
        """Mean flows; the rates stay."""
        infections, recoveries, losses = self.flows(x)
        return torch.stack([losses - infections, infections - recoveries, *[torch.zeros_like(infections)] * 3], 1)

    def diffusion(self, t: float, x: Tensor) -> Tensor:
        """One source of noise for each flow, of the size of its root, bent smoothly near zero."""
        infections, recoveries, losses = ((flow**2 + 1e-8) ** 0.25 / self.people**0.5 for flow in self.flows(x))
        zero = torch.zeros_like(infections)
        rows = [[-infections, zero, losses], [infections, -recoveries, zero], *[[zero] * 3] * 3]
        return torch.stack([torch.stack(row, 1) for row in rows], 1)


def epidemic() -> Problem:
    """Return the infected share after a time, with the rates among the inputs; reference by Monte Carlo."""
    low, high = vector(0.6, 0.01, 1.0, 0.5, 0.0), vector(0.95, 0.05, 3.0, 1.5, 0.3)
    where = {"horizon": 4.0, "steps": 16, "test": 256}
    u = vector(0, 0, 1, 0, 0)
    return Problem("epidemic", Epidemic(), infected, box(low, high), u, None, **where)


def infected(states: Tensor) -> Tensor:
    """Share of infected people."""
    return states[:, 1]


class Coupled:
    """Three coupled states that four Brownian motions drive, with coefficients that depend on the state."""

    dim = 3
    pull = torch.tensor([[1.0, -0.4, 0.0], [0.0, 0.8, -0.3], [-0.2, 0.0, 0.6]], dtype=torch.float64)
    loading = torch.tensor([[0.3, 0.1, 0.0, 0.1], [0.0, 0.25, 0.1, -0.1], [0.1, 0.0, 0.3, 0.15]], dtype=torch.float64)

    def drift(self, t: float, x: Tensor) -> Tensor:
        """Linear pull towards 1."""
        return (1 - x) @ self.pull.T

    def diffusion(self, t: float, x: Tensor) -> Tensor:
        """Larger where the states are."""
        size = torch.stack([x[:, 0], x[:, 1], x[:, 2], x.mean(1)], 1)
        return self.loading * torch.sqrt(0.1 + size**2)[:, None, :]


def general_noise() -> Problem:
    """Return a call on the mean of the coupled states; reference by Monte Carlo."""
    ones = torch.ones(3, dtype=torch.float64)
    payoff = sl.Call(strike=1.0, weights=ones / 3, smoothing=sl.LastStep())
    how = {"steps": 8, "scheme": sl.EulerMaruyama(), "test": 256}
    return Problem("general noise", Coupled(), payoff, box(0.2 * ones, 1.8 * ones), ones, None, **how)


class Family:
    """Black-Scholes for any spot, volatility, strike and maturity: all four are states, the horizon is one."""

    dim = 4

    def drift(self, t: float, x: Tensor) -> Tensor:
        """None."""
        return torch.zeros_like(x)

    def diffusion(self, t: float, x: Tensor) -> Tensor:
        """Of the spot alone."""
        spot, volatility, _, maturity = x.unbind(1)
        noise = spot * volatility * maturity.sqrt()
        return torch.stack([noise, *[torch.zeros_like(noise)] * 3], 1)[:, :, None]

    def transition(self, x: Tensor, step: float, shocks: Tensor) -> Tensor:
        """Lognormal spot."""
        spot, volatility, strike, maturity = x.unbind(1)
        s = volatility * torch.sqrt(maturity * step)
        return torch.stack([spot * torch.exp(s * shocks[:, 0] - 0.5 * s * s), volatility, strike, maturity], 1)


def family() -> Problem:
    """Return a call with spot, volatility, strike and maturity as inputs."""

    def value(x: Tensor) -> Tensor:
        spot, volatility, strike, maturity = x.unbind(1)
        return black(spot, strike, volatility * maturity.sqrt())

    def payoff(states: Tensor) -> Tensor:
        return torch.relu(states[:, 0] - states[:, 2])

    inputs = box(vector(0.7, 0.15, 0.8, 0.5), vector(1.4, 0.4, 1.2, 2.0))
    return Problem("Black-Scholes family", Family(), payoff, inputs, vector(1, 0, 0, 0), differentiated(value))


PROBLEMS: tuple[Callable[[], Problem], ...] = (
    case_study,
    partial(basket, 3, weights=(0.9, 0.06, 0.04), unit=5e3),
    partial(basket, 12, unit=1e-3),
    partial(basket, 20),
    partial(geometric, "call"),
    partial(geometric, "put"),
    partial(heston, "call", 1.0),
    partial(heston, "put", 5e3),
    best_of_two,
    digital,
    asian,
    ornstein_uhlenbeck,
    epidemic,
    general_noise,
    family,
)


def reference(problem: Problem, paths: int, scrambles: int = 8) -> dict[str, list]:
    """Return value, gradient and curvature at the test points, from several scrambles of Sobol' paths.

    Beside each stands its standard error from the scatter of the scrambles, relative to the root mean square.
    """
    x, found = problem.inputs(problem.test, TEST_SEED), []
    for seed in range(scrambles):
        noise = sl.sobol(seed=TEST_SEED + seed)
        some = problem.label(x, noise, order=2, paths=paths, directions=problem.direction[None])
        found.append((some.value, some.gradient, some.hvp[:, 0] @ problem.direction))
    stored: dict[str, list] = {"paths": [scrambles, paths]}
    for name, parts in zip(QUANTITIES, map(torch.stack, zip(*found, strict=True)), strict=True):
        mean, error = parts.mean(0), parts.std(0) / scrambles**0.5
        stored[name] = [[float(f"{e:.7g}") for e in row] for row in mean.reshape(len(x), -1).tolist()]
        stored[f"{name}_error"] = [(error.square().mean().sqrt() / mean.square().mean().sqrt()).item()]
    return stored


def main() -> None:
    """Make all references that have no formula."""
    torch.set_num_threads(1)
    made = {}
    for problem in (make() for make in PROBLEMS):
        if problem.exact is None:
            made[problem.name] = reference(problem, paths=2**11)
            print(problem.name, {key: value for key, value in made[problem.name].items() if "error" in key}, flush=True)
    write_whole(REFERENCES, json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
