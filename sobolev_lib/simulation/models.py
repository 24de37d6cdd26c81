r"""Stochastic differential equations :math:`dX = a(t, X)\,dt + b(t, X)\,dW`.

A model is any object with ``dim``, ``drift(t, x)`` and ``diffusion(t, x)``; no base class is needed:

- ``drift(t, x)`` maps a float and a tensor (n, d) to (n, d);
- ``diffusion(t, x)`` returns (n, d) if component i is driven by its own Brownian motion, :math:`dX_i = a_i dt +
  b_i dW_i`, or (n, d, m) if m independent Brownian motions drive them all.

Row i of the result may depend on row i of ``x`` only. Six attributes are optional. ``factor`` (d, d) says that the
Brownian motions of a diagonal diffusion are correlated, :math:`W = \mathrm{factor}\,B` with independent B; models and
schemes are handed shocks, standard normals that have that correlation already. ``assets`` says that only the first so
many components are prices, which payoffs see (all, if absent); ``positive`` that the first so many components must be
positive initially (none, if absent). ``transition(x, step, shocks)`` samples the law after ``step`` exactly, and
``law(x, step)`` gives that law, see ``Law``; ``scheme`` names the scheme to take by default. A parameter that a label
is differentiated by, or that differs from input to input, is an attribute (a number or a vector) that ``drift``,
``diffusion`` and ``transition`` read anew in each call: it then has one row per path, (n, p), and if the horizon
differs t and ``step`` are (n, 1), for which ``root`` takes the square root. Derived in Chapter 1.
"""

import math
import warnings
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from sobolev_lib import _check

__all__ = ["Bachelier", "BlackScholes", "Heston"]


class Model(Protocol):
    """What ``simulate`` and ``label`` need of a model; the module's docstring lists the optional rest."""

    dim: int

    def drift(self, t: float, x: Tensor) -> Tensor:
        """Drift a(t, x): (n, d) to (n, d)."""

    def diffusion(self, t: float, x: Tensor) -> Tensor:
        """Diffusion b(t, x): (n, d) to (n, d), or to (n, d, m) for general noise."""


@dataclass(frozen=True, eq=False)
class Law:
    r"""Gaussian law of one step: y = mean + scale * (factor z) with z standard normal.

    Here y is the state after the step, or its logarithm if ``log``. ``scale`` is (n, d), multiplied component by
    component with ``factor z``, or (n, d, m), a matrix for each row. ``factor`` is (d, d), or None for the identity.
    """

    mean: Tensor
    scale: Tensor
    factor: Tensor | None = None
    log: bool = False


@dataclass(frozen=True, eq=False)
class _Correlated:
    """What ``Bachelier`` and ``BlackScholes`` share: a volatility for each of d assets, and correlations."""

    volatility: Tensor
    correlation: Tensor | None = None
    factor: Tensor = field(init=False, repr=False)

    @torch.inference_mode(False)
    def __post_init__(self):
        """Check the fields and factor the correlation matrix."""
        _set(self, volatility=_nonnegative("volatility", self.volatility))
        _set(self, **_correlated(self.correlation, self.dim))

    @property
    def dim(self) -> int:
        """Number of assets d."""
        return self.volatility.shape[-1]


