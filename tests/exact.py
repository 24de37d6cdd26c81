"""Truth to more digits than the library has: activations and networks in 80-bit floats, activations in arb."""

import math

import flint
import numpy as np
import pytest
import torch

LONG = np.longdouble

needs_long_double = pytest.mark.skipif(
    np.finfo(LONG).eps > 2e-19, reason="np.longdouble has no more digits than float64 on this platform"
)


def long(x) -> np.ndarray:
    """Convert without rounding."""
    return np.asarray(x.detach().numpy() if isinstance(x, torch.Tensor) else x).astype(LONG)


# -- activations in long double: [f, f', f'', f''']


def _sigmoid(z):
    s, c = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))
    return [s, s * c, s * c * (c - s), s * c * (1 - 6 * s * c)]


def _silu(z):
    s = _sigmoid(z)
    return [z * s[0], s[0] + z * s[1], 2 * s[1] + z * s[2], 3 * s[2] + z * s[3]]


def _softplus(z):
    return [np.logaddexp(z, LONG(0)), *_sigmoid(z)[:3]]


def _tanh(z):
    t = np.tanh(z)
    d = 4 * _sigmoid(2 * z)[1]
    return [t, d, -2 * t * d, d * (4 - 6 * d)]


def _sin(z):
    return [np.sin(z), np.cos(z), -np.sin(z), -np.cos(z)]


def _relu(z):
    return [np.maximum(z, 0), (z > 0).astype(LONG), 0 * z, 0 * z]


JETS = {
    "silu": _silu,
    "softplus": _softplus,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "sin": _sin,
    "relu": _relu,
}


def network(net, x: torch.Tensor, direction: torch.Tensor | None = None) -> list[np.ndarray]:
    """Value (n,), gradient (n, d) and, with a direction (d,), Hessian-vector product (n, d) in long double."""
    jet = JETS[net.activation.name]
    weights, biases = [long(w) for w in net.weights], [long(b) for b in net.biases]
    shift, scale = long(net.input_shift), long(net.input_scale)
    with np.errstate(all="ignore"):  # exp overflows to infinity where a sigmoid is 0
        a, jets = (long(x) - shift) / scale, []
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            jets.append(jet(a @ w.T + b))
            a = jets[-1][0]
        out = long(net.output_scale)
        value = long(net.output_shift) + out * (a @ weights[-1].T + biases[-1])[:, 0]
        bars = [np.broadcast_to(weights[-1] * out, (len(x), weights[-1].shape[1]))]
        for w, j in zip(weights[-2::-1], jets[::-1], strict=True):
            bars.append((bars[-1] * j[1]) @ w)
        gradient = bars[-1] / scale
        if direction is None:
            return [value, gradient]
        dot, dots = np.broadcast_to(long(direction) / scale, gradient.shape), []
        for w, j in zip(weights[:-1], jets, strict=True):
            dots.append(dot @ w.T)
            dot = dots[-1] * j[1]
        second = np.zeros_like(bars[0])
        for w, j, bar, z_dot in zip(weights[-2::-1], jets[::-1], bars, dots[::-1], strict=False):
            second = (second * j[1] + j[2] * z_dot * bar) @ w
        return [value, gradient, second / scale]


def outside(truth: np.ndarray, enclosure) -> int:
    """Count the values that are not in the enclosure; NaN (where 80 bits overflow too) is nowhere."""
    lo, hi = long(enclosure.lo), long(enclosure.hi)
    return int((~((lo <= truth) & (truth <= hi)) & np.isfinite(truth)).sum())


# -- activations in arb


def arb_jet(name: str, z: float, order: int) -> list[flint.arb]:
    """Return f(z), f'(z), .. with 1200 bits (a far tail is a small difference), by power series arithmetic."""
    with flint.ctx.workprec(1200), _cap(order + 1):
        x = flint.arb_series([flint.arb(z), 1])
        one = flint.arb_series([1])
        series = {
            "exp": lambda: x.exp(),
            "log": lambda: x.log(),
            "sqrt": lambda: flint.arb_series([flint.arb(z).sqrt()]),
            "erf": lambda: x.erf(),
            "sigmoid": lambda: one / (one + (-x).exp()),
            "silu": lambda: x / (one + (-x).exp()),
            "softplus": lambda: (one + x.exp()).log(),
            "tanh": lambda: one - 2 * one / (one + (2 * x).exp()),
            "normal_cdf": lambda: (-x / flint.arb(2).sqrt()).erfc() / 2,
            "sin": lambda: x.sin(),
        }[name]()
        return [series[k] * math.factorial(k) for k in range(order + 1)]


class _cap:
    """Length to which power series are kept."""

    def __init__(self, cap: int):
        self.cap = cap

    def __enter__(self):
        self.old, flint.ctx.cap = flint.ctx.cap, self.cap

    def __exit__(self, *_):
        flint.ctx.cap = self.old
