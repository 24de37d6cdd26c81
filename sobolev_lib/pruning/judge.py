r"""Which of several networks do held-out labels justify? The judge of `shrink`, and its record.

Let r be the residuals of a network on labels that it has not seen: values and all derivatives that the labels hold,
whitened (``balance_by_covariance``), the same for all networks. The *excess* of a candidate over the best network,

.. math::  d_i = \lVert r_i \rVert^2 - \lVert r_i^{best} \rVert^2, \qquad \operatorname{E} d = e^2 - e_{best}^2,

is what its squared error against the truth is larger by: the labels' noise is common to both and drops out. The error
of a network with p parameters that were fitted to n labels has two parts, what its form cannot follow, which grows as
nodes go, and what the labels' noise did to the parameters, about p/n in squares, which falls. The justified network
has the least sum. A candidate is *accepted* if its excess is at most 1.5 standard errors, which one in fifteen of truly
equal networks exceeds, and at most its own p/n, however noisy the labels: what it cannot follow then costs no more than
its parameters do.

Labels that cannot tell two networks apart do not say that they are equal, and of curvature they may say nothing. But
the accepted networks are so many answers to the same question. Where the labels decide, they agree; their mean is
closer to the truth than most of them, as a committee's judgement is; and a network that has lost something differs
from it in value, gradient or curvature, which can be computed at any point without noise. Among the accepted ones the
judge takes the smallest that is at most twice as far from their mean as the nearest.

Source: Breiman et al., Classification and Regression Trees (1984), section 3.4.3, for the smallest within one standard
error of the best; Diebold & Mariano (1995) for the paired comparison; Breiman, Bagging Predictors (1996), for the mean
of several predictors. Chapter 7.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from sobolev_lib import _show
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training.loss import Batch, Labelled, SobolevLoss, check_labels, stack, take

__all__ = ["Path"]

BLOCKS = 32  # of held-out samples, whose means give the standard error
STRICT = 1.5  # standard errors that one in fifteen of truly equal networks exceeds
POWER = 1.3  # further standard errors: an excess that is refused nine times in ten
APART = 2.0  # times the least distance from the mean of the accepted networks
POINTS, DIRECTIONS = 1024, 8  # at which networks are compared with each other, and along which their curvature is
FIRST = "in one stroke, trained"  # the widest network that learns from all labels
QUANTITIES = ("value", "gradient", "curvature")


@dataclass(frozen=True)
class Trial:
    """One network on the path.

    Attributes:
        action: What was cut or added.
        widths: Of the network.
        parameters: Their number.
        excess: Mean of :math:`d`, whitened: 1 is the variance of one label's noise.
        error: Its standard error.
        accepted: Whether the excess is within the limit.
        apart: Relative distance from the mean of the accepted networks, the geometric mean of those of value, gradient
            and curvature.
    """

    action: str
    widths: tuple[int, ...]
    parameters: int
    excess: float
    error: float
    accepted: bool
    apart: float


@dataclass(frozen=True)
class Path:
    """What `shrink` tried, in order, and what it found.

    Attributes:
        trials: All networks, the one that was handed over first.
        found: Which of them was returned.
        best: Which of them had the smallest held-out error.
        rows: Number of held-out samples.
        seen: Relative error of the best network's gradient (value, curvature: the highest order of the labels) which
            the judge would have refused in nine of ten cases.
        order: Of the labels.

    Chapter 7, "The automatic way".
    """

    trials: tuple[Trial, ...]
    found: int
    best: int
    rows: int
    seen: float
    order: int

    def __str__(self) -> str:
        """A table with one line per network, and a last line that says what was found, and why."""
        size = max(len("action"), *(len(t.action) for t in self.trials))
        lines = [f"{'action':{size}}  parameters    excess +- error   apart   verdict"]
        for action, _, count, excess, error, apart, verdict in self._rows():
            lines.append(f"{action:{size}}  {count:>10} {excess:>9} +- {error}  {apart:>6}   {verdict}")
        return "\n".join([*lines, textwrap.fill(self.reason, 88)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        header = ["action", "widths", "parameters", "excess", "standard error", "apart", "verdict"]
        return _show.table("Networks in the order in which they were tried", header, self._rows(), self.reason)

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for i, t in enumerate(self.trials):
            verdict = "best" if i == self.best else "accepted" if t.accepted else "refused"
            figures = (f"{t.parameters:,}", f"{t.excess:.0e}", f"{t.error:.0e}", f"{t.apart:.1%}")
            yield (t.action, "-".join(map(str, t.widths)), *figures, verdict)

    @property
    def reason(self) -> str:
        """What was found, compared with what and with which power, in one sentence."""
        found, best = (self.trials[i] for i in (self.found, self.best))
        names = ["-".join(map(str, t.widths)) + f" ({t.parameters:,} parameters)" for t in (found, best)]
        power = f"a network whose {QUANTITIES[self.order]} is off by {self.seen:.1%} would have been seen"
        if self.trials[self.found].action == FIRST:
            power += "; nothing wider was trained, and might do better"
        number = sum(t.accepted for t in self.trials)
        which = f"{number} of {len(self.trials)} networks that {self.rows:,} held-out labels do not tell from the best"
        if number == 1:
            return f"{names[0]} is the best of {len(self.trials)} networks, and no other is within the limit; {power}."
        best_one = "which it is" if self.found == self.best else names[1]
        return f"{names[0]} is the smallest near the mean of the {which}, {best_one}; {power}."


class Judge:
    """Compares networks on held-out labels.

    Attributes:
        loss: The whitening balance, the same for all.
        held: The labels.
        rows: Number of labels that the networks were trained on, for p/n.
    """

    def __init__(self, loss: SobolevLoss, held: Batch, rows: int):
        self.loss, self.held, self.rows = loss, held, rows

    def verdicts(self, nets: Sequence[Surrogate]) -> tuple[int, list[tuple[float, float, bool]]]:
        """Return which network is the best, and for each its excess, the standard error, and whether it is accepted.

        The standard error is that of the means of blocks of consecutive samples: a block of quasi-random samples is
        balanced in itself, so its mean varies as little as they allow.
        """
        squared = torch.stack([squares(net, self.loss, self.held) for net in nets]).nan_to_num(torch.inf)
        means = squared.mean(1)
        best = int(means.argmin())
        noise = means[best].item() / len(self.loss.matrix)  # 1, if the balance is right
        verdicts = []
        for net, own in zip(nets, squared, strict=True):
            gaps, floor = own - squared[best], noise * net.parameter_count / self.rows
            error = torch.stack([block.mean() for block in gaps.tensor_split(BLOCKS)]).std().item() / BLOCKS**0.5
            excess = gaps.mean().item()
            verdicts.append((excess, error, excess <= min(STRICT * error, floor)))
        return best, verdicts

    def choose(self, actions: Sequence[str], nets: Sequence[Surrogate]) -> tuple[int, Path]:
        """Return the smallest accepted network near the mean of the accepted ones, and the record of all."""
        best, verdicts = self.verdicts(nets)
        accepted = [i for i, verdict in enumerate(verdicts) if verdict[2]]
        apart = self._apart(nets, accepted)
        near = [i for i in accepted if apart[i] <= APART * min(apart[k] for k in accepted)]
        found = min(near, key=lambda i: (nets[i].parameter_count, apart[i]))
        facts = zip(actions, nets, verdicts, apart, strict=True)
        trials = tuple(Trial(action, tuple(n.widths), n.parameter_count, *v, far) for action, n, v, far in facts)
        return found, Path(trials, found, best, len(self.held.x), self._seen(nets[best]), self.loss.order)

    @torch.no_grad()
    def _apart(self, nets: Sequence[Surrogate], accepted: list[int]) -> list[float]:
        """Return each network's relative distance from the mean of the accepted ones."""
        x = self.held.x[:POINTS]
        d, smooth = x.shape[1], all(net.activation.smooth for net in nets)
        signs = torch.randint(0, 2, (DIRECTIONS, d), generator=torch.Generator().manual_seed(0)) * 2 - 1
        directions = (torch.eye(d) if d <= DIRECTIONS else signs) * self.held.x.std(0)
        outputs = [n.taylor(x, order=2 if smooth else 1, directions=directions if smooth else None) for n in nets]
        distances = []
        for kind in zip(*outputs, strict=True):
            unit = 1 if kind[0].ndim == 1 else self.held.x.std(0)
            kind = torch.stack([part * unit for part in kind])
            mean = kind[accepted].mean(0)
            size = (mean - (mean.mean() if mean.ndim == 1 else 0)).square().mean().clamp_min(1e-300)
            distances.append((((kind - mean).square().flatten(1).mean(1) / size).sqrt() + 1e-12).log())
        return torch.stack(distances).mean(0).exp().tolist()

    @torch.no_grad()
    def _seen(self, net: Surrogate) -> float:
        """Return how far off the highest order's outputs must be, as a share, to be refused nine times in ten.

        Outputs that are wrong by the share s add :math:`s^2 A` to the mean square, A that of the outputs themselves,
        and the standard error of this excess is s times that of twice the product of residuals and outputs.
        """
        some, order = take(self.held, slice(0, 8192), self.loss.order), self.loss.order
        outputs = list(net.taylor(some.x, order=order, directions=some.directions))
        outputs[0] = outputs[0] - outputs[0].mean()
        own = stack(*(part * (i == order) for i, part in enumerate(outputs))) @ self.loss.matrix.T
        size = own.square().sum(1).mean().item()
        product = 2 * (own * self.loss.residuals(net, some)).sum(1)
        return (STRICT + POWER) * product.std().item() / len(self.held.x) ** 0.5 / max(size, 1e-300)


