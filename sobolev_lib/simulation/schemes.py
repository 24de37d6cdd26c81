r"""Time stepping: from a model and normals to states.

A scheme is a small object with ``strong_order`` (the power of the step size in :math:`(E|X_T - X_T^h|^2)^{1/2}`),
``check(model, x)``, which refuses models that it cannot treat, and ``step(model, t, x, step, shocks)``. Schemes whose
step is Gaussian offer ``law(model, t, x, step)`` as well. Each states what it assumes and does not check. Derived in
Chapter 1.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.simulation.models import Heston, Law, Model, correlate, root
from sobolev_lib.simulation.noise import Noise

__all__ = ["EulerMaruyama", "Exact", "FullTruncation", "Milstein", "simulate"]


class Scheme(Protocol):
    """What ``simulate`` and ``label`` need of a scheme."""

    strong_order: float

    def check(self, model: Model, x: Tensor):
        """Raise ``ValueError`` if the scheme cannot treat the model from the states x (n, d)."""

    def step(self, model: Model, t: float, x: Tensor, step: float, shocks: Tensor) -> Tensor:
        """States (n, d) at ``t + step`` from states (n, d) at t and shocks (n, m).

        Shocks are standard normals, with the correlation of the Brownian motions if the model has a ``factor``.
        """


@dataclass(frozen=True)
class Exact:
    r"""The model's own transition law: no discretisation error, any step size.

    Orders: infinite. Assumes that ``model.transition`` samples the law that drift and diffusion define; not checked.

    Raises:
        ValueError: from ``check``, a model without ``transition``.

    Chapter 1, "The orders, measured".

    >>> import torch
    >>> x, z = torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), 2.0, dtype=torch.float64)
    >>> sl.Exact().step(sl.Bachelier(volatility=0.25), 0.0, x, 1.0, z).item()
    1.5
    """

    strong_order: ClassVar[float] = math.inf

    def check(self, model: Model, x: Tensor):
        """Refuse a model without ``transition``."""
        if not hasattr(model, "transition"):
            raise ValueError(f"scheme: got Exact for {type(model).__name__} without transition; use EulerMaruyama")

    def step(self, model: Model, t: float, x: Tensor, step: float, shocks: Tensor) -> Tensor:
        """Sample the transition."""
        return model.transition(x, step, shocks)

    def law(self, model: Model, t: float, x: Tensor, step: float) -> Law:
        """Law of the transition, given by the model."""
        return model.law(x, step)


@dataclass(frozen=True)
class EulerMaruyama:
    r"""Euler-Maruyama: :math:`X_{t+h} = X_t + a(t, X_t)\,h + b(t, X_t)\sqrt{h}\,z`.

    Strong order 1/2 (1 if b does not depend on X), weak order 1. Assumes, unchecked, coefficients that are globally
    Lipschitz and grow at most linearly; the weak order assumes four bounded derivatives besides.

    Source: Kloeden and Platen, "Numerical Solution of Stochastic Differential Equations" (1992), chapters 10.2, 14.1.

    Chapter 1, "A stochastic differential equation".

    >>> import torch
    >>> x, z = torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), 2.0, dtype=torch.float64)
    >>> sl.EulerMaruyama().step(sl.BlackScholes(volatility=0.25), 0.0, x, 1.0, z).item()
    1.5
    """

    strong_order: ClassVar[float] = 0.5

    def check(self, model: Model, x: Tensor):
        """Every model will do."""

    def step(self, model: Model, t: float, x: Tensor, step: float, shocks: Tensor) -> Tensor:
        """Take one Euler step."""
        shift = apply_diffusion(model.diffusion(t, x), shocks * root(step))
        return x + model.drift(t, x) * step + shift

    def law(self, model: Model, t: float, x: Tensor, step: float) -> Law:
        """Normal law of one step."""
        diffusion, size = model.diffusion(t, x), root(step)
        size = size[..., None] if diffusion.ndim == 3 and isinstance(size, Tensor) else size
        return Law(x + model.drift(t, x) * step, diffusion * size, getattr(model, "factor", None))


@dataclass(frozen=True)
class Milstein:
    r"""Milstein's scheme for a diagonal diffusion, with Brownian motions that are correlated or not.

    .. math:: X_{t+h} = X_t + a h + b\,\Delta W + \tfrac12\, b_i\, \partial_i b_i\, (\Delta W_i^2 - h)

    Strong order 1, weak order 1. The derivative of b comes from algorithmic differentiation. ``check`` tests at the
    first state that b_i depends on X_i only; that this holds everywhere, and that b has two bounded derivatives, is
    assumed.

    Raises:
        ValueError: from ``check``, a diffusion that is not diagonal, or whose components depend on each other.

    Source: Milstein (1975); Kloeden and Platen (1992), equations (10.3.1) and (10.3.16).

    Chapter 1, "A stochastic differential equation".

    >>> import torch
    >>> x, z = torch.ones(1, 1, dtype=torch.float64), torch.full((1, 1), 2.0, dtype=torch.float64)
    >>> sl.Milstein().step(sl.BlackScholes(volatility=0.25), 0.0, x, 1.0, z).item()  # 1.5 + v^2 (4 - 1) / 2
    1.59375
    """

    strong_order: ClassVar[float] = 1.0

    def check(self, model: Model, x: Tensor):
        """Refuse a diffusion whose component i depends on more than component i of x."""
        jacobian = torch.func.jacrev(lambda y: model.diffusion(0.0, y[None])[0])(x[0])
        own = torch.diag(jacobian.diagonal()) if jacobian.ndim == 2 else math.inf  # (d, d), or (d, m, d)
        worst = float((jacobian - own).abs().max())
        if worst > 1e-9 * (1 + float(jacobian.abs().max())):
            need = "a diagonal diffusion whose component i depends on component i of the state only"
            raise ValueError(f"scheme: got Milstein and a deviation of {worst:.3g} at the first state, need {need}")

    def step(self, model: Model, t: float, x: Tensor, step: float, shocks: Tensor) -> Tensor:
        """Take one Milstein step."""
        increment, loading = shocks * root(step), model.diffusion(t, x)
        euler = x + model.drift(t, x) * step + loading * increment
        return euler + 0.5 * _slope(lambda y: model.diffusion(t, y), x, loading * (increment**2 - step))


@dataclass(frozen=True)
class FullTruncation:
    r"""Full-truncation Euler for Heston's model, with the logarithm of the spots.

    .. math:: S_{t+h} = S_t \exp\bigl((r - \tfrac12 v^+)h + \sqrt{v^+ h}\, z\bigr), \qquad
              v_{t+h} = v_t + \kappa(\theta - v^+)h + \xi\sqrt{v^+ h}\, z'

    with :math:`v^+ = \max(v, 0)`: v itself may become negative, coefficients see it as 0. Works for every model
    with prices in its first ``assets`` components, variances in the others and a diagonal diffusion. Weak order
    1. It converges strongly; no rate is proven in general, and 1/2 is what one measures under the Feller
    condition. If that is violated, both are lower. Assumes that spots are positive.

    Raises:
        ValueError: from ``check``, a model without variances.

    Source: Lord, Koekkoek, van Dijk, "A comparison of biased simulation schemes for stochastic volatility models",
    Quantitative Finance 10 (2010), equation (9).

    Chapter 1, "Your own equation, and where the theorem ends".

    >>> import torch
    >>> model = sl.Heston(mean_reversion=1.0, long_variance=0.5, vol_of_variance=1.0, spot_variance_correlation=0.0)
    >>> x = torch.tensor([[1.0, -0.25]], dtype=torch.float64)
    >>> sl.FullTruncation().step(model, 0.0, x, 0.5, torch.ones_like(x)).tolist()  # v + kappa theta h
    [[1.0, 0.0]]
    """

    strong_order: ClassVar[float] = 0.5

    def check(self, model: Model, x: Tensor):
        """Refuse a model without variances."""
        assets = getattr(model, "assets", model.dim)
        if assets == model.dim or model.diffusion(0.0, x[:1]).ndim != 2:
            need = "variances in the components after the assets, and a diagonal diffusion"
            raise ValueError(f"scheme: got FullTruncation for {type(model).__name__}, need assets < dim, {need}")

    def step(self, model: Model, t: float, x: Tensor, step: float, shocks: Tensor) -> Tensor:
        """Take one step."""
        spot, variance = x[:, : model.assets], x[:, model.assets :]
        truncated = torch.cat([spot, variance.clamp(min=0)], dim=1)
        drift, diffusion = model.drift(t, truncated), model.diffusion(t, truncated)
        shift = diffusion * shocks * root(step)
        rate, volatility = drift[:, : model.assets] / spot, diffusion[:, : model.assets] / spot
        growth = (rate - 0.5 * volatility**2) * step + shift[:, : model.assets] / spot
        moved = variance + drift[:, model.assets :] * step + shift[:, model.assets :]
        return torch.cat([spot * torch.exp(growth), moved], dim=1)


def simulate(
    model: Model,
    x,
    *,
    horizon: float,
    noise: Noise | None = None,
    normals=None,
    scheme: Scheme | None = None,
    steps: int | None = None,
    path: bool = False,
) -> Tensor:
    r"""Simulate the model from the states x over ``horizon``, one path per row.

    Args:
        model: ``Bachelier``, ``BlackScholes``, ``Heston`` or any object with ``dim``, ``drift`` and ``diffusion``.
        x: initial states.
        horizon: time to simulate, in years.
        noise: where the normals come from; path i takes row i of the matrix with ``steps * m`` columns.
        normals: the normals themselves, instead of ``noise``; to compare schemes or step sizes on common noise.
        scheme: ``Exact``, ``EulerMaruyama``, ``Milstein``, ``FullTruncation`` or an object like them. Default: the
            one that the model names as its ``scheme``, ``FullTruncation`` for ``Heston``, ``Exact`` if the model has a
            transition, else ``EulerMaruyama``.
        steps: number of equal steps; may be left out for ``Exact``, which then takes one.
        path: whether to return all states instead of the last.

    Shape:
        x (n, d); normals (n, steps * m) or (n, steps, m) with m Brownian motions. Returns (n, d), or
        (n, steps + 1, d) if ``path``, the initial state first.

    Returns:
        The states, in float64. Derivatives with respect to x pass through.

    Raises:
        TypeError: neither or both of ``noise`` and ``normals``, or a scheme that is none.
        ValueError: wrong shapes, non-finite states, no steps, a scheme that does not fit the model.

    Source: Kloeden and Platen (1992). Chapter 1, "A stochastic differential equation".

    >>> sl.simulate(sl.Bachelier(volatility=0.2), [[1.0]], horizon=4.0, normals=[[0.5]])
    tensor([[1.2000]], dtype=torch.float64)
    """
    with torch.inference_mode(False):  # Milstein's scheme differentiates
        x, horizon, scheme, steps, sources = prepare(model, x, horizon, scheme, steps)
        if (noise is None) == (normals is None):
            raise TypeError("noise, normals: got both or neither, need one of them")
        if normals is None:
            normals = _check.function("noise", noise, "a noise such as gaussian(seed=0)")(0, len(x), steps * sources)
        else:
            normals = _check.tensor("normals", normals, dtype=torch.float64)
            flat = normals.flatten(1) if normals.ndim == 3 and normals.shape[1] == steps else normals
            normals = _check.tensor("normals", flat, shape=(len(x), steps * sources))
        shocks = correlate(getattr(model, "factor", None), normals.view(len(x), steps, sources))
        states = walk(scheme, model, x, horizon / steps, shocks)
        return torch.stack([x, *states], dim=1) if path else deque(states, maxlen=1)[0]


def prepare(model: Model, x, horizon: float, scheme: Scheme | None, steps: int | None, default_steps: int = 1):
    """Check the arguments that ``simulate`` and ``label`` share.

    Returns x, horizon, scheme and steps, checked and completed, and the number of Brownian motions.
    """
    check_model(model)
    x = _check.tensor("x", x, shape=("n", model.dim), dtype=torch.float64, least=1)
    positive = getattr(model, "positive", 0)
    if not (x[:, :positive] > 0).all():
        raise ValueError(f"x: got a price of {float(x[:, :positive].min()):.6g}, need positive prices")
    horizon = _check.positive("horizon", horizon)
    with torch.no_grad():
        sources = _check_coefficients(model, x[:1].expand(model.dim + 1, -1))  # d rows could be taken for a matrix
        if scheme is None:
            scheme = getattr(model, "scheme", None) or _default_scheme(model)
        if not (hasattr(scheme, "step") and hasattr(scheme, "check")) or isinstance(scheme, type):
            shown = f"the class {scheme.__name__}" if isinstance(scheme, type) else repr(scheme)
            raise TypeError(f"scheme: got {shown}, need an object such as EulerMaruyama()")
        scheme.check(model, x)
    if steps is None and not isinstance(scheme, Exact):
        raise ValueError(f"steps: got None, need the number of steps that {type(scheme).__name__} shall take")
    return x, horizon, scheme, default_steps if steps is None else _check.count("steps", steps), sources


def check_model(model: Model):
    """Refuse what is no model."""
    if isinstance(model, type):
        raise TypeError(f"model: got the class {model.__name__}, need an object of it, {model.__name__}(...)")
    for name in ("dim", "drift", "diffusion"):
        if not hasattr(model, name):
            raise TypeError(f"model: got {type(model).__name__} without {name}, need dim, drift(t, x), diffusion(t, x)")


def walk(scheme: Scheme, model: Model, x: Tensor, step: float, shocks: Tensor) -> Iterator[Tensor]:
    """Yield the states after each step; shocks (n, steps, m)."""
    for k in range(shocks.shape[1]):
        x = scheme.step(model, k * step, x, step, shocks[:, k])
        yield x


def apply_diffusion(diffusion: Tensor, increment: Tensor) -> Tensor:
    """Product b dW (n, d) of a diagonal (n, d) or general (n, d, m) diffusion with increments (n, d) or (n, m)."""
    return diffusion * increment if diffusion.ndim == 2 else (diffusion * increment[:, None, :]).sum(2)


def log_density(law: Law, state: Tensor) -> Tensor:
    """Log density (n,) of a step's law at the states (n, d), up to terms that do not depend on the law."""
    residual = (torch.log(state) if law.log else state) - law.mean
    if law.scale.ndim == 2:
        z, volume = residual / law.scale, torch.log(law.scale.abs()).sum(1)
    else:
        z = torch.linalg.solve(law.scale, residual)
        volume = torch.linalg.slogdet(law.scale)[1]
    if law.factor is not None:
        z = torch.linalg.solve_triangular(law.factor, z.T, upper=False).T
    return -0.5 * (z * z).sum(1) - volume


