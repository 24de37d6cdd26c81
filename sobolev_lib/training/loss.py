r"""The Sobolev loss: squared errors of value, gradient and Hessian-vector products, made comparable by a balance.

Stack the outputs of the network at one input to :math:`o = (N, \nabla N, \nabla^2 N\, v_1, \dots)` of :math:`q`
numbers, the labels likewise to :math:`t`. The loss of order 0, 1 or 2 is

.. math::  L = \frac{1}{n} \sum_{i=1}^n \lVert M (o_i - t_i) \rVert^2

with a balance matrix :math:`M` (q, q), without which the sum would add squares of different units. Chapter 8.

Source: Czarnecki et al., Sobolev Training for Neural Networks (2017); Kichler, Afghan & Naumann (2024), section 4;
the balance by moments is that of Huge & Savine (2020), the balance by covariance is generalised least squares (Aitken
1936).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.network.scaling import add_gradients, scaling_of, spread, sweep, unit_of
from sobolev_lib.network.surrogate import Surrogate

__all__ = ["SobolevLoss", "balance_by_covariance", "balance_by_moments", "clip_tails"]

BALANCES = ("moments", "covariance")
FEW = 100  # samples: of fewer than that, one may well hold half of the squares
HEAVY = 0.5
BLOCK_BYTES = 2**19  # of one layer's activations: samples that go forward and back together, in the cache


class Labelled(Protocol):
    """What the loss needs of a set of samples; ``Samples`` is one.

    Attributes:
        x: Inputs (n, d).
        value: (n,).
        gradient: (n, d), or None where no order above 0 is asked for.
        hvp: Hessian-vector products (n, k, d), or None below order 2.
        directions: Of the products, (k, d) or (n, k, d), or None.
    """

    x: Tensor
    value: Tensor
    gradient: Tensor | None
    hvp: Tensor | None
    directions: Tensor | None


def stack(value: Tensor, gradient: Tensor | None = None, hvp: Tensor | None = None) -> Tensor:
    """Return value (n,), gradient (n, d) and HVPs (n, k, d) side by side, (n, q)."""
    parts = [value.unsqueeze(-1)]
    parts += [] if gradient is None else [gradient]
    parts += [] if hvp is None else [hvp.flatten(1)]
    return torch.cat(parts, 1) if len(parts) > 1 else parts[0]


def targets(samples: Labelled, order: int) -> Tensor:
    """Return the labels up to `order` side by side, (n, q)."""
    return stack(samples.value, samples.gradient if order >= 1 else None, samples.hvp if order == 2 else None)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some of the samples, with the labels that one order needs."""

    x: Tensor
    value: Tensor
    gradient: Tensor | None = None
    hvp: Tensor | None = None
    directions: Tensor | None = None


def take(samples: Labelled, rows: slice | Tensor, order: int) -> Batch:
    """Return the samples of the given rows, with labels up to `order`; directions shared by all stay shared."""
    gradient = samples.gradient[rows] if order >= 1 else None
    if order < 2:
        return Batch(samples.x[rows], samples.value[rows], gradient)
    shared = samples.directions.ndim == 2
    directions = samples.directions if shared else samples.directions[rows]
    return Batch(samples.x[rows], samples.value[rows], gradient, samples.hvp[rows], directions)


def chunks(samples: Labelled, size: int, order: int) -> Iterator[Batch]:
    """Yield the samples in pieces of `size` rows, or of one, if that is less."""
    size = max(1, size)
    return (take(samples, slice(start, start + size), order) for start in range(0, len(samples.x), size))