@torch.no_grad()
def squares(net: Surrogate, loss: SobolevLoss, samples: Labelled) -> Tensor:
    """Return the squared norms of the balanced residuals, (n,), computed in pieces that fit the memory."""
    rows = (slice(start, start + 8192) for start in range(0, len(samples.x), 8192))
    return torch.cat([loss.residuals(net, take(samples, part, loss.order)).square().sum(1) for part in rows])


def split(samples: Labelled, order: int | None, validation: Labelled | float) -> tuple[Batch, Batch, int]:
    """Return what to train on, what to hold out, and the order: by default the highest that the labels have."""
    if order is None:
        order = 0 if samples.gradient is None else 1 if samples.hvp is None else 2
    check_labels(samples, order)
    n = len(samples.x)
    if isinstance(validation, Real):
        if not 0 < validation < 1:
            raise ValueError(f"validation: got {validation}, need samples, or a share between 0 and 1")
        start = n - int(validation * n)
        train, held = take(samples, slice(0, start), order), take(samples, slice(start, n), order)
    else:
        check_labels(validation, order, name="validation")
        train, held = take(samples, slice(0, n), order), take(validation, slice(0, len(validation.x)), order)
    if len(held.x) < 2 * BLOCKS:
        raise ValueError(f"validation: got {len(held.x)} held-out samples, need at least {2 * BLOCKS}")
    return train, held, order
