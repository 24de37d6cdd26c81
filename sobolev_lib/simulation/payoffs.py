r"""Payoffs on a weighted basket, and what to do about their kinks and jumps.

Every payoff is a function of the margin :math:`m = w \cdot S - K`, built from a ramp and a step:

======== ================================= ==================
payoff   value                             smoothing replaces
======== ================================= ==================
call     :math:`m^+`                       the ramp
put      :math:`(-m)^+`                    the ramp
straddle :math:`|m| = m^+ + (-m)^+`        both ramps
digital  :math:`1\{m > 0\}`                the step
======== ================================= ==================

A smoothing is an object with ``ramp(m)`` and ``step(m)``. In the formulas of the smoothings
:math:`\omega` is the width, :math:`\sigma(y) = 1 / (1 + e^{-y})`, and p the density of the margin, taken at 0. Put and
call have the same bias, a straddle twice that bias.

**A payoff of one's own** is any function of the final states, (n, d) to (n,), made of torch's operations. An object
with attributes may say more:

- ``dates``: it observes the states at so many equally spaced dates, two or more, the last at the horizon: (n, dates,
  d) to (n,);
- ``observes_start``: it observes the initial state before them: (n, dates + 1, d) to (n,);
- ``smooth_order``: the highest derivative of the expected payoff that is the expectation of the payoff's derivative: 0
  if it jumps, 1 if it has kinks, 2 if its slope is continuous. Without it, ``label`` looks for jumps and kinks itself.

Derived in Chapter 2.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn import functional

from sobolev_lib import _check
from sobolev_lib.simulation.noise import normal_cdf, normal_pdf

__all__ = ["Asian", "Blend", "Call", "Digital", "LastStep", "Payoff", "Put", "Sigmoid", "Softplus", "Straddle"]


@dataclass(frozen=True)
class _Rounded:
    """What ``Sigmoid``, ``Softplus`` and ``Blend`` share: a positive width, and the sigmoid as the step."""

    width: float

    def __post_init__(self):
        _check.positive("width", self.width)

    def step(self, margin: Tensor) -> Tensor:
        """Smoothed indicator."""
        return torch.sigmoid(margin / self.width)


class Sigmoid(_Rounded):
    r"""The paper's smoothing: the indicator becomes a sigmoid wherever it stands.

    .. math:: m^+ \to m\,\sigma(m/\omega), \qquad 1\{m>0\} \to \sigma(m/\omega)

    Bias of a call :math:`-\tfrac{\pi^2}{6} \omega^2 p`, of a digital :math:`-\tfrac{\pi^2}{6} \omega^2 p'`, to
    leading order. The smoothed ramp dips to :math:`-0.278\,\omega` and is not convex.

    Raises:
        ValueError: a width that is not positive.

    Source: Kichler, Afghan, Naumann, "Towards Sobolev Pruning" (2024). Chapter 2, "Rounding the kink".

    >>> import torch
    >>> sl.Sigmoid(width=0.1).step(torch.tensor(0.0)).item()
    0.5
    """

    def ramp(self, margin: Tensor) -> Tensor:
        """Smoothed positive part."""
        return margin * torch.sigmoid(margin / self.width)


class Softplus(_Rounded):
    r"""Smoothing by the softplus function: convex, positive, above the payoff.

    .. math:: m^+ \to \omega \log(1 + e^{m/\omega}), \qquad 1\{m>0\} \to \sigma(m/\omega)

    Bias of a call :math:`+\tfrac{\pi^2}{6} \omega^2 p`, of a digital :math:`-\tfrac{\pi^2}{6} \omega^2 p'`, to
    leading order.

    Raises:
        ValueError: a width that is not positive.

    Source: Chen and Mangasarian, "A class of smoothing functions for nonlinear and mixed complementarity problems",
    Computational Optimization and Applications 5 (1996). Chapter 2, "Rounding the kink".

    >>> import torch
    >>> round(sl.Softplus(width=0.1).ramp(torch.tensor(0.0)).item(), 6)  # width times log 2
    0.069315
    """

    def ramp(self, margin: Tensor) -> Tensor:
        """Smoothed positive part."""
        # Neither softplus, whose second derivative jumps to 0 at 20, nor logaddexp, whose second derivative is not a
        # number below -709: this one is right to second order everywhere.
        return -self.width * functional.logsigmoid(margin / -self.width)


class Blend(_Rounded):
    r"""Mean of ``Sigmoid`` and ``Softplus``, whose leading biases cancel.

    .. math:: m^+ \to \tfrac12\bigl(m\,\sigma(m/\omega) + \omega \log(1 + e^{m/\omega})\bigr), \qquad
              1\{m>0\} \to \sigma(m/\omega) + \tfrac{m}{2\omega}\,\sigma(m/\omega)\,\sigma(-m/\omega)

    Bias of a call :math:`-\tfrac{7\pi^4}{360} \omega^4 p''`, of a digital :math:`+\tfrac{7\pi^4}{360} \omega^4
    p'''`, to leading order. The step is the derivative of the ramp.

    Raises:
        ValueError: a width that is not positive.

    Chapter 2, "The bias to leading order".

    >>> import torch
    >>> round(sl.Blend(width=0.1).ramp(torch.tensor(0.0)).item(), 6)  # width times log(2) / 2
    0.034657
    """

    def ramp(self, margin: Tensor) -> Tensor:
        """Smoothed positive part."""
        y = margin / self.width
        return (0.5 * self.width) * (y * torch.sigmoid(y) - functional.logsigmoid(-y))

    def step(self, margin: Tensor) -> Tensor:
        """Smoothed indicator, the derivative of the ramp."""
        y = margin / self.width
        rise = torch.sigmoid(y)
        return rise + 0.5 * y * rise * torch.sigmoid(-y)


@dataclass(frozen=True)
class LastStep:
    r"""Smoothing without bias: the last time step is integrated in closed form.

    Given the state before it, a Gaussian last step makes the margin normal with mean :math:`\mu` and standard
    deviation s, so

    .. math:: E\,m^+ = \mu\,\Phi(\mu/s) + s\,\Phi'(\mu/s), \qquad E\,1\{m>0\} = \Phi(\mu/s).

    Smooth to every order, no bias, and less variance than the payoff itself, by conditioning; where s is 0, the limit.
    Needs a scheme
    with Gaussian steps: ``EulerMaruyama``, or ``Exact`` for ``Bachelier``. With one step it is the closed form, and no
    noise is left.

    Source: Glasserman (2003), section 7.2.3; Asmussen and Glynn, "Stochastic Simulation" (2007), chapter V.4.
    Chapter 2, "No bias: integrate the last step".

    >>> import torch
    >>> zero, one = torch.tensor(0.0), torch.tensor(1.0)
    >>> round(sl.LastStep().ramp(zero, one).item(), 6)
    0.398942
    """

    def ramp(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """Expected positive part of a normal margin."""
        alive, z, deviation = _standardised(mean, deviation)
        return torch.where(alive, mean * normal_cdf(z) + deviation * normal_pdf(z), 0.5 * (mean + mean.abs()))

    def step(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """Probability that a normal margin is positive."""
        alive, z, _ = _standardised(mean, deviation)
        return torch.where(alive, normal_cdf(z), 0.5 + 0.5 * torch.sign(mean))


def _standardised(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where there is a deviation at all, mean / deviation, and the deviation, 1 where it is 0."""
    alive = deviation > 0
    deviation = torch.where(alive, deviation, 1.0)
    return alive, mean / deviation, deviation


