r"""Interval adjoints: enclosures of every node of a network, and of the derivative of its value with respect to each.

Over a box of inputs, one sweep forward encloses the nodes and one backward their adjoints (notation of the module ``twin``;
brackets are enclosures over the box):

.. math::

    [z_l] = W_l [a_{l-1}] + b_l, \quad [a_l] = f([z_l]), \qquad
    [\bar a_l] = W_{l+1}^T [\bar z_{l+1}], \quad [\bar z_l] = f'([z_l])\, [\bar a_l].

The domain says what stands between the brackets: intervals (``"natural"``: fast, and very wide for deep networks) or
``zonotope``, which remember where uncertainty comes from and are intersected with the intervals at every node, so never wider.
Enclosures are computed in float64 whatever the network's dtype; a float32 network is an exact function of its float32 weights.
Chapter 6.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib import zonotope as zn
from sobolev_lib.activations import Activation
from sobolev_lib.elementary import jet_ranges
from sobolev_lib.interval import Interval, add, affine_kernel, div, mul, point, sub
from sobolev_lib.network import Surrogate
from sobolev_lib.rounding import mode

DOMAINS = ("natural", "zonotope")


@dataclass(frozen=True, eq=False)
class Enclosure:
    r"""What `enclose` returns: enclosures over each of n boxes, batch first, one list entry for each hidden layer.

    Attributes:
        box: The boxes, raw units, (n, d).
        preactivations: :math:`[z_l]`, (n, m_l).
        activations: :math:`[a_l]`, (n, m_l).
        value: Range of the network's value, raw units, (n,).
        preactivation_adjoints: Derivative of the raw value with respect to :math:`z_l`, (n, m_l).
        activation_adjoints: Derivative of the raw value with respect to :math:`a_l`, (n, m_l).
        gradient: Gradient, raw units, (n, d).
    """

    box: Interval
    preactivations: list[Interval]
    activations: list[Interval]
    value: Interval
    preactivation_adjoints: list[Interval]
    activation_adjoints: list[Interval]
    gradient: Interval


@dataclass(frozen=True, eq=False)
class _Layers:
    """A network's numbers in float64: weights, their absolute values, biases and scaling."""

    activation: Activation
    weights: list[Tensor]
    magnitudes: list[Tensor]
    biases: list[Tensor]
    input_shift: Tensor
    input_scale: Tensor
    output_shift: Tensor
    output_scale: Tensor


@dataclass(frozen=True, eq=False)
class _Forward:
    """The forward sweep: nodes, ranges of f and its derivatives at them, and their zonotopes and lines."""

    inputs: Interval
    preactivations: list[Interval] = field(default_factory=list)
    ranges: list[list[Interval]] = field(default_factory=list)  # per layer: f, f', ..
    zonotopes: list[zn.Zonotope] = field(default_factory=list)
    lines: list[list[zn.Line]] = field(default_factory=list)


@torch.no_grad()
def enclose(
    net: Surrogate, box: Interval, *, domain: str = "natural", rounding: str = "outward", order: int = 1
) -> Enclosure:
    """Return enclosures of all nodes, their adjoints, the value and the gradient of ``net`` over each box."""
    outward = mode(rounding)
    layers = _layers(_check.instance("net", net, Surrogate))
    box = _boxes(box, net.widths[0])
    _check.choice("domain", domain, DOMAINS)
    forward, value = _sweep_forward(layers, box, domain == "zonotope", 1, outward)
    z_bars, a_bars, gradient = _sweep_adjoint(layers, forward, outward)
    activations = [ranges[0] for ranges in forward.ranges]
    return Enclosure(box, forward.preactivations, activations, value, z_bars, a_bars, gradient)


def _boxes(box: Interval, d: int) -> Interval:
    _check.instance("box", box, Interval)
    if box.lo.ndim not in (1, 2) or box.shape[-1] != d:
        raise ValueError(f"box: got shape {tuple(box.shape)}, need ({d},) or (n, {d})")
    return box.to(torch.float64).reshape(-1, d)


def _layers(net: Surrogate) -> _Layers:
    weights = [weight.detach().double() for weight in net.weights]
    scaling = (net.input_shift, net.input_scale, net.output_shift, net.output_scale)
    return _Layers(
        net.activation,
        weights,
        [weight.abs() for weight in weights],
        [bias.detach().double() for bias in net.biases],
        *(buffer.double() for buffer in scaling),
    )


def _sweep_forward(layers: _Layers, box: Interval, zonotope: bool, order: int, outward: bool):
    rounding = "outward" if outward else "nearest"
    shifted = sub(box, point(layers.input_shift), rounding=rounding)
    node = div(shifted, point(layers.input_scale), rounding=rounding)
    forward, form = _Forward(node), zn.from_box(node, outward) if zonotope else None
    for weight, magnitude, bias in zip(layers.weights, layers.magnitudes, layers.biases, strict=True):
        node = affine_kernel(weight, magnitude, bias, node, outward)
        if zonotope:
            form = zn.affine_image(weight, magnitude, bias, form, outward)
            node = _both(node, zn.enclosure(form, outward))
        if len(forward.preactivations) == len(layers.weights) - 1:
            break
        forward.preactivations.append(node)
        ranges = jet_ranges(layers.activation, node, order, outward)
        if zonotope:
            forward.zonotopes.append(form)
            forward.lines.append(zn.lines(layers.activation, node, order, outward))
            form = zn.image(forward.lines[-1][0], form, outward)
            ranges[0] = _both(ranges[0], zn.enclosure(form, outward))
        forward.ranges.append(ranges)
        node = ranges[0]
    scaled = mul(node[:, 0], point(layers.output_scale), rounding=rounding)
    return forward, add(scaled, point(layers.output_shift), rounding=rounding)


def _sweep_adjoint(layers: _Layers, forward: _Forward, outward: bool):
    rounding = "outward" if outward else "nearest"
    n = len(forward.inputs)
    start = mul(point(layers.weights[-1]), point(layers.output_scale), rounding=rounding)
    a_bar = Interval.unchecked(start.lo.expand(n, -1), start.hi.expand(n, -1))
    form = zn.from_interval(a_bar, outward) if forward.zonotopes else None
    z_bars, a_bars = [], []
    for layer in reversed(range(len(layers.weights) - 1)):
        weight, magnitude, slope = layers.weights[layer], layers.magnitudes[layer], forward.ranges[layer][1]
        a_bars.append(a_bar)
        z_bar = mul(slope, a_bar, rounding=rounding)
        if form is not None:
            slope_form = zn.image(forward.lines[layer][1], forward.zonotopes[layer], outward)
            form = zn.product(slope_form, form, slope, a_bar, outward)
            z_bar = _both(z_bar, zn.enclosure(form, outward))
        z_bars.append(z_bar)
        a_bar = affine_kernel(weight.T, magnitude.T, None, z_bar, outward)
        if form is not None:
            form = zn.affine_image(weight.T, magnitude.T, None, form, outward)
            a_bar = _both(a_bar, zn.enclosure(form, outward))
    gradient = div(a_bar, point(layers.input_scale), rounding=rounding)
    return z_bars[::-1], a_bars[::-1], gradient


def _both(x: Interval, y: Interval) -> Interval:
    """Intersect two enclosures of the same; ends that rounding to nearest has put in the wrong order change places."""
    lo, hi = torch.fmax(x.lo, y.lo), torch.fmin(x.hi, y.hi)
    return Interval.unchecked(torch.minimum(lo, hi), torch.maximum(lo, hi))
