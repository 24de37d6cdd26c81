r"""Errors of value, gradient and curvature against a reference.

Curvature is measured along a direction u as :math:`u^T \nabla^2 N\, u`; with u = (1, .., 1) this is the gamma of a
basket whose assets all move together. Chapter 9.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Protocol

import torch
from torch import Tensor

from sobolev_lib import _check, _show
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training.loss import Labelled

__all__ = ["Errors", "evaluate", "score", "table"]

QUANTITIES = ("price", "delta", "gamma")


class Truth(Protocol):
    """Reference values: price (n,), delta (n, d) and gamma (n,) along the direction that is evaluated."""

    price: Tensor
    delta: Tensor
    gamma: Tensor


@dataclass(frozen=True)
class Errors:
    """Root mean square and largest absolute errors of a network.

    Attributes:
        widths: Of the network.
        parameters: Number of parameters.
        rmse: By quantity (price, delta, gamma); delta over all points and components.
        maximum: By quantity.
        relative: By quantity: the root mean square error over the root mean square of the reference; infinite where
            the reference is zero and the network is not.
        by_input: Root mean square error of the derivative by each input, in its own unit.
        relative_by_input: The same over the root mean square of that derivative.

    Chapter 9, "The result first".

    Example:
        >>> print(sl.Errors((7, 3, 3, 1), 40, {"price": 1e-3, "delta": 2e-3, "gamma": 0.03}, {}))
        40 parameters; RMSE: price 1.0e-03, delta 2.0e-03, gamma 3.0e-02
    """

    widths: tuple[int, ...]
    parameters: int
    rmse: dict[str, float]
    maximum: dict[str, float]
    relative: dict[str, float] = field(default_factory=dict)
    by_input: tuple[float, ...] = ()
    relative_by_input: tuple[float, ...] = ()

    def __str__(self) -> str:
        """One line: parameters and the three root mean square errors."""
        shown = ", ".join(f"{name} {self.rmse[name]:.1e}" for name in QUANTITIES)
        return f"{self.parameters} parameters; RMSE: {shown}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return table({"-".join(map(str, self.widths)): self}).html


@_check.ordinary_mode()
@torch.no_grad()
def evaluate(net: Surrogate, x: Tensor, truth: Truth, *, direction: Tensor | None = None) -> Errors:
    r"""Measure a network against exact (or more exact) values and derivatives.

    .. math::

        e_{price}^2 &= \frac1n \sum_i (N(x_i) - V_i)^2, \qquad
        e_{delta}^2 = \frac1{nd} \sum_i \lVert \nabla N(x_i) - \nabla V_i \rVert^2, \\
        e_{gamma}^2 &= \frac1n \sum_i (u^T \nabla^2 N(x_i)\, u - \Gamma_i)^2 .

    Args:
        net: The network.
        x: Points (n, d), raw units.
        truth: Its ``price`` (n,), ``delta`` (n, d) and ``gamma`` (n,) at these points, as ``BasketCase.reference`` has;
            or samples, whose ``value`` and ``gradient`` are compared with. What is not there has the error NaN.
        direction: The direction u of the curvature, (d,); default: all ones.

    Returns:
        ``Errors``. A ReLU network has no curvature; its gamma is taken as the zero that it is almost everywhere.

    Raises:
        ValueError: Shapes that do not fit.

    Chapter 9, "The result first".

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> net, x = sl.Surrogate([2, 1]), torch.zeros(3, 2, dtype=torch.float64)
        >>> truth = SimpleNamespace(price=net(x) + 0.5, delta=net.gradient(x), gamma=torch.zeros(3))
        >>> sl.evaluate(net, x, truth).rmse
        {'price': 0.5, 'delta': 0.0, 'gamma': 0.0}
    """
    x = _check.tensor("x", x, shape=("n", net.widths[0])).to(net.dtype)
    if hasattr(truth, "value"):  # samples
        truth = SimpleNamespace(price=truth.value, delta=truth.gradient, gamma=None)
    shapes = dict(zip(QUANTITIES, (x.shape[:1], x.shape, x.shape[:1]), strict=True))
    truths = {name: _reference(truth, name, shape) for name, shape in shapes.items()}
    found = dict(zip(QUANTITIES, _derivatives(net, x, _direction(direction, net)), strict=True))
    errors = {name: found[name] - truths[name] for name in QUANTITIES}
    rmse, sizes = ({name: _rms(tensor) for name, tensor in group.items()} for group in (errors, truths))
    inputs, own = ([_rms(column) for column in group["delta"].T] for group in (errors, truths))
    return Errors(
        tuple(net.widths),
        net.parameter_count,
        rmse,
        {name: error.abs().max().item() for name, error in errors.items()},
        {name: _ratio(rmse[name], sizes[name]) for name in rmse},
        tuple(inputs),
        tuple(_ratio(error, size) for error, size in zip(inputs, own, strict=True)),
    )


def _reference(truth: Truth, name: str, shape: tuple[int, ...]) -> Tensor:
    given = getattr(truth, name)
    return torch.full(shape, math.nan) if given is None else _check.tensor(f"truth.{name}", given, shape=shape)


def _ratio(error: float, size: float) -> float:
    return error / size if size else math.inf * (error > 0 or math.nan)


def score(net: Surrogate, samples: Labelled) -> tuple[Errors, Errors]:
    r"""Return the errors of a network against labels that it has not seen, and what of them is the labels' noise.

    .. math::  e_{label}^2 = e^2 + \sigma^2, \qquad
        \sigma^2 = \frac1n \sum_i \mathrm{se}_i^2 ,

    for labels that are means over several paths, with standard errors; the difference of the squares estimates the
    network's own error e. Labels of one path each say nothing of their noise, which is then NaN.

    Args:
        net: The network.
        samples: n samples, none of them used in training.

    Returns:
        Two ``Errors``: of price (value) and delta (gradient) against the labels, and of the labels alone.

    Raises:
        ValueError: Shapes that do not fit, numbers that are not finite.

    Chapter 8, "Derivatives are more data".

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> net, x = sl.Surrogate([1, 1]), torch.zeros(4, 1, dtype=torch.float64)
        >>> value, error = net(x).detach() + 0.5, torch.full((4,), 0.25).double()
        >>> errors, noise = sl.score(net, SimpleNamespace(x=x, value=value, gradient=None, value_error=error))
        >>> errors.rmse["price"], noise.rmse["price"]
        (0.5, 0.25)
    """
    errors = evaluate(net, samples.x, samples)
    value, gradient = (getattr(samples, name, None) for name in ("value_error", "gradient_error"))
    noise = {name: math.nan if e is None else _rms(e) for name, e in (("price", value), ("delta", gradient))}
    return errors, Errors(errors.widths, errors.parameters, noise | {"gamma": math.nan}, {})


def _derivatives(net: Surrogate, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return value (n,), gradient (n, d) and curvature (n,) along u; that of a ReLU network is zero."""
    if not net.activation.smooth:
        value, gradient = net.taylor(x, order=1)  # which does not ask where x lies: errors tell
        return value, gradient, torch.zeros_like(value)
    value, gradient, curvature = net.taylor(x, order=2, directions=u.unsqueeze(0))
    return value, gradient, curvature[:, 0] @ u


