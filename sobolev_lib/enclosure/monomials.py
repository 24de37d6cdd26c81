r"""Polynomials in the inputs of a box, cut at a degree: the part of an enclosure that forgets nothing.

With :math:`\varepsilon \in [-1, 1]^d`, a row belongs to a monomial
:math:`\varepsilon_{i_1} \cdots \varepsilon_{i_a}`, :math:`1 \le a \le D`; rows are ordered by degree, and within a
degree by the indices :math:`i_1 \le \dots \le i_a`. Coefficients are tensors (n, rows, m), the constant is kept
elsewhere. Chapter 6.
"""

from functools import cache
from itertools import combinations_with_replacement, pairwise
from math import comb

import torch
from torch import Tensor

LIMIT = 800


class Monomials:
    """The monomials of degree 1 to ``degree`` in ``inputs`` variables, and how they multiply."""

    def __init__(self, inputs: int, degree: int):
        """List the monomials, and for each two degrees where the products of their monomials go."""
        self.inputs, self.degree = inputs, degree
        self.indices = [list(combinations_with_replacement(range(inputs), a)) for a in range(1, degree + 1)]
        starts = [0]
        for group in self.indices:
            starts.append(starts[-1] + len(group))
        self.rows = starts[-1]
        self.slices = [slice(a, b) for a, b in pairwise(starts)]
        flat = [index for group in self.indices for index in group]
        self.even = torch.tensor([all(index.count(i) % 2 == 0 for i in index) for index in flat])
        self.squares = torch.tensor([flat.index((i, i)) for i in range(inputs)]) if degree > 1 else None
        self.targets = {(a, b): self._targets(a, b) for a in range(1, degree) for b in range(1, degree + 1 - a)}

    def _targets(self, a: int, b: int) -> Tensor:
        """Return the row of the product for each pair of monomials of degrees a and b."""
        start = self.slices[a + b - 1].start
        row = {index: start + i for i, index in enumerate(self.indices[a + b - 1])}
        return torch.tensor([row[tuple(sorted(p + q))] for p in self.indices[a - 1] for q in self.indices[b - 1]])

    def sizes(self, x: Tensor) -> list[Tensor]:
        """Return for each degree the sum of absolute coefficients, (n, m): no value of that part is larger."""
        return [x[:, rows].abs().sum(1) for rows in self.slices]

    def multiply(self, x: Tensor, y: Tensor, lowest: int = 1) -> tuple[Tensor, Tensor]:
        """Return the product of two polynomials, cut at the degree, and a bound of what was cut off.

        ``lowest`` is the lowest degree that x has; below it there is nothing to do, and a square needs half the work.
        """
        result, square = torch.zeros_like(x), x is y
        x_sizes, y_sizes = self.sizes(x), self.sizes(y)
        lost = torch.zeros_like(x_sizes[0])
        for a in range(lowest, self.degree + 1):
            for b in range(1, self.degree + 1):
                if a + b > self.degree:
                    lost += x_sizes[a - 1] * y_sizes[b - 1]
                elif not (square and a > b):
                    pairs = x[:, self.slices[a - 1]].unsqueeze(2) * y[:, self.slices[b - 1]].unsqueeze(1)
                    times = 2 if square and a < b else 1
                    result.index_add_(1, self.targets[a, b], pairs.flatten(1, 2), alpha=times)
        return result, lost


@cache
def monomials(inputs: int, degree: int | None = None) -> Monomials:
    """Return the monomials up to a degree; by default the largest, at most 5, that has no more than ``LIMIT`` rows.

    >>> from sobolev_lib.enclosure.monomials import monomials
    >>> monomials(7).degree, monomials(20).degree, monomials(100).degree
    (5, 2, 1)
    >>> monomials(7).rows
    791
    """
    if degree is None:
        degree = 1
        while degree < 5 and comb(inputs + degree + 1, inputs) - 1 <= LIMIT:
            degree += 1
    return Monomials(inputs, degree)
