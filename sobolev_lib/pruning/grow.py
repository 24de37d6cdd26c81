"""`grow`: add nodes until held-out labels no longer show a gain. The other way to the justified size.

Chapter 7. Source: adding one node at a time, trained to correct what the others leave, is the idea of Fahlman & Lebiere
(1989); here all weights are trained again after each addition.
"""

import torch

from sobolev_lib import _check
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.judge import Judge, Path, split, squares
from sobolev_lib.pruning.shrink import affordable, learn, steps_of_least_squares
from sobolev_lib.training.loss import Labelled

__all__ = ["grow"]

PATIENCE = 3  # additions without a new best network before it ends


def grow(
    net: Surrogate,
    samples: Labelled,
    *,
    hidden: int = 2,
    order: int | None = None,
    validation: Labelled | float = 0.25,
    most: int = 200,
    seed: int = 0,
) -> tuple[Surrogate, Path]:
    """Return the smallest network that labels justify, grown from one node per layer, and the path to it.

    Every round adds one node, in the layer where it lowers the loss most. The new node starts with random weights in
    and zero weights out, so it changes nothing until it is trained.

    Args:
        net: Gives inputs, scaling and activation.
        samples: Labels to learn from.
        hidden: Number of hidden layers.
        order: See ``shrink``.
        validation: See ``shrink``.
        most: Give up above so many parameters.
        seed: Of new nodes' weights and of the training.

    Returns:
        The network and a ``Path``.

    Raises:
        ValueError: As ``shrink``; no hidden layer.

    Chapter 7, "The automatic way".

    The curve of a network with one node needs one node, or two.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> generator = torch.Generator().manual_seed(0)
    >>> x = torch.randn(512, 1, dtype=torch.float64, generator=generator)
    >>> net = sl.Surrogate([1, 1, 1], "tanh", gain=1.0)
    >>> noise = 0.1 * torch.randn(512, dtype=x.dtype, generator=generator)
    >>> samples = SimpleNamespace(x=x, value=net(x).detach() + noise, gradient=None, hvp=None, directions=None)
    >>> grown, path = sl.grow(net, samples, hidden=1)
    >>> grown.widths[1] <= 2
    True
    """
    _check.instance("net", net, Surrogate)
    hidden, most, seed = _check.count("hidden", hidden), _check.count("most", most), _check.count("seed", seed, least=0)
    train, held, order = split(samples, order, validation)
    generator = torch.Generator().manual_seed(seed)
    widths = [net.widths[0], *[1] * hidden, 1]
    small = Surrogate(widths, net.activation, dtype=net.dtype, generator=generator, gain=1.0)
    small.load_state_dict({**small.state_dict(), **dict(net.named_buffers())})
    loss = learn(small, train, order, seed)
    actions, nets, waited = ["one node in each layer"], [small], 0
    lowest = squares(small, loss, held).mean().item()
    while waited < PATIENCE:
        options = [_widen(nets[-1], layer, generator) for layer in range(hidden)]
        rows = affordable(options[0], train, order)
        losses = [steps_of_least_squares(option, rows, loss, 30) for option in options]
        layer = min(range(hidden), key=losses.__getitem__)
        if options[layer].parameter_count > most:
            break
        nets.append(options[layer])
        actions.append(f"{nets[-1].widths[layer + 1]} nodes in layer {layer + 1}")
        error = squares(nets[-1], loss, held).mean().item()
        waited = 0 if error < lowest else waited + 1
        lowest = min(lowest, error)
    found, path = Judge(loss, held, len(train.x)).choose(actions, nets)
    return nets[found], path


@torch.no_grad()
def _widen(net: Surrogate, layer: int, generator: torch.Generator) -> Surrogate:
    """Return the same function with one more node in a hidden layer: random weights in, none out."""
    weights, biases = list(net.weights), list(net.biases)
    fan_in = weights[layer].shape[1]
    row = torch.randn(1, fan_in, dtype=net.dtype, generator=generator) / fan_in**0.5
    weights[layer] = torch.cat([weights[layer], row])
    biases[layer] = torch.cat([biases[layer], torch.randn(1, dtype=net.dtype, generator=generator)])
    weights[layer + 1] = torch.cat([weights[layer + 1], torch.zeros_like(weights[layer + 1][:, :1])], 1)
    return Surrogate.from_layers(weights, biases, net.activation, scaling=dict(net.named_buffers()))
