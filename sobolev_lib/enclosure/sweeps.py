r"""The sweeps behind interval adjoints: forward, back, along a direction, and back again.

Every step is done twice, in interval arithmetic and, if asked for, in zonotopes, and both are intersected. Module
``adjoints`` says what is computed; Chapter 6 derives it.
"""

from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.enclosure import zonotope as zn
from sobolev_lib.enclosure.affine import affine_kernel
from sobolev_lib.enclosure.approximation import fits
from sobolev_lib.enclosure.interval import Interval, add, div, mul, mul_kernel, point, sub
from sobolev_lib.enclosure.jets import jet_ranges
from sobolev_lib.enclosure.monomials import Monomials
from sobolev_lib.enclosure.rounding import MODES, enlarge
from sobolev_lib.network.activations import Activation
from sobolev_lib.network.surrogate import Surrogate

MEMORY = 256 * 2**20  # bytes of generators held at once; larger batches are cut


@dataclass(frozen=True, eq=False)
class Enclosure:
    r"""What ``enclose`` returns: enclosures over each of n boxes, batch first; lists have one entry per hidden layer.

    Attributes:
        box: The boxes, raw units, (n, d).
        preactivations: :math:`[z_l]`, (n, m_l).
        activations: :math:`[a_l]`, (n, m_l).
        value: Range of the network's value, raw units, (n,).
        preactivation_adjoints: Derivative of the raw value with respect to :math:`z_l`, (n, m_l).
        activation_adjoints: Derivative of the raw value with respect to :math:`a_l`, (n, m_l).
        gradient: Gradient, raw units, (n, d).
        preactivation_tangents: Order 2: derivative of :math:`z_l` along each of k raw directions, (n, k, m_l).
        activation_tangents: The same of :math:`a_l`.
        preactivation_second_adjoints: Order 2: derivative of the directional derivative
            :math:`g = v \cdot \nabla N` with respect to :math:`z_l`, tangents held fixed, (n, k, m_l). (With
            respect to the tangent of a node it is the node's adjoint.)
        activation_second_adjoints: The same with respect to :math:`a_l`.
        hvp: Order 2: Hessian-vector products, raw units, (n, k, d).
        curvature: Order 2: second derivative along each direction, :math:`v^T \nabla^2 N\, v`, raw units, (n, k).
        directions: Order 2: the directions, raw units, (k, d).
        rounding: How everything was rounded, "outward" or "nearest".

    ``enclosure[rows]`` has the enclosures of some of the boxes.

    Chapter 6, "Through a network".
    """

    box: Interval
    preactivations: list[Interval]
    activations: list[Interval]
    value: Interval
    preactivation_adjoints: list[Interval]
    activation_adjoints: list[Interval]
    gradient: Interval
    preactivation_tangents: list[Interval] | None = None
    activation_tangents: list[Interval] | None = None
    preactivation_second_adjoints: list[Interval] | None = None
    activation_second_adjoints: list[Interval] | None = None
    hvp: Interval | None = None
    curvature: Interval | None = None
    directions: Tensor | None = None
    rounding: str = "outward"

    def __getitem__(self, rows) -> "Enclosure":
        return over_fields(lambda xs: xs[0][rows], [self])


@dataclass(frozen=True, eq=False)
class Layers:
    """A network's numbers in float64: weights, their absolute values, biases and scaling."""

    activation: Activation
    weights: list[Tensor]
    magnitudes: list[Tensor]
    biases: list[Tensor]
    input_shift: Interval
    input_scale: Interval
    output_shift: Interval
    output_scale: Interval


def layers_of(net: Surrogate) -> Layers:
    """Read a network; its parameters must be finite."""
    tensors = {name: _check.tensor(name, t.detach()).double() for name, t in net.state_dict().items()}
    weights = [tensors[f"weights.{i}"] for i in range(len(net.weights))]
    biases = [tensors[f"biases.{i}"] for i in range(len(net.biases))]
    scaling = [point(tensors[name]) for name in ("input_shift", "input_scale", "output_shift", "output_scale")]
    return Layers(net.activation, weights, [weight.abs() for weight in weights], biases, *scaling)


