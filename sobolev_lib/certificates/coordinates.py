r"""Branch and bound in the coordinates that a network's first layer sees.

Over the box :math:`x = c + r \circ e`, :math:`e \in [-1, 1]^d`, the first layer sees :math:`A e` with
:math:`A = W \,\mathrm{diag}(r / s)`. Its right singular vectors V (d, q), q at most the smaller of nodes and inputs,
give coordinates :math:`\zeta = V^T e`, the most important first. After training few of them matter: the network is
*thin*. So only cells of :math:`\zeta` are cut, and only across what contributes to the bound that is asked for. Over a
cell with center m, where :math:`y = \zeta - m`, S are the coordinates that have been cut and U the others,

.. math:: f(\zeta) \in f(m) + \nabla_S f(m)^T y_S + \tfrac12\, y_S^T [\nabla_{SS}^2 f]\, y_S
          + \sum_{l \in U} [\partial_l f] \sum_i V_{il} e_i ,

where the last term is bounded by :math:`\sum_i |\sum_l [\partial_l f] V_{il}|`: nodes are summed first, absolute values
last, so that what cancels cancels. For the difference of two functions their derivatives are subtracted before
anything is bounded. Cells that miss the image of the box are discarded by a separating direction. Everything is
rounded outward, the coordinates included: what V and A lose by rounding is added to the first layer's pre-activations.

Source: Moore, Kearfott & Cloud, *Introduction to Interval Analysis* (2009), chapters 5 and 6, for the mean-value form
and branch and bound. Chapter 10.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.certificates.references import Reference
from sobolev_lib.enclosure.adjoints import enclose
from sobolev_lib.enclosure.affine import affine_kernel
from sobolev_lib.enclosure.interval import Interval, div, intersection, mag, mul, point, sub
from sobolev_lib.enclosure.rounding import enlarge, gamma, widen
from sobolev_lib.enclosure.sweeps import Known, Sweep, layers_of
from sobolev_lib.network.surrogate import Surrogate

WIDE = 16  # nodes of a layer up to which intervals are tight enough; above, zonotopes pay
BATCH = 1024  # cells that are enclosed at once
SAMPLES = 256
FAINT = 1e-6  # what the first layer sees but no gradient shows comes last


class Jet(NamedTuple):
    """Enclosures over n cells of a function and its derivatives, by the q coordinates and the c raw inputs asked for.

    In their order: the value (n,); its gradient by the coordinates (n, q); its gradient by the inputs (n, d), or along
    the direction (n, 1); the Hessian by the coordinates (n, q, q); the derivative of the gradient by the coordinates
    (n, c, q); second derivatives by the inputs (n, d, d), or along the direction (n, 1, 1).
    """

    value: Interval
    slope: Interval
    gradient: Interval
    bend: Interval | None = None
    turn: Interval | None = None
    second: Interval | None = None


def _minus(x: Interval | None, y: Interval | None) -> Interval | None:
    return None if x is None or y is None else sub(x, y)


def _times(x: Interval, matrix: Tensor) -> Interval:
    """Return x @ matrix, enclosed."""
    return affine_kernel(matrix.T, matrix.T.abs(), None, x, True)


def _widened(x: Interval, slack: Tensor) -> Interval:
    return Interval.unchecked(*widen(x.lo - slack, x.hi + slack, True))


def _swapped(x: Interval) -> Interval:
    return Interval.unchecked(x.lo.mT, x.hi.mT)


class Frame:
    """The coordinates of a box: center c, radius r, V (d, q), and how far each coordinate reaches."""

    @torch.no_grad()
    def __init__(self, box: Interval, functions: list):
        """Take the directions along which the gradients of the functions change, then what else they see."""
        self.box = box
        self.center = 0.5 * box.lo + 0.5 * box.hi
        self.radius = enlarge(torch.maximum(self.center - box.lo, box.hi - self.center), 1, True)
        self.radius = torch.where(box.lo == box.hi, 0.0, self.radius)
        x = self.points(2 * torch.rand(SAMPLES, len(box), generator=torch.Generator().manual_seed(0)).double() - 1)
        seen = []
        for f in functions:
            rows = f.rows if isinstance(f, Reference) else (f.weights[0] / f.input_scale).double()
            slopes = rows if isinstance(f, Reference) else f.gradient(x.to(f.dtype)).double()
            change = slopes - slopes.mean(0) if len(slopes) > 1 else slopes
            parts = ((change * self.radius, 1.0), (rows * self.radius, FAINT))
            seen += [share * part / part.norm().clamp(min=1e-300) for part, share in parts]
        _, sizes, vectors = torch.linalg.svd(torch.cat(seen), full_matrices=False)
        self.basis = vectors[: max(1, int((sizes > 1e-8 * FAINT * sizes[0]).sum()))].T.contiguous()
        self.reach = enlarge(self.basis.abs().sum(0), len(self.center), True)

    def root(self) -> Interval:
        """Return one cell (1, q) that holds the image of the box."""
        return Interval.unchecked(-self.reach[None], self.reach[None])

    def inputs(self, coordinates: Tensor) -> Tensor:
        """Return points of the box (n, d) whose coordinates are near the given ones (n, q)."""
        pull = e = torch.zeros(len(coordinates), len(self.center), dtype=torch.float64)
        for _ in range(12):  # ascent of the dual of the smallest e in the box with these coordinates
            pull = pull + (coordinates - e @ self.basis) @ self.basis.T
            e = pull.clamp(-1, 1)
        return self.points(e)

    def points(self, e: Tensor) -> Tensor:
        """Return the points of the box (n, d) for e in [-1, 1]^d."""
        return torch.minimum(torch.maximum(self.center + self.radius * e, self.box.lo), self.box.hi)

    def misses(self, cells: Interval, cut: Tensor) -> Tensor:
        """Say which cells are proved to lie outside of the image of the box, by a direction that separates them."""
        middle = 0.5 * cells.lo + 0.5 * cells.hi
        radius = torch.maximum(middle - cells.lo, cells.hi - middle)
        normal = middle * cut
        near = (normal * middle).sum(1) - (normal.abs() * radius).sum(1)
        far = (normal @ self.basis.T).abs().sum(1)
        size = (normal.abs() * (middle.abs() + radius + self.reach)).sum(1)
        return near - far > 4 * gamma(sum(self.basis.shape) + 8, torch.float64) * size + 1e-300


class View(NamedTuple):
    r"""How one function sees the box: its first layer as a function of the coordinates, and of the raw inputs.

    Attributes:
        matrix: M (k, q): the first layer's pre-activations are :math:`M \zeta + z` up to the slack.
        middle: z, (k,).
        slack: (k,).
        rows: (k, c): how they change with each input, or along the direction, before division by ``scale``.
        lean: How far ``rows`` may be off, (k,).
        scale: (c,).
    """

    matrix: Tensor
    middle: Tensor
    slack: Tensor
    rows: Tensor
    lean: Tensor
    scale: Interval

    def raw(self, adjoints: Interval) -> Interval:
        """Return derivatives (.., c) by raw inputs from those by the first layer's pre-activations (.., k)."""
        found, lost = div(_times(adjoints, self.rows), self.scale), (mag(adjoints) @ self.lean).unsqueeze(-1)
        return _widened(found, enlarge(lost, len(self.lean) + 2, True)) if self.lean.any() else found