def check_labels(samples: Labelled, order: int, dtype: torch.dtype | None = None, name: str = "samples") -> Batch:
    """Return inputs and labels up to `order`, converted, checked, without graph.

    Raises:
        ValueError: Missing labels, shapes that do not belong together, numbers that are not finite.
    """
    order = _check.count("order", order, least=0, most=2)
    needed = [("gradient", 1), ("hvp", 2), ("directions", 2)]
    missing = [label for label, least in needed if order >= least and getattr(samples, label, None) is None]
    if missing:
        raise ValueError(f"{name}: got no {' and no '.join(missing)} labels, need them at order {order}")
    given = lambda label, *shape: _check.tensor(  # noqa: E731
        f"{name}.{label}", getattr(samples, label), shape=shape, dtype=dtype, detach=True
    )
    x = given("x", "n", "d")
    n, d = x.shape
    value, gradient = given("value", n), given("gradient", n, d) if order else None
    if order < 2:
        return Batch(x, value, gradient)
    hvp = given("hvp", n, "k", d)
    k = hvp.shape[1]
    directions = given("directions", *((k, d) if samples.directions.ndim == 2 else (n, k, d)))
    return Batch(x, value, gradient, hvp, directions)


def heavy_rows(samples: Labelled, order: int) -> list[str]:
    """Return, in words, the rows that hold more than half of the sum of squares of a component of the labels."""
    wanted, d = targets(samples, order).double(), samples.x.shape[1]
    squares = (wanted - wanted.mean(0)).square()
    found = torch.nonzero(squares > HEAVY * squares.sum(0)).tolist() if len(wanted) >= FEW else []
    name = lambda j: f"gradient[:, {j - 1}]" if 0 < j <= d else "hvp" if j else "value"  # noqa: E731
    return [f"row {row} of {name(column)}" for row, column in found]


def clip_tails(samples: Labelled, order: int, *, share: float = 1e-3) -> tuple[Batch, Tensor]:
    r"""Return samples whose largest labels are pulled in, and the bias of the mean that this costs.

    Pathwise labels can have heavy tails (the sensitivities to a variance, for one): a few rows then hold most of the
    sum of squares, and least squares fits them rather than the function. Each component is clipped at its quantiles
    :math:`q_{\alpha/2}` and :math:`q_{1-\alpha/2}`, which trades variance for a bias,

    .. math::  b = \frac1n \sum_i \bigl(\min(\max(t_i, q_{\alpha/2}), q_{1-\alpha/2}) - t_i\bigr) .

    Args:
        samples: n samples.
        order: 0, 1 or 2.
        share: :math:`\alpha`, of the rows whose labels change, in each component.

    Returns:
        The samples, and b (q,) by component (value, gradient, HVPs) in the labels' units. Keep it small against the
        standard deviation over :math:`\sqrt n`.

    Raises:
        ValueError: Missing labels, a share that is not between 0 and 1.

    Chapter 8, "The loss, and why it needs a balance".

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> x, value = torch.zeros(1000, 1), torch.tensor([1.0, -1.0]).double().repeat(500)
        >>> value[17] = 1e6
        >>> clipped, bias = sl.clip_tails(SimpleNamespace(x=x, value=value), order=0, share=0.01)
        >>> clipped.value.max().item(), round(bias.item())
        (1.0, -1000)
    """
    share = _check.positive("share", share)
    if share >= 1:
        raise ValueError(f"share: got {share}, need a number between 0 and 1")
    known = check_labels(samples, order)
    wanted = targets(known, order)
    k = max(1, round(share / 2 * len(wanted)))
    clipped = wanted.clamp(wanted.kthvalue(k + 1, 0).values, wanted.kthvalue(len(wanted) - k, 0).values)
    d = known.x.shape[1]
    parts = [clipped[:, 0], clipped[:, 1 : 1 + d] if order else None]
    parts += [clipped[:, 1 + d :].view_as(known.hvp)] if order == 2 else []
    return Batch(known.x, *parts, *([known.directions] if order == 2 else [])), (clipped - wanted).mean(0)


