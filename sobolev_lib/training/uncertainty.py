r"""Error bars of a fitted network: how far the labels' noise moves its value and its derivatives.

Near the minimum the fit is linear in the parameters. With the balanced residuals :math:`r_i` of sample i, their
Jacobian :math:`J_i` by the parameters and the ridge :math:`\mu` of ``levenberg_marquardt``, the parameters have the
covariance

.. math::  C = A^{-1}\, \mathrm{Cov}\Bigl(\frac1n \sum_i J_i^T r_i\Bigr)\, A^{-1}, \qquad
    A = \frac1n \sum_i J_i^T J_i + \mu I ,

and an output g of the network, a value, a derivative or a curvature, the standard error
:math:`(\nabla_\theta g^T C\, \nabla_\theta g)^{1/2}`. The covariance in the middle is where the labels' kind matters.
Independent samples add up their own outer products (White 1982). Points of one Sobol' sequence cancel each other's
errors in part, which no single sequence shows; several independently scrambled ones do, by how much they differ.

What the bars do not hold is the error of a network that is too small. That shows as a lack of fit: residuals whose mean
over some region is not zero (Chapter 11).

Source: White, Maximum Likelihood Estimation of Misspecified Models (1982); Owen, Monte Carlo Theory, Methods and
Examples (2013), chapter 17, for replicated scrambles.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training.errors import QUANTITIES, Errors
from sobolev_lib.training.gauss_newton import jacobian
from sobolev_lib.training.loss import Labelled, SobolevLoss, check_labels, chunks, fitting, take, targets

__all__ = ["Bars", "LackOfFit", "Uncertainty", "lack_of_fit", "noise_floor", "uncertainty"]

MOST_PARAMETERS = 2000  # matrices of that size are factorised
ROWS = 1_000_000  # numbers in a chunk of a Jacobian
FREE = 1e-2  # eigenvalues of the residuals' correlation up to which a direction counts as free of noise
SPLITS = 4  # halvings of the samples into cells of the test for a lack of fit


@dataclass(frozen=True, eq=False)
class Bars:
    """Standard errors of value, gradient and curvature at n points.

    Attributes:
        price: Of the value, (n,).
        delta: Of the gradient, (n, d).
        gamma: Of the curvature along the direction that was asked for, (n,); zero for a ReLU network.

    Chapter 11, "Error bars from one fit".

    Example:
        >>> import torch, sobolev_lib as sl
        >>> sl.Bars(torch.ones(2), torch.ones(2, 3), torch.zeros(2)).delta.shape
        torch.Size([2, 3])
    """

    price: Tensor
    delta: Tensor
    gamma: Tensor


@dataclass(frozen=True, eq=False)
class Uncertainty:
    r"""The covariance of a network's parameters, and the error bars that follow from it.

    Attributes:
        net: The network, of p parameters.
        root: A matrix R (p, r) with :math:`R R^T` the covariance of the parameters, weight matrix and bias vector,
            layer by layer.
        samples: Number of samples that it rests on.
        freedom: Degrees of freedom of the variances: infinite for independent samples, one less than the number of
            sets for replicated ones.

    Chapter 11, "Error bars from one fit".

    Example:
        The mean of 100 values with standard deviation 1 has the standard error 0.1; no input, so no slope is fitted.

        >>> import torch, sobolev_lib as sl
        >>> x = torch.zeros(100, 1, dtype=torch.float64)
        >>> samples = sl.Samples(x, torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(50))
        >>> loss = sl.SobolevLoss(order=0, matrix=torch.eye(1, dtype=torch.float64))
        >>> bars = sl.uncertainty(sl.Surrogate([1, 1]), samples, loss, prior=1e6).bars(x[:1])
        >>> round(bars.price.item(), 3)
        0.101
    """

    net: Surrogate
    root: Tensor
    samples: int
    freedom: float

    def bars(self, x: Tensor, *, direction: Tensor | None = None) -> Bars:
        """Return the standard errors at points x (n, d), raw units; `direction` as for ``evaluate``."""
        spread = [part.norm(dim=-1) for part in self._deviations(x, direction)]
        return Bars(spread[0], spread[1], spread[2])

    def covariance(self, x: Tensor, *, direction: Tensor | None = None) -> Tensor:
        """Return the joint covariance of value, gradient and curvature at each point, (n, d + 2, d + 2)."""
        value, gradient, curvature = self._deviations(x, direction)
        stacked = torch.cat([value.unsqueeze(1), gradient, curvature.unsqueeze(1)], 1)
        return stacked @ stacked.mT

    def factor(self, level: float = 0.95) -> float:
        """Return how many standard errors hold the truth with a probability: 1.96 for 95 % of independent samples.

        With few replicated sets the variance itself is uncertain, and the factor that of Student's distribution.
        """
        level = _check.positive("level", level)
        if level >= 1:
            raise ValueError(f"level: got {level}, need a probability below 1")
        normal = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor((1 + level) / 2, dtype=torch.float64)).item()
        return normal if math.isinf(self.freedom) else _student(normal, self.freedom)

    def labels_for(
        self, x: Tensor, *, price: float | None = None, delta: float | None = None, gamma: float | None = None, **kinds
    ) -> int:
        r"""Return how many labels of the same kind bring the root mean square bar at x down to what is wanted.

        Bars fall as :math:`1 / \sqrt n`, so :math:`n' = n\, (bar / wanted)^2`, the largest over what is named; the
        error itself stops falling at what the network's size leaves.

        Raises:
            ValueError: Nothing wanted, or a wanted error that is not positive.
        """
        wanted = {"price": price, "delta": delta, "gamma": gamma}
        wanted = {name: _check.positive(name, size) for name, size in wanted.items() if size is not None}
        if not wanted:
            raise ValueError("price, delta, gamma: got none, need the error that is wanted of one at least")
        bars = self.bars(x, **kinds)
        ratios = [getattr(bars, name).square().mean().item() / size**2 for name, size in wanted.items()]
        return math.ceil(self.samples * max(ratios))

    @torch.no_grad()
    def _deviations(self, x: Tensor, direction: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return what each column of the root does to value (n, r), gradient (n, d, r) and curvature (n, r)."""
        x = _check.tensor("x", x, shape=("n", self.net.widths[0])).to(self.net.dtype)
        d = x.shape[1]
        u = torch.ones(d) if direction is None else _check.tensor("direction", direction, shape=(d,))
        u, smooth, parts = u.to(self.net.dtype), self.net.activation.smooth, []
        for rows in x.split(max(1, ROWS // (len(self.root) * (1 + 2 * d)))):
            _, slopes = jacobian(self.net, rows, order=1 + smooth, directions=u.unsqueeze(0))
            moved = slopes.double() @ self.root
            bend = (u.double() @ moved[:, 1 + d :]) if smooth else torch.zeros_like(moved[:, 0])
            parts.append((moved[:, 0], moved[:, 1 : 1 + d], bend))
        return tuple(torch.cat(kind) for kind in zip(*parts, strict=True))


def uncertainty(
    net: Surrogate, samples: Labelled | Sequence[Labelled], loss: SobolevLoss, *, prior: float = 2.0
) -> Uncertainty:
    r"""Return the statistical error of a network that was fitted by least squares to noisy labels.

    Args:
        net: The network, of at most 2,000 parameters: the covariance has the square of that, and its inverse the cube.
        samples: The labels that it was fitted to, their noise independent from sample to sample; or a sequence of sets
            of equal size, eight or more, independent of each other (Sobol' points and paths of different seeds),
            whose union it was fitted to.
        loss: The loss that it was fitted with.
        prior: As for ``fit``.

    Returns:
        ``Uncertainty``, which gives bars at any point. It costs about two steps of ``levenberg_marquardt``.

    Raises:
        ValueError: Labels missing for the loss, too many parameters, fewer than eight sets or sets of different sizes.

    Source: White (1982) for independent samples; Owen (2013), chapter 17, for replicated scrambles.

    Chapter 11, "Error bars from one fit".

    Example:
        A straight line through 400 points with noise of size 1: the bar at the mean is 1 / sqrt(400).

        >>> import torch, sobolev_lib as sl
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.linspace(-1, 1, 400, dtype=torch.float64).reshape(-1, 1)
        >>> samples = sl.Samples(x, x[:, 0] + torch.randn(400, dtype=torch.float64, generator=g))
        >>> net, loss = sl.Surrogate([1, 1]), sl.SobolevLoss(order=0, matrix=torch.eye(1, dtype=torch.float64))
        >>> _ = sl.fit(net, samples, order=0, steps=0, balance=loss, prior=1e6)
        >>> round(sl.uncertainty(net, samples, loss, prior=1e6).bars(torch.zeros(1, 1)).price.item(), 2)
        0.05
    """
    sets = list(samples) if isinstance(samples, Sequence) else [samples]
    order = _check.instance("loss", loss, SobolevLoss).order
    sets = [check_labels(part, order, net.dtype) for part in sets]
    loss, prior = fitting(loss, sets[0], order), _check.positive("prior", prior, or_infinite=True)
    if net.parameter_count > MOST_PARAMETERS:
        raise ValueError(f"net: got {net.parameter_count} parameters, need at most {MOST_PARAMETERS}: shrink it first")
    if isinstance(samples, Sequence):
        sizes = sorted({len(part.x) for part in sets})
        if len(sets) < 8 or len(sizes) > 1:
            raise ValueError(f"samples: got {len(sets)} sets of {sizes} rows, need 8 or more of equal size")
    sums = [_sums(net, part, loss) for part in sets]
    n, p = sum(len(part.x) for part in sets), net.parameter_count
    normal, total = sum(s[0] for s in sums), sum(s[3] for s in sums)
    sizes, vectors, unit = _eigen(normal / n + total / n / (n * prior**2) * torch.eye(p).double())
    kept = sizes > 1e-13 * sizes.max()  # parameters of dead nodes and twins move no output: left out
    if len(sets) == 1:
        variances, axes, units = _eigen(sums[0][1])
        rank = int(kept.sum())
        middle = units.unsqueeze(1) * axes * (variances.clamp_min(0) * n / max(n - rank, 1)).sqrt()
        freedom = math.inf
    else:
        scores = torch.stack([s[2] for s in sums], 1)
        middle = (scores - scores.mean(1, keepdim=True)) * (len(sets) / (len(sets) - 1)) ** 0.5
        freedom = float(len(sets) - 1)
    inverse = (vectors[:, kept] / sizes[kept]) @ vectors[:, kept].T
    return Uncertainty(net, inverse @ (middle / unit.unsqueeze(1)) / unit.unsqueeze(1) / n, n, freedom)


@torch.no_grad()
def _sums(net: Surrogate, samples: Labelled, loss: SobolevLoss) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return the sums over samples of J^T J, of the scores' outer products, of the scores J^T r, and of r^2."""
    p, q = net.parameter_count, len(loss.matrix)
    normal, outer, scores, total = torch.zeros(p, p).double(), torch.zeros(p, p).double(), torch.zeros(p).double(), 0.0
    for part in chunks(samples, ROWS // (p * q), loss.order):
        outputs, slopes = jacobian(net, part.x, order=loss.order, directions=part.directions)
        slopes = (loss.matrix @ slopes).double()
        residual = ((outputs - targets(part, loss.order)) @ loss.matrix.T).double()
        score, flat = (slopes * residual.unsqueeze(-1)).sum(1), slopes.flatten(0, 1)
        normal += flat.T @ flat
        outer += score.T @ score
        scores += score.sum(0)
        total += residual.square().sum().item()
    return normal, outer, scores, total


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return eigenvalues and eigenvectors of a symmetric matrix in units in which its diagonal is 1, and the units.

    Parameters differ in size by orders of magnitude, and their variances by twice as many.
    """
    unit = matrix.diagonal().sqrt()
    unit = torch.where(unit > 0, unit, torch.ones_like(unit))
    return *torch.linalg.eigh(matrix / unit.outer(unit)), unit


def _student(normal: float, freedom: float) -> float:
    """Return the quantile of Student's distribution at the level of a normal quantile (Abramowitz & Stegun 26.7.5)."""
    z, v = normal, freedom
    terms = (
        z,
        (z**3 + z) / 4 / v,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96 / v**2,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / v**3,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160 / v**4,
    )
    return sum(terms)


@dataclass(frozen=True)
class LackOfFit:
    """Whether residuals have a mean that noise does not explain: then the network is too small, or not trained.

    Attributes:
        statistic: Sum over cells of the squared mean residuals, whitened by the covariance of all.
        expected: What it is on average if the network fits.
        chance: Probability of a statistic as large or larger if the network fits.

    Chapter 11, "What the bars do not hold".

    Example:
        >>> print(sl.LackOfFit(30.0, 16.0, 0.018))
        lack of fit: 30.0 where 16.0 is expected (chance 0.018)
    """

    statistic: float
    expected: float
    chance: float

    def __str__(self) -> str:
        """One line."""
        return f"lack of fit: {self.statistic:.1f} where {self.expected:.1f} is expected (chance {self.chance:.2g})"


@torch.no_grad()
def lack_of_fit(net: Surrogate, samples: Labelled, order: int) -> LackOfFit:
    r"""Test whether the residuals have a mean anywhere: the part of the error that more labels do not lower.

    The samples are halved four times at medians, in turn along the two directions in which the network's gradient
    varies most, into 16 cells. If the network fits, the mean residual of a cell is noise, and

    .. math::  T = \sum_{c} n_c\, \bar r_c^T\, S^{-1}\, \bar r_c

    with the covariance S of all residuals follows, about, a multiple of a :math:`\chi^2` distribution whose mean and
    variance the covariances in the cells give (Satterthwaite 1946). Fitting p parameters lowers T by p at most;
    held-out samples, whose residuals were not fitted, need no correction. Directions in which the labels of a path
    hardly vary are left out: there the smallest misfit would be seen. The noise must be independent from sample to
    sample; for Sobol' points the statistic is too small, and the test misses more.

    Args:
        net: The network.
        samples: Labels, best held out; at least 64 per label of a sample in each cell.
        order: Which labels are tested: 0, 1 or 2.

    Raises:
        ValueError: Labels missing, or too few samples.

    Chapter 11, "What the bars do not hold".

    Example:
        A straight line for a parabola.

        >>> import torch, sobolev_lib as sl
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.rand(4096, 1, dtype=torch.float64, generator=g)
        >>> value = x[:, 0] ** 2 + 0.1 * torch.randn(4096, dtype=torch.float64, generator=g)
        >>> net = sl.Surrogate([1, 1])
        >>> _ = sl.fit(net, sl.Samples(x, value), order=0, steps=0)
        >>> sl.lack_of_fit(net, sl.Samples(x, value), 0).chance < 1e-6
        True
    """
    samples = check_labels(samples, order, net.dtype)
    residuals = SobolevLoss(order, torch.eye(targets(take(samples, slice(1), order), order).shape[1], dtype=net.dtype))
    r = residuals.residuals(net, samples).double()
    n, q = r.shape
    if n < 4 * q * 2**SPLITS:
        raise ValueError(f"samples: got {n} rows, need at least {4 * q * 2**SPLITS}")
    gradient = net.gradient(samples.x)
    _, vectors = torch.linalg.eigh(gradient.T @ gradient)
    along = (samples.x.to(net.dtype) @ vectors[:, -2:].flip(1)).T  # (2, n), the first direction first
    cells = [torch.arange(n)]
    for level in range(SPLITS):
        axis = along[level % len(along)]
        cells = [half for cell in cells for half in cell[axis[cell].argsort(stable=True)].tensor_split(2)]
    sizes, vectors, unit = _eigen(torch.atleast_2d(torch.cov(r.T)))
    white = r / unit @ (vectors / sizes.clamp_min(FREE).sqrt())[:, sizes > FREE]
    statistic, mean, variance = 0.0, 0.0, 0.0
    for cell in cells:
        spread = torch.atleast_2d(torch.cov(white[cell].T))
        statistic += len(cell) * white[cell].mean(0).square().sum().item()
        mean += spread.trace().item()
        variance += 2 * spread.square().sum().item()
    half = torch.tensor([mean**2 / variance, statistic * mean / variance], dtype=torch.float64)
    return LackOfFit(statistic, mean, torch.special.gammaincc(half[0], half[1]).item())


def noise_floor(
    net: Surrogate, samples: Labelled, loss: SobolevLoss, x: Tensor, *, direction: Tensor | None = None, prior=2.0
) -> Errors:
    r"""Return the errors that the labels' noise alone leaves in a network fitted by least squares.

    The root mean square over the points of the error bars of ``uncertainty``. Values of noise :math:`\sigma` at the
    inputs of the fit give the familiar :math:`\sigma \sqrt{p / n}`. An error well above the floor is one of the network
    or of its training; an error at the floor falls with more samples only. Noise of different samples is taken to be
    independent: for Sobol' points, whose errors partly cancel, the floor is an upper estimate.

    Args:
        net: A network fitted to the samples, of at most 2,000 parameters.
        samples: The labels that it was fitted to.
        loss: The loss that it was fitted with.
        x: Points (n, d) at which the errors would be measured, raw units.
        direction: The direction of the curvature, as for ``evaluate``.
        prior: As for ``fit``.

    Returns:
        ``Errors`` with root mean squares only, a row for ``table``.

    Raises:
        ValueError: Labels missing for the loss, too many parameters, shapes that do not fit.

    Source: White, Maximum Likelihood Estimation of Misspecified Models (1982), for the covariance.

    Chapter 8, "Derivatives are more data".

    Example:
        The mean of 100 values with standard deviation 1 has the standard error 0.1; no input, so no slope is fitted.

        >>> import torch
        >>> from types import SimpleNamespace
        >>> x = torch.zeros(100, 1, dtype=torch.float64)
        >>> value = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(50)
        >>> samples = SimpleNamespace(x=x, value=value, gradient=None, hvp=None, directions=None)
        >>> loss = sl.SobolevLoss(order=0, matrix=torch.eye(1, dtype=torch.float64))
        >>> floor = sl.noise_floor(sl.Surrogate([1, 1]), samples, loss, x, prior=1e6)
        >>> round(floor.rmse["price"], 3)
        0.101
    """
    x = _check.tensor("x", x, shape=("n", net.widths[0]), least=1)
    bars = uncertainty(net, samples, loss, prior=prior).bars(x, direction=direction)
    rms = {name: getattr(bars, name).square().mean().sqrt().item() for name in QUANTITIES}
    return Errors(tuple(net.widths), net.parameter_count, rms, {})
