r"""`fit`: train a surrogate with the Sobolev loss, by Adam and, for small networks, a Levenberg-Marquardt finish.

The learning rate rises over the first twentieth of the steps and then falls to zero along a cosine: a rate that ends at
zero averages the noise of the batches away, and makes the digits of the result independent of the machine. Chapters 4
and 8.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from sobolev_lib import _check
from sobolev_lib.gauss_newton import Damping, levenberg_marquardt
from sobolev_lib.network import Surrogate
from sobolev_lib.sobolev import (
    BALANCES,
    Labelled,
    SobolevLoss,
    balance_by_covariance,
    balance_by_moments,
    check_labels,
    take,
)

SMALL = 500  # parameters up to which a Levenberg-Marquardt step costs little and is the default finish
COARSE_ABOVE = 2**14  # samples above which the finish begins on a subset, of at least half as many
# From coarse to fine, a step that lowers the loss by less than this share of p/n is the last on its subset. The minimum
# of p parameters on n noisy labels lies about p/n below the truth, so what is left to gain is a small part of that.
GAIN = 1e-3
WARM_UP = 0.05  # share of the steps over which the learning rate rises


@dataclass
class History:
    """What `fit` did.

    Attributes:
        loss: The batch loss at every Adam step.
        finish: The full loss after every accepted Levenberg-Marquardt step, one list per balance and subset; the last
            one is that of all samples.
        validation: Pairs (step, loss on the validation samples).
        stopped_at: The Adam step after which early stopping ended the first phase, or None.
    """

    loss: list[float] = field(default_factory=list)
    finish: list[list[float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    stopped_at: int | None = None


def fit(
    net: Surrogate,
    samples: Labelled | Callable[[int], Labelled],
    *,
    order: int,
    steps: int = 2000,
    batch: int = 256,
    learning_rate: float = 1e-2,
    balance: str | SobolevLoss = "moments",
    finish: int | None = None,
    prior: float = 2.0,
    validation: Labelled | None = None,
    patience: int = 10,
    seed: int = 0,
    callback: Callable[[int, float], None] | None = None,
    progress: bool = False,
) -> History:
    r"""Train `net` in place on samples, or on fresh samples at every step.

    Args:
        net: The network. If it has no scaling yet, it takes one from the samples.
        samples: n samples; or a function of the step number that returns a fresh batch (then `finish` is 0).
        order: 0 trains on values, 1 on values and gradients, 2 on values, gradients and Hessian-vector products.
        steps: Adam steps; 0 leaves only the finish.
        batch: Samples per Adam step; each epoch passes through all samples in an order drawn from `seed`.
        learning_rate: The largest one; see the module for its course.
        balance: "moments" (each order has the same share), "covariance" (generalised least squares: the finish, if
            there is one, is repeated twice with the balance measured on its own residuals; without a finish the
            second half of the Adam steps uses it), or a ``SobolevLoss``.
        finish: Levenberg-Marquardt steps after Adam, at most so many per balance and subset. Default: 40 for at most
            500 parameters, else 0. Above 2^14 samples they begin on the first sixteenth of the rows and go on with
            the first quarter (each if it has 2^13 rows), then all: the rows' order should mean nothing, as with Sobol'
            points.
        prior: Standard deviation of the weights that the finish assumes, see ``levenberg_marquardt``.
        validation: Samples on which the loss is measured 50 times; the network with the lowest one is kept.
        patience: With `validation`: stop after so many measurements without a new lowest loss.
        seed: Decides the order of the samples.
        callback: Called with the step and its loss after every Adam step.
        progress: Show a bar (silent where ``TQDM_DISABLE`` is set).

    Returns:
        The losses, see ``History``. The network itself is changed.

    Raises:
        ValueError: Labels missing for `order`, an activation without second derivative at order 2, arguments out of
            range.
        FloatingPointError: The loss is no longer finite; says at which step and what to try.

    Source: Kichler, Afghan & Naumann (2024), section 4; Kingma & Ba (2015) for Adam.

    Example:
        A parabola from its values and slopes, to within 1e-3; labels without noise need no prior.

        >>> from types import SimpleNamespace
        >>> x = torch.linspace(-1, 1, 64, dtype=torch.float64).reshape(-1, 1)
        >>> samples = SimpleNamespace(x=x, value=x[:, 0] ** 2, gradient=2 * x, hvp=None, directions=None)
        >>> net = Surrogate([1, 4, 1], gain=1.0)
        >>> history = fit(net, samples, order=1, steps=100, batch=64, prior=math.inf)
        >>> (net(x) - x[:, 0] ** 2).abs().max().item() < 1e-3
        True
    """
    steps = _check.count("steps", steps, least=0)
    batch = _check.count("batch", batch)
    learning_rate = _check.positive("learning_rate", learning_rate)
    seed = _check.count("seed", seed, least=0)
    patience = _check.count("patience", patience)
    fresh = samples if callable(samples) else None
    known = fresh(0) if fresh else samples
    check_labels(known, order)
    if order == 2 and not net.activation.smooth:
        raise ValueError(f"net: got activation '{net.activation.name}' at order 2, need one with a second derivative")
    if not isinstance(balance, SobolevLoss):
        _check.choice("balance", balance, BALANCES)
    if validation is not None:
        check_labels(validation, order)
    if finish is None:
        finish = 40 if fresh is None and net.parameter_count <= SMALL else 0
    finish = _check.count("finish", finish, least=0, most=0 if fresh else None)
    if not net.is_scaled:
        net.set_scaling(known.x, known.value)
    loss = balance if isinstance(balance, SobolevLoss) else balance_by_moments(known, order)
    history = History()
    by_covariance = balance == "covariance"
    if steps:
        draw = fresh or (lambda step: take(known, batch_rows(len(known.x), batch, seed, step), order))
        switch = steps // 2 if by_covariance and not finish else None
        phase = _Adam(net, draw, loss, steps, learning_rate, switch, known, history)
        phase.run(validation, patience, callback, progress)
    if finish:
        _finish(net, known, loss, by_covariance, finish, prior, history)
    return history


def subset_sizes(samples: Labelled) -> list[int]:
    """Return how many of the first samples each part of the finish uses: up to 2^14 all at once, else growing subsets.

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


