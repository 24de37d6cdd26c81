r"""When a smaller network is as good as the large one: the judge of `shrink` and `grow`, and their record.

Let r be the residuals of a candidate and R those of the large network on the
same held-out labels. The labels' noise is common to both and drops out of the mean of

.. math::  d_i = r_i^2 - R_i^2, \qquad \operatorname{E} d = e^2 - E^2,

the candidate's *excess*: its squared error against the truth minus that of the large network. A candidate is accepted
if its excess is at most the squared tolerance or, by default, at most twice its own standard error: then the labels
that are there cannot show that it is the worse of the two, and do not justify a larger network.

A candidate that fails is trained and judged again. First it learns from the large network, whose outputs have no noise
and can be fitted with few samples; if that does not suffice, from the labels.

Source: Kichler, Afghan & Naumann (2024), section 3, for pruning until the error would rise; Hinton, Vinyals & Dean
(2015) for learning from a larger network; the paired comparison of held-out errors is that of Diebold & Mariano (1995).
Chapter 7.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check, _show
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training.fit import fit
from sobolev_lib.training.loss import Batch, Labelled, SobolevLoss, balance_by_moments, check_labels, take, targets

BLOCKS = 32  # of held-out samples, whose means give the standard error: twice it is then a 95 % limit
TAUGHT = 2**16  # samples that the large network labels: without noise, so many are plenty
SMALL = 1600  # parameters up to which Levenberg-Marquardt steps are affordable


@dataclass(frozen=True)
class Trial:
    """One candidate on the path.

    Attributes:
        action: What was cut or added.
        widths: Of the candidate.
        parameters: Their number.
        excess: Mean of :math:`d`, in squared units of the value.
        error: Its standard error.
        training: What it learned from after the cut: "-" (nothing), "network" or "labels".
        accepted: Whether the excess is within the tolerance.
    """

    action: str
    widths: tuple[int, ...]
    parameters: int
    excess: float
    error: float
    training: str
    accepted: bool


@dataclass(frozen=True)
class Path:
    """What `shrink` or `grow` tried, in order, and what it found.

    Attributes:
        trials: All candidates.
        tolerance: In units of the value, or None for twice the standard error of the excess.
        start: Widths of the large network.
        found: Widths of the network that was returned.

    Chapter 7, "The automatic way".
    """

    trials: tuple[Trial, ...]
    tolerance: float | None
    start: tuple[int, ...]
    found: tuple[int, ...]

    def __str__(self) -> str:
        """A table with one line per candidate, and a last line that says what was found, and why."""
        size = max([len("action"), *(len(t.action) for t in self.trials)])
        lines = [f"{'action':{size}}  parameters    excess +- error   trained on  verdict"]
        for t in self.trials:
            verdict = "accepted" if t.accepted else "refused"
            excess = f"{t.excess:9.0e} +- {t.error:.0e}"
            lines.append(f"{t.action:{size}}  {t.parameters:>10,} {excess}  {t.training:>11}  {verdict}")
        return "\n".join([*lines, self.reason])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        header = ["action", "widths", "parameters", "excess", "standard error", "trained on", "verdict"]
        rows = []
        for t in self.trials:
            figures = (f"{t.parameters:,}", f"{t.excess:.0e}", f"{t.error:.0e}")
            verdict = "accepted" if t.accepted else "refused"
            rows.append((t.action, "-".join(map(str, t.widths)), *figures, t.training, verdict))
        return _show.table("Candidates in the order in which they were tried", header, rows, self.reason)

    @property
    def reason(self) -> str:
        """What was found and by which rule, in one sentence."""
        shown = "-".join(map(str, self.found))
        rule = "twice its standard error" if self.tolerance is None else f"{self.tolerance:g} squared"
        if self.found == self.start:
            return f"No other network was within the tolerance (excess at most {rule}): {shown} stays as it is."
        return f"{shown} is the smallest network found whose excess is at most {rule}."


class Search:
    """What all candidates share: the judge, the samples, the large network, and the record of trials."""

    def __init__(self, net, train, held, order, tolerance, seed):
        self.net, self.train, self.held, self.order = net, train, held, order
        self.tolerance, self.seed = tolerance, seed
        self.trials: list[Trial] = []
        self.last = net
        matrix = balance_by_moments(held, order).matrix * held.value.std()  # times the unit of the values
        self.loss = SobolevLoss(order, matrix)
        self.reference = self._squares(net)

    @torch.no_grad()
    def _squares(self, net: Surrogate) -> Tensor:
        parts = (take(self.held, rows, self.order) for rows in _chunks(len(self.held.x)))
        return torch.cat([self.loss.residuals(net, part).square().sum(1) for part in parts])

    def judge(self, net: Surrogate) -> tuple[float, float, bool]:
        """Return the excess, its standard error from means of blocks of consecutive samples, and the verdict.

        A block of quasi-random samples is balanced in itself, so its mean varies as little as they allow.
        """
        gaps = self._squares(net) - self.reference
        means = torch.stack([block.mean() for block in gaps.tensor_split(BLOCKS)])
        excess, error = gaps.mean().item(), (means.std() / BLOCKS**0.5).item()
        limit = 2 * error if self.tolerance is None else self.tolerance**2
        return excess, error, excess <= limit  # NaN is refused

    def attempt(self, action: str, candidate: Surrogate) -> Surrogate | None:
        """Judge a candidate as it is, then after learning from the network, then from the labels; return the best.

        Nothing is returned if all three are refused; what learned from the network then stays in `self.last`.
        """
        outcomes = []
        for training in ("-", "network", "labels"):
            if training != "-":
                candidate = candidate.copy()
                source = self.taught if training == "network" else self.train
                learn(candidate, source, training, self.order, self.seed)
            if training == "network":
                self.last = candidate
            outcomes.append((*self.judge(candidate), training, candidate))
            if outcomes[-1][2]:
                break
        excess, error, accepted, training, candidate = min(outcomes, key=lambda o: (not o[2], o[0]))
        widths, count = tuple(candidate.widths), candidate.parameter_count
        self.trials.append(Trial(action, widths, count, excess, error, training, accepted))
        if accepted:
            self.last = candidate
        return candidate if accepted else None

    def path(self, found: Surrogate) -> Path:
        """Return the record, for the network that is returned."""
        return Path(tuple(self.trials), self.tolerance, tuple(self.net.widths), tuple(found.widths))

    @functools.cached_property
    def taught(self) -> Batch:
        """The first samples, with the large network's outputs as labels."""
        some = take(self.train, slice(0, TAUGHT), self.order)
        parts = []
        with torch.no_grad():
            for rows in _chunks(len(some.x)):
                part = take(some, rows, self.order)
                parts.append(self.net.taylor(part.x, order=self.order, directions=part.directions))
        outputs = [torch.cat(kind) for kind in zip(*parts, strict=True)]
        return Batch(
            some.x, directions=some.directions, **dict(zip(("value", "gradient", "hvp"), outputs, strict=False))
        )


