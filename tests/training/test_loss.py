"""The loss against torch.func; the balances against closed forms, Aitken's estimator and changes of units."""

import math
from types import SimpleNamespace

import pytest
import torch

from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training import loss as sobolev
from sobolev_lib.training.gauss_newton import levenberg_marquardt
from sobolev_lib.training.loss import (
    SobolevLoss,
    balance_by_covariance,
    balance_by_moments,
    check_labels,
    stack,
    take,
    targets,
)
from tests.oracles import plain_outputs

F64 = torch.float64


def random_samples(n=6, d=3, k=2, shared=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, dtype=F64, generator=generator)  # noqa: E731
    directions = draw(k, d) if shared else draw(n, k, d)
    return SimpleNamespace(x=draw(n, d), value=draw(n), gradient=draw(n, d), hvp=draw(n, k, d), directions=directions)


def some_network(d=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(20, d, dtype=F64, generator=generator)
    return Surrogate([d, 4, 1], "tanh", gain=1.0, generator=generator).set_scaling(2 * x + 1, 3 * x[:, 0])


def test_stacked_outputs_are_value_then_gradient_then_products_direction_by_direction():
    samples = random_samples()
    row = [samples.value[4], *samples.gradient[4], *samples.hvp[4, 0], *samples.hvp[4, 1]]
    assert torch.equal(targets(samples, 2)[4], torch.stack(row))
    assert torch.equal(targets(samples, 1), stack(samples.value, samples.gradient))
    assert torch.equal(targets(samples, 0), samples.value[:, None])


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_loss_is_the_mean_of_squared_balanced_residuals(order, shared):
    samples, net = random_samples(shared=shared), some_network()
    q = (1, 4, 10)[order]
    matrix = torch.randn(q, q, dtype=F64, generator=torch.Generator().manual_seed(2))
    each = samples.directions.expand(6, 2, 3)
    outputs = stack(*plain_outputs(net, dict(net.named_parameters()), samples.x, order, each))
    expected = sum(((matrix @ (o - t)) ** 2).sum() for o, t in zip(outputs, targets(samples, order), strict=True)) / 6
    torch.testing.assert_close(SobolevLoss(order, matrix)(net, samples), expected)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_balanced_by_moments_each_order_has_the_share_one_for_the_best_constant(order):
    """The constant mean value, with zero derivatives, is off by one standard deviation, and by all of each slope."""
    n = 40
    samples = random_samples(n=n)
    net = Surrogate([3, 1])
    with torch.no_grad():
        net.weights[0].zero_()
        net.biases[0].fill_(samples.value.mean())
    loss = balance_by_moments(samples, order)(net, samples)
    assert loss.item() == pytest.approx((n - 1) / n + order, rel=1e-12)  # std divides by n - 1


@pytest.mark.parametrize("order", [0, 1, 2])
def test_balance_by_moments_does_not_depend_on_units(order):
    """Value in cents, inputs in other units each: derivatives change with both, the loss does not."""
    samples, net = random_samples(n=30), some_network()
    unit = torch.tensor([10.0, 0.5, 3.0], dtype=F64)
    other = SimpleNamespace(
        x=samples.x * unit,
        value=100 * samples.value,
        gradient=100 * samples.gradient / unit,
        hvp=100 * samples.hvp / unit,
        directions=samples.directions * unit,
    )
    scaling = {
        "input_shift": net.input_shift * unit,
        "input_scale": net.input_scale * unit,
        "output_shift": net.output_shift * 100,
        "output_scale": net.output_scale * 100,
    }
    changed = Surrogate.from_layers(net.weights, net.biases, net.activation, scaling=scaling)
    a, b = (balance_by_moments(s, order)(m, s) for m, s in ((net, samples), (changed, other)))
    torch.testing.assert_close(a, b)


def test_a_component_that_is_always_zero_is_held_to_zero_with_the_largest_scale():
    samples = random_samples(n=50)
    samples.gradient[:, 1] = 0
    largest = samples.gradient.square().mean(0).sqrt().max()
    weights = balance_by_moments(samples, 1).matrix.diagonal()
    assert weights[2].item() == pytest.approx(1 / (largest.item() * 3**0.5), rel=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_products_that_are_zero_up_to_rounding_weigh_as_much_as_their_units_say(shared):
    """In one input, with directions of length one: a second derivative's natural size is std(V) / std(x)^2."""
    samples = random_samples(n=40, d=1, k=1, shared=shared)
    samples.directions = torch.ones_like(samples.directions)
    samples.hvp = 1e-17 * samples.hvp
    weight = balance_by_moments(samples, 2).matrix[2, 2].item()
    assert weight == pytest.approx((samples.x.std() ** 2 / samples.value.std()).item(), rel=1e-12)


def test_labels_that_are_all_zero_have_weight_one():
    samples = random_samples(n=5)
    samples.value = torch.zeros(5, dtype=F64)
    assert balance_by_moments(samples, 0).matrix.item() == 1


@pytest.mark.parametrize("order", [0, 1, 2])
def test_balance_by_covariance_whitens_the_residuals(order):
    """Up to the floor: an eigenvalue e of the correlation becomes e / (e + floor), and the loss is their sum."""
    floor = 0.01
    samples, net = random_samples(n=200), some_network()
    loss = balance_by_covariance(net, samples, order, floor=floor)
    plain = SobolevLoss(order, torch.eye(len(loss.matrix), dtype=F64)).residuals(net, samples)
    correlation = plain.T @ plain / len(plain)
    scale = correlation.diagonal().sqrt()
    eigenvalues = torch.linalg.eigvalsh(correlation / scale / scale[:, None])
    assert loss(net, samples).item() == pytest.approx((eigenvalues / (eigenvalues + floor)).sum().item(), rel=1e-9)
    whitened = loss.residuals(net, samples)
    ours = torch.linalg.eigvalsh(whitened.T @ whitened / len(whitened))
    torch.testing.assert_close(ours, eigenvalues / (eigenvalues + floor))


def test_weights_of_noiseless_components_are_limited_by_the_floor():
    samples, net = random_samples(n=100), Surrogate([3, 1])
    with torch.no_grad():
        samples.value = net(samples.x)  # no residual at all
        samples.gradient = net.gradient(samples.x) + 0.1 * samples.gradient[:, :1]  # three times the same residual
    matrix = balance_by_covariance(net, samples, 1, floor=1e-4).matrix
    assert torch.isfinite(matrix).all()
    assert torch.linalg.cond(matrix).item() == pytest.approx(((3 + 1e-4) / 1e-4) ** 0.5, rel=1e-6)
    spread = samples.gradient.sub(net.gradient(samples.x)).square().mean(0).sqrt()  # stands in for the value's, too
    weights = torch.linalg.svdvals(balance_by_covariance(net, samples, 1).matrix * torch.cat([spread[:1], spread]))
    assert weights.max().item() == pytest.approx(10, rel=1e-6)  # by default


def linear_problem(noise, n=300, d=2):
    """A linear network, whose value and gradient are linear in its parameters; the design matrix is known."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, d, dtype=F64, generator=generator)
    design = torch.zeros(n, 1 + d, d + 1, dtype=F64)  # outputs (value, gradient) by parameters (w, b)
    design[:, 0, :d], design[:, 0, d], design[:, 1:, :d] = x, 1, torch.eye(d, dtype=F64)
    truth = torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    labels = design @ truth + torch.randn(n, 1 + d, dtype=F64, generator=generator) @ noise.T
    return SimpleNamespace(x=x, value=labels[:, 0], gradient=labels[:, 1:], hvp=None, directions=None), design


def test_the_covariance_balance_gives_aitkens_estimator():
    noise = torch.tensor([[1.0, 0, 0], [0.9, 0.2, 0], [0.5, 0.1, 0.3]], dtype=F64)
    samples, design = linear_problem(noise)
    net = Surrogate([2, 1])
    list(levenberg_marquardt(net, samples, balance_by_moments(samples, 1), steps=5, damping=1e-14, prior=math.inf))
    fitted = torch.cat([net.weights[0][0], net.biases[0]]).detach()
    residual = (design @ fitted - targets(samples, 1)).reshape(300, 3)
    precision = torch.linalg.inv(residual.T @ residual / 300)
    loss = balance_by_covariance(net, samples, 1, floor=1e-12)
    list(levenberg_marquardt(net, samples, loss, steps=5, damping=1e-14, prior=math.inf))
    weighted = design.transpose(1, 2) @ precision
    aitken = torch.linalg.solve((weighted @ design).sum(0), (weighted @ targets(samples, 1)[..., None]).sum(0))[:, 0]
    ours = torch.cat([net.weights[0][0], net.biases[0]]).detach()
    torch.testing.assert_close(ours, aitken, rtol=1e-7, atol=1e-9)
    assert (ours - fitted).norm() > 1e-3  # ordinary least squares is something else


@pytest.mark.parametrize(
    ("order", "missing", "message"),
    [
        (1, ["gradient"], "samples: got no gradient labels, need them at order 1"),
        (2, ["hvp"], "samples: got no hvp labels, need them at order 2"),
        (2, ["gradient", "hvp", "directions"], "samples: got no gradient and no hvp and no directions labels"),
    ],
)
def test_missing_labels_are_named(order, missing, message):
    samples = random_samples()
    for name in missing:
        setattr(samples, name, None)
    for call in (check_labels, balance_by_moments):
        with pytest.raises(ValueError, match=message):
            call(samples, order)
    with pytest.raises(ValueError, match=message):
        balance_by_covariance(some_network(), samples, order)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="order: got 3, need an integer from 0 to 2"):
        check_labels(random_samples(), 3)
    with pytest.raises(TypeError, match="order: got bool True, need an integer from 0 to 2"):
        balance_by_moments(random_samples(), True)
    with pytest.raises(ValueError, match="floor: got 0, need a finite number > 0"):
        balance_by_covariance(some_network(), random_samples(), 1, floor=0)


@pytest.mark.parametrize("shared", [True, False])
def test_rows_are_taken_with_the_labels_of_their_order_only(shared):
    samples, rows = random_samples(shared=shared), torch.tensor([4, 1])
    second = take(samples, rows, 2)
    for name in ("x", "value", "gradient", "hvp"):
        assert torch.equal(getattr(second, name), getattr(samples, name)[rows])
    assert torch.equal(second.directions, samples.directions if shared else samples.directions[rows])
    assert take(samples, rows, 1).hvp is None and take(samples, slice(0, 2), 0).gradient is None


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("n", [5, 300])
def test_the_gradient_in_blocks_is_that_of_automatic_differentiation(order, shared, n, monkeypatch):
    monkeypatch.setattr(sobolev, "BLOCK_BYTES", 1)  # the least: 64 rows
    generator = torch.Generator().manual_seed(order)
    random = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    samples = SimpleNamespace(x=random(n, 3), value=random(n), gradient=random(n, 3), hvp=random(n, 2, 3))
    samples.directions = random(2, 3) if shared else random(n, 2, 3)
    net = Surrogate([3, 4, 5, 1], "tanh", gain=1.0).set_scaling(2 * samples.x, 3 * samples.value)
    q = (1, 4, 10)[order]
    loss = SobolevLoss(order, random(q, q))
    value, gradients = loss.value_and_gradients(net, samples)
    expected = loss(net, samples)
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-12)
    parameters = [p for layer in zip(net.weights, net.biases, strict=True) for p in layer]
    for ours, parameter in zip(gradients, parameters, strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("matrix", [torch.eye(2)[:1], torch.eye(2) * torch.nan, None])
def test_a_matrix_that_is_no_balance_is_refused_and_a_good_one_is_copied(matrix):
    with pytest.raises((TypeError, ValueError), match=r"^matrix: got"):
        SobolevLoss(order=1, matrix=matrix)
    given = torch.eye(2)
    loss = SobolevLoss(order=1, matrix=given)
    given.fill_(9.0)
    assert torch.equal(loss.matrix, torch.eye(2))


def test_a_loss_does_not_stretch_samples_to_the_inputs_of_another_network():
    x = torch.zeros(3, 1, dtype=torch.float64)
    samples = SimpleNamespace(x=x, value=x[:, 0], gradient=None, hvp=None, directions=None)
    with pytest.raises(ValueError, match=r"^x: got shape \(3, 1\), need \(n, 2\)"):
        SobolevLoss(order=0, matrix=torch.eye(1).double())(Surrogate([2, 3, 1]), samples)
