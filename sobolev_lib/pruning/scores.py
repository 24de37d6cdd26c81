r"""Scores of nodes: how much each one matters, by interval adjoints and by their rivals.

**Interval Adjoint Significance Analysis** (IASA) needs a box, but no samples. A node :math:`a` that ranges over
:math:`[a]`, while the value's derivative by it ranges over :math:`[\bar a]`, can change the value by at most

.. math::  S(a) = \mathrm{width}([a]) \cdot \max_{t \in [\bar a]} |t|

(mean value theorem): a node that hardly moves is a constant, and a node on which nothing depends may do what it likes.
This needs natural intervals, which take the nodes of a layer to be independent. Zonotopes know which values occur
together, and a node that is turned by hand does not occur together with the others: their score is an estimate.
``product`` uses :math:`\mathrm{width}([a] \cdot [\bar a])` instead. The component :math:`\partial_k N` of the gradient
depends on a node through its value and through its tangent :math:`\dot a = \partial a / \partial x_k`, which becomes 0
if the node becomes a constant, so

.. math::  S_k(a) = \mathrm{width}([a]) \max |[\dot{\bar a}]| +
           \max(\mathrm{width}([\dot a]), \max |[\dot a]|) \max |[\bar a]| .

**Rivals** need weights or samples; :math:`\langle \cdot \rangle` is the mean over samples:

.. math::

    \text{magnitude:}\ \lVert W_{l, a \cdot} \rVert\, \lVert W_{l+1, \cdot a} \rVert, \qquad
    \text{variance:}\ \langle (a - \langle a \rangle)^2 \rangle^{1/2}\, \lVert W_{l+1, \cdot a} \rVert, \qquad
    \text{Taylor:}\ \langle |a\, \bar a| \rangle .

The Taylor score estimates the change of the value when the node is set to zero; centred, to its mean, as a *fold* does:
:math:`\langle |(a - \langle a \rangle)\, \bar a| \rangle` is the sampled counterpart of significance.

Source: Afghan & Naumann, Interval Adjoint Significance Analysis for Neural Networks (2020), for width times adjoint;
Vassiliadis et al., Towards Automatic Significance Analysis for Approximate Computing (2016), for the product; Kichler,
Afghan & Naumann (2024), section 3. Chapter 7.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check, _show
from sobolev_lib.enclosure.adjoints import Enclosure, Split, enclose
from sobolev_lib.enclosure.interval import Interval, mag, mul, width
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.network.twin import adjoint, forward

__all__ = [
    "Scores",
    "balls",
    "score_at_random",
    "score_by_magnitude",
    "score_by_taylor",
    "score_by_variance",
    "significance",
]

MEASURES = ("width_times_adjoint", "product")
TARGETS = ("value", "gradient")


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of all inputs and hidden nodes.

    Attributes:
        inputs: Scores of the inputs, (d,).
        hidden: Scores of the nodes of each hidden layer, (m_l,) each.

    Chapter 7, "What makes a node insignificant".

    Example:
        >>> import torch
        >>> scores = sl.Scores(inputs=torch.tensor([1.0, 3.0]), hidden=[])
        >>> scores.normalised().inputs
        tensor([0.2500, 0.7500])
    """

    inputs: Tensor
    hidden: list[Tensor]

    def normalised(self) -> "Scores":
        """Divide each layer's scores by their sum: shares, which can be ranked across layers."""
        return Scores(_share(self.inputs), [_share(scores) for scores in self.hidden])

    def __str__(self) -> str:
        """One line per layer: number of nodes, and the share of the total that its largest few hold."""
        lines = [f"{'layer':>8} {'nodes':>6} {'largest':>8} {'half of all significance in':>28}"]
        for name, nodes, largest, half in self._layers():
            lines.append(f"{name:>8} {nodes:>6} {largest:>8} {half:>22} nodes")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        header = ["layer", "nodes", "largest share", "nodes that hold half of all"]
        return _show.table("Scores", header, self._layers())

    def _layers(self) -> Iterator[tuple[str, int, str, int]]:
        for name, scores in [("inputs", self.inputs), *((f"hidden {i + 1}", s) for i, s in enumerate(self.hidden))]:
            shares = _share(scores).sort(descending=True).values
            yield name, len(shares), f"{shares[0].item():.3f}", int((shares.cumsum(0) < 0.5).sum()) + 1


def balls(x: Tensor, radius: Tensor | float) -> Interval:
    """Return one box around each point: ``[x - radius, x + radius]``.

    Args:
        x: Centres (n, d), raw inputs.
        radius: One number, or one per input (d,), raw units.

    Raises:
        ValueError: Wrong shapes, a negative radius.

    Chapter 7, "Where the ranking matters".

    Example:
        >>> import torch
        >>> box = sl.balls(torch.tensor([[1.0, 2.0]], dtype=torch.float64), 0.5)
        >>> box.lo.tolist(), box.hi.tolist()
        ([[0.5, 1.5]], [[1.5, 2.5]])
    """
    x = _check.tensor("x", x, shape=("n", "d"))
    radius = _check.tensor("radius", radius)
    if radius.ndim > 1 or (radius.ndim == 1 and len(radius) != x.shape[1]) or (radius < 0).any():
        raise ValueError(f"radius: got {radius.tolist()}, need a number >= 0, or one for each of {x.shape[1]} inputs")
    return Interval(x - radius, x + radius)