Smoothing = Sigmoid | Softplus | Blend | LastStep


@dataclass(frozen=True, eq=False)
class Payoff:
    """A payoff on a weighted basket.

    ``Call``, ``Put``, ``Digital``, ``Straddle`` and ``Asian`` make it and document the fields. ``dates`` is the number
    of equally spaced observations that the basket is averaged over, the last one at the horizon. ``smooth_order`` is
    the highest derivative of the expected payoff that is the expectation of the payoff's derivative.

    Raises:
        ValueError: called with ``LastStep`` smoothing, which needs the step before: ``label`` it instead.

    Chapter 2, "Why a kink breaks the second derivative, and a jump the first".

    >>> payoff = sl.Call(strike=1.0, smoothing=sl.Blend(width=0.02))
    >>> payoff.kind, payoff.smooth_order
    ('call', 2)
    """

    kind: str
    strike: float
    weights: Tensor
    smoothing: Smoothing | None
    dates: int = 1

    @property
    def smooth_order(self) -> int:
        """The highest order of pathwise derivatives without bias, 2 if smoothed, else 0 (digital) or 1."""
        if self.smoothing is not None:
            return 2
        return 0 if self.kind == "digital" else 1

    def __call__(self, states: Tensor) -> Tensor:
        """Payoff (n,) of final states (n, d) or, with several dates, of observations (n, dates, d)."""
        margin = self.basket(states) - self.strike
        smoothing = _SHARP if self.smoothing is None else self.smoothing
        if isinstance(smoothing, LastStep):
            raise ValueError("smoothing: got LastStep, which needs the step before; label it instead of calling it")
        return _PROFILES[self.kind](smoothing.ramp, smoothing.step, margin)

    def basket(self, states: Tensor) -> Tensor:
        """Weighted sum of the assets (n,), averaged over the dates if states are (n, dates, d)."""
        if states.shape[-1] < len(self.weights):
            raise ValueError(f"weights: got {len(self.weights)} for states of {states.shape[-1]}, need at most as many")
        averaged = states if states.ndim == 2 else states.mean(1)
        return averaged[:, : len(self.weights)] @ self.weights

    def expected(self, mean: Tensor, deviation: Tensor) -> Tensor:
        """Expected payoff (n,) if the basket is normal with the given means and standard deviations, (n,) each."""
        ramp, step = (functools.partial(part, deviation=deviation) for part in (LastStep().ramp, LastStep().step))
        return _PROFILES[self.kind](ramp, step, mean - self.strike)


