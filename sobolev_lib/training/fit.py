r"""`fit`: train a surrogate with the Sobolev loss, by Adam and, for small networks, a Levenberg-Marquardt finish.

The learning rate rises over the first twentieth of the steps and then falls to zero along a cosine: a rate that ends at
zero averages the noise of the batches away, and makes the digits of the result independent of the machine. Every step
is a function of the state before it, so a run with a checkpoint that is killed goes on as if nothing had happened.
Chapters 4 and 8.
"""

import functools
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from sobolev_lib import _check
from sobolev_lib._files import digest
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training.checkpoint import Checkpoint, History, State
from sobolev_lib.training.gauss_newton import Damping, levenberg_marquardt, subset_sizes
from sobolev_lib.training.loss import (
    BALANCES,
    Labelled,
    SobolevLoss,
    balance_by_covariance,
    balance_by_moments,
    check_labels,
    fitting,
    heavy_rows,
    take,
    targets,
)

__all__ = ["fit"]

MANY = 500  # steps, after which a network that was trained from scratch is expected to be better than a plane
SMALL = 500  # parameters up to which a Levenberg-Marquardt step costs little and is the default finish
# From coarse to fine, a step that lowers the loss by less than this share of p/n is the last on its subset. The minimum
# of p parameters on n noisy labels lies about p/n below the truth, so what is left to gain is a small part of that.
GAIN = 1e-3
WARM_UP = 0.05  # share of the steps over which the learning rate rises
GROWTH = 1e6  # times the larger of the first loss and that of a constant: from there on a run has diverged