def significance(
    net: Surrogate,
    box: Interval | Enclosure,
    *,
    of: str = "value",
    measure: str = "width_times_adjoint",
    domain: str | Split = "natural",
) -> Scores:
    r"""Score every input and hidden node of a network over one box, or on average over a batch of boxes.

    Args:
        net: The network.
        box: Raw inputs: an ``Interval`` (d,) or (n, d), or an ``Enclosure`` that was computed before.
        of: "value", or "gradient" for derivative-aware significance (needs order 2; summed over the gradient's
            components, each multiplied by its input's scale, so that their units agree).
        measure: "width_times_adjoint" or "product" (only for the value).
        domain: "natural", "zonotope" or a ``Split``, see ``enclose`` and the module. Rounding is to nearest: scores
            rank, they certify nothing.

    Returns:
        ``Scores``.

    Raises:
        ValueError: An unknown option, or an enclosure of order 1 where the gradient is asked for.

    Chapter 7, "What makes a node insignificant".

    Example:
        In a linear network the score is the input's range times its coefficient.

        >>> import torch
        >>> net = sl.Surrogate([2, 1])
        >>> net.weights[0].data = torch.tensor([[3.0, -0.5]], dtype=torch.float64)
        >>> sl.significance(net, sl.Interval([0.0, 0.0], [1.0, 4.0])).inputs.tolist()
        [3.0, 2.0]
    """
    _check.choice("of", of, TARGETS)
    _check.choice("measure", measure, MEASURES)
    if of == "gradient" and measure == "product":
        raise ValueError("measure: got 'product' of the gradient, need 'width_times_adjoint'")
    if isinstance(box, Enclosure):
        enclosure = box
    else:
        enclosure = enclose(net, box, domain=domain, rounding="nearest", order=2 if of == "gradient" else 1)
    if of == "gradient" and enclosure.hvp is None:
        raise ValueError("box: got an enclosure of order 1, need order 2 for the significance of the gradient")
    scores = _of_gradient(net, enclosure) if of == "gradient" else _of_value(enclosure, measure)
    combined = [layer.mean(0) for layer in scores]
    return Scores(combined[0], combined[1:])


@torch.no_grad()
def score_by_magnitude(net: Surrogate) -> Scores:
    r"""Score nodes by the product of the norms of their incoming and outgoing weights; needs no samples.

    A ReLU node's score, like the network, stays the same if its incoming weights are multiplied and its outgoing ones
    divided by a number. Inputs have outgoing weights only.

    Args:
        net: The network.

    Raises:
        TypeError: Not a network.

    Source: Han et al., Learning both Weights and Connections for Efficient Neural Networks (2015), for single
    weights; Li et al., Pruning Filters for Efficient ConvNets (2017). Chapter 7, "Where the ranking matters".

    Example:
        >>> import torch
        >>> net = sl.Surrogate([2, 1, 1])
        >>> net.weights[0].data = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
        >>> net.weights[1].data = torch.tensor([[-2.0]], dtype=torch.float64)
        >>> sl.score_by_magnitude(net).hidden
        [tensor([10.], dtype=torch.float64)]
    """
    weights = _check.instance("net", net, Surrogate).weights
    hidden = [w.norm(dim=1) * after.norm(dim=0) for w, after in itertools.pairwise(weights)]
    return Scores(weights[0].norm(dim=0), hidden)


@torch.no_grad()
def score_by_taylor(net: Surrogate, x: Tensor, *, centred: bool = False) -> Scores:
    r"""Score nodes by the mean of :math:`|a\, \partial N / \partial a|` over samples, in units of the value.

    Args:
        net: The network.
        x: Samples (n, d), raw units, at least one.
        centred: Subtract each node's mean first: the change when the node is set to its mean, not to zero.

    Raises:
        ValueError: Samples of the wrong shape, or none.

    Source: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference (2017),
    equation 8, with the network's value in place of the training loss. Chapter 7, "Where the ranking matters".

    Example:
        Softplus is the identity far to the right: the node is 40 + u, its adjoint -2.

        >>> import torch
        >>> net = sl.Surrogate([1, 1, 1], "softplus")
        >>> net.weights[0].data.fill_(1.0).item(), net.weights[1].data.fill_(-2.0).item()
        (1.0, -2.0)
        >>> _ = net.biases[0].data.fill_(40.0)
        >>> x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
        >>> sl.score_by_taylor(net, x).hidden[0].item(), sl.score_by_taylor(net, x, centred=True).hidden[0].item()
        (80.0, 2.0)
    """
    _check.instance("centred", centred, bool)
    nodes, jets = _states(net, x)
    at_inputs, adjoints, _ = adjoint(list(net.weights), jets, len(nodes[0]))
    nodes = [a - a.mean(0) for a in nodes] if centred else nodes
    bars = [at_inputs, *adjoints]
    scores = [net.output_scale * (a * bar).abs().mean(0) for a, bar in zip(nodes, bars, strict=True)]
    return Scores(scores[0], scores[1:])


