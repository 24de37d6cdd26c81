"""Slow, obviously right twins of what the library does fast."""

import torch
from torch import Tensor
from torch.func import grad, hessian, vmap


def plain_network(net, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """A surrogate in elementary operations, for one sample (d,)."""
    u = (x - net.input_shift) / net.input_scale
    depth = len(net.weights)
    for layer in range(depth):
        u = parameters[f"weights.{layer}"] @ u + parameters[f"biases.{layer}"]
        u = net.activation(u) if layer < depth - 1 else u
    return net.output_shift + net.output_scale * u[0]


def plain_outputs(net, parameters: dict[str, Tensor], x: Tensor, order: int, directions: Tensor | None = None):
    """Value (n,), gradient (n, d) and HVPs (n, k, d) by torch.func; directions are (n, k, d)."""
    f = lambda point: plain_network(net, parameters, point)  # noqa: E731
    outputs = [vmap(f)(x)]
    if order >= 1:
        outputs.append(vmap(grad(f))(x))
    if order == 2:
        outputs.append(torch.einsum("nij,nkj->nki", vmap(hessian(f))(x), directions))
    return outputs
