r"""Interval Adjoint Significance Analysis (IASA): how much a node can matter to the result, anywhere in a box.

A node :math:`a` that ranges over :math:`[a]`, while the value's derivative with respect to it ranges over
:math:`[\bar a]`, can change the value by at most

.. math::  S(a) = \mathrm{width}([a]) \cdot \max_{t \in [\bar a]} |t|

(mean value theorem): a node that hardly moves is a constant, and a node on which nothing depends may do what it likes.
This needs natural intervals, which take the nodes of a layer to be independent. Zonotopes know which values occur
together, and a node that is turned by hand does not occur together with the others: their score is an estimate.
``product`` uses :math:`\mathrm{width}([a] \cdot [\bar a])` instead. Derivative-aware significance asks the same for
each component of the gradient: :math:`\partial_k N` depends on a node through its value :math:`a` and through its
tangent :math:`\dot a = \partial a / \partial x_k`, so

.. math::  S_k(a) = \mathrm{width}([a]) \max |[\dot{\bar a}]| + \mathrm{width}([\dot a]) \max |[\bar a]| .

Source: Afghan & Naumann, Interval Adjoint Significance Analysis for Neural Networks (2020); Vassiliadis et al. (2016)
for the product; Kichler, Afghan & Naumann (2024), section 3. Chapter 7.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from sobolev_lib import _check, _show
from sobolev_lib.enclosure.adjoints import Enclosure, Split, enclose
from sobolev_lib.enclosure.interval import Interval, mag, mul, width
from sobolev_lib.network.surrogate import Surrogate

AGGREGATES = {
    "mean": lambda scores: scores.mean(0),
    "sum": lambda scores: scores.sum(0),
    "max": lambda scores: scores.amax(0),
}
MEASURES = ("width_times_adjoint", "product")
TARGETS = ("value", "gradient")


@dataclass(frozen=True, eq=False)
class Significance:
    """Scores of all inputs and hidden nodes, in units of the value (or of the gradient in scaled inputs).

    Attributes:
        inputs: Scores of the inputs, (d,).
        hidden: Scores of the nodes of each hidden layer, (m_l,) each.

    Chapter 7, "What makes a node insignificant".

    Example:
        >>> import torch
        >>> scores = sl.Significance(inputs=torch.tensor([1.0, 3.0]), hidden=[])
        >>> scores.normalised().inputs
        tensor([0.2500, 0.7500])
    """

    inputs: Tensor
    hidden: list[Tensor]

    def normalised(self) -> "Significance":
        """Divide each layer's scores by their sum: shares, which can be ranked across layers."""
        return Significance(_share(self.inputs), [_share(scores) for scores in self.hidden])

    def __str__(self) -> str:
        """One line per layer: number of nodes, and the share of the total that its largest few hold."""
        lines = [f"{'layer':>8} {'nodes':>6} {'largest':>8} {'half of all significance in':>28}"]
        for name, nodes, largest, half in self._layers():
            lines.append(f"{name:>8} {nodes:>6} {largest:>8} {half:>22} nodes")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        header = ["layer", "nodes", "largest share", "nodes that hold half of all"]
        return _show.table("Significance", header, self._layers())

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

    Chapter 7, "Seven rankings on equal terms".

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
    aggregate: str = "mean",
    domain: str | Split = "natural",
    degree: int | None = None,
) -> Significance:
    r"""Score every input and hidden node of a network over one box or a batch of boxes.

    Args:
        net: The network.
        box: Raw inputs: an ``Interval`` (d,) or (n, d), or an ``Enclosure`` that was computed before.
        of: "value", or "gradient" for derivative-aware significance (needs order 2; summed over the gradient's
            components, each multiplied by its input's scale, so that their units agree).
        measure: "width_times_adjoint" or "product" (only for the value).
        aggregate: How scores of several boxes are combined: "mean", "sum" or "max".
        domain: "natural", "zonotope" or a ``Split``, see ``enclose`` and the module. Rounding is to nearest: scores
            rank, they certify nothing.
        degree: Of the zonotopes' polynomials, see ``enclose``; 1 is fastest.

    Returns:
        A ``Significance``.

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
    _check.choice("aggregate", aggregate, AGGREGATES)
    if of == "gradient" and measure == "product":
        raise ValueError("measure: got 'product' of the gradient, need 'width_times_adjoint'")
    if isinstance(box, Enclosure):
        enclosure = box
    else:
        enclosure = enclose(
            net, box, domain=domain, rounding="nearest", order=2 if of == "gradient" else 1, degree=degree
        )
    if of == "gradient" and enclosure.hvp is None:
        raise ValueError("box: got an enclosure of order 1, need order 2 for the significance of the gradient")
    scores = _of_gradient(net, enclosure) if of == "gradient" else _of_value(enclosure, measure)
    combined = [AGGREGATES[aggregate](layer) for layer in scores]
    return Significance(combined[0], combined[1:])


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
        through_tangent = _width(enclosure.activation_tangents[layer]) * mag(
            enclosure.activation_adjoints[layer]
        ).unsqueeze(1)
        scores.append(((through_value + through_tangent) * unit).sum(1))
    return scores


def _width(x: Interval) -> Tensor:
    return width(x, rounding="nearest")


def _share(scores: Tensor) -> Tensor:
    total = scores.sum()
    return scores / total if total > 0 else scores
