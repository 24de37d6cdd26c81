r"""A certified cut: as many nodes removed as can be proved to change the network little, without any labels.

Nodes are ranked by what they vary over points of the box, removed from the last rank on, and folded by regression over
these points. How many may go is found by bisection: a number is accepted if the difference to the network as it was is
proved to stay below the tolerance over the whole box. Points choose, the proof decides. Chapter 10.
"""

from dataclasses import dataclass

import torch

from sobolev_lib import _check
from sobolev_lib.certificates.error_bound import ErrorBound, error_bound
from sobolev_lib.certificates.verdicts import CELLS, check_all
from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.cut import cut
from sobolev_lib.pruning.scores import score_by_variance

__all__ = ["CertifiedCut", "cut_certified"]

POINTS = 4096


@dataclass(frozen=True, eq=False)
class CertifiedCut:
    """What ``cut_certified`` returns.

    Attributes:
        net: The smaller network; the network as it was if nothing could be proved.
        proved: How far it is from the network as it was, over the whole box; None if nothing was removed.
        sampled: Number of nodes that would be left if the largest change at the points decided instead of the proof.

    Chapter 10, "A certified cut".
    """

    net: Surrogate
    proved: ErrorBound | None
    sampled: int


def cut_certified(
    net: Surrogate, box: Interval, tolerance: float, *, gradient: float | None = None, cells: int = CELLS, seed: int = 0
) -> CertifiedCut:
    """Remove as many hidden nodes as can be proved to change the value by at most a tolerance over a box.

    Args:
        net: The network, left as it is.
        box: Raw inputs, (d,), bounded.
        tolerance: By how much the value may change.
        gradient: By how much any component of the gradient may change; default: not asked.
        cells: How many cells each proof may enclose.
        seed: Of the points by which nodes are ranked and folded.

    Returns:
        CertifiedCut.

    Raises:
        TypeError, ValueError: As ``error_bound``; a tolerance that is not positive.

    Chapter 10, "A certified cut".

    Example:
        The second node repeats the first, so one of them can go.

        >>> net = sl.Surrogate([1, 2, 1], "softplus")
        >>> _ = net.weights[0].data.fill_(1.0), net.weights[1].data.fill_(0.5)
        >>> small = sl.cut_certified(net, sl.Interval([-1.0], [1.0]), 1e-6)
        >>> small.net.widths, small.proved.value.bound <= 1e-6
        ([1, 1, 1], True)
    """
    box, _ = check_all(net, box, None)
    allowed = {"value": _check.positive("tolerance", tolerance)}
    if gradient is not None:
        allowed["gradient"] = _check.positive("gradient", gradient)
    generator = torch.Generator().manual_seed(_check.seed("seed", seed))
    u = torch.rand(POINTS, len(box), dtype=torch.float64, generator=generator)
    u[: POINTS // 4] = u[: POINTS // 4].round()  # corners, where extrapolation would start
    x = torch.lerp(box.lo, box.hi, u).to(net.dtype)
    scores, widths = score_by_variance(net, x).normalised().hidden, net.widths[1:-1]
    ranked = torch.cat([torch.where(score == score.max(), 2.0, score) for score in scores]).argsort(descending=True)

    def smaller(left: int) -> Surrogate:
        mask = torch.zeros(sum(widths), dtype=torch.bool).index_fill(0, ranked[:left], True)
        return cut(net, [part.nonzero().flatten() for part in mask.split(widths)], x=x)

    def proof(left: int) -> ErrorBound | None:
        found = error_bound(smaller(left), net, box, of=tuple(allowed), cells=cells)
        return found if all(getattr(found, name).bound <= most for name, most in allowed.items()) else None

    def agrees(left: int) -> bool:
        at = smaller(left).value_and_gradient(x), net.value_and_gradient(x)
        changes = dict(zip(("value", "gradient"), (a - b for a, b in zip(*at, strict=True)), strict=True))
        return all(changes[name].abs().max() <= most for name, most in allowed.items())

    sampled = _least(agrees, len(widths), sum(widths))
    proved: dict[int, ErrorBound | None] = {}
    kept = _least(lambda left: proved.setdefault(left, proof(left)) is not None, len(widths), sum(widths))
    return CertifiedCut(smaller(kept) if kept < sum(widths) else net.copy(), proved.get(kept), sampled)


def _least(holds, low: int, high: int) -> int:
    """Return the least number from low to high that holds, by bisection; high is taken to hold."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high