@dataclass(frozen=True)
class SobolevLoss:
    r"""Mean of :math:`\lVert M (o - t) \rVert^2` over samples.

    Attributes:
        order: 0 (values), 1 (and gradients) or 2 (and Hessian-vector products).
        matrix: The balance :math:`M`, (q, q), in the inverse of the labels' units.

    Chapter 8, "The loss, and why it needs a balance".

    Example:
        A network that is off by 0.1 everywhere, with values of unit variance, has the loss 0.01.

        >>> import torch
        >>> from types import SimpleNamespace
        >>> x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
        >>> net = sl.Surrogate([1, 1])
        >>> samples = SimpleNamespace(x=x, value=net(x).detach() + 0.1, gradient=None, hvp=None, directions=None)
        >>> loss = sl.SobolevLoss(order=0, matrix=torch.eye(1, dtype=torch.float64))
        >>> round(loss(net, samples).item(), 6)
        0.01
    """

    order: int
    matrix: Tensor

    def __post_init__(self):
        matrix = _check.tensor("matrix", self.matrix, shape=("q", "q"), copy=True, detach=True)
        vars(self).update(order=_check.count("order", self.order, least=0, most=2), matrix=matrix)

    def residuals(self, net: Surrogate, samples: Labelled) -> Tensor:
        """Return the balanced residuals :math:`M (o - t)`, (n, q)."""
        directions = samples.directions if self.order == 2 else None
        outputs = stack(*net.taylor(samples.x, order=self.order, directions=directions))
        return (outputs - targets(samples, self.order)) @ self.matrix.T

    def __call__(self, net: Surrogate, samples: Labelled) -> Tensor:
        """Return the loss, a scalar that is differentiable in the network's parameters."""
        return self.residuals(net, samples).square().sum(1).mean()

    @torch.no_grad()
    def value_and_gradients(self, net: Surrogate, samples: Labelled) -> tuple[float, list[Tensor]]:
        r"""Return the loss and its gradient by each parameter, weight matrix and bias vector, layer by layer.

        The gradient by the outputs, :math:`2 (o - t) M^T M / n`, is known, so each block of rows goes forward and back
        while it is in the cache; the same from automatic differentiation of the call takes longer for large batches.
        """
        totals = [torch.zeros_like(p) for pair in zip(net.weights, net.biases, strict=True) for p in pair]
        n, value = len(samples.x), 0.0
        rows = max(64, BLOCK_BYTES // (max(net.widths) * samples.x.element_size()))
        for part in chunks(samples, rows, self.order):
            outputs, found, k = sweep(net, part.x, order=self.order, directions=part.directions)
            residuals = (stack(*outputs) - targets(part, self.order)) @ self.matrix.T
            value += residuals.square().sum().item()
            add_gradients(net, found, k, residuals @ self.matrix * (2 / n), totals)
        return value / n, totals


def fitting(loss: SobolevLoss, samples: Labelled, order: int, name: str = "loss") -> SobolevLoss:
    """Return a given loss in the precision of the samples.

    Raises:
        TypeError: Not a ``SobolevLoss``.
        ValueError: One of another order, or for another number of labels; names the argument.
    """
    p, q = len(_check.instance(name, loss, SobolevLoss).matrix), targets(samples, order).shape[1]
    if (loss.order, p) != (order, q):
        raise ValueError(f"{name}: got order {loss.order} and a matrix ({p}, {p}), need order {order} and ({q}, {q})")
    return SobolevLoss(order, loss.matrix.to(samples.x.dtype))


@_check.ordinary_mode()
def balance_by_moments(samples: Labelled, order: int) -> SobolevLoss:
    r"""Return the loss in which each order has the same share, and within an order each component.

    :math:`M = \mathrm{diag}(1 / \sigma_V,\ 1 / (\sqrt d\, s_j),\ 1 / (\sqrt{kd}\, s_{kj}))`, with :math:`\sigma_V`
    the standard deviation of the values and :math:`s` the root mean square of each derivative label. A component that
    is zero in all samples takes the scale of the largest one, so that the network is held to zero there; where a whole
    order is zero up to rounding, the values' spread per spread of the inputs is the scale.

    Args:
        samples: The labels; n samples in d inputs.
        order: 0, 1 or 2.

    Raises:
        ValueError: The labels that `order` needs are missing.

    Chapter 8, "By moments".

    Example:
        Values with a standard deviation of 2 and slopes of size 4 count alike.

        >>> import torch
        >>> from types import SimpleNamespace
        >>> x, value = torch.tensor([[-1.0], [0.0], [1.0]]).double(), torch.tensor([-2.0, 0.0, 2.0]).double()
        >>> samples = SimpleNamespace(x=x, value=value, gradient=torch.full_like(x, 4.0), hvp=None, directions=None)
        >>> sl.balance_by_moments(samples, order=1).matrix
        tensor([[0.5000, 0.0000],
                [0.0000, 0.2500]], dtype=torch.float64)
    """
    samples = check_labels(samples, order)
    scaling, unit = scaling_of(samples.x, samples.value), _scale(spread(samples.x))
    scales = [scaling["output_scale"].reshape(1)]
    natural = scales[0] / unit
    if order >= 1:
        scales.append(_scale(_root_mean_square(samples.gradient), natural))
    if order == 2:
        sizes = (samples.directions / unit).norm(dim=-1, keepdim=True)  # of the directions, in spreads of the inputs
        scales.append(_scale(_root_mean_square(samples.hvp).flatten(), sizes * natural))
    return SobolevLoss(order, torch.diag(torch.cat([1 / (scale * len(scale) ** 0.5) for scale in scales])))


@_check.ordinary_mode()
def balance_by_covariance(net: Surrogate, samples: Labelled, order: int, *, floor: float = 1e-2) -> SobolevLoss:
    r"""Return the loss of generalised least squares: :math:`M^T M = \Sigma^{-1}`, with the covariance of the residuals.

    The labels of one path are noisy *together*: a path that ends higher than expected has a higher value and a higher
    delta in every asset. :math:`\Sigma` (q, q) is the second moment of the residuals of `net`, which must have been
    fitted before; noise that is common to all components counts once, and directions with little noise count for what
    they say.

    Args:
        net: A network that was fitted to the samples with another balance.
        samples: The labels.
        order: 0, 1 or 2.
        floor: Added to the eigenvalues of the residuals' correlation matrix, so that a direction in which the labels
            happen to be free of noise has a finite weight: at most ``1 / sqrt(floor)`` per root mean square of a
            residual. A limit of 10 uses nearly all that such directions say; a much larger one makes the least squares
            ill-conditioned, and their minimiser slow (Chapter 8).

    Raises:
        ValueError: Missing labels, or a floor that is not positive.

    Chapter 8, "By covariance".

    Example:
        Residuals of size 2 are divided by 2.

        >>> import torch
        >>> from types import SimpleNamespace
        >>> x, net = torch.tensor([[-1.0], [1.0]], dtype=torch.float64), sl.Surrogate([1, 1])
        >>> samples = SimpleNamespace(x=x, value=net(x).detach() + 2.0, gradient=None, hvp=None, directions=None)
        >>> round(sl.balance_by_covariance(net, samples, order=0).matrix.item(), 2)
        0.5
    """
    samples = check_labels(samples, order, net.dtype)
    floor = _check.positive("floor", floor)
    plain = SobolevLoss(order, torch.eye(targets(samples, order).shape[1], dtype=net.dtype))
    with torch.no_grad():
        residuals = plain.residuals(net, samples)
    scale = _scale(_root_mean_square(residuals))
    residuals = residuals / scale
    eigenvalues, vectors = torch.linalg.eigh(residuals.T @ residuals / len(residuals))
    whitening = (vectors * (eigenvalues.clamp_min(0) + floor).rsqrt()) @ vectors.T
    return SobolevLoss(order, whitening / scale)


def _root_mean_square(data: Tensor) -> Tensor:
    unit = unit_of(data)
    return (data / unit).square().mean(0).sqrt() * unit


def _scale(spread: Tensor, natural: Tensor | None = None) -> Tensor:
    """Return the spreads, with zeros replaced by the largest of them.

    If all are zero up to rounding, judged by what the units make natural, the largest natural size stands in (or 1).
    """
    largest = spread.max()
    if natural is not None and largest <= 1e-10 * natural.max():
        largest = natural.max()
    return torch.where(spread > 1e-12 * largest, spread, largest if largest > 0 else torch.ones_like(largest))
