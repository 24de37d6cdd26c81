r"""Activations as data: the function, its first three derivatives, and the critical points of each.

Training needs :math:`f, f', f'', f'''` (the last for the gradient of a loss on Hessian-vector products); enclosures
need to know where each of them turns, because the range of a function over an interval is attained at an end point or
at a critical point (Chapter 5). Both are stated once, here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check

__all__ = ["ACTIVATIONS", "Activation"]

Jet = Callable[[Tensor, int], list[Tensor]]


@dataclass(frozen=True)
class Activation:
    r"""An activation function :math:`f` with what training and enclosures need to know about it.

    Attributes:
        name: The name under which it is stored and looked up.
        jet: ``jet(z, order)`` returns :math:`[f(z), f'(z), \dots, f^{(order)}(z)]`, order 0 to 3, sharing
            subexpressions.
        critical: Four tuples: where :math:`f, f', f'', f'''` have their local extrema, to full double precision.
        period: If not None, each critical point repeats at all integer multiples of it.
        smooth: Whether :math:`f''` exists everywhere; order-2 work refuses activations for which it does not.

    Chapter 4, "Value, gradient and curvature in one pass".

    Example:
        >>> import torch
        >>> silu = sl.ACTIVATIONS["silu"]
        >>> value, slope = silu.jet(torch.zeros(1, dtype=torch.float64), 1)
        >>> value.item(), slope.item()
        (0.0, 0.5)
    """

    name: str
    jet: Jet
    critical: tuple[tuple[float, ...], ...]
    period: float | None = None
    smooth: bool = True

    def __call__(self, z: Tensor) -> Tensor:
        """Return ``f(z)``, elementwise."""
        return self.jet(z, 0)[0]

    def derivative(self, k: int) -> Callable[[Tensor], Tensor]:
        """Return the ``k``-th derivative as a function, ``k`` from 0 to 3.

        Raises:
            ValueError: Another ``k``.
        """
        k = _check.count("k", k, least=0, most=3)
        return lambda z: self.jet(z, k)[k]


def _sigmoid_jet(z: Tensor, order: int) -> list[Tensor]:
    s = torch.sigmoid(z)
    jet = [s]
    if order >= 1:
        complement = torch.sigmoid(-z)  # 1 - s would lose the tail
        p = s * complement
        jet.append(p)
    if order >= 2:
        jet.append((complement - s).mul_(p))
    if order >= 3:
        jet.append(torch.addcmul(p, p, p, value=-6))
    return jet


def _silu_jet(z: Tensor, order: int) -> list[Tensor]:
    s = _sigmoid_jet(z, order)
    jet = [z * s[0]]
    for k in range(1, order + 1):  # Leibniz: (z s)^(k) = z s^(k) + k s^(k-1)
        jet.append((z * s[k]).add_(s[k - 1], alpha=k))
    return jet


def _softplus_jet(z: Tensor, order: int) -> list[Tensor]:
    value = torch.logaddexp(z, torch.zeros((), dtype=z.dtype))  # F.softplus turns into the identity above 20
    return [value, *_sigmoid_jet(z, order - 1)] if order else [value]


def _tanh_jet(z: Tensor, order: int) -> list[Tensor]:
    t = torch.tanh(z)
    jet = [t]
    if order >= 1:
        slope = 4 * _sigmoid_jet(2 * z, 1)[1]  # 1 - t^2 without its cancellation
        jet.append(slope)
    if order >= 2:
        jet.append(-2 * t * slope)
    if order >= 3:
        jet.append(slope * (4 - 6 * slope))
    return jet


def _sin_jet(z: Tensor, order: int) -> list[Tensor]:
    s, c = torch.sin(z), torch.cos(z) if order else None
    return [s, c, -s, -c if order else None][: order + 1]


def _relu_jet(z: Tensor, order: int) -> list[Tensor]:
    zero = torch.zeros_like(z)
    return [torch.relu(z), (z > 0).to(z.dtype), zero, zero][: order + 1]


_HALF_PI = math.pi / 2

# Critical points of the function and its first three derivatives: roots of the next derivative, computed with 40
# digits; the tests recompute them.
_CRITICAL = {
    "silu": (
        (-1.2784645427610737951,),
        (-2.3993572805154676678, 2.3993572805154676678),
        (-3.4358409935351106890, 0.0, 3.4358409935351106890),
        (-4.4292351005572279796, -1.0319582417807491234, 1.0319582417807491234, 4.4292351005572279796),
    ),
    "softplus": ((), (), (0.0,), (-1.3169578969248167086, 1.3169578969248167086)),
    "tanh": (
        (),
        (0.0,),
        (-0.65847894846240835431, 0.65847894846240835431),
        (-1.1462158347805888439, 0.0, 1.1462158347805888439),
    ),
    "sigmoid": (
        (),
        (0.0,),
        (-1.3169578969248167086, 1.3169578969248167086),
        (-2.2924316695611776878, 0.0, 2.2924316695611776878),
    ),
    "sin": ((-_HALF_PI, _HALF_PI), (0.0, math.pi), (-_HALF_PI, _HALF_PI), (0.0, math.pi)),
    "relu": ((), (), (), ()),
}
_JETS = {"silu": _silu_jet, "softplus": _softplus_jet, "tanh": _tanh_jet, "sigmoid": _sigmoid_jet}
_JETS |= {"sin": _sin_jet, "relu": _relu_jet}

ACTIVATIONS: dict[str, Activation] = {
    name: Activation(name, jet, _CRITICAL[name], 2 * math.pi if name == "sin" else None, smooth=name != "relu")
    for name, jet in _JETS.items()
}
"""The activations by name: silu, softplus, tanh, sigmoid, sin and relu, each with the critical points of its
first derivatives. Chapter 5, "Operations on sets"."""


def activation_named(name: str | Activation) -> Activation:
    """Return the activation of that name; an `Activation` is returned as it is."""
    if isinstance(name, Activation):
        return name
    return ACTIVATIONS[_check.choice("activation", name, ACTIVATIONS)]
