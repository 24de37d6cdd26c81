r"""Labels: Monte Carlo estimates of a value, its gradient and Hessian-vector products, one set per input.

For an input x and a payoff f the value is :math:`V(x) = E f(X_T(x))`. Under the conditions of the theorem in
Chapter 3 derivative and expectation may be swapped, so the derivative of the simulated payoff, by
algorithmic differentiation, estimates the derivative of V without bias.
"""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import grad

from sobolev_lib import _check
from sobolev_lib.simulation.average import Average, in_order, pieces
from sobolev_lib.simulation.models import Model, correlate
from sobolev_lib.simulation.noise import Noise
from sobolev_lib.simulation.payoffs import LastStep
from sobolev_lib.simulation.samples import Samples
from sobolev_lib.simulation.schemes import Exact, Scheme, log_density, prepare, walk


def label(
    model: Model,
    payoff,
    x,
    *,
    horizon: float,
    noise: Noise,
    order: int = 1,
    paths: int = 1,
    antithetic: bool = True,
    scheme: Scheme | None = None,
    steps: int | None = None,
    directions=None,
    parameters: Sequence[str] = (),
    estimator: str = "pathwise",
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
            d) to (n,).
        x: initial states.
        horizon: time from x to the payoff, in years.
        noise: where the normals come from, such as ``gaussian(seed=0)``.
        order: 0 for values, 1 for gradients as well, 2 for Hessian-vector products as well.
        paths: paths, or antithetic pairs of paths, per input.
        antithetic: whether each path comes with its mirror image; the mean of the two counts as one.
        scheme: see ``simulate``.
        steps: see ``simulate``; with ``Exact`` one per observation date if left out.
        directions: vectors u of the Hessian-vector products; default all unit vectors, which gives the whole Hessian.
        parameters: names of attributes of the model to differentiate the value by, e.g. ``["volatility"]`` for vega. A
            derivative per component; their sum is the derivative by a common shift.
        estimator: "pathwise", or "likelihood_ratio", which differentiates the density of the first step instead
            of the payoff, so that payoffs may jump. Its variance grows like one over the step size.
        chunk: number of paths worked on at once, for memory and speed. It does not change the result, bit for
            bit, for the models, schemes and payoffs of this library. Default: by the number of normals per path. A
            gradient through many Euler steps keeps about 100 bytes per antithetic pair, step and component until the
            reverse sweep; values keep nothing.

    Shape:
        x (n, d); directions (k, d) or (n, k, d). The result has value (n,), gradient (n, d), hvp (n, k, d).

    Returns:
        ``Samples``, with standard errors if ``paths`` > 1.

    Raises:
        TypeError, ValueError: an argument that does not fit, before any path is simulated; in particular a
            derivative that the payoff does not allow without smoothing.

    Source: Glasserman (2003), chapter 7; Giles and Glasserman, "Smoking adjoints", Risk (2006). Chapter 3, "Reverse
    mode: remember, then sweep back".

    >>> from sobolev_lib.simulation.models import Bachelier
    >>> from sobolev_lib.simulation.noise import gaussian
    >>> from sobolev_lib.simulation.payoffs import Call
    >>> s = label(Bachelier(volatility=0.2), Call(strike=-9.0), [[1.0]], horizon=1.0, noise=gaussian(seed=0))
    >>> s.value, s.gradient  # never out of the money: the value is x - strike
    (tensor([10.], dtype=torch.float64), tensor([[1.]], dtype=torch.float64))
    """
    _check.choice("order", order, (0, 1, 2))
    _check.choice("estimator", estimator, ("pathwise", "likelihood_ratio"))
    _check.count("paths", paths)
    _check.instance("antithetic", antithetic, bool)
    dates = _check_payoff(payoff, order, estimator)
    x, horizon, scheme, steps, sources = prepare(model, x, horizon, scheme, steps, default_steps=dates)
    if steps % dates:
        raise ValueError(f"steps: got {steps}, need a multiple of the payoff's {dates} dates")
    directions = _check_directions(directions, x, order)
    task = _Task(
        model, payoff, scheme, horizon / steps, steps, sources, dates, estimator, order, antithetic, tuple(parameters)
    )
    task.check(x)
    _check_noise(noise, len(x) * paths, task.normals)
    chunk = _check.count("chunk", max(512, min(2**15, 2**20 // max(task.normals, 1))) if chunk is None else chunk)
    average = Average(len(x), paths)
    work = functools.partial(task.rows, x, directions, noise, paths)
    for (first, inputs, path, count), labels in in_order(work, list(pieces(len(x), paths, chunk))):
        average.add(first, path, {name: rows.unflatten(0, (inputs, count)) for name, rows in labels.items()})
    means, errors = average.finish()
    return Samples(x.detach(), directions=directions, **_fields(means), **_fields(errors, "_error"))


@dataclass(frozen=True, eq=False)
class _Task:
    """What is done to each path; made of checked arguments."""

    model: Model
    payoff: object
    scheme: Scheme
    step: float
    steps: int
    sources: int
    dates: int
    estimator: str
    order: int
    antithetic: bool
    parameters: tuple[str, ...]

    @property
    def conditional(self) -> bool:
        """Whether the last step is integrated instead of simulated."""
        return isinstance(getattr(self.payoff, "smoothing", None), LastStep)

    @property
    def normals(self) -> int:
        """Normals per path."""
        return (self.steps - self.conditional) * self.sources

    def check(self, x: Tensor):
        """Try payoff, law and parameters on a few rows."""
        weights, assets = getattr(self.payoff, "weights", None), getattr(self.model, "assets", self.model.dim)
        if weights is not None and len(weights) != assets:
            raise ValueError(
                f"payoff.weights: got shape {tuple(weights.shape)}, need ({assets},), one per asset of the model"
            )
        if self.conditional or self.estimator == "likelihood_ratio":
            _check_law(self)
        if not self.conditional:
            states = x[:1].expand(2, -1)
            value = self.payoff(states if self.dates == 1 else states[:, None].expand(-1, self.dates, -1))
            if not isinstance(value, Tensor) or value.shape != (2,):
                shown = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"payoff: got {shown} for states of shape {tuple(states.shape)}, need a tensor of shape (2,)"
                )
        if self.parameters:
            self._check_parameters(x[:1])

    def _check_parameters(self, x: Tensor):
        if self.order == 0 or self.estimator != "pathwise":
            raise ValueError(
                f"parameters: got {self.parameters} at order {self.order} with estimator {self.estimator!r}, need "
                "order 1 or 2 and the pathwise estimator"
            )
        for name in self.parameters:
            value = getattr(self.model, name, None)
            computed = isinstance(value, bool) or isinstance(getattr(type(self.model), name, None), property)
            if computed or not isinstance(value, int | float | Tensor) or torch.as_tensor(value).ndim > 1:
                raise ValueError(f"parameters: got {name!r}, need attributes of the model that are numbers or vectors")
        model, leaves = _with_parameters(self.model, self.parameters, 1)
        value = self._value(model, x, torch.ones(1, self.steps, self.sources, dtype=torch.float64))
        for name, leaf in zip(self.parameters, leaves, strict=True):
            if not value.requires_grad or grad(value.sum(), leaf, retain_graph=True, allow_unused=True)[0] is None:
                raise ValueError(
                    f"parameters: got {name!r}, which drift, diffusion and transition do not read in each call"
                )

    def rows(
        self, x, directions, noise, paths: int, first: int, inputs: int, path: int, count: int
    ) -> dict[str, Tensor]:
        """Labels of `inputs` times `count` paths, one per row."""
        start, total = first * paths + path, inputs * count
        padded = -(-total // 64) * 64  # element-wise kernels round differently in a tail shorter than their vectors
        normals = noise(start, total, self.normals) if self.normals else x.new_zeros(total, 0)
        states = x[first : first + inputs].detach()
        states = states if count == 1 else states.repeat_interleave(count, dim=0)
        if directions is not None and directions.ndim == 3:
            directions = directions[first : first + inputs].repeat_interleave(count, dim=0)
        if padded > total:
            fill = torch.arange(padded).clamp(max=total - 1)
            normals, states = normals[fill], states[fill]
            directions = directions[fill] if directions is not None and directions.ndim == 3 else directions
        shocks = correlate(getattr(self.model, "factor", None), normals.unflatten(1, (-1, self.sources)))
        labels = self._differentiate(states, shocks, directions)
        return {name: rows[:total] for name, rows in labels.items()}

    def _differentiate(self, x: Tensor, shocks: Tensor, directions) -> dict[str, Tensor]:
        if self.order == 0:
            with torch.no_grad():
                return {"value": self._label(self.model, x, shocks)}
        with torch.enable_grad():
            return self._reverse(x, shocks, directions)

    def _reverse(self, x: Tensor, shocks: Tensor, directions) -> dict[str, Tensor]:
        model, leaves = _with_parameters(self.model, self.parameters, len(x))
        inputs = [x.requires_grad_(), *leaves]
        value = self._label(model, x, shocks)
        gradient, *others = _pullback(value, inputs, torch.ones_like(value), create_graph=self.order == 2)
        labels = {"value": value.detach(), "gradient": gradient.detach()}
        labels |= {f"parameter_gradient/{name}": g.detach() for name, g in zip(self.parameters, others, strict=True)}
        if self.order == 2:
            vectors = directions.expand(len(x), -1, -1)
            products = [_pullback(gradient, [x], u, retain_graph=True)[0] for u in vectors.unbind(1)]
            labels["hvp"] = torch.stack(products, dim=1)
        return labels

    def _label(self, model: Model, x: Tensor, shocks: Tensor) -> Tensor:
        if not self.antithetic:
            return self._value(model, x, shocks)
        return 0.5 * (self._value(model, x, shocks) + self._value(model, x, -shocks))

    def _value(self, model: Model, x: Tensor, shocks: Tensor) -> Tensor:
        if self.estimator == "pathwise":
            return self._payoff(model, x, shocks)
        with torch.no_grad():
            value = self._payoff(model, x, shocks)
            state = self.scheme.step(model, 0.0, x, self.step, shocks[:, 0])
        density = log_density(self.scheme.law(model, 0.0, x, self.step), state)
        return value * torch.exp(density - density.detach())  # the ratio is 1; its derivatives are those of the density

    def _payoff(self, model: Model, x: Tensor, shocks: Tensor) -> Tensor:
        state, observed = x, []
        for k, state in enumerate(walk(self.scheme, model, x, self.step, shocks), 1):
            if k % (self.steps // self.dates) == 0:
                observed.append(state)
        if not self.conditional:
            return self.payoff(state if self.dates == 1 else torch.stack(observed, dim=1))
        law = self.scheme.law(model, self.step * (self.steps - 1), state, self.step)
        mean = self.payoff.basket(law.mean)
        for state in observed:
            mean = mean + self.payoff.basket(state)
        return self.payoff.expected(mean / self.dates, _basket_deviation(law, self.payoff.weights) / self.dates)


def _pullback(outputs: Tensor, inputs: list[Tensor], seed: Tensor, **options) -> tuple[Tensor, ...]:
    """Reverse sweep; rows depend on their own row of the inputs only, so one sweep serves all rows."""
    if not outputs.requires_grad:  # a constant, e.g. the slope of a user's payoff that is piecewise linear
        return tuple(torch.zeros_like(x) for x in inputs)
    return grad(outputs, inputs, seed, materialize_grads=True, **options)


def _with_parameters(model: Model, names: tuple[str, ...], rows: int) -> tuple[Model, list[Tensor]]:
    """A copy of the model in which the named parameters have one row per path, and these rows as leaves."""
    if not names:
        return model, []
    model, leaves = copy.copy(model), []
    for name in names:
        value = torch.as_tensor(getattr(model, name), dtype=torch.float64).reshape(1, -1)
        leaves.append(value.expand(rows, -1).clone().requires_grad_())
        object.__setattr__(model, name, leaves[-1])
    return model, leaves


def _basket_deviation(law, weights: Tensor) -> Tensor:
    """Standard deviation (n,) of the basket under a step's law."""
    if law.scale.ndim == 3:
        loading = (law.scale[:, : len(weights)] * weights[:, None]).sum(1)
    else:
        loading = law.scale[:, : len(weights)] * weights
        if law.factor is not None:
            loading = loading @ law.factor[: len(weights)]
    return torch.sqrt((loading * loading).sum(1))


