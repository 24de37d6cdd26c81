"""The explicit pass and its gradient against torch.func, which knows neither."""

import pytest
import torch
from torch.func import functional_call, grad, hessian, jacrev, jvp, vmap

from sobolev_lib.network.activations import ACTIVATIONS
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training.gauss_newton import jacobian
from tests.oracles import plain_network, plain_outputs

SMOOTH = [name for name, activation in ACTIVATIONS.items() if activation.smooth]


def network_and_points(name, widths=(4, 6, 5, 3, 1), n=7):
    generator = torch.Generator().manual_seed(len(name))
    net = Surrogate(list(widths), name, generator=generator)
    with torch.no_grad():
        for bias in net.biases:
            bias.normal_(generator=generator)
    x = torch.randn(n, widths[0], dtype=torch.float64, generator=generator)
    y = torch.randn(n, dtype=torch.float64, generator=generator)
    return net.set_scaling(3 * x + 1, 2 * y), 3 * x + 1, generator


@pytest.mark.parametrize("widths", [(4, 6, 5, 3, 1), (2, 3, 1), (3, 1)])
@pytest.mark.parametrize("name", SMOOTH)
def test_value_gradient_hvp_and_hessian_agree_with_torch_func(name, widths):
    net, x, generator = network_and_points(name, widths)
    directions = torch.randn(2, widths[0], dtype=torch.float64, generator=generator)
    parameters = dict(net.named_parameters())
    f = lambda point: plain_network(net, parameters, point)  # noqa: E731
    hessians = vmap(hessian(f))(x)
    torch.testing.assert_close(net(x), vmap(f)(x))
    torch.testing.assert_close(net.gradient(x), vmap(grad(f))(x))
    torch.testing.assert_close(net.hvp(x, directions), torch.einsum("nij,kj->nki", hessians, directions))
    torch.testing.assert_close(net.hessian(x), hessians)


@pytest.mark.parametrize("widths", [(4, 6, 5, 3, 1), (2, 3, 1), (3, 1)])
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("name", SMOOTH)
def test_parameter_gradients_of_a_sobolev_loss_agree_with_torch_func(name, order, widths):
    net, x, generator = network_and_points(name, widths)
    d = widths[0]
    targets = [torch.randn(len(x), *shape, dtype=torch.float64, generator=generator) for shape in ((), (d,), (2, d))]
    directions = torch.randn(len(x), 2, d, dtype=torch.float64, generator=generator)

    def distance(outputs):
        return sum(((out - target) ** 2).sum() for out, target in zip(outputs, targets, strict=False))

    def oracle(parameters):
        return distance(plain_outputs(net, parameters, x, order, directions))

    expected = grad(oracle)(dict(net.named_parameters()))
    loss = distance(net.taylor(x, order=order, directions=directions if order == 2 else None))
    loss.backward()
    for key, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key], msg=lambda text, key=key: f"{key}: {text}")


def test_differentiating_with_respect_to_the_inputs_works_as_well():
    net, x, _ = network_and_points("silu")
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).sum(), x)
    torch.testing.assert_close(gradient, net.gradient(x.detach()))


def test_functional_call_sees_other_parameters():
    net, x, _ = network_and_points("tanh")
    doubled = {key: 2 * parameter for key, parameter in net.named_parameters() if key.endswith("3")}
    expected = 2 * (net(x) - net.output_shift) + net.output_shift
    torch.testing.assert_close(functional_call(net, doubled, (x,)), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_gradient_can_be_differentiated_by_the_inputs(dtype):
    """The derivative of x . grad N(x) is grad N + H x; it was taken for a constant once."""
    net, x, _ = network_and_points("silu")
    net, x = net.to(dtype), x.to(dtype).requires_grad_()
    (found,) = torch.autograd.grad((x * net.gradient(x)).sum(), x, create_graph=True)
    hessians, x0 = net.hessian(x.detach()), x.detach()
    expected = net.gradient(x0) + torch.einsum("nij,nj->ni", hessians, x0)
    torch.testing.assert_close(found, expected)
    step = 1e-5 if dtype == torch.float64 else 1e-2  # central differences know no derivative at all
    f = lambda t: ((x0 + t) * net.gradient(x0 + t)).sum(1)  # noqa: E731
    differences = (f(step * torch.eye(4, dtype=dtype)[0]) - f(-step * torch.eye(4, dtype=dtype)[0])) / (2 * step)
    torch.testing.assert_close(found[:, 0], differences, rtol=1e-3 if dtype == torch.float32 else 1e-7, atol=1e-4)
    (third,) = torch.autograd.grad(found.sum(), x)
    assert third.isfinite().all() and third.abs().max() > 0


@pytest.mark.parametrize("name", SMOOTH)
def test_the_transforms_of_torch_func_agree_with_the_explicit_pass(name):
    net, x, generator = network_and_points(name)
    direction = torch.randn(4, dtype=torch.float64, generator=generator)
    value = lambda point: net(point[None])[0]  # noqa: E731
    torch.testing.assert_close(vmap(value)(x), net(x))
    torch.testing.assert_close(vmap(grad(value))(x), net.gradient(x))
    torch.testing.assert_close(vmap(hessian(value))(x), net.hessian(x))
    torch.testing.assert_close(jvp(value, (x[0],), (direction,))[1], net.gradient(x[:1])[0] @ direction)
    slope = lambda point: net.gradient(point[None])[0]  # noqa: E731
    torch.testing.assert_close(vmap(jacrev(slope))(x), net.hessian(x))
    torch.testing.assert_close(
        jvp(slope, (x[0],), (direction,))[1], net.hvp(x[:1], direction[None])[0, 0], rtol=1e-10, atol=1e-12
    )
    of_parameters = lambda parameters, point: functional_call(net, parameters, (point[None],))[0]  # noqa: E731
    parameters = {key: p.detach() for key, p in net.named_parameters()}
    per_sample = vmap(grad(of_parameters), (None, 0))(parameters, x)
    _, columns = jacobian(net, x, order=0)
    ordered = [per_sample[f"{kind}.{i}"].flatten(1) for i in range(len(net.weights)) for kind in ("weights", "biases")]
    torch.testing.assert_close(torch.cat(ordered, 1), columns[:, 0])


def test_autocast_does_not_take_half_the_digits():
    net, x, _ = network_and_points("silu")
    net, x = net.float(), x.float()
    with torch.autocast("cpu"):
        found = net.value_and_gradient(x)
    for one, other in zip(found, net.value_and_gradient(x), strict=True):
        assert torch.equal(one, other)
