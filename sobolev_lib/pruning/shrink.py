r"""`shrink`: the smallest network that the labels cannot tell from the large one.

Scores say which node is the next to go, cutting folds what it contributed, and held-out labels say when to stop. The
rule is a paired comparison. Let r be the residuals of a candidate and R those of the large network on the same held-out
labels. The labels' noise is common to both and drops out of the mean of

.. math::  d_i = r_i^2 - R_i^2, \qquad \operatorname{E} d = e^2 - E^2,

the candidate's *excess*: its squared error against the truth minus that of the large network. A candidate is accepted
if its excess is at most the squared tolerance or, by default, at most twice its own standard error: then the labels
that are there cannot show that it is the worse of the two, and do not justify a larger network.

Source: Kichler, Afghan & Naumann (2024), section 3, for pruning until the error would rise; the paired comparison of
held-out errors is that of Diebold & Mariano (1995). Chapter 7.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.cut import affine_layers, cut, keep_most, remove_layers
from sobolev_lib.pruning.judge import Path, Search, begin
from sobolev_lib.pruning.significance import balls, significance
from sobolev_lib.training.loss import Labelled

RADIUS = 0.1  # of the balls for the scores, in standard deviations of each input
FOLD = 16_384  # samples over which cut nodes are folded: enough for a regression on a hundred nodes
NARROW = 8  # nodes per layer from which on layers and nodes are removed one by one

Score = Callable[[Surrogate], Sequence[Tensor]]


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
        The network, and a ``Path``, which prints as a table. If no smaller network is within the tolerance, a copy of
        `net` is returned, and the path says so.

    Raises:
        ValueError: Labels missing for `order`; a share outside (0, 1); a tolerance that is not positive; fewer than 64
            held-out samples.

    Chapter 7, "The automatic way".

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
    enough = _check.count("enough", enough)
    search = begin(net, samples, order, tolerance, validation, seed)
    small = _Descent(search, score or _default_score(net, search.train.x, order), enough).run()
    return small, search.path(small)


class _Descent:
    """The three ways to make the network smaller."""

    def __init__(self, search: Search, score: Score, enough: int):
        self.search, self.score, self.enough = search, score, enough
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
            kept = keep_most(self.score(net), [min(widest // 2, width) for width in net.widths[1:-1]])
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
        scores = [layer / layer.sum().clamp_min(torch.finfo(layer.dtype).tiny) for layer in self.score(net)]
        for layer in sorted(range(len(scores)), key=lambda i: scores[i].min().item()):
            width = len(scores[layer])
            less = max(1, width // 8)
            if width > less:
                counts = [len(s) - less * (i == layer) for i, s in enumerate(scores)]
                candidate = cut(net, keep_most(scores, counts), x=self.search.train.x[:FOLD])
                yield f"{width - less} of {width} nodes in layer {layer + 1}", candidate


def _default_score(net: Surrogate, x: Tensor, order: int) -> Score:
    box = balls(x[:256], radius=RADIUS * net.input_scale)

    def score(candidate: Surrogate) -> list[Tensor]:
        of_value = significance(candidate, box).normalised().hidden
        if order == 0:
            return of_value
        of_gradient = significance(candidate, box, of="gradient").normalised().hidden
        return [a + b for a, b in zip(of_value, of_gradient, strict=True)]

    return score
