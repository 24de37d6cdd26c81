r"""Proved errors: how far a network, its gradient and its curvature are from a formula or another network, at most.

.. math:: \sup_x |N - V|, \qquad \sup_x \max_i |\partial_i N - \partial_i V|, \qquad
          \sup_x |v^T (\nabla^2 N - \nabla^2 V)\, v|

over a box, rounded outward. The difference is bounded as one function (module ``coordinates``): where both curve alike
what is left is small, although the range of either is not. Chapter 10.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.certificates.coordinates import Extreme, search
from sobolev_lib.certificates.references import Reference
from sobolev_lib.certificates.verdicts import CELLS, check_all, difference
from sobolev_lib.enclosure.interval import Interval, mag, mig
from sobolev_lib.network.surrogate import Surrogate

__all__ = ["ErrorBound", "Extreme", "error_bound"]

QUANTITIES = {"value": "value", "gradient": "gradient", "curvature": "second"}


@dataclass(frozen=True, eq=False)
class ErrorBound:
    """What ``error_bound`` returns: one ``Extreme`` for each quantity that was asked for, else None.

    Chapter 10, "An error bound in practice".
    """

    value: Extreme | None = None
    gradient: Extreme | None = None
    curvature: Extreme | None = None


def error_bound(
    net: Surrogate,
    reference: Reference | Surrogate,
    box: Interval,
    *,
    of: tuple[str, ...] | None = None,
    direction: Tensor | None = None,
    tolerance: float = 0.05,
    cells: int = CELLS,
) -> ErrorBound:
    """Bound the largest error of a network over a box, in value, gradient and curvature, in raw units.

    Args:
        net: The network.
        reference: What is right: a formula with enclosures, such as ``bachelier_reference``, or another network, such
            as the one that was pruned. Of two networks that differ by rounding alone, such as one in another precision,
            the bound is sound but far too large: it falls with the size of the cells, not of the rounding.
        box: Raw inputs, (d,), bounded.
        of: Some of "value", "gradient" (the largest component) and "curvature" (along ``direction``). Default: the
            first two, and the third if there is a direction.
        direction: v, (d,), for the curvature.
        tolerance: A bound that exceeds the largest error seen by no more than this share is good enough.
        cells: How many cells may be enclosed for each quantity.

    Returns:
        ErrorBound.

    Raises:
        TypeError: `net` is not a ``Surrogate``, `box` not an ``Interval``, a reference without enclosure.
        ValueError: A box of the wrong shape, empty or unbounded; a reference with another number of inputs; an unknown
            quantity, curvature without a direction or of an activation without a second derivative; no cells.

    Chapter 10, "An error bound in practice".

    Example:
        A network of one softplus, and the same with a slope that is off by 0.01.

        >>> right, wrong = sl.Surrogate([1, 1, 1], "softplus"), sl.Surrogate([1, 1, 1], "softplus")
        >>> for net, slope in ((right, 1.0), (wrong, 1.01)):
        ...     _ = net.weights[0].data.fill_(1.0), net.weights[1].data.fill_(slope)
        >>> error = sl.error_bound(wrong, right, sl.Interval([-1.0], [1.0])).value
        >>> round(error.seen, 4), error.seen <= error.bound <= 1.05 * error.seen
        (0.0131, True)
    """
    box, direction = check_all(net, box, direction)
    if not isinstance(reference, Reference | Surrogate):
        raise TypeError(f"reference: got {type(reference).__name__}, need a Reference, with enclosures, or a Surrogate")
    of = ("value", "gradient") + (() if direction is None else ("curvature",)) if of is None else of
    for name in of:
        _check.choice("of", name, QUANTITIES)
    if "curvature" in of and direction is None:
        raise ValueError("direction: got None, need one for the curvature")
    tolerance = _check.positive("tolerance", tolerance, or_zero=True)

    def largest(x: Interval) -> Interval:
        return Interval.unchecked(mig(x).amax(1, keepdim=True), mag(x).amax(1, keepdim=True))

    def extreme(name: str) -> Extreme:
        along = direction if name == "curvature" else None
        place = difference(net, box, QUANTITIES[name], along, reference)
        found = search(place, largest, lambda seen: (1 + tolerance) * seen, cells)
        return replace(found, bound=found.bound.item(), seen=found.seen.item(), where=found.where[0])

    return ErrorBound(**{name: extreme(name) for name in of})
