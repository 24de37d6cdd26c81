"""Parameters that stand in columns of the inputs: numbers of the model or the payoff, and the horizon.

One surrogate then serves a family of problems, and its derivatives by these columns are vega, rho, theta and the like.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.simulation.models import Model


@dataclass(frozen=True, eq=False)
class Family:
    """A model, a payoff and a horizon, some of whose numbers stand in columns behind the state; made by ``family``."""

    model: Model
    payoff: object
    horizon: float
    columns: tuple[tuple[str, str, slice], ...] = ()  # owner, attribute, columns of the inputs
    width: int = 0  # of the inputs

    def states(self, x: Tensor) -> Tensor:
        """The columns that are the state."""
        return x[:, : self.model.dim] if self.columns else x

    def check(self, x: Tensor):
        """Refuse horizons that are not positive."""
        for owner, _, columns in self.columns:
            if owner == "horizon" and not (x[:, columns] > 0).all():
                raise ValueError(f"x: got a horizon of {float(x[:, columns].min()):.6g}, need positive horizons")

    def at(self, x: Tensor) -> tuple[Model, object, float | Tensor, Tensor]:
        """Model, payoff and horizon with the numbers of each row of x (n, width), and the states (n, d)."""
        owners: dict[str, object] = {"model": self.model, "payoff": self.payoff}
        horizon: float | Tensor = self.horizon
        for owner, name, columns in self.columns:
            if owner == "horizon":
                horizon = x[:, columns]
                continue
            if owners[owner] is getattr(self, owner):
                owners[owner] = copy.copy(owners[owner])
            object.__setattr__(owners[owner], name, x[:, columns] if owner == "model" else x[:, columns.start])
        return owners["model"], owners["payoff"], horizon, self.states(x)


def family(model: Model, payoff, horizon: float | None, varying: Sequence[str]) -> Family:
    """Find out what the columns behind the state stand for."""
    if isinstance(varying, str):
        raise TypeError(f"varying: got the text {varying!r}, need a sequence of names such as ({varying!r},)")
    if (horizon is None) != ("horizon" in varying):
        raise ValueError(f"horizon: got {horizon}, need a number, or None and 'horizon' among varying")
    columns, width = [], model.dim
    for name in varying:
        sizes = {"model": _size(model, name, 1), "payoff": _size(payoff, name, 0)}
        found = ["horizon"] if name == "horizon" else [owner for owner, size in sizes.items() if size]
        if len(found) != 1 or list(varying).count(name) > 1:
            raise ValueError(
                f"varying: got {name!r}, need, each once, attributes of the model that are numbers or vectors, "
                "attributes of the payoff that are numbers (and not the model's too), or 'horizon'"
            )
        columns.append((found[0], name, slice(width, width := width + sizes.get(found[0], 1))))
    return Family(model, payoff, 1.0 if horizon is None else _check.positive("horizon", horizon), tuple(columns), width)


def _size(owner, name: str, dims: int) -> int:
    """How many numbers the attribute holds; 0 if it is none of the kind, or computed from others."""
    value = getattr(owner, name, None)
    computed = isinstance(value, bool) or isinstance(getattr(type(owner), name, None), property)
    if computed or not isinstance(value, int | float | Tensor) or torch.as_tensor(value).ndim > dims:
        return 0
    return torch.as_tensor(value).numel()
