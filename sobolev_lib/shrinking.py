r"""`shrink`: the smallest network that the labels cannot tell from the large one. And `grow`, the other direction.

Cutting needs a rule for when to stop. Let r be the residuals of a candidate and R those of the large network on the
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.network import Surrogate
from sobolev_lib.pruning import affine_layers, cut, keep_most, remove_layers
from sobolev_lib.significance import balls, significance
from sobolev_lib.sobolev import Batch, Labelled, SobolevLoss, balance_by_moments, check_labels, take
from sobolev_lib.training import fit

BLOCKS = 32  # of held-out samples, whose means give the standard error: twice it is then a 95 % limit
RADIUS = 0.1  # of the balls for the scores, in standard deviations of each input
FOLD = 16_384  # samples over which cut nodes are folded: enough for a regression on a hundred nodes
NARROW = 8  # nodes per layer from which on layers and nodes are removed one by one
TAUGHT = 2**16  # samples that the large network labels: without noise, so many are plenty
SMALL = 1600  # parameters up to which Levenberg-Marquardt steps are affordable

Score = Callable[[Surrogate], Sequence[Tensor]]


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

    @property
    def reason(self) -> str:
        """One sentence that says what was found and by which rule."""
        shown = "-".join(map(str, self.found))
        rule = "twice its standard error" if self.tolerance is None else f"{self.tolerance:g} squared"
        if self.found == self.start:
            return f"No other network was within the tolerance (excess at most {rule}): {shown} stays as it is."
        return f"{shown} is the smallest network found whose excess is at most {rule}."


def shrink(
    net: Surrogate,
    samples: Labelled,
    *,
    order: int = 0,
    tolerance: float | None = None,
    validation: Labelled | float = 0.25,
    enough: int = 1,
    score: Score | None = None,
    seed: int = 0,
) -> tuple[Surrogate, Path]:
    r"""Return the smallest network found whose held-out error is that of `net`, within the tolerance, and the path.

    The widths are halved while that helps; then whole layers go, those closest to affine first; then single nodes, the
    least significant of each layer first; the last two until nothing more is accepted. Nodes are folded by regression
    (see ``cut``).

    Args:
        net: A trained network, left as it is.
        samples: Labels to learn from.
        order: 0 holds the candidates to the values, 1 and 2 also to the derivative labels, which must be there;
            derivatives count in the shares of ``balance_by_moments``.
        tolerance: Largest root of the excess that is accepted, in units of the value. Default: the excess may be up to
            twice its standard error, so more held-out labels allow less.
        validation: Held-out labels that neither `net` nor `samples` have seen: with labels that `net` was trained on,
            the comparison favours it. A number is the share of `samples` to hold out, from their end. Sobol' samples
            need a scramble of their own: the end of a Sobol' sequence fills the gaps of its start.
        enough: Stop as soon as an accepted network has at most so many parameters.
        score: Function from a network to scores of its hidden nodes. Default: ``significance`` over balls around 256
            samples, of the value, or at order 1 and 2 of value and gradient (normalised, added).
        seed: Of the training between cuts.

    Returns:
        The network, and a ``Path``: printed, it is a table. If no smaller network is within the tolerance, a copy of
        `net` is returned, and the path says so.

    Raises:
        ValueError: Labels missing for `order`; a share outside (0, 1); a tolerance that is not positive; fewer than 64
            held-out samples.

    Example:
        A network whose second node is a copy of the first loses it, since one node can do the work of both.

        >>> from types import SimpleNamespace
        >>> x = torch.linspace(-2, 2, 256, dtype=torch.float64).reshape(-1, 1)
        >>> net = Surrogate([1, 2, 1], "tanh", gain=1.0, generator=torch.Generator().manual_seed(0))
        >>> _ = net.weights[0].data.fill_(1.0)
        >>> samples = SimpleNamespace(x=x, value=net(x).detach(), gradient=None, hvp=None, directions=None)
        >>> small, path = shrink(net, samples, validation=samples, tolerance=1e-6)
        >>> small.widths
        [1, 1, 1]
    """
    search = _begin(net, samples, order, tolerance, validation, score, seed)
    enough = _check.count("enough", enough)
    small = _Descent(search, enough).run()
    return small, Path(tuple(search.trials), search.tolerance, tuple(net.widths), tuple(small.widths))


def grow(
    net: Surrogate,
    samples: Labelled,
    *,
    hidden: int = 2,
    order: int = 0,
    tolerance: float | None = None,
    validation: Labelled | float = 0.25,
    most: int = 500,
    seed: int = 0,
) -> tuple[Surrogate, Path]:
    """Return a network that was grown from one node per layer until it is as good as `net`, and the path.

    Every round adds one node, in the layer where it lowers the excess most. The new node starts with random weights in
    and zero weights out, so it changes nothing until it is trained; training is that of `shrink`.

    Args:
        net: The network to match, left as it is; it also is the one that candidates learn from.
        samples: Labels to learn from.
        hidden: Number of hidden layers.
        order: See ``shrink``.
        tolerance: See ``shrink``.
        validation: See ``shrink``.
        most: Give up above so many parameters.
        seed: Of new nodes' weights and of the training.

    Returns:
        The network and a ``Path``. If none with at most `most` parameters is within the tolerance, a copy of `net`.

    Raises:
        ValueError: As ``shrink``; no hidden layer.
    """
    hidden = _check.count("hidden", hidden)
    most = _check.count("most", most)
    search = _begin(net, samples, order, tolerance, validation, None, seed)
    grown = _ascent(search, hidden, most)
    return grown, Path(tuple(search.trials), search.tolerance, tuple(net.widths), tuple(grown.widths))


class _Search:
    """What all candidates share: the judge, the samples, the large network, and the record of trials."""

    def __init__(self, net, train, held, order, tolerance, score, seed):
        self.net, self.train, self.held, self.order = net, train, held, order
        self.tolerance, self.score, self.seed = tolerance, score, seed
        self.trials: list[Trial] = []
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
    p, q = net.parameter_count, 1 + (order >= 1) * net.widths[0]
    if p > SMALL:
        fit(net, samples, order=order, steps=300, batch=256, learning_rate=1e-3, seed=seed)
        return
    exact = source == "network"
    rows = max(int((4e9 if exact else 1.6e10) / (q * p**2)), 8 * p // q)
    some = take(samples, slice(0, rows), order)
    fit(net, some, order=order, steps=0, finish=20 if p <= 500 else 10, prior=math.inf if exact else 2.0)


class _Descent:
    """The three ways to make the network smaller."""

    def __init__(self, search: _Search, enough: int):
        self.search, self.enough = search, enough
        self.best = search.net.copy()

    def run(self) -> Surrogate:
        """Halve; then layers and nodes in turn, until one of them changes nothing."""
        self._halve()
        self._drop_layers()
        while self._drop_nodes() and self._drop_layers():
            pass
        return self.best

    def _done(self) -> bool:
        return self.best.parameter_count <= self.enough

    def _try(self, action: str, candidate: Surrogate) -> bool:
        accepted = self.search.attempt(action, candidate)
        if accepted is not None:
            self.best = accepted
        return accepted is not None

    def _halve(self) -> None:
        """Halve the widths of a large network, past refusals: what is small enough to be trained well may pass."""
        net = self.best
        while not self._done() and max(net.widths[1:-1], default=1) > NARROW:
            widest = max(net.widths[1:-1])
            kept = keep_most(self.search.score(net), [min(widest // 2, width) for width in net.widths[1:-1]])
            candidate = cut(net, kept, x=self.search.train.x[:FOLD])
            self._try(f"{widest // 2} of {widest} nodes in each layer", candidate)
            net = self.search.last

    def _drop_layers(self) -> bool:
        """Remove layers until one is refused; return whether any was removed."""
        before = self.best
        while not self._done() and len(self.best.widths) > 3:
            (layer,) = affine_layers(self.best, self.search.train.x[:4096], 1)
            candidate = remove_layers(self.best, [layer], self.search.train.x[:FOLD])
            if not self._try(f"without hidden layer {layer + 1} of {len(self.best.widths) - 2}", candidate):
                break
        return self.best is not before

    def _drop_nodes(self) -> bool:
        """Remove nodes until none can go in any layer; return whether any was removed."""
        before = self.best
        while not self._done() and any(self._try(*candidate) for candidate in self._smaller_by_one(self.best)):
            pass
        return self.best is not before

    def _smaller_by_one(self, net: Surrogate):
        """Yield networks with a node less (an eighth of the nodes, while there are many), least significant first."""
        scores = [layer / layer.sum().clamp_min(torch.finfo(layer.dtype).tiny) for layer in self.search.score(net)]
        for layer in sorted(range(len(scores)), key=lambda i: scores[i].min().item()):
            width = len(scores[layer])
            less = max(1, width // 8)
            if width > less:
                counts = [len(s) - less * (i == layer) for i, s in enumerate(scores)]
                candidate = cut(net, keep_most(scores, counts), x=self.search.train.x[:FOLD])
                yield f"{width - less} of {width} nodes in layer {layer + 1}", candidate


def _ascent(search: _Search, hidden: int, most: int) -> Surrogate:
    """Add nodes until a network is accepted."""
    generator = torch.Generator().manual_seed(search.seed)
    d = search.net.widths[0]
    net = Surrogate([d, *[1] * hidden, 1], search.net.activation, dtype=search.net.dtype, generator=generator, gain=1.0)
    net.load_state_dict({**net.state_dict(), **dict(search.net.named_buffers())})
    accepted = search.attempt("one node in each layer", net)
    while accepted is None:
        base, options = search.last, []
        for layer in range(hidden):
            wider = _widen(base, layer, generator)
            if wider.parameter_count > most:
                return search.net.copy()
            found = search.attempt(f"{wider.widths[layer + 1]} nodes in layer {layer + 1}", wider)
            options.append((search.trials[-1].excess, layer, search.last, found))
        _, _, search.last, accepted = min(options, key=lambda option: option[:2])
    return accepted


@torch.no_grad()
def _widen(net: Surrogate, layer: int, generator: torch.Generator) -> Surrogate:
    """Return the same function with one more node in a hidden layer: random weights in, none out."""
    weights, biases = list(net.weights), list(net.biases)
    fan_in = weights[layer].shape[1]
    row = torch.randn(1, fan_in, dtype=net.dtype, generator=generator) / fan_in**0.5
    weights[layer] = torch.cat([weights[layer], row])
    biases[layer] = torch.cat([biases[layer], torch.randn(1, dtype=net.dtype, generator=generator)])
    weights[layer + 1] = torch.cat([weights[layer + 1], torch.zeros_like(weights[layer + 1][:, :1])], 1)
    return Surrogate.from_layers(weights, biases, net.activation, scaling=dict(net.named_buffers()))


def _begin(net, samples, order, tolerance, validation, score, seed) -> _Search:
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
    return _Search(net, train, held, order, tolerance, score or _default_score(net, train.x, order), seed)


def _default_score(net: Surrogate, x: Tensor, order: int) -> Score:
    box = balls(x[:256], radius=RADIUS * net.input_scale)

    def score(candidate: Surrogate) -> list[Tensor]:
        of_value = significance(candidate, box).normalised().hidden
        if order == 0:
            return of_value
        of_gradient = significance(candidate, box, of="gradient").normalised().hidden
        return [a + b for a, b in zip(of_value, of_gradient, strict=True)]

    return score