class Bachelier(_Correlated):
    r"""Bachelier's model of a basket: correlated arithmetic Brownian motions without drift.

    .. math:: dS = L\,dW, \qquad L L^\top = \mathrm{diag}(v)\, C\, \mathrm{diag}(v)

    Args:
        volatility: absolute volatilities v per square root of a year, (d,), or one number for one asset.
        correlation: correlation matrix C (d, d), symmetric positive definite; None for independent assets.

    Shape:
        States (n, d); ``drift`` (n, d), ``diffusion`` (n, d).

    Returns:
        A model with the exact transition :math:`S_{t+h} = S_t + \sqrt{h}\, L z`.

    Raises:
        ValueError: a volatility that is negative, or a matrix that is not a correlation matrix.

    Source: Bachelier, "Theorie de la speculation" (1900). Chapter 1, "Several assets that move together".

    >>> model = sl.Bachelier(volatility=[0.2, 0.1], correlation=[[1.0, 0.5], [0.5, 1.0]])
    >>> round((model.cholesky @ model.cholesky.T)[0, 1].item(), 12)
    0.01
    """

    @property
    def cholesky(self) -> Tensor:
        """Lower triangular L (d, d) with L L' = diag(v) C diag(v)."""
        return self.volatility[..., None] * self.factor

    def drift(self, t: float, x: Tensor) -> Tensor:
        """Zero, (n, d)."""
        return torch.zeros_like(x)

    def diffusion(self, t: float, x: Tensor) -> Tensor:
        """The volatilities, (n, d)."""
        return self.volatility.expand_as(x)

    def transition(self, x: Tensor, step: float, shocks: Tensor) -> Tensor:
        """State after ``step`` from x (n, d) and shocks (n, d), standard normals with correlation C."""
        return torch.addcmul(x, self.volatility * root(step), shocks)

    def law(self, x: Tensor, step: float) -> Law:
        """Normal with mean x and covariance step L L'."""
        return Law(x, self.volatility.expand_as(x) * root(step), self.factor)


@dataclass(frozen=True, eq=False)
class BlackScholes(_Correlated):
    r"""Black-Scholes model of a basket: correlated geometric Brownian motions.

    .. math:: dS_i = r S_i\,dt + v_i S_i\,dW_i, \qquad dW_i\,dW_j = C_{ij}\,dt

    Args:
        volatility: relative volatilities v per square root of a year, (d,), or one number for one asset.
        correlation: correlation matrix C (d, d), symmetric positive definite; None for independent assets.
        rate: drift r per year, one number. Labels and formulas are expected payoffs, not discounted.

    Shape:
        States (n, d), positive; ``drift`` (n, d), ``diffusion`` (n, d).

    Returns:
        A model with the exact transition :math:`S_i e^{(r - v_i^2/2) h + v_i \sqrt h\, (C^{1/2} z)_i}`.

    Raises:
        ValueError: a volatility that is negative, or a matrix that is not a correlation matrix.

    Source: Black and Scholes, "The pricing of options and corporate liabilities" (1973). Chapter 1, "A stochastic
    differential equation".

    >>> import torch
    >>> model = sl.BlackScholes(volatility=0.2, rate=0.05)
    >>> x = torch.ones(1, 1, dtype=torch.float64)
    >>> round(model.transition(x, 1.0, 0 * x).log().item(), 12)  # r - v^2 / 2
    0.03
    """

    rate: float = 0.0

    @torch.inference_mode(False)
    def __post_init__(self):
        """Check the fields and factor the correlation matrix."""
        super().__post_init__()
        _set(self, rate=_check.number("rate", self.rate))

    @property
    def positive(self) -> int:
        """All d components must be positive."""
        return self.dim

    def drift(self, t: float, x: Tensor) -> Tensor:
        """The rate times the spots, (n, d)."""
        return self.rate * x

    def diffusion(self, t: float, x: Tensor) -> Tensor:
        """Volatilities times spots, (n, d)."""
        return self.volatility * x

    def transition(self, x: Tensor, step: float, shocks: Tensor) -> Tensor:
        """State after ``step`` from spots x (n, d) and shocks (n, d), standard normals with correlation C."""
        growth = (self.rate - 0.5 * self.volatility**2) * step
        return x * torch.exp(growth + self.volatility * root(step) * shocks)

    def law(self, x: Tensor, step: float) -> Law:
        """Lognormal: the logarithm is normal with mean log x + (r - v^2 / 2) step."""
        mean = torch.log(x) + (self.rate - 0.5 * self.volatility**2) * step
        return Law(mean, self.volatility.expand_as(x) * root(step), self.factor, log=True)


