r"""`shrink`: the smallest network that the labels justify, found on the way down from a large one.

One stroke makes the network that was handed over narrow enough for least squares: layers go that are nearly affine,
nodes go that the others predict (``keep_predictive``), and what goes is folded by regression. Then it learns from all
that the labels say, values and derivatives. From there on one node goes at a time: every node is folded on trial, those
whose fold raises the loss least are trained on without it, and the best of them goes on. Held-out labels choose
among all networks on the way (see ``judge``). The smaller a network, the fewer numbers noise can disturb; so the way
down first lowers the error, and the judge sees where it begins to rise.

Source: Kichler, Afghan & Naumann (2024), section 3, for pruning until the error would rise. Chapter 7.
"""

import itertools
from collections.abc import Iterator
from numbers import Real

import torch
from tqdm import tqdm

from sobolev_lib import _check
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.cut import affine_layers, cut, remove_layers
from sobolev_lib.pruning.judge import FIRST, Judge, Path, split, squares
from sobolev_lib.pruning.selection import keep_predictive
from sobolev_lib.training.fit import fit
from sobolev_lib.training.gauss_newton import levenberg_marquardt
from sobolev_lib.training.loss import (
    Batch,
    Labelled,
    SobolevLoss,
    balance_by_covariance,
    balance_by_moments,
    take,
    targets,
)

__all__ = ["shrink"]

FOLD = 4096  # samples over which cut nodes are folded, and folds are compared: enough for a hundred nodes
WIDEST = 12  # nodes of each of two layers after the first stroke
WORK = 2e9  # multiplications that one step of least squares may cost on the way: decides on how many rows it sees
NARROW = 8  # nodes of a layer up to which several nodes are tried in turn
WORSE = 30  # limits by which four networks in a row must miss before the way down ends


def shrink(
    net: Surrogate,
    samples: Labelled,
    *,
    order: int | None = None,
    validation: Labelled | float = 0.25,
    enough: int = 1,
    seed: int = 0,
) -> tuple[Surrogate, Path]:
    r"""Return the smallest network that labels justify, trained on all that they say, and the path to it.

    Args:
        net: A trained network, left as it is.
        samples: Labels to learn from.
        order: Of the labels that are used. Default: the highest they have, so that derivatives are learned and judged
            throughout.
        validation: Held-out labels that neither `net` nor `samples` have seen. A number is the share of `samples` to
            hold out, from their end; the network that was found then learns from them too, which nothing is left to
            judge. Labels that are given only judge.
        enough: The way down ends at the first network with at most so many parameters.
        seed: Of the order of samples in training.

    Returns:
        The network, and a ``Path``, which prints as a table and says in ``path.reason`` why this one, and how small a
        difference would have been seen. If no smaller network is justified, a copy of `net` is returned. It is finished
        by least squares; with more labels at hand, go on by ``fit(small, more, order=1, steps=0, validation=held)``,
        which keeps what held-out labels find better.

    Raises:
        ValueError: Labels missing for `order`; a share outside (0, 1); fewer than 64 held-out samples; parameters
            that are frozen (folding changes all of them).

    Chapter 7, "The automatic way".

    Example:
        A network whose second node is a copy of the first loses it, since one node can do the work of both.

        >>> import torch
        >>> from types import SimpleNamespace
        >>> generator = torch.Generator().manual_seed(1)
        >>> x = torch.randn(512, 1, dtype=torch.float64, generator=generator)
        >>> net = sl.Surrogate([1, 2, 1], "tanh", gain=1.0, generator=torch.Generator().manual_seed(0))
        >>> _ = net.weights[0].data.fill_(1.0)
        >>> noise = 0.1 * torch.randn(512, dtype=x.dtype, generator=generator)
        >>> value = net(x).detach() + noise
        >>> samples = SimpleNamespace(x=x, value=value, gradient=None, hvp=None, directions=None)
        >>> small, path = sl.shrink(net, samples)
        >>> small.widths
        [1, 1, 1]
    """
    frozen = [name for name, p in _check.instance("net", net, Surrogate).named_parameters() if not p.requires_grad]
    if frozen:
        raise ValueError(f"net: got {frozen[0]} with requires_grad=False, need all free: folding changes all")
    enough, seed = _check.count("enough", enough), _check.seed("seed", seed)
    train, held, order = split(samples, order, validation)
    start = _narrow(net, train, order)
    loss = learn(start, train, order, seed)
    judge = Judge(loss, held, len(train.x))
    unseen = not isinstance(validation, Real)  # else the network may have learned from what is held out
    actions, nets = (["as it came"], [net.copy()]) if unseen else ([], [])
    for action, candidate in tqdm(_descend(start, train, loss, judge, enough), "shrink", leave=False, delay=1):
        actions.append(action)
        nets.append(candidate)
    _polish(nets, start.parameter_count, train, loss, judge)
    found, path = judge.choose(actions, nets)
    small = nets[found]
    return small if unseen else _fitted(small, take(samples, slice(0, len(samples.x)), loss.order), loss), path


def _narrow(net: Surrogate, train: Batch, order: int) -> Surrogate:
    """Return the network after the first stroke: at most two layers, of a width that least squares can afford."""
    x, surplus = train.x[:FOLD], len(net.widths) - 4
    if surplus > 0:
        net = remove_layers(net, affine_layers(net, x, surplus), x)
    widths, q = net.widths, targets(take(train, slice(1), order), order).shape[1]
    width = WIDEST
    while (
        width > 4 and q * min(len(x), len(train.x)) * _count([widths[0], *[width] * (len(widths) - 2), 1]) ** 2 > WORK
    ):
        width -= 1
    if max(widths[1:-1], default=0) <= width:
        return net.copy()
    return cut(net, keep_predictive(net, x, [min(width, m) for m in widths[1:-1]]), x=x)


