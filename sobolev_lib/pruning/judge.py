r"""Which of several networks do held-out labels justify? The judge of `shrink` and `grow`, and their record.

Let r be the residuals of a network on labels that it has not seen: values and all derivatives that the labels hold,
whitened (``balance_by_covariance``), the same for all networks. The *excess* of a candidate over the best network,

.. math::  d_i = \lVert r_i \rVert^2 - \lVert r_i^{best} \rVert^2, \qquad \operatorname{E} d = e^2 - e_{best}^2,

is what its squared error against the truth is larger by: the labels' noise is common to both and drops out. The error
of a network with p parameters that were fitted to n labels has two parts, what its form cannot follow, which grows as
nodes go, and what the labels' noise did to the parameters, about p/n in squares, which falls. The justified network
has the least sum: the judge takes the smallest network whose excess is at most 1.3 standard errors, which one in ten
of truly equal networks exceeds. Two bounds keep the rule sensible where the standard error is not: a tenth of p/n of
the best is always allowed, since nobody will notice it; more than p/n never is, however noisy the labels.

Source: Breiman et al., Classification and Regression Trees (1984), section 3.4.3, for the smallest within one standard
error of the best; Diebold & Mariano (1995) for the paired comparison. Chapter 7.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _show
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training.loss import Batch, Labelled, SobolevLoss, check_labels, stack, take

BLOCKS = 32  # of held-out samples, whose means give the standard error
STRICT = 1.3  # standard errors that one in ten of truly equal networks exceeds
LEAST, MOST = 0.1, 1.0  # of the best network's statistical error p/n: an excess always allowed, and never
POWER = 1.3  # further standard errors: an excess that is refused nine times in ten
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
    """

    action: str
    widths: tuple[int, ...]
    parameters: int
    excess: float
    error: float
    accepted: bool


@dataclass(frozen=True)
class Path:
    """What `shrink` or `grow` tried, in order, and what it found.

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
        lines = [f"{'action':{size}}  parameters    excess +- error   verdict"]
        for action, _, count, excess, error, verdict in self._rows():
            lines.append(f"{action:{size}}  {count:>10} {excess:>9} +- {error}   {verdict}")
        return "\n".join([*lines, self.reason])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        header = ["action", "widths", "parameters", "excess", "standard error", "verdict"]
        return _show.table("Networks in the order in which they were tried", header, self._rows(), self.reason)

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for i, t in enumerate(self.trials):
            verdict = "best" if i == self.best else "accepted" if t.accepted else "refused"
            figures = (f"{t.parameters:,}", f"{t.excess:.0e}", f"{t.error:.0e}")
            yield (t.action, "-".join(map(str, t.widths)), *figures, verdict)

    @property
    def reason(self) -> str:
        """What was found, compared with what and with which power, in one sentence."""
        found, best = (self.trials[i] for i in (self.found, self.best))
        names = ["-".join(map(str, t.widths)) + f" ({t.parameters:,} parameters)" for t in (found, best)]
        power = f"a network whose {QUANTITIES[self.order]} is off by {self.seen:.1%} would have been seen"
        held = f"by {self.rows:,} held-out labels"
        if self.found == self.best:
            smaller = "none of the smaller ones is within the limit"
            return f"Of {len(self.trials)} networks {names[0]} is the best {held}, and {smaller}; {power}."
        rule = f"smallest of {len(self.trials)} networks not told {held} from the best"
        return f"{names[0]} is the {rule}, {names[1]}; {power}."


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
            verdicts.append((excess, error, excess <= min(max(STRICT * error, LEAST * floor), MOST * floor)))
        return best, verdicts

    def choose(self, actions: Sequence[str], nets: Sequence[Surrogate]) -> tuple[int, Path]:
        """Return which network is the smallest accepted one, and the record of all."""
        best, verdicts = self.verdicts(nets)
        accepted = [i for i, verdict in enumerate(verdicts) if verdict[2]]
        found = min(accepted, key=lambda i: (nets[i].parameter_count, verdicts[i][0]))
        facts = zip(actions, nets, verdicts, strict=True)
        trials = tuple(Trial(action, tuple(n.widths), n.parameter_count, *verdict) for action, n, verdict in facts)
        return found, Path(trials, found, best, len(self.held.x), self._seen(nets[best]), self.loss.order)

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
        by_noise = (STRICT + POWER) * product.std().item() / len(self.held.x) ** 0.5 / max(size, 1e-300)
        by_floor = (LEAST * net.parameter_count / self.rows / max(size, 1e-300)) ** 0.5
        return max(by_noise, by_floor)


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
    return train, held, order
