r"""Repair: training with counterexamples until a property is proved.

A verdict of "no" names a point at which the property fails. That point joins the training as a one-sided penalty

.. math:: \frac{\lambda}{m} \sum_{i=1}^m \max\bigl(0,\ 1 - q(x_i) / \mu\bigr)^2

on the quantity q (value, slope or curvature along a direction) that should not be negative, with a margin
:math:`\mu`, beside the Sobolev loss of the labels. As long as something fails, :math:`\lambda` grows fourfold, so that
the labels pay little more than the proof needs, and what they pay can be measured.

Source: Dreossi et al., Counterexample-Guided Data Augmentation (2018), for classifiers. Chapter 10.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.certificates import verdicts as vd
from sobolev_lib.certificates.coordinates import Frame, lattice
from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training.loss import Labelled, SobolevLoss, balance_by_covariance, check_labels, fitting

__all__ = ["Repaired", "repair"]

ASKED = {"non-negative": vd.is_non_negative, "increasing": vd.is_increasing, "convex": vd.is_convex}
STEPS = 100  # of the minimiser in each round
LIGHT = 1e-4  # the first weight of the penalty, beside a loss of about 1 for each label


@dataclass(frozen=True, eq=False)
class Repaired:
    """What ``repair`` returns.

    Attributes:
        net: The repaired network.
        verdicts: The last verdict on each property.
        rounds: How many rounds of training it took.
        loss: The loss of the labels before and after: what the proof cost.

    Chapter 10, "Repair".
    """

    net: Surrogate
    verdicts: dict[str, vd.Verdict]
    rounds: int
    loss: tuple[float, float]

    @property
    def proved(self) -> bool:
        """Whether all properties are proved."""
        return all(verdict.answer == "yes" for verdict in self.verdicts.values())


def repair(
    net: Surrogate,
    samples: Labelled,
    box: Interval,
    margins: Mapping[str, float],
    *,
    order: int,
    direction: Tensor,
    loss: SobolevLoss | None = None,
    rounds: int = 20,
    cells: int = vd.CELLS,
) -> Repaired:
    """Train a copy of a network until it is proved non-negative, increasing or convex over a box.

    Args:
        net: A trained network, left as it is.
        samples: The labels that it was trained on.
        box: Raw inputs, (d,), bounded.
        margins: For each property, "non-negative", "increasing", "convex", the margin that training aims at, in the
            unit of the quantity, positive. What is proved is that there is no violation at all.
        order: Of the labels that count, 0 to 2.
        direction: v, (d,), along which it should increase and be convex.
        loss: The labels' loss; default: balanced by the covariance of the network's residuals.
        rounds: How many rounds of training at most.
        cells: How many cells each proof may enclose.

    Returns:
        ``Repaired`` with the verdicts, which are not all "yes" if the rounds did not suffice.

    Raises:
        TypeError, ValueError: As ``is_convex``; missing labels, an unknown property, a margin that is not positive.

    Chapter 10, "Repair".

    Example:
        A softplus of slope 1 that is lifted by -0.05 has to become positive.

        >>> import torch
        >>> from types import SimpleNamespace
        >>> net = sl.Surrogate([1, 2, 1], "softplus", gain=1.0)
        >>> _ = net.output_shift.fill_(-1.0)
        >>> x = torch.linspace(-1, 1, 32, dtype=torch.float64).reshape(-1, 1)
        >>> samples = SimpleNamespace(x=x, value=net(x).detach(), gradient=None, hvp=None, directions=None)
        >>> box = sl.Interval([-1.0], [1.0])
        >>> fixed = sl.repair(net, samples, box, {"non-negative": 0.01}, order=0, direction=[1.0])
        >>> sl.is_non_negative(net, box).answer, fixed.proved
        ('no', True)
    """
    box, _ = vd.check_all(net, box, None)
    direction = _check.tensor("direction", direction, shape=(len(box),), dtype=torch.float64)
    samples, rounds = check_labels(samples, order, net.dtype), _check.count("rounds", rounds)
    for name, margin in margins.items():
        _check.choice("margins", name, ASKED)
        _check.positive(f"margins[{name!r}]", margin)
    net, weight = net.copy(), LIGHT
    loss = balance_by_covariance(net, samples, order) if loss is None else fitting(loss, samples, order)
    before = loss.value_and_gradients(net, samples)[0]
    points, done = Frame(box, [net]).points(lattice(Frame(box, [net]))), 0
    while True:
        verdicts = {name: _ask(name, net, box, direction, cells) for name in margins}
        new = [w for v in verdicts.values() for w in (v.witness, v.worst) if w is not None]
        if not new or done == rounds:
            break
        points, done = torch.cat([points, torch.stack(new)]), done + 1
        _train(net, samples, loss, points, margins, direction, weight)
        weight *= 4
    return Repaired(net, verdicts, done, (before, loss.value_and_gradients(net, samples)[0]))


def _ask(name: str, net: Surrogate, box: Interval, direction: Tensor, cells: int) -> vd.Verdict:
    return ASKED[name](net, box, *([] if name == "non-negative" else [direction]), cells=cells)


def _train(net, samples, loss, points: Tensor, margins: Mapping[str, float], v: Tensor, weight: float) -> None:
    """Minimise the labels' loss and the penalty."""
    parameters = [p for pair in zip(net.weights, net.biases, strict=True) for p in pair]
    x, v, twice = points.to(net.dtype), v.to(net.dtype), "convex" in margins
    minimiser = torch.optim.LBFGS(parameters, max_iter=STEPS, line_search_fn="strong_wolfe")

    def objective():
        value, gradients = loss.value_and_gradients(net, samples)
        found = net.taylor(x, order=2 if twice else 1, directions=v[None] if twice else None)
        quantities = {
            "non-negative": found[0],
            "increasing": found[1] @ v,
            "convex": found[-1][:, 0] @ v if twice else 0,
        }
        short = [(1 - quantities[name] / margin).clamp(min=0).square().mean() for name, margin in margins.items()]
        penalty = weight * sum(short)
        extra = torch.autograd.grad(penalty, parameters, materialize_grads=True)
        for parameter, gradient, more in zip(parameters, gradients, extra, strict=True):
            parameter.grad = gradient + more
        return value + penalty.item()

    minimiser.step(objective)
