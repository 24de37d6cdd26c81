r"""Cutting nodes out of a network, and folding what they contributed into what follows.

Score, policy and cut are three things. Scores come from the module ``scores`` (or from anybody); a policy turns
them into the nodes to keep; `cut` makes the smaller network. What a removed node :math:`a_j` sent to the next layer,
:math:`W_{\cdot j}\, a_j`, is not simply dropped but *folded*:

.. math::  W_{\cdot j}\, a_j \;\approx\; W_{\cdot j}\, v_j \quad\text{(a constant: into the bias)}, \qquad
           \sum_{j\ \mathrm{removed}} W_{\cdot j}\, a_j \;\approx\; \Delta W\, a_{\mathrm{kept}} + \Delta b
           \quad\text{(regression on the kept nodes).}

The constant is the midpoint of the node's interval (the paper) or its sample mean; regression uses that the nodes of
a trained layer are strongly correlated, so that those kept can speak for those removed. Chapter 7.

Source: Kichler, Afghan & Naumann (2024), section 3, for folding midpoints; LeCun, Denker & Solla (1989) and Hassibi &
Stork (1992) for compensating what is removed.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.enclosure.adjoints import Enclosure
from sobolev_lib.enclosure.interval import mid
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.scores import Scores, samples_of

__all__ = ["affine_layers", "cut", "cut_inputs", "keep_most", "means", "midpoints", "remove_layers"]

RIDGE = 1e-10  # relative to the mean square of the kept nodes: enough against exact copies, too little to bias


def keep_most(scores: Scores | Sequence[Tensor], count: int | Sequence[int]) -> list[Tensor]:
    """Return, for each layer, the indices of the `count` nodes with the highest scores, in ascending order.

    Args:
        scores: ``Scores``, or one tensor (m_l,) per hidden layer.
        count: How many to keep in each layer, one number for all or one per layer; at least 1, at most all.

    Raises:
        ValueError: A count of 0 or above the layer's width, or not one count per layer.

    Chapter 7, "What becomes of the others".

    Example:
        >>> import torch
        >>> sl.keep_most([torch.tensor([0.1, 3.0, 2.0])], 2)
        [tensor([1, 2])]
    """
    scores = getattr(scores, "hidden", scores)
    scores = [_check.tensor(f"scores[{layer}]", score, shape=("m",)) for layer, score in enumerate(scores)]
    counts = counts_of(count, [len(score) for score in scores])
    ranked = [score.argsort(descending=True, stable=True) for score in scores]
    return [order[:number].sort().values for order, number in zip(ranked, counts, strict=True)]


def counts_of(count: int | Sequence[int], widths: Sequence[int]) -> list[int]:
    """Return how many nodes to keep in each layer of these widths, from one number for all or one per layer."""
    counts = [count] * len(widths) if np.ndim(count) == 0 else list(count)
    if len(counts) != len(widths):
        raise ValueError(f"count: got {len(counts)} numbers, need one for each of {len(widths)} hidden layers")
    return [_check.count(f"count[{i}]", k, most=m) for i, (k, m) in enumerate(zip(counts, widths, strict=True))]


def midpoints(enclosure: Enclosure) -> list[Tensor]:
    """Return the midpoint of each hidden node's interval, (m_l,) per layer, averaged over boxes: the paper's way.

    Raises:
        TypeError: Not an ``Enclosure``.

    Chapter 7, "What becomes of the others".

    Example:
        >>> net = sl.Surrogate([1, 1, 1], "relu")
        >>> _ = net.weights[0].data.fill_(1.0)
        >>> sl.midpoints(sl.enclose(net, sl.Interval([-1.0], [3.0]), rounding="nearest"))
        [tensor([1.5000], dtype=torch.float64)]
    """
    return [mid(node).mean(0) for node in _check.instance("enclosure", enclosure, Enclosure).activations]


def means(net: Surrogate, x: Tensor) -> list[Tensor]:
    """Return each hidden node's mean over samples x (n, d), (m_l,) per layer.

    Raises:
        ValueError: Samples of the wrong shape.

    Chapter 7, "What becomes of the others".

    Example:
        >>> import torch
        >>> net = sl.Surrogate([1, 1, 1], "relu")
        >>> _ = net.weights[0].data.fill_(1.0)
        >>> sl.means(net, torch.tensor([[-1.0], [3.0]], dtype=torch.float64))
        [tensor([1.5000], dtype=torch.float64)]
    """
    return [a.mean(0) for a in hidden_activations(net, x)]


@torch.no_grad()
def hidden_activations(net: Surrogate, x: Tensor) -> list[Tensor]:
    """Return the activations (n, m_l) of all hidden layers at inputs x (n, d)."""
    a, layers = net.scale_inputs(samples_of(net, x)), []
    for weight, bias in zip(net.weights[:-1], net.biases[:-1], strict=True):
        a = net.activation(torch.addmm(bias, a, weight.T))
        layers.append(a)
    return layers


@torch.no_grad()
def cut(
    net: Surrogate, kept: Sequence[Tensor], *, x: Tensor | None = None, values: Sequence[Tensor] | None = None
) -> Surrogate:
    r"""Return a new network with only the kept hidden nodes; the others are folded into what follows.

    Args:
        net: The network, left as it is.
        kept: For each hidden layer the indices of the nodes to keep, at least one; see ``keep_most``.
        x: Fold by regression over these samples (n, d): layer by layer, from the inputs on, the next layer's
            pre-activations of the *original* network are fitted by the nodes that are left, so that later layers
            correct earlier ones.
        values: Fold these constants instead, (m_l,) per layer: ``midpoints(enclosure)`` or ``means(net, x)``. The
            result is what `net` gives when its removed nodes are clamped to these values.

    Returns:
        The smaller ``Surrogate``, with the same scaling. Keeping all nodes returns an equal network.

    Raises:
        ValueError: Neither or both of `x` and `values`; not one set of indices per layer; an empty set, an index that
            is out of range or named twice.

    Chapter 7, "What becomes of the others".

    Example:
        A node that is constant over the samples can be removed without any change.

        >>> import torch
        >>> net = sl.Surrogate([1, 2, 1])
        >>> _ = net.weights[0].data[1].zero_()
        >>> x = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(-1, 1)
        >>> small = sl.cut(net, [torch.tensor([0])], values=sl.means(net, x))
        >>> small.widths, torch.allclose(small(x), net(x))
        ([1, 1, 1], True)
    """
    if (x is None) == (values is None):
        raise ValueError(f"x, values: got {'neither' if x is None else 'both'}, need one of them, to fold with")
    widths = net.widths
    kept = _checked_kept(kept, widths[1:-1])
    if x is not None:
        x = samples_of(net, x)
    if values is not None:
        if len(values) != len(kept):
            raise ValueError(f"values: got {len(values)} layers, need {len(kept)}")
        values = [
            _check.tensor(f"values[{i}]", v, shape=(m,))
            for i, (v, m) in enumerate(zip(values, widths[1:], strict=False))
        ]
    weights, biases = [net.weights[0]], [net.biases[0]]
    wanted = None if x is None else [torch.cat([a, _ones(a)], 1) for a in hidden_activations(net, x)]
    left = None if x is None else net.scale_inputs(x)
    for layer, index in enumerate(kept):
        weights[-1], biases[-1] = weights[-1][index], biases[-1][index]
        weight, bias = net.weights[layer + 1], net.biases[layer + 1]
        small_weight, small_bias = weight[:, index], bias
        if values is not None:
            removed = _complement(index, widths[layer + 1])
            small_bias = bias + weight[:, removed] @ values[layer][removed].to(net.dtype)
        else:
            left = net.activation(torch.addmm(biases[-1], left, weights[-1].T))
            target = wanted[layer] @ torch.cat([weight, bias[:, None]], 1).T
            small_weight, small_bias = fold_by_regression(left, target, small_weight, bias)
        weights.append(small_weight)
        biases.append(small_bias)
    return Surrogate.from_layers(weights, biases, net.activation, scaling=dict(net.named_buffers()))


@torch.no_grad()
def cut_inputs(net: Surrogate, kept: Tensor, *, x: Tensor | None = None, values: Tensor | None = None) -> Surrogate:
    r"""Return a new network that takes only the kept inputs; the others are folded into the first layer.

    Args:
        net: The network, left as it is.
        kept: Indices of the inputs to keep, in the order in which the new network takes them.
        x: Fold by regression over these samples (n, d): what the removed inputs sent to the first layer is fitted by
            the kept inputs and a constant.
        values: Fold these constants instead, (d,), raw units; those of kept inputs are ignored.

    Returns:
        A ``Surrogate`` with ``len(kept)`` inputs and their scaling.

    Raises:
        ValueError: Neither or both of `x` and `values`; no index, one out of range or named twice.

    Chapter 7, "Inputs and layers".

    Example:
        >>> import torch
        >>> net = sl.Surrogate([2, 3, 1])
        >>> small = sl.cut_inputs(net, torch.tensor([1]), values=torch.tensor([5.0, 0.0]))
        >>> at = torch.tensor([[5.0, 2.0]], dtype=torch.float64)
        >>> small.widths, torch.allclose(small(at[:, 1:]), net(at))
        ([1, 3, 1], True)
    """
    if (x is None) == (values is None):
        raise ValueError(f"x, values: got {'neither' if x is None else 'both'}, need one of them, to fold with")
    width = net.widths[0]
    kept = _checked_index("kept", kept, width)
    weight, removed = net.weights[0], _complement(kept, width)
    if values is not None:
        values = _check.tensor("values", values, shape=(width,)).to(net.dtype)
        fold_weight, fold_bias = 0, weight[:, removed] @ net.scale_inputs(values)[removed]
    else:
        u = net.scale_inputs(samples_of(net, x))
        fitted = _regression(u[:, kept], u[:, removed] @ weight[:, removed].T)
        fold_weight, fold_bias = fitted[:-1].T, fitted[-1]
    scaling = dict(net.named_buffers())
    scaling |= {name: tensor[kept] for name, tensor in scaling.items() if name.startswith("input")}
    weights = [weight[:, kept] + fold_weight, *net.weights[1:]]
    biases = [net.biases[0] + fold_bias, *net.biases[1:]]
    return Surrogate.from_layers(weights, biases, net.activation, scaling=scaling)


@torch.no_grad()
def remove_layers(net: Surrogate, layers: int | Sequence[int], x: Tensor) -> Surrogate:
    r"""Return a new network without the given hidden layers (counted from 0).

    The pre-activations of the layer behind a gap are fitted, by least squares over the samples, as an affine function
    of the activations before it: exact if the activations in between are affine over the samples' range.

    Args:
        net: The network, left as it is.
        layers: Hidden layers to remove, one or several; all of them leaves an affine function.
        x: Samples (n, d).

    Raises:
        ValueError: A layer that does not exist or is named twice.

    Chapter 7, "Layers".

    Example:
        A ReLU layer is affine, here the identity, where its inputs are positive.

        >>> import torch
        >>> net = sl.Surrogate([1, 1, 1, 1], "relu")
        >>> for weight in net.weights:
        ...     _ = weight.data.fill_(1.0)
        >>> x = torch.linspace(1, 2, 9, dtype=torch.float64).reshape(-1, 1)
        >>> small = sl.remove_layers(net, [1], x)
        >>> small.widths, torch.allclose(small(x), net(x))
        ([1, 1, 1], True)
    """
    hidden = len(_check.instance("net", net, Surrogate).weights) - 1
    layers = [layers] if np.ndim(layers) == 0 else layers
    layers = [_check.count(f"layers[{i}]", layer, least=0, most=hidden - 1) for i, layer in enumerate(layers)]
    if len(set(layers)) != len(layers):
        raise ValueError(f"layers: got {layers}, need each layer at most once")
    inputs = [net.scale_inputs(samples_of(net, x)), *hidden_activations(net, x)]
    weights, biases, source = [], [], 0
    for layer in range(hidden + 1):
        if layer in layers:
            continue
        weight, bias = net.weights[layer], net.biases[layer]
        if source < layer:  # there is a gap before this layer
            fitted = _regression(inputs[source], torch.addmm(bias, inputs[layer], weight.T))
            weight, bias = fitted[:-1].T, fitted[-1]
        weights.append(weight)
        biases.append(bias)
        source = layer + 1
    return Surrogate.from_layers(weights, biases, net.activation, scaling=dict(net.named_buffers()))


def fold_by_regression(left: Tensor, target: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the layer behind `left` (n, k), corrected so that they fit the target (n, q) best."""
    correction = _regression(left, target - torch.addmm(bias, left, weight.T))
    return weight + correction[:-1].T, bias + correction[-1]