@dataclass(frozen=True, eq=False)
class Heston:
    r"""Heston's model, one asset or a basket: each spot has its own mean-reverting variance.

    .. math:: dS_i = r S_i\,dt + \sqrt{v_i}\, S_i\,dW_i, \qquad
              dv_i = \kappa_i(\theta_i - v_i)\,dt + \xi_i \sqrt{v_i}\,dB_i

    with :math:`dW_i\,dW_j = C_{ij}\,dt` and :math:`B_i = \rho_i W_i + \sqrt{1 - \rho_i^2}\, B_i^\perp`, the
    :math:`B_i^\perp` independent of each other and of W. The state is :math:`(S_1..S_d, v_1..v_d)`, so a
    gradient label has the sensitivities to the initial variances in its second half. Where v is negative or
    zero, drift and diffusion are evaluated at v = 0.

    Args:
        mean_reversion: kappa per year, (d,) or a number.
        long_variance: theta, the variance to which v reverts, (d,) or a number.
        vol_of_variance: xi, (d,) or a number.
        spot_variance_correlation: rho, between -1 and 1 exclusive, (d,) or a number.
        correlation: correlation matrix C (d, d) of the spots' Brownian motions; None for independent assets.
        rate: drift r per year, one number.

    Shape:
        States (n, 2 d); ``drift`` (n, 2 d), ``diffusion`` (n, 2 d).

    Returns:
        A model without exact transition; ``FullTruncation`` is the scheme made for it.

    Raises:
        ValueError: a parameter out of range, or a matrix that is not a correlation matrix.

    Warns:
        UserWarning: the Feller condition 2 kappa theta >= xi^2 is violated.

    Source: Heston, "A closed-form solution for options with stochastic volatility", RFS 6 (1993). Chapter 1, "Your
    own equation, and where the theorem ends".

    >>> import torch
    >>> model = sl.Heston(mean_reversion=1.5, long_variance=0.04, vol_of_variance=0.3, spot_variance_correlation=-0.7)
    >>> x = torch.tensor([[1.0, 0.09]], dtype=torch.float64)
    >>> [round(c, 9) for c in model.drift(0.0, x)[0].tolist()]  # kappa (theta - v)
    [0.0, -0.075]
    >>> [round(c, 9) for c in model.diffusion(0.0, x)[0].tolist()]  # root of v times spot and xi
    [0.3, 0.09]
    """

    mean_reversion: Tensor
    long_variance: Tensor
    vol_of_variance: Tensor
    spot_variance_correlation: Tensor
    correlation: Tensor | None = None
    rate: float = 0.0
    factor: Tensor = field(init=False, repr=False)

    @torch.inference_mode(False)
    def __post_init__(self):
        """Check the fields and factor the correlation of all 2 d Brownian motions."""
        kappa = _nonnegative("mean_reversion", self.mean_reversion)
        theta = _nonnegative("long_variance", self.long_variance, like=kappa)
        xi = _nonnegative("vol_of_variance", self.vol_of_variance, like=kappa)
        rho = _vector("spot_variance_correlation", self.spot_variance_correlation, like=kappa)
        if (rho.abs() >= 1).any():
            raise ValueError(f"spot_variance_correlation: got {rho.tolist()}, need numbers between -1 and 1, exclusive")
        _set(self, mean_reversion=kappa, long_variance=theta, vol_of_variance=xi, spot_variance_correlation=rho)
        _set(self, rate=_check.number("rate", self.rate), **_correlated(self.correlation, self.assets))
        lower = torch.cat([rho[:, None] * self.factor, torch.diag(torch.sqrt(1 - rho**2))], dim=1)
        _set(self, factor=torch.cat([torch.cat([self.factor, torch.zeros_like(self.factor)], dim=1), lower]))
        if (2 * kappa * theta < xi**2).any():
            warnings.warn(
                "Feller condition violated: 2 mean_reversion * long_variance < vol_of_variance^2: the variance reaches "
                "zero. Full truncation then converges slowly: check the result against twice the steps. Pathwise "
                "sensitivities to the initial variance have heavy tails or no variance at all.",
                UserWarning,
                stacklevel=3,
            )

    @property
    def assets(self) -> int:
        """Number of assets d."""
        return self.mean_reversion.shape[-1]

    @property
    def positive(self) -> int:
        """The d spots must be positive."""
        return self.assets

    @property
    def dim(self) -> int:
        """Number of components of the state, 2 d."""
        return 2 * self.assets

    def drift(self, t: float, x: Tensor) -> Tensor:
        """Drifts of spots and variances, (n, 2 d)."""
        spot, variance = x[:, : self.assets], x[:, self.assets :].clamp(min=0)
        return torch.cat([self.rate * spot, self.mean_reversion * (self.long_variance - variance)], dim=1)

    def diffusion(self, t: float, x: Tensor) -> Tensor:
        """Diffusions of spots and variances, (n, 2 d)."""
        spot, variance = x[:, : self.assets], x[:, self.assets :]
        alive = variance > 0  # the root's derivative is infinite at 0, and infinity times 0 is not a number
        root = torch.where(alive, torch.sqrt(torch.where(alive, variance, 1.0)), 0.0)
        return torch.cat([root * spot, self.vol_of_variance * root], dim=1)