@torch.no_grad()
def score_by_variance(net: Surrogate, x: Tensor) -> Scores:
    r"""Score nodes by their standard deviation over samples times the norm of their outgoing weights.

    The square of the score is the mean squared change of the next layer's pre-activations when the node is set to its
    mean. What later layers make of that change it does not ask.

    Args:
        net: The network.
        x: Samples (n, d), raw units, at least one.

    Raises:
        ValueError: Samples of the wrong shape, or none.

    Source: Sietsma & Dow, Creating Artificial Neural Networks That Generalize (1991), remove nodes whose output is
    constant over the samples; the score puts a number to it. Chapter 7, "Where the ranking matters".

    Example:
        >>> import torch
        >>> net = sl.Surrogate([1, 1, 1], "relu")
        >>> net.weights[0].data.fill_(1.0).item(), net.weights[1].data.fill_(-3.0).item()
        (1.0, -3.0)
        >>> sl.score_by_variance(net, torch.tensor([[1.0], [3.0]], dtype=torch.float64)).hidden
        [tensor([3.], dtype=torch.float64)]
    """
    nodes, _ = _states(net, x)
    scores = [a.std(0, correction=0) * weight.norm(dim=0) for a, weight in zip(nodes, net.weights, strict=True)]
    return Scores(scores[0], scores[1:])


def score_at_random(net: Surrogate, generator: torch.Generator) -> Scores:
    """Score nodes by uniform random numbers: the rival that knows nothing.

    Chapter 7, "Where the ranking matters".

    Args:
        net: The network.
        generator: Source of the numbers.

    Raises:
        TypeError: Not a network, or not a generator.

    Example:
        >>> import torch
        >>> scores = sl.score_at_random(sl.Surrogate([7, 5, 3, 1]), torch.Generator().manual_seed(0))
        >>> [len(layer) for layer in scores.hidden]
        [5, 3]
    """
    _check.instance("net", net, Surrogate)
    _check.instance("generator", generator, torch.Generator)
    scores = [torch.rand(width, generator=generator, dtype=torch.float64) for width in net.widths[:-1]]
    return Scores(scores[0], scores[1:])


def _of_value(enclosure: Enclosure, measure: str) -> list[Tensor]:
    """Return scores (n, m) of the inputs and of each hidden layer."""
    nodes = [enclosure.box, *enclosure.activations]
    adjoints = [enclosure.gradient, *enclosure.activation_adjoints]
    if measure == "product":
        return [_width(mul(node, adjoint, rounding="nearest")) for node, adjoint in zip(nodes, adjoints, strict=True)]
    return [_width(node) * mag(adjoint) for node, adjoint in zip(nodes, adjoints, strict=True)]


def _of_gradient(net: Surrogate, enclosure: Enclosure) -> list[Tensor]:
    """Return scores (n, m), summed over the gradient's components in scaled inputs."""
    unit = net.input_scale.double().reshape(1, -1, 1)
    scores = [(_width(enclosure.box).unsqueeze(1) * mag(enclosure.hvp) * unit).sum(1)]
    for layer, node in enumerate(enclosure.activations):
        through_value = _width(node).unsqueeze(1) * mag(enclosure.activation_second_adjoints[layer])
        tangent = enclosure.activation_tangents[layer]
        reach = torch.maximum(_width(tangent), mag(tangent))  # of a turn within the interval, or to zero
        through_tangent = reach * mag(enclosure.activation_adjoints[layer]).unsqueeze(1)
        scores.append(((through_value + through_tangent) * unit).sum(1))
    return scores


def _width(x: Interval) -> Tensor:
    return width(x, rounding="nearest")


def _share(scores: Tensor) -> Tensor:
    total = scores.sum()
    return scores / total if total > 0 else scores


def _states(net: Surrogate, x: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Return scaled inputs and activations (n, m_l) of all layers but the last, and the jets behind them."""
    x = samples_of(net, x)
    _, nodes, jets = forward(net.activation, list(net.weights), list(net.biases), net.scale_inputs(x), 1)
    return nodes, jets


def samples_of(net: Surrogate, x: Tensor) -> Tensor:
    """Return samples (n, d), n at least 1, in the network's number format."""
    x = _check.tensor("x", x, shape=("n", _check.instance("net", net, Surrogate).widths[0]), dtype=net.dtype)
    if not len(x):
        raise ValueError("x: got no samples, need at least 1")
    return x
