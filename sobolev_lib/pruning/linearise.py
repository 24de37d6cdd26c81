r"""Removing a layer that is affine enough, with a bound of what that does to the value anywhere in a box.

Write the network as :math:`N(x) = g(f(z))`, with the pre-activations :math:`z = z_l(x)` of one hidden layer and
everything behind it in g. Over the box :math:`z_j \in [z_j]`, and an affine function :math:`p_j(z_j) = \alpha_j z_j +
\beta_j` is close to the activation there: :math:`|f(z_j) - p_j(z_j)| \le \delta_j`. With p in the place of f the layer
is an affine map, which merges with the next one. For every x of the box

.. math::

    |g(f(z)) - g(p(z))| \;\le\; \sum_j \delta_j \, \mathrm{mag}\, [\partial g / \partial a_j](A), \qquad
    A_j = f([z_j]) + [-\delta_j, \delta_j] .

Proof: both f(z) and p(z) lie in the box A, and so does the segment between them, because a box is convex. By the mean
value theorem there is a point :math:`\xi` on the segment with :math:`g(f(z)) - g(p(z)) = \sum_j \partial g / \partial
a_j(\xi)\, (f(z_j) - p_j(z_j))`. The adjoints of the unchanged network would not do: they are enclosed over f([z]),
and :math:`\xi` may lie outside. Chapter 7.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.enclosure.adjoints import Split, enclose
from sobolev_lib.enclosure.approximation import fits
from sobolev_lib.enclosure.interval import Interval, add, mag
from sobolev_lib.enclosure.rounding import enlarge, mode
from sobolev_lib.network.surrogate import Surrogate

__all__ = ["Linearised", "linearise"]


@dataclass(frozen=True, eq=False)
class Linearised:
    """What ``linearise`` returns: a network with one layer less, and how far it is from the one it was made from.

    Attributes:
        net: The smaller network: the layer's activations are replaced by affine functions and merged into the next
            layer. Its weights are rounded products; the bound is about the exact ones.
        slope: Of each node's affine function, (m,).
        offset: The same function at zero, (m,).
        deviation: Bound of its distance from the activation, (m,).
        bound: Bound of the change of the value, raw units, over each of n boxes, (n,).

    Chapter 7, "Layers, with a bound".
    """

    net: Surrogate
    slope: Tensor
    offset: Tensor
    deviation: Tensor
    bound: Tensor


@torch.no_grad()
def linearise(
    net: Surrogate, layer: int, box: Interval, *, domain: str | Split = "zonotope", rounding: str = "outward"
) -> Linearised:
    r"""Replace a hidden layer's activations by affine functions, and bound the change of the value over each box.

    One affine function per node serves all boxes: it is fitted over the hull of the node's intervals.

    Args:
        net: The network, left as it is.
        layer: Which hidden layer, counted from 0.
        box: Raw inputs, (d,) or (n, d); the bound is proved for inputs in one of the boxes.
        domain: Of both enclosures, from the inputs to the layer and from there to the value; see ``enclose``.
        rounding: "outward": a theorem; "nearest": an estimate.

    Returns:
        A ``Linearised``, in which ``net`` has the same scaling and the layer is gone.

    Raises:
        ValueError: A layer that does not exist; the errors of ``enclose``.

    Source: the mean value form, Neumaier, Interval Methods for Systems of Equations (1990), chapter 2; the module
    has the proof. Chapter 7, "Layers, with a bound".

    Example:
        Over [1, 3] a ReLU is the identity, so that nothing is lost.

        >>> net = sl.Surrogate([1, 1, 1], "relu")
        >>> net.weights[0].data.fill_(1.0).item(), net.weights[1].data.fill_(5.0).item()
        (1.0, 5.0)
        >>> result = sl.linearise(net, 0, sl.Interval([1.0], [3.0]))
        >>> result.net.widths, round(result.slope.item(), 6), result.bound.item() < 1e-9
        ([1, 1], 1.0, True)
    """
    _check.instance("net", net, Surrogate)
    layer = _check.count("layer", layer, least=0, most=len(net.weights) - 2)
    outward = mode(rounding)
    enclosure = enclose(net, box, domain=domain, rounding=rounding)
    nodes, activations = enclosure.preactivations[layer], enclosure.activations[layer]
    hull = Interval.unchecked(nodes.lo.amin(0, keepdim=True), nodes.hi.amax(0, keepdim=True))
    slope, offset, deviation = _affine_fit(net, hull, outward)
    spread = Interval.unchecked(-deviation.expand_as(activations.lo), deviation.expand_as(activations.lo))
    behind = enclose(_behind(net, layer), add(activations, spread, rounding=rounding), domain=domain, rounding=rounding)
    bound = enlarge((mag(behind.gradient) * deviation).sum(1), len(deviation) + 2, outward)
    return Linearised(_merged(net, layer, slope, offset), slope, offset, deviation, bound)


def _affine_fit(net: Surrogate, nodes: Interval, outward: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return slope, offset and deviation (m,) of a good affine approximation of the activation over (1, m)."""
    middle = 0.5 * nodes.lo + 0.5 * nodes.hi
    fit = fits(net.activation, nodes, middle, 0, 1, outward)[0][0]
    slope, offset = fit.powers[1], fit.powers[0] - fit.powers[1] * middle
    rounded = 4 * torch.finfo(offset.dtype).eps * (fit.powers[0].abs() + (slope * middle).abs())
    return slope[0], offset[0], (fit.margin + rounded if outward else fit.margin)[0]


def _behind(net: Surrogate, layer: int) -> Surrogate:
    """Return the value as a network in the activations of a hidden layer."""
    width = net.widths[layer + 1]
    scaling = {
        "input_shift": torch.zeros(width, dtype=torch.float64),
        "input_scale": torch.ones(width, dtype=torch.float64),
        "output_shift": net.output_shift.double(),
        "output_scale": net.output_scale.double(),
    }
    weights, biases = ([p.double() for p in parameters[layer + 1 :]] for parameters in (net.weights, net.biases))
    return Surrogate.from_layers(weights, biases, net.activation, scaling=scaling)


def _merged(net: Surrogate, layer: int, slope: Tensor, offset: Tensor) -> Surrogate:
    """Return the network in which the layer is the affine map ``slope * z + offset``."""
    weights, biases = ([p.double() for p in parameters] for parameters in (net.weights, net.biases))
    weight = weights[layer + 1]
    bias = biases[layer + 1] + weight @ (slope * biases[layer] + offset)
    weights[layer : layer + 2] = [(weight * slope) @ weights[layer]]
    biases[layer : layer + 2] = [bias]
    weights, biases = ([p.to(net.dtype) for p in parameters] for parameters in (weights, biases))
    return Surrogate.from_layers(weights, biases, net.activation, scaling=dict(net.named_buffers()))