def root(step: float | Tensor) -> float | Tensor:
    """Square root of a step size: of a number, or of one number per path (n, 1)."""
    return torch.sqrt(step) if isinstance(step, Tensor) else math.sqrt(step)


def correlate(factor: Tensor | None, normals: Tensor) -> Tensor:
    """Shocks ``factor @ z`` for independent normals z (..., m), or the normals themselves if ``factor`` is None."""
    return normals if factor is None else (normals.reshape(-1, len(factor)) @ factor.T.contiguous()).view_as(normals)


def _set(instance, **fields):
    """Set fields of a frozen dataclass while it is made."""
    for name, value in fields.items():
        object.__setattr__(instance, name, value)


def _vector(name: str, value, like: Tensor | None = None) -> Tensor:
    """A vector (d,) in float64; a number stands for one asset, or for as many as `like` has."""
    tensor = _check.tensor(name, value, dtype=torch.float64, copy=True)
    tensor = tensor.repeat(1 if like is None else len(like)) if tensor.ndim == 0 else tensor
    return _check.tensor(name, tensor, shape=("d",) if like is None else (len(like),))


def _nonnegative(name: str, value, like: Tensor | None = None) -> Tensor:
    vector = _vector(name, value, like)
    if (vector < 0).any() or len(vector) == 0:
        raise ValueError(f"{name}: got {vector.tolist()}, need at least one number, none negative")
    return vector


def _correlated(correlation, dim: int) -> dict[str, Tensor]:
    """The fields `correlation` and `factor` (its lower Cholesky factor) of a model with `dim` assets."""
    if correlation is None:
        correlation = torch.eye(dim, dtype=torch.float64)
    matrix = _check.tensor("correlation", correlation, shape=(dim, dim), dtype=torch.float64, copy=True, detach=True)
    worst = float((matrix - matrix.T).abs().max())
    if worst > 1e-12:
        raise ValueError(f"correlation: got a matrix that differs from its transpose by {worst:.3g}, need symmetry")
    worst = float((matrix.diagonal() - 1).abs().max())
    if worst > 1e-12:
        raise ValueError(f"correlation: got a diagonal that differs from 1 by {worst:.3g}, need ones")
    smallest = float(torch.linalg.eigvalsh(matrix)[0])
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed or smallest <= 0:
        raise ValueError(f"correlation: got smallest eigenvalue {smallest:.3g}, need a positive definite matrix")
    return {"correlation": matrix, "factor": factor}