def _count(widths: list[int]) -> int:
    return sum((a + 1) * b for a, b in itertools.pairwise(widths))


def learn(net: Surrogate, train: Batch, order: int, seed: int) -> SobolevLoss:
    """Train the narrow network from its fold on, and return the balance that whitens its residuals."""
    loss = balance_by_moments(train, order)
    fit(net, train, order=order, steps=300, batch=256, finish=0, balance=loss, seed=seed)
    rows = affordable(net, train, order)
    steps_of_least_squares(net, rows, loss, 15)
    for _ in range(2):
        loss = balance_by_covariance(net, rows, order)
        steps_of_least_squares(net, rows, loss, 15)
    return loss


def affordable(net: Surrogate, train: Batch, order: int) -> Batch:
    """Return the first rows: as many as a step of least squares can afford, at least eight labels a parameter."""
    p, q = net.parameter_count, targets(take(train, slice(1), order), order).shape[1]
    return take(train, slice(0, max(int(WORK / (q * p**2)), 8 * p // q + 1)), order)


def steps_of_least_squares(net: Surrogate, samples: Batch, loss: SobolevLoss, steps: int) -> float:
    """Take steps of least squares, in place, and return the loss."""
    for _ in levenberg_marquardt(net, samples, loss, steps=steps):
        pass
    return squares(net, loss, samples).mean().item()


def _descend(
    net: Surrogate, train: Batch, loss: SobolevLoss, judge: Judge, enough: int
) -> Iterator[tuple[str, Surrogate]]:
    """Yield the narrow network and those with ever fewer nodes, until they are far too small."""
    yield FIRST, net.copy()
    missed, best = 0, squares(net, loss, judge.held)
    while net.parameter_count > enough and missed < 4 and len(net.widths) > 2:
        action, net = _smaller(net, train, loss)
        yield action, net.copy()
        own = squares(net, loss, judge.held)
        floor = best.mean().item() / len(loss.matrix) * net.parameter_count / judge.rows
        gap = own - best
        missed = missed + 1 if gap.mean() > WORSE * max(floor, gap.std() / len(gap) ** 0.5) else 0
        best = min(own, best, key=torch.mean)


def _smaller(net: Surrogate, train: Batch, loss: SobolevLoss) -> tuple[str, Surrogate]:
    """Return the network without the node (or the one-node layer) that is missed least, trained on without it."""
    some = take(train, slice(0, FOLD // 2), loss.order)
    options = []
    for layer, width in enumerate(net.widths[1:-1]):
        for node in range(width):
            options.append((layer, _without(net, layer, node, some.x)))
    options = sorted(((squares(c, loss, some).mean().item(), i, layer, c) for i, (layer, c) in enumerate(options)))
    rows = affordable(net, train, loss.order)
    before = squares(net, loss, rows).mean().item()
    allowed = before * (1 + 0.5 * net.parameter_count / (len(rows.x) * len(loss.matrix)))
    tried = []
    for _, i, layer, candidate in options[: 1 if max(net.widths[1:-1]) > NARROW else 3]:
        tried.append((steps_of_least_squares(candidate, rows, loss, 8), i, layer, candidate))
        if tried[-1][0] <= allowed:
            break
    after, _, layer, best = min(tried)
    if after > allowed and len(tried) > 1:
        steps_of_least_squares(best, rows, loss, 20)
    left = net.widths[layer + 1] - 1
    return (f"{left} nodes in layer {layer + 1}" if left else f"without layer {layer + 1}"), best


def _without(net: Surrogate, layer: int, node: int, x) -> Surrogate:
    """Return the network without one node, folded by regression; without the layer if that was its only node."""
    kept = [torch.arange(width) for width in net.widths[1:-1]]
    kept[layer] = torch.cat([kept[layer][:node], kept[layer][node + 1 :]])
    return cut(net, kept, x=x) if len(kept[layer]) else remove_layers(net, [layer], x)


def _polish(nets: list[Surrogate], most: int, train: Batch, loss: SobolevLoss, judge: Judge) -> None:
    """Finish the networks of the way down that are near the limit on all samples; keep what the judge likes better."""
    _, verdicts = judge.verdicts(nets)
    way = (i for i, net in enumerate(nets) if net.parameter_count <= most)  # more, least squares cannot afford
    near = [i for i in way if verdicts[i][0] <= 4 * verdicts[i][1]]
    for i in sorted(near, key=lambda i: nets[i].parameter_count)[:8]:
        nets[i] = _better(nets[i], train, loss, judge)


def _better(net: Surrogate, train: Batch, loss: SobolevLoss, judge: Judge) -> Surrogate:
    """Return the network, or what more least squares make of it if held-out labels find that better."""
    return min(net, _fitted(net, train, loss), key=lambda n: squares(n, loss, judge.held).mean().item())


def _fitted(net: Surrogate, samples: Batch, loss: SobolevLoss) -> Surrogate:
    """Return what more least squares make of the network."""
    net = net.copy()
    fit(net, samples, order=loss.order, steps=0, finish=30, balance=loss)
    return net