def _view(
    frame: Frame, rows: Tensor, bias: Tensor | None, shift: Interval, scale: Interval, direction: Tensor | None
) -> View:
    """Return how a function with these first rows (k, d), for inputs (x - shift) / scale, sees the box."""
    size = div(point(frame.radius), scale)
    exact = mul(point(rows), size)
    matrix = (0.5 * exact.lo + 0.5 * exact.hi) @ frame.basis
    lost = mag(sub(exact, _times(point(matrix), frame.basis.T)))
    start = affine_kernel(rows, rows.abs(), bias, div(sub(point(frame.center), shift), scale), True)
    middle = 0.5 * start.lo + 0.5 * start.hi
    slack = enlarge(lost.sum(1) + mag(sub(start, point(middle))), rows.shape[1] + 4, True)
    if direction is None:
        return View(matrix, middle, slack, rows, torch.zeros_like(slack), scale)
    step = affine_kernel(rows, rows.abs(), None, div(point(direction), scale), True)
    along = 0.5 * step.lo + 0.5 * step.hi
    return View(matrix, middle, slack, along[:, None], mag(sub(step, point(along))), point([1.0]))


@dataclass(frozen=True, eq=False)
class Reduced(Sweep):
    """The sweeps of a network as a function of the coordinates; a second derivative adds inputs that never move."""

    view: View
    extra: int  # such inputs, one for each direction of the second derivative

    def into(self, layer: int, x: Known, bias: bool = True) -> Known:
        """Apply a layer; the first one may be off by the slack."""
        result = super().into(layer, x, bias)
        if layer:
            return result
        slack = self.view.slack if bias else self.view.lean
        form = result.form and result.form._replace(rest=enlarge(result.form.rest + slack, 1, True))
        return Known(_widened(result.range, slack), form, True)

    def jet(self, cells: Interval, second: bool) -> Jet:
        """Enclose the network over cells (n, q)."""
        n, q = cells.shape
        sweep = self if second else replace(self, directions=None)
        zero = torch.zeros(n, self.extra, dtype=torch.float64)
        found = sweep.run(Interval.unchecked(torch.cat([cells.lo, zero], 1), torch.cat([cells.hi, zero], 1)))
        bars = found.preactivation_adjoints[0] if self.hidden else self.layers.output_scale.reshape(1, 1)
        jet = Jet(found.value, found.gradient[:, :q], self.view.raw(bars))
        if sweep.order == 1:
            return jet
        flat = point(torch.zeros(n, len(self.directions), 1, dtype=torch.float64))
        turns = self.view.raw(found.preactivation_second_adjoints[0] if self.hidden else flat)
        if not self.extra:
            return jet._replace(bend=found.hvp, turn=_swapped(turns))
        both = intersection(turns, _swapped(turns))
        return jet._replace(second=found.curvature.reshape(n, 1, 1) if self.extra == 1 else both)