def _slope(function, x: Tensor, direction: Tensor) -> Tensor:
    """Derivative of `function` at x in the given direction, itself differentiable.

    The reverse sweep is linear in its seed, so its derivative with respect to the seed is the forward derivative.
    """
    with torch.enable_grad():
        point = x if x.requires_grad else x.detach().requires_grad_()
        value = function(point)
        if not value.requires_grad:
            return torch.zeros_like(value)
        seed = torch.zeros_like(value).requires_grad_()
        (pulled,) = torch.autograd.grad(value, point, seed, create_graph=True, materialize_grads=True)
        if not pulled.requires_grad:
            return torch.zeros_like(value)
        (slope,) = torch.autograd.grad(pulled, seed, direction, create_graph=True, materialize_grads=True)
    return slope if x.requires_grad else slope.detach()


def _default_scheme(model: Model) -> Scheme:
    if isinstance(model, Heston):
        return FullTruncation()
    return Exact() if hasattr(model, "transition") else EulerMaruyama()


def _check_coefficients(model: Model, x: Tensor) -> int:
    """Check the shapes of drift and diffusion at x; return the number of Brownian motions."""
    drift, diffusion = model.drift(0.0, x), model.diffusion(0.0, x)
    _check.tensor("model.drift(t, x)", _check.instance("model.drift(t, x)", drift, Tensor), shape=tuple(x.shape))
    _check.instance("model.diffusion(t, x)", diffusion, Tensor)
    general = diffusion.ndim == 3
    _check.tensor("model.diffusion(t, x)", diffusion, shape=(*x.shape, "m") if general else tuple(x.shape))
    factor = getattr(model, "factor", None)
    if factor is not None:
        _check.tensor("model.factor", factor, shape=(model.dim, model.dim))
        if general:
            raise ValueError("model.factor: got one beside a general diffusion (n, d, m), need only one of the two")
    return diffusion.shape[-1]
