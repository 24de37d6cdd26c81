"""Errors against formulas and torch.func."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.func import grad, hessian, vmap

from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training.errors import Errors, evaluate, score, table
from sobolev_lib.training.gauss_newton import levenberg_marquardt
from sobolev_lib.training.loss import SobolevLoss, balance_by_moments
from sobolev_lib.training.uncertainty import noise_floor
from tests.oracles import plain_network

F64 = torch.float64


def net_and_points(activation="silu", n=9):
    generator = torch.Generator().manual_seed(2)
    net = Surrogate([3, 5, 1], activation, gain=1.5, generator=generator)
    x = torch.randn(n, 3, dtype=F64, generator=generator)
    return net.set_scaling(2 * x, x[:, 0]), x


def test_errors_agree_with_torch_func():
    net, x = net_and_points()
    u = torch.tensor([0.5, -1.0, 2.0], dtype=F64)
    generator = torch.Generator().manual_seed(3)
    truth = SimpleNamespace(
        price=torch.randn(9, dtype=F64, generator=generator),
        delta=torch.randn(9, 3, dtype=F64, generator=generator),
        gamma=torch.randn(9, dtype=F64, generator=generator),
    )
    f = lambda point: plain_network(net, dict(net.named_parameters()), point)  # noqa: E731
    errors = {
        "price": vmap(f)(x) - truth.price,
        "delta": vmap(grad(f))(x) - truth.delta,
        "gamma": vmap(hessian(f))(x) @ u @ u - truth.gamma,
    }
    ours = evaluate(net, x, truth, direction=u)
    for name, error in errors.items():
        assert ours.rmse[name] == pytest.approx((error.pow(2).sum() / error.numel()).sqrt().item(), rel=1e-12)
        assert ours.maximum[name] == pytest.approx(error.abs().max().item(), rel=1e-12)
    assert ours.widths == (3, 5, 1) and ours.parameters == 26


def test_the_default_direction_moves_all_inputs_together():
    net, x = net_and_points()
    truth = SimpleNamespace(price=net(x).detach(), delta=net.gradient(x).detach(), gamma=net.hessian(x).sum((1, 2)))
    assert max(evaluate(net, x, truth).rmse.values()) < 1e-12


def test_a_relu_network_has_no_curvature():
    net, x = net_and_points("relu")
    truth = SimpleNamespace(
        price=net(x).detach(), delta=net.gradient(x).detach(), gamma=torch.full((9,), 2.0, dtype=F64)
    )
    assert evaluate(net, x, truth).rmse["gamma"] == 2


def test_float32_networks_are_measured_in_their_own_arithmetic():
    net = Surrogate([1, 1], dtype=torch.float32)
    x = torch.ones(2, 1, dtype=F64)
    truth = SimpleNamespace(price=net(x.float()) + 0.25, delta=net.gradient(x.float()), gamma=torch.zeros(2))
    assert evaluate(net, x, truth).rmse["price"] == pytest.approx(0.25, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(price=torch.zeros(4)), r"truth.price: got shape \(4,\), need \(9,\)"),
        (dict(delta=torch.zeros(9)), r"truth.delta: got shape \(9,\), need \(9, 3\)"),
        (dict(gamma=torch.zeros(9, 3)), r"truth.gamma: got shape \(9, 3\), need \(9,\)"),
        (dict(x=torch.zeros(9, 2)), r"x: got shape \(9, 2\), need \(n, 3\)"),
        (dict(direction=torch.zeros(2)), r"direction: got shape \(2,\), need \(3,\)"),
        (dict(price=torch.full((9,), torch.nan)), "truth.price: got 9 non-finite of 9 values, need finite numbers"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, message):
    net, x = net_and_points()
    arguments = dict(x=x, price=torch.zeros(9), delta=torch.zeros(9, 3), gamma=torch.zeros(9), direction=None) | change
    truth = SimpleNamespace(**{name: arguments[name] for name in ("price", "delta", "gamma")})
    with pytest.raises(ValueError, match=message):
        evaluate(net, arguments["x"], truth, direction=arguments["direction"])


def test_the_table_is_aligned_and_in_order():
    errors = Errors((7, 128, 1), 83_713, {"price": 1e-3, "delta": 2.34e-5, "gamma": 0.5}, {})
    lines = table({"a long name": errors, "b": errors}).splitlines()
    assert lines[0].split() == ["network", "parameters", "price", "delta", "gamma"]
    assert lines[1].split()[-4:] == ["83,713", "1.0e-03", "2.3e-05", "5.0e-01"]
    assert lines[2].startswith("b ") and len({len(line) for line in lines}) == 1
    assert str(errors) == "83713 parameters; RMSE: price 1.0e-03, delta 2.3e-05, gamma 5.0e-01"


def test_relative_errors_are_those_over_the_size_of_the_truth():
    net, x = net_and_points()
    value, gradient = (t.detach() for t in net.value_and_gradient(x))
    truth = SimpleNamespace(price=value / 1.25, delta=gradient / 2, gamma=torch.zeros(9))
    errors = evaluate(net, x, truth)
    assert errors.relative["price"] == pytest.approx(0.25) and errors.relative["delta"] == pytest.approx(1.0)
    assert errors.relative["gamma"] == torch.inf


def test_a_quantity_that_is_zero_and_is_met_has_no_relative_error():
    net, x = net_and_points("relu")
    truth = SimpleNamespace(price=net(x).detach(), delta=net.gradient(x).detach(), gamma=torch.zeros(9))
    assert torch.tensor(evaluate(net, x, truth).relative["gamma"]).isnan()


def without_derivatives(x, value):
    return SimpleNamespace(x=x, value=value, gradient=None, hvp=None, directions=None)


def test_the_floor_of_a_linear_fit_is_sigma_times_the_root_of_p_over_n():
    """Noise of one size and sign at random: the mean of leverages is p/n. Slopes: the inverse of the moment matrix."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, dtype=F64, generator=generator) * torch.tensor([1.0, 10.0, 0.1])
    signs = torch.randint(2, (4000,), generator=generator) * 2.0 - 1
    design = torch.cat([x, torch.ones(4000, 1, dtype=F64)], 1)
    solution = torch.linalg.lstsq(design, 0.7 * signs[:, None].double()).solution
    net = Surrogate([3, 1])
    with torch.no_grad():
        net.weights[0].copy_(solution[:3].T)
        net.biases[0].copy_(solution[3])
    loss = SobolevLoss(0, torch.full((1, 1), 5.0, dtype=F64))  # its unit does not matter
    floor = noise_floor(net, without_derivatives(x, 0.7 * signs.double()), loss, x, prior=1e6)
    assert floor.rmse["price"] == pytest.approx(0.7 * (4 / 4000) ** 0.5, rel=5e-3)
    slopes = 0.7**2 * torch.linalg.inv(design.T @ design).diagonal()[:3]
    assert floor.rmse["delta"] == pytest.approx(slopes.mean().sqrt().item(), rel=0.05)
    assert floor.rmse["gamma"] == 0 and floor.parameters == 4
    assert table({"floor": floor}).splitlines()[1].startswith("floor             4")


