r"""The sweeps behind interval adjoints: forward, back, along a direction, and back again.

Every step is done twice, in interval arithmetic and, if asked for, in zonotopes, and both are intersected. Module
``adjoints`` says what is computed; Chapter 6 derives it.
"""

from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.enclosure import zonotope as zn
from sobolev_lib.enclosure.affine import affine_kernel
from sobolev_lib.enclosure.approximation import lines
from sobolev_lib.enclosure.interval import Interval, add, div, mul, mul_kernel, point, sub
from sobolev_lib.enclosure.jets import jet_ranges
from sobolev_lib.enclosure.rounding import MODES, enlarge
from sobolev_lib.network.activations import Activation
from sobolev_lib.network.surrogate import DOMAIN, Surrogate

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

    def forward(self, layer: int, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the layer's matrix, its absolute values and its bias."""
        return self.weights[layer], self.magnitudes[layer], self.biases[layer] if bias else None

    def back(self, layer: int) -> tuple[Tensor, Tensor, None]:
        """Return the same, transposed, for the way back."""
        return self.weights[layer].T, self.magnitudes[layer].T, None


def layers_of(net: Surrogate) -> Layers:
    """Read a network; its parameters must be finite."""
    known = {name: t for name, t in net.state_dict().items() if name not in DOMAIN}
    tensors = {name: _check.tensor(name, t.detach()).double() for name, t in known.items()}
    weights = [tensors[f"weights.{i}"] for i in range(len(net.weights))]
    biases = [tensors[f"biases.{i}"] for i in range(len(net.biases))]
    scaling = [point(tensors[name]) for name in ("input_shift", "input_scale", "output_shift", "output_scale")]
    return Layers(net.activation, weights, [weight.abs() for weight in weights], biases, *scaling)


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of some nodes over each box: intervals and, if asked for, zonotopes, which tighten them."""

    range: Interval
    form: zn.Zonotope | None
    outward: bool

    def also(self, range: Interval, form: zn.Zonotope | None) -> "Known":
        """Return what intervals and a zonotope say of the same: the intersection of both."""
        return Known(range if form is None else _both(range, form, self.outward), form, self.outward)

    def affine(self, weight: Tensor, magnitude: Tensor, bias: Tensor | None) -> "Known":
        """Return W x + b, given W, its absolute values and b."""
        result = affine_kernel(weight, magnitude, bias, self.range, self.outward)
        return self.also(result, self.form and zn.affine_image(weight, magnitude, bias, self.form, self.outward))

    def times(self, other: "Known") -> "Known":
        """Return the elementwise product."""
        result = mul_kernel(self.range, other.range, self.outward)
        if self.form is None:
            return self.also(result, None)
        return self.also(result, zn.product(self.form, other.form, self.range, other.range, self.outward))

    def plus(self, other: "Known") -> "Known":
        """Return the sum."""
        result = add(self.range, other.range, rounding=MODES[self.outward])
        return self.also(result, self.form and zn.total(self.form, other.form, self.outward))


def _both(x: Interval, form: zn.Zonotope, outward: bool) -> Interval:
    """Intersect two enclosures of the same; ends that rounding to nearest has put in the wrong order change places."""
    y = zn.enclosure(form, outward)
    lo, hi = torch.fmax(x.lo, y.lo), torch.fmin(x.hi, y.hi)
    return Interval.unchecked(torch.minimum(lo, hi), torch.maximum(lo, hi))


@dataclass(frozen=True, eq=False)
class _Trace:
    """What the sweeps leave behind for each other, one entry per hidden layer."""

    nodes: list[Interval] = field(default_factory=list)
    jets: list[list[Known]] = field(default_factory=list)  # f, f', ..
    adjoints: list[Known] = field(default_factory=list)  # of a_l


@dataclass(frozen=True, eq=False)
class Sweep:
    """The sweeps over one batch of boxes."""

    layers: Layers
    zonotopes: bool
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
        if not self.zonotopes:
            return self.run_at_once(box)
        widths = [len(bias) for bias in self.layers.biases[:-1]]
        rows = box.shape[1] + 2 * self.order * sum(widths)
        per_box = 8 * rows * max(widths, default=1) * (8 + len(widths) * self.order)
        size = max(1, MEMORY // per_box)
        return concatenate([self.run_at_once(box[i : i + size]) for i in range(0, max(1, len(box)), size)])

    def run_at_once(self, box: Interval) -> Enclosure:
        """Enclose a network over boxes (n, d)."""
        trace = _Trace()
        value = self.forward(box, trace)
        z_bars, gradient = self.adjoint(len(box), trace)
        activations, a_bars = [jet[0].range for jet in trace.jets], [bar.range for bar in trace.adjoints]
        result = (box, trace.nodes, activations, value, z_bars, a_bars, gradient)
        if self.order == 2:
            result += (*self.second(len(box), trace), self.directions)
        return Enclosure(*result, rounding=self.rounding)

    def fresh(self, x: Interval, rows: int = 0) -> Known:
        """Start a sweep with intervals (n, m) whose uncertainty is no one else's."""
        return Known(x, zn.from_interval(x, self.outward, rows) if self.zonotopes else None, self.outward)

    def into(self, layer: int, x: Known, bias: bool = True) -> Known:
        """Return what a layer makes of the nodes before it: a step that coordinates other than the inputs replace."""
        return x.affine(*self.layers.forward(layer, bias))

    def forward(self, box: Interval, trace: _Trace) -> Interval:
        """Enclose all nodes; return the value."""
        layers, rounding = self.layers, self.rounding
        box = div(sub(box, layers.input_shift, rounding=rounding), layers.input_scale, rounding=rounding)
        node = Known(box, zn.from_box(box, self.outward) if self.zonotopes else None, self.outward)
        for layer in range(self.hidden):
            node = self.into(layer, node)
            trace.nodes.append(node.range)
            ranges, forms = jet_ranges(layers.activation, node.range, self.order, self.outward), [None] * 3
            if node.form is not None:
                fitted = lines(layers.activation, node.range, node.form.center, self.order, self.outward)
                forms = [zn.image(line, node.form, self.outward) for line in fitted]
            node = node.also(ranges[0], forms[0])
            slopes = [Known(*pair, self.outward) for pair in zip(ranges[1:], forms[1:], strict=False)]
            trace.jets.append([node, *slopes])
        value = self.into(self.hidden, node).range[:, 0]
        return add(mul(value, layers.output_scale, rounding=rounding), layers.output_shift, rounding=rounding)

    def adjoint(self, n: int, trace: _Trace) -> tuple[list[Interval], Interval]:
        """Enclose the adjoints of all nodes; return those of the pre-activations and the gradient."""
        start = mul(point(self.layers.weights[-1]), self.layers.output_scale, rounding=self.rounding)
        start, inputs = (
            Interval.unchecked(start.lo.expand(n, -1), start.hi.expand(n, -1)),
            len(self.layers.weights[0].T),
        )
        bar, z_bars = self.fresh(start, inputs), []
        for layer in reversed(range(self.hidden)):
            trace.adjoints.insert(0, bar)
            bar = trace.jets[layer][1].times(bar)
            z_bars.insert(0, bar.range)
            bar = bar.affine(*self.layers.back(layer))
        return z_bars, div(bar.range, self.layers.input_scale, rounding=self.rounding)

    def second(self, n: int, trace: _Trace) -> tuple[list[Interval], ...]:
        """Sweep along each direction; return the order-2 fields of an `Enclosure`."""
        steps = div(point(self.directions), self.layers.input_scale, rounding=self.rounding)
        results = [self.along(steps[i : i + 1], n, trace) for i in range(len(steps))]
        *nodes, hvp, curvature = ([pick[i] for pick in results] for i in range(6))
        nodes = ([_stack(layer) for layer in zip(*lists, strict=True)] for lists in nodes)
        return *nodes, _stack(hvp), _stack(curvature)

    def along(self, step: Interval, n: int, trace: _Trace):
        """Sweep forward and back along one direction, (1, d) in scaled units."""
        rows = 0
        if self.zonotopes and self.hidden:  # the symbols of the first two sweeps come first, its own behind them
            rows = trace.adjoints[0].form.rows + trace.adjoints[0].range.shape[1]
        dot = self.fresh(Interval.unchecked(step.lo.expand(n, -1), step.hi.expand(n, -1)), rows)
        z_dots, a_dots = [], []
        for layer in range(self.hidden):
            z_dots.append(self.into(layer, dot, bias=False))
            dot = trace.jets[layer][1].times(z_dots[-1])
            a_dots.append(dot.range)
        bar = self.fresh(Interval.unchecked(torch.zeros_like(dot.range.lo), torch.zeros_like(dot.range.hi)))
        z_bars, a_bars = [], []
        for layer in reversed(range(self.hidden)):
            a_bars.insert(0, bar.range)
            _, slope, curvature = trace.jets[layer]
            bent = curvature.times(trace.adjoints[layer].times(z_dots[layer]))
            bar = slope.times(bar).plus(bent)
            z_bars.insert(0, bar.range)
            bar = bar.affine(*self.layers.back(layer))
        hvp = div(bar.range, self.layers.input_scale, rounding=self.rounding)
        return [dot.range for dot in z_dots], a_dots, z_bars, a_bars, hvp, self.contract(step, bar)

    def contract(self, step: Interval, bar: Known) -> Interval:
        """Enclose the inner product of the direction with the Hessian-vector product, both in scaled units."""
        terms = mul_kernel(step, bar.range, self.outward)
        total = affine_kernel(*[torch.ones(1, terms.shape[1], dtype=torch.float64)] * 2, None, terms, self.outward)
        if bar.form is not None:
            middle = 0.5 * step.lo + 0.5 * step.hi
            result = zn.affine_image(middle, middle.abs(), None, bar.form, self.outward)
            slack = sub(step, point(middle), rounding=self.rounding)  # what the midpoint of the step leaves out
            extra = mul_kernel(slack, bar.range, self.outward)
            lost = torch.maximum(extra.lo.abs(), extra.hi.abs()).sum(1, keepdim=True)
            result = result._replace(rest=result.rest + enlarge(lost, terms.shape[1] + 2, self.outward))
            total = _both(total, result, self.outward)
        return total[:, 0]


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
