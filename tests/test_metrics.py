"""Errors against formulas and torch.func."""

from types import SimpleNamespace

import pytest
import torch
from torch.func import grad, hessian, vmap

from sobolev_lib.metrics import Errors, evaluate, table
from sobolev_lib.network import Surrogate
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
