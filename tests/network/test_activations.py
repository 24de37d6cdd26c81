"""Activations against mpmath: values and derivatives in the tails, and every critical point to full precision."""

import mpmath as mp
import pytest
import torch

from sobolev_lib.network.activations import ACTIVATIONS, activation_named

ORACLES = {
    "silu": lambda x: x / (1 + mp.exp(-x)),
    "softplus": lambda x: mp.log1p(mp.exp(x)),
    "tanh": mp.tanh,
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "sin": mp.sin,
}
SMOOTH = sorted(ORACLES)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("k", range(4))
def test_derivatives_agree_with_mpmath(name, k):
    points = [-30.0, -9.5, -4.0, -1.1, -0.3, 0.0, 0.2, 0.9, 2.5, 6.0, 21.0]
    ours = ACTIVATIONS[name].derivative(k)(torch.tensor(points, dtype=torch.float64))
    with mp.workdps(60):
        exact = [mp.diff(ORACLES[name], mp.mpf(x), k) if k else ORACLES[name](mp.mpf(x)) for x in points]
    for x, value, truth in zip(points, ours.tolist(), exact, strict=True):
        # Relative in the tails, where a surrogate's derivatives are small; absolute near a root of the derivative.
        assert abs(value - truth) <= 4e-13 * abs(truth) + 1e-15, (x, value, truth)


@pytest.mark.parametrize("name", ["silu", "softplus", "sigmoid", "tanh"])
def test_left_tail_keeps_relative_accuracy(name):
    k = 1
    ours = ACTIVATIONS[name].derivative(k)(torch.tensor([-40.0], dtype=torch.float64)).item()
    with mp.workdps(60):
        truth = mp.diff(ORACLES[name], mp.mpf(-40), k)
    assert abs(ours / truth - 1) < 1e-13


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("k", range(4))
def test_critical_points_are_all_the_roots_of_the_next_derivative(name, k):
    activation = ACTIVATIONS[name]
    low, high = (-12.0, 12.0) if activation.period is None else (-0.6 * activation.period, 0.6 * activation.period)
    with mp.workdps(50):
        grid = [mp.mpf(low) + mp.mpf(high - low) * (i + mp.mpf("0.317")) / 400 for i in range(400)]
        slopes = [mp.diff(ORACLES[name], x, k + 1) for x in grid]
        roots = [
            mp.findroot(lambda x: mp.diff(ORACLES[name], x, k + 1), (a, b), solver="anderson", tol=1e-30, verify=False)
            for a, b, u, v in zip(grid, grid[1:], slopes, slopes[1:], strict=False)
            if u * v < 0
        ]
    expected = sorted(float(root) for root in roots)
    stated = activation.critical[k]
    if activation.period is not None:
        stated = sorted(
            c + m * activation.period for c in stated for m in (-1, 0, 1) if low < c + m * activation.period < high
        )
    assert len(expected) == len(stated)
    assert all(abs(a - b) <= 2e-16 * max(1, abs(a)) for a, b in zip(expected, stated, strict=True))


def test_relu_is_flat_then_the_identity():
    values = [jet.tolist() for jet in ACTIVATIONS["relu"].jet(torch.tensor([-2.0, 0.0, 3.0]), 2)]
    assert values == [[0, 0, 3], [0, 0, 1], [0, 0, 0]]
    assert not ACTIVATIONS["relu"].smooth


def test_unknown_activation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"activation: got 'swish', need one of 'silu', .*'relu'"):
        activation_named("swish")


def test_derivative_of_order_4_is_refused():
    with pytest.raises(ValueError, match=r"k: got 4, need an integer from 0 to 3"):
        ACTIVATIONS["silu"].derivative(4)
