"""The layers of a network from elsewhere: matrices, or a ``torch.nn.Sequential`` (Chapter 4)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sobolev_lib import _check

KINDS = {
    nn.SiLU: "silu",
    nn.Softplus: "softplus",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.ReLU: "relu",
}


def layers_of(layers: nn.Sequential) -> tuple[list[Tensor], list[Tensor], str]:
    """Return weights (out, in), biases (out,) and the name of the activation.

    Raises:
        TypeError: Not a ``Sequential``; a layer that is neither, or an activation that differs from ours or the others.
        ValueError: An output that is not one number.
    """
    _check.instance("layers", layers, nn.Sequential)
    needed = f"Linear and one of {', '.join(kind.__name__ for kind in KINDS)} in turn, Linear first and last"
    activations = set()
    for index, layer in enumerate(layers):
        if index % 2 == 0 and type(layer) is nn.Linear:
            continue
        other = getattr(layer, "beta", 1) != 1
        activations.add(KINDS.get(type(layer)))
        if index % 2 == 0 or type(layer) not in KINDS or other or len(activations) > 1:
            raise TypeError(f"layers[{index}]: got {layer}, need {needed}, with torch's default arguments")
    if len(layers) % 2 == 0:
        raise TypeError(f"layers: got {len(layers)} layers, need {needed}")
    linear = list(layers)[::2]
    if linear[-1].out_features != 1:
        raise ValueError(f"layers[{len(layers) - 1}]: got {linear[-1].out_features} outputs, need 1")
    zeros = [torch.zeros(len(layer.weight), dtype=layer.weight.dtype) for layer in linear]
    biases = [zero if layer.bias is None else layer.bias for layer, zero in zip(linear, zeros, strict=True)]
    return [layer.weight for layer in linear], biases, activations.pop() if activations else "silu"


def checked_layers(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[int]]:
    """Return weights, biases and widths of a network whose layers fit each other.

    Raises:
        ValueError: Numbers of layers that differ, shapes that do not fit, numbers that are not finite.
    """
    if len(weights) != len(biases) or not len(weights):
        raise ValueError(f"weights, biases: got {len(weights)} and {len(biases)} layers, need as many, at least 1")
    weights = [_check.tensor(f"weights[{i}]", w, shape=("out", "in"), detach=True) for i, w in enumerate(weights)]
    widths = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
    for i, weight in enumerate(weights):
        _check.tensor(f"weights[{i}]", weight, shape=(widths[i + 1], widths[i]))
    biases = [_check.tensor(f"biases[{i}]", b, shape=(widths[i + 1],), detach=True) for i, b in enumerate(biases)]
    return weights, biases, widths
