r"""Labels: Monte Carlo estimates of a value, its gradient and Hessian-vector products, one set per input.

For an input x and a payoff f the value is :math:`V(x) = E f(X_T(x))`. Under the conditions of the theorem in
Chapter 3 derivative and expectation may be swapped, so the derivative of the simulated payoff, by
algorithmic differentiation, estimates the derivative of V without bias.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import grad
from tqdm import tqdm

from sobolev_lib import _check
from sobolev_lib.simulation.average import Average, in_order, pieces
from sobolev_lib.simulation.models import Bachelier, BlackScholes, Heston, Model, correlate
from sobolev_lib.simulation.noise import Noise, gaussian
from sobolev_lib.simulation.parameters import Family, family
from sobolev_lib.simulation.payoffs import LastStep, Payoff
from sobolev_lib.simulation.pilot import ROWS, check_rows, check_smooth
from sobolev_lib.simulation.samples import Samples
from sobolev_lib.simulation.schemes import Exact, Scheme, check_model, log_density, prepare, walk

__all__ = ["label"]


def label(
    model: Model,
    payoff,
    x,
    *,
    noise: Noise,
    horizon: float | None = None,
    varying: Sequence[str] = (),
    order: int = 1,
    paths: int = 1,
    antithetic: bool = True,
    scheme: Scheme | None = None,
    steps: int | None = None,
    directions=None,
    estimator: str = "pathwise",
    start: int = 0,
    chunk: int | None = None,
) -> Samples:
    r"""Label inputs with Monte Carlo values and derivatives.

    .. math:: \hat V(x) = \frac1P \sum_{j=1}^{P} \tfrac12\bigl(f(X_T(x, z_j)) + f(X_T(x, -z_j))\bigr), \qquad
              \partial_x \hat V, \qquad \partial_x^2 \hat V\, u

    (without the antithetic half if ``antithetic`` is False). Derivatives come from reverse sweeps through scheme
    and payoff, a Hessian-vector product from a second reverse sweep. Path j of input i uses row i * paths + j of
    ``noise``.

    Args:
        model: the SDE, see ``simulate``.
        payoff: ``Call``, ``Put``, ``Digital``, ``Straddle``, ``Asian``, or a function of the final states, (n,
            d) to (n,); the module ``payoffs`` says what one's own may observe.
        x: initial states, and behind them the columns that ``varying`` names.
        noise: where the normals come from, such as ``gaussian(seed=0)``.
        horizon: time from x to the payoff, in years; None if it varies.
        varying: what the columns of x behind the state stand for, in their order: attributes of the model (numbers, or
            vectors with a column for each entry), numbers of the payoff, and ``"horizon"``, e.g. ``("volatility",
            "strike", "horizon")``. Gradient and products then have these columns too: vega, rho, theta. The derivative
            by a vector has a component for each entry; their sum is the derivative by a common shift.
        order: 0 for values, 1 for gradients as well, 2 for Hessian-vector products as well.
        paths: paths, or antithetic pairs of paths, per input.
        antithetic: whether each path comes with its mirror image; the mean of the two counts as one.
        scheme: see ``simulate``.
        steps: see ``simulate``; with ``Exact`` one per observation date if left out.
        directions: vectors u of the Hessian-vector products; default all unit vectors, which gives the whole Hessian.
        estimator: "pathwise", or "likelihood_ratio", which differentiates the density of the first step instead
            of the payoff, so that payoffs may jump. Its variance grows like one over the step size.
        start: number of the first row, if x are rows from ``start`` on of a larger set: the labels are those of the
            whole set, bit for bit.
        chunk: number of paths worked on at once, for memory and speed. It does not change the result, bit for
            bit, for the models, schemes and payoffs of this library. Default: by the number of normals per path. A
            gradient through many Euler steps keeps about 100 bytes per antithetic pair, step and component until the
            reverse sweep; values keep nothing.

    Shape:
        x (n, d); directions (k, d) or (n, k, d). The result has value (n,), gradient (n, d), hvp (n, k, d). Here d
        counts the state and the columns of ``varying``.

    Returns:
        ``Samples``, with standard errors if ``paths`` > 1; ``source`` says which scheme was used.

    Raises:
        TypeError, ValueError: an argument that does not fit, before any path is simulated; in particular a
            derivative that the payoff does not allow without smoothing. A payoff of one's own is tried on a pilot
            sample, and refused if it jumps or bends there. After the simulation, if a label is not finite.

    Source: Glasserman (2003), chapter 7; Giles and Glasserman, "Smoking adjoints", Risk (2006). Chapter 3, "Reverse
    mode: remember, then sweep back".

    >>> model, payoff = sl.Bachelier(volatility=0.2), sl.Call(strike=-9.0)
    >>> s = sl.label(model, payoff, [[1.0]], horizon=1.0, noise=sl.gaussian(seed=0))
    >>> s.value, s.gradient  # never out of the money: the value is x - strike
    (tensor([10.], dtype=torch.float64), tensor([[1.]], dtype=torch.float64))
    """
    with _check.ordinary_mode():
        order = _check.choice("order", order, (0, 1, 2))
        estimator = _check.choice("estimator", estimator, ("pathwise", "likelihood_ratio"))
        paths, start = _check.count("paths", paths), _check.count("start", start, least=0)
        _check.instance("antithetic", antithetic, bool)
        check_model(model)
        dates = _check_payoff(payoff, order, estimator)
        problem = family(model, payoff, horizon, varying)
        if problem.columns and order and estimator != "pathwise":
            raise ValueError("estimator: got likelihood_ratio beside varying, need pathwise, or order 0")
        x, scheme, steps, sources = _prepare(problem, x, scheme, steps, dates)
        directions = _check_directions(directions, x, order)
        walks = _Walks(problem, scheme, steps, sources, dates, antithetic, estimator)
        walks.check(x, order)
        _check_noise(noise, (start + len(x)) * paths, walks.normals)
        most = max(512, min(2**15, 2**20 // max(walks.normals, 1)))
        jobs = list(pieces(len(x), paths, most if chunk is None else _check.count("chunk", chunk)))
        average = Average(len(x), paths)
        work = functools.partial(_rows, walks, x, directions, noise, order, paths, start)
        done = tqdm(in_order(work, jobs), "labels", len(jobs), leave=False, delay=1)
        for (first, inputs, path, count), labels in done:
            average.add(first, path, {name: rows.unflatten(0, (inputs, count)) for name, rows in labels.items()})
        return _samples(x, directions, average, f"{scheme}, {steps} step{'s' if steps > 1 else ''}")


@dataclass(frozen=True, eq=False)
class _Walks:
    """From inputs and shocks to payoffs, one path (or antithetic pair) per row."""

    problem: Family
    scheme: Scheme
    steps: int
    sources: int
    dates: int
    antithetic: bool
    estimator: str

    @property
    def conditional(self) -> bool:
        """Whether the last step is integrated instead of simulated."""
        return isinstance(getattr(self.problem.payoff, "smoothing", None), LastStep)

    @property
    def normals(self) -> int:
        """Normals per path."""
        return (self.steps - self.conditional) * self.sources

    def shocks(self, normals: Tensor) -> Tensor:
        """Shocks (n, steps, m) from independent normals (n, steps * m)."""
        return correlate(getattr(self.problem.model, "factor", None), normals.unflatten(1, (-1, self.sources)))

    def values(self, x: Tensor, shocks: Tensor) -> Tensor:
        """Payoffs (n,), or means over pairs, as functions of the inputs (n, d)."""
        if not self.antithetic:
            return self._value(x, shocks)
        return 0.5 * (self._value(x, shocks) + self._value(x, -shocks))

    def _value(self, x: Tensor, shocks: Tensor) -> Tensor:
        if self.estimator == "pathwise":
            return self._worth(*self._observe(x, shocks))
        model, _, horizon, state = self.problem.at(x)
        step = horizon / self.steps
        with torch.no_grad():
            value = self._worth(*self._observe(x, shocks))
            after = self.scheme.step(model, 0.0, state, step, shocks[:, 0])
        density = log_density(self.scheme.law(model, 0.0, state, step), after)
        return value * torch.exp(density - density.detach())  # the ratio is 1; its derivatives are those of the density

    def _observe(self, x: Tensor, shocks: Tensor) -> tuple[Model, object, float | Tensor, Tensor, list[Tensor]]:
        """Model, payoff and step size of these inputs, the last state, and the states that the payoff observes."""
        model, payoff, horizon, start = self.problem.at(x)
        state, observed = start, [start] if getattr(payoff, "observes_start", False) else []
        for k, state in enumerate(walk(self.scheme, model, start, horizon / self.steps, shocks), 1):
            if k % (self.steps // self.dates) == 0:
                observed.append(state)
        return model, payoff, horizon / self.steps, state, observed

    def _worth(self, model: Model, payoff, step: float | Tensor, state: Tensor, observed: list[Tensor]) -> Tensor:
        if not self.conditional:
            return payoff(_stacked(observed))
        law = self.scheme.law(model, step * (self.steps - 1), state, step)
        mean = payoff.basket(law.mean)
        for earlier in observed:
            mean = mean + payoff.basket(earlier)
        return payoff.expected(mean / self.dates, _basket_deviation(law, payoff.weights) / self.dates)

    def check(self, x: Tensor, order: int):
        """Try model and payoff on a pilot sample, if they are a user's own or some of their numbers vary."""
        model, payoff = self.problem.model, self.problem.payoff
        weights, assets = getattr(payoff, "weights", None), getattr(model, "assets", model.dim)
        own = not isinstance(payoff, Payoff)
        if weights is not None and not own and len(weights) != assets:
            raise ValueError(f"payoff.weights: got shape {tuple(weights.shape)}, need ({assets},), one per asset")
        if self.conditional or self.estimator == "likelihood_ratio":
            _check_law(self, x)
        if not own and not self.problem.columns and type(model) in (Bachelier, BlackScholes, Heston):
            return
        x = x[torch.arange(ROWS) * len(x) // ROWS]
        shocks = self.shocks(gaussian(seed=0)(0, ROWS, self.normals) if self.normals else x.new_zeros(ROWS, 0))
        order = order if self.estimator == "pathwise" else 0
        if own:
            _, paying, _, _, observed = self._observe(x[:2], shocks[:2])
            _check_value(paying, _stacked(observed).detach().requires_grad_(), order)
        check_rows(self._value, x[[0, -1]], shocks)
        self._check_read(x[:1].clone().requires_grad_(), shocks[:1])
        if own and order and not hasattr(payoff, "smooth_order"):
            _, paying, _, _, observed = self._observe(x, shocks)
            check_smooth(paying, _stacked(observed).detach(), order)

    def _check_read(self, x: Tensor, shocks: Tensor):
        seen = self._observe(x, shocks)
        results = [result.sum() for result in (self._worth(*seen), *seen[4]) if result.requires_grad]
        readers = {"model": (seen[0], "drift, diffusion and transition do"), "payoff": (seen[1], "the payoff does")}
        for owner, name, _ in self.problem.columns:
            thing, reader = readers.get(owner, (None, ""))
            value = getattr(thing, name, None)  # a horizon is always read
            if thing and all(grad(r, value, retain_graph=True, allow_unused=True)[0] is None for r in results):
                raise ValueError(f"varying: got {name!r}, which {reader} not read in each call")


def _check_value(payoff, states: Tensor, order: int):
    """Refuse what a payoff of the user's own must not return."""
    value = payoff(states)
    if not isinstance(value, Tensor) or value.shape != (2,):
        shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"payoff: got {shown} for states of shape {tuple(states.shape)}, need a tensor of shape (2,)")
    if order and not value.requires_grad:
        raise ValueError(f"payoff: got values that torch cannot differentiate at order {order}, need its operations")