def _fields(labels: dict[str, Tensor], suffix: str = "") -> dict:
    """Keyword arguments of `Samples` for labels by name."""
    result = {name + suffix: tensor for name, tensor in labels.items() if "/" not in name}
    group = {name.partition("/")[2]: tensor for name, tensor in labels.items() if "/" in name}
    return result | {f"parameter_gradient{suffix}": group}


def _check_payoff(payoff, order: int, estimator: str) -> int:
    """Refuse what is no payoff, and a derivative that it does not allow; return the number of observation dates."""
    if not callable(payoff) or isinstance(payoff, type):
        raise TypeError(
            f"payoff: got {payoff!r}, need a payoff such as Call(strike=1.0), or a function of the final states"
        )
    allowed = getattr(payoff, "smooth_order", 2)
    if estimator == "pathwise" and order > allowed:
        raise ValueError(
            f"order: got {order} for a {payoff.kind} without smoothing, whose pathwise derivatives are unbiased up to "
            f"order {allowed} only; need a smoothing, or estimator='likelihood_ratio'"
        )
    return getattr(payoff, "dates", 1)


def _check_law(task: _Task):
    """LastStep and the likelihood ratio need the law of a step, LastStep a Gaussian one."""
    use = "smoothing LastStep" if task.conditional else "estimator likelihood_ratio"
    if task.conditional and task.estimator == "likelihood_ratio":
        raise ValueError("estimator: got likelihood_ratio with smoothing LastStep, need one of the two")
    if not hasattr(task.scheme, "law") or (task.scheme == Exact() and not hasattr(task.model, "law")):
        raise ValueError(f"scheme: got {task.scheme}, whose steps have no density; {use} needs EulerMaruyama or Exact")
    state = torch.ones(1, task.model.dim, dtype=torch.float64)
    law = task.scheme.law(task.model, 0.0, state, task.step)
    if task.conditional and law.log:
        raise ValueError(
            f"scheme: got {task.scheme}, whose steps are lognormal for this model; {use} needs EulerMaruyama"
        )
    if law.scale.ndim == 3 and law.scale.shape[1] != law.scale.shape[2] and not task.conditional:
        raise ValueError(
            f"estimator: got {tuple(law.scale.shape[1:])} for the diffusion, likelihood_ratio needs a square one"
        )


def _check_directions(directions, x: Tensor, order: int) -> Tensor | None:
    if order < 2:
        if directions is not None:
            raise ValueError(f"directions: got some at order {order}, need order 2")
        return None
    if directions is None:
        return torch.eye(x.shape[1], dtype=torch.float64)
    tensor = _check.tensor("directions", directions, dtype=torch.float64)
    shape = ("k", x.shape[1]) if tensor.ndim == 2 else (len(x), "k", x.shape[1])
    if 0 in _check.tensor("directions", tensor, shape=shape).shape:
        raise ValueError(f"directions: got shape {tuple(tensor.shape)}, need at least one direction")
    return tensor


def _check_noise(noise: Noise, rows: int, dims: int):
    """Ask for the last row, so that a noise with too few rows or columns says so before the work begins."""
    if not callable(noise) or isinstance(noise, type):
        raise TypeError(f"noise: got {noise!r}, need a noise such as gaussian(seed=0)")
    if dims > 0:
        _check.tensor("noise(start, count, dims)", noise(rows - 1, 1, dims), shape=(1, dims))