def _reduced(net: Surrogate, frame: Frame, direction: Tensor | None, twice: bool, wide: bool) -> Reduced:
    layers = layers_of(net)
    view = _view(frame, layers.weights[0], layers.biases[0], layers.input_shift, layers.input_scale, direction)
    matrix = view.matrix
    if twice:
        steps = view.rows if direction is not None else view.rows / net.input_scale
        lost = mag(sub(div(point(view.rows), view.scale), point(steps))).amax(1)  # what a division rounds
        view = view._replace(lean=enlarge(view.lean + lost, 1, True))
        matrix = torch.cat([matrix, steps], 1)
    q, extra = matrix.shape[1], matrix.shape[1] - view.matrix.shape[1]
    reduced = replace(
        layers,
        weights=[matrix, *layers.weights[1:]],
        magnitudes=[matrix.abs(), *layers.magnitudes[1:]],
        biases=[view.middle, *layers.biases[1:]],
        input_shift=point(torch.zeros(q, dtype=torch.float64)),
        input_scale=point(torch.ones(q, dtype=torch.float64)),
    )
    directions = torch.eye(q, dtype=torch.float64)[q - extra if twice else 0 :] if net.activation.smooth else None
    return Reduced(reduced, wide or twice, True, directions, view, extra)


class Closed:
    """A reference as a function of the coordinates."""

    def __init__(self, reference: Reference, frame: Frame, direction: Tensor | None, twice: bool):
        """Read the reference's rows in the coordinates of the frame."""
        d = reference.rows.shape[1]
        self.reference, self.twice = reference, twice
        self.view = _view(frame, reference.rows, None, point([0.0] * d), point([1.0] * d), direction)

    def jet(self, cells: Interval, second: bool = True) -> Jet:
        """Enclose the reference over cells (n, q)."""
        z = affine_kernel(self.view.matrix, self.view.matrix.abs(), self.view.middle, cells, True)
        return self.at(_widened(z, self.view.slack))

    def at(self, z: Interval) -> Jet:
        """Enclose the reference for features (n, 1)."""
        values = [
            self.known(f, z[:, 0]) for f in (self.reference.value, self.reference.slope, self.reference.curvature)
        ]
        value, slope, bend = values[0], values[1].reshape(-1, 1), values[2].reshape(-1, 1, 1)
        jet = Jet(value, _times(slope, self.view.matrix), self.view.raw(slope))
        if self.twice:
            return jet._replace(second=self.view.raw(_swapped(self.view.raw(bend))))
        turn = _swapped(_times(bend, self.view.matrix))
        return jet._replace(bend=_times(turn, self.view.matrix), turn=_swapped(self.view.raw(turn)))

    def known(self, function: Callable[[Interval], Interval], z: Interval) -> Interval:
        """Apply a function of the reference; outside of its domain nothing is known."""
        found = function(z)
        return Interval.unchecked(found.lo.nan_to_num(nan=-torch.inf), found.hi.nan_to_num(nan=torch.inf))