def _rms(tensor: Tensor) -> float:
    return tensor.double().square().mean().sqrt().item()


@_check.ordinary_mode()
def _direction(direction: Tensor | None, net: Surrogate) -> Tensor:
    d = net.widths[0]
    direction = torch.ones(d) if direction is None else _check.tensor("direction", direction, shape=(d,))
    return direction.to(net.dtype)


def table(rows: Mapping[str, Errors]) -> str:
    """Return a table of parameters and RMSE, one row per network, two digits: text, which a notebook shows as HTML.

    Args:
        rows: Errors by name, in the order to be shown; a noise floor may be one of them.

    Chapter 9, "The experiment in small".

    Example:
        >>> errors = sl.Errors((7, 3, 3, 1), 40, {"price": 1e-3, "delta": 2e-3, "gamma": 0.03}, {})
        >>> print(sl.table({"small": errors}))
        network  parameters    price    delta    gamma
        small            40  1.0e-03  2.0e-03  3.0e-02
    """
    size = max([len("network"), *map(len, rows)])
    lines, cells = [f"{'network':{size}}  parameters" + "".join(f"{name:>9}" for name in QUANTITIES)], []
    for name, errors in rows.items():
        figures = [f"{errors.rmse[quantity]:.1e}" for quantity in QUANTITIES]
        cells.append([name, f"{errors.parameters:,}", *figures])
        lines.append(f"{name:{size}}  {errors.parameters:>10,}" + "".join(f"{figure:>9}" for figure in figures))
    text = _show.Table("\n".join(lines))
    text.html = _show.table("Errors (root mean square)", ["network", "parameters", *QUANTITIES], cells)
    return text
