r"""Standard normals behind one interface: pseudo-random, scrambled Sobol', antithetic.

A noise is an infinite matrix of standard normals, read by ``noise(start, count, dims)``: rows ``start`` to
``start + count`` of the matrix that has ``dims`` columns. Row i depends on the seed, on i and on ``dims`` only, so the
numbers are the same however the work is cut into chunks, in whatever order and in however many processes. Nothing is
remembered between calls. Every normal is made from one uniform by the inverse distribution function, which keeps
Sobol' points equidistributed and makes ``-z`` as likely as ``z`` bit for bit. Derived in Chapter 1.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from sobolev_lib import _check

__all__ = ["antithetic", "gaussian", "sobol"]

_BITS = 12  # of a row number, shuffled and looked up together


class Noise(Protocol):
    """Anything callable as ``noise(start, count, dims)`` that returns rows of standard normals, (count, dims)."""

    def __call__(self, start: int, count: int, dims: int) -> Tensor:
        """Rows ``start`` to ``start + count`` of the matrix of standard normals with ``dims`` columns."""


@dataclass(frozen=True)
class Gaussian:
    """Pseudo-random standard normals; made by ``gaussian``, which documents the fields."""

    seed: int = 0
    skip: int = 0

    def __call__(self, start: int, count: int, dims: int) -> Tensor:
        """Return rows ``start`` to ``start + count``, shape (count, dims), float64."""
        start, count, dims = _check_rows(start, count, dims, most_rows=2**63, most_dims=2**31 - 1)
        stream = np.random.PCG64DXSM(np.random.SeedSequence([self.seed, self.skip, dims]))
        words = stream.advance(start * dims).random_raw(count * dims)
        return _normals(_odd(words), 52).view(count, dims)


@dataclass(frozen=True)
class Sobol:
    """Scrambled Sobol' points mapped to standard normals; made by ``sobol``, which documents the fields."""

    seed: int = 0
    skip: int = 0

    def __call__(self, start: int, count: int, dims: int) -> Tensor:
        """Return points ``start`` to ``start + count``, shape (count, dims), float64."""
        most = SobolEngine.MAXDIM - self.skip
        start, count, dims = _check_rows(start, count, dims, most_rows=2**SobolEngine.MAXBIT, most_dims=most)
        directions, shift = _sobol_net(self.seed, self.skip, dims)
        table = torch.zeros(1, dims, dtype=torch.int64)
        for bit in range(min(_BITS, (count - 1).bit_length())):
            table = torch.cat([table, table ^ directions[bit]])
        points = torch.empty(count, dims, dtype=torch.int64)
        row = start
        while row < start + count:
            stop = min((row // len(table) + 1) * len(table), start + count)
            places = _places(self.seed, row, stop)
            origin = _point(int(places[0]) // len(table) * len(table), directions) ^ shift
            torch.bitwise_xor(table[places % len(table)], origin, out=points[row - start : stop - start])
            row = stop
        # Half a cell further on, so that no point lies on 0: (q + 1/2) / 2^30 in [0, 1] is odd, an integer over 2^30,
        # in [-1, 1] with odd = 2 q + 1 - 2^30.
        return _normals(points.mul_(2).add_(1 - 2**SobolEngine.MAXBIT), SobolEngine.MAXBIT)


@dataclass(frozen=True)
class Antithetic:
    """Rows 2 i and 2 i + 1 are z_i and -z_i; made by ``antithetic``."""

    noise: Noise

    def __call__(self, start: int, count: int, dims: int) -> Tensor:
        """Return rows ``start`` to ``start + count``, shape (count, dims), float64."""
        start, count, dims = _check_rows(start, count, dims, most_rows=2**63, most_dims=2**31 - 1)
        first = start // 2
        rows = self.noise(first, (start + count + 1) // 2 - first, dims)
        return torch.stack([rows, -rows], dim=1).reshape(-1, dims)[start - 2 * first :][:count]


def gaussian(seed: int = 0, *, skip: int = 0) -> Gaussian:
    r"""Pseudo-random standard normals from a generator that jumps ahead (PCG64 DXSM).

    .. math:: z_{ij} = \Phi^{-1}(u_{ij}), \qquad u_{ij} = (k_{ij} + \tfrac12)\, 2^{-52}, \quad k_{ij} < 2^{52}

    Row i begins at number ``i * dims`` of the generator's stream, which takes a few steps of modular arithmetic to
    reach. Seed, ``skip`` and ``dims`` pick the stream: noises that differ in any of them are independent.

    Args:
        seed: an integer from 0 to 2^64 - 1.
        skip: number of leading columns left to others. For pseudo-random numbers it only picks an independent stream.

    Shape:
        The result is called as ``noise(start, count, dims)`` and returns (count, dims) in float64.

    Returns:
        A ``Gaussian``, which is a ``Noise``.

    Raises:
        ValueError: a seed or skip out of range; in the call, a negative start, or no rows or columns.

    Source: O'Neill, "PCG: a family of simple fast space-efficient statistically good algorithms for random number
    generation" (2014); Brown, "Random number generation with arbitrary strides" (1994) for the jump. Chapter 1,
    "Brownian motion".

    >>> noise = sl.gaussian(seed=7)
    >>> bool((noise(0, 10, 3)[4:6] == noise(4, 2, 3)).all())
    True
    """
    return Gaussian(_check.count("seed", seed, least=0, most=2**64 - 1), _check.count("skip", skip, least=0))


def sobol(seed: int = 0, *, skip: int = 0) -> Sobol:
    r"""Scrambled Sobol' points as standard normals: a randomised quasi-Monte Carlo rule.

    .. math:: z_{ij} = \Phi^{-1}\bigl((q_{ij} + \tfrac12)\, 2^{-30}\bigr)

    with :math:`q_{ij}` the :math:`\pi(i)`-th point of a Sobol' sequence in base 2 under a random linear matrix
    scramble and digital shift; :math:`\pi` is a nested shuffle of the rows, which maps aligned blocks of 2^m rows to
    such blocks. Averages over the first 2^m points converge faster than Monte Carlo for smooth integrands; other
    counts lose the balance. Rows of one matrix are not independent, so standard errors computed from them mean
    nothing: repeat with several seeds instead. Different seeds are independent, so inputs from one and paths from
    another may be used together. One seed has one order of rows: two users of it are jointly equidistributed if
    ``skip`` gives them different dimensions, and dependent if they share dimensions.

    Args:
        seed: an integer from 0 to 2^64 - 1; picks the scramble and the order of the rows.
        skip: number of leading dimensions left to others, for two users that together need one point set.

    Shape:
        The result is called as ``noise(start, count, dims)`` and returns (count, dims) in float64.

    Returns:
        A ``Sobol``, which is a ``Noise``.

    Raises:
        ValueError: a seed or skip out of range; in the call, rows beyond 2^30 or more than 21,201 dimensions.

    Source: Owen, "Scrambled net variance for integrals of smooth functions", Annals of Statistics 25 (1997); Joe
    and Kuo, "Constructing Sobol' sequences with better two-dimensional projections" (2008); Burley, "Practical
    hash-based Owen scrambling", Journal of Computer Graphics Techniques 9 (2020), for the shuffle. Chapter 1,
    "Sobol' points".

    >>> z = sl.sobol(seed=0)(0, 1024, 1)
    >>> int((z < 0).sum())  # of 1024 points exactly half lie below the median
    512
    """
    seed = _check.count("seed", seed, least=0, most=2**64 - 1)
    return Sobol(seed, _check.count("skip", skip, least=0, most=SobolEngine.MAXDIM - 1))


def antithetic(noise: Noise) -> Antithetic:
    r"""Antithetic pairs: row 2 i is row i of ``noise``, row 2 i + 1 its negative.

    The mean over a pair is free of every odd moment, and an integrand that is linear in z is integrated exactly.
    ``label`` and ``simulate`` do not need it: ``label`` pairs its paths itself.

    Args:
        noise: the noise to pair.

    Shape:
        The result is called as ``noise(start, count, dims)`` and returns (count, dims) in float64.

    Returns:
        An ``Antithetic``, which is a ``Noise``.

    Raises:
        TypeError: ``noise`` is not callable.

    Source: Glasserman, "Monte Carlo Methods in Financial Engineering" (2003), section 4.2. Chapter 1, "Antithetic
    pairs".

    >>> first, second = sl.antithetic(sl.gaussian(seed=0))(0, 2, 3)
    >>> bool((first == -second).all())
    True
    """
    return Antithetic(_check.function("noise", noise, "a noise such as gaussian(seed=0)"))


def normal_pdf(x: Tensor) -> Tensor:
    """Density of the standard normal distribution.

    >>> import torch
    >>> from sobolev_lib.simulation.noise import normal_pdf
    >>> round(float(normal_pdf(torch.tensor(0.0, dtype=torch.float64))), 6)
    0.398942
    """
    return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def normal_cdf(x: Tensor) -> Tensor:
    """Distribution function of the standard normal distribution, accurate to the last digits in the left tail too.

    ``torch.special.ndtr`` is 0 below -8.3 in float64; the complementary error function is not.

    >>> import torch
    >>> from sobolev_lib.simulation.noise import normal_cdf
    >>> f"{float(normal_cdf(torch.tensor(-20.0, dtype=torch.float64))):.6e}"
    '2.753624e-89'
    """
    return 0.5 * torch.erfc(x * -math.sqrt(0.5))


def _odd(words: np.ndarray) -> Tensor:
    """Odd integers in (-2^52, 2^52) from random 64-bit words: the upper 53 bits, signed, with the last bit set.

    So a uniform is never 0, 1 or 1/2, its distribution is symmetric, and it is exact in float64.
    """
    return torch.from_numpy(words.view(np.int64)).bitwise_right_shift_(11).bitwise_or_(1)


def _normals(odd: Tensor, bits: int) -> Tensor:
    """Normals from odd integers in (-2^bits, 2^bits): Phi^-1((1 + y) / 2) = sqrt(2) erfinv(y), y = odd / 2^bits.

    They take the integers' place: new memory costs more than the arithmetic on it.
    """
    return odd.view(torch.float64).copy_(odd).mul_(2.0**-bits).erfinv_().mul_(math.sqrt(2))


@lru_cache(maxsize=16)
def _sobol_net(seed: int, skip: int, dims: int) -> tuple[Tensor, Tensor]:
    """Scrambled direction numbers (30, dims) and digital shift (dims,) of the dimensions after the first `skip`."""
    mixed = int(np.random.SeedSequence([seed, skip, dims]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    engine = SobolEngine(skip + dims, scramble=True, seed=mixed)
    return engine.sobolstate[skip:].T.contiguous(), engine.shift[skip:].clone()


def _places(seed: int, row: int, stop: int) -> Tensor:
    """Places in the Sobol' sequence of rows `row` to `stop`, which one aligned block of 2^12 rows holds."""
    high = int(_shuffle(seed, 2 * _BITS, 0)[row >> 2 * _BITS]) % 2 ** (SobolEngine.MAXBIT - 2 * _BITS)
    middle = int(_shuffle(seed, _BITS, row >> 2 * _BITS)[(row >> _BITS) % 2**_BITS])
    first = row % 2**_BITS
    low = _shuffle(seed, 0, row >> _BITS)[first : first + stop - row]
    return low + (((high << _BITS) + middle) << _BITS)


@lru_cache(maxsize=64)
def _shuffle(seed: int, level: int, above: int) -> Tensor:
    """Owen's nested shuffle of 2^12 numbers: a coin for each value of the bits above a bit says whether it flips.

    Every aligned block of 2^m rows becomes another one, so nets stay nets. Without it row i has, under all scrambles,
    the same leading digits but for a constant, and two seeds are as dependent as they can be.
    """
    stream = np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=(level, above)))
    coins = np.unpackbits(stream.random_raw(2**_BITS // 64).view(np.uint8)).astype(np.int64)
    places = np.arange(2**_BITS)
    for bit in range(_BITS):
        nodes = 2 ** (_BITS - 1 - bit)
        places ^= np.repeat(coins[nodes : 2 * nodes] << bit, 2 << bit)
    return torch.from_numpy(places)


def _point(place: int, directions: Tensor) -> Tensor:
    """Unshifted point at a place of the sequence: the direction numbers of its set bits, added without carry."""
    point = torch.zeros(directions.shape[1], dtype=torch.int64)
    for bit in range(place.bit_length()):
        if place >> bit & 1:
            point ^= directions[bit]
    return point


def _check_rows(start: int, count: int, dims: int, *, most_rows: int, most_dims: int) -> tuple[int, int, int]:
    start, count = _check.count("start", start, least=0), _check.count("count", count)
    if start + count > most_rows:
        raise ValueError(f"start + count: got row {start + count}, need at most {most_rows} rows")
    return start, count, _check.count("dims", dims, most=most_dims)