class Difference:
    """One function, or the difference of two, over one box in common coordinates.

    Args:
        functions: One or two networks and references.
        box: (d,), bounded.
        of: What is asked: "value" (n,), "gradient" (n, d) or "second" (n, d, d).
        direction: Derivatives along it, (n, 1) and (n, 1, 1), instead of those by all inputs.
    """

    def __init__(self, functions: list, box: Interval, of: str, direction: Tensor | None = None):
        """Choose the coordinates, and rewrite the functions in them."""
        networks = [f for f in functions if isinstance(f, Surrogate)]
        wide = max(max(net.widths[1:]) for net in networks) > WIDE
        self.functions, self.of, self.direction, self.frame = functions, of, direction, Frame(box, functions)
        place = self.frame, direction, of == "second"
        self.parts = [Closed(f, *place) if isinstance(f, Reference) else _reduced(f, *place, wide) for f in functions]
        self.second = all(net.activation.smooth for net in networks) and not (wide and of == "value")
        self.sizes = sum(part.view.matrix.abs().sum(0) for part in self.parts)

    def jet(self, cells: Interval, second: bool) -> Jet:
        """Enclose the difference and its derivatives over cells (n, q)."""
        first, *rest = (part.jet(cells, second) for part in self.parts)
        return Jet(*map(_minus, first, rest[0])) if rest else first

    def at(self, x: Tensor) -> Interval:
        """Enclose the quantity at points (n, d): next to nothing wide."""
        results, v = [], self.direction
        for f, part in zip(self.functions, self.parts, strict=True):
            if isinstance(f, Reference):
                found = getattr(part.at(_times(point(x), f.rows.T)), self.of)
            elif self.of == "second":
                found = enclose(f, point(x), order=2, directions=None if v is None else v[None])
                found = found.hvp if v is None else found.curvature
            else:
                found = getattr(enclose(f, point(x)), self.of)
                found = _times(found, v[:, None]) if v is not None and self.of == "gradient" else found
            results.append(found.reshape(len(x), -1))
        return sub(*results) if len(results) == 2 else results[0]

    def bound(self, cells: Interval, cut: Tensor) -> tuple[Interval, Tensor]:
        """Enclose the quantity over cells, (n, c), and say how much each coordinate contributes to its width (n, q)."""
        middle = 0.5 * cells.lo + 0.5 * cells.hi
        radius = enlarge(torch.maximum(middle - cells.lo, cells.hi - middle), 1, True)
        whole = self.jet(cells, self.second)
        if self.of == "second":
            return whole.second.reshape(len(cells), -1), self.sizes * radius
        center = self.jet(point(middle), False)
        share = mag(whole.slope) * radius
        if self.of == "gradient":
            if whole.turn is None:
                return whole.gradient, share
            spread = self.spread(whole.turn, cut.unsqueeze(1), radius.unsqueeze(1))
            return _meet(whole.gradient, center.gradient, spread), (mag(whole.turn) * radius.unsqueeze(1)).amax(1)
        spread = self.spread(whole.slope, cut, radius)
        if whole.bend is not None:
            ends = ((getattr(center.slope, end), getattr(whole.slope, end)) for end in ("lo", "hi"))
            mixed = Interval.unchecked(*(torch.where(cut, *pair) for pair in ends))
            inner = torch.where(cut, radius, 0.0)
            curved = 0.5 * (mag(whole.bend) * inner.unsqueeze(1) * inner.unsqueeze(2)).sum((1, 2))
            second = enlarge(self.spread(mixed, cut, radius) + curved, cells.shape[1] ** 2 + 4, True)
            spread = torch.fmin(spread, second)
        return _meet(whole.value, center.value, spread).reshape(-1, 1), share

    def spread(self, slope: Interval, cut: Tensor, radius: Tensor) -> Tensor:
        """Bound the sum of slope (..., q) times y: coordinate by coordinate where cut, input by input elsewhere."""
        inner = (mag(slope) * torch.where(cut, radius, 0.0)).sum(-1)
        rest = Interval.unchecked(torch.where(cut, 0.0, slope.lo), torch.where(cut, 0.0, slope.hi))
        outer = mag(_times(rest, self.frame.basis.T)).sum(-1)
        return enlarge(inner + outer, sum(self.frame.basis.shape) + 4, True)