def _finish(net, known, loss, by_covariance, steps, prior, history):
    """Minimise by Levenberg-Marquardt, from coarse to fine, so that few steps need all samples.

    With the balance by covariance, it is measured twice on the smallest subset, then once on each larger one.
    """
    sizes, damping = subset_sizes(known), Damping()
    parts = [(sizes[0], False), *[(sizes[0], True)] * (2 * by_covariance), *((n, by_covariance) for n in sizes[1:])]
    tolerance = GAIN * net.parameter_count if len(sizes) > 1 else None
    for size, measure in parts:
        part = known if size == len(known.x) else take(known, slice(size), loss.order)
        loss = balance_by_covariance(net, part, loss.order) if measure else loss
        # A subset's minimum is near that of the next, so the damping is kept; a new balance on the same subset is not.
        damping = Damping(damping.value if size > sizes[0] else Damping.value)
        gains = tolerance and tolerance / size
        course = levenberg_marquardt(net, part, loss, steps=steps, prior=prior, damping=damping, tolerance=gains)
        history.finish.append(list(course))


def batch_rows(n: int, batch: int, seed: int, step: int) -> Tensor:
    """Return the rows of batch number `step`: epoch after epoch in a new order, a function of seed and step alone."""
    batch = min(batch, n)
    per_epoch = n // batch  # the rows left over in one epoch have the same chance in the next
    epoch, position = divmod(step, per_epoch)
    return _epoch_order(n, seed, epoch)[position * batch : (position + 1) * batch]


@functools.lru_cache(maxsize=1)
def _epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def learning_rate_at(step: int, steps: int) -> float:
    """Return the learning rate as a share of the largest: a linear rise, then a cosine to zero."""
    rise = max(1, int(WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


class _Adam:
    """The first phase of `fit`."""

    def __init__(self, net, draw, loss, steps, learning_rate, switch, known, history):
        self.net, self.draw, self.loss, self.steps, self.switch = net, draw, loss, steps, switch
        self.known, self.history = known, history
        self.learning_rate = learning_rate
        self.optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate, foreach=True)

    def run(self, validation, patience, callback, progress):
        best, waited, every = (math.inf, None), 0, max(1, self.steps // 50)
        for step in (
            tqdm(range(self.steps), desc=f"order {self.loss.order}", leave=False) if progress else range(self.steps)
        ):
            if step == self.switch:
                self.loss = balance_by_covariance(self.net, self.known, self.loss.order)
                best = (math.inf, None)
            value = self._step(step)
            self.history.loss.append(value)
            if callback is not None:
                callback(step, value)
            if validation is None or (step + 1) % every:
                continue
            with torch.no_grad():
                measured = self.loss(self.net, validation).item()
            self.history.validation.append((step, measured))
            if measured < best[0]:
                best, waited = (measured, {k: t.clone() for k, t in self.net.state_dict().items()}), 0
            else:
                waited += 1
            if waited >= patience:
                self.history.stopped_at = step
                break
        if best[1] is not None:
            self.net.load_state_dict(best[1])

    def _step(self, step: int) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * learning_rate_at(step, self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.net, self.draw(step))
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(
                f"loss is {value} at step {step} of {self.steps}: try a learning_rate below {self.learning_rate:g}, "
                "and check the labels for outliers"
            )
        loss.backward()
        self.optimizer.step()
        return value
