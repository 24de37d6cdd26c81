r"""Rivals of significance: scores of hidden nodes from weights, from samples, or from nothing.

Each returns one tensor (m_l,) per hidden layer, like ``significance(net, box).hidden``, so that policies and cuts take
them as they are. With the node :math:`a` of layer l, its incoming weights :math:`W_{l, a \cdot}`, its outgoing weights
:math:`W_{l+1, \cdot a}`, its adjoint :math:`\bar a = \partial N / \partial a` and means :math:`\langle \cdot \rangle`
over samples:

.. math::

    \text{magnitude:}\ \lVert W_{l, a \cdot} \rVert\, \lVert W_{l+1, \cdot a} \rVert, \qquad
    \text{variance:}\ \langle (a - \langle a \rangle)^2 \rangle^{1/2}\, \lVert W_{l+1, \cdot a} \rVert, \qquad
    \text{Taylor:}\ \langle |a\, \bar a| \rangle .

The Taylor score estimates the change of the value when the node is set to zero. A node that is cut is *folded*,
that is, set to its mean; the estimate of that change is the centred score
:math:`\langle |(a - \langle a \rangle)\, \bar a| \rangle`, the sampled counterpart of interval significance.
Chapter 7.
"""

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.network.twin import adjoint, forward

SIDES = ("both", "incoming", "outgoing")


@torch.no_grad()
def score_by_magnitude(net: Surrogate, *, side: str = "both") -> list[Tensor]:
    r"""Score hidden nodes by the norms of their weights; needs no samples.

    Args:
        net: The network.
        side: "incoming" (Li et al., 2017, there for the filters of a convolution), "outgoing", or "both": the product,
            a node's score by which does not change if its incoming weights are multiplied and its outgoing ones
            divided by the same number. With ReLU the network does not change either.

    Returns:
        One tensor (m_l,) per hidden layer.

    Raises:
        ValueError: An unknown side.

    Source: Han et al., Learning both Weights and Connections for Efficient Neural Networks (2015), for single
    weights; Li et al., Pruning Filters for Efficient ConvNets (2017). Chapter 7, "Seven rankings on equal terms".

    Example:
        >>> import torch
        >>> net = sl.Surrogate([2, 1, 1])
        >>> net.weights[0].data = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
        >>> net.weights[1].data = torch.tensor([[-2.0]], dtype=torch.float64)
        >>> sl.score_by_magnitude(net)
        [tensor([10.], dtype=torch.float64)]
    """
    _check.instance("net", net, Surrogate)
    _check.choice("side", side, SIDES)
    scores = []
    for before, after in zip(net.weights[:-1], net.weights[1:], strict=True):
        incoming, outgoing = before.norm(dim=1), after.norm(dim=0)
        scores.append({"both": incoming * outgoing, "incoming": incoming, "outgoing": outgoing}[side])
    return scores


@torch.no_grad()
def score_by_taylor(net: Surrogate, x: Tensor, *, centred: bool = False) -> list[Tensor]:
    r"""Score hidden nodes by the mean of :math:`|a\, \partial N / \partial a|` over samples, in units of the value.

    Args:
        net: The network.
        x: Samples (n, d), raw units.
        centred: Subtract each node's mean first: the change when the node is set to its mean, not to zero.

    Returns:
        One tensor (m_l,) per hidden layer.

    Raises:
        ValueError: Samples of the wrong shape.

    Source: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference (2017),
    equation 8, with the network's value in place of the training loss. Chapter 7, "Seven rankings on equal terms".

    Example:
        Softplus is the identity far to the right: the node is 40 + u, its adjoint -2.

        >>> import torch
        >>> net = sl.Surrogate([1, 1, 1], "softplus")
        >>> net.weights[0].data.fill_(1.0).item(), net.weights[1].data.fill_(-2.0).item()
        (1.0, -2.0)
        >>> _ = net.biases[0].data.fill_(40.0)
        >>> x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
        >>> sl.score_by_taylor(net, x)[0].item(), sl.score_by_taylor(net, x, centred=True)[0].item()
        (80.0, 2.0)
    """
    _check.instance("net", net, Surrogate)
    _check.instance("centred", centred, bool)
    activations, jets = _states(net, x)
    _, adjoints, _ = adjoint(list(net.weights), jets, len(x))
    if centred:
        activations = [a - a.mean(0) for a in activations]
    return [net.output_scale * (a * bar).abs().mean(0) for a, bar in zip(activations, adjoints, strict=True)]


@torch.no_grad()
def score_by_variance(net: Surrogate, x: Tensor) -> list[Tensor]:
    r"""Score hidden nodes by their standard deviation over samples times the norm of their outgoing weights.

    The square of the score is the mean squared change of the next layer's pre-activations when the node is set to its
    mean. What later layers make of that change it does not ask.

    Args:
        net: The network.
        x: Samples (n, d), raw units.

    Returns:
        One tensor (m_l,) per hidden layer.

    Raises:
        ValueError: Samples of the wrong shape.

    Source: Sietsma & Dow, Creating Artificial Neural Networks That Generalize (1991), remove nodes whose output is
    constant over the samples; the score puts a number to it. Chapter 7, "Seven rankings on equal terms".

    Example:
        >>> import torch
        >>> net = sl.Surrogate([1, 1, 1], "relu")
        >>> net.weights[0].data.fill_(1.0).item(), net.weights[1].data.fill_(-3.0).item()
        (1.0, -3.0)
        >>> sl.score_by_variance(net, torch.tensor([[1.0], [3.0]], dtype=torch.float64))
        [tensor([3.], dtype=torch.float64)]
    """
    _check.instance("net", net, Surrogate)
    activations, _ = _states(net, x)
    outgoing = [weight.norm(dim=0) for weight in net.weights[1:]]
    return [a.std(0, correction=0) * norm for a, norm in zip(activations, outgoing, strict=True)]


def score_at_random(net: Surrogate, generator: torch.Generator) -> list[Tensor]:
    """Score hidden nodes by uniform random numbers: the rival that knows nothing.

    Chapter 7, "Seven rankings on equal terms".

    Args:
        net: The network.
        generator: Source of the numbers.

    Returns:
        One tensor (m_l,) per hidden layer.

    Raises:
        TypeError: Not a network, or not a generator.

    Example:
        >>> import torch
        >>> scores = sl.score_at_random(sl.Surrogate([7, 5, 3, 1]), torch.Generator().manual_seed(0))
        >>> [len(layer) for layer in scores]
        [5, 3]
    """
    _check.instance("net", net, Surrogate)
    _check.instance("generator", generator, torch.Generator)
    return [torch.rand(width, generator=generator, dtype=torch.float64) for width in net.widths[1:-1]]


def _states(net: Surrogate, x: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Return the activations (n, m_l) of the hidden layers and the jets behind them."""
    x = _check.tensor("x", x, shape=("n", net.widths[0]), dtype=net.dtype)
    _, activations, jets = forward(net.activation, list(net.weights), list(net.biases), net.scale_inputs(x), 1)
    return activations[1:], jets
