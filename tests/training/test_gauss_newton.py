"""The Jacobian against torch.func; the method against a problem whose solution is known."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.func import jacrev

from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training.gauss_newton import Damping, jacobian, levenberg_marquardt
from sobolev_lib.training.loss import SobolevLoss, balance_by_moments, stack
from tests.oracles import plain_outputs

F64 = torch.float64


@pytest.mark.parametrize("widths", [[3, 4, 2, 1], [3, 1]])
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_jacobian_agrees_with_torch_func(order, shared, widths):
    generator = torch.Generator().manual_seed(order)
    x = torch.randn(5, 3, dtype=F64, generator=generator)
    net = Surrogate(widths, "tanh", generator=generator).set_scaling(2 * x, 3 * x[:, 0])
    directions = torch.randn(*(() if shared else (5,)), 2, 3, dtype=F64, generator=generator) if order == 2 else None
    outputs, ours = jacobian(net, x, order=order, directions=directions)
    each = None if directions is None else directions.expand(5, 2, 3)
    f = lambda parameters: stack(*plain_outputs(net, parameters, x, order, each))  # noqa: E731
    parameters = dict(net.named_parameters())
    oracle = jacrev(f)(parameters)
    names = [f"{kind}.{layer}" for layer in range(len(widths) - 1) for kind in ("weights", "biases")]
    torch.testing.assert_close(outputs, f(parameters))
    torch.testing.assert_close(ours, torch.cat([oracle[name].flatten(2) for name in names], 2))


@pytest.mark.parametrize("order", [0, 1])
def test_directions_of_the_samples_do_not_matter_below_order_two(order):
    x = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    net = Surrogate([3, 2, 1], gain=1.0)
    for with_directions, without in zip(
        jacobian(net, x, order=order, directions=torch.eye(3, dtype=F64)), jacobian(net, x, order=order), strict=True
    ):
        torch.testing.assert_close(with_directions, without)


def labelled(net, x, order=1):
    with torch.no_grad():
        value, gradient = net.value_and_gradient(x)
        directions = torch.eye(x.shape[1], dtype=F64)[:1] if order == 2 else None
        hvp = net.hvp(x, directions) if order == 2 else None
    return SimpleNamespace(x=x, value=value, gradient=gradient, hvp=hvp, directions=directions)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_perturbed_network_finds_back_to_the_one_that_made_the_labels(order):
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(400, 2, dtype=F64, generator=generator)
    truth = Surrogate([2, 3, 1], "tanh", gain=2.0, generator=generator)
    samples = labelled(truth, x, order)
    net = truth.copy()
    with torch.no_grad():
        for weight in net.weights:
            weight.add_(0.05 * torch.randn(weight.shape, dtype=F64, generator=generator))
    losses = list(levenberg_marquardt(net, samples, balance_by_moments(samples, order), steps=60, prior=math.inf))
    assert losses[-1] < 1e-20
    torch.testing.assert_close(net(x), truth(x), atol=1e-9, rtol=0)


def test_one_undamped_step_solves_a_linear_problem():
    """A network without hidden layers is linear in its parameters: one step is least squares."""
    x = torch.randn(50, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    value = x @ torch.tensor([1.0, -2.0, 0.5], dtype=F64) + 3 + 0.1 * torch.sin(20 * x[:, 0])
    samples = SimpleNamespace(x=x, value=value, gradient=None, hvp=None, directions=None)
    net = Surrogate([3, 1])
    list(
        levenberg_marquardt(
            net, samples, SobolevLoss(0, torch.eye(1, dtype=F64)), steps=1, damping=1e-14, prior=math.inf
        )
    )
    design = torch.cat([x, torch.ones(50, 1, dtype=F64)], 1)
    expected = torch.linalg.lstsq(design, value[:, None]).solution[:, 0]
    torch.testing.assert_close(torch.cat([net.weights[0][0], net.biases[0]]), expected, atol=1e-10, rtol=0)


def test_the_loss_never_grows_without_a_ridge():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(300, 2, dtype=F64, generator=generator)
    samples = labelled(Surrogate([2, 5, 1], "sin", generator=generator), x)
    net = Surrogate([2, 3, 1], generator=generator)
    losses = list(levenberg_marquardt(net, samples, balance_by_moments(samples, 1), steps=30, prior=math.inf))
    assert len(losses) > 3 and all(b < a for a, b in itertools.pairwise(losses))


def test_the_ridge_is_that_of_bayesian_linear_regression():
    """For a linear network the fixed point of the ridge is known: (A + mu I) theta = b, with mu = L / (n s^2)."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(30, 3, dtype=F64, generator=generator)
    value = x @ torch.tensor([1.0, -2.0, 0.5], dtype=F64) + torch.randn(30, dtype=F64, generator=generator)
    samples = SimpleNamespace(x=x, value=value, gradient=None, hvp=None, directions=None)
    net, prior = Surrogate([3, 1]), 0.7
    losses = list(
        levenberg_marquardt(net, samples, SobolevLoss(0, torch.eye(1, dtype=F64)), steps=200, prior=prior, tolerance=0)
    )
    design = torch.cat([x, torch.ones(30, 1, dtype=F64)], 1)
    ridge = losses[-1] / (30 * prior**2)
    expected = torch.linalg.solve(design.T @ design / 30 + ridge * torch.eye(4, dtype=F64), design.T @ value / 30)
    torch.testing.assert_close(torch.cat([net.weights[0][0], net.biases[0]]), expected, atol=1e-8, rtol=0)


