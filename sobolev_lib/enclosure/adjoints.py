r"""Interval adjoints: enclosures of every node of a network, and of the derivatives with respect to each.

Over a box of inputs, one sweep forward encloses the nodes and one backward their adjoints (notation of the module
``twin``; brackets are enclosures over the box):

.. math::

    [z_l] = W_l [a_{l-1}] + b_l, \quad [a_l] = f([z_l]), \qquad
    [\bar a_l] = W_{l+1}^T [\bar z_{l+1}], \quad [\bar z_l] = f'([z_l])\, [\bar a_l].

At order 2, for each direction v, a tangent sweep encloses :math:`\dot s`, the derivative of each node along v, and
one more adjoint sweep the derivative of :math:`g = v \cdot \nabla N` with respect to each node, written
:math:`\dot{\bar s}`:

.. math::

    [\dot z_l] = W_l [\dot a_{l-1}], \quad [\dot a_l] = f'([z_l])\, [\dot z_l], \qquad
    [\dot{\bar z}_l] = f'([z_l])\, [\dot{\bar a}_l] + f''([z_l])\, [\dot z_l]\, [\bar a_l].

The domain says what stands between the brackets: intervals (``"natural"``: fast, and very wide for deep networks)
or zonotopes, which remember where uncertainty comes from and are intersected with the intervals at every node, so
never wider. Enclosures are computed in float64 whatever the network's dtype; a float32 network is an exact function
of its float32 weights. Chapter 6.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.enclosure.interval import Interval, mid, subset
from sobolev_lib.enclosure.rounding import mode
from sobolev_lib.enclosure.sweeps import Enclosure, Sweep, concatenate, layers_of, over_fields
from sobolev_lib.network.surrogate import Surrogate

__all__ = ["Enclosure", "Split", "enclose"]

DOMAINS = ("natural", "zonotope")


@dataclass(frozen=True)
class Split:
    """A domain: the box is cut into ``pieces`` sub-boxes, enclosed in another domain, and their hull is returned.

    Adaptive: in each round the half of the sub-boxes that determine the hull most are cut in two, across the input
    whose side times the width of its derivative is largest, and what is known of a sub-box holds for both halves. So
    more pieces are never wider, up to the last bit. Natural enclosures approach the range at first order in the size
    of the pieces, zonotopes at second order.

    Raises:
        ValueError: Less than one piece, an unknown domain.

    Chapter 6, "Orders of convergence, measured".

    Example:
        More pieces are narrower.

        >>> net, box = sl.Surrogate([2, 4, 1], gain=2.0), sl.Interval([-1.0, -1.0], [1.0, 1.0])
        >>> wide, cut = (sl.enclose(net, box, domain=sl.Split(pieces, "natural")).value for pieces in (1, 16))
        >>> bool(cut.hi - cut.lo < wide.hi - wide.lo)
        True
    """

    pieces: int
    domain: str = "zonotope"

    def __post_init__(self):
        _check.count("pieces", self.pieces)
        _check.choice("domain", self.domain, DOMAINS)


@torch.no_grad()
def enclose(
    net: Surrogate,
    box: Interval,
    *,
    domain: str | Split = "natural",
    rounding: str = "outward",
    order: int = 1,
    directions: Tensor | None = None,
    within: Enclosure | None = None,
) -> Enclosure:
    r"""Enclose all nodes of a network, their adjoints, its value and its derivatives over each box.

    Args:
        net: The network.
        box: Raw inputs, (d,) or (n, d); one box is a batch of one. Over an unbounded box affine maps give
            ``entire`` and zonotopes no more than intervals; over an empty one everything is empty.
        domain: ``"natural"``, ``"zonotope"`` or a ``Split`` into sub-boxes. Natural enclosures are inclusion monotone
            by themselves, up to rounding: a sub-box's lie in its parent's. Those of zonotopes are so only with
            ``within``, because other lines are fitted to each box: without it, a few stick out by a little.
        rounding: ``"outward"``: a theorem; ``"nearest"``: for ranking.
        order: 1, or 2 for tangents, second adjoints and Hessian-vector products.
        directions: Order 2: raw directions (k, d), taken to be exact; default: the d unit vectors, so that ``hvp``
            is the Hessian.
        within: What is known already: the enclosure of the same network over a box that contains all of these, or over
            m boxes of which each contains n / m consecutive ones. The result is intersected with it, so a chain of
            refinements is inclusion monotone, to the last bit, and as sound as its members.

    Returns:
        Enclosure in float64.

    Raises:
        TypeError: ``net`` is not a `Surrogate`, ``box`` not an `Interval`.
        ValueError: Wrong shapes, an unknown domain or rounding, an order other than 1 or 2, order 2 for an
            activation without a second derivative, parameters that are not finite; ``within`` of another network,
            other directions or a lower order, of boxes that do not contain these, or rounded to nearest where outward
            rounding is asked for.

    Chapter 6, "Through a network".

    Example:
        >>> import torch
        >>> net = sl.Surrogate([1, 1], dtype=torch.float64)
        >>> net.weights[0].data.fill_(3.0).item()
        3.0
        >>> result = sl.enclose(net, sl.Interval([0.0], [2.0]), rounding="nearest")
        >>> result.value, result.gradient
        (Interval([0, 6]), Interval([3, 3]))
        >>> sl.enclose(net, sl.Interval([0.0], [1.0]), rounding="nearest", within=result).value
        Interval([0, 3])
    """
    outward = mode(rounding)
    split = domain if isinstance(domain, Split) else Split(1, _check.choice("domain", domain, DOMAINS))
    _check.count("order", order, least=1, most=2)
    net = _check.instance("net", net, Surrogate)
    box = _checked_box(box, net.widths[0])
    if directions is not None:
        directions = _check.tensor("directions", directions, shape=("k", net.widths[0]), dtype=torch.float64, least=1)
    elif order == 2:
        directions = torch.eye(net.widths[0], dtype=torch.float64)
    if order == 2 and not net.activation.smooth:
        raise ValueError(f"net: got activation '{net.activation.name}' at order 2, need one with a second derivative")
    sweep = Sweep(layers_of(net), split.domain == "zonotope", outward, directions if order == 2 else None)
    if within is not None:
        _check_within(within, sweep, box)
    whole = sweep.run(box) if within is None else inside(sweep.run(box), within)
    return whole if split.pieces == 1 or len(box) == 0 else _split(sweep, whole, split.pieces)


def _split(sweep: Sweep, whole: Enclosure, pieces: int) -> Enclosure:
    """Cut each box into pieces, the half that stands out most at a time; return the hull of their enclosures."""
    n, leaves, count = len(whole.box), whole, 1
    while count < pieces:
        cut = min((count + 1) // 2, pieces - count)
        order = _outstanding(leaves, n).argsort(1, descending=True) + count * torch.arange(n).unsqueeze(1)
        parents, kept = leaves[order[:, :cut].flatten()], leaves[order[:, cut:].flatten()]
        bend = (parents.gradient.hi - parents.gradient.lo).clamp(1e-300, 1e300)
        fresh = inside(sweep.run(halves(parents.box, 1 / bend)), parents)
        count += cut
        leaves = concatenate([kept, fresh])[_interleave(n, count - 2 * cut, 2 * cut)]
    return _hull(leaves, n)


def _outstanding(leaves: Enclosure, n: int) -> Tensor:
    """Return for each leaf how far it reaches beyond the midpoints of all, in each result, as shares of its width."""
    results = [leaves.value[:, None], leaves.gradient, *([leaves.hvp] if leaves.hvp else [])]
    lo, hi = (torch.cat([getattr(x, end).flatten(1) for x in results], 1).unflatten(0, (n, -1)) for end in ("lo", "hi"))
    middle, whole = 0.5 * (lo + hi), hi.amax(1, keepdim=True) - lo.amin(1, keepdim=True)
    above, below = hi - middle.amax(1, keepdim=True), middle.amin(1, keepdim=True) - lo
    return ((above.clamp(min=0) + below.clamp(min=0)) / whole).sum(-1).nan_to_num(nan=torch.inf)


def inside(enclosure: Enclosure, outer: Enclosure) -> Enclosure:
    """Intersect the enclosures of n boxes with those of m, of which each contains n / m consecutive ones.

    Both contain the truth, so they have something in common, unless rounding to nearest has moved them apart: then
    the end that is closest remains.
    """

    def combine(xs):
        x, y = xs
        lo, hi = (end.repeat_interleave(len(x) // len(y), 0) for end in (y.lo, y.hi))
        if enclosure.rounding == "outward" and ((x.lo > hi) | (x.hi < lo)).any():
            raise ValueError("within: got an enclosure that has nothing in common with this one, need the same network")
        return Interval.unchecked(x.lo.clamp(lo, hi), x.hi.clamp(lo, hi))

    return over_fields(combine, [enclosure, outer])


def _check_within(within: Enclosure, sweep: Sweep, box: Interval) -> None:
    """Refuse an enclosure that says nothing about the network, the derivatives or the boxes at hand."""
    outer, n, d = _check.instance("within", within, Enclosure).box, *box.shape
    widths, given = [d, *map(len, sweep.layers.biases[:-1])], [x.shape[1] for x in (outer, *within.preactivations)]
    if given != widths:
        raise ValueError(f"within: got the enclosure of a network with layers {given}, need {widths}")
    if sweep.outward and within.rounding != "outward":
        raise ValueError(f"within: got one with rounding={within.rounding!r}, which proves nothing, need 'outward'")
    if sweep.order == 2 and (within.directions is None or not torch.equal(within.directions, sweep.directions)):
        got = "of order 1" if within.directions is None else "along other directions"
        raise ValueError(f"within: got an enclosure {got}, need order 2 along the same directions")
    if len(outer) == 0 or n % len(outer):
        raise ValueError(f"within: got {len(outer)} boxes for {n}, need one, or a divisor of {n}")
    around = Interval.unchecked(*(end.repeat_interleave(n // len(outer), 0) for end in (outer.lo, outer.hi)))
    outside = int((~subset(box, around).all(1)).sum())
    if outside:
        raise ValueError(f"within: got boxes that do not contain {outside} of these {n}, need ones that contain all")


def halves(box: Interval, scale: Tensor) -> Interval:
    """Cut each box across its widest side; both halves of a box follow each other."""
    widest = ((box.hi - box.lo) / scale).argmax(1, keepdim=True)
    middle = mid(box).gather(1, widest)
    lo, hi = box.lo.scatter(1, widest, middle), box.hi.scatter(1, widest, middle)
    return Interval.unchecked(torch.stack([box.lo, lo], 1).flatten(0, 1), torch.stack([hi, box.hi], 1).flatten(0, 1))


def _interleave(n: int, kept: int, fresh: int) -> Tensor:
    """Return the order that brings each box's leaves together, from all kept ones followed by all fresh ones."""
    first = torch.arange(n * kept).reshape(n, kept)
    return torch.cat([first, n * kept + torch.arange(n * fresh).reshape(n, fresh)], 1).flatten()


def _checked_box(box: Interval, d: int) -> Interval:
    _check.instance("box", box, Interval)
    if box.lo.ndim not in (1, 2) or box.shape[-1] != d:
        raise ValueError(f"box: got shape {tuple(box.shape)}, need ({d},) or (n, {d})")
    return box.to(torch.float64).reshape(-1, d)


def _hull(leaves: Enclosure, n: int) -> Enclosure:
    """Return the hull of the leaves of each of n boxes."""

    def combine(xs):
        lo, hi = (end.unflatten(0, (n, -1)) for end in (xs[0].lo, xs[0].hi))
        return Interval.unchecked(lo.amin(1), hi.amax(1))

    return over_fields(combine, [leaves])
