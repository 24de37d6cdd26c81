r"""Errors of value, gradient and curvature against a reference, in raw units, and the table that shows them.

Curvature is measured along a direction u as :math:`u^T \nabla^2 N\, u`; with u = (1, .., 1) this is the gamma of a
basket whose assets all move together. Chapter 9.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.network import Surrogate

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
    """

    widths: tuple[int, ...]
    parameters: int
    rmse: dict[str, float]
    maximum: dict[str, float]

    def __str__(self) -> str:
        """One line: parameters and the three root mean square errors."""
        shown = ", ".join(f"{name} {self.rmse[name]:.1e}" for name in QUANTITIES)
        return f"{self.parameters} parameters; RMSE: {shown}"


@torch.no_grad()
def evaluate(net: Surrogate, x: Tensor, truth: Truth, *, direction: Tensor | None = None) -> Errors:
    r"""Measure a network against exact (or more exact) values and derivatives.

    .. math::  e_{price}^2 = \frac1n \sum_i (N(x_i) - V_i)^2, \quad
        e_{delta}^2 = \frac1{nd} \sum_i \lVert \nabla N(x_i) - \nabla V_i \rVert^2, \quad
        e_{gamma}^2 = \frac1n \sum_i (u^T \nabla^2 N(x_i)\, u - \Gamma_i)^2 .

    Args:
        net: The network.
        x: Points (n, d), raw units.
        truth: Its ``price`` (n,), ``delta`` (n, d) and ``gamma`` (n,) at these points, as ``BasketCase.reference`` has.
        direction: The direction u of the curvature, (d,); default: all ones.

    Returns:
        ``Errors``. A ReLU network has no curvature; its gamma is taken as the zero that it is almost everywhere.

    Raises:
        ValueError: Shapes that do not fit.

    Example:
        >>> from types import SimpleNamespace
        >>> net, x = Surrogate([2, 1]), torch.zeros(3, 2, dtype=torch.float64)
        >>> truth = SimpleNamespace(price=net(x) + 0.5, delta=net.gradient(x), gamma=torch.zeros(3))
        >>> evaluate(net, x, truth).rmse
        {'price': 0.5, 'delta': 0.0, 'gamma': 0.0}
    """
    n, d = _check.tensor("x", x, shape=("n", net.widths[0])).shape
    x = x.to(net.dtype)
    price = _check.tensor("truth.price", truth.price, shape=(n,))
    delta = _check.tensor("truth.delta", truth.delta, shape=(n, d))
    gamma = _check.tensor("truth.gamma", truth.gamma, shape=(n,))
    direction = torch.ones(d) if direction is None else _check.tensor("direction", direction, shape=(d,))
    u = direction.to(net.dtype)
    value, gradient = net.value_and_gradient(x)
    curvature = net.hvp(x, u.unsqueeze(0))[:, 0] @ u if net.activation.smooth else torch.zeros_like(value)
    errors = dict(zip(QUANTITIES, (value - price, gradient - delta, curvature - gamma), strict=True))
    return Errors(
        tuple(net.widths),
        net.parameter_count,
        {name: error.double().square().mean().sqrt().item() for name, error in errors.items()},
        {name: error.abs().max().item() for name, error in errors.items()},
    )


def table(rows: Mapping[str, Errors]) -> str:
    """Return a plain text table of parameters and RMSE, one row per network, two digits.

    Args:
        rows: Errors by name, in the order to be shown.

    Example:
        >>> errors = Errors((7, 3, 3, 1), 40, {"price": 1e-3, "delta": 2e-3, "gamma": 0.03}, {})
        >>> print(table({"small": errors}))
        network  parameters    price    delta    gamma
        small            40  1.0e-03  2.0e-03  3.0e-02
    """
    size = max([len("network"), *map(len, rows)])
    lines = [f"{'network':{size}}  parameters" + "".join(f"{name:>9}" for name in QUANTITIES)]
    for name, errors in rows.items():
        figures = "".join(f"{errors.rmse[quantity]:9.1e}" for quantity in QUANTITIES)
        lines.append(f"{name:{size}}  {errors.parameters:>10,}{figures}")
    return "\n".join(lines)