def _regression(a: Tensor, target: Tensor) -> Tensor:
    """Return the least-squares coefficients (m + 1, q) of target (n, q) on a (n, m) and a constant, slightly damped."""
    centre, wanted = a.mean(0), target.mean(0)
    spread = (a - centre) / len(a) ** 0.5
    normal = spread.T @ spread
    scale = normal.diagonal().mean()
    scale = torch.where(scale > 1e-200, scale, torch.ones_like(scale))  # all nodes constant: only the constant is left
    normal = normal + RIDGE * scale * torch.eye(len(normal), dtype=a.dtype)
    slope = torch.linalg.solve(normal, spread.T @ ((target - wanted) / len(a) ** 0.5))
    return torch.cat([slope, (wanted - centre @ slope).unsqueeze(0)])


def _checked_kept(kept: Sequence[Tensor], widths: Sequence[int]) -> list[Tensor]:
    if len(kept) != len(widths):
        raise ValueError(f"kept: got {len(kept)} sets of indices, need one for each of {len(widths)} hidden layers")
    pairs = enumerate(zip(kept, widths, strict=True))
    return [_checked_index(f"kept[{layer}]", index, width) for layer, (index, width) in pairs]


def _checked_index(name: str, index: Tensor, width: int) -> Tensor:
    index = _check.indices(name, index)
    apart = len(index) and index.dtype != torch.bool and len(index.unique()) == len(index)
    if not apart or index.min() < 0 or index.max() >= width:
        raise ValueError(f"{name}: got {index.tolist()}, need one or more different indices from 0 to {width - 1}")
    return index


