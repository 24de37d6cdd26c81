"""Slow, obviously right twins of what the library does fast."""

import torch
from torch import Tensor
from torch.func import grad, hessian, vmap

from sobolev_lib.network.surrogate import Surrogate


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


def random_net(widths=(2, 5, 4, 1), activation="silu", seed=0, n=100):
    """A network with random weights and biases and a scaling that is not the identity; and n inputs for it."""
    generator = torch.Generator().manual_seed(seed)
    net = Surrogate(list(widths), activation, gain=1.2, generator=generator)
    with torch.no_grad():
        for bias in net.biases:
            bias.normal_(std=0.5, generator=generator)
    x = 2 * torch.randn(n, widths[0], dtype=torch.float64, generator=generator) + 1
    return net.set_scaling(x, 3 * x[:, 0]), x