def _chunks(n: int):
    """Rows in pieces: a large network's pass over all samples at once would fill the memory."""
    return (slice(start, min(start + 8192, n)) for start in range(0, n, 8192))


def learn(net: Surrogate, samples: Labelled, source: str, order: int, seed: int) -> None:
    """Train a candidate: Levenberg-Marquardt if it is small enough, else Adam. What has no noise needs no prior."""
    p, q = net.parameter_count, targets(take(samples, slice(1), order), order).shape[1]
    if p > SMALL:
        fit(net, samples, order=order, steps=300, batch=256, learning_rate=1e-3, seed=seed)
        return
    exact = source == "network"
    rows = max(int((4e9 if exact else 1.6e10) / (q * p**2)), 8 * p // q)
    some = take(samples, slice(0, rows), order)
    fit(net, some, order=order, steps=0, finish=20 if p <= 500 else 10, prior=math.inf if exact else 2.0)


def begin(net, samples, order, tolerance, validation, seed) -> Search:
    """Check the arguments, and split the samples."""
    _check.instance("net", net, Surrogate)
    check_labels(samples, order)
    if tolerance is not None:
        tolerance = _check.positive("tolerance", tolerance)
    seed = _check.count("seed", seed, least=0)
    n = len(samples.x)
    if isinstance(validation, int | float):
        if not 0 < validation < 1:
            raise ValueError(f"validation: got {validation}, need samples, or a share between 0 and 1")
        start = n - int(validation * n)
        train, held = take(samples, slice(0, start), order), take(samples, slice(start, n), order)
    else:
        check_labels(validation, order)
        train, held = take(samples, slice(0, n), order), take(validation, slice(0, len(validation.x)), order)
    if len(held.x) < 2 * BLOCKS:
        raise ValueError(f"validation: got {len(held.x)} held-out samples, need at least {2 * BLOCKS}")
    return Search(net, train, held, order, tolerance, seed)