def _complement(index: Tensor, width: int) -> Tensor:
    mask = torch.ones(width, dtype=torch.bool)
    mask[index] = False
    return mask.nonzero().squeeze(1)


def _ones(a: Tensor) -> Tensor:
    return torch.ones(len(a), 1, dtype=a.dtype)


def affine_layers(net: Surrogate, x: Tensor, count: int) -> list[int]:
    """Return `count` hidden layers that can be removed with the least harm, found one after the other.

    At each step every layer that is left is removed on trial with `remove_layers`; the one whose removal changes the
    values at the samples least (root mean square) goes. A layer whose activations are nearly affine over the samples
    goes first.

    Args:
        net: The network.
        x: Samples (n, d).
        count: How many, from 1 to the number of hidden layers.

    Raises:
        ValueError: A count of 0 or above the number of hidden layers, samples of the wrong shape.

    Chapter 7, "Layers".

    Example:
        >>> import torch
        >>> net = sl.Surrogate([2, 3, 3, 1])
        >>> net.weights[1].data.mul_(1e-3).shape  # the second layer sees hardly any change, so it is affine
        torch.Size([3, 3])
        >>> sl.affine_layers(net, sl.gaussian(seed=0)(0, 50, 2), 1)
        [1]
    """
    count = _check.count("count", count, most=len(net.weights) - 1)
    removed: list[int] = []
    value = net(x).detach()
    for _ in range(count):
        candidates = [layer for layer in range(len(net.weights) - 1) if layer not in removed]
        changes = [(remove_layers(net, [*removed, layer], x)(x) - value).square().mean().item() for layer in candidates]
        removed.append(candidates[min(range(len(changes)), key=changes.__getitem__)])
    return sorted(removed)