def test_a_run_can_be_taken_up_again_from_weights_and_damping():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(300, 2, dtype=F64, generator=generator)
    samples = labelled(Surrogate([2, 5, 1], "sin", generator=generator), x)
    start, loss = Surrogate([2, 3, 1], generator=generator), balance_by_moments(samples, 1)
    whole, tries = start.copy(), Damping()
    losses = list(levenberg_marquardt(whole, samples, loss, steps=30, damping=tries))
    net, damping = start.copy(), Damping()
    first = list(itertools.islice(levenberg_marquardt(net, samples, loss, steps=30, damping=damping), 4))
    net, damping = net.copy(), replace(damping)
    assert first + list(levenberg_marquardt(net, samples, loss, steps=30, damping=damping)) == losses
    assert damping == tries
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), whole.parameters(), strict=True))


def test_refused_steps_leave_no_trace():
    """One step is allowed, and it is refused: undamped, from a point where the network is far from linear."""
    x = torch.linspace(-1, 1, 50, dtype=F64).reshape(-1, 1)
    samples = SimpleNamespace(x=x, value=torch.sin(9 * x[:, 0]), gradient=None, hvp=None, directions=None)
    net = Surrogate([1, 4, 1], "tanh", gain=1.0)
    before, damping = [p.clone() for p in net.parameters()], Damping(1e-9)
    loss = SobolevLoss(0, torch.eye(1, dtype=F64))
    assert list(levenberg_marquardt(net, samples, loss, steps=1, damping=damping)) == []
    assert damping.tries == 1 and damping.value > 1e-9 and not damping.ended
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))


def test_bad_arguments_are_refused_before_the_first_step():
    x = torch.zeros(3, 2, dtype=F64)
    net = Surrogate([2, 1])
    with pytest.raises(ValueError, match="steps: got 0, need an integer >= 1"):
        next(levenberg_marquardt(net, labelled(net, x), SobolevLoss(1, torch.eye(3, dtype=F64)), steps=0))
    with pytest.raises(ValueError, match="prior: got 0, need a number > 0"):
        next(levenberg_marquardt(net, labelled(net, x), SobolevLoss(1, torch.eye(3, dtype=F64)), steps=1, prior=0))
    with pytest.raises(ValueError, match="damping: got -1"):
        next(levenberg_marquardt(net, labelled(net, x), SobolevLoss(1, torch.eye(3, dtype=F64)), steps=1, damping=-1))
