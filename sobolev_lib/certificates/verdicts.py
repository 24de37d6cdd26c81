r"""Certified statements: bounds over a box, a Lipschitz constant, and yes, no or unknown to questions about signs.

Everything here is computed with outward rounding, so a "yes" is a theorem about the network as a function on real
numbers, and a "no" comes with a witness: a point where the opposite is proved. The search is branch and bound: a
box whose enclosure does not answer is cut in two, until the budget is used up (Moore, Kearfott & Cloud,
*Introduction to Interval Analysis*, 2009, chapter 5). Chapter 6.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check, _show
from sobolev_lib.enclosure.adjoints import Split, enclose, halves
from sobolev_lib.enclosure.affine import affine_kernel
from sobolev_lib.enclosure.interval import Interval, add, intersection, mag, point, sub
from sobolev_lib.enclosure.rounding import enlarge
from sobolev_lib.network.surrogate import Surrogate

SAMPLES = 256

BATCH = 16


@dataclass(frozen=True, eq=False)
class Verdict:
    """An answer with its evidence.

    Attributes:
        answer: "yes", "no" or "unknown".
        witness: For "no": a point of the box (d,) at which the property is proved to fail.
        direction: For "no" to convexity: the direction (d,) along which the second derivative is negative there.
        boxes: How many boxes were enclosed.

    Chapter 6, "Certified statements".

    Example:
        >>> net = Surrogate([1, 1])
        >>> _ = net.weights[0].data.fill_(1.0)
        >>> verdict = is_non_negative(net, Interval([-1.0], [2.0]))
        >>> verdict.answer, bool(net(verdict.witness[None]) < 0)
        ('no', True)
    """

    answer: str
    witness: Tensor | None = None
    direction: Tensor | None = None
    boxes: int = 0

    def _repr_html_(self) -> str:
        vectors = {"witness": self.witness, "direction": self.direction}
        shown = {k: ", ".join(f"{c:.4g}" for c in v.tolist()) for k, v in vectors.items() if v is not None}
        row = (self.answer, f"{self.boxes:,}", *shown.values())
        return _show.table("Verdict", ["answer", "boxes enclosed", *shown], [row])


@dataclass(frozen=True, eq=False)
class Bounds:
    """Proved bounds over each of n boxes: value (n,), gradient (n, d) and, at order 2, Hessian (n, d, d).

    Chapter 6, "Certified statements".

    Example:
        >>> net = Surrogate([1, 1])
        >>> _ = net.weights[0].data.fill_(1.0)
        >>> found = bounds(net, Interval([1.0], [2.0]))
        >>> found.value, found.gradient, found.hessian
        (Interval([1, 2]), Interval([1, 1]), None)
    """

    value: Interval
    gradient: Interval
    hessian: Interval | None = None


def bounds(net: Surrogate, box: Interval, *, order: int = 1, domain: str | Split = "zonotope") -> Bounds:
    """Bound the value, the gradient and (order 2) the Hessian of a network over each box, all in raw units.

    Args:
        net: The network.
        box: Raw inputs, (d,) or (n, d).
        order: 1, or 2 for the Hessian as well.
        domain: See ``enclose``.

    Returns:
        Bounds, rounded outward. The Hessian is symmetric, so each entry is enclosed twice, and both are intersected.

    Raises:
        TypeError, ValueError: As ``enclose``.

    Chapter 6, "Certified statements".

    Example:
        >>> net = Surrogate([1, 1])
        >>> net.weights[0].data.fill_(2.0).item()
        2.0
        >>> bounds(net, Interval([1.0], [2.0])).value
        Interval([2, 4])
    """
    enclosure = enclose(net, box, domain=domain, order=order)
    if order == 1:
        return Bounds(enclosure.value, enclosure.gradient)
    return Bounds(enclosure.value, enclosure.gradient, _symmetric(enclosure.hvp))


def lipschitz(net: Surrogate, box: Interval, *, norm: float = 2, domain: str | Split = "zonotope") -> Tensor:
    r"""Return for each box a constant L with :math:`|N(x) - N(y)| \le L\, \lVert x - y \rVert` for all x, y in it.

    It is the largest dual norm of a gradient in the enclosure, rounded up.

    Args:
        net: The network.
        box: Raw inputs, (d,) or (n, d).
        norm: The norm of :math:`x - y`: 1, 2 or ``math.inf``.
        domain: See ``enclose``.

    Returns:
        Constants (n,).

    Raises:
        ValueError: Another norm.
        TypeError, ValueError: As ``enclose``.

    Chapter 6, "Certified statements".

    Example:
        >>> net = Surrogate([2, 1])
        >>> net.weights[0].data = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
        >>> round(lipschitz(net, Interval([0.0, 0.0], [1.0, 1.0])).item(), 9)
        5.0
    """
    _check.choice("norm", norm, (1, 2, float("inf")))
    slopes = mag(enclose(net, box, domain=domain).gradient)
    if norm == 1:
        return slopes.amax(1)
    terms = slopes.shape[1] + 4
    largest = slopes.amax(1, keepdim=True).clamp(min=torch.finfo(slopes.dtype).tiny)  # squares must not overflow
    total = slopes.sum(1) if norm == float("inf") else (slopes / largest).square().sum(1).sqrt() * largest[:, 0]
    return enlarge(total, terms, True)


def is_non_negative(
    net: Surrogate, box: Interval, *, tolerance: float = 0.0, boxes: int = 256, domain: str = "zonotope"
) -> Verdict:
    r"""Say whether :math:`N(x) \ge -` ``tolerance`` on a box.

    Args:
        net: The network.
        box: Raw inputs, (d,), bounded.
        tolerance: What counts as zero.
        boxes: How many boxes may be enclosed before the answer is "unknown".
        domain: "zonotope" or "natural".

    Returns:
        A Verdict.

    Raises:
        TypeError: `net` is not a ``Surrogate``, `box` not an ``Interval``.
        ValueError: A box of the wrong shape, empty or unbounded; a negative tolerance, no boxes, an unknown domain.

    Chapter 6, "Certified statements".

    Example:
        >>> net = Surrogate([1, 1])
        >>> net.weights[0].data.fill_(1.0).item()
        1.0
        >>> is_non_negative(net, Interval([1.0], [2.0])).answer, is_non_negative(net, Interval([-1.0], [2.0])).answer
        ('yes', 'no')
    """
    tolerance = _check.positive("tolerance", tolerance, or_zero=True)

    def value(cut: Interval, domain: str) -> Interval:
        return enclose(net, cut, domain=domain).value[:, None]

    return _decide_sign(net, box, value, tolerance, boxes, domain)


def is_increasing(
    net: Surrogate,
    box: Interval,
    direction: Tensor | None = None,
    *,
    tolerance: float = 0.0,
    boxes: int = 256,
    domain: str = "zonotope",
) -> Verdict:
    r"""Say whether the value rises, :math:`v \cdot \nabla N \ge -` ``tolerance``, on a box.

    Along a direction v (d,) or, by default, along every input.

    Arguments and result are those of `is_non_negative`.

    Raises:
        TypeError, ValueError: As ``is_non_negative``, or a direction of the wrong shape.

    Chapter 6, "Certified statements".

    Example:
        >>> net = Surrogate([1, 1])
        >>> _ = net.weights[0].data.fill_(1.0)
        >>> is_increasing(net, Interval([0.0], [2.0])).answer, is_increasing(net, Interval([0.0], [2.0]), [-1.0]).answer
        ('yes', 'no')
    """
    tolerance = _check.positive("tolerance", tolerance, or_zero=True)
    d = _check.instance("net", net, Surrogate).widths[0]
    rows = torch.eye(d, dtype=torch.float64)
    if direction is not None:
        rows = _check.tensor("direction", direction, shape=(d,), dtype=torch.float64).reshape(1, d)

    def slopes(cut: Interval, domain: str) -> Interval:
        gradient = enclose(net, cut, domain=domain).gradient
        return gradient if direction is None else affine_kernel(rows, rows.abs(), None, gradient, True)

    return _decide_sign(net, box, slopes, tolerance, boxes, domain)


def is_convex(
    net: Surrogate,
    box: Interval,
    direction: Tensor | None = None,
    *,
    tolerance: float = 0.0,
    boxes: int = 64,
    domain: str = "zonotope",
) -> Verdict:
    r"""Say whether the network is convex on a box, or with a direction v (d,), convex along it.

    That is :math:`v^T \nabla^2 N\, v \ge -` ``tolerance`` :math:`|v|^2`, for all v or for the one given. For all v
    at once, the interval Hessian H is changed to :math:`Q^T (H + \text{tolerance}\, I) Q` with Q the eigenvectors
    of its midpoint, which are as good as independent, and must have only non-negative Gershgorin discs: by
    Sylvester's law of inertia no matrix in H then has an eigenvalue below - ``tolerance``. Arguments and result are
    otherwise those of `is_non_negative`.

    Raises:
        TypeError, ValueError: As ``is_non_negative``, a direction of the wrong shape, or an activation without a second
            derivative.

    Chapter 6, "Certified statements".

    Example:
        Softplus is convex, so the network is where its outgoing weight is positive.

        >>> net = Surrogate([1, 1, 1], "softplus")
        >>> _ = net.weights[0].data.fill_(1.0), net.weights[1].data.fill_(1.0)
        >>> is_convex(net, Interval([-1.0], [1.0])).answer
        'yes'
        >>> _ = net.weights[1].data.fill_(-1.0)
        >>> is_convex(net, Interval([-1.0], [1.0])).answer
        'no'
    """
    tolerance = _check.positive("tolerance", tolerance, or_zero=True)
    d = _check.instance("net", net, Surrogate).widths[0]
    if direction is not None:
        rows = _check.tensor("direction", direction, shape=(d,), dtype=torch.float64).reshape(1, d)
        tolerance = tolerance * float(rows.square().sum())

        def curvature(cut: Interval, domain: str) -> Interval:
            return enclose(net, cut, domain=domain, order=2, directions=rows).curvature

        return _decide_sign(net, box, curvature, tolerance, boxes, domain)

    def hessian(cut: Interval) -> Interval:
        return _symmetric(enclose(net, cut, domain=domain, order=2).hvp)

    def proves(hessian: Interval) -> Tensor:
        return _positive_semidefinite(hessian, tolerance)

    def refuted(points: Tensor) -> tuple[Tensor, Tensor] | None:
        hessians = net.hessian(points.to(net.dtype)).double()
        values, vectors = torch.linalg.eigh(0.5 * (hessians + hessians.mT))
        worst = int(values[:, 0].argmin())
        v = vectors[worst, :, 0]
        cut = point(points[worst : worst + 1])
        curvature = enclose(net, cut, domain="natural", order=2, directions=v.unsqueeze(0)).curvature
        allowed = -tolerance * (1 + 1e-12)  # v has length 1 up to rounding
        return (points[worst], v) if (curvature.hi < allowed).item() else None

    return _decide(net, box, hessian, proves, refuted, boxes)


def _decide_sign(
    net: Surrogate, box: Interval, quantity: Callable, tolerance: float, boxes: int, domain: str
) -> Verdict:
    """Decide whether quantities (n, c) stay above - tolerance: proved by enclosures, refuted at points."""

    def proves(known: Interval) -> Tensor:
        return (known.lo >= -tolerance).all(1)

    def refuted(points: Tensor) -> tuple[Tensor, None] | None:
        highest = quantity(point(points), "natural").hi.amin(1)
        worst = int(highest.argmin())
        return (points[worst], None) if highest[worst] < -tolerance else None

    return _decide(net, box, lambda cut: quantity(cut, domain), proves, refuted, boxes)


def _decide(
    net: Surrogate, box: Interval, enclosed: Callable, proves: Callable, refuted: Callable, boxes: int
) -> Verdict:
    """Search for a point that refutes, then for a cover of boxes that prove, looking at their centers on the way.

    What is enclosed over a box holds for both its halves, so that cutting never loses anything.
    """
    box = _one_box(net, box)
    budget = _check.count("boxes", boxes)
    found = refuted(_samples(box))
    if found:
        return Verdict("no", *found)
    scale, used, queue, known = net.input_scale.double(), 0, box, None
    while len(queue) and used < budget:
        batch = queue[: min(BATCH, budget - used)]
        used += len(batch)
        here = enclosed(batch) if known is None else intersection(enclosed(batch), known[: len(batch)])
        undecided = ~proves(here)
        rest, here = batch[undecided], here[undecided]
        if len(rest):
            found = refuted(0.5 * rest.lo + 0.5 * rest.hi)
            if found:
                return Verdict("no", *found, boxes=used)
        here = Interval.unchecked(here.lo.repeat_interleave(2, 0), here.hi.repeat_interleave(2, 0))
        known = here if known is None else _joined(known[len(batch) :], here)
        queue = _joined(queue[len(batch) :], halves(rest, scale))
    return Verdict("unknown" if len(queue) else "yes", boxes=used)


def _joined(x: Interval, y: Interval) -> Interval:
    return Interval.unchecked(torch.cat([x.lo, y.lo]), torch.cat([x.hi, y.hi]))


def _one_box(net: Surrogate, box: Interval) -> Interval:
    d = _check.instance("net", net, Surrogate).widths[0]
    _check.instance("box", box, Interval)
    if box.shape not in ((d,), (1, d)):
        raise ValueError(f"box: got shape {tuple(box.shape)}, need ({d},)")
    if not (torch.isfinite(box.lo) & torch.isfinite(box.hi)).all():
        raise ValueError("box: got an empty or unbounded one, need a bounded one")
    return box.to(torch.float64).reshape(1, d)


def _samples(box: Interval) -> Tensor:
    """Return the center, some corners and evenly spread points (a Kronecker lattice) of a box (1, d)."""
    d = box.shape[1]
    count = torch.arange(1, SAMPLES + 1, dtype=torch.float64).unsqueeze(1)
    root = 2.0
    for _ in range(64):  # the positive root of t^(d + 1) = t + 1 makes the lattice even in d dimensions
        root = (1 + root) ** (1 / (d + 1))
    inside = (0.5 + count * root ** -torch.arange(1, d + 1, dtype=torch.float64)) % 1
    corners = (inside[: SAMPLES // 2] > 0.5).double()
    points = torch.lerp(box.lo, box.hi, torch.cat([torch.full((1, d), 0.5, dtype=torch.float64), corners, inside]))
    return torch.minimum(torch.maximum(points, box.lo), box.hi)


def _symmetric(hessian: Interval) -> Interval:
    return intersection(hessian, Interval.unchecked(hessian.lo.mT, hessian.hi.mT))


def _positive_semidefinite(hessian: Interval, tolerance: float) -> Tensor:
    """Say for which of n interval matrices (d, d) no eigenvalue of a member is below - tolerance."""
    d = hessian.shape[-1]
    finite = (torch.isfinite(hessian.lo) & torch.isfinite(hessian.hi)).flatten(1).all(1)
    proved = torch.zeros(len(hessian), dtype=torch.bool)
    for i in finite.nonzero().flatten().tolist():
        h = hessian[i]
        shift = point(tolerance * (1 - 1e-15) * torch.eye(d, dtype=torch.float64))
        h = add(h, shift)
        middle = 0.5 * h.lo + 0.5 * h.hi
        q = torch.linalg.eigh(0.5 * (middle + middle.T)).eigenvectors
        turned = _sandwich(q, h)
        overlap = _sandwich(q, point(torch.eye(d, dtype=torch.float64)))
        independent = (mag(sub(overlap, point(torch.eye(d, dtype=torch.float64)))).sum(1) < 0.5).all()
        off = mag(turned) * (1 - torch.eye(d, dtype=torch.float64))
        discs = turned.lo.diagonal() - enlarge(off.sum(1), d + 2, True)
        proved[i] = bool(independent and (discs >= 0).all())
    return proved


def _sandwich(q: Tensor, h: Interval) -> Interval:
    """Enclose :math:`Q^T H Q`, (d, d)."""
    half = affine_kernel(q.T, q.T.abs(), None, h, True)  # rows of H times Q
    whole = affine_kernel(q.T, q.T.abs(), None, Interval.unchecked(half.lo.T, half.hi.T), True)
    return Interval.unchecked(whole.lo.T, whole.hi.T)