@dataclass(frozen=True, eq=False)
class _Trace:
    """What the sweeps leave behind for each other, one entry per hidden layer; zonotopes only in their domain."""

    nodes: list[Interval] = field(default_factory=list)
    ranges: list[list[Interval]] = field(default_factory=list)  # of f, f', ..
    slopes: list[list[zn.Zonotope]] = field(default_factory=list)  # of f', ..
    adjoints: list[Interval] = field(default_factory=list)  # of a_l
    adjoint_forms: list[zn.Zonotope] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Sweep:
    """The sweeps over one batch of boxes."""

    layers: Layers
    monomials: Monomials | None  # with zonotopes
    outward: bool
    directions: Tensor | None  # at order 2

    @property
    def order(self) -> int:
        """How many times is differentiated."""
        return 1 if self.directions is None else 2

    @property
    def hidden(self) -> int:
        """Number of hidden layers."""
        return len(self.layers.weights) - 1

    @property
    def rounding(self) -> str:
        """The rounding mode by name."""
        return MODES[self.outward]

    def run(self, box: Interval) -> Enclosure:
        """Enclose a network over boxes (n, d), as many at once as fit into memory."""
        if self.monomials is None:
            return self.run_at_once(box)
        widths = [len(bias) for bias in self.layers.biases[:-1]]
        rows = self.monomials.rows + 2 * self.order * sum(widths)
        per_box = 8 * rows * max(widths, default=1) * (8 + len(widths) * self.order)
        size = max(1, MEMORY // per_box)
        return concatenate([self.run_at_once(box[i : i + size]) for i in range(0, max(1, len(box)), size)])

    def run_at_once(self, box: Interval) -> Enclosure:
        """Enclose a network over boxes (n, d)."""
        trace = _Trace()
        value = self.forward(box, trace)
        z_bars, gradient = self.adjoint(len(box), trace)
        activations = [ranges[0] for ranges in trace.ranges]
        result = (box, trace.nodes, activations, value, z_bars, trace.adjoints, gradient)
        if self.order == 2:
            result += (*self.second(len(box), trace), self.directions)
        return Enclosure(*result, rounding=self.rounding)

    def forward(self, box: Interval, trace: _Trace) -> Interval:
        """Enclose all nodes; return the value."""
        layers, rounding = self.layers, self.rounding
        node = div(sub(box, layers.input_shift, rounding=rounding), layers.input_scale, rounding=rounding)
        form = zn.from_box(node, self.monomials, self.outward) if self.monomials else None
        for layer in range(self.hidden):
            node, form = self.affine(layer, node, form)
            ranges = jet_ranges(layers.activation, node, self.order, self.outward)
            trace.nodes.append(node)
            if form is not None:
                degree = self.monomials.degree
                polynomials = fits(layers.activation, node, form.center, self.order, degree, self.outward)
                form, *slopes = zn.images(polynomials, form, self.outward)
                trace.slopes.append(slopes)
                ranges[0] = _both(ranges[0], form, self.outward)
            trace.ranges.append(ranges)
            node = ranges[0]
        node, form = self.affine(self.hidden, node, form)
        return add(mul(node[:, 0], layers.output_scale, rounding=rounding), layers.output_shift, rounding=rounding)

    def adjoint(self, n: int, trace: _Trace) -> tuple[list[Interval], Interval]:
        """Enclose the adjoints of all nodes; return those of the pre-activations and the gradient."""
        start = mul(point(self.layers.weights[-1]), self.layers.output_scale, rounding=self.rounding)
        bar = Interval.unchecked(start.lo.expand(n, -1), start.hi.expand(n, -1))
        form = zn.from_interval(bar, self.monomials, self.outward) if self.monomials else None
        z_bars = []
        for layer in reversed(range(self.hidden)):
            trace.adjoints.insert(0, bar)
            trace.adjoint_forms.insert(0, form)
            bar, form = self.scaled(layer, 1, bar, form, trace)
            z_bars.insert(0, bar)
            bar, form = self.affine(layer, bar, form, back=True)
        return z_bars, div(bar, self.layers.input_scale, rounding=self.rounding)

    def second(self, n: int, trace: _Trace) -> tuple[list[Interval], ...]:
        """Sweep along each direction; return the order-2 fields of an `Enclosure`."""
        steps = div(point(self.directions), self.layers.input_scale, rounding=self.rounding)
        results = [self.along(steps[i : i + 1], n, trace) for i in range(len(steps))]
        *nodes, hvp, curvature = ([pick[i] for pick in results] for i in range(6))
        nodes = ([_stack(layer) for layer in zip(*lists, strict=True)] for lists in nodes)
        return *nodes, _stack(hvp), _stack(curvature)

    def along(self, step: Interval, n: int, trace: _Trace):
        """Sweep forward and back along one direction, (1, d) in scaled units."""
        dot = Interval.unchecked(step.lo.expand(n, -1), step.hi.expand(n, -1))
        form = None
        if self.monomials:  # the symbols of the first two sweeps come first, this direction's own behind them
            rows = trace.adjoint_forms[0].rows + trace.adjoints[0].shape[1] if self.hidden else 0
            form = zn.from_interval(dot, self.monomials, self.outward, rows)
        z_dots, a_dots, z_dot_forms = [], [], []
        for layer in range(self.hidden):
            dot, form = self.affine(layer, dot, form, bias=False)
            z_dots.append(dot)
            z_dot_forms.append(form)
            dot, form = self.scaled(layer, 1, dot, form, trace)
            a_dots.append(dot)
        bar = Interval.unchecked(torch.zeros_like(dot.lo), torch.zeros_like(dot.hi))
        form = zn.from_interval(bar, self.monomials, self.outward) if self.monomials else None
        z_bars, a_bars = [], []
        for layer in reversed(range(self.hidden)):
            a_bars.insert(0, bar)
            bar, form = self.scaled(layer, 1, bar, form, trace)
            bent, bent_form = self.bent(layer, z_dots[layer], z_dot_forms[layer], trace)
            bar = add(bar, bent, rounding=self.rounding)
            if form is not None:
                form = zn.total(form, bent_form, self.outward)
                bar = _both(bar, form, self.outward)
            z_bars.insert(0, bar)
            bar, form = self.affine(layer, bar, form, back=True)
        hvp = div(bar, self.layers.input_scale, rounding=self.rounding)
        return z_dots, a_dots, z_bars, a_bars, hvp, self.contract(step, bar, form)

    def contract(self, step: Interval, bar: Interval, form) -> Interval:
        """Enclose the inner product of the direction with the Hessian-vector product, both in scaled units."""
        terms = mul_kernel(step, bar, self.outward)
        total = affine_kernel(*[torch.ones(1, terms.shape[1], dtype=torch.float64)] * 2, None, terms, self.outward)
        if form is not None:
            middle = 0.5 * step.lo + 0.5 * step.hi
            result = zn.affine_image(middle, middle.abs(), None, form, self.outward)
            slack = sub(step, point(middle), rounding=self.rounding)  # what the midpoint of the step leaves out
            extra = mul_kernel(slack, bar, self.outward)
            lost = torch.maximum(extra.lo.abs(), extra.hi.abs()).sum(1, keepdim=True)
            result = replace(result, rest=result.rest + enlarge(lost, terms.shape[1] + 2, self.outward))
            total = _both(total, result, self.outward)
        return total[:, 0]

    def affine(self, layer: int, x: Interval, form, *, bias: bool = True, back: bool = False):
        """Apply the layer's matrix, or its transpose on the way back, to an interval and to its zonotope."""
        weight, magnitude = self.layers.weights[layer], self.layers.magnitudes[layer]
        matrix = (
            (weight.T, magnitude.T, None) if back else (weight, magnitude, self.layers.biases[layer] if bias else None)
        )
        result = affine_kernel(*matrix, x, self.outward)
        if form is None:
            return result, None
        form = zn.affine_image(*matrix, form, self.outward)
        return _both(result, form, self.outward), form

    def scaled(self, layer: int, k: int, x: Interval, form, trace: _Trace):
        """Multiply by the k-th derivative of the activation in the layer."""
        factor = trace.ranges[layer][k]
        result = mul_kernel(factor, x, self.outward)
        if form is None:
            return result, None
        form = zn.product(trace.slopes[layer][k - 1], form, factor, x, self.outward)
        return _both(result, form, self.outward), form

    def bent(self, layer: int, z_dot: Interval, form, trace: _Trace):
        r"""Enclose :math:`f''(z_l)\, \dot z_l\, \bar a_l`, what the activation's curvature contributes."""
        result = mul_kernel(z_dot, trace.adjoints[layer], self.outward)
        if form is not None:
            form = zn.product(trace.adjoint_forms[layer], form, trace.adjoints[layer], z_dot, self.outward)
            result = _both(result, form, self.outward)
        return self.scaled(layer, 2, result, form, trace)


def _both(x: Interval, form: zn.Zonotope, outward: bool) -> Interval:
    """Intersect two enclosures of the same; ends that rounding to nearest has put in the wrong order change places."""
    y = zn.enclosure(form, outward)
    lo, hi = torch.fmax(x.lo, y.lo), torch.fmin(x.hi, y.hi)
    return Interval.unchecked(torch.minimum(lo, hi), torch.maximum(lo, hi))


def _stack(parts: list[Interval]) -> Interval:
    return Interval.unchecked(torch.stack([x.lo for x in parts], 1), torch.stack([x.hi for x in parts], 1))


def over_fields(combine, parts: list[Enclosure]) -> Enclosure:
    """Combine the intervals of enclosures field by field, list entry by list entry; the rest is the first one's."""

    def combined(values):
        if isinstance(values[0], list):
            return [combined(layer) for layer in zip(*values, strict=True)]
        return combine(values) if isinstance(values[0], Interval) else values[0]

    return Enclosure(*(combined([getattr(part, f.name) for part in parts]) for f in fields(Enclosure)))


def concatenate(parts: list[Enclosure]) -> Enclosure:
    """Join enclosures of consecutive boxes."""

    def joined(xs):
        return Interval.unchecked(torch.cat([x.lo for x in xs]), torch.cat([x.hi for x in xs]))

    return parts[0] if len(parts) == 1 else over_fields(joined, parts)