@_check.ordinary_mode()
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
    seed: int = 0,
    callback: Callable[[int, float], None] | None = None,
    checkpoint: str | os.PathLike | None = None,
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
        validation: Samples on which the loss is measured 50 times during the Adam steps; the network with the lowest
            one is kept, and after the finish the better one.
        seed: Decides the order of the samples.
        callback: Called with the step and its loss after every Adam step.
        checkpoint: A file in which the state of the run is kept, written whole or not at all, every second or as often
            as costs a twentieth of the time. If it exists, the run goes on from there: killed or not, it ends with the
            same weights, bit for bit, on the same machine with the same number of threads; fresh samples must be a
            function of the step number. When the run is over, the file stays, and the same call returns at once
            what it found. To train anew, delete the file.

    Returns:
        The losses, see ``History``. The network itself is changed.

    Raises:
        ValueError: Labels missing for `order`, an activation without second derivative at order 2, arguments out of
            range; a checkpoint that is damaged, or of other arguments, data or another network: says what differs.
        FloatingPointError: The loss is no longer finite, or has grown to a million times that of a constant; says at
            which step and what to try.

    Source: Kichler, Afghan & Naumann (2024), section 4; Kingma & Ba (2015) for Adam.

    Chapter 8, "The minimiser: Levenberg-Marquardt".

    Example:
        A parabola from its values and slopes, to within 1e-3; labels without noise need no prior.

        >>> import math
        >>> import torch
        >>> from types import SimpleNamespace
        >>> x = torch.linspace(-1, 1, 64, dtype=torch.float64).reshape(-1, 1)
        >>> samples = SimpleNamespace(x=x, value=x[:, 0] ** 2, gradient=2 * x, hvp=None, directions=None)
        >>> net = sl.Surrogate([1, 4, 1], gain=1.0)
        >>> history = sl.fit(net, samples, order=1, steps=100, batch=64, prior=math.inf)
        >>> (net(x) - x[:, 0] ** 2).abs().max().item() < 1e-3
        True
    """
    settings = _Settings(order, steps, batch, learning_rate, balance, finish, prior, seed)
    fresh = samples if callable(samples) else None
    known, validation = _data(net, fresh(0) if fresh else samples, validation, order)
    settings = settings.with_finish(0 if fresh else 40 if net.parameter_count <= SMALL else 0, fresh is not None)
    scaled = net.copy().set_scaling(known.x, known.value) if net.is_new else net
    loss = balance_by_moments(known, order) if isinstance(balance, str) else fitting(balance, known, order, "balance")
    state = State(net, loss, digest(*scaled.state_dict().values()))
    if checkpoint is not None:
        run = settings.described() | {
            "network": f"{net.extra_repr()}, {net.dtype}",
            "first balance": digest(loss.matrix),
        }
        run |= {"samples": _fingerprint(known), "validation": _fingerprint(validation)}
        state.restore(Checkpoint(checkpoint, run))
    if not state.finished:
        _run(state, settings, known, fresh, validation, callback)
    return state.history


def _run(state: State, settings, known, fresh, validation, callback) -> None:
    """Go from where the state is to the end, and leave nothing half-done if that is broken off."""
    net, order, gradients = state.net, settings.order, [p.grad for p in state.net.parameters()]
    new = net.is_new
    if new:
        net.set_scaling(known.x, known.value)
    if not state.started:
        _remember(net, known.x, None)
        if heavy := "; ".join(heavy_rows(known, order)):
            warnings.warn(
                f"samples: more than half of the sum of squares lies in one row ({heavy}), which then decides the fit: "
                "look at it, or pull the tails in by clip_tails",
                stacklevel=4,
            )
        if validation is not None and not new:
            _validate(state, validation, -1)
        state.started = True
        state.save(now=True)

    def draw(step: int) -> Labelled:
        if fresh is None:
            return take(known, batch_rows(len(known.x), settings.batch, settings.seed, step), order)
        part = check_labels(fresh(step), order, net.dtype)
        _remember(net, part.x, net)
        return part

    try:
        if state.step <= settings.steps and settings.steps:
            _adam(state, draw, settings, known, validation, callback)
        if settings.finish:
            _finish(state, settings, known)
        _keep_the_better(state, validation)
        state.history.far = _far(net, known, state.loss)
        if state.history.far and new and (settings.finish or settings.steps >= MANY):
            warnings.warn(state.history.far, stacklevel=4)
    except BaseException:
        state.retreat()
        raise
    finally:
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            parameter.grad = gradient
    state.end()


@torch.no_grad()
def _remember(net: Surrogate, x: Tensor, widened: Surrogate | None) -> None:
    """Let the network know the range of its training inputs."""
    low, high = x.amin(0), x.amax(0)
    net.input_low.copy_(low if widened is None else low.minimum(widened.input_low))
    net.input_high.copy_(high if widened is None else high.maximum(widened.input_high))


@torch.no_grad()
def _keep_the_better(state: State, validation: Labelled | None) -> None:
    """Return to the best network of the way if the last one is worse on the validation samples."""
    if validation is None or not state.best:
        return
    best = state.net.copy()
    best.load_state_dict(state.best)
    before, after = (state.loss(net, validation).item() for net in (best, state.net))
    if before < after:
        state.net.load_state_dict(state.best)
        state.history.kept = f"the last step has a validation loss of {after:.3g}; returned is the best, {before:.3g}"
    state.best = {}


@torch.no_grad()
def _far(net: Surrogate, known: Labelled, loss: SobolevLoss) -> str:
    """Return what to say if the best affine function is better by more than three standard errors, else nothing."""
    part = take(known, torch.arange(0, len(known.x), 1 + len(known.x) // 4096), loss.order)
    best = Surrogate([part.x.shape[1], 1], dtype=net.dtype).set_scaling(part.x, part.value)
    list(levenberg_marquardt(best, part, loss, steps=9, prior=math.inf, damping=1e-9))  # one step solves it
    ours, affine = (loss.residuals(other, part).square().sum(1) for other in (net, best))
    excess, size = ours - affine, (targets(part, loss.order) @ loss.matrix.T).square().sum(1)
    size = size + (loss.matrix[0, 0] * best.output_scale) ** 2  # where all labels are 0, what is small?
    if not excess.mean() > 3 * excess.std() / len(excess) ** 0.5 + 1e-9 * size.mean():
        return ""
    return (
        f"fit ended with a loss of {ours.mean():.2g}, where the best affine function has {affine.mean():.2g}: this is "
        "no good minimum; try other first weights (generator=), a smaller gain, or more steps"
    )


@dataclass(frozen=True)
class _Settings:
    """The numbers that `fit` was given, checked."""

    order: int
    steps: int
    batch: int
    learning_rate: float
    balance: str | SobolevLoss
    finish: int | None
    prior: float
    seed: int

    def __post_init__(self):
        checked = {
            "steps": _check.count("steps", self.steps, least=0),
            "batch": _check.count("batch", self.batch),
            "learning_rate": _check.positive("learning_rate", self.learning_rate),
            "seed": _check.seed("seed", self.seed),
            "prior": _check.positive("prior", self.prior, or_infinite=True),
        }
        vars(self).update(checked)
        if not isinstance(self.balance, SobolevLoss):
            _check.choice("balance", self.balance, BALANCES)

    @property
    def by_covariance(self) -> bool:
        """Whether the balance is measured on residuals."""
        return self.balance == "covariance"

    @property
    def switch(self) -> int | None:
        """The Adam step before which the balance by covariance is measured, if there is one."""
        return self.steps // 2 if self.by_covariance and not self.finish else None

    def with_finish(self, default: int, fresh: bool) -> "_Settings":
        """Return the settings with the number of steps of the finish; fresh samples allow none."""
        finish = default if self.finish is None else self.finish
        return replace(self, finish=_check.count("finish", finish, least=0, most=0 if fresh else None))

    def described(self) -> dict[str, str]:
        """Return each setting as text; of a balance that was given, its kind (its numbers are digested beside it)."""
        return {name: str(value) for name, value in vars(self).items() if name != "balance"} | {
            "balance": self.balance if isinstance(self.balance, str) else "SobolevLoss"
        }


def _data(net: Surrogate, known, validation, order: int) -> tuple[Labelled, Labelled | None]:
    """Return the samples to train on and those to validate on, checked."""
    known = check_labels(known, order, net.dtype)
    _check.tensor("samples.x", known.x, shape=("n", net.widths[0]))
    if order == 2 and not net.activation.smooth:
        raise ValueError(f"net: got activation '{net.activation.name}' at order 2, need one with a second derivative")
    return known, None if validation is None else check_labels(validation, order, net.dtype, "validation")


def _fingerprint(samples: Labelled | None) -> str:
    if samples is None:
        return "None"
    parts = (samples.x, samples.value, samples.gradient, samples.hvp, samples.directions)
    return f"{len(samples.x)} with digest {digest(*parts)}"


def _finish(state: State, settings: _Settings, known: Labelled) -> None:
    """Minimise by Levenberg-Marquardt, from coarse to fine, so that few steps need all samples.

    With the balance by covariance, it is measured twice on the smallest subset, then once on each larger one.
    """
    sizes, again = subset_sizes(known), settings.by_covariance
    parts = [(sizes[0], False), *[(sizes[0], True)] * (2 * again), *((n, again) for n in sizes[1:])]
    gain = GAIN * state.net.parameter_count if len(sizes) > 1 else None
    losses = state.history.finish
    for index, (size, measure) in list(enumerate(parts))[max(0, len(losses) - 1) :]:
        part = known if size == len(known.x) else take(known, slice(size), settings.order)
        if index == len(losses):  # else it was begun before a kill
            state.loss = balance_by_covariance(state.net, part, settings.order) if measure else state.loss
            # A subset's minimum is near that of the next, so the damping is kept; a new balance on the same is not.
            state.damping = Damping(state.damping.value if size > sizes[0] else Damping.value)
            losses.append([])
        how = {"prior": settings.prior, "damping": state.damping, "tolerance": gain and gain / size}
        steps = levenberg_marquardt(state.net, part, state.loss, steps=settings.finish, **how)
        for loss in tqdm(steps, f"least squares, {size:,} rows", settings.finish, leave=False, delay=1):
            losses[index].append(loss)
            state.save()


def batch_rows(n: int, batch: int, seed: int, step: int) -> Tensor:
    """Return the rows of batch number `step`: epoch after epoch in a new order, a function of seed and step alone."""
    batch = min(batch, n)
    per_epoch = n // batch  # the rows left over in one epoch have the same chance in the next
    epoch, position = divmod(step, per_epoch)
    return _epoch_order(n, seed, epoch)[position * batch : (position + 1) * batch]


@functools.lru_cache(maxsize=1)
def _epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63))


def learning_rate_at(step: int, steps: int) -> float:
    """Return the learning rate as a share of the largest: a linear rise, then a cosine to zero."""
    rise = max(1, int(WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _adam(state: State, draw, settings: _Settings, known, validation, callback) -> None:
    """The first phase of `fit`."""
    net, history, steps = state.net, state.history, settings.steps
    limit = _limit(state, settings, known)
    for step in tqdm(range(state.step, steps), f"order {settings.order}", leave=False, initial=state.step, delay=1):
        if step == settings.switch:
            state.loss = balance_by_covariance(net, known, settings.order)
            state.lowest, state.best, limit = math.inf, {}, _limit(state, settings, known)
        value = _step(state, draw(step), settings, step, limit)
        history.loss.append(value)
        state.step = step + 1
        if callback is not None:
            callback(step, value)
        if validation is not None and state.step % max(1, steps // 50) == 0:
            _validate(state, validation, step)
        state.save()
    if state.best:
        net.load_state_dict(state.best)
    if not all(parameter.isfinite().all() for parameter in net.parameters()):
        raise FloatingPointError(f"weights are not finite after step {state.step} of {steps}: {_advice(settings)}")
    state.step = steps + 1  # which says that the best network is in place


def _validate(state: State, validation: Labelled, step: int) -> None:
    with torch.no_grad():
        measured = state.loss(state.net, validation).item()
    state.history.validation.append((step, measured))
    if measured < state.lowest:
        state.lowest = measured
        state.best = {name: tensor.clone() for name, tensor in state.net.state_dict().items()}


def _limit(state: State, settings: _Settings, known: Labelled) -> float:
    """Return the loss at which a run has diverged, by that of the mean value without any slope."""
    wanted = targets(known, settings.order).clone()
    wanted[:, 0] -= wanted[:, 0].mean()
    constant = (wanted @ state.loss.matrix.T).square().sum(1).mean().item()
    return GROWTH * max(constant, state.history.loss[0] if state.history.loss else 0.0)


def _advice(settings: _Settings) -> str:
    return f"try a learning_rate below {settings.learning_rate:g}, and check the labels for outliers"


def _step(state: State, batch: Labelled, settings: _Settings, step: int, limit: float) -> float:
    optimizer = state.optimizer
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * learning_rate_at(step, settings.steps)
    value, gradients = state.loss.value_and_gradients(state.net, batch)
    if not math.isfinite(value):
        raise FloatingPointError(f"loss is {value} at step {step} of {settings.steps}: {_advice(settings)}")
    if step and value > max(limit, GROWTH * state.history.loss[0]):
        raise FloatingPointError(
            f"loss has grown from {state.history.loss[0]:.1e} to {value:.1e} at step {step} of {settings.steps}, more "
            f"than {GROWTH:.0e} times that of a constant: {_advice(settings)}"
        )
    layers = zip(state.net.weights, state.net.biases, strict=True)
    for parameter, gradient in zip((p for layer in layers for p in layer), gradients, strict=True):
        parameter.grad = gradient if parameter.requires_grad else None
    optimizer.step()
    return value
