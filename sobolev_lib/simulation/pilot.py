"""A look before the work: rows that depend on each other, and payoffs that jump or bend where they should not."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import grad

ROWS = 512  # of the pilot sample
_HALVINGS = 36
_NEIGHBOURS = (1, 7, 61, 127)  # rows further on, which a segment leads to


def check_rows(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, shocks: Tensor):
    """Refuse a function of inputs and shocks whose first two rows give other values together than alone."""
    with torch.no_grad():
        together = function(x[:2], shocks[:2])
        alone = torch.cat([function(x[i : i + 1], shocks[i : i + 1]) for i in range(2)])
    worst = float((together - alone).abs().max())
    if worst > 1e-9 * (1 + float(alone.abs().max())):
        seen = f"values that differ by {worst:.3g} if two paths are computed together and alone"
        raise ValueError(f"model, payoff: got {seen}, need row i of the result to depend on row i of the states only")


def check_smooth(payoff: Callable[[Tensor], Tensor], states: Tensor, order: int):
    """Refuse a payoff that jumps (order 1) or has kinks (order 2) between some of the states (n, ...).

    The segment between two rows is halved again and again, towards the half where the function departs more from its
    slopes. Where it is smooth the departure vanishes with the segment; a jump stays.
    """
    for level in range(order):  # the payoff itself, then its slope
        found = [_largest_jump(payoff, states, states.roll(k, 0), level) for k in _NEIGHBOURS]
        jump, scale = (max(values) for values in zip(*found, strict=True))
        if jump > 1e-4 * scale:
            seen = f"jumps by {jump:.3g} between states that are next to each other"
            seen = seen if level == 0 else f"has a kink, where its slope {seen}"
            raise ValueError(
                f"order: got {order} for a payoff that {seen}, so pathwise derivatives of order {level + 1} miss it; "
                f"need order {level}, a smooth payoff, estimator='likelihood_ratio', or the payoff's own word "
                "smooth_order if these states do not matter"
            )


def _largest_jump(payoff, start: Tensor, end: Tensor, level: int) -> tuple[float, float]:
    """Largest jump of the payoff (level 0) or its slope (level 1) on the segments, and its range where it was seen."""
    low, width = torch.zeros(len(start), dtype=torch.float64), 1.0
    left, right = _profile(payoff, start, end, low, level), _profile(payoff, start, end, low + 1, level)
    seen = [*torch.cat([left[0], right[0]]).aminmax()]
    for _ in range(_HALVINGS):
        width /= 2
        middle = _profile(payoff, start, end, low + width, level)
        seen += middle[0].aminmax()
        upper = _departure(middle, right, width) > _departure(left, middle, width)
        low = torch.where(upper, low + width, low)
        left = [torch.where(upper, m, a) for m, a in zip(middle, left, strict=True)]
        right = [torch.where(upper, b, m) for m, b in zip(middle, right, strict=True)]
    return float(_departure(left, right, width).max()), float(max(seen) - min(seen))


def _departure(left: list[Tensor], right: list[Tensor], width: float) -> Tensor:
    return (right[0] - left[0] - 0.5 * width * (left[1] + right[1])).abs()


def _profile(payoff, start: Tensor, end: Tensor, t: Tensor, level: int) -> list[Tensor]:
    """Derivatives `level` and `level + 1` by t of the payoff at start + t (end - start)."""
    t = t.clone().requires_grad_()
    derivatives = [payoff(start + t.view(-1, *[1] * (start.ndim - 1)) * (end - start))]
    for _ in range(level + 1):
        last = derivatives[-1]
        smooth = last.requires_grad
        (slope,) = grad(last.sum(), t, create_graph=True, materialize_grads=True) if smooth else (torch.zeros_like(t),)
        derivatives.append(slope)
    return [values.detach() for values in derivatives[-2:]]