def _rows(
    walks: _Walks, x, directions, noise, order: int, paths: int, start: int, first: int, inputs: int, path: int, count
) -> dict[str, Tensor]:
    """Labels of `inputs` times `count` paths, one per row."""
    row, total = (start + first) * paths + path, inputs * count
    normals = noise(row, total, walks.normals) if walks.normals else x.new_zeros(total, 0)
    # Whole vectors: element-wise kernels round differently in a tail that is shorter.
    fill = torch.arange(-(-total // 64) * 64).clamp(max=total - 1)
    normals, x = normals if len(fill) == total else normals[fill], x[first + fill // count]
    if directions is not None and directions.ndim == 3:
        directions = directions[first + fill // count]
    labels = _differentiate(functools.partial(walks.values, shocks=walks.shocks(normals)), x, directions, order)
    return {name: rows[:total] for name, rows in labels.items()}


def _differentiate(function: Callable, x: Tensor, directions: Tensor | None, order: int) -> dict[str, Tensor]:
    """Values, gradients and Hessian-vector products of a function whose row i depends on row i of x only."""
    if order == 0:
        with torch.no_grad():
            return {"value": function(x)}
    x = x.detach().requires_grad_()
    value = function(x)
    gradient = _pullback(value, x, torch.ones_like(value), create_graph=order == 2)
    labels = {"value": value.detach(), "gradient": gradient.detach()}
    if order == 2:
        vectors = directions.expand(len(x), -1, -1).unbind(1)
        labels["hvp"] = torch.stack([_pullback(gradient, x, u, retain_graph=True) for u in vectors], dim=1)
    return labels


def _pullback(outputs: Tensor, x: Tensor, seed: Tensor, **options) -> Tensor:
    """Reverse sweep; rows depend on their own row of the inputs only, so one sweep serves all rows."""
    if not outputs.requires_grad:  # a constant, e.g. the slope of a user's payoff that is piecewise linear
        return torch.zeros_like(x)
    return grad(outputs, x, seed, materialize_grads=True, **options)[0]


def _stacked(observed: list[Tensor]) -> Tensor:
    return observed[0] if len(observed) == 1 else torch.stack(observed, dim=1)


def _samples(x: Tensor, directions, average: Average, source: str) -> Samples:
    """The averages as samples, if all of them are finite."""
    fields = {}
    for suffix, labels in zip(("", "_error"), average.finish(), strict=True):
        for name, tensor in labels.items():
            bad = ~torch.isfinite(tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None]).all(1)
            if bad.any():
                raise ValueError(
                    f"{name}{suffix}: got non-finite labels in {int(bad.sum())} of {len(x)} rows, the first of them "
                    f"row {int(bad.nonzero()[0])}; the model or the payoff overflows there, or has no derivative"
                )
            fields[name + suffix] = tensor
    return Samples.of(x=x, directions=directions, source=source, **fields)


def _prepare(problem: Family, x, scheme: Scheme | None, steps: int | None, dates: int):
    """Inputs, scheme, steps and number of Brownian motions, checked and completed."""
    x = _check.tensor("x", x, shape=("n", problem.width), dtype=torch.float64, copy=True, detach=True)
    problem.check(x)
    states, horizon = problem.states(x), problem.horizon
    _, _, scheme, steps, sources = prepare(problem.model, states, horizon, scheme, steps, default_steps=dates)
    if steps % dates:
        raise ValueError(f"steps: got {steps}, need a multiple of the payoff's {dates} dates")
    return x, scheme, steps, sources


def _basket_deviation(law, weights: Tensor) -> Tensor:
    """Standard deviation (n,) of the basket under a step's law."""
    if law.scale.ndim == 3:
        loading = (law.scale[:, : len(weights)] * weights[:, None]).sum(1)
    else:
        loading = law.scale[:, : len(weights)] * weights
        if law.factor is not None:
            loading = loading @ law.factor[: len(weights)]
    square = (loading * loading).sum(1)
    alive = square > 0  # the root's derivative is infinite at 0, and infinity times 0 is not a number
    return torch.where(alive, torch.sqrt(torch.where(alive, square, 1.0)), 0.0)


def _check_payoff(payoff, order: int, estimator: str) -> int:
    """Refuse what is no payoff, and a derivative that it does not allow; return the number of observation dates."""
    _check.function("payoff", payoff, "a payoff such as Call(strike=1.0), or a function of final states")
    allowed = getattr(payoff, "smooth_order", 2)
    if estimator == "pathwise" and order > allowed:
        kind = f"{payoff.kind} without smoothing" if isinstance(payoff, Payoff) else type(payoff).__name__
        raise ValueError(
            f"order: got {order} for a {kind}, whose pathwise derivatives are unbiased up to "
            f"order {allowed} only; need a smoothing, or estimator='likelihood_ratio'"
        )
    return _check.count("payoff.dates", getattr(payoff, "dates", 1))


def _check_law(walks: _Walks, x: Tensor):
    """LastStep and the likelihood ratio need the law of a step, LastStep a Gaussian one."""
    use = "smoothing LastStep" if walks.conditional else "estimator likelihood_ratio"
    if walks.conditional and walks.estimator == "likelihood_ratio":
        raise ValueError("estimator: got likelihood_ratio with smoothing LastStep, need one of the two")
    if not hasattr(walks.scheme, "law") or (walks.scheme == Exact() and not hasattr(walks.problem.model, "law")):
        raise ValueError(f"scheme: got {walks.scheme}, whose steps have no density; {use} needs EulerMaruyama or Exact")
    model, _, horizon, state = walks.problem.at(x[:2])
    law = walks.scheme.law(model, 0.0, state, horizon / walks.steps)
    if walks.conditional and law.log:
        raise ValueError(f"scheme: got {walks.scheme}, whose steps are lognormal here; {use} needs EulerMaruyama")
    if not walks.conditional and law.scale.ndim == 2 and not (law.scale != 0).all():
        raise ValueError("estimator: got likelihood_ratio for a step without noise, need pathwise: there is no density")
    if law.scale.ndim == 3 and law.scale.shape[1] != law.scale.shape[2] and not walks.conditional:
        raise ValueError(f"estimator: got likelihood_ratio, diffusion {tuple(law.scale.shape[1:])}, need a square one")


def _check_directions(directions, x: Tensor, order: int) -> Tensor | None:
    if order < 2:
        if directions is not None:
            raise ValueError(f"directions: got some at order {order}, need order 2")
        return None
    if directions is None:
        return torch.eye(x.shape[1], dtype=torch.float64)
    return _check.directions(directions, *x.shape, dtype=torch.float64, copy=True, detach=True)


def _check_noise(noise: Noise, rows: int, dims: int):
    """Ask for the last row, so that a noise with too few rows or columns says so before the work begins."""
    _check.function("noise", noise, "a noise such as gaussian(seed=0)")
    if dims > 0:
        _check.tensor("noise(start, count, dims)", noise(rows - 1, 1, dims), shape=(1, dims))
