"""`grow`: add nodes until the labels cannot tell the network from the large one. The other way to the justified size.

Chapter 7. Source: adding one node at a time, trained to correct what the others leave, is the idea of Fahlman & Lebiere
(1990); here all weights are trained again after each addition.
"""

import torch

from sobolev_lib import _check
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.judge import Path, Search, begin
from sobolev_lib.training.loss import Labelled


def grow(
    net: Surrogate,
    samples: Labelled,
    *,
    hidden: int = 2,
    order: int = 0,
    tolerance: float | None = None,
    validation: Labelled | float = 0.25,
    most: int = 500,
    seed: int = 0,
) -> tuple[Surrogate, Path]:
    """Return a network that was grown from one node per layer until it is as good as `net`, and the path.

    Every round adds one node, in the layer where it lowers the excess most. The new node starts with random weights in
    and zero weights out, so it changes nothing until it is trained; training is that of `shrink`.

    Args:
        net: The network to match, left as it is; it also is the one that candidates learn from.
        samples: Labels to learn from.
        hidden: Number of hidden layers.
        order: See ``shrink``.
        tolerance: See ``shrink``.
        validation: See ``shrink``.
        most: Give up above so many parameters.
        seed: Of new nodes' weights and of the training.

    Returns:
        The network and a ``Path``. If none with at most `most` parameters is within the tolerance, a copy of `net`.

    Raises:
        ValueError: As ``shrink``; no hidden layer.

    Chapter 7, "The automatic way".

    The curve of a network with one node needs one node.

    >>> from types import SimpleNamespace
    >>> x = torch.linspace(-2, 2, 256, dtype=torch.float64).reshape(-1, 1)
    >>> net = Surrogate([1, 1, 1], "tanh", gain=1.0)
    >>> samples = SimpleNamespace(x=x, value=net(x).detach(), gradient=None, hvp=None, directions=None)
    >>> grown, path = grow(net, samples, hidden=1, validation=samples, tolerance=1e-3)
    >>> grown.widths
    [1, 1, 1]
    """
    hidden = _check.count("hidden", hidden)
    most = _check.count("most", most)
    search = begin(net, samples, order, tolerance, validation, seed)
    grown = _ascent(search, hidden, most)
    return grown, search.path(grown)


def _ascent(search: Search, hidden: int, most: int) -> Surrogate:
    """Add nodes until a network is accepted."""
    generator = torch.Generator().manual_seed(search.seed)
    d = search.net.widths[0]
    net = Surrogate([d, *[1] * hidden, 1], search.net.activation, dtype=search.net.dtype, generator=generator, gain=1.0)
    net.load_state_dict({**net.state_dict(), **dict(search.net.named_buffers())})
    accepted = search.attempt("one node in each layer", net)
    while accepted is None:
        base, options = search.last, []
        for layer in range(hidden):
            wider = _widen(base, layer, generator)
            if wider.parameter_count > most:
                return search.net.copy()
            found = search.attempt(f"{wider.widths[layer + 1]} nodes in layer {layer + 1}", wider)
            options.append((search.trials[-1].excess, layer, search.last, found))
        _, _, search.last, accepted = min(options, key=lambda option: option[:2])
    return accepted


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
