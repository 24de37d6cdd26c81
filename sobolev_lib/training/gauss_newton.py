r"""Levenberg-Marquardt for the Sobolev loss of a small network: the finish that first-order methods do not reach.

With the residuals :math:`r(\theta)` of all samples and components and their Jacobian :math:`J`, one step solves

.. math::  \bigl(J^T J + \lambda\, \mathrm{diag}(J^T J)\bigr)\, s = -J^T r ,

and :math:`\lambda` falls after a step that lowers the loss and grows after one that does not, which is then taken
back. The product :math:`J^T J` is summed over chunks of samples, so memory does not grow with their number. A network
of 40 parameters needs some tens of steps for what Adam does not reach in ten thousand. Chapter 8.

Source: Marquardt (1963); Nocedal & Wright, Numerical Optimization (2006), section 10.3.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.network.scaling import sweep
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training.loss import Labelled, SobolevLoss, chunks, stack, targets

COARSE_ABOVE = 2**14  # samples above which a minimisation begins on a subset, of at least half as many
CHUNK_ENTRIES = 1_000_000  # numbers in one chunk's Jacobian: 8 MB in float64


def jacobian(net: Surrogate, x: Tensor, *, order: int, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Return outputs (n, q) and their derivatives by all parameters (n, q, p), in raw units.

    The q outputs are value, gradient and HVPs side by side. Parameters are ordered weight matrix, bias vector, layer by
    layer. All rows come from one pass: the factors of the twin network's reverse, with unit cotangents.

    Args:
        net: A surrogate with p parameters.
        x: Inputs (n, d).
        order: 0, 1 or 2.
        directions: At order 2, (k, d) or (n, k, d).
    """
    with torch.no_grad():
        outputs, columns = _columns(net, x, order, directions)
    return outputs, columns.permute(2, 0, 1)


