r"""Certified statements: bounds over a box, a Lipschitz constant, and yes, no or unknown to questions about signs.

Everything here is computed with outward rounding, so a "yes" is a theorem about the network as a function on real
numbers, and a "no" comes with a witness: a point where the opposite is proved. The search is the branch and bound of
the module ``coordinates``: cells that do not answer are cut in two, until the budget is used up (Moore, Kearfott &
Cloud, *Introduction to Interval Analysis*, 2009, chapter 5). Chapters 6 and 10.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sobolev_lib import _check, _show
from sobolev_lib.certificates.coordinates import WIDE, Difference, search
from sobolev_lib.certificates.references import Reference
from sobolev_lib.enclosure.adjoints import Split, enclose
from sobolev_lib.enclosure.interval import Interval, intersection, mag, mig, neg, sub
from sobolev_lib.enclosure.rounding import enlarge, gamma
from sobolev_lib.network.surrogate import Surrogate

__all__ = ["Bounds", "Verdict", "bounds", "is_convex", "is_increasing", "is_non_negative", "lipschitz", "within"]

CELLS = 4096
SHARE = 0.01  # of the range seen: how far a bound may be from it before the search goes on


@dataclass(frozen=True, eq=False)
class Verdict:
    """An answer with its evidence.

    Attributes:
        answer: "yes", "no" or "unknown".
        violation: By how much the property fails, in the unit of what is asked, negative where it holds with a margin.
            With "no": at least, proved, at the witness. Otherwise: at most, proved, over the box.
        witness: For "no": a point of the box (d,) at which the property is proved to fail.
        direction: For "no" to convexity: the direction (d,) along which the second derivative is negative there.
        cells: How many cells were enclosed.
        left: For "unknown": the share of the volume of the coordinates' range that is still open.
        worst: For "unknown": a point (d,) of the open cell with the largest bound.

    Chapter 6, "Certified statements".

    Example:
        >>> net = sl.Surrogate([1, 1])
        >>> _ = net.weights[0].data.fill_(1.0)
        >>> verdict = sl.is_non_negative(net, sl.Interval([-1.0], [2.0]))
        >>> verdict.answer, round(verdict.violation, 6), bool(net(verdict.witness[None]) < 0)
        ('no', 1.0, True)
    """

    answer: str
    violation: float
    witness: Tensor | None = None
    direction: Tensor | None = None
    cells: int = 0
    left: float = 0.0
    worst: Tensor | None = None

    def _repr_html_(self) -> str:
        vectors = {"witness": self.witness, "direction": self.direction}
        shown = {k: ", ".join(f"{c:.4g}" for c in v.tolist()) for k, v in vectors.items() if v is not None}
        row = (self.answer, f"{self.violation:.3g}", f"{self.cells:,}", *shown.values())
        return _show.table("Verdict", ["answer", "violation", "cells enclosed", *shown], [row])


@dataclass(frozen=True, eq=False)
class Bounds:
    """Proved bounds over each of n boxes: value (n,), gradient (n, d) and, at order 2, Hessian (n, d, d).

    Chapter 6, "Certified statements".

    Example:
        >>> net = sl.Surrogate([1, 1])
        >>> _ = net.weights[0].data.fill_(1.0)
        >>> found = sl.bounds(net, sl.Interval([1.0], [2.0]))
        >>> found.value, found.gradient, found.hessian
        (Interval([1, 2]), Interval([1, 1]), None)
    """

    value: Interval
    gradient: Interval
    hessian: Interval | None = None


def bounds(
    net: Surrogate, box: Interval, *, order: int = 1, tolerance: float | None = None, cells: int = CELLS
) -> Bounds:
    """Bound the value, the gradient and (order 2) the Hessian of a network over each box, all in raw units.

    Args:
        net: The network.
        box: Raw inputs, (d,) or (n, d), bounded.
        order: 1, or 2 for the Hessian as well, whose bounds are those of one enclosure.
        tolerance: How far bounds may be from values seen, in the unit of each; default: 1 % of the range seen.
        cells: How many cells may be enclosed for each box, for the value and for the gradient. A network with more
            than 16 nodes in a layer is enclosed over so many pieces of the box, whatever the tolerance.

    Returns:
        Bounds, rounded outward.

    Raises:
        TypeError: `net` is not a ``Surrogate``, `box` not an ``Interval``.
        ValueError: A box of the wrong shape, empty or unbounded; a negative tolerance, no cells.

    Chapter 6, "Certified statements".

    Example:
        >>> net = sl.Surrogate([1, 1])
        >>> net.weights[0].data.fill_(2.0).item()
        2.0
        >>> sl.bounds(net, sl.Interval([1.0], [2.0])).value
        Interval([2, 4])
    """
    _check.count("order", order, most=2)
    boxes = checked_boxes(net, box)
    tolerance = None if tolerance is None else _check.positive("tolerance", tolerance, or_zero=True)

    def ends(x: Interval) -> Interval:
        return Interval.unchecked(torch.cat([x.lo, -x.hi], 1), torch.cat([x.hi, -x.lo], 1))

    def target(seen: Tensor) -> Tensor:
        up, down = seen.chunk(2)
        return seen + (SHARE * (up + down).repeat(2) if tolerance is None else tolerance)

    def bound(of: str) -> Interval:
        found = [search(difference(net, one, of, None), ends, target, cells).bound.chunk(2) for one in boxes]
        return Interval.unchecked(torch.stack([-down for _, down in found]), torch.stack([up for up, _ in found]))

    hessian = symmetric(enclose(net, boxes, domain="zonotope", order=2).hvp) if order == 2 else None
    if max(net.widths[1:]) > WIDE:  # there pieces of the box tell more than cells of its coordinates
        found = enclose(net, boxes, domain=Split(_check.count("cells", cells)))
        return Bounds(found.value, found.gradient, hessian)
    return Bounds(bound("value")[:, 0], bound("gradient"), hessian)


def lipschitz(
    net: Surrogate, box: Interval, *, norm: float = 2, tolerance: float | None = None, cells: int = CELLS
) -> Tensor:
    r"""Return for each box a constant L with :math:`|N(x) - N(y)| \le L\, \lVert x - y \rVert` for all x, y in it.

    It bounds the largest dual norm of the gradient.

    Args:
        net: The network.
        box: Raw inputs, (d,) or (n, d), bounded.
        norm: The norm of :math:`x - y`: 1, 2 or ``math.inf``.
        tolerance: How far L may be from the longest gradient seen; default: 1 % of it.
        cells: How many cells may be enclosed for each box.

    Returns:
        Constants (n,).

    Raises:
        ValueError: Another norm.
        TypeError, ValueError: As ``bounds``.

    Chapter 6, "Certified statements".

    Example:
        >>> import torch
        >>> net = sl.Surrogate([2, 1])
        >>> net.weights[0].data = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
        >>> round(sl.lipschitz(net, sl.Interval([0.0, 0.0], [1.0, 1.0])).item(), 9)
        5.0
    """
    _check.choice("norm", norm, (1, 2, float("inf")))
    tolerance = None if tolerance is None else _check.positive("tolerance", tolerance, or_zero=True)

    def length(slopes: Tensor) -> Tensor:
        if norm == 1:
            return slopes.amax(1, keepdim=True)
        if norm == float("inf"):
            return slopes.sum(1, keepdim=True)
        largest = slopes.amax(1, keepdim=True).clamp(min=torch.finfo(slopes.dtype).tiny)  # squares must not overflow
        return (slopes / largest).square().sum(1, keepdim=True).sqrt() * largest

    def ends(x: Interval) -> Interval:
        lo, terms = length(mig(x)), x.shape[1] + 4
        return Interval.unchecked(lo * (1 - 2 * gamma(terms, lo.dtype)), enlarge(length(mag(x)), terms, norm != 1))

    def target(seen: Tensor) -> Tensor:
        return seen * (1 + SHARE) if tolerance is None else seen + tolerance

    boxes = checked_boxes(net, box)
    found = [search(difference(net, one, "gradient", None), ends, target, cells) for one in boxes]
    return torch.cat([one.bound for one in found])


def is_non_negative(net: Surrogate, box: Interval, *, tolerance: float = 0.0, cells: int = CELLS) -> Verdict:
    r"""Say whether :math:`N(x) \ge -` ``tolerance`` on a box.

    Args:
        net: The network.
        box: Raw inputs, (d,), bounded.
        tolerance: What counts as zero, in the unit of what is asked.
        cells: How many cells may be enclosed before the answer is "unknown".

    Returns:
        A Verdict.

    Raises:
        TypeError: `net` is not a ``Surrogate``, `box` not an ``Interval``.
        ValueError: A box of the wrong shape, empty or unbounded; a negative tolerance, no cells.

    Chapter 6, "Certified statements".

    Example:
        >>> net = sl.Surrogate([1, 1])
        >>> net.weights[0].data.fill_(1.0).item()
        1.0
        >>> [sl.is_non_negative(net, sl.Interval([low], [2.0])).answer for low in (1.0, -1.0)]
        ['yes', 'no']
    """
    return _decide(difference(net, check_all(net, box, None)[0], "value", None), neg, tolerance, cells)


def is_increasing(
    net: Surrogate, box: Interval, direction: Tensor | None = None, *, tolerance: float = 0.0, cells: int = CELLS
) -> Verdict:
    r"""Say whether the value rises, :math:`v \cdot \nabla N \ge -` ``tolerance``, on a box.

    Along a direction v (d,) or, by default, along every input.

    Arguments and result are those of `is_non_negative`.

    Raises:
        TypeError, ValueError: As ``is_non_negative``, or a direction of the wrong shape.

    Chapter 6, "Certified statements".

    Example:
        >>> net = sl.Surrogate([1, 1])
        >>> _ = net.weights[0].data.fill_(1.0)
        >>> [sl.is_increasing(net, sl.Interval([0.0], [2.0]), [way]).answer for way in (1.0, -1.0)]
        ['yes', 'no']
    """
    box, direction = check_all(net, box, direction)
    return _decide(difference(net, box, "gradient", direction), neg, tolerance, cells)


def is_convex(
    net: Surrogate, box: Interval, direction: Tensor | None = None, *, tolerance: float = 0.0, cells: int = CELLS
) -> Verdict:
    r"""Say whether the network is convex on a box, or with a direction v (d,), convex along it.

    That is :math:`v^T \nabla^2 N\, v \ge -` ``tolerance`` :math:`|v|^2`, for all v or for the one given; the violation
    is that of the unit vector. For all v at once, the interval Hessian H is changed to :math:`Q^T H\, Q` with Q the
    eigenvectors of its midpoint, and Gershgorin's discs bound the eigenvalues of all members. Arguments and result are
    otherwise those of `is_non_negative`.

    Raises:
        TypeError, ValueError: As ``is_non_negative``, a direction of the wrong shape or zero, or an activation without
            a second derivative.

    Chapter 6, "Certified statements".

    Example:
        Softplus is convex, so the network is where its outgoing weight is positive.

        >>> net = sl.Surrogate([1, 1, 1], "softplus")
        >>> _ = net.weights[0].data.fill_(1.0), net.weights[1].data.fill_(1.0)
        >>> sl.is_convex(net, sl.Interval([-1.0], [1.0])).answer
        'yes'
        >>> _ = net.weights[1].data.fill_(-1.0)
        >>> sl.is_convex(net, sl.Interval([-1.0], [1.0])).answer
        'no'
    """
    box, direction = check_all(net, box, direction)
    if direction is not None:
        length = direction.norm()
        if not length > 0:
            raise ValueError("direction: got zero, need a direction")
        return _decide(difference(net, box, "second", direction / length), neg, tolerance, cells)
    d = box.shape[0]

    def ends(x: Interval) -> Interval:
        return neg(lowest_eigenvalue(x.reshape(len(x), d, d)))

    verdict = _decide(difference(net, box, "second", None), ends, tolerance, cells)
    if verdict.witness is None:
        return verdict
    hessian = net.hessian(verdict.witness[None].to(net.dtype))[0].detach().double()
    return replace(verdict, direction=torch.linalg.eigh(0.5 * (hessian + hessian.T)).eigenvectors[:, 0])


Side = float | Tensor | Reference


def within(
    net: Surrogate,
    lower: Side | tuple[Side, ...] | None,
    upper: Side | tuple[Side, ...] | None,
    box: Interval,
    *,
    of: str = "value",
    direction: Tensor | None = None,
    tolerance: float = 0.0,
    cells: int = CELLS,
) -> Verdict:
    r"""Say whether a network keeps within bounds on a box, up to the tolerance: the no-arbitrage bounds of a price.

    Args:
        net: The network.
        lower: What it may not fall below: a number, numbers for each component of the gradient (d,), a ``Reference``,
            a tuple of these, of which each must hold, or None.
        upper: What it may not exceed.
        box: Raw inputs, (d,), bounded.
        of: "value" or "gradient".
        direction: Of the gradient only the derivative along it (d,).
        tolerance: By how much it may be outside.
        cells: How many cells may be enclosed for each side.

    Returns:
        A ``Verdict`` of "no" if one side fails, of "yes" if all hold.

    Raises:
        TypeError: A side that is neither numbers nor a ``Reference``; as ``is_non_negative``.
        ValueError: No side at all, numbers or a reference for another number of inputs, another quantity.

    Chapter 10, "No-arbitrage, everywhere".

    Example:
        A softplus lies between 0 and 1 below its input 0.5, and its slope between 0 and 1.

        >>> net = sl.Surrogate([1, 1, 1], "softplus")
        >>> _ = net.weights[0].data.fill_(1.0), net.weights[1].data.fill_(1.0)
        >>> sl.within(net, 0.0, 1.0, sl.Interval([-1.0], [0.5])).answer
        'yes'
        >>> sl.within(net, 0.0, 0.5, sl.Interval([-1.0], [0.5]), of="gradient").answer
        'no'
    """
    box, direction = check_all(net, box, direction)
    _check.choice("of", of, ("value", "gradient"))
    sides = [(side, sign) for given, sign in ((lower, -1.0), (upper, 1.0)) for side in _sides(given)]
    if not sides:
        raise ValueError("lower, upper: got None for both, need at least one of them")
    size = len(box) if of == "gradient" and direction is None else 1
    verdicts = []
    for side, sign in sides:
        name = "lower" if sign < 0 else "upper"
        if isinstance(side, Reference):
            fixed = torch.zeros(size, dtype=torch.float64)
        else:
            fixed = _check.tensor(name, side, dtype=torch.float64).reshape(-1)
            if len(fixed) not in (1, size):
                raise ValueError(f"{name}: got {len(fixed)} numbers, need 1 or {size}")
            fixed = fixed.expand(size)
        place = difference(net, box, of, direction, *([side] if isinstance(side, Reference) else []), name=name)

        def above(x: Interval, fixed=fixed, sign=sign) -> Interval:
            apart = sub(x, Interval.unchecked(fixed, fixed))
            return apart if sign > 0 else neg(apart)

        verdicts.append(_decide(place, above, tolerance, cells))
        if verdicts[-1].answer == "no":
            break
    rank = {"no": 2, "unknown": 1, "yes": 0}
    worst = max(verdicts, key=lambda verdict: (rank[verdict.answer], verdict.violation))
    return replace(worst, cells=sum(verdict.cells for verdict in verdicts))


def _sides(given) -> list:
    return [] if given is None else list(given) if isinstance(given, tuple) else [given]


def _decide(place: Difference, ends: Callable[[Interval], Interval], tolerance: float, cells: int) -> Verdict:
    """Decide whether quantities, of which the largest counts, stay below the tolerance over the box."""
    tolerance = _check.positive("tolerance", tolerance, or_zero=True)

    def worst(x: Interval) -> Interval:
        both = ends(x)
        return Interval.unchecked(both.lo.amax(1, keepdim=True), both.hi.amax(1, keepdim=True))

    def refuted(seen: Tensor) -> bool:
        return bool(seen > tolerance)

    def target(seen: Tensor) -> Tensor:
        return torch.full_like(seen, tolerance)

    found = search(place, worst, target, cells, refuted)
    if found.seen > tolerance:
        return Verdict("no", found.seen.item(), found.where[0], place.direction, found.cells)
    if found.bound <= tolerance:
        return Verdict("yes", found.bound.item(), cells=found.cells)
    return Verdict("unknown", found.bound.item(), cells=found.cells, left=found.left, worst=found.worst)


def difference(
    net: Surrogate, box: Interval, of: str, v: Tensor | None, *others, name: str = "reference"
) -> Difference:
    """Return what is searched: the inputs must be the same, second derivatives must exist."""
    for other in others:
        inputs = other.rows.shape[1] if isinstance(other, Reference) else other.widths[0]
        if inputs != net.widths[0]:
            raise ValueError(f"{name}: got one of {inputs} inputs, need {net.widths[0]}, those of the network")
    kinks = [f for f in (net, *others) if isinstance(f, Surrogate) and not f.activation.smooth]
    if of == "second" and kinks:
        got = kinks[0].activation.name
        raise ValueError(f"net: got activation '{got}' at order 2, need one with a second derivative")
    return Difference([net, *others], box, of, v)


def checked_boxes(net: Surrogate, box: Interval) -> Interval:
    """Return bounded boxes (n, d) in float64."""
    d = _check.instance("net", net, Surrogate).widths[0]
    _check.instance("box", box, Interval)
    if box.lo.ndim not in (1, 2) or box.shape[-1] != d:
        raise ValueError(f"box: got shape {tuple(box.shape)}, need ({d},) or (n, {d})")
    if not (torch.isfinite(box.lo) & torch.isfinite(box.hi)).all():
        raise ValueError("box: got an empty or unbounded one, need a bounded one")
    return box.to(torch.float64).reshape(-1, d)


def check_all(net: Surrogate, box: Interval, direction: Tensor | None) -> tuple[Interval, Tensor | None]:
    """Return one bounded box (d,) in float64, and the direction (d,), or None."""
    boxes = checked_boxes(net, box)
    if len(boxes) != 1:
        raise ValueError(f"box: got shape {tuple(box.shape)}, need ({boxes.shape[1]},)")
    if direction is not None:
        direction = _check.tensor("direction", direction, shape=(net.widths[0],), dtype=torch.float64)
    return boxes[0], direction


def symmetric(hessian: Interval) -> Interval:
    """Intersect matrices (n, d, d) with their transposes."""
    return intersection(hessian, Interval.unchecked(hessian.lo.mT, hessian.hi.mT))


def lowest_eigenvalue(hessian: Interval) -> Interval:
    """Enclose the lowest eigenvalue (n, 1) of the members of n symmetric interval matrices (d, d), from both sides.

    From below by the discs of Q'HQ; from above by the Rayleigh quotient of the first column of Q.
    """
    d = hessian.shape[-1]
    finite = (torch.isfinite(hessian.lo) & torch.isfinite(hessian.hi)).flatten(1).all(1)
    inner = Interval.unchecked(*(torch.where(finite[:, None, None], end, 0.0) for end in (hessian.lo, hessian.hi)))
    middle = 0.5 * inner.lo + 0.5 * inner.hi
    q = torch.linalg.eigh(0.5 * (middle + middle.mT)).eigenvectors
    radius = enlarge(torch.maximum(middle - inner.lo, inner.hi - middle), 1, True)
    size = q.mT.abs() @ middle.abs() @ q.abs()
    turned, around = (
        q.mT @ middle @ q,
        enlarge(q.mT.abs() @ radius @ q.abs() + gamma(4 * d + 8, q.dtype) * size, 4 * d, True),
    )
    off = (turned.abs() + around) * (1 - torch.eye(d, dtype=q.dtype))
    discs = turned.diagonal(dim1=1, dim2=2) - enlarge(off.sum(2) + around.diagonal(dim1=1, dim2=2), d + 2, True)
    overlap = (q.mT @ q - torch.eye(d, dtype=q.dtype)).abs() + gamma(2 * d + 8, q.dtype) * (q.mT.abs() @ q.abs())
    skew = enlarge(overlap.sum(2).amax(1), 2 * d, True)  # |Q y|^2 is |y|^2 up to this share
    finite &= skew < 0.5
    below, above = discs.amin(1), turned[:, 0, 0] + around[:, 0, 0]
    lo, hi = (
        torch.minimum(below / (1 - skew), below / (1 + skew)),
        torch.maximum(above / (1 - skew), above / (1 + skew)),
    )
    slack = 4e-16 * torch.maximum(lo.abs(), hi.abs())
    lo, hi = (lo - slack).masked_fill(~finite, -torch.inf), (hi + slack).masked_fill(~finite, torch.inf)
    return Interval.unchecked(lo[:, None], torch.maximum(lo, hi)[:, None])