_SHARP = SimpleNamespace(ramp=torch.relu, step=lambda margin: (margin > 0).to(margin.dtype))  # no smoothing
_PROFILES: dict[str, Callable] = {
    "call": lambda ramp, step, m: ramp(m),
    "put": lambda ramp, step, m: ramp(-m),
    "straddle": lambda ramp, step, m: ramp(m) + ramp(-m),
    "digital": lambda ramp, step, m: step(m),
}


def Call(*, strike: float, weights=None, smoothing: Smoothing | None = None) -> Payoff:
    r"""Call on a basket, :math:`(w \cdot S_T - K)^+`.

    Args:
        strike: K, any finite number.
        weights: one per asset, of either sign; None for a single asset.
        smoothing: ``Sigmoid``, ``Softplus``, ``Blend``, ``LastStep`` or None.

    Shape:
        weights (d,). The payoff maps states (n, d) to (n,).

    Returns:
        A ``Payoff``.

    Raises:
        TypeError: a smoothing that is none.
        ValueError: weights that are not a finite vector, or all zero; a strike that is not finite.

    Chapter 2, "Why a kink breaks the second derivative, and a jump the first".

    >>> import torch
    >>> sl.Call(strike=1.0, weights=[0.5, 0.5])(torch.tensor([[1.0, 2.0]], dtype=torch.float64)).item()
    0.5
    """
    return _payoff("call", strike, weights, smoothing)


def Put(*, strike: float, weights=None, smoothing: Smoothing | None = None) -> Payoff:
    r"""Put on a basket, :math:`(K - w \cdot S_T)^+`; arguments, shapes and errors as in ``Call``.

    The kink is that of a call: Chapter 2, "Rounding the kink".

    >>> import torch
    >>> sl.Put(strike=2.0, weights=[0.5, 0.5])(torch.tensor([[1.0, 2.0]], dtype=torch.float64)).item()
    0.5
    """
    return _payoff("put", strike, weights, smoothing)


def Digital(*, strike: float, weights=None, smoothing: Smoothing | None = None) -> Payoff:
    r"""Digital on a basket, :math:`1\{w \cdot S_T > K\}`; arguments, shapes and errors as in ``Call``.

    Chapter 2, "The digital: the same, one order earlier".

    Its pathwise derivative is 0 almost everywhere: smooth it, or ask ``label`` for the likelihood ratio.

    >>> import torch
    >>> sl.Digital(strike=1.0, weights=[0.5, 0.5])(torch.tensor([[1.0, 2.0]], dtype=torch.float64)).item()
    1.0
    """
    return _payoff("digital", strike, weights, smoothing)


def Straddle(*, strike: float, weights=None, smoothing: Smoothing | None = None) -> Payoff:
    r"""Straddle on a basket, :math:`|w \cdot S_T - K|`; arguments, shapes and errors as in ``Call``.

    The kink is that of a call: Chapter 2, "Rounding the kink".

    >>> import torch
    >>> sl.Straddle(strike=2.0, weights=[0.5, 0.5])(torch.tensor([[1.0, 2.0]], dtype=torch.float64)).item()
    0.5
    """
    return _payoff("straddle", strike, weights, smoothing)


def Asian(*, strike: float, dates: int, weights=None, smoothing: Smoothing | None = None, kind: str = "call") -> Payoff:
    r"""Option on the arithmetic mean of the basket over ``dates`` equally spaced dates, the last one at the horizon.

    .. math:: \Bigl(\frac{1}{M} \sum_{j=1}^{M} w \cdot S_{jT/M} - K\Bigr)^+

    Args:
        strike: K, any finite number.
        dates: M, at least 1.
        weights: as in ``Call``.
        smoothing: as in ``Call``; ``LastStep`` integrates the last step given the others.
        kind: "call", "put", "straddle" or "digital".

    Shape:
        The payoff maps observations (n, M, d) to (n,).

    Returns:
        A ``Payoff``.

    Raises:
        TypeError, ValueError: as in ``Call``, or less than one date, or an unknown kind.

    The kink is that of a call: Chapter 2, "Rounding the kink".

    >>> import torch
    >>> sl.Asian(strike=1.0, dates=2)(torch.tensor([[[1.0], [2.0]]], dtype=torch.float64)).item()
    0.5
    """
    return _payoff(_check.choice("kind", kind, _PROFILES), strike, weights, smoothing, _check.count("dates", dates))


def _payoff(kind: str, strike: float, weights, smoothing: Smoothing | None, dates: int = 1) -> Payoff:
    strike = _check.number("strike", strike)
    weights = [1.0] if weights is None else weights
    weights = _check.tensor("weights", weights, shape=("d",), dtype=torch.float64, copy=True)
    if not weights.any():
        raise ValueError(f"weights: got {weights.tolist()}, need at least one that is not 0")
    if smoothing is not None and not isinstance(smoothing, Smoothing):
        shown = smoothing.__name__ if isinstance(smoothing, type) else type(smoothing).__name__
        raise TypeError(f"smoothing: got {shown}, need Sigmoid(width), Softplus(width), Blend(width), LastStep(), None")
    return Payoff(kind, strike, weights, smoothing, dates)