def _columns(net: Surrogate, x: Tensor, order: int, directions: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return outputs (n, q) and the Jacobian as (q, p, n): samples last, along which work is elementwise."""
    n, d = x.shape
    directions = directions if order == 2 else None  # samples carry them at every order
    outputs, found, k = sweep(net, x, order=order, directions=directions)
    q = 1 + d * (order >= 1) + k * d
    unit = torch.eye(q, dtype=x.dtype)
    cotangents = [unit[:, :1].expand(q, n)]
    if order >= 1:
        cotangents.append(unit[:, None, 1 : 1 + d].expand(q, n, d))
    if order == 2:
        cotangents.append(unit[:, 1 + d :].reshape(q, k, 1, d).expand(q, k, n, d))
    columns, start = x.new_empty(q, net.parameter_count, n), 0
    for weight, lefts, rights in zip(net.weights, *found.factors(*cotangents), strict=True):
        matrix = columns[:, start : start + weight.numel()].unflatten(1, weight.shape).zero_()
        for left, right in zip(lefts, rights, strict=True):
            _add_outer_products(matrix, left.transpose(-1, -2).contiguous(), right.transpose(-1, -2).contiguous())
        start += weight.numel()
        columns[:, start : start + len(weight)] = lefts[0].transpose(-1, -2)
        start += len(weight)
    gradient_scale = (net.output_scale / net.input_scale).reshape(1, d)
    scale = torch.cat([net.output_scale.reshape(1, 1), gradient_scale.repeat(1, 1 + k)], 1)[0, :q]
    return stack(*outputs), columns.mul_(scale[:, None, None])


def _add_outer_products(matrix: Tensor, left: Tensor, right: Tensor) -> None:
    """Add to (q, out, in, n) the products of (.., out, n) and (.., in, n) per sample, summed over directions."""
    if left.ndim == 4 or right.ndim == 4:  # (rows, k, width, n); a factor without rows is (k, width, n)
        for j in range(left.shape[-3]):
            _add_outer_products(matrix, left[..., j, :, :], right[..., j, :, :])
    else:
        matrix.addcmul_(left.unsqueeze(-2), right.unsqueeze(-3))


def subset_sizes(samples: Labelled) -> list[int]:
    """Return how many of the first samples each part of a fit uses: up to 2^14 all at once, else growing subsets.

    The first rows of Sobol' points, and of rows in random order, are a smaller sample of the same kind. Where they are
    not, because the rows are sorted or form a grid, means or spreads give it away, and all samples are used at once.
    """
    n = len(samples.x)
    sizes = [n // 16, n // 4] if n > COARSE_ABOVE else []
    data = torch.cat([samples.x, samples.value.unsqueeze(1)], 1)
    mean, spread = data.mean(0), data.std(0)
    return [size for size in sizes if size >= COARSE_ABOVE // 2 and _alike(data[:size], mean, spread)] + [n]


def _alike(rows: Tensor, mean: Tensor, spread: Tensor) -> bool:
    """Whether rows have about the given mean and spread: to within five standard errors, and a quarter."""
    near = (rows.mean(0) - mean).abs() <= 5 * spread / len(rows) ** 0.5
    return bool((near & ((rows.std(0) - spread).abs() <= 0.25 * spread)).all())


@dataclass
class Damping:
    r"""The damping :math:`\lambda` of Levenberg-Marquardt, and what else its steps hand on from one to the next.

    Attributes:
        value: :math:`\lambda`, relative to the diagonal of :math:`J^T J`.
        tries: Steps so far, accepted or refused.
        ended: Whether the last step found no more to gain.
    """

    value: float = 1e-3
    tries: int = 0
    ended: bool = False

    def follow(self, share: float) -> None:
        """Change the damping by how well the quadratic model foretold the gain (Nocedal & Wright, algorithm 4.1)."""
        self.value = max(self.value * (0.2 if share > 0.75 else 1 if share > 0.25 else 3), 1e-12)


def levenberg_marquardt(
    net: Surrogate,
    samples: Labelled,
    loss: SobolevLoss,
    *,
    steps: int,
    prior: float = 2.0,
    damping: float | Damping = 1e-3,
    tolerance: float | None = None,
) -> Iterator[float]:
    r"""Change `net` by Levenberg-Marquardt steps and yield the loss after each one.

    What is minimised is the loss and a ridge, :math:`L(\theta) + \mu\, \lVert \theta \rVert^2` with
    :math:`\mu = L / (n s^2)`: the most probable weights if each is normal with standard deviation s and the labels'
    noise has the variance that the loss shows. It fades with the number of samples, and keeps nodes from turning into
    the kinks that a few noisy labels suggest.

    Args:
        net: The network, changed in place.
        samples: Inputs and labels, n of them.
        loss: The balanced loss; its `order` decides which labels are used.
        steps: How many accepted or refused steps at most.
        prior: The standard deviation s of the weights, in scaled units; ``math.inf`` leaves the ridge away.
        damping: The first :math:`\lambda`; or a ``Damping``, which is kept up to date: the steps after a yield depend
            on it and on the weights alone, so a run can be taken up again from both.
        tolerance: Stops after a step that lowers the objective by less than this share. Default: ``0.01 / n``, which
            moves the weights by a tenth of their statistical error.

    Yields:
        The loss without ridge after each accepted step, a float.

    Raises:
        ValueError: No steps, a prior or damping that is not positive.
    """
    steps = _check.count("steps", steps)
    state = damping if isinstance(damping, Damping) else Damping(_check.positive("damping", damping))
    prior = _check.positive("prior", prior, or_infinite=True)
    tolerance = 0.01 / len(samples.x) if tolerance is None else tolerance
    while not state.ended and state.tries < steps:
        trial = _accepted(net, samples, loss, steps, prior, state, tolerance)
        if trial is not None:
            yield trial


@torch.no_grad()
def _accepted(net, samples, loss, steps: int, prior: float, state: Damping, tolerance: float) -> float | None:
    """Change the network by the next step that lowers the objective; return its loss, None if there is no such step."""
    parameters = list(_parameters(net))
    weights = torch.cat([parameter.flatten() for parameter in parameters])
    normal, slope, current = _normal_equations(net, samples, loss)
    if not math.isfinite(current):
        raise FloatingPointError(
            f"loss is {current} before step {state.tries} of Levenberg-Marquardt: try more Adam steps at a lower "
            "learning_rate before it, and check the labels for outliers"
        )
    ridge = current / (len(samples.x) * prior**2)
    matrix, downhill = normal + ridge * torch.eye(len(normal), dtype=net.dtype), -slope - ridge * weights
    curved = matrix.diagonal().clamp_min(1e-12 * matrix.diagonal().max())
    free = torch.cat([torch.full((p.numel(),), p.requires_grad) for p in parameters])
    matrix, downhill, curved = matrix[free][:, free], downhill[free], curved[free]
    before = current + ridge * weights @ weights
    while state.tries < steps:
        state.tries += 1
        step = torch.linalg.solve_ex(matrix + torch.diag(state.value * curved), downhill)[0]  # singular: no number
        moved = weights.clone()
        moved[free] += step
        try:
            _set(parameters, moved)
            trial = _loss(net, samples, loss)
        except BaseException:  # an interrupt leaves the last accepted step
            _set(parameters, weights)
            raise
        after = trial + ridge * moved @ moved
        if after < before:  # false for NaN
            state.follow(((before - after) / (2 * downhill @ step - step @ matrix @ step)).item())
            state.ended = bool(before - after < tolerance * before)
            return trial
        _set(parameters, weights)  # a copy, because adding a step and taking it away again rounds
        state.value *= 4
        if state.value > 1e12:
            state.ended = True
            break
    return None


def _parameters(net: Surrogate) -> Iterator[Tensor]:
    for weight, bias in zip(net.weights, net.biases, strict=True):
        yield weight
        yield bias


def _set(parameters: list[Tensor], weights: Tensor) -> None:
    start = 0
    for parameter in parameters:
        parameter.copy_(weights[start : start + parameter.numel()].view_as(parameter))
        start += parameter.numel()


def _normal_equations(net: Surrogate, samples: Labelled, loss: SobolevLoss) -> tuple[Tensor, Tensor, float]:
    """Return ``J^T J / n``, ``J^T r / n`` and the loss, summed over chunks."""
    p, q, n = net.parameter_count, loss.matrix.shape[0], len(samples.x)
    normal, slope = torch.zeros(p, p, dtype=net.dtype), torch.zeros(p, dtype=net.dtype)
    total = 0.0
    for part in chunks(samples, CHUNK_ENTRIES // (p * q), loss.order):
        outputs, block = _columns(net, part.x, loss.order, part.directions)
        residual = loss.matrix @ (outputs - targets(part, loss.order)).T  # (q, rows)
        block = (loss.matrix @ block.reshape(q, -1)).view(q, p, -1)
        normal += (block @ block.transpose(1, 2)).sum(0)
        slope += (block @ residual.unsqueeze(-1)).sum(0).squeeze(-1)
        total += float(residual.square().sum())
    return normal / n, slope / n, total / n


def _loss(net: Surrogate, samples: Labelled, loss: SobolevLoss) -> float:
    total = sum(loss.residuals(net, part).square().sum().item() for part in chunks(samples, 32768, loss.order))
    return total / len(samples.x) if math.isfinite(total) else math.inf
