r"""The paper's case study: a call on a basket of correlated Bachelier assets, with everything known exactly.

Spots start at 1, the exposure date is 1, the maturity 2. A surrogate learns the option's value at the exposure
date as a function of the spots there. Since the basket is one Bachelier asset, value and derivatives have
formulas. Used in Chapter 9.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.simulation.closed_form import Greeks, bachelier
from sobolev_lib.simulation.models import Bachelier
from sobolev_lib.simulation.noise import Gaussian, Sobol
from sobolev_lib.simulation.payoffs import Call, Payoff, Smoothing
from sobolev_lib.simulation.schemes import simulate

__all__ = ["BasketCase", "basket_case"]

PUBLISHED_WEIGHTS = (0.03523608, 0.19428860, 0.20768846, 0.20812615, 0.04973940, 0.07701987, 0.22790145)


@dataclass(frozen=True, eq=False)
class BasketCase:
    """Model, payoff and truth of the case study; made by ``basket_case``.

    Attributes:
        model: ``Bachelier`` with d assets.
        payoff: ``Call`` on the basket.
        volatility: volatility of the basket.
        horizon: time from the exposure date to the maturity.
        exposure: time from today to the exposure date.
        spread: how much more volatile than the model the inputs are, for more samples in the wings.

    Chapter 9, "The experiment in small".

    >>> case = sl.basket_case(dim=2)
    >>> case.inputs(16, sl.sobol(seed=0)).shape, case.test_inputs().shape
    (torch.Size([16, 2]), torch.Size([4096, 2]))
    """

    model: Bachelier
    payoff: Payoff
    volatility: float
    horizon: float = 1.0
    exposure: float = 1.0
    spread: float = 1.5

    @property
    def dim(self) -> int:
        """Number of assets."""
        return self.model.dim

    @property
    def weights(self) -> Tensor:
        """Weights of the basket (d,), summing to 1."""
        return self.payoff.weights

    @property
    def strike(self) -> float:
        """Strike of the call."""
        return self.payoff.strike

    def inputs(self, count: int, noise: Gaussian | Sobol) -> Tensor:
        """Training inputs (count, d): spots at the exposure date, drawn with ``spread`` times the model's volatility.

        They use columns d to 2 d of the noise and ``label`` with one step per path columns 0 to d, so the same noise
        serves for both: inputs and paths are independent, or, with ``sobol``, jointly equidistributed.

        Raises:
            TypeError: a noise of another kind.
            ValueError: a count below 1.
        """
        _check.count("count", count)
        if not isinstance(noise, Gaussian | Sobol):
            raise TypeError(f"noise: got {type(noise).__name__}, need gaussian(seed) or sobol(seed)")
        start = torch.ones(count, self.dim, dtype=torch.float64)
        others = replace(noise, skip=noise.skip + self.dim)
        return simulate(self.model, start, horizon=self.exposure * self.spread**2, noise=others)

    def test_inputs(self, count: int = 4096, seed: int = 0) -> Tensor:
        """Test inputs (count, d), each spot uniform in 1 - a / 2 to 1 + a / 2 with a = 1 + sqrt((d - 1) / 12) / 2."""
        _check.count("count", count)
        generator = torch.Generator().manual_seed(_check.seed("seed", seed))
        width = 1 + 0.5 * math.sqrt((self.dim - 1) / 12)
        uniform = torch.rand(count, self.dim, dtype=torch.float64, generator=generator)
        return 1 + width * (uniform - 0.5)

    def reference(self, x) -> Greeks:
        """Exact price (n,), delta (n, d), basket gamma 1'H1 (n,) and vega (n,) by the basket's volatility at x (n, d).

        The Hessian is gamma w w' because the weights sum to 1; a product with u is gamma (w.u) w.
        """
        x = _check.tensor("x", x, shape=("n", self.dim), dtype=torch.float64)
        basket = bachelier(x @ self.weights, strike=self.strike, volatility=self.volatility, maturity=self.horizon)
        return replace(basket, delta=basket.delta[:, None] * self.weights)


def basket_case(
    dim: int = 7,
    *,
    seed: int = 0,
    strike: float = 1.10,
    volatility: float = 0.2,
    weights: Sequence[float] | Tensor | None = None,
    smoothing: Smoothing | None = None,
) -> BasketCase:
    r"""Set up the case study.

    Volatilities are uniform in [5, 50], correlations those of :math:`D^\top D` with D (2 d, d) uniform in [-1,
    1], both from the seed; the volatilities are then scaled so that the basket has the given volatility. For 7
    assets the weights are those of the published networks, otherwise they are drawn from the seed.

    Args:
        dim: number of assets d.
        seed: picks volatilities, correlations and (unless d = 7) weights.
        strike: strike of the call.
        volatility: absolute volatility of the basket.
        weights: of the assets (d,), positive; they are divided by their sum. None takes the published or drawn ones.
        smoothing: of the payoff; None leaves the kink, which is right up to order 1.

    Shape:
        See ``BasketCase``.

    Returns:
        A ``BasketCase``.

    Raises:
        ValueError: no assets, a volatility that is not positive, weights of the wrong number or sign.

    Source: Kichler, Afghan, Naumann, "Towards Sobolev Pruning" (2024), section 5. Chapter 9, "The experiment in
    small".

    >>> case = sl.basket_case()
    >>> round(case.reference([[1.0] * 7]).price.item(), 6)
    0.039559
    """
    _check.count("dim", dim)
    _check.number("strike", strike)
    _check.positive("volatility", volatility)
    generator = torch.Generator().manual_seed(_check.seed("seed", seed))

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, dtype=torch.float64, generator=generator)

    volatilities = uniform(5.0, 50.0, dim)
    columns = uniform(-1.0, 1.0, 2 * dim, dim)
    columns = columns / columns.norm(dim=0)
    correlation = columns.T @ columns
    correlation = (0.5 * (correlation + correlation.T)).fill_diagonal_(1.0)
    if weights is None:
        weights = torch.tensor(PUBLISHED_WEIGHTS, dtype=torch.float64) if dim == 7 else uniform(0.1, 1.0, dim)
    weights = _check.tensor("weights", weights, shape=(dim,), dtype=torch.float64)
    if not (weights > 0).all():
        raise ValueError(f"weights: got {weights.tolist()}, need positive numbers")
    weights = weights / weights.sum()
    exposure = weights * volatilities
    scale = volatility / torch.sqrt(exposure @ correlation @ exposure)
    model = Bachelier(volatility=volatilities * scale, correlation=correlation)
    return BasketCase(model, Call(strike=strike, weights=weights, smoothing=smoothing), volatility)
