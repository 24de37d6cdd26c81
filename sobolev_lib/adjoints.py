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
from sobolev_lib.interval import Interval
from sobolev_lib.monomials import monomials
from sobolev_lib.network import Surrogate
from sobolev_lib.rounding import mode
from sobolev_lib.sweeps import Enclosure, Sweep, concatenate, layers_of, over_fields

DOMAINS = ("natural", "zonotope")


@dataclass(frozen=True)
class Split:
    """A domain: the box is cut into ``pieces`` sub-boxes, enclosed in another domain, and their hull is returned.

    Adaptive: in each round the half of the sub-boxes with the widest derivatives are cut in two, across the input
    that is widest in the network's scaled units. Natural enclosures approach the range at first order in the size
    of the pieces, zonotopes at second order or better.
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
    degree: int | None = None,
) -> Enclosure:
    r"""Enclose all nodes of a network, their adjoints, its value and its derivatives over each box.

    Args:
        net: The network.
        box: Raw inputs, (d,) or (n, d); one box is a batch of one. Over an unbounded box affine maps give
            ``entire`` and zonotopes no more than intervals; over an empty one everything is empty.
        domain: ``"natural"``, ``"zonotope"`` or a ``Split`` into sub-boxes. Intervals are inclusion isotonic: a
            sub-box's enclosures lie in its parent's. Zonotopes nearly so, because another polynomial is fitted to each
            box; those of a ``Split`` are intersected with the whole box's, so that nothing is lost.
        rounding: ``"outward"``: a theorem; ``"nearest"``: for ranking.
        order: 1, or 2 for tangents, second adjoints and Hessian-vector products.
        directions: Order 2: raw directions (k, d), taken to be exact; default: the d unit vectors, so that ``hvp``
            is the Hessian.
        degree: Zonotopes: up to which degree polynomials in the inputs are kept, 1 to 6; 1 is the classical
            zonotope. Default: as high as is cheap, 5 for up to 7 inputs, 1 above 38.

    Returns:
        Enclosure in float64.

    Raises:
        TypeError: ``net`` is not a `Surrogate`, ``box`` not an `Interval`.
        ValueError: Wrong shapes, an unknown domain or rounding, an order other than 1 or 2, order 2 for an
            activation without a second derivative, parameters that are not finite.

    Example:
        >>> net = Surrogate([1, 1], dtype=torch.float64)
        >>> net.weights[0].data.fill_(3.0).item()
        3.0
        >>> result = enclose(net, Interval([0.0], [2.0]), rounding="nearest")
        >>> result.value, result.gradient
        (Interval([0, 6]), Interval([3, 3]))
    """
    outward = mode(rounding)
    split = domain if isinstance(domain, Split) else Split(1, _check.choice("domain", domain, DOMAINS))
    _check.count("order", order, least=1, most=2)
    net = _check.instance("net", net, Surrogate)
    box = _checked_box(box, net.widths[0])
    if directions is not None:
        directions = _check.tensor("directions", directions, shape=("k", net.widths[0]), dtype=torch.float64)
    if degree is not None:
        _check.count("degree", degree, most=6)
    if order == 2 and not net.activation.smooth:
        raise ValueError(f"net: got activation '{net.activation.name}' at order 2, need one with a second derivative")
    form = monomials(net.widths[0], degree) if split.domain == "zonotope" else None
    sweep = Sweep(layers_of(net), form, outward, order, directions)
    return sweep.run(box) if split.pieces == 1 else _split(sweep, box, split.pieces)


def _split(sweep: Sweep, box: Interval, pieces: int) -> Enclosure:
    """Cut each box into pieces, the half with the widest derivatives at a time; return the hull of their enclosures."""
    n = len(box)
    whole = leaves = sweep.run(box)
    count = 1
    while count < pieces:
        cut = min((count + 1) // 2, pieces - count)
        derivative = leaves.gradient if sweep.order == 1 else leaves.hvp
        size = (derivative.hi - derivative.lo).reshape(n, count, -1).sum(-1).nan_to_num(nan=torch.inf)
        order = size.argsort(1, descending=True) + count * torch.arange(n).unsqueeze(1)
        fresh = sweep.run(halves(leaves.box[order[:, :cut].flatten()], sweep.layers.input_scale.lo))
        kept = order[:, cut:].flatten()
        count += cut
        leaves = _rearranged(concatenate([_rearranged(leaves, kept), fresh]), _interleave(n, count - 2 * cut, 2 * cut))
    return _hull(whole, leaves, n)


def halves(box: Interval, scale: Tensor) -> Interval:
    """Cut each box across its widest side; both halves of a box follow each other."""
    widest = ((box.hi - box.lo) / scale).argmax(1, keepdim=True)
    middle = (0.5 * box.lo + 0.5 * box.hi).gather(1, widest)
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


def _rearranged(enclosure: Enclosure, index: Tensor) -> Enclosure:
    return over_fields(lambda xs: xs[0][index], [enclosure])


def _hull(whole: Enclosure, leaves: Enclosure, n: int) -> Enclosure:
    """Return the hull of the leaves of each of n boxes, inside what was known of the whole box."""

    def combine(xs):
        outer, inner = xs
        lo, hi = inner.lo.reshape(n, -1, *outer.shape[1:]), inner.hi.reshape(n, -1, *outer.shape[1:])
        return Interval.unchecked(torch.maximum(lo.amin(1), outer.lo), torch.minimum(hi.amax(1), outer.hi))

    return over_fields(combine, [whole, leaves])