@pytest.mark.parametrize("order", [0, 1])
def test_the_floor_is_the_scatter_of_repeated_fits(order):
    """A network is fitted to 60 sets of labels with noise that is common to value and gradient and grows with x."""
    generator = torch.Generator().manual_seed(1)
    teacher = Surrogate([2, 3, 1], "tanh", gain=2.0, generator=generator)
    x, points = (torch.randn(n, 2, dtype=F64, generator=generator) for n in (800, 50))
    value, gradient = (t.detach() for t in teacher.value_and_gradient(x))
    truth = SimpleNamespace(
        price=teacher(points), delta=teacher.gradient(points), gamma=teacher.hessian(points).sum((1, 2))
    )
    truth = SimpleNamespace(**{name: t.detach() for name, t in vars(truth).items()})
    errors, floors = [], []
    for _ in range(60):
        noise = torch.randn(800, 2, dtype=F64, generator=generator) * 0.1 * (1 + x[:, :1].abs())
        samples = without_derivatives(x, value + noise[:, 0])
        samples.gradient = gradient + noise.sum(1, keepdim=True)
        loss, net = balance_by_moments(samples, order), teacher.copy()
        list(levenberg_marquardt(net, samples, loss, steps=20))
        errors.append(list(evaluate(net, points, truth).rmse.values()))
        floors.append(list(noise_floor(net, samples, loss, points).rmse.values()))
    found, floor = (torch.tensor(rows).square().mean(0) for rows in (errors, floors))
    spread = torch.tensor(errors).square().std(0) / 60**0.5
    assert (abs(found - floor) < 4.4 * spread + 0.05 * floor).all()  # error level 1e-5; linearised: 5 % more
    assert (spread < 0.2 * floor).all()