def _meet(x: Interval, center: Interval, spread: Tensor) -> Interval:
    """Intersect x with center +- spread; both hold the truth."""
    lo, hi = widen(center.lo - spread, center.hi + spread, True)
    return Interval.unchecked(torch.fmax(x.lo, lo), torch.fmin(x.hi, hi))


@dataclass(frozen=True, eq=False)
class Extreme:
    """What is known of the largest values of m quantities over a box, by ``error_bound`` of one: numbers, not tensors.

    Attributes:
        bound: No value is larger: proved, (m,).
        seen: The largest values found, each proved at its point, (m,).
        where: These points, (m, d).
        cells: How many cells were enclosed.
        left: Share of the volume of the coordinates' range in which the bound is not yet good enough.
        worst: A point (d,) of the open cell with the largest bound, or None.

    Chapter 10, "An error bound in practice".
    """

    bound: Tensor | float
    seen: Tensor | float
    where: Tensor
    cells: int
    left: float
    worst: Tensor | None


@torch.no_grad()
def search(
    difference: Difference,
    ends: Callable[[Interval], Interval],
    target: Callable[[Tensor], Tensor],
    cells: int,
    enough: Callable[[Tensor], bool] = lambda lower: False,
) -> Extreme:
    """Bound the largest values of quantities over a box by branch and bound.

    Args:
        difference: The function.
        ends: From enclosures (n, c) of it to enclosures (n, m) of the quantities to be maximised.
        target: From the largest values seen (m,) to bounds that are good enough.
        cells: How many cells may be enclosed.
        enough: Whether the values seen end the search.

    Returns:
        Extreme.
    """
    _check.count("cells", cells)
    frame = difference.frame
    x = frame.points(lattice(frame))
    seen = ends(difference.at(x)).lo
    lower, where = seen.amax(0), x[seen.argmax(0)]
    boxes, cut = frame.root(), torch.zeros(1, len(frame.reach), dtype=torch.bool)
    bound, share = difference.bound(boxes, cut)
    upper, used, closed = ends(bound).hi, 1, torch.full_like(lower, -torch.inf)
    while not enough(lower):
        good = target(lower)
        excess = ((upper - good) / (good - lower).clamp(min=1e-300)).amax(1)
        order = excess.argsort(descending=True)
        boxes, cut, share, upper, excess = boxes[order], cut[order], share[order], upper[order], excess[order]
        active = int((excess > 0).sum())
        closed = torch.cat([upper[active:], closed[None]]).amax(0)
        boxes, cut, share, upper = boxes[:active], cut[:active], share[:active], upper[:active]
        number = min(active, BATCH // 2, (cells - used) // 2)
        if not number:
            break
        fresh, fresh_cut, old = _halves(boxes[:number], cut[:number], share[:number], upper[:number])
        inside = ~frame.misses(fresh, fresh_cut)
        fresh, fresh_cut, old = fresh[inside], fresh_cut[inside], old[inside]
        used += 2 * number
        if not len(fresh):
            boxes, cut, share, upper = boxes[number:], cut[number:], share[number:], upper[number:]
            continue
        bound, fresh_share = difference.bound(fresh, fresh_cut)
        x = frame.inputs(0.5 * fresh.lo + 0.5 * fresh.hi)
        seen = ends(difference.at(x)).lo
        where = torch.where((seen.amax(0) > lower)[:, None], x[seen.argmax(0)], where)
        lower = torch.maximum(lower, seen.amax(0))
        boxes = Interval.unchecked(torch.cat([boxes.lo[number:], fresh.lo]), torch.cat([boxes.hi[number:], fresh.hi]))
        cut, share = torch.cat([cut[number:], fresh_cut]), torch.cat([share[number:], fresh_share])
        upper = torch.cat([upper[number:], torch.minimum(ends(bound).hi, old)])
    left = ((boxes.hi - boxes.lo) / (2 * frame.reach)).prod(1).sum().item() if len(upper) else 0.0
    worst = frame.inputs(0.5 * boxes[:1].lo + 0.5 * boxes[:1].hi)[0] if len(upper) else None
    return Extreme(torch.cat([upper, closed[None]]).amax(0), lower, where, used, left, worst)


def _halves(boxes: Interval, cut: Tensor, share: Tensor, upper: Tensor) -> tuple[Interval, Tensor, Tensor]:
    """Cut each cell in two across the coordinate that contributes most; what is known of it holds for both."""
    across = share.nan_to_num(nan=torch.inf).argmax(1, keepdim=True)
    middle = (0.5 * boxes.lo + 0.5 * boxes.hi).gather(1, across)
    lo = torch.cat([boxes.lo, boxes.lo.scatter(1, across, middle)])
    hi = torch.cat([boxes.hi.scatter(1, across, middle), boxes.hi])
    cut = cut.scatter(1, across, True)
    return Interval.unchecked(lo, hi), torch.cat([cut, cut]), torch.cat([upper, upper])


def lattice(frame: Frame) -> Tensor:
    """Return evenly spread points e, corners, and the path along the first coordinate from corner to corner."""
    d = len(frame.center)
    count = torch.arange(1, SAMPLES + 1, dtype=torch.float64).unsqueeze(1)
    root = 2.0
    for _ in range(64):  # the positive root of t^(d + 1) = t + 1 makes the lattice even in d dimensions
        root = (1 + root) ** (1 / (d + 1))
    inside = 2 * ((0.5 + count * root ** -torch.arange(1, d + 1, dtype=torch.float64)) % 1) - 1
    first = frame.basis[:, 0] / frame.basis[:, 0].abs().max()
    along = torch.linspace(-1, 1, SAMPLES + 1, dtype=torch.float64)[:, None]
    steep = along / (1 - along.abs()).clamp(min=1e-9)
    return torch.cat([inside, inside.sign(), (steep * first).clamp(-1, 1)])
