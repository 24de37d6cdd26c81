r"""Choosing the nodes that can speak for the others: the policy that knows how the cut will fold.

Scores judge nodes one at a time. If the cut folds by regression, that asks the wrong question: of two nodes that say
the same, both score high, and one of them is free. `keep_predictive` looks for the set K of nodes whose span is
closest to what the next layer wants to hear,

.. math::  \min_{|K| = k}\ \min_{V, c}\ \sum_i s_i^2\,
    \bigl\langle \bigl( z_{l+1, i} - V_i a_K - c_i \bigr)^2 \bigr\rangle ,

greedily: in each step the node that lowers the sum most. It is orthogonal least squares (Chen, Billings & Luo, 1989);
for channels of a convolution, a greedy search with the same aim is ThiNet (Luo, Wu & Lin, 2017). The weights
:math:`s_i` say how much the value cares about each pre-activation of the next layer. Interval adjoints give them,
:math:`s_i = \mathrm{mag}\,[\bar z_{l+1, i}]`, because a change :math:`\Delta z` of the pre-activations changes the
value by at most :math:`\sum_i s_i |\Delta z_i|` as long as it does not leave the enclosure. Chapter 7.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.enclosure.adjoints import Enclosure
from sobolev_lib.enclosure.interval import mag
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.cut import counts_of, fold_by_regression, hidden_activations
from sobolev_lib.pruning.scores import samples_of

__all__ = ["keep_predictive"]

TINY = 1e-10  # of a node's own variance: what is left of it is rounding, and others already say what it says


@torch.no_grad()
def keep_predictive(
    net: Surrogate, x: Tensor, count: int | Sequence[int], *, enclosure: Enclosure | None = None
) -> list[Tensor]:
    r"""Return, for each hidden layer, the `count` nodes from which the next layer is best predicted.

    Layer by layer from the inputs on, as ``cut(net, kept, x=x)`` folds: each layer is chosen from the activations that
    the layers before it, already cut, leave of it, and its targets are the pre-activations of the original network.

    Args:
        net: The network.
        x: Samples (n, d), the same as for the cut.
        count: How many to keep in each layer, one number for all or one per layer; at least 1, at most all.
        enclosure: Weighs each target by its largest adjoint, averaged over the boxes. Default: all alike.

    Returns:
        Indices in ascending order, one tensor per hidden layer; for ``cut``. In a layer where fewer nodes predict all
        that any can predict, the rest are the first of those that are left.

    Raises:
        ValueError: A count of 0 or above the layer's width, not one count per layer, an enclosure of another network.

    Source: Chen, Billings & Luo, Orthogonal Least Squares Methods (1989); Luo, Wu & Lin, ThiNet (2017). Chapter 7,
    "Choosing for the fold".

    Example:
        Of two equal nodes and a different one, two are kept that differ.

        >>> import torch
        >>> net = sl.Surrogate([1, 3, 1])
        >>> net.weights[0].data = torch.tensor([[2.0], [2.0], [-0.5]], dtype=torch.float64)
        >>> net.weights[1].data = torch.tensor([[1.0, 1.0, 0.1]], dtype=torch.float64)
        >>> sl.keep_predictive(net, torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(-1, 1), 2)
        [tensor([0, 2])]
    """
    _check.instance("net", net, Surrogate)
    widths = net.widths[1:-1]
    counts = counts_of(count, widths)
    importance = [torch.ones(m, dtype=net.dtype) for m in net.widths[2:]] if enclosure is None else None
    if importance is None:
        adjoints = _check.instance("enclosure", enclosure, Enclosure).preactivation_adjoints
        if [a.shape[1] for a in adjoints] != widths:
            raise ValueError(f"enclosure: got layers of {[a.shape[1] for a in adjoints]} nodes, need {widths}")
        importance = [mag(bar).mean(0).to(net.dtype) for bar in adjoints[1:]] + [torch.ones(1, dtype=net.dtype)]
    nodes, kept = hidden_activations(net, x), []
    left, weight, bias = net.scale_inputs(samples_of(net, x)), net.weights[0], net.biases[0]
    for layer, number in enumerate(counts):
        a = net.activation(torch.addmm(bias, left, weight.T))
        target = torch.addmm(net.biases[layer + 1], nodes[layer], net.weights[layer + 1].T)
        kept.append(_greedy(a - a.mean(0), (target - target.mean(0)) * importance[layer], number))
        left = a[:, kept[-1]]
        weight, bias = fold_by_regression(left, target, net.weights[layer + 1][:, kept[-1]], net.biases[layer + 1])
    return kept


def _greedy(a: Tensor, target: Tensor, count: int) -> Tensor:
    """Choose columns of a (n, m) whose span is close to the targets (n, q), both centred, by their inner products."""
    gram, cross = a.T @ a, a.T @ target
    total = gram.diagonal().clone()
    chosen = torch.zeros(len(gram), dtype=torch.bool)
    for _ in range(count):
        rest = gram.diagonal()
        gain = cross.square().sum(1) / rest.clamp_min(torch.finfo(a.dtype).tiny)
        spent = rest <= TINY * total
        best = int(gain.masked_fill(spent, -1.0).masked_fill(chosen, -2.0).argmax())
        chosen[best] = True
        if spent[best]:
            continue
        along, heard = gram[:, best] / rest[best].sqrt(), cross[best] / rest[best].sqrt()
        gram, cross = gram - torch.outer(along, along), cross - torch.outer(along, heard)
    return chosen.nonzero().squeeze(1)