def test_a_floor_of_too_large_a_network_or_without_labels_is_refused():
    samples = without_derivatives(torch.zeros(3, 2, dtype=F64), torch.zeros(3, dtype=F64))
    loss = SobolevLoss(0, torch.eye(1, dtype=F64))
    with pytest.raises(ValueError, match="net: got 2127 parameters, need at most 2000"):
        noise_floor(Surrogate([2, 50, 38, 1]), samples, loss, samples.x)
    with pytest.raises(ValueError, match="samples: got no gradient labels, need them at order 1"):
        noise_floor(Surrogate([2, 1]), samples, SobolevLoss(1, torch.eye(3, dtype=F64)), samples.x)
    with pytest.raises(ValueError, match=r"direction: got shape \(3,\), need \(2,\)"):
        noise_floor(Surrogate([2, 1]), samples, loss, samples.x, direction=torch.ones(3))


def test_each_input_has_errors_in_its_own_unit_and_samples_are_a_truth():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 2, dtype=torch.float64, generator=generator) * torch.tensor([1.0, 1e-3])
    net = Surrogate([2, 1]).set_scaling(x, x[:, 0])
    errors = torch.tensor([0.1, 30.0], dtype=torch.float64)
    samples = SimpleNamespace(x=x, value=net(x).detach(), gradient=net.gradient(x).detach() + errors, hvp=None)
    found = evaluate(net, x, samples)
    assert found.by_input == pytest.approx((0.1, 30.0)) and found.rmse["price"] == 0 and math.isnan(found.rmse["gamma"])
    sizes = samples.gradient.square().mean(0).sqrt()
    assert found.relative_by_input == pytest.approx((errors / sizes).tolist())
    samples.gradient_error = torch.full((50, 2), 0.2)
    held_out, noise = score(net, samples)
    assert (
        held_out.by_input == found.by_input
        and noise.rmse["delta"] == pytest.approx(0.2)
        and math.isnan(noise.rmse["price"])
    )


def test_the_floor_of_a_kinked_network_and_of_twin_and_dead_nodes():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(400, 1, dtype=torch.float64, generator=generator)
    value = 2 * x[:, 0] + torch.randn(400, dtype=torch.float64, generator=generator)
    samples = SimpleNamespace(x=x, value=value, gradient=None, hvp=None, directions=None)
    loss = SobolevLoss(order=0, matrix=torch.eye(1, dtype=torch.float64))
    net = Surrogate([1, 3, 1], "relu")
    with torch.no_grad():  # two nodes on the right half, alike; one that is dead
        net.weights[0].copy_(torch.tensor([[1.0], [1.0], [0.0]]))
        net.biases[0].copy_(torch.tensor([0.0, 0.0, -1.0]))
        net.weights[1].copy_(torch.tensor([[1.0, 1.0, 1.0]]))
    floor = noise_floor(net, samples, loss, x, prior=math.inf)
    weights, biases = [net.weights[0][:1], net.weights[1][:, :1] * 2], [net.biases[0][:1], net.biases[1]]
    one = Surrogate.from_layers(weights, biases, "relu", scaling=dict(net.named_buffers()))
    same = noise_floor(one, samples, loss, x, prior=math.inf)
    for name in ("price", "delta"):
        assert floor.rmse[name] == pytest.approx(same.rmse[name], rel=1e-6) and floor.rmse[name] > 0
    assert floor.rmse["gamma"] == 0
